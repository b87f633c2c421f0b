"""One event for one endpoint: its states, its claims, and what an answer makes of it.

A delivery is an item of its own with its own tries and its own due time, so that one dead receiver delays nobody
else. Everything here is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from renderbell.schedule import WEBHOOK_RETRIES
from renderbell.task import NET_S, Status

EVENT_OF_STATUS = {
    Status.PROCESSING: "task.processing",
    Status.COMPLETED: "task.completed",
    Status.FAILED: "task.failed",
    Status.EXPIRED: "task.expired",
    Status.CANCELLED: "task.cancelled",
}
TASK_EVENTS = tuple(EVENT_OF_STATUS.values())
DEFAULT_EVENTS = TASK_EVENTS[1:]  # `task.processing` only on request
MAX_ENDPOINTS = 20  # a task
MAX_ANSWER_KEPT = 1024


class DeliveryState(StrEnum):
    """Where a delivery is in its life."""

    PENDING = "pending"
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"  # every try failed
    REFUSED = "refused"  # the URL may not be reached
    GONE = "gone"  # the endpoint answered 410


@dataclass(frozen=True, slots=True)
class Answer:
    """What one attempt brought: a status, or the class of the error that prevented one.

    `detail` says the error in a sentence; `body` is the first 1 KiB of the answer as text; `retry_after_s` is the
    receiver's hint in seconds; `refused` means that the URL or its address may not be reached at all.
    """

    status: int | None
    error: str | None = None
    detail: str | None = None
    refused: bool = False
    body: str = ""
    retry_after_s: float | None = None
    duration_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The record of one attempt; `number` counts from 1, `next_at` is when the next one is due."""

    task_id: str
    event: str
    endpoint_id: str
    at: datetime
    number: int
    status: int | None
    error: str | None
    detail: str | None
    body: str
    duration_ms: int
    manual: bool
    next_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event on its way to one endpoint.

    `tries` counts the claims; `token` and `due_at` are the present claim and its end, where there is one.
    """

    task_id: str
    owner: str
    event: str
    endpoint_id: str
    url: str
    created_at: datetime
    state: DeliveryState = DeliveryState.PENDING
    due_at: datetime | None = None
    slot: int = 0
    tries: int = 0
    token: str | None = None
    last_status: int | None = None
    last_error: str | None = None
    last_attempt_at: datetime | None = None
    ttl: int | None = None


def new_delivery(
    *, task_id: str, owner: str, event: str, endpoint_id: str, url: str, slot: int, ttl: int | None, now: datetime
) -> Delivery:
    """A delivery as it is made with its event; whoever made it tries at once, `due_at` is the net below that."""
    return Delivery(
        task_id=task_id,
        owner=owner,
        event=event,
        endpoint_id=endpoint_id,
        url=url,
        created_at=now,
        due_at=now + timedelta(seconds=NET_S),
        slot=slot,
        ttl=ttl,
    )


def judge(delivery: Delivery, answer: Answer, now: datetime, random_factor: float) -> Delivery:
    """What an answer makes of a delivery: the one place that decides what happens next.

    2xx is delivered; 410 ends it; a refused address ends it; everything else is tried again on the schedule, which a
    `Retry-After` of a 429 or 503 can only stretch, until the tries are used up.
    """
    seen = replace(delivery, token=None, last_status=answer.status, last_error=answer.error, last_attempt_at=now)
    if answer.refused:
        return _ended(seen, DeliveryState.REFUSED)
    if answer.status is not None and 200 <= answer.status < 300:
        return _ended(seen, DeliveryState.DELIVERED)
    if answer.status == 410:
        return _ended(seen, DeliveryState.GONE)
    hint = answer.retry_after_s if answer.status in {429, 503} else None
    return retry(seen, now, random_factor, hint)


def retry(delivery: Delivery, now: datetime, random_factor: float, retry_after_s: float | None = None) -> Delivery:
    """The delivery after a failed try: due again on the schedule, or exhausted."""
    delay = WEBHOOK_RETRIES.next_delay(max(1, delivery.tries), random_factor=random_factor, retry_after=retry_after_s)
    if delay is None:
        return _ended(delivery, DeliveryState.EXHAUSTED)
    return replace(delivery, token=None, due_at=now + timedelta(seconds=delay))


def _ended(delivery: Delivery, state: DeliveryState) -> Delivery:
    return replace(delivery, state=state, token=None, due_at=None)
