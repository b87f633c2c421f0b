"""Attempts at a task's webhooks: shown in pages, and made once more by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from renderbell.delivery import INTERRUPTED, Answer, Attempt, Delivery, DeliveryState, judge
from renderbell.endpoints import derive_secret, endpoint_id
from renderbell.errors import ConflictError, NotFoundError
from renderbell.outbox import RECEIVER_EVERY_S
from renderbell.register import TaskRequest
from renderbell.task import Status
from tests.deployment import API, MASTER, NOTIFIER, OWNER, Deployment, failed, processing
from tests.fakes import START
from tests.http_api import HOOK, World, sample
from tests.virtual import START as BEGUN

OTHER = "https://other.example.com/hooks"
DOWN = Answer(503)


def told(world: World, *urls: str) -> str:
    """A task that was cancelled, of which its webhooks were told."""
    task_id = world.registered(webhooks=[{"url": url} for url in urls])
    assert world.call("POST", f"/tasks/{task_id}/cancel").status == 200
    for one in world.store.deliveries(task_id):
        heard(world, one, Answer(204))
    world.invoker.invoked.clear()
    return task_id


def pending(world: World) -> tuple[str, Delivery]:
    """A task that was cancelled, and its one webhook that nobody has sent yet."""
    task_id = world.registered(webhook_url=HOOK)
    assert world.call("POST", f"/tasks/{task_id}/cancel").status == 200
    (delivery,) = world.store.deliveries(task_id)
    return task_id, delivery


def heard(world: World, delivery: Delivery, answer: Answer) -> None:
    """One attempt at a delivery, as the notifier makes it."""
    held = world.store.claim_delivery(delivery, "t1", None)
    assert held is not None
    after = judge(held, answer, world.clock(), 0.5)
    assert world.store.finish_delivery(held, after)
    world.store.put_attempt(attempt(held.task_id, held.tries, endpoint=held.endpoint_id), None)


def attempt(task_id: str, number: int, *, endpoint: str = "url_1", **fields: object) -> Attempt:
    made = Attempt(
        task_id=task_id,
        event="task.cancelled",
        endpoint_id=endpoint,
        at=START + timedelta(seconds=number),
        number=number,
        status=503,
        error=None,
        detail=None,
        body="try later",
        duration_ms=12,
        manual=False,
        next_at=None,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


class TestTheListOfAttempts:
    def test_the_sample_event_lists_none_of_an_unknown_task(self) -> None:
        World().send(sample("attempts")).problem(404, "not_found")

    def test_it_is_newest_first_in_pages_with_every_field(self) -> None:
        world = World()
        task_id = world.registered()
        for number in range(1, 26):
            world.store.put_attempt(attempt(task_id, number), None)
        late = attempt(
            task_id,
            26,
            status=None,
            error="timeout",
            detail="too long",
            manual=True,
            next_at=START + timedelta(hours=1),
        )
        world.store.put_attempt(late, None)
        first = world.call("GET", f"/tasks/{task_id}/attempts", scope="read").json
        assert [one["number"] for one in first["attempts"]] == list(range(26, 6, -1))
        assert first["attempts"][0] == {
            "event": "task.cancelled",
            "endpoint_id": "url_1",
            "at": "2026-03-01T12:00:26.000Z",
            "number": 26,
            "manual": True,
            "status": None,
            "error": "timeout",
            "detail": "too long",
            "body": "try later",
            "duration_ms": 12,
            "next_at": "2026-03-01T13:00:00.000Z",
        }
        query = {"cursor": first["next_cursor"], "limit": "100"}
        world.store.put_attempt(attempt(task_id, 27), None)
        second = world.call("GET", f"/tasks/{task_id}/attempts", query=query).json
        assert [one["number"] for one in second["attempts"]] == list(range(6, 0, -1))
        assert second["next_cursor"] is None

    def test_a_cursor_is_of_one_task_and_owner(self) -> None:
        world = World()
        one, other = world.registered(), world.registered(provider_task_id="job-8")
        for task_id in (one, other):
            for number in (1, 2):
                world.store.put_attempt(attempt(task_id, number), None)
        query = {"limit": "1"}
        cursor = world.call("GET", f"/tasks/{one}/attempts", query=query).json["next_cursor"]
        query["cursor"] = cursor
        assert world.call("GET", f"/tasks/{one}/attempts", query=query).status == 200
        for path, caller in ((f"/tasks/{other}/attempts", "default"), ("/tasks", "default")):
            problem = world.call("GET", path, query=query, owner=caller).problem(422, "invalid_input")
            assert problem["errors"][0]["code"] == "cursor_invalid"

    def test_another_owners_task_has_none(self) -> None:
        world = World()
        task_id = world.registered()
        world.call("GET", f"/tasks/{task_id}/attempts", owner="rival").problem(404, "not_found")
        assert world.call("GET", f"/tasks/{task_id}/attempts").json == {"attempts": [], "next_cursor": None}

    @pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "101"}, {"order": "oldest"}, {"cursor": "x"}])
    def test_a_query_that_cannot_be_used_is_422(self, query: dict[str, str]) -> None:
        world = World()
        world.call("GET", f"/tasks/{world.registered()}/attempts", query=query).problem(422, "invalid_input")


class TestSendingAgain:
    def test_the_sample_event_is_of_an_unknown_task(self) -> None:
        World().send(sample("redeliver")).problem(404, "not_found")

    @pytest.mark.parametrize("body", [{}, None, {"endpoint_id": None}, {"event": "task.cancelled"}])
    def test_makes_all_deliveries_due_and_wakes_the_poller_which_paces_them(self, body: object) -> None:
        world = World()
        task_id = told(world, HOOK, HOOK + "/2", OTHER)
        world.clock.pass_s(100)
        answer = world.call("POST", f"/tasks/{task_id}/redeliver", body)
        assert answer.status == 202
        shown = {one["url"]: (one["state"], one["next_attempt_at"]) for one in answer.json["deliveries"]}
        assert shown == dict.fromkeys([HOOK, HOOK + "/2", OTHER], ("pending", "2026-03-01T12:01:40.000Z"))
        ((function, payload),) = world.invoker.invoked
        assert function == "poller"
        assert payload["delivery"] in [
            {"pk": f"TASK#{task_id}", "sk": f"DELIVERY#task.cancelled#{endpoint_id(url)}"}
            for url in (HOOK, HOOK + "/2", OTHER)
        ]

    def test_asked_for_twice_before_it_is_made_makes_one_attempt_and_writes_once(self) -> None:
        world = World()
        task_id = told(world, HOOK)
        path = f"/tasks/{task_id}/redeliver"
        assert world.call("POST", path, {}).status == 202
        (before,) = world.store.deliveries(task_id)
        world.clock.pass_s(5)
        assert world.call("POST", path, {}).status == 202
        assert world.store.deliveries(task_id) == (before,)

    def test_to_one_endpoint_leaves_the_others_alone(self) -> None:
        world = World()
        task_id = told(world, HOOK, OTHER)
        answer = world.call("POST", f"/tasks/{task_id}/redeliver", {"endpoint_id": endpoint_id(OTHER)})
        assert {one["url"]: one["state"] for one in answer.json["deliveries"]} == {HOOK: "delivered", OTHER: "pending"}

    def test_to_an_endpoint_that_nothing_goes_to_is_404_and_without_any_webhook_409(self) -> None:
        world = World()
        task_id = told(world, HOOK)
        world.call("POST", f"/tasks/{task_id}/redeliver", {"endpoint_id": "url_0"}).problem(404, "not_found")
        path, event = f"/tasks/{task_id}/redeliver", {"event": "task.completed"}
        world.call("POST", path, event).problem(409, "nothing_to_redeliver")
        running = world.registered(provider_task_id="job-8", webhook_url=HOOK)
        world.call("POST", f"/tasks/{running}/redeliver", {}).problem(409, "nothing_to_redeliver")

    @pytest.mark.parametrize("ends", ["PATCH", "DELETE"])
    def test_to_an_endpoint_that_is_disabled_or_deleted_is_409_and_leaves_it_as_it_was(self, ends: str) -> None:
        world = World()
        first = world.call("POST", "/endpoints", {"url": HOOK}).json["endpoint_id"]
        second = world.call("POST", "/endpoints", {"url": OTHER}).json["endpoint_id"]
        task_id = told(world)
        path, off = f"/tasks/{task_id}/redeliver", {"disabled": True}
        assert world.call(ends, f"/endpoints/{first}", off if ends == "PATCH" else None).status in {200, 204}
        answer = world.call("POST", path, {})
        assert {one["url"]: one["state"] for one in answer.json["deliveries"]} == {HOOK: "delivered", OTHER: "pending"}
        world.call("POST", path, {"endpoint_id": first}).problem(409, "endpoint_disabled")
        assert world.call(ends, f"/endpoints/{second}", off if ends == "PATCH" else None).status in {200, 204}
        world.call("POST", path, {}).problem(409, "endpoint_disabled")

    @pytest.mark.parametrize("body", [{"endpoint": "url_1"}, {"event": "task.done"}, {"endpoint_id": 7}])
    def test_a_body_that_cannot_be_used_is_422(self, body: object) -> None:
        world = World()
        world.call("POST", f"/tasks/{told(world, HOOK)}/redeliver", body).problem(422, "invalid_input")

    def test_is_not_for_readers_nor_for_other_owners_nor_for_deleted_tasks(self) -> None:
        world = World()
        task_id = told(world, HOOK)
        path = f"/tasks/{task_id}/redeliver"
        world.call("POST", path, {}, scope="read").problem(403, "forbidden")
        world.call("POST", path, {}, owner="rival").problem(404, "not_found")
        assert world.invoker.invoked == []
        assert world.call("POST", path, {}).status == 202
        assert world.call("DELETE", f"/tasks/{task_id}", query={"force": "true"}).status == 202
        world.call("POST", path, {}).problem(404, "not_found")

    def test_while_it_is_being_sent_is_409_and_breaks_no_claim(self) -> None:
        world = World()
        task_id = told(world, HOOK)
        path = f"/tasks/{task_id}/redeliver"
        assert world.call("POST", path, {}).status == 202
        (delivery,) = world.store.deliveries(task_id)
        held = world.store.claim_delivery(delivery, "t2", world.clock() + timedelta(seconds=60))
        assert held is not None
        world.call("POST", path, {}).problem(409, "try_again")
        assert world.store.finish_delivery(held, judge(held, Answer(204), world.clock(), 0.5))

    def test_meets_a_claim_that_comes_first(self) -> None:
        world = World()
        task_id, delivery = pending(world)
        until = world.clock() + timedelta(seconds=60)
        world.client.before["update_item"] = lambda: world.store.claim_delivery(delivery, "t2", until)
        world.call("POST", f"/tasks/{task_id}/redeliver", {}).problem(409, "try_again")

    def test_goes_on_where_another_answer_came_first(self) -> None:
        world = World()
        task_id, delivery = pending(world)
        world.client.before["update_item"] = lambda: heard(world, delivery, DOWN)
        answer = world.call("POST", f"/tasks/{task_id}/redeliver", {})
        assert answer.json["deliveries"][0]["next_attempt_at"] == "2026-03-01T12:00:00.000Z"

    def test_is_404_where_the_task_is_deleted_meanwhile(self) -> None:
        world = World()
        task_id = told(world, HOOK)
        remove = f"/tasks/{task_id}"
        world.client.before["update_item"] = lambda: world.call("DELETE", remove)
        world.call("POST", f"/tasks/{task_id}/redeliver", {}).problem(404, "not_found")

    def test_is_promised_even_where_the_notifier_cannot_be_told(self) -> None:
        world = World()
        task_id = told(world, HOOK, OTHER)
        world.invoker.trouble = RuntimeError("no")
        answer = world.call("POST", f"/tasks/{task_id}/redeliver", {})
        assert answer.status == 202
        assert all(one.due_at == world.clock() for one in world.store.deliveries(task_id))


@dataclass
class Sent:
    """A task of a deployment in virtual time that has failed, and what its one webhook has brought."""

    world: Deployment
    task: str

    @property
    def delivery(self) -> Delivery:
        (delivery,) = self.world.store.deliveries(self.task)
        return delivery

    @property
    def attempts(self) -> list[tuple[int, int | None, bool]]:
        return [(one.number, one.status, one.manual) for one in self.world.store.attempts(self.task)]

    def again(self, at_s: float, *, wakes: bool = True) -> None:
        self.world.run(at_s)
        if not wakes:
            self.world.loses.append(NOTIFIER)
        self.world.redelivery().redeliver(self.task, owner=OWNER)


def sent(*answers: Answer, ticks_until_s: float = 1200, index_lag_s: float = 0) -> Sent:
    world = Deployment(index_lag_s=index_lag_s)
    world.receivers.answers[HOOK] = [*answers]
    task = world.register(failed(20), webhooks=[HOOK])
    world.tick_every_minute(until_s=ticks_until_s)
    world.run(38)
    return Sent(world, task)


class TestTheAttemptByHand:
    def test_sends_the_same_message_again_at_once(self) -> None:
        case = sent(Answer(204))
        case.again(40)
        case.world.run(42)
        first, second = case.world.receivers.received
        assert (first.body, first.message_id) == (second.body, second.message_id)
        assert case.attempts == [(1, 204, False), (2, 204, True)]

    def test_is_made_soon_though_the_index_does_not_show_it_yet_and_no_poller_runs(self) -> None:
        case = sent(Answer(204), index_lag_s=2, ticks_until_s=60)
        case.world.run(200)
        case.again(300)
        case.world.run(301)
        assert case.attempts == [(1, 204, False), (2, 204, True)]

    def test_is_made_soon_where_a_poller_runs(self) -> None:
        case = sent(Answer(204))
        case.world.register(processing())
        case.again(80)
        case.world.run(84)
        assert case.attempts == [(1, 204, False), (2, 204, True)]

    def test_is_found_by_the_poller_where_the_notifier_never_hears_of_it(self) -> None:
        case = sent(Answer(204))
        case.again(40, wakes=False)
        case.world.run(130)
        assert case.attempts == [(1, 204, False), (2, 204, True)]

    def test_that_fails_leaves_a_delivered_webhook_delivered(self) -> None:
        case = sent(Answer(204), DOWN)
        case.again(40)
        case.world.run(1100)
        assert case.attempts == [(1, 204, False), (2, 503, True)]
        assert (case.delivery.state, case.delivery.last_status) == (DeliveryState.DELIVERED, 503)
        assert case.world.counts["DeliveryExhausted"] == 0

    def test_takes_the_place_of_the_pending_one_and_the_schedule_goes_on_after_it(self) -> None:
        case = sent(DOWN)
        assert [number for number, *_ in case.attempts] == [1, 2]
        case.again(60)
        case.world.run(70)
        assert case.attempts == [(1, 503, False), (2, 503, False), (3, 503, True)]
        assert case.delivery.state is DeliveryState.PENDING
        due_at = case.delivery.due_at
        assert due_at is not None
        assert (due_at - BEGUN).total_seconds() == pytest.approx(60 + 1800, abs=2), "half an hour after the third"
        case.world.tick_every_minute(first_s=1860, until_s=2000)
        case.world.run(2000)
        assert case.attempts[3:] == [(4, 503, False)]

    def test_whose_process_died_ends_as_it_had(self) -> None:
        case = sent(Answer(204))
        case.again(40, wakes=False)
        held = case.world.store.claim_delivery(case.delivery, "token", BEGUN + timedelta(seconds=100))
        assert held is not None
        case.world.run(500)
        assert case.delivery.state is DeliveryState.DELIVERED
        assert [(one.number, one.error, one.manual) for one in case.world.store.attempts(case.task)] == [
            (1, None, False),
            (2, INTERRUPTED, True),
        ]

    def test_whose_process_died_long_ago_ends_as_it_had_and_is_not_made_again(self) -> None:
        case = sent(Answer(204), ticks_until_s=60)
        case.again(40, wakes=False)
        held = case.world.store.claim_delivery(case.delivery, "token", BEGUN + timedelta(seconds=100))
        assert held is not None
        case.world.tick_at(2000)
        case.world.run(2100)
        assert case.delivery.state is DeliveryState.DELIVERED
        assert [(one.number, one.error) for one in case.world.store.attempts(case.task)] == [
            (1, None),
            (2, INTERRUPTED),
        ]

    def test_that_fails_does_not_count_once_more_as_given_up(self) -> None:
        case = sent(DOWN)
        world, delivery = case.world, case.delivery
        held = world.store.claim_delivery(delivery, "token", BEGUN + timedelta(seconds=100))
        assert held is not None
        world.store.finish_delivery(held, judge(held, DOWN, world.clock(), 0.5, disabled=True))
        assert case.delivery.state is DeliveryState.DISABLED
        case.again(60)
        world.run(1100)
        assert [manual for *_, manual in case.attempts] == [False, False, True]
        assert case.delivery.state is DeliveryState.DISABLED
        assert world.counts["DeliveryExhausted"] == 0

    def test_of_a_deleted_task_is_not_made(self) -> None:
        case = sent(Answer(204))
        case.world.run(40)
        tasks = case.world.tasks(lambda: "")
        (delivery,) = case.world.store.deliveries(case.task)
        tasks.delete_task(case.task, owner=OWNER, force=True)
        with pytest.raises(NotFoundError):
            case.again(41)
        # One that was seen before the deletion and is written after it finds nobody to tell of.
        case.world.store.reopen_delivery(
            delivery, replace(delivery, state=DeliveryState.PENDING, due_at=case.world.clock())
        )
        case.world.run(1100)
        assert len(case.world.receivers.received) == 1
        assert case.world.store.deliveries(case.task) == ()

    def test_is_refused_while_the_task_runs(self) -> None:
        world = Deployment()
        case = Sent(world, world.register(webhooks=[HOOK]))
        with pytest.raises(ConflictError):
            case.again(1)
        task = world.store.task(case.task)
        assert task is not None
        assert task.status is Status.QUEUED


class TestAFlood:
    """Who asks again and again for what hangs holds up nobody else; the promise beside dead endpoints is 30 s."""

    VICTIM = "https://good.example.com/hooks"

    def first_attempts(self, world: Deployment, ask: Callable[[int], object]) -> list[float]:
        """How long another owner's first attempts took while an owner asks every second for what hangs, sorted."""
        world.connect("shared", owners=("*",))
        world.receivers.secrets[self.VICTIM] = [derive_secret(MASTER, "owner", "other", 1)]
        began_s, ids = world.now_s, [f"tsk_{number:026d}" for number in range(900, 915)]
        for number, task_id in enumerate(ids):
            world.provider.scripts[f"good{number}"] = (failed(began_s + 50 + 13 * number),)
            asked = TaskRequest.model_validate(
                {"connection": "shared", "provider_task_id": f"good{number}", "webhook_url": self.VICTIM}
            )
            tasks = world.tasks(lambda task_id=task_id: task_id)  # type: ignore[misc]
            tasks.register_task(asked, owner="other", base_url=API)
        for number in range(240):
            world.start("api", partial(ask, number), delay_s=number)
        world.tick_every_minute(until_s=began_s + 600, first_s=began_s + 5)
        world.run(began_s + 500)
        waits = []
        for task_id in ids:
            (message,) = world.messages(task_id)
            waits.append(message.at_s - (world.task(task_id).history[-1].at - BEGUN).total_seconds())
        return sorted(waits)

    def hang(self, world: Deployment, urls: Sequence[str]) -> None:
        for url in urls:
            world.receivers.latencies_s[url] = 15.0
            world.receivers.answers[url] = [Answer(None, error="timeout")]

    @pytest.mark.parametrize("notifiers", [10, 100])
    def test_of_redeliveries_to_twenty_hosts_that_hang_delays_no_other_owner(
        self, notifiers: int, measured: Callable[[str], None]
    ) -> None:
        world = Deployment(notifiers=notifiers)
        urls = [f"https://e{number}.example.com/hooks" for number in range(20)]
        made = [world.register(failed(5), webhooks=urls, at_s=number * 0.2) for number in range(20)]
        world.run(60)
        self.hang(world, urls)

        def ask(number: int) -> None:
            with suppress(ConflictError):
                world.redelivery().redeliver(made[number % len(made)], owner=OWNER)

        waits = self.first_attempts(world, ask)
        measured(f"redeliveries to 20 dead hosts, {notifiers} notifiers: another owner's worst {waits[-1]:.1f} s")
        assert waits[-1] <= 30
        assert world.aged_out == 0

    def test_of_tests_to_endpoints_that_hang_delays_no_other_owner(self, measured: Callable[[str], None]) -> None:
        world = Deployment(notifiers=10)
        made = [world.manage(f"https://e{number}.example.com/hooks") for number in range(20)]
        self.hang(world, [one.url for one in made])
        waits = self.first_attempts(
            world, lambda number: world.endpoints().test(made[number % 20].endpoint_id, owner=OWNER)
        )
        measured(f"tests of 20 dead hosts, 10 notifiers: another owner's worst {waits[-1]:.1f} s")
        assert waits[-1] <= 30
        assert world.aged_out == 0


@settings(max_examples=30, deadline=None)
@example([204], [(40, False)] * 4)
@given(
    st.lists(st.sampled_from([204, 503, 410]), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(40, 900), st.booleans()), min_size=1, max_size=4),
)
def test_every_attempt_that_was_promised_is_made_soon_and_recorded_whatever_is_lost_on_the_way(
    answers: list[int], asked: list[tuple[int, bool]]
) -> None:
    case = sent(*map(Answer, answers))
    promised = []
    for at_s, wakes in sorted(asked):
        with suppress(ConflictError):  # it is being sent just then
            case.again(max(at_s, case.world.now_s), wakes=wakes)
            promised.append(at_s)
    case.world.run(1150)
    records = case.world.store.attempts(case.task)
    assert [one.number for one in records] == list(range(1, len(records) + 1))
    manual_s = [(one.at - BEGUN).total_seconds() for one in records if one.manual]
    lost = sum(not wakes for _, wakes in asked)  # all of them may be one attempt's
    most_s = 75 + RECEIVER_EVERY_S * max(0, lost - 1)
    for at_s in promised:
        assert any(at_s <= made_s <= at_s + most_s for made_s in manual_s)
    assert len(manual_s) <= len(promised)
    assert (case.delivery.state is DeliveryState.DELIVERED) == any(one.status == 204 for one in records)
    assert not case.delivery.manual
    first, *others = case.world.receivers.received
    assert {(one.message_id, one.body) for one in others} <= {(first.message_id, first.body)}
