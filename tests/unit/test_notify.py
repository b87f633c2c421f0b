"""The notifier in virtual time: copies, deliveries and their retries, under claims that may be lost."""

from __future__ import annotations

import gc
import weakref
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError

from renderbell.delivery import HEALTHY, Answer, DeliveryState, EndpointHealth
from renderbell.endpoints import endpoint_id
from renderbell.errors import (
    ConflictError,
    CopyError,
    LinkExpiredError,
    NotFoundError,
    OutOfTimeError,
    SourceRefusedError,
)
from renderbell.register import TaskRequest
from renderbell.task import Status
from renderbell.webhooks import event_body
from tests.deployment import NOTIFIER, Deployment, Said, failed, made_two_videos, processing, succeeded
from tests.virtual import START

VIDEO = "https://cdn.example.com/video.mp4?signature=s"
HOOK = "https://example.com/hook"
OTHER = "https://other.example.com/hook"
DOWN = Answer(503)
HOUR = 3600.0
FAR = START + timedelta(days=365)


def remains(world: Deployment) -> list[str]:
    """All that the world's deleted tasks have left: items, what the index shows, objects, open uploads, markers."""
    items = [f"{item['pk']['S']} {item['sk']['S']}" for item in world.table.items()]
    shown = [f"due {item}" for slot in range(world.settings.slots) for item in world.store.due(slot, FAR)]
    kept = [one for one in items if one.startswith(("TASK#", "ONGOING#"))]
    return kept + shown + list(world.archive.objects) + list(world.archive.open)


def delete_now(world: Deployment, task: str, *, force: bool = False) -> None:
    world.tasks(lambda: "").delete_task(task, owner="default", force=force)


def attempts(world: Deployment, task: str) -> list[tuple[int, int | None]]:
    return [(one.number, one.status) for one in world.store.attempts(task)]


class TestACopy:
    def test_that_fails_leaves_nothing_of_its_file_in_memory_to_the_next_try(self) -> None:
        class Buffer:
            pass

        world = Deployment()
        held: list[weakref.ref[Buffer]] = []
        left: list[bool] = []

        def store(**call: Any) -> Any:
            left.extend(buffer() is not None for buffer in held)
            read = Buffer()
            held.append(weakref.ref(read))
            raise CopyError("broke off")

        world.archive.store = store  # type: ignore[method-assign]
        world._side_by_side = lambda jobs: [job() for job in jobs]  # type: ignore[method-assign]
        world.register(succeeded())
        gc.disable()
        try:
            world.run(20)
        finally:
            gc.enable()
        assert left == [False], "the second try follows at once"

    def test_that_fails_is_tried_again_at_once_and_then_on_its_schedule(self) -> None:
        world = Deployment()
        world.archive.faults["1"] = [CopyError("broke off")] * 3
        task = world.register(succeeded(), webhooks=[HOOK])
        world.tick_every_minute(until_s=300)
        world.run(20)
        waiting = world.task(task)
        assert waiting.status is Status.COPYING
        assert waiting.last_poll_error is not None
        assert (waiting.last_poll_error.kind, waiting.last_poll_error.message) == ("copy", "broke off")
        assert len(world.archive.sources) == 2
        world.run(300)
        done = world.task(task)
        assert (done.status, done.last_poll_error) == (Status.COMPLETED, None)
        assert len(world.messages(task)) == 1

    def test_that_always_fails_ends_after_ten_tries(self) -> None:
        world = Deployment()
        world.archive.faults["1"] = [CopyError("broke off")] * 100
        task = world.register(succeeded(), webhooks=[HOOK])
        world.tick_every_minute(until_s=20 * HOUR)
        world.run(20 * HOUR)
        ended = world.task(task)
        assert ended.error is not None
        assert (ended.status, ended.error.code, ended.error.message) == (Status.FAILED, "copy_failed", "broke off")
        assert len(world.archive.sources) == 10
        assert [one.data["type"] for one in world.messages(task)] == ["task.failed"]
        assert ended.step is None, "what was left has been cleaned up"
        assert world.archive.cleaned == [f"default/{task}"]
        assert world.counts["CopyFailed"] == 1

    def test_of_a_refused_source_fails_at_once(self) -> None:
        world = Deployment()
        world.archive.faults["1"] = [SourceRefusedError("10.0.0.1 may not be reached")]
        task = world.register(succeeded(), webhooks=[HOOK])
        world.run(10)
        assert world.task(task).status is Status.FAILED

    def test_that_breaks_us_backs_off_and_shows_why(self) -> None:
        world = Deployment()
        world.archive.faults["1"] = [RuntimeError("a bug")] * 2
        task = world.register(succeeded())
        world.run(10)
        kept = world.task(task)
        assert kept.last_poll_error is not None
        assert kept.last_poll_error.message == "internal error: RuntimeError"

    def test_with_an_expired_link_asks_the_provider_once_for_a_fresh_one(self) -> None:
        world = Deployment()
        world.archive.faults["1"] = [LinkExpiredError("403")]
        fresh: dict[str, object] = {
            "status": "completed",
            "result": {"video_url": "https://cdn.example.com/video.mp4?signature=fresh"},
        }
        task = world.register(succeeded(), Said(0.5, fresh))
        world.run(10)
        assert world.task(task).status is Status.COMPLETED
        assert world.archive.sources[-1].endswith("signature=fresh")
        assert world.task(task).files[0].source_url.endswith("signature=fresh")

    def test_whose_provider_has_no_fresh_link_goes_by_the_schedule(self) -> None:
        world = Deployment()
        world.archive.faults["1"] = [LinkExpiredError("403")]
        task = world.register(succeeded())
        world.run(10)
        assert world.task(task).status is Status.COMPLETED, "the second try is at once"

    def test_whose_provider_refuses_the_key_then_counts_for_an_alarm(self) -> None:
        world = Deployment()
        world.archive.faults["1"] = [LinkExpiredError("403")]
        task = world.register(succeeded(), Said(0.5, 401))
        world.run(10)
        assert world.counts["ProviderAuthError"] == 1
        assert world.task(task).status is Status.COMPLETED, "the second try is at once"

    def test_longer_than_its_claim_is_renewed_and_done_once(self) -> None:
        world = Deployment()
        world.archive.copy_s = 150
        task = world.register(succeeded(), webhooks=[HOOK])
        world.tick_every_minute(until_s=300)
        world.run(300)
        assert world.task(task).status is Status.COMPLETED
        assert len(world.archive.sources) == 1
        assert len(world.messages(task)) == 1

    def test_out_of_time_goes_on_in_another_invocation(self) -> None:
        world = Deployment()
        world.archive.faults["1"] = [OutOfTimeError("no time left")]
        task = world.register(succeeded())
        world.tick_every_minute(until_s=120)
        world.run(120)
        assert world.task(task).status is Status.COMPLETED
        assert [name for name, _ in world.invocations].count(NOTIFIER) == 2

    def test_that_ends_when_no_time_is_left_to_tell_of_it_is_told_of_by_another_invocation(self) -> None:
        world = Deployment()
        world.archive.copy_s = 285
        task = world.register(succeeded(), webhooks=[HOOK])
        world.register(processing())  # so that a poller runs all the while
        world.tick_every_minute(until_s=500)
        world.run(500)
        completed_s = (world.task(task).history[-1].at - START).total_seconds()
        (told,) = world.messages(task)
        assert told.at_s - completed_s <= 5

    def test_told_twice_is_done_once(self) -> None:
        world = Deployment()
        task = world.register(succeeded(), webhooks=[HOOK])
        world.world.at(START, lambda: None)
        world.run(0.5)
        world.invoke(NOTIFIER, {"pk": f"TASK#{task}", "sk": "TASK"})
        world.invoke(NOTIFIER, {"pk": f"TASK#{task}", "sk": "TASK"})
        world.run(60)
        assert len(world.archive.sources) == 1
        assert len(world.messages(task)) == 1

    def test_of_two_files_keeps_the_first_when_the_second_fails(self) -> None:
        world = Deployment()
        world.connect("server", type="moneyprinterturbo")
        world.archive.faults["2"] = [CopyError("broke off")]
        task = world.register(made_two_videos(), connection="server", webhooks=[HOOK])
        world.run(10)
        assert [url[-5:] for url in world.archive.sources] == ["1.mp4", "2.mp4", "2.mp4"]
        done = world.task(task)
        assert done.status is Status.COMPLETED
        assert [(file.n, file.source_url[-5:]) for file in done.files] == [(1, "1.mp4"), (2, "2.mp4")]
        assert set(world.archive.objects) == {file.key for file in done.files}

    def test_of_two_files_begins_to_count_anew_with_each_that_is_kept(self) -> None:
        world = Deployment()
        world.connect("server", type="moneyprinterturbo")
        world.archive.faults = {"1": [CopyError("broke off")] * 8, "2": [CopyError("broke off")] * 8}
        task = world.register(made_two_videos(), connection="server")
        world.tick_every_minute(until_s=20 * HOUR)
        world.run(20 * HOUR)
        assert world.task(task).status is Status.COMPLETED

    def test_that_continues_an_upload_is_not_counted_out(self) -> None:
        world = Deployment()
        world.archive.faults["1"] = [CopyError("broke off")] * 15
        world.archive.uploads = ["same"] * 16
        task = world.register(succeeded())
        world.tick_every_minute(until_s=20 * HOUR)
        world.run(20 * HOUR)
        assert world.task(task).status is Status.COMPLETED
        assert len(world.archive.begun_s) == 16

    def test_that_begins_a_new_upload_each_time_ends_after_ten_tries(self) -> None:
        world = Deployment()
        world.archive.faults["1"] = [CopyError("broke off")] * 15
        world.archive.uploads = [f"upload-{number}" for number in range(15)]
        task = world.register(succeeded())
        world.tick_every_minute(until_s=20 * HOUR)
        world.run(20 * HOUR)
        assert world.task(task).status is Status.FAILED
        assert len(world.archive.begun_s) == 10

    def test_interrupted_and_then_postponed_is_cleaned_up_after_its_completion(self) -> None:
        world = Deployment()
        world.archive.copy_s = 10
        world.archive.faults["1"] = [CopyError("broke off")]
        task = world.register(succeeded())
        world.run(14)
        assert len(world.archive.begun_s) == 2, "the second try runs; now its process dies"
        world.kill_everything()
        world.tick_every_minute(until_s=600, first_s=62)
        world.run(200)
        done = world.task(task)
        assert done.status is Status.COMPLETED
        world.run(600)
        assert world.archive.cleaned == [f"default/{task}"]
        assert set(world.archive.objects) == {done.files[0].key}
        assert world.task(task).step is None

    def test_that_was_never_interrupted_needs_no_clean_up(self) -> None:
        world = Deployment()
        world.archive.faults["1"] = [CopyError("broke off")] * 3
        task = world.register(succeeded())
        world.tick_every_minute(until_s=600)
        world.run(600)
        assert world.task(task).status is Status.COMPLETED
        assert world.archive.cleaned == []

    def test_that_writes_long_after_it_was_cancelled_is_removed(self) -> None:
        world = Deployment()
        world.archive.hangs_s = 110  # longer than a claim, and nobody looks at the time
        task = world.register(succeeded())
        world.cancel(task, at_s=10)
        world.tick_every_minute(until_s=600)
        world.run(105)
        assert world.archive.cleaned == [f"default/{task}"], "when nothing was written yet"
        world.run(600)
        assert world.task(task).status is Status.CANCELLED
        assert world.archive.objects == {}

    def test_that_writes_the_first_of_two_files_after_it_was_cancelled_is_removed(self) -> None:
        world = Deployment()
        world.connect("server", type="moneyprinterturbo")
        world.archive.hangs_s = 110
        task = world.register(made_two_videos(), connection="server")
        world.cancel(task, at_s=10)
        world.tick_every_minute(until_s=600)
        world.run(600)
        assert len(world.archive.begun_s) == 1, "the second was not begun"
        assert world.task(task).status is Status.CANCELLED
        assert world.archive.objects == {}

    def test_cancelled_is_cleaned_up_a_minute_later_and_not_before(self) -> None:
        world = Deployment()
        world.archive.copy_s = 30
        task = world.register(succeeded(), webhooks=[HOOK])
        world.cancel(task, at_s=10)
        world.run(11)
        world.invoke(NOTIFIER, {"pk": f"TASK#{task}", "sk": "TASK"})
        world.tick_every_minute(until_s=300, first_s=15)
        world.run(69)
        assert world.task(task).status is Status.CANCELLED
        assert len(world.messages(task)) == 1
        assert world.task(task).step is not None, "an old claim may still write"
        world.run(80)
        assert world.task(task).step is None
        assert world.archive.objects == {}

    def test_cancelled_on_the_way_leaves_nothing_behind(self) -> None:
        world = Deployment()
        world.archive.copy_s = 30
        task = world.register(succeeded(), webhooks=[HOOK])
        world.tick_every_minute(until_s=300)
        world.run(10)
        assert world.task(task).status is Status.COPYING
        world.world.spawn(lambda: world.tasks(lambda: "").cancel_task(task, owner="default"))
        world.run(300)
        ended = world.task(task)
        assert (ended.status, ended.step) == (Status.CANCELLED, None)
        assert world.archive.objects == {}
        assert [one.data["type"] for one in world.messages(task)] == ["task.cancelled"]


class TestTheWayToTheFirstWebhook:
    """What a finished task's invocation asks of the table before its owner hears of it."""

    def calls(self, world: Deployment) -> list[str]:
        made: list[str] = []
        for operation in ("get_item", "query", "batch_get_item", "update_item", "transact_write_items", "put_item"):
            call = getattr(world.table, operation)

            def noting(*, _call: Any = call, _operation: str = operation, **arguments: Any) -> Any:
                made.append(_operation)
                return _call(**arguments)

            setattr(world.table, operation, noting)
        post = world.receivers.post

        def posting(*arguments: Any) -> Answer:
            made.append("post")
            return post(*arguments)

        world.receivers.post = posting  # type: ignore[method-assign, assignment]
        return made

    def until_post(self, world: Deployment, task: str, status: Status = Status.COPYING) -> list[str]:
        """The calls of the invocation that a task in a state is handed to, up to its webhook."""
        world.loses = [NOTIFIER]
        world.run(5)
        assert world.task(task).status is status
        (event,) = [event for name, event in world.invocations if name == NOTIFIER]
        made = self.calls(world)
        world.world.spawn(lambda: world._notify(event))
        world.run(20)
        assert len(world.messages(task)) == 1
        return made[: made.index("post")]

    def test_reads_only_while_the_file_is_copied(self) -> None:
        world = Deployment()
        task = world.register(succeeded(), webhooks=[HOOK])
        claim, end, delivery = "update_item", "transact_write_items", "update_item"
        assert self.until_post(world, task) == [claim, "get_item", "batch_get_item", end, delivery]

    def test_reads_what_may_have_changed_again_after_a_long_copy(self) -> None:
        world = Deployment()
        world.archive.copy_s = 12
        task = world.register(succeeded(), webhooks=[HOOK])
        assert self.until_post(world, task)[-3:] == ["transact_write_items", "batch_get_item", "update_item"]

    def test_claims_no_copy_of_a_task_that_has_none(self) -> None:
        world = Deployment()
        task = world.register(failed(), webhooks=[HOOK])
        made = self.until_post(world, task, Status.FAILED)
        assert made[:2] == ["get_item", "query"], "the task and its deliveries"

    def test_leaves_out_an_endpoint_that_its_owner_removes_while_the_file_is_copied(self) -> None:
        world = Deployment()
        world.archive.copy_s = 3
        endpoint = world.manage(HOOK)
        task = world.register(succeeded())
        world.run(2)
        assert world.task(task).status is Status.COPYING
        assert world.store.remove_endpoint(endpoint)
        world.run(30)
        assert world.task(task).status is Status.COMPLETED
        assert world.messages(task) == []

    def test_tells_what_a_later_reading_would(self) -> None:
        world = Deployment()
        known = {"created_at": "2026-11-22T07:59:59Z", "model": "m\u00f6ve-2", "duration": 12.345678901}
        said = {"status": "completed", "progress": 100, "result": {"video_url": VIDEO}, **known}
        task = world.register(processing(), Said(8, said), webhooks=[HOOK], metadata={"order": "4711"})
        world.run(30)
        request = world.store.request(task)
        assert request is not None
        (message,) = world.messages(task)
        assert message.body == event_body(world.task(task), request, "task.completed")

    def test_is_found_by_reading_where_the_table_does_not_answer_at_once(self) -> None:
        world = Deployment()
        task = world.register(succeeded(), webhooks=[HOOK])
        world.table.batch_get_item = broken  # type: ignore[method-assign]
        world.run(20)
        assert len(world.messages(task)) == 1

    def test_has_no_short_cut_for_an_event_of_another_version(self) -> None:
        world = Deployment()
        task = world.register(succeeded(), webhooks=[HOOK])
        world.loses = [NOTIFIER]
        world.run(5)
        (event,) = [event for name, event in world.invocations if name == NOTIFIER]
        for version in (1, 99, "2", True, None):
            world.world.spawn(lambda version=version: world._notify({**event, "version": version}))  # type: ignore[misc]
        world.run(20)
        assert world.task(task).status is Status.COMPLETED
        assert len(world.archive.sources) == len(world.messages(task)) == 1


def broken(**call: Any) -> Any:
    raise ConnectTimeoutError(endpoint_url="https://dynamodb")


class TestADelivery:
    def test_that_fails_once_is_repeated_in_the_same_invocation(self) -> None:
        world = Deployment()
        world.receivers.answers[HOOK] = [DOWN, Answer(204)]
        task = world.register(succeeded(), webhooks=[HOOK])
        world.run(20)
        first, second = world.messages(task)
        assert (first.message_id, first.body) == (second.message_id, second.body)
        assert second.at_s - first.at_s == pytest.approx(5, abs=0.5)
        assert attempts(world, task) == [(1, 503), (2, 204)]
        assert not world.store.endpoint_health("default", endpoint_id(HOOK)).failing

    def test_follows_its_schedule_to_the_end_and_is_then_exhausted(self) -> None:
        world = Deployment()
        world.receivers.answers[HOOK] = [DOWN]
        task = world.register(succeeded(), webhooks=[HOOK])
        world.tick_every_minute(until_s=80 * HOUR)
        world.run(80 * HOUR)
        (delivery,) = world.store.deliveries(task)
        assert delivery.state is DeliveryState.EXHAUSTED
        at = [one.at_s for one in world.messages(task)]
        waited = [later - earlier for earlier, later in pairwise(at)]
        planned = [5, 300, 1800, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR]
        for found, wanted in zip(waited, planned, strict=True):
            assert wanted - 1 <= found <= wanted + 75, "never before its time, and within a tick after it"
        assert world.counts["DeliveryExhausted"] == 1
        listed = [item for item in world.table.items() if item.get("list_pk", {}).get("S", "").startswith("FAILED#")]
        assert [item["list_pk"]["S"] for item in listed] == [f"FAILED#{delivery.endpoint_id}"], "recover finds it there"

    def test_to_two_endpoints_has_tries_of_its_own_for_each(self) -> None:
        world = Deployment()
        world.receivers.answers[OTHER] = [DOWN]
        task = world.register(succeeded(), webhooks=[HOOK, OTHER])
        world.run(60)
        states = {one.url: (one.state, one.tries) for one in world.store.deliveries(task)}
        assert states == {HOOK: (DeliveryState.DELIVERED, 1), OTHER: (DeliveryState.PENDING, 2)}

    def test_refused_by_the_address_rule_is_not_repeated(self) -> None:
        world = Deployment()
        world.receivers.answers[HOOK] = [Answer(None, "address_refused", refused=True)]
        task = world.register(succeeded(), webhooks=[HOOK])
        world.tick_every_minute(until_s=600)
        world.run(600)
        (delivery,) = world.store.deliveries(task)
        assert (delivery.state, delivery.last_error, delivery.tries) == (DeliveryState.REFUSED, "address_refused", 1)

    def test_that_is_gone_ends(self) -> None:
        world = Deployment()
        world.receivers.answers[HOOK] = [Answer(410)]
        task = world.register(succeeded(), webhooks=[HOOK])
        world.tick_every_minute(until_s=600)
        world.run(600)
        assert world.store.deliveries(task)[0].state is DeliveryState.GONE
        assert len(world.messages(task)) == 1

    def test_is_delayed_by_a_hint(self) -> None:
        world = Deployment()
        world.receivers.answers[HOOK] = [Answer(429, retry_after_s=90), Answer(204)]
        task = world.register(succeeded(), webhooks=[HOOK])
        world.tick_every_minute(until_s=300)
        world.run(300)
        first, second = world.messages(task)
        assert 90 <= second.at_s - first.at_s <= 165

    def test_whose_attempt_was_interrupted_counts_it_as_failed(self) -> None:
        world = Deployment()
        task = world.register(succeeded(), webhooks=[HOOK])
        world.receivers.latency_s = 10
        world.run(3)
        (pending,) = world.store.deliveries(task)
        assert pending.token is not None, "the attempt is on its way; now its process dies"
        world.world._events.clear()
        world.receivers.latency_s = 0.1
        world.tick_every_minute(until_s=600, first_s=65)
        world.run(600)
        assert world.store.deliveries(task)[0].state is DeliveryState.DELIVERED
        assert [one.error for one in world.store.attempts(task)] == ["interrupted", None]

    def test_to_a_failing_endpoint_is_left_to_the_poller(self) -> None:
        world = Deployment()
        world.receivers.answers[HOOK] = [DOWN]
        first = world.register(succeeded(), webhooks=[HOOK])
        world.tick_every_minute(until_s=600)
        world.run(30)
        second = world.register(succeeded(), webhooks=[HOOK], at_s=31)
        world.run(60)
        assert len(world.messages(first)) == 2
        assert world.messages(second) == []
        world.receivers.answers[HOOK] = [Answer(204)]
        world.run(600)
        assert world.store.deliveries(second)[0].state is DeliveryState.DELIVERED
        assert world.store.deliveries(first)[0].state is DeliveryState.DELIVERED

    def test_to_a_dead_endpoint_is_sent_by_five_and_stops_at_a_failure(self) -> None:
        world = Deployment()
        keys = self.waiting(world, 30)
        world.receivers.answers[HOOK] = [DOWN]
        world.invoke(NOTIFIER, {"items": keys})
        world.run(90)
        assert len(world.receivers.received) == 5
        assert world.receivers.most_at_once == 5

    def test_to_an_endpoint_that_is_well_again_is_sent_with_all_others_by_five(self) -> None:
        world = Deployment()
        keys = self.waiting(world, 30)
        world.invoke(NOTIFIER, {"items": keys})
        world.run(90)
        assert len({one.message_id for one in world.receivers.received}) == 30
        assert world.receivers.most_at_once == 5
        (state,) = {one["state"]["S"] for one in world.table.items() if one["sk"]["S"].startswith("DELIVERY#")}
        assert state == "delivered"

    def test_that_fails_among_good_ones_stops_those_after_its_five(self) -> None:
        world = Deployment()
        keys = self.waiting(world, 30)
        world.receivers.answers[HOOK] = [Answer(204)] * 7 + [DOWN]
        world.invoke(NOTIFIER, {"items": keys})
        world.run(90)
        assert len(world.receivers.received) == 10

    def waiting(self, world: Deployment, number: int) -> list[dict[str, str]]:
        """The keys of deliveries that are due after a minute, as nobody has told the notifier of them."""
        tasks = [world.register(succeeded(), webhooks=[HOOK], at_s=0.01 * one) for one in range(number)]
        world.archive.copy_s = 0.01
        endpoint = endpoint_id(HOOK)
        world.receivers.answers[HOOK] = [DOWN]
        failing = EndpointHealth(failing_since=START)
        world.store.note_endpoint_health(
            "default", endpoint, HEALTHY, failing, "test"
        )  # so that nothing is sent at once
        world.run(3)
        world.kill_everything()  # the poller must not tell of them either
        world.run(80)
        assert world.receivers.received == []
        world.receivers.answers.clear()
        return [{"pk": f"TASK#{task}", "sk": f"DELIVERY#task.completed#{endpoint}"} for task in tasks]

    def test_of_a_good_endpoint_beside_a_dead_one_is_not_delayed(self) -> None:
        world = Deployment()
        world.receivers.answers[OTHER] = [DOWN]
        world.receivers.latency_s = 2
        good, done_at = [], []
        for number in range(40):
            world.register(succeeded(), webhooks=[OTHER], at_s=number)
            good.append(world.register(succeeded(), webhooks=[HOOK], at_s=number))
        world.tick_every_minute(until_s=200)
        world.run(200)
        for number, task in enumerate(good):
            done_at.append(world.messages(task)[0].at_s - number)
        assert max(done_at) <= 15


class TestProcessing:
    def test_undelivered_does_not_stop_the_polling(self) -> None:
        world = Deployment()
        world.receivers.answers[HOOK] = [DOWN]
        events = ["task.processing", "task.completed"]
        task = world.register(processing(), succeeded(from_s=40), webhooks=[HOOK], events=events)
        world.tick_every_minute(until_s=100)
        world.run(100)
        done = world.task(task)
        assert (done.status, done.step) == (Status.COMPLETED, None)
        assert {one.event for one in world.store.deliveries(task)} == {"task.processing", "task.completed"}

    def test_says_the_same_whenever_it_is_sent(self) -> None:
        world = Deployment()
        world.receivers.answers[HOOK] = [DOWN, DOWN, Answer(204)]
        events = ["task.processing"]
        task = world.register(processing(), processing(20, 60), succeeded(from_s=40), webhooks=[HOOK], events=events)
        world.tick_every_minute(until_s=500)
        world.run(500)
        bodies = {one.body for one in world.messages(task)}
        assert len(world.messages(task)) == 3
        assert len(bodies) == 1
        assert world.messages(task)[0].data["data"]["status"] == "PROCESSING"


class TestADeletedTask:
    def test_deleted_while_its_file_is_copied_leaves_nothing_and_tells_nobody(self) -> None:
        world = Deployment()
        world.archive.copy_s = 30
        task = world.register(succeeded(), webhooks=[HOOK])
        world.delete(task, at_s=10)
        world.tick_every_minute(until_s=300)
        world.run(9)
        assert world.task(task).status is Status.COPYING
        with pytest.raises(ConflictError, match="COPYING"):
            delete_now(world, task)
        world.run(69)
        assert world.task(task).deleted, "an old claim may still write"
        world.run(300)
        assert remains(world) == []
        assert world.receivers.received == []

    def test_deleted_with_an_upload_open_leaves_none(self) -> None:
        world = Deployment()
        world.archive.uploads = ["u-1"]
        world.archive.copy_s = 30
        task = world.register(succeeded(), webhooks=[HOOK])
        world.delete(task, at_s=10)
        world.tick_every_minute(until_s=300)
        world.run(11)
        assert world.archive.open == {"u-1": f"default/{task}/1.mp4"}
        world.run(300)
        assert remains(world) == []

    def test_deleted_between_two_tries_of_a_copy_leaves_the_upload_of_neither(self) -> None:
        world = Deployment()
        world.archive.uploads = ["u-1"]
        world.archive.faults["1"] = [CopyError("broke off")] * 9
        task = world.register(succeeded())
        world.delete(task, at_s=20)
        world.tick_every_minute(until_s=300)
        world.run(300)
        assert len(world.archive.begun_s) == 2
        assert remains(world) == []

    def test_whose_copy_writes_after_the_clean_up_is_removed_all_the_same(self) -> None:
        world = Deployment()
        world.archive.hangs_s = 200  # nobody looks at the time meanwhile
        task = world.register(succeeded(), webhooks=[HOOK])
        world.delete(task, at_s=10)
        world.tick_every_minute(until_s=600)
        world.run(190)
        assert world.store.task(task) is None, "the clean-up has come before the object"
        world.run(600)
        assert world.archive.begun_s
        assert remains(world) == []

    def test_whose_copy_writes_before_the_clean_up_is_removed(self) -> None:
        world = Deployment()
        world.archive.hangs_s = 20
        task = world.register(succeeded())
        world.delete(task, at_s=10)
        world.run(60)
        assert world.archive.objects == {}, "the holder finds the task deleted, and withdraws"
        world.tick_every_minute(until_s=300, first_s=61)
        world.run(300)
        assert remains(world) == []

    def test_deleted_during_an_attempt_is_told_of_at_most_once_more(self) -> None:
        world = Deployment()
        world.receivers.latency_s = 10
        world.receivers.answers[HOOK] = [DOWN]
        task = world.register(succeeded(), webhooks=[HOOK, OTHER])
        world.delete(task, at_s=5)
        world.tick_every_minute(until_s=1000)
        world.run(4)
        assert all(one.token for one in world.store.deliveries(task)), "both attempts are on their way"
        with pytest.raises(ConflictError, match="webhook"):
            delete_now(world, task)
        world.run(20)
        assert len(world.receivers.received) == 2
        assert world.store.attempts(task) == (), "nobody will ask for their records"
        assert world.store.deliveries(task) == ()
        world.run(1000)
        assert sorted(one.url for one in world.messages(task)) == [HOOK, OTHER]
        assert remains(world) == []

    def test_deleted_between_two_attempts_gets_no_other(self) -> None:
        world = Deployment()
        world.receivers.answers[HOOK] = [DOWN]
        task = world.register(succeeded(), webhooks=[HOOK])
        world.delete(task, at_s=100)
        world.tick_every_minute(until_s=HOUR)
        world.run(HOUR)
        assert len(world.messages(task)) == 2
        assert remains(world) == []

    def test_deleted_at_its_provider_is_watched_no_more_and_can_be_registered_anew(self) -> None:
        world = Deployment()
        task = world.register(processing(), webhooks=[HOOK])
        world.tick_every_minute(until_s=400)
        world.run(20)
        with pytest.raises(ConflictError, match="PROCESSING"):
            delete_now(world, task)
        render = TaskRequest(connection="studio", provider_task_id=world.task(task).provider_task_id)
        delete_now(world, task, force=True)
        world.run(200)
        asked = world.provider.polls["p1"]
        assert asked[-1] < 40, "a poller that held it has seen that it is deleted"
        assert remains(world) == []
        assert world.receivers.received == []
        fresh = f"tsk_{9:026d}"
        again = world.tasks(lambda: fresh).register_task(render, owner="default", base_url="https://api.example.com")
        assert again.created
        world.run(230)
        assert world.task(fresh).status is Status.PROCESSING

    def test_deleted_while_queued_before_any_poll_leaves_nothing(self) -> None:
        world = Deployment()
        world.wakes = False
        task = world.register(succeeded(), webhooks=[HOOK])
        world.delete(task, at_s=1)
        world.tick_every_minute(until_s=300)
        world.run(300)
        assert world.provider.polls["p1"] == []
        assert remains(world) == []

    def test_deleted_during_a_poll_is_not_brought_back_by_its_answer(self) -> None:
        world = Deployment()
        task = world.register(succeeded(latency_s=5), webhooks=[HOOK])
        world.delete(task, at_s=2)
        world.tick_every_minute(until_s=300)
        world.run(3)
        assert len(world.provider.polls["p1"]) == 1
        world.run(300)
        assert world.archive.begun_s == []
        assert remains(world) == []

    def test_that_has_ended_and_been_told_of_needs_no_force(self) -> None:
        world = Deployment()
        task = world.register(succeeded(), webhooks=[HOOK])
        world.run(10)
        assert world.archive.objects
        assert attempts(world, task) == [(1, 204)]
        delete_now(world, task)
        world.tick_every_minute(until_s=300, first_s=15)
        world.run(300)
        assert remains(world) == []
        assert len(world.messages(task)) == 1

    def test_deleted_twice_is_not_found_the_second_time(self) -> None:
        world = Deployment()
        task = world.register(succeeded())
        world.run(10)
        delete_now(world, task, force=True)
        for force in (False, True):
            with pytest.raises(NotFoundError):
                delete_now(world, task, force=force)
        world.tick_every_minute(until_s=300, first_s=15)
        world.run(300)
        with pytest.raises(NotFoundError):
            delete_now(world, task)
        assert remains(world) == []

    def test_deleted_while_an_earlier_clean_up_runs_is_removed_by_one_of_its_own(self) -> None:
        world = Deployment()
        world.archive.copy_s = 30
        world.archive.clean_s = 25
        task = world.register(succeeded())
        world.cancel(task, at_s=10)
        world.tick_every_minute(until_s=600)
        world.run(80)
        work = world.store.work(task)
        assert work is not None
        assert work.token is not None, "the clean-up of the cancelled copy runs"
        delete_now(world, task)
        world.run(130)
        assert world.task(task).deleted
        world.run(600)
        assert remains(world) == []
        assert len(world.archive.cleaned) == 2 + 1, "one of the lost holder's copy, one of each clean-up"

    def test_whose_clean_up_dies_is_removed_by_the_next(self) -> None:
        world = Deployment()
        task = world.register(succeeded())
        world.run(10)
        delete_now(world, task)
        world.archive.clean_s = 25
        world.tick_at(75)
        world.run(85)
        assert world.task(task).deleted
        world.kill_everything()
        world.archive.clean_s = 0
        world.tick_every_minute(until_s=600, first_s=95)
        world.run(600)
        assert remains(world) == []

    def test_whose_clean_up_fails_is_tried_again_later(self) -> None:
        world = Deployment()
        world.archive.clean_faults = [CopyError("S3 is down")] * 3
        task = world.register(succeeded())
        world.run(10)
        delete_now(world, task)
        world.tick_every_minute(until_s=1200, first_s=15)
        world.run(120)
        assert world.task(task).deleted, "its files are still there"
        world.run(1200)
        assert remains(world) == []

    def test_whose_clean_up_is_told_early_twice_and_late_is_removed_once_its_time_has_come(self) -> None:
        world = Deployment()
        task = world.register(succeeded())
        world.run(10)
        delete_now(world, task)
        event = {"pk": f"TASK#{task}", "sk": "TASK"}
        world.invoke(NOTIFIER, event)
        world.run(60)
        assert world.archive.cleaned == []
        world.run(71)
        world.archive.clean_s = 5
        for _ in range(2):
            world.invoke(NOTIFIER, event)
        world.run(80)
        assert remains(world) == []
        assert len(world.archive.cleaned) == 1
        world.invoke(NOTIFIER, event)
        world.run(90)
        assert remains(world) == []

    def test_that_is_shown_late_by_the_index_leaves_nothing_either(self) -> None:
        world = Deployment(index_lag_s=2)
        world.archive.copy_s = 30
        tasks = [world.register(succeeded(), webhooks=[HOOK], at_s=n) for n in range(4)]
        for n, task in enumerate(tasks):
            world.delete(task, at_s=8 + n)
        world.tick_every_minute(until_s=300)
        world.run(300)
        assert remains(world) == []
        assert world.receivers.received == []

    def test_leaves_its_neighbours_alone(self) -> None:
        world = Deployment()
        first = world.register(succeeded(), webhooks=[HOOK])
        second = world.register(succeeded(), webhooks=[HOOK])
        world.run(10)
        kept = [item for item in world.table.items() if item["pk"]["S"] == f"TASK#{second}"]
        delete_now(world, first)
        world.tick_every_minute(until_s=300, first_s=15)
        world.run(300)
        left = [item for item in world.table.items() if item["pk"]["S"].startswith("TASK#")]
        assert left == kept
        assert list(world.archive.objects) == [f"default/{second}/1.mp4"]


def test_an_event_of_another_shape_is_refused() -> None:
    notifier = Deployment().notifier()
    events: list[dict[str, object]] = [
        {},
        {"items": []},
        {"items": [{"pk": "TASK#1"}]},
        {"pk": 1, "sk": 2},
        {"items": ["x"]},
    ]
    for event in events:
        with pytest.raises(ValueError, match="event names"):
            notifier.handle(event, lambda: 300)
