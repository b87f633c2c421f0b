"""The life of a task: its states, every legal transition, and what a provider's word changes.

             register                                 copied to S3
    (ours)  ──────────────► QUEUED ──► PROCESSING ──► COPYING ──────────► COMPLETED
                              │            │             │
                              ├────────────┴─────────────┴──► FAILED
                              ├────────────┬─────────────────► EXPIRED
                              └────────────┴─────────────┴──► CANCELLED

Everything here is pure: a task and the present time go in, a task comes out. `due_at` is the outbox: from that time
on somebody other than the present holder must look at the task, and `step` says what for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from renderbell.errors import (
    ProviderError,
    ProviderProtocolError,
    ProviderRejected,
    ProviderTaskNotFound,
)
from renderbell.providers.base import Observation, ProviderState, ProviderTime
from renderbell.schedule import COPY_RETRIES

MIN_DEADLINE_S = 60
MAX_DEADLINE_S = 7 * 86_400
DEFAULT_DEADLINE_S = 86_400

NET_S = 60.0  # after the notifier is invoked at once, this brings back what was lost on the way
LAST_POLL_GRACE_S = 60.0  # how long a passed deadline waits for one more answer
PROGRESS_EVERY_S = 15.0  # a progress change is stored at most this often
LOST_POLLS = 3
LOST_AFTER_S = 120.0
LOST_LOOK_S = 60.0
NO_FILE_POLLS = 4  # the first success without a file, and three more
NO_FILE_LOOK_S = 20.0
HINT_EVERY_S = 5.0  # hints closer to each other count as one
APART_S = 30.0  # between two polls of a task that may have ended the process that asked for it, at the least
MAX_TEXT = 1000
MAX_SOURCES = 20
MAX_DURATION_S = 7 * 86_400
POLL_INTERRUPTED = "the poll was interrupted: its process died, or could not store what came of it"


class Status(StrEnum):
    """Where a task is in its life."""

    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COPYING = "COPYING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"

    @property
    def terminal(self) -> bool:
        """Whether nothing can follow."""
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[Status, frozenset[Status]] = MappingProxyType(
    {
        Status.QUEUED: frozenset({Status.PROCESSING, Status.COPYING, Status.FAILED, Status.EXPIRED, Status.CANCELLED}),
        Status.PROCESSING: frozenset({Status.COPYING, Status.FAILED, Status.EXPIRED, Status.CANCELLED}),
        Status.COPYING: frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED}),
        Status.COMPLETED: frozenset(),
        Status.FAILED: frozenset(),
        Status.EXPIRED: frozenset(),
        Status.CANCELLED: frozenset(),
    }
)


class Step(StrEnum):
    """What has to be done with a task from `due_at` on."""

    POLL = "poll"
    COPY = "copy"
    CLEAN = "clean"


class ErrorCode(StrEnum):
    """Why a task failed."""

    PROVIDER_FAILED = "provider_failed"
    PROVIDER_TASK_LOST = "provider_task_lost"
    PROVIDER_REJECTED = "provider_rejected"
    NO_VIDEO = "no_video"
    COPY_FAILED = "copy_failed"


class FileKind(StrEnum):
    """What a file of a finished task is."""

    VIDEO = "video"
    IMAGE = "image"
    COMBINED = "combined"


class StreakKind(StrEnum):
    """An answer that ends a task only if it is repeated, or a poll that has brought none yet."""

    NOT_FOUND = "not_found"
    REJECTED = "rejected"
    NO_FILE = "no_file"
    APART = "apart"  # asked apart from the others, and not heard of since


class Transition(NamedTuple):
    """One line of a task's history."""

    at: datetime
    source: Status | None
    target: Status
    reason: str


class TaskError(NamedTuple):
    """Why a task ended as FAILED, in a stable code and in the provider's or our words."""

    code: ErrorCode
    message: str


class PollError(NamedTuple):
    """The last poll that brought no observation; `kind` is the error's class in a word."""

    kind: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Streak:
    """How often running the same doubtful answer came, and since when."""

    kind: StreakKind
    count: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Hint:
    """The provider's last word that it has news: from `at` on a poll is worth while; `count` is of all such words."""

    at: datetime
    count: int


@dataclass(frozen=True, slots=True)
class Frames:
    """How many preview frames the provider has shown, and the newest one's link: empty where a poller knows none."""

    count: int
    newest: str


class Source(NamedTuple):
    """The provider's link to one finished file."""

    kind: FileKind
    url: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A finished file in the team's bucket; `n` counts from 1 in the order of the provider's links."""

    n: int
    kind: FileKind
    bucket: str
    key: str
    size_bytes: int
    sha256: str
    content_type: str
    source_url: str


@dataclass(frozen=True, slots=True)
class Upload:
    """An open multipart upload, kept with the task so that a later invocation goes on with it.

    `validator` is the source's strong ETag or a Last-Modified fit for `If-Range`; `size_bytes` is the announced length.
    """

    n: int
    key: str
    upload_id: str
    part_size: int
    content_type: str
    source_url: str
    validator: str | None
    size_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A registered task, as one value.

    A task that was read from the `due` index carries what polling needs; its `history` then holds only the
    transitions made since, and the store appends them. Nor does the index show how far a task has come: while
    `progress_known` is false, `progress`, `progress_at` and `frames` say nothing of what is stored. Times are UTC.
    `version` rises with every write that the index shows. `deleted` means that its owner sees it no more, and that the
    clean-up removes all that is left of it.
    """

    task_id: str
    owner: str
    connection: str
    provider: str
    provider_task_id: str
    created_at: datetime
    expires_at: datetime
    status: Status = Status.QUEUED
    version: int = 1
    step: Step | None = Step.POLL
    due_at: datetime | None = None
    slot: int = 0
    tells_processing: bool = False
    progress: int | None = None
    progress_at: datetime | None = None
    streak: Streak | None = None
    last_poll_error: PollError | None = None
    hint: Hint | None = None
    model: str | None = None
    duration_s: float | None = None
    frames: Frames | None = None
    progress_known: bool = True
    provider_times: Mapping[str, ProviderTime] = field(default_factory=lambda: MappingProxyType({}))
    sources: tuple[Source, ...] = ()
    files: tuple[StoredFile, ...] = ()
    error: TaskError | None = None
    deleted: bool = False
    history: tuple[Transition, ...] = ()

    @property
    def apart(self) -> bool:
        """Whether its last poll, asked apart from the others, has not been heard of."""
        return self.streak is not None and self.streak.kind is StreakKind.APART

    @property
    def own_version(self) -> int:
        """Its version but for the hints: they tell nothing of how its polls have ended."""
        return self.version - (self.hint.count if self.hint is not None else 0)


class Webhook(NamedTuple):
    """Where to send which events, as it was registered."""

    url: str
    events: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked when the task was registered; written once.

    `base_url` starts the links to our own API; `ttl` (epoch seconds) is when the record may be forgotten. `retry_of` is
    the task that ended in vain and that this one takes up. `tells_bus` means that the deployment's EventBridge bus
    hears of every event.
    """

    task_id: str
    owner: str
    created_at: datetime
    deadline_s: int
    base_url: str
    ttl: int
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    webhooks: tuple[Webhook, ...] = ()
    retry_of: str | None = None
    tells_bus: bool = False


def new_task(
    *,
    task_id: str,
    owner: str,
    connection: str,
    provider: str,
    provider_task_id: str,
    now: datetime,
    deadline_s: int,
    slot: int,
    tells_processing: bool,
) -> Task:
    """A task as it is registered: QUEUED, and due at once."""
    return Task(
        task_id=task_id,
        owner=owner,
        connection=connection,
        provider=provider,
        provider_task_id=provider_task_id,
        created_at=now,
        expires_at=now + timedelta(seconds=deadline_s),
        due_at=now,
        slot=slot,
        tells_processing=tells_processing,
        history=(Transition(now, None, Status.QUEUED, "registered"),),
    )


def advance(task: Task, outcome: Observation | ProviderError, now: datetime) -> Task:
    """What a provider's word makes of a task; the same object where it changes nothing worth storing.

    A failed poll is never a failed task: only the provider's own verdict, a confirmed loss or rejection, or our
    deadline ends one. What is past polling stays as it is.
    """
    if task.step is not Step.POLL:
        return task
    after = _observed(task, outcome, now) if isinstance(outcome, Observation) else _not_observed(task, outcome, now)
    if after.step is not Step.POLL or now < task.expires_at:
        return after
    answered = isinstance(outcome, Observation | ProviderTaskNotFound | ProviderRejected)
    if not answered and not past_grace(task, now):
        return after
    return _expired(after if after.status is task.status else task, now)  # one transition at a time


def notes_progress(before: Task, after: Task) -> bool:
    """Whether a change is only of how far a task has come, and of what its provider tells beside its state."""
    return before == replace(
        after,
        progress=before.progress,
        progress_at=before.progress_at,
        frames=before.frames,
        progress_known=before.progress_known,
        model=before.model,
        duration_s=before.duration_s,
        provider_times=before.provider_times,
    )


def with_progress(task: Task, other: Task) -> Task:
    """The task with how far it has come by another reading of it, where it does not know that itself."""
    if task.progress_known or not other.progress_known:
        return task
    return replace(
        task,
        progress=other.progress,
        progress_at=other.progress_at,
        frames=other.frames,
        progress_known=True,
    )


def past_grace(task: Task, now: datetime) -> bool:
    """Whether a task's deadline has passed for so long that no last poll is waited for."""
    return now >= task.expires_at + timedelta(seconds=LAST_POLL_GRACE_S)


def expire(task: Task, now: datetime) -> Task:
    """The task after its deadline, where no last poll could be had in time; unchanged before that or once it ended."""
    return _expired(task, now) if task.step is Step.POLL and past_grace(task, now) else task


def cancel(task: Task, now: datetime) -> Task:
    """The task after its owner asked us to stop watching; unchanged if it has already ended."""
    if task.status.terminal:
        return task
    return _end(task, Status.CANCELLED, "cancelled by the owner", now)


def delete(task: Task, now: datetime) -> Task:
    """The task after its owner deleted it; unchanged if it already is. One that still ran is CANCELLED.

    All that is left of it is removed once every claim that may run now has ended.
    """
    if task.deleted:
        return task
    ended = task if task.status.terminal else _end(task, Status.CANCELLED, "deleted by the owner", now)
    return replace(ended, deleted=True, step=Step.CLEAN, due_at=now + timedelta(seconds=NET_S))


def set_apart(task: Task, now: datetime) -> Task:
    """The task as it is written before a poll that may end its process; unchanged while another such poll may run.

    Whatever the poll brings takes this back. Where it brings nothing, the task has been put off on the copy's schedule,
    which goes on in its longest step until the deadline.
    """
    if task.step is not Step.POLL or task.due_at is None or (task.apart and now < task.due_at):
        return task
    streak = _count(task, StreakKind.APART, now)
    delays = COPY_RETRIES.delays_s
    delay_s = max(APART_S, delays[min(streak.count, len(delays)) - 1])
    return replace(
        task,
        streak=streak,
        due_at=min(now + timedelta(seconds=delay_s), max(task.expires_at, now)),
        last_poll_error=PollError("interrupted", POLL_INTERRUPTED, now) if streak.count > 1 else task.last_poll_error,
    )


def back_among(task: Task, now: datetime) -> Task:
    """The task as one that is asked among the others again; unchanged if it is."""
    return replace(task, streak=None, due_at=now) if task.apart and task.step is Step.POLL else task


def hinted(task: Task, now: datetime) -> Task:
    """The task after its provider has said that it has news: due now, or 5 s after the last such word.

    Unchanged where it is not polled, where a hint still lies ahead, and where polls are counted or put off on purpose:
    a caller must not bring about an end by asking often.
    """
    if task.step is not Step.POLL or now >= task.expires_at:
        return task
    if task.streak is not None and task.streak.kind in {StreakKind.NO_FILE, StreakKind.APART}:
        return task
    at, count = now, 1
    if task.hint is not None:
        at, count = max(now, task.hint.at + timedelta(seconds=HINT_EVERY_S)), task.hint.count + 1
        if task.hint.at > now:
            return task
    return replace(task, hint=Hint(at, count), due_at=at)


def copied(task: Task, files: Sequence[StoredFile], now: datetime, *, clean: bool = False) -> Task:
    """The task after all of its files are in S3; `clean` asks for a later look at what an interrupted try left."""
    done = _move(task, Status.COMPLETED, "copied to S3", now)
    return replace(
        done,
        files=tuple(files),
        step=Step.CLEAN if clean else None,
        due_at=now + timedelta(seconds=NET_S) if clean else None,
    )


def copy_failed(task: Task, message: str, now: datetime) -> Task:
    """The task after the last try to copy its files."""
    return _end(task, Status.FAILED, "copy failed", now, TaskError(ErrorCode.COPY_FAILED, _clip(message)))


def cleaned(task: Task) -> Task:
    """The task after its leftovers in S3 are gone."""
    return replace(task, step=None, due_at=None)


def relinked(task: Task, observation: Observation) -> Task:
    """A COPYING task with the provider's fresh links; unchanged unless they match the old ones in number and kind."""
    fresh = _sources(observation)
    if [source.kind for source in fresh] != [source.kind for source in task.sources]:
        return task
    return replace(task, sources=fresh)


def _observed(task: Task, observation: Observation, now: datetime) -> Task:
    match observation.state:
        case ProviderState.FAILED:
            message = _clip(observation.error or "the provider gave no reason")
            error = TaskError(ErrorCode.PROVIDER_FAILED, message)
            return _end(_known(task, observation), Status.FAILED, "the provider failed", now, error)
        case ProviderState.CANCELLED:
            return _end(_known(task, observation), Status.CANCELLED, "cancelled at the provider", now)
        case ProviderState.SUCCEEDED:
            return _succeeded(_known(task, observation), observation, now)
        case _:
            return _running(task, observation, now)


def _known(task: Task, observation: Observation) -> Task:
    """The task with what an observation tells beside its state."""
    return replace(
        task,
        model=_clip(observation.model) if observation.model else task.model,
        duration_s=observation.duration_s if _is_length(observation.duration_s) else task.duration_s,
        provider_times={**task.provider_times, **observation.provider_times} or task.provider_times,
    )


def _succeeded(known: Task, observation: Observation, now: datetime) -> Task:
    sources = _sources(observation)
    if any(source.kind is not FileKind.COMBINED for source in sources):
        copying = _move(known, Status.COPYING, "the provider succeeded", now)
        return replace(
            copying,
            sources=sources,
            frames=(_frames(observation) if observation.videos else None) or known.frames,  # else they are the files
            progress=100,
            progress_at=now,
            last_poll_error=None,
            step=Step.COPY,
            due_at=now + timedelta(seconds=NET_S),
        )
    streak = _count(known, StreakKind.NO_FILE, now)
    if streak.count >= NO_FILE_POLLS:
        error = TaskError(ErrorCode.NO_VIDEO, "the provider reports success without a usable file")
        return _end(known, Status.FAILED, "success without a file", now, error)
    return replace(known, streak=streak, last_poll_error=None, due_at=now + timedelta(seconds=NO_FILE_LOOK_S))


def _running(task: Task, observation: Observation, now: datetime) -> Task:
    starts = observation.state is ProviderState.PROCESSING and task.status is Status.QUEUED
    progress = _furthest(task.progress, observation.progress)
    frames = _frames(observation) or task.frames
    moved = progress != task.progress or (frames and frames.count) != (task.frames and task.frames.count)
    tells = moved and (task.progress_at is None or (now - task.progress_at).total_seconds() >= PROGRESS_EVERY_S)
    if not (starts or tells or task.streak or task.last_poll_error):
        return task
    known = _known(task, observation)
    after = _move(known, Status.PROCESSING, "the provider started", now) if starts else known
    return replace(
        after,
        progress=progress,
        frames=frames,
        progress_at=now if moved else task.progress_at,
        progress_known=task.progress_known or bool(moved),
        streak=None,
        last_poll_error=None,
        due_at=now if task.streak else task.due_at,
    )


def _not_observed(task: Task, error: ProviderError, now: datetime) -> Task:
    text = f"{error}: {error.raw}" if isinstance(error, ProviderProtocolError) and error.raw else str(error)
    seen = PollError(error.kind, _clip(text), now)
    if isinstance(error, ProviderTaskNotFound):
        return _doubted(task, StreakKind.NOT_FOUND, seen, now)
    if isinstance(error, ProviderRejected):
        return _doubted(task, StreakKind.REJECTED, seen, now)
    known = task.last_poll_error is not None and task.last_poll_error.kind == error.kind
    if task.streak is not None:  # the polls must run; whatever comes between them starts the count anew
        return replace(task, streak=None, due_at=now, last_poll_error=task.last_poll_error if known else seen)
    return task if known else replace(task, last_poll_error=seen)


def _doubted(task: Task, kind: StreakKind, seen: PollError, now: datetime) -> Task:
    streak = _count(task, kind, now)
    if streak.count >= LOST_POLLS and (now - streak.since).total_seconds() >= LOST_AFTER_S:
        code = ErrorCode.PROVIDER_TASK_LOST if kind is StreakKind.NOT_FOUND else ErrorCode.PROVIDER_REJECTED
        reason = "lost at the provider" if kind is StreakKind.NOT_FOUND else "rejected by the provider"
        return _end(replace(task, last_poll_error=seen), Status.FAILED, reason, now, TaskError(code, seen.message))
    look = min(now + timedelta(seconds=LOST_LOOK_S), max(task.expires_at, now))
    return replace(task, streak=streak, last_poll_error=seen, due_at=look)


def _count(task: Task, kind: StreakKind, now: datetime) -> Streak:
    if task.streak is None or task.streak.kind is not kind:
        return Streak(kind, 1, now)
    return replace(task.streak, count=task.streak.count + 1)


def _expired(task: Task, now: datetime) -> Task:
    return _end(task, Status.EXPIRED, "the deadline passed", now)


def _end(task: Task, status: Status, reason: str, now: datetime, error: TaskError | None = None) -> Task:
    """The task in a terminal state; what a copy may have left in S3 is cleaned up after its claim has ended."""
    was_copying = task.status is Status.COPYING
    return replace(
        _move(task, status, reason, now),
        error=error,
        files=(),
        step=Step.CLEAN if was_copying else None,
        due_at=now + timedelta(seconds=NET_S) if was_copying else None,
    )


def _move(task: Task, target: Status, reason: str, now: datetime) -> Task:
    if target not in TRANSITIONS[task.status]:
        raise ValueError(f"no transition from {task.status} to {target}")
    line = Transition(now, task.status, target, reason)
    return replace(task, status=target, history=(*task.history, line), streak=None)


def _is_length(duration_s: float | None) -> bool:
    return duration_s is not None and 0 <= duration_s <= MAX_DURATION_S  # false for NaN


def _furthest(old: int | None, new: int | None) -> int | None:
    if new is None:
        return old
    return max(old or 0, min(100, max(0, new)))


def copying_since(task: Task) -> datetime:
    """When the copy of a task began: no file of it is older."""
    return max((line.at for line in task.history if line.target is Status.COPYING), default=task.created_at)


def _frames(observation: Observation) -> Frames | None:
    return Frames(len(observation.images), observation.images[-1]) if observation.images else None


def _sources(observation: Observation) -> tuple[Source, ...]:
    links = [Source(FileKind.VIDEO, url) for url in observation.videos]
    links += [Source(FileKind.IMAGE, url) for url in observation.images if not observation.videos]
    links += [Source(FileKind.COMBINED, url) for url in observation.combined]
    return tuple(links[:MAX_SOURCES])


def _clip(text: str) -> str:
    sound = text.encode("utf-8", "replace").decode()  # a lone surrogate cannot be stored
    return sound if len(sound) <= MAX_TEXT else sound[: MAX_TEXT - 1] + "…"
