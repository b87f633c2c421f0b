"""The command that runs random worlds, as people type it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import cast

import pytest

from tests.simulation.soak import WORLDS_A_DAY, first_of, main
from tests.simulation.worlds import CALM, run_world

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0


def typed(command: str) -> tuple[int, str, str]:
    """Runs a `make` command with this interpreter, and with nothing of this process's environment."""
    make, *words = shlex.split(command)
    with subprocess.Popen(
        [make, "--old-file=.venv/installed", f"BIN={Path(sys.executable).parent}", *words],
        cwd=ROOT,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            told, complained = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, told, complained


class Unlucky:
    """A seed that makes no world."""

    def __str__(self) -> str:
        return "7"


def test_a_broken_world_says_with_which_command_it_is_seen_again() -> None:
    with pytest.raises(TypeError) as broken:
        run_world(cast(int, Unlucky()), CALM)
    (note,) = broken.value.__notes__
    assert note == "again: make soak ARGS='--weather calm --first 7 --worlds 1'"
    status, told, progress = typed(note.removeprefix("again: "))
    assert status == 0, progress
    assert "calm worlds from seed 7 on\n1 worlds, 0 broken\n" in progress
    assert told.splitlines()[-1].startswith("calm: ")


def test_each_day_has_worlds_of_its_own_which_the_help_names(capsys: pytest.CaptureFixture[str]) -> None:
    today, tomorrow = date(2026, 11, 22), date(2026, 11, 23)
    assert first_of(tomorrow) - first_of(today) == WORLDS_A_DAY
    with pytest.raises(SystemExit):
        main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert all(f"(default: {value})" in told for value in ("stormy", 10_000, 60.0))
    assert "today's if not given (default: 7" in told


@pytest.mark.parametrize("asked", [["--minutes", "0"], ["--worlds", "0"], ["--worlds", str(WORLDS_A_DAY + 1)]])
def test_what_would_run_nothing_is_refused(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(asked)
    assert "--worlds must be 1 to 1000000, and --minutes more than 0" in capsys.readouterr().err
