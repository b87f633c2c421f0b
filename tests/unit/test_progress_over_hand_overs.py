"""Progress over many pollers: each change is one write, a hand-over is none, and nothing is ever taken back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renderbell.agenda import Group
from renderbell.errors import ProviderTaskNotFound
from renderbell.items import parse_time
from renderbell.jobs import Jobs
from renderbell.progress import NO_NOTES, ProgressNotes, noted
from renderbell.providers import Connection, HttpResponse, Observation, ProviderState
from renderbell.store import DUE_PROJECTION, Store
from renderbell.task import PROGRESS_EVERY_S, Request, Status, Task, advance, cancel
from renderbell.transition import change_task
from tests.deployment import Deployment, Said, in_process_table, processing
from tests.dynamodb import Item
from tests.fakes import FakeClock, FakeConnections, FakeIds, FakeProvider
from tests.unit.test_batches import deployment as listing_deployment
from tests.unit.test_batches import running
from tests.unit.test_progress import from_the_index, known
from tests.unit.test_task import BORN, a_task, at
from tests.virtual import START

NOTES = ("WORKER#0", "PROGRESS")


@dataclass
class Seen:
    """What is written of tasks and noted of them, and which tasks are read."""

    written: Counter[str] = field(default_factory=Counter)
    stored: list[tuple[str, int, float]] = field(default_factory=list)  # whose progress, how much, and when
    notes: list[float] = field(default_factory=list)
    read: Counter[str] = field(default_factory=Counter)

    def clear(self) -> None:
        for one in (self.written, self.stored, self.notes, self.read):
            one.clear()


def watch(world: Deployment) -> Seen:
    seen, read = Seen(), world.store.task

    def wrote(key: tuple[str, str], old: Item | None, new: Item | None) -> None:
        if key == NOTES:
            seen.notes.append(world.now_s)
        if key[1] == "TASK" and old is not None and new is not None:
            seen.written[key[0]] += 1
            if old.get("progress_at") != new.get("progress_at"):
                at_s = (parse_time(new["progress_at"]["S"]) - START).total_seconds()
                seen.stored.append((key[0], int(new["progress"]["N"]), at_s))

    def task(task_id: str) -> Task | None:
        seen.read[task_id] += 1
        return read(task_id)

    world.table.watchers.append(wrote)
    world.store.task = task  # type: ignore[method-assign]
    return seen


def told(every_s: float, until_s: float) -> list[Said]:
    """A provider that tells of one per cent more every so many seconds."""
    return [processing(every_s * n, progress=n) for n in range(int(until_s / every_s))]


def started(*scripts: Sequence[Said], lose: Callable[[Deployment], None] | None = None) -> tuple[Deployment, Seen]:
    """A world after its first minute, whose tasks have been begun; `lose` is called after it."""
    world = Deployment()
    for script in scripts:
        world.register(*script)
    world.tick_every_minute(until_s=600)
    seen = watch(world)
    world.run(60)
    if lose is not None:
        lose(world)
    seen.clear()
    return world, seen


class TestProgress:
    def test_costs_one_write_for_each_change_and_none_for_a_hand_over(self) -> None:
        world, seen = started(*[told(20, 600)] * 5)
        world.run(600)
        assert len(world.ticks) >= 9
        assert sorted(progress for whose, progress, _ in seen.stored if whose.endswith("1")) == list(range(3, 30))
        assert seen.written == Counter(whose for whose, _, _ in seen.stored)
        assert sum(seen.read.values()) == 0, "the notes said all"
        assert len(seen.notes) in {9, 10}

    def test_that_stands_still_costs_nothing_over_all_hand_overs(self) -> None:
        world, seen = started(*[[processing()]] * 5)
        world.run(600)
        assert (seen.written, seen.notes, seen.read) == (Counter(), [], Counter())

    def test_that_nobody_tells_of_is_not_noted(self) -> None:
        world, seen = started([Said(0, {"status": "processing"})])
        world.run(600)
        assert (seen.written, seen.notes, seen.read) == (Counter(), [], Counter())
        assert world.store.task_progress(0) is None

    def test_is_stored_every_15_seconds_at_most_also_over_hand_overs(self) -> None:
        world = Deployment()
        world.connect("quick", poll_interval_s=2)
        task_id = world.register(*told(6, 600), connection="quick")
        world.tick_every_minute(until_s=600)
        seen = watch(world)
        world.run(600)
        times = [at_s for _, _, at_s in seen.stored]
        assert all(later - before >= PROGRESS_EVERY_S for before, later in pairwise(times))
        assert len(times) >= 600 / (PROGRESS_EVERY_S + 5)
        assert seen.written[f"TASK#{task_id}"] == len(times)

    def test_while_a_task_waits_at_its_provider_is_stored_too(self) -> None:
        world, seen = started([Said(20.0 * n, {"status": "queued", "progress": n}) for n in range(30)])
        world.run(600)
        assert [progress for _, progress, _ in seen.stored] == list(range(3, 30))
        assert sum(seen.read.values()) == 0
        (item,) = [item for item in world.table.items() if item["sk"]["S"] == "TASK"]
        assert (item["status"]["S"], item["version"]["N"]) == (Status.QUEUED, "1")

    def test_told_by_a_list_is_kept_as_well(self) -> None:
        world, server = listing_deployment()
        for _ in range(20):
            world.register(*[running(20 * n, progress=n) for n in range(30)], connection="own")
        world.tick_every_minute(until_s=600)
        seen = watch(world)
        world.run(60)
        seen.clear()
        world.run(600)
        assert server.lists
        assert sum(seen.read.values()) == 0
        assert sum(seen.written.values()) == len(seen.stored) in range(20 * 26, 20 * 28)

    @pytest.mark.parametrize("listed", [False, True])
    def test_that_only_a_dead_holder_knew_is_read_once_and_not_written_again(self, listed: bool) -> None:
        world, connection = (listing_deployment()[0], "own") if listed else (Deployment(), "studio")
        said = [running(0), running(20, progress=40)] if listed else [processing(), processing(20, progress=40)]
        tasks = [world.register(*said, connection=connection) for _ in range(10)]
        world.run(40)
        world.kill_everything()
        seen = watch(world)
        for at_s in (120, 180, 240):
            world.tick_at(at_s)
        world.run(290)
        assert seen.read == Counter(tasks)
        assert seen.written == Counter()
        assert len(seen.notes) == 1

    @pytest.mark.parametrize("trouble", ["lost", "garbled", "unreadable"])
    def test_is_read_from_the_table_where_there_are_no_notes(self, trouble: str) -> None:
        def lose(world: Deployment) -> None:
            key, read = {"pk": {"S": NOTES[0]}, "sk": {"S": NOTES[1]}}, world.store.task_progress

            def task_progress(worker: int) -> ProgressNotes | None:
                if trouble == "unreadable":
                    raise OSError
                if trouble == "lost":
                    world.table.delete_item(TableName="table", Key=key)
                else:
                    world.table.put_item(TableName="table", Item={**key, "at": {"S": "?"}, "notes": {"B": b"12345"}})
                return read(worker)

            world.store.task_progress = task_progress  # type: ignore[method-assign]

        world, seen = started(told(20, 600), [processing()], lose=lose)
        world.run(600)
        assert [progress for _, progress, _ in seen.stored] == list(range(3, 30))
        assert sum(seen.written.values()) == 27
        assert sum(seen.read.values()) == 18, "once each by each holder"

    def test_is_no_worse_off_where_notes_cannot_be_written(self) -> None:
        def break_writing(world: Deployment) -> None:
            def keep_task_progress(worker: int, notes: ProgressNotes) -> None:
                raise OSError

            world.store.keep_task_progress = keep_task_progress  # type: ignore[method-assign]

        world, seen = started(told(20, 600), lose=break_writing)
        world.run(600)
        assert [progress for _, progress, _ in seen.stored] == list(range(3, 30))
        assert sum(seen.written.values()) == 27

    def test_is_right_again_with_the_next_change_where_notes_are_old_or_anothers(self) -> None:
        def mislead(world: Deployment) -> None:
            (task_id,) = [
                item["pk"]["S"].removeprefix("TASK#") for item in world.table.items() if item["sk"]["S"] == "TASK"
            ]
            wrong = replace(world.task(task_id), progress=1, progress_at=START)
            world.store.keep_task_progress(0, noted([wrong], world.clock(), NO_NOTES))

        world, seen = started(told(20, 600), lose=mislead)
        refused = []
        update = world.table.update_item

        def update_item(**call: Any) -> dict[str, Any]:
            try:
                return update(**call)
            except world.table.exceptions.ConditionalCheckFailedException:
                refused.append(call["Key"]["sk"]["S"])
                raise

        world.table.update_item = update_item  # type: ignore[method-assign]
        world.run(600)
        assert [progress for _, progress, _ in seen.stored] == list(range(3, 30))
        assert refused == ["TASK"]

    def test_of_a_task_that_is_gone_by_then_ends_its_polls(self) -> None:
        world = Deployment()
        task_id = world.register(processing(), processing(20, progress=40))
        world.run(40)
        world.kill_everything()
        world.tick_at(120)
        polls, read = len(world.polls(task_id)), world.store.task

        def task(task_id: str) -> Task | None:
            world.table.delete_item(TableName="table", Key={"pk": {"S": f"TASK#{task_id}"}, "sk": {"S": "TASK"}})
            return read(task_id)

        world.store.task = task  # type: ignore[method-assign]
        world.run(180)
        assert len(world.provider.polls["p1"]) == polls + 1
        assert world.counts["PollNotKept"] == 0


class TestAHoldersJobs:
    def jobs(self, store: Store, answer: object = None) -> Jobs:
        said = HttpResponse(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())
        connection = {"name": "own", "type": "moneyprinterturbo", "base_url": "https://own.example.com"}
        return Jobs(
            store=store,
            connections=FakeConnections({"own": Connection.model_validate(connection)}),
            fetch=FakeProvider(said),
            notify=lambda payload: None,
            clock=FakeClock(at(60)),
            new_token=FakeIds(),
            worker=0,
            slots=range(1),
        )

    def test_find_listed_tasks_unchanged_of_which_the_same_is_noted(self) -> None:
        names = ["a", "b", "c"]
        tasks = [from_the_index(replace(known(name), connection="own", provider_task_id=name)) for name in names]
        listed = [{"task_id": name, "state": 4, "progress": 40} for name in names]
        answer = {"status": 200, "data": {"tasks": listed, "total": 3, "page": 1, "page_size": 100}}
        jobs = self.jobs(Store(cast("Any", in_process_table("table")), "table"), answer)
        jobs.recalled.notes = noted([known("a"), known("b", progress=30)], at(1), NO_NOTES)
        found = jobs.poll_listed(Group("own", tasks, 1), 10)()
        assert [task.task_id for task in found.unchanged] == ["a"]
        assert [task.task_id for task, _ in found.changed] == ["b", "c"], "what is not known may be new"

    def test_note_the_same_once(self) -> None:
        table = in_process_table("table")
        jobs = self.jobs(Store(cast("Any", table), "table"))
        jobs.note_progress([known("a")])()
        (first,) = table.items()
        jobs.note_progress([known("a")])()
        assert table.items() == [first]
        table.delete_item(TableName="table", Key={name: first[name] for name in ("pk", "sk")})
        jobs.note_progress([known("a")])()
        assert table.items() == []
        jobs.note_progress([known("a", progress=50)])()
        assert len(table.items()) == 1


# -- whoever writes, and whatever he knew ------------------------------------------------------------------------------

READERS = 3
words = st.one_of(
    st.builds(
        Observation,
        state=st.sampled_from([ProviderState.QUEUED, ProviderState.PROCESSING]),
        progress=st.one_of(st.none(), st.integers(0, 100)),
        images=st.sampled_from([(), ("https://a/1.png",), ("https://a/1.png", "https://a/2.png")]),
        model=st.sampled_from([None, "sora"]),
    ),
    st.just(ProviderTaskNotFound("?")),
)
readings = st.sampled_from(["stored", "shown", "noted", "misled", "as before", "as before"])
steps = st.lists(
    st.tuples(st.integers(0, READERS - 1), readings, st.floats(0, 20), st.one_of(words, st.just("cancel"))),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(steps)
def test_whatever_pollers_know_progress_never_falls_and_the_index_shows_nothing_of_it(
    taken: list[tuple[int, str, float, Any]],
) -> None:
    table: Any = in_process_table("table")
    store, task, now = Store(table, "table"), a_task(), BORN
    asked = Request(
        task_id=task.task_id,
        owner=task.owner,
        created_at=BORN,
        deadline_s=3600,
        base_url="https://a",
        ttl=2_000_000_000,
    )
    store.register(task, asked)
    known, notes = [task] * READERS, NO_NOTES

    def item() -> Item:
        (found,) = [one for one in table.items() if one["sk"]["S"] == "TASK"]
        return dict(found)

    def shown() -> Task:
        stored = store.task(task.task_id)
        assert stored is not None
        return replace(stored, progress=None, progress_at=None, frames=None, progress_known=False, history=())

    for reader, reading, seconds, word in taken:
        now += timedelta(seconds=seconds)
        match reading:
            case "stored":
                known[reader] = store.task(task.task_id) or task
            case "shown":
                known[reader] = shown()
            case "noted":
                known[reader] = notes.told(shown())
            case "misled":
                known[reader] = replace(shown(), progress=int(seconds * 5), progress_at=now, progress_known=True)
        before = item()

        def clock(at: datetime = now) -> datetime:
            return at

        change = cancel if word == "cancel" else (lambda one, at, said=word: advance(one, said, at))
        changed = change_task(store, known[reader], change, clock)
        assert changed is not None
        known[reader] = changed.after
        after = item()
        assert _number(after, "progress") >= _number(before, "progress")
        view = {*DUE_PROJECTION, "slot", "due_at"}
        moved = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        assert bool(moved & view) == ("version" in moved)
        if "progress_at" in moved and "version" not in moved and "progress_at" in before:
            apart = parse_time(after["progress_at"]["S"]) - parse_time(before["progress_at"]["S"])
            assert apart.total_seconds() >= PROGRESS_EVERY_S
        notes = noted([changed.after], now, notes)


def _number(item: Item, name: str) -> int:
    return int(item[name]["N"]) if name in item else -1
