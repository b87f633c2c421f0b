"""Calls that died on their way: repeated under the same `Idempotency-Key`, what they do is done once.

Each call is struck at every call that it makes to the table, before that has its effect and after; the process ends
there, or the answer is lost and the call goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest

from renderbell.keys import hash_key
from renderbell.task import Status, Transition
from tests.http_api import HOOK, Answer, Died, World

RENDER = {"connection": "studio", "provider_task_id": "job-7"}
OTHER = {"connection": "studio", "provider_task_id": "job-8"}
KEY = {"owner": "team-a", "name": "ci", "scope": "write"}
ENDPOINT = "ep_" + "0" * 25 + "1"


def nothing(world: World) -> None:
    """Nothing stands there before."""


def a_task(world: World) -> None:
    world.registered()


def an_endpoint(world: World) -> None:
    assert world.call("POST", "/endpoints", {"url": HOOK}).json["endpoint_id"] == ENDPOINT
    world.clock.pass_s(60)


def a_failed_task(world: World) -> None:
    world.registered(provider_task_id="job-9")
    end(world, Status.FAILED)


def end(world: World, status: Status) -> None:
    """The provider is done with all tasks."""
    for task_id in world.task_ids():
        task = world.task(task_id)
        if task.status is Status.QUEUED:
            line = Transition(world.clock(), task.status, status, "done")
            world.store.save(task, replace(task, status=status, due_at=None, history=(*task.history, line)))


def one_task(world: World, answer: Answer) -> None:
    assert world.task_ids() == [answer.json["task_id"]]


def two_tasks(world: World, answer: Answer) -> None:
    assert [one["status"] for one in answer.json["results"]] == [201, 201]
    assert sorted(world.task_ids()) == sorted(one["task"]["task_id"] for one in answer.json["results"])


def one_retry(world: World, answer: Answer) -> None:
    old = answer.json["retry_of"]
    assert sorted(world.task_ids()) == sorted([old, answer.json["task_id"]])


def one_endpoint(world: World, answer: Answer) -> None:
    assert [one.endpoint_id for one in world.store.endpoints("default")] == [answer.json["endpoint_id"]]
    (number,) = [item["number"] for item in world.table.items() if item["sk"]["S"] == "ENDPOINTS"]
    assert number == {"N": "1"}


def one_key(world: World, answer: Answer) -> None:
    (key,) = world.store.keys("team-a")
    assert key.key_id == answer.json["key_id"]
    assert key.key_hash == hash_key(answer.json["key"]), "the key that was shown is the one that lets in"
    assert [item["pk"]["S"] for item in world.table.items() if item["sk"]["S"] == "KEY"] == [f"KEY#{key.key_hash}"]


def one_rotation(world: World, answer: Answer) -> None:
    assert {world.store.signing("default").generation} | {
        one.generation for one in world.store.endpoints("default")
    } == {1, 2}


def one_test(world: World, answer: Answer) -> None:
    (test,) = world.store.newest_tests("default", ENDPOINT, 9)
    assert answer.json["webhook_id"] == f"evt_{test.task_id}_endpoint_test"


def cancelled(world: World, answer: Answer) -> None:
    assert answer.json["status"] == "CANCELLED"


@dataclass(frozen=True)
class Case:
    """A call, what stands there before it, and what must have come of it."""

    path: str
    body: object
    status: int
    done: Callable[[World, Answer], None]
    before: Callable[[World], None] = nothing
    wakes: str | None = None


TASK = "tsk_" + "0" * 25 + "1"
CASES = {
    "register": Case("/tasks", RENDER, 201, one_task, wakes="poller"),
    "batch": Case("/tasks/batch", {"tasks": [RENDER, OTHER]}, 200, two_tasks, wakes="poller"),
    "retry": Case(f"/tasks/{TASK}/retry", None, 201, one_retry, a_failed_task, wakes="poller"),
    "endpoint": Case("/endpoints", {"url": HOOK}, 201, one_endpoint),
    "key": Case("/keys", KEY, 201, one_key),
    "rotate": Case(f"/endpoints/{ENDPOINT}/rotate-secret", None, 200, one_rotation, an_endpoint),
    "rotate the owner's": Case("/webhook-secret/rotate", None, 200, one_rotation, an_endpoint),
    "test": Case(f"/endpoints/{ENDPOINT}/test", None, 202, one_test, an_endpoint, wakes="poller"),
    "cancel": Case(f"/tasks/{TASK}/cancel", None, 200, cancelled, a_task),
}


def send(world: World, case: Case) -> Answer:
    return world.call("POST", case.path, case.body, headers={"Idempotency-Key": "a"})


def prepared(case: Case) -> World:
    world = World()
    case.before(world)
    world.invoker.invoked.clear()
    world.client.calls = 0
    return world


def number_of_calls(case: Case) -> int:
    world = prepared(case)
    assert send(world, case).status == case.status
    assert world.client.calls >= 3
    return world.client.calls


@pytest.mark.parametrize("blow", [Died, RuntimeError], ids=["dies", "loses an answer"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_call_that_is_struck_anywhere_and_repeated_is_done_once(case: Case, blow: type[BaseException]) -> None:
    for number in range(1, number_of_calls(case) + 1):
        for after in (False, True):
            world = prepared(case)
            world.client.blow = (number, after, blow())
            with suppress(Died):
                send(world, case)
            world.client.blow = None
            world.clock.pass_s(31)
            repeated = send(world, case)
            assert repeated.status == case.status, (number, after, repeated.text)
            replayed = "idempotency-replayed" in repeated.headers
            if not replayed or case is not CASES["key"]:
                case.done(world, repeated)
            if case.wakes and not replayed:
                assert case.wakes in [name for name, _ in world.invoker.invoked], (number, after)
            assert send(world, case).headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize("name", ["register", "batch", "retry"])
def test_it_is_done_once_even_if_the_render_has_ended_before_the_repetition(name: str) -> None:
    case = CASES[name]
    for number in range(1, number_of_calls(case) + 1):
        world = prepared(case)
        world.client.blow = (number, True, Died())
        with suppress(Died):
            send(world, case)
        world.client.blow = None
        end(world, Status.FAILED)
        world.clock.pass_s(31)
        repeated = send(world, case)
        assert repeated.status == case.status, (number, repeated.text)
        case.done(world, repeated)


def struck_at_the_end(world: World, case: Case) -> None:
    """All is done, and the answer not kept."""
    last = number_of_calls(case)
    world.client.calls = 0
    world.client.blow = (last, False, Died())
    with pytest.raises(Died):
        send(world, case)
    world.client.blow = None
    world.clock.pass_s(31)


def test_what_was_deleted_before_the_repetition_is_made_anew() -> None:
    for name in ("register", "endpoint", "key"):
        case, world = CASES[name], World()
        struck_at_the_end(world, case)
        if name == "register":
            (task_id,) = world.task_ids()
            assert world.call("DELETE", f"/tasks/{task_id}", query={"force": "true"}).status == 202
        elif name == "endpoint":
            world.call("DELETE", f"/endpoints/{world.store.endpoints('default')[0].endpoint_id}")
        else:
            world.store.delete_key(world.store.keys("team-a")[0])
        repeated = send(world, case)
        assert repeated.status == 201
        if name == "register":
            assert repeated.json["task_id"] not in {task_id}
            assert world.call("GET", f"/tasks/{repeated.json['task_id']}").status == 200
        else:
            case.done(world, repeated)


def test_a_key_does_the_same_again_once_it_is_forgotten() -> None:
    case, world = CASES["rotate the owner's"], World()
    for generation in (2, 3):
        assert send(world, case).status == 200
        assert world.store.signing("default").generation == generation
        world.clock.pass_s(86_401)


def test_a_rotation_before_the_call_is_not_taken_for_its_own() -> None:
    world = World()
    world.call("POST", "/webhook-secret/rotate")
    world.clock.pass_s(1)
    world.client.calls = 0
    world.client.blow = (2, True, Died())  # the note stands, and nothing is done
    with pytest.raises(Died):
        send(world, CASES["rotate the owner's"])
    world.client.blow = None
    world.clock.pass_s(31)
    assert send(world, CASES["rotate the owner's"]).status == 200
    assert world.store.signing("default").generation == 3


def test_two_owners_and_two_keys_make_two() -> None:
    world = World()
    world.connect("studio", "default", "team-a")
    made = [
        world.call("POST", "/tasks", RENDER, headers={"Idempotency-Key": key}, owner=owner).json["task_id"]
        for key, owner in (("a", "default"), ("a", "team-a"))
    ]
    made.append(world.call("POST", "/tasks", OTHER, headers={"Idempotency-Key": "b"}).json["task_id"])
    assert len(set(made)) == 3


def test_after_a_fault_of_ours_the_same_call_need_not_wait() -> None:
    case = CASES["endpoint"]
    world = World()
    world.client.blow = (3, True, RuntimeError("no answer"))
    send(world, case).problem(500, "internal_error")
    world.client.blow = None
    repeated = send(world, case)
    assert repeated.status == 201
    one_endpoint(world, repeated)
