"""The fewest polls that any schedule can do with, against all schedules there are."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations_with_replacement

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renderbell.schedule import PollSchedule
from tests.benchmarks.bounds import Promise, fewest_polls, fixed_polls

SCHEDULE = PollSchedule(4.0, 2.0, 8.0)
STEPS = 4  # of the interval: one of a second
LONGEST_S = 14

lengths = st.lists(st.integers(1, LONGEST_S), min_size=1, max_size=8)
shares = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.8])
waits = st.integers(0, 7)


@cache
def every_schedule(last_s: int) -> Sequence[tuple[int, ...]]:
    """Whole seconds at which a task may be asked after its creation, until the last."""

    def onwards(moments: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if moments and moments[-1] >= last_s:
            yield moments
            return
        for distance in range(2 if moments else 1, 8 + 1):
            yield from onwards((*moments, (moments[-1] if moments else 0) + distance))

    return list(onwards(()))


def outcome(moments: Sequence[int], lengths_s: Sequence[int], within_s: Sequence[int]) -> tuple[float, ...]:
    """Polls for each task, and the shares that are found later than each of some times."""
    found = [bisect_left(moments, length) for length in lengths_s]
    polls = sum(2 + number for number in found) / len(lengths_s)
    late_s = [moments[number] - length for number, length in zip(found, lengths_s, strict=True)]
    return polls, *(sum(one > limit for one in late_s) / len(late_s) for limit in within_s)


def by_lot(outcomes: Sequence[tuple[float, ...]], late: Sequence[float]) -> float:
    """The fewest polls of any two schedules, drawn by lot, that keep their promises between them."""
    fewest = math.inf
    for one, other in combinations_with_replacement(outcomes, 2):
        least, most = 0.0, 1.0  # of the first one's share
        for mine, theirs, limit in zip(one[1:], other[1:], late, strict=True):
            if mine > theirs:
                most = min(most, (limit - theirs) / (mine - theirs))
            elif mine < theirs:
                least = max(least, (limit - theirs) / (mine - theirs))
            elif mine > limit:
                least = math.inf
        if least <= most + 1e-12:
            fewest = min(fewest, *(share * one[0] + (1 - share) * other[0] for share in (least, most)))
    return fewest


@settings(deadline=None)  # all schedules are gone through
@given(lengths, waits, shares)
def test_one_promise_is_kept_as_cheaply_as_by_the_best_two_of_all_schedules(
    lengths_s: list[int], within_s: int, late: float
) -> None:
    best = fewest_polls(SCHEDULE, lengths_s, [Promise(within_s, late)], STEPS)
    outcomes = sorted({outcome(one, lengths_s, [within_s]) for one in every_schedule(max(lengths_s))})
    expected = by_lot(outcomes, [late])
    if best is None:
        assert expected == math.inf
    else:
        assert best.polls == pytest.approx(expected, abs=2e-3)
        assert best.late(within_s) <= late + 1e-6


@settings(deadline=None)  # all schedules are gone through
@given(lengths, waits, waits, shares, shares)
def test_two_promises_are_kept_and_no_two_schedules_keep_them_more_cheaply(
    lengths_s: list[int], within_s: int, longer_s: int, late: float, later: float
) -> None:
    promises = [Promise(within_s, late), Promise(longer_s, later)]
    best = fewest_polls(SCHEDULE, lengths_s, promises, STEPS)
    outcomes = sorted({outcome(one, lengths_s, [within_s, longer_s]) for one in every_schedule(max(lengths_s))})
    expected = by_lot(outcomes, [late, later])
    if best is None:
        assert expected == math.inf
        return
    assert best.polls <= expected + 2e-3
    assert all(best.late(one.within_s) <= one.late + 1e-6 for one in promises)


@settings(deadline=None)  # all schedules are gone through
@given(lengths, waits, waits, shares, shares)
def test_what_is_best_is_made_of_schedules_within_the_bounds_and_found_as_it_says(
    lengths_s: list[int], within_s: int, longer_s: int, late: float, later: float
) -> None:
    best = fewest_polls(SCHEDULE, lengths_s, [Promise(within_s, late), Promise(longer_s, later)], STEPS)
    if best is None:
        return
    assert sum(share for share, _ in best.given) == pytest.approx(1)
    limits = [within_s, longer_s]
    told = [0.0] * 3
    for share, moments in best.given:
        assert tuple(moments) in every_schedule(max(lengths_s))
        told = [sum_ + share * one for sum_, one in zip(told, outcome(moments, lengths_s, limits), strict=True)]
    assert told == pytest.approx([best.polls, best.late(within_s), best.late(longer_s)])


def test_few_lengths_are_found_by_the_polls_that_one_would_choose_by_hand() -> None:
    always = fewest_polls(PollSchedule(5.0), [7.0], [Promise(0, 0.0)])
    assert always is not None
    assert (always.polls, always.percentile_s(1)) == (3, 0), "at its creation, at 2 s and at 7 s"
    early = fewest_polls(PollSchedule(5.0, 5.0, 10.0), [7.0, 9.0], [Promise(0, 0.5)])
    assert early is not None
    assert (early.polls, early.percentile_s(0.5), early.percentile_s(1)) == (2, 0, 2), "at its creation and at 9 s"


def test_the_median_of_half_the_tasks_is_bought_at_the_others_cost_unless_that_is_promised_too() -> None:
    lengths_s = [100 + number / 100 for number in range(10_000)]
    schedule = PollSchedule(10.0, 5.0, 80.0)
    median, last = Promise(5, 0.5), Promise(9.5, 0.05)
    free, bound = fewest_polls(schedule, lengths_s, [median]), fewest_polls(schedule, lengths_s, [median, last])
    assert free is not None
    assert bound is not None
    assert free.polls < bound.polls < fixed_polls(10, lengths_s) == pytest.approx(17, abs=0.01)
    assert bound.percentile_s(0.95) <= 9.5 < free.percentile_s(0.95)


def test_what_no_schedule_within_the_bounds_can_promise_is_none() -> None:
    lengths_s = [float(number) for number in range(100, 200)]
    assert fewest_polls(PollSchedule(10.0), lengths_s, [Promise(2.5, 0.5)]) is None
