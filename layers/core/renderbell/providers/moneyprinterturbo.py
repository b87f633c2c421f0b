"""MoneyPrinterTurbo: a self-hosted server with real HTTP statuses, three numeric states and links of its own making.

`/tasks/…` is relative to the server; any other absolute path is the server's file system. Version 1.2.6 nests the
addresses it was asked under into its links, and tells no reason for a failure.
"""

from __future__ import annotations

import re

from renderbell.providers.base import (
    Connection,
    HttpRequest,
    HttpResponse,
    Observation,
    ProviderState,
    answer_of,
    id_in_answer,
    path_segment,
    request_headers,
)
from renderbell.providers.reading import Lenient, Wire, link, links, progress_of
from renderbell.schedule import PollSchedule

_STATES = {1: ProviderState.SUCCEEDED, -1: ProviderState.FAILED}  # 4, and what is not known: still running
_FILES = "/tasks/"
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)


class _Task(Wire):
    task_id: Lenient[str | int] = None
    state: Lenient[int] = None
    progress: object = None
    videos: object = None
    combined_videos: object = None
    error: object = None
    failed_stage: Lenient[str] = None


class _Body(Wire):
    message: object = None
    data: Lenient[_Task] = None


class MoneyPrinterTurbo:
    """A MoneyPrinterTurbo server."""

    type = "moneyprinterturbo"
    poll_schedule = PollSchedule(5.0, 5.0, 40.0)  # its document's example

    def status_request(self, connection: Connection, provider_task_id: str) -> HttpRequest:
        """The route of a single task: the list answers file-system paths instead of links."""
        url = f"{connection.base_url}/api/v1/tasks/{path_segment(provider_task_id)}"
        return HttpRequest("GET", url, request_headers(connection, "x-api-key"))

    def parse_status(self, connection: Connection, response: HttpResponse) -> Observation:
        """What the answer says; `state` alone decides, since 100 % of a running task is possible."""
        answer = answer_of(connection, response)
        body = answer.as_model(_Body)
        if not answer.ok:
            # An unknown task has a `message`; `{"detail": "Not Found"}` is a route that does not exist.
            message = body and body.message
            raise answer.missing(message) if answer.status == 404 else answer.error_by_status(message)
        task = body.data if body else None
        if task is None or task.state is None:
            raise answer.unreadable("no state in the answer")
        state = _STATES.get(task.state, ProviderState.PROCESSING)
        done = state is ProviderState.SUCCEEDED
        failed = state is ProviderState.FAILED
        progress = progress_of(task.progress)

        def resolve(value: object) -> str | None:
            return file_link(connection.base_url, value)

        return Observation(
            state,
            progress=None if failed and not progress else progress,  # version 1.2.6 resets it to 0
            videos=links(task.videos, resolve) if done else (),
            combined=links(task.combined_videos, resolve) if done else (),
            error=(answer.text(task.error) or _stage(task.failed_stage)) if failed else None,
            provider_task_id=id_in_answer(task.task_id),
        )

    def delete_request(self, connection: Connection, provider_task_id: str) -> HttpRequest:
        """The same route; a running task is refused, but by version 1.2.6."""
        asked = self.status_request(connection, provider_task_id)
        return HttpRequest("DELETE", asked.url, asked.headers)

    def parse_delete(self, connection: Connection, response: HttpResponse) -> None:
        """A page that answers 200 in the server's place has deleted nothing."""
        answer = answer_of(connection, response)
        body = answer.as_model(_Body)
        message = body and body.message
        if answer.status == 404:
            raise answer.missing(message)
        if not answer.ok:
            raise answer.error_by_status(message)
        if body is None:
            raise answer.unreadable("no word that the task is deleted")


def file_link(base_url: str, value: object) -> str | None:
    """The link to a file of the server, or None for what is none."""
    if not isinstance(value, str):
        return None
    addresses = list(_ADDRESS.finditer(value))
    if len(addresses) > 1:
        _, found, path = value[addresses[-1].end() :].partition(_FILES)
        value = _FILES + path if found else ""
    elif addresses and addresses[0].start() == 0:
        return link(value)
    if not value.startswith(_FILES) or {".", ".."} & set(value.split("/")):
        return None
    return link(base_url + value)


def _stage(stage: str | None) -> str | None:
    return f"failed at stage {stage}" if stage else None
