"""Endpoints that an owner manages, in virtual time: who is told, with what, and what ends it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from renderbell.delivery import HEALTHY, INTERNAL, Answer, Delivery, DeliveryState, EndpointHealth
from renderbell.endpoints import Endpoint, SigningKey, derive_secret, hidden_in, secrets_of
from renderbell.errors import ConflictError
from renderbell.manage import EndpointChange
from renderbell.store import AttemptCounts
from tests.deployment import API_FUNCTION, MASTER, OWNER, Deployment, Receivers, failed, processing
from tests.fakes import captured_log
from tests.virtual import START

HOOK, OTHER = "https://example.com/hook", "https://other.example.com/hook"
DOWN = Answer(503)
TOKEN = "Bearer 5e0f3a9c2b7d41"
DAY = 86_400.0


def told(world: Deployment, *, at_s: float | None = None, **asked: Any) -> str:
    """A task without webhooks of its own that fails soon."""
    begun_s = world.now_s if at_s is None else at_s
    task = world.register(processing(), failed(begun_s + 12), at_s=begun_s, **asked)
    world.tick_every_minute(until_s=begun_s + 90, first_s=begun_s + 5)
    world.run(begun_s + 90)
    return task


def change(world: Deployment, endpoint: Endpoint, **asked: Any) -> None:
    """Lets the owner change an endpoint now."""
    world.endpoints().change(endpoint.endpoint_id, EndpointChange.model_validate(asked), owner=OWNER)


def recover(world: Deployment, endpoint: Endpoint) -> int:
    """Lets the owner recover what was given up; answers how many are tried once more."""
    made: list[int] = []

    def ask() -> None:
        made.append(world.endpoints().recover(endpoint.endpoint_id, START, owner=OWNER).recovered)

    world.start(API_FUNCTION, ask, delay_s=0)
    world.run(world.now_s + 0.01)
    return made[0]


def only(world: Deployment, task: str) -> Delivery:
    (delivery,) = world.store.deliveries(task)
    return delivery


def counted(world: Deployment, endpoint: Endpoint) -> AttemptCounts | None:
    return world.store.attempt_counts(OWNER, START.date(), endpoint.endpoint_id).get(endpoint.endpoint_id)


class TestWhoIsTold:
    def test_a_task_without_webhooks_goes_to_all_endpoints_that_want_its_event(self) -> None:
        world = Deployment()
        first, second = world.manage(HOOK), world.manage(OTHER, events=["task.failed"])
        world.manage("https://third.example.com/hook", events=["task.completed"])
        world.manage("https://fourth.example.com/hook", disabled_at=START)
        task = told(world)
        assert sorted(one.url for one in world.messages(task)) == [HOOK, OTHER]
        found = {one.endpoint_id: one.state for one in world.store.deliveries(task)}
        assert found == {one.endpoint_id: DeliveryState.DELIVERED for one in (first, second)}
        assert counted(world, first) == counted(world, second) == AttemptCounts(1, 0)

    def test_processing_is_told_to_who_wants_it(self) -> None:
        world = Deployment()
        world.manage(HOOK, events=["task.processing", "task.failed"])
        world.manage(OTHER)
        task = told(world)
        heard = sorted((one.url, one.data["type"]) for one in world.messages(task))
        assert heard == [(HOOK, "task.failed"), (HOOK, "task.processing"), (OTHER, "task.failed")]

    def test_a_url_given_inline_is_not_counted(self) -> None:
        world = Deployment()
        told(world, webhooks=[HOOK])
        assert not [item for item in world.table.items() if item["sk"]["S"].startswith("COUNT#")]

    def test_a_fault_of_ours_is_not_counted_against_an_endpoint(self) -> None:
        world = Deployment()
        world.receivers = BrokenSender(world.world)
        endpoint = world.manage(HOOK)
        assert only(world, told(world)).last_error == INTERNAL
        assert counted(world, endpoint) is None
        assert world.store.endpoint_health(OWNER, endpoint.endpoint_id) == HEALTHY


class BrokenSender(Receivers):
    """Breaks before anything is sent."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float = 15.0) -> Answer:
        raise RuntimeError("ours")


class TestWhatIsSent:
    def test_an_endpoints_headers_go_out_and_are_repeated_nowhere(self) -> None:
        world = Deployment()
        world.manage(HOOK, headers={"Authorization": TOKEN, "X-Team": "orders", "X-N": "1"})
        word = TOKEN.split()[1]
        (secret,) = world.receivers.secrets[HOOK]
        said = f"1 bad {TOKEN} of orders, {word}, {secret}"
        world.receivers.answers[HOOK] = [Answer(500, body=said), Answer(204)]
        with captured_log() as lines:
            task = told(world)
        first, second = world.messages(task)
        assert first.headers["Authorization"] == second.headers["Authorization"] == TOKEN
        assert first.headers["content-type"] == "application/json"
        assert first.body == second.body
        body = world.store.attempts(task)[0].body
        assert body == "1 bad *** of ***, ***, ***"
        assert word not in repr(lines)

    def test_a_word_that_the_answer_breaks_off_in_is_not_kept(self) -> None:
        world = Deployment()
        world.manage(HOOK, headers={"Authorization": TOKEN})
        world.receivers.answers[HOOK] = [Answer(500, body=f"bad {TOKEN[:-3]}"), Answer(204)]
        assert world.store.attempts(told(world))[0].body == "bad "

    def test_two_secrets_sign_for_a_day_after_a_rotation_and_one_from_then_on(self) -> None:
        world = Deployment()
        endpoint = world.manage(HOOK)
        secrets = {n: derive_secret(MASTER, "endpoint", endpoint.endpoint_id, n) for n in (1, 2, 3)}
        told(world)
        world.endpoints().rotate(endpoint.endpoint_id, owner=OWNER)
        world.receivers.secrets[HOOK] = [secrets[2], secrets[1]]
        told(world)
        world.endpoints().rotate(endpoint.endpoint_id, owner=OWNER)
        world.receivers.secrets[HOOK] = [secrets[3], secrets[2]]
        told(world)
        world.run(world.now_s + DAY)
        world.receivers.secrets[HOOK] = [secrets[3]]
        told(world)
        assert len(world.receivers.received) == 4

    def test_a_rotated_secret_of_the_owner_signs_at_urls_given_inline(self) -> None:
        world = Deployment()
        secrets = {n: derive_secret(MASTER, "owner", OWNER, n) for n in (1, 2)}
        world.endpoints().rotate_owner_secret(owner=OWNER)
        world.receivers.secrets[HOOK] = [secrets[2], secrets[1]]
        told(world, webhooks=[HOOK])
        world.run(world.now_s + DAY)
        world.receivers.secrets[HOOK] = [secrets[2]]
        told(world, webhooks=[HOOK])
        assert len(world.receivers.received) == 2

    def test_a_new_url_holds_for_what_is_pending(self) -> None:
        world = Deployment()
        endpoint = world.manage(HOOK)
        world.receivers.answers[HOOK] = [DOWN]
        task = told(world)
        assert only(world, task).url == HOOK
        world.receivers.secrets[OTHER] = world.receivers.secrets[HOOK]
        change(world, endpoint, url=OTHER)
        world.tick_every_minute(until_s=900, first_s=world.now_s + 5)
        world.run(900)
        ended = only(world, task)
        assert (ended.state, ended.url, ended.receiver) == (DeliveryState.DELIVERED, OTHER, "other.example.com")
        assert world.receivers.received[-1].url == OTHER
        assert counted(world, endpoint) == AttemptCounts(1, 2)

    def test_a_new_url_that_is_slow_is_noted_of_its_own_host(self) -> None:
        world = Deployment()
        endpoint = world.manage(HOOK)
        world.receivers.answers[HOOK] = [DOWN]
        told(world)
        world.receivers.secrets[OTHER] = world.receivers.secrets[HOOK]
        world.receivers.answers[OTHER] = [Answer(None, "timeout", duration_ms=15_000)]
        change(world, endpoint, url=OTHER)
        world.tick_every_minute(until_s=900, first_s=world.now_s + 5)
        world.run(900)
        assert world.store.receiver_health(OWNER, "other.example.com").is_slow_at(endpoint.endpoint_id)
        assert not world.store.receiver_health(OWNER, "example.com").is_slow_at(endpoint.endpoint_id)


class TestWhatEndsADelivery:
    def pending(self, world: Deployment) -> tuple[Endpoint, str]:
        endpoint = world.manage(HOOK)
        world.receivers.answers[HOOK] = [DOWN]
        task = told(world)
        assert only(world, task).state is DeliveryState.PENDING
        return endpoint, task

    def next_attempt(self, world: Deployment) -> None:
        until_s = world.now_s + 900
        world.tick_every_minute(until_s=until_s, first_s=world.now_s + 5)
        world.run(until_s)

    def test_a_deleted_endpoint_gets_nothing_more_and_nothing_waits_for_it(self) -> None:
        world = Deployment()
        endpoint, task = self.pending(world)
        sent = len(world.receivers.received)
        world.endpoints().delete(endpoint.endpoint_id, owner=OWNER)
        self.next_attempt(world)
        ended = only(world, task)
        assert (ended.state, ended.last_error, ended.due_at) == (DeliveryState.GONE, "endpoint_not_found", None)
        assert len(world.receivers.received) == sent == len(world.store.attempts(task))
        assert world.counts["DeliveryExhausted"] == 0, "its owner knows"

    def test_a_disabled_endpoint_gets_nothing_more_until_it_is_recovered(self) -> None:
        world = Deployment()
        endpoint, task = self.pending(world)
        change(world, endpoint, disabled=True)
        self.next_attempt(world)
        ended = only(world, task)
        assert (ended.state, ended.last_error) == (DeliveryState.DISABLED, "endpoint_disabled")
        with pytest.raises(ConflictError):
            world.endpoints().recover(endpoint.endpoint_id, START, owner=OWNER)
        change(world, endpoint, disabled=False)
        world.receivers.answers[HOOK] = [Answer(204)]
        assert recover(world, endpoint) == 1
        world.run(world.now_s + 10)
        assert only(world, task).state is DeliveryState.DELIVERED

    def test_410_switches_the_endpoint_off_and_the_owner_may_switch_it_on(self) -> None:
        world = Deployment()
        endpoint = world.manage(HOOK)
        world.receivers.answers[HOOK] = [Answer(410), Answer(204)]
        assert only(world, told(world)).state is DeliveryState.GONE
        (off,) = world.store.endpoints(OWNER)
        assert (off.disabled, off.disabled_by) == (True, "gone")
        assert world.store.deliveries(told(world)) == ()
        change(world, endpoint, disabled=False)
        assert only(world, told(world)).state is DeliveryState.DELIVERED

    def test_410_of_the_url_before_does_not_switch_off_the_new_one(self) -> None:
        world = Deployment()
        endpoint = world.manage(HOOK)
        world.receivers.answers[HOOK] = [Answer(410)]
        world.receivers.latency_s = 5
        world.register(failed(), at_s=0)
        world.run(3)
        assert world.receivers.at_once == 1
        change(world, endpoint, url=OTHER)
        world.run(30)
        (now,) = world.store.endpoints(OWNER)
        assert (now.url, now.disabled) == (OTHER, False)

    def test_410_at_a_url_given_inline_ends_that_delivery_only(self) -> None:
        world = Deployment()
        world.receivers.answers[HOOK] = [Answer(410), Answer(204)]
        assert only(world, told(world, webhooks=[HOOK])).state is DeliveryState.GONE
        assert only(world, told(world, webhooks=[HOOK])).state is DeliveryState.DELIVERED

    def test_an_endpoint_that_cannot_be_read_is_a_fault_of_ours_and_tried_by_the_schedule(self) -> None:
        world = Deployment()
        endpoint = world.manage(HOOK)
        world.loses.append("notifier")
        task = world.register(failed(), at_s=0)
        world.run(10)
        (item,) = [one for one in world.table.items() if one["sk"]["S"] == f"ENDPOINT#{endpoint.endpoint_id}"]
        world.table.put_item(TableName="table", Item=item | {"version": {"S": "x"}})
        world.tick_at(60)
        world.run(90)
        pending = only(world, task)
        assert (pending.state, pending.last_error) == (DeliveryState.PENDING, INTERNAL)
        assert {one.error for one in world.store.attempts(task)} == {INTERNAL}
        assert world.store.endpoint_health(OWNER, endpoint.endpoint_id) == HEALTHY
        world.table.put_item(TableName="table", Item=item)
        world.tick_every_minute(until_s=900, first_s=125)
        world.run(900)
        assert only(world, task).state is DeliveryState.DELIVERED


class TestATest:
    def sent(self, world: Deployment, endpoint: Endpoint) -> Delivery:
        world.endpoints().test(endpoint.endpoint_id, owner=OWNER)
        world.run(world.now_s + 2)
        return world.store.newest_tests(OWNER, endpoint.endpoint_id)[0]

    def test_is_heard_at_once_with_its_own_secret_and_recorded(self) -> None:
        world = Deployment()
        endpoint = world.manage(HOOK, headers={"X-Team": "orders"})
        test = self.sent(world, endpoint)
        assert (test.state, test.tries) == (DeliveryState.DELIVERED, 1)
        (heard,) = world.receivers.received
        assert heard.data["type"] == "endpoint.test"
        assert heard.message_id == f"evt_{test.task_id}_endpoint_test"
        assert heard.headers["X-Team"] == "orders"
        (attempt,) = world.store.attempts_of(test)
        assert (attempt.status, attempt.number, attempt.task_id) == (204, 1, test.task_id)
        assert world.store.endpoint_health(OWNER, endpoint.endpoint_id) == HEALTHY

    def test_reaches_an_endpoint_that_fails_and_makes_it_well(self) -> None:
        world = Deployment()
        endpoint = world.manage(HOOK)
        days = EndpointHealth(START, START, START)
        world.store.note_endpoint_health(OWNER, endpoint.endpoint_id, HEALTHY, days, "test")
        assert self.sent(world, endpoint).state is DeliveryState.DELIVERED
        assert world.store.endpoint_health(OWNER, endpoint.endpoint_id) == HEALTHY

    def test_that_nobody_was_told_of_is_found_by_the_poller(self) -> None:
        world = Deployment()
        endpoint = world.manage(HOOK)
        world.loses.append("notifier")
        assert self.sent(world, endpoint).state is DeliveryState.PENDING
        world.tick_every_minute(until_s=130)
        world.run(130)
        (test,) = world.store.newest_tests(OWNER, endpoint.endpoint_id)
        assert test.state is DeliveryState.DELIVERED

    def test_that_fails_is_tried_again_with_the_same_bytes_and_never_recovered(self) -> None:
        world = Deployment()
        endpoint = world.manage(HOOK)
        world.receivers.answers[HOOK] = [DOWN]
        self.sent(world, endpoint)
        world.tick_every_minute(until_s=5 * DAY)
        world.run(5 * DAY)
        (test,) = world.store.newest_tests(OWNER, endpoint.endpoint_id)
        assert (test.state, test.tries) == (DeliveryState.EXHAUSTED, 10)
        assert len({one.body for one in world.receivers.received}) == 1
        assert [one.number for one in world.store.attempts_of(test)] == list(range(1, 11))
        assert recover(world, endpoint) == 0

    def test_of_a_deleted_endpoint_ends(self) -> None:
        world = Deployment()
        endpoint = world.manage(HOOK)
        world.loses.append("notifier")
        self.sent(world, endpoint)
        world.endpoints().delete(endpoint.endpoint_id, owner=OWNER)
        world.tick_every_minute(until_s=130)
        world.run(130)
        (test,) = world.store.newest_tests(OWNER, endpoint.endpoint_id)
        assert (test.state, test.due_at) == (DeliveryState.GONE, None)
        assert world.receivers.received == []


class TestWhatWasRecovered:
    def exhausted(self, world: Deployment) -> tuple[Endpoint, str]:
        endpoint = world.manage(HOOK)
        world.receivers.answers[HOOK] = [DOWN]
        task = world.register(failed(), at_s=0)
        world.tick_every_minute(until_s=5 * DAY)
        world.run(5 * DAY)
        assert only(world, task).state is DeliveryState.EXHAUSTED
        return endpoint, task

    def test_is_heard_under_the_same_id_and_with_the_same_bytes(self) -> None:
        world = Deployment()
        endpoint, task = self.exhausted(world)
        world.receivers.answers[HOOK] = [Answer(204)]
        assert recover(world, endpoint) == 1
        world.run(world.now_s + 5)
        delivered = only(world, task)
        assert (delivered.state, delivered.tries) == (DeliveryState.DELIVERED, 1)
        heard = world.messages(task)
        assert len({(one.message_id, one.body) for one in heard}) == 1
        assert len(heard) == 11
        assert not [item for item in world.table.items() if item.get("list_pk", {}).get("S", "").startswith("FAILED#")]

    def test_has_the_whole_schedule_before_it_again(self) -> None:
        world = Deployment()
        endpoint, task = self.exhausted(world)
        recover(world, endpoint)
        world.tick_every_minute(until_s=10 * DAY, first_s=world.now_s + 5)
        world.run(10 * DAY)
        ended = only(world, task)
        assert (ended.state, ended.tries) == (DeliveryState.EXHAUSTED, 10)
        assert len(world.store.attempts(task)) == 20
        assert recover(world, endpoint) == 1

    def test_and_whose_sender_dies_is_not_taken_for_what_was_recorded_before(self) -> None:
        """The attempts of both rounds have the same numbers."""
        world = Deployment()
        endpoint, task = self.exhausted(world)
        world.loses.append("notifier")
        recover(world, endpoint)
        pending = only(world, task)
        claimed = world.store.claim_delivery(pending, "dead", world.world.now() + timedelta(seconds=60))
        assert claimed is not None
        world.receivers.answers[HOOK] = [Answer(204)]
        world.tick_every_minute(until_s=world.now_s + 300, first_s=world.now_s + 5)
        world.run(world.now_s + 300)
        assert only(world, task).state is DeliveryState.DELIVERED
        assert [one.error for one in world.store.attempts(task)][-2:] == ["interrupted", None]

    def test_of_a_deleted_task_is_not_sent(self) -> None:
        world = Deployment()
        endpoint, task = self.exhausted(world)
        sent = len(world.receivers.received)
        world.delete(task, at_s=world.now_s)
        world.run(world.now_s + 5)
        recover(world, endpoint)
        world.run(world.now_s + 10)
        assert len(world.receivers.received) == sent


class TestAnAttemptByHandThatNobodyWantsAnyMore:
    """The endpoint is switched off, or removed, after its owner has asked and before the attempt is made."""

    def ended(self, world: Deployment, *answers: Answer) -> tuple[Endpoint, str]:
        endpoint = world.manage(HOOK)
        world.receivers.answers[HOOK] = [*answers]
        task = world.register(failed(), at_s=0)
        world.tick_every_minute(until_s=5 * DAY)
        world.run(5 * DAY)
        return endpoint, task

    def ask_and_switch_off(self, world: Deployment, endpoint: Endpoint, task: str) -> None:
        world.loses.append("poller")
        world.redelivery().redeliver(task, owner=OWNER)
        change(world, endpoint, disabled=True)
        world.tick_at(world.now_s + 30)
        world.run(world.now_s + 120)

    def test_leaves_what_was_delivered_delivered_and_is_not_recovered(self) -> None:
        world = Deployment()
        endpoint, task = self.ended(world, Answer(204))
        self.ask_and_switch_off(world, endpoint, task)
        assert (only(world, task).state, only(world, task).manual) == (DeliveryState.DELIVERED, False)
        change(world, endpoint, disabled=False)
        assert recover(world, endpoint) == 0
        assert len(world.messages(task)) == 1

    def test_leaves_what_was_exhausted_exhausted_and_its_recovery_has_the_whole_schedule(self) -> None:
        world = Deployment()
        endpoint, task = self.ended(world, DOWN)
        self.ask_and_switch_off(world, endpoint, task)
        assert (only(world, task).state, only(world, task).manual) == (DeliveryState.EXHAUSTED, False)
        change(world, endpoint, disabled=False)
        before = len(world.store.attempts(task))
        assert recover(world, endpoint) == 1
        world.tick_every_minute(until_s=world.now_s + 5 * DAY, first_s=world.now_s + 5)
        world.run(world.now_s + 5 * DAY)
        assert len(world.store.attempts(task)) == before + 10

    def test_ends_what_was_still_being_tried_as_any_other(self) -> None:
        world = Deployment()
        endpoint = world.manage(HOOK)
        world.receivers.answers[HOOK] = [DOWN]
        task = told(world)
        self.ask_and_switch_off(world, endpoint, task)
        assert (only(world, task).state, only(world, task).manual) == (DeliveryState.DISABLED, False)


def test_a_key_is_valid_for_a_day_beyond_its_rotation() -> None:
    key = SigningKey("endpoint", "ep_1")
    assert secrets_of(MASTER, key, START) == [derive_secret(MASTER, "endpoint", "ep_1", 1)]
    rotated = key.rotated(START)
    both = [derive_secret(MASTER, "endpoint", "ep_1", n) for n in (2, 1)]
    assert secrets_of(MASTER, rotated, START + timedelta(hours=24) - timedelta(microseconds=1)) == both
    assert secrets_of(MASTER, rotated, START + timedelta(hours=24)) == both[:1]
    again = rotated.rotated(START + timedelta(hours=1))
    assert secrets_of(MASTER, again, START + timedelta(hours=2)) == [
        derive_secret(MASTER, "endpoint", "ep_1", 3),
        both[0],
    ]


@pytest.mark.parametrize(
    ("headers", "hidden"),
    [
        ({"a": "1"}, []),
        ({"a": "abcd"}, ["abcd"]),
        ({"a": "Bearer abcdefgh"}, ["Bearer abcdefgh", "abcdefgh"]),
        ({"a": "same", "b": "same"}, ["same"]),
    ],
)
def test_what_is_hidden_of_headers_is_what_may_be_a_secret(headers: Mapping[str, str], hidden: list[str]) -> None:
    assert hidden_in(headers) == hidden
