"""What a webhook says and how it is signed, by the Standard Webhooks specification: pure functions.

A body is built only from what no longer changes once its event has happened, so that every attempt, a redelivery
years later included, sends the same bytes under the same `webhook-id`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from renderbell.addresses import parse_target
from renderbell.delivery import BUS, BUS_URL, EVENT_OF_STATUS, MAX_ENDPOINTS, TEST_EVENT, Delivery, new_delivery
from renderbell.endpoints import Endpoint, endpoint_id
from renderbell.errors import AddressRefusedError
from renderbell.signing import SECRET_PREFIX, key_of, signature
from renderbell.task import Request, Status, Task

__all__ = [
    "MAX_BODY_BYTES",
    "SECRET_PREFIX",
    "deliveries_for",
    "event_body",
    "event_data",
    "message_id",
    "receiver_of",
    "sign",
    "signed_headers",
    "test_body",
]

MAX_BODY_BYTES = 20_000
_CLIPPED_ERROR = 200

_STATUS_OF_EVENT = {event: status for status, event in EVENT_OF_STATUS.items()}


def message_id(task_id: str, event: str) -> str:
    """The `webhook-id` of an event: the same for every attempt, and without a dot, which separates what is signed."""
    return f"evt_{task_id}_{event.replace('.', '_')}"


def sign(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature`: one signature for each secret, in their order (the current one first).

    The key is the decoded secret. Raises `ValueError` for a secret that is not `whsec_` and base64.
    """
    keys = [key_of(secret) for secret in secrets]
    return " ".join(f"v1,{signature(key, message_id, str(timestamp), body)}" for key in keys)


def signed_headers(secrets: Sequence[str], message_id: str, now: datetime, body: bytes) -> dict[str, str]:
    """The headers of one attempt, made at `now`."""
    timestamp = int(now.timestamp())
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secrets, message_id, timestamp, body),
    }


def event_data(task: Task, request: Request, event: str) -> dict[str, object]:
    """The task as it stood at the event, in the shape of the API without what concerns other receivers.

    The task must have its whole history. `task.processing` is told without what the provider went on to say later.
    """
    from renderbell.views import task_data  # which most ticks of the poller do without

    data = task_data(_as_at(task, _STATUS_OF_EVENT[event]), request).model_dump(mode="json")
    return {name: _sound(value) for name, value in data.items()}


def event_body(task: Task, request: Request, event: str) -> bytes:
    """The body of a webhook, at most 20 kB: the same bytes whenever it is asked for.

    What does not fit is left out: frames first, then the provider's links, then the end of the error's text, then what
    the provider says of model and times, then the `s3_uri` of videos (their `bucket` and `key` tell it). In the last
    resort the metadata goes, then the digests and then our own links, which `GET /tasks/{id}` shows.
    """
    data = event_data(task, request, event)
    at = _event_time(task, _STATUS_OF_EVENT[event])
    body = _encode(event, at, data)
    for shorten in _SHORTENINGS:
        if len(body) <= MAX_BODY_BYTES:
            break
        shorten(data)
        body = _encode(event, at, data)
    return body


def test_body(test: Delivery) -> bytes:
    """The body of an endpoint's test: the same bytes for every attempt."""
    data: dict[str, object] = {"endpoint_id": test.endpoint_id, "test_id": test.task_id, "owner": test.owner}
    return _encode(TEST_EVENT, test.created_at, data)


def deliveries_for(
    task: Task, request: Request, event: str, now: datetime, endpoints: Sequence[Endpoint] = ()
) -> tuple[Delivery, ...]:
    """The deliveries that an event makes: one for each endpoint of the request that wants it, and one for the bus.

    A request without webhooks of its own is told to those of its owner's `endpoints`.
    """
    if request.webhooks:
        urls = {endpoint_id(webhook.url): webhook.url for webhook in request.webhooks if event in webhook.events}
    else:
        urls = {one.endpoint_id: one.url for one in endpoints if one.wants(event)}
    places = [(endpoint, receiver_of(url), url) for endpoint, url in list(urls.items())[:MAX_ENDPOINTS]]
    if request.tells_bus:
        places.append((BUS, BUS, BUS_URL))
    return tuple(
        new_delivery(
            task_id=task.task_id,
            owner=task.owner,
            event=event,
            endpoint_id=endpoint,
            receiver=receiver,
            url=url,
            slot=task.slot,
            ttl=request.ttl,
            now=now,
        )
        for endpoint, receiver, url in places
    )


def receiver_of(url: str) -> str:
    """Who answers at a URL: its host, and its port where that is not the scheme's own; the endpoint if it has none."""
    try:
        target = parse_target(url)
    except AddressRefusedError:  # nobody will be asked there
        return endpoint_id(url)
    host = target.host.removesuffix(".")
    return host if target.usual_port else f"{host}:{target.port}"


def _as_at(task: Task, status: Status) -> Task:
    """The task at the time of the event; terminal states are frozen, so only `task.processing` has to be taken back."""
    if status.terminal:
        return task
    reached = next((n for n, line in enumerate(task.history, 1) if line.target is status), len(task.history))
    return replace(
        task,
        status=status,
        progress=None,
        model=None,
        duration_s=None,
        frames=None,
        provider_times={},
        sources=(),
        files=(),
        error=None,
        history=task.history[:reached],
    )


def _event_time(task: Task, status: Status) -> datetime:
    return next((line.at for line in task.history if line.target is status), task.created_at)


def _encode(event: str, at: datetime, data: dict[str, object]) -> bytes:
    from renderbell.views import iso_time

    message = {"type": event, "timestamp": iso_time(at), "data": data}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")


def _sound(value: object) -> object:
    """The value without NaN and infinities, which JSON has no word for."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: _sound(item) for key, item in value.items()}
        case list():
            return [_sound(item) for item in value]
        case _:
            return value


def _without_frames(data: dict[str, object]) -> None:
    data["frames"] = None


def _without_links(data: dict[str, object]) -> None:
    data["sources"] = []
    _without_of_videos("source_url", data)


def _without_of_videos(name: str, data: dict[str, object]) -> None:
    videos = data["videos"]
    if isinstance(videos, list):
        data["videos"] = [{**video, name: ""} for video in videos]


def _with_less_error(data: dict[str, object]) -> None:
    error = data["error"]
    if isinstance(error, dict):
        message = str(error["message"])
        data["error"] = {**error, "message": f"{message[:_CLIPPED_ERROR]}…" if message[_CLIPPED_ERROR:] else message}


def _without_words(data: dict[str, object]) -> None:
    data["model"] = None
    data["provider_times"] = {}


def _without_metadata(data: dict[str, object]) -> None:
    data["metadata"] = {}


_SHORTENINGS: tuple[Callable[[dict[str, object]], None], ...] = (
    _without_frames,
    _without_links,
    _with_less_error,
    _without_words,
    partial(_without_of_videos, "s3_uri"),
    _without_metadata,
    partial(_without_of_videos, "sha256"),
    partial(_without_of_videos, "url"),
)
