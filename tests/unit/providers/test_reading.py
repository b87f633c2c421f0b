"""What all providers share: links, numbers, times, waiting hints, secrets, and bodies that may be anything."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from renderbell.providers import (
    PROVIDERS,
    HttpResponse,
    Observation,
    ProviderAuthError,
    ProviderError,
    ProviderProtocolError,
    ProviderUnavailable,
)
from renderbell.providers.reading import duration_of, link, links, progress_of, retry_after_s, storable, time_of
from tests.unit.providers.answers import KEY, answer, connection


@pytest.mark.parametrize(
    "url",
    [
        "https://a/b.mp4",
        "HTTP://[::1]:8080/x",
        "https://bucket.example/x.mp4?sign=1;2&u=%20#t",
        "https://例子.example/视频.mp4",
        "https://h/" + "x" * (4096 - 10),
    ],
)
def test_an_absolute_http_url_is_a_link(url: str) -> None:
    assert link(url) == url


@pytest.mark.parametrize(
    "value",
    [
        "", " https://a/b", "https://a/b\n", "https://a/b c", "https://a/\x00", "https://a/\x85", "https://a/\u2028",
        "https://a/\udfff", chr(0xFFFD).join(["https://a/", "b"]), "https://", "https:///x", "http://:80/x", "https://[::1/x",
        "https://a:99999/x", "https://a:b/x", "ftp://a/b", "file:///a", "data:video/mp4;base64,AA", "//a/b",
        "/srv/x.mp4", "C:\\x.mp4", "x.mp4", "javascript:a(1)", "https://h/" + "x" * 4087, None, 7, b"https://a/b", ["https://a/b"],
    ],
)  # fmt: skip
def test_everything_else_is_no_link(value: object) -> None:
    assert link(value) is None


def test_links_keep_their_order_and_drop_what_is_none_or_doubled() -> None:
    assert links(["https://b/", None, "x", "https://a/", "https://b/", {}]) == ("https://b/", "https://a/")
    assert links("https://a/") == ("https://a/",)
    assert links({"https://a/": 1}) == links(None) == links(3) == ()


@pytest.mark.parametrize(
    ("value", "scale", "expected"),
    [
        (0, 100, 0), (75, 100, 75), (75.9, 100, 75), (-5, 100, 0), (250, 100, 100), ("75", 100, 75), ("75%", 100, 75),
        (0.29, 1, 29), (1, 1, 100), ("40 %", 1, 40), (None, 100, None), (True, 100, None), ("x", 100, None),
        ("", 100, None), (float("nan"), 100, None), (float("inf"), 100, None), (10**400, 100, None), ([], 100, None),
        ("%", 100, None),
    ],
)  # fmt: skip
def test_progress_is_whole_per_cent_or_unknown(value: object, scale: float, expected: int | None) -> None:
    assert progress_of(value, scale) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("4.000000", 4.0), (5.0404, 5.04), (-1, None), (1e9, None), ("", None)]
)
def test_a_duration_is_seconds_or_unknown(value: object, expected: float | None) -> None:
    assert duration_of(value) == expected


FIVE = datetime(2026, 11, 22, 5, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("raw", "zone", "at"),
    [
        ("2026-11-22T05:00:00Z", None, FIVE),
        ("2026-11-22T13:00:00+08:00", None, FIVE),
        ("2026-11-22T13:00:00+0800", "UTC", FIVE),
        ("2026-11-22 05:00:00.000000+00", None, FIVE),
        ("2026-11-22T05:00:00.123456789Z", None, FIVE.replace(microsecond=123456)),
        ("2026-11-22T13:00:00", "+08:00", FIVE),
        ("2026-11-22 13:00:00", "Asia/Shanghai", FIVE),
        ("2026-11-22T01:30:00", "-03:30", FIVE),
        ("2026-11-22T00:00:00", "America/New_York", FIVE),
        ("2026-11-22T05:00:00", None, None),
        (int(FIVE.timestamp()), None, FIVE),
        (FIVE.timestamp() * 1000, None, FIVE),
        (str(int(FIVE.timestamp())), None, FIVE),
        (f"{int(FIVE.timestamp())}000", None, FIVE),
        (1e11, None, datetime(5138, 11, 16, 9, 46, 40, tzinfo=UTC)),
        (1e11 + 1000, None, datetime(1973, 3, 3, 9, 46, 41, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", None, None),
        ("0000-00-00 00:00:00", "UTC", None),
        ("0001-01-01T00:00:00", "+14:00", None),
        ("9999-12-31T23:59:59", "-12:00", None),
        ("", None, None),
        ("yesterday", "UTC", None),
        ("2026-13-45", "UTC", None),
        (0, None, None),
        (-5, None, None),
        (1e300, None, None),
        (10**400, None, None),
        (float("nan"), None, None),
        (float("inf"), None, None),
        (float("-inf"), None, None),
        ("9" * 16, None, None),
        ("9" * 5000, "UTC", None),
    ],
)
def test_a_time_is_utc_or_unknown(raw: str | int | float, zone: str | None, at: datetime | None) -> None:
    assert time_of(raw, zone) == at


def test_a_raw_time_is_kept_in_a_form_that_a_table_holds() -> None:
    kept = [storable(raw) for raw in ("x" * 100, 1761635478, 1.5, 0.0, 10**40, 1e300, 1e-300, float("nan"))]
    assert kept == ["x" * 64, 1761635478, 1.5, 0.0, "out of range", "1e+300", "1e-300", "nan"]


SENT = "Sun, 22 Nov 2026 05:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "999999999"}, 86_400.0),
        ({"Retry-After": "Sun, 22 Nov 2026 05:02:00 GMT", "Date": SENT}, 120.0),
        ({"Retry-After": "Sun, 22 Nov 2026 05:02:00 -0000", "date": SENT}, 120.0),
        ({"Retry-After": "Sun, 22 Nov 2026 04:00:00 GMT", "Date": SENT}, 0.0),
        ({"Retry-After": "Sun, 22 Nov 2099 04:00:00 GMT", "Date": SENT}, 86_400.0),
        ({"Retry-After": "Sun, 22 Nov 2026 05:02:00 GMT"}, None),
        ({"Retry-After": "Sun, 22 Nov 2026 05:02:00 GMT", "Date": "now"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "1e9"}, None),
        ({"Retry-After": "²"}, None),
        ({"Retry-After": "5, 10"}, None),
        ({"Retry-After": "nan"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_hint_to_wait_is_in_seconds_by_the_answers_own_clock(
    headers: dict[str, str], seconds: float | None, status: int
) -> None:
    response = answer("", status, headers)
    assert retry_after_s(response.headers) == seconds
    for type_ in PROVIDERS:
        with pytest.raises(ProviderUnavailable) as caught:
            PROVIDERS[type_].parse_status(connection(type_), response)
        assert caught.value.retry_after == seconds


@pytest.mark.parametrize("type_", PROVIDERS)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "auth"), (402, "auth"), (403, "auth"), (408, "unavailable"), (425, "unavailable"), (429, "unavailable"),
        (500, "unavailable"), (502, "unavailable"), (503, "unavailable"), (504, "unavailable"), (599, "unavailable"),
        (400, "rejected"), (409, "rejected"), (410, "rejected"), (422, "rejected"), (405, "protocol"),
        (301, "protocol"), (304, "protocol"), (100, "protocol"), (200, "protocol"), (204, "protocol"),
        (999, "protocol"),
    ],
)  # fmt: skip
def test_without_a_better_word_the_http_status_decides(type_: str, status: int, kind: str) -> None:
    for body in ("", "<html>error</html>"):
        with pytest.raises(ProviderError) as caught:
            PROVIDERS[type_].parse_status(connection(type_), answer(body, status))
        assert caught.value.kind == kind


MINGYAN = PROVIDERS["mingyan"]


def read(body: bytes, status: int = 200, key: str | None = KEY) -> Observation:
    return MINGYAN.parse_status(connection("mingyan", api_key=key), HttpResponse(status, {}, body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"status":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"status":"queued","created":' + b"9" * 5_000 + b"}",
        b'{"status":"\xff\xfe"}',
        b"\x00",
        b"[]",
        b'"queued"',
        b"{",
    ],
    ids=["deep", "huge number", "not UTF-8", "nul", "list", "text", "cut off"],
)
def test_a_body_that_cannot_be_read_is_a_protocol_error_with_its_beginning(body: bytes) -> None:
    with pytest.raises(ProviderProtocolError) as caught:
        read(body)
    assert caught.value.raw == body[:500].decode("utf-8", "replace")


def test_odd_but_readable_json_is_read() -> None:
    assert read(b'\xef\xbb\xbf{"status":"queued"}').state == "queued"
    assert read(b'{"status":"failed","status":"queued"}').state == "queued"
    assert read(b'{"status":"queued","created":NaN,"actualDuration":Infinity}').duration_s is None


def test_a_text_cut_in_the_middle_of_a_character_does_not_hide_the_failure() -> None:
    assert read(rb'{"status":"failed","error":"bad \ud83d"}').error == "bad \ufffd"
    assert read(rb'{"status":"failed","error":"good \ud83d\ude00 \\ud83d"}').error == "good \U0001f600 \\ud83d"
    assert read(rb'{"status":"completed","video_url":"https://h/\ud83d.mp4"}').videos == ()


@pytest.mark.parametrize("type_", PROVIDERS)
@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
@pytest.mark.parametrize("escape", [str, lambda key: key.replace("/", "\\/"), lambda key: json.dumps(key)[1:-1]])
def test_an_echoed_key_is_never_shown(type_: str, status: int, escape: object) -> None:
    assert callable(escape)
    echo = escape(KEY)
    word = '"error"' if type_ == "scenext" else "null"
    bodies = [
        f"bad header: Bearer {echo}",
        f'{{"code": 5, "status": {word}, "message": "key {echo}", "msg": "key {echo}", "error": "key {echo}", '
        f'"detail": "key {echo}", "data": {{"messages": "key {echo}"}}}}',
    ]
    for body in bodies:
        with pytest.raises(ProviderError) as caught:
            PROVIDERS[type_].parse_status(connection(type_), answer(body, status))
        shown = str(caught.value) + getattr(caught.value, "raw", "")
        assert KEY not in shown
        assert echo not in shown


def test_an_echoed_key_is_not_kept_as_the_tasks_error() -> None:
    body = json.dumps({"status": "failed", "error": f"upstream refused {KEY}!"}).encode()
    assert read(body).error == "upstream refused ***!"


def test_a_providers_words_are_in_the_error() -> None:
    with pytest.raises(ProviderAuthError, match=r"^HTTP 401: no such key$"):
        read(b'{"error":{"message":"no such key"}}', 401)
