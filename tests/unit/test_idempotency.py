"""Calls that may be repeated: under one `Idempotency-Key` each is done once, and its answer given again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from renderbell.delivery import DeliveryState
from tests.dynamodb import TransactionCanceledException
from tests.http_api import HOOK, Answer, Died, World

RENDER = {"connection": "studio", "provider_task_id": "job-7"}
OTHER = {"connection": "studio", "provider_task_id": "job-8"}
DAY_S = 86_400


def register(world: World, key: str, body: object = RENDER, *, owner: str = "default", scope: str = "admin") -> Answer:
    return world.call("POST", "/tasks", body, headers={"Idempotency-Key": key}, owner=owner, scope=scope)


def replayed(answer: Answer) -> bool:
    return answer.headers.get("idempotency-replayed") == "true"


def test_the_same_call_gets_the_first_answer_again() -> None:
    world = World()
    first = register(world, "order-4711")
    world.call("POST", f"/tasks/{first.json['task_id']}/cancel")
    again = register(world, "order-4711")
    assert (again.status, again.text) == (first.status, first.text) == (201, first.text)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["cache-control"] == "no-store"
    assert (replayed(first), replayed(again)) == (False, True)
    assert len(world.task_ids()) == 1


def test_a_header_is_known_whatever_its_case() -> None:
    world = World()
    world.call("POST", "/tasks", RENDER, headers={"idempotency-key": "a"})
    assert replayed(world.call("POST", "/tasks", RENDER, headers={"IDEMPOTENCY-KEY": "a"}))


def test_another_body_under_the_same_key_is_422_and_does_nothing() -> None:
    world = World()
    register(world, "a")
    problem = register(world, "a", OTHER).problem(422, "invalid_input")
    assert [(one["field"], one["code"]) for one in problem["errors"]] == [
        ("Idempotency-Key", "idempotency_key_reused"),
    ]
    assert len(world.task_ids()) == 1


def test_another_route_or_query_under_the_same_key_is_422() -> None:
    world = World()
    task_id = register(world, "a").json["task_id"]
    cancel = f"/tasks/{task_id}/cancel"
    world.call("POST", cancel, headers={"Idempotency-Key": "a"}).problem(422, "invalid_input")
    assert world.call("POST", cancel, headers={"Idempotency-Key": "b"}).status == 200
    world.call("POST", cancel, query={"x": "1"}, headers={"Idempotency-Key": "b"}).problem(422, "invalid_input")


def test_keys_are_an_owners_own() -> None:
    world = World()
    world.connect("theirs", "team-a")
    register(world, "a")
    theirs = register(world, "a", {"connection": "theirs", "provider_task_id": "job-1"}, owner="team-a")
    assert (theirs.status, replayed(theirs)) == (201, False)


def test_a_refusal_is_not_kept_and_the_call_is_made_once_what_forbade_it_has_passed() -> None:
    world = World()
    running = world.registered(webhook_url=HOOK)
    other = RENDER | {"webhook_url": HOOK + "/other"}
    register(world, "a", other).problem(409, "already_registered")
    again = register(world, "a", other)
    again.problem(409, "already_registered")
    assert not replayed(again)
    world.call("POST", f"/tasks/{running}/cancel")
    made = register(world, "a", other)
    assert (made.status, replayed(made)) == (201, False)
    assert replayed(register(world, "a", other))


def test_after_a_refusal_the_key_is_free_for_the_corrected_request() -> None:
    world = World()
    register(world, "a", RENDER | {"deadline_s": "soon"}).problem(422, "invalid_input")
    register(world, "a", {"connection": "nobody", "provider_task_id": "job-7"}).problem(422, "invalid_input")
    assert register(world, "a").status == 201


def test_what_is_sent_just_then_is_sent_again_under_the_same_key_once_it_was() -> None:
    world = World()
    world.call("POST", "/endpoints", {"url": HOOK})
    task_id = world.registered()
    world.call("POST", f"/tasks/{task_id}/cancel")
    (delivery,) = world.store.deliveries(task_id)
    held = world.store.claim_delivery(delivery, "another", world.clock() + timedelta(seconds=60))
    assert held is not None
    again = partial(world.call, "POST", f"/tasks/{task_id}/redeliver", headers={"Idempotency-Key": "a"})
    again().problem(409, "try_again")
    sent = replace(held, token=None, state=DeliveryState.DELIVERED, due_at=None)
    assert world.store.finish_delivery(held, sent)
    assert again().status == 202
    assert replayed(again())


def test_a_batch_with_a_fault_of_ours_in_it_is_made_again() -> None:
    world = World()
    batch = {"tasks": [{"connection": "nobody", "provider_task_id": "x"}, RENDER, OTHER]}
    send = partial(world.call, "POST", "/tasks/batch", batch, headers={"Idempotency-Key": "a"})
    world.client.before["transact_write_items"] = _in_trouble
    assert [one["status"] for one in send().json["results"]] == [422, 500, 201]
    again = send()
    assert 500 not in [one["status"] for one in again.json["results"]]
    assert not replayed(again)
    assert len(world.task_ids()) == 2
    assert (replayed(send()), send().text) == (True, again.text)


def test_a_batch_with_another_registration_of_the_same_render_in_flight_is_made_again() -> None:
    world = World()
    send = partial(world.call, "POST", "/tasks/batch", {"tasks": [RENDER]}, headers={"Idempotency-Key": "a"})

    def busy() -> None:
        world.client.before["transact_write_items"] = busy
        told: Any = {"Error": {}, "CancellationReasons": [{"Code": "TransactionConflict"}, {"Code": "None"}]}
        raise TransactionCanceledException(told, "TransactWriteItems")

    world.client.before["transact_write_items"] = busy
    (refused,) = send().json["results"]
    assert refused["problem"]["code"] == "try_again"
    del world.client.before["transact_write_items"]
    again = send()
    assert ([one["status"] for one in again.json["results"]], replayed(again)) == ([201], False)


def test_after_a_fault_of_ours_the_call_is_made_again() -> None:
    world = World()
    world.client.before["transact_write_items"] = _in_trouble
    register(world, "a").problem(500, "internal_error")
    again = register(world, "a")
    assert (again.status, replayed(again)) == (201, False)


def _in_trouble() -> None:
    raise RuntimeError("the table is on fire")


def test_while_the_same_call_runs_it_is_409_and_does_nothing() -> None:
    world = World()
    answers = []
    world.client.before["transact_write_items"] = lambda: answers.append(register(world, "a"))
    first = register(world, "a")
    answers[0].problem(409, "request_running")
    assert (first.status, len(world.task_ids())) == (201, 1)
    assert register(world, "a").text == first.text


def test_of_two_that_begin_at_once_one_is_made() -> None:
    world = World()
    answers = []
    world.client.before["update_item"] = lambda: answers.append(register(world, "a"))
    register(world, "a").problem(409, "request_running")
    assert (answers[0].status, len(world.task_ids())) == (201, 1)


def test_a_call_whose_function_died_is_made_again_once_its_time_is_over() -> None:
    world = World()
    world.client.before["transact_write_items"] = _dies
    with pytest.raises(Died):
        register(world, "a")
    register(world, "a").problem(409, "request_running")
    world.clock.pass_s(31)
    assert register(world, "a").status == 201


def _dies() -> None:
    raise Died


def test_an_answer_that_cannot_be_kept_is_given_all_the_same() -> None:
    world = World()

    def next_write_fails() -> None:
        world.client.before["update_item"] = _in_trouble

    world.client.before["transact_write_items"] = next_write_fails
    first = register(world, "a")
    assert first.status == 201
    again = register(world, "a")
    assert (again.status, again.text, replayed(again)) == (201, first.text, False), "made again at once, done once"
    assert replayed(register(world, "a"))


def test_a_call_that_can_neither_be_kept_nor_released_is_made_again_once_its_time_is_over() -> None:
    world = World()

    def table_breaks() -> None:
        world.client.before["update_item"] = breaks

    def breaks() -> None:
        world.client.before["update_item"] = _in_trouble
        raise RuntimeError("the table is on fire")

    world.client.before["transact_write_items"] = table_breaks
    first = register(world, "a")
    register(world, "a").problem(409, "request_running")
    world.clock.pass_s(31)
    assert register(world, "a").text == first.text


def test_a_key_is_forgotten_after_a_day() -> None:
    world = World()
    register(world, "a")
    world.clock.pass_s(DAY_S - 1)
    assert replayed(register(world, "a"))
    world.clock.pass_s(2)
    assert register(world, "a", OTHER).status == 201


def test_what_is_kept_goes_by_itself() -> None:
    world = World()
    register(world, "a")
    (item,) = [item for item in world.table.items() if item["sk"]["S"].startswith("ANSWER#")]
    assert int(item["ttl"]["N"]) == int(world.clock().timestamp()) + DAY_S


def test_a_secret_is_not_kept_and_the_replay_says_so() -> None:
    world = World()
    asked = {"owner": "team-a", "name": "ci", "scope": "write"}
    minted = world.call("POST", "/keys", asked, headers={"Idempotency-Key": "a"})
    again = world.call("POST", "/keys", asked, headers={"Idempotency-Key": "a"})
    assert minted.json["key"].startswith("rbk_")
    assert again.json == minted.json | {"key": None, "withheld": again.json["withheld"]}
    assert "key" in again.json["withheld"]
    kept = [item for item in world.table.items() if item["sk"]["S"].startswith("ANSWER#")]
    assert minted.json["key"] not in json.dumps(kept, default=str)
    assert len(world.store.keys("team-a")) == 1


@pytest.mark.parametrize("key", ["", " ", " a", "a\n", "ä", "a" * 256])
def test_what_cannot_be_a_key_is_refused(key: str) -> None:
    world = World()
    problem = register(world, key).problem(422, "invalid_input")
    assert problem["errors"][0]["code"] == "idempotency_key_invalid"
    assert world.task_ids() == []


@pytest.mark.parametrize("key", ["a", "a" * 255, "order 4711/ü".replace("ü", "u"), "{}"])
def test_any_printable_text_is_a_key(key: str) -> None:
    world = World()
    register(world, key)
    assert replayed(register(world, key))


def test_only_posts_heed_it() -> None:
    world = World()
    headers: Mapping[str, str] = {"Idempotency-Key": "a"}
    task_id = world.registered()
    for _ in range(2):
        assert world.call("GET", f"/tasks/{task_id}", headers=headers).status == 200
    assert world.call("DELETE", f"/tasks/{task_id}", query={"force": "true"}, headers=headers).status == 202
    world.call("DELETE", f"/tasks/{task_id}", query={"force": "true"}, headers=headers).problem(404, "not_found")


def test_who_may_not_call_leaves_no_trace() -> None:
    world = World()
    register(world, "a", scope="read").problem(403, "forbidden")
    assert world.table.items() == []
    assert register(world, "a").status == 201


def test_a_batch_of_the_largest_size_is_kept() -> None:
    world = World()
    text = "".join(chr(0x4E00 + n * 7 % 20_000) for n in range(700))  # two kilobytes that hardly compress
    tasks = [{"connection": "studio", "provider_task_id": f"job-{n}", "metadata": {"t": text}} for n in range(60)]
    body = {"tasks": tasks}
    first = world.call("POST", "/tasks/batch", body, headers={"Idempotency-Key": "a"})
    again = world.call("POST", "/tasks/batch", body, headers={"Idempotency-Key": "a"})
    assert (again.status, again.text) == (first.status, first.text) == (200, first.text)
    assert replayed(again)
