"""The main job again, while the emulator enforces the functions' own roles: nothing they need is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from local.emulator import Emulator
from local.gateway import Gateway
from local.house import House
from local.providers.lifecycle import ProviderType
from local.providers.server import Simulators
from local.receiver import Receiver
from local.stack import TEMPLATE, allow_what_the_emulator_misjudges, deploy
from renderbell.deliver import SIDE_BY_SIDE
from renderbell.lengths import WEIGHT
from tests.e2e.client import Client
from tests.e2e.conftest import POLL_INTERVAL_S, first_of_its_kind

pytestmark = pytest.mark.e2e

BUS = "renders"
ADAPTIVE = "adaptive"  # a connection whose polls follow from how long its tasks take


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a stack whose emulator checks every call of its functions against their roles."""
    first_of_its_kind("guarded stack", tmp_path_factory)
    with (
        Emulator(tmp_path_factory.mktemp("guarded"), enforce_iam=True) as emulator,
        Simulators() as simulators,
        Receiver() as receiver,
        Gateway(TEMPLATE) as gateway,
    ):
        connections = simulators.connections(poll_interval_s=POLL_INTERVAL_S)
        by_type = {one["type"]: one for one in simulators.connections(poll_interval_s=None)}
        connections.append({**by_type["moneyprinterturbo"], "name": ADAPTIVE})
        bus = emulator.session().client("events", endpoint_url=emulator.url).create_event_bus(Name=BUS)
        parameters = {"EventBusName": bus["EventBusArn"]}  # the emulator takes a name for an ARN, too
        stack = deploy(emulator.url, gateway, connections=connections, parameters=parameters)
        allow_what_the_emulator_misjudges(stack)
        receiver.use_api(stack.api_url, stack.api_key)
        yield Client(House(emulator, simulators, receiver, stack))


@pytest.fixture(scope="module", autouse=True)
def cancelled_copy(guarded: Client) -> str:
    """A task that was cancelled while its video was copied; its clean-up is due a minute later, beside other tests."""
    task = guarded.start("jimmy", seconds=1, size_bytes=400_000, file_trouble=[{"bytes_per_s": 40_000}])
    task_id: str = task["task_id"]
    guarded.until(lambda: guarded.task(task_id)["status"] == "COPYING", "the copy")
    assert guarded.call("POST", f"/tasks/{task_id}/cancel").status_code == 200
    assert _item(guarded, f"TASK#{task_id}", "TASK")["step"] == {"S": "clean"}
    return task_id


@pytest.fixture(scope="module", autouse=True)
def deleted(guarded: Client) -> dict[str, Any]:
    """A task that was deleted after an attempt to tell of it has failed; it is removed a minute later."""
    guarded.house.receiver.order("/hooks/deleted", fail=99, status=503)
    task = guarded.start("jimmy", seconds=1, size_bytes=100_000, asked={"webhook_url": guarded.hook("deleted")})
    guarded.ended(task["task_id"])
    guarded.until(lambda: any(sk.startswith("ATTEMPT#") for sk in guarded.remains(task)), "the attempt")
    refused = guarded.call("DELETE", f"/tasks/{task['task_id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "delivery_pending")
    assert guarded.call("DELETE", f"/tasks/{task['task_id']}?force=true").status_code == 202
    left = guarded.remains(task)
    assert not any(one.startswith("DELIVERY#") and not one.endswith("#bus") for one in left)
    assert f"default/{task['task_id']}/1.mp4" in left
    return task


@pytest.fixture(scope="module", autouse=True)
def learned_from(guarded: Client) -> dict[str, Any]:
    """A task by which the poller learns how long tasks take; it writes that down when its tick ends."""
    return guarded.start("moneyprinterturbo", connection=ADAPTIVE, seconds=3, size_bytes=100_000)


def test_the_roles_allow_the_main_job(guarded: Client) -> None:
    tasks = [guarded.start(kind.value, seconds=3, size_bytes=100_000) for kind in ProviderType]
    large = guarded.start("moneyprinterturbo", seconds=1, size_bytes=34 * 1024 * 1024)
    for task in [*tasks, large]:
        assert guarded.ended(task["task_id"])["status"] == "COMPLETED"
        guarded.told(task["task_id"], "task.completed")
    shown = guarded.call("GET", f"/tasks/{large['task_id']}/videos/1?redirect=false")
    assert shown.status_code == 200


def test_the_roles_allow_failing_cancelling_and_cleaning_up(guarded: Client) -> None:
    failing = guarded.start("jimmy", seconds=1, outcome="fail")
    assert guarded.ended(failing["task_id"])["status"] == "FAILED"
    guarded.told(failing["task_id"], "task.failed")
    running = guarded.start("jimmy", seconds=600)
    assert guarded.call("POST", f"/tasks/{running['task_id']}/cancel").status_code == 200
    guarded.told(running["task_id"], "task.cancelled")


def test_an_event_bus_of_the_account_hears_what_webhooks_are_told(guarded: Client) -> None:
    stack = guarded.house.stack
    events = stack.session().client("events", endpoint_url=stack.aws_endpoint_url)
    sqs = stack.session().client("sqs", endpoint_url=stack.aws_endpoint_url)
    queue = sqs.create_queue(QueueName="of-the-rule")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    metadata = {"order": "数学 4711"}
    pattern = {
        "source": ["renderbell"],
        "detail-type": ["task.completed"],
        "detail": {"owner": ["default"], "metadata": {"order": [metadata["order"]]}},
    }
    events.put_rule(Name="ours", EventBusName=BUS, EventPattern=json.dumps(pattern))
    events.put_targets(Rule="ours", EventBusName=BUS, Targets=[{"Id": "queue", "Arn": arn}])
    task = guarded.start("jimmy", seconds=0, size_bytes=100_000, asked={"metadata": metadata})
    quiet = guarded.start("jimmy", seconds=0, size_bytes=100_000, asked={"webhook_url": None, "metadata": metadata})
    heard: dict[str, Any] = {}

    def both() -> bool:
        found = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1, MaxNumberOfMessages=10)
        for message in found.get("Messages", []):
            event = json.loads(message["Body"])
            heard[event["detail"]["task_id"]] = event
        return heard.keys() == {task["task_id"], quiet["task_id"]}

    guarded.until(both, "the events of both tasks")
    event = heard[task["task_id"]]
    assert (event["source"], event["detail-type"]) == ("renderbell", "task.completed")
    told = json.loads(guarded.told(task["task_id"], "task.completed").body)
    assert event["detail"] == told["data"]
    for one, endpoints in ((task, 2), (quiet, 1)):
        shown = guarded.settled(one["task_id"])["deliveries"]
        assert len(shown) == endpoints
        (bus,) = [delivery for delivery in shown if delivery["endpoint_id"] == "bus"]
        assert (bus["state"], bus["event"], bus["tries"]) == ("delivered", "task.completed", 1)
        attempts = guarded.call("GET", f"/tasks/{one['task_id']}/attempts").json()["attempts"]
        (attempt,) = [attempt for attempt in attempts if attempt["endpoint_id"] == "bus"]
        assert (attempt["status"], attempt["error"], attempt["manual"]) == (200, None, False)


def test_the_notifier_may_read_the_healths_of_many_endpoints(guarded: Client) -> None:
    names = [f"many-{number}" for number in range(SIDE_BY_SIDE + 3)]
    for name in names:
        guarded.house.receiver.order(f"/hooks/{name}", fail=1, status=503)
    hooks = {"webhook_url": None, "webhooks": [{"url": guarded.hook(name)} for name in names]}
    task = guarded.start("jimmy", seconds=1, outcome="fail", asked=hooks)

    def heard() -> bool:
        found = guarded.house.receiver.received(task_id=task["task_id"])
        return sum(204 in one.answers for one in found) == len(names)

    guarded.until(heard, "the second attempt at each")
    lines = guarded.logged("NotifierFunctionLogs")
    assert any(task["task_id"] in line for line in lines)
    assert not any("endpoints' health not read" in line for line in lines)


def test_the_poller_may_keep_a_connections_back_off(guarded: Client) -> None:
    guarded.start("mingyan", seconds=14, trouble=[{"from_s": 0, "to_s": 12, "status": 500}])

    def back_off() -> bool:
        return "retry_at" in _item(guarded, "CONNECTION#mingyan", "HEALTH")

    assert guarded.until(back_off, "the back-off's record")
    assert guarded.until(lambda: not back_off(), "the end of the back-off")


def test_the_poller_may_keep_and_read_how_long_tasks_take(guarded: Client, learned_from: dict[str, Any]) -> None:
    """What cannot be read is not learned either, so that each weight that is kept was read before."""

    def lengths() -> int:
        weights = _item(guarded, f"CONNECTION#{ADAPTIVE}", "LENGTHS#0").get("weights", {"M": {}})["M"]
        return sum(int(weight["N"]) for weight in weights.values()) // WEIGHT

    assert guarded.ended(learned_from["task_id"])["status"] == "COMPLETED"
    guarded.until(lambda: lengths() == 1, "the first task's length")
    following = guarded.start("moneyprinterturbo", connection=ADAPTIVE, seconds=3, size_bytes=100_000)
    assert guarded.ended(following["task_id"])["status"] == "COMPLETED"
    guarded.until(lambda: lengths() == 2, "the next task's length beside it")
    lines = guarded.logged("PollerFunctionLogs")
    assert any("tick done" in line for line in lines)
    assert not any("lengths not read" in line or "lengths not kept" in line for line in lines)


def test_the_notifier_may_clean_up_what_a_cancelled_copy_has_left(guarded: Client, cancelled_copy: str) -> None:
    def cleaned_up() -> bool:
        return "step" not in _item(guarded, f"TASK#{cancelled_copy}", "TASK")

    guarded.until(cleaned_up, "the clean-up")
    s3 = guarded.house.stack.session().client("s3", endpoint_url=guarded.house.stack.aws_endpoint_url)
    listed = s3.list_objects_v2(Bucket=guarded.house.stack.bucket, Prefix=f"default/{cancelled_copy}/")
    assert listed["KeyCount"] == 0


def test_the_notifier_may_remove_a_deleted_task(guarded: Client, deleted: dict[str, Any]) -> None:
    assert guarded.until(lambda: guarded.remains(deleted) == [], "the removal")


def _item(client: Client, pk: str, sk: str) -> dict[str, Any]:
    stack = client.house.stack
    dynamodb = stack.session().client("dynamodb", endpoint_url=stack.aws_endpoint_url)
    found = dynamodb.get_item(TableName=stack.table, Key={"pk": {"S": pk}, "sk": {"S": sk}}, ConsistentRead=True)
    return dict(found.get("Item", {}))


def test_a_role_that_lacks_an_action_is_refused(guarded: Client) -> None:
    """The control: without it, an emulator that enforced nothing would pass the tests above."""
    stack = guarded.house.stack
    session = stack.session()
    name = guarded.physical_name("NotifierFunctionRole")
    iam = session.client("iam", endpoint_url=stack.aws_endpoint_url)
    kept: dict[str, Any] = {
        one: iam.get_role_policy(RoleName=name, PolicyName=one)["PolicyDocument"]
        for one in iam.list_role_policies(RoleName=name)["PolicyNames"]
    }
    for one, document in kept.items():
        statements = [statement for statement in document["Statement"] if "s3:PutObject" not in _actions(statement)]
        less = json.dumps({**document, "Statement": statements})
        iam.put_role_policy(RoleName=name, PolicyName=one, PolicyDocument=less)
    try:
        task = guarded.start("jimmy", seconds=1, size_bytes=100_000)
        seen = guarded.until(lambda: guarded.task(task["task_id"])["last_poll_error"], "the refusal")
        assert "AccessDenied" in seen["message"]
    finally:
        for one, document in kept.items():
            iam.put_role_policy(RoleName=name, PolicyName=one, PolicyDocument=json.dumps(document))


def _actions(statement: dict[str, Any]) -> list[str]:
    actions: str | list[str] = statement["Action"]
    return [actions] if isinstance(actions, str) else actions
