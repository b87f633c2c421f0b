"""What an answer repeats of a refused request: names of fields and parameters, short and without keys; no values."""

from __future__ import annotations

import pytest

from tests.http_api import HOOK, World

KEYS = ["rbk_0123456789abcdefgh", "whsec_SjJAw80Tu9uefwGhiOl7oSuezp1s/9fQrlR+0gT+qmg="]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_taken_for_a_parameter_is_not_repeated(key: str) -> None:
    world = World()
    for name in (key, f"metadata-{key}", f"metadata.{key}", f"x.{key}"):
        answer = world.call("GET", "/tasks", query={name: ["1", "2"]})
        problem = answer.problem(422, "invalid_input")
        assert key[6:] not in str(answer.text)
        assert problem["errors"][0]["field"].endswith("…")


def test_a_long_name_of_a_parameter_is_cut() -> None:
    problem = World().call("GET", "/tasks", query={"x" * 5000: "1"}).problem(422, "invalid_input")
    assert problem["errors"][0]["field"] == "x" * 200 + "…"
    assert len(problem["detail"]) < 300


def test_a_name_of_a_parameter_that_is_no_unicode_is_shown_without_it() -> None:
    problem = World().call("GET", "/tasks", query={"a\ud800": "1"}).problem(422, "invalid_input")
    assert problem["errors"][0]["field"] == "a?"


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize(
    "headers", [{"hunter2": 7}, {"hunter2": ["a"], "hunter3": None}, {"rbk_0123456789": {}}, {"hunter2" * 100: 1}]
)
def test_a_headers_name_is_not_repeated(method: str, headers: dict[str, object]) -> None:
    world = World()
    path = "/endpoints"
    if method == "PATCH":
        path = f"/endpoints/{world.call('POST', '/endpoints', {'url': HOOK}).json['endpoint_id']}"
    answer = world.call(method, path, {"url": HOOK, "headers": headers})
    problem = answer.problem(422, "invalid_input")
    assert {one["field"] for one in problem["errors"]} == {"headers.…"}
    assert "hunter" not in str(answer.text)


def test_the_host_of_a_refused_url_is_cut() -> None:
    host = ".".join(["a" * 60] * 4)
    problem = World().call("POST", "/endpoints", {"url": f"https://{host}.internal"}).problem(422, "invalid_input")
    assert len(problem["errors"][0]["message"]) <= 201
    assert problem["errors"][0]["message"].endswith("…")


@pytest.mark.parametrize("key", KEYS)
def test_a_key_in_the_place_of_an_id_is_not_repeated(key: str) -> None:
    world = World()
    for path in (f"/tasks/{key}", f"/endpoints/{key}", f"/tasks/{key}/attempts"):
        answer = world.call("GET", path.replace("/9f", "9f"))
        answer.problem(404, "not_found")
        assert key[6:20] not in str(answer.text)
