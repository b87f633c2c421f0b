"""Ids: one form, in the order of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from renderbell.ids import Seed, id_pattern, new_id
from tests.fakes import START


def test_an_id_has_one_form_and_sorts_by_time() -> None:
    ids = [new_id("tsk", START + timedelta(milliseconds=n), bytes([255 - n] * 10)) for n in range(5)]
    assert ids == sorted(ids)
    assert all(id_pattern("tsk").fullmatch(one) for one in ids)
    assert new_id("tsk", datetime.fromtimestamp(0, UTC), bytes(10)) == "tsk_" + "0" * 26
    assert new_id("key", datetime.fromtimestamp(0.001, UTC), b"\xff" * 10) == "key_0000000001" + "z" * 16


def test_an_id_takes_ten_random_bytes() -> None:
    with pytest.raises(ValueError, match="10 random bytes"):
        new_id("tsk", START, b"short")


def test_a_seed_names_the_same_thing_always_and_others_otherwise() -> None:
    seed = Seed("a word", START)
    ids = [seed.id("tsk"), seed.nth(0).id("tsk"), seed.nth(1).id("tsk"), seed.id("ep"), Seed("other", START).id("tsk")]
    assert ids == [
        Seed("a word", START, repeated=True).id("tsk"),
        *(seed.nth(n).id("tsk") for n in (0, 1)),
        seed.id("ep"),
        Seed("other", START).id("tsk"),
    ]
    assert len({one.partition("_")[2] for one in ids}) == 5
    assert all(id_pattern("tsk").fullmatch(one) for one in ids if one.startswith("tsk"))


def test_a_seed_has_done_what_happened_since_its_call_began_if_that_is_repeated() -> None:
    repeated = Seed("a word", START, repeated=True)
    assert repeated.has_done(START)
    assert not repeated.has_done(START - timedelta(seconds=1))
    assert not repeated.has_done(None)
    assert not Seed("a word", START).has_done(START)
