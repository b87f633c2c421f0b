"""The routes of what an owner has beside tasks: connections, and the secret that signs webhooks."""

from __future__ import annotations

from http import HTTPStatus

from aws_lambda_powertools.event_handler import Response
from pydantic import Field

from renderbell.api.endpoints import RotationView, SecretView, rotation_view, secret_view
from renderbell.api.problems import documented
from renderbell.api.serving import current_caller, current_parts, current_seed, json_answer, route
from renderbell.connections import usable_by
from renderbell.keys import Scope
from renderbell.models import Model
from renderbell.providers import poll_schedule_for


class ConnectionView(Model):
    """A connection that tasks may name."""

    name: str
    type: str
    poll_interval_s: float = Field(description="How often a task is polled, in seconds.")


class ConnectionList(Model):
    """The connections of the caller."""

    connections: list[ConnectionView]


@route(
    "GET",
    "/webhook-secret",
    scope=Scope.WRITE,
    summary="Read the webhook secret",
    operation_id="readWebhookSecret",
    tags=["webhooks"],
    responses=documented(401, 403, ok_200=("The secret.", SecretView)),
)
def get_webhook_secret() -> Response[SecretView]:
    """The secret that signs webhooks to URLs given with a task, in the form of Standard Webhooks."""
    found = current_parts().endpoints.owner_secret(owner=current_caller().owner)
    return json_answer(HTTPStatus.OK, secret_view(found))


@route(
    "POST",
    "/webhook-secret/rotate",
    scope=Scope.WRITE,
    summary="Rotate the webhook secret",
    operation_id="rotateWebhookSecret",
    tags=["webhooks"],
    responses=documented(401, 403, ok_200=("The rotation.", RotationView)),
)
def post_webhook_secret_rotate() -> Response[RotationView]:
    """Takes a new secret, which `GET /webhook-secret` shows. The one before it signs as well for 24 hours.

    Never more than two sign: rotating again within the 24 hours takes back the older one at once. So send an
    `Idempotency-Key`, and a call that is repeated rotates once.
    """
    found = current_parts().endpoints.rotate_owner_secret(owner=current_caller().owner, seed=current_seed())
    return json_answer(HTTPStatus.OK, rotation_view(found))


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
