"""One poll: what goes wrong on the way is an outcome, and says whose fault it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from renderbell.ask import Asked, ask_provider
from renderbell.errors import ConfigurationError, ProviderAuthError, ProviderProtocolError, ProviderUnavailable
from renderbell.providers import Connection, HttpRequest, HttpResponse, Observation
from tests.unit.test_task import a_task

STUDIO = Connection(name="studio", type="jimmy", base_url="https://jimmy.example.com")


@dataclass
class Account:
    """The one connection, or why there is none."""

    found: Connection | Exception | None = STUDIO

    def get(self, name: str) -> Connection | None:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def ask(body: Any, status: int = 200, account: Account | None = None) -> Asked:
    def fetch(connection: Connection, request: HttpRequest, timeout_s: float) -> HttpResponse:
        return HttpResponse(status, {}, json.dumps(body).encode())

    return ask_provider(account or Account(), fetch, a_task())


def test_an_observation_is_an_answer() -> None:
    asked = ask({"code": 20000, "data": {"task_id": "p-1", "status": "processing"}})
    assert isinstance(asked.outcome, Observation)
    assert (asked.error, asked.answered) == (None, True)


def test_an_answer_about_another_task_is_none() -> None:
    asked = ask({"code": 20000, "data": {"task_id": "p-2", "status": "completed"}})
    assert isinstance(asked.error, ProviderProtocolError)


@pytest.mark.parametrize(("status", "answered"), [(200, True), (500, False), (429, False)])
def test_a_fault_in_a_successful_answer_is_the_tasks_and_any_other_the_connections(status: int, answered: bool) -> None:
    asked = ask({"code": -1, "msg": "record not found"}, status)
    assert isinstance(asked.error, ProviderUnavailable)
    assert asked.answered is answered


def test_a_connection_that_is_gone_is_the_operators() -> None:
    assert isinstance(ask({}, account=Account(None)).error, ProviderAuthError)


def test_connections_that_cannot_be_read_are_nobodys_fault() -> None:
    asked = ask({}, account=Account(ConfigurationError("Parameter Store cannot be read")))
    assert isinstance(asked.error, ProviderUnavailable)
    assert not asked.answered
