"""Two thousand random worlds: what was promised holds in each of them, and the figures hold over all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tests.simulation.worlds import (
    CALM,
    CALM_GAP_S,
    CRASHING,
    LAGGING,
    SETTLED_GAP_S,
    STORMY_GAP_S,
    Figures,
    RandomWorld,
    Weather,
    percentile,
    run_world,
)

Report = Callable[[str], None]

CALM_SEEDS = range(300)
CRASHING_SEEDS = range(300)
LAGGING_SEEDS = range(200)
STORMY_SEEDS = range(1200)
CHUNK = 100


def run(seeds: Sequence[int], weather: Weather | None) -> Figures:
    figures = Figures()
    for seed in seeds:
        figures.add(run_world(seed, weather))
    return figures


def test_a_seed_is_replayed_call_by_call() -> None:
    def calls() -> list[tuple[str, str, float]]:
        world = RandomWorld(76)
        world.run()
        return [(call.service, call.operation, call.at_s) for call in world.universe.boundaries.calls]

    assert calls() == calls()


def test_without_faults_polls_are_on_time(measured: Report) -> None:
    figures = run(CALM_SEEDS, CALM)
    measured(f"calm worlds: {figures}")
    assert percentile(figures.first_polls, 0.99) <= 7
    assert max(figures.first_polls) <= 10
    assert max(figures.first_attempts) <= 5
    assert max(figures.gaps + figures.adaptive_gaps + figures.late_gaps) <= CALM_GAP_S


def test_a_late_index_alone_delays_and_loses_nothing(measured: Report) -> None:
    figures = run(LAGGING_SEEDS, LAGGING)
    measured(f"worlds whose index is up to 2 s late, and tasks come as pollers look and leave: {figures}")
    assert max(figures.first_polls) <= 10
    assert max(figures.first_attempts) <= 5
    assert max(figures.gaps + figures.adaptive_gaps + figures.late_gaps) <= CALM_GAP_S


def test_a_tick_that_polls_again_goes_on_with_the_pauses_of_the_one_between() -> None:
    run_world(900553, LAGGING)


def test_polls_go_on_although_two_of_five_invocations_die(measured: Report) -> None:
    figures = run(CRASHING_SEEDS, CRASHING)
    measured(f"worlds where 40 % of the invocations die, a poller as likely in each second of its minute: {figures}")
    assert figures.counts["of them died"] >= 0.4 * figures.counts["invocations in the storm"]
    assert percentile(figures.gaps, 0.999) <= 120
    assert percentile(figures.adaptive_gaps, 0.999) <= 120


@pytest.mark.parametrize("first", range(STORMY_SEEDS.start, STORMY_SEEDS.stop, CHUNK))
def test_every_promise_is_kept_in_any_weather(first: int, measured: Report) -> None:
    figures = run(range(first, first + CHUNK), None)
    measured(f"stormy worlds from seed {first}: {figures}")
    assert max(figures.first_polls + figures.gaps + figures.adaptive_gaps) <= STORMY_GAP_S
    assert max(figures.late_gaps) <= SETTLED_GAP_S, "the storm is over"
