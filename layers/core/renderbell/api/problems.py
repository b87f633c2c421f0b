"""Errors as problem documents (RFC 9457): their shape, which exception becomes which, and how routes document them."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar, cast

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError as UnmatchedError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse
from pydantic import Field, ValidationError

from renderbell.api.codes import FIELD_CODES, PROBLEM_CODES, listed
from renderbell.api.serving import JSON, NO_STORE, app
from renderbell.authorize import UnauthorizedError
from renderbell.callbacks import CallbackRefusedError
from renderbell.errors import (
    AlreadyRegisteredError,
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    ProviderError,
    RenderbellError,
)
from renderbell.models import Model

PROBLEM_JSON = "application/problem+json"
MAX_NAMED = 200  # characters of a field's name, or of a message, which may hold a host
HEADERS = "headers"  # the field whose values, and perhaps names, are secrets
MAX_PROBLEMS = 20  # named in one answer

_ErrorHandler = TypeVar("_ErrorHandler", bound=Callable[..., Response[str]])

logger = Logger()


class FieldProblem(Model):
    """What is wrong with one field."""

    field: str = Field(examples=["webhooks.0.url"])
    message: str
    code: str = Field(
        description=f"A stable word to act on: one of these, or of pydantic's error types.\n\n{listed(FIELD_CODES)}",
        examples=["url_not_allowed"],
    )


class Problem(Model):
    """An error, as RFC 9457 has it."""

    type: str = "about:blank"
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str
    code: str = Field(
        description=f"A stable word to act on.\n\n{listed(PROBLEM_CODES)}",
        examples=["invalid_input"],
        json_schema_extra={"enum": [*sorted(PROBLEM_CODES)]},
    )
    errors: list[FieldProblem] = Field(default=[], description="With 422: what is wrong with which field, at most 20.")
    task_id: str | None = Field(default=None, description="With `already_registered`: the task that is running.")


# RFC 9110's names; Python's own differ between its versions.
_TITLES = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Content Too Large",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Unprocessable Content",
}

_WORDS = {
    401: "No API key, or a wrong one.",
    403: "The key's scope does not cover this.",
    404: "There is no such thing, or it is not yours.",
    405: "The route takes other methods: `Allow` names them.",
    409: "The task's state forbids this.",
    410: "`video_expired`: the stored file has been removed by the retention rule.",
    413: "The body is larger than 64 KiB.",
    422: "Something in the request cannot be used; `errors` names the fields.",
    500: "Something failed on our side.",
    502: "`provider_unavailable`: the provider has not done it, or not said so; nothing has changed here.",
}


def documented(
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


def _answering(*errors: type[Exception]) -> Callable[[_ErrorHandler], _ErrorHandler]:
    return cast("Callable[[_ErrorHandler], _ErrorHandler]", app.exception_handler(list(errors)))


class BodyTooLargeError(RenderbellError):
    """The body is larger than its route allows."""


class RouteNotFoundError(RenderbellError):
    """There is no such route."""


class MethodNotAllowedError(RenderbellError):
    """The route has other methods, which are `allowed`."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = tuple(sorted(allowed))
        super().__init__(f"this route takes {', '.join(self.allowed)}")


class VideoExpiredError(RenderbellError):
    """The stored file has been removed."""


def problem_of(error: Exception) -> Problem:
    """What a caller is told of an error: names and rules, never what was sent, and nothing of an error of ours."""
    match error:
        case InvalidInputError():
            return _unusable([FieldProblem(field=error.field, message=str(error), code=error.code)])
        case RequestValidationError() | ValidationError():
            found = error.errors()
            named = [
                FieldProblem(field=_field(error, one["loc"]), message=one["msg"], code=one["type"]) for one in found
            ]
            return _unusable(named[:MAX_PROBLEMS], more=max(0, len(found) - MAX_PROBLEMS))
        case UnicodeDecodeError() | binascii.Error():
            return _unusable([FieldProblem(field="body", message="is not UTF-8", code="json_invalid")])
        case UnauthorizedError():
            return _problem(HTTPStatus.UNAUTHORIZED, "unauthorized", "no API key, or a wrong one")
        case CallbackRefusedError():
            return _problem(HTTPStatus.UNAUTHORIZED, "unauthorized", str(error))
        case ForbiddenError():
            return _problem(HTTPStatus.FORBIDDEN, "forbidden", str(error))
        case NotFoundError():
            return _problem(HTTPStatus.NOT_FOUND, "not_found", str(error))
        case MethodNotAllowedError():
            return _problem(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", str(error))
        case RouteNotFoundError() | UnmatchedError():
            return _problem(HTTPStatus.NOT_FOUND, "not_found", "there is no such route")
        case BodyTooLargeError():
            return _problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", str(error))
        case VideoExpiredError():
            return _problem(HTTPStatus.GONE, "video_expired", str(error))
        case AlreadyRegisteredError():
            return _problem(HTTPStatus.CONFLICT, error.code, str(error), task_id=error.task_id)
        case ProviderError():
            return _problem(HTTPStatus.BAD_GATEWAY, "provider_unavailable", str(error))
        case ConflictError():
            return _problem(HTTPStatus.CONFLICT, error.code, str(error))
        case _:
            return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "something failed on our side")


def _problem(
    status: HTTPStatus, code: str, detail: str, *, errors: list[FieldProblem] | None = None, task_id: str | None = None
) -> Problem:
    return Problem(
        title=_TITLES.get(status, status.phrase),
        status=status.value,
        detail=detail,
        code=code,
        errors=errors or [],
        task_id=task_id,
    )


def problem_answer(error: Exception) -> Response[str]:
    """The answer to an error; one of ours is told in the log only."""
    problem = problem_of(error)
    if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("request failed", exc_info=error)
    told = problem.model_dump(mode="json", exclude_none=True, exclude=None if problem.errors else {"errors"})
    headers = {**NO_STORE, "Allow": ", ".join(error.allowed)} if isinstance(error, MethodNotAllowedError) else NO_STORE
    return Response(problem.status, PROBLEM_JSON, json.dumps(told), headers)


def _unusable(errors: list[FieldProblem], *, more: int = 0) -> Problem:
    """The problem that names what is wrong; `more` counts what it leaves out."""
    errors = [FieldProblem(field=_short(one.field), message=_short(one.message), code=one.code) for one in errors]
    named = ", ".join(sorted({one.field for one in errors}))
    detail = f"cannot be used: {named}" + (f" and {more} more" if more else "")
    return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_input", detail, errors=errors)


_SECRET = re.compile(r"(rbk_|whsec_)[!-~]+")  # somebody may take a key for a field's name, or put it into a URL


def _field(error: Exception, location: tuple[int | str, ...]) -> str:
    """The dotted name of a field; for a request the location's first part says where it came from."""
    where, *path = location or ("body",)
    if isinstance(error, ValidationError):
        path = [*location]
    if HEADERS in path[:-1]:  # somebody may take a header's value for its name
        path = [*path[: path.index(HEADERS) + 1], "…"]
    return ".".join(str(part) for part in path) or str(where)


def _short(text: str) -> str:
    """What may be told of a text that comes from the request: its beginning, without keys."""
    text = _SECRET.sub(r"\1…", text.encode(errors="replace").decode())
    return text if len(text) <= MAX_NAMED else text[:MAX_NAMED] + "…"


@_answering(
    *(InvalidInputError, RequestValidationError, UnicodeDecodeError, binascii.Error, UnauthorizedError),
    *(
        ForbiddenError,
        NotFoundError,
        UnmatchedError,
        VideoExpiredError,
        ConflictError,
        CallbackRefusedError,
        ProviderError,
    ),
)
def _refused(error: Exception) -> Response[str]:
    return problem_answer(error)


@app.not_found
def _no_route(error: Exception) -> Response[str]:
    return problem_answer(RouteNotFoundError())


@_answering(Exception)
def _unexpected(error: Exception) -> Response[str]:
    return problem_answer(error)
