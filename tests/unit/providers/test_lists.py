"""Lists of many tasks: each of them is read as its own answer is, or is left to be asked for singly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from renderbell.providers import (
    PROVIDERS,
    Connection,
    HttpResponse,
    Listed,
    ListingProvider,
    Observation,
    ProviderAuthError,
    ProviderError,
    ProviderProtocolError,
    ProviderState,
    ProviderUnavailable,
    lister_of,
    poll_schedule_for,
)
from renderbell.providers.base import secrets_of
from tests.unit.providers.answers import GENERIC_SPEC, KEY, RECORDINGS, answer, connection
from tests.unit.providers.test_any_answer import values
from tests.unit.providers.test_generic_specs import SPECS

MPT = connection("moneyprinterturbo", base_url="http://192.168.1.20:8080")
RUNS = {ProviderState.QUEUED, ProviderState.PROCESSING}
LIST: dict[str, Any] = {
    "request": {"path": "/v1/tasks?page={page}&limit=100", "headers": {"X-Version": "1"}},
    "items": "tasks",
    "task_id": "id",
    "more": "has_more",
}


def generic(**fields: object) -> Connection:
    return connection("generic", spec={**GENERIC_SPEC, "list": LIST | fields})


def lister(account: Connection) -> ListingProvider:
    found = lister_of(account)
    assert found is not None
    return found


def read(account: Connection, body: object, wanted: set[str], status: int = 200) -> Listed:
    return lister(account).parse_list(account, answer(body, status), wanted)


def recorded(name: str) -> HttpResponse:
    lines = (RECORDINGS / "moneyprinterturbo.jsonl").read_text().splitlines()
    found = next(one["response"] for one in map(json.loads, lines) if one["name"] == name)
    return answer(found.get("json", found.get("text")), found["status"], found["headers"])


def said(page: Listed) -> tuple[dict[str, Observation], set[str]]:
    return dict(page.running), set(page.unclear)


def as_json(body: object, status: int = 200) -> HttpResponse:
    return HttpResponse(status, {}, json.dumps(body).encode())


def ones(digit: int) -> str:
    return f"{str(digit) * 8}-{str(digit) * 4}-4{str(digit) * 3}-8{str(digit) * 3}-{str(digit) * 12}"


# -- MoneyPrinterTurbo ------------------------------------------------------------------------------------------------


class TestMoneyPrinterTurbo:
    DONE = "6c85c8cc-a77a-42b9-bc30-947815aa0558"

    def listed(self, name: str, *wanted: str) -> Listed:
        return lister(MPT).parse_list(MPT, recorded(name), wanted)

    def test_s_list_tells_who_runs_and_leaves_those_that_have_ended_to_their_own_answers(self) -> None:
        page = self.listed("list page1 size3", self.DONE, ones(1), ones(2), ones(3))
        assert {name: seen.progress for name, seen in page.running.items()} == {ones(1): 0, ones(2): 75}
        assert page.unclear == {self.DONE}
        assert (page.count, page.more) == (3, True)

    def test_s_failed_tasks_are_asked_for_singly(self) -> None:
        page = self.listed("list page2 size3", ones(3), ones(4), ones(5))
        assert page.running == {ones(3): Observation(ProviderState.PROCESSING, progress=100)}
        assert page.unclear == {ones(4), ones(5)}

    def test_s_tasks_of_others_are_counted_and_not_read(self) -> None:
        page = self.listed("list page1 size3", ones(2))
        assert (set(page.running), set(page.unclear), page.count) == ({ones(2)}, set(), 3)

    @pytest.mark.parametrize("name", ["list-empty", "list page99", "list-after-restart"])
    def test_s_list_ends_with_an_empty_page(self, name: str) -> None:
        assert self.listed(name, ones(1)) == Listed({}, frozenset(), 0, more=False)

    def test_s_list_that_holds_them_all_has_no_further_page(self) -> None:
        assert not self.listed("list-while-running", ones(1)).more

    def test_s_running_task_is_read_from_the_list_as_from_its_own_answer(self) -> None:
        page = self.listed("list page1 size3", ones(2))
        single = PROVIDERS["moneyprinterturbo"].parse_status(MPT, recorded("get processing-75"))
        assert page.running[ones(2)] == single

    def test_s_one_corrupt_record_fails_the_whole_page(self) -> None:
        with pytest.raises(ProviderUnavailable):
            self.listed("list (one record corrupt -> 500 for the whole page)", ones(1))

    @pytest.mark.parametrize(
        ("body", "status", "expected"),
        [
            ({"detail": "Not Found"}, 404, ProviderProtocolError),
            ({"detail": "Method Not Allowed"}, 405, ProviderProtocolError),
            ({"status": 401, "message": "invalid token: http://x, ua"}, 401, ProviderAuthError),
            ("<html>", 200, ProviderProtocolError),
            ({"status": 200, "data": {"task_id": "x", "state": 4}}, 200, ProviderProtocolError),
            ({"status": 200, "data": {"tasks": {"x": 4}}}, 200, ProviderProtocolError),
            ({"status": 200, "data": None}, 200, ProviderProtocolError),
        ],
    )
    def test_s_other_answers_are_no_list(self, body: object, status: int, expected: type[ProviderError]) -> None:
        with pytest.raises(expected):
            read(MPT, body, {"x"}, status)

    def test_s_odd_items_spoil_no_others(self) -> None:
        tasks: list[object] = [
            None,
            7,
            "x",
            [],
            {},
            {"task_id": None, "state": 4},
            {"task_id": "b"},
            {"task_id": "a", "state": 4},
        ]
        page = read(MPT, {"data": {"tasks": tasks}}, {"a", "b", "None"})
        assert (set(page.running), set(page.unclear), page.count) == ({"a"}, {"b"}, 8)

    def test_s_list_without_a_total_goes_on_until_it_is_empty(self) -> None:
        assert read(MPT, {"data": {"tasks": [{"task_id": "a", "state": 4}]}}, {"a"}).more
        assert not read(MPT, {"data": {"tasks": []}}, {"a"}).more

    def test_s_task_that_is_there_twice_counts_if_both_say_the_same(self) -> None:
        same = {"task_id": "a", "state": 4, "progress": 10}
        assert read(MPT, {"data": {"tasks": [same, same]}}, {"a"}).running.keys() == {"a"}
        for other in ({**same, "progress": 20}, {**same, "state": 1}, {**same, "state": None}):
            for tasks in ([same, other], [other, same], [same, other, same]):
                page = read(MPT, {"data": {"tasks": tasks}}, {"a"})
                assert said(page) == ({}, {"a"})

    def test_s_list_is_asked_for_by_pages_with_the_key(self) -> None:
        account = connection("moneyprinterturbo", base_url="http://h/mpt")
        request = lister(account).list_request(account, 3)
        assert (request.method, request.url) == ("GET", "http://h/mpt/api/v1/tasks?page=3&page_size=500")
        assert request.headers["x-api-key"] == KEY


# -- generic ----------------------------------------------------------------------------------------------------------


class TestGeneric:
    def test_tasks_are_read_by_the_specs_expressions(self) -> None:
        tasks = [
            {"id": "a", "status": "RUNNING", "progress": 30, "model": "m"},
            {"id": "b", "status": "PENDING"},
            {"id": "c", "status": "SUCCEEDED", "output": "https://h/v.mp4"},
            {"id": "d", "status": "FAILED"},
            {"id": "e"},
            {"id": "f", "status": "RUNNING", "code": "NoSuchTask"},
            {"id": 7, "status": "RUNNING"},
            {"id": True, "status": "RUNNING"},
            {"id": "unwanted", "status": "RUNNING"},
        ]
        page = read(generic(), {"tasks": tasks, "has_more": True}, {*"abcdef", "7", "true", "True"})
        assert page.running == {
            "a": Observation(ProviderState.PROCESSING, progress=30, model="m"),
            "b": Observation(ProviderState.QUEUED),
            "7": Observation(ProviderState.PROCESSING),
        }
        assert page.unclear == set("cdef")
        assert (page.count, page.more) == (9, True)

    def test_tasks_can_be_put_where_the_single_answer_has_them(self) -> None:
        account = connection("generic", spec=SPECS["kling"])
        tasks = [{"task_id": "a", "task_status": "processing"}, {"task_id": "b", "task_status": "succeed"}]
        page = read(account, {"code": 0, "data": tasks}, {"a", "b"})
        assert (set(page.running), set(page.unclear), page.more) == ({"a"}, {"b"}, True)
        assert read(account, {"code": 1302, "data": tasks}, {"a", "b"}).running == {}
        assert lister(account).list_request(account, 2).url.endswith("/v1/videos/text2video?pageNum=2&pageSize=500")
        assert not read(account, {"code": 0, "data": []}, {"a"}).more

    @pytest.mark.parametrize(("body", "status"), [({}, 200), ({"tasks": {}}, 200), ([], 200), ("x", 200), ("", 302)])
    def test_what_holds_no_list_cannot_be_read(self, body: object, status: int) -> None:
        with pytest.raises(ProviderProtocolError):
            read(generic(), body, {"a"}, status)

    def test_a_refusal_is_one_whatever_stands_in_it(self) -> None:
        with pytest.raises(ProviderUnavailable):
            read(generic(), {"tasks": [{"id": "a", "status": "RUNNING"}]}, {"a"}, 503)

    def test_one_page_is_all_where_the_request_has_no_place_for_its_number(self) -> None:
        account = generic(request={"path": "/v1/tasks"}, more=None)
        assert not read(account, {"tasks": [{"id": "a", "status": "RUNNING"}]}, {"a"}).more

    def test_the_pages_number_stands_wherever_it_is_asked_for(self) -> None:
        request = {
            "method": "POST",
            "path": "/v1/list/{page}",
            "headers": {"X-Page": "p{page}", "Accept": "text/json"},
            "json": {"page": "{page}", "text": "page {page}", "size": 50, "states": ["RUNNING"]},
        }
        account = generic(request=request, first_page=0)
        sent = lister(account).list_request(account, 2)
        assert (sent.method, sent.url) == ("POST", "https://provider.example/v1/list/1")
        assert sent.json == {"page": 1, "text": "page 1", "size": 50, "states": ["RUNNING"]}
        assert sent.headers == {"X-Page": "p1", "Accept": "text/json", "Authorization": f"Bearer {KEY}"}

    @pytest.mark.parametrize(
        "fields",
        [
            {"request": {"path": "/v1/tasks/{task_id}"}},
            {"request": {"path": "v1/tasks"}},
            {"request": {"path": "/v1/../tasks"}},
            {"request": {"path": "/v1", "headers": {"authorization": "x"}}},
            {"request": {"path": "/v1", "headers": {"Host": "x"}}},
            {"items": "tasks["},
            {"task_id": ""},
            {"first_page": 2},
            {"put_in": ""},
            {"pages": 3},
        ],
    )
    def test_a_mistake_in_it_is_one_of_the_connection(self, fields: Mapping[str, object]) -> None:
        with pytest.raises(ValidationError):
            generic(**fields)

    def test_secrets_of_its_request_are_known_as_such(self) -> None:
        account = generic(request={"path": "/v1/tasks?token=t-123", "headers": {"X-Secret": "s-456"}})
        assert {"t-123", "s-456", KEY} <= secrets_of(account)


# -- all --------------------------------------------------------------------------------------------------------------


def test_only_two_types_list_and_only_where_they_may() -> None:
    assert {name for name, one in PROVIDERS.items() if isinstance(one, ListingProvider)} == {
        "moneyprinterturbo",
        "generic",
    }
    assert lister_of(MPT) is not None
    assert lister_of(connection("moneyprinterturbo", batch=False)) is None
    assert lister_of(connection("generic")) is None
    assert lister_of(generic()) is not None
    assert lister_of(connection("jimmy")) is None


def test_tasks_that_can_be_listed_fall_due_together_and_others_do_not() -> None:
    assert poll_schedule_for(MPT).together == "test"
    assert poll_schedule_for(generic()).together == "test"
    assert poll_schedule_for(connection("moneyprinterturbo", batch=False)).together is None
    assert poll_schedule_for(connection("generic")).together is None


@pytest.mark.parametrize("account", [MPT, generic()], ids=["moneyprinterturbo", "generic"])
def test_an_absurdly_long_page_is_none(account: Connection) -> None:
    """Of 2 MiB of zeros, 2.4 s of a poller's time."""
    with pytest.raises(ProviderProtocolError, match="a page of 20001 tasks"):
        read(account, {"tasks": [0] * 20_001, "data": {"tasks": [0] * 20_001}}, {"a"})


fields = st.dictionaries(
    st.sampled_from(["state", "status", "progress", "error", "videos", "output", "frames", "ok", "code", "model"]),
    st.one_of(values, st.sampled_from([4, 1, -1, "RUNNING", "PENDING", "SUCCEEDED", "FAILED", "BadKey", False])),
    max_size=6,
)


@pytest.mark.parametrize("type_", ["moneyprinterturbo", "generic"])
@settings(deadline=None)
@given(fields)
@example({"state": 4, "status": "RUNNING"})
@example({"state": 1, "status": "SUCCEEDED"})
def test_a_task_is_read_from_a_list_as_from_its_own_answer(type_: str, told: dict[str, object]) -> None:
    account = MPT if type_ == "moneyprinterturbo" else generic()
    task = {"task_id": "t", "id": "t", **told}
    single = as_json({"data": task} if account is MPT else task)
    try:
        seen = PROVIDERS[type_].parse_status(account, single)
    except ProviderError:
        seen = None
    page = lister(account).parse_list(account, as_json({"data": {"tasks": [task]}, "tasks": [task]}), {"t"})
    if seen is not None and seen.state in RUNS:
        assert said(page) == ({"t": seen}, set())
    else:
        assert said(page) == ({}, {"t"})


@pytest.mark.parametrize("type_", ["moneyprinterturbo", "generic"])
@settings(deadline=None)
@given(values, st.sampled_from([200, 200, 200, 404, 500, 302]))
def test_whatever_a_server_answers_is_a_list_or_a_provider_error(type_: str, body: object, status: int) -> None:
    account = MPT if type_ == "moneyprinterturbo" else generic()
    response = as_json({"data": body, "tasks": body}, status)
    try:
        page = lister(account).parse_list(account, response, {"t", "1", "0"})
    except ProviderError:
        return
    assert all(seen.state in RUNS for seen in page.running.values())
