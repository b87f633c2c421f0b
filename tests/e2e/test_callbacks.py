"""Providers that call back: a poll interval of five minutes, and the end is known within seconds."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from standardwebhooks import Webhook

from renderbell.schedule import PollSchedule, next_moment
from tests.e2e.client import Client
from tests.e2e.conftest import CALLBACK_SECRET, CALLING, CALLING_S, CALLING_SCENEXT

pytestmark = pytest.mark.e2e


RENDER_S = 75.0  # a minute's tick is within it
QUIET_S = 240.0  # after its registration; what follows the render's end takes seconds
HEARD_S = 120.0  # a lost wake-up costs a minute; even so the next poll of its own is still to come
MOST_TRIES = 60  # of which one in five is such a task


class Called:
    """A render that was asked for just after its registration, and is done by now.

    A new task is asked for again by the next poller that comes, in a minute at most: the last one cannot be sure that
    it has seen all there was. When it is due after that follows from its id, so tasks are registered until one is not
    due for long.
    """

    def __init__(self, client: Client, provider: str, connection: str) -> None:
        self.client, self.connection = client, connection
        self.team = client.of("ends")
        self.task = next(task for task in self._registered(provider) if _quiet_s(task) > QUIET_S)

    def _registered(self, provider: str) -> Iterator[dict[str, Any]]:
        for _ in range(MOST_TRIES):
            yield self.team.start(
                provider,
                connection=self.connection,
                seconds=RENDER_S,
                from_first_poll=True,
                asked={"webhook_url": None},
            )

    def wait(self) -> None:
        """Until the render is done; nobody has asked since, nor will for minutes."""
        began = self.client.until(lambda: self.client.polled_at(self.task), "the first poll")[0]
        done = began + RENDER_S + 0.1
        self.client.until(lambda: datetime.now(UTC).timestamp() > done, "the render's end")
        assert max(self.client.polled_at(self.task)) < done

    def call(self, body: str, headers: Mapping[str, str]) -> requests.Response:
        """The provider's call, which has no key."""
        with requests.Session() as http:
            http.trust_env = False
            url = f"{self.client.house.stack.api_url}/callbacks/{self.connection}"
            return http.post(url, data=body, headers={"content-type": "application/json", **headers}, timeout=30)

    def items(self) -> list[dict[str, Any]]:
        """The task as it is stored."""
        stack = self.client.house.stack
        dynamodb = stack.session().client("dynamodb", endpoint_url=stack.aws_endpoint_url)
        found = dynamodb.query(
            TableName=stack.table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"TASK#{self.task['task_id']}"}},
            ConsistentRead=True,
        )
        return [dict(item) for item in found["Items"]]


def _quiet_s(task: dict[str, Any]) -> float:
    """How long after its registration a task is asked for again."""
    created_at = datetime.fromisoformat(task["created_at"])
    after = next_moment(PollSchedule(CALLING_S), created_at, task["task_id"], created_at + timedelta(seconds=1))
    return (after - created_at).total_seconds()


@pytest.fixture(scope="module")
def jimmy(client: Client) -> Called:
    return Called(client, "jimmy", CALLING)


@pytest.fixture(scope="module")
def scenext(client: Client, jimmy: Called) -> Called:
    return Called(client, "scenext", CALLING_SCENEXT)


def _standard(body: str, at: datetime, secret: str = CALLBACK_SECRET) -> dict[str, str]:
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, body),
    }


def _of_scenext(payload: Mapping[str, object], key: str) -> dict[str, str]:
    text = json.dumps(payload, sort_keys=True)
    return {"X-Signature": hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()}


def test_a_signed_call_ends_a_task_that_would_be_polled_in_minutes(jimmy: Called, scenext: Called) -> None:
    jimmy.wait()
    body = json.dumps({"type": "render.done", "data": {"task_id": jimmy.task["provider_task_id"]}})
    before, now = jimmy.items(), datetime.now(UTC)
    forged = _standard(body, now, "whsec_" + "d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmc=")
    for headers in ({}, forged, _standard(body + " ", now), _standard(body, now - timedelta(seconds=400))):
        refused = jimmy.call(body, headers)
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert jimmy.items() == before
    taken = jimmy.call(body, _standard(body, datetime.now(UTC)))
    assert (taken.status_code, taken.json()) == (202, {"accepted": True})
    assert jimmy.team.ended(jimmy.task["task_id"], limit_s=HEARD_S)["status"] == "COMPLETED"


def test_scenexts_own_call_does_the_same(scenext: Called) -> None:
    scenext.wait()
    payload = {
        "task_id": scenext.task["provider_task_id"],
        "status": "COMPLETED",
        "title": "数学",
        "timestamp": int(datetime.now(UTC).timestamp()),
    }
    body, before = json.dumps(payload, ensure_ascii=False), scenext.items()
    assert scenext.call(body, {}).status_code == 401
    assert scenext.call(body, _of_scenext(payload, "another-key")).status_code == 401
    assert scenext.items() == before
    assert scenext.call(body, _of_scenext(payload, "sim-scenext-key")).status_code == 202
    assert scenext.team.ended(scenext.task["task_id"], limit_s=HEARD_S)["status"] == "COMPLETED"


def test_a_call_for_a_connection_that_is_not_there_is_refused_alike(jimmy: Called) -> None:
    answers = []
    for connection in (CALLING, "nobodys"):
        url = f"{jimmy.client.house.stack.api_url}/callbacks/{connection}"
        with requests.Session() as http:
            http.trust_env = False
            answers.append(http.post(url, data="{}", timeout=30))
    assert [one.status_code for one in answers] == [401, 401]
    assert answers[0].json() == answers[1].json()
