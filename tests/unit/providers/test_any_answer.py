"""Whatever a server answers, a parser returns an observation or raises a provider error, and never anything else."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renderbell.providers import PROVIDERS, Connection, HttpResponse, Observation, ProviderError, ProviderState
from tests.unit.providers.answers import KEY, connection

FIELDS = [
    "status",
    "state",
    "code",
    "data",
    "result",
    "progress",
    "video_url",
    "videos",
    "combined_videos",
    "image_url",
    "output",
    "error",
    "error_message",
    "messages",
    "message",
    "msg",
    "detail",
    "created_at",
    "completed_at",
    "finish_at",
    "created",
    "finished",
    "expires",
    "actualDuration",
    "duration",
    "id",
    "task_id",
    "type",
    "content",
    "image",
    "frames",
    "model",
    "ok",
]
WORDS = [
    *[
        "success",
        "error",
        "completed",
        "COMPLETED",
        "SUCCEEDED",
        "failed",
        "FAILED",
        "IN_PROGRESS",
        "queued",
        "PENDING",
        "CANCELLED",
        "video",
        "text",
    ],
    *[
        "BadKey",
        "NoSuchTask",
        "20000",
        "0",
        "2031",
        "75%",
        "NaN",
        "https://h/v.mp4",
        "http://[::1",
        "/tasks/1/final-1.mp4",
        "/srv/x.mp4",
        "a/b.mp4",
    ],
    *[
        "http://a/http://b/tasks/x.mp4",
        "http://a:99999/x",
        "//h/x",
        "2026-11-22T05:41:25",
        "0001-01-01T00:00:00Z",
        "1763779200",
    ],
    *["9999-12-31T23:59:59-23:59", "0000-00-00", "https://h/a b", "https://h/" + "x" * 4090, KEY],
    *["\ud800", "\udc00x", "", " "],
]
NUMBERS = [0, 1, -1, 4, 20000, 2031, 100, -5, 10**13, 10**400, 1e300, -0.0, float("nan"), float("inf"), float("-inf")]

leaves = st.one_of(
    st.none(), st.booleans(), st.sampled_from(NUMBERS), st.integers(), st.floats(), st.sampled_from(WORDS), st.text()
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6),
        st.dictionaries(st.text(max_size=8), inner, max_size=3),
    ),
    max_leaves=20,
)
states = st.sampled_from(
    ["completed", "COMPLETED", "SUCCEEDED", "failed", "FAILED", "processing", "IN_PROGRESS", 1, -1, 4]
)
fields = st.dictionaries(st.sampled_from(FIELDS), values, max_size=8)
tasks = st.builds(
    lambda some, state: some | {"status": state, "state": state, "task_id": "t", "id": "t"}, fields, states
)
shaped = st.one_of(
    tasks,
    st.builds(
        lambda task, code: {"status": "success", "code": code, "data": task},
        tasks,
        st.sampled_from([0, 20000, "0", -1]),
    ),
)
bodies = st.one_of(
    st.one_of(shaped, values).map(lambda value: json.dumps(value).encode()),
    shaped.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")[:-1] + b" }"),
    st.binary(max_size=200),
    st.sampled_from(
        [b"[" * 100_000, b'{"data":' * 5_000, b'{"status":' + b"7" * 5_000 + b"}", b"\xef\xbb\xbf{}", b"NaN"]
    ),
)
headers = st.dictionaries(
    st.one_of(st.sampled_from(["Retry-After", "Date", "Content-Type"]), st.text(min_size=1, max_size=20)),
    st.one_of(
        st.sampled_from(
            ["120", "-1", "1e999", "9" * 30, "Sun, 22 Nov 2026 05:00:00 GMT", "Sun, 99 Nov 0000 05:00:00 GMT"]
        ),
        st.text(max_size=40),
    ),
    max_size=4,
)
CONNECTIONS = {
    type_: {
        True: connection(type_),
        False: connection(type_, timezone="+08:00", media_base_url="https://m/", api_key=None),
    }
    for type_ in PROVIDERS
}


def is_link(url: str) -> bool:
    """The rule for links, written a second time."""
    sound = not re.search(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]", url) and len(url) <= 4096
    return sound and urlsplit(url).scheme.lower() in {"http", "https"} and bool(urlsplit(url).hostname)


def check_observation(seen: Observation) -> None:
    assert isinstance(seen.state, ProviderState)
    assert seen.progress is None or (type(seen.progress) is int and 0 <= seen.progress <= 100)
    assert all(map(is_link, (*seen.videos, *seen.images, *seen.combined)))
    assert not seen.videos or seen.state is ProviderState.SUCCEEDED
    assert seen.error is None or seen.error.strip()
    assert seen.duration_s is None or 0 <= seen.duration_s < 1e9
    assert set(seen.provider_times) <= {"created_at", "started_at", "finished_at", "expires_at"}
    for time in seen.provider_times.values():
        assert time.at is None or time.at.utcoffset() is not None
        json.dumps(time.raw, allow_nan=False)


def check_error(error: ProviderError) -> None:
    retry_after = getattr(error, "retry_after", None)
    assert retry_after is None or 0 <= retry_after <= 86_400
    assert len(str(error)) < 700
    assert len(getattr(error, "raw", "")) <= 500


def parsed(type_: str, account: Connection, response: HttpResponse) -> Observation | ProviderError:
    try:
        return PROVIDERS[type_].parse_status(account, response)
    except ProviderError as error:
        return error


@pytest.mark.parametrize("type_", PROVIDERS)
@settings(max_examples=200, deadline=None)
@given(status=st.one_of(st.just(200), st.integers(100, 599)), sent=headers, body=bodies, with_key=st.booleans())
def test_any_answer_is_an_observation_or_a_provider_error(
    type_: str, status: int, sent: dict[str, str], body: bytes, with_key: bool
) -> None:
    outcome = parsed(type_, CONNECTIONS[type_][with_key], HttpResponse(status, sent, body))
    if isinstance(outcome, ProviderError):
        check_error(outcome)
        shown = f"{outcome}{getattr(outcome, 'raw', '')}"
    else:
        check_observation(outcome)
        assert status not in {401, 402, 403, 404, 408, 425, 429}
        assert status // 100 in {2, 4, 5}
        shown = outcome.error or ""
    assert not with_key or KEY not in shown


@pytest.mark.parametrize("type_", PROVIDERS)
def test_the_shapes_above_reach_every_kind_of_observation(type_: str) -> None:
    words = {
        "capcut-mate": ("completed", "failed", "processing"),
        "scenext": ("COMPLETED", "FAILED", "IN_PROGRESS"),
        "moneyprinterturbo": (1, -1, 4),
        "generic": ("SUCCEEDED", "FAILED", "RUNNING"),
    }.get(type_, ("completed", "failed", "processing"))
    flat = type_ in {"capcut-mate", "mingyan", "generic"}
    seen = []
    for word in words:
        task = {"status": word, "state": word}
        body = task if flat else {"status": "success", "code": 20000, "data": task}
        response = HttpResponse(200, {}, json.dumps(body).encode())
        seen.append(PROVIDERS[type_].parse_status(CONNECTIONS[type_][True], response).state)
    assert seen == ["succeeded", "failed", "processing"]
