"""What a poller tells the notifier, by its rules alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from time import process_time

import pytest

from renderbell.outbox import MAX_HANDED_OVER, Outbox
from renderbell.store import DueDelivery
from renderbell.task import Step, Task, new_task
from tests.virtual import START


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def a_copy(name: str = "one", *, due_s: float = 60, version: int = 2, step: Step = Step.COPY) -> Task:
    task = new_task(
        task_id=name,
        owner="default",
        connection="studio",
        provider="jimmy",
        provider_task_id=name,
        now=START,
        deadline_s=86_400,
        slot=0,
        tells_processing=False,
    )
    return replace(task, step=step, due_at=at(due_s), version=version)


def a_delivery(
    number: int, *, due_s: float = 60, endpoint: str = "hook", receiver: str = "example.com", owner: str = "default"
) -> DueDelivery:
    key = (f"TASK#{number:04}", f"DELIVERY#task.completed#{endpoint}")
    return DueDelivery(key, owner, receiver, endpoint, at(due_s))


def told(outbox: Outbox, now_s: float) -> list[list[str]]:
    """What each event sent now names."""
    found = []
    for payload in outbox.due(at(now_s)):
        items = payload.get("items", [payload])
        assert isinstance(items, list)
        found.append([item["pk"].removeprefix("TASK#") for item in items])
    return found


class TestACopy:
    def test_is_told_of_when_it_is_due_and_not_before(self) -> None:
        outbox = Outbox()
        outbox.merge([a_copy()], [], None)
        assert outbox.next_due() == at(60)
        assert told(outbox, 59.9) == []
        assert told(outbox, 60) == [["one"]]
        assert outbox.next_due() is None

    def test_is_told_of_once_a_version(self) -> None:
        outbox = Outbox()
        outbox.merge([a_copy()], [], None)
        assert told(outbox, 60) == [["one"]]
        outbox.merge([a_copy()], [], at(45))
        assert told(outbox, 63) == []
        outbox.merge([a_copy(version=3, due_s=66)], [], at(48))
        assert told(outbox, 66) == [["one"]]

    def test_that_a_look_no_longer_shows_is_not_told_of(self) -> None:
        outbox = Outbox()
        outbox.merge([a_copy(due_s=60)], [], None)
        outbox.merge([], [], at(50))
        assert told(outbox, 60) == []

    def test_from_before_the_look_s_window_is_still_told_of(self) -> None:
        outbox = Outbox()
        outbox.merge([a_copy(due_s=40)], [], None)
        outbox.merge([], [], at(50))
        assert told(outbox, 60) == [["one"]]

    def test_that_leaves_something_to_clean_up_is_told_of_when_that_is_due(self) -> None:
        outbox = Outbox()
        outbox.merge([a_copy(step=Step.CLEAN)], [], None)
        assert told(outbox, 59) == []
        assert told(outbox, 60) == [["one"]]

    def test_that_is_put_off_is_told_of_at_its_new_time(self) -> None:
        outbox = Outbox()
        outbox.merge([a_copy()], [], None)
        outbox.merge([a_copy(version=3, due_s=90)], [], at(45))
        assert outbox.next_due() == at(90)
        assert told(outbox, 89) == []
        assert told(outbox, 90) == [["one"]]


class TestVeryManyDeliveries:
    @pytest.mark.parametrize("receivers", [1, 20_000])
    def test_are_asked_for_without_looking_at_each(self, receivers: int, measured: Callable[[str], None]) -> None:
        """The poller asks at each of its turns, many times a second."""
        outbox = Outbox()
        waiting = [a_delivery(number, receiver=f"r{number % receivers}.example") for number in range(20_000)]
        outbox.merge([], waiting, None)
        outbox.due(at(60))
        began = process_time()
        for _ in range(1000):
            outbox.next_due()
            outbox.due(at(61))
        turn_ms = process_time() - began
        measured(f"a turn of the outbox with 20,000 deliveries to {receivers} receivers: {turn_ms * 1000:.0f} µs")
        assert turn_ms < 0.5, "going through all takes 3 to 60 ms"


class TestDeliveries:
    def test_of_one_receiver_are_told_together_the_oldest_first(self) -> None:
        outbox = Outbox()
        outbox.merge([], [a_delivery(1, due_s=62), a_delivery(2, due_s=61), a_delivery(3, due_s=90)], None)
        assert outbox.next_due() == at(61)
        assert told(outbox, 65) == [["0002", "0001"]]

    def test_are_told_at_most_five_hundred_at_once(self) -> None:
        outbox = Outbox()
        outbox.merge([], [a_delivery(number) for number in range(1250)], None)
        assert [len(items) for items in told(outbox, 60)] == [500]

    def test_that_were_told_of_leave_the_next_turn_to_those_that_were_not(self) -> None:
        """A look shows no more whether what was due long before it has been done."""
        outbox = Outbox()
        outbox.merge([], [a_delivery(number) for number in range(1250)], None)
        named = [items for now_s in (60, 80, 100) for items in told(outbox, now_s)]
        assert [items[0] for items in named] == ["0000", "0500", "1000"]
        assert named[2][250] == "0000", "then the oldest again"

    def test_of_one_receiver_are_told_every_twenty_seconds(self) -> None:
        outbox = Outbox()
        outbox.merge([], [a_delivery(1)], None)
        assert told(outbox, 60) == [["0001"]]
        outbox.merge([], [a_delivery(1), a_delivery(2)], at(45))
        assert told(outbox, 79.9) == []
        assert outbox.next_due() == at(80)
        assert told(outbox, 80) == [["0002", "0001"]]

    def test_of_another_receiver_do_not_wait(self) -> None:
        outbox = Outbox()
        outbox.merge([], [a_delivery(1)], None)
        told(outbox, 60)
        others = [a_delivery(2, receiver="other.example.com"), a_delivery(3, owner="somebody")]
        outbox.merge([], [a_delivery(1), *others], at(45))
        assert sorted(told(outbox, 61)) == [["0002"], ["0003"]]

    def test_of_a_receiver_s_endpoints_take_turns(self) -> None:
        outbox = Outbox()
        backlog = [a_delivery(number, endpoint="failing", due_s=1) for number in range(1, 4)]
        good = [a_delivery(number, endpoint="good", due_s=50) for number in range(11, 13)]
        outbox.merge([], [*backlog, *good, a_delivery(21, endpoint="other", due_s=40)], None)
        assert told(outbox, 60) == [["0001", "0021", "0011", "0002", "0012", "0003"]]

    def test_of_one_endpoint_keep_those_of_another_waiting_for_no_turn(self) -> None:
        outbox = Outbox()
        backlog = [a_delivery(number, endpoint="failing", due_s=1) for number in range(2000)]
        outbox.merge([], [*backlog, a_delivery(3000, endpoint="good", due_s=50)], None)
        assert "3000" in told(outbox, 60)[0][:2]
        outbox.merge([], [a_delivery(3001, endpoint="good", due_s=70)], at(60))
        assert "3001" in told(outbox, 80)[0][:2]

    def test_of_very_many_endpoints_with_one_each_leave_the_next_turn_to_one_with_many(self) -> None:
        """Ever new URLs at a shared host; those told of already do not go before those that were not."""
        outbox = Outbox()
        singles = [a_delivery(number, endpoint=f"once{number}", due_s=1) for number in range(600)]
        outbox.merge([], [*singles, *[a_delivery(1000 + n, endpoint="good", due_s=2) for n in range(300)]], None)
        first, second = (told(outbox, now_s)[0] for now_s in (60, 80))
        assert len({*first, *second}) == 900

    def test_that_are_no_longer_shown_keep_nobody_waiting(self) -> None:
        outbox = Outbox()
        outbox.merge([], [a_delivery(1), a_delivery(2, endpoint="other"), a_delivery(3, due_s=100)], None)
        assert told(outbox, 60) == [["0001", "0002"]]
        assert outbox.next_due() == at(80)
        outbox.merge([], [a_delivery(3, due_s=100)], at(50))
        assert outbox.next_due() == at(100)
        outbox.merge([], [], at(65))
        assert outbox.next_due() is None
        assert told(outbox, 100) == []

    def test_that_are_put_off_are_told_of_at_their_new_time_alone(self) -> None:
        outbox = Outbox()
        outbox.merge([], [a_delivery(1, due_s=62)], None)
        outbox.merge([], [a_delivery(1, due_s=90)], at(50))
        assert outbox.next_due() == at(90)
        assert told(outbox, 89) == []
        assert told(outbox, 90) == [["0001"]]

    def test_that_come_back_into_view_are_told_of_again(self) -> None:
        """An index may show an older state for a moment."""
        outbox = Outbox()
        for found in ([a_delivery(1)], [], [a_delivery(1)]):
            outbox.merge([], found, at(50))
        assert told(outbox, 60) == [["0001"]]
        assert told(outbox, 80) == [["0001"]]

    def test_that_are_still_due_are_told_again_as_often_as_the_minute_allows(self) -> None:
        outbox = Outbox()
        outbox.merge([], [a_delivery(1)], None)
        asked = []
        for now_s in range(60, 180):
            outbox.merge([], [a_delivery(1)], at(now_s - 15) if now_s < 75 else at(60))
            asked += [now_s for _ in told(outbox, now_s)]
        assert asked == [60, 80, 100]
        assert outbox.next_due() is None, "the next tick begins anew"

    def test_that_were_told_too_often_are_left_to_the_next_tick(self) -> None:
        outbox = Outbox()
        outbox.merge([], [a_delivery(number) for number in range(750)], None)
        named = [items for now_s in range(60, 240, 20) for items in told(outbox, now_s)]
        assert [len(items) for items in named] == [500, 500, 500, 500, 250]
        assert {name for items in named for name in items} == {f"{number:04}" for number in range(750)}

    def test_of_a_receiver_that_another_tick_told_of_wait_for_their_turn(self) -> None:
        before, after = Outbox(), Outbox()
        before.merge([], [a_delivery(1)], None)
        told(before, 60)
        kept = before.told(at(63))
        assert kept == {"default example.com": at(80)}
        assert before.told(at(80)) == {}
        after.adopt(kept)
        after.merge([], [a_delivery(1), a_delivery(2, receiver="other.example.com")], None)
        assert told(after, 63) == [["0002"]]
        assert after.next_due() == at(80)
        assert told(after, 80) == [["0001"]]

    def test_are_handed_over_for_a_hundred_receivers_at_most(self) -> None:
        outbox = Outbox()
        outbox.merge(
            [], [a_delivery(number, receiver=f"r{number}.example", due_s=number) for number in range(150)], None
        )
        assert len(told(outbox, 150)) == 150
        assert len(outbox.told(at(153))) == MAX_HANDED_OVER == 100

    def test_that_failed_and_are_due_again_are_told_again(self) -> None:
        outbox = Outbox()
        outbox.merge([], [a_delivery(1)], None)
        for now_s in (60, 80, 100):
            told(outbox, now_s)
        outbox.merge([], [a_delivery(1, due_s=130)], at(60))
        assert outbox.next_due() == at(130)
        assert told(outbox, 129) == []
        assert told(outbox, 130) == [["0001"]]

    def test_that_a_look_no_longer_shows_are_not_told_of(self) -> None:
        outbox = Outbox()
        outbox.merge([], [a_delivery(1), a_delivery(2)], None)
        outbox.merge([], [a_delivery(2)], at(50))
        assert told(outbox, 60) == [["0002"]]

    def test_from_before_the_look_s_window_are_still_told_of(self) -> None:
        outbox = Outbox()
        outbox.merge([], [a_delivery(1, due_s=40)], None)
        outbox.merge([], [], at(50))
        assert told(outbox, 60) == [["0001"]]
