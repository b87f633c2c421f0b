"""The use case of delivering webhooks: each event to each endpoint, until it has been heard.

Every attempt is made under a claim and recorded; a claim that runs out counts as a failed attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

from aws_lambda_powertools import Logger

from renderbell import webhooks
from renderbell.delivery import (
    BUS,
    ENDPOINT_GONE,
    ENDPOINT_OFF,
    INTERNAL,
    INTERRUPTED,
    MAX_ANSWER_KEPT,
    TASK_GONE,
    TEST_EVENT,
    Answer,
    Attempt,
    Delivery,
    DeliveryState,
    EndpointHealth,
    ReceiverHealth,
    ReceiverState,
    after_answer,
    answer_of,
    as_recorded,
    interrupted,
    judge,
    receiver_after,
    unwanted,
)
from renderbell.endpoints import GONE, Endpoint, SigningKey, hidden_in, is_managed
from renderbell.redaction import redacted
from renderbell.schedule import CLAIM_S, WEBHOOK_RETRIES, Take, Wait, judge_claim
from renderbell.seats import Seats
from renderbell.store import UnreadableItemError, Way, endpoint_of
from renderbell.task import Request, Task

DELIVERY_TIMEOUT_S = 15.0
ATTEMPT_NEEDS_S = DELIVERY_TIMEOUT_S + 10.0  # no attempt begins with less of the invocation left
WAITED_RETRY_S = 10.0  # a retry this near is waited for in the same invocation
SIDE_BY_SIDE = 5  # how many deliveries of one receiver the poller's invocation sends at once
SEAT_TRIES = 5  # at an item that others write at the same time
SENDING_S = 60.0  # how long it goes on with them while the answers are good
FORESEEN_FOR = timedelta(seconds=5)  # what may have changed meanwhile may as well change on a webhook's way
COUNTS_KEPT = timedelta(days=9)  # an endpoint shows those of its last seven days

_TELLING = len(webhooks.SECRET_PREFIX)  # the prefix of secrets says nothing

T = TypeVar("T")

logger = Logger()


class DeliveryStore(Protocol):
    """What is used of the store."""

    def task(self, task_id: str) -> Task | None: ...
    def request(self, task_id: str) -> Request | None: ...
    def ways(self, owner: str, places: Collection[tuple[str, str]]) -> Mapping[str, Way]: ...
    def deliveries(self, task_id: str) -> tuple[Delivery, ...]: ...
    def delivery(self, pk: str, sk: str) -> Delivery | None: ...
    def claim_delivery(self, seen: Delivery, token: str, until: datetime | None) -> Delivery | None: ...
    def finish_delivery(self, held: Delivery, after: Delivery) -> bool: ...
    def put_attempt(self, attempt: Attempt, ttl: int | None) -> None: ...
    def remove_attempt(self, attempt: Attempt) -> None: ...
    def attempts_of(self, delivery: Delivery) -> tuple[Attempt, ...]: ...
    def endpoint(self, owner: str, endpoint_id: str) -> Endpoint | None: ...
    def change_endpoint(self, before: Endpoint, after: Endpoint) -> Endpoint | None: ...
    def signing(self, owner: str) -> SigningKey: ...
    def count_attempt(self, owner: str, endpoint_id: str, day: date, *, delivered: bool, ttl: int) -> None: ...
    def endpoint_health(self, owner: str, endpoint_id: str) -> EndpointHealth: ...
    def failing_endpoints(self, owner: str, endpoint_ids: Collection[str]) -> set[str]: ...
    def note_endpoint_health(
        self, owner: str, endpoint_id: str, seen: EndpointHealth, after: EndpointHealth, token: str
    ) -> bool: ...
    def receiver_health(self, owner: str, receiver: str) -> ReceiverHealth: ...
    def note_receiver_health(
        self, owner: str, receiver: str, seen: ReceiverHealth, after: ReceiverHealth, *, now: datetime, token: str
    ) -> bool: ...
    def seats(self, owner: str) -> Seats: ...
    def change_seats(self, owner: str, seen: Seats, after: Seats, now: datetime) -> bool: ...


class Poster(Protocol):
    """Whatever can post a webhook; it never raises for what the network or the receiver does."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float = DELIVERY_TIMEOUT_S) -> Answer:
        """One attempt."""


class SideBySide(Protocol):
    """Runs jobs at the same time and answers what each returned."""

    def __call__(self, jobs: Sequence[Callable[[], T]]) -> list[T]: ...


class _Way(NamedTuple):
    """How an endpoint is reached just now.

    `managed` is what its owner has set, unless it is a URL given inline; `missing` means that it was removed. Where
    `signing` is None, nothing could be read: an attempt is a fault of ours.
    """

    signing: SigningKey | None = None
    managed: Endpoint | None = None
    missing: bool = False

    def end_of(self, delivery: Delivery) -> Delivery | None:
        """The end of a delivery that nobody wants to have any more."""
        if self.missing:
            return unwanted(delivery, DeliveryState.GONE, ENDPOINT_GONE)
        if self.managed is not None and self.managed.disabled:
            return unwanted(delivery, DeliveryState.DISABLED, ENDPOINT_OFF)
        return None

    def leads(self, delivery: Delivery) -> Delivery:
        """The delivery with the URL that its endpoint has now."""
        if self.managed is None or self.managed.url == delivery.url:
            return delivery
        return replace(delivery, url=self.managed.url, receiver=webhooks.receiver_of(self.managed.url))


class _Health(NamedTuple):
    """What is known of where a delivery goes: of its endpoint, and of the receiver behind that."""

    endpoint: EndpointHealth
    receiver: ReceiverHealth
    way: _Way


class Foreseen(NamedTuple):
    """What the deliveries of a task's next event will need, as it stood when it was read.

    `healths` tells by endpoint of those that were given inline; those that owners manage may change at any time.
    """

    request: Request
    read_at: datetime
    healths: Mapping[str, _Health]


class Made(NamedTuple):
    """A task as it has just been written, with the deliveries made in the same transaction."""

    task: Task
    deliveries: Sequence[Delivery]
    foreseen: Foreseen | None = None


class _Tried(NamedTuple):
    """What one attempt made of a delivery; `began` means that it is the one that found its receiver in trouble."""

    after: Delivery
    answer: Answer
    began: bool

    @property
    def stops(self) -> bool:
        """Whether the endpoint's other deliveries have to wait: its receiver did not take this one."""
        return self.answer.tells_of_receiver and not self.answer.delivered

    @property
    def waits(self) -> bool:
        """Whether a near retry may be waited for; where others failed before, it is the poller's."""
        return self.began or not self.answer.tells_of_receiver


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Deliverer:
    """What an invocation needs to deliver."""

    store: DeliveryStore
    poster: Poster
    secrets: Callable[[SigningKey, datetime], Sequence[str]]
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]
    side_by_side: SideBySide
    random: Callable[[], float]
    new_token: Callable[[], str]
    count: Callable[[str, float], None]

    def deliver_fresh(self, task_id: str, seconds_left: Callable[[], float]) -> None:
        """Sends a task's new deliveries side by side; those to a failing endpoint or a slow receiver are left to the
        poller."""
        fresh = [one for one in self.store.deliveries(task_id) if one.due_at is not None and one.tries == 0]
        self._deliver_fresh(fresh, _Records(self.store), {}, seconds_left)

    def foresee(self, task: Task, event: str) -> Foreseen | None:
        """Reads what a task's deliveries of an event will need, while something else is done; None: it is to be read
        when they are there."""
        try:
            request = self.store.request(task.task_id)
            if request is None:
                return None
            now = self.clock()
            inline = webhooks.deliveries_for(task, request, event, now)
            healths = self._healths(task.owner, inline) if inline else {}
        except Exception:
            logger.exception("deliveries not foreseen", extra={"task_id": task.task_id})
            return None
        return Foreseen(request, now, healths)

    def deliver_made(self, made: Made, seconds_left: Callable[[], float]) -> None:
        """Sends the deliveries that were just made, as `deliver_fresh` does, and reads nothing that is known."""
        foreseen, healths = made.foreseen, {}
        if foreseen is not None and self.clock() - foreseen.read_at <= FORESEEN_FOR:
            healths = dict(foreseen.healths)
        records = _Records(self.store)
        if foreseen is not None:
            records.know(made.task, foreseen.request)
        self._deliver_fresh(made.deliveries, records, healths, seconds_left)

    def _deliver_fresh(
        self,
        fresh: Sequence[Delivery],
        records: _Records,
        healths: Mapping[str, _Health],
        seconds_left: Callable[[], float],
    ) -> None:
        def deliver(delivery: Delivery) -> None:
            health = healths.get(delivery.endpoint_id) or self._health(delivery)
            if health.endpoint.failing or health.receiver.is_slow_at(delivery.endpoint_id):
                return
            tried = self._attempt(delivery, health, records, seconds_left)
            while tried is not None and tried.after.due_at is not None and tried.waits:
                wait_s = (tried.after.due_at - self.clock()).total_seconds()
                if wait_s > WAITED_RETRY_S or seconds_left() < wait_s + ATTEMPT_NEEDS_S:
                    return
                self.sleep(max(0.0, wait_s))
                tried = self._attempt(tried.after, self._health(delivery), records, seconds_left)

        self._all([partial(deliver, one) for one in fresh])

    def deliver_due(self, keys: Sequence[tuple[str, str]], seconds_left: Callable[[], float]) -> None:
        """Sends due deliveries of one receiver, a few side by side.

        Endpoints that are known to fail come last. An endpoint's others are left out once one of its has failed, and
        all that are left where those sent together met with silence alone. One that may have ended the process
        that sent it last is sent alone, after those that were read with it. What may hang needs one of its owner's few
        seats; where none is free, it is left for another turn.
        """
        seat = _Seat(self)
        try:
            self._deliver_due(self._failing_last(keys), seat, seconds_left)
        finally:
            seat.leave()

    def _deliver_due(self, keys: Sequence[tuple[str, str]], seat: _Seat, seconds_left: Callable[[], float]) -> None:
        records = _Records(self.store)
        ends_at = self.clock() + timedelta(seconds=SENDING_S)
        failing: set[str] = set()
        left = (key for key in keys if endpoint_of(key[1]) not in failing)  # as is known when it is their turn
        while batch := list(islice(left, SIDE_BY_SIDE)):
            if self.clock() >= ends_at or seconds_left() < ATTEMPT_NEEDS_S:
                return
            found = self._read(batch)
            together = [one for one in found if not _is_suspect(one)]
            for group in (together, *([one] for one in found if _is_suspect(one))):
                tried = self._send(group, failing, seat, records, seconds_left)
                answers = [one.answer for one in tried if one.answer.tells_of_receiver]
                if answers and all(answer.is_silence for answer in answers):
                    return
                failing.update(one.after.endpoint_id for one in tried if one.stops)

    def _failing_last(self, keys: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
        """The same keys, those of failing endpoints after all others; as they are where one batch has them all.

        Five that hang would else fill the first batch at each turn, and end the invocation before a good one's.
        """
        endpoints = {endpoint_id for _, sk in keys if (endpoint_id := endpoint_of(sk)) is not None}
        if len(endpoints) <= SIDE_BY_SIDE:
            return keys
        try:
            owner = self._owner(keys)
            failing = set() if owner is None else self.store.failing_endpoints(owner, endpoints)
        except Exception:  # they are only less well sorted
            logger.exception("endpoints' health not read")
            return keys
        return sorted(keys, key=lambda key: endpoint_of(key[1]) in failing)

    def _owner(self, keys: Sequence[tuple[str, str]]) -> str | None:
        """Whose deliveries these are, as the first of them says that is there and can be read."""
        for pk, sk in keys:
            try:
                one = self.store.delivery(pk, sk)
            except UnreadableItemError:  # told of when it is its turn
                continue
            if one is not None:
                return one.owner
        return None

    def _send(
        self,
        group: Sequence[Delivery],
        failing: set[str],
        seat: _Seat,
        records: _Records,
        seconds_left: Callable[[], float],
    ) -> list[_Tried]:
        """Attempts side by side, but to endpoints that fail; one reading of each health serves them all."""
        sent = [one for one in group if one.endpoint_id not in failing]
        receivers = dict.fromkeys((one.owner, one.receiver) for one in sent)
        of_receivers = {receiver: self.store.receiver_health(*receiver) for receiver in receivers}
        may_hang = [one for one in sent if of_receivers[one.owner, one.receiver].is_slow_at(one.endpoint_id)]
        if may_hang and not seat.taken_for(may_hang[0]):
            failing.update(one.endpoint_id for one in may_hang)
            sent = [one for one in sent if one not in may_hang]
        endpoints = dict.fromkeys((one.owner, one.endpoint_id) for one in sent)
        healths = {endpoint: self.store.endpoint_health(*endpoint) for endpoint in endpoints}
        ways = {endpoint: self._way(*endpoint) for endpoint in endpoints}

        def attempt(one: Delivery) -> _Tried | None:
            endpoint = one.owner, one.endpoint_id
            health = _Health(healths[endpoint], of_receivers[one.owner, one.receiver], ways[endpoint])
            return self._attempt(one, health, records, seconds_left)

        return [tried for tried in self._all([partial(attempt, one) for one in sent]) if tried is not None]

    def _read(self, keys: Sequence[tuple[str, str]]) -> list[Delivery]:
        """Those of the named deliveries that are still to be made; one that cannot be read stops no other."""
        found = []
        for pk, sk in keys:
            try:
                one = self.store.delivery(pk, sk)
            except UnreadableItemError:
                logger.exception("delivery cannot be read", extra={"pk": pk, "sk": sk})
                self.count("UnreadableDelivery", 1)
                continue
            if one is not None and one.due_at is not None:
                found.append(one)
        return found

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
        self, delivery: Delivery, health: _Health, records: _Records, seconds_left: Callable[[], float]
    ) -> _Tried | None:
        """One attempt under a claim, and what came of it; None where none was made."""
        if seconds_left() < ATTEMPT_NEEDS_S:
            return None
        way, at = health.way, self.clock()
        secrets = [] if way.signing is None else self.secrets(way.signing, at)  # before the claim, which counts a try
        held = self._claimed_delivery(delivery, health)
        if held is None:
            return None
        end = way.end_of(held)
        if end is not None:
            self.store.finish_delivery(held, end)
            logger.info("webhook not wanted", extra={"task_id": held.task_id, "endpoint_id": held.endpoint_id})
            return None
        sent = way.leads(held)
        at = self.clock()
        answer = self._post(sent, records, secrets, way, at)
        if answer is None:
            self.store.finish_delivery(held, unwanted(held, DeliveryState.EXHAUSTED, TASK_GONE))
            return None
        now = self.clock()
        # Before the judgement: the health that was seen may be another's past, and a retry is given up for what stands.
        noted = self._note_health(held, answer, health.endpoint, now)
        began = self._note_receiver(sent, answer, health.receiver if sent.receiver == held.receiver else None, now)
        disabled = after_answer(health.endpoint, answer, now).disabled and (noted or self._is_disabled(held))
        after = judge(sent, answer, now, self.random(), disabled=disabled)
        attempt = _record(held, answer, at, after)
        self._keep(attempt, held.ttl)
        if way.managed is not None:
            self._note_answer(way.managed, answer, now)
        if not answer.delivered:
            _tell(after, answer)
        if not self._finish(held, after):
            self._withdraw(attempt)
        return _Tried(after, answer, began)

    def _post(
        self, held: Delivery, records: _Records, secrets: Sequence[str], way: _Way, at: datetime
    ) -> Answer | None:
        """The receiver's answer, fit to be kept; an error of ours is an answer too. None: the task is gone."""
        if way.signing is None:
            return Answer(None, INTERNAL, "internal error: the endpoint could not be read")
        own = {} if way.managed is None else way.managed.headers
        hidden = [*secrets, *hidden_in(own)]
        try:
            body = records.body_of(held)
            if body is None:
                return None
            headers = webhooks.signed_headers(secrets, webhooks.message_id(held.task_id, held.event), at, body)
            answer = self.poster.post(held.url, {**own, **headers}, body, DELIVERY_TIMEOUT_S)
        except Exception as error:  # a delivery that breaks us goes by its schedule like any other, and shows why
            logger.exception("attempt broke", extra={"task_id": held.task_id, "endpoint_id": held.endpoint_id})
            return Answer(None, INTERNAL, f"internal error: {type(error).__name__}")
        detail = None if answer.detail is None else _kept(answer.detail, hidden)
        return replace(answer, detail=detail, body=_kept(answer.body, hidden))

    def _claimed_delivery(self, delivery: Delivery, health: _Health) -> Delivery | None:
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
        after, interruption = delivery, None
        if delivery.token is not None:
            recorded = self._recorded(delivery)
            if recorded is not None:
                after = as_recorded(delivery, recorded)
                if not self._finish(delivery, after):
                    return None
                self._note_health(after, answer_of(recorded), health.endpoint, now)
                self._note_receiver(after, answer_of(recorded), health.receiver, now)
                return self._claimed_delivery(after, health)
            after = interrupted(delivery, delivery.due_at, factor)
            interruption = _record(delivery, Answer(None, INTERRUPTED), delivery.due_at, after)
            self._keep(interruption, delivery.ttl)
        held = None
        if isinstance(verdict, Take) and after.due_at is not None:  # a manual attempt that died may have been the last
            until = None if verdict.keeps_due else now + timedelta(seconds=CLAIM_S)
            held = self.store.claim_delivery(delivery, self.new_token(), until)
            stands = held is not None
        else:
            stands = self._finish(delivery, after)
        if interruption is not None and not stands:
            self._withdraw(interruption)
        return held

    def _recorded(self, delivery: Delivery) -> Attempt | None:
        """The attempt of a claim that ran out, if its process died only after it had recorded it."""
        found = [one for one in self.store.attempts_of(delivery) if one.number == delivery.tries]
        begun = delivery.reopened_at  # those before have the same numbers
        return next((one for one in found if begun is None or one.at >= begun), None)

    def _keep(self, attempt: Attempt, ttl: int | None) -> None:
        """Records an attempt; where that cannot be done, what became of the delivery is still worth writing."""
        try:
            self.store.put_attempt(attempt, ttl)
        except Exception:
            logger.exception("attempt not recorded", extra={"task_id": attempt.task_id, "event": attempt.event})

    def _withdraw(self, attempt: Attempt) -> None:
        """Removes the record of an attempt whose task was deleted meanwhile, and may have been cleaned up before it."""
        if attempt.event == TEST_EVENT:  # which is of no task
            return
        try:
            task = self.store.task(attempt.task_id)
            if task is None or task.deleted:
                self.store.remove_attempt(attempt)
        except Exception:  # it is forgotten with its time
            logger.exception("attempt not withdrawn", extra={"task_id": attempt.task_id})

    def _finish(self, held: Delivery, after: Delivery) -> bool:
        """Ends a claim; whether it still was the one that stood there."""
        if not self.store.finish_delivery(held, after):
            return False
        if after.state in {DeliveryState.EXHAUSTED, DeliveryState.DISABLED} and not held.had_ended:
            logger.error(
                "webhook given up",
                extra={
                    "task_id": after.task_id,
                    "event": after.event,
                    "endpoint_id": after.endpoint_id,
                    "state": after.state.value,
                },
            )
            self.count("DeliveryExhausted", 1)
        return True

    def _note_health(self, of: Delivery, answer: Answer, seen: EndpointHealth, now: datetime) -> bool:
        """Keeps what an answer makes of its endpoint's health; whether anything was written.

        Of several who note at once, one does: the others' words add nothing, or come a moment too late. The bus has no
        health: it is the operator's own, and its retries are never given up for its past.
        """
        if of.endpoint_id == BUS:
            return False
        health = after_answer(seen, answer, now)
        endpoint = of.owner, of.endpoint_id
        try:
            if health == seen or not self.store.note_endpoint_health(*endpoint, seen, health, self.new_token()):
                return False
        except Exception:  # the next attempt notes it; that this one failed still stops those after it
            logger.exception("endpoint's health not kept", extra={"endpoint_id": of.endpoint_id})
            return False
        if health.disabled:
            logger.error(
                "endpoint disabled",
                extra={"owner": of.owner, "endpoint_id": of.endpoint_id, "task_id": of.task_id},
            )
            self.count("EndpointDisabled", 1)
        return True

    def _note_receiver(self, of: Delivery, answer: Answer, seen: ReceiverHealth | None, now: datetime) -> bool:
        """Keeps what an answer says of its receiver, where that is something new; whether it was in no trouble before.

        What was `seen` of it is read where it is not known. Who comes second says his word once more, to what the
        first has written: a second endpoint's is something new.
        """
        try:
            for second in (False, True):
                before = self.store.receiver_health(of.owner, of.receiver) if second or seen is None else seen
                after = receiver_after(before, of.endpoint_id, answer)
                if after == before:
                    return False
                token = self.new_token()
                if self.store.note_receiver_health(of.owner, of.receiver, before, after, now=now, token=token):
                    return before.state in {ReceiverState.WELL, ReceiverState.LATE}
        except Exception:  # the next attempt notes it
            logger.exception("receiver's health not kept", extra={"endpoint_id": of.endpoint_id})
        return False

    def _note_answer(self, endpoint: Endpoint, answer: Answer, now: datetime) -> None:
        """Counts an attempt at an endpoint that its owner manages; one that answers 410 is switched off."""
        if answer.error == INTERNAL:
            return
        try:
            self.store.count_attempt(
                endpoint.owner,
                endpoint.endpoint_id,
                now.date(),
                delivered=answer.delivered,
                ttl=int((now + COUNTS_KEPT).timestamp()),
            )
            if answer.status == 410:  # where it was changed meanwhile, the next attempt is another question
                self.store.change_endpoint(endpoint, endpoint.switched_off(GONE, now))
        except Exception:  # it is only less well known
            logger.exception("answer not counted", extra={"endpoint_id": endpoint.endpoint_id})

    def _healths(self, owner: str, deliveries: Sequence[Delivery]) -> dict[str, _Health]:
        ways = self.store.ways(owner, [(one.endpoint_id, one.receiver) for one in deliveries])
        return {
            endpoint_id: _Health(
                way.endpoint, way.receiver, _Way(way.signing, way.managed, missing=way.signing is None)
            )
            for endpoint_id, way in ways.items()
        }

    def _health(self, delivery: Delivery) -> _Health:
        """What is known of where a delivery goes; what cannot be read together is read one by one."""
        try:
            return self._healths(delivery.owner, [delivery])[delivery.endpoint_id]
        except Exception:
            logger.exception("way not read at once", extra={"endpoint_id": delivery.endpoint_id})
        return _Health(
            self.store.endpoint_health(delivery.owner, delivery.endpoint_id),
            self.store.receiver_health(delivery.owner, delivery.receiver),
            self._way(delivery.owner, delivery.endpoint_id),
        )

    def _way(self, owner: str, endpoint_id: str) -> _Way:
        """How an endpoint is reached now; where that cannot be read, the attempt goes by the schedule."""
        try:
            if not is_managed(endpoint_id):
                return _Way(self.store.signing(owner))
            found = self.store.endpoint(owner, endpoint_id)
        except Exception:
            logger.exception("endpoint not read", extra={"owner": owner, "endpoint_id": endpoint_id})
            return _Way()
        return _Way(missing=True) if found is None else _Way(found.signing, found)

    def _is_disabled(self, delivery: Delivery) -> bool:
        """Whether a delivery's endpoint is disabled now; where that cannot be read, it gets its retry."""
        try:
            return self.store.endpoint_health(delivery.owner, delivery.endpoint_id).disabled
        except Exception:
            logger.exception("endpoint's health not read", extra={"endpoint_id": delivery.endpoint_id})
            return False


class _Seat:
    """The seat of an invocation among its owner's slow receivers, asked for when it is needed."""

    def __init__(self, deliverer: Deliverer) -> None:
        self._p = deliverer
        self._token = ""
        self._owner: str | None = None
        self._has = False

    def taken_for(self, one: Delivery) -> bool:
        """Whether there is a seat for the delivery's receiver; where nobody knows, there is."""
        if self._owner is None:
            self._owner, self._token = one.owner, self._p.new_token()
            try:
                self._has = self._asked(one.owner, one.receiver)
            except Exception:
                logger.exception("seats not read", extra={"owner": one.owner})
                self._has = True
        return self._has

    def leave(self) -> None:
        """Leaves the seat to another."""
        if self._owner is None or not self._has:
            return
        try:
            for _ in range(SEAT_TRIES):
                seen = self._p.store.seats(self._owner)
                if self._p.store.change_seats(self._owner, seen, seen.left(self._token), self._p.clock()):
                    return
        except Exception:  # it is free when its time is over
            logger.exception("seat not left", extra={"owner": self._owner})

    def _asked(self, owner: str, receiver: str) -> bool:
        for _ in range(SEAT_TRIES):
            now, seen = self._p.clock(), self._p.store.seats(owner)
            after, has = seen.asked(receiver, self._token, now)
            if self._p.store.change_seats(owner, seen, after, now):
                return has
        return False


class _Records:
    """Tasks and requests as they are needed, each read once an invocation."""

    def __init__(self, store: DeliveryStore) -> None:
        self._store = store
        self._found: dict[str, tuple[Task | None, Request | None]] = {}

    def body_of(self, delivery: Delivery) -> bytes | None:
        """What a delivery says; None: its task is gone."""
        if delivery.event == TEST_EVENT:
            return webhooks.test_body(delivery)
        task, request = self.of(delivery.task_id)
        return None if task is None or request is None else webhooks.event_body(task, request, delivery.event)

    def know(self, task: Task, request: Request) -> None:
        """Takes over what is known as it is written."""
        self._found[task.task_id] = task, request

    def of(self, task_id: str) -> tuple[Task | None, Request | None]:
        """A task and its request, as far as they are there."""
        if task_id not in self._found:
            self._found[task_id] = (self._store.task(task_id), self._store.request(task_id))
        return self._found[task_id]


def _is_suspect(delivery: Delivery) -> bool:
    """Whether the process that sent it last has died, perhaps of it."""
    return delivery.token is not None or delivery.last_error == INTERRUPTED


def _kept(text: str, secrets: Sequence[str]) -> str:
    """The first 1 KiB of a receiver's words, without secrets that it may have repeated, nor the beginning of one."""
    for secret in secrets:
        cut = next((n for n in range(len(secret) - 1, _TELLING, -1) if text.endswith(secret[:n])), 0)
        text = text[: len(text) - cut]
    try:
        return redacted(text, secrets).encode("utf-8", "replace")[:MAX_ANSWER_KEPT].decode("utf-8", "ignore")
    except Exception:  # the answer counts, whatever can be made of its words
        logger.exception("words not kept")
        return ""


def _tell(after: Delivery, answer: Answer) -> None:
    logger.warning(
        "webhook not delivered",
        extra={
            "task_id": after.task_id,
            "event": after.event,
            "endpoint_id": after.endpoint_id,
            "state": after.state.value,
            "status": answer.status,
            "error": answer.error,
        },
    )


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
        manual=delivery.manual,
        next_at=after.due_at,
        owner=delivery.owner,
    )
