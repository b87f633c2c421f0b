"""The operator's configured provider accounts: SecureStrings in SSM Parameter Store, one a connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from aws_lambda_powertools import Logger
from pydantic import ValidationError

from renderbell.errors import ConfigurationError
from renderbell.providers import PROVIDERS
from renderbell.providers.base import Connection
from renderbell.redaction import redacted
from renderbell.refresh import Refreshed

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.parameters import SSMProvider

__all__ = ["Connections", "parameters_under", "parse_connection", "usable_by"]

MAX_AGE_S = 60.0

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
        problem = "; ".join(_line(one["loc"], one["msg"]) for one in details)
        secrets = (value.get(name) for name in ("api_key", "callback_secret"))  # one may stand in another field too
        raise ConfigurationError(redacted(problem, {one for one in secrets if isinstance(one, str)})) from None
    if connection.name != name:
        raise ConfigurationError("name: differs from the last segment of the parameter's path")
    if connection.type not in PROVIDERS:
        raise ConfigurationError(f"type: must be one of {', '.join(sorted(PROVIDERS))}")
    return connection


def parameters_under(provider: Callable[[], SSMProvider], path: str) -> Callable[[], Mapping[str, str]]:
    """A function that reads all decrypted parameters directly under the path, by their last path segment."""

    def fetch() -> Mapping[str, str]:
        values = provider().get_multiple(path, decrypt=True, recursive=False, force_fetch=True, max_age=0)
        return {name: str(value) for name, value in values.items()}  # Powertools has taken the path off the names

    return fetch


class _Snapshot(NamedTuple):
    texts: Mapping[str, str] = MappingProxyType({})
    connections: Mapping[str, Connection] = MappingProxyType({})
    problems: Mapping[str, str] = MappingProxyType({})


class Connections:
    """The connections, read at most once a minute; safe to use from several threads.

    A parameter that is no valid connection is a problem of its own and breaks no other. While Parameter Store cannot
    be read, the old values serve for 15 minutes; without any, reading raises `ConfigurationError`. `clock` counts
    seconds from an arbitrary start; `spawn` runs a reading for which nobody needs to wait, by default at once.
    """

    def __init__(
        self,
        fetch: Callable[[], Mapping[str, str]],
        clock: Callable[[], float],
        spawn: Callable[[Callable[[], None]], None] = lambda job: job(),
    ) -> None:
        def read(old: _Snapshot | None) -> _Snapshot:
            texts = fetch()
            return old if old is not None and old.texts == texts else _read(texts)

        self._held = Refreshed("connections", read, clock, max_age_s=MAX_AGE_S, spawn=spawn)

    def get(self, name: str) -> Connection | None:
        """The connection of that name, if there is a valid one; a new name is looked for again, at most every 5 s."""
        return self.known(name) or self._held.newest().connections.get(name)

    def known(self, name: str) -> Connection | None:
        """The connection of that name among those that were read last: one saved since is missing for a minute."""
        return self._held.get().connections.get(name)

    def freshen(self) -> None:
        """Begins to read again what is older than a minute, so that it is there when it is asked for."""
        self._held.freshen()

    def all(self) -> Mapping[str, Connection]:
        """All valid connections by name, as they were 5 s ago at most."""
        return MappingProxyType(self._held.newest().connections)

    def problems(self) -> Mapping[str, str]:
        """Why which parameter is no valid connection."""
        return MappingProxyType(self._held.get().problems)


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
