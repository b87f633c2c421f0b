"""MoneyPrinterTurbo: a self-hosted server with real HTTP statuses, three numeric states and links of its own making.

`/tasks/…` is relative to the server; any other absolute path is the server's file system. Version 1.2.6 nests the
addresses it was asked under into its links, and tells no reason for a failure.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from renderbell.providers.base import (
    Connection,
    HttpRequest,
    HttpResponse,
    Listed,
    Observation,
    ProviderState,
    answer_of,
    id_in_answer,
    listed,
    path_segment,
    request_headers,
)
from renderbell.providers.reading import Answer, Lenient, Wire, link, links, progress_of
from renderbell.schedule import PollSchedule

_STATES = {1: ProviderState.SUCCEEDED, -1: ProviderState.FAILED}  # 4, and what is not known: still running
_FILES = "/tasks/"
LISTED = 500  # tasks on a page, of which the server sends as many as it is asked for; an old one may be some kB
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


class _List(Wire):
    tasks: Lenient[list[Lenient[_Task]]] = None
    total: Lenient[int] = None
    page: Lenient[int] = None
    page_size: Lenient[int] = None

    @property
    def more(self) -> bool:
        """Whether there is a page behind this one, as far as it says."""
        if self.total is None or self.page is None or self.page_size is None:
            return bool(self.tasks)
        return bool(self.tasks) and self.page * self.page_size < self.total


class _ListBody(Wire):
    message: object = None
    data: Lenient[_List] = None


class MoneyPrinterTurbo:
    """A MoneyPrinterTurbo server."""

    type = "moneyprinterturbo"
    poll_schedule = PollSchedule(5.0, 5.0, 40.0)  # its document's example

    def status_request(self, connection: Connection, provider_task_id: str) -> HttpRequest:
        """The route of a single task: of one that has ended, the list answers file-system paths instead of links."""
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
        return _observation(connection, answer, task, task.state)

    def lists(self, connection: Connection) -> bool:
        """Every version does."""
        return True

    def list_request(self, connection: Connection, page: int) -> HttpRequest:
        """The list has no order that holds: between two pages a task may come twice, or not at all."""
        url = f"{connection.base_url}/api/v1/tasks?page={page}&page_size={LISTED}"
        return HttpRequest("GET", url, request_headers(connection, "x-api-key"))

    def parse_list(self, connection: Connection, response: HttpResponse, wanted: Collection[str]) -> Listed:
        """One record that the server cannot read makes the whole page a 500."""
        answer = answer_of(connection, response)
        body = answer.as_model(_ListBody)
        if not answer.ok:
            raise answer.error_by_status(body and body.message)
        page = body.data if body else None
        if page is None or page.tasks is None:
            raise answer.unreadable("no tasks in the answer")
        tasks = [(id_in_answer(task.task_id), task) for task in page.tasks if task is not None]
        return listed(
            ((name, _seen(connection, answer, task)) for name, task in tasks if name is not None and name in wanted),
            count=len(page.tasks),
            more=page.more,
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


def _seen(connection: Connection, answer: Answer, task: _Task) -> Observation | None:
    return None if task.state is None else _observation(connection, answer, task, task.state)


def _observation(connection: Connection, answer: Answer, task: _Task, state: int) -> Observation:
    told = _STATES.get(state, ProviderState.PROCESSING)
    done = told is ProviderState.SUCCEEDED
    failed = told is ProviderState.FAILED
    progress = progress_of(task.progress)

    def resolve(value: object) -> str | None:
        return file_link(connection.base_url, value)

    return Observation(
        told,
        progress=None if failed and not progress else progress,  # version 1.2.6 resets it to 0
        videos=links(task.videos, resolve) if done else (),
        combined=links(task.combined_videos, resolve) if done else (),
        error=(answer.text(task.error) or _stage(task.failed_stage)) if failed else None,
        provider_task_id=id_in_answer(task.task_id),
    )


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
