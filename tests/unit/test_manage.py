"""An owner's endpoints over the API: made, changed, removed, their secrets rotated, tested and recovered."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from renderbell.delivery import HEALTHY, Delivery, DeliveryState, EndpointHealth, new_delivery
from renderbell.endpoints import derive_secret
from renderbell.manage import MAX_RECOVERED, EndpointRequest
from renderbell.store import delivery_key
from tests.fakes import START, captured_log
from tests.http_api import HOOK, MASTER, World, sample

SECRET_HEADER = "Bearer 5e0f3a9c2b7d"
FULL = {
    "url": HOOK,
    "events": ["task.failed", "task.processing", "task.failed"],
    "description": "orders, Zoë",
    "headers": {"X-Team": "orders", "Authorization": SECRET_HEADER},
}


def made(world: World, body: object = None, *, owner: str = "default") -> dict[str, Any]:
    answer = world.call("POST", "/endpoints", {"url": HOOK} if body is None else body, owner=owner)
    assert answer.status == 201, answer.text
    told: dict[str, Any] = answer.json
    return told


def ended(world: World, endpoint_id: str, n: int, *, owner: str = "default", **fields: Any) -> Delivery:
    """A delivery that was given up a minute after the n-th hour."""
    at = START + timedelta(hours=n)
    fresh = new_delivery(
        task_id=f"tsk_{n:026d}",
        owner=owner,
        event="task.completed",
        endpoint_id=endpoint_id,
        receiver="hooks.example.com",
        url=HOOK,
        slot=1,
        ttl=int((at + timedelta(days=60)).timestamp()),
        now=at,
    )
    world.store.put_delivery(fresh)
    told = {"state": DeliveryState.EXHAUSTED, "due_at": None, "tries": 10, "last_attempt_at": at + timedelta(minutes=1)}
    after = replace(fresh, **{**told, **fields})
    held = world.store.claim_delivery(fresh, "token", None)
    assert held is not None
    assert world.store.finish_delivery(held, after)
    return after


def sent(world: World, path: str) -> None:
    """Claims an endpoint's last test, as who sends it does."""
    (test,) = world.store.newest_tests("default", path.rpartition("/")[2])
    assert world.store.claim_delivery(test, "token", None) is not None


class TestMakingAndReading:
    def test_an_endpoint_is_answered_with_all_but_its_secrets(self) -> None:
        world = World()
        with captured_log() as lines:
            told = made(world, FULL)
        assert told == {
            "endpoint_id": "ep_00000000000000000000000001",
            "url": HOOK,
            "events": ["task.processing", "task.failed"],
            "description": "orders, Zoë",
            "header_names": ["Authorization", "X-Team"],
            "disabled": False,
            "created_at": "2026-03-01T12:00:00.000Z",
            "health": {"state": "enabled", "since": None, "reason": None},
            "last_7_days": {"delivered": 0, "failed": 0},
            "last_test": None,
        }
        assert SECRET_HEADER not in repr(lines)
        for path in ("/endpoints", f"/endpoints/{told['endpoint_id']}"):
            answer = world.call("GET", path, scope="read")
            assert answer.headers["cache-control"] == "no-store"
            assert SECRET_HEADER not in str(answer.text)
            assert "whsec_" not in str(answer.text)
        assert world.call("GET", f"/endpoints/{told['endpoint_id']}", scope="read").json == told

    def test_without_events_every_end_of_a_task_is_told(self) -> None:
        ends = ["task.completed", "task.failed", "task.expired", "task.cancelled"]
        assert made(World())["events"] == ends

    def test_endpoints_are_listed_for_their_owner_the_oldest_first(self) -> None:
        world = World()
        ids = [made(world)["endpoint_id"] for _ in range(3)]
        made(world, owner="team-b")
        assert [one["endpoint_id"] for one in world.call("GET", "/endpoints").json["endpoints"]] == ids
        assert world.call("GET", "/endpoints", owner="nobody").json == {"endpoints": []}

    def test_one_that_cannot_be_read_hides_no_other(self) -> None:
        world = World()
        first, second = made(world), made(world)
        (item,) = [one for one in world.table.items() if one["sk"]["S"] == f"ENDPOINT#{first['endpoint_id']}"]
        world.table.put_item(TableName="table", Item=item | {"created_at": {"S": "soon"}})
        listed = world.call("GET", "/endpoints").json["endpoints"]
        assert [one["endpoint_id"] for one in listed] == [second["endpoint_id"]]
        world.call("GET", f"/endpoints/{first['endpoint_id']}").problem(500, "internal_error")

    def test_there_are_twenty_at_most_and_a_deleted_one_makes_room(self) -> None:
        world = World()
        ids = [made(world)["endpoint_id"] for _ in range(20)]
        world.call("POST", "/endpoints", {"url": HOOK}).problem(409, "too_many_endpoints")
        made(world, owner="team-b")
        assert world.call("DELETE", f"/endpoints/{ids[0]}").status == 204
        world.call("DELETE", f"/endpoints/{ids[0]}").problem(404, "not_found")
        made(world)
        world.call("POST", "/endpoints", {"url": HOOK}).problem(409, "too_many_endpoints")

    def test_two_calls_at_once_make_no_more_than_twenty(self) -> None:
        world = World()
        for _ in range(19):
            made(world)
        world.client.before["transact_write_items"] = lambda: made(world)
        world.call("POST", "/endpoints", {"url": HOOK}).problem(409, "too_many_endpoints")
        assert len(world.store.endpoints("default")) == 20

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"url": "http://hooks.example.com/renders"}, "url"),
            ({"url": "https://10.0.0.1/"}, "url"),
            ({"url": "https://user:pw@hooks.example.com/"}, "url"),
            ({"url": "https://hooks.example.com/" + "x" * 2048}, "url"),
            ({"url": None}, "url"),
            ({"events": []}, "events"),
            ({"events": ["task.queued"]}, "events.0"),
            ({"events": ["endpoint.test"]}, "events.0"),
            ({"description": "x" * 257}, "description"),
            ({"description": "a\nb"}, "description"),
            ({"headers": {f"x-{n}": "v" for n in range(11)}}, "headers"),
            ({"headers": {"x y": "v"}}, "headers"),
            ({"headers": {"": "v"}}, "headers"),
            ({"headers": {"x" * 129: "v"}}, "headers"),
            ({"headers": {"x": ""}}, "headers"),
            ({"headers": {"x": "a\r\nb: c"}}, "headers"),
            ({"headers": {"x": " a"}}, "headers"),
            ({"headers": {"x": "ä"}}, "headers"),
            ({"headers": {"x": "v" * 1025}}, "headers"),
            ({"headers": {"X-A": "1", "x-a": "2"}}, "headers"),
            ({"disabled": "yes"}, "disabled"),
            ({"secret": "whsec_mine"}, "secret"),
        ],
    )
    def test_what_cannot_be_an_endpoint_is_refused(self, change: dict[str, object], named: str) -> None:
        world = World()
        endpoint_id = made(world)["endpoint_id"]
        problem = world.call("POST", "/endpoints", {"url": HOOK, **change}).problem(422, "invalid_input")
        assert [one["field"] for one in problem["errors"]] == [named]
        world.call("PATCH", f"/endpoints/{endpoint_id}", change).problem(422, "invalid_input")
        assert len(world.store.endpoints("default")) == 1

    @pytest.mark.parametrize(
        "name",
        [
            *("Host", "Content-Type", "content-length", "User-Agent", "Connection", "Transfer-Encoding", "TE"),
            *("Upgrade", "Proxy-Authorization", "X-Forwarded-For", "Webhook-Signature", "svix-id", "Accept-Encoding"),
            *("Expect", "Trailer", "Keep-Alive", "X-Real-IP", "X-Original-URL", "X-HTTP-Method-Override"),
            *("HTTP2-Settings", "X-Rewrite-Url", "True-Client-IP", "X-Client-IP", "Max-Forwards", "X-Original-Host"),
        ],
    )
    def test_a_header_that_is_not_the_owners_to_set_is_refused(self, name: str) -> None:
        problem = World().call("POST", "/endpoints", {"url": HOOK, "headers": {name: "hush"}})
        (error,) = problem.problem(422, "invalid_input")["errors"]
        assert error["code"] == "header_reserved"
        assert "hush" not in str(problem.text)

    @given(st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=4))
    def test_a_header_that_is_taken_is_one_line_of_ascii(self, headers: dict[str, str]) -> None:
        try:
            taken = EndpointRequest(url=HOOK, headers=headers).headers
        except ValidationError:
            return
        for name, value in taken.items():
            line = f"{name}: {value}"
            assert line.isascii()
            assert line.isprintable()
            assert line == line.strip()
            assert not set(name) & set(' :;,()<>@[]{}/?="\\')

    def test_another_owners_endpoint_is_404_on_every_route(self) -> None:
        world = World()
        endpoint_id = made(world, owner="team-b")["endpoint_id"]
        routes: list[tuple[str, str, object]] = [
            ("GET", "", None),
            ("PATCH", "", {"disabled": True}),
            ("DELETE", "", None),
            ("GET", "/secret", None),
            ("POST", "/rotate-secret", None),
            ("POST", "/test", None),
            ("POST", "/recover", {"since": "2026-03-01T12:00:00Z"}),
        ]
        for method, rest, body in routes:
            for named in (endpoint_id, "ep_1", "ep_" + "z" * 26, "url_19f1352238b915338c91"):
                world.call(method, f"/endpoints/{named}{rest}", body).problem(404, "not_found")
        assert world.invoker.invoked == []

    def test_a_read_key_writes_nothing_and_sees_no_secret(self) -> None:
        world = World()
        endpoint_id = made(world)["endpoint_id"]
        own = f"/endpoints/{endpoint_id}"
        routes: list[tuple[str, str, object]] = [
            ("POST", "/endpoints", {"url": HOOK}),
            ("PATCH", own, {"disabled": True}),
            ("DELETE", own, None),
            ("GET", f"{own}/secret", None),
            ("POST", f"{own}/rotate-secret", None),
            ("POST", f"{own}/test", None),
            ("POST", f"{own}/recover", {"since": "2026-03-01T12:00:00Z"}),
            ("POST", "/webhook-secret/rotate", None),
        ]
        for method, path, body in routes:
            world.call(method, path, body, scope="read").problem(403, "forbidden")
        assert [one["disabled"] for one in world.call("GET", "/endpoints", scope="read").json["endpoints"]] == [False]


class TestChanging:
    def test_what_is_given_changes_and_the_rest_stays(self) -> None:
        world = World()
        before = made(world, FULL)
        path = f"/endpoints/{before['endpoint_id']}"
        assert world.call("PATCH", path, {}).json == before
        changed = world.call("PATCH", path, {"description": "", "events": ["task.completed"]}).json
        assert changed == before | {"description": "", "events": ["task.completed"]}
        changed = world.call("PATCH", path, {"headers": {"X-New": "1"}}).json
        assert changed["header_names"] == ["X-New"]
        changed = world.call("PATCH", path, {"url": f"{HOOK}/2", "headers": {}}).json
        assert (changed["url"], changed["header_names"]) == (f"{HOOK}/2", [])
        assert world.call("GET", path).json == changed

    def test_the_switch_says_since_when_and_back(self) -> None:
        world = World()
        path = f"/endpoints/{made(world)['endpoint_id']}"
        off = world.call("PATCH", path, {"disabled": True}).json
        assert off["disabled"] is True
        assert off["health"] == {"state": "disabled", "since": "2026-03-01T12:00:00.000Z", "reason": "owner"}
        world.clock.pass_s(60)
        assert world.call("PATCH", path, {"disabled": True}).json == off
        on = world.call("PATCH", path, {"disabled": False}).json
        assert (on["disabled"], on["health"]["state"]) == (False, "enabled")

    @pytest.mark.parametrize("change", [{"disabled": False}, {"url": f"{HOOK}/2"}])
    def test_enabling_and_a_new_url_forget_past_failures(self, change: dict[str, object]) -> None:
        world = World()
        endpoint_id = made(world)["endpoint_id"]
        failing = EndpointHealth(START, START, START)
        world.store.note_endpoint_health("default", endpoint_id, HEALTHY, failing, "test")
        path = f"/endpoints/{endpoint_id}"
        told = {"state": "disabled", "since": "2026-03-01T12:00:00.000Z", "reason": "failures"}
        for asked in ({"description": "other"}, {"url": HOOK}):
            assert world.call("PATCH", path, asked).json["health"] == told
        assert world.call("GET", "/endpoints").json["endpoints"][0]["health"] == told
        assert world.call("PATCH", path, change).json["health"]["state"] == "enabled"
        assert world.store.endpoint_health("default", endpoint_id) == HEALTHY

    def test_a_change_that_meets_another_loses_nothing(self) -> None:
        world = World()
        endpoint_id = made(world)["endpoint_id"]
        path = f"/endpoints/{endpoint_id}"
        world.client.before["update_item"] = lambda: world.call("PATCH", path, {"events": ["task.failed"]})
        world.call("PATCH", path, {"description": "mine"})
        now = world.call("GET", path).json
        assert (now["description"], now["events"]) == ("mine", ["task.failed"])

    def test_a_change_that_meets_a_deletion_is_404(self) -> None:
        world = World()
        path = f"/endpoints/{made(world)['endpoint_id']}"
        world.client.before["update_item"] = lambda: world.call("DELETE", path)
        world.call("PATCH", path, {"description": "mine"}).problem(404, "not_found")
        assert world.store.endpoints("default") == ()

    def test_a_deleted_endpoint_leaves_no_health(self) -> None:
        world = World()
        endpoint_id = made(world)["endpoint_id"]
        world.store.note_endpoint_health("default", endpoint_id, HEALTHY, EndpointHealth(START), "test")
        assert world.call("GET", f"/endpoints/{endpoint_id}").json["health"] == {
            "state": "failing",
            "since": "2026-03-01T12:00:00.000Z",
            "reason": None,
        }
        world.call("DELETE", f"/endpoints/{endpoint_id}")
        left = [item["sk"]["S"] for item in world.table.items()]
        assert left == ["ENDPOINTS"]

    def test_recent_attempts_are_counted_by_day(self) -> None:
        world = World()
        endpoint_id = made(world)["endpoint_id"]
        for age, delivered in ((7, True), (6, True), (1, False), (0, True), (0, True), (0, False)):
            day = (START - timedelta(days=age)).date()
            world.store.count_attempt("default", endpoint_id, day, delivered=delivered, ttl=2_000_000_000)
        world.store.count_attempt("default", "ep_another", START.date(), delivered=True, ttl=2_000_000_000)
        counted = {"delivered": 3, "failed": 2}
        assert world.call("GET", f"/endpoints/{endpoint_id}").json["last_7_days"] == counted
        assert world.call("GET", "/endpoints").json["endpoints"][0]["last_7_days"] == counted


class TestSecrets:
    def test_each_endpoint_has_a_secret_of_its_own(self) -> None:
        world = World()
        ids = [made(world)["endpoint_id"] for _ in range(2)]
        shown = [world.call("GET", f"/endpoints/{one}/secret", scope="write").json for one in ids]
        assert [one["secret"] for one in shown] == [derive_secret(MASTER, "endpoint", one, 1) for one in ids]
        assert shown[0]["rotated_at"] is shown[0]["previous_valid_until"] is None

    @pytest.mark.parametrize("of", ["endpoint", "owner"])
    def test_a_rotation_takes_a_new_secret_and_names_the_end_of_the_old_one(self, of: str) -> None:
        world = World()
        endpoint_id = made(world)["endpoint_id"]
        read, rotate = f"/endpoints/{endpoint_id}/secret", f"/endpoints/{endpoint_id}/rotate-secret"
        name = endpoint_id
        if of == "owner":
            read, rotate, name = "/webhook-secret", "/webhook-secret/rotate", "default"
        answer = world.call("POST", rotate)
        told = {"rotated_at": "2026-03-01T12:00:00.000Z", "previous_valid_until": "2026-03-02T12:00:00.000Z"}
        assert (answer.status, answer.json) == (200, told)
        assert world.call("GET", read).json == told | {"secret": derive_secret(MASTER, of, name, 2)}
        world.clock.pass_s(86_400)
        assert world.call("GET", read).json["previous_valid_until"] is None
        world.call("POST", rotate)
        assert world.call("GET", read).json["secret"] == derive_secret(MASTER, of, name, 3)

    @pytest.mark.parametrize(
        "path", ["/endpoints/ep_00000000000000000000000001/rotate-secret", "/webhook-secret/rotate"]
    )
    def test_two_rotations_at_once_are_one(self, path: str) -> None:
        world = World()
        made(world)
        world.client.before["update_item"] = lambda: world.call("POST", path)
        assert world.call("POST", path).status == 200
        assert (world.store.endpoints("default")[0].generation, world.store.signing("default").generation) in {
            (2, 1),
            (1, 2),
        }

    @pytest.mark.parametrize(
        "path", ["/endpoints/ep_00000000000000000000000001/rotate-secret", "/webhook-secret/rotate"]
    )
    def test_a_repeated_rotation_is_answered_as_the_first_and_keeps_no_secret(self, path: str) -> None:
        world = World()
        made(world)
        first = world.call("POST", path, headers={"Idempotency-Key": "once"})
        world.clock.pass_s(60)
        again = world.call("POST", path, headers={"Idempotency-Key": "once"})
        assert again.headers["idempotency-replayed"] == "true"
        assert again.json == first.json
        assert "whsec_" not in repr(world.table.items())

    def test_a_rotation_that_meets_a_change_is_not_lost(self) -> None:
        world = World()
        path = f"/endpoints/{made(world)['endpoint_id']}"
        world.client.before["update_item"] = lambda: world.call("PATCH", path, {"description": "other"})
        world.call("POST", f"{path}/rotate-secret")
        (one,) = world.store.endpoints("default")
        assert (one.generation, one.description) == (2, "other")


class TestTesting:
    def test_a_test_is_answered_stored_and_due_at_once(self) -> None:
        world = World()
        endpoint_id = made(world)["endpoint_id"]
        answer = world.call("POST", f"/endpoints/{endpoint_id}/test")
        test_id = "tst_00000000000000000000000001"
        assert answer.status == 202
        assert answer.json == {
            "webhook_id": f"evt_{test_id}_endpoint_test",
            "endpoint_id": endpoint_id,
            "url": HOOK,
            "body": {
                "type": "endpoint.test",
                "timestamp": "2026-03-01T12:00:00.000Z",
                "data": {"endpoint_id": endpoint_id, "test_id": test_id, "owner": "default"},
            },
        }
        key = {"pk": "OWNER#default", "sk": f"DELIVERY#endpoint.test#{endpoint_id}#{test_id}"}
        assert world.invoker.invoked == [("poller", {"worker": 0, "delivery": key})]
        kept = world.store.delivery(key["pk"], key["sk"])
        assert kept is not None
        assert (kept.task_id, kept.state) == (test_id, DeliveryState.PENDING)
        assert kept.due_at == START
        assert kept.ttl is not None
        shown = world.call("GET", f"/endpoints/{endpoint_id}").json["last_test"]
        assert shown == {
            "webhook_id": f"evt_{test_id}_endpoint_test",
            "created_at": "2026-03-01T12:00:00.000Z",
            "state": "pending",
            "next_attempt_at": "2026-03-01T12:00:00.000Z",
            "attempts": [],
        }

    def test_a_poller_that_cannot_be_woken_loses_no_test(self) -> None:
        world = World()
        endpoint_id = made(world)["endpoint_id"]
        world.invoker.trouble = RuntimeError("throttled")
        assert world.call("POST", f"/endpoints/{endpoint_id}/test").status == 202
        assert len(world.store.newest_tests("default", endpoint_id)) == 1

    def test_the_last_test_is_shown_and_none_past_its_time(self) -> None:
        world = World()
        path = f"/endpoints/{made(world)['endpoint_id']}"
        for _ in range(3):
            world.call("POST", f"{path}/test")
            sent(world, path)
            world.clock.pass_s(1)
        assert world.call("GET", path).json["last_test"]["created_at"] == "2026-03-01T12:00:02.000Z"
        world.clock.pass_s(15 * 86_400)
        assert world.call("GET", path).json["last_test"] is None

    def test_one_that_is_asked_for_again_before_it_is_sent_is_the_same(self) -> None:
        world = World()
        path = f"/endpoints/{made(world)['endpoint_id']}"
        first = world.call("POST", f"{path}/test")
        world.clock.pass_s(5)
        assert world.call("POST", f"{path}/test").json == first.json
        sent(world, path)
        assert world.call("POST", f"{path}/test").json["webhook_id"] != first.json["webhook_id"]

    @pytest.mark.parametrize(("method", "body"), [("GET", None), ("PATCH", {"description": "orders"})])
    def test_an_endpoint_with_many_tests_is_read_as_soon_as_one_with_few(self, method: str, body: object) -> None:
        reads = []
        for number in (3, 60):
            world = World()
            path = f"/endpoints/{made(world)['endpoint_id']}"
            for _ in range(number):
                world.call("POST", f"{path}/test")
                sent(world, path)
                world.clock.pass_s(1)
            read: list[int] = []
            query = world.table.query

            def counting(*, query: Any = query, read: list[int] = read, **call: Any) -> Any:
                page = query(**call)
                read.append(len(page["Items"]))
                return page

            world.table.query = counting  # type: ignore[method-assign]
            assert world.call(method, path, body).status == 200
            reads.append(sum(read))
        assert reads[0] == reads[1]

    def test_what_is_switched_off_is_not_tested(self) -> None:
        world = World()
        path = f"/endpoints/{made(world, {'url': HOOK, 'disabled': True})['endpoint_id']}"
        world.call("POST", f"{path}/test").problem(409, "endpoint_disabled")
        world.call("POST", f"{path}/recover", {"since": "2026-03-01T12:00:00Z"}).problem(409, "endpoint_disabled")


class TestRecovering:
    def recover(self, world: World, endpoint_id: str, since: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
        answer = world.call("POST", f"/endpoints/{endpoint_id}/recover", {"since": since})
        assert answer.status == 202, answer.text
        told: dict[str, Any] = answer.json
        return told

    def test_what_was_given_up_since_is_due_again_and_the_endpoint_well(self) -> None:
        world = World()
        mine, other = made(world)["endpoint_id"], made(world)["endpoint_id"]
        old = ended(world, mine, 1)
        exhausted, disabled = ended(world, mine, 2), ended(world, mine, 3, state=DeliveryState.DISABLED, tries=1)
        foreign = ended(world, other, 4)
        for n, state in enumerate((DeliveryState.GONE, DeliveryState.REFUSED, DeliveryState.DELIVERED), 5):
            ended(world, mine, n, state=state)
        failing = EndpointHealth(START, START, START)
        world.store.note_endpoint_health("default", mine, HEALTHY, failing, "test")
        world.clock.pass_s(86_400)
        assert self.recover(world, mine, "2026-03-01T15:01:00+01:00") == {"recovered": 2, "more": False}
        for one in (exhausted, disabled):
            (now,) = world.store.deliveries(one.task_id)
            assert (now.state, now.tries, now.due_at) == (DeliveryState.PENDING, 0, world.clock())
            assert now.slot == one.slot
            assert (now.last_attempt_at, now.reopened_at) == (one.last_attempt_at, world.clock())
        for one in (old, foreign):
            assert world.store.deliveries(one.task_id) == (one,)
        assert world.store.endpoint_health("default", mine) == HEALTHY
        ((function, told),) = world.invoker.invoked
        assert function == "poller"
        assert told["delivery"] == delivery_key(exhausted)
        assert self.recover(world, mine) == {"recovered": 1, "more": False}, (
            "those that are pending again are not listed"
        )
        assert self.recover(world, mine) == {"recovered": 0, "more": False}

    def test_nothing_was_given_up_since_a_time_to_come(self) -> None:
        world = World()
        endpoint_id = made(world)["endpoint_id"]
        ended(world, endpoint_id, 1)
        assert self.recover(world, endpoint_id, "9450-01-11T14:54:07+18:37") == {"recovered": 0, "more": False}

    @pytest.mark.parametrize("since", [1767225600, 1767225600.5, "1767225600", " 1767225600 ", True])
    def test_a_time_is_told_as_text_and_no_number_is_taken_for_one(self, since: object) -> None:
        world = World()
        endpoint_id = made(world)["endpoint_id"]
        answer = world.call("POST", f"/endpoints/{endpoint_id}/recover", {"since": since})
        assert answer.problem(422, "invalid_input")["errors"][0]["field"] == "since"

    def test_at_most_a_thousand_are_taken_up_at_once(self) -> None:
        world = World()
        endpoint_id = made(world)["endpoint_id"]
        for n in range(MAX_RECOVERED + 5):
            ended(world, endpoint_id, n)
        assert self.recover(world, endpoint_id) == {"recovered": MAX_RECOVERED, "more": True}
        assert len(world.invoker.invoked) == 1
        assert self.recover(world, endpoint_id) == {"recovered": 5, "more": False}

    def test_what_has_no_time_to_be_taken_up_is_left_to_the_next_call(self) -> None:
        world = World()
        endpoint_id = made(world)["endpoint_id"]
        for n in range(150):
            ended(world, endpoint_id, n)
        world.client.before["update_item"] = lambda: world.clock.pass_s(20)
        assert self.recover(world, endpoint_id) == {"recovered": 100, "more": True}

    def test_what_cannot_be_read_or_was_taken_up_by_another_hides_nothing(self) -> None:
        world = World()
        endpoint_id = made(world)["endpoint_id"]
        for n in range(3):
            ended(world, endpoint_id, n)
        (item,) = [one for one in world.table.items() if one["pk"]["S"] == f"TASK#tsk_{0:026d}"]
        world.table.put_item(TableName="table", Item=item | {"tries": {"S": "many"}})
        world.client.before["update_item"] = lambda: self.recover(world, endpoint_id)
        assert self.recover(world, endpoint_id)["recovered"] < 2
        assert {one.state for n in (1, 2) for one in world.store.deliveries(f"tsk_{n:026d}")} == {DeliveryState.PENDING}

    def test_what_has_been_forgotten_is_not_taken_up(self) -> None:
        world = World()
        endpoint_id = made(world)["endpoint_id"]
        ended(world, endpoint_id, 1)
        world.clock.pass_s(100 * 86_400)
        assert self.recover(world, endpoint_id) == {"recovered": 0, "more": False}

    @pytest.mark.parametrize("since", ["2026-03-01T12:00:00", "yesterday", None, "0001-01-01T00:00:00Z"])
    def test_a_time_that_is_none_is_refused(self, since: object) -> None:
        world = World()
        path = f"/endpoints/{made(world)['endpoint_id']}/recover"
        problem = world.call("POST", path, {"since": since}).problem(422, "invalid_input")
        assert [one["field"] for one in problem["errors"]] == ["since"]


class TestWhoIsTold:
    def test_processing_is_told_where_an_endpoint_wants_it(self) -> None:
        world = World()
        assert not world.task(world.registered(provider_task_id="1")).tells_processing
        made(world, {"url": HOOK, "events": ["task.processing"]})
        assert world.task(world.registered(provider_task_id="2")).tells_processing
        with_own = world.registered(provider_task_id="3", webhook_url=HOOK)
        assert not world.task(with_own).tells_processing

    def test_a_cancelled_task_without_webhooks_is_told_to_the_owners_endpoints(self) -> None:
        world = World()
        wants = made(world)["endpoint_id"]
        made(world, {"url": HOOK, "events": ["task.failed"]})
        made(world, {"url": HOOK, "disabled": True})
        made(world, owner="team-b")
        task_id = world.registered()
        shown = world.call("POST", f"/tasks/{task_id}/cancel").json["deliveries"]
        assert [(one["endpoint_id"], one["event"]) for one in shown] == [(wants, "task.cancelled")]
        assert world.invoker.invoked[-1] == ("notifier", {"pk": f"TASK#{task_id}", "sk": "TASK"})

    def test_a_task_with_webhooks_is_told_to_these_alone(self) -> None:
        world = World()
        made(world)
        task_id = world.registered(webhook_url="https://other.example.com/own")
        shown = world.call("POST", f"/tasks/{task_id}/cancel").json["deliveries"]
        assert [one["url"] for one in shown] == ["https://other.example.com/own"]

    def test_an_endpoint_that_cannot_be_read_keeps_no_task_from_ending(self) -> None:
        world = World()
        made(world)
        (item,) = [one for one in world.table.items() if one["sk"]["S"].startswith("ENDPOINT#")]
        world.table.put_item(TableName="table", Item=item | {"version": {"S": "x"}})
        sound = made(world)["endpoint_id"]
        task_id = world.registered()
        with captured_log() as lines:
            shown = world.call("POST", f"/tasks/{task_id}/cancel").json
        assert shown["status"] == "CANCELLED"
        assert [one["endpoint_id"] for one in shown["deliveries"]] == [sound]
        assert "item cannot be read" in [line["message"] for line in lines]


def test_the_sample_event_makes_an_endpoint() -> None:
    world = World()
    answer = world.send(sample("create-endpoint"))
    assert answer.status == 201
    assert answer.json["header_names"] == ["Authorization"]
