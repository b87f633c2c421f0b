"""The providers, as values: how to ask each for a task's status, and what its answer means."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from renderbell.errors import (
    ConfigurationError,
    ProviderAuthError,
    ProviderError,
    ProviderProtocolError,
    ProviderRejected,
    ProviderTaskNotFound,
    ProviderUnavailable,
)
from renderbell.providers.base import (
    Connection,
    HttpRequest,
    HttpResponse,
    Observation,
    Provider,
    ProviderState,
    ProviderTime,
)
from renderbell.providers.capcut_mate import CapCutMate
from renderbell.providers.generic import Generic
from renderbell.providers.jimmy import Jimmy
from renderbell.providers.mingyan import Mingyan
from renderbell.providers.moneyprinterturbo import MoneyPrinterTurbo
from renderbell.providers.scenext import Scenext
from renderbell.schedule import PollSchedule

__all__ = [
    "PROVIDERS",
    "Connection",
    "HttpRequest",
    "HttpResponse",
    "Observation",
    "Provider",
    "ProviderAuthError",
    "ProviderError",
    "ProviderProtocolError",
    "ProviderRejected",
    "ProviderState",
    "ProviderTaskNotFound",
    "ProviderTime",
    "ProviderUnavailable",
    "check_answers",
    "poll_schedule_for",
]

_ALL: tuple[Provider, ...] = (CapCutMate(), Scenext(), Jimmy(), MoneyPrinterTurbo(), Mingyan(), Generic())

PROVIDERS: Mapping[str, Provider] = MappingProxyType({provider.type: provider for provider in _ALL})


def check_answers(observation: Observation, provider_task_id: str) -> None:
    """Raises `ProviderProtocolError` if the observation says that it is about another task than the one asked for.

    A connection or a cache that mixes up answers must not bring one task another's video.
    """
    named = observation.provider_task_id
    if named is not None and named.strip().casefold() != provider_task_id.strip().casefold():
        raise ProviderProtocolError("the answer is about another task")


def poll_schedule_for(connection: Connection) -> PollSchedule:
    """How often a connection's tasks are asked for: its own interval, else its spec's, else its provider's."""
    interval_s = connection.poll_interval_s or (connection.spec and connection.spec.poll_interval_s)
    if interval_s:
        return PollSchedule(interval_s)
    provider = PROVIDERS.get(connection.type)
    if provider is None:
        raise ConfigurationError(f"there is no provider of type {connection.type}")
    return provider.poll_schedule
