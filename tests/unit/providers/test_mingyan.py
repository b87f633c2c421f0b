"""mingyan's Videos API: flat and wrapped bodies, errors of two shapes, numbers as text."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

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
from tests.unit.providers.answers import KEY, answer, connection

MINGYAN = PROVIDERS["mingyan"]
VIDEO = "https://files.aizfw.cn/v/1.mp4"


def read(body: object, status: int = 200) -> Observation:
    return MINGYAN.parse_status(connection("mingyan"), answer(body, status))


def task(status: object, **fields: object) -> dict[str, object]:
    known = {"id": "v1", "object": "video", "created": 1761635478, "model": "videos", "video_url": None, "error": None}
    return known | {"status": status} | fields


def test_the_documented_states_are_read() -> None:
    assert read(task("queued")).state is ProviderState.QUEUED
    assert read(task("processing")).state is ProviderState.PROCESSING
    done = read(task("completed", video_url=VIDEO, actualDuration=4.000000))
    assert (done.state, done.videos, done.duration_s, done.model) == (ProviderState.SUCCEEDED, (VIDEO,), 4.0, "videos")
    assert done.provider_times["created_at"].at == datetime(2025, 10, 28, 7, 11, 18, tzinfo=UTC)
    assert done.progress is None


@pytest.mark.parametrize(
    ("error", "text"),
    [("blocked", "blocked"), ({"message": "blocked", "code": 7}, "blocked"), ("", None), (None, None), ({}, None)],
)
def test_an_error_is_text_or_an_object(error: object, text: str | None) -> None:
    seen = read(task("failed", error=error))
    assert (seen.state, seen.error) == (ProviderState.FAILED, text)


@pytest.mark.parametrize(("told", "duration"), [("4.000000", 4.0), (5, 5.0), ("x", None), (-1, None), ([], None)])
def test_a_duration_may_be_text(told: object, duration: float | None) -> None:
    seen = read(task("completed", video_url=VIDEO, actualDuration=told, totalTokens="12", amount="0.1"))
    assert seen.duration_s == duration


def test_a_body_wrapped_in_data_is_read() -> None:
    seen = read({"code": "0", "msg": None, "data": task("completed", video_url=VIDEO)})
    assert (seen.state, seen.videos) == (ProviderState.SUCCEEDED, (VIDEO,))


def test_the_other_field_for_the_result_is_used_where_the_first_is_empty() -> None:
    assert read(task("completed", result_url=VIDEO)).videos == (VIDEO,)
    assert read(task("completed", video_url=VIDEO, result_url="https://other/x")).videos == (VIDEO,)


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({"message": "No handler found for GET /kyyReactApiServer/v1/x"}, 404, ProviderProtocolError),
        ({"timestamp": 1, "status": 404, "error": "Not Found", "path": "/x"}, 404, ProviderProtocolError),
        ("<html>", 404, ProviderProtocolError),
        ({"error": {"message": "task not found"}}, 404, ProviderTaskNotFound),
        ({"code": "404", "msg": "任务不存在", "data": None}, 200, ProviderTaskNotFound),
        ({"code": "401", "msg": "bad key"}, 200, ProviderAuthError),
        ({"code": 500, "msg": "busy"}, 200, ProviderUnavailable),
        ({"code": -1, "msg": "busy"}, 200, ProviderUnavailable),
        ({"error": {"message": "bad key"}}, 401, ProviderAuthError),
        ({"error": "pay"}, 402, ProviderAuthError),
        ({"error": "bad id"}, 400, ProviderRejected),
        ({"error": "gone"}, 410, ProviderRejected),
        ({"error": "slow down"}, 429, ProviderUnavailable),
        ("", 503, ProviderUnavailable),
        ({"id": "v1"}, 200, ProviderProtocolError),
        (task(None), 200, ProviderProtocolError),
        (task({"a": 1}), 200, ProviderProtocolError),
        ("null", 200, ProviderProtocolError),
        ("", 204, ProviderProtocolError),
    ],
)
def test_errors_go_by_body_then_by_status(body: object, status: int, expected: type[ProviderError]) -> None:
    with pytest.raises(expected):
        read(body, status)


def test_a_failed_task_under_a_400_is_a_failed_task() -> None:
    assert read(task("failed", error="blocked"), 400).error == "blocked"


def test_a_gateways_failed_is_no_verdict_on_the_task() -> None:
    with pytest.raises(ProviderUnavailable):
        read({"status": "failed", "message": "upstream"}, 502)


@pytest.mark.parametrize("base", ["https://zcbservice.aizfw.cn", "https://zcbservice.aizfw.cn/kyyReactApiServer/"])
def test_the_base_url_may_end_in_the_apis_prefix(base: str) -> None:
    request = MINGYAN.status_request(connection("mingyan", base_url=base), "v/1")
    assert request.url == "https://zcbservice.aizfw.cn/kyyReactApiServer/v1/result/v%2F1"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
