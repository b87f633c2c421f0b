"""Scenext: explained videos, with finished frames instead of a percentage.

Errors come inside HTTP 200 as `status: error`, and an unknown task looks like a fault of the server; only a refused
key can be told apart. The result is a list of typed items in the code and an object in the document.
"""

from __future__ import annotations

import re

from renderbell.errors import ProviderAuthError, ProviderError, ProviderTaskNotFound
from renderbell.providers.base import (
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
    poll_schedule = PollSchedule(30.0)  # its document's advice; a task takes 10 to 20 minutes

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
