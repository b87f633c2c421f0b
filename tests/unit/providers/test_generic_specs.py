"""Seven real providers as specs, with the shapes that their documents show."""

from __future__ import annotations

from typing import Any

import pytest

from renderbell.providers import (
    PROVIDERS,
    Observation,
    ProviderAuthError,
    ProviderError,
    ProviderRejected,
    ProviderTaskNotFound,
    ProviderUnavailable,
)
from tests.unit.providers.answers import KEY, answer, connection

SPECS: dict[str, dict[str, Any]] = {
    "runway": {
        "request": {"path": "/v1/tasks/{task_id}", "headers": {"X-Runway-Version": "2024-11-06"}},
        "state": "status",
        "states": {
            "queued": ["PENDING", "THROTTLED"],
            "processing": ["RUNNING"],
            "succeeded": ["SUCCEEDED"],
            "failed": ["FAILED"],
            "cancelled": ["CANCELLED"],
        },
        "progress": "progress",
        "progress_scale": 1,
        "videos": "output",
        "error": "failure || error",
        "created_at": "createdAt",
        "poll_interval_s": 5,
    },
    "replicate": {
        "request": {"path": "/v1/predictions/{task_id}"},
        "state": "status",
        "states": {
            "queued": ["starting"],
            "processing": ["processing"],
            "succeeded": ["succeeded"],
            "failed": ["failed"],
            "cancelled": ["canceled"],
        },
        "videos": "output",
        "error": "error || detail",
        "model": "model",
        "created_at": "created_at",
        "started_at": "started_at",
        "finished_at": "completed_at",
    },
    "luma": {
        "request": {"path": "/dream-machine/v1/generations/{task_id}"},
        "state": "state",
        "states": {
            "queued": ["queued"],
            "processing": ["dreaming"],
            "succeeded": ["completed"],
            "failed": ["failed"],
        },
        "videos": "assets.video",
        "error": "failure_reason || detail",
        "model": "model",
        "created_at": "created_at",
    },
    "kling": {
        "request": {"path": "/v1/videos/text2video/{task_id}"},
        "state": "data.task_status",
        "states": {
            "queued": ["submitted"],
            "processing": ["processing"],
            "succeeded": ["succeed"],
            "failed": ["failed"],
        },
        "videos": "data.task_result.videos[].url",
        "error": "data.task_status_msg || message",
        "ok": "code == `0`",
        "duration_s": "data.task_result.videos[0].duration",
        "created_at": "data.created_at",
        "finished_at": "data.updated_at",
        "list": {
            "request": {"path": "/v1/videos/text2video?pageNum={page}&pageSize=500"},
            "items": "data",
            "task_id": "task_id",
            "put_in": "data",
        },
    },
    "dashscope-wan": {
        "request": {"path": "/api/v1/tasks/{task_id}"},
        "state": "output.task_status",
        "states": {
            "queued": ["PENDING", "SUSPENDED"],
            "processing": ["RUNNING"],
            "succeeded": ["SUCCEEDED"],
            "failed": ["FAILED"],
            "cancelled": ["CANCELED"],
        },
        "not_found": "output.task_status == 'UNKNOWN'",
        "videos": "output.video_url",
        "error": "output.message || message",
        "created_at": "output.submit_time",
        "started_at": "output.scheduled_time",
        "finished_at": "output.end_time",
    },
    "volcengine-ark": {
        "request": {"path": "/api/v3/contents/generations/tasks/{task_id}"},
        "state": "status",
        "states": {
            "queued": ["queued"],
            "processing": ["running"],
            "succeeded": ["succeeded"],
            "failed": ["failed", "expired"],
            "cancelled": ["cancelled"],
        },
        "videos": "content.video_url",
        "error": "error.message",
        "model": "model",
        "duration_s": "duration",
        "created_at": "created_at",
        "finished_at": "updated_at",
    },
    "vidu": {
        "request": {"path": "/ent/v2/tasks/{task_id}/creations"},
        "auth": {"header": "Authorization", "format": "Token {api_key}"},
        "state": "state",
        "states": {
            "queued": ["created", "queueing"],
            "processing": ["processing"],
            "succeeded": ["success"],
            "failed": ["failed"],
        },
        "progress": "progress",
        "videos": "creations[].url",
        "error": "err_code || message",
    },
}

URL = "https://cdn.example/out.mp4?sig=1"


def read(provider: str, body: object, status: int = 200) -> Observation:
    account = connection("generic", spec=SPECS[provider], timezone="+08:00")
    return PROVIDERS["generic"].parse_status(account, answer(body, status))


def kling(state: str, **fields: object) -> dict[str, object]:
    return {"code": 0, "message": "SUCCEED", "data": {"task_id": "1", "task_status": state} | fields}


def wan(state: str, **fields: object) -> dict[str, object]:
    return {"request_id": "r", "output": {"task_id": "1", "task_status": state} | fields}


Expected = tuple[str, int | None, tuple[str, ...], str | None]  # state, progress, videos, error

ANSWERS: list[tuple[str, dict[str, object], Expected]] = [
    ("runway", {"id": "1", "status": "THROTTLED", "createdAt": "2026-11-22T05:00:00Z"}, ("queued", None, (), None)),
    ("runway", {"id": "1", "status": "RUNNING", "progress": 0.57}, ("processing", 57, (), None)),
    ("runway", {"id": "1", "status": "SUCCEEDED", "output": [URL]}, ("succeeded", None, (URL,), None)),
    (
        "runway",
        {"id": "1", "status": "FAILED", "failure": "unsafe", "failureCode": "S"},
        ("failed", None, (), "unsafe"),
    ),
    ("runway", {"id": "1", "status": "CANCELLED"}, ("cancelled", None, (), None)),
    ("replicate", {"id": "1", "status": "starting", "output": None}, ("queued", None, (), None)),
    ("replicate", {"id": "1", "status": "succeeded", "output": URL}, ("succeeded", None, (URL,), None)),
    ("replicate", {"id": "1", "status": "succeeded", "output": [URL]}, ("succeeded", None, (URL,), None)),
    ("replicate", {"id": "1", "status": "succeeded", "output": {"a": URL}}, ("succeeded", None, (), None)),
    ("replicate", {"id": "1", "status": "failed", "error": "CUDA"}, ("failed", None, (), "CUDA")),
    ("replicate", {"id": "1", "status": "canceled"}, ("cancelled", None, (), None)),
    ("luma", {"id": "1", "state": "dreaming", "assets": None}, ("processing", None, (), None)),
    ("luma", {"id": "1", "state": "completed", "assets": {"video": URL}}, ("succeeded", None, (URL,), None)),
    ("luma", {"id": "1", "state": "failed", "failure_reason": "moderated"}, ("failed", None, (), "moderated")),
    ("kling", kling("submitted"), ("queued", None, (), None)),
    ("kling", kling("succeed", task_result={"videos": [{"url": URL}]}), ("succeeded", None, (URL,), None)),
    ("kling", kling("failed", task_status_msg="risk control"), ("failed", None, (), "risk control")),
    ("dashscope-wan", wan("PENDING"), ("queued", None, (), None)),
    ("dashscope-wan", wan("SUCCEEDED", video_url=URL), ("succeeded", None, (URL,), None)),
    ("dashscope-wan", wan("FAILED", message="bad prompt"), ("failed", None, (), "bad prompt")),
    ("volcengine-ark", {"id": "1", "status": "running"}, ("processing", None, (), None)),
    (
        "volcengine-ark",
        {"id": "1", "status": "succeeded", "content": {"video_url": URL}},
        ("succeeded", None, (URL,), None),
    ),
    ("volcengine-ark", {"id": "1", "status": "failed", "error": {"message": "x"}}, ("failed", None, (), "x")),
    ("volcengine-ark", {"id": "1", "status": "expired"}, ("failed", None, (), None)),
    ("vidu", {"id": "1", "state": "queueing"}, ("queued", None, (), None)),
    (
        "vidu",
        {"id": "1", "state": "success", "creations": [{"id": "c", "url": URL}]},
        ("succeeded", None, (URL,), None),
    ),
    ("vidu", {"id": "1", "state": "failed", "err_code": "AuditFail"}, ("failed", None, (), "AuditFail")),
]


@pytest.mark.parametrize(("provider", "body", "expected"), ANSWERS)
def test_a_documented_answer_is_read(provider: str, body: object, expected: Expected) -> None:
    seen = read(provider, body)
    assert (seen.state.value, seen.progress, seen.videos, seen.error) == expected


ERRORS: list[tuple[str, object, int, type[ProviderError]]] = [
    ("runway", {"error": "Invalid API key"}, 401, ProviderAuthError),
    ("runway", {"error": "Not found"}, 404, ProviderTaskNotFound),
    ("replicate", {"detail": "slow down"}, 429, ProviderUnavailable),
    ("luma", {"detail": "bad uuid"}, 400, ProviderRejected),
    ("kling", {"code": 1302, "message": "rate limited", "data": None}, 200, ProviderUnavailable),
    ("dashscope-wan", wan("UNKNOWN"), 200, ProviderTaskNotFound),
    ("volcengine-ark", {"error": {"code": "InternalServiceError", "message": "x"}}, 500, ProviderUnavailable),
    ("vidu", {"code": 403, "message": "no"}, 403, ProviderAuthError),
]


@pytest.mark.parametrize(("provider", "body", "status", "expected"), ERRORS)
def test_a_documented_error_is_told_apart(
    provider: str, body: object, status: int, expected: type[ProviderError]
) -> None:
    with pytest.raises(expected):
        read(provider, body, status)


def test_times_are_read_in_the_providers_zone_and_unit() -> None:
    created = read("dashscope-wan", wan("RUNNING", submit_time="2026-11-22 13:00:00.000")).provider_times["created_at"]
    assert created.at is not None
    assert created.at.isoformat() == "2026-11-22T05:00:00+00:00"
    in_ms = read("kling", kling("submitted", created_at=1763779200000)).provider_times["created_at"]
    assert in_ms.at is not None
    assert in_ms.at.isoformat() == "2025-11-22T02:40:00+00:00"


@pytest.mark.parametrize("provider", SPECS)
def test_the_key_goes_where_the_provider_wants_it(provider: str) -> None:
    request = PROVIDERS["generic"].status_request(connection("generic", spec=SPECS[provider]), "t-1")
    assert request.headers["Authorization"] == f"{'Token' if provider == 'vidu' else 'Bearer'} {KEY}"
    assert request.url.startswith("https://provider.example/")
    assert "/t-1" in request.url
