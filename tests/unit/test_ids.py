"""Ids: one form, in the order of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from renderbell.ids import id_pattern, new_id
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
