"""The operator's configured provider accounts: SecureStrings in SSM Parameter Store, one a connection."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.parameters import SSMProvider
from pydantic import ValidationError

from renderbell.errors import ConfigurationError
from renderbell.providers import PROVIDERS
from renderbell.providers.base import Connection

__all__ = ["Connections", "parameters_under", "parse_connection", "usable_by"]

MAX_AGE_S = 60.0
STALE_S = 900.0  # how long old values serve while Parameter Store cannot be read
RETRY_S = 5.0  # how often it is asked meanwhile

logger = Logger()


def usable_by(connection: Connection, owner: str) -> bool:
    """Whether the owner may register tasks with the connection."""
    return "*" in connection.owners or owner in connection.owners


def parse_connection(name: str, text: str) -> Connection:
    """The connection that a parameter's text describes; `name` is the last segment of the parameter's path.

    Raises `ConfigurationError` with a text that names fields and never shows a value.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError("is not valid JSON") from None
    if not isinstance(value, dict):
        raise ConfigurationError("is not a JSON object")
    try:
        connection = Connection.model_validate({"name": name, **value})
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        raise ConfigurationError("; ".join(_line(one["loc"], one["msg"]) for one in details)) from None
    if connection.name != name:
        raise ConfigurationError("name: differs from the last segment of the parameter's path")
    if connection.type not in PROVIDERS:
        raise ConfigurationError(f"type: must be one of {', '.join(sorted(PROVIDERS))}")
    return connection


def parameters_under(provider: SSMProvider, path: str) -> Callable[[], Mapping[str, str]]:
    """A function that reads all decrypted parameters directly under the path, by their last path segment."""

    def fetch() -> Mapping[str, str]:
        values = provider.get_multiple(path, decrypt=True, recursive=False, force_fetch=True, max_age=0)
        return {name: str(value) for name, value in values.items()}  # Powertools has taken the path off the names

    return fetch


@dataclass(frozen=True, slots=True)
class _Snapshot:
    texts: Mapping[str, str] = field(default_factory=dict)
    connections: Mapping[str, Connection] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Held:
    """What was read last, the time its reading began, and when to read again."""

    snapshot: _Snapshot
    read_at: float
    next_read_at: float


class Connections:
    """The connections, read at most once a minute; safe to use from several threads.

    A parameter that is no valid connection is a problem of its own and breaks no other. One thread reads again while
    the others go on with the old values; only without any do they wait. While Parameter Store cannot be read, the old
    values serve for 15 minutes; without any, reading raises `ConfigurationError`. `clock` counts seconds from an
    arbitrary start.
    """

    def __init__(self, fetch: Callable[[], Mapping[str, str]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._reading = threading.Lock()
        self._reads = 0
        self._held: _Held | None = None  # replaced as a whole, so it is read without the lock

    def get(self, name: str) -> Connection | None:
        """The connection of that name, if there is a valid one."""
        return self._current().connections.get(name)

    def all(self) -> Mapping[str, Connection]:
        """All valid connections by name."""
        return MappingProxyType(self._current().connections)

    def problems(self) -> Mapping[str, str]:
        """Why which parameter is no valid connection."""
        return MappingProxyType(self._current().problems)

    def _current(self) -> _Snapshot:
        reads = self._reads  # before anything that a read changes
        held, now = self._held, self._clock()
        if held is not None and now < held.next_read_at:
            return held.snapshot
        usable = held if held is not None and now - held.read_at <= STALE_S else None
        if not self._reading.acquire(blocking=usable is None) and usable is not None:
            return usable.snapshot
        try:
            if self._reads == reads:  # else another has read meanwhile, and its result is ours too
                self._held = self._read_again()
                self._reads += 1
        finally:
            self._reading.release()
        held = self._held
        if held is None:
            raise ConfigurationError("the connections cannot be read from Parameter Store")
        return held.snapshot

    def _read_again(self) -> _Held | None:
        held, began = self._held, self._clock()
        try:
            texts = self._fetch()
        except Exception as error:  # whatever the client raises, old values are better than none
            logger.warning("connections cannot be read", extra={"error": type(error).__name__})
            now = self._clock()
            if held is None or now - held.read_at > STALE_S:
                return None
            return replace(held, next_read_at=now + RETRY_S)
        snapshot = held.snapshot if held is not None and held.snapshot.texts == texts else _read(texts)
        return _Held(snapshot, began, self._clock() + MAX_AGE_S)  # a slow read must not be due again at its end


def _read(texts: Mapping[str, str]) -> _Snapshot:
    connections: dict[str, Connection] = {}
    problems: dict[str, str] = {}
    for name, text in sorted(texts.items()):
        try:
            connections[name] = parse_connection(name, text)
        except ConfigurationError as error:
            problems[name] = str(error)
            logger.error("connection cannot be used", extra={"connection": name, "problem": str(error)})
    return _Snapshot(dict(texts), connections, problems)


def _line(location: tuple[int | str, ...], message: str) -> str:
    return f"{'.'.join(map(str, location))}: {message}" if location else message
