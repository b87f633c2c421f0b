"""The routes of the webhook endpoints that an owner manages."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Annotated, Any, Literal

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Path
from pydantic import Field

from renderbell.api.problems import documented
from renderbell.api.serving import NO_STORE, current_caller, current_parts, current_seed, json_answer, route
from renderbell.delivery import Attempt, DeliveryState
from renderbell.keys import Scope
from renderbell.manage import EndpointChange, EndpointRecord, EndpointRequest, RecoverRequest, SecretRecord
from renderbell.models import Model
from renderbell.views import Time
from renderbell.webhooks import message_id, test_body

EndpointId = Annotated[str, Path(description="The `endpoint_id` of an endpoint.")]

_CHANGING = "`try_again`: the endpoint is changing just now."
_OFF = "`endpoint_disabled`: nothing is sent to it."


class HealthView(Model):
    """How an endpoint is doing."""

    state: Literal["enabled", "failing", "disabled"] = Field(
        description="`failing`: its last attempt failed. `disabled`: nothing is sent, or after days of failures alone "
        "one attempt at each event; see `reason`."
    )
    since: Time | None = Field(description="Since when it fails or is disabled; null while it is well.")
    reason: Literal["owner", "gone", "failures"] | None = Field(
        description="Why it is disabled: `disabled` was set, it answered 410, or it has only failed for five days; the "
        "first success ends the last of these, and `disabled: false` each."
    )


class CountsView(Model):
    """Attempts of today and the six days before, in UTC."""

    delivered: int
    failed: int


class TestAttemptView(Model):
    """One attempt at a test."""

    at: Time
    status: int | None = Field(description="The HTTP status of the answer; null where there was none.")
    error: str | None = Field(description="Why there was none.")
    detail: str | None
    body: str = Field(description="The first 1 KiB of the answer.")
    duration_ms: int


class TestView(Model):
    """The last test of an endpoint."""

    webhook_id: str
    created_at: Time
    state: DeliveryState
    next_attempt_at: Time | None
    attempts: list[TestAttemptView]


class EndpointView(Model):
    """An endpoint, without its secret and the values of its headers."""

    endpoint_id: str = Field(examples=["ep_01k9c5d8m3q7v2x4z6b8n0p1r3"])
    url: str
    events: list[str]
    description: str
    header_names: list[str]
    disabled: bool
    created_at: Time
    health: HealthView
    last_7_days: CountsView


class EndpointDetails(EndpointView):
    """An endpoint with its last test."""

    last_test: TestView | None


class EndpointList(Model):
    """The caller's endpoints, the oldest first."""

    endpoints: list[EndpointView]


class SecretView(Model):
    """A secret that signs webhooks, in the form of Standard Webhooks."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
    rotated_at: Time | None = Field(description="null where it never was.")
    previous_valid_until: Time | None = Field(description="Until when the secret before this one signs as well.")


class RotationView(Model):
    """A rotation, without the secret."""

    rotated_at: Time | None
    previous_valid_until: Time | None


class SentTest(Model):
    """A test that is on its way."""

    webhook_id: str = Field(examples=["evt_tst_01k9c5d8m3q7v2x4z6b8n0p1r3_endpoint_test"])
    endpoint_id: str
    url: str
    body: dict[str, Any] = Field(description="What is sent, as JSON.")


class RecoveredView(Model):
    """What is tried once more."""

    recovered: int
    more: bool = Field(description="Whether there are more; call again.")


@route(
    "POST",
    "/endpoints",
    scope=Scope.WRITE,
    summary="Make an endpoint",
    operation_id="createEndpoint",
    tags=["endpoints"],
    responses=documented(
        *(401, 403, 409, 413, 422),
        ok_201=("The endpoint; its secret has a route of its own.", EndpointDetails),
        words={409: "`too_many_endpoints`: there are 20. `try_again`: another is being made just now."},
    ),
)
def post_endpoint(asked: EndpointRequest) -> Response[EndpointDetails]:
    """Makes an endpoint, which is told of every task that is registered without webhooks of its own.

    Tasks that are registered already are told there too; of `task.processing`, those that are registered from now on.
    """
    made = current_parts().endpoints.create(asked, owner=current_caller().owner, seed=current_seed())
    return json_answer(HTTPStatus.CREATED, _details(made))


@route(
    "GET",
    "/endpoints",
    scope=Scope.READ,
    summary="List endpoints",
    operation_id="listEndpoints",
    tags=["endpoints"],
    responses=documented(401, ok_200=("The endpoints.", EndpointList)),
)
def get_endpoints() -> Response[EndpointList]:
    """Your endpoints, the oldest first: at most 20."""
    found = current_parts().endpoints.all(owner=current_caller().owner)
    return json_answer(HTTPStatus.OK, EndpointList(endpoints=[_view(one) for one in found]))


@route(
    "GET",
    "/endpoints/<endpoint_id>",
    scope=Scope.READ,
    summary="Read an endpoint",
    operation_id="readEndpoint",
    tags=["endpoints"],
    responses=documented(401, 404, ok_200=("The endpoint.", EndpointDetails)),
)
def get_endpoint(endpoint_id: EndpointId) -> Response[EndpointDetails]:
    """An endpoint with its health, its recent attempts and its last test."""
    found = current_parts().endpoints.read(endpoint_id, owner=current_caller().owner)
    return json_answer(HTTPStatus.OK, _details(found))


@route(
    "PATCH",
    "/endpoints/<endpoint_id>",
    scope=Scope.WRITE,
    summary="Change an endpoint",
    operation_id="changeEndpoint",
    tags=["endpoints"],
    responses=documented(
        *(401, 403, 404, 409, 413, 422), ok_200=("The endpoint.", EndpointDetails), words={409: _CHANGING}
    ),
)
def patch_endpoint(endpoint_id: EndpointId, asked: EndpointChange) -> Response[EndpointDetails]:
    """Changes what is given and leaves the rest. It holds for what is pending, too.

    A new `url` and `disabled: false` forget past failures, so that retries are made again.
    """
    found = current_parts().endpoints.change(endpoint_id, asked, owner=current_caller().owner)
    return json_answer(HTTPStatus.OK, _details(found))


@route(
    "DELETE",
    "/endpoints/<endpoint_id>",
    scope=Scope.WRITE,
    summary="Delete an endpoint",
    operation_id="deleteEndpoint",
    tags=["endpoints"],
    responses=documented(*(401, 403, 404, 409), ok_204=("It is gone.", None), words={409: _CHANGING}),
)
def delete_endpoint(endpoint_id: EndpointId) -> Response[None]:
    """Removes an endpoint. What is pending for it ends as `gone`, unsent, when its next attempt would be due."""
    current_parts().endpoints.delete(endpoint_id, owner=current_caller().owner)
    return Response(HTTPStatus.NO_CONTENT.value, headers=NO_STORE)


@route(
    "GET",
    "/endpoints/<endpoint_id>/secret",
    scope=Scope.WRITE,
    summary="Read an endpoint's secret",
    operation_id="readEndpointSecret",
    tags=["endpoints"],
    responses=documented(401, 403, 404, ok_200=("The secret.", SecretView)),
)
def get_endpoint_secret(endpoint_id: EndpointId) -> Response[SecretView]:
    """The secret that signs what is sent to an endpoint; no other endpoint has the same."""
    found = current_parts().endpoints.secret(endpoint_id, owner=current_caller().owner)
    return json_answer(HTTPStatus.OK, secret_view(found))


@route(
    "POST",
    "/endpoints/<endpoint_id>/rotate-secret",
    scope=Scope.WRITE,
    summary="Rotate an endpoint's secret",
    operation_id="rotateEndpointSecret",
    tags=["endpoints"],
    responses=documented(*(401, 403, 404, 409), ok_200=("The rotation.", RotationView), words={409: _CHANGING}),
)
def post_rotate_secret(endpoint_id: EndpointId) -> Response[RotationView]:
    """Takes a new secret, which `GET …/secret` shows. The one before it signs as well for 24 hours.

    Never more than two sign: rotating again within the 24 hours takes back the older one at once. So send an
    `Idempotency-Key`, and a call that is repeated rotates once.
    """
    found = current_parts().endpoints.rotate(endpoint_id, owner=current_caller().owner, seed=current_seed())
    return json_answer(HTTPStatus.OK, rotation_view(found))


@route(
    "POST",
    "/endpoints/<endpoint_id>/test",
    scope=Scope.WRITE,
    summary="Test an endpoint",
    operation_id="testEndpoint",
    tags=["endpoints"],
    responses=documented(*(401, 403, 404, 409), ok_202=("The test that is sent.", SentTest), words={409: _OFF}),
)
def post_test(endpoint_id: EndpointId) -> Response[SentTest]:
    """Sends `endpoint.test`, signed and tried like any webhook.

    `GET /endpoints/{endpoint_id}` shows what became of the last one.
    """
    test = current_parts().endpoints.test(endpoint_id, owner=current_caller().owner, seed=current_seed())
    sent = SentTest(
        webhook_id=message_id(test.task_id, test.event),
        endpoint_id=test.endpoint_id,
        url=test.url,
        body=json.loads(test_body(test)),
    )
    return json_answer(HTTPStatus.ACCEPTED, sent)


@route(
    "POST",
    "/endpoints/<endpoint_id>/recover",
    scope=Scope.WRITE,
    summary="Send again what was given up",
    operation_id="recoverEndpoint",
    tags=["endpoints"],
    responses=documented(
        *(401, 403, 404, 409, 413, 422), ok_202=("What is tried once more.", RecoveredView), words={409: _OFF}
    ),
)
def post_recover(endpoint_id: EndpointId, asked: RecoverRequest) -> Response[RecoveredView]:
    """Tries once more what was given up for an endpoint since a time: deliveries that are `exhausted` or `disabled`.

    Each gets the whole schedule of tries again, under the same `webhook-id`. At most 1,000 a call, the oldest first.
    """
    found = current_parts().endpoints.recover(endpoint_id, asked.since, owner=current_caller().owner)
    return json_answer(HTTPStatus.ACCEPTED, RecoveredView(recovered=found.recovered, more=found.more))


def secret_view(found: SecretRecord) -> SecretView:
    """A secret as it is shown."""
    return SecretView(secret=found.secret, rotated_at=found.rotated_at, previous_valid_until=found.previous_valid_until)


def rotation_view(found: SecretRecord) -> RotationView:
    """A rotation as it is shown: without the secret, so that its answer may be kept."""
    return RotationView(rotated_at=found.rotated_at, previous_valid_until=found.previous_valid_until)


def _view(found: EndpointRecord) -> EndpointView:
    endpoint = found.endpoint
    return EndpointView(
        endpoint_id=endpoint.endpoint_id,
        url=endpoint.url,
        events=list(endpoint.events),
        description=endpoint.description,
        header_names=sorted(endpoint.headers),
        disabled=endpoint.disabled,
        created_at=endpoint.created_at,
        health=_health(found),
        last_7_days=CountsView(delivered=found.counts.delivered, failed=found.counts.failed),
    )


def _details(found: EndpointRecord) -> EndpointDetails:
    test = found.last_test
    shown = None
    if test is not None:
        shown = TestView(
            webhook_id=message_id(test.task_id, test.event),
            created_at=test.created_at,
            state=test.state,
            next_attempt_at=test.due_at,
            attempts=[_attempt(one) for one in found.test_attempts],
        )
    return EndpointDetails(**dict(_view(found)), last_test=shown)


def _attempt(one: Attempt) -> TestAttemptView:
    return TestAttemptView(
        at=one.at, status=one.status, error=one.error, detail=one.detail, body=one.body, duration_ms=one.duration_ms
    )


def _health(found: EndpointRecord) -> HealthView:
    endpoint, health = found.endpoint, found.health
    if endpoint.disabled:
        gone = endpoint.disabled_by == "gone"
        return HealthView(state="disabled", since=endpoint.disabled_at, reason="gone" if gone else "owner")
    if health.disabled:
        return HealthView(state="disabled", since=health.disabled_at, reason="failures")
    if health.failing:
        return HealthView(state="failing", since=health.failing_since, reason=None)
    return HealthView(state="enabled", since=None, reason=None)
