"""The route that providers call themselves; a signature stands in the place of a key."""

from __future__ import annotations

import base64
from http import HTTPStatus
from typing import Annotated, Literal

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Path

from renderbell.api.problems import documented
from renderbell.api.serving import app, current_parts, json_answer, route
from renderbell.models import Model


class CallbackTaken(Model):
    """The call is believed; what comes of it is not told."""

    accepted: Literal[True]


@route(
    "POST",
    "/callbacks/<connection>",
    summary="Take a provider's call",
    operation_id="takeCallback",
    tags=["callbacks"],
    responses=documented(
        *(401, 413),
        ok_202=("The call is believed.", CallbackTaken),
        words={401: "The signature is missing, wrong or too old, or nobody signs for such a connection."},
    ),
)
def post_callback(
    connection: Annotated[str, Path(description="The name of the connection that the provider belongs to.")],
) -> Response[CallbackTaken]:
    """For providers that call back: the render that the call is about is polled now instead of at its next moment.

    It is a hint: what the call says of the render is not read. The call is signed in the form of Standard Webhooks
    (`webhook-id`, `webhook-timestamp`, `webhook-signature`) with the connection's `callback_secret`, or as Scenext does
    (`X-Signature`) with its `api_key`; the time that it names may be five minutes off. A call about a render that
    nobody watches answers 202 too.
    """
    event = app.current_event.raw_event
    body = event.get("body") or ""
    raw = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode(errors="replace")
    current_parts().callbacks.take(connection, event.get("headers") or {}, raw)
    return json_answer(HTTPStatus.ACCEPTED, CallbackTaken(accepted=True))
