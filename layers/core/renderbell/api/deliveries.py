"""The routes of a task's webhooks: what was tried, and once more, please."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body
from pydantic import ConfigDict, Field

from renderbell.api.listing import Cursor, Limit, Pages
from renderbell.api.problems import documented
from renderbell.api.serving import current_caller, current_parts, json_answer, route
from renderbell.api.tasks import TaskId
from renderbell.keys import Scope
from renderbell.models import Model
from renderbell.register import Event
from renderbell.views import AttemptView, TaskView, attempt_view, task_view


class AttemptPage(Model):
    """Attempts, newest first."""

    attempts: list[AttemptView]
    next_cursor: str | None = Field(description="For the next page; null on the last.")


class RedeliverRequest(Model):
    """Which of a task's webhooks to send again; without a word, all."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    endpoint_id: Annotated[str, Field(description="Those to this endpoint of the task's deliveries.")] | None = None
    event: Annotated[Event, Field(description="Those of this event.")] | None = None


EVERYTHING = RedeliverRequest()


@route(
    "GET",
    "/tasks/<task_id>/attempts",
    scope=Scope.READ,
    summary="List attempts",
    operation_id="listAttempts",
    tags=["tasks"],
    responses=documented(401, 404, 422, ok_200=("A page of the attempts at the task's webhooks.", AttemptPage)),
)
def get_attempts(*, task_id: TaskId, limit: Limit = 20, cursor: Cursor = None) -> Response[AttemptPage]:
    """Every attempt to deliver the task's webhooks, newest first, with what came of it."""
    caller = current_caller()
    pages = Pages(f"/tasks/{task_id}/attempts", {})
    place = pages.place(cursor)
    found, behind = current_parts().redelivery.attempts(
        task_id, owner=caller.owner, limit=limit, before=place[0] if place else None
    )
    shown = [attempt_view(one) for one in found]
    return json_answer(
        HTTPStatus.OK, AttemptPage(attempts=shown, next_cursor=None if behind is None else pages.cursor(behind))
    )


@route(
    "POST",
    "/tasks/<task_id>/redeliver",
    scope=Scope.WRITE,
    summary="Send webhooks again",
    operation_id="redeliverTask",
    tags=["tasks"],
    responses=documented(
        *(401, 403, 404, 409, 413, 422),
        ok_202=("They are due now; the task, with its deliveries.", TaskView),
        words={
            404: "There is no such task of yours, or it sends nothing to this endpoint.",
            409: "`nothing_to_redeliver`: the task has no such webhook (yet). `try_again`: it is being sent just now. "
            "`endpoint_disabled`: its endpoint is disabled or deleted.",
        },
    ),
)
def post_redeliver(*, task_id: TaskId, asked: Annotated[RedeliverRequest, Body()] = EVERYTHING) -> Response[TaskView]:
    """Makes an attempt by hand at the task's webhooks, whatever became of them: the same message under the same id.

    It takes the place of the next attempt, if one was due. If it fails, a webhook that was still being tried goes on by
    its schedule, and one that had ended is as it was.
    """
    caller = current_caller()
    found = current_parts().redelivery.redeliver(
        task_id, owner=caller.owner, endpoint_id=asked.endpoint_id, event=asked.event
    )
    return json_answer(HTTPStatus.ACCEPTED, task_view(found.task, found.request, found.deliveries))
