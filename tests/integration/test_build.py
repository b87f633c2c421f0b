"""What `make build` leaves: everything that a cold start imports comes with its bytecode, which is still good."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from local.stack import ROOT, architecture, python_runtime
from tests.benchmarks.starts import FUNCTIONS, started, without_bytecode

BUILD_LIMIT_S = 600
ZIPPED = 315_532_800.0  # 1980-01-01, which SAM's zip gives to every file


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The functions and the layer as they are deployed, built for the interpreter that runs this."""
    directory = tmp_path_factory.mktemp("built") / "build"
    venv = Path(sys.prefix)
    if not (venv / "bin" / "sam").exists():
        pytest.fail(f"{venv} is no virtual environment with the requirements of the tests")
    done = subprocess.run(
        [
            *("make", "build", f"VENV={venv}", "-o", f"{venv}/installed"),  # as it is: this runs in it
            *(f"BUILD_DIR={directory}", f"PYTHON_RUNTIME={python_runtime()}", f"ARCHITECTURE={architecture()}"),
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=BUILD_LIMIT_S,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    for path in directory.rglob("*"):
        os.utime(path, (ZIPPED, ZIPPED))
    return directory


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_module_is_compiled_when_a_function_starts(built: Path, function: str) -> None:
    assert started(built, function)["compiled"] == []


def test_without_its_bytecode_everything_would_be_compiled(built: Path, tmp_path: Path) -> None:
    compiled = started(without_bytecode(built, tmp_path), "PollerFunction")["compiled"]
    assert isinstance(compiled, list)
    assert {Path(path).parent.name for path in compiled} >= {"PollerFunction", "renderbell", "boto3", "pydantic"}


def test_bytecode_that_goes_by_its_sources_time_would_be_compiled_again(built: Path, tmp_path: Path) -> None:
    copied = tmp_path / "by-time"
    shutil.copytree(built, copied)
    for directory in ("PollerFunction", "CoreLayer/python/renderbell"):
        subprocess.run(
            [sys.executable, "-m", "compileall", "-q", "-f", "--invalidation-mode", "timestamp", copied / directory],
            check=True,
            timeout=60,
        )
    for path in copied.rglob("*.py"):
        os.utime(path, (0, 0))
    assert started(copied, "PollerFunction")["compiled"]
