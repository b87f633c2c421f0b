"""A task as webhooks and the API show it.

The same task and request always give the same bytes: fields have a fixed order, keys of mappings are sorted, times
are UTC in one form.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import ConfigDict, Field, PlainSerializer, WithJsonSchema

from renderbell.delivery import DEFAULT_EVENTS, Attempt, Delivery, DeliveryState
from renderbell.models import Model
from renderbell.task import (
    ErrorCode,
    FileKind,
    Request,
    Source,
    Status,
    StoredFile,
    Task,
    Transition,
    Webhook,
)

__all__ = [
    "AttemptView",
    "TaskData",
    "TaskSummary",
    "TaskView",
    "Time",
    "attempt_view",
    "example_view",
    "iso_time",
    "task_data",
    "task_summary",
    "task_view",
    "video_url",
]


def iso_time(at: datetime) -> str:
    """The time as ISO 8601 in UTC with milliseconds and a `Z`; always 24 characters."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Time = Annotated[
    datetime,
    PlainSerializer(iso_time, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-03-01T12:00:00.000Z"]}),
]


class _View(Model):
    model_config = ConfigDict(frozen=True, serialize_by_alias=True)


class FramesView(_View):
    """Preview frames that the provider has shown."""

    count: int
    newest: str = Field(description="The provider's link to the newest frame.")


class ProviderTimeView(_View):
    """A time as the provider gave it."""

    raw: str | int | float = Field(description="The provider's own value, untouched.")
    at: Time | None = Field(description="The same in UTC; null where its zone is not known.")


class TaskErrorView(_View):
    """Why the task failed."""

    code: ErrorCode
    message: str


class TransitionView(_View):
    """One line of the task's history."""

    at: Time
    source: Status | None = Field(serialization_alias="from", description="null for the registration.")
    target: Status = Field(serialization_alias="to")
    reason: str


class TimesView(_View):
    """When the task came to each state, by its history; null where it never did."""

    queued_at: Time
    processing_at: Time | None
    copying_at: Time | None
    ended_at: Time | None


class SourceView(_View):
    """The provider's own link to a finished file; it may expire at any time."""

    kind: FileKind
    url: str


class VideoView(_View):
    """A finished file in the team's bucket."""

    n: int = Field(description="Its number within the task, from 1.")
    kind: FileKind
    url: str = Field(description="A lasting link of this API; it needs the API key and leads to a fresh presigned URL.")
    s3_uri: str
    bucket: str
    key: str
    size_bytes: int
    sha256: str = Field(description="SHA-256 of the whole file, in hexadecimal.")
    content_type: str
    duration_s: float | None = Field(
        description="Its length in seconds, by the provider's word; null unless it is the task's only video."
    )
    source_url: str = Field(description="The provider's link that it was copied from.")


class TaskData(_View):
    """A task as webhooks carry it."""

    task_id: str
    owner: str
    connection: str
    provider: str
    provider_task_id: str
    retry_of: str | None = Field(description="The task that ended in vain and that this one takes up.")
    status: Status
    progress: int | None = Field(description="Percent, 0 to 100; null where the provider gives none.")
    metadata: dict[str, str]
    created_at: Time
    expires_at: Time = Field(description="Our deadline: a task that is still at the provider then is EXPIRED.")
    times: TimesView
    model: str | None
    duration_s: float | None = Field(description="The video's length in seconds, by the provider's word.")
    frames: FramesView | None
    provider_times: dict[str, ProviderTimeView] = Field(
        description="What the provider says: created_at, started_at, finished_at, expires_at."
    )
    error: TaskErrorView | None
    history: list[TransitionView]
    sources: list[SourceView] = Field(description="The provider's links, as long as nothing is copied.")
    videos: list[VideoView] = Field(description="The files in S3, once the task is COMPLETED.")


class WebhookView(_View):
    """Where to send which events."""

    url: str
    events: list[str]


class DeliveryView(_View):
    """One event on its way to one webhook."""

    event: str
    endpoint_id: str
    url: str
    state: DeliveryState = Field(
        description="pending until it has been heard (delivered) or nothing is tried any more: all tries failed "
        "(exhausted), the endpoint has been failing for days or is switched off (disabled), its address may not be "
        "reached (refused), or it answered 410 or was deleted (gone)."
    )
    created_at: Time
    tries: int
    next_attempt_at: Time | None = Field(description="null once the delivery has ended.")
    last_attempt_at: Time | None
    last_status: int | None = Field(description="The HTTP status of the last answer.")
    last_error: str | None = Field(
        description="Why the last attempt brought no answer: timeout, dns, connection, tls, protocol, address_refused, "
        "internal or interrupted. Or why none was made: endpoint_not_found, endpoint_disabled."
    )


class AttemptView(_View):
    """One attempt to deliver an event to a webhook."""

    event: str
    endpoint_id: str
    at: Time
    number: int = Field(description="From 1, for each delivery.")
    manual: bool = Field(description="Whether it was asked for, and not made by the schedule.")
    status: int | None = Field(description="The HTTP status of the answer.")
    error: str | None = Field(
        description="Why there was no answer: timeout, dns, connection, tls, protocol, address_refused, internal or "
        "interrupted."
    )
    detail: str | None = Field(description="The error in a sentence.")
    body: str = Field(description="The first 1 KiB of the answer.")
    duration_ms: int
    next_at: Time | None = Field(description="When the next attempt was then due; null: none was.")


class PollErrorView(_View):
    """The latest trouble with a poll or a copy; it goes when a poll succeeds or the copy is done."""

    kind: str = Field(
        description="unavailable (no answer, or one that says to try later), auth (the provider refuses the "
        "connection's key or account, or the connection is missing), not_found (it does not know the task), rejected "
        "(it says that the request can never work), protocol (its answer cannot be read), internal (Renderbell broke "
        "on the poll), or copy (a try to copy failed).",
        examples=["unavailable"],
    )
    message: str
    at: Time = Field(
        description="When this kind of trouble began; for not_found, rejected and copy, when it was met last."
    )


class TaskSummary(TaskData):
    """A task as a list shows it: all but its webhooks and what became of them."""

    last_poll_error: PollErrorView | None


class TaskView(TaskSummary):
    """A task as the API answers it."""

    webhooks: list[WebhookView]
    deliveries: list[DeliveryView]


def task_data(task: Task, request: Request) -> TaskData:
    """The task as webhooks carry it."""
    videos = [file for file in task.files if file.kind is FileKind.VIDEO]
    return TaskData(
        task_id=task.task_id,
        owner=task.owner,
        connection=task.connection,
        provider=task.provider,
        provider_task_id=task.provider_task_id,
        retry_of=request.retry_of,
        status=task.status,
        progress=task.progress,
        metadata=dict(sorted(request.metadata.items())),
        created_at=task.created_at,
        expires_at=task.expires_at,
        times=_times(task),
        model=task.model,
        duration_s=task.duration_s,
        frames=FramesView(count=task.frames.count, newest=task.frames.newest) if task.frames else None,
        provider_times={
            name: ProviderTimeView(raw=time.raw, at=time.at) for name, time in sorted(task.provider_times.items())
        },
        error=TaskErrorView(code=task.error.code, message=task.error.message) if task.error else None,
        history=[
            TransitionView(at=line.at, source=line.source, target=line.target, reason=line.reason)
            for line in task.history
        ],
        sources=[] if task.files else [SourceView(kind=source.kind, url=source.url) for source in task.sources],
        videos=[
            VideoView(
                n=file.n,
                kind=file.kind,
                url=video_url(request.base_url, task.task_id, file.n),
                s3_uri=f"s3://{file.bucket}/{file.key}",
                bucket=file.bucket,
                key=file.key,
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                content_type=file.content_type,
                duration_s=task.duration_s if [file] == videos else None,
                source_url=file.source_url,
            )
            for file in task.files
        ],
    )


def _times(task: Task) -> TimesView:
    reached: dict[Status, datetime] = {}
    for line in task.history:
        reached.setdefault(line.target, line.at)
    return TimesView(
        queued_at=reached.get(Status.QUEUED, task.created_at),
        processing_at=reached.get(Status.PROCESSING),
        copying_at=reached.get(Status.COPYING),
        ended_at=reached.get(task.status) if task.status.terminal else None,
    )


def task_summary(task: Task, request: Request) -> TaskSummary:
    """The task as a list shows it."""
    error = task.last_poll_error
    return TaskSummary(
        **dict(task_data(task, request)),
        last_poll_error=PollErrorView(kind=error.kind, message=error.message, at=error.at) if error else None,
    )


def task_view(task: Task, request: Request, deliveries: Sequence[Delivery]) -> TaskView:
    """The task as the API answers it, with its webhooks and what became of them."""
    return TaskView(
        **dict(task_summary(task, request)),
        webhooks=[WebhookView(url=webhook.url, events=list(webhook.events)) for webhook in request.webhooks],
        deliveries=[
            DeliveryView(
                event=delivery.event,
                endpoint_id=delivery.endpoint_id,
                url=delivery.url,
                state=delivery.state,
                created_at=delivery.created_at,
                tries=delivery.tries,
                next_attempt_at=delivery.due_at,
                last_attempt_at=delivery.last_attempt_at,
                last_status=delivery.last_status,
                last_error=delivery.last_error,
            )
            for delivery in sorted(deliveries, key=lambda one: (one.created_at, one.event, one.endpoint_id))
        ],
    )


def attempt_view(attempt: Attempt) -> AttemptView:
    """An attempt as the API answers it."""
    return AttemptView(
        event=attempt.event,
        endpoint_id=attempt.endpoint_id,
        at=attempt.at,
        number=attempt.number,
        manual=attempt.manual,
        status=attempt.status,
        error=attempt.error,
        detail=attempt.detail,
        body=attempt.body,
        duration_ms=attempt.duration_ms,
        next_at=attempt.next_at,
    )


def video_url(base_url: str, task_id: str, n: int) -> str:
    """The lasting link to a task's n-th file."""
    return f"{base_url.rstrip('/')}/tasks/{task_id}/videos/{n}"


def example_view(base_url: str) -> TaskView:
    """A finished task, for the documents."""
    task_id, owner, source_url = (
        "tsk_01kjm4v8r0e3x5n7p9q2s4t6v8",
        "default",
        "https://cdn.example.com/renders/0f7c2f6e.mp4",
    )
    began = datetime(2026, 3, 1, 12, tzinfo=UTC)
    started, rendered, copied = (began + timedelta(seconds=seconds) for seconds in (10.2, 95.4, 99.8))
    task = Task(
        task_id=task_id,
        owner=owner,
        connection="studio",
        provider="moneyprinterturbo",
        provider_task_id="0f7c2f6e-58a8-4c3b-9f5e-2f0c9f4f7a51",
        created_at=began,
        expires_at=began + timedelta(days=1),
        status=Status.COMPLETED,
        step=None,
        progress=100,
        duration_s=12.5,
        sources=(Source(FileKind.VIDEO, source_url),),
        files=(
            StoredFile(
                n=1,
                kind=FileKind.VIDEO,
                bucket="renderbell-videos",
                key=f"{owner}/{task_id}/1.mp4",
                size_bytes=4_194_304,
                sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                content_type="video/mp4",
                source_url=source_url,
            ),
        ),
        history=(
            Transition(began, None, Status.QUEUED, "registered"),
            Transition(started, Status.QUEUED, Status.PROCESSING, "the provider started"),
            Transition(rendered, Status.PROCESSING, Status.COPYING, "the provider succeeded"),
            Transition(copied, Status.COPYING, Status.COMPLETED, "copied to S3"),
        ),
    )
    webhook = Webhook("https://example.com/hooks/renders", DEFAULT_EVENTS)
    request = Request(
        task_id=task_id,
        owner=owner,
        created_at=began,
        deadline_s=86_400,
        base_url=base_url,
        ttl=0,
        metadata={"order": "4711"},
        webhooks=(webhook,),
    )
    delivery = Delivery(
        task_id=task_id,
        owner=owner,
        event="task.completed",
        endpoint_id="url_7d9f0a4c1be2835d60aa",
        receiver="example.com",
        url=webhook.url,
        created_at=copied,
        state=DeliveryState.DELIVERED,
        tries=1,
        last_status=204,
        last_attempt_at=copied,
    )
    return task_view(task, request, (delivery,))
