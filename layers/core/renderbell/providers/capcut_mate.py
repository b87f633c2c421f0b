"""CapCut-Mate: a draft's export, asked for by the draft's URL.

The real server answers everything with HTTP 200 and a `code`; its document shows flat bodies without a code and real
HTTP statuses. Both are read. Times are naive in the server's zone, progress is a stage marker and 0 on failure, and a
task says `completed` an instant before its link is there.
"""

from __future__ import annotations

from renderbell.errors import (
    ProviderAuthError,
    ProviderError,
    ProviderRejected,
    ProviderTaskNotFound,
)
from renderbell.providers.base import (
    Connection,
    HttpRequest,
    HttpResponse,
    Observation,
    ProviderState,
    answer_of,
    provider_times,
    request_headers,
)
from renderbell.providers.reading import Answer, Lenient, RawTime, Wire, links, progress_of
from renderbell.schedule import PollSchedule

_STATES = {
    "pending": ProviderState.QUEUED,
    "processing": ProviderState.PROCESSING,
    "completed": ProviderState.SUCCEEDED,
    "failed": ProviderState.FAILED,
}
_NOT_FOUND = 2031
_REJECTED = {1001, 2001}  # the parameters, the draft's URL
_AUTH = {2035, 2036}  # the account's balance, its key


class _Body(Wire):
    code: Lenient[int] = None
    message: object = None
    detail: object = None
    status: Lenient[str] = None
    progress: object = None
    video_url: object = None
    error_message: object = None
    created_at: RawTime = None
    started_at: RawTime = None
    completed_at: RawTime = None


class CapCutMate:
    """The CapCut-Mate server, hosted or the team's own."""

    type = "capcut-mate"
    poll_schedule = PollSchedule(10.0, 5.0, 80.0)  # its document: every 5 to 10 seconds

    def status_request(self, connection: Connection, provider_task_id: str) -> HttpRequest:
        """The status route takes no key; English messages are for the operator's eyes, codes decide."""
        headers = request_headers(connection) | {"Accept-Language": "en"}
        url = f"{connection.base_url}/openapi/capcut-mate/v1/gen_video_status"
        return HttpRequest("POST", url, headers, {"draft_url": provider_task_id})

    def parse_status(self, connection: Connection, response: HttpResponse) -> Observation:
        """What the answer says, by its `code` first and by its HTTP status where it has none."""
        answer = answer_of(connection, response)
        body = answer.as_model(_Body)
        if body is not None and body.code:
            raise _error_of_code(answer, body.code, body.message)
        if not answer.ok:
            raise _error_of_status(answer, body)
        if body is None or not body.status:
            raise answer.unreadable("no status in the answer")
        state = _STATES.get(body.status.strip().lower(), ProviderState.PROCESSING)
        failed = state is ProviderState.FAILED
        progress = progress_of(body.progress)
        return Observation(
            state,
            progress=None if failed and not progress else progress,  # a failure resets it to 0
            videos=links(body.video_url) if state is ProviderState.SUCCEEDED else (),
            error=answer.text(body.error_message) if failed else None,
            provider_times=provider_times(
                connection, created_at=body.created_at, started_at=body.started_at, finished_at=body.completed_at
            ),
        )


def _error_of_code(answer: Answer, code: int, message: object) -> ProviderError:
    detail = f"code {code}: {answer.text(message) or 'no message'}"
    if code == _NOT_FOUND:
        return answer.refused(ProviderTaskNotFound, detail)
    if code in _REJECTED:
        return answer.refused(ProviderRejected, detail)
    if code in _AUTH:
        return answer.refused(ProviderAuthError, detail)
    if 300 <= code < 600:  # the server wraps its own HTTP errors, 404 of a wrong base URL among them
        return answer.error_by_status(detail, status=code)
    return answer.unavailable(detail)  # 2032, 9998 and what is not known: another time may bring an answer


def _error_of_status(answer: Answer, body: _Body | None) -> ProviderError:
    detail = answer.text(body.detail or body.message) if body else None
    return answer.missing(detail) if answer.status == 404 else answer.error_by_status(detail)
