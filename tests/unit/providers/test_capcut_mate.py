"""CapCut-Mate beyond the recordings: its document's forms, codes and times."""

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
from tests.unit.providers.answers import answer, connection

CAPCUT = PROVIDERS["capcut-mate"]
DRAFT = "https://capcut-mate.jcaigc.cn/openapi/capcut-mate/v1/get_draft?draft_id=2025092811473036584258"
LINK = "https://video-output.assets.jcaigc.cn/generated/video_abc123def456ghi789.mp4"


def documented(**fields: object) -> dict[str, object]:
    """A flat body as the provider's document shows it: no code, times in UTC."""
    return {
        "draft_url": DRAFT,
        "status": "processing",
        "progress": 65,
        "video_url": "",
        "error_message": "",
        "created_at": "2024-09-24T10:30:00.000Z",
        "started_at": "2024-09-24T10:30:05.000Z",
        "completed_at": None,
    } | fields


def read(body: object, status: int = 200, **fields: object) -> Observation:
    return CAPCUT.parse_status(connection("capcut-mate", **fields), answer(body, status))


def test_the_documented_bodies_without_a_code_are_read() -> None:
    waiting = read(documented(status="pending", progress=0, started_at=None))
    assert (waiting.state, waiting.progress) == (ProviderState.QUEUED, 0)
    running = read(documented())
    assert (running.state, running.progress) == (ProviderState.PROCESSING, 65)
    done = read(documented(status="completed", progress=100, video_url=LINK, completed_at="2024-09-24T10:35:30.000Z"))
    assert (done.state, done.videos) == (ProviderState.SUCCEEDED, (LINK,))
    assert done.provider_times["finished_at"].at == datetime(2024, 9, 24, 10, 35, 30, tzinfo=UTC)
    failed = read(documented(status="failed", progress=0, error_message="Export draft failed"))
    assert (failed.state, failed.error, failed.progress) == (ProviderState.FAILED, "Export draft failed", None)


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({"detail": "Video generation task not found"}, 404, ProviderTaskNotFound),
        ({"detail": "Not Found"}, 404, ProviderProtocolError),  # FastAPI's word for a wrong base URL
        ("<html>nginx</html>", 404, ProviderProtocolError),
        ({"detail": "Video task status query failed"}, 500, ProviderUnavailable),
        ({"detail": "draft_url is required"}, 400, ProviderRejected),
        ({"detail": "Method Not Allowed"}, 405, ProviderProtocolError),
        ("<html>busy</html>", 502, ProviderUnavailable),
        ("", 429, ProviderUnavailable),
        ("", 401, ProviderAuthError),
        ("", 302, ProviderProtocolError),
    ],
)
def test_the_documented_http_errors_are_understood_too(
    body: object, status: int, expected: type[ProviderError]
) -> None:
    with pytest.raises(expected):
        read(body, status)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (2031, ProviderTaskNotFound),
        ("2031", ProviderTaskNotFound),
        (2032, ProviderUnavailable),
        (9998, ProviderUnavailable),
        (9999, ProviderUnavailable),
        (1001, ProviderRejected),
        (2001, ProviderRejected),
        (2035, ProviderAuthError),
        (2036, ProviderAuthError),
        (404, ProviderProtocolError),
        (405, ProviderProtocolError),
        (401, ProviderAuthError),
        (503, ProviderUnavailable),
    ],
)
def test_the_code_decides_whatever_the_message_says(code: object, expected: type[ProviderError]) -> None:
    with pytest.raises(expected):
        read({"code": code, "message": "成功"})


def test_a_code_decides_under_any_http_status() -> None:
    with pytest.raises(ProviderTaskNotFound):
        read({"code": 2031, "message": "x"}, 500)


def test_completed_without_a_link_is_a_success_without_videos() -> None:
    race = read({"code": 0, "status": "completed", "progress": 95, "video_url": ""})
    assert (race.state, race.videos, race.progress) == (ProviderState.SUCCEEDED, (), 95)


def test_naive_times_are_the_connections_zone_or_unknown() -> None:
    body = {"code": 0, "status": "pending", "created_at": "2026-11-22T05:41:25.858981"}
    assert read(body).provider_times["created_at"].at is None
    assert read(body).provider_times["created_at"].raw == "2026-11-22T05:41:25.858981"
    expected = datetime(2026, 11, 21, 21, 41, 25, 858981, tzinfo=UTC)
    assert read(body, timezone="+08:00").provider_times["created_at"].at == expected
    assert read(body, timezone="Asia/Shanghai").provider_times["created_at"].at == expected


def test_a_time_that_is_not_reached_is_left_out() -> None:
    assert set(read(documented(completed_at=None, started_at="")).provider_times) == {"created_at"}


def test_an_unknown_status_word_is_still_running() -> None:
    assert read(documented(status="transcoding")).state is ProviderState.PROCESSING


@pytest.mark.parametrize("status", [None, 4, "", [], {"a": 1}])
def test_a_missing_status_is_an_unreadable_answer_with_its_text(status: object) -> None:
    with pytest.raises(ProviderProtocolError) as caught:
        read(documented(status=status))
    assert caught.value.raw.startswith('{"draft_url"')


def test_odd_optional_fields_do_not_spoil_the_answer() -> None:
    seen = read(documented(progress=None, video_url=7, error_message={}, created_at=[], code=None))
    assert (seen.state, seen.progress) == (ProviderState.PROCESSING, None)
    assert set(seen.provider_times) == {"started_at"}


def test_the_request_carries_the_draft_url_and_no_key() -> None:
    request = CAPCUT.status_request(connection("capcut-mate"), DRAFT)
    assert request.json == {"draft_url": DRAFT}
    assert "Authorization" not in request.headers
    assert request.url == "https://provider.example/openapi/capcut-mate/v1/gen_video_status"
