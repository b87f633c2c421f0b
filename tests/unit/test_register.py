"""Registering, reading, cancelling and deleting tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from renderbell import webhooks
from renderbell.addresses import EgressPolicy
from renderbell.delivery import DEFAULT_EVENTS, TASK_EVENTS, DeliveryState
from renderbell.errors import AlreadyRegisteredError, ConflictError, InvalidInputError, NotFoundError
from renderbell.providers import Connection
from renderbell.register import Registered, TaskRequest, Tasks
from renderbell.schedule import slot_of
from renderbell.store import Lease, Served
from renderbell.task import Status, Step, Task, Webhook, copied, delete
from tests.fakes import START, FakeClock, FakeConnections, FakeIds, FakeInvoker, FakeProvider, FakeStore, stored_file

HOOK = "https://hooks.example.com/renders"


@dataclass
class World:
    """The use cases over fakes."""

    store: FakeStore = field(default_factory=FakeStore)
    connections: FakeConnections = field(default_factory=FakeConnections)
    invoker: FakeInvoker = field(default_factory=FakeInvoker)
    clock: FakeClock = field(default_factory=FakeClock)
    workers: int = 1
    cidrs: tuple[str, ...] = ()
    allow_http: bool = False

    def __post_init__(self) -> None:
        self.connect(name="studio", owners=("default",))
        self.tasks = Tasks(
            store=self.store,
            connections=self.connections,
            fetch=FakeProvider(),
            invoker=self.invoker,
            egress=EgressPolicy.from_settings(self.allow_http, self.cidrs),
            clock=self.clock,
            new_id=FakeIds(),
            slots=16,
            poller_workers=self.workers,
            poller_function="poller",
            notifier_function="notifier",
            task_retention_days=30,
            side_by_side=lambda jobs: [job() for job in jobs],
        )

    def connect(self, **fields: object) -> None:
        told = {"type": "jimmy", "base_url": "https://jimmy.example.com", **fields}
        self.connections.add(Connection.model_validate(told))

    def register(self, *, owner: str = "default", **fields: object) -> Registered:
        asked = TaskRequest.model_validate({"connection": "studio", "provider_task_id": "job-7", **fields})
        return self.tasks.register_task(asked, owner=owner, base_url="https://api.example.com/prod")

    def move(self, task_id: str, status: Status) -> Task:
        """The task goes on, as the poller would have written it."""
        task = self.store.tasks[task_id]
        self.store.tasks[task_id] = replace(task, status=status, version=task.version + 1)
        return self.store.tasks[task_id]

    def moving(self, task_id: str, status: Status) -> Callable[[], None]:
        """The same as a step to be taken later, between two of ours."""

        def step() -> None:
            self.move(task_id, status)

        return step

    def deleting(self, task_id: str) -> Callable[[], None]:
        """The deletion of the task by another call, as a step to be taken later."""

        def step() -> None:
            task = self.store.tasks[task_id]
            self.store.delete(task, delete(task, self.clock()))

        return step


# -- registering ----------------------------------------------------------------------------------------------------


def test_a_registered_task_is_queued_due_at_once_and_kept_with_its_request() -> None:
    world = World()
    found = world.register(webhook_url=HOOK, metadata={"order": "4711"})
    task = found.task
    assert found.created
    assert (task.status, task.step, task.due_at) == (Status.QUEUED, Step.POLL, START)
    assert (task.connection, task.provider, task.provider_task_id) == ("studio", "jimmy", "job-7")
    assert task.slot == slot_of(task.task_id, 16)
    assert world.store.tasks[task.task_id] == task
    request = world.store.requests[task.task_id]
    assert request.webhooks == (Webhook(HOOK, DEFAULT_EVENTS),)
    assert request.metadata == {"order": "4711"}
    assert request.base_url == "https://api.example.com/prod"


@pytest.mark.parametrize(
    ("asked_s", "connections_s", "expected_s"), [(None, None, 86_400), (None, 7200, 7200), (600, 7200, 600)]
)
def test_the_deadline_is_the_tasks_else_the_connections_else_a_day(
    asked_s: int | None, connections_s: int | None, expected_s: int
) -> None:
    world = World()
    world.connect(name="studio", deadline_s=connections_s)
    found = world.register(deadline_s=asked_s)
    assert found.task.expires_at == START + timedelta(seconds=expected_s)
    assert found.request.deadline_s == expected_s


def test_the_record_outlives_the_deadline_by_two_weeks_and_the_retention() -> None:
    found = World().register(deadline_s=3600)
    assert datetime.fromtimestamp(found.request.ttl, UTC) == START + timedelta(hours=1, days=14 + 30)


def test_webhooks_keep_their_events_in_one_order_and_default_to_every_end_of_a_task() -> None:
    found = World().register(
        webhooks=[{"url": HOOK, "events": ["task.failed", "task.processing", "task.failed"]}, {"url": HOOK + "/2"}]
    )
    assert found.request.webhooks == (
        Webhook(HOOK, ("task.processing", "task.failed")),
        Webhook(HOOK + "/2", DEFAULT_EVENTS),
    )
    assert found.task.tells_processing


def test_a_task_without_a_webhook_for_processing_does_not_tell_it() -> None:
    assert not World().register(webhook_url=HOOK).task.tells_processing


def test_the_events_that_may_be_named_are_those_that_tasks_have() -> None:
    every = TaskRequest.model_validate(
        {"connection": "c", "provider_task_id": "p", "webhooks": [{"url": HOOK, "events": list(TASK_EVENTS)}]}
    )
    assert every.asked_webhooks == (Webhook(HOOK, TASK_EVENTS),)


# -- what is refused ------------------------------------------------------------------------------------------------


def test_an_unknown_and_a_foreign_connection_get_the_same_answer() -> None:
    world = World()
    world.connect(name="theirs", owners=("team-a",))
    answers = []
    for name in ("theirs", "nowhere", "", "Not A Name", "x" * 3000):
        with pytest.raises(InvalidInputError) as refused:
            world.register(connection=name)
        answers.append((refused.value.field, refused.value.code, str(refused.value)))
    assert set(answers) == {("connection", "unknown_connection", "there is no such connection")}
    assert world.store.tasks == {}


def test_a_connection_for_everybody_is_for_everybody() -> None:
    world = World()
    world.connect(name="shared", owners=("*",))
    assert world.register(owner="team-b", connection="shared").task.owner == "team-b"


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "ftp://hooks.example.com/",
        "https://localhost/hook",
        "https://intranet/hook",
        "https://127.0.0.1/hook",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/hook",
        "https://user:pass@hooks.example.com/",
        "https://hooks.example.com:8443\\@127.0.0.1/",
        "not a url",
        "",
    ],
)
def test_a_url_that_may_not_be_reached_is_refused_by_field(url: str) -> None:
    world = World()
    with pytest.raises(InvalidInputError) as refused:
        world.register(webhook_url=url)
    assert (refused.value.field, refused.value.code) == ("webhook_url", "url_not_allowed")
    with pytest.raises(InvalidInputError) as refused:
        world.register(webhooks=[{"url": HOOK}, {"url": url}])
    assert refused.value.field == "webhooks.1.url"
    assert world.store.tasks == {}


def test_the_operator_may_open_http_and_private_addresses_for_webhooks() -> None:
    world = World(allow_http=True, cidrs=("127.0.0.0/8",))
    assert world.register(webhook_url="http://127.0.0.1:9000/hook").created


def test_the_same_url_twice_is_refused() -> None:
    with pytest.raises(InvalidInputError) as refused:
        World().register(webhooks=[{"url": HOOK}, {"url": HOOK, "events": ["task.failed"]}])
    assert (refused.value.field, refused.value.code) == ("webhooks.1.url", "duplicate_url")


def refused_fields(**fields: object) -> set[tuple[str, str]]:
    with pytest.raises(ValidationError) as refused:
        TaskRequest.model_validate({"connection": "studio", "provider_task_id": "job-7", **fields})
    return {(".".join(map(str, one["loc"])), one["type"]) for one in refused.value.errors()}


@pytest.mark.parametrize(
    "provider_task_id",
    ["", ".", "..", "a\x00b", "a\nb", "a\x7fb", "é" * 1025, "x" * 2049, "job-\ufffd", None, 7, ["a"]],
)
def test_an_unusable_provider_task_id_is_refused(provider_task_id: object) -> None:
    assert {name for name, _ in refused_fields(provider_task_id=provider_task_id)} == {"provider_task_id"}


def test_an_odd_but_usable_provider_task_id_is_taken_as_it_is() -> None:
    for odd in ("a/b?c=d#e", "..a", "%2e%2e", "日本", "x" * 2048, " "):
        assert World().register(provider_task_id=odd).task.provider_task_id == odd


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ({"a": "x" * 4096}, "metadata_too_large"),
        ({"a": "é" * 2048}, "metadata_too_large"),
        ({"": "x"}, "metadata_invalid"),
        ({"a": "line\nbreak"}, "metadata_invalid"),
        ({"a\x00": "x"}, "metadata_invalid"),
        ({str(n): "" for n in range(17)}, "too_long"),
        ({"a": 1}, "string_type"),
        ({"a": None}, "string_type"),
        ({"a": {"b": "c"}}, "string_type"),
        ({"a": "\ud800"}, "string_unicode"),
        ("text", "dict_type"),
    ],
)
def test_unusable_metadata_is_refused(metadata: object, code: str) -> None:
    found = refused_fields(metadata=metadata)
    assert {name.split(".")[0] for name, _ in found} == {"metadata"}
    assert {word for _, word in found} == {code}


def test_metadata_up_to_the_limit_is_taken() -> None:
    pairs = {f"{n:02d}": "x" * 254 for n in range(16)}
    assert World().register(metadata=pairs).request.metadata == pairs


@pytest.mark.parametrize("deadline_s", [59, 604_801, 0, -1, 90.5, "90", True, float("inf"), 10**30])
def test_a_deadline_outside_a_minute_and_a_week_is_refused(deadline_s: object) -> None:
    assert {name for name, _ in refused_fields(deadline_s=deadline_s)} == {"deadline_s"}


@pytest.mark.parametrize("deadline_s", [60, 604_800])
def test_a_deadline_of_a_minute_or_a_week_is_taken(deadline_s: int) -> None:
    assert World().register(deadline_s=deadline_s).request.deadline_s == deadline_s


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"webhooks": [{"url": f"{HOOK}/{n}"} for n in range(21)]}, "webhooks"),
        ({"webhooks": [{"url": HOOK, "events": ["task.exploded"]}]}, "webhooks.0.events.0"),
        ({"webhooks": [{"url": HOOK, "events": ["endpoint.test"]}]}, "webhooks.0.events.0"),
        ({"webhooks": [{"url": HOOK, "events": []}]}, "webhooks.0.events"),
        ({"webhooks": [{"url": HOOK, "secret": "s"}]}, "webhooks.0.secret"),
        ({"webhooks": [{}]}, "webhooks.0.url"),
        ({"webhooks": {"url": HOOK}}, "webhooks"),
        ({"webhook_url": "https://example.com/" + "x" * 2048}, "webhook_url"),
        ({"webhook_url": HOOK, "webhooks": [{"url": HOOK}]}, "webhooks"),
        ({"colour": "red"}, "colour"),
        ({"connection": None}, "connection"),
    ],
)
def test_what_has_the_wrong_shape_is_refused_by_field(fields: dict[str, object], name: str) -> None:
    assert {found for found, _ in refused_fields(**fields)} == {name}


def test_null_is_the_same_as_absent() -> None:
    found = World().register(webhook_url=None, webhooks=None, metadata=None, deadline_s=None)
    assert (found.request.webhooks, found.request.metadata) == ((), {})


# -- registering again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "again",
    [
        {},
        {"webhook_url": HOOK},
        {"webhooks": [{"url": HOOK}]},
        {"webhooks": [{"url": HOOK, "events": list(reversed(DEFAULT_EVENTS))}]},
        {"metadata": {"b": "2", "a": "1"}},
        {"deadline_s": 600},
        {"webhook_url": HOOK, "metadata": {"a": "1", "b": "2"}, "deadline_s": 600},
    ],
)
def test_registering_again_with_equal_or_absent_settings_answers_the_running_task(again: dict[str, Any]) -> None:
    world = World()
    first = world.register(webhook_url=HOOK, metadata={"a": "1", "b": "2"}, deadline_s=600)
    world.invoker.invoked.clear()
    second = world.register(**again)
    assert not second.created
    assert second.task == first.task
    assert len(world.store.tasks) == 1
    assert world.invoker.invoked == []


def test_the_order_of_webhooks_does_not_matter() -> None:
    world = World()
    world.register(webhooks=[{"url": HOOK + "/a"}, {"url": HOOK + "/b"}])
    assert not world.register(webhooks=[{"url": HOOK + "/b"}, {"url": HOOK + "/a"}]).created


@pytest.mark.parametrize(
    "again",
    [
        {"webhook_url": HOOK + "/other"},
        {"webhooks": []},
        {"webhooks": [{"url": HOOK, "events": ["task.completed"]}]},
        {"metadata": {}},
        {"metadata": {"a": "2"}},
        {"deadline_s": 601},
    ],
)
def test_registering_again_with_other_settings_names_the_running_task(again: dict[str, Any]) -> None:
    world = World()
    first = world.register(webhook_url=HOOK, metadata={"a": "1"}, deadline_s=600)
    with pytest.raises(AlreadyRegisteredError) as refused:
        world.register(**again)
    assert (refused.value.task_id, refused.value.code) == (first.task.task_id, "already_registered")


@pytest.mark.parametrize("status", [Status.COPYING, Status.COMPLETED, Status.FAILED, Status.EXPIRED, Status.CANCELLED])
def test_a_render_that_the_provider_is_done_with_can_be_registered_anew(status: Status) -> None:
    world = World()
    first = world.register()
    world.move(first.task.task_id, status)
    second = world.register()
    assert second.created
    assert second.task.task_id != first.task.task_id


def test_a_task_that_ends_between_the_refusal_and_the_look_is_registered_at_the_second_try() -> None:
    world = World()
    first = world.register(webhook_url=HOOK)
    world.store.after_refusal = world.moving(first.task.task_id, Status.COMPLETED)
    second = world.register(webhook_url=HOOK + "/other")
    assert second.created
    assert second.task.task_id != first.task.task_id


def test_two_owners_watch_the_same_render_without_meeting() -> None:
    world = World()
    world.connect(name="studio", owners=("*",))
    assert world.register(owner="team-a").created
    assert world.register(owner="team-b").created


# -- waking the poller ----------------------------------------------------------------------------------------------


def a_lease(worker: int, until: datetime) -> Lease:
    return Lease(worker=worker, holder="h", until=until, relief=False, served=Served(), workers=1, slots=16)


def test_where_no_worker_polls_registering_wakes_the_one_of_the_slot() -> None:
    world = World(workers=3)
    task = world.register().task
    assert world.invoker.invoked == [("poller", {"worker": task.slot % 3, "task_id": task.task_id})]


def test_a_worker_that_polls_is_left_alone() -> None:
    world = World()
    world.store.leases[0] = a_lease(0, START + timedelta(seconds=1))
    world.register()
    assert world.invoker.invoked == []


def test_a_worker_whose_lease_has_run_out_is_woken() -> None:
    world = World()
    world.store.leases[0] = a_lease(0, START)
    task = world.register().task
    assert world.invoker.invoked == [("poller", {"worker": 0, "task_id": task.task_id})]


def test_a_wake_up_that_fails_does_not_fail_the_registration() -> None:
    world = World()
    world.invoker.trouble = RuntimeError("throttled")
    found = world.register()
    assert world.store.tasks[found.task.task_id].due_at == START


# -- reading and cancelling -----------------------------------------------------------------------------------------


def test_only_the_owner_reads_and_cancels_a_task() -> None:
    world = World()
    task_id = world.register().task.task_id
    assert world.tasks.read_task(task_id, owner="default").task.task_id == task_id
    for owner, wanted in (("team-b", task_id), ("default", f"tsk_{9:026d}"), ("default", "../" + task_id)):
        with pytest.raises(NotFoundError):
            world.tasks.read_task(wanted, owner=owner)
        with pytest.raises(NotFoundError):
            world.tasks.cancel_task(wanted, owner=owner)
    assert world.store.tasks[task_id].status is Status.QUEUED


def test_a_record_past_its_time_is_gone_even_if_it_still_stands_there() -> None:
    world = World()
    found = world.register()
    world.clock.now = datetime.fromtimestamp(found.request.ttl, UTC)
    with pytest.raises(NotFoundError):
        world.tasks.read_task(found.task.task_id, owner="default")


@pytest.mark.parametrize("status", [Status.QUEUED, Status.PROCESSING, Status.COPYING])
def test_a_running_task_is_cancelled_and_its_webhook_made_and_sent_at_once(status: Status) -> None:
    world = World()
    task_id = world.register(webhook_url=HOOK).task.task_id
    world.move(task_id, status)
    world.invoker.invoked.clear()
    found = world.tasks.cancel_task(task_id, owner="default")
    assert found.task.status is Status.CANCELLED
    assert [(one.event, one.url) for one in found.deliveries] == [("task.cancelled", HOOK)]
    assert world.store.tasks[task_id] == found.task
    assert world.invoker.invoked == [("notifier", {"pk": f"TASK#{task_id}", "sk": "TASK"})]


def test_a_task_without_webhooks_is_cancelled_without_waking_anybody() -> None:
    world = World()
    task_id = world.register().task.task_id
    world.invoker.invoked.clear()
    assert world.tasks.cancel_task(task_id, owner="default").task.status is Status.CANCELLED
    assert world.invoker.invoked == []


def test_a_notifier_that_cannot_be_woken_does_not_fail_the_cancellation() -> None:
    world = World()
    task_id = world.register(webhook_url=HOOK).task.task_id
    world.invoker.trouble = RuntimeError("throttled")
    assert world.tasks.cancel_task(task_id, owner="default").task.status is Status.CANCELLED


def test_cancelling_twice_changes_nothing_and_makes_no_second_webhook() -> None:
    world = World()
    task_id = world.register(webhook_url=HOOK).task.task_id
    first = world.tasks.cancel_task(task_id, owner="default")
    world.invoker.invoked.clear()
    second = world.tasks.cancel_task(task_id, owner="default")
    assert second == first
    assert world.invoker.invoked == []


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.EXPIRED])
def test_a_task_that_has_ended_otherwise_cannot_be_cancelled(status: Status) -> None:
    world = World()
    task_id = world.register().task.task_id
    world.move(task_id, status)
    with pytest.raises(ConflictError, match=status.value) as refused:
        world.tasks.cancel_task(task_id, owner="default")
    assert refused.value.code == "task_ended"


def test_a_cancellation_that_loses_a_race_is_applied_to_what_the_winner_wrote() -> None:
    world = World()
    task_id = world.register(webhook_url=HOOK).task.task_id
    world.store.before_save = world.moving(task_id, Status.PROCESSING)
    found = world.tasks.cancel_task(task_id, owner="default")
    assert found.task.status is Status.CANCELLED
    assert found.task.history[-1].source is Status.PROCESSING
    assert len(found.deliveries) == 1


def test_a_cancellation_that_loses_to_the_end_of_the_task_says_so() -> None:
    world = World()
    task_id = world.register(webhook_url=HOOK).task.task_id
    world.move(task_id, Status.COPYING)

    def complete() -> None:
        task = world.store.tasks[task_id]
        world.store.tasks[task_id] = replace(copied(task, [stored_file()], START), version=task.version + 1)

    world.store.before_save = complete
    with pytest.raises(ConflictError, match="COMPLETED"):
        world.tasks.cancel_task(task_id, owner="default")
    assert world.store.tasks[task_id].files == (stored_file(),)


def test_a_cancellation_that_loses_to_a_deletion_finds_no_task() -> None:
    world = World()
    task_id = world.register().task.task_id
    world.store.before_save = world.deleting(task_id)
    with pytest.raises(NotFoundError):
        world.tasks.cancel_task(task_id, owner="default")


# -- deleting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.EXPIRED, Status.CANCELLED])
def test_a_task_that_has_ended_is_deleted_and_nobody_is_woken(status: Status) -> None:
    world = World()
    task_id = world.register().task.task_id
    world.move(task_id, status)
    world.invoker.invoked.clear()
    world.tasks.delete_task(task_id, owner="default", force=False)
    kept = world.store.tasks[task_id]
    assert (kept.status, kept.deleted, kept.step, kept.due_at) == (
        status,
        True,
        Step.CLEAN,
        START + timedelta(seconds=60),
    )
    assert world.invoker.invoked == [], "an old claim may still write"


@pytest.mark.parametrize("status", [Status.QUEUED, Status.PROCESSING, Status.COPYING])
def test_a_running_task_is_deleted_only_by_force_and_owes_no_webhook(status: Status) -> None:
    world = World()
    task_id = world.register(webhook_url=HOOK).task.task_id
    running = world.move(task_id, status)
    with pytest.raises(ConflictError, match="force=true") as refused:
        world.tasks.delete_task(task_id, owner="default", force=False)
    assert refused.value.code == "task_running"
    assert world.store.tasks[task_id] == running
    world.tasks.delete_task(task_id, owner="default", force=True)
    assert (world.store.tasks[task_id].status, world.store.tasks[task_id].deleted) == (Status.CANCELLED, True)
    assert world.store.deliveries(task_id) == ()


def test_a_task_with_a_webhook_yet_to_be_delivered_is_deleted_only_by_force() -> None:
    world = World()
    task_id = world.register(webhook_url=HOOK).task.task_id
    cancelled = world.tasks.cancel_task(task_id, owner="default")
    with pytest.raises(ConflictError, match="force=true") as refused:
        world.tasks.delete_task(task_id, owner="default", force=False)
    assert refused.value.code == "delivery_pending"
    assert world.store.deliveries(task_id) == cancelled.deliveries
    world.tasks.delete_task(task_id, owner="default", force=True)
    assert world.store.deliveries(task_id) == ()


def test_a_task_whose_webhook_is_delivered_is_deleted() -> None:
    world = World()
    task_id = world.register(webhook_url=HOOK).task.task_id
    (pending,) = world.tasks.cancel_task(task_id, owner="default").deliveries
    world.store.made[task_id] = (replace(pending, state=DeliveryState.DELIVERED, due_at=None),)
    world.tasks.delete_task(task_id, owner="default", force=False)
    assert world.store.tasks[task_id].deleted


def test_a_deleted_task_is_there_for_nobody() -> None:
    world = World()
    task_id = world.register().task.task_id
    world.tasks.delete_task(task_id, owner="default", force=True)
    for force in (False, True):
        with pytest.raises(NotFoundError):
            world.tasks.delete_task(task_id, owner="default", force=force)
    with pytest.raises(NotFoundError):
        world.tasks.read_task(task_id, owner="default")
    with pytest.raises(NotFoundError):
        world.tasks.cancel_task(task_id, owner="default")


def test_only_the_owner_deletes_a_task() -> None:
    world = World()
    task_id = world.register().task.task_id
    for owner, wanted in (("team-b", task_id), ("default", f"tsk_{9:026d}"), ("default", "../" + task_id)):
        with pytest.raises(NotFoundError):
            world.tasks.delete_task(wanted, owner=owner, force=True)
    world.tasks.delete_task(task_id, owner="default", force=True)


def test_a_record_past_its_time_cannot_be_deleted() -> None:
    world = World()
    found = world.register()
    world.clock.now = datetime.fromtimestamp(found.request.ttl, UTC)
    with pytest.raises(NotFoundError):
        world.tasks.delete_task(found.task.task_id, owner="default", force=True)


def test_a_render_whose_task_is_deleted_can_be_registered_anew_at_once() -> None:
    world = World()
    first = world.register().task.task_id
    world.tasks.delete_task(first, owner="default", force=True)
    again = world.register()
    assert again.created
    assert again.task.task_id != first


def test_a_deletion_that_loses_a_race_is_applied_to_what_the_winner_wrote() -> None:
    world = World()
    task_id = world.register(webhook_url=HOOK).task.task_id
    world.store.before_save = world.moving(task_id, Status.COPYING)
    world.tasks.delete_task(task_id, owner="default", force=True)
    kept = world.store.tasks[task_id]
    assert kept.history[-1].source is Status.COPYING
    assert (kept.status, kept.deleted) == (Status.CANCELLED, True)


def test_a_deletion_without_force_that_loses_to_a_new_webhook_is_refused() -> None:
    world = World()
    task_id = world.register(webhook_url=HOOK).task.task_id
    world.move(task_id, Status.COMPLETED)

    def told() -> None:
        task = world.store.tasks[task_id]
        (delivery,) = webhooks.deliveries_for(task, world.store.requests[task_id], "task.completed", START)
        world.store.save(task, task, [delivery])

    world.store.before_save = told
    with pytest.raises(ConflictError) as refused:
        world.tasks.delete_task(task_id, owner="default", force=False)
    assert refused.value.code == "delivery_pending"


def test_of_two_deletions_at_once_the_second_finds_no_task() -> None:
    world = World()
    task_id = world.register().task.task_id
    world.store.before_save = world.deleting(task_id)
    with pytest.raises(NotFoundError):
        world.tasks.delete_task(task_id, owner="default", force=True)


def test_a_deletion_that_finds_the_record_just_gone_finds_no_task() -> None:
    world = World()
    task_id = world.register().task.task_id
    world.store.before_save = world.store.tasks.clear
    with pytest.raises(NotFoundError):
        world.tasks.delete_task(task_id, owner="default", force=True)


def test_a_deletion_that_loses_every_race_may_be_tried_again() -> None:
    world = World()
    task_id = world.register().task.task_id

    def move() -> None:
        world.move(task_id, Status.PROCESSING)
        world.store.before_save = move

    world.store.before_save = move
    with pytest.raises(ConflictError) as refused:
        world.tasks.delete_task(task_id, owner="default", force=True)
    assert refused.value.code == "try_again"
