"""The sender to EventBridge against a bus: a rule in the account hears what the webhook would say."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import uuid4

import pytest

from local.emulator import Emulator
from renderbell.bus import EventBus

pytestmark = pytest.mark.emulator

BODY = {
    "type": "task.completed",
    "timestamp": "2026-11-22T08:00:00.000Z",
    "data": {"task_id": "tsk_1", "status": "COMPLETED", "metadata": {"name": "Zoë 数学"}, "videos": []},
}
PATIENCE_S = 20


class Account:
    """A bus, and a rule on the source `renderbell` that leads into a queue."""

    def __init__(self, emulator: Emulator) -> None:
        session = emulator.session()
        self.events = session.client("events", endpoint_url=emulator.url)
        self.sqs = session.client("sqs", endpoint_url=emulator.url)
        self.name = f"bus-{uuid4().hex[:8]}"
        self.arn = self.events.create_event_bus(Name=self.name)["EventBusArn"]
        self.queue = self.sqs.create_queue(QueueName=self.name)["QueueUrl"]
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])["Attributes"]
        pattern = json.dumps({"source": ["renderbell"], "detail-type": ["task.completed"]})
        self.events.put_rule(Name="all", EventBusName=self.name, EventPattern=pattern)
        targets = [{"Id": "queue", "Arn": attributes["QueueArn"]}]
        self.events.put_targets(Rule="all", EventBusName=self.name, Targets=targets)

    def heard(self) -> list[dict[str, Any]]:
        """What the queue holds, when anything has come; it waits for that."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            found = self.sqs.receive_message(QueueUrl=self.queue, WaitTimeSeconds=1, MaxNumberOfMessages=10)
            if found.get("Messages"):
                return [json.loads(one["Body"]) for one in found["Messages"]]
        return []


def bus(account: Account, name: str) -> EventBus:
    return EventBus(client=lambda: account.events, name=name, clock=time.monotonic)


@pytest.fixture(scope="module")
def account(emulator: Emulator) -> Account:
    return Account(emulator)


@pytest.mark.parametrize("by", ["name", "arn"])
def test_a_rule_on_our_source_hears_the_webhooks_data(account: Account, by: str) -> None:
    other = {**BODY, "type": "task.failed"}
    assert bus(account, getattr(account, by)).put(json.dumps(other).encode()).delivered, "which the rule leaves out"
    answer = bus(account, getattr(account, by)).put(json.dumps(BODY, ensure_ascii=False).encode())
    assert (answer.status, answer.error) == (200, None)
    (event,) = account.heard()
    assert event["source"] == "renderbell"
    assert event["detail-type"] == BODY["type"]
    assert event["detail"] == BODY["data"]
    # Its `time` is the emulator's own; AWS takes ours, which the unit tests look at.
