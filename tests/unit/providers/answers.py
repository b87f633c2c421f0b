"""What the tests of the providers share: connections and answers as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from renderbell.providers import Connection, HttpResponse

KEY = "sk-Top/Secret+123"
BASE_URL = "https://provider.example"
RECORDINGS = Path(__file__).parents[2] / "fixtures" / "recordings"

GENERIC_SPEC: dict[str, object] = {
    "request": {"method": "GET", "path": "/v1/tasks/{task_id}", "headers": {"X-Version": "1"}},
    "state": "status",
    "states": {
        "queued": ["PENDING"],
        "processing": ["RUNNING"],
        "succeeded": ["SUCCEEDED"],
        "failed": ["FAILED"],
        "cancelled": ["CANCELLED"],
    },
    "progress": "progress",
    "videos": "output",
    "images": "frames",
    "error": "error",
    "not_found": "code == 'NoSuchTask'",
    "auth_error": "code == 'BadKey'",
    "rejected": "code == 'BadRequest'",
    "ok": "ok",
    "model": "model",
    "duration_s": "duration",
    "created_at": "created",
    "finished_at": "finished",
    "expires_at": "expires",
}


def connection(type_: str, **fields: object) -> Connection:
    """A connection of a type, with a key unless told otherwise."""
    known: dict[str, object] = {"name": "test", "type": type_, "base_url": BASE_URL, "api_key": KEY}
    if type_ == "generic":
        known["spec"] = GENERIC_SPEC
    return Connection.model_validate(known | fields)


def answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """An answer; bytes and text are sent as they are, everything else as JSON."""
    if isinstance(body, str):
        body = body.encode()
    raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return HttpResponse(status, headers or {}, raw)
