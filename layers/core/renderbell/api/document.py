"""The OpenAPI document of all routes."""

from __future__ import annotations

import json
from typing import Any, cast

from renderbell.api.problems import PROBLEM_JSON
from renderbell.api.serving import JSON, OPEN, SCOPES, app
from renderbell.idempotency import HEADER, KEY_PATTERN
from renderbell.views import example_view

VERSION = "0.1.0"  # the project's, which pyproject.toml gives too
DOCUMENTED_URL = "https://api.example.com"
TAGS = ("tasks", "endpoints", "webhooks", "connections", "keys", "callbacks", OPEN)  # in the document's order


def openapi_document(base_url: str) -> str:
    """The OpenAPI 3.1 document of all routes, as the API at this address serves it."""
    schema = app.get_openapi_schema(
        title="Renderbell",
        version=VERSION,
        summary="Rings when a render is done.",
        description=(
            "Register a render once; Renderbell polls its provider, keeps the finished files in your bucket, and "
            "calls back signed webhooks. Errors are problem documents (RFC 9457) with a stable `code`."
        ),
    )
    document = json.loads(schema.model_dump_json(by_alias=True, exclude_none=True))
    # Not by Powertools' models, which every cold start would have to build.
    document["servers"] = [{"url": base_url}]
    document["security"] = [{"apiKey": []}]
    document["components"]["securitySchemes"] = {"apiKey": _API_KEY}
    schemas = document["components"]["schemas"]
    for name in (
        "HTTPValidationError",
        "ResponseValidationError",
        "ValidationError",
        "JsonValue",
    ):  # of Powertools, and named nowhere
        schemas.pop(name, None)
    paths = document["paths"]
    document["paths"] = dict(sorted(paths.items(), key=lambda path: TAGS.index(_tag(path[1]))))
    schemas["TaskView"]["examples"] = [example_view(base_url).model_dump(mode="json")]
    document["components"]["parameters"] = {"IdempotencyKey": _IDEMPOTENCY_KEY}
    paths["/tasks"]["get"]["parameters"].append(_METADATA)
    document["paths"]["/callbacks/{connection}"]["post"] |= _SIGNED_BODY
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete(operation, method, needs_key=(method.upper(), path) in SCOPES)
    return json.dumps(document, indent=2, ensure_ascii=False)


def _complete(operation: dict[str, Any], method: str, *, needs_key: bool) -> None:
    """Says what holds for all operations."""
    answers = operation["responses"]
    if PROBLEM_JSON not in answers.get("422", {}).get("content", {PROBLEM_JSON: None}):
        del answers["422"]  # added by Powertools to every route
    answers.setdefault("413", _problem("The body is larger than 64 KiB."))  # also one that the route does not read
    answers["429"] = _problem("Too many requests; `Retry-After` says when to come again.") | {"headers": _RETRY}
    if not needs_key:
        operation["security"] = []
    else:
        answers.setdefault(
            "422", _problem("`unknown_parameter`: there is something in the query that it does not take.")
        )
        if method == "post":
            _tell_of_idempotency(operation)
    operation["responses"] = dict(sorted(answers.items()))


_API_KEY = {"type": "apiKey", "description": "`rbk_…`", "in": "header", "name": "x-api-key"}
_SIGNED_BODY = {  # which its route reads as bytes
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": {"type": "object", "description": "The provider's own."}}},
    }
}
_IDEMPOTENCY_KEY = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "A word of your own for this call. Repeated with the same body within 24 hours, the call is "
    "answered as the first time (with the header `Idempotency-Replayed: true`) and not done again. A refusal is not "
    "kept: the call is judged anew. What an answer shows only once is left out of the repetition.",
    "schema": {"type": "string", "pattern": KEY_PATTERN},
    "example": "order-4711",
}
_METADATA = {  # a parameter for each pair, as OpenAPI has it
    "name": "metadata",
    "in": "query",
    "required": False,
    "style": "form",
    "explode": True,
    "description": "With this pair in its metadata, as `metadata.<key>=<value>`; several must all be there.",
    "schema": {
        "type": "object",
        "propertyNames": {"pattern": r"^metadata\..+$"},
        "additionalProperties": {"type": "string"},
    },
    "example": {"metadata.order": "4711"},
}
_REPLAYED = {
    "description": "`true`: the call was done before under its `Idempotency-Key`, and this is its first answer.",
    "schema": {"type": "string", "enum": ["true"]},
}
_RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


def _problem(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _tell_of_idempotency(operation: dict[str, Any]) -> None:
    """Adds what every POST of a caller takes and may answer because of it."""
    operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/IdempotencyKey"})
    for status, word in (
        ("409", "`request_running`: the same call, with the same `Idempotency-Key`, is still running."),
        ("422", "`idempotency_key_reused`: the `Idempotency-Key` was used for another call."),
    ):
        answer = operation["responses"].setdefault(status, _problem(""))
        answer["description"] = f"{answer['description']} {word}".strip()
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            answer.setdefault("headers", {})["Idempotency-Replayed"] = _REPLAYED


def _tag(operations: dict[str, Any]) -> str:
    """The tag of a path's operations."""
    (tag,) = {tag for operation in operations.values() for tag in operation["tags"]}
    return cast(str, tag)
