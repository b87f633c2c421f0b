"""A task that breaks whoever handles it: it blocks no other, backs off, shows its error, and ends."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from renderbell.errors import CopyError, ProviderUnavailable
from renderbell.notify import INTERRUPTED
from renderbell.poll import MAX_SUSPECTS
from renderbell.providers.base import Connection, HttpRequest, HttpResponse
from renderbell.store import Lease, Served, task_key
from renderbell.task import POLL_INTERRUPTED, PollError, Status, Task
from tests.deployment import NOTIFIER, Deployment, Said, failed, processing, succeeded
from tests.fake_source import FakeFile, video_bytes
from tests.universe import Call, Trouble, Universe, When
from tests.virtual import START, DiedError

HOOK = "https://example.com/hook"


def spoil(world: Deployment, key: dict[str, str], **attributes: Any) -> None:
    """Overwrites attributes of an item, in wire form, behind the store's back."""
    (item,) = [one for one in world.table.items() if one["pk"]["S"] == key["pk"] and one["sk"]["S"] == key["sk"]]
    world.table.put_item(TableName="table", Item=item | attributes)


class TestACopyWhoseProcessDiesEveryTime:
    @staticmethod
    def world() -> Universe:
        def dies(call: Call) -> Trouble | None:
            return Trouble(When.BEFORE) if call.service == "s3" and call.operation == "put_object" else None

        world = Universe(plan=dies)
        world.sources.files["https://cdn.example.com/video.mp4?signature=s"] = FakeFile(video_bytes(500))
        return world

    def test_backs_off_shows_it_and_ends_as_its_schedule_ends(self) -> None:
        world = self.world()
        task = world.register(succeeded(), webhooks=[HOOK])
        shown: list[PollError | None] = []

        def watch(key: tuple[str, str], *_: object) -> None:
            if key[1] == "TASK":
                shown.append(world.task(task).last_poll_error)

        world.table.watchers.append(watch)
        world.tick_while_due()
        world.run_to_the_end()
        ended = world.task(task)
        assert ended.error is not None
        assert (ended.status, ended.error.code, ended.error.message) == (Status.FAILED, "copy_failed", INTERRUPTED)
        assert [one.data["type"] for one in world.messages(task)] == ["task.failed"]
        assert any(one is not None and (one.kind, one.message) == ("copy", INTERRUPTED) for one in shown)
        puts = [call.at_s for call in world.boundaries.calls if call.operation == "put_object"]
        assert len(puts) == 10
        assert puts[-1] - puts[-2] > 8 * 3600, "the last try comes eight hours after the one before"
        assert world.counts["CopyFailed"] == 1

    def test_delays_no_other_task(self) -> None:
        world = self.world()
        world.register(succeeded())
        other = world.register(processing(), at_s=1)
        world.tick_at(30)
        world.run(90)
        polls = world.polls(other)
        assert len(polls) >= 8
        assert max(after - before for before, after in pairwise(polls)) < 11


class TestAPollWhoseProcessDiesEveryTime:
    @staticmethod
    def world() -> tuple[Universe, list[float]]:
        """A world in which asking the connection `deadly` ends the process, and when it was asked."""
        world = Universe(slots=1, latency=lambda: 0.01)
        world.connect("deadly")
        world.connect("sound", poll_interval_s=30)
        fetch = world.provider.fetch
        deaths: list[float] = []

        def killing(connection: Connection, request: HttpRequest, timeout_s: float) -> HttpResponse:
            process = world.world.process
            if connection.name != "deadly" or process is None:
                return fetch(connection, request, timeout_s)
            deaths.append(world.now_s)
            world.world.sleep(0.2)
            world.world.kill(process)
            raise DiedError

        world.provider.fetch = killing  # type: ignore[method-assign]
        return world, deaths

    def test_delays_the_others_for_minutes_only_and_ends_at_its_deadline(self) -> None:
        world, deaths = self.world()
        deadly = world.register(processing(), connection="deadly", deadline_s=3600, webhooks=[HOOK])
        others = [
            world.register(
                processing(latency_s=0.5), failed(from_s=2400), connection="sound", webhooks=[HOOK], at_s=at_s
            )
            for at_s in range(40)
        ]
        world.tick_while_due()
        world.run(3000)
        shown = world.task(deadly).last_poll_error
        world.run(4000)
        assert shown is not None
        assert (shown.kind, shown.message) == ("interrupted", POLL_INTERRUPTED)
        assert world.task(deadly).status is Status.EXPIRED
        assert [one.data["type"] for one in world.messages(deadly)] == ["task.expired"]
        gaps = [(later - earlier, later) for task in others for earlier, later in pairwise(world.polls(task))]
        assert max(gap for gap, _ in gaps) < 180
        assert max(gap for gap, later in gaps if later > 330) < 33, "as if there were no such task"
        assert {world.task(task).status for task in others} == {Status.FAILED}
        assert len(deaths) <= 12
        assert deaths[-2] - deaths[-3] > 600, "it is put off on the copy's schedule"
        assert world.flushed["PollInterrupted"] >= 3, "and counted before the process dies of it"

    def test_leaves_no_mark_on_those_that_were_suspected_with_it(self) -> None:
        world, _ = self.world()
        world.register(processing(), connection="deadly", deadline_s=1200)
        other = world.register(processing(latency_s=0.5), connection="sound")
        seen: list[Task] = []

        def watch(key: tuple[str, str], *_: object) -> None:
            if key == (f"TASK#{other}", "TASK"):
                seen.append(world.task(other))

        world.table.watchers.append(watch)
        world.tick_while_due()
        world.run(600)
        assert any(task.apart for task in seen), "it was asked apart"
        assert not world.task(other).apart
        assert world.task(other).last_poll_error is None
        lease = world.store_of_tests.lease(0)
        assert lease is not None
        assert lease.suspects == {}

    def test_of_three_does_not_stop_the_others(self) -> None:
        world, _ = self.world()
        for _ in range(3):
            world.register(processing(), connection="deadly", deadline_s=3600)
        other = world.register(processing(latency_s=0.5), connection="sound")
        world.tick_while_due()
        world.run(3000)
        polls = world.polls(other)
        gaps = [(later - earlier, later) for earlier, later in pairwise(polls)]
        assert max(gap for gap, later in gaps if later > 400) < 33

    def test_does_not_leave_an_innocent_of_a_connection_that_was_down_behind(self) -> None:
        world, _ = self.world()
        down = Said(0, ProviderUnavailable("time-out", retry_after=5), latency_s=9.9)
        innocent = world.register(down, succeeded(from_s=600), connection="sound", deadline_s=7200)
        world.register(processing(), connection="deadly", at_s=20, deadline_s=7200)
        world.tick_while_due()
        world.run(1200)
        assert world.task(innocent).status in {Status.COPYING, Status.COMPLETED}

    def test_is_among_those_that_the_lease_names_however_many_are_asked(self) -> None:
        world, deaths = self.world()
        others = [world.register(processing(latency_s=0.5), connection="sound") for _ in range(350)]
        world.register(processing(), connection="deadly", deadline_s=3600)
        world.tick_while_due()
        world.run(1500)
        gaps = [(later - earlier, later) for task in others for earlier, later in pairwise(world.polls(task))]
        assert max(gap for gap, later in gaps if later > 600) < 33
        assert len(deaths) <= 9


def test_suspects_who_fill_the_lease_are_asked_before_anybody_else() -> None:
    world = Deployment()
    world.wakes = False
    tasks = [world.register(processing()) for _ in range(MAX_SUSPECTS + 5)]
    world.run(1)
    died = Lease(0, "dead", START, relief=False, served=Served(START), workers=1, slots=4, deaths=5)
    world.store.take_lease(died._replace(suspects=dict.fromkeys(tasks[:MAX_SUSPECTS], 1)), seen=None)
    world.tick_at(20)
    world.run(21)
    lease = world.store.lease(0)
    assert lease is not None
    assert (lease.left, len(lease.suspects)) == (True, MAX_SUSPECTS)
    assert all(world.polls(task) == [] for task in tasks[MAX_SUSPECTS:])
    world.tick_every_minute(until_s=300, first_s=80)
    world.run(300)
    assert all(world.polls(task) for task in tasks)


def test_a_dead_connection_is_not_asked_for_each_of_its_suspects() -> None:
    world = Deployment()
    world.wakes = False
    dead = Said(0, ProviderUnavailable("429", retry_after=3600))
    tasks = [world.register(dead) for _ in range(30)]
    world.run(1)
    died = Lease(0, "dead", START, relief=False, served=Served(START), workers=1, slots=4, deaths=2)
    world.store.take_lease(died._replace(suspects=dict.fromkeys(tasks, 1)), seen=None)
    world.tick_at(20)
    world.run(40)
    assert sum(len(world.polls(task)) for task in tasks) == 4, "one group of thirty in eight"
    health = world.store.connection_health("studio")
    assert health is not None
    assert health.retry_at > START + timedelta(seconds=3600)
    world.tick_at(80)
    world.run(100)
    assert sum(len(world.polls(task)) for task in tasks) == 4, "its back-off holds for suspects too"
    assert world.counts["PollInterrupted"] == 0


def test_what_a_suspect_was_answered_but_cannot_be_stored_is_no_death() -> None:
    world = Deployment()
    world.wakes = False
    task = world.register(processing())
    world.run(1)
    died = Lease(0, "dead", START, False, Served(START), 1, 4, deaths=2, suspects={task: 1})
    world.store.take_lease(died, seen=None)
    save, refused = world.store.save, [True]

    def once_refused(before: Task, after: Task, *more: Any, **options: Any) -> Task:
        if after.status is Status.PROCESSING and refused.pop():
            raise RuntimeError("throttled for long")
        return save(before, after, *more, **options)

    world.store.save = once_refused  # type: ignore[method-assign]
    world.tick_at(20)
    world.run(40)
    assert world.counts["PollNotKept"] == 1
    assert not world.task(task).apart
    assert world.counts["PollInterrupted"] == 0


def test_a_suspect_that_there_was_no_time_to_ask_is_no_death() -> None:
    world = Deployment()
    world.wakes = False
    world.connect("often", poll_interval_s=3)
    suspect, _ = world.register(processing()), world.register(processing(), connection="often")
    world.run(1)
    died = Lease(0, "dead", START, False, Served(START), 1, 4, suspects={suspect: 1})
    world.store.take_lease(died, seen=None)
    save = world.store.save

    def slow(before: Task, after: Task, *more: Any, **options: Any) -> Task:
        if after.apart:
            world.world.sleep(12)
        return save(before, after, *more, **options)

    world.store.save = slow  # type: ignore[method-assign]
    world.tick_at(5)
    world.tick_at(160)  # asks for relief some 17 s before the first one's last poll must have ended
    world.run(182)
    assert not world.task(suspect).apart, "it goes on among the others"
    assert world.task(suspect).last_poll_error is None


@pytest.mark.parametrize("attribute", ["expires_at", "created_at"])
def test_a_task_with_an_absurd_time_is_left_out(attribute: str) -> None:
    world = Deployment()
    poison, other = world.register(processing()), world.register(processing())
    world.run(3)
    spoil(world, task_key(poison), **{attribute: {"S": "9999-12-31T23:59:59.999999Z"}})
    world.tick_every_minute(until_s=120)
    world.run(120)
    assert max(later - earlier for earlier, later in pairwise(world.polls(other))) < 16
    assert world.counts["UnreadableItem"] >= 1


def test_a_copy_that_cannot_be_noted_as_done_is_put_off_at_once_and_shows_why() -> None:
    world = Deployment()
    task = world.register(succeeded())
    save = world.store.save

    def refused(before: Task, after: Task, *more: Any, **options: Any) -> Task:
        if after.status is Status.COMPLETED:
            raise RuntimeError("the item is too large")
        return save(before, after, *more, **options)

    world.store.save = refused  # type: ignore[method-assign]
    world.run(15)
    kept = world.task(task)
    assert kept.last_poll_error is not None
    assert (kept.status, kept.last_poll_error.message) == (Status.COPYING, "internal error: RuntimeError")


def test_a_task_whose_request_cannot_be_read_still_ends() -> None:
    world = Deployment()
    task = world.register(processing(), succeeded(20), webhooks=[HOOK])
    world.run(5)
    spoil(world, {"pk": f"TASK#{task}", "sk": "REQUEST"}, created_at={"S": "once"})
    world.tick_every_minute(until_s=60)
    world.run(90)
    assert world.task(task).status is Status.COMPLETED
    assert world.receivers.received == []


def test_a_wake_up_for_a_task_that_cannot_be_read_serves_the_others() -> None:
    world = Deployment()
    world.wakes = False
    poison, other = world.register(processing()), world.register(processing())
    world.run(1)
    spoil(world, task_key(poison), status={"S": "NONSENSE"})
    world.wakes = True
    world.invoke("poller", {"worker": 0, "task_id": poison})
    world.run(30)
    assert len(world.polls(other)) >= 2
    assert world.counts["UnreadableItem"] == 1


def test_a_poll_that_our_code_breaks_on_shows_it_until_its_task_expires() -> None:
    world = Deployment()
    broken = Said(0, TypeError("'NoneType' object is not subscriptable"))
    poison, other = world.register(broken, deadline_s=120, webhooks=[HOOK]), world.register(processing())
    world.tick_every_minute(until_s=240)
    world.run(60)
    shown = world.task(poison).last_poll_error
    assert shown is not None
    assert (shown.kind, shown.message) == ("internal", "internal error: TypeError")
    world.run(240)
    ended = world.task(poison)
    assert (ended.status, ended.last_poll_error) == (Status.EXPIRED, shown)
    assert [one.data["type"] for one in world.messages(poison)] == ["task.expired"]
    polls = world.polls(other)
    assert world.task(other).status is Status.PROCESSING
    assert max(after - before for before, after in pairwise(polls)) < 11, "the connection does not back off"
    assert world.counts["ProviderProtocolError"] == len(world.polls(poison)) >= 8
    assert world.counts["PollNotKept"] == 0


def test_a_poll_that_our_code_breaks_on_ends_no_back_off() -> None:
    world = Deployment()
    world.register(Said(0, 503))
    poison = world.register(Said(0, TypeError()), at_s=600)
    world.tick_every_minute(until_s=1500)
    world.run(600)
    before = world.store.connection_health("studio")
    world.run(1500)
    after = world.store.connection_health("studio")
    assert before is not None
    assert after is not None
    assert after.since == before.since
    assert len(world.polls(poison)) >= 2


def test_a_poll_whose_word_cannot_be_stored_is_counted_and_delays_no_other() -> None:
    world = Deployment()
    poison, other = world.register(processing()), world.register(processing())
    save = world.store.save

    def refused(before: Task, after: Task, *more: Any, **options: Any) -> Task:
        if before.task_id == poison:
            raise RuntimeError("the item is too large")
        return save(before, after, *more, **options)

    world.store.save = refused  # type: ignore[method-assign]
    world.tick_at(30)
    world.run(60)
    assert world.task(other).status is Status.PROCESSING
    assert world.counts["PollNotKept"] == len(world.polls(poison)) >= 3


def test_a_clean_up_that_fails_is_counted() -> None:
    world = Deployment()
    world.archive.copy_s = 30
    world.archive.clean_faults = [CopyError("access denied")] * 3  # the first at the copy's own end
    task = world.register(succeeded())
    world.cancel(task, at_s=5)
    world.tick_every_minute(until_s=400)
    world.run(400)
    assert [name for name, _ in world.invocations].count(NOTIFIER) >= 3
    assert world.counts["CleanUpFailed"] == 2
    assert world.task(task).step is None
