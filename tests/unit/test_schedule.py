"""When to poll, when to retry, and who may claim: every figure is checked against its arithmetic."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderbell.schedule import (
    COPY_RETRIES,
    WEBHOOK_RETRIES,
    Exhausted,
    Later,
    PollSchedule,
    RetryPolicy,
    Take,
    Wait,
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


def at(seconds: float) -> datetime:
    return BORN + timedelta(seconds=seconds)


class TestMoments:
    def test_the_first_poll_is_at_once(self) -> None:
        assert next_moment(PollSchedule(10), BORN, "t", None) == BORN
        assert next_moment(PollSchedule(10), BORN, "t", at(-5)) == BORN

    @given(ids, intervals, ages)
    def test_the_next_moment_is_later_and_at_most_one_interval_away(
        self, task_id: str, interval_s: float, age: timedelta
    ) -> None:
        moment = next_moment(PollSchedule(interval_s), BORN, task_id, BORN + age)
        assert BORN + age < moment <= BORN + age + timedelta(seconds=interval_s, microseconds=2)

    @given(ids, intervals)
    def test_moments_follow_each_other_by_one_interval(self, task_id: str, interval_s: float) -> None:
        schedule = PollSchedule(interval_s)
        first = next_moment(schedule, BORN, task_id, BORN)
        second = next_moment(schedule, BORN, task_id, first)
        assert (second - first).total_seconds() == pytest.approx(interval_s, abs=1e-5)

    @given(ids, intervals, ages, st.floats(min_value=0, max_value=1))
    def test_asking_again_before_a_moment_finds_the_same_one(
        self, task_id: str, interval_s: float, age: timedelta, share: float
    ) -> None:
        schedule = PollSchedule(interval_s)
        moment = next_moment(schedule, BORN, task_id, BORN + age)
        between = BORN + age + (moment - BORN - age) * share
        if between < moment:
            assert next_moment(schedule, BORN, task_id, between) == moment

    @given(ids, intervals, ages)
    def test_the_last_moment_is_the_one_before_the_next(self, task_id: str, interval_s: float, age: timedelta) -> None:
        schedule = PollSchedule(interval_s)
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
