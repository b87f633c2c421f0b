"""The route that lists tasks, and how the query of a list is read and its pages are bound to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import Field

from renderbell.api.problems import documented
from renderbell.api.serving import app, current_caller, current_parts, json_answer, route
from renderbell.cursors import cursor_key, list_name, open_cursor, seal_cursor
from renderbell.inputs import WHOLE, Moment
from renderbell.items import parse_time, time_text
from renderbell.keys import Scope
from renderbell.listing import TaskFilter
from renderbell.models import Model
from renderbell.store import Place
from renderbell.task import Status
from renderbell.views import TaskSummary, task_summary

METADATA = "metadata."
MAX_PAGE_BYTES = 3_000_000  # AWS Lambda answers at most 6 MB, in which each quotation mark has become two characters


Limit = Annotated[int, Field(ge=1, le=100), WHOLE, Query(description="How many at most.")]
Cursor = Annotated[
    str | None,
    Query(
        description="The `next_cursor` of the page before, with the same query; good for nothing else.", min_length=1
    ),
]


class TaskPage(Model):
    """Tasks, newest first."""

    tasks: list[TaskSummary]
    next_cursor: str | None = Field(description="For the next page; null on the last. A page may be short, even empty.")


@route(
    "GET",
    "/tasks",
    scope=Scope.READ,
    summary="List tasks",
    operation_id="listTasks",
    tags=["tasks"],
    query_prefix=METADATA,
    responses=documented(
        *(401, 422),
        ok_200=("A page of your tasks.", TaskPage),
        words={422: "Something in the query cannot be used; `cursor_invalid`: the cursor is of another list."},
    ),
)
def get_tasks(
    *,
    limit: Limit = 20,
    cursor: Cursor = None,
    status: Annotated[list[Status] | None, Query(description="In one of these states; give it several times.")] = None,
    connection: Annotated[str | None, Query(description="Of this connection.")] = None,
    created_after: Annotated[Moment | None, Query(description="Registered later than this.")] = None,
    created_before: Annotated[Moment | None, Query(description="Registered before this.")] = None,
) -> Response[TaskPage]:
    """Your tasks, newest first; `metadata.<key>=<value>` asks for those with this pair, several for those with all.

    A page ends early where few tasks match, even empty: go on while there is a `next_cursor`. Tasks that are registered
    meanwhile are on no later page.
    """
    caller, parts = current_caller(), current_parts()
    wanted = TaskFilter(
        statuses=frozenset(status or ()),
        connection=connection,
        created_after=created_after and _end_of_millisecond(created_after),
        created_before=created_before and created_before + timedelta(microseconds=-created_before.microsecond % 1000),
        metadata=_metadata(),
    )
    pages = Pages("/tasks", _told(wanted))
    place = pages.place(cursor)
    after = Place(parse_time(place[0]), place[1]) if place else None
    found = parts.listing.list_tasks(caller.owner, wanted, limit=limit, after=after)
    shown: list[TaskSummary] = []
    left, following = MAX_PAGE_BYTES, found.next
    for one in found.records:
        view = task_summary(one.task, one.request)
        left -= len(json.dumps(view.model_dump(mode="json")))
        if left < 0 and shown:
            following = Place(shown[-1].created_at, shown[-1].task_id)
            break
        shown.append(view)
    sealed = following and pages.cursor(time_text(following.created_at), following.task_id)
    return json_answer(HTTPStatus.OK, TaskPage(tasks=shown, next_cursor=sealed or None))


class Pages:
    """The cursors of one list of the caller's: of a route, and of all that was asked for but the page."""

    def __init__(self, route: str, query: Mapping[str, object]) -> None:
        owner = current_caller().owner
        self._of = list_name(owner, route, query)
        self._owner = owner

    def place(self, cursor: str | None) -> tuple[str, ...]:
        """Where a cursor leads; empty without one. Raises `InvalidInputError`."""
        return () if cursor is None else open_cursor(self._key(), self._of, cursor)

    def cursor(self, *place: str) -> str:
        """The cursor that leads to a place."""
        return seal_cursor(self._key(), self._of, place)

    def _key(self) -> bytes:
        return cursor_key(current_parts().master_secret(), self._owner)


def _metadata() -> dict[str, str]:
    """The pairs that are asked for; each stands in the query once."""
    asked: Mapping[str, list[str]] = app.current_event.raw_event.get("multiValueQueryStringParameters") or {}
    return {name.removeprefix(METADATA): value for name, (value, *_) in asked.items() if name.startswith(METADATA)}


def _end_of_millisecond(at: datetime) -> datetime:
    """The last moment that is shown like this one: what is kept in microseconds is shown in milliseconds."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000 + 999)


def _told(wanted: TaskFilter) -> dict[str, object]:
    return {
        "status": sorted(wanted.statuses),
        "connection": wanted.connection,
        "created_after": wanted.created_after and time_text(wanted.created_after),
        "created_before": wanted.created_before and time_text(wanted.created_before),
        "metadata": dict(wanted.metadata),
    }
