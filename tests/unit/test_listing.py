"""Listing tasks: every page of every list, over the store on a table in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from renderbell.listing import MOST_READ, Listing, TaskFilter, TaskPage
from renderbell.store import Place, Store
from renderbell.task import Request, Status, Task, cancel, delete, new_task
from tests.deployment import in_process_table
from tests.dynamodb import FakeDynamoDB
from tests.fakes import START, FakeClock, captured_log

LATER = int((START + timedelta(days=90)).timestamp())


class CountingTable:
    """A client of the table that counts the items that are read."""

    def __init__(self, table: FakeDynamoDB) -> None:
        self._table = table
        self.exceptions = table.exceptions
        self.read = 0
        self.calls = 0

    def query(self, **call: Any) -> dict[str, Any]:
        page = self._table.query(**call)
        self.read += len(page["Items"])
        self.calls += 1
        return page

    def batch_get_item(self, **call: Any) -> dict[str, Any]:
        ((_, asked),) = call["RequestItems"].items()
        assert asked["ConsistentRead"] is True
        self.read += len(asked["Keys"])
        self.calls += 1
        return self._table.batch_get_item(**call)

    def __getattr__(self, operation: str) -> Any:
        return getattr(self._table, operation)


@dataclass
class World:
    """An owner's tasks in a table, and what lists them."""

    slots: int = 4
    clock: FakeClock = field(default_factory=FakeClock)
    tasks: list[Task] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.table = in_process_table("table")
        self.client = CountingTable(self.table)
        self.store = Store(cast("Any", self.client), "table", pause=lambda seconds: None)

    def add(
        self, at_s: float = 0, *, connection: str = "studio", owner: str = "default", slot: int = 0, **told: Any
    ) -> Task:
        number = len(self.tasks)
        made_at = START + timedelta(seconds=at_s)
        task = new_task(
            task_id=f"tsk_{number:026d}",
            owner=owner,
            connection=connection,
            provider="jimmy",
            provider_task_id=f"job-{number}",
            now=made_at,
            deadline_s=3600,
            slot=slot % self.slots,
            tells_processing=False,
        )
        task = replace(task, status=told.pop("status", Status.QUEUED))
        request = Request(
            task_id=task.task_id, owner=owner, created_at=made_at, deadline_s=3600, base_url="", ttl=LATER
        )
        self.store.register(task, replace(request, **told))
        self.tasks.append(task)
        return task

    def page(
        self, wanted: TaskFilter | None = None, limit: int = 20, after: Place | None = None, owner: str = "default"
    ) -> TaskPage:
        self.client.read = 0
        listing = Listing(
            store=self.store, clock=self.clock, slots=self.slots, side_by_side=lambda jobs: [job() for job in jobs]
        )
        page = listing.list_tasks(owner, wanted or TaskFilter(), limit=limit, after=after)
        assert self.client.read <= MOST_READ
        assert len(page.records) <= limit
        return page

    def pages(self, wanted: TaskFilter | None = None, limit: int = 20) -> Iterator[list[str]]:
        """All pages, by ids."""
        page = self.page(wanted, limit)
        yield [one.task.task_id for one in page.records]
        while page.next is not None:
            page = self.page(wanted, limit, page.next)
            yield [one.task.task_id for one in page.records]

    def all(self, wanted: TaskFilter | None = None, limit: int = 20) -> list[str]:
        return [one for page in self.pages(wanted, limit) for one in page]


def newest_first(tasks: Sequence[Task]) -> list[str]:
    return [one.task_id for one in sorted(tasks, key=lambda one: (one.created_at, one.task_id), reverse=True)]


# -- every list, page by page -----------------------------------------------------------------------------------------

a_time = st.integers(0, 12).map(float)  # many share one
a_status = st.sampled_from([Status.QUEUED, Status.COMPLETED, Status.FAILED])
some_metadata = st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"), max_size=2)
a_task = st.fixed_dictionaries(
    {
        "at_s": a_time,
        "slot": st.integers(0, 6),
        "connection": st.sampled_from(["studio", "other"]),
        "owner": st.sampled_from(["default", "default", "rival"]),
        "status": a_status,
        "metadata": some_metadata,
    }
)
a_bound = st.none() | a_time.map(lambda at_s: START + timedelta(seconds=at_s))
a_filter = st.builds(
    TaskFilter,
    statuses=st.frozensets(a_status, max_size=2),
    connection=st.none() | st.sampled_from(["studio", "other"]),
    created_after=a_bound,
    created_before=a_bound,
    metadata=some_metadata,
)


def matches(task: Task, told: Mapping[str, Any], wanted: TaskFilter) -> bool:
    low, high = wanted.created_after, wanted.created_before
    return (
        task.owner == "default"
        and (not wanted.statuses or task.status in wanted.statuses)
        and (wanted.connection is None or task.connection == wanted.connection)
        and (low is None or task.created_at > low)
        and (high is None or task.created_at < high)
        and wanted.metadata.items() <= told["metadata"].items()
    )


@settings(max_examples=200)
@given(
    st.integers(1, 7),
    st.lists(a_task, max_size=40),
    a_filter,
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.lists(a_task, max_size=5),
)
def test_all_pages_together_show_what_matched_at_the_start_once_and_in_order(
    slots: int,
    told: list[dict[str, Any]],
    wanted: TaskFilter,
    limits: list[int],
    inserted: list[dict[str, Any]],
) -> None:
    world = World(slots)
    for one in told:
        world.add(**one)
    there = [task for task, one in zip(world.tasks, told, strict=True) if matches(task, one, wanted)]
    shown: list[str] = []
    page = world.page(wanted, limits[0])
    for number in range(1000):
        shown += [one.task.task_id for one in page.records]
        if page.next is None:
            break
        if inserted:
            one = inserted.pop()
            world.add(**one | {"at_s": 1000.0 + one["at_s"]})  # registered meanwhile
        page = world.page(wanted, limits[number % len(limits)], page.next)
    assert page.next is None
    assert shown == newest_first(there)


def test_a_short_list_is_one_page_and_a_long_one_ends_with_its_last_task() -> None:
    world = World()
    assert list(world.pages()) == [[]]
    for number in range(40):
        world.add(number, slot=number)
    assert [len(page) for page in world.pages()] == [20, 20]
    assert [len(page) for page in world.pages(limit=100)] == [40]
    assert world.all(limit=7) == newest_first(world.tasks)


def test_another_owners_tasks_are_on_no_page() -> None:
    world = World()
    world.add(owner="rival")
    mine = world.add()
    assert world.all() == [mine.task_id]


def test_deleted_forgotten_expired_and_unreadable_tasks_are_left_out_and_the_unreadable_told_of() -> None:
    world = World()
    shown, deleted, gone, old, broken, half, late, other = (world.add(number, slot=number) for number in range(8))
    world.store.delete(deleted, delete(deleted, START))
    world.table.delete_item(TableName="table", Key=key(gone, "TASK"))
    spoil(world, late, "TASK", deleted={"BOOL": True})
    spoil(world, other, "TASK", owner={"S": "rival"})
    spoil(world, old, "REQUEST", ttl={"N": str(int(START.timestamp()))})
    spoil(world, broken, "TASK", status={"S": "CONFUSED"})
    spoil(world, half, "REQUEST", ttl={"S": "soon"})
    with captured_log() as log:
        assert world.all() == [shown.task_id]
    told = [line["pk"] for line in log if line["message"] == "item cannot be read"]
    assert told == [f"TASK#{broken.task_id}", f"TASK#{half.task_id}"]


def test_a_task_whose_copy_is_cleaned_up_is_still_shown() -> None:
    world = World()
    task = world.add()
    world.store.save(task, cancel(task, START))
    assert world.all(TaskFilter(statuses=frozenset({Status.CANCELLED}))) == [task.task_id]


# -- what a page reads ------------------------------------------------------------------------------------------------


def test_a_filter_that_one_of_very_many_matches_takes_several_short_pages() -> None:
    world = World(16)
    for number in range(1500):
        world.add(number, slot=number * 7, connection="other" if number == 3 else "studio")
    pages = list(world.pages(TaskFilter(connection="other")))
    assert [page for page in pages if page] == [[world.tasks[3].task_id]]
    assert 4 <= len(pages) <= 6, "a page looks at some 330 tasks"
    pages = list(world.pages(TaskFilter(metadata={"order": "4711"})))
    assert not any(pages)
    assert 5 <= len(pages) <= 8, "a page looks at some 250 tasks and what was asked for them"


def test_a_page_reads_little_more_than_it_shows() -> None:
    world = World(16)
    for number in range(400):
        world.add(number, slot=number * 7)
    world.page(limit=20)
    assert world.client.read <= 2 * 20 + 16 * 4
    world.page(limit=100)
    assert world.client.read <= 2 * 100 + 16 * 20


def test_as_many_slots_as_there_may_be_are_merged_within_the_bound() -> None:
    world = World(512)
    for number in range(1100):
        world.add(number, slot=number * 5)
    assert world.all(limit=100) == newest_first(world.tasks)
    assert world.all(TaskFilter(connection="other")) == []


def test_a_page_that_looks_further_for_few_shows_no_more_than_was_asked_for() -> None:
    world = World()
    for number in range(60):
        world.add(number, slot=number, connection="other" if number < 30 else "studio")
    wanted = TaskFilter(connection="other")
    assert [len(page) for page in world.pages(wanted, limit=8)] == [8, 8, 8, 6]
    assert world.all(wanted, limit=8) == newest_first(world.tasks[:30])


def test_a_bound_beyond_the_other_leaves_nothing_and_asks_for_nothing() -> None:
    world = World()
    world.add(5)
    wanted = TaskFilter(created_after=START + timedelta(seconds=9), created_before=START + timedelta(seconds=1))
    calls = world.client.calls
    assert world.all(wanted) == []
    assert world.client.calls == calls


def test_both_bounds_are_left_out_themselves_to_the_microsecond() -> None:
    world = World()
    tasks = [world.add(number / 1_000_000, slot=number) for number in range(5)]
    at = datetime.fromisoformat(START.isoformat())
    wanted = TaskFilter(created_after=at + timedelta(microseconds=1), created_before=at + timedelta(microseconds=4))
    assert world.all(wanted) == newest_first(tasks[2:4])


def key(task: Task, sk: str) -> dict[str, Any]:
    return {"pk": {"S": f"TASK#{task.task_id}"}, "sk": {"S": sk}}


def spoil(world: World, task: Task, sk: str, **attributes: Any) -> None:
    """Overwrites attributes of an item, in wire form, behind the store's back."""
    item = world.table.get_item(TableName="table", Key=key(task, sk))["Item"]
    world.table.put_item(TableName="table", Item=item | attributes)
