"""Asking a provider for a task's status, for that of many at once, or to delete one."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from traceback import format_tb
from typing import NamedTuple, Protocol

from aws_lambda_powertools import Logger

from renderbell.connections import usable_by
from renderbell.errors import (
    ConfigurationError,
    InvalidInputError,
    ProviderAuthError,
    ProviderError,
    ProviderProtocolError,
    ProviderTaskNotFound,
    ProviderUnavailable,
)
from renderbell.providers import PROVIDERS, DeletingProvider, check_answers, lister_of
from renderbell.providers.base import Connection, HttpRequest, HttpResponse, Observation, secrets_of
from renderbell.redaction import redacted, redacted_start
from renderbell.task import Task

POLL_TIMEOUT_S = 10.0
DELETE_TIMEOUT_S = 6.0  # a request to the API has 28 s, of which two services that hang may take 22
LIST_TIMEOUT_S = 5.0  # for all pages: whoever waits for a list in vain is asked for singly after it
MAX_PAGES = 10
MAX_MODEL = 2_000  # of a model's name; a task keeps less
SHORT_MODEL = 200
PLACES = 6  # of a fault of ours in the log, the innermost

logger = Logger()


class Connections(Protocol):
    """What is used of the operator's connections."""

    def get(self, name: str) -> Connection | None:
        """The connection, if there is one by now; raises `ConfigurationError` where they cannot be read."""


Fetch = Callable[[Connection, HttpRequest, float], HttpResponse]


class Asked(NamedTuple):
    """What one poll brought.

    `answered` is whether the connection is sound: the provider answered with success, as far as HTTP goes. A fault
    that it states in such an answer concerns one task (Scenext and Jimmy answer so for an unknown id) and must not
    stop the connection's others; only a refused key or account concerns them all, wherever it stands. `judged` is
    whether this says anything of the connection: it does not where our own code broke on no such answer.
    """

    outcome: Observation | ProviderError
    answered: bool
    judged: bool = True

    @property
    def error(self) -> ProviderError | None:
        """What was brought instead of an observation."""
        return self.outcome if isinstance(self.outcome, ProviderError) else None


@dataclass(frozen=True, slots=True)
class Heard:
    """What a provider's list has brought: the wanted tasks that run, by the provider's ids.

    `requests` is how many pages were asked for, `count` how many tasks they held, `complete` whether none of them
    failed. A wanted task that does not stand in `running` is to be asked for singly.
    """

    running: Mapping[str, Observation]
    requests: int
    count: int
    complete: bool


def ask_provider(connections: Connections, fetch: Fetch, task: Task, timeout_s: float = POLL_TIMEOUT_S) -> Asked:
    """Polls a task's provider once; what goes wrong is an outcome, not an exception.

    The provider's words come out without the connection's secrets and the queries of links: from here they go to the
    log, the task and its owner. Where our own code breaks, an exception's text may hold anything: its class alone is
    told, and the log has the places.
    """
    answered = False
    secrets: frozenset[str] = frozenset()
    try:
        connection = _configured(connections, task.connection)
        if connection is None:
            raise ProviderAuthError(f"the connection {task.connection} is not configured")
        secrets = secrets_of(connection)
        provider = PROVIDERS[connection.type]
        request = provider.status_request(connection, task.provider_task_id)
        response = fetch(connection, request, timeout_s)
        answered = response.status < 300
        observation = provider.parse_status(connection, response)
        check_answers(observation, task.provider_task_id)
        return Asked(_without_secrets(observation, secrets), answered)
    except ProviderError as error:
        _redact(error, secrets)
        logger.warning(
            "poll brought no observation",
            extra={
                "task_id": task.task_id,
                "connection": task.connection,
                "kind": error.kind,
                "error": str(error),
                "raw": error.raw if isinstance(error, ProviderProtocolError) else None,
            },
        )
        return Asked(error, answered and not isinstance(error, ProviderAuthError))
    except Exception as error:  # a fault of ours, which must not hide from the task and its owner
        broken = ProviderProtocolError(f"internal error: {type(error).__name__}", internal=True)
        logger.error(
            "poll brought no observation",
            extra={
                "task_id": task.task_id,
                "connection": task.connection,
                "kind": broken.kind,
                "error": str(broken),
                "where": format_tb(error.__traceback__, limit=-PLACES),
            },
        )
        return Asked(broken, answered, judged=answered)


def ask_list(
    connections: Connections,
    fetch: Fetch,
    clock: Callable[[], datetime],
    name: str,
    wanted: Collection[str],
    *,
    pages: int = MAX_PAGES,
    most: float = math.inf,
    timeout_s: float = LIST_TIMEOUT_S,
) -> Heard:
    """Asks for a connection's list until all wanted ids are found, or for as many pages as are allowed.

    None is asked for after more than so many tasks have been read.

    What goes wrong is no exception, and no error of a task either: that is what asking singly brings.
    """
    until = clock() + timedelta(seconds=timeout_s)
    running: dict[str, Observation] = {}
    unclear: set[str] = set()
    requests = count = 0
    complete, more = True, True
    secrets: frozenset[str] = frozenset()
    try:
        connection = connections.get(name)
        lister = lister_of(connection) if connection is not None else None
        if connection is None or lister is None:
            return Heard({}, 0, 0, complete=False)
        secrets = secrets_of(connection)
        while more and requests < min(pages, MAX_PAGES) and count <= most:
            if len(running.keys() | unclear) >= len(wanted):
                break
            request = lister.list_request(connection, requests + 1)
            left_s = (until - clock()).total_seconds()
            if left_s <= 0:
                raise ProviderUnavailable(f"the list took longer than {timeout_s:g} s")
            requests += 1
            page = lister.parse_list(connection, fetch(connection, request, left_s), wanted)
            unclear |= page.unclear
            unclear |= {one for one, seen in page.running.items() if running.get(one, seen) != seen}
            running |= page.running
            count, more = count + page.count, page.more
    except Exception as error:  # of ours too: what it broke on, single answers may not hold
        complete = False
        _tell_not_listed(name, error, secrets)
    sure = {one: _without_secrets(seen, secrets) for one, seen in running.items() if one not in unclear}
    return Heard(sure, requests, count, complete)


def _tell_not_listed(name: str, error: Exception, secrets: frozenset[str]) -> None:
    told = str(error) if isinstance(error, ProviderError | ConfigurationError) else f"internal: {type(error).__name__}"
    raw = redacted(error.raw, secrets) if isinstance(error, ProviderProtocolError) else None
    kind = error.kind if isinstance(error, ProviderError) else None
    extra = {"connection": name, "kind": kind, "error": redacted(told, secrets), "raw": raw}
    where = None if kind is not None else format_tb(error.__traceback__, limit=-PLACES)
    logger.warning("list brought nothing", extra=extra | ({} if where is None else {"where": where}))


def delete_at_provider(connections: Connections, fetch: Fetch, task: Task) -> None:
    """Has a task deleted at its provider; one that is not known there is deleted already.

    Raises `InvalidInputError` where that cannot be asked for, and a `ProviderError`, without secrets, where it was not
    done, as far as is known.
    """
    secrets: frozenset[str] = frozenset()
    try:
        connection = _configured(connections, task.connection)
        provider = PROVIDERS[connection.type] if connection is not None and usable_by(connection, task.owner) else None
        if connection is None or not isinstance(provider, DeletingProvider):
            reason = "the task's connection is there no more" if provider is None else f"{task.provider} cannot delete"
            raise InvalidInputError("at_provider", reason, code="provider_cannot_delete")
        secrets = secrets_of(connection)
        request = provider.delete_request(connection, task.provider_task_id)
        provider.parse_delete(connection, fetch(connection, request, DELETE_TIMEOUT_S))
    except InvalidInputError:
        raise
    except ProviderTaskNotFound:
        return
    except ProviderError as error:
        _redact(error, secrets)
        _tell_not_deleted(task, error)
        raise
    except Exception as error:  # its text may hold anything
        broken = ProviderProtocolError(f"internal error: {type(error).__name__}", internal=True)
        _tell_not_deleted(task, broken, format_tb(error.__traceback__, limit=-PLACES))
        raise broken from None


def _tell_not_deleted(task: Task, error: ProviderError, where: list[str] | None = None) -> None:
    told = {"task_id": task.task_id, "connection": task.connection, "kind": error.kind, "error": str(error)}
    logger.warning("not deleted at the provider", extra=told | ({} if where is None else {"where": where}))


def _configured(connections: Connections, name: str) -> Connection | None:
    """A connection; that none can be read is an outage, and says nothing against this one."""
    try:
        return connections.get(name)
    except ConfigurationError as error:
        raise ProviderUnavailable(str(error)) from None


def _redact(error: ProviderError, secrets: frozenset[str]) -> None:
    error.args = (redacted(str(error), secrets),)
    if isinstance(error, ProviderProtocolError):
        error.raw = redacted(error.raw, secrets)


_redacted_name = lru_cache(maxsize=256)(redacted)  # a provider has few models


def _redacted_model(model: str, secrets: frozenset[str]) -> str:
    return _redacted_name(model, secrets) if len(model) <= SHORT_MODEL else redacted_start(model, MAX_MODEL, secrets)


def _without_secrets(observation: Observation, secrets: frozenset[str]) -> Observation:
    error = observation.error and redacted(observation.error, secrets)
    model = observation.model and _redacted_model(observation.model, secrets)
    if (error, model) == (observation.error, observation.model):
        return observation  # nearly always: a copy takes longer than the reading
    return replace(observation, error=error, model=model)
