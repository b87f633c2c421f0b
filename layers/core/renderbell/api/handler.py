"""The Lambda handler over all routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.typing import LambdaContext

from renderbell.api import account, keys, service, tasks  # noqa: F401 - their routes
from renderbell.api.problems import too_large
from renderbell.api.serving import JSON, ApiParts, app

MAX_BODY_BYTES = 64 * 1024
LARGE_BODIES = {"/tasks/batch": 1024 * 1024}

logger = Logger()


def build_handler(parts: ApiParts) -> Callable[[dict[str, Any], LambdaContext], dict[str, Any]]:
    """The Lambda handler over the given parts."""

    @logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST, clear_state=True)
    def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        most = LARGE_BODIES.get(event["resource"], MAX_BODY_BYTES)
        if len((event.get("body") or "").encode(errors="replace")) > most:
            answer = too_large(most)
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
