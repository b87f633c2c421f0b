"""The OpenAPI document: complete, and the same in the repository as in the code."""

from __future__ import annotations

import ast
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator
from pydantic import BaseModel, ValidationError

from renderbell.api import DOCUMENTED_URL, VERSION, openapi_document
from renderbell.api.codes import FIELD_CODES, PROBLEM_CODES
from renderbell.keys import KeyRequest
from renderbell.manage import EndpointChange, EndpointRequest, RecoverRequest
from renderbell.register import TaskRequest
from tests.http_api import World, sample

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(openapi_document(DOCUMENTED_URL))
    return found


def test_the_committed_document_is_that_of_the_code() -> None:
    committed = (ROOT / "docs" / "openapi.json").read_text("utf-8")
    assert committed == openapi_document(DOCUMENTED_URL) + "\n", "run: python -m renderbell.api > docs/openapi.json"


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == VERSION


def test_every_route_is_documented_and_has_a_sample_event(document: dict[str, Any]) -> None:
    documented = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    samples = [json.loads(file.read_text("utf-8")) for file in (ROOT / "events").glob("api-*.json")]
    assert documented == {(event["httpMethod"], event["resource"]) for event in samples}


def test_every_operation_says_what_it_is_for_and_whether_it_needs_a_key(document: dict[str, Any]) -> None:
    assert document["security"] == [{"apiKey": []}]
    assert document["components"]["securitySchemes"]["apiKey"]["name"] == "x-api-key"
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            assert operation["description"], path
            is_open = operation.get("security") == []
            assert is_open == (path in {"/health", "/openapi.json", "/docs", "/callbacks/{connection}"})
            assert is_open or "401" in operation["responses"]


def test_every_error_is_a_problem_document(document: dict[str, Any]) -> None:
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    schema = {"$ref": "#/components/schemas/Problem"}
                    assert answer["content"] == {"application/problem+json": {"schema": schema}}


def test_every_post_of_a_caller_may_be_repeated(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            references = [one.get("$ref") for one in operation.get("parameters", [])]
            taken = "#/components/parameters/IdempotencyKey" in references
            assert taken == (method == "post" and operation.get("security") != []), path
            if taken:
                assert "request_running" in operation["responses"]["409"]["description"]
                assert "idempotency_key_reused" in operation["responses"]["422"]["description"]


def test_every_route_of_a_caller_may_refuse_its_query(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert ("422" in operation["responses"]) == (operation.get("security") != []), path


def test_every_route_may_refuse_a_large_body(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            most = "256 KiB" if path == "/tasks/batch" else "64 KiB"
            assert most in operation["responses"]["413"]["description"], (method, path)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "events").glob("api-*.json")))
def test_every_route_refuses_a_large_body(name: str) -> None:
    world = World()
    event = sample(name.removeprefix("api-")) | {"body": " " * (256 * 1024 + 1)}
    world.send(event).problem(413, "body_too_large")
    assert world.table.items() == []


def test_what_was_done_under_a_key_says_so_when_it_is_told_again(document: dict[str, Any]) -> None:
    told = 0
    for methods in document["paths"].values():
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                replayed = "Idempotency-Replayed" in answer.get("headers", {})
                assert replayed == (method == "post" and operation.get("security") != [] and status < "300")
                told += replayed
    assert told >= 12


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(value: object) -> set[str]:
        if isinstance(value, dict):
            own = {str(value["$ref"])} if "$ref" in value else set()
            return own.union(*(references(one) for one in value.values()))
        return set().union(*(references(one) for one in value)) if isinstance(value, list) else set()

    known = {
        f"#/components/{kind}/{name}" for kind in ("schemas", "parameters") for name in document["components"][kind]
    }
    assert references(document) == known


def test_the_example_of_a_task_has_every_field(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["TaskView"]
    assert set(schema["examples"][0]) == set(schema["properties"]) == set(schema["required"])


# -- what the document refuses, and what the API does ---------------------------------------------------------------

HOOK = "https://hooks.example.com/x"
RENDER: dict[str, object] = {"connection": "studio", "provider_task_id": "job-7"}
KEY = {"owner": "team-a", "name": "ci", "scope": "read"}
BODIES: list[tuple[type[BaseModel], object, bool]] = [
    (TaskRequest, RENDER, True),
    (TaskRequest, RENDER | {"deadline_s": 90.0, "metadata": {"order": "4711\x7f", "é": ""}}, True),
    *((TaskRequest, RENDER | {"deadline_s": good}, True) for good in (60, 604_800)),
    (TaskRequest, RENDER | {"provider_task_id": "..."}, True),
    *((TaskRequest, RENDER | {"provider_task_id": bad}, False) for bad in ("", ".", "..", "a\n", "a\x85", "\ufffd")),
    *((TaskRequest, RENDER | {"metadata": bad}, False) for bad in ({"": "x"}, {"a\t": "x"}, {"a": "x\n"}, {"a": 1})),
    *((TaskRequest, RENDER | {"deadline_s": bad}, False) for bad in (90.5, True, "90", 59)),
    (KeyRequest, KEY, True),
    (KeyRequest, KEY | {"name": "a\x80b"}, True),
    *((KeyRequest, KEY | {"name": bad}, False) for bad in ("", "a\n", "\x7f", "a" * 101)),
    (EndpointRequest, {"url": HOOK, "description": "orders", "headers": {"Authorization": "Bearer x"}}, True),
    *((EndpointRequest, {"url": HOOK, "description": bad}, False) for bad in ("a\n", "\x7f", "a" * 257)),
    *(
        (EndpointRequest, {"url": HOOK, "headers": {name: value}}, False)
        for name, value in (("a b", "x"), ("", "x"), ("a\n", "x"), ("a", ""), ("a", " x"), ("a", "x\n"), ("a", "…"))
    ),
    (EndpointChange, {"headers": {"X-Team": "a"}, "description": ""}, True),
    (RecoverRequest, {"since": "2026-03-01T12:00:00+01:00"}, True),
    (RecoverRequest, {"since": "9990-12-31T23:59:59Z"}, True),
    *((RecoverRequest, {"since": bad}, False) for bad in ("1267-04-15T13:33:17Z", "9991-01-01T00:00:00Z", 1767225600)),
]


@pytest.mark.parametrize(("model", "body", "sound"), BODIES)
def test_a_body_is_refused_by_the_document_as_by_the_api(
    document: dict[str, Any], model: type[BaseModel], body: object, sound: bool
) -> None:
    schema = {"$ref": f"#/components/schemas/{model.__name__}", "components": document["components"]}
    assert Draft202012Validator(schema).is_valid(body) == sound
    try:
        model.model_validate(body)
    except ValidationError:
        assert not sound
    else:
        assert sound


def test_every_example_of_a_body_is_sound(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["EndpointRequest"]["properties"]["headers"]
    assert Draft202012Validator(schema).is_valid(schema["examples"][0])


def test_one_bad_render_does_not_make_a_batch_malformed(document: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/BatchRequest", "components": document["components"]}
    body = {"tasks": [RENDER, {"connection": 5}, None]}
    assert Draft202012Validator(schema).is_valid(body)
    assert [one["status"] for one in World().call("POST", "/tasks/batch", body).json["results"]] == [201, 422, 422]


# -- codes ------------------------------------------------------------------------------------------------------------


def codes_in(text: str) -> tuple[set[str], set[str]]:
    """The codes that a module tells problems by, and fields; raises for one that is not written out."""
    problems, fields = set(), set()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        named = {one.arg: one.value for one in node.keywords}
        if called == "PydanticCustomError":
            fields.add(ast.literal_eval(node.args[0]))
        elif called == "_problem" and len(node.args) == 3 and not isinstance(node.args[1], ast.Attribute):
            problems.add(ast.literal_eval(node.args[1]))
        elif called in {"InvalidInputError", "FieldProblem"} and isinstance(named.get("code"), ast.Constant):
            fields.add(ast.literal_eval(named["code"]))
        elif called.endswith("Error") or called == "__init__":
            problems |= {ast.literal_eval(value) for name, value in named.items() if name == "code"}
    return problems, fields


def test_the_document_lists_every_code_that_the_package_tells_and_no_other(document: dict[str, Any]) -> None:
    found = [codes_in(path.read_text("utf-8")) for path in (ROOT / "layers" / "core" / "renderbell").rglob("*.py")]
    problems, fields = (set().union(*kind) for kind in zip(*found, strict=True))
    of_the_gateway = {"bad_request", "throttled", "timeout", "unsupported_media_type"}
    assert problems | of_the_gateway == set(PROBLEM_CODES)
    assert fields == set(FIELD_CODES)
    schemas = document["components"]["schemas"]
    assert schemas["Problem"]["properties"]["code"]["enum"] == sorted(PROBLEM_CODES)
    for schema, codes in (("Problem", PROBLEM_CODES), ("FieldProblem", FIELD_CODES)):
        description = schemas[schema]["properties"]["code"]["description"]
        assert all(f"- `{code}`: " in description for code in codes)


@pytest.mark.parametrize(
    ("text", "problems", "fields"),
    [
        ('raise ConflictError("no", code="a")', {"a"}, set()),
        ('raise errors.ConflictError("no", code="a")', {"a"}, set()),
        ('super().__init__("no", code="a")', {"a"}, set()),
        ('_problem(HTTPStatus.GONE, "a", "no")', {"a"}, set()),
        ("_problem(HTTPStatus.CONFLICT, error.code, str(error))", set(), set()),
        ('raise InvalidInputError("field", "no", code="a")', set(), {"a"}),
        ('PydanticCustomError("a", "no")', set(), {"a"}),
        ('FieldProblem(field="body", message="no", code="a")', set(), {"a"}),
    ],
)
def test_every_way_to_tell_a_code_is_found(text: str, problems: set[str], fields: set[str]) -> None:
    assert codes_in(text) == (problems, fields)
