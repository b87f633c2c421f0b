"""The route that lists tasks, and how the query of a list is read and its pages are bound to it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query
from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from renderbell.api.problems import documented
from renderbell.api.serving import app, current_caller, current_parts, json_answer, route
from renderbell.cursors import cursor_key, list_name, open_cursor, seal_cursor
from renderbell.errors import InvalidInputError
from renderbell.items import parse_time, time_text
from renderbell.keys import Scope
from renderbell.listing import TaskFilter
from renderbell.store import Place
from renderbell.task import Status
from renderbell.views import TaskSummary, task_summary

METADATA = "metadata."
NAMES = {"limit", "cursor", "status", "connection", "created_after", "created_before"}
SEVERAL = {"status"}  # may be given more than once
MAX_PAGE_BYTES = 3_000_000  # AWS Lambda answers at most 6 MB, in which each quotation mark has become two characters


def _time(value: object) -> datetime:
    try:
        return parse_time(str(value))
    except ValueError:
        words = "must be a time in ISO 8601 with its zone, such as 2026-03-01T12:00:00Z (a + is written %2B in a URL)"
        raise PydanticCustomError("time_invalid", words) from None


Limit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]
Cursor = Annotated[
    str | None,
    Query(
        description="The `next_cursor` of the page before, with the same query; good for nothing else.", min_length=1
    ),
]
QueryTime = Annotated[datetime, BeforeValidator(_time)]


class TaskPage(BaseModel):
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
    created_after: Annotated[QueryTime | None, Query(description="Registered later than this.")] = None,
    created_before: Annotated[QueryTime | None, Query(description="Registered before this.")] = None,
) -> Response[TaskPage]:
    """Your tasks, newest first; `metadata.<key>=<value>` asks for those with this pair, several for those with all.

    A page ends early where few tasks match, even empty: go on while there is a `next_cursor`. Tasks that are registered
    meanwhile are on no later page.
    """
    caller, parts = current_caller(), current_parts()
    asked = checked_query(NAMES, SEVERAL, METADATA)
    wanted = TaskFilter(
        statuses=frozenset(status or ()),
        connection=connection,
        created_after=created_after and _end_of_millisecond(created_after),
        created_before=created_before and created_before + timedelta(microseconds=-created_before.microsecond % 1000),
        metadata={name.removeprefix(METADATA): one for name, one in asked.items() if name.startswith(METADATA)},
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


def checked_query(names: Collection[str], several: Collection[str] = (), prefix: str | None = None) -> dict[str, str]:
    """What the query says, the last word of each name; raises `InvalidInputError` for a name that the route does not
    know or that is given twice."""
    event = app.current_event.raw_event
    asked: Mapping[str, list[str]] = event.get("multiValueQueryStringParameters") or {}
    for name, values in asked.items():
        begins = prefix is not None and name.startswith(prefix) and name != prefix
        if name not in names and not begins:
            raise InvalidInputError(name, "is no parameter of this route", code="unknown_parameter")
        if len(values) > 1 and name not in several:
            raise InvalidInputError(name, "must not be given twice", code="duplicate_parameter")
    return {name: values[-1] for name, values in asked.items()}


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
