"""When to poll, when to retry, and who may claim: every figure is checked against its arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderbell.lengths import Lengths
from renderbell.schedule import (
    COPY_RETRIES,
    WEBHOOK_RETRIES,
    Exhausted,
    Later,
    PollSchedule,
    RetryPolicy,
    Take,
    Wait,
    between,
    judge_claim,
    last_moment,
    next_moment,
    phase,
    slot_of,
)

BORN = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)

ids = st.text(alphabet="0123456789abcdef", min_size=1, max_size=12)
intervals = st.floats(min_value=1, max_value=3600)
ages = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=7))
grids = st.sampled_from([None, "studio", "an-other"])  # the task's own, and shared ones


def at(seconds: float) -> datetime:
    return BORN + timedelta(seconds=seconds)


class TestMoments:
    def test_the_first_poll_is_at_once(self) -> None:
        assert next_moment(PollSchedule(10), BORN, "t", None) == BORN
        assert next_moment(PollSchedule(10), BORN, "t", at(-5)) == BORN

    @given(ids, intervals, grids, ages)
    def test_the_next_moment_is_later_and_at_most_one_interval_away(
        self, task_id: str, interval_s: float, grid: str | None, age: timedelta
    ) -> None:
        moment = next_moment(PollSchedule(interval_s, together=grid), BORN, task_id, BORN + age)
        assert BORN + age < moment <= BORN + age + timedelta(seconds=interval_s, microseconds=2)

    @given(ids, intervals, grids)
    def test_moments_follow_each_other_by_one_interval(self, task_id: str, interval_s: float, grid: str | None) -> None:
        schedule = PollSchedule(interval_s, together=grid)
        first = next_moment(schedule, BORN, task_id, BORN)
        second = next_moment(schedule, BORN, task_id, first)
        assert (second - first).total_seconds() == pytest.approx(interval_s, abs=1e-5)

    @given(ids, intervals, grids, ages, st.floats(min_value=0, max_value=1))
    def test_asking_again_before_a_moment_finds_the_same_one(
        self, task_id: str, interval_s: float, grid: str | None, age: timedelta, share: float
    ) -> None:
        schedule = PollSchedule(interval_s, together=grid)
        moment = next_moment(schedule, BORN, task_id, BORN + age)
        between = BORN + age + (moment - BORN - age) * share
        if between < moment:
            assert next_moment(schedule, BORN, task_id, between) == moment

    @given(ids, intervals, grids, ages)
    def test_the_last_moment_is_the_one_before_the_next(
        self, task_id: str, interval_s: float, grid: str | None, age: timedelta
    ) -> None:
        schedule = PollSchedule(interval_s, together=grid)
        until = BORN + age
        last = last_moment(schedule, BORN, task_id, until)
        assert last <= until < next_moment(schedule, BORN, task_id, last)

    def test_tasks_are_spread_evenly_over_their_interval(self) -> None:
        tenths = [0] * 10
        for number in range(10_000):
            share = phase(f"task-{number}")
            assert -1 < share <= 0
            tenths[min(9, math.floor(-share * 10))] += 1
        assert all(880 <= count <= 1120 for count in tenths)  # 1,000 each, within four standard deviations

    def test_slots_are_filled_evenly(self) -> None:
        counts = [0] * 16
        for number in range(16_000):
            counts[slot_of(f"task-{number}", 16)] += 1
        assert all(870 <= count <= 1130 for count in counts)


ADAPTING = [PollSchedule(10, 5, 80), PollSchedule(30, 30, 240), PollSchedule(5, 5, 40), PollSchedule(8, 1, 64)]
sketches = st.lists(st.floats(min_value=1, max_value=4000), max_size=60).map(
    lambda seen: reduce(Lengths.added, seen, Lengths())
)


def known(*lengths_s: float) -> Lengths:
    return reduce(Lengths.added, lengths_s * 30, Lengths())


knowing = st.lists(st.floats(min_value=1, max_value=4000), min_size=1, max_size=6).map(lambda seen: known(*seen))
young = st.timedeltas(timedelta(0), timedelta(seconds=5000))


def polls(schedule: PollSchedule, lengths: Lengths | None, until_s: float, task_id: str = "t") -> list[float]:
    found, moment = [], BORN
    while (moment := next_moment(schedule, BORN, task_id, moment, lengths)) <= at(until_s):
        found.append((moment - BORN).total_seconds())
    return found


class TestMomentsThatFollowFromWhatIsKnown:
    @pytest.mark.parametrize("schedule", ADAPTING)
    @given(
        ids, grids, st.lists(st.tuples(sketches, st.floats(min_value=0, max_value=1)), min_size=2, max_size=12), ages
    )
    def test_whoever_asks_next_knows_what_they_may_no_gap_leaves_the_bounds(
        self,
        schedule: PollSchedule,
        task_id: str,
        grid: str | None,
        holders: list[tuple[Lengths, float]],
        age: timedelta,
    ) -> None:
        schedule = replace(schedule, together=grid)
        assert schedule.least_s is not None
        assert schedule.most_s is not None
        last = last_moment(schedule, BORN, task_id, BORN + age, holders[0][0])
        for lengths, share in holders:
            handed_over = last + timedelta(seconds=schedule.least_s * share * 0.99)
            moment = next_moment(schedule, BORN, task_id, handed_over, lengths)
            assert moment > handed_over
            if last > BORN:
                assert (moment - last).total_seconds() >= schedule.least_s - 1e-5
            assert (moment - last).total_seconds() <= schedule.most_s + 1e-5
            last = moment

    @pytest.mark.parametrize("schedule", ADAPTING)
    @given(
        ids, grids, st.lists(sketches, min_size=1, max_size=40), st.lists(st.floats(0.01, 1), min_size=40, max_size=40)
    )
    def test_a_task_that_is_handed_over_again_and_again_is_never_put_off_for_longer_than_the_most(
        self, schedule: PollSchedule, task_id: str, grid: str | None, sketches: list[Lengths], shares: list[float]
    ) -> None:
        """Each holder starts from the time that the last one had served, without asking, and knows something else."""
        schedule = replace(schedule, together=grid)
        assert schedule.most_s is not None
        time, asked = BORN, BORN
        for lengths, share in zip(sketches * 40, shares, strict=False):
            until = time + timedelta(seconds=schedule.most_s * share)
            while (moment := next_moment(schedule, BORN, task_id, time, lengths)) <= until:
                assert (moment - asked).total_seconds() <= schedule.most_s + 1e-5
                time = asked = moment
            assert (until - asked).total_seconds() <= schedule.most_s + 1e-5
            time = until

    @pytest.mark.parametrize("schedule", ADAPTING)
    @given(ids, grids, sketches, ages)
    def test_the_last_moment_is_the_one_before_the_next(
        self, schedule: PollSchedule, task_id: str, grid: str | None, lengths: Lengths, age: timedelta
    ) -> None:
        schedule = replace(schedule, together=grid)
        last = last_moment(schedule, BORN, task_id, BORN + age, lengths)
        assert last <= BORN + age < next_moment(schedule, BORN, task_id, last, lengths)

    @pytest.mark.parametrize("schedule", [*ADAPTING, between(1, 64, 3600)])
    @given(ids, grids, knowing, st.one_of(young, ages))
    def test_are_those_points_whose_number_the_stride_at_their_own_age_divides(
        self, schedule: PollSchedule, task_id: str, grid: str | None, lengths: Lengths, age: timedelta
    ) -> None:
        schedule = replace(schedule, together=grid)
        last = last_moment(schedule, BORN, task_id, BORN + age, lengths)
        following = next_moment(schedule, BORN, task_id, BORN + age, lengths)
        step_s, widest = schedule.grid()
        origin = next_moment(PollSchedule(step_s * widest, together=grid), BORN, task_id, BORN)  # asked by everybody

        def number(moment: datetime) -> int:
            found = (moment - origin).total_seconds() / step_s
            assert found == pytest.approx(round(found), abs=1e-5)
            return round(found)

        def asked(number: int) -> bool:
            age_s = (origin - BORN).total_seconds() + number * step_s
            return number % schedule.stride(age_s, lengths)[0] == 0

        first = math.floor((BORN - origin).total_seconds() / step_s) + 1 if last == BORN else number(last)
        found = [number for number in range(first, number(following) + 1) if asked(number)]
        assert found == [number(one) for one in (last, following) if one > BORN]

    @pytest.mark.parametrize("schedule", [*ADAPTING, between(1, 64, 3600)])
    @given(knowing, st.one_of(young, ages), st.floats(0, 1))
    def test_have_one_distance_between_the_ages_that_are_told_with_it(
        self, schedule: PollSchedule, lengths: Lengths, age: timedelta, share: float
    ) -> None:
        stride, since_s, until_s = schedule.stride(age.total_seconds(), lengths)
        assert since_s <= age.total_seconds() <= until_s
        least_s, most_s = max(since_s, 0.0), min(until_s, 1e6)
        within_s = least_s + (0.001 + 0.998 * share) * (most_s - least_s)
        assert schedule.stride(within_s, lengths)[0] == stride

    @pytest.mark.parametrize("seen_s", [[100.0] * 30, [1.1**n for n in range(100)], [6000.0 + n for n in range(100)]])
    def test_are_found_without_a_look_at_each_of_the_thousands_of_points_between_them(
        self, seen_s: list[float]
    ) -> None:
        """10,000 tasks of a connection with the widest bounds took a holder 40 s of its minute to take over."""
        looked = 0

        class Counting(Lengths):
            def hazard(self, age_s: float, back_s: float) -> tuple[float, float, float]:
                nonlocal looked
                looked += 1
                return super().hazard(age_s, back_s)

        lengths = Counting(reduce(Lengths.added, seen_s, Lengths()).weights)
        schedule = PollSchedule(64, 1, 4096)
        for age_s in (10, 50, 1000, 3000, 7000, 100_000, 600_000):
            looked = 0
            moment = next_moment(schedule, BORN, "t", at(age_s), lengths)
            last_moment(schedule, BORN, "t", moment - timedelta(seconds=1), lengths)
            assert looked <= 150

    @given(ids, ages)
    def test_of_which_nothing_is_known_are_the_usual_interval_apart(self, task_id: str, age: timedelta) -> None:
        for lengths in (None, Lengths(), known()):
            first = next_moment(ADAPTING[0], BORN, task_id, BORN + age, lengths)
            second = next_moment(ADAPTING[0], BORN, task_id, first, lengths)
            assert (second - first).total_seconds() == pytest.approx(10, abs=1e-5)

    def test_are_few_while_no_end_is_likely_and_many_where_most_are(self) -> None:
        asked = polls(ADAPTING[0], known(*range(600, 640)), 640)
        assert sum(1 for one in asked if one < 560) <= 8
        assert sum(1 for one in asked if one >= 600) >= 7

    @pytest.mark.parametrize("schedule", ADAPTING)
    @given(ids)
    def test_that_stand_behind_an_end_are_asked_however_short_the_time_of_ends_is(
        self, schedule: PollSchedule, task_id: str
    ) -> None:
        """Of 36 s, with 30 s between two points, only those within 4 % of it were asked, and the others much later."""
        assert schedule.least_s is not None
        asked = polls(schedule, known(36.0, 900.0), 900, task_id)
        first = next(one for one in asked if one >= 36.0)
        assert first - 36.0 <= max(schedule.least_s, schedule.interval_s / 2) + 1e-5
        assert sum(1 for one in asked if one < 30.0) <= 1, "as before it none is likely"

    @pytest.mark.parametrize(
        ("ages_s", "length_s"),
        [
            ((40, 45, 45), 42.5),
            ((0, 5, 5), 2.5),
            ((0, 45, 45), 42.5),  # asked seldom, since no end is likely until shortly before
            ((0, 45, 46), 42.5),
            ((40, 45, 65), 52.5),  # nobody could be asked for long
            ((0, 45, 200), 100),
        ],
    )
    def test_tell_how_long_a_task_ran_that_was_found_ended(
        self, ages_s: tuple[float, float, float], length_s: float
    ) -> None:
        assert PollSchedule(10, 5, 80).length_s(*ages_s) == length_s

    def test_grow_apart_again_past_all_that_is_known(self) -> None:
        asked = [one for one in polls(ADAPTING[0], known(100.0), 3000) if one > 110]
        gaps = [later - earlier for earlier, later in pairwise(asked)]
        assert gaps[0] <= 10
        assert gaps[-1] == pytest.approx(80)
        assert all(later >= earlier - 1e-6 for earlier, later in pairwise(gaps))

    @pytest.mark.parametrize(("least", "interval", "most"), [(3, 10, 80), (5, 10, 90), (20, 10, 80), (1, 100, 100)])
    def test_intervals_that_are_no_powers_of_two_apart_are_refused(
        self, least: float, interval: float, most: float
    ) -> None:
        with pytest.raises(ValueError, match="powers of two"):
            PollSchedule(interval, least, most)

    @given(st.floats(1, 3600), st.floats(1, 3600), st.floats(1, 3600))
    def test_bounds_are_taken_inwards(self, one: float, two: float, three: float) -> None:
        least, interval, most = sorted((one, two, three))
        schedule = between(least, interval, most)
        assert schedule.least_s is not None
        assert schedule.most_s is not None
        assert least <= schedule.least_s * 1.000001
        assert schedule.least_s <= interval == schedule.interval_s <= schedule.most_s <= most * 1.000001
        assert schedule.least_s < 2 * least or schedule.least_s * 64 == interval
        assert schedule.most_s > most / 2 or schedule.most_s == interval * 64


class TestMomentsThatTasksShare:
    SCHEDULE = PollSchedule(7.3, together="studio")

    @given(intervals, st.lists(st.tuples(ids, ages), min_size=2, max_size=5), ages)
    def test_are_the_same_instants_however_old_the_tasks_are(
        self, interval_s: float, tasks: list[tuple[str, timedelta]], age: timedelta
    ) -> None:
        schedule, after = PollSchedule(interval_s, together="studio"), BORN + timedelta(days=7) + age
        assert len({next_moment(schedule, BORN + born, task_id, after) for task_id, born in tasks}) == 1

    @pytest.mark.parametrize("schedule", ADAPTING)
    @given(ids, sketches, ages, ages)
    def test_are_points_of_one_grid_whatever_is_known(
        self, schedule: PollSchedule, task_id: str, lengths: Lengths, born: timedelta, age: timedelta
    ) -> None:
        schedule = replace(schedule, together="studio")
        moment = next_moment(schedule, BORN + born, task_id, BORN + born + age, lengths)
        assert schedule.least_s is not None
        steps = (moment - next_moment(schedule, BORN, "another", BORN)).total_seconds() / schedule.least_s
        assert steps == pytest.approx(round(steps), abs=1e-5)

    def test_are_the_widest_intervals_points_for_those_who_are_asked_most_seldom(self) -> None:
        schedule, lengths = PollSchedule(10, 5, 80, together="studio"), known(3000.0)
        young = [next_moment(schedule, at(born), f"t{born}", at(1000), lengths) for born in range(800, 1000, 7)]
        usual = [next_moment(schedule, at(born), f"t{born}", at(1000)) for born in range(800, 1000, 7)]
        assert (len(set(young)), len(set(usual))) == (1, 1)
        assert usual[0] <= young[0] <= at(1080)

    def test_of_two_connections_are_apart(self) -> None:
        other = replace(self.SCHEDULE, together="other")
        assert next_moment(self.SCHEDULE, BORN, "t", at(100)) != next_moment(other, BORN, "t", at(100))

    @given(ids, ages)
    def test_are_never_the_moment_of_registration_again(self, task_id: str, age: timedelta) -> None:
        on_grid = next_moment(self.SCHEDULE, BORN, "t", BORN + age)
        first = next_moment(self.SCHEDULE, on_grid, task_id, on_grid)
        assert (first - on_grid).total_seconds() == pytest.approx(7.3, abs=1e-5)
        assert last_moment(self.SCHEDULE, on_grid, task_id, first - timedelta(microseconds=1)) == on_grid


class TestRetryPolicy:
    @pytest.mark.parametrize(
        ("failures", "delay_s"),
        [
            (1, 5),  # 00:00:05
            (2, 300),  # 00:05:05
            (3, 1800),  # 00:35:05
            (4, 7200),  # 02:35:05
            (5, 18_000),  # 07:35:05
            (6, 36_000),  # 17:35:05
            (7, 50_400),  # 31:35:05
            (8, 72_000),  # 51:35:05
            (9, 86_400),  # 75:35:05
            (10, None),
        ],
    )
    def test_webhooks_are_tried_ten_times_over_75_hours(self, failures: int, delay_s: float | None) -> None:
        assert WEBHOOK_RETRIES.next_delay(failures, random_factor=0.5) == delay_s

    def test_webhook_delays_stray_by_a_fifth_at_most(self) -> None:
        assert WEBHOOK_RETRIES.next_delay(2, random_factor=0.0) == pytest.approx(240)
        assert WEBHOOK_RETRIES.next_delay(2, random_factor=1.0) == pytest.approx(360)

    def test_copies_are_tried_ten_times(self) -> None:
        delays = [COPY_RETRIES.next_delay(failures) for failures in range(1, 11)]
        assert delays == [0, 30, 120, 600, 1800, 3600, 7200, 14_400, 28_800, None]

    @given(
        st.integers(min_value=1, max_value=12),
        st.floats(min_value=0, max_value=1),
        st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)),
    )
    def test_a_hint_only_ever_delays(self, failures: int, factor: float, hint: float | None) -> None:
        plain = WEBHOOK_RETRIES.next_delay(failures, random_factor=factor)
        hinted = WEBHOOK_RETRIES.next_delay(failures, random_factor=factor, retry_after=hint)
        if plain is None:
            assert hinted is None
        else:
            assert hinted is not None
            assert plain <= hinted <= max(plain, 86_400)

    def test_a_hint_is_followed_for_at_most_a_day(self) -> None:
        assert WEBHOOK_RETRIES.next_delay(1, retry_after=60) == 60
        assert WEBHOOK_RETRIES.next_delay(1, retry_after=1e9) == 86_400
        assert WEBHOOK_RETRIES.next_delay(1, retry_after=1) == 5

    def test_there_is_no_retry_without_a_failure(self) -> None:
        with pytest.raises(ValueError, match="at least one failure"):
            COPY_RETRIES.next_delay(0)


class TestClaims:
    POLICY = RetryPolicy((10.0, 100.0))

    def judge(self, due_in_s: float, tries: int, *, claimed: bool) -> Take | Wait | Later | Exhausted:
        return judge_claim(due_at=at(due_in_s), tries=tries, claimed=claimed, policy=self.POLICY, now=at(0))

    def test_a_fresh_item_is_taken_before_it_is_due_and_keeps_its_time(self) -> None:
        assert self.judge(60, 0, claimed=False) == Take(keeps_due=True)
        assert self.judge(40, 0, claimed=False) == Take(keeps_due=True)

    def test_a_fresh_item_with_little_time_left_gets_a_new_end(self) -> None:
        assert self.judge(39, 0, claimed=False) == Take(keeps_due=False)

    def test_a_due_item_is_taken_whatever_its_tries(self) -> None:
        assert self.judge(0, 2, claimed=False) == Take(keeps_due=False)
        assert self.judge(-500, 2, claimed=False) == Take(keeps_due=False)

    def test_two_seconds_are_forgiven_to_clocks(self) -> None:
        assert self.judge(2, 1, claimed=False) == Take(keeps_due=False)
        assert self.judge(2.1, 1, claimed=False) == Wait()

    def test_a_running_claim_is_left_alone(self) -> None:
        assert self.judge(0.1, 0, claimed=True) == Wait()
        assert self.judge(60, 1, claimed=True) == Wait()

    def test_a_claim_that_ran_out_counts_as_a_failed_try_on_the_same_schedule(self) -> None:
        assert self.judge(-1, 1, claimed=True) == Later(at(9))
        assert self.judge(-8, 1, claimed=True) == Take(keeps_due=False)
        assert self.judge(-1, 2, claimed=True) == Later(at(99))

    def test_the_last_claim_that_ran_out_is_the_end(self) -> None:
        assert self.judge(-1, 3, claimed=True) == Exhausted()
