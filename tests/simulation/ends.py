"""What must hold once nothing is due any more, whatever happened before."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import pairwise

from renderbell.delivery import BUS_URL, EVENT_OF_STATUS, Delivery, DeliveryState
from renderbell.items import parse_time
from renderbell.register import Registered
from renderbell.task import TRANSITIONS, FileKind, Status, Task
from renderbell.webhooks import message_id
from tests.deployment import OWNER
from tests.universe import Universe

TRIES = 10


def assert_all_ended_well(
    world: Universe, *, dead: Collection[str] = (), gone: Collection[str] = (), refused: Collection[str] = ()
) -> None:
    """Asserts every promise of the end.

    `dead` are the URLs that never answer well, `gone` those that answer 410, `refused` those that may not be reached.
    """
    assert not world.wrong, world.wrong
    assert world.earliest_due() is None
    tasks = world.all_tasks()
    _assert_words_kept(world, {task.task_id: task for task in tasks})
    for task in tasks:
        _assert_one_end(task)
        _assert_told(world, task, dead, gone, refused)
    _assert_tests_ended(world, dead)
    _assert_same_messages(world)
    _assert_whole_objects(world, tasks)
    for item in world.items():
        pk = item["pk"]["S"]
        assert not pk.startswith("ONGOING#"), f"a marker is left: {pk}"
        assert "token" not in item or not pk.startswith("TASK#"), f"a claim is left: {pk} {item['sk']['S']}"
        if pk.startswith("LEASE#"):
            assert parse_time(item["until"]["S"]) <= world.world.now(), "a lease has not ended"
        if pk.startswith("TASK#"):
            assert pk in {f"TASK#{task.task_id}" for task in tasks}, f"{pk} has items but no task"


def _assert_words_kept(world: Universe, tasks: Mapping[str, Task]) -> None:
    """What the API has told its callers holds: registered is registered, cancelled cancelled, and deleted gone."""
    registered: dict[str, float] = {}
    deleted: dict[str, float] = {}
    for answer in world.answers:
        match answer.asked, answer.result:
            case "register", Registered() as made:
                registered.setdefault(made.task.task_id, answer.at_s)
            case "register", refused:
                raise AssertionError(f"a registration was refused: {refused!r}")
            case "delete", str(task_id):
                deleted[task_id] = answer.at_s
            case "cancel", (str(task_id), status):
                assert status is Status.CANCELLED
                assert task_id not in tasks or tasks[task_id].status is Status.CANCELLED
    may_be_gone = {task_id for task_id, _ in world.deletions}
    must_be_gone = {task_id for task_id, at_s in world.deletions if registered.get(task_id, math.inf) < at_s}
    for task_id in registered.keys() - may_be_gone:
        assert task_id in tasks, f"{task_id} was registered and is no more"
    for task_id in deleted.keys() | must_be_gone:
        assert task_id not in tasks, f"{task_id} was deleted and is still there"


def _assert_one_end(task: Task) -> None:
    assert task.status.terminal, f"{task.task_id} is still {task.status}"
    assert task.step is None
    assert task.due_at is None
    lines = task.history
    assert (lines[0].source, lines[0].target) == (None, Status.QUEUED)
    for before, after in pairwise(lines):
        assert after.source is before.target
        assert after.target in TRANSITIONS[before.target]
    assert lines[-1].target is task.status
    assert [line.target.terminal for line in lines].count(True) == 1


def _assert_told(
    world: Universe, task: Task, dead: Collection[str], gone: Collection[str], refused: Collection[str]
) -> None:
    request = world.store_of_tests.request(task.task_id)
    assert request is not None
    found = {(one.url, one.event): one for one in world.store_of_tests.deliveries(task.task_id)}
    happened = {EVENT_OF_STATUS[line.target] for line in task.history if line.target in EVENT_OF_STATUS}
    hooks = request.webhooks or world.managed
    wanted = {(hook.url, event) for hook in hooks for event in hook.events if event in happened}
    if request.tells_bus:
        wanted |= {(BUS_URL, event) for event in happened}
    assert found.keys() == wanted
    for (url, event), delivery in found.items():
        heard = [one for one in world.receivers.received if _is_of(one.url, one.message_id, delivery)]
        if url in dead:
            assert (delivery.state, delivery.tries) == (DeliveryState.EXHAUSTED, TRIES)
        elif url in gone:
            assert delivery.state is DeliveryState.GONE
        elif url in refused:
            assert delivery.state is DeliveryState.REFUSED
        else:
            assert delivery.state is DeliveryState.DELIVERED, f"{event} is {delivery.state} at {url}"
        assert heard, f"{url} never heard of {event}"


def _is_of(url: str, message: str, delivery: Delivery) -> bool:
    return url == delivery.url and message == message_id(delivery.task_id, delivery.event)


def _assert_tests_ended(world: Universe, dead: Collection[str]) -> None:
    """Asserts that whoever was told that a test is sent finds it heard, and its attempts recorded."""
    tests = {
        one.task_id: one
        for made in world.managed
        for one in world.store_of_tests.newest_tests(OWNER, made.endpoint_id, 1000)
    }
    answered = {answer.result for answer in world.answers if answer.asked == "test"}
    assert answered <= tests.keys(), "a test that was answered is not there"
    for test in tests.values():
        assert test.state is (DeliveryState.EXHAUSTED if test.url in dead else DeliveryState.DELIVERED)
        assert any(_is_of(one.url, one.message_id, test) for one in world.receivers.received), "a test was never heard"


def _assert_same_messages(world: Universe) -> None:
    bodies: dict[tuple[str, str], set[bytes]] = defaultdict(set)
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one in world.receivers.received:
        bodies[one.url, one.message_id].add(one.body)
        data = one.data["data"]
        ids[data["task_id"] if "task_id" in data else data["test_id"], one.data["type"]].add(one.message_id)
    assert all(len(different) == 1 for different in bodies.values()), "a message has changed between attempts"
    assert all(len(different) == 1 for different in ids.values()), "an event has had two ids"


def _assert_whole_objects(world: Universe, tasks: Collection[Task]) -> None:
    assert not world.open_uploads(), "an upload is still open"
    objects = world.objects()
    named = {file.key: (task, file) for task in tasks for file in task.files}
    assert objects.keys() == named.keys(), "an object belongs to nobody, or is missing"
    for key, (_, file) in named.items():
        source = world.sources.files[file.source_url].body
        assert objects[key] == source
        assert (file.size_bytes, file.sha256) == (len(source), hashlib.sha256(source).hexdigest())
    for task in tasks:
        wanted = [source for source in task.sources if source.kind is not FileKind.COMBINED]
        assert len(task.files) == (len(wanted) if task.status is Status.COMPLETED else 0)
