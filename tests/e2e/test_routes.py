"""What a team does with its tasks: many at once, lists, repeated calls, retries, files, and away with them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.e2e.client import Client
from tests.e2e.conftest import CALLING, STUDIO

pytestmark = pytest.mark.e2e

PROBLEM = "application/problem+json"


def _code(answer: requests.Response, status: int) -> str:
    """The code of a problem of that status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith(PROBLEM)
    return str(answer.json()["code"])


def _fields(answer: requests.Response) -> list[tuple[str, str]]:
    """The fields that a 422 names, each with its code."""
    assert _code(answer, 422) == "invalid_input"
    return [(error["field"], error["code"]) for error in answer.json()["errors"]]


def _item(client: Client, **told: Any) -> dict[str, Any]:
    """A render of Jimmy's, as a registration names it."""
    return {"connection": STUDIO, "provider_task_id": client.house.simulators.create("jimmy", **told)}


def _register(client: Client, asked: Mapping[str, Any], **more: Any) -> Any:
    answer = client.call("POST", "/tasks", json=asked, **more)
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture(scope="module", autouse=True)
def deleted(client: Client) -> tuple[Client, list[dict[str, Any]]]:
    """A team's two tasks, done and running, that were deleted; what is left is removed a minute later, beside other
    tests."""
    team = client.of("deleting")
    done = _register(team, _item(team, seconds=0, size_bytes=100_000))
    running = _register(team, _item(team, seconds=3600))
    route = f"/tasks/{running['task_id']}"
    assert _code(team.call("DELETE", route), 409) == "task_running"
    assert team.call("GET", route).status_code == 200
    assert team.call("DELETE", f"{route}?force=true").status_code == 202
    assert team.settled(done["task_id"])["status"] == "COMPLETED"
    assert any(one.endswith(".mp4") for one in team.remains(done))
    answer = team.call("DELETE", f"/tasks/{done['task_id']}")
    assert (answer.status_code, answer.json()) == (202, {"task_id": done["task_id"], "deleted": True})
    return team, [done, running]


# -- Many at once -------------------------------------------------------------------------------------------------


def test_one_bad_item_of_a_batch_undoes_no_other(client: Client) -> None:
    team = client.of("batches")
    items = [{**_item(team, seconds=1, outcome="fail"), "metadata": {"n": str(n)}} for n in range(4)]
    bad = [
        {"connection": "nobodys", "provider_task_id": "p"},
        {"connection": STUDIO},
        {**items[1], "metadata": {"another": "purpose"}},  # of what is registered just before
    ]
    body = {"tasks": [items[0], bad[0], items[1], items[2], bad[1], items[3], items[0]]}
    results = team.call("POST", "/tasks/batch", json=body).json()["results"]
    assert [one["index"] for one in results] == list(range(7))
    twice = sorted((results[0]["status"], results[6]["status"]))  # they are registered side by side
    assert (twice, [one["status"] for one in results[1:6]]) == ([200, 201], [422, 201, 201, 422, 201])
    assert results[6]["task"]["task_id"] == results[0]["task"]["task_id"]
    for n in (1, 4):
        assert results[n]["problem"]["status"] == 422
        assert results[n]["task"] is None
    assert {error["field"] for error in results[1]["problem"]["errors"]} == {"connection"}
    made = [results[n]["task"] for n in (0, 2, 3, 5)]
    assert [one["provider_task_id"] for one in made] == [one["provider_task_id"] for one in items]
    whole = [team.call("GET", f"/tasks/{one['task_id']}").json() for one in made]  # a batch's results are short
    assert [one["metadata"] for one in whole] == [one["metadata"] for one in items]
    listed = {one["task_id"] for one in team.call("GET", "/tasks").json()["tasks"]}
    assert listed == {one["task_id"] for one in made}
    (conflict,) = team.call("POST", "/tasks/batch", json={"tasks": bad[2:]}).json()["results"]
    assert (conflict["status"], conflict["problem"]["code"]) == (409, "already_registered")
    for task in made:
        assert team.ended(task["task_id"])["status"] == "FAILED"
    too_many = team.call("POST", "/tasks/batch", json={"tasks": [items[0]] * 101})
    assert _code(too_many, 422) == "invalid_input"


# -- Lists --------------------------------------------------------------------------------------------------------


class Lists:
    """A team whose tasks run, but for some that have failed."""

    def __init__(self, client: Client) -> None:
        self.team = client.of("lists")
        batch = [
            {
                **_item(client, seconds=3600 if n % 3 else 0, outcome="fail"),
                "connection": CALLING if n % 3 else STUDIO,
                "metadata": {"scene": str(n % 2), "project": "Zoë & 数学"},
            }
            for n in range(12)
        ]
        results = self.team.call("POST", "/tasks/batch", json={"tasks": batch}).json()["results"]
        tasks = [one["task"] for one in results]
        self.failed = {task["task_id"] for n, task in enumerate(tasks) if n % 3 == 0}
        self.odd = {task["task_id"] for n, task in enumerate(tasks) if n % 2}
        self.times = {task["task_id"]: task["created_at"] for task in tasks}
        self.all = set(self.times)
        for task_id in self.failed:
            assert self.team.ended(task_id)["status"] == "FAILED"

    def page(self, **query: Any) -> Any:
        answer = self.team.call("GET", "/tasks", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def pages(self, **query: Any) -> Iterator[list[dict[str, Any]]]:
        """One page after the other, to the last."""
        cursor: dict[str, str] = {}
        while True:
            page = self.page(**query, **cursor)
            yield page["tasks"]
            if page["next_cursor"] is None:
                return
            cursor = {"cursor": page["next_cursor"]}

    def ids(self, **query: Any) -> set[str]:
        return {task["task_id"] for page in self.pages(**query) for task in page}


@pytest.fixture(scope="module")
def lists(client: Client) -> Iterator[Lists]:
    lists = Lists(client)
    yield lists
    for task_id in lists.all - lists.failed:
        lists.team.call("POST", f"/tasks/{task_id}/cancel")


def test_filters_leave_what_they_name(lists: Lists) -> None:
    assert lists.ids() == lists.all
    assert lists.ids(status="FAILED") == lists.failed
    assert lists.ids(status=["FAILED", "QUEUED", "PROCESSING"]) == lists.all
    assert lists.ids(status="COMPLETED") == set()
    assert lists.ids(connection=STUDIO) == lists.failed
    assert lists.ids(**{"metadata.scene": "1"}) == lists.odd
    assert lists.ids(**{"metadata.scene": "1", "metadata.project": "Zoë & 数学"}) == lists.odd
    assert lists.ids(**{"metadata.scene": "1", "status": "FAILED"}) == lists.odd & lists.failed
    assert lists.ids(**{"metadata.project": "another"}) == set()
    middle = sorted(lists.times.values())[6]
    later = {task_id for task_id, at in lists.times.items() if at > middle}
    earlier = {task_id for task_id, at in lists.times.items() if at < middle}
    assert (lists.ids(created_after=middle), lists.ids(created_before=middle)) == (later, earlier)
    slip = lists.team.call("GET", "/tasks", params={"state": "FAILED"})
    assert _fields(slip) == [("state", "unknown_parameter")]


def test_pages_show_every_task_once_though_others_are_registered_meanwhile(lists: Lists) -> None:
    seen: list[dict[str, Any]] = []
    late: list[str] = []
    for page in lists.pages(limit=5):
        assert len(page) <= 5
        seen += page
        late.append(_register(lists.team, {**_item(lists.team, seconds=0, outcome="fail")})["task_id"])
    ids = [task["task_id"] for task in seen]
    assert sorted(ids) == sorted(lists.all)
    assert [task["created_at"] for task in seen] == sorted((task["created_at"] for task in seen), reverse=True)
    assert len(late) >= 3
    for task_id in late:  # or they would be among what other tests count
        lists.team.call("DELETE", f"/tasks/{task_id}", params={"force": "true"})


def test_a_cursor_is_good_for_its_own_list_only(lists: Lists) -> None:
    cursor = lists.page(limit=2, status="FAILED")["next_cursor"]
    assert lists.page(limit=1, status="FAILED", cursor=cursor)["tasks"]
    middle = len(cursor) // 2
    tampered = cursor[:middle] + ("A" if cursor[middle] != "A" else "B") + cursor[middle + 1 :]
    for query in ({"status": "FAILED", "cursor": tampered}, {"cursor": cursor}, {"status": "FAILED", "cursor": "x"}):
        refused = lists.team.call("GET", "/tasks", params=query)
        assert _fields(refused) == [("cursor", "cursor_invalid")]


# -- Repeated calls -----------------------------------------------------------------------------------------------


def test_a_repeated_call_gets_the_first_answer_and_another_under_its_key_none(client: Client) -> None:
    team, key = client.of("repeating"), {"Idempotency-Key": f"order-{uuid4()}"}
    asked = {**_item(client, seconds=0, outcome="fail"), "metadata": {"order": "1"}}
    first = team.call("POST", "/tasks", json=asked, headers=key)
    assert first.status_code == 201
    assert team.ended(first.json()["task_id"])["status"] == "FAILED"
    again = team.call("POST", "/tasks", json=asked, headers=key)  # without the key this would be a new task
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    for change in ({"metadata": {"order": "2"}}, {"deadline_s": 3600}):
        other = team.call("POST", "/tasks", json={**asked, **change}, headers=key)
        assert _fields(other) == [("Idempotency-Key", "idempotency_key_reused")]
    assert len(team.call("GET", "/tasks").json()["tasks"]) == 1
    assert _register(client.of("ends"), asked, headers=key)["owner"] == "ends", "another owner's keys are other keys"


def test_of_calls_at_the_same_moment_under_one_key_one_is_done(client: Client) -> None:
    team, key = client.of("repeating"), {"Idempotency-Key": str(uuid4())}
    asked = {"url": client.hook("repeated"), "disabled": True}

    def call(_: int) -> requests.Response:
        return Client.call(team, "POST", "/endpoints", json=asked, headers=key)

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(call, range(2)))
    made = [answer for answer in answers if answer.status_code == 201]
    running = [answer for answer in answers if answer.status_code != 201]
    assert len({answer.json()["endpoint_id"] for answer in made}) == 1
    assert [_code(answer, 409) for answer in running] == ["request_running"] * len(running)
    assert len(team.call("GET", "/endpoints").json()["endpoints"]) == 1


def test_a_secret_is_shown_once_and_not_to_who_repeats_the_call(client: Client) -> None:
    asked, key = {"owner": "repeating", "name": "of the shop", "scope": "read"}, {"Idempotency-Key": str(uuid4())}
    first = client.call("POST", "/keys", json=asked, headers=key)
    again = client.call("POST", "/keys", json=asked, headers=key)
    secret = first.json()["key"]
    assert (first.status_code, again.status_code) == (201, 201)
    assert client.call("GET", "/tasks", headers={"x-api-key": secret}).status_code == 200
    assert (again.json()["key"], again.json()["key_id"]) == (None, first.json()["key_id"])
    assert "`key`" in again.json()["withheld"]
    assert secret not in again.text
    keys = client.call("GET", "/keys", params={"owner": "repeating"})
    assert [one["key_id"] for one in keys.json()["keys"]].count(first.json()["key_id"]) == 1
    assert secret not in keys.text


# -- What became of a task ----------------------------------------------------------------------------------------


def test_a_failed_task_is_taken_up_by_a_new_one(client: Client) -> None:
    team = client.of("retrying")
    hook = client.hook("retried")
    client.house.receiver.order("/hooks/retried", secret=team.call("GET", "/webhook-secret").json()["secret"])
    asked = {**_item(team, seconds=0, outcome="fail"), "metadata": {"order": "7"}, "webhook_url": hook}
    old = team.settled(_register(team, asked)["task_id"])
    assert old["status"] == "FAILED"
    client.house.simulators.change("jimmy", asked["provider_task_id"], outcome="succeed", size_bytes=100_000)
    answer = team.call("POST", f"/tasks/{old['task_id']}/retry")
    assert answer.status_code == 201, answer.text
    new = answer.json()
    assert new["task_id"] != old["task_id"]
    kept = ("connection", "provider_task_id", "metadata", "webhooks")
    assert {name: new[name] for name in kept} == {name: old[name] for name in kept}
    assert (new["retry_of"], old["retry_of"]) == (old["task_id"], None)
    assert team.ended(new["task_id"])["status"] == "COMPLETED"
    told = json.loads(team.told(new["task_id"], "task.completed").body)["data"]
    assert (told["retry_of"], told["metadata"]) == (old["task_id"], {"order": "7"})
    assert team.task(old["task_id"]) == old
    assert _code(team.call("POST", f"/tasks/{new['task_id']}/retry"), 409) == "task_not_failed"


def test_webhooks_are_sent_again_by_hand_and_every_attempt_is_listed(client: Client) -> None:
    team = client.of("ends")
    secret = team.call("GET", "/webhook-secret").json()["secret"]
    for name, order in (("again", {}), ("gone", {"always": True, "status": 410})):
        client.house.receiver.order(f"/hooks/{name}", secret=secret, **order)
    hooks = [{"url": client.hook("again")}, {"url": client.hook("gone")}]
    made = _register(team, {**_item(team, seconds=0, outcome="fail"), "webhooks": hooks})
    task = team.settled(made["task_id"])
    states = {one["url"]: one for one in task["deliveries"] if one["url"] in {hook["url"] for hook in hooks}}
    assert [states[hook["url"]]["state"] for hook in hooks] == ["delivered", "gone"]
    client.house.receiver.order("/hooks/gone", secret=secret)
    gone = states[client.hook("gone")]["endpoint_id"]
    route = f"/tasks/{task['task_id']}"
    sent = team.call("POST", f"{route}/redeliver", json={"endpoint_id": gone, "event": "task.failed"})
    assert sent.status_code == 202, sent.text
    team.told(task["task_id"], "task.failed")

    def attempts() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        query: dict[str, str] = {"limit": "1"}
        while True:
            page = team.call("GET", f"{route}/attempts", params=query).json()
            found += page["attempts"]
            if page["next_cursor"] is None:
                return [one for one in found if one["endpoint_id"] != "bus"]
            query["cursor"] = page["next_cursor"]

    seen = team.until(lambda: (found := attempts())[2:] and found, "the record of the third attempt")
    assert (seen[0]["endpoint_id"], seen[0]["manual"], seen[0]["status"], seen[0]["number"]) == (gone, True, 204, 2)
    assert {(one["status"], one["manual"], one["number"]) for one in seen[1:]} == {(204, False, 1), (410, False, 1)}
    after = team.settled(task["task_id"])
    assert {one["state"] for one in after["deliveries"]} == {"delivered"}
    heard = client.house.receiver.received(task_id=task["task_id"], path="/hooks/gone")
    assert [(one.answers, one.verified) for one in heard] == [([410, 204], True)], "the same bytes under the same id"
    assert team.call("POST", f"{route}/redeliver", json={"endpoint_id": "ep_nobodys"}).status_code == 404
    refused = team.call("GET", f"{route}/attempts", params={"cursor": "x"})
    assert _fields(refused) == [("cursor", "cursor_invalid")]


def test_a_file_is_found_under_its_lasting_link_in_parts_and_by_name(client: Client) -> None:
    body = {"connection": "scenext", "provider_task_id": client.house.simulators.create("scenext", seconds=0, videos=2)}
    task = client.ended(_register(client, body)["task_id"])
    files = [client.house.simulators.file("scenext", task["provider_task_id"], n) for n in (1, 2)]
    with requests.Session() as anybody:  # S3 takes no key
        anybody.trust_env = False
        for video, file in zip(task["videos"], files, strict=True):
            key = {"x-api-key": client.house.stack.api_key}
            led = anybody.get(video["url"], headers=key, timeout=30, allow_redirects=False)
            assert (led.status_code, led.headers["cache-control"]) == (302, "no-store")
            link, size = led.headers["location"], file.size_bytes
            for asked, start, stop in (
                ("100-299", 100, 300),
                ("-50", size - 50, size),
                (f"{size - 1}-", size - 1, size),
            ):
                part = anybody.get(link, headers={"Range": f"bytes={asked}"}, timeout=30)
                assert (part.status_code, part.content) == (206, b"".join(file.chunks(start, stop)))
                assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
            past = anybody.get(link, headers={"Range": f"bytes={size}-"}, timeout=30)
            assert past.status_code == 416
            asked_for = f"/tasks/{task['task_id']}/videos/{video['n']}?download=true"
            saved = anybody.get(client.call("GET", asked_for).headers["location"], timeout=30)
            assert saved.content == b"".join(file.chunks())
            name = f"{task['task_id']}-{video['n']}.mp4"
            assert saved.headers["content-disposition"].startswith(f'attachment; filename="{name}"')
            assert saved.headers["content-type"] == "video/mp4"
        denied = anybody.get(task["videos"][0]["url"], timeout=30, allow_redirects=False)
        assert denied.status_code == 401
    assert _code(client.call("GET", f"/tasks/{task['task_id']}/videos/3"), 404) == "not_found"


# -- Away with it -------------------------------------------------------------------------------------------------


def test_a_provider_that_can_delete_does_so_too(client: Client) -> None:
    task = client.start("moneyprinterturbo", seconds=0, size_bytes=100_000)
    assert client.settled(task["task_id"])["status"] == "COMPLETED"
    other = client.start("jimmy", seconds=3600)
    refused = client.call("DELETE", f"/tasks/{other['task_id']}?at_provider=true&force=true")
    assert _fields(refused) == [("at_provider", "provider_cannot_delete")]
    assert client.call("POST", f"/tasks/{other['task_id']}/cancel").json()["status"] == "CANCELLED"
    assert client.call("DELETE", f"/tasks/{task['task_id']}?at_provider=true").status_code == 202
    assert client.call("GET", f"/tasks/{task['task_id']}").status_code == 404
    source = f"{client.house.simulators.provider_urls['moneyprinterturbo']}/_sim/tasks/{task['provider_task_id']}"
    with requests.Session() as http:
        http.trust_env = False
        assert http.get(source, timeout=30).json()["outcome"] == "lose", "it is there no more"


# -- What is no call at all ---------------------------------------------------------------------------------------


def test_what_no_route_takes_is_a_problem_too(client: Client) -> None:
    assert _code(client.call("GET", "/nothing"), 404) == "not_found"
    other = client.call("PUT", "/tasks", json={})
    assert (_code(other, 405), other.headers["allow"]) == ("method_not_allowed", "GET, POST")
    large = client.call("POST", "/tasks", json={"connection": "x" * 70_000})
    assert _code(large, 413) == "body_too_large"
    assert _fields(client.call("POST", "/tasks", json=[1])) == [("body", "not_an_object")]


def test_a_deleted_task_is_there_no_more_and_its_files_follow(deleted: tuple[Client, list[dict[str, Any]]]) -> None:
    team, tasks = deleted
    for task in tasks:
        calls = [
            ("GET", ""),
            ("DELETE", "?force=true"),
            ("POST", "/cancel"),
            ("POST", "/retry"),
            ("POST", "/redeliver"),
        ]
        for method, below in [*calls, ("GET", "/attempts"), ("GET", "/videos/1")]:
            assert _code(team.call(method, f"/tasks/{task['task_id']}{below}"), 404) == "not_found"
    assert team.call("GET", "/tasks").json()["tasks"] == []
    for task in tasks:
        assert team.until(lambda task=task: team.remains(task) == [], "the removal")  # type: ignore[misc]
