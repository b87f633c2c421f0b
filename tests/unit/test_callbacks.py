"""Calls that providers make themselves, through the handler: which are believed, and what they bring about."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from standardwebhooks import Webhook

from renderbell.api.handler import MAX_BODY_BYTES
from renderbell.callbacks import MAX_WATCHERS
from renderbell.errors import ConfigurationError
from renderbell.store import Lease, Served
from renderbell.task import HINT_EVERY_S, Hint, Status, Step, Streak, StreakKind
from tests.fakes import START, captured_log
from tests.http_api import Answer, World, sample

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WRONG_SECRET = "whsec_" + base64.b64encode(b"w" * 32).decode()
KEY = "the key of the provider"
BODY = '{"task_id": "job-7"}'


class Called(World):
    """The API, with connections whose providers call back."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.connect("studio", "default", "other", callback_secret=SECRET)
        self.connect("silent", "default")
        self.connect("scenext", "default", type="scenext", api_key=KEY)

    def hear(
        self, body: str = BODY, *, connection: str = "studio", headers: Mapping[str, str] | None = None, **more: Any
    ) -> Answer:
        """The provider's call, signed unless it brings headers of its own."""
        event = sample("callback")
        event["headers"] = {name: value for name, value in event["headers"].items() if "webhook" not in name}
        event["headers"] |= signed(body, self.clock()) if headers is None else headers
        path = f"/callbacks/{connection}"
        event["requestContext"]["path"] = f"/prod{path}"
        return self.send(event | {"body": body, "path": path, "pathParameters": {"connection": connection}} | more)

    def everything(self) -> str:
        """The whole table, byte for byte."""
        return json.dumps(sorted(self.table.items(), key=json.dumps), sort_keys=True, default=repr)


def signed(body: str, at: datetime, secret: str = SECRET) -> dict[str, str]:
    """The headers of a call in the standard form, by the independent package."""
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(at.timestamp())),
        "Webhook-Signature": Webhook(secret).sign("msg_1", at, body),
    }


def signed_by_scenext(payload: Mapping[str, object], key: str = KEY) -> dict[str, str]:
    text = json.dumps(payload, sort_keys=True)
    return {"X-Signature": hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()}


@pytest.fixture
def world() -> Called:
    return Called()


def test_the_sample_call_is_believed() -> None:
    answer = Called().send(sample("callback"))
    assert (answer.status, answer.json) == (202, {"accepted": True})


def test_a_believed_call_makes_its_task_due_now_and_wakes_the_poller(world: Called) -> None:
    task_id = world.registered()
    world.clock.pass_s(100)
    world.invoker.invoked.clear()
    assert world.hear().status == 202
    task = world.task(task_id)
    assert task.due_at == START + timedelta(seconds=100)
    assert task.hint == Hint(START + timedelta(seconds=100), 1)
    assert (task.status, task.version) == (Status.QUEUED, 2)
    assert world.invoker.invoked == [("poller", {"worker": 0, "task_id": task_id})]


def test_every_owner_who_watches_the_render_is_served(world: Called) -> None:
    mine = world.registered()
    theirs = world.register(owner="other").json["task_id"]
    other_render = world.registered(provider_task_id="job-8")
    world.connect("second", "default", callback_secret=SECRET)
    other_connection = world.registered(connection="second")
    world.clock.pass_s(60)
    assert world.hear().status == 202
    assert all(world.task(task_id).hint is not None for task_id in (mine, theirs))
    assert all(world.task(task_id).hint is None for task_id in (other_render, other_connection))


def test_scenexts_own_form_is_believed(world: Called) -> None:
    task_id = world.registered(connection="scenext")
    payload = {"task_id": "job-7", "status": "COMPLETED", "result": "数学", "timestamp": int(START.timestamp())}
    sent = json.dumps(payload, ensure_ascii=False)
    assert world.hear(sent, connection="scenext", headers=signed_by_scenext(payload)).status == 202
    assert world.task(task_id).hint is not None


def test_a_call_that_arrives_in_base64_is_the_same_call(world: Called) -> None:
    task_id = world.registered()
    in_base64 = base64.b64encode(BODY.encode()).decode()
    headers = signed(BODY, world.clock())
    assert world.hear(body=in_base64, headers=headers, isBase64Encoded=True).status == 202
    assert world.task(task_id).hint is not None


# -- who is refused ---------------------------------------------------------------------------------------------------

REFUSED: list[dict[str, Any]] = [
    {"headers": {}},
    {"headers": signed(BODY, START, WRONG_SECRET)},
    {"headers": signed('{"task_id": "job-8"}', START)},
    {"headers": signed(BODY, START - timedelta(seconds=301))},
    {"headers": signed(BODY, START + timedelta(seconds=301))},
    {"headers": signed_by_scenext({"task_id": "job-7"}, "hush")},
    {"headers": {"X-Signature": "0" * 64}, "connection": "scenext"},
    {"headers": {"Webhook-Signature": "\ud800", "X-Signature": "\ud800"}},
    {"connection": "silent"},
    {"connection": "nobody"},
    {"connection": "Studio"},
    {"connection": "x" * 300},
    {"connection": "nobody", "body": "no JSON"},
    {"connection": "studio", "body": "no JSON", "headers": {}},
    {"connection": "studio", "body": "", "headers": {}},
]


@pytest.mark.parametrize("wrong", REFUSED)
def test_whatever_is_wrong_the_answer_is_the_same_and_nothing_changes(world: Called, wrong: dict[str, Any]) -> None:
    for name in ("studio", "silent", "scenext"):
        world.registered(connection=name)
    before, woken = world.everything(), list(world.invoker.invoked)
    answer = world.hear(**wrong)
    usual = world.hear(connection="nobody", headers={})
    assert (answer.status, answer.text, answer.headers) == (usual.status, usual.text, usual.headers)
    assert answer.problem(401, "unauthorized")["detail"] == "the signature is missing, wrong or too old"
    assert world.everything() == before
    assert world.invoker.invoked == woken
    assert world.hear().status == 202, "the right one is believed"
    assert world.everything() != before


def test_a_call_that_is_too_large_is_not_read(world: Called) -> None:
    world.registered()
    before = world.everything()
    large = json.dumps({"task_id": "job-7", "more": "x" * MAX_BODY_BYTES})
    world.hear(large).problem(413, "body_too_large")
    assert world.everything() == before


def test_connections_that_cannot_be_read_are_our_trouble_whatever_the_call_is(world: Called) -> None:
    def unreadable(name: str) -> None:
        raise ConfigurationError("connections cannot be read")

    world.connections.known = unreadable  # type: ignore[method-assign]
    for name in ("studio", "nobody"):
        world.hear(connection=name).problem(500, "internal_error")


def test_neither_signatures_nor_secrets_nor_bodies_are_logged_or_answered(world: Called) -> None:
    world.registered(connection="scenext")
    payload = {"task_id": "job-7", "private": "words of the provider", "timestamp": int(START.timestamp())}
    with captured_log() as lines:
        answers = [
            world.hear(),
            world.hear(headers=signed(BODY, START, WRONG_SECRET)),
            world.hear(connection="rbk_pasted-by-mistake"),
            world.hear(json.dumps(payload), connection="scenext", headers=signed_by_scenext(payload)),
        ]
    told = json.dumps(lines) + "".join(str(answer) for answer in answers)
    secrets = [SECRET, WRONG_SECRET, KEY, "rbk_pasted", "words of the provider", *signed_by_scenext(payload).values()]
    secrets += [headers["Webhook-Signature"] for headers in (signed(BODY, START), signed(BODY, START, WRONG_SECRET))]
    assert not [secret for secret in secrets if secret in told]
    assert [line["message"] for line in lines if line["message"] != "request"] == [
        *("callback taken", "callback refused", "callback refused", "callback taken")
    ]


# -- what it brings about ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ['{"task_id": "another"}', '{"say": "nothing"}', "[]", "words"])
def test_a_believed_call_about_nothing_that_is_watched_changes_nothing(world: Called, body: str) -> None:
    world.registered()
    before = world.everything()
    assert world.hear(body).status == 202
    assert world.everything() == before


@pytest.mark.parametrize("status", [Status.COPYING, Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_a_task_past_polling_is_left_as_it_is(world: Called, status: Status) -> None:
    task_id = world.registered()
    step = Step.COPY if status is Status.COPYING else None
    world.change(task_id, status=status, step=step, due_at=START if step else None)
    before = world.everything()
    assert world.hear().status == 202
    assert world.everything() == before


def test_a_task_whose_marker_is_still_there_though_it_is_past_polling_is_left_as_it_is(world: Called) -> None:
    task_id = world.registered()
    marker = next(item for item in world.table.items() if item["pk"]["S"].startswith("ONGOING#"))
    world.change(task_id, status=Status.COPYING, step=Step.COPY)
    world.table.put_item(TableName="table", Item=marker)
    before = world.everything()
    assert world.hear().status == 202
    assert world.everything() == before


@pytest.mark.parametrize(
    ("kind", "heeded"),
    [
        (StreakKind.NOT_FOUND, True),
        (StreakKind.REJECTED, True),
        (StreakKind.NO_FILE, False),
        (StreakKind.APART, False),
    ],
)
def test_a_hint_brings_no_end_nearer_that_a_count_of_polls_decides(
    world: Called, kind: StreakKind, heeded: bool
) -> None:
    task_id = world.registered()
    world.change(task_id, streak=Streak(kind, 1, START), due_at=START + timedelta(seconds=60))
    world.clock.pass_s(10)
    assert world.hear().status == 202
    assert (world.task(task_id).due_at == world.clock()) is heeded


def test_a_flood_of_calls_writes_once_in_five_seconds_and_loses_no_last_word(world: Called) -> None:
    task_id = world.registered()
    world.invoker.invoked.clear()
    versions = []
    for _ in range(200):
        assert world.hear().status == 202
        world.clock.pass_s(0.1)
        versions.append(world.task(task_id).version)
    assert versions[-1] - 1 <= 20 / HINT_EVERY_S + 1
    assert len(world.invoker.invoked) <= 20 / HINT_EVERY_S + 1
    hint = world.task(task_id).hint
    assert hint is not None
    assert hint.at >= world.clock(), "the last call is followed by a poll too, though not at once"


def test_who_loses_a_race_gives_the_hint_to_what_the_winner_wrote(world: Called) -> None:
    task_id = world.registered()
    world.client.before["update_item"] = lambda: world.change(task_id, progress=40)
    assert world.hear().status == 202
    task = world.task(task_id)
    assert (task.progress, task.hint) == (40, Hint(START, 1))


def test_a_poller_that_runs_is_not_woken(world: Called) -> None:
    world.registered()
    world.invoker.invoked.clear()
    lease = Lease(0, "h", START + timedelta(seconds=45), relief=False, served=Served(), workers=1, slots=16)
    world.store.take_lease(lease, seen=None)
    assert world.hear().status == 202
    assert world.invoker.invoked == []


def test_a_poller_that_cannot_be_woken_is_no_reason_to_refuse_a_call(world: Called) -> None:
    task_id = world.registered()
    world.invoker.trouble = RuntimeError("no Lambda")
    assert world.hear().status == 202
    assert world.task(task_id).hint is not None


def test_one_task_that_cannot_be_read_keeps_the_other_owners_from_nothing(world: Called) -> None:
    broken, sound = world.registered(), world.register(owner="other").json["task_id"]
    key = {"pk": {"S": f"TASK#{broken}"}, "sk": {"S": "TASK"}}
    world.table.put_item(TableName="table", Item={**key, "status": {"S": "NONSENSE"}})
    assert world.hear().status == 202
    assert world.task(sound).hint is not None


def test_trouble_of_ours_is_told_so_that_the_provider_may_call_again(world: Called) -> None:
    world.registered()

    def trouble() -> None:
        raise ClientError({"Error": {"Code": "InternalServerError", "Message": "trouble"}}, "UpdateItem")

    world.client.before["update_item"] = trouble
    world.hear().problem(500, "internal_error")
    assert world.hear().status == 202


def test_a_render_with_very_many_owners_costs_a_bounded_number_of_writes(world: Called) -> None:
    world.connect("studio", "*", callback_secret=SECRET)
    task_id = world.registered()
    task, request = world.task(task_id), world.request(task_id)
    for n in range(MAX_WATCHERS + 20):
        owner, other_id = f"owner-{n}", f"tsk_{10_000 + n:026d}"
        world.store.register(
            replace(task, owner=owner, task_id=other_id), replace(request, owner=owner, task_id=other_id)
        )
    assert world.hear().status == 202
    assert sum("hint" in item for item in world.table.items()) == MAX_WATCHERS
