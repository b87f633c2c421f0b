"""Scenext: explained videos, with finished frames instead of a percentage.

Errors come inside HTTP 200 as `status: error`, and an unknown task looks like a fault of the server; only a refused
key can be told apart. The result is a list of typed items in the code and an object in the document.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import datetime

from renderbell.errors import ProviderAuthError, ProviderError, ProviderTaskNotFound
from renderbell.providers.base import (
    Callback,
    Connection,
    HttpRequest,
    HttpResponse,
    Observation,
    ProviderState,
    answer_of,
    bearer,
    id_in_answer,
    path_segment,
    provider_times,
)
from renderbell.providers.callbacks import DECOY_SECRET, is_recent, task_id_from
from renderbell.providers.reading import Answer, Lenient, RawTime, Wire, links, progress_of
from renderbell.schedule import PollSchedule

_STATES = {
    "in_progress": ProviderState.PROCESSING,
    "completed": ProviderState.SUCCEEDED,
    "failed": ProviderState.FAILED,
}
_KEY_REFUSED = re.compile(r"unauthori[sz]ed|not authenticated|invalid api[ _-]?key", re.IGNORECASE)


class _Data(Wire):
    task_id: Lenient[str | int] = None
    status: Lenient[str] = None
    progress: object = None
    result: object = None
    created_at: RawTime = None
    finish_at: RawTime = None
    messages: object = None  # of an error


class _Body(Wire):
    status: Lenient[str] = None
    data: Lenient[_Data] = None
    message: object = None
    detail: object = None


class Scenext:
    """The Scenext API."""

    type = "scenext"
    poll_schedule = PollSchedule(30.0, 30.0, 240.0)  # its document's advice; a task takes 10 to 20 minutes

    def status_request(self, connection: Connection, provider_task_id: str) -> HttpRequest:
        """The status route, with the key as a bearer token."""
        url = f"{connection.base_url}/api/get_status/{path_segment(provider_task_id)}"
        return HttpRequest("GET", url, bearer(connection))

    def parse_status(self, connection: Connection, response: HttpResponse) -> Observation:
        """What the answer says: a success envelope holds the task, everything else is an error."""
        answer = answer_of(connection, response)
        body = answer.as_model(_Body)
        word = body.status.strip().lower() if body and body.status else None
        if body is None or not answer.ok or word != "success":
            raise _error(answer, body, word)
        data = body.data
        if data is None or not data.status:
            raise answer.unreadable("no status in the answer")
        state = _STATES.get(data.status.strip().lower(), ProviderState.PROCESSING)
        frames = data.progress if isinstance(data.progress, list) else []
        running = state is ProviderState.PROCESSING
        return Observation(
            state,
            progress=progress_of(data.progress) if running else None,  # frames, as a rule: then there is none
            videos=links(_texts(data.result, "video", "video_url")) if state is ProviderState.SUCCEEDED else (),
            images=links([_field(frame, "image") for frame in frames]) if running else (),
            error=answer.text(_texts(data.result, "text", "error")) if state is ProviderState.FAILED else None,
            provider_times=provider_times(connection, created_at=data.created_at, finished_at=data.finish_at),
            provider_task_id=id_in_answer(data.task_id),
        )

    def verify_callback(
        self, connection: Connection, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> Callback | None:
        """The call to the `notify_url` of a submission.

        `X-Signature` is the hex HMAC-SHA256, under the API key, of Python's `json.dumps(payload, sort_keys=True)`,
        which is not the text that is sent; the sent text itself is taken too. The payload's `timestamp` must be of
        the last minutes.
        """
        secret = connection.api_key.get_secret_value() if connection.api_key else ""
        key = (secret or DECOY_SECRET).encode()
        payload, signed = _signed(body)
        given = headers.get("x-signature", "").strip().lower().encode("utf-8", "replace")
        right = [hmac.new(key, text, hashlib.sha256).hexdigest().encode() for text in (signed, body)]
        matches = [hmac.compare_digest(one, given) for one in right]
        if not any(matches) or not secret or payload is None:
            return None
        signed_at = payload.get("timestamp")
        if not isinstance(signed_at, int | float) or isinstance(signed_at, bool) or not is_recent(signed_at, now):
            return None  # what says no time would be believed for ever
        return Callback(task_id_from(payload.get("task_id")))


def _signed(body: bytes) -> tuple[dict[str, object] | None, bytes]:
    """The object that a body holds, and the text of it that is signed.

    There is none where the body is no object, or names a field twice: nobody writes that.
    """

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError("a field stands there twice")
        return found

    try:
        payload: object = json.loads(body.decode(), object_pairs_hook=once)
        signed = json.dumps(payload, sort_keys=True).encode()
    except (ValueError, RecursionError):
        return None, b""
    return (payload, signed) if isinstance(payload, dict) else (None, b"")


def _error(answer: Answer, body: _Body | None, word: str | None) -> ProviderError:
    detail = body and ((body.data and body.data.messages) or body.message or body.detail)
    if not answer.ok:
        if answer.status == 404 and word == "error":
            return answer.refused(ProviderTaskNotFound, detail)
        return answer.error_by_status(detail)
    text = answer.text(detail)
    if text is not None and _KEY_REFUSED.search(text):
        return answer.refused(ProviderAuthError, text)
    return answer.unavailable(text) if word == "error" else answer.unreadable("no success envelope")


def _texts(result: object, kind: str, name: str) -> list[object]:
    """What a result holds of one kind: items `{type, content}` of a list, or the named field of an object."""
    items = result if isinstance(result, list) else [result]
    return [_field(item, "content") if _field(item, "type") == kind else _field(item, name) for item in items]


def _field(item: object, name: str) -> object:
    return item.get(name) if isinstance(item, dict) else None
