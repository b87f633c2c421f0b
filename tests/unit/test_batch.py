"""Many renders in one call: each is registered as if it were alone."""

from __future__ import annotations

import json
import random
import string
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
    names = ("task_id", "connection", "provider_task_id", "status", "created_at", "expires_at")
    shown = {name: alone[name] for name in names}
    assert found[7] == {"index": 7, "status": 201, "task": shown, "problem": None}


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


def random_text(size: int) -> str:
    return "".join(random.choices(string.ascii_letters + string.digits, k=size))


def test_the_answer_stays_small_and_is_kept_however_much_the_watched_tasks_hold() -> None:
    world = World()
    for n in range(100):
        hooks = [{"url": f"https://example.com/{n}/{m}/{random_text(2000)}"} for m in range(20)]
        world.registered(provider_task_id=f"job-{n}", webhooks=hooks, metadata={"text": random_text(4000)})
    for _ in range(2):
        body = {"tasks": [a_render(n) for n in range(100)]}
        answer = world.call("POST", "/tasks/batch", body, headers={"Idempotency-Key": "a"})
        assert {one["status"] for one in results(answer)} == {200}
        assert len(json.dumps(answer.text)) < 100_000
    assert answer.headers["idempotency-replayed"] == "true"


def test_the_answer_to_nothing_but_nonsense_is_one_that_lambda_may_give() -> None:
    names = ["".join(random.choices('äöü"', k=28)) + str(n) for n in range(10)]
    answer = World().call("POST", "/tasks/batch", {"tasks": [dict.fromkeys(names, 1)] * 100})
    assert {one["status"] for one in results(answer)} == {422}
    assert len(json.dumps(answer.text)) < 6_000_000


def test_readers_register_nothing() -> None:
    world = World()
    world.call("POST", "/tasks/batch", {"tasks": [a_render(1)]}, scope="read").problem(403, "forbidden")
    assert world.task_ids() == []
