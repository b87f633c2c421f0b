"""The endpoints that a team manages: who is told, which secret signs what, and what comes back after trouble."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from standardwebhooks import Webhook

from local.receiver import Received, signature_matches
from tests.e2e.client import Client
from tests.e2e.conftest import STUDIO

pytestmark = pytest.mark.e2e

TEAM = "hooks"
TOKEN = "Bearer of-the-shop-0123456789"


class Endpoint:
    """One endpoint of the team's, whose receiver knows only this endpoint's own secret."""

    def __init__(self, team: Client, **asked: Any) -> None:
        self.team = team
        self.path = f"/hooks/endpoint-{uuid4().hex[:8]}"
        answer = team.call("POST", "/endpoints", json={"url": f"{team.house.receiver.url}{self.path}", **asked})
        assert answer.status_code == 201, answer.text
        self.made = answer.json()
        self.route = f"/endpoints/{self.made['endpoint_id']}"
        self.secret = self.read("/secret")["secret"]
        self.answers()

    def answers(self, **order: Any) -> None:
        """How it answers from now on; well, if nothing is said."""
        self.team.house.receiver.order(self.path, secret=self.secret, **order)

    def read(self, below: str = "") -> Any:
        answer = self.team.call("GET", f"{self.route}{below}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def change(self, **change: Any) -> Any:
        answer = self.team.call("PATCH", self.route, json=change)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, below: str, status: int, **more: Any) -> Any:
        answer = self.team.call("POST", f"{self.route}{below}", **more)
        assert answer.status_code == status, answer.text
        return answer.json()

    def heard(self, *, task_id: str | None = None, type: str | None = None) -> list[Received]:
        return self.team.house.receiver.received(path=self.path, task_id=task_id, type=type)

    def hears(self, *, task_id: str | None = None, type: str | None = None, requests: int = 1) -> Received:
        """The webhook, once it was asked for so often."""

        def look() -> Received | None:
            found = self.heard(task_id=task_id, type=type)
            return found[0] if found and found[0].attempts >= requests else None

        received = self.team.until(look, f"{type or 'a webhook'} at {self.path}")
        assert received.verified, "the independent package refuses the signature"
        return received

    def until(self, look: Callable[[Any], Any], what: str) -> Any:
        """What it shows of itself, once that is so."""
        return self.team.until(lambda: shown if look(shown := self.read()) else None, what)

    def delete(self) -> None:
        assert self.team.call("DELETE", self.route).status_code == 204


@pytest.fixture(scope="module")
def team(client: Client) -> Client:
    return client.of(TEAM)


def render(team: Client, **asked: Any) -> str:
    """A task that fails at once, and so is told of at once; its id."""
    return str(
        team.start("jimmy", connection=STUDIO, seconds=0, outcome="fail", asked={"webhook_url": None, **asked})[
            "task_id"
        ]
    )


def delivery(team: Client, task_id: str, endpoint: Endpoint, state: str) -> dict[str, Any]:
    """What became of a task's webhook to an endpoint, once it is in that state."""

    def look() -> dict[str, Any] | None:
        found = team.task(task_id)["deliveries"]
        ours = (one for one in found if one["endpoint_id"] == endpoint.made["endpoint_id"])
        return next((one for one in ours if one["state"] == state), None)

    return team.until(look, f"the delivery that is {state}")


def test_a_task_without_webhooks_is_told_to_the_endpoints_that_want_the_event(team: Client) -> None:
    all_ends = Endpoint(team, description="orders", headers={"Authorization": TOKEN, "X-Shop": "north"})
    failures = Endpoint(team, events=["task.failed"])
    successes = Endpoint(team, events=["task.completed"])
    inline = team.house.receiver
    inline.order("/hooks/inline", secret=team.call("GET", "/webhook-secret").json()["secret"])
    try:
        task_id = render(team, metadata={"order": "9"})
        received = [one.hears(task_id=task_id, type="task.failed") for one in (all_ends, failures)]
        shown = team.settled(task_id)
        told = [json.loads(one.body) for one in received]
        assert told[0] == told[1]
        assert (told[0]["type"], told[0]["data"]["metadata"]) == ("task.failed", {"order": "9"})
        assert {name: received[0].headers[name] for name in ("authorization", "x-shop")} == {
            "authorization": TOKEN,
            "x-shop": "north",
        }
        assert "authorization" not in received[1].headers
        told_to = {one["endpoint_id"] for one in shown["deliveries"]} - {"bus"}
        assert told_to == {one.made["endpoint_id"] for one in (all_ends, failures)}
        assert all_ends.secret != failures.secret
        assert not signature_matches(all_ends.secret, received[1].body, received[1].headers)
        own = render(team, webhook_url=team.hook("inline"))
        team.told(own, "task.failed")
        assert [one["url"] for one in team.settled(own)["deliveries"] if one["endpoint_id"] != "bus"] == [
            team.hook("inline")
        ]
        assert successes.heard() == []
        shown = all_ends.until(lambda one: one["last_7_days"]["delivered"], "the count")
        assert shown["last_7_days"] == {"delivered": 1, "failed": 0}
        assert (shown["description"], shown["header_names"]) == ("orders", ["Authorization", "X-Shop"])
        listed = team.call("GET", "/endpoints")
        assert TOKEN not in listed.text + json.dumps(shown) + json.dumps(all_ends.made)
        assert [one["endpoint_id"] for one in listed.json()["endpoints"]] == [
            one.made["endpoint_id"] for one in (all_ends, failures, successes)
        ]
    finally:
        for one in (all_ends, failures, successes):
            one.delete()
    assert team.call("GET", "/endpoints").json()["endpoints"] == []
    assert team.call("GET", all_ends.route).status_code == 404


def test_a_test_is_sent_and_counted_like_any_webhook(team: Client) -> None:
    endpoint = Endpoint(team, events=["task.completed"])
    try:
        endpoint.answers(fail=1, status=503)
        sent = endpoint.post("/test", 202)
        received = endpoint.hears(type="endpoint.test")
        assert received.webhook_id == sent["webhook_id"]
        assert json.loads(received.body) == sent["body"]
        assert sent["body"]["data"]["endpoint_id"] == endpoint.made["endpoint_id"]
        failing = endpoint.until(lambda one: one["health"]["state"] == "failing", "the failure")
        assert failing["last_7_days"] == {"delivered": 0, "failed": 1}
        endpoint.hears(type="endpoint.test", requests=2)  # five seconds later
        well = endpoint.until(lambda one: one["last_test"]["state"] == "delivered", "the success")
        assert (well["health"]["state"], well["last_7_days"]) == ("enabled", {"delivered": 1, "failed": 1})
        assert sorted(one["status"] for one in well["last_test"]["attempts"]) == [204, 503]
    finally:
        endpoint.delete()


def test_after_a_rotation_both_secrets_sign(team: Client) -> None:
    endpoint = Endpoint(team)
    try:
        old, key = endpoint.secret, {"Idempotency-Key": str(uuid4())}
        rotated = endpoint.post("/rotate-secret", 200, headers=key)
        assert endpoint.post("/rotate-secret", 200, headers=key) == rotated, "who repeats the call rotates once"
        shown = endpoint.read("/secret")
        assert shown["secret"] != old
        assert {name: shown[name] for name in rotated} == rotated
        endpoint.post("/test", 202)
        _has_two_signatures(endpoint.hears(type="endpoint.test"), shown["secret"], old)  # by the old one until now
        endpoint.secret = shown["secret"]
        endpoint.answers()
        task_id = render(team)
        _has_two_signatures(endpoint.hears(task_id=task_id), shown["secret"], old)
    finally:
        endpoint.delete()


def test_after_a_rotation_of_the_owners_secret_both_sign_what_goes_to_urls_of_tasks(team: Client) -> None:
    old = team.call("GET", "/webhook-secret").json()["secret"]
    path = f"/hooks/rotated-{uuid4().hex[:8]}"
    team.house.receiver.order(path, secret=old)
    assert team.call("POST", "/webhook-secret/rotate").status_code == 200
    new = team.call("GET", "/webhook-secret").json()
    assert new["previous_valid_until"] is not None
    task_id = render(team, webhook_url=f"{team.house.receiver.url}{path}")
    _has_two_signatures(team.told(task_id, "task.failed"), new["secret"], old)


def _has_two_signatures(received: Received, new: str, old: str) -> None:
    first, second = received.headers["webhook-signature"].split(" ")
    for secret, one in ((new, first), (old, second)):
        headers = {**received.headers, "webhook-signature": one}
        Webhook(secret).verify(received.body, headers)


def test_a_disabled_endpoint_gets_nothing_and_recovers_what_it_was_sent_in_vain(team: Client) -> None:
    endpoint, other = Endpoint(team), Endpoint(team)
    try:
        endpoint.answers(always=True, status=503)
        lost = render(team)
        first = endpoint.hears(task_id=lost)
        made = delivery(team, lost, endpoint, "pending")
        assert endpoint.change(disabled=True)["health"] == {
            **endpoint.read()["health"],
            "state": "disabled",
            "reason": "owner",
        }
        by_hand = team.call("POST", f"/tasks/{lost}/redeliver", json={"endpoint_id": made["endpoint_id"]})
        assert (by_hand.status_code, by_hand.json()["code"]) == (409, "endpoint_disabled")
        # The attempt that is due in five seconds is not made, and that is the end.
        given_up = delivery(team, lost, endpoint, "disabled")
        assert given_up["last_error"] == "endpoint_disabled"
        meanwhile = render(team)
        other.hears(task_id=meanwhile)
        told_to = {one["endpoint_id"] for one in team.settled(meanwhile)["deliveries"]}
        assert endpoint.made["endpoint_id"] not in told_to
        assert team.call("POST", f"{endpoint.route}/test").json()["code"] == "endpoint_disabled"
        since = {"since": made["created_at"]}
        assert team.call("POST", f"{endpoint.route}/recover", json=since).json()["code"] == "endpoint_disabled"
        endpoint.answers()
        endpoint.change(disabled=False)
        assert endpoint.post("/recover", 202, json=since) == {"recovered": 1, "more": False}
        again = endpoint.hears(task_id=lost, requests=2)
        assert (again.answers, again.webhook_id) == ([503, 204], first.webhook_id)
        delivery(team, lost, endpoint, "delivered")
        assert endpoint.post("/recover", 202, json=since) == {"recovered": 0, "more": False}
        assert [one.task_id for one in endpoint.heard()] == [lost]
        listed = team.call("GET", f"/tasks/{lost}/attempts").json()["attempts"]
        ours = [one for one in listed if one["endpoint_id"] == made["endpoint_id"]]
        assert [one["status"] for one in ours if one["status"]] == [204, 503]
    finally:
        endpoint.delete()
        other.delete()


def test_an_endpoint_that_says_gone_is_switched_on_again_and_gets_what_it_has_missed(team: Client) -> None:
    endpoint = Endpoint(team)
    try:
        endpoint.answers(always=True, status=410)
        task_id = render(team)
        delivery(team, task_id, endpoint, "gone")
        shown = endpoint.until(lambda one: one["disabled"], "the end")
        assert (shown["health"]["state"], shown["health"]["reason"]) == ("disabled", "gone")
        endpoint.answers()
        assert endpoint.change(disabled=False)["health"]["state"] == "enabled"
        chosen = {"endpoint_id": endpoint.made["endpoint_id"], "event": "task.failed"}
        assert team.call("POST", f"/tasks/{task_id}/redeliver", json=chosen).status_code == 202
        assert endpoint.hears(task_id=task_id, requests=2).answers == [410, 204]
        delivery(team, task_id, endpoint, "delivered")
        listed = team.call("GET", f"/tasks/{task_id}/attempts").json()["attempts"]
        ours = [one for one in listed if one["endpoint_id"] == endpoint.made["endpoint_id"]]
        assert [(one["status"], one["manual"]) for one in ours] == [(204, True), (410, False)]
    finally:
        endpoint.delete()
