"""The simulated providers, for tests that ask them."""

from collections.abc import Iterator

import pytest

from local.providers.server import Simulators
from tests.unit.local.simulated import FakeClock


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Simulators, FakeClock]]:
    clock = FakeClock()
    with Simulators(clock=clock, sleep=clock.sleep) as simulators:
        yield simulators, clock


@pytest.fixture
def clock(running: tuple[Simulators, FakeClock]) -> FakeClock:
    running[1].reset()
    return running[1]


@pytest.fixture
def simulators(running: tuple[Simulators, FakeClock], clock: FakeClock) -> Simulators:
    return running[0]
