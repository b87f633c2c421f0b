"""Many renders in one call: each is registered as if it were alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http_api import HOOK, Answer, World


def a_render(n: int, **more: object) -> dict[str, object]:
    return {"connection": "studio", "provider_task_id": f"job-{n}", **more}


def results(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200, answer.text
    found: list[dict[str, Any]] = answer.json["results"]
    assert [one["index"] for one in found] == list(range(len(found)))
    return found


def test_each_is_registered_in_its_place() -> None:
    world = World()
    found = results(world.call("POST", "/tasks/batch", {"tasks": [a_render(n) for n in range(100)]}))
    assert [one["status"] for one in found] == [201] * 100
    assert [one["task"]["provider_task_id"] for one in found] == [f"job-{n}" for n in range(100)]
    alone = world.call("GET", f"/tasks/{found[7]['task']['task_id']}").json
    assert found[7] == {"index": 7, "status": 201, "task": alone, "problem": None}


def test_what_is_refused_undoes_no_other() -> None:
    world = World()
    running = world.registered(provider_task_id="job-0", webhook_url=HOOK)
    asked = [
        a_render(0, webhook_url=HOOK),
        a_render(0, webhook_url=HOOK + "/other"),
        a_render(1, connection="nobody"),
        a_render(2, deadline_s="soon"),
        "no render",
        a_render(3, webhooks=[{"url": "http://127.0.0.1/"}]),
        a_render(4),
    ]
    found = results(world.call("POST", "/tasks/batch", {"tasks": asked}))
    assert [one["status"] for one in found] == [200, 409, 422, 422, 422, 422, 201]
    assert found[0]["task"]["task_id"] == found[1]["problem"]["task_id"] == running
    assert found[1]["problem"]["code"] == "already_registered"
    named = [[problem["field"] for problem in one["problem"]["errors"]] for one in found[2:6]]
    assert named == [["connection"], ["deadline_s"], ["body"], ["webhooks.0.url"]]
    assert len(world.task_ids()) == 2


def test_the_same_render_twice_is_one_task() -> None:
    found = results(World().call("POST", "/tasks/batch", {"tasks": [a_render(1), a_render(1)]}))
    assert [one["status"] for one in found] == [201, 200]
    assert found[0]["task"]["task_id"] == found[1]["task"]["task_id"]


def test_a_worker_is_woken_once() -> None:
    world = World()
    world.call("POST", "/tasks/batch", {"tasks": [a_render(n) for n in range(20)]})
    assert [name for name, _ in world.invoker.invoked] == ["poller"]
    world.call("POST", "/tasks/batch", {"tasks": [a_render(n) for n in range(20)]})
    assert len(world.invoker.invoked) == 1, "nothing new, nobody woken"


def test_a_fault_of_ours_is_told_of_without_its_words() -> None:
    world = World()
    world.client.trouble = RuntimeError("the table is on fire")
    answer = world.call("POST", "/tasks/batch", {"tasks": [a_render(1)]})
    (found,) = results(answer)
    assert (found["status"], found["problem"]["code"]) == (500, "internal_error")
    assert "fire" not in str(answer.text)


@pytest.mark.parametrize("tasks", [[], [a_render(n) for n in range(101)], "x", None])
def test_a_batch_has_one_to_a_hundred(tasks: object) -> None:
    World().call("POST", "/tasks/batch", {"tasks": tasks}).problem(422, "invalid_input")


def test_a_batch_may_be_larger_than_other_bodies() -> None:
    metadata = {"text": "x" * 2000}
    world = World()
    found = results(world.call("POST", "/tasks/batch", {"tasks": [a_render(n, metadata=metadata) for n in range(100)]}))
    assert {one["status"] for one in found} == {201}
    too_much = [a_render(n, metadata={"text": "x" * 3000}) for n in range(100)]
    world.call("POST", "/tasks/batch", {"tasks": too_much}).problem(413, "body_too_large")


def test_readers_register_nothing() -> None:
    world = World()
    world.call("POST", "/tasks/batch", {"tasks": [a_render(1)]}, scope="read").problem(403, "forbidden")
    assert world.task_ids() == []
