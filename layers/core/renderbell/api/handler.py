"""The Lambda handler over all routes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.typing import LambdaContext

from renderbell.api import account, callbacks, deliveries, endpoints, keys, listing, service, tasks  # noqa: F401 - their routes
from renderbell.api.problems import BodyTooLargeError, MethodNotAllowedError, RouteNotFoundError, problem_answer
from renderbell.api.serving import JSON, METHODS, NO_STORE, QUERIES, ApiParts, app, caller_of, header_of
from renderbell.idempotency import HEADER, Said, fingerprint_of
from renderbell.ids import Seed

MAX_BODY_BYTES = 64 * 1024
BATCH = "/tasks/batch"
LARGE_BODIES = {BATCH: 256 * 1024}  # its answer is kept in an item of at most 400 KB
SHOWN_ONCE = {"/keys": "key"}  # the field of a route's answer that is a secret

_PLACE = re.compile(r"\{(\w+)\}")

logger = Logger()


def build_handler(parts: ApiParts) -> Callable[[dict[str, Any], LambdaContext], dict[str, Any]]:
    """The Lambda handler over the given parts."""

    @logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST, clear_state=True)
    def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        try:
            answer = _answer(event, context, parts)
        except Exception as error:  # what comes before the routes, which answer their own errors
            answer = _plain(problem_answer(error))
        answer["body"] = answer.get("body") or ""  # the emulator takes no null for a body, and AWS takes both
        logger.info(
            "request",
            extra={"method": event["httpMethod"], "route": event["resource"], "status": answer["statusCode"]},
        )
        return answer

    return handler


def _answer(event: dict[str, Any], context: LambdaContext, parts: ApiParts) -> dict[str, Any]:
    """Lets the caller in, as far as the key's scope goes, and answers: once for each `Idempotency-Key` of a POST."""
    allowed = METHODS.get(event["resource"])
    if allowed is None:
        raise RouteNotFoundError
    if event["httpMethod"] not in allowed:  # else the resolver might find a route of a wider pattern
        raise MethodNotAllowedError(allowed)
    event = {**event, "path": _matched_path(event)}
    most = LARGE_BODIES.get(event["resource"], MAX_BODY_BYTES)
    body = event.get("body") or ""
    if len(body.encode(errors="replace")) > most:
        raise BodyTooLargeError(f"the body may have at most {most // 1024} KiB")
    app.context["parts"] = parts
    app.context["caller"] = caller = caller_of(event)
    app.context["seed"] = None
    asked = event.get("multiValueQueryStringParameters") or {}
    if caller is not None:  # others may add what they like: monitors, and providers that call back
        QUERIES[event["httpMethod"], event["resource"]]().check(asked)
    key = header_of(event, HEADER)
    if event["httpMethod"] != "POST" or key is None or caller is None:
        return app.resolve(_as_json(event), context)

    def do(seed: Seed) -> Said:
        app.context["seed"] = seed
        answer = app.resolve(_as_json(event), context)
        made.append(answer)
        status, text = answer["statusCode"], answer["body"] or ""
        complete = status != 200 or event["resource"] != BATCH or _is_complete(text)
        return Said(status, _content_type(answer), _without_secrets(event["resource"], text), complete)

    made: list[dict[str, Any]] = []
    fingerprint = fingerprint_of(event["httpMethod"], event["path"], json.dumps(asked, sort_keys=True), body)
    said, again = parts.idempotency.once(caller.owner, key, fingerprint, do)
    if not again:
        return made[0]
    return {
        "statusCode": said.status,
        "headers": {"Content-Type": said.content_type, "Idempotency-Replayed": "true", **NO_STORE},
        "body": said.body,
        "isBase64Encoded": False,
    }


def _matched_path(event: Mapping[str, Any]) -> str:
    """The path of the route that API Gateway has matched and let the caller into, with the parameters that it found.

    The path that was called may begin with a custom domain's mapping, and hold a slash that was written `%2F`: by it,
    another route than the one whose scope was looked at might be found.
    """
    parameters: Mapping[str, str] = event.get("pathParameters") or {}

    def value(place: re.Match[str]) -> str:
        text = parameters.get(place[1])
        if not text:
            raise RouteNotFoundError
        return quote(text, safe="", errors="replace")

    return _PLACE.sub(value, event["resource"])


def _is_complete(batch: str) -> bool:
    """Whether nothing in a batch's answer is to be tried again."""
    results = json.loads(batch)["results"]
    return not any(one["status"] >= 500 or (one["problem"] or {}).get("code") == "try_again" for one in results)


def _without_secrets(resource: str, body: str) -> str:
    """An answer as it may be kept: what it shows this once is left out, and it says so."""
    secret = SHOWN_ONCE.get(resource)
    if secret is None:
        return body
    told = json.loads(body)
    if secret not in told:
        return body
    return json.dumps(told | {secret: None, "withheld": f"`{secret}` was shown in the first answer, and is not kept"})


def _content_type(answer: dict[str, Any]) -> str:
    named = {name.lower(): value for name, value in (answer.get("headers") or {}).items()}
    several = {name.lower(): value for name, value in (answer.get("multiValueHeaders") or {}).items()}
    return str(named.get("content-type") or several.get("content-type", [JSON])[0])


def _plain(answer: Response[str]) -> dict[str, Any]:
    """An answer that no route has made."""
    return {
        "statusCode": answer.status_code,
        "headers": answer.headers,
        "body": answer.body,
        "isBase64Encoded": False,
    }


def _as_json(event: dict[str, Any]) -> dict[str, Any]:
    """The event with its body declared as JSON, whatever the client calls it: curl's default is a form."""
    if not event.get("body"):
        return event
    return {**event, "headers": {**(event.get("headers") or {}), "content-type": JSON}}  # the last one counts
