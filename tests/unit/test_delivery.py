"""What an answer makes of a delivery and of its endpoint: pure rules, each by its table or as a property."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderbell.delivery import (
    HEALTHY,
    INTERNAL,
    INTERRUPTED,
    REFUSED,
    WELL,
    Answer,
    Attempt,
    Delivery,
    DeliveryState,
    EndpointHealth,
    ReceiverHealth,
    ReceiverState,
    after_answer,
    after_failure,
    answer_of,
    as_recorded,
    interrupted,
    judge,
    new_delivery,
    receiver_after,
    redelivered,
)
from renderbell.schedule import WEBHOOK_RETRIES
from tests.virtual import START

DOWN = Answer(503)
TRIES = len(WEBHOOK_RETRIES.delays_s) + 1
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

factors = st.floats(min_value=0, max_value=1)
hints = st.one_of(st.none(), st.floats(min_value=-10, max_value=1e6))


def a_delivery(tries: int = 1) -> Delivery:
    made = new_delivery(
        task_id="tsk_1",
        owner="default",
        event="task.completed",
        endpoint_id="url_1",
        receiver="example.com",
        url="https://example.com/hook",
        slot=1,
        ttl=None,
        now=START,
    )
    return replace(made, tries=tries, token="t1")


def recorded(held: Delivery, answer: Answer, after: Delivery, at: datetime) -> Attempt:
    return Attempt(
        task_id=held.task_id,
        event=held.event,
        endpoint_id=held.endpoint_id,
        at=at,
        number=held.tries,
        status=answer.status,
        error=answer.error,
        detail=None,
        body="",
        duration_ms=0,
        manual=False,
        next_at=after.due_at,
    )


class TestAnAnswer:
    @pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
    def test_of_2xx_alone_is_a_success(self, status: int) -> None:
        after = judge(a_delivery(), Answer(status), START, 0.5)
        assert (after.state, after.due_at, after.token) == (DeliveryState.DELIVERED, None, None)

    @pytest.mark.parametrize("status", [100, 199, 300, 301, 302, 303, 304, 307, 308, 400, 401, 404, 408, 422, 500, 502])
    def test_of_anything_else_is_tried_again(self, status: int) -> None:
        after = judge(a_delivery(), Answer(status, retry_after_s=3600), START, 0.5)
        assert after.state is DeliveryState.PENDING
        assert after.due_at == START + timedelta(seconds=5), "a hint counts only on 429 and 503"

    @pytest.mark.parametrize("error", ["timeout", "dns", "connection", "tls", "protocol", INTERNAL])
    def test_that_never_came_is_tried_again(self, error: str) -> None:
        after = judge(a_delivery(2), Answer(None, error), START, 0.5)
        assert (after.state, after.last_error) == (DeliveryState.PENDING, error)
        assert after.due_at == START + timedelta(seconds=300)

    @pytest.mark.parametrize("status", [429, 503])
    def test_with_a_hint_is_followed(self, status: int) -> None:
        after = judge(a_delivery(), Answer(status, retry_after_s=90), START, 0.5)
        assert after.due_at == START + timedelta(seconds=90)

    def test_of_410_ends_the_delivery(self) -> None:
        assert judge(a_delivery(), Answer(410), START, 0.5).state is DeliveryState.GONE

    def test_from_an_address_that_is_refused_ends_the_delivery(self) -> None:
        after = judge(a_delivery(), Answer(None, REFUSED, refused=True), START, 0.5)
        assert (after.state, after.last_error) == (DeliveryState.REFUSED, REFUSED)

    def test_after_the_last_try_is_the_end(self) -> None:
        assert judge(a_delivery(TRIES - 1), DOWN, START, 0.5).state is DeliveryState.PENDING
        assert judge(a_delivery(TRIES), DOWN, START, 0.5).state is DeliveryState.EXHAUSTED

    @given(st.lists(st.tuples(factors, hints), min_size=TRIES, max_size=TRIES))
    def test_with_a_hint_only_ever_delays_the_whole_schedule(self, draws: list[tuple[float, float | None]]) -> None:
        plain, hinted = a_delivery(0), a_delivery(0)
        for number, (factor, hint) in enumerate(draws, 1):
            assert plain.due_at is not None
            assert hinted.due_at is not None
            assert hinted.due_at >= plain.due_at
            plain = judge(replace(plain, tries=number), DOWN, plain.due_at, factor)
            answer = replace(DOWN, retry_after_s=hint)
            hinted = judge(replace(hinted, tries=number), answer, hinted.due_at, factor)
        assert plain.state is hinted.state is DeliveryState.EXHAUSTED, "the hints changed the number of tries"


class TestADisabledEndpoint:
    def test_gets_no_retry(self) -> None:
        after = judge(a_delivery(), DOWN, START, 0.5, disabled=True)
        assert (after.state, after.due_at, after.last_status) == (DeliveryState.DISABLED, None, 503)

    def test_may_still_be_delivered_to(self) -> None:
        assert judge(a_delivery(), Answer(204), START, 0.5, disabled=True).state is DeliveryState.DELIVERED

    def test_is_tried_again_where_the_failure_was_ours(self) -> None:
        assert judge(a_delivery(), Answer(None, INTERNAL), START, 0.5, disabled=True).state is DeliveryState.PENDING

    def test_exhausts_a_delivery_that_was_at_its_last_try(self) -> None:
        assert judge(a_delivery(TRIES), DOWN, START, 0.5, disabled=True).state is DeliveryState.EXHAUSTED


class TestHealth:
    def after(self, *failures: timedelta) -> EndpointHealth:
        health = HEALTHY
        for since_start in failures:
            health = after_failure(health, START + since_start)
        return health

    @pytest.mark.parametrize(
        ("failures", "disabled"),
        [
            ([0 * DAY], False),
            ([0 * DAY, 5 * DAY], False),  # two are too few
            ([0 * DAY, 11 * HOUR, 5 * DAY], False),  # a burst long ago, and one
            ([0 * DAY, 12 * HOUR, 5 * DAY], True),
            ([0 * DAY, 12 * HOUR, 5 * DAY - timedelta(seconds=1)], False),
            ([0 * DAY, 5 * DAY, 5 * DAY + timedelta(seconds=5)], True),
            ([0 * DAY, 12 * HOUR, 20 * DAY], True),
            ([n * HOUR for n in range(119)], False),
            ([n * HOUR for n in range(121)], True),
        ],
    )
    def test_is_given_up_after_five_days_of_failures(self, failures: list[timedelta], disabled: bool) -> None:
        assert self.after(*failures).disabled is disabled

    def test_is_restored_by_one_success(self) -> None:
        disabled = self.after(0 * DAY, 12 * HOUR, 5 * DAY)
        assert after_answer(disabled, Answer(204), START) == HEALTHY
        again = after_failure(HEALTHY, START + 6 * DAY)
        assert not after_failure(again, START + 7 * DAY).disabled, "the days count anew"

    @pytest.mark.parametrize(
        "answer", [Answer(None, REFUSED, refused=True), Answer(None, INTERRUPTED), Answer(None, INTERNAL)]
    )
    def test_is_not_touched_by_what_is_not_the_receivers_doing(self, answer: Answer) -> None:
        failing = self.after(0 * DAY, 12 * HOUR)
        assert after_answer(failing, answer, START + 6 * DAY) == failing
        assert after_answer(HEALTHY, answer, START) == HEALTHY

    @given(st.lists(st.integers(min_value=0, max_value=300), min_size=1, max_size=40))
    def test_changes_three_times_at_most_and_as_the_rule_says(self, hours: list[int]) -> None:
        times = [HOUR * hour for hour in sorted(hours)]
        seen = [HEALTHY]
        for time in times:
            health = after_failure(seen[-1], START + time)
            if health != seen[-1]:
                seen.append(health)
        far = [time for time in times if time - times[0] >= 12 * HOUR]
        late = [time for time in far[1:] if time - times[0] >= 5 * DAY]
        assert len(seen) - 1 == 1 + bool(far) + bool(late)
        assert seen[-1].disabled is bool(late)


class TestARecordedAttempt:
    @given(
        st.one_of(
            st.builds(Answer, st.sampled_from([200, 204, 301, 404, 410, 429, 500, 503]), retry_after_s=hints),
            st.sampled_from([Answer(None, "timeout"), Answer(None, INTERNAL), Answer(None, REFUSED, refused=True)]),
        ),
        st.integers(min_value=1, max_value=TRIES),
        factors,
        st.booleans(),
    )
    def test_says_all_that_its_process_would_have_written(
        self, answer: Answer, tries: int, factor: float, disabled: bool
    ) -> None:
        held = a_delivery(tries)
        after = judge(held, answer, START, factor, disabled=disabled)
        attempt = recorded(held, answer, after, START)
        assert as_recorded(held, attempt) == after
        assert answer_of(attempt).tells_of_receiver is answer.tells_of_receiver


class TestAnInterruptedAttempt:
    def test_counts_as_failed_on_the_same_schedule(self) -> None:
        ended = START + timedelta(seconds=60)
        after = interrupted(a_delivery(2), ended, 0.5)
        assert (after.state, after.last_error, after.token) == (DeliveryState.PENDING, INTERRUPTED, None)
        assert after.due_at == ended + timedelta(seconds=300)
        assert interrupted(a_delivery(TRIES), ended, 0.5).state is DeliveryState.EXHAUSTED


FAILING = ReceiverHealth(ReceiverState.FAILING)
SLOW_AT_1, SLOW_AT_2 = (ReceiverHealth(ReceiverState.SLOW, endpoint) for endpoint in ("url_1", "url_2"))
SLOW = ReceiverHealth(ReceiverState.SLOW)
LATE_AT_1, LATE_AT_2 = (ReceiverHealth(ReceiverState.LATE, endpoint) for endpoint in ("url_1", "url_2"))
WELL_BUT_1, WELL_BUT_2 = (ReceiverHealth(ReceiverState.WELL, endpoint) for endpoint in ("url_1", "url_2"))
FAILING_BUT_1, FAILING_BUT_2 = (ReceiverHealth(ReceiverState.FAILING, endpoint) for endpoint in ("url_1", "url_2"))
ROWLESS = [WELL, FAILING, WELL_BUT_1, WELL_BUT_2, FAILING_BUT_1, FAILING_BUT_2]  # the last answer was not late
RECEIVERS = [*ROWLESS, LATE_AT_1, LATE_AT_2, SLOW_AT_1, SLOW_AT_2, SLOW]


class TestAReceiver:
    SILENCES = (
        Answer(None, "timeout", duration_ms=15_000),
        Answer(None, "connection", duration_ms=5000),
    )
    LATE_ANSWERS = (Answer(204, duration_ms=5000), Answer(500, duration_ms=14_000), Answer(410, duration_ms=5001))
    SLOW_ALREADY = ((SLOW_AT_1, SLOW_AT_1), (SLOW_AT_2, SLOW), (SLOW, SLOW))

    @pytest.mark.parametrize("answer", SILENCES)
    @pytest.mark.parametrize(
        ("before", "after"), [*((one, SLOW_AT_1) for one in (*ROWLESS, LATE_AT_1, LATE_AT_2)), *SLOW_ALREADY]
    )
    def test_that_says_nothing_is_slow_at_one_endpoint_and_with_a_second_at_all(
        self, before: ReceiverHealth, answer: Answer, after: ReceiverHealth
    ) -> None:
        assert receiver_after(before, "url_1", answer) == after

    @pytest.mark.parametrize("answer", LATE_ANSWERS)
    @pytest.mark.parametrize("before", [WELL, FAILING, WELL_BUT_2, FAILING_BUT_2])
    def test_that_takes_long_once_is_late(self, before: ReceiverHealth, answer: Answer) -> None:
        assert receiver_after(before, "url_1", answer) == LATE_AT_1

    @pytest.mark.parametrize("answer", LATE_ANSWERS)
    @pytest.mark.parametrize(
        ("before", "after"),
        [*((one, SLOW_AT_1) for one in (LATE_AT_1, LATE_AT_2, WELL_BUT_1, FAILING_BUT_1)), *SLOW_ALREADY],
    )
    def test_that_takes_long_twice_in_a_row_is_slow_as_after_a_silence(
        self, before: ReceiverHealth, answer: Answer, after: ReceiverHealth
    ) -> None:
        assert receiver_after(before, "url_1", answer) == after

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (Answer(204, duration_ms=4999), WELL),
            (Answer(500, duration_ms=10), FAILING),
            (Answer(None, "connection", duration_ms=3), FAILING),  # refused: who hears so waits no longer
        ],
    )
    @pytest.mark.parametrize("before", [WELL, FAILING, LATE_AT_1, WELL_BUT_1, FAILING_BUT_1, SLOW_AT_1, SLOW])
    def test_that_answers_soon_is_what_it_says(
        self, before: ReceiverHealth, answer: Answer, said: ReceiverHealth
    ) -> None:
        assert receiver_after(before, "url_1", answer) == said

    @pytest.mark.parametrize("answer", [Answer(204), Answer(500), Answer(None, "connection", duration_ms=3)])
    def test_that_hangs_at_one_endpoint_is_not_cleared_by_another(self, answer: Answer) -> None:
        assert receiver_after(SLOW_AT_2, "url_1", answer) == SLOW_AT_2

    @pytest.mark.parametrize(("answer", "said"), [(Answer(204), WELL_BUT_2), (Answer(500), FAILING_BUT_2)])
    @pytest.mark.parametrize("before", [LATE_AT_2, WELL_BUT_2, FAILING_BUT_2])
    def test_that_was_late_at_one_endpoint_has_that_row_ended_by_another_but_not_forgotten(
        self, before: ReceiverHealth, answer: Answer, said: ReceiverHealth
    ) -> None:
        assert receiver_after(before, "url_1", answer) == said

    @pytest.mark.parametrize("error", [INTERNAL, INTERRUPTED, REFUSED])
    @pytest.mark.parametrize("before", RECEIVERS)
    def test_is_not_judged_by_what_is_not_its_doing(self, before: ReceiverHealth, error: str) -> None:
        answer = Answer(None, error, refused=error == REFUSED, duration_ms=15_000)
        assert receiver_after(before, "url_1", answer) == before

    def test_is_slow_at_the_one_endpoint_that_is_known_or_at_all(self) -> None:
        assert [one for one in RECEIVERS if one.is_slow_at("url_1")] == [SLOW_AT_1, SLOW]


def test_a_record_tells_again_how_long_the_answer_took() -> None:
    slow = Answer(204, duration_ms=6000)
    held = a_delivery()
    record = replace(recorded(held, slow, judge(held, slow, START, 0.5), START), duration_ms=slow.duration_ms)
    assert receiver_after(WELL, "url_1", answer_of(record)) == LATE_AT_1


# -- attempts that the owner asks for ---------------------------------------------------------------------------------

ENDED = [one for one in DeliveryState if one is not DeliveryState.PENDING]
NOT_HEARD = [
    DOWN,
    Answer(410),
    Answer(None, REFUSED, refused=True),
    Answer(None, INTERNAL),
    Answer(429, retry_after_s=60),
]


def by_hand(state: DeliveryState, tries: int = 3) -> Delivery:
    """A delivery of which the owner asked for another attempt, claimed for that."""
    due_at = START + HOUR if state is DeliveryState.PENDING else None
    asked = redelivered(replace(a_delivery(tries), token=None, state=state, due_at=due_at), START)
    assert asked is not None
    assert (asked.state, asked.due_at, asked.manual) == (DeliveryState.PENDING, START, True)
    return replace(asked, token="t9", tries=tries + 1, due_at=START + timedelta(seconds=60))


@pytest.mark.parametrize("state", DeliveryState)
def test_one_that_is_heard_by_hand_is_delivered_whatever_it_was_before(state: DeliveryState) -> None:
    after = judge(by_hand(state), Answer(200), START, 0.5)
    assert (after.state, after.due_at, after.token, after.manual) == (DeliveryState.DELIVERED, None, None, False)


@pytest.mark.parametrize("state", ENDED)
@pytest.mark.parametrize("answer", NOT_HEARD)
@pytest.mark.parametrize("tries", [1, TRIES])
def test_one_that_had_ended_and_fails_by_hand_is_as_it_was(state: DeliveryState, answer: Answer, tries: int) -> None:
    after = judge(by_hand(state, tries), answer, START, 0.5)
    assert (after.state, after.due_at, after.token, after.manual) == (state, None, None, False)
    assert (after.last_status, after.last_error, after.last_attempt_at) == (answer.status, answer.error, START)
    lost = interrupted(by_hand(state, tries), START, 0.5)
    assert (lost.state, lost.due_at, lost.token, lost.manual, lost.last_error) == (
        state,
        None,
        None,
        False,
        INTERRUPTED,
    )


@pytest.mark.parametrize("tries", range(1, TRIES))
def test_one_that_was_pending_and_fails_by_hand_goes_on_by_the_schedule(tries: int) -> None:
    held = by_hand(DeliveryState.PENDING, tries)
    for answer in NOT_HEARD:
        assert judge(held, answer, START, 0.5) == judge(replace(held, resumes=None), answer, START, 0.5)
    assert interrupted(held, START, 0.5) == interrupted(replace(held, resumes=None), START, 0.5)


@pytest.mark.parametrize("state", DeliveryState)
@pytest.mark.parametrize("answer", [*NOT_HEARD, Answer(200)])
def test_an_attempt_by_hand_is_known_from_its_record_where_its_process_died(
    state: DeliveryState, answer: Answer
) -> None:
    held = by_hand(state)
    after = judge(held, answer, START, 0.5)
    found = as_recorded(held, recorded(held, answer, after, START))
    assert (found.state, found.due_at, found.token, found.manual) == (after.state, after.due_at, None, False)


def test_one_that_is_being_sent_is_not_asked_for_and_twice_is_as_once() -> None:
    assert redelivered(a_delivery(), START) is None
    ended = replace(a_delivery(), token=None, state=DeliveryState.GONE, due_at=None)
    once = redelivered(ended, START)
    assert once is not None
    assert once.resumes is DeliveryState.GONE
    assert redelivered(once, START + HOUR) is once
