"""Events on their way to an EventBridge bus: what is put there, and what its answers mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, ReadTimeoutError

from renderbell.bus import BusOrWeb, EventBus
from renderbell.delivery import BUS, BUS_URL, REFUSED, Answer, DeliveryState
from renderbell.schedule import WEBHOOK_RETRIES
from renderbell.task import Status
from tests.deployment import Deployment, processing, succeeded
from tests.fakes import captured_log

HOOK = "https://example.com/hook"
BODY = (
    '{"type":"task.completed","timestamp":"2026-11-22T08:00:00.500Z","data":{"task_id":"tsk_1","metadata":{"n":"é"}}}'
)


class FakeEvents:
    """Notes what is put on buses, and answers as it is told."""

    def __init__(self, answer: Mapping[str, Any] | Exception | None = None) -> None:
        self.answer = answer or {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}
        self.put: list[dict[str, Any]] = []

    def put_events(self, *, Entries: Sequence[Any]) -> Mapping[str, Any]:  # noqa: N803 - AWS's name
        self.put += Entries
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Web:
    def __init__(self) -> None:
        self.posted: list[str] = []

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Answer:
        self.posted.append(url)
        return Answer(204)


def put(events: FakeEvents) -> Answer:
    times = iter([10.0, 10.25])
    return EventBus(client=lambda: events, name="studio", clock=lambda: next(times)).put(BODY.encode())


def client_error(code: str) -> ClientError:
    message = "User: arn:aws:sts::123456789012:assumed-role/x is not authorized"
    return ClientError({"Error": {"Code": code, "Message": message}}, "PutEvents")


def failed_entry(code: str) -> Mapping[str, Any]:
    return {"FailedEntryCount": 1, "Entries": [{"ErrorCode": code, "ErrorMessage": "arn:aws:iam::123456789012:role/x"}]}


def test_an_event_is_the_webhooks_type_time_and_data() -> None:
    events = FakeEvents()
    assert put(events) == Answer(200, duration_ms=250)
    (entry,) = events.put
    assert json.loads(entry.pop("Detail")) == json.loads(BODY)["data"]
    assert entry == {
        "EventBusName": "studio",
        "Source": "renderbell",
        "DetailType": "task.completed",
        "Time": datetime(2026, 11, 22, 8, 0, 0, 500_000, tzinfo=UTC),
        "Resources": [],
    }


@pytest.mark.parametrize(
    ("trouble", "word"),
    [
        (client_error("ThrottlingException"), "bus_throttled"),
        (client_error("ResourceNotFoundException"), "bus_not_found"),
        (client_error("AccessDeniedException"), "bus_refused"),
        (client_error("InternalException"), "bus_unavailable"),
        (failed_entry("ThrottlingException"), "bus_throttled"),
        (failed_entry("NotAuthorizedForSourceException"), "bus_refused"),
        (failed_entry("InternalFailure"), "bus_unavailable"),
        ({"FailedEntryCount": 1, "Entries": [{}]}, "bus_unavailable"),
        (ReadTimeoutError(endpoint_url="https://events.test"), "timeout"),
        (EndpointConnectionError(endpoint_url="https://events.test"), "bus_unavailable"),
        (BotoCoreError(), "bus_unavailable"),
    ],
)
def test_whatever_prevents_an_event_is_a_failed_attempt_with_a_word(
    trouble: Mapping[str, Any] | Exception, word: str
) -> None:
    with captured_log() as lines:
        answer = put(FakeEvents(trouble))
    assert (answer.status, answer.error, answer.refused, answer.delivered) == (None, word, False, False)
    assert answer.duration_ms == 250
    assert "123456789012" not in str(answer), "an owner is told no account and no role"
    assert word == "timeout" or lines, "the operator is told all"


def test_the_url_says_whether_it_is_the_bus_or_the_web() -> None:
    events, web = FakeEvents(), Web()
    both = BusOrWeb(web, EventBus(client=lambda: events, name="studio", clock=lambda: 0.0))
    assert both.post(HOOK, {}, BODY.encode()).status == 204
    assert both.post(BUS_URL, {}, BODY.encode()).status == 200
    assert (web.posted, len(events.put)) == ([HOOK], 1)


def test_a_bus_that_is_turned_off_by_now_ends_the_delivery() -> None:
    answer = BusOrWeb(Web(), None).post(BUS_URL, {}, BODY.encode())
    assert (answer.error, answer.refused) == (REFUSED, True)


# -- in a whole deployment, in virtual time ----------------------------------------------------------------------------


def told(world: Deployment, task_id: str, url: str) -> list[str]:
    return [one.data["type"] for one in world.messages(task_id) if one.url == url]


def a_world() -> Deployment:
    world = Deployment()
    world.tells_bus = True
    world.tick_every_minute(until_s=600)
    return world


@pytest.mark.parametrize("webhooks", [[], [HOOK]])
def test_the_bus_hears_of_every_event_whether_there_are_webhooks_or_not(webhooks: list[str]) -> None:
    world = a_world()
    task_id = world.register(processing(), succeeded(30), webhooks=webhooks)
    world.run(60)
    assert told(world, task_id, BUS_URL) == ["task.processing", "task.completed"]
    assert told(world, task_id, HOOK) == ["task.completed"] * len(webhooks)
    deliveries = [one for one in world.store.deliveries(task_id) if one.endpoint_id == BUS]
    assert [(one.event, one.receiver, one.state) for one in deliveries] == [
        ("task.completed", BUS, DeliveryState.DELIVERED),
        ("task.processing", BUS, DeliveryState.DELIVERED),
    ]
    bodies = {one.body for one in world.messages(task_id) if one.data["type"] == "task.completed"}
    assert len(bodies) == 1, "the same words for all"


def test_a_cancelled_task_is_told_to_the_bus() -> None:
    world = a_world()
    task_id = world.register(processing())
    world.cancel(task_id, at_s=20)
    world.run(30)
    assert told(world, task_id, BUS_URL) == ["task.processing", "task.cancelled"]


def test_without_a_bus_nothing_is_told() -> None:
    world = Deployment()
    world.tick_every_minute(until_s=600)
    task_id = world.register(processing(), succeeded(30))
    world.run(60)
    assert world.task(task_id).status is Status.COMPLETED
    assert world.store.deliveries(task_id) == ()


def test_a_bus_that_fails_is_tried_again_on_the_schedule_and_keeps_no_webhook_waiting() -> None:
    world = a_world()
    trouble = Answer(None, "bus_throttled")
    world.receivers.answers[BUS_URL] = [trouble, trouble, Answer(200)]
    task_id = world.register(succeeded(), webhooks=[HOOK])
    world.run(420)
    at_s = [one.at_s for one in world.messages(task_id) if one.url == BUS_URL]
    assert len(at_s) == 3
    assert at_s[1] - at_s[0] == pytest.approx(WEBHOOK_RETRIES.delays_s[0], abs=3)
    assert at_s[2] - at_s[1] == pytest.approx(WEBHOOK_RETRIES.delays_s[1], abs=65)
    (heard,) = [one.at_s for one in world.messages(task_id) if one.url == HOOK]
    assert heard < 10
    attempts = [one for one in world.store.attempts(task_id) if one.endpoint_id == BUS]
    assert [(one.number, one.error) for one in attempts] == [(1, "bus_throttled"), (2, "bus_throttled"), (3, None)]


def test_a_bus_that_fails_for_a_week_is_never_disabled() -> None:
    world = Deployment()
    world.tells_bus = True
    world.tick_every_minute(until_s=120)
    world.receivers.answers[BUS_URL] = [Answer(None, "bus_not_found")]
    day = 86_400
    task_ids = [world.register(succeeded(), at_s=n * day) for n in range(7)]
    for n in range(7):
        for minute in range(10):
            world.tick_at(n * day + 5 + minute * 60)
    world.run(7 * day)
    last = [one for one in world.store.attempts(task_ids[-1]) if one.endpoint_id == BUS]
    assert len(last) >= 3, "its retries go on"
    assert world.counts["EndpointDisabled"] == 0
    assert not world.store.endpoint_health("default", BUS).failing
