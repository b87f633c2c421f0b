"""What all routes of the HTTP API share: the resolver, who calls, from where, and how an answer is made."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar, cast, get_args, get_origin, get_type_hints

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from renderbell.authorize import Caller, UnauthorizedError
from renderbell.callbacks import Callbacks
from renderbell.errors import ForbiddenError, InvalidInputError
from renderbell.idempotency import Idempotency
from renderbell.ids import Seed
from renderbell.keys import Keys, Scope
from renderbell.listing import Listing
from renderbell.manage import Endpoints
from renderbell.models import Model
from renderbell.redeliver import Redelivery
from renderbell.register import Connections, Tasks
from renderbell.task import StoredFile

JSON = "application/json"
OPEN = "service"  # the tag of the routes that everybody may call
NO_STORE = {"Cache-Control": "no-store"}


class Parameters(NamedTuple):
    """What a route takes in its query: names, those that may be given more than once, and a prefix of more names."""

    names: frozenset[str]
    several: frozenset[str]
    prefix: str | None

    @classmethod
    def of(cls, function: Callable[..., Any], prefix: str | None) -> Parameters:
        """Those that a route's function names."""
        told = get_type_hints(function, include_extras=True)
        taken = {
            name: get_args(hint)[0]
            for name, hint in told.items()
            if any(isinstance(one, Query) for one in getattr(hint, "__metadata__", ()))
        }
        several = {name for name, kind in taken.items() if list in {get_origin(one) for one in (kind, *get_args(kind))}}
        return cls(frozenset(taken), frozenset(several), prefix)

    def check(self, query: Mapping[str, Sequence[str]]) -> None:
        """Raises `InvalidInputError` for a name that the route does not know, or that is given twice."""
        for name, values in query.items():
            begins = self.prefix is not None and name.startswith(self.prefix) and name != self.prefix
            if name not in self.names and not begins:
                raise InvalidInputError(name, "is no parameter of this route", code="unknown_parameter")
            if len(values) > 1 and name not in self.several:
                raise InvalidInputError(name, "must not be given twice", code="duplicate_parameter")


SCOPES: dict[tuple[str, str], Scope] = {}  # of the routes that need a key, by method and resource
METHODS: dict[str, set[str]] = {}  # of all routes, by resource
QUERIES: dict[tuple[str, str], Callable[[], Parameters]] = {}  # of all routes, read where one is first called

_Body = TypeVar("_Body", bound=Model)
_RouteFunction = TypeVar("_RouteFunction", bound=Callable[..., Any])

logger = Logger()


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class ApiParts:
    """What the routes need.

    `presign` makes a URL to a stored file that lives for the given seconds, as an attachment if it is given a file
    name; `master_secret` gives the deployment's master secret; `public_base_url` starts the links to this API, and is
    empty where the address of the registering call does.
    """

    tasks: Tasks
    callbacks: Callbacks
    listing: Listing
    redelivery: Redelivery
    endpoints: Endpoints
    keys: Keys
    idempotency: Idempotency
    connections: Connections
    presign: Callable[[StoredFile, int, str | None], str]
    master_secret: Callable[[], bytes]
    clock: Callable[[], datetime]
    public_base_url: str
    video_retention_days: int


def _load(text: str) -> Any:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInputError("body", "is not valid JSON", code="json_invalid") from None
    if not isinstance(body, dict):  # Powertools would take a list's first element for the body
        raise InvalidInputError("body", "is not a JSON object", code="not_an_object")
    return body


class _Resolver(APIGatewayRestResolver):
    """Takes a parameter of the path as it comes; Powertools finds no route where one holds `#`, `"` or an emoji."""

    @staticmethod
    def _compile_regex(rule: str, base_regex: str = r"^{}/*\Z") -> re.Pattern[str]:
        return re.compile(base_regex.format(re.sub(r"<(\w+)>", r"(?P<\1>[^/]+)", rule)))


app = _Resolver(enable_validation=True, json_body_deserializer=_load)


def current_parts() -> ApiParts:
    """What the handler was built over."""
    return cast(ApiParts, app.context["parts"])


def caller_of(event: Mapping[str, Any]) -> Caller | None:
    """Whom the authorizer let in; None for a route that needs no key, or that is none.

    Raises `UnauthorizedError`, and `ForbiddenError` if the scope does not cover what is asked.
    """
    needed = SCOPES.get((event["httpMethod"], event["resource"]))
    if needed is None:
        return None
    told = event["requestContext"].get("authorizer") or {}
    try:
        caller = Caller(told["owner"], Scope(told["scope"]), told["key_id"])
    except (KeyError, ValueError):
        raise UnauthorizedError("no word of the authorizer") from None
    logger.append_keys(owner=caller.owner, key_id=caller.key_id)
    if not caller.scope.covers(needed):
        raise ForbiddenError(f"this key's scope is {caller.scope}; it takes {needed}")
    return caller


def current_caller() -> Caller:
    """Who calls a route that needs a key."""
    return cast(Caller, app.context["caller"])


def current_seed() -> Seed | None:
    """What a call under an `Idempotency-Key` names by what it makes; None: a call that cannot be told from another."""
    return cast("Seed | None", app.context["seed"])


def header_of(event: Mapping[str, Any], name: str) -> str | None:
    """A header, whatever the case of its name."""
    headers: Mapping[str, str] = event.get("headers") or {}
    return next((value for one, value in headers.items() if one.lower() == name.lower()), None)


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


def current_base_url() -> str:
    """What starts the links to this API, in answers and in webhooks."""
    return current_parts().public_base_url.rstrip("/") or base_url_of(app.current_event.raw_event)


def route(
    method: str, rule: str, *, scope: Scope | None = None, query_prefix: str | None = None, **told: Any
) -> Callable[[_RouteFunction], _RouteFunction]:
    """Registers a route; its docstring is its description in the OpenAPI document.

    `scope` is what it takes of a caller; None: it needs no key. Its query may hold what its function names, and with
    `query_prefix` whatever begins so.
    """
    resource = rule.replace("<", "{").replace(">", "}")
    METHODS.setdefault(resource, set()).add(method)
    if scope is not None:
        SCOPES[method, resource] = scope

    def register(function: _RouteFunction) -> _RouteFunction:
        QUERIES[method, resource] = cache(partial(Parameters.of, function, query_prefix))
        return app.route(rule, method, description=inspect.getdoc(function), **told)(function)

    return register


def json_answer(status: HTTPStatus, body: _Body) -> Response[_Body]:
    """An answer that nobody keeps."""
    return Response(status.value, JSON, body, NO_STORE)
