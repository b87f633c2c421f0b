"""The routes of tasks: register, read, delete, cancel, fetch what was stored."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Literal

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Path, Query
from pydantic import ConfigDict, Field, JsonValue, ValidationError, WithJsonSchema

from renderbell.api.problems import Problem, VideoExpiredError, documented, problem_of
from renderbell.api.serving import (
    JSON,
    NO_STORE,
    current_base_url,
    current_caller,
    current_parts,
    current_seed,
    json_answer,
    route,
)
from renderbell.errors import NotFoundError
from renderbell.inputs import Flag, Whole
from renderbell.keys import Scope
from renderbell.models import Model
from renderbell.register import Registered, TaskRequest
from renderbell.task import Status, Task, copying_since
from renderbell.views import TaskView, Time, task_view

MAX_BATCH = 100
LINK_S = 3600  # how long a presigned URL lives; the function's role may end it earlier

TaskId = Annotated[str, Path(description="The `task_id` of a task.")]


class BatchRequest(Model):
    """Renders to watch."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    tasks: Annotated[
        list[JsonValue],
        Field(min_length=1, max_length=MAX_BATCH),
        WithJsonSchema(
            {
                "type": "array",
                "items": {
                    "anyOf": [{"$ref": "#/components/schemas/TaskRequest"}, {}],
                    "description": "Any other is refused alone, with 422 in its own result.",
                },
                "minItems": 1,
                "maxItems": MAX_BATCH,
            }
        ),
    ]


class BatchTask(Model):
    """A watched render in short; `GET /tasks/{task_id}` shows all of it."""

    task_id: str
    connection: str
    provider_task_id: str
    status: Status
    created_at: Time
    expires_at: Time


class BatchResult(Model):
    """What became of one render of a batch."""

    index: int = Field(description="Its place in the request, from 0.")
    status: int = Field(description="As `POST /tasks` would have answered: 201, 200, 409, 422 or 500.")
    task: BatchTask | None = Field(default=None, description="With 201 and 200.")
    problem: Problem | None = Field(default=None, description="With any other.")


class BatchAnswer(Model):
    """What became of each render of a batch, in the order of the request."""

    results: list[BatchResult]


class DeletedTask(Model):
    """A task that is there no more."""

    task_id: str
    deleted: Literal[True]


class VideoLink(Model):
    """A presigned URL to a stored file."""

    url: str
    expires_at: Time


@route(
    "POST",
    "/tasks",
    scope=Scope.WRITE,
    summary="Register a render",
    operation_id="registerTask",
    tags=["tasks"],
    responses=documented(
        401,
        403,
        409,
        413,
        422,
        ok_201=("The task is registered.", TaskView),
        ok_200=("The same render is already watched, with equal settings: that task.", TaskView),
        words={
            409: "`already_registered`: it is watched with other settings, and `task_id` names that task. "
            "`try_again`: another registration of it is under way."
        },
    ),
)
def post_task(asked: TaskRequest) -> Response[TaskView]:
    """Begins to watch a render that was started at a provider.

    While the provider works on it (QUEUED, PROCESSING), registering the same render again answers 200 with that task if
    webhooks, metadata and deadline are equal or absent, else 409 `already_registered`. From COPYING on it makes a new
    task, with its own copy and webhooks.
    """
    caller = current_caller()
    found = current_parts().tasks.register_task(
        asked, owner=caller.owner, base_url=current_base_url(), seed=current_seed()
    )
    view = task_view(found.task, found.request, found.deliveries)
    return json_answer(HTTPStatus.CREATED if found.created else HTTPStatus.OK, view)


@route(
    "POST",
    "/tasks/batch",
    scope=Scope.WRITE,
    summary="Register many renders",
    operation_id="registerTasks",
    tags=["tasks"],
    responses=documented(
        *(401, 403, 413, 422),
        ok_200=("What became of each; look at their `status`.", BatchAnswer),
        words={413: "The body is larger than 256 KiB."},
    ),
)
def post_batch(asked: BatchRequest) -> Response[BatchAnswer]:
    """Registers up to 100 renders, each as if it were alone: one that is refused undoes no other.

    Each result has the task in short; `GET /tasks/{task_id}` shows all of it.
    """
    caller = current_caller()
    results: dict[int, BatchResult] = {}
    sound: dict[int, TaskRequest] = {}
    for n, told in enumerate(asked.tasks):
        try:
            sound[n] = TaskRequest.model_validate(told)
        except ValidationError as error:
            results[n] = _refused(n, error)
    found = current_parts().tasks.register_batch(
        list(sound.values()), owner=caller.owner, base_url=current_base_url(), seed=current_seed()
    )
    for n, one in zip(sound, found, strict=True):
        if isinstance(one, Registered):
            status = HTTPStatus.CREATED if one.created else HTTPStatus.OK
            results[n] = BatchResult(index=n, status=status, task=_in_short(one.task))
        else:
            results[n] = _refused(n, one)
    return json_answer(HTTPStatus.OK, BatchAnswer(results=[result for _, result in sorted(results.items())]))


def _in_short(task: Task) -> BatchTask:
    """A task without what may be long: a hundred with all that they hold are more than Lambda may answer."""
    return BatchTask(
        task_id=task.task_id,
        connection=task.connection,
        provider_task_id=task.provider_task_id,
        status=task.status,
        created_at=task.created_at,
        expires_at=task.expires_at,
    )


def _refused(n: int, error: Exception) -> BatchResult:
    problem = problem_of(error)
    return BatchResult(index=n, status=problem.status, problem=problem)


@route(
    "GET",
    "/tasks/<task_id>",
    scope=Scope.READ,
    summary="Read a task",
    operation_id="readTask",
    tags=["tasks"],
    responses=documented(401, 404, ok_200=("The task.", TaskView)),
)
def get_task(task_id: TaskId) -> Response[TaskView]:
    """A task with its history, its files, and what became of its webhooks."""
    caller = current_caller()
    found = current_parts().tasks.read_task(task_id, owner=caller.owner)
    return json_answer(HTTPStatus.OK, task_view(found.task, found.request, found.deliveries))


@route(
    "DELETE",
    "/tasks/<task_id>",
    scope=Scope.WRITE,
    summary="Delete a task",
    operation_id="deleteTask",
    tags=["tasks"],
    responses=documented(
        401,
        403,
        404,
        409,
        422,
        502,
        ok_202=("The task is deleted; its files follow within minutes.", DeletedTask),
        words={
            409: "`task_running`, `delivery_pending`, or `try_again`: the task is changing just now.",
            422: "Something in the request cannot be used; `provider_cannot_delete`: not at this provider.",
        },
    ),
)
def delete_task(
    *,
    task_id: TaskId,
    force: Annotated[Flag, Query(description="`true`: cancel a running task, and drop pending deliveries.")] = False,
    at_provider: Annotated[Flag, Query(description="`true`: delete it at the provider too, first.")] = False,
) -> Response[DeletedTask]:
    """Removes a task with its attempts and its stored files; from then on every route answers 404 for it.

    While the task runs it answers 409 `task_running`, and while a webhook is yet to be delivered 409
    `delivery_pending`, unless `force=true` says to do it all the same. No webhook is sent for a deleted task; one that
    is on its way just then may still arrive. The render at the provider goes on, and can be registered anew at once.

    With `at_provider=true` the provider deletes it first, with its files; if it does not, nothing is deleted here. One
    that is not known there counts as deleted. Only MoneyPrinterTurbo can; a running task it refuses.
    """
    caller = current_caller()
    current_parts().tasks.delete_task(task_id, owner=caller.owner, force=force, at_provider=at_provider)
    return json_answer(HTTPStatus.ACCEPTED, DeletedTask(task_id=task_id, deleted=True))


@route(
    "POST",
    "/tasks/<task_id>/cancel",
    scope=Scope.WRITE,
    summary="Cancel a task",
    operation_id="cancelTask",
    tags=["tasks"],
    responses=documented(
        401,
        403,
        404,
        409,
        ok_200=("The task, CANCELLED.", TaskView),
        words={409: "`task_ended`, or `try_again`: the task is changing just now."},
    ),
)
def post_cancel(task_id: TaskId) -> Response[TaskView]:
    """Stops watching; the provider goes on. A task that has ended in another way answers 409 `task_ended`."""
    caller = current_caller()
    found = current_parts().tasks.cancel_task(task_id, owner=caller.owner)
    return json_answer(HTTPStatus.OK, task_view(found.task, found.request, found.deliveries))


@route(
    "POST",
    "/tasks/<task_id>/retry",
    scope=Scope.WRITE,
    summary="Retry a task",
    operation_id="retryTask",
    tags=["tasks"],
    responses=documented(
        401,
        403,
        404,
        409,
        ok_201=("The new task.", TaskView),
        words={
            409: "`task_not_failed`: only FAILED and EXPIRED are retried. `already_registered`: the render is watched "
            "already, and `task_id` names that task. `unknown_connection`: its connection is there no more. "
            "`try_again`: another registration of it is under way."
        },
    ),
)
def post_retry(task_id: TaskId) -> Response[TaskView]:
    """Watches the render of a FAILED or EXPIRED task anew, as a new task: same connection, metadata, webhooks and
    deadline, counted from now, and `retry_of`. The old task stays as it is.
    """
    caller = current_caller()
    made = current_parts().tasks.retry_task(
        task_id, owner=caller.owner, base_url=current_base_url(), seed=current_seed()
    )
    return json_answer(HTTPStatus.CREATED, task_view(made.task, made.request, made.deliveries))


@route(
    "GET",
    "/tasks/<task_id>/videos/<n>",
    scope=Scope.READ,
    summary="Fetch a stored file",
    operation_id="fetchVideo",
    tags=["tasks"],
    responses=documented(
        401,
        404,
        410,
        422,
        ok_302=("A fresh presigned URL, in the header Location.", None),
        ok_200=("The same URL as JSON, with `redirect=false`.", VideoLink),
    ),
)
def get_video(
    task_id: TaskId,
    n: Annotated[Whole, Path(description="The number of the file, from 1.")],
    download: Annotated[Flag, Query(description="Ask the browser to save the file.")] = False,
    redirect: Annotated[Flag, Query(description="`false`: answer the URL as JSON.")] = True,
) -> Response[VideoLink | str]:
    """Leads to the file in S3, which also answers range requests. Ask again when the URL has expired.

    Clients that send `x-api-key` along with a redirect do better with `redirect=false`.
    """
    caller, parts = current_caller(), current_parts()
    task = parts.tasks.read_task(task_id, owner=caller.owner).task
    file = next((one for one in task.files if one.n == n), None)
    if file is None:  # only a COMPLETED task has files
        raise NotFoundError("there is no such file")
    now = parts.clock()
    kept = timedelta(days=parts.video_retention_days)
    if kept and now >= copying_since(task) + kept:  # S3 counts from when it began to take the file
        raise VideoExpiredError("the file has been removed by the retention rule")
    suffix = file.key.rpartition("/")[2].rpartition(".")[2]
    url = parts.presign(file, LINK_S, f"{task_id}-{n}.{suffix}" if download else None)
    if redirect:
        return Response(HTTPStatus.FOUND.value, "text/plain", "", {**NO_STORE, "Location": url})
    link = VideoLink(url=url, expires_at=now + timedelta(seconds=LINK_S))
    return Response(HTTPStatus.OK.value, JSON, link, NO_STORE)
