"""A task that ended in vain, taken up by a new one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from renderbell.task import ErrorCode, Status, TaskError
from tests.http_api import BASE_URL, HOOK, World, sample

VAIN = (Status.FAILED, Status.EXPIRED)


def ended(world: World, status: Status = Status.FAILED, **fields: object) -> str:
    """A task that has ended, and of which nobody was told yet."""
    task_id = world.registered(**fields)
    error = TaskError(ErrorCode.PROVIDER_FAILED, "out of paint") if status is Status.FAILED else None
    world.change(task_id, status=status, step=None, due_at=None, error=error)
    return task_id


def test_the_sample_event_is_of_an_unknown_task() -> None:
    World().send(sample("retry")).problem(404, "not_found")


@pytest.mark.parametrize("status", VAIN)
def test_a_new_task_asks_for_the_same_and_the_old_one_stays_as_it_is(status: Status) -> None:
    world = World()
    old = ended(
        world,
        status,
        webhooks=[{"url": HOOK, "events": ["task.processing", "task.failed"]}],
        metadata={"order": "4711"},
        deadline_s=600,
    )
    before = world.call("GET", f"/tasks/{old}").json
    world.clock.pass_s(3600)
    world.invoker.invoked.clear()
    answer = world.call("POST", f"/tasks/{old}/retry")
    assert answer.status == 201
    new = answer.json
    same = ("owner", "connection", "provider", "provider_task_id", "metadata", "webhooks")
    assert {name: new[name] for name in same} == {name: before[name] for name in same}
    assert (new["status"], new["retry_of"], new["error"], new["deliveries"]) == ("QUEUED", old, None, [])
    assert (new["created_at"], new["expires_at"]) == ("2026-03-01T13:00:00.000Z", "2026-03-01T13:10:00.000Z")
    task, request = world.task(new["task_id"]), world.request(new["task_id"])
    assert task.tells_processing
    assert (task.due_at, request.base_url, request.retry_of) == (world.clock(), BASE_URL, old)
    assert request.ttl > (world.clock() + timedelta(days=44)).timestamp()
    assert world.invoker.invoked == [("poller", {"worker": 0, "task_id": new["task_id"]})]
    assert world.call("GET", f"/tasks/{old}").json == before


def test_a_retry_may_be_retried() -> None:
    world = World()
    first = ended(world)
    second = world.call("POST", f"/tasks/{first}/retry").json["task_id"]
    world.change(second, status=Status.EXPIRED, step=None, due_at=None)
    assert world.call("POST", f"/tasks/{second}/retry").json["retry_of"] == second


@pytest.mark.parametrize("status", [one for one in Status if one not in VAIN])
def test_a_task_that_has_not_ended_in_vain_is_409(status: Status) -> None:
    world = World()
    task_id = world.registered()
    if status is not Status.QUEUED:
        world.change(task_id, status=status)
    world.call("POST", f"/tasks/{task_id}/retry").problem(409, "task_not_failed")
    assert world.task_ids() == [task_id]


def test_a_render_that_is_watched_already_is_409_and_named() -> None:
    world = World()
    old = ended(world)
    new = world.call("POST", f"/tasks/{old}/retry").json["task_id"]
    assert world.call("POST", f"/tasks/{old}/retry").problem(409, "already_registered")["task_id"] == new


def test_the_same_call_again_is_answered_as_the_first_time_under_its_key() -> None:
    world = World()
    old = ended(world)
    key = {"Idempotency-Key": "again"}
    first, second = (world.call("POST", f"/tasks/{old}/retry", headers=key) for _ in range(2))
    assert (first.status, first.json) == (second.status, second.json)


def test_a_connection_that_is_gone_or_no_longer_the_owners_is_409() -> None:
    world = World()
    old = ended(world)
    world.connect("studio", "rival")
    world.call("POST", f"/tasks/{old}/retry").problem(409, "unknown_connection")
    world.connections.by_name.clear()
    world.call("POST", f"/tasks/{old}/retry").problem(409, "unknown_connection")


def test_it_is_not_for_readers_nor_for_other_owners() -> None:
    world = World()
    old = ended(world)
    world.call("POST", f"/tasks/{old}/retry", scope="read").problem(403, "forbidden")
    world.call("POST", f"/tasks/{old}/retry", owner="rival").problem(404, "not_found")
