"""Starting and stopping the emulator."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local.emulator import Emulator, EmulatorError, aws_environment
from local.ports import free_port, listen

HEALTHY = """
import http.server, os, signal, sys
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
{prelude}
open("environment", "w").write("\\n".join(f"{{name}}={{value}}" for name, value in os.environ.items()))
http.server.HTTPServer(("127.0.0.1", int(os.environ["GATEWAY_PORT"])), Health).serve_forever()
"""


def program(directory: Path, text: str) -> Path:
    """An executable that stands in for the emulator."""
    path = directory / "ministack-stand-in"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


def environment_of(emulator: Emulator) -> dict[str, str]:
    lines = (emulator.directory / "environment").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.emulator
def test_what_it_holds_survives_a_clean_stop(tmp_path: Path) -> None:
    with Emulator(tmp_path / "emulator") as first:
        first.session().client("s3", endpoint_url=first.url).create_bucket(Bucket="kept")
    assert not first.alive
    with Emulator(tmp_path / "emulator") as second:
        buckets = second.session().client("s3", endpoint_url=second.url).list_buckets()["Buckets"]
    assert [bucket["Name"] for bucket in buckets] == ["kept"]


def test_its_environment_holds_nothing_of_the_callers_that_functions_must_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "AWS_PROFILE", "AWS_CA_BUNDLE", "PYTHONPATH"):
        monkeypatch.setenv(name, "/surprise")
    with Emulator(tmp_path / "plain", executable=program(tmp_path, HEALTHY.format(prelude=""))) as plain:
        seen = environment_of(plain)
    assert "/surprise" not in seen.values()
    assert seen["BIND_HOST"] == "127.0.0.1"
    assert seen["GATEWAY_PORT"] == str(plain.port)
    assert Path(seen["TMPDIR"]).is_relative_to(plain.directory)
    assert seen["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert "AUTH" not in seen
    strict = Emulator(tmp_path / "strict", enforce_iam=True, executable=program(tmp_path, HEALTHY.format(prelude="")))
    with strict:
        assert environment_of(strict)["AUTH"] == "true"


def test_what_workers_left_behind_is_removed_before_the_start(tmp_path: Path) -> None:
    old = tmp_path / "tmp" / "ministack-lambda-old"
    old.mkdir(parents=True)
    (old / "code.py").touch()
    with Emulator(tmp_path, executable=program(tmp_path, HEALTHY.format(prelude=""))):
        assert not old.exists()


def test_one_that_dies_on_start_up_tells_why(tmp_path: Path) -> None:
    dying = program(tmp_path, "import sys; print('cannot open the gateway'); sys.exit(3)")
    with pytest.raises(EmulatorError, match=r"status 3(.|\n)*cannot open the gateway"):
        Emulator(tmp_path, port=free_port(), executable=dying).start()


def test_only_the_last_starts_words_are_told(tmp_path: Path) -> None:
    (tmp_path / "emulator.log").write_text("an old story\n")
    dying = program(tmp_path, "print('a new one')")
    with pytest.raises(EmulatorError) as caught:
        Emulator(tmp_path, executable=dying).start()
    assert "a new one" in str(caught.value)
    assert "an old story" not in str(caught.value)


def test_a_taken_port_is_refused_whoever_answers_there(tmp_path: Path) -> None:
    with listen() as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EmulatorError, match=f"port {port} is taken"):
            Emulator(tmp_path, port=port, executable=program(tmp_path, HEALTHY.format(prelude=""))).start()


def test_one_that_does_not_end_is_killed_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stubborn = program(tmp_path, HEALTHY.format(prelude="signal.signal(signal.SIGTERM, signal.SIG_IGN)"))
    emulator = Emulator(tmp_path, executable=stubborn, stop_limit_s=0.2).start()
    emulator.stop()
    assert not emulator.alive
    assert "did not end" in capsys.readouterr().err


def test_workers_that_outlive_it_are_ended_too(tmp_path: Path) -> None:
    worker = "import subprocess; subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])"
    with Emulator(tmp_path, executable=program(tmp_path, HEALTHY.format(prelude=worker))):
        group = int((tmp_path / "emulator.pid").read_text())
    shown = subprocess.run(["ps", "-A", "-o", "pgid=", "-o", "stat="], capture_output=True, text=True, check=True)
    assert not [line for line in shown.stdout.splitlines() if line.split()[0] == str(group) and "Z" not in line]


def test_one_that_a_killed_run_left_is_stopped_before_the_next_starts(tmp_path: Path) -> None:
    executable = program(tmp_path, HEALTHY.format(prelude=""))
    left = Emulator(tmp_path, executable=executable).start()
    left_pid = int((tmp_path / "emulator.pid").read_text())
    with Emulator(tmp_path, executable=executable) as following:
        assert not left.alive
        assert int((tmp_path / "emulator.pid").read_text()) != left_pid
        assert following.alive
        left.stop()


def test_a_process_that_only_has_the_old_number_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as other:
        try:
            (tmp_path / "emulator.pid").write_text(str(other.pid))
            with Emulator(tmp_path, executable=program(tmp_path, HEALTHY.format(prelude=""))):
                assert other.poll() is None
        finally:
            other.send_signal(signal.SIGTERM)


def test_starting_twice_is_refused_and_stopping_twice_is_not(tmp_path: Path) -> None:
    emulator = Emulator(tmp_path, executable=program(tmp_path, HEALTHY.format(prelude=""))).start()
    with pytest.raises(EmulatorError, match="already running"):
        emulator.start()
    emulator.stop()
    emulator.stop()


def test_aws_tools_reach_the_emulator_and_no_account_of_the_users() -> None:
    environment = aws_environment("http://127.0.0.1:4566")
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"
    assert environment["AWS_CONFIG_FILE"] == environment["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull
