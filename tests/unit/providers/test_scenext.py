"""Scenext: the document's and the code's shapes, and errors inside HTTP 200."""

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

SCENEXT = PROVIDERS["scenext"]
VIDEO = "https://oss.scenext.cn/Video/d988d4d9/Manim12345.mp4"
FRAME_1 = "https://oss.scenext.cn/frame_img/d988/frame1.png?Expires=1749287113&Signature=ZofSGtAyhO3KolVaMC8ICUZJNWE%3D"
FRAME_2 = (
    "https://oss.scenext.cn/frame_img/d988/frame3.png?Expires=1749287134&Signature=5zB4nuv7PQkPDCzbKLMQBlb9f%2Bo%3D"
)
FRAMES = [{"id": "frame1", "image": FRAME_1}, {"id": "frame2", "image": FRAME_2}]


def read(body: object, status: int = 200) -> Observation:
    return SCENEXT.parse_status(connection("scenext"), answer(body, status))


def task(status: object, **fields: object) -> dict[str, object]:
    return {"status": "success", "data": {"task_id": "12345", "status": status} | fields}


def failure(text: str) -> dict[str, object]:
    return {"status": "error", "data": {"messages": text}}


def test_the_documented_running_task_shows_its_frames() -> None:
    seen = read(task("IN_PROGRESS", progress=FRAMES))
    assert (seen.state, seen.images, seen.progress) == (ProviderState.PROCESSING, (FRAME_1, FRAME_2), None)


def test_a_completed_task_with_a_result_list_has_its_video_and_no_frames() -> None:
    seen = read(
        task(
            "COMPLETED",
            progress=FRAMES,
            consumption=[],
            result=[{"type": "video", "content": VIDEO}],
            title="t",
            created_at="2026-11-22 05:41:25.858981+00",
            finish_at="2026-11-22T05:51:25+00:00",
        )
    )
    assert (seen.state, seen.videos, seen.images) == (ProviderState.SUCCEEDED, (VIDEO,), ())
    assert seen.provider_times["created_at"].at == datetime(2026, 11, 22, 5, 41, 25, 858981, tzinfo=UTC)
    assert seen.provider_times["finished_at"].at == datetime(2026, 11, 22, 5, 51, 25, tzinfo=UTC)


def test_a_completed_task_with_a_result_object_has_its_video() -> None:
    assert read(task("COMPLETED", result={"video_url": VIDEO})).videos == (VIDEO,)


@pytest.mark.parametrize(
    "result", [None, [], {}, "x", [{"type": "text", "content": VIDEO}], [None, 3, {"type": "video"}]]
)
def test_a_completed_task_without_a_video_is_a_success_without_videos(result: object) -> None:
    seen = read(task("COMPLETED", result=result))
    assert (seen.state, seen.videos) == (ProviderState.SUCCEEDED, ())


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ([{"type": "text", "content": "任务执行失败"}], "任务执行失败"),
        ({"error": "render crashed"}, "render crashed"),
        (None, None),
    ],
)
def test_a_failure_is_told_by_list_or_object(result: object, text: str | None) -> None:
    seen = read(task("FAILED", result=result, progress=FRAMES))
    assert (seen.state, seen.error, seen.images) == (ProviderState.FAILED, text, ())


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (failure("Server error:list index out of range"), 200, ProviderUnavailable),
        (failure("Unauthorized: Invalid API key"), 200, ProviderAuthError),
        (failure("Unauthorized: Invalid API key"), 401, ProviderAuthError),
        ({"detail": "Not authenticated"}, 403, ProviderAuthError),
        ({"detail": "Not authenticated"}, 200, ProviderAuthError),  # the text says it, without the envelope
        ({"status": "error", "data": None}, 200, ProviderUnavailable),
        ({"status": "error", "data": "text"}, 200, ProviderUnavailable),
        (failure("no such task"), 404, ProviderTaskNotFound),
        ({"detail": "Not Found"}, 404, ProviderProtocolError),
        ({"detail": [{"msg": "bad id"}]}, 422, ProviderRejected),
        ("Internal Server Error", 500, ProviderUnavailable),
        ("<html>", 200, ProviderProtocolError),
        ({"status": "success", "data": None}, 200, ProviderProtocolError),
        (task(None), 200, ProviderProtocolError),
        ([], 200, ProviderProtocolError),
    ],
)
def test_errors_are_told_apart_inside_and_outside_of_http_200(
    body: object, status: int, expected: type[ProviderError]
) -> None:
    with pytest.raises(expected):
        read(body, status)


def test_an_unknown_status_word_is_still_running() -> None:
    assert read(task("RENDERING_AUDIO")).state is ProviderState.PROCESSING


def test_the_request_asks_for_one_encoded_segment_with_the_key_as_bearer() -> None:
    request = SCENEXT.status_request(connection("scenext"), "a/b?c=ü")
    assert request.url == "https://provider.example/api/get_status/a%2Fb%3Fc%3D%C3%BC"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
