"""What a cold start imports: whatever a function's ordinary calls never need is left to the calls that do."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.environment import ENVIRONMENT

ROOT = Path(__file__).parents[2]
PRINT_MODULES = "import json, sys, app; print(json.dumps(list(sys.modules)))"

BY_NOBODY = {
    "aws_lambda_powertools.utilities.parameters",
    "pydantic_settings",
    "renderbell.providers.callbacks",
    "renderbell.providers.capcut_mate",
    "renderbell.providers.generic",
    "renderbell.providers.scenext",
}
ROUTES = {"aws_lambda_powertools.event_handler", "renderbell.api", "renderbell.manage", "renderbell.register"}
REQUESTS = {"requests", "renderbell.egress"}
POLLING = {"renderbell.agenda", "renderbell.jobs", "renderbell.outbox", "renderbell.poll"}
NOTIFYING = {"renderbell.archive", "renderbell.bus", "renderbell.deliver", "renderbell.notify"}

LEFT_OUT = {
    "api": BY_NOBODY | REQUESTS | POLLING | NOTIFYING,
    "authorizer": BY_NOBODY | REQUESTS | POLLING | NOTIFYING | ROUTES | {"renderbell.fetch"},
    "poller": BY_NOBODY | REQUESTS | ROUTES | NOTIFYING | {"renderbell.views"},
    "notifier": BY_NOBODY | ROUTES | POLLING,
}


@cache
def started(function: str) -> list[str]:
    """The modules that a fresh interpreter has imported once a function has started, in the order of their ends."""
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT / "layers" / "core"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", PRINT_MODULES]
    directory = ROOT / "functions" / function
    done = subprocess.run(command, env=environment, cwd=directory, stdout=subprocess.PIPE, check=True, timeout=60)
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("function", LEFT_OUT)
def test_a_start_imports_nothing_that_ordinary_calls_do_not_need(function: str) -> None:
    found = LEFT_OUT[function].intersection(started(function))
    assert not found


@pytest.mark.parametrize("function", LEFT_OUT)
def test_a_start_imports_pydantic_before_our_other_modules_and_not_behind_them(function: str) -> None:
    ours = [name for name in started(function) if name.startswith("renderbell.")]
    assert ours[:2] == ["renderbell.start", "renderbell.models"]


def test_what_is_left_out_has_not_been_renamed() -> None:
    ours = {name for names in LEFT_OUT.values() for name in names if name.startswith("renderbell.")}
    package = ROOT / "layers" / "core"
    paths = [package.joinpath(*name.split(".")) for name in ours]
    assert all(path.with_suffix(".py").exists() or (path / "__init__.py").exists() for path in paths)
