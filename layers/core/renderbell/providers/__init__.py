"""The providers, as values: how to ask each for a task's status, and what its answer means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

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
    Callback,
    CallsBack,
    Connection,
    DeletingProvider,
    HttpRequest,
    HttpResponse,
    Listed,
    ListingProvider,
    Observation,
    Provider,
    ProviderState,
    ProviderTime,
)
from renderbell.schedule import PollSchedule, between

if TYPE_CHECKING:
    from renderbell.providers.scenext import Scenext

__all__ = [
    "PROVIDERS",
    "Callback",
    "Connection",
    "DeletingProvider",
    "HttpRequest",
    "HttpResponse",
    "Listed",
    "ListingProvider",
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
    "lister_of",
    "poll_schedule_for",
    "verify_callback",
]


def _capcut_mate() -> Provider:
    from renderbell.providers.capcut_mate import CapCutMate

    return CapCutMate()


def _generic() -> Provider:
    from renderbell.providers.generic import Generic

    return Generic()


def _jimmy() -> Provider:
    from renderbell.providers.jimmy import Jimmy

    return Jimmy()


def _mingyan() -> Provider:
    from renderbell.providers.mingyan import Mingyan

    return Mingyan()


def _moneyprinterturbo() -> Provider:
    from renderbell.providers.moneyprinterturbo import MoneyPrinterTurbo

    return MoneyPrinterTurbo()


@cache
def _scenext() -> Scenext:
    from renderbell.providers.scenext import Scenext

    return Scenext()


class _Providers(Mapping[str, Provider]):
    """The providers by their types, each imported when somebody first asks for it: few deployments use many."""

    def __init__(self, makers: Mapping[str, Callable[[], Provider]]) -> None:
        self._makers = makers
        self._made: dict[str, Provider] = {}

    def __getitem__(self, name: str) -> Provider:
        if name not in self._made:
            self._made[name] = self._makers[name]()  # two threads make two, which are the same
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


PROVIDERS: Mapping[str, Provider] = _Providers(
    {
        "capcut-mate": _capcut_mate,
        "scenext": _scenext,
        "jimmy": _jimmy,
        "moneyprinterturbo": _moneyprinterturbo,
        "mingyan": _mingyan,
        "generic": _generic,
    }
)

_CALLING: tuple[Callable[[], CallsBack], ...] = (_scenext,)


@cache
def _nobody() -> Connection:
    return Connection(name="nobody", type="capcut-mate", base_url="http://nobody.invalid")


def verify_callback(
    connection: Connection | None, headers: Mapping[str, str], body: bytes, now: datetime
) -> Callback | None:
    """A provider's own call to a connection, if its signature and its time are right; None says nothing of why.

    The headers' names are in lower case. Every form is tried whatever the connection is, and for one that does not
    exist (None) too: how long a refusal takes must not tell which connections there are.
    """
    from renderbell.providers.callbacks import verify_standard

    nobody = _nobody()
    asked = connection if connection is not None else nobody
    found = [verify_standard(asked, headers, body, now)]
    for one in (make() for make in _CALLING):
        found.append(one.verify_callback(asked if asked.type == one.type else nobody, headers, body, now))
    return next((callback for callback in found if callback is not None), None)


def check_answers(observation: Observation, provider_task_id: str) -> None:
    """Raises `ProviderProtocolError` if the observation says that it is about another task than the one asked for.

    A connection or a cache that mixes up answers must not bring one task another's video.
    """
    named = observation.provider_task_id
    if named is not None and named.strip().casefold() != provider_task_id.strip().casefold():
        raise ProviderProtocolError("the answer is about another task")


def lister_of(connection: Connection) -> ListingProvider | None:
    """What lists a connection's tasks, if anything may."""
    provider = PROVIDERS.get(connection.type)
    return (
        provider if connection.batch and isinstance(provider, ListingProvider) and provider.lists(connection) else None
    )


def poll_schedule_for(connection: Connection) -> PollSchedule:
    """How often a connection's tasks are asked for: by its own intervals, else its spec's, else its provider's advice.

    An interval that is given stands as it is, unless it is also said how far polls may stray from it. Tasks that can be
    listed fall due together.
    """
    schedule = _schedule_of(connection)
    return schedule if lister_of(connection) is None else replace(schedule, together=connection.name)


def _schedule_of(connection: Connection) -> PollSchedule:
    provider = PROVIDERS.get(connection.type)
    if provider is None:
        raise ConfigurationError(f"there is no provider of type {connection.type}")
    given_s = connection.poll_interval_s or (connection.spec and connection.spec.poll_interval_s)
    least_s, most_s = connection.poll_least_s, connection.poll_most_s
    if least_s is None and most_s is None:
        return PollSchedule(given_s) if given_s else provider.poll_schedule
    interval_s = max(given_s or provider.poll_schedule.interval_s, least_s or 0.0)  # a spec's may lie outside, too
    interval_s = min(interval_s, most_s or interval_s)
    return between(least_s or interval_s, interval_s, most_s or interval_s)
