"""Jimmy AI OpenAPI: an envelope with a code, inside HTTP 200 whatever happened; older servers answer without it.

The code is an integer or a string. Links are valid for three days; older answers hold a storage key instead, which the
connection's `media_base_url` makes a link. The base URL has moved several times and is the connection's.
"""

from __future__ import annotations

from renderbell.errors import ProviderAuthError, ProviderError, ProviderRejected
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
from renderbell.providers.reading import Answer, Lenient, RawTime, Wire, link, links, progress_of
from renderbell.schedule import PollSchedule

_STATES = {
    "queued": ProviderState.QUEUED,
    "pending": ProviderState.QUEUED,
    "submitted": ProviderState.QUEUED,
    "processing": ProviderState.PROCESSING,
    "completed": ProviderState.SUCCEEDED,
    "failed": ProviderState.FAILED,
    "canceled": ProviderState.CANCELLED,
    "cancelled": ProviderState.CANCELLED,
}
_OK = 20000
_REFUSALS: dict[int, type[ProviderError]] = {20001: ProviderAuthError, 20002: ProviderRejected}


class _Result(Wire):
    video_url: object = None
    image_url: object = None


class _Task(Wire):
    task_id: Lenient[str | int] = None
    status: Lenient[str] = None
    progress: object = None
    model: Lenient[str] = None
    created_at: RawTime = None
    completed_at: RawTime = None
    result: Lenient[_Result] = None
    error_message: object = None


class _Body(_Task):
    code: Lenient[int] = None
    msg: object = None
    message: object = None
    data: Lenient[_Task] = None


class Jimmy:
    """The Jimmy AI OpenAPI."""

    type = "jimmy"
    poll_schedule = PollSchedule(10.0, 5.0, 80.0)  # its command line's interval; clients ask every 5 to 15 seconds

    def status_request(self, connection: Connection, provider_task_id: str) -> HttpRequest:
        """The status route, with the key as a bearer token."""
        url = f"{connection.base_url}/api/open-api/v1/videos/{path_segment(provider_task_id)}"
        return HttpRequest("GET", url, bearer(connection))

    def parse_status(self, connection: Connection, response: HttpResponse) -> Observation:
        """What the answer says, by its `code`, then by the task in it, then by its HTTP status."""
        answer = answer_of(connection, response)
        body = answer.as_model(_Body)
        task = (body.data or body) if body else None
        if body is not None and body.code is not None and body.code != _OK and (answer.ok or body.code in _REFUSALS):
            raise _error_of_code(answer, body.code, body.msg or body.message)
        word = task.status.strip().lower() if task and task.status else None
        # A rejection may come as a failed task under a 4xx; that it names the task tells it from a gateway's error.
        if not answer.ok and (task is None or task.task_id is None or not answer.defers_to_body or word not in _STATES):
            raise _error_of_status(answer, body)
        if task is None or word is None:
            raise answer.unreadable("no status in the answer")
        state = _STATES.get(word, ProviderState.PROCESSING)
        failed = state is ProviderState.FAILED
        progress = progress_of(task.progress)
        result = task.result if state is ProviderState.SUCCEEDED else None

        def resolve(value: object) -> str | None:
            return media_link(connection.media_base_url, value)

        return Observation(
            state,
            progress=None if failed and not progress else progress,  # a failure resets it to 0
            videos=links(result.video_url, resolve) if result else (),
            images=links(result.image_url, resolve) if result else (),
            error=answer.text(task.error_message) if failed else None,
            model=task.model or None,
            provider_times=provider_times(connection, created_at=task.created_at, finished_at=task.completed_at),
            provider_task_id=id_in_answer(task.task_id),
        )


def media_link(media_base_url: str | None, value: object) -> str | None:
    """A link as it is, or a storage key on the media address; None for a key without such an address."""
    found = link(value)
    if found is not None or media_base_url is None or not isinstance(value, str) or not value or ":" in value:
        return found
    key = value.lstrip("/")
    return None if not key or {".", ".."} & set(key.split("/")) else link(f"{media_base_url}/{key}")


def _error_of_code(answer: Answer, code: int, message: object) -> ProviderError:
    detail = f"code {code}: {answer.text(message) or 'no message'}"
    refusal = _REFUSALS.get(code)
    if refusal is not None:
        return answer.refused(refusal, detail)
    return answer.unavailable(detail)  # -1 is a fault of the server, and perhaps an unknown task


def _error_of_status(answer: Answer, body: _Body | None) -> ProviderError:
    message = answer.text(body.msg or body.message) if body else None
    if answer.status == 404:
        return answer.missing(message or (f"code {body.code}" if body and body.code is not None else None))
    return answer.error_by_status(message)
