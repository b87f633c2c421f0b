"""Videos by mingyan (the KYY server behind several shops): a flat body, sometimes wrapped in `data`.

The error is a string or an object, numbers may be text, and there is no progress. Links are temporary.
"""

from __future__ import annotations

from pydantic import Field

from renderbell.errors import ProviderError
from renderbell.providers.base import (
    Connection,
    HttpRequest,
    HttpResponse,
    Observation,
    ProviderState,
    answer_of,
    bearer,
    path_segment,
    provider_times,
)
from renderbell.providers.reading import Answer, Lenient, RawTime, Wire, duration_of, links
from renderbell.schedule import PollSchedule

_PREFIX = "/kyyReactApiServer"
_STATES = {
    "queued": ProviderState.QUEUED,
    "processing": ProviderState.PROCESSING,
    "completed": ProviderState.SUCCEEDED,
    "failed": ProviderState.FAILED,
}


class _Task(Wire):
    id: Lenient[str | int] = None
    status: Lenient[str] = None
    model: Lenient[str] = None
    created: RawTime = None
    video_url: object = None
    result_url: object = None
    error: object = None
    duration: object = Field(default=None, alias="actualDuration")


class _Body(_Task):
    code: Lenient[int] = None
    msg: object = None
    message: object = None
    data: Lenient[_Task] = None


class Mingyan:
    """The Videos API of mingyan."""

    type = "mingyan"
    poll_schedule = PollSchedule(30.0, 30.0, 240.0)  # its document: every 30 to 60 seconds

    def status_request(self, connection: Connection, provider_task_id: str) -> HttpRequest:
        """The result route; the document's base URL already ends in the API's prefix."""
        base = connection.base_url.removesuffix(_PREFIX)
        return HttpRequest("GET", f"{base}{_PREFIX}/v1/result/{path_segment(provider_task_id)}", bearer(connection))

    def parse_status(self, connection: Connection, response: HttpResponse) -> Observation:
        """What the answer says, by the task in it, then by its HTTP status."""
        answer = answer_of(connection, response)
        body = answer.as_model(_Body)
        task = body.data if body and body.data and body.data.status else body
        word = task.status.strip().lower() if task and task.status else None
        # A rejection may come as a failed task under a 4xx; that it names the task tells it from a gateway's error.
        if not answer.ok and (task is None or task.id is None or not answer.defers_to_body or word not in _STATES):
            raise _error(answer, body, answer.status)
        if task is None or word is None:
            code = body.code if body else None
            raise _error(answer, body, code) if code else answer.unreadable("no status in the answer")
        state = _STATES.get(word, ProviderState.PROCESSING)
        done = state is ProviderState.SUCCEEDED
        return Observation(
            state,
            videos=(links(task.video_url) or links(task.result_url)) if done else (),
            error=answer.text(task.error) if state is ProviderState.FAILED else None,
            model=task.model or None,
            provider_times=provider_times(connection, created_at=task.created),
            duration_s=duration_of(task.duration),
        )


def _error(answer: Answer, body: _Body | None, status: int) -> ProviderError:
    """The error behind an HTTP status, or behind a `code` that is used like one."""
    detail = answer.text(body.message or body.msg or body.error) if body else None
    if status == 404:
        return answer.missing(detail)
    if answer.ok and not 400 <= status < 600:
        return answer.unavailable(f"code {status}: {detail or 'no message'}")
    return answer.error_by_status(detail, status=status)
