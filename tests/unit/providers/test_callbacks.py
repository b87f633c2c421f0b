"""Calls that providers make themselves: which are believed, and about which task they are."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from standardwebhooks import Webhook

from renderbell.providers import Callback, Connection, verify_callback
from renderbell.providers.base import secrets_of
from renderbell.providers.callbacks import DECOY_SECRET
from tests.unit.providers.answers import GENERIC_SPEC, KEY, connection

NOW = datetime(2026, 11, 22, 8, 0, 0, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_" + base64.b64encode(b"x" * 32).decode()
PAYLOAD = {
    "task_id": "ed6e7bae-cb5d-4e75-a6ae-b4beced80c92",
    "status": "COMPLETED",
    "progress": [{"id": "frame1", "image": "https://oss.scenext.cn/frame1.png?Expires=1749287113"}],
    "result": {"video_url": "https://oss.scenext.cn/Video/数学.mp4", "score": 0.1},
    "timestamp": int(NOW.timestamp()),
}


def standard(
    body: bytes, *, secret: str = SECRET, at: datetime = NOW, message_id: str = "msg_1", **changed: str
) -> dict[str, str]:
    """The headers of a call, signed by the independent package."""
    signed = Webhook(secret).sign(message_id, at, body.decode())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signed,
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }


def scenext_signature(payload: Mapping[str, Any], key: str = KEY) -> str:
    """As the provider's own code has it."""
    return hmac.new(key.encode(), json.dumps(payload, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def secured(type_: str = "jimmy", **more: Any) -> Connection:
    return connection(type_, callback_secret=SECRET, **more)


def verify(
    asked: Connection | None, headers: Mapping[str, str], body: bytes = b'{"task_id": "t-1"}', *, now: datetime = NOW
) -> Callback | None:
    return verify_callback(asked, headers, body, now)


# -- the standard form ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["capcut-mate", "scenext", "jimmy", "moneyprinterturbo", "mingyan", "generic"])
def test_a_call_that_the_connections_secret_has_signed_is_believed_whatever_its_type(type_: str) -> None:
    body = b'{"task_id": "t-1"}'
    assert verify(secured(type_), standard(body), body) == Callback("t-1")


def test_one_of_several_signatures_is_enough_while_a_secret_is_rotated() -> None:
    body = b'{"id": "t-1"}'
    both = f"{standard(body, secret=OTHER_SECRET)['webhook-signature']} {standard(body)['webhook-signature']}"
    assert verify(secured(), standard(body, webhook_signature=both), body) == Callback("t-1")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"webhook-id": "msg_1", "webhook-timestamp": "1", "webhook-signature": "v1,"},
        standard(b'{"task_id": "t-2"}'),
        standard(b'{"task_id": "t-1"}', secret=OTHER_SECRET),
        standard(b'{"task_id": "t-1"}', webhook_id="msg_2"),
        standard(b'{"task_id": "t-1"}', webhook_id=""),
        standard(b'{"task_id": "t-1"}', message_id=""),
        standard(b'{"task_id": "t-1"}', webhook_timestamp="1795334401"),
        standard(b'{"task_id": "t-1"}', webhook_timestamp="soon"),
        standard(b'{"task_id": "t-1"}', webhook_signature="v1,\ud800"),
        standard(b'{"task_id": "t-1"}', webhook_id="\ud800"),
        {"x-signature": scenext_signature({"task_id": "t-1"}, SECRET)},
    ],
)
def test_a_call_is_refused_that_the_secret_has_not_signed_as_it_stands(headers: Mapping[str, str]) -> None:
    body = b'{"task_id": "t-1"}'
    assert verify(secured(), standard(body), body) == Callback("t-1")
    assert verify(secured(), headers, body) is None


@pytest.mark.parametrize(("late_s", "believed"), [(300, True), (301, False), (-300, True), (-301, False)])
def test_a_call_is_believed_for_five_minutes(late_s: int, believed: bool) -> None:
    found = verify(secured(), standard(b'{"task_id": "t-1"}'), now=NOW + timedelta(seconds=late_s))
    assert (found == Callback("t-1")) is believed
    assert (found is None) is not believed


@pytest.mark.parametrize("asked", [None, connection("jimmy"), connection("scenext"), connection("scenext", api_key="")])
def test_nobody_signs_for_a_connection_without_a_secret_not_even_who_knows_the_decoy(asked: Connection | None) -> None:
    body = json.dumps(PAYLOAD).encode()
    assert verify(asked, standard(body, secret=DECOY_SECRET), body) is None
    assert verify(asked, {"x-signature": scenext_signature(PAYLOAD, DECOY_SECRET)}, body) is None
    assert verify(asked, {"x-signature": scenext_signature(PAYLOAD, "")}, body) is None


@pytest.mark.parametrize(
    ("body", "task_id"),
    [
        ({"task_id": "t-1", "id": "event-1"}, "t-1"),
        ({"id": "event-1", "data": {"id": "t-1"}}, "t-1"),
        ({"id": "event-1", "data": {"task_id": "t-1", "id": "x"}}, "t-1"),
        ({"id": 4711}, "4711"),
        ({"id": "t-1", "data": {"id": ["no", "id"]}}, "t-1"),
        ({"id": True}, None),
        ({"id": ""}, None),
        ({"id": ".."}, None),
        ({"id": "x" * 3000}, None),
        ({}, None),
        ([], None),
        ("t-1", None),
    ],
)
def test_the_task_is_found_where_calls_usually_name_it(body: object, task_id: str | None) -> None:
    raw = json.dumps(body).encode()
    assert verify(secured(), standard(raw), raw) == Callback(task_id)


def test_a_description_says_where_its_provider_names_the_task() -> None:
    described = secured("generic", spec={**GENERIC_SPEC, "callback_task_id": "prediction.key"})
    raw = json.dumps({"id": "x", "prediction": {"key": "t-1"}}).encode()
    assert verify(described, standard(raw), raw) == Callback("t-1")
    raw = json.dumps({"id": "x"}).encode()
    assert verify(described, standard(raw), raw) == Callback(None)


@pytest.mark.parametrize("body", [b"", b"task_id=t-1", b"{", b"[" * 60_000, b'{"id": ' + b"9" * 5_000 + b"}"])
def test_a_signed_call_that_is_no_json_names_no_task(body: bytes) -> None:
    assert verify(secured(), standard(body), body) == Callback(None)


# -- Scenext's own form -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(PAYLOAD).encode(),
        json.dumps(PAYLOAD, sort_keys=True).encode(),
        json.dumps(PAYLOAD, ensure_ascii=False, separators=(",", ":")).encode(),
        json.dumps(PAYLOAD, indent=2).encode(),
    ],
)
def test_scenexts_call_is_believed_however_it_is_written(written: bytes) -> None:
    signed = {"x-signature": scenext_signature(PAYLOAD)}
    assert verify(connection("scenext"), signed, written) == Callback(str(PAYLOAD["task_id"]))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(result=JSON_VALUES, compact=st.booleans())
def test_scenexts_call_is_believed_whatever_numbers_and_words_it_holds(result: object, compact: bool) -> None:
    payload = {**PAYLOAD, "result": result}
    sent = json.dumps(payload, separators=(",", ":")) if compact else json.dumps(payload)
    signed = {"x-signature": scenext_signature(payload)}
    assert verify(connection("scenext"), signed, sent.encode()) == Callback(str(PAYLOAD["task_id"]))


def test_a_signature_of_the_very_text_that_is_sent_is_taken_too() -> None:
    sent = json.dumps(PAYLOAD, separators=(",", ":")).encode()
    signed = hmac.new(KEY.encode(), sent, hashlib.sha256).hexdigest().upper()
    assert verify(connection("scenext"), {"x-signature": signed}, sent) == Callback(str(PAYLOAD["task_id"]))


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        (scenext_signature(PAYLOAD, "another key"), json.dumps(PAYLOAD)),
        (scenext_signature({**PAYLOAD, "status": "FAILED"}), json.dumps(PAYLOAD)),
        ("", json.dumps(PAYLOAD)),
        ("\ud800", json.dumps(PAYLOAD)),
        (scenext_signature({"task_id": "t-1"}), '{"task_id": "t-2", "task_id": "t-1"}'),
        (scenext_signature(PAYLOAD), "[" * 60_000),
        (hmac.new(KEY.encode(), b"", hashlib.sha256).hexdigest(), "no JSON"),
        (hmac.new(KEY.encode(), b"[1]", hashlib.sha256).hexdigest(), "[1]"),
        (scenext_signature({**PAYLOAD, "timestamp": 10**400}), json.dumps({**PAYLOAD, "timestamp": 10**400})),
    ],
)
def test_scenexts_call_is_refused_that_its_key_has_not_signed(signature: str, body: str) -> None:
    assert verify(connection("scenext"), {"x-signature": signature}, body.encode()) is None


@pytest.mark.parametrize(("late_s", "believed"), [(300, True), (301, False), (-301, False)])
def test_scenexts_call_is_believed_for_five_minutes(late_s: int, believed: bool) -> None:
    signed = {"x-signature": scenext_signature(PAYLOAD)}
    sent = json.dumps(PAYLOAD).encode()
    found = verify(connection("scenext"), signed, sent, now=NOW + timedelta(seconds=late_s))
    assert (found is not None) is believed


NOT_A_TIME: list[object] = ["just now", "1795334400", None, True, [], math.nan]


@pytest.mark.parametrize("named", [{"timestamp": at} for at in NOT_A_TIME] + [{}])
def test_scenexts_call_without_a_time_is_not_believed_for_it_would_be_for_ever(named: dict[str, object]) -> None:
    payload = {"task_id": "t-1", **named}
    signed = {"x-signature": scenext_signature(payload)}
    assert verify(connection("scenext"), signed, json.dumps(payload).encode()) is None


def test_an_old_call_that_is_cut_into_a_newer_one_is_not_believed() -> None:
    """Its id, its time and its body are signed as one text with dots between them."""
    now = str(int(NOW.timestamp()))
    body = f'{{"task_id": "t-1", "price": "12.{now}.5"}}'
    old = standard(body.encode(), at=NOW - timedelta(days=30))
    front, _, rest = body.partition(f".{now}.")
    cut = {**old, "webhook-id": f"{old['webhook-id']}.{old['webhook-timestamp']}.{front}", "webhook-timestamp": now}
    assert verify(secured(), cut, rest.encode()) is None


def test_the_key_of_another_type_signs_nothing() -> None:
    sent = json.dumps(PAYLOAD).encode()
    assert verify(connection("jimmy"), {"x-signature": scenext_signature(PAYLOAD)}, sent) is None


# -- the secret -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["", "plain words", "whsec_", "whsec_c2hvcnQ=", "whsec_§§§", "whsec_" + "A" * 400])
def test_a_secret_of_another_form_is_refused_without_showing_it(wrong: str) -> None:
    with pytest.raises(ValidationError) as caught:
        connection("jimmy", callback_secret=wrong)
    assert "callback_secret" in str(caught.value)
    assert not wrong or wrong not in str(caught.value)


def test_the_secret_is_kept_out_of_sight() -> None:
    assert SECRET not in repr(secured())
    assert SECRET in secrets_of(secured())
