"""Jimmy: envelopes old and new, business errors inside HTTP 200, relative links."""

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

JIMMY = PROVIDERS["jimmy"]
VIDEO = "https://cdn.jimmyai.cn/video/xxx.mp4"


def read(body: object, status: int = 200, **fields: object) -> Observation:
    return JIMMY.parse_status(connection("jimmy", **fields), answer(body, status))


def task(status: object, **fields: object) -> dict[str, object]:
    return {"task_id": "t1", "status": status, "progress": 40, "model": "seedance"} | fields


@pytest.mark.parametrize("code", [20000, "20000"])
@pytest.mark.parametrize("word", ["queued", "pending", "submitted"])
def test_the_code_may_be_a_number_or_text(code: object, word: str) -> None:
    seen = read({"code": code, "msg": "ok", "data": task(word, progress=0, completed_at=0, result=None)})
    assert (seen.state, seen.progress, seen.model) == (ProviderState.QUEUED, 0, "seedance")
    assert "finished_at" not in seen.provider_times


def test_a_completed_task_has_its_video_and_times() -> None:
    data = task(
        "completed", progress=100, created_at=1763779200, completed_at=1763779260000, result={"video_url": VIDEO}
    )
    seen = read({"code": 20000, "msg": "ok", "data": data})
    assert (seen.state, seen.videos, seen.progress) == (ProviderState.SUCCEEDED, (VIDEO,), 100)
    assert seen.provider_times["created_at"].at == datetime(2025, 11, 22, 2, 40, tzinfo=UTC)
    assert seen.provider_times["finished_at"].at == datetime(2025, 11, 22, 2, 41, tzinfo=UTC)
    assert seen.provider_times["finished_at"].raw == 1763779260000


def test_the_old_body_without_an_envelope_is_read() -> None:
    seen = read(task("completed", result={"video_url": VIDEO}))
    assert (seen.state, seen.videos) == (ProviderState.SUCCEEDED, (VIDEO,))


def test_a_failure_has_its_text_and_no_progress() -> None:
    seen = read({"code": 20000, "data": task("failed", progress=0, error_message="内容违规")})
    assert (seen.state, seen.error, seen.progress) == (ProviderState.FAILED, "内容违规", None)


@pytest.mark.parametrize("word", ["canceled", "cancelled"])
def test_both_spellings_of_cancelled_are_read(word: str) -> None:
    assert read({"code": 20000, "data": task(word)}).state is ProviderState.CANCELLED


def test_an_unknown_status_word_is_still_running() -> None:
    assert read({"code": 20000, "data": task("upscaling")}).state is ProviderState.PROCESSING


def test_a_success_with_only_an_image_has_the_image() -> None:
    seen = read({"code": 20000, "data": task("completed", result={"image_url": "https://cdn/i.png", "video_url": ""})})
    assert (seen.videos, seen.images) == ((), ("https://cdn/i.png",))


@pytest.mark.parametrize(
    ("media_base_url", "key", "videos"),
    [
        (None, "seedance/mini-sp/video/xxx.mp4", ()),
        (
            "https://oss.example",
            "seedance/mini-sp/video/xxx.mp4",
            ("https://oss.example/seedance/mini-sp/video/xxx.mp4",),
        ),
        ("https://oss.example/b/", "/seedance/x.mp4", ("https://oss.example/b/seedance/x.mp4",)),
        ("https://oss.example", "../x.mp4", ()),
        ("https://oss.example", "file:///x.mp4", ()),
        ("https://oss.example", "a b.mp4", ()),
        ("https://oss.example", VIDEO, (VIDEO,)),
    ],
)
def test_a_storage_key_is_a_link_only_on_the_media_address(
    media_base_url: str | None, key: str, videos: tuple[str, ...]
) -> None:
    body = {"code": 20000, "data": task("completed", result={"video_url": key})}
    assert read(body, media_base_url=media_base_url).videos == videos


@pytest.mark.parametrize("result", [None, "x", [], {"video_url": None}, {}])
def test_a_success_without_a_link_is_a_success_without_videos(result: object) -> None:
    seen = read({"code": 20000, "data": task("completed", result=result)})
    assert (seen.state, seen.videos, seen.images) == (ProviderState.SUCCEEDED, (), ())


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({"code": 20001, "msg": "", "data": None}, 200, ProviderAuthError),
        ({"code": "20001", "msg": "", "data": None}, 200, ProviderAuthError),
        ({"code": 20002, "msg": "bad", "data": None}, 200, ProviderRejected),
        ({"code": 20002, "msg": "bad", "data": None}, 500, ProviderRejected),  # the body is the better word
        ({"code": -1, "msg": "server", "data": None}, 200, ProviderUnavailable),
        ({"code": 30007, "msg": "?", "data": None}, 200, ProviderUnavailable),
        ({"code": -1, "msg": "x", "data": None}, 401, ProviderAuthError),
        ({"code": -1, "msg": "task not found", "data": None}, 404, ProviderTaskNotFound),
        ("404 page not found", 404, ProviderProtocolError),  # Go's word for a wrong base URL
        ({"detail": "Not Found"}, 404, ProviderProtocolError),
        ({"msg": "bad id"}, 400, ProviderRejected),
        ("", 403, ProviderAuthError),
        ("", 402, ProviderAuthError),
        ("", 408, ProviderUnavailable),
        ("", 503, ProviderUnavailable),
        ({"code": 20000, "msg": "ok", "data": None}, 200, ProviderProtocolError),
        ({"code": 20000, "data": task(3)}, 200, ProviderProtocolError),
        ("moved", 301, ProviderProtocolError),
    ],
)
def test_errors_go_by_code_then_by_status(body: object, status: int, expected: type[ProviderError]) -> None:
    with pytest.raises(expected):
        read(body, status)


def test_a_failed_task_under_a_400_is_a_failed_task() -> None:
    assert read({"code": 20000, "data": task("failed")}, 400).state is ProviderState.FAILED


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_a_gateways_failed_is_no_verdict_on_the_task(status: int) -> None:
    with pytest.raises(ProviderError):
        read({"status": "failed", "msg": "upstream"}, status)


def test_the_request_asks_for_one_encoded_segment_with_the_key_as_bearer() -> None:
    request = JIMMY.status_request(connection("jimmy"), "a/b")
    assert (request.method, request.url) == ("GET", "https://provider.example/api/open-api/v1/videos/a%2Fb")
    assert request.headers["Authorization"] == f"Bearer {KEY}"
