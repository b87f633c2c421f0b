"""The receiver: what it accepts, remembers, and can be told to do."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import requests
from standardwebhooks import Webhook

from local.receiver import Receiver
from tests.unit.local.simulated import FakeClock

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
OTHER = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = json.dumps({"type": "task.completed", "timestamp": "2026-03-01T12:00:00Z", "data": {"task_id": "tsk_1"}})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def receiver(clock: FakeClock) -> Iterator[Receiver]:
    with Receiver(secret=SECRET, sleep=clock.sleep) as running:
        yield running


def send(
    receiver: Receiver,
    path: str = "/hooks",
    *,
    secret: str = SECRET,
    body: str = BODY,
    webhook_id: str = "evt_1",
    at: datetime | None = None,
) -> requests.Response:
    moment = at or datetime.now(UTC)
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(webhook_id, moment, body),
        "content-type": "application/json",
    }
    return requests.post(receiver.url + path, data=body.encode(), headers=headers, timeout=10)


def test_a_good_webhook_is_accepted_and_remembered(receiver: Receiver) -> None:
    assert send(receiver).status_code == 204
    [one] = receiver.received(task_id="tsk_1")
    assert (one.type, one.webhook_id, one.verified, one.attempts) == ("task.completed", "evt_1", True, 1)
    assert one.body_sha == hashlib.sha256(BODY.encode()).hexdigest()
    assert one.headers["webhook-id"] == "evt_1"
    assert one.answers == [204]


def test_a_bad_signature_is_refused_and_remembered_as_such(receiver: Receiver) -> None:
    assert send(receiver, secret=OTHER).status_code == 401
    [one] = receiver.received()
    assert (one.verified, one.answers) == (False, [401])


def test_an_old_webhook_is_refused(receiver: Receiver) -> None:
    assert send(receiver, at=datetime.now(UTC) - timedelta(minutes=6)).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"webhook-id": "evt_1", "webhook-timestamp": "soon", "webhook-signature": "v1,x"},
        {"webhook-id": "evt_1", "webhook-timestamp": "1", "webhook-signature": "nonsense"},
        {"webhook-id": "evt_1", "webhook-timestamp": "9" * 30, "webhook-signature": "v1,%"},
    ],
)
def test_malformed_headers_are_refused(receiver: Receiver, headers: dict[str, str]) -> None:
    answer = requests.post(receiver.url + "/hooks", data=BODY, headers=headers, timeout=10)
    assert answer.status_code == 401


def test_a_body_that_is_no_json_is_remembered_without_a_task(receiver: Receiver) -> None:
    send(receiver, body="not JSON")
    [one] = receiver.received()
    assert (one.type, one.task_id) == (None, None)


def test_retries_of_one_webhook_are_one_entry_with_their_number(receiver: Receiver) -> None:
    receiver.order("/hooks", fail=2, status=503, retry_after=1)
    answers = [send(receiver) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 204]
    assert answers[0].headers["retry-after"] == "1"
    [one] = receiver.received()
    assert (one.attempts, one.answers, one.verified) == (3, [503, 503, 204], True)


def test_retries_with_other_bytes_count_as_not_verified(receiver: Receiver) -> None:
    send(receiver)
    send(receiver, body=BODY.replace("tsk_1", "tsk_2"))
    [one] = receiver.received()
    assert not one.verified


def test_one_path_can_fail_for_good_while_the_others_are_well(receiver: Receiver) -> None:
    receiver.order("/dead", always=True)
    receiver.order("/gone", always=True, status=410)
    assert [send(receiver, path).status_code for path in ("/dead", "/dead", "/gone", "/well")] == [500, 500, 410, 204]
    receiver.order("/dead")
    assert send(receiver, "/dead").status_code == 204


def test_a_path_can_be_slow(receiver: Receiver, clock: FakeClock) -> None:
    receiver.order("/slow", delay_s=20)
    assert send(receiver, "/slow").status_code == 204
    assert clock.slept == [20]


def test_a_path_can_have_a_secret_of_its_own(receiver: Receiver) -> None:
    receiver.order("/endpoint", secret=OTHER)
    assert send(receiver, "/endpoint", secret=OTHER).status_code == 204
    assert send(receiver, "/endpoint", secret=SECRET, webhook_id="evt_2").status_code == 401


def test_the_secret_is_fetched_when_needed_and_again_after_a_rotation() -> None:
    secrets = [SECRET, OTHER]
    with Receiver(secret_source=lambda: secrets.pop(0)) as receiver:
        assert send(receiver).status_code == 204
        assert send(receiver, webhook_id="evt_2").status_code == 204
        assert send(receiver, webhook_id="evt_3", secret=OTHER).status_code == 204
    assert secrets == []


def test_without_a_secret_nothing_is_verified() -> None:
    with Receiver() as receiver:
        assert send(receiver).status_code == 401


def test_what_came_can_be_asked_for_over_http(receiver: Receiver) -> None:
    send(receiver)
    send(receiver, webhook_id="evt_2", body=BODY.replace("tsk_1", "tsk_2"))
    seen = requests.get(f"{receiver.url}/_received", params={"task_id": "tsk_2"}, timeout=10).json()["webhooks"]
    assert [one["webhook_id"] for one in seen] == ["evt_2"]
    assert seen[0]["verified"] is True
    assert len(requests.get(f"{receiver.url}/_received", timeout=10).json()["webhooks"]) == 2


def test_orders_can_be_given_over_http(receiver: Receiver) -> None:
    order = {"path": "/hooks", "fail": 1, "status": 410}
    assert requests.post(f"{receiver.url}/_control", json=order, timeout=10).status_code == 204
    assert [send(receiver).status_code for _ in range(2)] == [410, 204]
    assert requests.post(f"{receiver.url}/_control", json={"fial": 1}, timeout=10).status_code == 422


def test_webhooks_come_by_post_only(receiver: Receiver) -> None:
    assert requests.get(f"{receiver.url}/hooks", timeout=10).status_code == 405
