"""What a poller holds in memory, by its rules alone: who is asked when, and what a successor has to know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import reduce
from typing import Any

import pytest

from renderbell.agenda import YIELD_S, Agenda, Group, Terms, most_in_flight
from renderbell.errors import (
    ProviderAuthError,
    ProviderError,
    ProviderProtocolError,
    ProviderTaskNotFound,
    ProviderUnavailable,
)
from renderbell.lengths import Lengths
from renderbell.schedule import CONNECTION_BACKOFF_S, PollSchedule, last_moment, next_moment
from renderbell.store import ConnectionHealth, Served
from renderbell.task import Hint, PollError, Status, Step, Streak, StreakKind, Task, hinted, new_task, set_apart
from tests.virtual import START

DEAD = ProviderUnavailable("dead")


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def seconds(time: datetime | None) -> float:
    assert time is not None
    return (time - START).total_seconds()


def a_task(name: str = "one", *, connection: str = "studio", created_s: float = 0, deadline_s: int = 86_400) -> Task:
    return new_task(
        task_id=name,
        owner="default",
        connection=connection,
        provider="jimmy",
        provider_task_id=name,
        now=at(created_s),
        deadline_s=deadline_s,
        slot=0,
        tells_processing=False,
    )


class Rig:
    """An agenda with its connections' terms and chance in the test's hands."""

    def __init__(self, *, concurrency: int = 64, interval_s: float = 60, chance: float = 0.5) -> None:
        self.terms: dict[str, Terms] = {}
        self.usual = Terms(PollSchedule(interval_s))
        self.chance = chance
        self.agenda = Agenda(
            concurrency=concurrency,
            terms=lambda name: self.terms.get(name, self.usual),
            random=lambda: self.chance,
        )

    def adopt(self, *tasks: Task, served: Served | None = None, now_s: float = 0) -> None:
        self.agenda.adopt(tasks, served or Served(), at(now_s))
        for name in self.agenda.unknown_health():
            self.agenda.set_health(name, None)

    def start(self, now_s: float) -> list[str]:
        return [task.task_id for task in self.agenda.start(at(now_s))]

    def finish(
        self, task: Task, now_s: float, error: ProviderError | None = None
    ) -> tuple[str, ConnectionHealth | None] | None:
        return self.agenda.finish(task.task_id, task, error, at(now_s))

    def next_s(self) -> float:
        return seconds(self.agenda.next_start(START))

    def served(self, now_s: float, *, looked_s: float | None = None, leaving: bool = False) -> Served:
        return self.agenda.served(at(now_s), at(now_s if looked_s is None else looked_s), leaving=leaving)


def grid(task: Task, after_s: float, interval_s: float = 60) -> float:
    """A task's first polling moment after a time."""
    return seconds(next_moment(PollSchedule(interval_s), task.created_at, task.task_id, at(after_s)))


class TestMoments:
    def test_several_missed_ones_are_one_poll(self) -> None:
        rig, task = Rig(), a_task()
        rig.adopt(task, now_s=3600)
        assert rig.start(3600) == ["one"]
        rig.finish(task, 3601)
        assert rig.next_s() == grid(task, 3601)

    def test_several_missed_since_they_were_last_served_are_one_poll(self) -> None:
        rig, task = Rig(), a_task()
        rig.adopt(task, served=Served(at(1000)), now_s=3600)
        assert rig.next_s() == seconds(last_moment(PollSchedule(60), START, "one", at(3600)))
        assert rig.start(3600) == ["one"]
        rig.finish(task, 3601)
        assert rig.next_s() == grid(task, 3601)

    def test_that_an_earlier_holder_has_asked_are_not_asked_again(self) -> None:
        rig, task = Rig(), a_task()
        rig.adopt(task, served=Served(at(300)), now_s=301)
        assert rig.next_s() == grid(task, 300)

    def test_are_asked_the_oldest_first(self) -> None:
        rig = Rig(concurrency=4)
        tasks = [a_task(f"t{number}") for number in range(12)]
        rig.adopt(*tasks, now_s=3600)
        asked = []
        for turn in range(3):
            started = rig.start(3600 + turn)
            asked += started
            for name in started:
                rig.finish(a_task(name), 3600 + turn)
        moments = [seconds(last_moment(PollSchedule(60), START, name, at(3600))) for name in asked]
        assert len(asked) == 12
        assert moments == sorted(moments)

    def test_include_one_at_the_deadline(self) -> None:
        rig, task = Rig(interval_s=300), a_task(deadline_s=65)
        rig.adopt(task)
        rig.start(0)
        rig.finish(task, 1)
        assert rig.next_s() == 65

    def test_of_a_task_that_is_adopted_include_one_at_the_deadline(self) -> None:
        rig, task = Rig(interval_s=300), a_task(deadline_s=65)
        rig.adopt(task, served=Served(at(30)), now_s=31)
        assert rig.next_s() == 65

    def test_after_a_deadline_without_an_answer_are_ten_seconds_apart(self) -> None:
        rig, task = Rig(interval_s=300), a_task(deadline_s=65)
        rig.adopt(task, now_s=66)
        rig.start(66)
        rig.finish(task, 67, ProviderProtocolError("HTML"))
        assert rig.next_s() == 77

    def test_long_after_the_deadline_the_task_is_given_up_once(self) -> None:
        rig, task = Rig(interval_s=300), a_task(deadline_s=65)
        rig.adopt(task, now_s=66)
        assert rig.agenda.overdue(at(124)) == []
        assert rig.agenda.overdue(at(126)) == [task]
        assert rig.agenda.overdue(at(129)) == []

    def test_in_doubt_are_the_tasks_own(self) -> None:
        rig, task = Rig(interval_s=10), a_task()
        rig.adopt(task)
        rig.start(0)
        doubted = replace(task, version=2, streak=Streak(StreakKind.NOT_FOUND, 1, at(1)), due_at=at(61))
        rig.finish(doubted, 1)
        assert rig.next_s() == 61

    def test_in_doubt_that_could_not_be_saved_follow_the_grid(self) -> None:
        rig = Rig(interval_s=10)
        doubted = replace(a_task(), version=2, streak=Streak(StreakKind.NOT_FOUND, 1, START), due_at=at(60))
        rig.adopt(doubted, served=Served(at(50)), now_s=51)
        assert rig.next_s() == 60
        rig.start(60)
        rig.finish(doubted, 60.1)  # as it was: the write failed
        assert rig.next_s() == grid(doubted, 60.1, 10)


class TestALook:
    def test_brings_new_tasks_which_are_asked_at_once(self) -> None:
        rig = Rig(interval_s=300)
        rig.adopt(a_task(), served=Served(at(300)), now_s=301)
        rig.agenda.notice([a_task("two", created_s=302)], at(303))
        assert rig.start(303) == ["two"]

    def test_that_shows_an_ended_task_once_more_does_not_bring_it_back(self) -> None:
        rig, task = Rig(), a_task()
        rig.adopt(task)
        rig.start(0)
        rig.finish(replace(task, version=2, step=Step.COPY), 1)
        rig.agenda.notice([task], at(3))
        assert rig.agenda.next_need() is None

    def test_that_shows_a_task_which_is_gone_does_not_bring_it_back(self) -> None:
        rig, task = Rig(), a_task()
        rig.adopt(task)
        rig.start(0)
        rig.agenda.finish("one", None, None, at(1))
        rig.agenda.notice([task], at(3))
        assert rig.agenda.next_need() is None

    def test_that_shows_an_older_version_changes_nothing(self) -> None:
        rig, task = Rig(), a_task()
        rig.adopt(task)
        rig.start(0)
        rig.finish(replace(task, version=2), 1)
        before = rig.next_s()
        rig.agenda.notice([task], at(3))
        assert rig.start(3) == []
        assert rig.next_s() == before

    def test_that_shows_what_another_ended_drops_the_task_in_flight(self) -> None:
        rig, task = Rig(), a_task()
        rig.adopt(task)
        rig.start(0)
        rig.agenda.notice([replace(task, version=3, step=Step.COPY)], at(3))
        rig.finish(replace(task, version=2), 4)
        assert rig.agenda.in_flight == 0
        assert rig.agenda.next_need() is None
        rig.agenda.notice([replace(task, version=2)], at(5))
        assert rig.agenda.next_need() is None

    def test_that_shows_a_newer_version_while_a_poll_is_under_way_keeps_it(self) -> None:
        rig, task = Rig(interval_s=10), a_task()
        rig.adopt(task)
        rig.start(0)
        newer = replace(task, version=3, streak=Streak(StreakKind.NOT_FOUND, 1, at(1)), due_at=at(61))
        rig.agenda.notice([newer], at(3))
        assert rig.start(3) == []
        rig.finish(replace(task, version=2), 4)
        assert rig.next_s() == 61


class TestProgress:
    SHOWN = replace(a_task(), progress_known=False)
    KNOWN = replace(a_task(), progress=40, progress_at=at(1))

    def test_that_is_known_stays_so_when_a_look_shows_a_newer_version(self) -> None:
        rig = Rig()
        rig.adopt(self.SHOWN)
        rig.start(0)
        rig.finish(self.KNOWN, 1)
        newer = replace(self.SHOWN, version=2, last_poll_error=PollError("unavailable", "503", at(3)))
        rig.agenda.notice([newer], at(4))
        (found,) = rig.agenda.known()
        assert (found.version, found.progress, found.progress_at, found.progress_known) == (2, 40, at(1), True)

    def test_that_a_poll_has_told_of_is_known_though_a_look_has_shown_a_newer_version_meanwhile(self) -> None:
        rig = Rig()
        rig.adopt(self.SHOWN)
        rig.start(0)
        rig.agenda.notice([replace(self.SHOWN, version=2)], at(0.5))
        rig.finish(self.KNOWN, 1)
        (found,) = rig.agenda.known()
        assert (found.version, found.progress) == (2, 40)

    def test_of_a_task_that_is_being_asked_may_change_in_a_moment(self) -> None:
        rig = Rig(concurrency=1)
        rig.adopt(a_task("one"), a_task("two"))
        asked = rig.start(0)
        rig.agenda.notice([a_task("three")], at(0))
        assert {task.task_id for task in rig.agenda.known()} == {"one", "two", "three"} - set(asked)

    def test_of_tasks_that_a_list_is_asked_for_is_told_of_all_the_same(self) -> None:
        rig = Rig(interval_s=10)
        rig.usual = rig.usual._replace(lists=True)
        tasks = [a_task(f"t{number}") for number in range(5)]
        rig.adopt(*tasks)
        assert rig.agenda.start_lists(at(0))
        assert len(rig.agenda.known()) == 5


class TestWhatIsServed:
    def flying(self) -> tuple[Rig, float]:
        """A task whose moment is not ten seconds old, in flight; the moment, in seconds."""
        rig, task = Rig(), a_task()
        moment = grid(task, 100)
        rig.adopt(task, served=Served(at(100)), now_s=101)
        assert rig.start(moment) == ["one"]
        return rig, moment

    def test_at_a_renewal_leaves_out_what_is_in_flight(self) -> None:
        rig, moment = self.flying()
        assert seconds(rig.served(moment + 3).until) == moment

    def test_at_a_renewal_leaves_out_what_has_long_been_in_flight(self) -> None:
        rig, moment = self.flying()
        assert rig.served(moment + 9).lagging == {"studio": at(moment)}

    def test_when_leaving_includes_what_is_in_flight(self) -> None:
        rig, moment = self.flying()
        served = rig.served(moment + 9, leaving=True)
        assert (seconds(served.until), served.lagging) == (moment + 9, {})

    def test_does_not_cover_the_youngest(self) -> None:
        rig = Rig(interval_s=300)
        covered, young = a_task("covered", created_s=584), a_task("young", created_s=586)
        rig.adopt(covered, young, served=Served(at(600)), now_s=601)
        assert rig.start(601) == ["young"]

    def test_covers_nothing_while_nothing_is_known(self) -> None:
        rig = Rig(interval_s=300)
        rig.adopt(a_task(), served=Served(), now_s=301)
        assert rig.start(301) == ["one"]

    def test_leaves_a_connection_that_lags_a_time_of_its_own(self) -> None:
        rig = Rig()
        rig.terms["slow"] = Terms(PollSchedule(60), max_concurrency=1)
        slow = [a_task(f"slow{number}", connection="slow") for number in range(2)]
        good = a_task("good")
        rig.adopt(*slow, good, now_s=0)
        rig.start(0)
        rig.finish(good, 1)
        served = rig.served(30, leaving=True)
        assert served.lagging == {"slow": START}
        assert seconds(served.until) == min(30, rig.next_s())

    def test_is_drawn_back_by_a_connection_that_hardly_lags(self) -> None:
        rig = Rig()
        rig.adopt(a_task())
        served = rig.served(4)
        assert (seconds(served.until), served.lagging) == (0, {})

    def test_of_a_connection_that_lags_is_what_its_successor_goes_by(self) -> None:
        rig = Rig(interval_s=300)
        slow, good = a_task("slow", connection="slow"), a_task("good")
        missed = [next_moment(PollSchedule(300), START, task.task_id, at(3000)) for task in (slow, good)]
        until = max(missed) + timedelta(seconds=1)
        served = Served(until, {"slow": missed[0]})
        rig.adopt(slow, good, served=served, now_s=seconds(until) + 1)
        assert rig.start(seconds(until) + 1) == ["slow"]

    def test_has_room_for_fifty_that_lag_and_draws_the_rest_together(self) -> None:
        rig = Rig()
        tasks = [a_task(f"t{number}", connection=f"c{number:02}", created_s=-100 + number) for number in range(60)]
        rig.usual = Terms(PollSchedule(100_000))  # their first moment is the only one
        rig.adopt(*tasks)
        served = rig.served(0, leaving=True)
        assert sorted(served.lagging) == [f"c{number:02}" for number in range(50)]
        assert seconds(served.until) == -50, "the oldest of those without a time of their own"

    def test_ends_where_the_last_look_could_not_see(self) -> None:
        rig = Rig(interval_s=300)
        rig.adopt(a_task(), served=Served(at(300)), now_s=301)
        covered = rig.served(310, looked_s=290, leaving=True).until
        unseen = a_task("unseen", created_s=285.1)  # an index may have hidden it at 290
        next_one = Rig(interval_s=300)
        next_one.adopt(unseen, served=Served(covered), now_s=311)
        assert next_one.start(311) == ["unseen"]


class TestARate:
    def test_is_kept_by_each_poll(self) -> None:
        rig = Rig()
        rig.usual = Terms(PollSchedule(60), max_polls_per_s=0.1)
        rig.adopt(*[a_task(f"t{number}") for number in range(5)])
        assert [len(rig.start(now)) for now in (0, 5, 10, 15, 20)] == [1, 0, 1, 0, 1]

    def test_catches_up_for_no_more_than_a_second(self) -> None:
        rig = Rig()
        rig.usual = Terms(PollSchedule(60), max_polls_per_s=2)
        rig.adopt(*[a_task(f"t{number}") for number in range(20)])
        assert len(rig.start(0)) == 1
        assert len(rig.start(8)) == 3

    def test_goes_over_to_the_next_holder(self) -> None:
        rig = Rig()
        rig.usual = Terms(PollSchedule(60), max_polls_per_s=0.05)
        rig.adopt(a_task("one"), a_task("two"))
        rig.start(0)
        served = rig.served(1, leaving=True)
        assert served.paced == {"studio": at(20)}
        successor = Rig()
        successor.usual = rig.usual
        successor.adopt(a_task("two"), served=served, now_s=2)
        assert successor.start(19) == []
        assert successor.next_s() == 20
        assert successor.start(20) == ["two"]

    def test_that_is_raised_holds_from_the_next_look_on(self) -> None:
        rig = self.slowly_asked()
        rig.usual = Terms(PollSchedule(60), max_polls_per_s=0.1)
        rig.agenda.renew_terms(at(3))
        assert (rig.start(12.9), rig.start(13)) == ([], ["two"])

    def test_that_is_taken_away_holds_nothing_up(self) -> None:
        rig = self.slowly_asked()
        rig.usual = Terms(PollSchedule(60))
        rig.agenda.renew_terms(at(3))
        assert rig.served(3).paced == {}
        assert rig.start(3) == ["two"]

    def test_that_cannot_be_read_for_a_while_is_not_forgotten(self) -> None:
        rig = self.slowly_asked()
        rated, rig.usual = rig.usual, Terms(PollSchedule(60), known=False)
        rig.agenda.renew_terms(at(3))
        rig.usual = rated
        rig.agenda.renew_terms(at(6))
        assert rig.next_s() == 2000

    def test_that_has_not_changed_is_not_put_off_by_looks(self) -> None:
        rig = self.slowly_asked()
        for now_s in range(3, 1999, 3):
            rig.agenda.renew_terms(at(now_s))
        assert rig.next_s() == 2000

    def test_of_a_holder_in_between_binds_whoever_polls_again(self) -> None:
        rig = Rig()
        rig.usual = Terms(PollSchedule(10), max_polls_per_s=0.1)
        rig.adopt(a_task("one", created_s=-60), a_task("two", created_s=-60))
        assert len(rig.start(0)) == 1
        assert rig.next_s() <= 10
        rig.agenda.keep_pace({"studio": at(14), "unknown": at(99)}, at(5))
        assert rig.start(13.9) == []
        assert len(rig.start(14)) == 1

    @pytest.mark.parametrize(("rate", "first_s"), [(None, 3.0), (0.1, 13.0), (0.0005, 2000.0)])
    def test_that_has_changed_since_binds_no_successor(self, rate: float | None, first_s: float) -> None:
        served = self.slowly_asked().served(1, leaving=True)
        assert served.paced == {"studio": at(2000)}
        successor = Rig(interval_s=1)
        successor.usual = Terms(PollSchedule(1), max_polls_per_s=rate)
        successor.adopt(a_task("two"), served=served, now_s=3)
        assert successor.next_s() == pytest.approx(first_s, abs=1)

    @staticmethod
    def slowly_asked() -> Rig:
        """One task was asked at 0, and the rate lets the other be asked at 2000."""
        rig = Rig()
        rig.usual = Terms(PollSchedule(60), max_polls_per_s=0.0005)
        one = a_task("one")
        rig.adopt(one)
        rig.start(0)
        rig.agenda.notice([replace(one, version=2, step=Step.COPY), a_task("two", created_s=0.5)], at(0.5))
        assert rig.next_s() == 2000
        return rig

    def test_that_allows_few_of_many_is_used_in_turn_over_hand_overs(self) -> None:
        rated = Terms(PollSchedule(10), max_polls_per_s=0.1)
        tasks = [a_task(name, created_s=-600) for name in "abcde"]
        served, asked = Served(at(-10)), []
        for begin_s in range(0, 300, 30):
            rig = Rig()
            rig.usual = rated
            rig.adopt(*tasks, served=served, now_s=begin_s)
            for now_s in range(begin_s, begin_s + 30, 10):
                for name in rig.start(now_s):
                    asked.append(name)
                    rig.finish(a_task(name, created_s=-600), now_s + 1)
            served = rig.served(begin_s + 29, leaving=True)
        assert len(asked) == 30
        in_turn = asked[3:]  # the first holder goes by the moments
        assert sorted(in_turn[:5]) == list("abcde")
        assert in_turn == (in_turn[:5] * 6)[: len(in_turn)]

    @pytest.mark.parametrize("rate", [1e-12, 1e-300, 5e-324])
    def test_however_small_breaks_nothing(self, rate: float) -> None:
        rig = Rig()
        rig.usual = Terms(PollSchedule(60), max_polls_per_s=rate)
        rig.adopt(a_task("one"), a_task("two"))
        assert len(rig.start(0)) == 1
        rig.agenda.renew_terms(at(3))
        assert rig.next_s() == 604_800, "the longest deadline"

    def test_that_allows_the_next_poll_already_needs_no_note(self) -> None:
        rig = Rig()
        rig.usual = Terms(PollSchedule(60), max_polls_per_s=1)
        rig.adopt(a_task())
        rig.start(0)
        assert rig.served(2).paced == {}


class TestThreads:
    def test_of_one_connection_are_no_more_than_it_allows(self) -> None:
        rig = Rig()
        rig.usual = Terms(PollSchedule(60), max_concurrency=3)
        rig.adopt(*[a_task(f"t{number}") for number in range(9)])
        assert len(rig.start(0)) == 3
        assert rig.agenda.next_start(START) is None, "time alone lets no other start"

    def test_are_shared_by_the_connections(self) -> None:
        rig = Rig(concurrency=16)
        rig.adopt(*[a_task(f"{name}{n}", connection=name) for name in ("a", "b") for n in range(20)])
        started = rig.start(0)
        assert [sum(one.startswith(name) for one in started) for name in ("a", "b")] == [8, 8]

    def test_of_a_connection_that_backs_off_are_left_to_the_others_but_for_its_probes(self) -> None:
        rig = Rig(concurrency=16)
        tasks = [a_task(f"{name}{n}", connection=name) for name in ("a", "b", "dead") for n in range(20)]
        rig.adopt(*tasks)
        rig.agenda.set_health("dead", ConnectionHealth(1, at(30), "unavailable", START, 5))
        started = rig.start(0)
        assert [sum(one.startswith(name) for one in started) for name in ("a", "b", "dead")] == [7, 7, 0]
        assert sum(one.startswith("dead") for one in rig.start(34)) == 1, "its probe"

    def test_are_left_for_a_connection_that_comes_when_all_are_taken(self) -> None:
        rig = Rig(concurrency=8)
        rig.adopt(*[a_task(f"a{n}", connection="a") for n in range(20)])
        assert len(rig.start(0)) == 8
        rig.agenda.notice([a_task(f"b{n}", connection="b", created_s=1) for n in range(20)], at(1))
        rig.agenda.set_health("b", None)
        assert len(rig.start(1)) == 4

    def test_have_an_end_however_many_connections_there_are(self) -> None:
        rig = Rig(concurrency=8)
        rig.adopt(*[a_task(f"{name}-{n}", connection=f"c{name}") for name in range(20) for n in range(5)])
        assert len(rig.start(0)) == most_in_flight(8)
        assert rig.agenda.next_start(START) is None

    def test_that_come_free_go_to_the_connection_that_has_fewest(self) -> None:
        rig = Rig(concurrency=8)
        slow = [a_task(f"c{lane}-{n}", connection=f"c{lane}") for lane in range(5) for n in range(30)]
        rig.adopt(*slow)
        first = rig.start(0)
        assert len(first) == most_in_flight(8), "all are taken"
        ended = next(task for task in slow if task.task_id == first[0])
        rig.finish(ended, 9)
        rig.agenda.notice([a_task("good", connection="good", created_s=10)], at(10))
        rig.agenda.set_health("good", None)
        assert rig.start(10) == ["good"], "it has none, though the other waits longer"

    def test_go_round_where_there_are_more_connections_than_threads(self) -> None:
        rig = Rig(concurrency=2)
        threads = most_in_flight(2)
        tasks = {
            f"c{lane:02}-{n}": a_task(f"c{lane:02}-{n}", connection=f"c{lane:02}", created_s=-5)
            for lane in range(24)
            for n in range(9)
        }
        rig.adopt(*tasks.values(), now_s=0)
        good = a_task("good", connection="good", created_s=1)
        asked: list[str] = []
        for turn in range(7):
            started = rig.start(9 * turn)
            assert len(started) == threads
            asked += [name.split("-")[0] for name in started]
            if turn == 0:
                rig.agenda.notice([good], at(1))
                rig.agenda.set_health("good", None)
            for name in started:
                rig.finish(tasks.get(name, good), 9 * turn + 9)
        assert len(set(asked[:24])) == 24, "no backlog is served twice before all the others once"
        assert asked.index("good") < 4 * threads


class TestTerms:
    def test_that_cannot_be_read_start_nothing(self) -> None:
        rig = Rig()
        rig.terms["studio"] = Terms(PollSchedule(30), known=False)
        rig.adopt(a_task())
        assert rig.start(0) == []
        assert rig.agenda.next_start(START) is None

    def test_that_can_be_read_again_hold(self) -> None:
        rig = Rig()
        rig.terms["studio"] = Terms(PollSchedule(30), known=False)
        rig.adopt(*[a_task(f"t{number}") for number in range(9)])
        rig.terms["studio"] = Terms(PollSchedule(30), max_concurrency=2)
        rig.agenda.renew_terms(at(3))
        assert len(rig.start(3)) == 2


class TestABackOff:
    def after(self, rig: Rig, faults: int, error: ProviderError = DEAD) -> list[ConnectionHealth | None]:
        """A connection's back-off after each of some faults in a row, each at the first time that it allows."""
        task, found, now_s = a_task(), [], 0.0
        rig.adopt(task)
        for _ in range(faults):
            now_s = max(now_s, rig.next_s())
            assert rig.start(now_s) == ["one"]
            changed = rig.finish(task, now_s, error)
            found.append(changed[1] if changed is not None else None)
        return found

    def delays(self, rig: Rig) -> list[float]:
        """How long each step lasts, from the poll that took it."""
        task, now_s, found = a_task(), 0.0, []
        rig.adopt(task)
        for _ in range(16):
            now_s = max(now_s, rig.next_s())
            rig.start(now_s)
            changed = rig.finish(task, now_s, DEAD)
            if changed is not None and changed[1] is not None:
                found.append(round(seconds(changed[1].retry_at) - now_s, 3))
        return found

    def test_begins_with_the_fifth_fault_in_a_row(self) -> None:
        steps = [health and health.steps for health in self.after(Rig(), 6)]
        assert steps == [None, None, None, None, 1, 2]

    def test_begins_for_a_refused_key_as_well(self) -> None:
        last = self.after(Rig(), 5, ProviderAuthError("401"))[-1]
        assert last is not None
        assert last.kind == "auth"

    def test_grows_to_five_minutes(self) -> None:
        delays = self.delays(Rig(interval_s=1))
        assert delays == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]

    @pytest.mark.parametrize(("chance", "factor"), [(0.0, 0.8), (1.0, 1.2)])
    def test_strays_by_a_fifth(self, chance: float, factor: float) -> None:
        delays = self.delays(Rig(interval_s=1, chance=chance))
        assert delays[:9] == [pytest.approx(step * factor) for step in CONNECTION_BACKOFF_S]

    def test_is_not_stepped_by_what_was_in_flight_when_it_stepped(self) -> None:
        rig = Rig()
        tasks = [a_task(f"t{number}") for number in range(12)]
        rig.adopt(*tasks)
        assert len(rig.start(0)) == 12
        changes = [rig.finish(task, 1 + 0.1 * number, DEAD) for number, task in enumerate(tasks)]
        assert [change is not None for change in changes] == [number == 4 for number in range(12)]

    def test_is_not_ended_by_what_was_in_flight_when_it_stepped(self) -> None:
        rig = Rig()
        tasks = [a_task(f"t{number}") for number in range(6)]
        rig.adopt(*tasks)
        rig.start(0)
        for task in tasks[:5]:
            rig.finish(task, 1, DEAD)
        assert rig.finish(tasks[5], 1.5) is None
        assert seconds(rig.agenda.next_need()) == pytest.approx(max(3, min(grid(task, 1) for task in tasks)))

    def test_ends_with_an_answer_of_a_probe(self) -> None:
        rig = Rig()
        self.after(rig, 5)
        now_s = rig.next_s()
        rig.start(now_s)
        assert rig.finish(a_task(), now_s + 1) == ("studio", None)
        assert rig.next_s() == grid(a_task(), now_s + 1)

    def test_lets_one_probe_ask_and_no_other_before_its_time(self) -> None:
        rig = Rig()
        tasks = [a_task(f"t{number}") for number in range(9)]
        rig.agenda.adopt(tasks, Served(), START)
        rig.agenda.set_health("studio", ConnectionHealth(3, at(8), "unavailable", START, 7))
        assert rig.start(7) == []
        assert len(rig.start(8)) == 1
        assert rig.start(9) == []

    def probe(self, *tasks: Task, steps: int = 3) -> list[str]:
        rig = Rig()
        rig.agenda.adopt(tasks, Served(), at(100))
        rig.agenda.set_health("studio", ConnectionHealth(steps, at(100), "unavailable", START, 7))
        return rig.start(100 + YIELD_S)

    def test_probes_with_a_task_that_was_seen_at_work_before_all_others(self) -> None:
        at_work = replace(a_task("at-work"), status=Status.PROCESSING)
        stuck = replace(a_task("stuck"), status=Status.PROCESSING, last_poll_error=PollError("unavailable", "", at(9)))
        assert self.probe(stuck, a_task("new", created_s=50), at_work) == ["at-work"]

    def test_probes_with_the_youngest_of_tasks_that_nobody_has_asked_yet(self) -> None:
        failed = replace(a_task("failed"), last_poll_error=PollError("unavailable", "", at(9)))
        assert self.probe(a_task("old"), a_task("new", created_s=50), failed) == ["new"]

    def test_probes_by_turns_with_the_task_that_failed_last_and_the_others(self) -> None:
        failed = [replace(a_task(f"t{n}"), last_poll_error=PollError("unavailable", "", at(n))) for n in range(4)]
        probes = [self.probe(*failed, steps=steps)[0] for steps in range(1, 9)]
        assert probes == ["t3", "t2", "t3", "t1", "t3", "t0", "t3", "t3"]

    def test_probes_with_no_task_before_it_is_due(self) -> None:
        rig = Rig(interval_s=300, chance=0.999)
        early = a_task("early", created_s=-1000)
        rig.agenda.adopt([early, a_task("due", created_s=0)], Served(at(0)), at(1))
        rig.agenda.set_health("studio", ConnectionHealth(3, at(0), "unavailable", START, 7))
        assert rig.start(1) == ["due"]

    def test_follows_a_hint_at_once(self) -> None:
        (first,) = self.after(Rig(), 1, ProviderUnavailable("429", retry_after=40))
        assert first is not None
        assert seconds(first.retry_at) == 40

    def test_follows_a_hint_for_an_hour_at_most(self) -> None:
        (first,) = self.after(Rig(), 1, ProviderUnavailable("429", retry_after=1e9))
        assert first is not None
        assert seconds(first.retry_at) == 3600

    def test_counts_the_faults_of_an_earlier_holder(self) -> None:
        rig, task = Rig(), a_task()
        rig.agenda.adopt([task], Served(), START)
        rig.agenda.set_health("studio", ConnectionHealth(0, START, "unavailable", START, 4))
        assert rig.start(0) == ["one"], "four faults are no back-off"
        changed = rig.finish(task, 1, DEAD)
        assert changed is not None
        assert changed[1] is not None
        assert (changed[1].steps, changed[1].failures) == (1, 5)

    def test_tells_of_faults_that_a_successor_has_to_count_once(self) -> None:
        rig, task = Rig(), a_task()
        self.after(rig, 3)
        ((name, kept),) = rig.agenda.unkept_failures(at(200))
        assert (name, kept.steps, kept.failures, kept.kind) == ("studio", 0, 3, "unavailable")
        assert rig.agenda.unkept_failures(at(201)) == []
        now_s = rig.next_s()
        rig.start(now_s)
        assert rig.finish(task, now_s) == ("studio", None), "what was kept is to be forgotten"

    def test_needs_no_poller_before_it_ends(self) -> None:
        rig = Rig(interval_s=10)
        rig.agenda.adopt([a_task()], Served(), START)
        rig.agenda.set_health("studio", ConnectionHealth(9, at(250), "unavailable", START, 13))
        assert seconds(rig.agenda.next_need()) == 250

    def test_needs_one_for_the_end_of_a_task_that_comes_before_its_own(self) -> None:
        rig = Rig(interval_s=10)
        rig.agenda.adopt([a_task("short", deadline_s=60), a_task("long")], Served(), START)
        rig.agenda.set_health("studio", ConnectionHealth(9, at(250), "unavailable", START, 13))
        assert seconds(rig.agenda.next_need()) == 120
        assert [task.task_id for task in rig.agenda.overdue(at(120))] == ["short"]
        assert seconds(rig.agenda.next_need()) == 250


class TestAWholeLook:
    """At what is due, while tasks are polled that an earlier look has shown."""

    def left_after(self, *shown: str, tasks: Iterable[Task], asked: bool = False) -> list[str]:
        rig = Rig()
        rig.adopt(*tasks)
        if asked:
            rig.start(0)
        rig.agenda.forget_all_but(shown, at(60), at(170))
        if asked:
            for task in tasks:
                rig.finish(task, 61)
        return rig.start(200)

    def test_has_those_forgotten_that_it_does_not_show(self) -> None:
        assert self.left_after("one", tasks=[a_task("one"), a_task("two")]) == ["one"]

    def test_shows_no_task_that_is_so_new_that_the_index_may_lag_behind(self) -> None:
        assert self.left_after(tasks=[a_task(created_s=46)]) == ["one"]

    def test_shows_no_task_that_is_due_later_than_it_looked_for(self) -> None:
        streak = Streak(StreakKind.NOT_FOUND, 1, at(0))
        assert self.left_after(tasks=[replace(a_task(), streak=streak, due_at=at(171))]) == ["one"]

    def test_takes_none_away_that_is_being_asked(self) -> None:
        assert self.left_after(tasks=[a_task()], asked=True) == ["one"]

    def test_has_one_asked_again_that_a_later_look_shows_after_all(self) -> None:
        rig = Rig()
        rig.adopt(a_task())
        rig.agenda.forget_all_but((), at(60), at(170))
        assert rig.start(100) == []
        rig.agenda.notice([a_task()], at(101))
        assert rig.start(101) == ["one"]


class TestASuspect:
    """A task that may have ended the process that asked for it."""

    def adopted(self, *tasks: Task, suspects: dict[str, int], rig: Rig | None = None) -> Rig:
        rig = rig or Rig()
        rig.agenda.adopt(tasks, Served(), START, suspects)
        for name in rig.agenda.unknown_health():
            rig.agenda.set_health(name, None)
        return rig

    def apart(self, rig: Rig, now_s: float = 0) -> list[str]:
        return [one.task.task_id for one in rig.agenda.take_apart(at(now_s))]

    def test_is_not_asked_among_the_others(self) -> None:
        rig = self.adopted(a_task("bad"), a_task("good"), suspects={"bad": 1})
        assert rig.start(0) == ["good"]
        assert self.apart(rig) == ["bad"]
        assert rig.agenda.suspects() == {"bad": 1}

    def test_is_none_once_it_shows_a_later_version(self) -> None:
        task = a_task()
        rig = self.adopted(task, suspects={"one": 1})
        rig.agenda.notice([replace(task, version=2)], at(1))
        assert rig.start(1) == ["one"]
        assert rig.agenda.suspects() == {}
        assert self.apart(rig) == []

    def test_that_is_there_no_more_is_named_no_more(self) -> None:
        assert self.adopted(a_task("other"), suspects={"gone": 1}).agenda.suspects() == {}

    def test_that_was_put_off_is_asked_when_its_time_has_come(self) -> None:
        rig = self.adopted(set_apart(a_task(), START), suspects={})
        assert rig.start(29) == []
        assert self.apart(rig, 29) == []
        assert self.apart(rig, 30) == ["one"]
        assert rig.start(30) == []

    def test_that_has_been_interrupted_before_is_asked_last(self) -> None:
        once = set_apart(a_task("once"), START)
        twice = set_apart(set_apart(a_task("twice"), at(-120)), at(-60))
        rig = self.adopted(twice, once, a_task("new"), suspects={"new": 1})
        assert self.apart(rig, 60) == ["new", "once", "twice"]

    def test_of_a_connection_that_backs_off_is_its_probe_where_no_other_can_be(self) -> None:
        rig = self.adopted(a_task("a"), a_task("b"), suspects={"a": 1, "b": 1})
        health = ConnectionHealth(3, at(8), "unavailable", START, 7)
        rig.agenda.set_health("studio", health)
        assert self.apart(rig, 7) == []
        assert [(one.task.task_id, one.probe) for one in rig.agenda.take_apart(at(8))] == [("a", health)]
        failed = replace(a_task("c"), last_poll_error=PollError("unavailable", "503", START))
        rig.agenda.notice([failed], at(8))
        assert self.apart(rig, 8) == ["a"], "one that has failed says less"
        assert rig.start(60) == []
        rig.agenda.notice([a_task("d")], at(8))
        assert self.apart(rig, 8) == [], "another can"
        assert rig.start(60) == ["d"]

    def test_ends_or_prolongs_its_connections_back_off(self) -> None:
        rig, task = Rig(), a_task()
        self.adopted(task, suspects={"one": 1}, rig=rig)
        rig.agenda.set_health("studio", ConnectionHealth(3, at(8), "unavailable", START, 7))
        longer = rig.agenda.judge_apart(task, DEAD, at(8), at(9))
        assert longer is not None
        assert longer[1] is not None
        assert (longer[1].steps, seconds(longer[1].retry_at)) == (4, 9 + 16)
        assert rig.agenda.judge_apart(task, None, at(26), at(27)) == ("studio", None)

    def test_of_a_connection_that_cannot_be_read_waits(self) -> None:
        rig = Rig()
        rig.usual = Terms(PollSchedule(60), known=False)
        assert self.apart(self.adopted(a_task(), suspects={"one": 1}, rig=rig)) == []

    def test_of_a_rated_connection_takes_of_its_polls_what_comes_soon(self) -> None:
        rig = Rig()
        rig.usual = Terms(PollSchedule(60), max_polls_per_s=0.2)
        suspects = [a_task(name) for name in "abcd"]
        self.adopted(*suspects, a_task("e"), suspects={task.task_id: 1 for task in suspects}, rig=rig)
        taken = rig.agenda.take_apart(START)
        assert [(one.task.task_id, seconds(one.not_before)) for one in taken] == [("a", 0), ("b", 5), ("c", 10)]
        assert rig.start(14) == []
        assert rig.start(15) == ["e"]

    def test_of_a_slow_connection_goes_before_the_others(self) -> None:
        rig = Rig()
        rig.usual = Terms(PollSchedule(60), max_polls_per_s=0.01)
        self.adopted(a_task("a"), a_task("b"), suspects={"a": 1}, rig=rig)
        assert rig.start(0) == []
        assert rig.agenda.next_start(START) is None
        assert self.apart(rig) == ["a"]
        assert self.apart(rig) == [], "its rate allows no more"
        rig.agenda.notice([replace(a_task("a"), version=2)], at(1))
        assert len(rig.start(100)) == 1

    def test_ends_with_its_deadline_like_any_other(self) -> None:
        rig = self.adopted(a_task(deadline_s=60), suspects={"one": 1})
        assert [task.task_id for task in rig.agenda.overdue(at(120))] == ["one"]


def test_a_poll_that_was_not_made_is_made_at_its_moment_by_the_next() -> None:
    rig = Rig()
    rig.adopt(a_task())
    assert rig.start(0) == ["one"]
    rig.agenda.take_back("one")
    assert rig.agenda.in_flight == 0
    assert rig.served(1, leaving=True).until == START
    assert rig.start(1) == ["one"]


# -- hints ------------------------------------------------------------------------------------------------------------


def told(task: Task, at_s: float) -> Task:
    """A task whose provider has called back, as it is stored then."""
    return replace(hinted(task, at(at_s)), version=task.version + 1)


def asked(rig: Rig, task: Task, now_s: float) -> None:
    assert rig.start(now_s) == [task.task_id]
    rig.finish(task, now_s + 0.5)


def test_a_hint_that_a_look_shows_is_asked_at_once_and_only_once_and_then_the_grid_goes_on() -> None:
    rig = Rig(interval_s=300)
    task = a_task()
    rig.adopt(task)
    asked(rig, task, 0)
    usual = rig.next_s()
    hint = told(task, 20)
    rig.agenda.notice([hint], at(22))
    assert rig.next_s() == 20
    asked(rig, hint, 22)
    assert rig.next_s() == usual
    rig.agenda.notice([hint], at(25))
    assert rig.next_s() == usual


def test_a_hint_that_comes_while_a_poll_is_on_its_way_is_asked_once_more() -> None:
    rig = Rig(interval_s=300)
    task = a_task()
    rig.adopt(task)
    assert rig.start(0) == ["one"]
    hint = told(task, 1)
    rig.agenda.notice([hint], at(3))
    assert rig.start(3) == []
    rig.finish(task, 5)  # which saw nothing to write, so it knows of no hint
    asked(rig, hint, 5)
    assert rig.next_s() == grid(task, 5, 300)


def test_a_hint_that_a_poll_met_when_it_saved_is_asked_once_more() -> None:
    rig = Rig(interval_s=300)
    task = a_task()
    rig.adopt(task)
    assert rig.start(0) == ["one"]
    hint = replace(told(task, 1), version=3)
    rig.finish(hint, 5)
    asked(rig, hint, 5)
    assert rig.next_s() == grid(task, 5, 300)


def test_a_hint_that_lies_ahead_is_asked_then_though_a_poll_comes_before() -> None:
    rig = Rig(interval_s=300)
    task = a_task()
    rig.adopt(task)
    asked(rig, task, 0)
    twice = told(told(task, 20), 21)
    assert twice.hint == Hint(at(25), 2)
    rig.agenda.notice([twice], at(22))
    assert rig.next_s() == 25
    rig = Rig(interval_s=300)
    rig.adopt(twice, now_s=22)  # of which nobody knows when it was asked
    asked(rig, twice, 22)
    assert rig.next_s() == 25
    asked(rig, twice, 25)
    assert rig.next_s() == grid(task, 25, 300)


def test_a_poll_that_was_not_made_follows_no_hint() -> None:
    rig = Rig(interval_s=300)
    task = a_task()
    rig.adopt(task)
    asked(rig, task, 0)
    hint = told(task, 20)
    rig.agenda.notice([hint], at(22))
    assert rig.start(22) == ["one"]
    rig.agenda.take_back("one")
    assert rig.next_s() == 20


@pytest.mark.parametrize(("hinted_s", "asked_at_once"), [(100, True), (90, True), (80, False)])
def test_a_successor_follows_the_hints_that_an_earlier_holder_may_not_have_seen(
    hinted_s: float, asked_at_once: bool
) -> None:
    rig = Rig(interval_s=300)
    hint = told(a_task(created_s=-400), hinted_s)
    rig.adopt(hint, served=Served(at(100)), now_s=101)
    assert (rig.next_s() == hinted_s) is asked_at_once
    assert (rig.start(101) == ["one"]) is asked_at_once


def test_a_hint_that_the_rate_put_off_is_handed_over() -> None:
    rig = Rig(interval_s=300)
    rig.terms["studio"] = Terms(PollSchedule(300), max_polls_per_s=0.01)
    first, second = a_task("one", created_s=-400), a_task("two", created_s=-400)
    rig.adopt(first, second, served=Served(at(0)))
    hints = [told(first, 5), told(second, 5)]
    rig.agenda.notice(hints, at(6))
    (name,) = rig.start(6)
    rig.finish(next(one for one in hints if one.task_id == name), 7)
    assert rig.start(30) == []
    served = rig.served(30, leaving=True)
    successor = Rig(interval_s=300)
    successor.terms = rig.terms
    successor.adopt(*hints, served=served, now_s=31)
    assert successor.start(31) == []
    assert successor.start(107) != []


@pytest.mark.parametrize("terms", [Terms(PollSchedule(300), max_polls_per_s=0.1), Terms(PollSchedule(300))])
def test_hinted_polls_keep_to_the_rate_the_concurrency_and_the_back_off(terms: Terms) -> None:
    rig = Rig(interval_s=300)
    rig.terms["studio"] = terms._replace(max_concurrency=1)
    tasks = [a_task(f"t{n}", created_s=-400) for n in range(5)]
    rig.adopt(*tasks, served=Served(at(0)))
    rig.agenda.notice([told(task, 1) for task in tasks], at(2))
    assert len(rig.start(2)) == 1, "one at a time"
    rig.agenda.set_health("studio", ConnectionHealth(3, at(60), "unavailable", at(0), 5))
    assert rig.start(20) == [], "the connection backs off"


def test_a_hint_makes_no_doubted_task_asked_before_its_time() -> None:
    rig = Rig(interval_s=300)
    task = replace(told(a_task(), 1), streak=Streak(StreakKind.NO_FILE, 1, at(2)), due_at=at(22), version=3)
    rig.adopt(task, now_s=3)
    assert rig.next_s() == 22


def test_a_hint_clears_nobody_of_suspicion() -> None:
    rig = Rig()
    task = a_task()
    rig.agenda.adopt([told(told(task, 1), 7)], Served(), at(8), {"one": 1})
    rig.agenda.set_health("studio", None)
    assert rig.start(8) == []
    assert rig.agenda.suspects() == {"one": 1}
    rig.agenda.notice([replace(told(told(task, 1), 7), version=4)], at(9))  # a change of another kind
    assert rig.agenda.suspects() == {}


class TestLengths:
    """What a poller learns of how long tasks take, and when it asks by that."""

    SCHEDULE = PollSchedule(10, 5, 80)

    def rig(self, lengths: Lengths | None) -> Rig:
        rig = Rig()
        rig.usual = Terms(self.SCHEDULE)
        if lengths is not None:
            rig.agenda.know({"studio": lengths})
        return rig

    def known(self, *lengths_s: float) -> Lengths:
        return reduce(Lengths.added, lengths_s * 30, Lengths())

    def ended(self, task: Task, status: Status = Status.COPYING) -> Task:
        return replace(task, status=status, step=Step.COPY if status is Status.COPYING else None, version=2)

    def test_are_counted_from_registration_to_shortly_before_the_last_moment(self) -> None:
        rig, task = self.rig(Lengths()), a_task()
        rig.adopt(task, served=Served(at(20)), now_s=21)
        moment = rig.next_s()
        rig.start(moment)
        before = seconds(last_moment(self.SCHEDULE, START, "one", at(moment - 0.001)))
        rig.finish(self.ended(task), moment + 0.2)
        (kept,) = rig.agenda.unkept_lengths()
        assert kept == ("studio", Lengths().added(self.SCHEDULE.length_s(before, moment, moment + 0.2)))
        assert rig.agenda.unkept_lengths() == []

    @pytest.mark.parametrize("status", [Status.COPYING, Status.FAILED, Status.CANCELLED])
    def test_of_every_end_that_a_provider_has_stated_count(self, status: Status) -> None:
        rig, task = self.rig(Lengths()), a_task(created_s=-30)
        rig.adopt(task, now_s=0)
        rig.start(0)
        rig.finish(self.ended(task, status), 1)
        assert len(rig.agenda.unkept_lengths()) == 1

    def test_of_tasks_that_expired_or_got_lost_do_not_count(self) -> None:
        for ending, error in ((Status.EXPIRED, None), (Status.FAILED, ProviderTaskNotFound("lost"))):
            rig, task = self.rig(Lengths()), a_task(created_s=-30)
            rig.adopt(task, now_s=0)
            rig.start(0)
            rig.finish(self.ended(task, ending), 1, error)
            assert rig.agenda.unkept_lengths() == []

    def test_of_ends_that_another_has_written_do_not_count(self) -> None:
        """The owner has cancelled it, or an earlier holder's last poll has found the end and counted it."""
        for ending in (Status.CANCELLED, Status.COPYING):
            rig, task = self.rig(Lengths()), a_task(created_s=-30)
            rig.adopt(task, now_s=0)
            rig.start(0)
            rig.agenda.finish("one", self.ended(task, ending), None, at(1), moved=False)
            assert rig.agenda.unkept_lengths() == []

    def test_of_tasks_that_had_ended_when_they_were_registered_do_not_count(self) -> None:
        rig, task = self.rig(Lengths()), a_task()
        rig.adopt(task, now_s=0)
        rig.start(0)
        rig.finish(self.ended(task), 1)
        assert rig.agenda.unkept_lengths() == []

    def test_of_tasks_that_nobody_heard_of_for_long_do_not_count(self) -> None:
        """Who came to an end in an outage of an hour was counted as having taken until the end of it."""
        rig, task = self.rig(Lengths()), a_task(created_s=-30)
        rig.adopt(task, now_s=0)
        rig.start(0)
        rig.finish(task, 1, DEAD)
        rig.start(3000)
        rig.finish(self.ended(task), 3001)
        assert rig.agenda.unkept_lengths() == []

    def test_of_tasks_that_an_earlier_holder_has_not_heard_of_for_long_do_not_count(self) -> None:
        for since_s, counted in ((-170, 0), (-20, 1)):
            rig, task = self.rig(Lengths()), a_task(created_s=-200)
            rig.adopt(task, served=Served(at(0), {"studio": at(since_s)}), now_s=0)
            rig.start(0)
            rig.finish(self.ended(task), 1)
            assert len(rig.agenda.unkept_lengths()) == counted

    def test_that_are_not_known_to_the_second_count_since_the_task_was_last_heard_of(self) -> None:
        rig, task = self.rig(Lengths()), a_task(created_s=-100)
        rig.adopt(task, served=Served(at(0)), now_s=0)
        asked_s = []
        for error in (None, DEAD, DEAD, None):
            asked_s.append(rig.next_s())
            rig.start(asked_s[-1])
            rig.finish(task if len(asked_s) < 4 else self.ended(task), asked_s[-1], error)
        (kept,) = rig.agenda.unkept_lengths()
        assert kept == ("studio", Lengths().added(100 + (asked_s[0] + asked_s[3]) / 2))

    def test_that_could_not_be_read_are_not_written_over(self) -> None:
        rig, task = self.rig(None), a_task(created_s=-30)
        rig.adopt(task, now_s=0)
        assert rig.agenda.unknown_lengths("studio")
        rig.start(0)
        rig.finish(self.ended(task), 1)
        assert rig.agenda.unkept_lengths() == []

    def test_are_not_asked_for_where_the_interval_stands(self) -> None:
        rig = Rig()
        rig.adopt(a_task())
        assert not rig.agenda.unknown_lengths("studio")

    def test_that_are_read_late_hold_from_the_next_poll_on(self) -> None:
        rig, task = self.rig(None), a_task()
        rig.adopt(task)
        rig.agenda.know({"studio": self.known(600)})
        assert not rig.agenda.unknown_lengths("studio")
        rig.start(0)
        rig.finish(task, 1)
        assert rig.next_s() == seconds(next_moment(self.SCHEDULE, START, "one", at(1), self.known(600)))
        rig.agenda.know({"studio": Lengths()})
        assert rig.next_s() > 1, "what has been learnt since is not taken back"

    def test_make_a_young_task_wait_and_one_whose_end_is_near_be_asked_often(self) -> None:
        for age_s, most_gap_s in ((100, 80), (598, 5)):
            rig, task = self.rig(self.known(600)), a_task(created_s=-age_s)
            rig.adopt(task, served=Served(at(0)), now_s=0)
            assert rig.next_s() <= most_gap_s
            rig.start(rig.next_s())
            asked_s = rig.next_s() if rig.agenda.next_start(START) else most_gap_s
            rig.finish(task, asked_s)
            assert rig.next_s() - asked_s <= most_gap_s

    def test_do_not_put_off_a_task_whose_beginning_somebody_wants_to_hear_of(self) -> None:
        queued = replace(a_task(created_s=-100), tells_processing=True)
        for task, usual in ((queued, True), (replace(queued, status=Status.PROCESSING), False)):
            rig = self.rig(self.known(600))
            rig.adopt(task, served=Served(at(0)), now_s=0)
            first_s = seconds(next_moment(self.SCHEDULE, task.created_at, "one", at(0), None))
            assert (rig.next_s() == pytest.approx(first_s)) is usual


class TestAList:
    """One request for all due tasks of a connection whose provider lists them."""

    SCHEDULE = PollSchedule(60, together="studio")

    def rig(self, tasks: int = 5, **terms: Any) -> tuple[Rig, list[Task]]:
        rig = Rig(concurrency=terms.pop("concurrency", 64))
        rig.usual = Terms(self.SCHEDULE, lists=True, **terms)
        found = [a_task(f"t{number}", created_s=-600 - number) for number in range(tasks)]
        rig.adopt(*found, now_s=0)
        return rig, found

    def lists(self, rig: Rig, now_s: float) -> list[list[str]]:
        return [[task.task_id for task in group.tasks] for group in rig.agenda.start_lists(at(now_s))]

    def listed(self, rig: Rig, now_s: float) -> Group:
        (group,) = rig.agenda.start_lists(at(now_s))
        return group

    def end(
        self,
        rig: Rig,
        group: Group,
        answered: Iterable[Task],
        now_s: float,
        *,
        requests: int = 1,
        count: int = 5,
        complete: bool = True,
    ) -> None:
        """The list answers for some tasks, and changes none."""
        names = {task.task_id for task in answered}
        rig.agenda.end_list(group, names, requests=requests, count=count, complete=complete)
        for task in group.tasks:
            if task.task_id in names:
                rig.finish(task, now_s)

    def moment(self, after_s: float) -> float:
        return seconds(next_moment(self.SCHEDULE, START, "any", at(after_s)))

    def test_asks_for_all_that_are_due_and_for_nobody_twice(self) -> None:
        rig, tasks = self.rig()
        group = self.listed(rig, 0)
        assert sorted(task.task_id for task in group.tasks) == ["t0", "t1", "t2", "t3", "t4"]
        assert (self.lists(rig, 0), rig.start(0)) == ([], [])
        assert rig.agenda.in_flight == 5
        self.end(rig, group, tasks, 1)
        assert rig.agenda.in_flight == 0
        assert rig.next_s() == self.moment(1)
        assert len(self.lists(rig, self.moment(1))[0]) == 5, "all fall due together again"

    def test_is_not_asked_for_fewer_than_three(self) -> None:
        rig, _ = self.rig(2)
        assert self.lists(rig, 0) == []
        assert sorted(rig.start(0)) == ["t0", "t1"]

    def test_is_not_asked_for_where_the_connection_does_not_list(self) -> None:
        rig, _ = self.rig()
        rig.usual = Terms(self.SCHEDULE)
        rig.agenda.renew_terms(START)
        assert self.lists(rig, 0) == []
        assert len(rig.start(0)) == 5

    def test_asks_for_no_task_before_its_moment(self) -> None:
        rig, _ = self.rig()
        self.end(rig, group := self.listed(rig, 0), group.tasks, 1)
        rig.agenda.notice([a_task(f"new{n}", created_s=20) for n in range(3)], at(20))
        assert sorted(self.lists(rig, 20)[0]) == ["new0", "new1", "new2"]

    def test_leaves_to_single_polls_whom_it_does_not_answer_for_at_their_moment(self) -> None:
        rig, tasks = self.rig()
        moment = rig.served(0).lagging["studio"]
        self.end(rig, self.listed(rig, 0), tasks[2:], 1)
        assert rig.served(1).lagging == {"studio": moment}
        assert self.lists(rig, 1) == []
        assert sorted(rig.start(1)) == ["t0", "t1"]
        rig.finish(tasks[0], 2)
        rig.finish(tasks[1], 2)
        assert rig.next_s() == self.moment(2)
        assert len(self.lists(rig, self.moment(2))[0]) == 5

    def test_waits_until_those_have_been_asked_whom_the_last_one_left_out(self) -> None:
        rig, tasks = self.rig(max_concurrency=1)
        self.end(rig, self.listed(rig, 0), tasks[1:], 1)
        later = self.moment(1)
        assert self.lists(rig, later) == []
        assert rig.start(later) == ["t0"]
        assert self.lists(rig, later) == [], "one request at a time"
        rig.finish(tasks[0], later + 1)
        assert len(self.lists(rig, later + 1)[0]) == 4

    def test_counts_as_one_request_of_its_connections_rate(self) -> None:
        rig, tasks = self.rig(max_polls_per_s=0.1)
        self.end(rig, self.listed(rig, 0), tasks[2:], 1)
        assert rig.start(9) == []
        assert [len(rig.start(now)) for now in (10, 11, 20)] == [1, 0, 1]

    def test_takes_as_many_requests_of_the_rate_as_it_had_pages(self) -> None:
        rig, tasks = self.rig(30, max_polls_per_s=2)
        group = self.listed(rig, 0)
        assert group.pages == 3, "what may be made up for within a second"
        self.end(rig, group, tasks[1:], 0.2, requests=3)
        assert rig.start(1.4) == []
        assert rig.start(1.5) == ["t0"]

    def test_is_not_asked_for_at_a_rate_that_may_leave_no_poll_for_whom_it_leaves_out(self) -> None:
        rig, _ = self.rig(max_polls_per_s=0.09)
        assert self.lists(rig, 0) == []
        assert len(rig.start(0)) == 1

    def test_reads_half_as_many_pages_as_there_are_tasks(self) -> None:
        rig, _ = self.rig(13)
        assert self.listed(rig, 0).pages == 6

    def test_takes_one_thread(self) -> None:
        rig, _ = self.rig(100, concurrency=8)
        self.listed(rig, 0)
        rig.agenda.notice([a_task(f"b{n}", connection="b", created_s=1) for n in range(20)], at(1))
        rig.agenda.set_health("b", None)
        rig.terms["b"] = Terms(PollSchedule(60))
        rig.agenda.renew_terms(at(1))
        assert len(rig.start(1)) == 4, "its share of eight"
        rig.agenda.notice([a_task(f"new{n}", created_s=1) for n in range(20)], at(1))
        assert len(rig.start(1)) == 3, "the list has the fourth"

    def test_needs_a_thread(self) -> None:
        rig = Rig(concurrency=4)
        rig.adopt(*[a_task(f"{name}{n}", connection=name) for name in "ab" for n in range(20)])
        assert len(rig.start(0)) == 8
        rig.terms["c"] = rig.terms["d"] = rig.terms["e"] = Terms(self.SCHEDULE, lists=True)
        more = [a_task(f"{name}{n}", connection=name, created_s=-5) for name in "cde" for n in range(3)]
        rig.agenda.notice(more, at(0))
        for name in "cde":
            rig.agenda.set_health(name, None)
        assert len(self.lists(rig, 0)) == 3
        crowd = [a_task(f"x{n}", connection=f"x{n}") for n in range(9)]
        rig.agenda.notice(crowd, at(0))
        for n in range(9):
            rig.agenda.set_health(f"x{n}", None)
        assert len(rig.start(0)) == most_in_flight(4) - 8 - 3

    def test_is_not_asked_for_while_the_connection_backs_off(self) -> None:
        rig, _ = self.rig()
        rig.agenda.set_health("studio", ConnectionHealth(3, at(8), "unavailable", START, 7))
        assert self.lists(rig, 8) == []
        assert len(rig.start(8)) == 1

    def test_is_not_asked_for_while_the_connection_has_a_suspect(self) -> None:
        rig, _ = self.rig()
        rig.agenda.notice([set_apart(a_task("bad"), START)], START)
        assert self.lists(rig, 0) == []
        assert len(rig.start(0)) == 5

    def test_is_not_asked_for_before_the_back_off_is_known(self) -> None:
        rig = Rig()
        rig.usual = Terms(self.SCHEDULE, lists=True)
        rig.agenda.adopt([a_task(f"t{n}") for n in range(5)], Served(), START)
        assert self.lists(rig, 0) == []

    @pytest.mark.parametrize(
        "how",
        [
            {"complete": False},
            {"requests": 4},
            {"count": 101},
            {"answered": 0},
        ],
    )
    def test_that_fails_or_costs_more_than_it_saves_is_not_asked_for_again(self, how: dict[str, Any]) -> None:
        rig, tasks = self.rig()
        self.end(rig, self.listed(rig, 0), tasks[: how.pop("answered", 4)], 1, **how)
        for name in rig.start(1):
            rig.finish(next(task for task in tasks if task.task_id == name), 2)
        later = self.moment(2)
        assert self.lists(rig, later) == []
        assert len(rig.start(later)) == 5

    def test_that_fails_has_everybody_asked_singly_so_that_the_back_off_comes_as_ever(self) -> None:
        rig, tasks = self.rig(6)
        self.end(rig, self.listed(rig, 0), [], 5, complete=False)
        assert len(rig.start(5)) == 6
        changes = [rig.finish(task, 6, DEAD) for task in tasks]
        assert [change is not None for change in changes] == [number == 4 for number in range(6)]

    def test_leaves_a_last_poll_at_the_deadline_to_the_task_itself(self) -> None:
        rig, _ = self.rig()
        last = a_task("last", created_s=-100, deadline_s=60)
        rig.agenda.notice([last], START)
        assert "last" not in self.lists(rig, 0)[0]
        assert rig.start(0) == ["last"]

    def test_follows_a_hint_like_a_single_poll(self) -> None:
        rig, tasks = self.rig()
        self.end(rig, self.listed(rig, 0), tasks, 1)
        hints = [told(task, 5) for task in tasks]
        rig.agenda.notice(hints, at(6))
        group = self.listed(rig, 6)
        assert len(group.tasks) == 5
        self.end(rig, group, hints, 7)
        assert rig.next_s() == self.moment(7)

    def test_leaves_a_task_that_another_has_ended_meanwhile_alone(self) -> None:
        rig, tasks = self.rig()
        group = self.listed(rig, 0)
        rig.agenda.notice([replace(tasks[0], version=2, step=None), replace(tasks[1], version=2, step=None)], at(1))
        self.end(rig, group, [tasks[1], *tasks[2:]], 2)
        assert rig.agenda.in_flight == 0
        assert rig.start(2) == []
        assert len(self.lists(rig, self.moment(2))[0]) == 3

    def test_that_is_under_way_covers_nobody_when_its_holder_leaves(self) -> None:
        rig = Rig(interval_s=60)
        rig.usual = Terms(self.SCHEDULE, lists=True)
        moment = self.moment(100)
        tasks = [a_task(f"t{number}") for number in range(3)]
        rig.adopt(*tasks, served=Served(at(100)), now_s=101)
        group = self.listed(rig, moment)
        served = rig.served(moment + 1, leaving=True)
        assert seconds(served.until) == moment
        successor = Rig()
        successor.usual = rig.usual
        successor.adopt(*tasks, served=served, now_s=moment + 2)
        assert len(self.listed(successor, moment + 2).tasks) == 3
        self.end(rig, group, tasks, moment + 1)
        assert seconds(rig.served(moment + 1, leaving=True).until) == moment + 1

    def test_whose_changes_are_being_kept_covers_nobody_yet_but_takes_no_thread(self) -> None:
        rig, tasks = self.rig(concurrency=4)
        group = self.listed(rig, 0)
        rig.agenda.end_list(group, {task.task_id for task in tasks}, requests=1, count=5, complete=True)
        assert rig.agenda.in_flight == 5
        assert rig.served(0, leaving=True).lagging != {}
        rig.agenda.notice([a_task(f"new{n}", created_s=1) for n in range(9)], at(1))
        assert len(rig.start(1)) == 4

    def test_asks_once_for_a_task_that_looks_have_shown_again_and_again(self) -> None:
        rig, tasks = self.rig()
        rig.agenda.notice([replace(task, version=2) for task in tasks], START)
        rig.agenda.notice([replace(task, version=3) for task in tasks], START)
        assert len(self.lists(rig, 0)[0]) == 5

    def test_teaches_the_same_lengths_as_single_polls(self) -> None:
        learnt = []
        for lists in (True, False):
            rig, tasks = self.rig()
            rig.usual = Terms(replace(self.SCHEDULE, most_s=120), lists=lists)
            rig.agenda.renew_terms(START)
            rig.agenda.know({"studio": Lengths()})
            if lists:
                self.end(rig, self.listed(rig, 0), tasks[1:], 1)
                assert rig.agenda.unkept_lengths() == []
            assert "t0" in rig.start(1)
            rig.finish(replace(tasks[0], status=Status.COPYING, step=Step.COPY, version=2), 2)
            learnt.append(rig.agenda.unkept_lengths())
        assert learnt[0] == learnt[1] != []
