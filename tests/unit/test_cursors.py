"""Cursors: good for the list that they were given out for, and for nothing else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderbell.cursors import cursor_key, list_name, open_cursor, seal_cursor
from renderbell.errors import InvalidInputError

KEY = cursor_key(b"master", "default")
OF = list_name("default", "/tasks", {"status": ["FAILED"], "connection": None})
PLACE = ("2026-03-01T12:00:00.000000Z", "tsk_" + "1" * 26)


def refused(key: bytes, of: str, cursor: str) -> bool:
    try:
        open_cursor(key, of, cursor)
    except InvalidInputError as error:
        return (error.field, error.code) == ("cursor", "cursor_invalid")
    return False


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=4))
def test_a_cursor_leads_where_it_was_sealed_for(place: list[str]) -> None:
    assert open_cursor(KEY, OF, seal_cursor(KEY, OF, place)) == tuple(place)


def test_a_cursor_needs_no_escaping_in_a_query() -> None:
    assert set(seal_cursor(KEY, OF, ("?&=+/ ü", "…"))).isdisjoint("?&=+/ %")


@pytest.mark.parametrize(
    ("owner", "route", "query"),
    [
        ("rival", "/tasks", {"status": ["FAILED"], "connection": None}),
        ("default", "/tasks/x/attempts", {"status": ["FAILED"], "connection": None}),
        ("default", "/tasks", {"status": ["FAILED"], "connection": "studio"}),
        ("default", "/tasks", {"status": [], "connection": None}),
    ],
)
def test_a_cursor_of_another_list_is_refused(owner: str, route: str, query: dict[str, object]) -> None:
    cursor = seal_cursor(KEY, OF, PLACE)
    assert not refused(KEY, OF, cursor)
    assert refused(KEY, list_name(owner, route, query), cursor)


def test_a_key_is_an_owners_and_a_deployments_own() -> None:
    cursor = seal_cursor(KEY, OF, PLACE)
    assert refused(cursor_key(b"master", "rival"), OF, cursor)
    assert refused(cursor_key(b"another", "default"), OF, cursor)


def test_the_order_of_a_query_does_not_matter() -> None:
    assert list_name("o", "/tasks", {"a": 1, "b": 2}) == list_name("o", "/tasks", {"b": 2, "a": 1})


@given(st.data())
def test_a_cursor_in_which_any_character_was_changed_is_refused(data: st.DataObject) -> None:
    cursor = seal_cursor(KEY, OF, PLACE)
    at = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.characters().filter(lambda one: one != cursor[at]))
    assert refused(KEY, OF, cursor[:at] + other + cursor[at + 1 :])


@given(st.one_of(st.text(), st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode())))
def test_whatever_is_no_cursor_is_refused(text: str) -> None:
    assert refused(KEY, OF, text)


@pytest.mark.parametrize(
    "change", [lambda c: c + "=", lambda c: c + "A", lambda c: c[:-1], lambda c: c * 99, lambda c: ""]
)
def test_a_cursor_of_another_length_is_refused(change: object) -> None:
    assert callable(change)
    assert refused(KEY, OF, change(seal_cursor(KEY, OF, PLACE)))
