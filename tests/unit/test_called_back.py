"""What a provider's call brings about in a whole deployment, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from renderbell.callbacks import CallbackRefusedError
from renderbell.register import Registered, TaskRequest
from renderbell.task import HINT_EVERY_S, Status
from tests.deployment import API, API_FUNCTION, Deployment, Said, processing, succeeded

HOOK = "https://example.com/hook"
WRONG_SECRET = "whsec_" + "Qk" * 22


def a_world(**more: Any) -> Deployment:
    world = Deployment(**more)
    world.connect("slow", poll_interval_s=300, owners=["default", "other"])
    world.tick_every_minute(until_s=900)
    return world


def times(world: Deployment, task_id: str) -> dict[Status, float]:
    start = world.task(task_id).created_at.timestamp() - 0.5
    return {line.target: line.at.timestamp() - start for line in world.task(task_id).history}


@pytest.mark.parametrize("index_lag_s", [0.0, 1.5])
@pytest.mark.parametrize("called_s", [100.0, 119.9, 125.01, 126.0, 127.5])
def test_a_task_with_a_long_interval_is_completed_seconds_after_its_provider_has_called(
    index_lag_s: float, called_s: float
) -> None:
    world = a_world(index_lag_s=index_lag_s)
    task_id = world.register(processing(), succeeded(99), connection="slow", at_s=0.5, webhooks=[HOOK])
    world.call_back(task_id, at_s=called_s)
    world.run(called_s + 9)
    assert world.task(task_id).status is Status.COMPLETED
    (message,) = world.messages(task_id)
    assert message.at_s - called_s < 8
    assert sum(at_s >= called_s for at_s in world.polls(task_id)) == 1


def test_without_a_call_it_takes_as_long_as_the_interval_says() -> None:
    world = a_world()
    task_id = world.register(processing(), succeeded(99), connection="slow", at_s=0.5)
    world.run(140)
    assert world.task(task_id).status is not Status.COMPLETED
    world.run(420)
    assert world.task(task_id).status is Status.COMPLETED


def test_the_next_tick_serves_a_call_whose_wake_up_is_lost() -> None:
    world = a_world()
    task_id = world.register(processing(), succeeded(99), connection="slow", at_s=0.5)
    world.run(100)
    world.loses.append("poller")
    world.call_back(task_id, at_s=130)
    world.run(186 + 5)
    assert world.task(task_id).status is Status.COMPLETED


def test_a_call_that_is_not_proved_changes_nothing_at_all() -> None:
    world = a_world()
    task_id = world.register(processing(), succeeded(99), connection="slow", at_s=0.5)
    world.run(110)
    before, told = world.table.items(), len(world.invocations)
    world.call_back(task_id, at_s=111, secret=WRONG_SECRET)
    with pytest.raises(CallbackRefusedError):
        world.run(120)
    assert world.table.items() == before
    assert len(world.invocations) == told


def test_two_owners_who_watch_the_same_render_are_both_served() -> None:
    world = a_world()
    mine = world.register(processing(), succeeded(99), connection="slow", at_s=0.5)
    theirs = f"tsk_{77:026d}"
    asked = TaskRequest(connection="slow", provider_task_id="p1")

    def register() -> Registered:
        return world.tasks(lambda: theirs).register_task(asked, owner="other", base_url=API)

    world.start(API_FUNCTION, register, delay_s=20)
    world.call_back(mine, at_s=100)
    world.run(110)
    assert [world.task(task_id).status for task_id in (mine, theirs)] == [Status.COMPLETED] * 2


def test_a_hint_that_brings_nothing_new_costs_one_write_and_two_polls_and_the_grid_goes_on() -> None:
    world = a_world()
    task_id = world.register(processing(), connection="slow", at_s=0.5)
    silent = a_world()
    same_id = silent.register(processing(), connection="slow", at_s=0.5)
    writes: list[str] = []
    world.table.watchers.append(lambda key, old, new: writes.append(key[1]) if key[0] == f"TASK#{task_id}" else None)
    world.run(80)
    writes.clear()
    world.call_back(task_id, at_s=100)
    world.run(900)
    silent.run(900)
    assert writes == ["TASK"]
    usual = silent.polls(same_id)
    more = [at_s for at_s in world.polls(task_id) if at_s not in usual]
    assert more == [100.05, 125.0], "by the poller that is woken, and by the next one, as for a new task"
    assert world.polls(task_id)[-3:] == usual[-3:]


def test_a_flood_of_calls_brings_a_poll_in_five_seconds_at_the_most_and_keeps_to_the_connections_rate() -> None:
    world = a_world()
    world.connect("paced", poll_interval_s=300, max_polls_per_s=0.1)
    flooded = world.register(processing(), connection="slow", at_s=0.5)
    paced = world.register(processing(), connection="paced", at_s=0.5)
    world.run(99)
    before = {task_id: (len(world.polls(task_id)), world.task(task_id).version) for task_id in (flooded, paced)}
    for n in range(600):
        world.call_back(flooded, at_s=100 + n / 10)
        world.call_back(paced, at_s=100 + n / 10)
    world.run(170)
    polls, versions = (
        {task_id: now - then for task_id, now, then in rows}
        for rows in (
            [(one, len(world.polls(one)), before[one][0]) for one in (flooded, paced)],
            [(one, world.task(one).version, before[one][1]) for one in (flooded, paced)],
        )
    )
    assert polls[flooded] <= 60 / HINT_EVERY_S + 3
    assert polls[paced] <= 70 * 0.1 + 2
    assert max(versions.values()) <= 60 / HINT_EVERY_S + 1


def test_a_connection_that_backs_off_is_asked_by_its_probes_alone_whatever_calls_come() -> None:
    world = a_world()
    task_ids = [world.register(processing(), Said(90, 503), connection="slow", at_s=0.5) for _ in range(8)]
    for n in range(40):
        for task_id in task_ids:
            world.call_back(task_id, at_s=100 + n * 5)
    world.run(300)
    polls = sorted(at_s for task_id in task_ids for at_s in world.polls(task_id) if at_s > 100)
    silent = 12 + len(task_ids)  # the faults before the back-off, and the probes of 200 s
    assert len(polls) <= silent + 10


def test_a_call_while_the_video_is_copied_changes_nothing() -> None:
    world = a_world()
    world.archive.copy_s = 30
    task_id = world.register(succeeded(), connection="slow", at_s=0.5)
    world.run(10)
    assert world.task(task_id).status is Status.COPYING
    world.call_back(task_id, at_s=12)
    world.run(14)
    assert world.task(task_id).hint is None
    world.run(60)
    assert world.task(task_id).status is Status.COMPLETED
    world.call_back(task_id, at_s=61)
    world.run(62)
    assert world.task(task_id).hint is None
