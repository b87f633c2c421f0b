"""Real answers that broke on the way: cut off, garbled, overgrown. Each is an observation or a provider error still."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renderbell.providers import PROVIDERS, HttpResponse, Observation, ProviderProtocolError
from tests.unit.providers.answers import KEY, RECORDINGS
from tests.unit.providers.test_any_answer import CONNECTIONS, check_error, check_observation, parsed

RECORDED: list[tuple[int, bytes]] = [
    (one["response"]["status"], json.dumps(one["response"]["json"], ensure_ascii=False).encode())
    for file in sorted(RECORDINGS.glob("*.jsonl"))
    for one in map(json.loads, file.read_text(encoding="utf-8").splitlines())
    if one["response"].get("json") is not None
]
# Of the other three there are no recordings: what their documents show.
DOCUMENTED: list[tuple[int, bytes]] = [
    (200, json.dumps(body).encode())
    for body in (
        {
            "code": 20000,
            "msg": "ok",
            "data": {"task_id": "t", "status": "completed", "result": {"video_url": "https://h/v.mp4?x=1"}},
        },
        {"status": "success", "data": {"task_id": "t", "status": "COMPLETED", "result": [{"type": "video"}]}},
        {"status": "error", "data": {"messages": ["no"]}},
        {"id": "t", "status": "completed", "video_url": "https://h/v.mp4", "progress": 100, "created_at": 1761635478},
        {"status": "SUCCEEDED", "output": ["https://h/v.mp4"], "progress": 1, "created": "2026-11-22T05:41:25Z"},
    )
]
ANSWERS = RECORDED + DOCUMENTED

HUGE = ["9" * 5_000, "-" + "9" * 400, "1e999", "-1e-999", "0." + "3" * 3_000, "NaN", "Infinity", "-Infinity"]
ODD = [*HUGE, "null", "true", "[]", "{}", '""', '"\\ud800"', '"' + "x" * 70_000 + '"', f'"{KEY}"', '["a", {"b": [1]}]']


def some_value(draw: st.DrawFn, value: Any) -> Any:
    """The value with one of its parts, chosen by the drawing, marked to be replaced."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        return {**value, key: some_value(draw, value[key])}
    if isinstance(value, list) and value and draw(st.booleans()):
        return [some_value(draw, value[0]), *value[1:]]
    return "@@"


@st.composite
def retyped(draw: st.DrawFn) -> tuple[int, bytes]:
    """An answer in which one value is another than was agreed."""
    status, body = draw(st.sampled_from(ANSWERS))
    value = some_value(draw, json.loads(body))
    return status, json.dumps(value).replace('"@@"', draw(st.sampled_from(ODD))).encode()


@st.composite
def garbled(draw: st.DrawFn) -> tuple[int, bytes]:
    """An answer whose bytes were changed at one place."""
    status, body = draw(st.sampled_from(ANSWERS))
    at = draw(st.integers(0, len(body)))
    inserted = draw(st.sampled_from([b"", b"\xff", b"\xed\xa0\x80", b"\x00", b"\\ud83d", b"\xc3", b'"', b"{", b"]"]))
    return status, body[:at] + inserted + body[at + draw(st.integers(0, 3)) :]


@st.composite
def overgrown(draw: st.DrawFn) -> tuple[int, bytes]:
    """An answer within, before or behind more than was asked for."""
    status, body = draw(st.sampled_from(ANSWERS))
    grow: Callable[[bytes], bytes] = draw(
        st.sampled_from(
            [
                lambda body: b"\xef\xbb\xbf" + body,
                lambda body: b"\xff\xfe" + body.decode().encode("utf-16-le"),
                lambda body: b"[" * 3_000 + body + b"]" * 3_000,
                lambda body: b'{"data":' * 300 + body + b"}" * 300,
                lambda body: b'{"data":' + body + b"}",
                lambda body: body + body,
                lambda body: b")]}',\n" + body,
                lambda body: b"\n" * 100_000 + body,
                lambda body: body.replace(b"{", b'{"status":"failed","status":[],"code":1,"state":null,', 1),
                lambda body: body[:-1] + b',"status":"completed","state":1,"code":0,"data":{}}',
                lambda body: body.replace(b"{", b'{"x":' + b"[" * 200 + b"]" * 200 + b",", 1),
            ]
        )
    )
    return status, grow(body)


@pytest.mark.parametrize("type_", PROVIDERS)
@settings(max_examples=300, deadline=None)
@given(broken=st.one_of(retyped(), garbled(), overgrown()), other_status=st.sampled_from([None, 200, 429, 500]))
def test_a_broken_answer_is_an_observation_or_a_provider_error(
    type_: str, broken: tuple[int, bytes], other_status: int | None
) -> None:
    status, body = broken
    outcome = parsed(type_, CONNECTIONS[type_][True], HttpResponse(other_status or status, {}, body))
    if isinstance(outcome, Observation):
        check_observation(outcome)
        assert KEY not in f"{outcome.error}"
    else:
        check_error(outcome)
        assert KEY not in f"{outcome}{getattr(outcome, 'raw', '')}"


@pytest.mark.parametrize("type_", PROVIDERS)
def test_an_answer_that_was_cut_off_is_never_an_observation(type_: str) -> None:
    for _, body in ANSWERS:
        for length in range(0, len(body) - 1, 7):
            outcome = parsed(type_, CONNECTIONS[type_][True], HttpResponse(200, {}, body[:length]))
            assert isinstance(outcome, ProviderProtocolError), body[:length]
