"""Death at every step, over the in-process table and bucket: every scenario, every call, every kind of trouble."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation.crashes import SCENARIOS, strike_every_call, strike_twice
from tests.universe import Plan, Universe


def in_process(plan: Plan) -> Universe:
    return Universe(plan=plan, slots=1)


@pytest.mark.parametrize("name", SCENARIOS)
def test_whatever_call_is_struck_all_ends_well(name: str, measured: Callable[[str], None]) -> None:
    measured(strike_every_call(name, in_process))


@pytest.mark.parametrize("name", SCENARIOS)
def test_whatever_two_calls_are_struck_all_ends_well(name: str) -> None:
    strike_twice(name, in_process, runs=200)
