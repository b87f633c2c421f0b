"""What API Gateway has matched and let in is what runs, however the path is written that it was matched by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aws_lambda_powertools.event_handler.exceptions import NotFoundError as UnmatchedError
from hypothesis import given
from hypothesis import strategies as st

from renderbell.api.problems import problem_of
from tests.http_api import HOOK, Answer, World, sample

EVENTS = sorted((Path(__file__).parents[2] / "events").glob("api-*.json"))


def called(
    world: World, method: str, resource: str, parameters: dict[str, str] | None = None, *, path: str, **caller: str
) -> Answer:
    """A call as API Gateway tells of it: what it matched, with the parameters decoded, and some path."""
    event = sample("connections", **caller)
    event |= {"httpMethod": method, "resource": resource, "pathParameters": parameters, "path": path}
    event["requestContext"] |= {"httpMethod": method, "resourcePath": resource, "path": f"/prod{path}"}
    return world.send(event)


@pytest.mark.parametrize("file", EVENTS, ids=lambda file: file.stem)
@pytest.mark.parametrize("mapping", ["", "/render", "/render/v1"])
def test_a_route_is_found_behind_the_mapping_of_a_custom_domain(file: Path, mapping: str) -> None:
    event: dict[str, Any] = json.loads(file.read_text("utf-8"))
    plain = World().send(event)
    event["path"] = mapping + event["path"]
    event["requestContext"] |= {"domainName": "api.example.com", "path": event["path"]}
    mapped = World().send(event)
    assert mapped.status == plain.status
    assert mapped.status < 500
    if mapped.status >= 400:
        assert mapped.json["code"] == plain.json["code"]


def test_links_lead_behind_the_mapping() -> None:
    event = sample("register")
    event["path"] = "/render/tasks"
    event["requestContext"] |= {"domainName": "api.example.com", "path": "/render/tasks"}
    world = World()
    task_id = world.send(event).json["task_id"]
    assert world.request(task_id).base_url == "https://api.example.com/render"


@pytest.mark.parametrize("written", ["/", "%2F", "%2f"])
def test_a_slash_in_a_parameter_leads_to_no_other_route(written: str) -> None:
    world = World()
    endpoint_id = world.call("POST", "/endpoints", {"url": HOOK}).json["endpoint_id"]
    parameters = {"endpoint_id": f"{endpoint_id}/secret"}
    path = f"/endpoints/{endpoint_id}{written}secret"
    for scope in ("read", "write"):
        answer = called(world, "GET", "/endpoints/{endpoint_id}", parameters, path=path, scope=scope)
        answer.problem(404, "not_found")
    control = called(
        world, "GET", "/endpoints/{endpoint_id}/secret", {"endpoint_id": endpoint_id}, path="/", scope="write"
    )
    assert control.json["secret"].startswith("whsec_")


@pytest.mark.parametrize("path", ["/tasks/", "//tasks", "/tasks//"])
def test_a_path_with_more_slashes_is_the_route_that_was_matched(path: str) -> None:
    assert called(World(), "GET", "/tasks", path=path).json["tasks"] == []


@pytest.mark.parametrize(
    "text", ['a"b', "a`b", "a\\b", "a#b", "a?b", "ä", "\n", "%", "..", ".", "batch", "\ud800", "a" * 5000]
)
def test_whatever_stands_in_the_place_of_an_id_is_404(text: str) -> None:
    answer = called(World(), "GET", "/tasks/{task_id}", {"task_id": text}, path=f"/tasks/{text}")
    answer.problem(404, "not_found")


@given(text=st.text(min_size=1, max_size=60))
def test_any_text_in_the_place_of_an_id_is_404(text: str) -> None:
    answer = called(World(), "GET", "/endpoints/{endpoint_id}", {"endpoint_id": text}, path=f"/endpoints/{text}")
    answer.problem(404, "not_found")


@pytest.mark.parametrize("parameters", [None, {}, {"task_id": ""}, {"n": "1"}])
def test_a_route_without_its_parameter_is_no_route(parameters: dict[str, str] | None) -> None:
    called(World(), "GET", "/tasks/{task_id}", parameters, path="/tasks/").problem(404, "not_found")


def test_where_the_resolver_finds_nothing_it_is_404() -> None:
    problem = problem_of(UnmatchedError())
    assert (problem.status, problem.code) == (404, "not_found")


def test_the_same_call_by_two_paths_is_the_same_for_an_idempotency_key() -> None:
    world = World()
    event = sample("register")
    event["headers"] |= {"Idempotency-Key": "a"}
    first = world.send(event)
    again = world.send(event | {"path": "/render/tasks"})
    assert (again.text, again.headers.get("idempotency-replayed")) == (first.text, "true")
