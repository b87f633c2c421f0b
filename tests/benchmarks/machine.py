"""The machine that measures, and how a process of it is held to a part of it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = ("boto3", "aws-lambda-powertools", "pydantic", "requests", "urllib3", "ministack", "awscli")
PERIOD_US = 20_000  # over which AWS Lambda counts a function's share
_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command printed, and the processor time in seconds that it and what it started took."""

    output: str
    cpu_s: float

    @property
    def told(self) -> dict[str, Any]:
        """What its last line says, as JSON; there may be lines of a log before it."""
        outcome: dict[str, Any] = json.loads(self.output.splitlines()[-1])
        return outcome


def run(command: Sequence[str], *, timeout_s: float = 600, **options: object) -> Ran:
    """Runs a command to its end, which must be a good one."""
    before = os.times()
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=timeout_s, check=True, **options
    )  # type: ignore[call-overload]
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Ran(done.stdout, used)


@contextmanager
def serving(module: str, *words: str) -> Iterator[int]:
    """The port of a server in a process of its own, which tells it first and serves until its standard input ends."""
    command = [sys.executable, "-m", module, *words]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def pin(cpu: int) -> None:
    """Keeps this process on one processor, where that can be chosen."""
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[cpu % len(cpus)]})


def resident_bytes(name: str = "VmHWM") -> int:
    """This process's resident memory: `VmHWM` its peak, `VmRSS` now; `ru_maxrss` would count its parent's too."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))


@contextmanager
def share_of_a_processor(share: float, number: int = 0) -> Iterator[Path | None]:
    """A control group whose processes together get so much of one processor; None where none can be made.

    A process joins by writing its id into the file that is handed out.
    """
    group = (_V1 if _V1.is_dir() else _V2) / f"renderbell-{os.getpid()}-{number}"
    try:
        group.mkdir()
        quota = round(share * PERIOD_US)
        if _V1.is_dir():
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
    except OSError:
        with suppress(OSError):
            group.rmdir()
        yield None
        return
    try:
        yield group / "cgroup.procs"
    finally:
        with suppress(OSError):  # a process that has not ended yet keeps it
            group.rmdir()


def described() -> list[tuple[str, str]]:
    """What the figures were measured with."""
    with open("/proc/cpuinfo") as cpus:
        model = next((line.partition(":")[2].strip() for line in cpus if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        ("processor", f"{len(os.sched_getaffinity(0))} of {model}"),
        ("memory", f"{memory:.0f} GiB"),
        ("system", f"{platform.system()} {platform.release()}"),
        ("Python", f"{platform.python_version()} ({sys.implementation.name})"),
        ("packages", ", ".join(f"{name} {version(name)}" for name in PACKAGES)),
        ("revision", run(["git", "describe", "--always", "--dirty"]).output.strip()),
    ]
