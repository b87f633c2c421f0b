"""One poll: what goes wrong on the way is an outcome, and says whose fault it is."""

from __future__ import annotations

import json
import tracemalloc
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import quote

import pytest

from renderbell.ask import MAX_MODEL, MAX_PAGES, Asked, Heard, ask_list, ask_provider
from renderbell.errors import (
    ConfigurationError,
    ProviderAuthError,
    ProviderError,
    ProviderProtocolError,
    ProviderUnavailable,
)
from renderbell.providers import Connection, HttpRequest, HttpResponse, Observation
from tests.deployment import Deployment, Said, failed
from tests.fakes import FakeClock, captured_log
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


def test_a_models_name_is_cut_and_a_long_one_is_not_remembered() -> None:
    """Names of 2 MB each, read whole and kept for the next ones, would take a small function's memory."""

    def named(model: str) -> str:
        asked = ask({"code": 20000, "data": {"task_id": "p-1", "status": "processing", "model": model}})
        assert isinstance(asked.outcome, Observation)
        return asked.outcome.model or ""

    assert named(f"kling-{KEY}") == "kling-***"
    tracemalloc.start()
    try:
        for number in range(8):
            assert named(f"{number}{KEY}" + "x" * 1_000_000) == f"{number}***" + "x" * (MAX_MODEL - 4)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000


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


# -- lists ------------------------------------------------------------------------------------------------------------

SHELF = Connection.model_validate(
    {"name": "shelf", "type": "moneyprinterturbo", "base_url": "https://mpt.example.com", "api_key": KEY}
)


def page(*tasks: tuple[str, int], total: int | None = None, number: int = 1) -> HttpResponse:
    items = [{"task_id": name, "state": 4, "progress": progress} for name, progress in tasks]
    more = {} if total is None else {"total": total, "page": number, "page_size": 2}
    return HttpResponse(200, {}, json.dumps({"data": {"tasks": items, **more}}).encode())


@dataclass
class Pages:
    """Answers page after page, each after some seconds of the test's clock."""

    answers: list[HttpResponse | Exception]
    takes_s: float = 0.0
    clock: FakeClock = field(default_factory=FakeClock)
    asked: list[tuple[str, float]] = field(default_factory=list)

    def fetch(self, connection: Connection, request: HttpRequest, timeout_s: float) -> HttpResponse:
        self.asked.append((request.url.partition("?")[2], timeout_s))
        self.clock.pass_s(self.takes_s)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def heard(self, *wanted: str, account: Account | None = None, **limits: Any) -> Heard:
        return ask_list(account or Account(SHELF), self.fetch, self.clock, "shelf", wanted, **limits)


def progress(heard: Heard) -> dict[str, int | None]:
    return {name: seen.progress for name, seen in heard.running.items()}


class TestAList:
    def test_is_read_until_all_are_found(self) -> None:
        pages = Pages([page(("a", 1), ("x", 2), total=9), page(("b", 3), ("y", 4), total=9, number=2)])
        heard = pages.heard("a", "b")
        assert progress(heard) == {"a": 1, "b": 3}
        assert (heard.requests, heard.count, heard.complete) == (2, 4, True)
        assert [asked for asked, _ in pages.asked] == ["page=1&page_size=500", "page=2&page_size=500"]

    def test_is_read_to_its_end_for_one_who_is_not_there(self) -> None:
        heard = Pages([page(("a", 1), ("x", 2), total=3), page(("y", 4), total=3, number=2)]).heard("a", "gone")
        assert (progress(heard), heard.requests, heard.complete) == ({"a": 1}, 2, True)

    def test_is_not_read_on_where_it_is_too_long_to_be_worth_while(self) -> None:
        pages = Pages([page(("a", 1), ("x", 2), total=9), page(("b", 3), ("y", 4), total=9, number=2)])
        heard = pages.heard("a", "b", most=1)
        assert (progress(heard), heard.requests, heard.count, heard.complete) == ({"a": 1}, 1, 2, True)

    def test_is_not_read_on_for_one_who_has_ended(self) -> None:
        ended = HttpResponse(200, {}, b'{"data": {"tasks": [{"task_id": "a", "state": 1}]}}')
        assert Pages([ended]).heard("a") == Heard({}, 1, 1, complete=True)

    @pytest.mark.parametrize(("allowed", "read"), [(3, 3), (100, MAX_PAGES)])
    def test_is_read_for_so_many_pages_at_most(self, allowed: int, read: int) -> None:
        pages = Pages([page((f"x{number}", 1)) for number in range(100)])
        assert pages.heard("a", pages=allowed).requests == read

    def test_that_says_two_things_on_two_pages_says_nothing(self) -> None:
        heard = Pages([page(("a", 1), ("b", 2)), page(("a", 1), ("b", 3)), page()]).heard("a", "b", "c")
        assert progress(heard) == {"a": 1}

    def test_whose_later_page_fails_keeps_what_the_earlier_ones_said(self) -> None:
        heard = Pages([page(("a", 1)), ProviderUnavailable("reset")]).heard("a", "b")
        assert (progress(heard), heard.requests, heard.complete) == ({"a": 1}, 2, False)

    def test_has_one_time_out_for_all_of_its_pages(self) -> None:
        pages = Pages([page((f"x{number}", 1)) for number in range(9)], takes_s=2)
        heard = pages.heard("a", timeout_s=5)
        assert [left_s for _, left_s in pages.asked] == [5, 3, 1]
        assert (heard.requests, heard.complete) == (3, False)

    @pytest.mark.parametrize(
        "account",
        [
            Account(None),
            Account(STUDIO),
            Account(SHELF.model_copy(update={"batch": False})),
            Account(ConfigurationError("Parameter Store cannot be read")),
        ],
    )
    def test_is_not_asked_for_where_there_is_none(self, account: Account) -> None:
        assert Pages([]).heard("a", account=account) == Heard({}, 0, 0, complete=False)

    @pytest.mark.parametrize("error", [TypeError(KEY), RecursionError(KEY), MemoryError(KEY)])
    def test_that_our_code_breaks_on_has_failed_and_tells_the_exceptions_class_alone(self, error: Exception) -> None:
        with captured_log() as lines:
            assert Pages([error]).heard("a") == Heard({}, 1, 0, complete=False)
        (line,) = lines
        assert line["error"] == f"internal: {type(error).__name__}"
        assert KEY not in str(lines)

    def test_s_words_come_out_without_secrets(self) -> None:
        words = f"refused {KEY} for https://cdn.example.com/v.mp4?X-Amz-Signature=HUSH"
        with captured_log() as lines:
            for answer in (
                HttpResponse(401, {}, json.dumps({"message": words}).encode()),
                HttpResponse(200, {}, f"<html>{words}".encode()),
            ):
                assert not Pages([answer]).heard("a").complete
        assert [line["message"] for line in lines] == ["list brought nothing"] * 2
        assert str(lines).count("refused *** for https://cdn.example.com/v.mp4?…") == 2
        assert KEY not in str(lines)
        assert "HUSH" not in str(lines)

    def test_s_models_come_out_without_secrets(self) -> None:
        spec = {
            "request": {"path": "/t/{task_id}"},
            "state": "s",
            "states": {"succeeded": ["1"]},
            "videos": "v",
            "model": "m",
            "list": {"request": {"path": "/t"}, "items": "@", "task_id": "id"},
        }
        farm = SHELF.model_validate({**SHELF.model_dump(), "type": "generic", "api_key": KEY, "spec": spec})
        body = json.dumps([{"id": "a", "s": "2", "m": f"model {KEY}"}]).encode()
        heard = Pages([HttpResponse(200, {}, body)]).heard("a", account=Account(farm))
        assert heard.running["a"].model == "model ***"
