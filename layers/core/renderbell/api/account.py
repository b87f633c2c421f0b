"""The routes of what an owner has beside tasks: connections, and the secret that signs webhooks."""

from __future__ import annotations

from http import HTTPStatus

from aws_lambda_powertools.event_handler import Response
from pydantic import BaseModel, Field

from renderbell import endpoints
from renderbell.api.problems import documented
from renderbell.api.serving import current_caller, current_parts, json_answer, route
from renderbell.connections import usable_by
from renderbell.keys import Scope
from renderbell.providers import poll_schedule_for


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


@route(
    "GET",
    "/webhook-secret",
    scope=Scope.WRITE,
    summary="Read the webhook secret",
    operation_id="readWebhookSecret",
    tags=["webhooks"],
    responses=documented(401, 403, ok_200=("The secret.", WebhookSecret)),
)
def get_webhook_secret() -> Response[WebhookSecret]:
    """The secret that signs webhooks to URLs given with a task, in the form of Standard Webhooks."""
    caller = current_caller()
    secret = endpoints.derive_secret(current_parts().master_secret(), "owner", caller.owner, 1)
    return json_answer(HTTPStatus.OK, WebhookSecret(secret=secret))


@route(
    "GET",
    "/connections",
    scope=Scope.READ,
    summary="List connections",
    operation_id="listConnections",
    tags=["connections"],
    responses=documented(401, ok_200=("The connections that your tasks may name.", ConnectionList)),
)
def get_connections() -> Response[ConnectionList]:
    """The connections that your tasks may name."""
    caller, parts = current_caller(), current_parts()
    usable = [one for _, one in sorted(parts.connections.all().items()) if usable_by(one, caller.owner)]
    views = [
        ConnectionView(name=one.name, type=one.type, poll_interval_s=poll_schedule_for(one).interval_s)
        for one in usable
    ]
    return json_answer(HTTPStatus.OK, ConnectionList(connections=views))
