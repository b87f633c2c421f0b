"""The store's contract: what every backend under it must keep. It runs on the emulator's DynamoDB."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from threading import Barrier
from typing import Any

import pytest

from renderbell.delivery import (
    HEALTHY,
    MAX_ENDPOINTS,
    TASK_GONE,
    TEST_EVENT,
    WELL,
    Answer,
    Attempt,
    Delivery,
    DeliveryState,
    EndpointHealth,
    ReceiverHealth,
    ReceiverState,
    judge,
    new_delivery,
    redelivered,
    reopened,
)
from renderbell.endpoints import Endpoint, SigningKey
from renderbell.errors import ClaimLostError, ConflictError, ProviderTaskNotFound, VersionConflictError
from renderbell.ids import Seed
from renderbell.items import time_text
from renderbell.lengths import Lengths
from renderbell.progress import NO_NOTES, ProgressNotes, noted
from renderbell.providers.base import Observation, ProviderState, ProviderTime
from renderbell.seats import Seats
from renderbell.store import (
    DUE_PROJECTION,
    AlreadyOngoingError,
    ApiKey,
    AttemptCounts,
    ConnectionHealth,
    DueDelivery,
    KeptAnswer,
    Lease,
    Place,
    Served,
    Store,
    UnreadableItem,
    Way,
    Work,
    endpoint_of,
    task_key,
)
from renderbell.task import (
    FileKind,
    Hint,
    PollError,
    Request,
    Status,
    Step,
    StoredFile,
    Task,
    Upload,
    Webhook,
    advance,
    cancel,
    cleaned,
    copied,
    delete,
    hinted,
    new_task,
)
from tests.template import expanded

pytestmark = pytest.mark.emulator

BORN = datetime(2026, 11, 22, 8, 0, 0, 123456, tzinfo=UTC)
SLOT = 5
DONE = Observation(ProviderState.SUCCEEDED, videos=("https://cdn.example.com/v.mp4",))
FILE = StoredFile(1, FileKind.VIDEO, "bucket", "default/tsk_1/1.mp4", 10, "ab" * 32, "video/mp4", "https://cdn/v.mp4")


def at(seconds: float) -> datetime:
    return BORN + timedelta(seconds=seconds)


def a_task(task_id: str = "tsk_1", *, owner: str = "default", provider_task_id: str = "p-1", **more: Any) -> Task:
    task = new_task(
        task_id=task_id,
        owner=owner,
        connection="studio",
        provider="jimmy",
        provider_task_id=provider_task_id,
        now=BORN,
        deadline_s=3600,
        slot=SLOT,
        tells_processing=True,
    )
    return replace(task, **more)


def a_request(task: Task) -> Request:
    return Request(
        task_id=task.task_id,
        owner=task.owner,
        created_at=task.created_at,
        deadline_s=3600,
        base_url="https://api.example.com/v1",
        ttl=2_000_000_000,
        metadata={"order": "4711", "name": "Zoë"},
        webhooks=(Webhook("https://example.com/hook", ("task.completed",)),),
        tells_bus=True,
    )


def a_delivery(task: Task, endpoint_id: str = "url_1") -> Delivery:
    return new_delivery(
        task_id=task.task_id,
        owner=task.owner,
        event="task.completed",
        endpoint_id=endpoint_id,
        receiver="example.com",
        url="https://example.com/hook",
        slot=task.slot,
        ttl=2_000_000_000,
        now=at(5),
    )


def registered(store: Store, task: Task | None = None) -> Task:
    task = task or a_task()
    store.register(task, a_request(task))
    return task


def due(store: Store, until: float = 10_000, after: float | None = None) -> list[Task | DueDelivery | UnreadableItem]:
    return list(store.due(SLOT, at(until), None if after is None else at(after)))


class TestRegistering:
    def test_a_task_and_its_request_are_read_as_they_were_written(self, store: Store) -> None:
        task = registered(store)
        assert store.task("tsk_1") == task
        assert store.request("tsk_1") == a_request(task)

    def test_an_unknown_task_is_none(self, store: Store) -> None:
        assert store.task("tsk_9") is None
        assert store.request("tsk_9") is None
        assert store.work("tsk_9") is None

    def test_the_same_provider_task_is_watched_once_per_owner(self, store: Store) -> None:
        registered(store)
        again = a_task("tsk_2")
        with pytest.raises(AlreadyOngoingError) as caught:
            store.register(again, a_request(again))
        assert caught.value.task_id == "tsk_1"
        assert store.task("tsk_2") is None
        registered(store, a_task("tsk_3", owner="another"))

    def test_of_two_racing_registrations_one_wins(self, store: Store) -> None:
        barrier = Barrier(8)

        def register(number: int) -> str:
            task = a_task(f"tsk_{number}")
            barrier.wait()
            try:
                store.register(task, a_request(task))
            except AlreadyOngoingError as error:
                return error.task_id
            return task.task_id

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(register, range(8)))) == 1

    def test_it_can_be_watched_again_once_the_provider_is_done(self, store: Store) -> None:
        task = registered(store)
        store.save(task, advance(task, DONE, at(1)))
        registered(store, a_task("tsk_2"))
        assert store.task("tsk_2") is not None

    def test_a_key_is_found_by_its_hash(self, store: Store) -> None:
        key = ApiKey("k1", "ab" * 32, "default", "read", "ci", BORN)
        assert store.add_key(key, 1)
        assert store.key("ab" * 32) == key
        assert store.key("cd" * 32) is None

    def test_an_owners_keys_are_listed_and_deleted_one_by_one(self, store: Store) -> None:
        keys = [ApiKey(f"key_{n}", f"{n:064x}", owner, "read", "ci", BORN) for n, owner in enumerate(["a", "a", "ab"])]
        for key in keys:
            assert store.add_key(key, 2)
        assert not store.add_key(ApiKey("key_9", "9" * 64, "a", "read", "ci", BORN), 2)
        assert store.keys("a") == (keys[0], keys[1])
        assert store.delete_key(keys[0])
        assert store.keys("a") == (keys[1],)
        assert store.key(keys[0].key_hash) is None
        assert store.key(keys[1].key_hash) == keys[1]
        assert not store.delete_key(keys[0])
        assert store.keys("ab") == (keys[2],)
        assert store.add_key(keys[0], 2)
        assert not store.add_key(ApiKey("key_9", "9" * 64, "a", "read", "ci", BORN), 2), "what was gone counted once"

    def test_of_many_who_mint_the_last_key_one_does(self, store: Store) -> None:
        barrier = Barrier(8)

        def mint(number: int) -> bool:
            barrier.wait()
            try:
                return store.add_key(ApiKey(f"key_{number}", f"{number:064x}", "a", "read", "ci", BORN), 1)
            except ConflictError:  # it met another too often
                return False

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(mint, range(8))) == 1
        assert len(store.keys("a")) == 1


class TestSaving:
    def test_every_field_survives(self, store: Store) -> None:
        task = registered(store)
        seen = Observation(
            ProviderState.PROCESSING,
            progress=40,
            images=("https://a/1.png",),
            model="sora-9",
            provider_times={
                "created_at": ProviderTime(1_761_635_478, at(-5)),
                "started_at": ProviderTime("gestern", None),
            },
            duration_s=4.25,
        )
        saved = store.save(task, advance(task, seen, at(1)))
        assert store.task("tsk_1") == saved
        assert saved.version == 2
        assert [line.target for line in saved.history] == [Status.QUEUED, Status.PROCESSING]

        lost = store.save(saved, advance(saved, ProviderTaskNotFound("?"), at(20)))
        assert store.task("tsk_1") == lost
        back = store.save(lost, advance(lost, seen, at(30)))
        assert store.task("tsk_1") == back
        assert (back.streak, back.last_poll_error) == (None, None)

        copying = store.save(back, advance(back, DONE, at(40)))
        done = store.save(copying, copied(copying, [FILE], at(50)))
        assert store.task("tsk_1") == done
        assert len(done.history) == 4

    def test_of_two_writers_the_loser_learns_the_winners_state(self, store: Store) -> None:
        task = registered(store)
        winner = store.save(task, cancel(task, at(1)))
        with pytest.raises(VersionConflictError) as caught:
            store.save(task, advance(task, DONE, at(1)))
        assert caught.value.current == winner
        assert store.task("tsk_1") == winner

    def test_a_single_write_that_loses_learns_the_winners_state_too(self, store: Store) -> None:
        task = registered(store)
        running = Observation(ProviderState.PROCESSING, progress=1)
        winner = store.save(task, advance(task, running, at(1)))
        with pytest.raises(VersionConflictError) as caught:
            store.save(task, advance(task, running, at(2)))
        assert caught.value.current == winner

    def test_racing_writers_change_a_task_once(self, store: Store) -> None:
        task = registered(store)
        barrier = Barrier(8)

        def finish(number: int) -> bool:
            after = cancel(task, at(number)) if number % 2 else advance(task, DONE, at(number))
            barrier.wait()
            try:
                store.save(task, after)
            except VersionConflictError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(finish, range(8))) == 1
        current = store.task("tsk_1")
        assert current is not None
        assert (current.version, len(current.history)) == (2, 2)

    def test_a_task_that_is_gone_cannot_be_saved(self, store: Store) -> None:
        task = a_task()
        with pytest.raises(VersionConflictError) as caught:
            store.save(task, cancel(task, at(1)))
        assert caught.value.current is None
        with pytest.raises(VersionConflictError):
            store.save(task, advance(task, Observation(ProviderState.PROCESSING), at(1)))
        assert store.task("tsk_1") is None

    def test_a_task_from_the_index_saves_without_its_history_being_read(self, store: Store) -> None:
        registered(store)
        (seen,) = due(store)
        assert isinstance(seen, Task)
        assert seen.history == ()
        store.save(seen, advance(seen, Observation(ProviderState.PROCESSING), at(1)))
        current = store.task("tsk_1")
        assert current is not None
        assert [line.target for line in current.history] == [Status.QUEUED, Status.PROCESSING]

    def test_a_terminal_state_and_its_deliveries_are_written_together(self, store: Store) -> None:
        task = registered(store)
        delivery = a_delivery(task)
        store.save(task, cancel(task, at(1)), [delivery])
        assert store.deliveries("tsk_1") == (delivery,)
        with pytest.raises(VersionConflictError):
            store.save(task, cancel(task, at(1)), [a_delivery(task, "url_2")])
        assert store.deliveries("tsk_1") == (delivery,)


class TestWhatIsDue:
    def test_the_index_shows_what_polling_needs_and_nothing_else(self, store: Store) -> None:
        task = registered(store)
        (seen,) = due(store)
        assert seen == replace(task, history=(), progress_known=False)

    def test_the_template_projects_what_the_store_reads(self) -> None:
        indexes = expanded.source()["Resources"]["Table"]["Properties"]["GlobalSecondaryIndexes"]
        (projection,) = [index["Projection"] for index in indexes if index["IndexName"] == "due"]
        assert set(projection["NonKeyAttributes"]) == DUE_PROJECTION

    def test_it_is_shown_by_time_and_slot(self, store: Store) -> None:
        for number, seconds in enumerate((30, 10, 20)):
            registered(store, a_task(f"tsk_{number}", provider_task_id=f"p-{number}", due_at=at(seconds)))
        registered(store, a_task("tsk_7", provider_task_id="p-7", slot=SLOT + 1))
        shown = [item.task_id for item in due(store) if isinstance(item, Task)]
        assert shown == ["tsk_1", "tsk_2", "tsk_0"]
        assert [item.task_id for item in due(store, until=20) if isinstance(item, Task)] == ["tsk_1", "tsk_2"]
        assert [item.task_id for item in due(store, until=30, after=11) if isinstance(item, Task)] == ["tsk_2", "tsk_0"]

    def test_more_than_a_page_is_read_to_its_end(self, store: Store) -> None:
        padding = "x" * 2000  # an id of 2 kB makes a page of 1 MB full after some 480 items
        for number in range(600):
            registered(store, a_task(f"tsk_{number:03}", provider_task_id=f"{padding}{number}"))
        assert len(due(store)) == 600

    def test_a_finished_task_is_shown_no_more(self, store: Store) -> None:
        task = registered(store)
        copying = store.save(task, advance(task, DONE, at(1)))
        (shown,) = due(store)
        assert isinstance(shown, Task)
        assert (shown.step, shown.due_at) == (Step.COPY, at(61))
        done = store.save(copying, copied(copying, [FILE], at(2), clean=True), [a_delivery(copying)])
        assert {type(item) for item in due(store)} == {Task, DueDelivery}
        store.save(done, cleaned(done))
        (delivery,) = due(store)
        assert delivery == DueDelivery(
            ("TASK#tsk_1", "DELIVERY#task.completed#url_1"), "default", "example.com", "url_1", at(65)
        )


class TestTheListOfTasks:
    def made(self, store: Store, count: int = 6) -> list[Place]:
        places: list[Place] = []
        for number in range(count):
            task = a_task(f"tsk_{number:026}", provider_task_id=f"p-{number}", created_at=at(number // 2))
            registered(store, task)
            places.insert(0, Place(task.created_at, task.task_id))
        return places

    def test_a_slot_lists_an_owners_tasks_newest_first(self, store: Store) -> None:
        places = self.made(store)
        registered(store, a_task("tsk_r", owner="rival"))
        registered(store, a_task("tsk_s", provider_task_id="s", slot=SLOT + 1))
        assert store.listed("default", SLOT, 10) == places
        assert store.listed("default", SLOT, 4) == places[:4]
        assert store.listed("nobody", SLOT, 4) == []

    def test_all_bounds_are_left_out_themselves(self, store: Store) -> None:
        places = self.made(store)
        assert [store.listed("default", SLOT, 10, before=one) for one in places] == [
            places[n:] for n in range(1, len(places) + 1)
        ]
        assert store.listed("default", SLOT, 10, created_after=at(0)) == places[:4]
        assert store.listed("default", SLOT, 10, created_before=at(2)) == places[2:]
        assert store.listed("default", SLOT, 10, before=places[2], created_before=at(2)) == places[3:]
        assert store.listed("default", SLOT, 10, created_after=at(2), created_before=at(1)) == []

    def test_many_tasks_and_requests_are_read_at_once(self, store: Store) -> None:
        ids = [place.task_id for place in self.made(store, 120)]
        assert store.tasks(["tsk_nobody", *ids]) == {one: store.task(one) for one in ids}
        assert store.requests(["tsk_nobody", *ids]) == {one: store.request(one) for one in ids}
        assert store.tasks([]) == {}


class TestProbes:
    HEALTH = ConnectionHealth(3, at(8), "unavailable", at(0), 7)

    def test_one_of_many_probes_a_connection(self, store: Store) -> None:
        store.put_connection_health("studio", self.HEALTH)
        barrier = Barrier(8)

        def claim(number: int) -> bool:
            barrier.wait()
            return store.claim_probe("studio", self.HEALTH._replace(retry_at=at(22)), f"t{number}", at(8))

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(claim, range(8))) == 1
        assert store.connection_health("studio") == self.HEALTH._replace(retry_at=at(22))

    def test_a_back_off_that_still_runs_is_not_probed(self, store: Store) -> None:
        store.put_connection_health("studio", self.HEALTH)
        assert not store.claim_probe("studio", self.HEALTH._replace(retry_at=at(21)), "t", at(7))
        assert store.connection_health("studio") == self.HEALTH

    def test_a_back_off_that_has_gone_on_is_not_taken_back(self, store: Store) -> None:
        store.put_connection_health("studio", self.HEALTH)
        known = self.HEALTH._replace(steps=2, retry_at=at(22))
        assert not store.claim_probe("studio", known, "t", at(8))
        assert store.connection_health("studio") == self.HEALTH

    def test_a_claim_whose_answer_was_lost_meets_itself(self, store: Store) -> None:
        store.put_connection_health("studio", self.HEALTH)
        claimed = self.HEALTH._replace(retry_at=at(22))
        assert store.claim_probe("studio", claimed, "t", at(8))
        assert store.claim_probe("studio", claimed, "t", at(8)), "as the SDK repeats it"
        assert store.connection_health("studio") == claimed

    def test_a_back_off_that_has_ended_is_not_probed(self, store: Store) -> None:
        assert not store.claim_probe("studio", self.HEALTH._replace(retry_at=at(22)), "t", at(8))
        assert store.connection_health("studio") is None

    def test_a_beginning_takes_nothing_back_of_a_longer_one(self, store: Store) -> None:
        store.put_connection_health("studio", self.HEALTH)
        store.put_connection_health("studio", ConnectionHealth(0, at(2), "unavailable", at(2), 3))
        store.put_connection_health("studio", ConnectionHealth(1, at(4), "unavailable", at(2), 5))
        assert store.connection_health("studio") == self.HEALTH
        later = ConnectionHealth(1, at(10), "unavailable", at(8), 5)
        store.put_connection_health("studio", later)
        assert store.connection_health("studio") == later


class TestLeases:
    def lease(self, holder: str, until: float, served: Served | None = None) -> Lease:
        return Lease(2, holder, at(until), relief=False, served=served or Served(), workers=3, slots=16)

    def test_an_absent_lease_is_taken_by_one(self, store: Store) -> None:
        assert store.lease(2) is None
        assert store.take_lease(self.lease("a", 45), seen=None)
        assert not store.take_lease(self.lease("b", 45), seen=None)
        assert store.lease(2) == self.lease("a", 45)

    def test_a_taking_that_is_sent_twice_meets_its_own_first_try(self, store: Store) -> None:
        assert store.take_lease(self.lease("a", 45), seen=None)
        assert store.take_lease(self.lease("a", 45), seen=None), "as the SDK repeats a call whose answer was lost"

    def test_of_many_takers_one_wins(self, store: Store) -> None:
        store.take_lease(self.lease("old", 0), seen=None)
        seen = store.lease(2)
        barrier = Barrier(8)

        def take(number: int) -> bool:
            barrier.wait()
            return store.take_lease(self.lease(f"h{number}", 45), seen=seen)

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(take, range(8))) == 1

    def test_what_was_served_is_kept(self, store: Store) -> None:
        store.take_lease(self.lease("a", 45), seen=None)
        kept = self.lease(
            "a", 65, Served(at(20), {"slow": at(3)}, {"rated": at(21)}, {"default url_1": at(39)}, {"slow": "tsk_1"})
        )
        assert store.keep_lease(kept)
        assert store.lease(2) == kept

    def test_its_end_and_the_deaths_before_it_are_kept(self, store: Store) -> None:
        held = self.lease("a", 45)._replace(deaths=2, suspects={"tsk_1": 3, "tsk_2": 1})
        store.take_lease(held, seen=None)
        assert store.lease(2) == held
        assert store.keep_lease(self.lease("a", 20)._replace(left=True))
        assert store.lease(2) == self.lease("a", 20)._replace(left=True)

    def test_who_lost_the_lease_cannot_keep_it(self, store: Store) -> None:
        store.take_lease(self.lease("a", 45), seen=None)
        store.take_lease(self.lease("b", 90), seen=store.lease(2))
        assert not store.keep_lease(self.lease("a", 60))
        assert store.lease(2) == self.lease("b", 90)

    def test_relief_is_asked_of_the_holder_and_cleared_by_taking(self, store: Store) -> None:
        store.take_lease(self.lease("a", 45), seen=None)
        assert store.ask_relief(self.lease("a", 45))
        assert not store.ask_relief(self.lease("b", 45))
        asked = store.lease(2)
        assert asked is not None
        assert asked.relief
        store.keep_lease(self.lease("a", 65))
        still = store.lease(2)
        assert still is not None
        assert still.relief, "a renewal does not forget who waits"
        assert store.take_lease(self.lease("b", 90), seen=still)
        assert store.lease(2) == self.lease("b", 90)


class TestTaskLengths:
    def test_each_worker_keeps_what_it_knows_of_each_connection(self, store: Store) -> None:
        one, other = Lengths().added(90).added(91).added(600), Lengths().added(7)
        store.keep_task_lengths(0, "studio", one, at(0))
        store.keep_task_lengths(0, "farm", other, at(0))
        store.keep_task_lengths(1, "studio", other, at(0))
        assert store.task_lengths(0, ["studio", "farm", "studio", "nobody"]) == {"studio": one, "farm": other}
        assert store.task_lengths(1, ["studio", "farm"]) == {"studio": other}

    def test_what_is_learnt_replaces_what_was_known(self, store: Store) -> None:
        store.keep_task_lengths(0, "studio", Lengths().added(90), at(0))
        store.keep_task_lengths(0, "studio", Lengths().added(30), at(0))
        assert store.task_lengths(0, ["studio"]) == {"studio": Lengths().added(30)}


class TestProgress:
    def note(self, task: Task, progress: int | None, seconds: float, **more: Any) -> Task:
        return advance(task, Observation(ProviderState.PROCESSING, progress=progress, **more), at(seconds))

    def started(self, store: Store) -> Task:
        task = registered(store)
        return store.save(task, self.note(task, 10, 1))

    def test_is_stored_and_the_index_shows_nothing_of_it(self, store: Store) -> None:
        task = self.started(store)
        (shown,) = due(store)
        noted = store.save(task, self.note(task, 30, 20, images=("https://a/1.png",), model="sora"))
        assert noted.version == task.version
        assert store.task("tsk_1") == noted
        assert (noted.progress, noted.progress_at, noted.model) == (30, at(20), "sora")
        assert due(store) == [shown]
        assert isinstance(shown, Task)
        assert (shown.progress, shown.progress_at, shown.frames, shown.progress_known) == (None, None, None, False)

    def test_and_the_index_share_nothing(self) -> None:
        unshown = {"progress", "progress_at", "frames", "model", "duration_s", "provider_times"}
        assert not DUE_PROJECTION & unshown

    def test_does_not_fall_whatever_was_read_before(self, store: Store) -> None:
        task = self.started(store)
        winner = store.save(task, self.note(task, 50, 20))
        for late in (self.note(task, 40, 20.5), self.note(task, 60, 20.5)):
            with pytest.raises(VersionConflictError) as caught:
                store.save(task, late)
            assert caught.value.current == winner, "it has been noted since"
        ahead = replace(task, progress_at=at(21))  # by another's clock
        with pytest.raises(VersionConflictError):
            store.save(ahead, self.note(ahead, 40, 36))
        assert store.task("tsk_1") == winner

    def test_noted_twice_by_a_call_that_is_repeated_stands_once(self, store: Store) -> None:
        task = self.started(store)
        noted = store.save(task, self.note(task, 50, 20))
        with pytest.raises(VersionConflictError) as caught:
            store.save(task, self.note(task, 50, 20))
        assert caught.value.current == noted

    def test_that_is_not_known_is_written_only_where_none_is(self, store: Store) -> None:
        registered(store)
        (shown,) = due(store)
        assert isinstance(shown, Task)
        waiting = Observation(ProviderState.QUEUED, progress=5)
        noted = store.save(shown, advance(shown, waiting, at(1)))
        assert (noted.version, noted.progress, noted.progress_known) == (1, 5, True)
        with pytest.raises(VersionConflictError) as caught:
            store.save(shown, advance(shown, waiting, at(2)))
        assert caught.value.current == store.task("tsk_1")

    def test_that_is_not_known_does_not_fall_when_the_state_changes(self, store: Store) -> None:
        task = registered(store)
        (shown,) = due(store)
        assert isinstance(shown, Task)
        store.save(task, advance(task, Observation(ProviderState.QUEUED, progress=30), at(1)))
        with pytest.raises(VersionConflictError) as caught:
            store.save(shown, self.note(shown, 20, 2))
        assert (current := caught.value.current) is not None
        assert store.save(current, self.note(current, 20, 2)).progress == 30
        with pytest.raises(VersionConflictError):
            store.save(shown, self.note(shown, 40, 3))

    def test_is_noted_no_more_once_the_state_has_changed(self, store: Store) -> None:
        task = self.started(store)
        cancelled = store.save(task, cancel(task, at(2)))
        with pytest.raises(VersionConflictError) as caught:
            store.save(task, self.note(task, 50, 20))
        assert caught.value.current == cancelled

    def test_holds_up_no_other_change(self, store: Store) -> None:
        task = self.started(store)
        store.save(task, self.note(task, 50, 20))
        cancelled = store.save(task, cancel(task, at(21)))
        stored = store.task("tsk_1")
        assert stored is not None
        assert (stored.status, stored.progress) == (Status.CANCELLED, 50)
        assert cancelled.version == stored.version == 3

    def test_is_noted_by_each_worker_for_the_next(self, store: Store) -> None:
        assert store.task_progress(0) is None
        first = noted([self.started(store)], at(20), NO_NOTES)
        second = ProgressNotes(at(21))
        for worker, notes in ((0, first), (1, second)):
            store.keep_task_progress(worker, notes)
        assert (store.task_progress(0), store.task_progress(1)) == (first, second)
        store.keep_task_progress(0, second)
        assert store.task_progress(0) == second

    def test_notes_that_are_none_are_passed_over(self, store: Store) -> None:
        garbled: list[dict[str, Any]] = [{"B": b"xyz"}, {"S": "xyz"}, {"N": "7"}, {"NULL": True}, {"L": [{"N": "1"}]}]
        for notes in garbled:
            item = {"pk": {"S": "WORKER#0"}, "sk": {"S": "PROGRESS"}, "at": {"S": time_text(at(1))}, "notes": notes}
            store._client.put_item(TableName=store._table, Item=item)
            assert store.task_progress(0) is None
        store._client.put_item(
            TableName=store._table, Item={"pk": {"S": "WORKER#0"}, "sk": {"S": "PROGRESS"}, "notes": {"B": b""}}
        )
        assert store.task_progress(0) is None


class TestHealth:
    def test_a_connections_back_off_is_kept_until_it_answers(self, store: Store) -> None:
        health = ConnectionHealth(3, at(8), "unavailable", at(0))
        assert store.connection_health("studio") is None
        store.put_connection_health("studio", health)
        assert store.connection_health("studio") == health
        store.put_connection_health("studio", None)
        assert store.connection_health("studio") is None

    def test_an_endpoints_failures_are_kept_until_one_success(self, store: Store) -> None:
        failing = EndpointHealth(at(1))
        confirmed = failing._replace(confirmed_at=at(43_201))
        disabled = confirmed._replace(disabled_at=at(432_001))
        assert store.endpoint_health("default", "url_1") == HEALTHY
        for seen, after in pairwise([HEALTHY, failing, confirmed, disabled, HEALTHY, failing]):
            assert store.note_endpoint_health("default", "url_1", seen, after, "t1")
            assert store.endpoint_health("default", "url_1") == after
        assert store.endpoint_health("default", "url_2") == store.endpoint_health("other", "url_1") == HEALTHY

    @pytest.mark.parametrize("number", [3, 230])
    def test_the_failing_ones_among_many_endpoints_are_known(self, store: Store, number: int) -> None:
        every = [f"url_{one}" for one in range(number)]
        for one in every[::2]:
            store.note_endpoint_health("default", one, HEALTHY, EndpointHealth(at(1)), "t1")
        store.note_endpoint_health("default", "url_0", EndpointHealth(at(1)), HEALTHY, "t2")
        store.note_endpoint_health("other", "url_1", HEALTHY, EndpointHealth(at(1)), "t1")
        assert store.failing_endpoints("default", [*every, *every]) == {*every[2::2]}
        assert store.failing_endpoints("nobody", every) == store.failing_endpoints("default", []) == set()

    def test_of_many_who_note_an_endpoints_failure_one_does(self, store: Store) -> None:
        confirmed = EndpointHealth(at(1), at(43_201))
        store.note_endpoint_health("default", "url_1", HEALTHY, EndpointHealth(at(1)), "t1")
        store.note_endpoint_health("default", "url_1", EndpointHealth(at(1)), confirmed, "t1")
        disabled = confirmed._replace(disabled_at=at(432_001))
        barrier = Barrier(8)

        def note(number: int) -> bool:
            barrier.wait()
            return store.note_endpoint_health("default", "url_1", confirmed, disabled, f"n{number}")

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(note, range(8))) == 1

    def test_a_note_that_is_sent_twice_meets_its_own_first_try(self, store: Store) -> None:
        assert store.note_endpoint_health("default", "url_1", HEALTHY, EndpointHealth(at(1)), "t1")
        assert store.note_endpoint_health("default", "url_1", HEALTHY, EndpointHealth(at(1)), "t1")

    def test_a_failure_from_before_a_success_is_not_noted_after_it(self, store: Store) -> None:
        failing, confirmed = EndpointHealth(at(1)), EndpointHealth(at(1), at(43_201))
        store.note_endpoint_health("default", "url_1", HEALTHY, failing, "t1")
        assert store.note_endpoint_health("default", "url_1", failing, HEALTHY, "t2")
        assert not store.note_endpoint_health("default", "url_1", failing, confirmed, "t3")
        assert store.endpoint_health("default", "url_1") == HEALTHY

    def test_a_success_clears_what_another_has_noted_of_the_same_failures(self, store: Store) -> None:
        failing, confirmed = EndpointHealth(at(1)), EndpointHealth(at(1), at(43_201))
        store.note_endpoint_health("default", "url_1", HEALTHY, failing, "t1")
        store.note_endpoint_health("default", "url_1", failing, confirmed, "t2")
        assert store.note_endpoint_health("default", "url_1", failing, HEALTHY, "t3")
        assert store.endpoint_health("default", "url_1") == HEALTHY

    FAILING = ReceiverHealth(ReceiverState.FAILING)
    SLOW_AT_1 = ReceiverHealth(ReceiverState.SLOW, "url_1")
    SLOW = ReceiverHealth(ReceiverState.SLOW)
    LATE_AT_1 = ReceiverHealth(ReceiverState.LATE, "url_1")
    WELL_BUT_1 = ReceiverHealth(ReceiverState.WELL, "url_1")

    def note(
        self, store: Store, seen: ReceiverHealth, after: ReceiverHealth, token: str = "t1", host: str = "example.com"
    ) -> bool:
        return store.note_receiver_health("default", host, seen, after, now=at(1), token=token)

    def test_a_receivers_health_is_kept_until_it_is_well(self, store: Store) -> None:
        assert store.receiver_health("default", "example.com") == WELL
        states = [WELL, self.FAILING, self.SLOW_AT_1, self.SLOW, self.FAILING, WELL, self.SLOW_AT_1, WELL]
        states += [self.LATE_AT_1, self.WELL_BUT_1, self.LATE_AT_1, self.SLOW_AT_1, WELL]
        for seen, after in pairwise(states):
            assert self.note(store, seen, after)
            assert store.receiver_health("default", "example.com") == after
        assert self.note(store, WELL, self.SLOW)
        assert store.receiver_health("default", "example.com:8443") == WELL
        assert store.receiver_health("other", "example.com") == WELL

    def test_a_receivers_health_is_not_changed_by_who_saw_another(self, store: Store) -> None:
        slow_at_2 = self.SLOW_AT_1._replace(endpoint_id="url_2")
        assert self.note(store, WELL, self.SLOW_AT_1)
        for seen in (WELL, self.FAILING, self.SLOW, slow_at_2, self.LATE_AT_1, self.WELL_BUT_1):
            assert not self.note(store, seen, self.FAILING, "t2")
        assert not self.note(store, self.FAILING, WELL, "t2")
        assert store.receiver_health("default", "example.com") == self.SLOW_AT_1
        assert self.note(store, self.SLOW_AT_1, self.SLOW, "t2")
        assert not self.note(store, self.SLOW_AT_1, self.FAILING, "t3")
        assert not self.note(store, self.SLOW_AT_1, WELL, "t3")
        assert store.receiver_health("default", "example.com") == self.SLOW

    def test_a_note_on_a_receiver_that_is_sent_twice_meets_its_own_first_try(self, store: Store) -> None:
        for seen, after in pairwise([WELL, self.FAILING, self.SLOW, WELL, self.LATE_AT_1, self.WELL_BUT_1, WELL]):
            assert self.note(store, seen, after, f"{after}")
            assert self.note(store, seen, after, f"{after}")

    def test_of_many_who_note_that_a_receiver_fails_one_does(self, store: Store) -> None:
        barrier = Barrier(8)

        def note(number: int) -> bool:
            barrier.wait()
            return self.note(store, WELL, self.FAILING, f"n{number}")

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(note, range(8))) == 1


class TestSeats:
    def test_they_are_kept_and_not_changed_by_who_saw_others(self, store: Store) -> None:
        assert store.seats("default") == Seats()
        taken, _ = Seats().asked("a.example.com", "t1", at(0))
        assert store.change_seats("default", Seats(), taken, at(0))
        assert store.seats("default") == taken
        assert store.seats("other") == Seats()
        assert not store.change_seats("default", Seats(), taken, at(0))
        waiting = taken._replace(waiting={"b.example.com:8443": (at(1), at(21))}, version=2)
        assert store.change_seats("default", taken, waiting, at(21))
        assert store.seats("default") == waiting


class TestCopying:
    UPLOAD = Upload(1, "default/tsk_1/1.mp4", "u-1", 1024, "video/mp4", "https://cdn/v.mp4", '"etag"', 4096)

    def copying(self, store: Store) -> Task:
        task = registered(store)
        return store.save(task, advance(task, DONE, at(1)))

    def test_one_of_many_claims_a_fresh_copy(self, store: Store) -> None:
        self.copying(store)
        seen = store.work("tsk_1")
        assert seen is not None
        barrier = Barrier(8)

        def claim(number: int) -> bool:
            barrier.wait()
            return store.claim_work(seen, f"t{number}", None) is not None

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(claim, range(8))) == 1

    def test_a_fresh_copy_is_claimed_by_its_version_alone(self, store: Store) -> None:
        copying = self.copying(store)
        assert copying.due_at is not None
        held = store.claim_fresh_work("tsk_1", copying.version, "t1", copying.due_at)
        assert held is not None
        assert held == store.work("tsk_1")
        assert (held.tries, held.token, held.task.due_at) == (1, "t1", copying.due_at)
        assert [line.target for line in held.task.history] == [Status.QUEUED, Status.COPYING]
        assert store.claim_fresh_work("tsk_1", copying.version, "t1", copying.due_at) == held, "the SDK repeats it"
        assert store.claim_fresh_work("tsk_1", copying.version, "t2", copying.due_at) is None

    def test_no_copy_is_claimed_as_fresh_that_is_not(self, store: Store) -> None:
        task = registered(store)
        assert store.claim_fresh_work("tsk_1", task.version, "t1", at(0)) is None, "it is polled"
        copying = store.save(task, advance(task, DONE, at(1)))
        assert copying.due_at is not None
        assert store.claim_fresh_work("tsk_1", copying.version + 1, "t1", at(0)) is None
        assert store.claim_fresh_work("tsk_1", copying.version, "t1", copying.due_at + timedelta(seconds=1)) is None
        assert store.claim_fresh_work("tsk_2", copying.version, "t1", at(0)) is None
        seen = store.work("tsk_1")
        assert seen is not None
        held = store.claim_work(seen, "t0", None)
        assert held is not None
        put_off = store.postpone_work(held, at(200))
        assert store.claim_fresh_work("tsk_1", put_off.task.version, "t1", at(0)) is None, "it has been tried"

    def test_a_claim_counts_the_try_and_may_leave_the_index_alone(self, store: Store) -> None:
        copying = self.copying(store)
        seen = store.work("tsk_1")
        assert seen is not None
        held = store.claim_work(seen, "t1", None)
        assert held == store.work("tsk_1")
        assert held is not None
        assert (held.tries, held.token, held.task) == (1, "t1", copying)

    def test_a_claim_that_is_sent_twice_meets_its_own_first_try(self, store: Store) -> None:
        self.copying(store)
        seen = store.work("tsk_1")
        assert seen is not None
        held = store.claim_work(seen, "t1", at(100))
        assert store.claim_work(seen, "t1", at(100)) == held
        assert store.claim_work(seen, "t2", at(100)) is None

    def test_a_claim_with_a_new_end_is_shown_by_the_index(self, store: Store) -> None:
        self.copying(store)
        seen = store.work("tsk_1")
        assert seen is not None
        held = store.claim_work(seen, "t1", at(100))
        assert held == store.work("tsk_1")
        (shown,) = due(store)
        assert isinstance(shown, Task)
        assert (shown.due_at, shown.version) == (at(100), 3)

    def test_a_claim_taken_over_marks_the_copy_as_interrupted(self, store: Store) -> None:
        self.copying(store)
        seen = store.work("tsk_1")
        assert seen is not None
        first = store.claim_work(seen, "t1", at(60))
        assert first is not None
        second = store.claim_work(first, "t2", at(120))
        assert second is not None
        assert second.interrupted
        assert store.work("tsk_1") == second

    def test_who_lost_the_claim_can_write_nothing(self, store: Store) -> None:
        self.copying(store)
        seen = store.work("tsk_1")
        assert seen is not None
        lost = store.claim_work(seen, "t1", at(60))
        assert lost is not None
        assert store.claim_work(lost, "t2", at(120)) is not None
        with pytest.raises(ClaimLostError):
            store.renew_work(lost, at(200))
        with pytest.raises(ClaimLostError):
            store.note_upload(lost, self.UPLOAD)
        with pytest.raises(ClaimLostError):
            store.postpone_work(lost, at(200))
        with pytest.raises(VersionConflictError):
            store.save(lost.task, copied(lost.task, [FILE], at(70)), token="t1")

    def test_a_cancellation_ends_a_claim(self, store: Store) -> None:
        copying = self.copying(store)
        seen = store.work("tsk_1")
        assert seen is not None
        held = store.claim_work(seen, "t1", None)
        assert held is not None
        store.save(copying, cancel(copying, at(10)))
        with pytest.raises(ClaimLostError):
            store.renew_work(held, at(200))
        with pytest.raises(VersionConflictError):
            store.save(held.task, copied(held.task, [FILE], at(20)), token="t1")

    def test_uploads_and_files_are_kept_between_tries(self, store: Store) -> None:
        self.copying(store)
        seen = store.work("tsk_1")
        assert seen is not None
        held = store.claim_work(seen, "t1", None)
        assert held is not None
        held = store.note_upload(held, self.UPLOAD)
        assert store.work("tsk_1") == held
        for number in (2, 3):
            again = store.claim_work(store.postpone_work(held, at(number)), f"t{number}", None)
            assert again is not None
            held = again
        held = store.note_upload(held, self.UPLOAD, progressed=True)
        assert (held.tries, held.begun) == (1, 1), "one for the upload"
        assert store.work("tsk_1") == held
        held = store.note_upload(store.note_upload(held, None), replace(self.UPLOAD, upload_id="u-2"))
        assert store.work("tsk_1") == held
        held = store.note_upload(held, replace(self.UPLOAD, upload_id="u-2"), progressed=True)
        assert (held.tries, held.begun) == (1, 2), "there was one try"
        held = store.note_upload(held, None, stored=FILE, progressed=True)
        assert (held.tries, held.begun) == (0, 0)
        assert store.work("tsk_1") == held
        assert (held.upload, held.stored) == (None, (FILE,))
        problem = PollError("copy", "the source broke off", at(9))
        put_off = store.postpone_work(held, at(300), problem=problem)
        assert store.work("tsk_1") == put_off
        assert (put_off.token, put_off.task.last_poll_error) == (None, problem)

    def test_completion_forgets_what_only_the_copy_needed(self, store: Store) -> None:
        self.copying(store)
        seen = store.work("tsk_1")
        assert seen is not None
        held = store.claim_work(seen, "t1", None)
        assert held is not None
        held = store.note_upload(held, self.UPLOAD)
        store.save(held.task, copied(held.task, [FILE], at(20)), token="t1")
        after = store.work("tsk_1")
        assert after is not None
        assert (after.task.status, after.token, after.tries, after.upload) == (Status.COMPLETED, None, 0, None)


class TestDeleting:
    ATTEMPT = Attempt(
        task_id="tsk_1",
        event="task.completed",
        endpoint_id="url_1",
        at=at(7),
        number=1,
        status=500,
        error=None,
        detail=None,
        body="",
        duration_ms=12,
        manual=False,
        next_at=at(12),
    )

    def deleted(self, store: Store, task: Task) -> Work:
        """The work that a deleted task leaves, claimed."""
        store.delete(task, delete(task, at(10)))
        work = store.work(task.task_id)
        assert work is not None
        held = store.claim_work(work, "t1", at(130))
        assert held is not None
        return held

    def test_a_deleted_task_is_shown_to_the_clean_up_and_its_request_is_gone(self, store: Store) -> None:
        task = registered(store)
        saved = store.delete(task, delete(task, at(10)))
        assert store.task("tsk_1") == saved
        assert (saved.version, saved.deleted) == (2, True)
        assert store.request("tsk_1") is None
        (shown,) = due(store)
        assert isinstance(shown, Task)
        assert (shown.step, shown.due_at) == (Step.CLEAN, at(70))

    @pytest.mark.parametrize("outcome", [None, DONE], ids=["with the provider", "copying"])
    def test_its_render_can_be_watched_again_at_once(self, store: Store, outcome: Observation | None) -> None:
        task = registered(store)
        task = store.save(task, advance(task, outcome, at(1))) if outcome else task
        store.delete(task, delete(task, at(10)))
        registered(store, a_task("tsk_2"))
        assert store.task("tsk_2") is not None

    def test_the_marker_of_a_render_that_is_watched_anew_stays(self, store: Store) -> None:
        task = registered(store)
        copying = store.save(task, advance(task, DONE, at(1)))
        registered(store, a_task("tsk_2"))
        store.delete(copying, delete(copying, at(10)))
        third = a_task("tsk_3")
        with pytest.raises(AlreadyOngoingError):
            store.register(third, a_request(third))

    def test_pending_deliveries_go_with_it_as_many_as_a_task_may_have(self, store: Store) -> None:
        task = registered(store)
        early = [replace(a_delivery(task, f"url_{n}"), event="task.processing") for n in range(MAX_ENDPOINTS)]
        task = store.save(task, advance(task, Observation(ProviderState.PROCESSING), at(1)), early)
        task = store.save(task, cancel(task, at(5)), [a_delivery(task, f"url_{n}") for n in range(MAX_ENDPOINTS)])
        assert len(due(store)) == 2 * MAX_ENDPOINTS
        store.delete(task, delete(task, at(10)))
        assert store.deliveries("tsk_1") == ()
        assert [type(item) for item in due(store)] == [Task]

    def test_an_attempt_that_is_under_way_meanwhile_can_write_nothing_back(self, store: Store) -> None:
        task = registered(store)
        delivery = a_delivery(task)
        ended = store.save(task, cancel(task, at(5)), [delivery])
        held = store.claim_delivery(delivery, "t1", None)
        assert held is not None
        store.delete(ended, delete(ended, at(10)))
        assert store.claim_delivery(delivery, "t2", None) is None
        assert not store.finish_delivery(held, judge(held, Answer(204), at(11), 0.5))
        assert not store.finish_delivery(held, judge(held, Answer(500), at(11), 0.5))
        assert store.deliveries("tsk_1") == ()

    def test_a_copy_that_is_under_way_meanwhile_can_write_nothing_back(self, store: Store) -> None:
        task = registered(store)
        copying = store.save(task, advance(task, DONE, at(1)))
        seen = store.work("tsk_1")
        assert seen is not None
        held = store.claim_work(seen, "t1", None)
        assert held is not None
        held = store.note_upload(held, TestCopying.UPLOAD)
        store.delete(copying, delete(copying, at(10)))
        left = store.work("tsk_1")
        assert left is not None
        assert (left.token, left.tries, left.upload, left.stored) == (None, 0, None, ())
        with pytest.raises(ClaimLostError):
            store.renew_work(held, at(200))
        with pytest.raises(ClaimLostError):
            store.note_upload(held, replace(TestCopying.UPLOAD, upload_id="u-2"))
        with pytest.raises(VersionConflictError) as caught:
            store.save(held.task, copied(held.task, [FILE], at(20)), token="t1")
        assert caught.value.current == left.task

    def test_a_clean_up_that_is_under_way_meanwhile_loses_its_claim(self, store: Store) -> None:
        task = registered(store)
        copying = store.save(task, advance(task, DONE, at(1)))
        cancelled = store.save(copying, cancel(copying, at(2)))
        seen = store.work("tsk_1")
        assert seen is not None
        held = store.claim_work(seen, "t1", None)
        assert held is not None
        store.delete(cancelled, delete(cancelled, at(10)))
        with pytest.raises(VersionConflictError):
            store.save(held.task, cleaned(held.task), token="t1")
        again = store.work("tsk_1")
        assert again is not None
        assert (again.token, again.tries, again.task.due_at) == (None, 0, at(70))

    def test_who_meets_another_writer_changes_nothing_and_learns_the_winners_state(self, store: Store) -> None:
        task = registered(store)
        delivery = a_delivery(task)
        winner = store.save(task, cancel(task, at(1)), [delivery])
        with pytest.raises(VersionConflictError) as caught:
            store.delete(task, delete(task, at(2)))
        assert caught.value.current == winner
        assert store.request("tsk_1") == a_request(task)
        assert store.deliveries("tsk_1") == (delivery,)

    def test_of_many_who_delete_a_task_one_does(self, store: Store) -> None:
        task = registered(store)
        barrier = Barrier(8)

        def remove(number: int) -> tuple[bool, Task | None]:
            barrier.wait()
            try:
                return True, store.delete(task, delete(task, at(number)))
            except VersionConflictError as lost:
                return False, lost.current

        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(remove, range(8)))
        assert sum(first for first, _ in done) == 1
        assert {current for _, current in done if current is None or not current.deleted} == set()

    def test_a_task_that_is_gone_cannot_be_deleted(self, store: Store) -> None:
        task = a_task()
        with pytest.raises(VersionConflictError) as caught:
            store.delete(task, delete(task, at(1)))
        assert caught.value.current is None
        assert store.task("tsk_1") is None

    def test_it_is_forgotten_whole_and_nothing_else_is(self, store: Store) -> None:
        task, other = registered(store), registered(store, a_task("tsk_11", provider_task_id="p-11"))
        task = store.save(task, cancel(task, at(5)), [a_delivery(task)])
        sent = store.claim_delivery(a_delivery(task), "t1", None)
        assert sent is not None
        store.finish_delivery(sent, judge(sent, Answer(204), at(6), 0.5))
        store.put_attempt(self.ATTEMPT, 2_000_000_000)
        held = self.deleted(store, task)
        late = replace(self.ATTEMPT, number=2, at=at(11))
        store.put_attempt(late, 2_000_000_000)
        store.forget(held)
        assert (store.task("tsk_1"), store.request("tsk_1")) == (None, None)
        assert (store.deliveries("tsk_1"), store.attempts("tsk_1")) == ((), ())
        assert due(store) == [replace(other, history=(), progress_known=False)]
        assert store.request("tsk_11") == a_request(other)

    def test_more_than_a_page_is_forgotten_to_its_end(self, store: Store) -> None:
        held = self.deleted(store, registered(store))
        for number in range(30):  # of 40 kB each
            store.put_attempt(replace(self.ATTEMPT, number=number, at=at(number), body="x" * 40_000), 2_000_000_000)
        store.forget(held)
        assert store.attempts("tsk_1") == ()
        assert store.task("tsk_1") is None

    def test_who_lost_the_claim_leaves_the_task_to_its_successor(self, store: Store) -> None:
        lost = self.deleted(store, registered(store))
        held = store.claim_work(lost, "t2", at(200))
        assert held is not None
        with pytest.raises(ClaimLostError):
            store.forget(lost)
        assert store.work("tsk_1") == held
        store.forget(held)
        assert store.work("tsk_1") is None

    def test_a_forgetting_that_is_sent_twice_meets_its_own_first_try(self, store: Store) -> None:
        held = self.deleted(store, registered(store))
        store.forget(held)
        store.forget(held)
        assert store.work("tsk_1") is None


class TestDeliveries:
    def made(self, store: Store) -> Delivery:
        task = registered(store)
        delivery = a_delivery(task)
        store.save(task, cancel(task, at(5)), [delivery])
        return delivery

    def test_one_of_many_claims_a_fresh_delivery(self, store: Store) -> None:
        delivery = self.made(store)
        barrier = Barrier(8)

        def claim(number: int) -> bool:
            barrier.wait()
            return store.claim_delivery(delivery, f"t{number}", None) is not None

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(claim, range(8))) == 1

    def test_a_claim_that_is_sent_twice_meets_its_own_first_try(self, store: Store) -> None:
        delivery = self.made(store)
        held = store.claim_delivery(delivery, "t1", None)
        assert store.claim_delivery(delivery, "t1", None) == held
        assert store.claim_delivery(delivery, "t2", None) is None

    def test_a_delivered_one_is_due_no_more(self, store: Store) -> None:
        held = store.claim_delivery(self.made(store), "t1", None)
        assert held is not None
        after = judge(held, Answer(204), at(6), 0.5)
        assert store.finish_delivery(held, after)
        assert store.deliveries("tsk_1") == (after,)
        assert after.state is DeliveryState.DELIVERED
        assert due(store) == []
        assert store.claim_delivery(after, "t2", at(90)) is None

    def test_a_failed_one_is_due_again_on_its_schedule(self, store: Store) -> None:
        held = store.claim_delivery(self.made(store), "t1", None)
        assert held is not None
        after = judge(held, Answer(500), at(6), 0.5)
        store.finish_delivery(held, after)
        (shown,) = due(store)
        assert isinstance(shown, DueDelivery)
        assert shown.due_at == at(11)
        assert store.delivery(*shown.key) == after

    def test_who_lost_the_claim_cannot_finish(self, store: Store) -> None:
        held = store.claim_delivery(self.made(store), "t1", at(60))
        assert held is not None
        assert store.claim_delivery(held, "t2", at(120)) is not None
        assert not store.finish_delivery(held, judge(held, Answer(204), at(70), 0.5))

    def test_a_disabled_one_ends(self, store: Store) -> None:
        held = store.claim_delivery(self.made(store), "t1", None)
        assert held is not None
        after = judge(held, Answer(500), at(6), 0.5, disabled=True)
        assert store.finish_delivery(held, after)
        assert store.deliveries("tsk_1") == (after,)
        assert due(store) == []

    def test_attempts_at_the_same_moment_are_kept_for_each_event(self, store: Store) -> None:
        first = Attempt(
            task_id="tsk_1",
            event="task.processing",
            endpoint_id="url_1",
            at=at(1),
            number=1,
            status=204,
            error=None,
            detail=None,
            body="",
            duration_ms=12,
            manual=False,
            next_at=None,
        )
        second = replace(first, event="task.completed")
        store.put_attempt(first, None)
        store.put_attempt(second, None)
        assert set(store.attempts("tsk_1")) == {first, second}

    def test_one_that_has_ended_is_due_again_when_its_owner_asks_and_listed_no_more(self, store: Store) -> None:
        held = store.claim_delivery(self.made(store), "t1", None)
        assert held is not None
        ended = judge(held, Answer(500), at(6), 0.5, disabled=True)
        store.finish_delivery(held, ended)
        assert self.listed(store) == [at(6)]
        asked = redelivered(ended, at(9))
        assert asked is not None
        assert store.reopen_delivery(ended, asked)
        assert self.listed(store) == []
        (shown,) = due(store)
        assert isinstance(shown, DueDelivery)
        assert shown.due_at == at(9)
        assert store.delivery(*shown.key) == asked
        assert not store.reopen_delivery(ended, asked), "it is not as it was seen"
        again = store.claim_delivery(asked, "t2", at(69))
        assert again == replace(asked, token="t2", tries=2, due_at=at(69))
        back = judge(again, Answer(500), at(10), 0.5)
        assert store.finish_delivery(again, back)
        assert store.deliveries("tsk_1") == (back,)
        assert (back.state, self.listed(store)) == (DeliveryState.DISABLED, [at(10)])

    def listed(self, store: Store) -> list[datetime]:
        """When those that were given up for the endpoint failed, as the index has it."""
        found = store._query(
            IndexName="list",
            KeyConditionExpression="list_pk = :pk",
            ExpressionAttributeValues={":pk": {"S": "FAILED#url_1"}},
        )
        return [datetime.fromisoformat(item["list_sk"]) for item in found]

    def test_who_saw_one_before_its_owner_asked_cannot_claim_it(self, store: Store) -> None:
        seen = self.made(store)
        asked = redelivered(seen, at(5))
        assert asked is not None
        assert store.reopen_delivery(seen, asked)
        assert store.claim_delivery(seen, "t1", None) is None
        held = store.claim_delivery(asked, "t1", at(60))
        assert held is not None
        assert held.manual
        assert not store.reopen_delivery(asked, replace(asked, due_at=at(9))), "it is being sent"
        after_death = store.claim_delivery(held, "t2", at(120))
        assert after_death is not None
        assert not after_death.manual, "the owner asked for the try that ran out"
        assert store.delivery("TASK#tsk_1", "DELIVERY#task.completed#url_1") == after_death

    def test_one_that_is_gone_is_not_made_again(self, store: Store) -> None:
        seen = a_delivery(registered(store))
        asked = redelivered(seen, at(5))
        assert asked is not None
        assert not store.reopen_delivery(seen, asked)
        assert store.deliveries("tsk_1") == ()

    def test_attempts_come_newest_first_in_pages(self, store: Store) -> None:
        attempts = [replace(TestDeleting.ATTEMPT, at=at(n // 2), event=f"task.{n % 2}", number=n) for n in range(7)]
        for attempt in attempts:
            store.put_attempt(attempt, None)
        store.put_attempt(replace(TestDeleting.ATTEMPT, task_id="tsk_10"), None)
        newest = tuple(attempts[::-1])
        assert store.newest_attempts("tsk_1", 7) == (newest, None)
        assert store.newest_attempts("tsk_9", 7) == ((), None)
        found, place = store.newest_attempts("tsk_1", 3)
        assert (found, place is None) == (newest[:3], False)
        more, place = store.newest_attempts("tsk_1", 3, place)
        assert more == newest[3:6]
        assert store.newest_attempts("tsk_1", 3, place) == (newest[6:], None)

    def test_an_attempt_is_removed_alone(self, store: Store) -> None:
        first = TestDeleting.ATTEMPT
        others = (replace(first, at=at(8)), replace(first, event="task.processing"), replace(first, task_id="tsk_2"))
        for attempt in (first, *others):
            store.put_attempt(attempt, None)
        for _ in range(2):
            store.remove_attempt(first)
        assert {*store.attempts("tsk_1"), *store.attempts("tsk_2")} == set(others)

    def test_attempts_are_kept_in_their_order(self, store: Store) -> None:
        attempts = [
            Attempt(
                task_id="tsk_1",
                event="task.completed",
                endpoint_id="url_1",
                at=at(number),
                number=number,
                status=None if number == 2 else 500,
                error="timeout" if number == 2 else None,
                detail="example.com took longer than 15 s" if number == 2 else None,
                body="oops",
                duration_ms=12,
                manual=False,
                next_at=at(100),
            )
            for number in (2, 1)
        ]
        for attempt in attempts:
            store.put_attempt(attempt, 2_000_000_000)
        assert store.attempts("tsk_1") == tuple(reversed(attempts))

    def given_up(self, store: Store, task_id: str, minutes: int, endpoint_id: str = "ep_1", **fields: Any) -> Delivery:
        """A delivery whose last attempt was some minutes after the start."""
        task = registered(store, a_task(task_id, provider_task_id=task_id))
        made = a_delivery(task, endpoint_id)
        store.save(task, cancel(task, at(5)), [made])
        held = store.claim_delivery(made, "t1", None)
        assert held is not None
        told = {"state": DeliveryState.EXHAUSTED, "due_at": None, "token": None, "last_attempt_at": at(60 * minutes)}
        after = replace(held, **{**told, **fields})
        assert store.finish_delivery(held, after)
        return after

    def test_what_was_given_up_is_listed_by_endpoint_and_time_until_it_is_taken_up_again(self, store: Store) -> None:
        late, early = self.given_up(store, "tsk_1", 9), self.given_up(store, "tsk_2", 2)
        self.given_up(store, "tsk_3", 3, "ep_2")
        self.given_up(store, "tsk_4", 4, state=DeliveryState.GONE)
        self.given_up(store, "tsk_5", 5, last_error=TASK_GONE)
        unsent = self.given_up(store, "tsk_6", 0, state=DeliveryState.DISABLED, last_attempt_at=None)

        def listed(since: float) -> list[str]:
            return [pk for pk, _ in store.given_up("ep_1", at(since))]

        assert listed(0) == ["TASK#tsk_6", "TASK#tsk_2", "TASK#tsk_1"], "one without an attempt by its making"
        assert listed(120) == ["TASK#tsk_2", "TASK#tsk_1"]
        assert listed(121) == ["TASK#tsk_1"]
        assert list(store.given_up("ep_1", datetime(9450, 1, 11, tzinfo=UTC))) == []
        again = reopened(early, at(600))
        assert store.reopen_delivery(early, again)
        assert not store.reopen_delivery(early, again), "it is pending"
        assert store.delivery("TASK#tsk_2", "DELIVERY#task.completed#ep_1") == again
        assert listed(0) == ["TASK#tsk_6", "TASK#tsk_1"]
        assert [one.key[0] for one in store.due(SLOT, at(601)) if isinstance(one, DueDelivery)] == ["TASK#tsk_2"]
        assert store.claim_delivery(again, "t2", None) is not None
        assert not store.reopen_delivery(replace(late, tries=7), reopened(late, at(600))), "not as it was seen"
        assert store.reopen_delivery(unsent, reopened(unsent, at(600)))

    def test_a_test_is_kept_with_its_owner_and_its_attempts_with_it(self, store: Store) -> None:
        tests = [
            new_delivery(
                task_id=test_id,
                owner="default",
                event=TEST_EVENT,
                endpoint_id=endpoint_id,
                receiver="example.com",
                url="https://example.com/hook",
                slot=SLOT,
                ttl=2_000_000_000,
                now=at(5),
            )
            for endpoint_id, test_id in (("ep_1", "tst_1"), ("ep_1", "tst_2"), ("ep_11", "tst_3"))
        ]
        keys = [store.put_delivery(one) for one in tests]
        assert keys[0] == ("OWNER#default", "DELIVERY#endpoint.test#ep_1#tst_1")
        assert endpoint_of(keys[0][1]) == "ep_1"
        assert store.newest_tests("default", "ep_1", 5) == (tests[1], tests[0])
        assert store.newest_tests("default", "ep_1") == (tests[1],)
        assert store.newest_tests("other", "ep_1") == ()
        shown = [one for one in store.due(SLOT, at(100)) if isinstance(one, DueDelivery)]
        assert {(one.key, one.endpoint_id) for one in shown} == {
            (key, one.endpoint_id) for key, one in zip(keys, tests, strict=True)
        }
        held = store.claim_delivery(tests[0], "t1", None)
        assert held is not None
        records = [
            replace(
                TestDeleting.ATTEMPT, event=TEST_EVENT, endpoint_id="ep_1", task_id=test_id, at=at(n), owner="default"
            )
            for n, test_id in ((8, "tst_1"), (7, "tst_1"), (6, "tst_2"))
        ]
        for record in records:
            store.put_attempt(record, 2_000_000_000)
        assert store.attempts_of(held) == (records[1], records[0])
        assert store.finish_delivery(held, judge(held, Answer(204), at(9), 0.5))
        found = store.delivery(*keys[0])
        assert found is not None
        assert (found.state, found.task_id) == (DeliveryState.DELIVERED, "tst_1")
        assert list(store.given_up("ep_1", at(0))) == []

    def test_the_attempts_of_one_delivery_are_its_own(self, store: Store) -> None:
        first = TestDeleting.ATTEMPT
        for attempt in (first, replace(first, event="task.processing"), replace(first, endpoint_id="url_9")):
            store.put_attempt(attempt, None)
        assert store.attempts_of(a_delivery(a_task(), first.endpoint_id)) == (first,)


class TestEndpoints:
    ENDPOINT = Endpoint(
        endpoint_id="ep_1",
        owner="default",
        url="https://example.com/hook",
        events=("task.completed", "task.failed"),
        created_at=at(1),
        description="Zoë",
        headers={"Authorization": "Bearer x", "x-n": "1"},
        disabled_at=at(2),
        disabled_by="owner",
        generation=3,
        rotated_at=at(3),
    )

    def test_an_endpoint_is_read_as_it_was_made(self, store: Store) -> None:
        assert store.endpoint("default", "ep_1") is None
        assert store.add_endpoint(self.ENDPOINT, 20)
        assert store.endpoint("default", "ep_1") == self.ENDPOINT
        assert store.endpoint("other", "ep_1") is None
        plain = Endpoint(
            endpoint_id="ep_2", owner="default", url="https://e.com/", events=("task.failed",), created_at=at(9)
        )
        assert store.add_endpoint(plain, 20)
        assert store.endpoints("default") == (self.ENDPOINT, plain)
        store.note_endpoint_health("default", "ep_1", HEALTHY, EndpointHealth(at(1)), "t1")
        store.note_endpoint_health("default", "url_1", HEALTHY, EndpointHealth(at(1)), "t1")
        assert store.managed_healths("default") == {"ep_1": EndpointHealth(at(1))}

    def test_the_ways_to_several_are_read_at_once(self, store: Store) -> None:
        assert store.add_endpoint(self.ENDPOINT, 20)
        failing, slow = EndpointHealth(at(1)), ReceiverHealth(ReceiverState.FAILING, "ep_1")
        assert store.note_endpoint_health("default", "ep_1", HEALTHY, failing, "t1")
        assert store.note_receiver_health("default", "e.com", WELL, slow, now=at(0), token="t1")
        key = SigningKey("owner", "default", 2, at(4))
        assert store.note_rotation("default", SigningKey("owner", "default"), key)
        places = [("ep_1", "e.com"), ("ep_2", "e.com"), ("url_1", "f.com"), ("bus", "bus")]
        assert store.ways("default", places) == {
            "ep_1": Way(self.ENDPOINT.signing, self.ENDPOINT, failing, slow),
            "ep_2": Way(None, None, HEALTHY, slow),
            "url_1": Way(key, None, HEALTHY, WELL),
            "bus": Way(key, None, HEALTHY, WELL),
        }
        assert store.ways("other", places[2:3]) == {"url_1": Way(SigningKey("owner", "other"), None, HEALTHY, WELL)}

    def test_of_many_made_at_once_no_more_than_allowed_are_there(self, store: Store) -> None:
        barrier = Barrier(6)

        def make(number: int) -> bool:
            barrier.wait()
            for _ in range(20):
                try:
                    return store.add_endpoint(replace(self.ENDPOINT, endpoint_id=f"ep_{number}"), 4)
                except ConflictError:
                    continue
            raise AssertionError("always busy")

        with ThreadPoolExecutor(6) as pool:
            made = list(pool.map(make, range(6)))
        assert made.count(True) == len(store.endpoints("default")) == 4
        gone = store.endpoints("default")[0]
        assert store.remove_endpoint(gone)
        assert not store.remove_endpoint(gone), "which counts once"
        assert store.add_endpoint(gone, 4)
        assert not store.add_endpoint(replace(gone, endpoint_id="ep_9"), 4)
        assert store.add_endpoint(replace(gone, owner="other"), 4)

    @pytest.mark.parametrize("forget", [False, True])
    def test_a_change_is_written_if_nobody_was_before(self, store: Store, forget: bool) -> None:
        store.add_endpoint(self.ENDPOINT, 20)
        store.note_endpoint_health("default", "ep_1", HEALTHY, EndpointHealth(at(1)), "t1")
        after = replace(self.ENDPOINT, headers={}, disabled_at=None, disabled_by=None, url="https://example.com/2")
        saved = store.change_endpoint(self.ENDPOINT, after, forget_health=forget)
        assert saved == replace(after, version=2)
        assert store.endpoint("default", "ep_1") == saved
        assert store.endpoint_health("default", "ep_1").failing is not forget
        assert store.change_endpoint(self.ENDPOINT, after, forget_health=forget) is None
        store.remove_endpoint(saved)
        assert store.change_endpoint(saved, after, forget_health=forget) is None
        assert store.endpoint("default", "ep_1") is None
        assert store.endpoint_health("default", "ep_1") == HEALTHY

    def test_of_two_rotations_from_the_same_state_one_stands(self, store: Store) -> None:
        first = store.signing("default")
        assert first == SigningKey("owner", "default")
        second = first.rotated(at(1))
        assert store.note_rotation("default", first, second)
        assert not store.note_rotation("default", first, first.rotated(at(2)))
        assert store.signing("default") == second
        assert store.note_rotation("default", second, second.rotated(at(3)))
        assert store.signing("default").generation == 3
        assert store.signing("other").generation == 1

    def test_attempts_are_counted_by_day_and_endpoint(self, store: Store) -> None:
        for endpoint_id, day, delivered in (
            *(("ep_1", 1, True), ("ep_1", 1, True), ("ep_1", 1, False), ("ep_1", 3, False)),
            *(("ep_11", 3, True), ("ep_1", 9, True)),
        ):
            on = (BORN + timedelta(days=day)).date()
            store.count_attempt("default", endpoint_id, on, delivered=delivered, ttl=2_000_000_000)
        since = (BORN + timedelta(days=2)).date()
        assert store.attempt_counts("default", BORN.date(), "ep_1") == {"ep_1": AttemptCounts(3, 2)}
        assert store.attempt_counts("default", since) == {"ep_1": AttemptCounts(1, 1), "ep_11": AttemptCounts(1, 0)}
        assert store.attempt_counts("other", since) == {}

    def test_a_health_is_forgotten_alone(self, store: Store) -> None:
        for one in ("ep_1", "ep_2"):
            store.note_endpoint_health("default", one, HEALTHY, EndpointHealth(at(1)), "t1")
        for _ in range(2):
            store.forget_endpoint_health("default", "ep_1")
        assert store.managed_healths("default") == {"ep_2": EndpointHealth(at(1))}


class TestKeptAnswers:
    BEGUN = KeptAnswer("asked", "call-1", at(30), at(86_400).replace(microsecond=0), Seed("call-1", at(1)))
    ANSWER = BEGUN._replace(status=201, content_type="application/json", body='{"task_id": "tsk_1", "said": "ü"}')

    def test_an_answer_is_read_as_it_was_kept(self, store: Store) -> None:
        assert store.kept_answer("default", "a") is None
        assert store.begin_answer("default", "a", self.BEGUN, seen=None)
        assert store.kept_answer("default", "a") == self.BEGUN
        assert store.keep_answer("default", "a", self.ANSWER)
        assert store.kept_answer("default", "a") == self.ANSWER
        assert store.kept_answer("other", "a") is None

    def test_of_two_calls_that_saw_the_same_one_begins(self, store: Store) -> None:
        other = self.BEGUN._replace(token="call-2")
        assert store.begin_answer("default", "a", self.BEGUN, seen=None)
        assert not store.begin_answer("default", "a", other, seen=None)
        assert store.begin_answer("default", "a", self.BEGUN, seen=None), "the SDK may repeat a call"

    def test_a_call_that_begins_again_forgets_the_answer_before(self, store: Store) -> None:
        store.begin_answer("default", "a", self.BEGUN, seen=None)
        store.keep_answer("default", "a", self.ANSWER)
        later = KeptAnswer(
            "asked otherwise",
            "call-2",
            at(100_030),
            at(186_400).replace(microsecond=0),
            Seed("call-2", at(100_000)),
        )
        assert store.begin_answer("default", "a", later, seen=self.ANSWER)
        assert store.kept_answer("default", "a") == later
        assert not store.keep_answer("default", "a", self.ANSWER), "another call stands there by now"
        assert store.kept_answer("default", "a") == later

    def test_a_call_that_is_released_runs_no_more_and_keeps_its_seed(self, store: Store) -> None:
        store.begin_answer("default", "a", self.BEGUN, seen=None)
        assert not store.release_answer("default", "a", "call-2", at(3))
        assert store.release_answer("default", "a", "call-1", at(3))
        assert store.kept_answer("default", "a") == self.BEGUN._replace(running_until=at(3))

    def test_a_call_forgets_itself_alone(self, store: Store) -> None:
        store.begin_answer("default", "a", self.BEGUN, seen=None)
        store.drop_answer("default", "a", "call-2")
        assert store.kept_answer("default", "a") == self.BEGUN
        store.drop_answer("default", "a", "call-1")
        store.drop_answer("default", "a", "call-1")
        assert store.kept_answer("default", "a") is None


def test_a_tasks_key_is_what_events_carry() -> None:
    assert task_key("tsk_1") == {"pk": "TASK#tsk_1", "sk": "TASK"}


def test_those_who_watch_a_render_are_found_by_it_whoever_they_are(store: Store) -> None:
    for n, owner in enumerate(("ann", "bob", "default")):
        registered(store, a_task(f"tsk_{n}", owner=owner))
    registered(store, a_task("tsk_8", provider_task_id="p-2"))
    registered(store, a_task("tsk_9", connection="other"))
    assert list(store.watched("studio", "p-1")) == ["tsk_0", "tsk_1", "tsk_2"]
    assert list(store.watched("studio", "unknown")) == []
    task = store.task("tsk_1")
    assert task is not None
    store.save(task, cancel(task, at(5)))
    assert list(store.watched("studio", "p-1")) == ["tsk_0", "tsk_2"]


def test_a_hint_is_kept_and_the_index_shows_it(store: Store) -> None:
    task = registered(store)
    saved = store.save(task, hinted(task, at(20)))
    assert store.task(task.task_id) == saved
    assert (saved.hint, saved.due_at, saved.version, saved.own_version) == (Hint(at(20), 1), at(20), 2, 1)
    (shown,) = store.due(SLOT, at(30), at(10))
    assert shown == replace(saved, history=(), progress_known=False)
    with pytest.raises(VersionConflictError):
        store.save(task, hinted(task, at(21)))
