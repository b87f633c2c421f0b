"""The deployed API: keys, bad input, and what it says of itself."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.e2e.client import Client

pytestmark = pytest.mark.e2e


def test_no_key_or_a_wrong_one_is_401(client: Client) -> None:
    for headers in ({}, {"x-api-key": "rbk_wrong"}, {"x-api-key": client.house.stack.api_key + "x"}):
        with requests.Session() as http:
            http.trust_env = False
            answer = http.get(f"{client.house.stack.api_url}/connections", headers=headers, timeout=30)
        assert answer.status_code == 401
    assert client.call("GET", "/connections").status_code == 200


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"connection": "nobody"}, "connection"),
        ({"provider_task_id": ".."}, "provider_task_id"),
        ({"provider_task_id": ""}, "provider_task_id"),
        ({"provider_task_id": "a\nb"}, "provider_task_id"),
        ({"provider_task_id": "x" * 2049}, "provider_task_id"),
        ({"webhook_url": "https://169.254.169.254/latest"}, "webhook_url"),
        ({"webhook_url": "https://localhost/hook"}, "webhook_url"),
        ({"webhook_url": "ftp://example.com/"}, "webhook_url"),
        ({"metadata": {"k": "v" * 4097}}, "metadata"),
        ({"metadata": {f"k{number}": "v" for number in range(17)}}, "metadata"),
        ({"deadline_s": 1}, "deadline_s"),
        ({"surprise": 1}, "surprise"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input_is_422_and_names_the_field(client: Client, change: dict[str, Any], field: str) -> None:
    body = {"connection": "jimmy", "provider_task_id": "p-1", "webhook_url": client.hook("x"), **change}
    answer = client.call("POST", "/tasks", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("application/problem+json")
    problem = answer.json()
    assert problem["status"] == 422
    assert any(error["field"].startswith(field) for error in problem["errors"]), problem


def test_malformed_json_is_422(client: Client) -> None:
    answer = client.call("POST", "/tasks", data=b"{oops", headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("application/problem+json")


def test_an_unknown_task_is_404(client: Client) -> None:
    for path in ("/tasks/tsk_" + "0" * 26, "/tasks/nothing", "/tasks/tsk_" + "0" * 26 + "/videos/1"):
        answer = client.call("GET", path)
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("application/problem+json")


def test_registering_again_answers_the_running_task_or_409(client: Client) -> None:
    provider_task_id = client.house.simulators.create("jimmy", seconds=600)
    body = {"connection": "jimmy", "provider_task_id": provider_task_id, "webhook_url": client.hook("x")}
    first = client.call("POST", "/tasks", json=body)
    assert first.status_code == 201
    again = client.call("POST", "/tasks", json=body)
    assert (again.status_code, again.json()["task_id"]) == (200, first.json()["task_id"])
    other = client.call("POST", "/tasks", json={**body, "metadata": {"another": "purpose"}})
    assert other.status_code == 409
    assert other.json()["code"] == "already_registered"
    assert first.json()["task_id"] in other.text
    client.call("POST", f"/tasks/{first.json()['task_id']}/cancel")


def test_the_api_describes_itself_to_anybody(client: Client) -> None:
    with requests.Session() as http:
        http.trust_env = False
        base = client.house.stack.api_url
        assert http.get(f"{base}/health", timeout=30).status_code == 200
        document = http.get(f"{base}/openapi.json", timeout=30).json()
        assert document["openapi"].startswith("3.1")
        assert "/tasks/{task_id}/cancel" in document["paths"]
        page = http.get(f"{base}/docs", timeout=30)
        assert page.headers["content-type"].startswith("text/html")


def test_the_connections_are_listed_without_their_keys(client: Client) -> None:
    answer = client.call("GET", "/connections")
    names = {one["name"] for one in answer.json()["connections"]}
    assert {"capcut-mate", "scenext", "jimmy", "moneyprinterturbo", "mingyan"} <= names
    assert "api_key" not in answer.text


def test_the_webhook_secret_is_a_standard_one(client: Client) -> None:
    assert client.call("GET", "/webhook-secret").json()["secret"].startswith("whsec_")
