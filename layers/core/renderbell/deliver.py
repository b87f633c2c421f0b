"""The use case of delivering webhooks: each event to each endpoint, until it has been heard.

Every attempt is made under a claim and recorded; a claim that runs out counts as a failed attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol, TypeVar

from aws_lambda_powertools import Logger

from renderbell import webhooks
from renderbell.delivery import Answer, Attempt, Delivery, DeliveryState, judge, retry
from renderbell.schedule import CLAIM_S, WEBHOOK_RETRIES, Take, Wait, judge_claim
from renderbell.task import Request, Task

DELIVERY_TIMEOUT_S = 15.0
ATTEMPT_NEEDS_S = DELIVERY_TIMEOUT_S + 10.0  # no attempt begins with less of the invocation left
WAITED_RETRY_S = 10.0  # a retry this near is waited for in the same invocation
SIDE_BY_SIDE = 5  # how many deliveries of one endpoint the poller's invocation sends at once
INTERRUPTED = "interrupted"  # the error of an attempt whose process died

T = TypeVar("T")

logger = Logger()


class DeliveryStore(Protocol):
    """What is used of the store."""

    def task(self, task_id: str) -> Task | None: ...
    def request(self, task_id: str) -> Request | None: ...
    def deliveries(self, task_id: str) -> tuple[Delivery, ...]: ...
    def delivery(self, pk: str, sk: str) -> Delivery | None: ...
    def claim_delivery(self, seen: Delivery, token: str, until: datetime | None) -> Delivery | None: ...
    def finish_delivery(self, held: Delivery, after: Delivery) -> bool: ...
    def put_attempt(self, attempt: Attempt, ttl: int | None) -> None: ...
    def failing_since(self, owner: str, endpoint_id: str) -> datetime | None: ...
    def set_failing(self, owner: str, endpoint_id: str, since: datetime | None) -> None: ...


class Poster(Protocol):
    """Whatever can post a webhook; it never raises for what the network or the receiver does."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float = DELIVERY_TIMEOUT_S) -> Answer:
        """One attempt."""


class SideBySide(Protocol):
    """Runs jobs at the same time and answers what each returned."""

    def __call__(self, jobs: Sequence[Callable[[], T]]) -> list[T]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliverer:
    """What an invocation needs to deliver."""

    store: DeliveryStore
    poster: Poster
    secrets: Callable[[str], Sequence[str]]
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]
    side_by_side: SideBySide
    random: Callable[[], float]
    new_token: Callable[[], str]
    count: Callable[[str, float], None]

    def deliver_fresh(self, task_id: str, seconds_left: Callable[[], float]) -> None:
        """Sends a task's new deliveries side by side; those to a failing endpoint are left to the poller."""
        fresh = [one for one in self.store.deliveries(task_id) if one.due_at is not None and one.tries == 0]
        records = _Records(self.store)

        def deliver(delivery: Delivery) -> None:
            if self.store.failing_since(delivery.owner, delivery.endpoint_id) is not None:
                return
            after = self._attempt(delivery, records, seconds_left, failing=False)
            while after is not None and after.due_at is not None:
                wait_s = (after.due_at - self.clock()).total_seconds()
                if wait_s > WAITED_RETRY_S or seconds_left() < wait_s + ATTEMPT_NEEDS_S:
                    return
                self.sleep(max(0.0, wait_s))
                after = self._attempt(after, records, seconds_left, failing=True)

        self._all([partial(deliver, one) for one in fresh])

    def deliver_due(self, keys: Sequence[tuple[str, str]], seconds_left: Callable[[], float]) -> None:
        """Sends due deliveries of one endpoint, a few side by side, and stops at the first that fails."""
        records = _Records(self.store)
        for start in range(0, len(keys), SIDE_BY_SIDE):
            found = [self.store.delivery(pk, sk) for pk, sk in keys[start : start + SIDE_BY_SIDE]]
            batch = [one for one in found if one is not None and one.due_at is not None]
            if not batch:
                continue
            failing = self.store.failing_since(batch[0].owner, batch[0].endpoint_id) is not None
            after = self._all([partial(self._attempt, one, records, seconds_left, failing=failing) for one in batch])
            if any(one is not None and one.state is not DeliveryState.DELIVERED for one in after):
                return

    def _all(self, jobs: Sequence[Callable[[], T]]) -> list[T | None]:
        def guarded(job: Callable[[], T]) -> Callable[[], T | None]:
            def run() -> T | None:
                try:
                    return job()
                except Exception:  # the claim runs out and counts as a failed try; the others go on
                    logger.exception("delivery broke")
                    return None

            return run

        return self.side_by_side([guarded(job) for job in jobs])

    def _attempt(
        self, delivery: Delivery, records: _Records, seconds_left: Callable[[], float], *, failing: bool
    ) -> Delivery | None:
        """One attempt under a claim; the delivery after it, or None where none was made."""
        if seconds_left() < ATTEMPT_NEEDS_S:
            return None
        secrets = self.secrets(delivery.owner)  # before the claim, which counts a try
        held = self._claimed_delivery(delivery)
        if held is None:
            return None
        task, request = records.of(held.task_id)
        if task is None or request is None:
            self.store.finish_delivery(held, replace(held, state=DeliveryState.EXHAUSTED, token=None, due_at=None))
            return None
        body = webhooks.event_body(task, request, held.event)
        message_id = webhooks.message_id(held.task_id, held.event)
        at = self.clock()
        headers = webhooks.signed_headers(secrets, message_id, at, body)
        answer = self.poster.post(held.url, headers, body, DELIVERY_TIMEOUT_S)
        after = judge(held, answer, self.clock(), self.random())
        self.store.put_attempt(_record(held, answer, at, after), held.ttl)
        self.store.finish_delivery(held, after)
        self._note_health(after, answer, failing=failing)
        if after.state is not DeliveryState.DELIVERED:
            logger.warning(
                "webhook not delivered",
                extra={
                    "task_id": held.task_id,
                    "event": held.event,
                    "endpoint_id": held.endpoint_id,
                    "state": after.state.value,
                    "status": answer.status,
                    "error": answer.error,
                },
            )
        return after

    def _claimed_delivery(self, delivery: Delivery) -> Delivery | None:
        if delivery.due_at is None:
            return None
        now, factor = self.clock(), self.random()
        verdict = judge_claim(
            due_at=delivery.due_at,
            tries=delivery.tries,
            claimed=delivery.token is not None,
            policy=WEBHOOK_RETRIES,
            now=now,
            random_factor=factor,
        )
        if isinstance(verdict, Wait):
            return None
        after = delivery
        if delivery.token is not None:
            # Its holder died: nobody knows what the receiver saw. It counts as a failed try.
            after = replace(retry(delivery, delivery.due_at, factor), last_error=INTERRUPTED)
            answer = Answer(status=None, error=INTERRUPTED)
            self.store.put_attempt(_record(delivery, answer, delivery.due_at, after), delivery.ttl)
        if isinstance(verdict, Take):
            until = None if verdict.keeps_due else now + timedelta(seconds=CLAIM_S)
            return self.store.claim_delivery(delivery, self.new_token(), until)
        self.store.finish_delivery(delivery, after)
        if after.state is DeliveryState.EXHAUSTED:
            self.count("DeliveryExhausted", 1)
        return None

    def _note_health(self, after: Delivery, answer: Answer, *, failing: bool) -> None:
        if after.state is DeliveryState.EXHAUSTED:
            self.count("DeliveryExhausted", 1)
        if answer.refused:
            return  # it says nothing about a receiver
        if after.state is DeliveryState.DELIVERED:
            if failing:
                self.store.set_failing(after.owner, after.endpoint_id, None)
        elif not failing:
            self.store.set_failing(after.owner, after.endpoint_id, self.clock())


class _Records:
    """Tasks and requests as they are needed, each read once an invocation."""

    def __init__(self, store: DeliveryStore) -> None:
        self._store = store
        self._found: dict[str, tuple[Task | None, Request | None]] = {}

    def of(self, task_id: str) -> tuple[Task | None, Request | None]:
        """A task and its request, as far as they are there."""
        if task_id not in self._found:
            self._found[task_id] = (self._store.task(task_id), self._store.request(task_id))
        return self._found[task_id]


def _record(delivery: Delivery, answer: Answer, at: datetime, after: Delivery) -> Attempt:
    return Attempt(
        task_id=delivery.task_id,
        event=delivery.event,
        endpoint_id=delivery.endpoint_id,
        at=at,
        number=delivery.tries,
        status=answer.status,
        error=answer.error,
        detail=answer.detail,
        body=answer.body,
        duration_ms=answer.duration_ms,
        manual=False,
        next_at=after.due_at,
    )
