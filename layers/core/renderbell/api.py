"""The HTTP API: routes over the use cases, errors as problem documents, and the OpenAPI document of both.

Run as a module, it writes the OpenAPI document: `python -m renderbell.api > docs/openapi.json`.
"""

from __future__ import annotations

import binascii
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from importlib import resources
from typing import Annotated, Any, Literal, TypeVar, cast

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError as RouteNotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.models import APIKey, Server
from aws_lambda_powertools.event_handler.openapi.params import Path, Query
from aws_lambda_powertools.event_handler.openapi.swagger_ui import generate_swagger_html
from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, Field

from renderbell import endpoints
from renderbell.authorize import Caller, Scope, UnauthorizedError
from renderbell.connections import usable_by
from renderbell.errors import (
    AlreadyRegisteredError,
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    RenderbellError,
)
from renderbell.providers import poll_schedule_for
from renderbell.register import Connections, TaskRequest, Tasks
from renderbell.task import StoredFile
from renderbell.views import TaskView, Time, example_view, task_view

__all__ = ["ApiParts", "app", "base_url_of", "build_handler", "openapi_document"]

VERSION = "0.1.0"  # the project's, which pyproject.toml gives too
DOCUMENTED_URL = "https://api.example.com"
MAX_BODY_BYTES = 64 * 1024
LINK_S = 3600  # how long a presigned URL lives; the function's role may end it earlier
JSON = "application/json"
PROBLEM_JSON = "application/problem+json"
MAX_FIELD_NAME = 200
MAX_PROBLEMS = 20  # named in one answer
OPEN = "service"  # the tag of the routes that need no key
NO_STORE = {"Cache-Control": "no-store"}
# The page runs its scripts inline, and may talk to nobody but this API.
DOCS_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; "
    "font-src data:; connect-src 'self'"
)

_Body = TypeVar("_Body", bound=BaseModel)
_ErrorHandler = TypeVar("_ErrorHandler", bound=Callable[..., Response[str]])
_RouteFunction = TypeVar("_RouteFunction", bound=Callable[..., Any])

logger = Logger()


# -- wiring -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiParts:
    """What the routes need.

    `presign` makes a URL to a stored file that lives for the given seconds, as an attachment if it is given a file
    name; `master_secret` gives the deployment's master secret; `public_base_url` starts the links to this API, and is
    empty where the address of the registering call does.
    """

    tasks: Tasks
    connections: Connections
    presign: Callable[[StoredFile, int, str | None], str]
    master_secret: Callable[[], bytes]
    clock: Callable[[], datetime]
    public_base_url: str
    video_retention_days: int


def build_handler(parts: ApiParts) -> Callable[[dict[str, Any], LambdaContext], dict[str, Any]]:
    """The Lambda handler over the given parts."""

    @logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST, clear_state=True)
    def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        if len((event.get("body") or "").encode(errors="replace")) > MAX_BODY_BYTES:
            answer = _too_large()
        else:
            app.context["parts"] = parts
            answer = app.resolve(_as_json(event), context)
        logger.info(
            "request",
            extra={"method": event["httpMethod"], "route": event["resource"], "status": answer["statusCode"]},
        )
        return answer

    return handler


def _as_json(event: dict[str, Any]) -> dict[str, Any]:
    """The event with its body declared as JSON, whatever the client calls it: curl's default is a form."""
    if not event.get("body"):
        return event
    return {**event, "headers": {**(event.get("headers") or {}), "content-type": JSON}}  # the last one counts


def _load(text: str) -> Any:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInputError("body", "is not valid JSON", code="json_invalid") from None
    if not isinstance(body, dict):  # Powertools would take a list's first element for the body
        raise InvalidInputError("body", "is not a JSON object", code="not_an_object")
    return body


app = APIGatewayRestResolver(enable_validation=True, json_body_deserializer=_load)


def _parts() -> ApiParts:
    return cast(ApiParts, app.context["parts"])


def _caller(needed: Scope) -> Caller:
    """Whom the authorizer let in, if the scope covers what is asked."""
    told = app.current_event.raw_event["requestContext"].get("authorizer") or {}
    try:
        caller = Caller(told["owner"], Scope(told["scope"]), told["key_id"])
    except (KeyError, ValueError):
        raise UnauthorizedError("no word of the authorizer") from None
    logger.append_keys(owner=caller.owner, key_id=caller.key_id)
    if not caller.scope.covers(needed):
        raise ForbiddenError(f"this key's scope is {caller.scope}; it takes {needed}")
    return caller


def base_url_of(event: Mapping[str, Any]) -> str:
    """The address that the call came to, without the route: the API's own, or that of a custom domain.

    The stage, or the mapping of the custom domain, is what stands in the called path before the route.
    """
    context = event["requestContext"]
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    segments = context["path"].rstrip("/").split("/")
    routed = len([part for part in event["resource"].split("/") if part])
    prefix = "/".join(segments[: len(segments) - routed])
    scheme = headers.get("x-forwarded-proto", "https").split(",")[0].strip()
    host = context.get("domainName") or headers.get("host", "localhost")
    return f"{scheme}://{host}{prefix}"


def _base_url() -> str:
    return _parts().public_base_url.rstrip("/") or base_url_of(app.current_event.raw_event)


# -- shapes -------------------------------------------------------------------------------------------------------


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(examples=["webhooks.0.url"])
    message: str
    code: str = Field(examples=["url_not_allowed"])


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = "about:blank"
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str
    code: str = Field(description="A stable word to act on.", examples=["invalid_input"])
    errors: list[FieldProblem] = Field(default=[], description="With 422: what is wrong with which field, at most 20.")
    task_id: str | None = Field(default=None, description="With `already_registered`: the task that is running.")


class DeletedTask(BaseModel):
    """A task that is there no more."""

    task_id: str
    deleted: Literal[True]


class VideoLink(BaseModel):
    """A presigned URL to a stored file."""

    url: str
    expires_at: Time


class WebhookSecret(BaseModel):
    """The secret that signs webhooks to URLs given with a task."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])


class ConnectionView(BaseModel):
    """A connection that tasks may name."""

    name: str
    type: str
    poll_interval_s: float = Field(description="How often a task is polled, in seconds.")


class ConnectionList(BaseModel):
    """The connections of the caller."""

    connections: list[ConnectionView]


class Health(BaseModel):
    """The API answers."""

    status: str
    version: str


# RFC 9110's names; Python's own differ between its versions.
_TITLES = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Content Too Large",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Unprocessable Content",
}

_WORDS = {
    401: "No API key, or a wrong one.",
    403: "The key's scope does not cover this.",
    404: "There is no such thing, or it is not yours.",
    409: "The task's state forbids this.",
    410: "`video_expired`: the stored file has been removed by the retention rule.",
    413: "The body is larger than 64 KiB.",
    422: "Something in the request cannot be used; `errors` names the fields.",
    500: "Something failed on our side.",
}


def _documented(
    *errors: int, words: Mapping[int, str] | None = None, **answers: tuple[str, object]
) -> dict[int, OpenAPIResponse]:
    """What a route may answer, for the OpenAPI document: `ok_201=("…", Model)`, then the errors.

    `words` describe an error where the route has more to say than is true of all.
    """
    told = _WORDS | dict(words or {})
    found: dict[int, Any] = {}
    for name, (description, model) in answers.items():
        content = {JSON: {"model": model}} if model else {}
        status = int(name.removeprefix("ok_"))
        found[status] = {"description": description, "content": content}
        if status == HTTPStatus.FOUND:
            found[status]["headers"] = {"Location": {"description": "The URL.", "schema": {"type": "string"}}}
    for status in (*errors, 500):
        found[status] = {"description": told[status], "content": {PROBLEM_JSON: {"model": Problem}}}
    return cast(dict[int, OpenAPIResponse], found)


# -- routes -------------------------------------------------------------------------------------------------------


def _route(method: str, rule: str, **told: Any) -> Callable[[_RouteFunction], _RouteFunction]:
    """Registers a route; its docstring is its description in the OpenAPI document."""

    def register(function: _RouteFunction) -> _RouteFunction:
        return app.route(rule, method, description=inspect.getdoc(function), **told)(function)

    return register


TaskId = Annotated[str, Path(description="The `task_id` of a task.")]


@_route(
    "POST",
    "/tasks",
    summary="Register a render",
    operation_id="registerTask",
    tags=["tasks"],
    responses=_documented(
        401,
        403,
        409,
        413,
        422,
        ok_201=("The task is registered.", TaskView),
        ok_200=("The same render is already watched, with equal settings: that task.", TaskView),
        words={
            409: "`already_registered`: it is watched with other settings, and `task_id` names that task. "
            "`try_again`: another registration of it is under way."
        },
    ),
)
def post_task(asked: TaskRequest) -> Response[TaskView]:
    """Begins to watch a render that was started at a provider.

    While the provider works on it (QUEUED, PROCESSING), registering the same render again answers 200 with that task if
    webhooks, metadata and deadline are equal or absent, else 409 `already_registered`. From COPYING on it makes a new
    task, with its own copy and webhooks.
    """
    caller = _caller(Scope.WRITE)
    found = _parts().tasks.register_task(asked, owner=caller.owner, base_url=_base_url())
    view = task_view(found.task, found.request, found.deliveries)
    return _json(HTTPStatus.CREATED if found.created else HTTPStatus.OK, view)


@_route(
    "GET",
    "/tasks/<task_id>",
    summary="Read a task",
    operation_id="readTask",
    tags=["tasks"],
    responses=_documented(401, 404, ok_200=("The task.", TaskView)),
)
def get_task(task_id: TaskId) -> Response[TaskView]:
    """A task with its history, its files, and what became of its webhooks."""
    caller = _caller(Scope.READ)
    found = _parts().tasks.read_task(task_id, owner=caller.owner)
    return _json(HTTPStatus.OK, task_view(found.task, found.request, found.deliveries))


@_route(
    "DELETE",
    "/tasks/<task_id>",
    summary="Delete a task",
    operation_id="deleteTask",
    tags=["tasks"],
    responses=_documented(
        401,
        403,
        404,
        409,
        422,
        ok_202=("The task is deleted; its files follow within minutes.", DeletedTask),
        words={409: "`task_running`, `delivery_pending`, or `try_again`: the task is changing just now."},
    ),
)
def delete_task(
    task_id: TaskId,
    force: Annotated[bool, Query(description="`true`: cancel a running task, and drop pending deliveries.")] = False,
) -> Response[DeletedTask]:
    """Removes a task with its attempts and its stored files; from then on every route answers 404 for it.

    While the task runs it answers 409 `task_running`, and while a webhook is yet to be delivered 409
    `delivery_pending`, unless `force=true` says to do it all the same. No webhook is sent for a deleted task; one that
    is on its way just then may still arrive. The render at the provider goes on, and can be registered anew at once.
    """
    caller = _caller(Scope.WRITE)
    _parts().tasks.delete_task(task_id, owner=caller.owner, force=force)
    return _json(HTTPStatus.ACCEPTED, DeletedTask(task_id=task_id, deleted=True))


@_route(
    "POST",
    "/tasks/<task_id>/cancel",
    summary="Cancel a task",
    operation_id="cancelTask",
    tags=["tasks"],
    responses=_documented(
        401,
        403,
        404,
        409,
        ok_200=("The task, CANCELLED.", TaskView),
        words={409: "`task_ended`, or `try_again`: the task is changing just now."},
    ),
)
def post_cancel(task_id: TaskId) -> Response[TaskView]:
    """Stops watching; the provider goes on. A task that has ended in another way answers 409 `task_ended`."""
    caller = _caller(Scope.WRITE)
    found = _parts().tasks.cancel_task(task_id, owner=caller.owner)
    return _json(HTTPStatus.OK, task_view(found.task, found.request, found.deliveries))


@_route(
    "GET",
    "/tasks/<task_id>/videos/<n>",
    summary="Fetch a stored file",
    operation_id="fetchVideo",
    tags=["tasks"],
    responses=_documented(
        401,
        404,
        410,
        422,
        ok_302=("A fresh presigned URL, in the header Location.", None),
        ok_200=("The same URL as JSON, with `redirect=false`.", VideoLink),
    ),
)
def get_video(
    task_id: TaskId,
    n: Annotated[int, Path(description="The number of the file, from 1.")],
    download: Annotated[bool, Query(description="Ask the browser to save the file.")] = False,
    redirect: Annotated[bool, Query(description="`false`: answer the URL as JSON.")] = True,
) -> Response[VideoLink | str]:
    """Leads to the file in S3, which also answers range requests. Ask again when the URL has expired.

    Clients that send `x-api-key` along with a redirect do better with `redirect=false`.
    """
    caller, parts = _caller(Scope.READ), _parts()
    task = parts.tasks.read_task(task_id, owner=caller.owner).task
    file = next((one for one in task.files if one.n == n), None)
    if file is None:  # only a COMPLETED task has files
        raise NotFoundError("there is no such file")
    now = parts.clock()
    kept = timedelta(days=parts.video_retention_days)
    if kept and now >= task.history[-1].at + kept:
        raise _VideoExpiredError("the file has been removed by the retention rule")
    suffix = file.key.rpartition("/")[2].rpartition(".")[2]
    url = parts.presign(file, LINK_S, f"{task_id}-{n}.{suffix}" if download else None)
    if redirect:
        return Response(HTTPStatus.FOUND.value, "text/plain", "", {**NO_STORE, "Location": url})
    link = VideoLink(url=url, expires_at=now + timedelta(seconds=LINK_S))
    return Response(HTTPStatus.OK.value, JSON, link, NO_STORE)


@_route(
    "GET",
    "/webhook-secret",
    summary="Read the webhook secret",
    operation_id="readWebhookSecret",
    tags=["webhooks"],
    responses=_documented(401, 403, ok_200=("The secret.", WebhookSecret)),
)
def get_webhook_secret() -> Response[WebhookSecret]:
    """The secret that signs webhooks to URLs given with a task, in the form of Standard Webhooks."""
    caller = _caller(Scope.WRITE)
    secret = endpoints.derive_secret(_parts().master_secret(), "owner", caller.owner, 1)
    return _json(HTTPStatus.OK, WebhookSecret(secret=secret))


@_route(
    "GET",
    "/connections",
    summary="List connections",
    operation_id="listConnections",
    tags=["connections"],
    responses=_documented(401, ok_200=("The connections that your tasks may name.", ConnectionList)),
)
def get_connections() -> Response[ConnectionList]:
    """The connections that your tasks may name."""
    caller, parts = _caller(Scope.READ), _parts()
    usable = [one for _, one in sorted(parts.connections.all().items()) if usable_by(one, caller.owner)]
    views = [
        ConnectionView(name=one.name, type=one.type, poll_interval_s=poll_schedule_for(one).interval_s)
        for one in usable
    ]
    return _json(HTTPStatus.OK, ConnectionList(connections=views))


@_route(
    "GET",
    "/health",
    summary="Ask whether the API answers",
    operation_id="health",
    tags=[OPEN],
    responses=_documented(ok_200=("It does.", Health)),
)
def get_health() -> Response[Health]:
    """Needs no key."""
    return _json(HTTPStatus.OK, Health(status="ok", version=VERSION))


@_route(
    "GET",
    "/openapi.json",
    summary="Read this document",
    operation_id="openapi",
    tags=[OPEN],
    responses=_documented(ok_200=("This OpenAPI document.", dict[str, Any])),
)
def get_openapi() -> Response[str]:
    """This API as an OpenAPI document. Needs no key."""
    return Response(HTTPStatus.OK.value, JSON, openapi_document(_base_url()), NO_STORE)


@_route(
    "GET",
    "/docs",
    summary="Read this document as a page",
    operation_id="docs",
    tags=[OPEN],
    responses={200: {"description": "A page.", "content": {"text/html": {"schema": {"type": "string"}}}}},
)
def get_docs() -> Response[str]:
    """This API as a page to read and try. Needs no key, and no other host."""
    ui = resources.files("aws_lambda_powertools.event_handler.openapi.swagger_ui")
    page = generate_swagger_html(
        openapi_document(_base_url()).replace("</", "<\\/"),
        ui.joinpath("swagger-ui-bundle.min.js").read_text("utf-8"),
        ui.joinpath("swagger-ui.min.css").read_text("utf-8"),
        "",
        None,
    )
    headers = {**NO_STORE, "Content-Security-Policy": DOCS_POLICY}
    return Response(HTTPStatus.OK.value, "text/html; charset=utf-8", page, headers)


def _json(status: HTTPStatus, body: _Body) -> Response[_Body]:
    return Response(status.value, JSON, body, NO_STORE)


# -- errors -------------------------------------------------------------------------------------------------------


def _answering(*errors: type[Exception]) -> Callable[[_ErrorHandler], _ErrorHandler]:
    return cast("Callable[[_ErrorHandler], _ErrorHandler]", app.exception_handler(list(errors)))


class _VideoExpiredError(RenderbellError):
    """The stored file has been removed."""


def _problem(
    status: HTTPStatus, code: str, detail: str, *, errors: list[FieldProblem] | None = None, task_id: str | None = None
) -> Response[str]:
    problem = Problem(
        title=_TITLES.get(status, status.phrase),
        status=status.value,
        detail=detail,
        code=code,
        errors=errors or [],
        task_id=task_id,
    )
    told = problem.model_dump(mode="json", exclude_none=True, exclude=None if errors else {"errors"})
    return Response(status.value, PROBLEM_JSON, json.dumps(told), NO_STORE)


def _too_large() -> dict[str, Any]:
    told = _problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", "the body may have at most 64 KiB")
    return {
        "statusCode": told.status_code,
        "headers": told.headers,
        "body": told.body,
        "isBase64Encoded": False,
    }


@_answering(InvalidInputError)
def _invalid_input(error: InvalidInputError) -> Response[str]:
    return _unusable([FieldProblem(field=error.field, message=str(error), code=error.code)])


@_answering(RequestValidationError)
def _invalid_request(error: RequestValidationError) -> Response[str]:
    """Names fields and rules, never what was sent."""
    found = error.errors()
    return _unusable(
        [
            FieldProblem(field=_field(one["loc"]), message=str(one["msg"]), code=str(one["type"]))
            for one in found[:MAX_PROBLEMS]
        ],
        more=max(0, len(found) - MAX_PROBLEMS),
    )


@_answering(UnicodeDecodeError, binascii.Error)
def _unreadable_body(_: Exception) -> Response[str]:
    return _unusable([FieldProblem(field="body", message="is not UTF-8", code="json_invalid")])


def _unusable(errors: list[FieldProblem], *, more: int = 0) -> Response[str]:
    """The answer that names what is wrong; `more` counts what it leaves out."""
    errors = [one.model_copy(update={"message": _SECRET.sub(r"\1…", one.message)}) for one in errors]
    named = ", ".join(sorted({one.field for one in errors}))
    detail = f"cannot be used: {named}" + (f" and {more} more" if more else "")
    return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_input", detail, errors=errors)


_SECRET = re.compile(r"(rbk_|whsec_)[!-~]+")  # somebody may take a key for a field's name, or put it into a URL


def _field(location: tuple[int | str, ...]) -> str:
    """The dotted name of a field; the location's first part says where it came from."""
    where, *path = location or ("body",)
    name = (".".join(str(part) for part in path) or str(where)).encode(errors="replace").decode()
    name = _SECRET.sub(r"\1…", name)
    return name if len(name) <= MAX_FIELD_NAME else name[:MAX_FIELD_NAME] + "…"


@_answering(UnauthorizedError)
def _unauthorized(_: UnauthorizedError) -> Response[str]:
    return _problem(HTTPStatus.UNAUTHORIZED, "unauthorized", "no API key, or a wrong one")


@_answering(ForbiddenError)
def _forbidden(error: ForbiddenError) -> Response[str]:
    return _problem(HTTPStatus.FORBIDDEN, "forbidden", str(error))


@_answering(NotFoundError)
def _not_found(error: NotFoundError) -> Response[str]:
    return _problem(HTTPStatus.NOT_FOUND, "not_found", str(error))


@app.not_found
def _no_route(_: RouteNotFoundError) -> Response[str]:
    return _problem(HTTPStatus.NOT_FOUND, "not_found", "there is no such route")


@_answering(_VideoExpiredError)
def _video_expired(error: _VideoExpiredError) -> Response[str]:
    return _problem(HTTPStatus.GONE, "video_expired", str(error))


@_answering(ConflictError)
def _conflict(error: ConflictError) -> Response[str]:
    task_id = error.task_id if isinstance(error, AlreadyRegisteredError) else None
    return _problem(HTTPStatus.CONFLICT, error.code, str(error), task_id=task_id)


@_answering(Exception)
def _unexpected(_: Exception) -> Response[str]:
    logger.exception("request failed")
    return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "something failed on our side")


# -- the document -------------------------------------------------------------------------------------------------


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
        servers=[Server(url=cast(Any, base_url))],
        security_schemes={
            "apiKey": APIKey.model_validate({"name": "x-api-key", "in": "header", "description": "`rbk_…`"})
        },
        security=[{"apiKey": []}],
    )
    document = json.loads(schema.model_dump_json(by_alias=True, exclude_none=True))
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ResponseValidationError", "ValidationError"):  # Powertools' own error shapes
        schemas.pop(name, None)
    schemas["TaskView"]["examples"] = [example_view(base_url).model_dump(mode="json")]
    for operation in (one for path in document["paths"].values() for one in path.values()):
        answers = operation["responses"]
        if PROBLEM_JSON not in answers.get("422", {}).get("content", {PROBLEM_JSON: None}):
            del answers["422"]  # added by Powertools to every route
        operation["responses"] = dict(sorted(answers.items()))
        if operation["tags"] == [OPEN]:
            operation["security"] = []
    return json.dumps(document, indent=2, ensure_ascii=False)


if __name__ == "__main__":
    sys.stdout.write(openapi_document(DOCUMENTED_URL) + "\n")
