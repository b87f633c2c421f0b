"""Which tests share a process, and the figures that tests measure, which are told at the end of the run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from _pytest.terminal import TerminalReporter
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Those that share a deployed stack stay in one process, so that each stack is deployed once.
DEPLOYED = "tests/e2e/"
WITH_STACKS_OF_THEIR_OWN = {"tests/e2e/test_iam.py", "tests/e2e/test_workers.py"}


class Scheduling(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """Gives each test to whichever process is free, but for those that share a stack.

    The mark `xdist_group` says the same, and with pytest 9.2 it is silently without effect (pytest-xdist issue 1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path in WITH_STACKS_OF_THEIR_OWN:
            return path
        return DEPLOYED if path.startswith(DEPLOYED) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Hands tests to processes by the rule above, whatever `--dist` says."""
    return Scheduling(config, log)


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Tells a figure at the end of the run, whether the test passes or not."""
    return lambda text: record_property("measured", text)


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Writes what was measured."""
    reports = [report for name in ("passed", "failed") for report in terminalreporter.stats.get(name, [])]
    figures = [value for report in reports for name, value in report.user_properties if name == "measured"]
    if figures:
        terminalreporter.section("measured")
        for figure in figures:
            terminalreporter.write_line(figure)
