"""How a query is read: names that a route does not know are refused, and values are written in one way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.http_api import HOOK, Answer, World, asking, sample

ROUTES = sorted(path.stem.removeprefix("api-") for path in (Path(__file__).parents[2] / "events").glob("api-*.json"))
KEYED = [name for name in ROUTES if "authorizer" in sample(name)["requestContext"]]
NUMBERS = ["1_0", "1.0", "01", "+1", "-1", " 1", "1 ", "1e1", "0x1", "\uff11", "", "true", "9" * 19, "9" * 5000]
FLAGS = ["on", "y", "1", "True", "TRUE", "yes", "", " true", "t", "0", "off", "no", "null"]
TIMES = [0, 1772366400, 1772366400.5, "1772366400", True, None, ["2026-03-01T12:00:00Z"], "2026-03-01", "12:00:00Z"]


def codes(answer: Answer) -> list[tuple[str, str]]:
    return [(one["field"], one["code"]) for one in answer.problem(422, "invalid_input")["errors"]]


@pytest.mark.parametrize("name", KEYED)
def test_a_parameter_that_a_route_does_not_know_is_refused_and_nothing_done(name: str) -> None:
    world = World()
    event = asking(sample(name), at_provder="true")
    before = world.table.items()
    assert codes(world.send(event)) == [("at_provder", "unknown_parameter")]
    assert codes(world.send(event | {"headers": event["headers"] | {"Idempotency-Key": "a"}})) == [
        ("at_provder", "unknown_parameter")
    ]
    assert world.table.items() == before


def test_every_route_that_needs_a_key_is_among_these() -> None:
    assert set(ROUTES) - set(KEYED) == {"health", "openapi", "docs", "callback"}


@pytest.mark.parametrize("name", ["health", "openapi", "docs"])
def test_who_needs_no_key_may_ask_as_they_like(name: str) -> None:
    assert World().send(asking(sample(name), t="1772366400")).status == 200


def test_a_slip_in_a_parameter_deletes_nothing() -> None:
    world = World()
    task_id = world.completed()
    for query in ({"at_provder": "true"}, {"Force": "true"}, {"force": "true", "at_provider ": "true"}):
        answer = world.call("DELETE", f"/tasks/{task_id}", query=query)
        assert [code for _, code in codes(answer)] == ["unknown_parameter"]
    assert world.call("GET", f"/tasks/{task_id}").status == 200
    assert world.call("DELETE", f"/tasks/{task_id}").status == 202


def test_what_may_be_given_once_is_refused_twice() -> None:
    world = World()
    task_id = world.completed()
    for values in (["true", "false"], ["true", "true"]):
        answer = world.call("DELETE", f"/tasks/{task_id}", query={"force": values})
        assert codes(answer) == [("force", "duplicate_parameter")]
    assert world.call("GET", "/tasks", query={"status": ["FAILED", "QUEUED"]}).status == 200


@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_is_decimal_digits_without_sign_or_leading_zero(text: str) -> None:
    world = World()
    task_id = world.completed()
    assert codes(world.call("GET", "/tasks", query={"limit": text})) == [("limit", "number_invalid")]
    path = f"/tasks/{task_id}/attempts"
    assert codes(world.call("GET", path, query={"limit": text})) == [("limit", "number_invalid")]
    if text:
        assert codes(world.call("GET", f"/tasks/{task_id}/videos/{text}")) == [("n", "number_invalid")]
    assert world.call("GET", "/tasks", query={"limit": "10"}).status == 200
    assert world.call("GET", f"/tasks/{task_id}/videos/1").status == 302
    world.call("GET", f"/tasks/{task_id}/videos/0").problem(404, "not_found")
    world.call("GET", f"/tasks/{task_id}/videos/{'9' * 18}").problem(404, "not_found")


@pytest.mark.parametrize("text", FLAGS)
def test_a_flag_is_true_or_false(text: str) -> None:
    world = World()
    task_id = world.completed()
    for name in ("force", "at_provider"):
        assert codes(world.call("DELETE", f"/tasks/{task_id}", query={name: text})) == [(name, "flag_invalid")]
    for name in ("redirect", "download"):
        answer = world.call("GET", f"/tasks/{task_id}/videos/1", query={name: text})
        assert codes(answer) == [(name, "flag_invalid")]
    assert (
        world.call("GET", f"/tasks/{task_id}/videos/1", query={"redirect": "false", "download": "true"}).status == 200
    )
    assert world.call("DELETE", f"/tasks/{task_id}", query={"force": "true"}).status == 202


@pytest.mark.parametrize("since", TIMES)
def test_a_time_is_text_with_a_zone_wherever_it_stands(since: object) -> None:
    world = World()
    endpoint_id = world.call("POST", "/endpoints", {"url": HOOK}).json["endpoint_id"]
    path = f"/endpoints/{endpoint_id}/recover"
    assert codes(world.call("POST", path, {"since": since})) == [("since", "time_invalid")]
    if isinstance(since, str):
        answer = world.call("GET", "/tasks", query={"created_after": since})
        assert codes(answer) == [("created_after", "time_invalid")]
    for sound in ("2026-03-01T12:00:00Z", "2026-03-01T13:00:00.5+01:00"):
        assert world.call("POST", path, {"since": sound}).status == 202
        assert world.call("GET", "/tasks", query={"created_before": sound}).status == 200


def test_the_document_says_how_each_is_written() -> None:
    text = (Path(__file__).parents[2] / "docs" / "openapi.json").read_text("utf-8")
    paths = json.loads(text)["paths"]
    (limit,) = [one for one in paths["/tasks"]["get"]["parameters"] if one.get("name") == "limit"]
    (force, _) = [one for one in paths["/tasks/{task_id}"]["delete"]["parameters"] if one["in"] == "query"]
    (n,) = [one for one in paths["/tasks/{task_id}/videos/{n}"]["get"]["parameters"] if one["name"] == "n"]
    assert (limit["schema"]["type"], limit["schema"]["minimum"], limit["schema"]["maximum"]) == ("integer", 1, 100)
    assert (force["schema"]["type"], n["schema"]["type"]) == ("boolean", "integer")
