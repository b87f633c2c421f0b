"""What a poller tells the notifier, by its rules alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

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


def a_delivery(number: int, *, due_s: float = 60, endpoint: str = "hook", owner: str = "default") -> DueDelivery:
    return DueDelivery((f"TASK#{number:04}", f"DELIVERY#task.completed#{endpoint}"), owner, endpoint, at(due_s))


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


class TestDeliveries:
    def test_of_one_endpoint_are_told_together_the_oldest_first(self) -> None:
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

    def test_of_one_endpoint_are_told_every_twenty_seconds(self) -> None:
        outbox = Outbox()
        outbox.merge([], [a_delivery(1)], None)
        assert told(outbox, 60) == [["0001"]]
        outbox.merge([], [a_delivery(1), a_delivery(2)], at(45))
        assert told(outbox, 79.9) == []
        assert outbox.next_due() == at(80)
        assert told(outbox, 80) == [["0002", "0001"]]

    def test_of_another_endpoint_do_not_wait(self) -> None:
        outbox = Outbox()
        outbox.merge([], [a_delivery(1)], None)
        told(outbox, 60)
        others = [a_delivery(2, endpoint="other"), a_delivery(3, owner="somebody")]
        outbox.merge([], [a_delivery(1), *others], at(45))
        assert sorted(told(outbox, 61)) == [["0002"], ["0003"]]

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

    def test_of_an_endpoint_that_another_tick_told_of_wait_for_their_turn(self) -> None:
        before, after = Outbox(), Outbox()
        before.merge([], [a_delivery(1)], None)
        told(before, 60)
        kept = before.told(at(63))
        assert kept == {"default hook": at(80)}
        assert before.told(at(80)) == {}
        after.adopt(kept)
        after.merge([], [a_delivery(1), a_delivery(2, endpoint="other")], None)
        assert told(after, 63) == [["0002"]]
        assert after.next_due() == at(80)
        assert told(after, 80) == [["0001"]]

    def test_are_handed_over_for_a_hundred_endpoints_at_most(self) -> None:
        outbox = Outbox()
        outbox.merge([], [a_delivery(number, endpoint=f"hook{number}", due_s=number) for number in range(150)], None)
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
