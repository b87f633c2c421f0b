"""Starts and stops the AWS emulator: MiniStack, a plain local process without Docker."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import boto3
import requests
from botocore.config import Config

from local.ports import HOST, free_port, is_free

REGION = "us-east-1"
ACCOUNT = "000000000000"
START_LIMIT_S = 60.0
STOP_LIMIT_S = 30.0
WORKERS_LIMIT_S = 3.0
START_TRIES = 3
LOG_TAIL_LINES = 30
PID_FILE = "emulator.pid"

# A presigned URL works on the emulator only in path style with version 4 signatures.
S3_CONFIG = Config(signature_version="s3v4", s3={"addressing_style": "path"})


class EmulatorError(Exception):
    """The emulator could not be started or stopped."""


class Emulator:
    """One emulator with its state under one directory.

    The state outlives a clean stop, so a second start in the same directory goes on with it. With `enforce_iam` the
    emulator checks the functions' role policies; by default it lets everything pass. A port of None means any free
    one. `executable` is what is run, by default the `ministack` of this environment.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        enforce_iam: bool = False,
        executable: Path | None = None,
        stop_limit_s: float = STOP_LIMIT_S,
    ) -> None:
        self.directory = directory.resolve()
        self._executable = executable
        self._stop_limit_s = stop_limit_s
        self.enforce_iam = enforce_iam
        self._wanted_port = port
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        if self._port is None:
            raise EmulatorError("the emulator was not started")
        return self._port

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def url(self) -> str:
        """What `AWS_ENDPOINT_URL` must be to reach it."""
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """The file that takes everything the emulator prints."""
        return self.directory / "emulator.log"

    @property
    def aws_environment(self) -> Mapping[str, str]:
        """The environment variables under which AWS tools reach this emulator and nothing else."""
        return aws_environment(self.url)

    def session(self) -> boto3.Session:
        """A boto3 session with the emulator's credentials; its clients need `endpoint_url=emulator.url`."""
        return session()

    def start(self) -> Self:
        """Starts it and returns once it is healthy; raises `EmulatorError` with its log's tail if it is not in time."""
        if self._process is not None:
            raise EmulatorError("the emulator is already running")
        self.directory.mkdir(parents=True, exist_ok=True)
        stop_leftover(self.directory)
        for directory in ("tmp", "state", "s3"):
            (self.directory / directory).mkdir(exist_ok=True)
        for leftover in (self.directory / "tmp").iterdir():  # workers unpack their code here and never remove it
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        tries = 1 if self._wanted_port is not None else START_TRIES  # a free port may be gone a moment later
        for number in range(1, tries + 1):
            try:
                self._start_once()
            except EmulatorError:
                if number == tries:
                    raise
            else:
                break
        return self

    def stop(self) -> None:
        """Stops it cleanly, which is when it writes its state; kills it, and says so, only if it does not end."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(self._stop_limit_s)
            except subprocess.TimeoutExpired:
                print(
                    f"the emulator (pid {process.pid}) did not end within {self._stop_limit_s:.0f} s and was killed; "
                    "what it held since its last clean stop is lost",
                    file=sys.stderr,
                )
                process.kill()
                process.wait()
        _end_workers(process.pid)
        self._pid_file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _pid_file(self) -> Path:
        return self.directory / PID_FILE

    def _start_once(self) -> None:
        self._port = self._wanted_port if self._wanted_port is not None else free_port()
        if not is_free(self._port):
            raise EmulatorError(f"port {self._port} is taken")
        self.log.touch()
        log_start = self.log.stat().st_size
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._executable or _executable())],
                env=self._environment(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is for whoever started it, who then stops it cleanly
            )
        self._pid_file.write_text(f"{self._process.pid}\n")
        try:
            self._wait_until_ready(self._process, log_start)
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self, process: subprocess.Popen[bytes], log_start: int) -> None:
        limit = time.monotonic() + START_LIMIT_S
        while not _healthy(self.url):
            if process.poll() is not None:
                raise EmulatorError(
                    f"the emulator ended with status {process.returncode} on start-up; its log says:\n"
                    + self._log_tail(log_start)
                )
            if time.monotonic() > limit:
                raise EmulatorError(
                    f"the emulator was not ready within {START_LIMIT_S:.0f} s; its log says:\n"
                    + self._log_tail(log_start)
                )
            time.sleep(0.05)

    def _log_tail(self, start: int) -> str:
        with self.log.open("rb") as log:
            log.seek(start)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:]) or "  (nothing)"

    def _environment(self) -> dict[str, str]:
        """A clean environment: the functions inherit it, so no proxy or CA bundle of the caller's may leak in."""
        environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "HOME": os.environ.get("HOME", str(self.directory)),
            "TMPDIR": str(self.directory / "tmp"),
            "BIND_HOST": HOST,
            "GATEWAY_PORT": str(self.port),
            "IOT_MTLS_ENABLED": "0",
            "PERSIST_STATE": "1",
            "STATE_DIR": str(self.directory / "state"),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self.directory / "s3"),
        }
        if self.enforce_iam:
            environment |= {"AUTH": "true", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        return environment


def aws_environment(endpoint_url: str) -> dict[str, str]:
    """The environment variables under which AWS tools reach the emulator at the URL and nothing else."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,  # no profile of the user's may turn this into a real account
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def session() -> boto3.Session:
    """A boto3 session with the emulator's credentials; its clients need the emulator's `endpoint_url`."""
    return boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)


def _executable() -> Path:
    path = Path(sys.executable).with_name("ministack")
    if not path.exists():
        raise EmulatorError(f"{path} does not exist: install the development requirements into this environment")
    return path


def _healthy(url: str) -> bool:
    try:
        with requests.Session() as http:
            http.trust_env = False  # a proxy must not answer for it
            return http.get(f"{url}/_ministack/health", timeout=2).ok
    except requests.RequestException:
        return False


def stop_leftover(directory: Path) -> None:
    """Stops the emulator that a killed run left behind in the directory: it would hold its port and the state."""
    pid_file = directory / PID_FILE
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return
    if _is_emulator(pid):
        os.kill(pid, signal.SIGTERM)
        limit = time.monotonic() + STOP_LIMIT_S
        while _is_emulator(pid):
            if time.monotonic() > limit:
                raise EmulatorError(f"an emulator (pid {pid}) of an earlier run does not end; stop it first")
            time.sleep(0.1)
        _end_workers(pid)
    pid_file.unlink(missing_ok=True)


def _end_workers(group: int) -> None:
    """Ends the functions' processes that outlived their emulator: its process group, of which it was the leader.

    A poller in the middle of its minute would go on asking providers; the state is saved by now.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        limit = time.monotonic() + WORKERS_LIMIT_S
        while time.monotonic() < limit:
            if not _group_runs(group):
                return
            with suppress(ProcessLookupError):
                os.killpg(group, number)
            time.sleep(0.05)


def _group_runs(group: int) -> bool:
    """Whether any process of the group is more than a zombie."""
    shown = subprocess.run(["ps", "-A", "-o", "pgid=", "-o", "stat="], capture_output=True, text=True, check=False)
    processes = (line.split() for line in shown.stdout.splitlines())
    return any(line[0] == str(group) and not line[1].startswith("Z") for line in processes if len(line) == 2)


def _is_emulator(pid: int) -> bool:
    shown = subprocess.run(
        ["ps", "-ww", "-p", str(pid), "-o", "stat=", "-o", "command="], capture_output=True, text=True, check=False
    )
    return "ministack" in shown.stdout and not shown.stdout.lstrip().startswith("Z")
