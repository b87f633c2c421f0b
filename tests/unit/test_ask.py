"""One poll: what goes wrong on the way is an outcome, and says whose fault it is."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

import pytest

from renderbell.ask import Asked, ask_provider
from renderbell.errors import (
    ConfigurationError,
    ProviderAuthError,
    ProviderError,
    ProviderProtocolError,
    ProviderUnavailable,
)
from renderbell.providers import Connection, HttpRequest, HttpResponse, Observation
from tests.deployment import Deployment, Said, failed
from tests.fakes import captured_log
from tests.unit.test_task import a_task

KEY = "sk-Top/Secret+123"
STUDIO = Connection.model_validate(
    {"name": "studio", "type": "jimmy", "base_url": "https://jimmy.example.com", "api_key": KEY}
)


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


@pytest.mark.parametrize("body", [{"code": 20001, "msg": ""}, {"code": "20001", "msg": "no such key"}])
def test_a_refused_key_is_the_connections_fault_wherever_it_stands(body: object) -> None:
    asked = ask(body)
    assert isinstance(asked.error, ProviderAuthError)
    assert not asked.answered


@pytest.mark.parametrize("form", [KEY, KEY.replace("/", "\\/"), quote(KEY, safe=""), b64encode(KEY.encode()).decode()])
@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
def test_a_providers_words_come_out_without_the_key_and_the_queries_of_links(status: int, form: str) -> None:
    words = f"refused {form} for https://cdn.example.com/v.mp4?X-Amz-Signature=HUSH"
    with captured_log() as lines:
        asked = ask({"code": -1, "msg": words}, status)
        failed = ask({"code": 20000, "data": {"task_id": "p-1", "status": "failed", "error_message": words}})
        unread = ask(f"<html>{words}</html>", status)
    assert isinstance(failed.outcome, Observation)
    assert isinstance(unread.error, ProviderError)
    assert len(lines) == 2
    told = f"{asked.error} {failed.outcome.error} {unread.error} {getattr(unread.error, 'raw', '')} {lines}"
    assert "refused *** for https://cdn.example.com/v.mp4?…" in told
    assert form not in told
    assert "HUSH" not in told


def test_what_a_client_says_of_a_failure_comes_out_without_secrets_too() -> None:
    def fetch(connection: Connection, request: HttpRequest, timeout_s: float) -> HttpResponse:
        raise ProviderProtocolError(f"bad {request.headers}", raw=f"to {request.url}?key=HUSH with {KEY}")

    asked = ask_provider(Account(), fetch, a_task())
    assert isinstance(asked.error, ProviderProtocolError)
    assert KEY not in f"{asked.error} {asked.error.raw}"
    assert asked.error.raw == "to https://jimmy.example.com/api/open-api/v1/videos/p-1?… with ***"


def test_a_description_with_secrets_of_its_own_keeps_them_too() -> None:
    spec = {
        "request": {
            "path": "/t/{task_id}?app_key=in-the-path&lang=en",
            "headers": {"X-Api-Token": "Token in-a-header", "X-Version": "1"},
            "json": {"auth": {"secret": "in-the-body", "list": ["1"]}, "id": "{task_id}"},
        },
        "state": "s",
        "states": {"succeeded": ["1"]},
        "videos": "v",
    }
    farm = Connection.model_validate({"name": "farm", "type": "generic", "base_url": "https://h.test", "spec": spec})
    echo = "in-the-path in-a-header in-the-body, version 1, en"
    asked = ask({"error": echo}, 500, Account(farm))
    unread = ask(echo, 200, Account(farm)).error
    assert isinstance(unread, ProviderProtocolError)
    assert unread.raw == '"*** *** ***, version 1, en"'
    assert "in-the" not in str(asked.error)


def test_a_connection_that_is_gone_is_the_operators() -> None:
    assert isinstance(ask({}, account=Account(None)).error, ProviderAuthError)


def test_connections_that_cannot_be_read_are_nobodys_fault() -> None:
    asked = ask({}, account=Account(ConfigurationError("Parameter Store cannot be read")))
    assert isinstance(asked.error, ProviderUnavailable)
    assert not asked.answered


def broken(status: int = 200) -> HttpResponse:
    """An answer that the code which reads it was not written for."""
    return HttpResponse(status, {}, cast(bytes, [f"no body, {KEY}"]))


def test_code_that_breaks_on_an_answer_is_an_outcome_of_one_task() -> None:
    asked = ask_provider(Account(), lambda *_: broken(), a_task())
    assert isinstance(asked.error, ProviderProtocolError)
    assert (asked.error.kind, asked.error.raw) == ("internal", "")
    assert (asked.answered, asked.judged) == (True, True)


@pytest.mark.parametrize("error", [TypeError(KEY), RecursionError(KEY), MemoryError(KEY), KeyError(KEY)])
def test_code_that_breaks_is_told_by_the_exceptions_class_alone(error: Exception) -> None:
    def fetch(connection: Connection, request: HttpRequest, timeout_s: float) -> HttpResponse:
        raise error

    with captured_log() as lines:
        asked = ask_provider(Account(), fetch, a_task())
    assert str(asked.error) == f"internal error: {type(error).__name__}"
    (line,) = lines
    assert line["kind"] == "internal"
    assert "in fetch" in str(line["where"])
    assert KEY not in str(lines)


@pytest.mark.parametrize("answer", [broken(500), TypeError()])
def test_code_that_breaks_on_no_sound_answer_says_nothing_of_the_connection(answer: HttpResponse | Exception) -> None:
    def fetch(connection: Connection, request: HttpRequest, timeout_s: float) -> HttpResponse:
        if isinstance(answer, Exception):
            raise answer
        return answer

    asked = ask_provider(Account(), fetch, a_task())
    assert asked.error is not None
    assert (asked.error.kind, asked.answered, asked.judged) == ("internal", False, False)


def test_no_secret_of_a_provider_reaches_the_task_its_owner_or_the_log() -> None:
    hook = "https://example.com/hook"
    echo = f"no access with {KEY} to https://cdn.example.com/v.mp4?X-Amz-Signature=HUSH"
    world = Deployment()
    world.connect("studio", api_key=KEY)
    with captured_log() as lines:
        ended = world.register(failed(message=echo), webhooks=[hook])
        unread = world.register(Said(0, f"<html>{echo}</html>".encode()))
        refused = world.register(Said(0, json.dumps({"code": 20001, "msg": echo}).encode()))
        world.run(10)
    error, problems = world.task(ended).error, [world.task(task).last_poll_error for task in (unread, refused)]
    told = f"{error} {problems} {world.messages(ended)[0].body.decode()} {lines}"
    assert told.count("no access with *** to https://cdn.example.com/v.mp4?…") >= 5
    assert KEY not in told
    assert "HUSH" not in told
