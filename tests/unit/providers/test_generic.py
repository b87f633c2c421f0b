"""The generic provider: the order of judgement, and what a spec may say."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from renderbell.providers import (
    PROVIDERS,
    Observation,
    ProviderAuthError,
    ProviderError,
    ProviderProtocolError,
    ProviderRejected,
    ProviderState,
    ProviderTaskNotFound,
    ProviderUnavailable,
)
from tests.unit.providers.answers import GENERIC_SPEC, KEY, answer, connection

GENERIC = PROVIDERS["generic"]
BASE = "https://provider.example"


def spec_with(**fields: object) -> dict[str, Any]:
    return deepcopy(GENERIC_SPEC) | fields


def read(body: object, status: int = 200, spec: object = GENERIC_SPEC, **fields: object) -> Observation:
    return GENERIC.parse_status(connection("generic", spec=spec, **fields), answer(body, status))


def test_a_whole_answer_is_read() -> None:
    seen = read(
        {
            "status": "SUCCEEDED",
            "progress": "100",
            "output": ["https://h/1.mp4", None, "https://h/2.mp4"],
            "frames": "https://h/cover.png",
            "model": "m1",
            "duration": "5.0",
            "created": 1763779200,
            "finished": "2025-11-22T02:41:00Z",
            "expires": 1763865600000,
        }
    )
    assert (seen.state, seen.progress) == (ProviderState.SUCCEEDED, 100)
    assert seen.videos == ("https://h/1.mp4", "https://h/2.mp4")
    assert (seen.images, seen.model, seen.duration_s, seen.error) == (("https://h/cover.png",), "m1", 5.0, None)
    assert {name: time.at for name, time in seen.provider_times.items()} == {
        "created_at": datetime(2025, 11, 22, 2, 40, tzinfo=UTC),
        "finished_at": datetime(2025, 11, 22, 2, 41, tzinfo=UTC),
        "expires_at": datetime(2025, 11, 23, 2, 40, tzinfo=UTC),
    }


@pytest.mark.parametrize("status", [200, 201, 202, 206, 299])
def test_every_2xx_is_an_answer(status: int) -> None:
    assert read({"status": "RUNNING"}, status).state is ProviderState.PROCESSING


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, ProviderAuthError), (402, ProviderAuthError), (403, ProviderAuthError), (404, ProviderTaskNotFound),
        (408, ProviderUnavailable), (425, ProviderUnavailable), (429, ProviderUnavailable),
        (301, ProviderProtocolError), (304, ProviderProtocolError),
    ],
)  # fmt: skip
@pytest.mark.parametrize("word", ["FAILED", "RUNNING", "SUCCEEDED"])
def test_a_clear_status_goes_before_any_state(status: int, expected: type[ProviderError], word: str) -> None:
    with pytest.raises(expected):
        read({"status": word, "output": "https://h/x.mp4"}, status)


@pytest.mark.parametrize("status", [400, 409, 422, 500, 503])
def test_elsewhere_a_mapped_word_goes_before_the_status(status: int) -> None:
    assert read({"status": "FAILED", "error": "blocked"}, status).error == "blocked"
    assert read({"status": "RUNNING"}, status).state is ProviderState.PROCESSING


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, ProviderRejected),
        (409, ProviderRejected),
        (422, ProviderRejected),
        (500, ProviderUnavailable),
        (503, ProviderUnavailable),
    ],
)
@pytest.mark.parametrize("body", [{"status": "SLEEPING"}, {"status": None}, {}, [], "<html>", {"code": "NoSuchTask"}])
def test_elsewhere_an_unmapped_word_leaves_it_to_the_status(
    status: int, expected: type[ProviderError], body: object
) -> None:
    with pytest.raises(expected):
        read(body, status)


BAD = {"code": "NoSuchTask", "ok": False}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"status": "FAILED"} | BAD, ProviderState.FAILED),
        ({"status": "CANCELLED"} | BAD, ProviderState.CANCELLED),
        ({"status": "SUCCEEDED"} | BAD, ProviderTaskNotFound),
        ({"status": "RUNNING"} | BAD, ProviderTaskNotFound),
        ({"status": None} | BAD, ProviderTaskNotFound),
        ({"status": "RUNNING", "code": "BadKey", "ok": False}, ProviderAuthError),
        ({"status": "RUNNING", "code": "BadRequest", "ok": False}, ProviderRejected),
        ({"status": "RUNNING", "ok": False}, ProviderUnavailable),
        ({"status": "RUNNING", "ok": None}, ProviderState.PROCESSING),
        ({"status": "RUNNING", "ok": 0}, ProviderState.PROCESSING),
        ({"status": "SUCCEEDED", "ok": True}, ProviderState.SUCCEEDED),
        ({"status": "DREAMING"}, ProviderState.PROCESSING),
        ({"status": 17}, ProviderState.PROCESSING),
        ({"status": None}, ProviderProtocolError),
        ({"status": ""}, ProviderProtocolError),
        ({"status": []}, ProviderProtocolError),
        ({"status": {"a": 1}}, ProviderProtocolError),
        ([], ProviderProtocolError),
        ("<html>", ProviderProtocolError),
        ("", ProviderProtocolError),
    ],
)
def test_the_order_of_judgement_within_an_answer(body: object, expected: ProviderState | type[ProviderError]) -> None:
    if isinstance(expected, ProviderState):
        assert read(body).state is expected
    else:
        with pytest.raises(expected):
            read(body)


def test_not_found_goes_before_auth_before_rejected_before_ok() -> None:
    always = "`true`"
    names = ["not_found", "auth_error", "rejected"]
    kinds: list[type[ProviderError]] = [ProviderTaskNotFound, ProviderAuthError, ProviderRejected]
    for first, kind in enumerate(kinds):
        spec = spec_with(ok="`false`") | dict.fromkeys(names, "`false`") | dict.fromkeys(names[first:], always)
        with pytest.raises(kind):
            read({"status": "RUNNING"}, spec=spec)


def test_an_expression_that_fails_on_a_value_yields_null() -> None:
    spec = spec_with(
        progress="max(numbers)",
        error="join(', ', errors)",
        model="length(n)",
        not_found="contains(x, 'y')",
        ok="sum(z)",
    )
    seen = read({"status": "FAILED", "numbers": None, "errors": [1], "n": 3, "x": 5, "z": "q"}, spec=spec)
    assert (seen.state, seen.progress, seen.error, seen.model) == (ProviderState.FAILED, None, None, None)


def test_states_may_be_numbers_and_booleans() -> None:
    numbers = spec_with(states={"succeeded": [1], "failed": [-1], "processing": [4]})
    assert [read({"status": n}, spec=numbers).state for n in (1, -1, 4, 1.0, "1")] == [
        "succeeded", "failed", "processing", "succeeded", "succeeded",
    ]  # fmt: skip
    done = spec_with(state="done || `false`", states={"succeeded": [True], "processing": [False]})
    assert [read(body, spec=done).state for body in ({"done": True}, {"done": False}, {})] == [
        "succeeded", "processing", "processing",
    ]  # fmt: skip


def test_progress_counts_up_to_its_scale() -> None:
    assert read({"status": "RUNNING", "progress": 0.29}, spec=spec_with(progress_scale=1)).progress == 29


@pytest.mark.parametrize(
    ("told", "media_base_url", "videos"),
    [
        ("https://h/x.mp4", None, ("https://h/x.mp4",)),
        ("/files/x.mp4", None, (f"{BASE}/files/x.mp4",)),
        ("/files/x.mp4", "https://cdn.example/b", ("https://cdn.example/files/x.mp4",)),
        ("//cdn.example/x.mp4", None, ("https://cdn.example/x.mp4",)),
        ("key/x.mp4", None, ()),
        ("key/x.mp4", "https://cdn.example/b", ("https://cdn.example/b/key/x.mp4",)),
        ("/../x.mp4", None, ()),
        ("C:/x.mp4", "https://cdn.example", ()),
        ("\\x.mp4", "https://cdn.example", ()),
        ("file:///x.mp4", None, ()),
        ("//[x.mp4", None, ()),
        ({"url": "https://h/x.mp4"}, None, ()),
        (None, None, ()),
    ],
)
def test_relative_links_are_resolved(told: object, media_base_url: str | None, videos: tuple[str, ...]) -> None:
    seen = read({"status": "SUCCEEDED", "output": told}, media_base_url=media_base_url)
    assert (seen.state, seen.videos) == (ProviderState.SUCCEEDED, videos)


def test_videos_of_a_running_task_are_no_result_yet() -> None:
    assert read({"status": "RUNNING", "output": "https://h/x.mp4"}).videos == ()


def test_the_providers_error_is_in_the_message_of_every_status() -> None:
    for status in (200, 400, 401, 404, 429, 500):
        with pytest.raises(ProviderError, match="too many pixels"):
            read({"error": {"message": "too many pixels"}, "code": "BadRequest"}, status)


def test_the_request_is_filled_in() -> None:
    spec = spec_with(
        request={
            "method": "POST",
            "path": "/v1/query?task={task_id}&x=1",
            "headers": {"X-Task": "id {task_id}", "accept": "application/vnd.x+json"},
            "json": {"id": "{task_id}", "list": ["{task_id}!", 1, None, {"{task_id}": True}]},
        },
        auth={"header": "X-Key", "format": "Token {api_key}"},
    )
    request = GENERIC.status_request(connection("generic", spec=spec), "a/ü")
    assert (request.method, request.url) == ("POST", f"{BASE}/v1/query?task=a%2F%C3%BC&x=1")
    assert request.json == {"id": "a/ü", "list": ["a/ü!", 1, None, {"{task_id}": True}]}
    assert dict(request.headers) == {
        "X-Key": f"Token {KEY}", "X-Task": "id a/%C3%BC", "accept": "application/vnd.x+json",
    }  # fmt: skip


def test_a_task_id_that_looks_like_a_placeholder_reveals_nothing() -> None:
    spec = spec_with(request={"path": "/t/{task_id}", "headers": {"X-T": "{task_id}"}, "json": "{task_id}"})
    request = GENERIC.status_request(connection("generic", spec=spec), "{api_key}")
    assert KEY not in request.url + str(request.json) + request.headers["X-T"]


def request_with(**fields: object) -> dict[str, Any]:
    return spec_with(request={"method": "GET", "path": "/v1/{task_id}"} | fields)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "required"),
        (spec_with(state="status["), "JMESPath"),
        (spec_with(videos="[?"), "JMESPath"),
        (spec_with(error=""), "at least 1"),
        (spec_with(model="nosuch(@"), "JMESPath"),
        (spec_with(state="(" * 3000), "at most 2000"),
        (spec_with(state=7), "string"),
        (spec_with(states={"succeeded": ["A"], "failed": ["A"]}), "each word once"),
        (spec_with(states={"succeeded": ["1"], "failed": [1]}), "each word once"),
        (spec_with(states={"failed": ["A"]}), "mean succeeded"),
        (spec_with(states={"succeeded": []}), "mean succeeded"),
        (spec_with(states={"succeeded": [""]}), "empty word"),
        (spec_with(states={"done": ["A"], "succeeded": ["B"]}), "queued"),
        (spec_with(progress_scale=0), "greater than 0"),
        (spec_with(poll_interval_s=0.1), "greater than or equal to 1"),
        (spec_with(unknown=1), "not permitted"),
        (request_with(path="v1/{task_id}"), "must start with /"),
        (request_with(path="/v1/{id}"), "only placeholder"),
        (request_with(path="/v1/{task_id} x"), "must start with /"),
        (request_with(path="/v1/{task_id}#x"), "must start with /"),
        (request_with(path="/v1/../{task_id}"), "dot segments"),
        (request_with(path="/v1/\n{task_id}"), "must start with /"),
        (request_with(path="/v1/list"), r"must use \{task_id\}"),
        (request_with(method="DELETE"), "GET"),
        (request_with(headers={"X-A": "b\r\nHost: evil"}), "printable ASCII"),
        (request_with(headers={"X-A": "b\n"}), "printable ASCII"),
        (request_with(headers={"X A": "b"}), "token"),
        (request_with(headers={"X-A\n": "b"}), "token"),
        (request_with(headers={"Content-Length": "1"}), "HTTP client"),
        (request_with(headers={"X-A": "1", "x-a": "2"}), "once"),
        (request_with(headers={"authorization": "x"}), "header that auth sends"),
        (spec_with(auth={"header": "A\nB", "format": "{api_key}"}), "token"),
        (spec_with(auth={"header": "A", "format": "Bearer"}), "api_key"),
        (spec_with(auth={"header": "A", "format": "{api_key}\r\nX: y"}), "printable ASCII"),
    ],
)
def test_a_spec_that_cannot_work_is_refused(spec: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        connection("generic", spec=spec)


@pytest.mark.parametrize("missing", ["request", "state", "states", "videos"])
def test_four_fields_are_required(missing: str) -> None:
    spec = {name: value for name, value in GENERIC_SPEC.items() if name != missing}
    with pytest.raises(ValidationError, match=f"spec.{missing}\n"):
        connection("generic", spec=spec)


def test_four_fields_are_enough() -> None:
    spec = {"request": {"path": "/{task_id}"}, "state": "s", "states": {"succeeded": ["ok"]}, "videos": "v"}
    assert read({"s": "ok", "v": "https://h/x.mp4"}, spec=spec).videos == ("https://h/x.mp4",)


def test_a_spec_can_be_written_out_and_read_back() -> None:
    account = connection("generic")
    assert account.spec is not None
    written = account.spec.model_dump(mode="json", by_alias=True)
    assert connection("generic", spec=written).spec == account.spec
