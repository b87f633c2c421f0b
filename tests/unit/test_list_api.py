"""The list of tasks through the API's Lambda handler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from renderbell.task import FileKind, Source, Status
from tests.http_api import HOOK, World, sample


def registered(world: World, count: int = 1, **fields: object) -> list[str]:
    """The ids of new tasks, the newest first; a second passes after each."""
    made: list[str] = []
    for _ in range(count):
        number = len(world.task_ids())
        made.insert(0, world.registered(provider_task_id=f"job-{number}", **fields))
        world.clock.pass_s(1)
    return made


def shown(world: World, query: Mapping[str, str | Sequence[str]] | None = None, owner: str = "default") -> list[str]:
    answer = world.call("GET", "/tasks", query=query, owner=owner)
    assert answer.status == 200, answer.text
    return [one["task_id"] for one in answer.json["tasks"]]


def test_the_sample_event_lists_tasks() -> None:
    world = World()
    assert world.send(sample("list-tasks")).json == {"tasks": [], "next_cursor": None}


def test_tasks_are_listed_newest_first_twenty_a_page_and_the_cursor_leads_on() -> None:
    world = World()
    made = registered(world, 25)
    first = world.call("GET", "/tasks", scope="read").json
    assert [one["task_id"] for one in first["tasks"]] == made[:20]
    registered(world)
    second = world.call("GET", "/tasks", query={"cursor": first["next_cursor"], "limit": "10"}).json
    assert [one["task_id"] for one in second["tasks"]] == made[20:]
    assert second["next_cursor"] is None


def test_a_listed_task_shows_what_the_task_does_but_its_webhooks_and_deliveries() -> None:
    world = World()
    task_id = world.registered(webhook_url=HOOK, metadata={"order": "4711"})
    world.change(task_id, progress=40)
    (listed,) = world.call("GET", "/tasks").json["tasks"]
    whole = world.call("GET", f"/tasks/{task_id}").json
    assert whole.keys() - listed.keys() == {"webhooks", "deliveries"}
    assert listed == {name: whole[name] for name in listed}
    assert (listed["progress"], listed["metadata"]) == (40, {"order": "4711"})


def test_filters_by_state_connection_time_and_metadata_go_together() -> None:
    world = World()
    world.connect("other", "default")
    a, b, c = (registered(world, metadata={"order": n, "team": "x"})[0] for n in "123")
    d = registered(world, connection="other")[0]
    world.change(a, status=Status.FAILED, step=None, due_at=None)
    world.change(b, status=Status.EXPIRED, step=None, due_at=None)
    assert shown(world, {"status": "FAILED"}) == [a]
    assert shown(world, {"status": ["FAILED", "EXPIRED"]}) == [b, a]
    assert shown(world, {"connection": "other"}) == [d]
    assert shown(world, {"metadata.team": "x"}) == [c, b, a]
    assert shown(world, {"metadata.team": "x", "metadata.order": "3"}) == [c]
    assert shown(world, {"metadata.team": ""}) == []
    assert shown(world, {"created_after": "2026-03-01T12:00:00Z"}) == [d, c, b]
    assert shown(world, {"created_before": "2026-03-01T13:00:02+01:00"}) == [b, a]
    assert shown(world, {"metadata.team": "x", "status": ["QUEUED", "FAILED"], "created_before": "2026-03-02T00Z"}) == [
        c,
        a,
    ]


def test_the_time_that_a_task_shows_leaves_out_this_task_as_a_bound_though_it_was_registered_microseconds_later() -> (
    None
):
    world = World()
    world.clock.pass_s(0.123_456)
    (first,) = registered(world)
    (second,) = registered(world)
    first_at, second_at = (world.call("GET", f"/tasks/{one}").json["created_at"] for one in (first, second))
    assert first_at.endswith(".123Z")
    assert shown(world, {"created_after": first_at}) == [second]
    assert shown(world, {"created_before": second_at}) == [first]
    assert shown(world, {"created_after": first_at, "created_before": second_at}) == []
    assert shown(world, {"created_after": first_at.replace(".123", ".122999")}) == [second, first]
    assert shown(world, {"created_before": first_at.replace(".123", ".123001")}) == [first]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"limit": ["1", "2"]}, "limit"),
        ({"status": "RUNNING"}, "status"),
        ({"status": ["FAILED", "failed"]}, "status"),
        ({"status": "FAILED,EXPIRED"}, "status"),
        ({"created_after": "2026-03-01T12:00:00"}, "created_after"),
        ({"created_after": "1772366400"}, "created_after"),
        ({"created_before": "yesterday"}, "created_before"),
        ({"created_before": "0001-01-01T00:00:00+14:00"}, "created_before"),
        ({"created_before": "2026-03-01T12:00:00 01:00"}, "created_before"),
        ({"colour": "red"}, "colour"),
        ({"metadata": "red"}, "metadata"),
        ({"metadata.": "red"}, "metadata."),
        ({"metadata.a": ["1", "2"]}, "metadata.a"),
        ({"cursor": ""}, "cursor"),
        ({"cursor": "x"}, "cursor"),
    ],
)
def test_a_query_that_cannot_be_used_is_422_and_names_the_parameter(query: dict[str, Any], named: str) -> None:
    problem = World().call("GET", "/tasks", query=query).problem(422, "invalid_input")
    assert {one["field"].split(".0")[0].split(".1")[0] for one in problem["errors"]} == {named}


def test_a_cursor_is_bound_to_its_owner_and_its_query() -> None:
    world = World()
    registered(world, 3)
    query = {"limit": "1", "status": ["QUEUED", "FAILED"], "metadata.a": "b"}
    registered(world, 2, metadata={"a": "b"})
    cursor = world.call("GET", "/tasks", query=query).json["next_cursor"]
    again = {**query, "cursor": cursor}
    assert world.call("GET", "/tasks", query=again).status == 200
    assert world.call("GET", "/tasks", query={**again, "limit": "9", "status": ["FAILED", "QUEUED"]}).status == 200
    others: list[tuple[dict[str, Any], str]] = [
        (again, "rival"),
        ({"cursor": cursor}, "default"),
        ({**again, "status": "QUEUED"}, "default"),
        ({**again, "metadata.a": "c"}, "default"),
        ({**again, "connection": "studio"}, "default"),
        ({**again, "created_after": "2026-01-01T00:00:00Z"}, "default"),
        ({**again, "cursor": cursor[:-1] + ("A" if cursor[-1] != "A" else "B")}, "default"),
    ]
    for other, owner in others:
        problem = world.call("GET", "/tasks", query=other, owner=owner).problem(422, "invalid_input")
        assert [(one["field"], one["code"]) for one in problem["errors"]] == [("cursor", "cursor_invalid")]


def test_what_is_another_owners_is_answered_to_the_byte_as_what_does_not_exist() -> None:
    world = World()
    world.connect("theirs", "rival")
    theirs = {"connection": "theirs", "provider_task_id": "job-1"}
    assert world.call("POST", "/tasks", theirs, owner="rival").status == 201
    assert world.call("POST", "/tasks", theirs | {"provider_task_id": "job-2"}, owner="rival").status == 201
    refused = world.call("POST", "/tasks", theirs)
    refused.problem(422, "invalid_input")
    assert refused == world.call("POST", "/tasks", theirs | {"connection": "nobodys"})
    cursor = world.call("GET", "/tasks", query={"limit": "1"}, owner="rival").json["next_cursor"]
    refused = world.call("GET", "/tasks", query={"limit": "1", "cursor": cursor})
    refused.problem(422, "invalid_input")
    assert refused == world.call("GET", "/tasks", query={"limit": "1", "cursor": "nonsense"})
    unseen = [world.call("GET", "/tasks", query={"connection": name}) for name in ("theirs", "nobodys")]
    assert unseen[0] == unseen[1]


def test_another_owner_sees_an_empty_list() -> None:
    world = World()
    made = registered(world)
    assert shown(world, owner="rival") == []
    assert shown(world) == made


def test_a_page_of_the_largest_tasks_ends_before_it_is_too_large_to_be_answered() -> None:
    world = World()
    made = registered(world, 100, metadata={"k": "ü" * 2000})
    link = "https://cdn.example/" + '"' * 1900
    sources = tuple(Source(FileKind.VIDEO, f"{link}/{n}") for n in range(20))
    for task_id in made:
        world.change(task_id, sources=sources)
    seen: list[str] = []
    query: dict[str, str] = {"limit": "100"}
    pages = 0
    while True:
        answer = world.call("GET", "/tasks", query=query)
        assert answer.text is not None
        assert len(answer.text.replace('"', '\\"').encode()) < 6_000_000
        seen += [one["task_id"] for one in answer.json["tasks"]]
        pages += 1
        if answer.json["next_cursor"] is None:
            break
        query["cursor"] = answer.json["next_cursor"]
    assert seen == made
    assert pages >= 3
