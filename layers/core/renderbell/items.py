"""How tasks, requests, deliveries and attempts are written down as DynamoDB attributes, and read again: pure.

Times are ISO 8601 UTC with microseconds and a fixed width, so that they sort as text. What is None or empty is left
out. `store/` adds the keys and the conditions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from renderbell.delivery import Attempt, Delivery, DeliveryState
from renderbell.providers.base import ProviderTime
from renderbell.task import (
    ErrorCode,
    FileKind,
    Frames,
    Hint,
    PollError,
    Request,
    Source,
    Status,
    Step,
    StoredFile,
    Streak,
    StreakKind,
    Task,
    TaskError,
    Transition,
    Webhook,
)

Attributes = dict[str, Any]  # one item's attributes, as boto3's serializer takes and gives them

_PLAIN = ("owner", "connection", "provider", "provider_task_id", "version", "slot", "progress", "model")


def time_text(at: datetime) -> str:
    """A time as text that sorts: `2026-11-22T07:49:00.123456Z`."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


FIRST_YEAR, LAST_YEAR = 1970, 9990  # beyond them, adding a delay leaves what a datetime can say


def parse_time(text: str) -> datetime:
    """The time that `time_text` wrote; raises `ValueError` for any other text that says less, or what no clock says."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None or not FIRST_YEAR <= at.year <= LAST_YEAR:
        raise ValueError(f"no time with a zone, or an absurd one: {text}")
    return at


def task_attributes(task: Task) -> Attributes:
    """All of a task but its key and history, which the store appends to."""
    attributes: Attributes = {name: getattr(task, name) for name in _PLAIN}
    attributes |= {
        "status": task.status.value,
        "step": task.step and task.step.value,
        "created_at": time_text(task.created_at),
        "expires_at": time_text(task.expires_at),
        "due_at": task.due_at and time_text(task.due_at),
        "tells_processing": task.tells_processing or None,
        "progress_at": task.progress_at and time_text(task.progress_at),
        "streak": task.streak
        and {"kind": task.streak.kind.value, "count": task.streak.count, "since": time_text(task.streak.since)},
        "last_poll_error": task.last_poll_error
        and {
            "kind": task.last_poll_error.kind,
            "message": task.last_poll_error.message,
            "at": time_text(task.last_poll_error.at),
        },
        "hint": task.hint and {"at": time_text(task.hint.at), "count": task.hint.count},
        "duration_s": None if task.duration_s is None else Decimal(str(task.duration_s)),
        "frames": task.frames and {"count": task.frames.count, "newest": task.frames.newest},
        "provider_times": {
            name: {"raw": json.dumps(time.raw)} | ({"at": time_text(time.at)} if time.at else {})
            for name, time in task.provider_times.items()
        },
        "sources": [{"kind": source.kind.value, "url": source.url} for source in task.sources],
        "files": [_copied(file, task.sources) for file in task.files],
        "error": task.error and {"code": task.error.code.value, "message": task.error.message},
        "deleted": task.deleted or None,
    }
    return present(attributes)


def history_attributes(history: tuple[Transition, ...]) -> list[Attributes]:
    """The lines of a history."""
    return [
        present(
            {
                "at": time_text(line.at),
                "from": line.source and line.source.value,
                "to": line.target.value,
                "reason": line.reason,
            }
        )
        for line in history
    ]


def task_from(task_id: str, item: Mapping[str, Any], *, progress_known: bool = True) -> Task:
    """The task that an item, or its projection in the index, holds."""
    due_at, progress_at, step = item.get("due_at"), item.get("progress_at"), item.get("step")
    streak, poll_error, frames, error = (item.get(name) for name in ("streak", "last_poll_error", "frames", "error"))
    hint = item.get("hint")
    return Task(
        task_id=task_id,
        owner=_text(item, "owner"),
        connection=_text(item, "connection"),
        provider=_text(item, "provider"),
        provider_task_id=_text(item, "provider_task_id"),
        created_at=parse_time(item["created_at"]),
        expires_at=parse_time(item["expires_at"]),
        status=Status(item["status"]),
        version=int(item["version"]),
        step=Step(step) if step else None,
        due_at=parse_time(due_at) if due_at else None,
        slot=int(item["slot"]),
        tells_processing=bool(item.get("tells_processing")),
        progress=_int(item.get("progress")),
        progress_at=parse_time(progress_at) if progress_at else None,
        streak=streak and Streak(StreakKind(streak["kind"]), int(streak["count"]), parse_time(streak["since"])),
        last_poll_error=poll_error
        and PollError(poll_error["kind"], poll_error["message"], parse_time(poll_error["at"])),
        hint=hint and Hint(parse_time(hint["at"]), int(hint["count"])),
        model=item.get("model"),
        duration_s=None if item.get("duration_s") is None else float(item["duration_s"]),
        frames=frames and Frames(int(frames["count"]), frames["newest"]),
        progress_known=progress_known,
        provider_times={
            name: ProviderTime(json.loads(time["raw"]), parse_time(time["at"]) if time.get("at") else None)
            for name, time in item.get("provider_times", {}).items()
        },
        sources=tuple(Source(FileKind(source["kind"]), source["url"]) for source in item.get("sources", ())),
        files=tuple(file_from(_with_link(file, item.get("sources", ()))) for file in item.get("files", ())),
        error=error and TaskError(ErrorCode(error["code"]), error["message"]),
        deleted=bool(item.get("deleted")),
        history=tuple(
            Transition(
                parse_time(line["at"]),
                Status(line["from"]) if line.get("from") else None,
                Status(line["to"]),
                line["reason"],
            )
            for line in item.get("history", ())
        ),
    )


def file_attributes(file: StoredFile) -> Attributes:
    """One stored file."""
    return {name.name: getattr(file, name.name) for name in fields(file)} | {"kind": file.kind.value}


def _copied(file: StoredFile, sources: Sequence[Source]) -> Attributes:
    """A task's file, without its link where that stands among the sources already: signed ones are long."""
    attributes = file_attributes(file)
    if [source.url for source in sources[file.n - 1 : file.n]] == [file.source_url]:
        del attributes["source_url"]
    return attributes


def _with_link(file: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What `_copied` wrote, with its link."""
    return file if "source_url" in file else {**file, "source_url": sources[int(file["n"]) - 1]["url"]}


def file_from(item: Mapping[str, Any]) -> StoredFile:
    """The stored file that `file_attributes` wrote."""
    return StoredFile(
        **{**item, "n": int(item["n"]), "size_bytes": int(item["size_bytes"]), "kind": FileKind(item["kind"])}
    )


def request_attributes(request: Request) -> Attributes:
    """All of a request but its key."""
    return present(
        {
            "owner": request.owner,
            "created_at": time_text(request.created_at),
            "deadline_s": request.deadline_s,
            "base_url": request.base_url,
            "ttl": request.ttl,
            "metadata": dict(request.metadata),
            "webhooks": [{"url": webhook.url, "events": list(webhook.events)} for webhook in request.webhooks],
            "retry_of": request.retry_of,
            "tells_bus": request.tells_bus or None,
        }
    )


def request_from(task_id: str, item: Mapping[str, Any]) -> Request:
    """The request that an item holds."""
    return Request(
        task_id=task_id,
        owner=item["owner"],
        created_at=parse_time(item["created_at"]),
        deadline_s=int(item["deadline_s"]),
        base_url=item.get("base_url", ""),
        ttl=int(item["ttl"]),
        metadata=dict(item.get("metadata", {})),
        webhooks=tuple(Webhook(hook["url"], tuple(hook["events"])) for hook in item.get("webhooks", ())),
        retry_of=item.get("retry_of"),
        tells_bus=bool(item.get("tells_bus")),
    )


def delivery_attributes(delivery: Delivery) -> Attributes:
    """All of a delivery but its key."""
    at = delivery.last_attempt_at
    return present(
        {
            "owner": delivery.owner,
            "event": delivery.event,
            "endpoint_id": delivery.endpoint_id,
            "receiver": delivery.receiver,
            "url": delivery.url,
            "created_at": time_text(delivery.created_at),
            "state": delivery.state.value,
            "due_at": delivery.due_at and time_text(delivery.due_at),
            "slot": delivery.slot,
            "tries": delivery.tries,
            "token": delivery.token,
            "last_status": delivery.last_status,
            "last_error": delivery.last_error,
            "last_attempt_at": at and time_text(at),
            "ttl": delivery.ttl,
            "resumes": delivery.resumes and delivery.resumes.value,
            "reopened_at": delivery.reopened_at and time_text(delivery.reopened_at),
        }
    )


def delivery_from(task_id: str, item: Mapping[str, Any]) -> Delivery:
    """The delivery that an item holds."""
    due_at, at, resumes, reopened_at = (
        item.get(name) for name in ("due_at", "last_attempt_at", "resumes", "reopened_at")
    )
    return Delivery(
        task_id=task_id,
        owner=_text(item, "owner"),
        event=_text(item, "event"),
        endpoint_id=_text(item, "endpoint_id"),
        receiver=_text(item, "receiver"),
        url=_text(item, "url"),
        created_at=parse_time(item["created_at"]),
        state=DeliveryState(item["state"]),
        due_at=parse_time(due_at) if due_at else None,
        slot=int(item["slot"]),
        tries=int(item["tries"]),
        token=item.get("token"),
        last_status=_int(item.get("last_status")),
        last_error=item.get("last_error"),
        last_attempt_at=parse_time(at) if at else None,
        ttl=_int(item.get("ttl")),
        resumes=DeliveryState(resumes) if resumes else None,
        reopened_at=parse_time(reopened_at) if reopened_at else None,
    )


def attempt_attributes(attempt: Attempt) -> Attributes:
    """All of an attempt but its key."""
    return present(
        {
            "event": attempt.event,
            "endpoint_id": attempt.endpoint_id,
            "at": time_text(attempt.at),
            "number": attempt.number,
            "status": attempt.status,
            "error": attempt.error,
            "detail": attempt.detail,
            "body": attempt.body,
            "duration_ms": attempt.duration_ms,
            "manual": attempt.manual or None,
            "next_at": attempt.next_at and time_text(attempt.next_at),
            "owner": attempt.owner,
        }
    )


def attempt_from(task_id: str, item: Mapping[str, Any]) -> Attempt:
    """The attempt that an item holds."""
    next_at = item.get("next_at")
    return Attempt(
        task_id=task_id,
        event=item["event"],
        endpoint_id=item["endpoint_id"],
        at=parse_time(item["at"]),
        number=int(item["number"]),
        status=_int(item.get("status")),
        error=item.get("error"),
        detail=item.get("detail"),
        body=item.get("body", ""),
        duration_ms=int(item["duration_ms"]),
        manual=bool(item.get("manual")),
        next_at=parse_time(next_at) if next_at else None,
        owner=item.get("owner", ""),
    )


def due_delivery_from(item: Mapping[str, Any]) -> tuple[str, str, str, datetime]:
    """The owner, the receiver, the endpoint and the due time that the index shows of a delivery."""
    return _text(item, "owner"), _text(item, "receiver"), _text(item, "endpoint_id"), parse_time(item["due_at"])


def present(attributes: Attributes) -> Attributes:
    """The attributes that say something: None and what is empty is left out."""
    return {name: value for name, value in attributes.items() if value is not None and value not in ("", [], {})}


def _text(item: Mapping[str, Any], name: str) -> str:
    """A text that others rely on; raises `TypeError` for what is none."""
    value = item[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _int(value: Decimal | int | None) -> int | None:
    return None if value is None else int(value)
