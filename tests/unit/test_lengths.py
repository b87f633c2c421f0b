"""The sketch of how long tasks take: small, forgetful, and close to what it was told."""

from __future__ import annotations

import math
import random
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderbell.lengths import ENOUGH, MAX_LENGTH_S, MOST_WEIGHT, WEIGHT, Lengths

lengths_s = st.floats(min_value=0, max_value=2 * MAX_LENGTH_S)


def sketch(*seen_s: float) -> Lengths:
    return reduce(Lengths.added, seen_s, Lengths())


def hazard(found: Lengths, age_s: float, back_s: float = 0) -> float:
    return found.hazard(age_s, back_s)[0]


def test_nothing_is_known_before_enough_has_been_seen() -> None:
    assert not sketch(*[100.0] * (ENOUGH - 1)).known
    assert sketch(*[100.0] * ENOUGH).known
    assert not Lengths().known
    assert (Lengths().longest_s, hazard(Lengths(), 10)) == (0, 0)


@given(st.lists(lengths_s, max_size=50))
def test_any_length_is_counted_and_none_is_longer_than_the_longest(seen_s: list[float]) -> None:
    found = sketch(*seen_s)
    assert sum(found.weights.values()) == WEIGHT * len(seen_s)
    assert all(min(one, MAX_LENGTH_S) <= found.longest_s * 1.0001 for one in seen_s)
    assert all(0 <= number < 310 for number in found.weights)


@pytest.mark.parametrize("age_s", [60, 90, 120, 150, 200])
def test_the_hazard_of_memoryless_lengths_is_their_rate_at_every_age(age_s: float) -> None:
    chance = random.Random(5)
    found = sketch(*[chance.expovariate(1 / 100) for _ in range(500)])
    assert 0.004 < hazard(found, age_s) < 0.03


def test_the_hazard_is_nothing_where_no_task_has_ended_and_great_where_all_do() -> None:
    found = sketch(*[100.0 + n % 5 for n in range(200)])
    assert hazard(found, 50) == 0
    assert hazard(found, 95) == 0
    assert hazard(found, 100) > 0.1
    assert hazard(found, 200) == 0


def test_the_hazard_is_the_highest_of_the_ages_that_are_looked_back_at() -> None:
    found = sketch(*[100.0] * 50, *[300.0] * 50)
    assert hazard(found, 100) == hazard(found, 150, 50) > 0.05
    assert hazard(found, 98, 500) == hazard(found, 98) == 0 < hazard(found, 99), "what is to come does not count"
    assert hazard(found, 200, 50) == 0
    assert hazard(found, 310, 10) == hazard(found, 300) > hazard(found, 100)
    assert hazard(found, 310, 250) == hazard(found, 300)
    found = sketch(*[100.0] * 90, *[200.0] * 10)
    assert hazard(found, 205, 110) == hazard(found, 100) > hazard(found, 200) == hazard(found, 205, 50)


@given(st.lists(st.floats(0.5, 5000), min_size=1, max_size=40), st.floats(0, 6000), st.floats(0, 1000), st.floats(0, 1))
def test_the_hazard_is_that_of_one_of_those_ages_and_of_none_a_higher_one(
    seen_s: list[float], age_s: float, back_s: float, share: float
) -> None:
    found = sketch(*seen_s)
    highest, since_s, until_s = found.hazard(age_s, back_s)
    ages_s = [age_s - share * back_s, *(one for one in seen_s if age_s - back_s + 1e-6 < one < age_s - 1e-6)]
    assert highest >= max(hazard(found, one) for one in ages_s) - 1e-12
    assert since_s <= age_s <= until_s
    edges_s = [max(0.0, age_s - back_s), age_s, *(2 ** (number / 16) for number in found.weights)]
    assert highest in {hazard(found, one) for one in edges_s if age_s - back_s - 1e-9 <= one <= age_s} | {0.0}


def test_it_stays_small_whatever_it_is_told() -> None:
    chance = random.Random(3)
    found = sketch(*[MAX_LENGTH_S ** chance.random() for _ in range(5000)])
    assert sum(found.weights.values()) <= MOST_WEIGHT
    assert len(found.weights) <= 308


def test_another_model_is_known_after_some_hundreds_of_its_tasks() -> None:
    found = sketch(*[40.0] * 2000, *[300.0] * 600)
    ends_at_40 = hazard(found, 40) * 40 * (2 ** (1 / 16) - 1)
    assert ends_at_40 < 0.5, "a task is at work on"
    assert math.isclose(found.longest_s, 300, rel_tol=0.05)


def test_a_single_straggler_is_forgotten_in_time() -> None:
    found = sketch(5000.0, *[40.0] * 3000)
    assert found.longest_s < 45


@pytest.mark.parametrize("weights", [{-1: 4}, {308: 4}, {10**6: 4}, {5: 0}, {5: -4}, {5: 10**6}, {5: float("nan")}])
def test_what_no_lengths_can_have_made_is_refused(weights: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="no sketch"):
        Lengths(weights)


def test_the_longest_lengths_are_none_that_is_refused() -> None:
    assert sketch(*[2 * MAX_LENGTH_S] * 2000).known
