"""The seats of an owner's slow receivers: never more than three, in order, and none waits for ever."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from renderbell.seats import HELD, MAX_WAITING, SEATS, Seats
from tests.fakes import START


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def full() -> Seats:
    """All seats taken at the start."""
    seats = Seats()
    for number in range(SEATS):
        seats, has = seats.asked(f"r{number}", f"t{number}", START)
        assert has
    return seats


def test_a_fourth_waits_until_one_leaves() -> None:
    seats, has = full().asked("r9", "t9", at(1))
    assert not has
    seats, has = seats.left("t0").asked("r9", "t10", at(20))
    assert has
    assert not seats.waiting


def test_who_came_first_is_first_though_another_asks_before_it() -> None:
    seats, _ = full().asked("early", "t8", at(1))
    seats, _ = seats.asked("late", "t9", at(2))
    seats = seats.left("t0")
    seats, has = seats.asked("late", "t10", at(21))
    assert not has
    seats, has = seats.asked("early", "t11", at(22))
    assert has


def test_a_seat_whose_holder_died_is_free_when_its_time_is_over() -> None:
    assert not full().asked("r9", "t9", at(HELD.total_seconds() - 1))[1]
    assert full().asked("r9", "t9", at(HELD.total_seconds()))[1]


def test_who_has_ceased_to_ask_is_not_waited_for() -> None:
    seats, _ = full().asked("gone", "t8", at(1))
    assert seats.left("t0").asked("r9", "t9", at(52))[1]


def test_a_call_that_is_repeated_takes_one_seat() -> None:
    seats, has = full().left("t0").asked("r9", "t9", at(1))
    assert has
    seats, has = seats.asked("r9", "t9", at(1))
    assert has
    assert len(seats.taken) == SEATS


def test_no_more_than_so_many_are_noted() -> None:
    seats = full()
    for number in range(MAX_WAITING + 5):
        seats, _ = seats.asked(f"w{number}", f"t{number + 10}", at(1))
    assert len(seats.waiting) == MAX_WAITING


@given(st.lists(st.floats(0.1, 19.9), min_size=4, max_size=25), st.floats(0.1, 20))
def test_all_who_ask_every_twenty_seconds_get_their_turns_and_never_more_than_three_at_once(
    begins: list[float], holds_s: float
) -> None:
    seats, held = Seats(), dict[str, float]()
    turns = dict.fromkeys(range(len(begins)), 0)
    asks = sorted((begin + 20 * round_, who) for round_ in range(40) for who, begin in enumerate(begins))
    for now_s, who in asks:
        for token in [token for token, until_s in held.items() if until_s <= now_s]:
            seats = seats.left(token)
            del held[token]
        seats, has = seats.asked(f"r{who}", f"{who} {now_s}", at(now_s))
        if has:
            held[f"{who} {now_s}"] = now_s + holds_s
            turns[who] += 1
        assert len(held) <= SEATS
    assert min(turns.values()) >= 2
