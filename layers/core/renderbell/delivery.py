"""One event for one endpoint: its states, its claims, and what an answer makes of it.

A delivery is an item of its own with its own tries and its own due time, so that one dead receiver delays nobody
else. Everything here is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

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
TEST_EVENT = "endpoint.test"  # of no task: an owner asks for it
DEFAULT_EVENTS = TASK_EVENTS[1:]  # `task.processing` only on request
MAX_ENDPOINTS = 20  # a task
MAX_ANSWER_KEPT = 1024  # bytes
BUS = "bus"  # the endpoint, and the receiver, of what goes to the deployment's EventBridge bus
BUS_URL = "eventbridge:bus"

INTERRUPTED = "interrupted"  # the error of an attempt whose process died
INTERNAL = "internal"  # the error of an attempt that broke on our side
REFUSED = "address_refused"  # the error of an attempt at a URL that may not be reached

# Why a delivery has ended without an attempt.
TASK_GONE = "task_not_found"
ENDPOINT_GONE = "endpoint_not_found"
ENDPOINT_OFF = "endpoint_disabled"

SLOW_S = 5.0  # a receiver that takes this long holds whoever waits for it

DISABLED_AFTER = timedelta(days=5)
CONFIRMED_AFTER = timedelta(hours=12)


class DeliveryState(StrEnum):
    """Where a delivery is in its life."""

    PENDING = "pending"
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"  # every try failed
    REFUSED = "refused"  # the URL may not be reached
    GONE = "gone"  # the endpoint answered 410, or its owner has removed it
    DISABLED = "disabled"  # its try failed, and the endpoint has been failing for days; or its owner switched it off


@dataclass(frozen=True, slots=True)
class Answer:
    """What one attempt brought: a status, or the class of the error that prevented one.

    `detail` says the error in a sentence; `body` is the start of the answer as text; `retry_after_s` is the receiver's
    hint in seconds; `refused` means that the URL or its address may not be reached at all.
    """

    status: int | None
    error: str | None = None
    detail: str | None = None
    refused: bool = False
    body: str = ""
    retry_after_s: float | None = None
    duration_ms: int = 0

    @property
    def delivered(self) -> bool:
        """Whether the receiver has taken the message."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def tells_of_receiver(self) -> bool:
        """Whether it says anything about the receiver: it was asked, and we know what came of it."""
        return not self.refused and self.error not in {INTERRUPTED, INTERNAL}

    @property
    def took_long(self) -> bool:
        """Whether it held up whoever waited for it."""
        return self.duration_ms >= SLOW_S * 1000

    @property
    def is_silence(self) -> bool:
        """Whether nothing came, and that took long: a connection that is refused is an answer, and a quick one."""
        return self.status is None and self.took_long


class EndpointHealth(NamedTuple):
    """What an endpoint's attempts say of it since its last success; all None: the last one was good.

    `failing_since` is its first failure, `confirmed_at` the next that came at least 12 hours later, and `disabled_at`
    the one after that which came at least 5 days after the first. Failures between these change nothing, so that
    nothing need be written for them.
    """

    failing_since: datetime | None = None
    confirmed_at: datetime | None = None
    disabled_at: datetime | None = None

    @property
    def failing(self) -> bool:
        """Whether its last attempt failed."""
        return self.failing_since is not None

    @property
    def disabled(self) -> bool:
        """Whether it gets no retries any more."""
        return self.disabled_at is not None


HEALTHY = EndpointHealth()


def after_failure(health: EndpointHealth, now: datetime) -> EndpointHealth:
    """An endpoint's health after an attempt that failed; the same value where that changes nothing.

    A few failures that are far apart say little, so the one that disables is at least the third.
    """
    since = health.failing_since
    if since is None:
        return EndpointHealth(failing_since=now)
    if health.disabled:
        return health
    if health.confirmed_at is None:
        return health._replace(confirmed_at=now) if now - since >= CONFIRMED_AFTER else health
    return health._replace(disabled_at=now) if now - since >= DISABLED_AFTER else health


def after_answer(health: EndpointHealth, answer: Answer, now: datetime) -> EndpointHealth:
    """An endpoint's health after an answer: one success clears everything, and what is not its own doing counts for
    nothing."""
    if not answer.tells_of_receiver:
        return health
    return HEALTHY if answer.delivered else after_failure(health, now)


class ReceiverState(StrEnum):
    """How an owner's receiver has taken the last attempt that told anything of it, whichever of its URLs was called."""

    WELL = "well"
    FAILING = "failing"  # it said no, or refused the connection, and soon
    LATE = "late"  # it took 5 s or more for an answer, once: a cold start, perhaps
    SLOW = "slow"  # it said nothing for 5 s, or took as long again, whatever it said then


class ReceiverHealth(NamedTuple):
    """A receiver's state; where it is slow, `endpoint_id` is the one endpoint that this is known of (None: several).

    A host may be shared: one URL that hangs must not hold up the others, and URLs that hang one after another must.
    Where it is not slow, `endpoint_id` is the last that was late and has not answered soon since: what others answer
    says nothing of it, but ends a row.
    """

    state: ReceiverState = ReceiverState.WELL
    endpoint_id: str | None = None

    def is_slow_at(self, endpoint_id: str) -> bool:
        """Whether an attempt at this endpoint may take long."""
        return self.state is ReceiverState.SLOW and self.endpoint_id in {None, endpoint_id}


WELL = ReceiverHealth()


def receiver_after(health: ReceiverHealth, endpoint_id: str, answer: Answer) -> ReceiverHealth:
    """A receiver's health after one of its endpoints' answers; what is not its own doing changes nothing.

    One late answer puts nobody off; it is slow with a second in a row, the receiver's or the endpoint's own, and with
    the first silence.
    """
    if not answer.tells_of_receiver:
        return health
    known = health.state is ReceiverState.SLOW
    if answer.took_long:
        if known and health.is_slow_at(endpoint_id):
            return health
        again = known or health.state is ReceiverState.LATE or health.endpoint_id == endpoint_id
        if not answer.is_silence and not again:
            return ReceiverHealth(ReceiverState.LATE, endpoint_id)
        return ReceiverHealth(ReceiverState.SLOW, None if known else endpoint_id)
    if known and not health.is_slow_at(endpoint_id):
        return health
    said = ReceiverState.WELL if answer.delivered else ReceiverState.FAILING
    return ReceiverHealth(said, None if health.endpoint_id == endpoint_id else health.endpoint_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The record of one attempt; `number` counts from 1, `next_at` is when the next one is due.

    `body` is the first 1 KiB of the answer. As with a delivery, `task_id` is the test's for the test of an endpoint.
    """

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
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event on its way to one endpoint.

    `receiver` is the host that the URL leads to, and its port where that is not the usual one: an owner's URLs there
    share their turns. `tries` counts the claims; `token` and `due_at` are the present claim and its end, where there
    is one. `resumes` is the state in which its owner asked for the next attempt (None: nobody did), and the one that
    it takes up again if that fails. For the test of an endpoint (`endpoint.test`), which is of no task, `task_id` is
    the test's own. One that had been given up and was taken up again counts from `reopened_at` on.
    """

    task_id: str
    owner: str
    event: str
    endpoint_id: str
    receiver: str
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
    resumes: DeliveryState | None = None
    reopened_at: datetime | None = None

    @property
    def manual(self) -> bool:
        """Whether its next attempt, or the one that is being made, is one that its owner asked for."""
        return self.resumes is not None

    @property
    def had_ended(self) -> bool:
        """Whether nothing was to be tried any more when its owner asked for another attempt."""
        return self.resumes not in {None, DeliveryState.PENDING}

    @property
    def recoverable(self) -> bool:
        """Whether it was given up for its receiver's sake, so that it may be sent once that is mended."""
        given_up = self.state in {DeliveryState.EXHAUSTED, DeliveryState.DISABLED}
        return given_up and self.event != TEST_EVENT and self.last_error != TASK_GONE


def new_delivery(
    *,
    task_id: str,
    owner: str,
    event: str,
    endpoint_id: str,
    receiver: str,
    url: str,
    slot: int,
    ttl: int | None,
    now: datetime,
) -> Delivery:
    """A delivery as it is made with its event; whoever made it tries at once, `due_at` is the net below that."""
    return Delivery(
        task_id=task_id,
        owner=owner,
        event=event,
        endpoint_id=endpoint_id,
        receiver=receiver,
        url=url,
        created_at=now,
        due_at=now + timedelta(seconds=NET_S),
        slot=slot,
        ttl=ttl,
    )


def redelivered(delivery: Delivery, now: datetime) -> Delivery | None:
    """The delivery after its owner asked for an attempt: due now, in place of what was pending; None while one runs.

    Who asks again before it is made gets no other.
    """
    if delivery.token is not None:
        return None
    if delivery.manual and delivery.due_at is not None and delivery.due_at <= now:
        return delivery
    return replace(delivery, state=DeliveryState.PENDING, due_at=now, resumes=delivery.resumes or delivery.state)


def judge(
    delivery: Delivery, answer: Answer, now: datetime, random_factor: float, *, disabled: bool = False
) -> Delivery:
    """What an answer makes of a delivery: the one place that decides what happens next.

    2xx is delivered; 410 ends it; a refused address ends it; everything else is tried again on the schedule, which a
    `Retry-After` of a 429 or 503 can only stretch, until the tries are used up. To an endpoint that is `disabled` there
    are no retries, unless the failure was ours. One that had ended before its owner asked for this attempt ends again.
    """
    seen = replace(delivery, token=None, last_status=answer.status, last_error=answer.error, last_attempt_at=now)
    if answer.delivered:
        return _ended(seen, DeliveryState.DELIVERED)
    if delivery.had_ended:
        return _back(seen)
    if answer.refused:
        return _ended(seen, DeliveryState.REFUSED)
    if answer.status == 410:
        return _ended(seen, DeliveryState.GONE)
    hint = answer.retry_after_s if answer.status in {429, 503} else None
    again = retry(seen, now, random_factor, hint)
    if disabled and answer.tells_of_receiver and again.state is DeliveryState.PENDING:
        return _ended(seen, DeliveryState.DISABLED)
    return again


def interrupted(delivery: Delivery, ended_at: datetime, random_factor: float) -> Delivery:
    """The delivery after a claim that ran out at `ended_at`: nobody knows what the receiver saw, so the try failed."""
    seen = replace(delivery, last_status=None, last_error=INTERRUPTED, last_attempt_at=ended_at)
    return _back(seen) if delivery.had_ended else retry(seen, ended_at, random_factor)


def as_recorded(delivery: Delivery, attempt: Attempt) -> Delivery:
    """The delivery after a try whose process died when it had recorded its attempt and not yet ended the claim."""
    seen = replace(
        delivery,
        token=None,
        last_status=attempt.status,
        last_error=attempt.error,
        last_attempt_at=attempt.at + timedelta(milliseconds=attempt.duration_ms),
    )
    if attempt.next_at is not None:
        return replace(seen, due_at=attempt.next_at, resumes=None)
    if answer_of(attempt).delivered:
        return _ended(seen, DeliveryState.DELIVERED)
    if delivery.had_ended:
        return _back(seen)
    if attempt.error == REFUSED:
        return _ended(seen, DeliveryState.REFUSED)
    if attempt.status == 410:
        return _ended(seen, DeliveryState.GONE)
    exhausted = WEBHOOK_RETRIES.next_delay(max(1, delivery.tries)) is None
    return _ended(seen, DeliveryState.EXHAUSTED if exhausted else DeliveryState.DISABLED)


def reopened(delivery: Delivery, now: datetime) -> Delivery:
    """A delivery that had been given up, as it is tried once more: due now, with the whole schedule before it."""
    return replace(
        delivery, state=DeliveryState.PENDING, token=None, due_at=now, tries=0, resumes=None, reopened_at=now
    )


def unwanted(delivery: Delivery, state: DeliveryState, error: str) -> Delivery:
    """A delivery that is not made, since nobody wants it; one that had ended before its owner asked ends as it had."""
    seen = replace(delivery, last_error=error)
    return _back(seen) if delivery.had_ended else _ended(seen, state)


def answer_of(attempt: Attempt) -> Answer:
    """The answer that an attempt was recorded with, as far as it decides anything."""
    refused = attempt.error == REFUSED
    return Answer(attempt.status, attempt.error, refused=refused, duration_ms=attempt.duration_ms)


def retry(delivery: Delivery, now: datetime, random_factor: float, retry_after_s: float | None = None) -> Delivery:
    """The delivery after a failed try: due again on the schedule, or exhausted."""
    delay = WEBHOOK_RETRIES.next_delay(max(1, delivery.tries), random_factor=random_factor, retry_after=retry_after_s)
    if delay is None:
        return _ended(delivery, DeliveryState.EXHAUSTED)
    return replace(delivery, token=None, due_at=now + timedelta(seconds=delay), resumes=None)


def _ended(delivery: Delivery, state: DeliveryState) -> Delivery:
    return replace(delivery, state=state, token=None, due_at=None, resumes=None)


def _back(delivery: Delivery) -> Delivery:
    """The delivery as it had ended before its owner asked for another attempt, which has failed."""
    return _ended(delivery, delivery.resumes or delivery.state)
