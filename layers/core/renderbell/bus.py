"""Telling an EventBridge bus of events, and how its answers read as those of a receiver.

A bus has no HTTP status. What prevents an event is told by a word: `timeout`, `bus_throttled`, `bus_not_found`,
`bus_refused` (no right, or an event that it does not take), `bus_unavailable`; each is tried again on the schedule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError

from renderbell.delivery import BUS_URL, REFUSED, Answer

__all__ = ["SOURCE", "BusOrWeb", "EventBus"]

SOURCE = "renderbell"
TAKEN = 200
TIMEOUT_S = 15.0  # of an attempt; the bus's own is its client's

_WORDS = {
    "ThrottlingException": "bus_throttled",
    "LimitExceededException": "bus_throttled",
    "ResourceNotFoundException": "bus_not_found",
    "AccessDeniedException": "bus_refused",
    "AccessDenied": "bus_refused",
    "NotAuthorizedForSourceException": "bus_refused",
    "NotAuthorizedForDetailTypeException": "bus_refused",
    "InvalidArgument": "bus_refused",
    "MalformedDetail": "bus_refused",
    "ValidationException": "bus_refused",
}

logger = Logger()


class Events(Protocol):
    """What is used of botocore's client of EventBridge."""

    def put_events(self, *, Entries: Sequence[Any]) -> Mapping[str, Any]:  # noqa: N803 - AWS's name
        """Puts events on their buses."""


class Web(Protocol):
    """Whatever can post a webhook."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Answer:
        """One attempt."""


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class EventBus:
    """One bus of EventBridge, by its name or its ARN; `clock` counts seconds from an arbitrary start."""

    client: Callable[[], Events]
    name: str
    clock: Callable[[], float]

    def put(self, body: bytes) -> Answer:
        """Puts the event of a webhook's body on the bus; its `data` is the detail."""
        began = self.clock()
        answer = self._put(body)
        return replace(answer, duration_ms=round((self.clock() - began) * 1000))

    def _put(self, body: bytes) -> Answer:
        message = json.loads(body)
        entry = {
            "EventBusName": self.name,
            "Source": SOURCE,
            "DetailType": message["type"],
            "Time": datetime.fromisoformat(message["timestamp"]),
            "Detail": json.dumps(message["data"], ensure_ascii=False, separators=(",", ":")),
            "Resources": [],
        }
        try:
            told = self.client().put_events(Entries=[entry])
        except (ReadTimeoutError, ConnectTimeoutError):
            return Answer(None, "timeout", "EventBridge did not answer")
        except ClientError as error:
            return _refusal(str(error.response["Error"]["Code"]), str(error))
        except BotoCoreError as error:
            return _refusal(type(error).__name__, str(error))
        if told["FailedEntryCount"]:  # the call succeeded, and this event did not
            failed = told["Entries"][0]
            return _refusal(failed.get("ErrorCode", "unknown"), failed.get("ErrorMessage", ""))
        return Answer(TAKEN)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BusOrWeb:
    """Sends a delivery where its URL leads: to the bus, if there is one, or into the web."""

    web: Web
    bus: EventBus | None

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float = TIMEOUT_S) -> Answer:
        """One attempt; to a bus that is turned off by now, the last."""
        if url != BUS_URL:
            return self.web.post(url, headers, body, timeout_s)
        if self.bus is None:
            return Answer(None, REFUSED, "the deployment has no event bus any more", refused=True)
        return self.bus.put(body)


def _refusal(code: str, message: str) -> Answer:
    """What an owner is told of an error, which is its code; AWS's message names roles and accounts."""
    logger.warning("event not put on the bus", extra={"code": code, "error": message})
    return Answer(None, _WORDS.get(code, "bus_unavailable"), f"EventBridge: {code}")
