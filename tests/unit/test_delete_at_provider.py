"""Deleting a task at its provider too, before it is deleted here."""

from __future__ import annotations

import json

import pytest

from renderbell.ask import DELETE_TIMEOUT_S
from renderbell.errors import ConfigurationError, ProviderAuthError, ProviderUnavailable
from renderbell.providers import Connection, HttpResponse
from renderbell.task import Status
from tests.fakes import captured_log
from tests.http_api import HOOK, Answer, World, sample

KEY = "sk-Top/Secret+123"
BASE = "http://10.0.0.9:8080"


class Studio(World):
    """A world whose connection can delete."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.connect("studio", "default", type="moneyprinterturbo", base_url=BASE, api_key=KEY)

    def answers(self, body: object, status: int = 200) -> None:
        self.provider.answer = HttpResponse(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())

    def delete(self, task_id: str, **query: str) -> Answer:
        return self.call("DELETE", f"/tasks/{task_id}", query={"at_provider": "true", **query})

    def ended(self, **fields: object) -> str:
        task_id = self.registered(**fields)
        self.change(task_id, status=Status.FAILED, step=None, due_at=None)
        return task_id


def test_the_provider_deletes_first_and_then_we_do() -> None:
    world = Studio()
    task_id = world.ended(provider_task_id="job 7")
    there = []
    world.provider.meanwhile = lambda: there.append(world.task(task_id).deleted)
    assert world.delete(task_id).status == 202
    assert world.provider.asked == [("DELETE", f"{BASE}/api/v1/tasks/job%207", DELETE_TIMEOUT_S)]
    assert there == [False]
    assert world.task(task_id).deleted


def test_without_the_word_nobody_is_asked() -> None:
    world = Studio()
    task_id = world.ended()
    assert world.call("DELETE", f"/tasks/{task_id}", query={"at_provider": "false"}).status == 202
    assert world.provider.asked == []


def test_a_task_that_the_provider_does_not_know_is_deleted_already() -> None:
    world = Studio()
    task_id = world.ended()
    world.answers({"status": 404, "message": "1d: task not found"}, 404)
    assert world.delete(task_id).status == 202
    assert world.task(task_id).deleted


@pytest.mark.parametrize(
    "answer",
    [
        HttpResponse(500, {}, b"Internal Server Error"),
        HttpResponse(409, {}, b'{"status": 409, "message": "1d: task is still running"}'),
        HttpResponse(401, {}, b'{"status": 401, "message": "invalid token"}'),
        HttpResponse(404, {}, b'{"detail": "Not Found"}'),
        HttpResponse(200, {}, b"<html>"),
        ProviderUnavailable("10.0.0.9 took longer than 6 s"),
        ProviderAuthError("the connection's address may not be reached"),
        KeyError(KEY),
    ],
)
def test_the_providers_trouble_is_502_and_nothing_is_deleted(answer: HttpResponse | Exception) -> None:
    world = Studio()
    task_id = world.ended()
    world.provider.answer = answer
    for query in ({}, {"force": "true"}):
        world.delete(task_id, **query).problem(502, "provider_unavailable")
    assert not world.task(task_id).deleted
    assert world.call("GET", f"/tasks/{task_id}").status == 200


@pytest.mark.parametrize("on_the_way", [False, True], ids=["in its answer", "on the way"])
def test_what_a_provider_repeats_of_secrets_is_told_to_nobody(on_the_way: bool) -> None:
    world = Studio()
    task_id = world.ended()
    words = f"invalid token: {KEY}, https://cdn.example/v?sig=abc"
    if on_the_way:
        world.provider.answer = ProviderUnavailable(words)
    else:
        world.answers({"status": 500, "message": words}, 500)
    with captured_log() as log:
        detail = world.delete(task_id).problem(502, "provider_unavailable")["detail"]
    assert "invalid token" in detail
    for text in (detail, json.dumps(log)):
        assert KEY not in text
        assert "sig=abc" not in text


def test_a_fault_of_ours_tells_no_more_than_its_class() -> None:
    world = Studio()
    task_id = world.ended()
    world.provider.answer = KeyError(KEY)
    with captured_log() as log:
        detail = world.delete(task_id).problem(502, "provider_unavailable")["detail"]
    assert detail == "internal error: KeyError"
    assert KEY not in json.dumps(log)


def test_a_provider_that_cannot_is_422() -> None:
    world = World()
    task_id = world.registered()
    answer = world.call("DELETE", f"/tasks/{task_id}", query={"at_provider": "true", "force": "true"})
    (problem,) = answer.problem(422, "invalid_input")["errors"]
    assert (problem["field"], problem["code"]) == ("at_provider", "provider_cannot_delete")
    assert world.provider.asked == []
    assert not world.task(task_id).deleted


@pytest.mark.parametrize("gone", [True, False])
def test_a_connection_that_is_gone_or_no_longer_the_owners_deletes_nothing(gone: bool) -> None:
    world = Studio()
    task_id = world.ended()
    if gone:
        world.connections.by_name.clear()
    else:
        world.connect("studio", "rival", type="moneyprinterturbo", base_url=BASE)
    (problem,) = world.delete(task_id).problem(422, "invalid_input")["errors"]
    assert problem["code"] == "provider_cannot_delete"
    assert world.provider.asked == []
    assert not world.task(task_id).deleted


def test_connections_that_cannot_be_read_are_502() -> None:
    class Unreadable:
        def get(self, name: str) -> Connection | None:
            raise ConfigurationError("the connections cannot be read from Parameter Store")

    world = Studio()
    task_id = world.ended()
    world.connections.get = Unreadable().get  # type: ignore[method-assign]
    world.delete(task_id).problem(502, "provider_unavailable")


def test_a_running_task_takes_force_and_the_provider_is_not_asked_without() -> None:
    world = Studio()
    task_id = world.registered()
    world.delete(task_id).problem(409, "task_running")
    assert world.provider.asked == []
    assert world.delete(task_id, force="true").status == 202
    assert len(world.provider.asked) == 1


def test_a_pending_webhook_keeps_the_provider_from_being_asked() -> None:
    world = Studio()
    task_id = world.registered(webhook_url=HOOK)
    assert world.call("POST", f"/tasks/{task_id}/cancel").status == 200
    world.delete(task_id).problem(409, "delivery_pending")
    assert world.provider.asked == []


def test_it_is_not_for_readers_nor_for_other_owners() -> None:
    world = Studio()
    task_id = world.ended()
    path, query = f"/tasks/{task_id}", {"at_provider": "true"}
    world.call("DELETE", path, query=query, scope="read").problem(403, "forbidden")
    world.call("DELETE", path, query=query, owner="rival").problem(404, "not_found")
    assert world.provider.asked == []
    assert sample("delete")["httpMethod"] == "DELETE"
