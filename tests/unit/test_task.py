"""The life of a task: what a provider's word changes, and what it never does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderbell.errors import (
    ProviderAuthError,
    ProviderError,
    ProviderProtocolError,
    ProviderRejected,
    ProviderTaskNotFound,
    ProviderUnavailable,
)
from renderbell.providers.base import Observation, ProviderState
from renderbell.task import (
    HINT_EVERY_S,
    POLL_INTERRUPTED,
    TRANSITIONS,
    ErrorCode,
    FileKind,
    Frames,
    Hint,
    PollError,
    Source,
    Status,
    Step,
    StoredFile,
    StreakKind,
    Task,
    advance,
    cancel,
    cleaned,
    copied,
    copy_failed,
    delete,
    expire,
    hinted,
    new_task,
    notes_progress,
    relinked,
    set_apart,
    with_progress,
)

BORN = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
VIDEO = "https://cdn.example.com/v.mp4"


def at(seconds: float) -> datetime:
    return BORN + timedelta(seconds=seconds)


def a_task(*, deadline_s: int = 3600) -> Task:
    return new_task(
        task_id="tsk_1",
        owner="default",
        connection="studio",
        provider="jimmy",
        provider_task_id="p-1",
        now=BORN,
        deadline_s=deadline_s,
        slot=3,
        tells_processing=False,
    )


def running(progress: int | None = None) -> Observation:
    return Observation(ProviderState.PROCESSING, progress=progress)


DONE = Observation(ProviderState.SUCCEEDED, videos=(VIDEO,), progress=99, duration_s=4.0)
EMPTY = Observation(ProviderState.SUCCEEDED)
QUEUED = Observation(ProviderState.QUEUED)
FAULTS = [
    ProviderUnavailable("503"),
    ProviderUnavailable("429", retry_after=5),
    ProviderAuthError("401"),
    ProviderProtocolError("no JSON", raw="<html>"),
]


class TestAProvidersWord:
    def test_processing_starts_a_queued_task(self) -> None:
        task = advance(a_task(), running(10), at(1))
        assert task.status is Status.PROCESSING
        assert task.progress == 10
        assert (task.history[-1].source, task.history[-1].target) == (Status.QUEUED, Status.PROCESSING)
        assert task.due_at == BORN

    def test_a_finished_task_goes_straight_from_queued_to_copying(self) -> None:
        task = advance(a_task(), DONE, at(1))
        assert (task.status, task.step, task.due_at) == (Status.COPYING, Step.COPY, at(61))
        assert task.sources == (Source(FileKind.VIDEO, VIDEO),)
        assert (task.progress, task.duration_s) == (100, 4.0)

    def test_a_providers_failure_fails_the_task_with_its_words(self) -> None:
        task = advance(a_task(), Observation(ProviderState.FAILED, error="no GPU"), at(1))
        assert task.status is Status.FAILED
        assert task.error is not None
        assert (task.error.code, task.error.message) == (ErrorCode.PROVIDER_FAILED, "no GPU")
        assert (task.step, task.due_at) == (None, None)

    def test_a_providers_cancellation_cancels_the_task(self) -> None:
        assert advance(a_task(), Observation(ProviderState.CANCELLED), at(1)).status is Status.CANCELLED

    def test_queued_after_processing_moves_nothing_back(self) -> None:
        started = advance(a_task(), running(50), at(1))
        assert advance(started, QUEUED, at(30)) is started

    def test_an_unchanged_answer_changes_nothing(self) -> None:
        started = advance(a_task(), running(50), at(1))
        assert advance(started, running(50), at(100)) is started
        fresh = a_task()
        assert advance(fresh, QUEUED, at(1)) is fresh

    def test_progress_is_stored_at_most_every_15_seconds(self) -> None:
        started = advance(a_task(), running(10), at(1))
        assert advance(started, running(20), at(15.9)) is started
        assert advance(started, running(20), at(16)).progress == 20

    def test_progress_that_was_not_known_is_known_once_it_is_stored(self) -> None:
        shown = replace(a_task(), progress_known=False)
        assert not advance(shown, running(), at(1)).progress_known
        assert not advance(shown, ProviderUnavailable("503"), at(1)).progress_known
        assert advance(shown, running(10), at(1)).progress_known

    def test_progress_does_not_fall(self) -> None:
        started = advance(a_task(), running(50), at(1))
        assert advance(started, running(10), at(100)) is started

    def test_frames_are_counted_and_the_newest_is_kept(self) -> None:
        task = advance(a_task(), Observation(ProviderState.PROCESSING, images=("https://a/1", "https://a/2")), at(1))
        assert task.frames is not None
        assert (task.frames.count, task.frames.newest) == (2, "https://a/2")

    def test_a_success_with_images_alone_is_a_success(self) -> None:
        task = advance(a_task(), Observation(ProviderState.SUCCEEDED, images=("https://a/1.png",)), at(1))
        assert task.sources == (Source(FileKind.IMAGE, "https://a/1.png"),)

    def test_images_beside_a_video_are_shown_as_frames(self) -> None:
        images = ("https://a/1.png", "https://a/2.png")
        running = advance(a_task(), Observation(ProviderState.PROCESSING, images=images[:1]), at(1))
        made = advance(running, Observation(ProviderState.SUCCEEDED, videos=(VIDEO,), images=images), at(20))
        assert (made.frames, made.sources) == (Frames(2, images[1]), (Source(FileKind.VIDEO, VIDEO),))
        without = advance(running, Observation(ProviderState.SUCCEEDED, videos=(VIDEO,)), at(20))
        assert without.frames == Frames(1, images[0]), "what was shown before stays"
        assert advance(a_task(), Observation(ProviderState.SUCCEEDED, images=images), at(1)).frames is None

    def test_a_success_with_a_combined_video_alone_has_no_usable_file(self) -> None:
        task = advance(a_task(), Observation(ProviderState.SUCCEEDED, combined=(VIDEO,)), at(1))
        assert task.status is Status.QUEUED

    def test_text_that_cannot_be_stored_is_mended(self) -> None:
        task = advance(a_task(), Observation(ProviderState.FAILED, error="\ud800" + "x" * 5000), at(1))
        assert task.error is not None
        assert len(task.error.message.encode()) <= 3000


class TestAFailedPoll:
    @pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
    def test_is_never_a_failed_task(self, fault: ProviderError) -> None:
        task = a_task()
        for second in range(0, 3500, 10):
            task = advance(task, fault, at(second))
        assert task.status is Status.QUEUED
        assert task.last_poll_error is not None

    def test_is_noted_when_its_kind_changes_and_cleared_by_an_answer(self) -> None:
        task = advance(a_task(), ProviderUnavailable("503"), at(1))
        assert advance(task, ProviderUnavailable("500"), at(10)) is task
        task = advance(task, ProviderProtocolError("no JSON", raw="<html>"), at(20))
        assert task.last_poll_error is not None
        assert (task.last_poll_error.kind, task.last_poll_error.message) == ("protocol", "no JSON: <html>")
        assert advance(task, QUEUED, at(30)).last_poll_error is None


class TestALostTask:
    def test_fails_after_three_polls_over_two_minutes(self) -> None:
        task = advance(a_task(), ProviderTaskNotFound("unknown"), at(0))
        assert task.due_at == at(60)
        task = advance(task, ProviderTaskNotFound("unknown"), at(60))
        task = advance(task, ProviderTaskNotFound("unknown"), at(119))
        assert task.status is Status.QUEUED
        task = advance(task, ProviderTaskNotFound("unknown"), at(120))
        assert task.error is not None
        assert task.error.code is ErrorCode.PROVIDER_TASK_LOST

    def test_is_not_lost_after_two_polls_however_far_apart(self) -> None:
        task = advance(a_task(), ProviderTaskNotFound("unknown"), at(0))
        assert advance(task, ProviderTaskNotFound("unknown"), at(1000)).status is Status.QUEUED

    def test_starts_over_after_any_other_answer(self) -> None:
        task = advance(a_task(), ProviderTaskNotFound("unknown"), at(0))
        task = advance(task, ProviderTaskNotFound("unknown"), at(60))
        task = advance(task, QUEUED, at(90))
        assert task.streak is None
        assert task.due_at == at(90)
        assert advance(task, ProviderTaskNotFound("unknown"), at(200)).status is Status.QUEUED

    @pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
    def test_is_counted_anew_after_anything_else_came_between(self, fault: ProviderError) -> None:
        task = advance(a_task(), ProviderTaskNotFound("unknown"), at(0))
        task = advance(task, ProviderTaskNotFound("unknown"), at(60))
        task = advance(task, fault, at(120))
        assert (task.streak, task.due_at) == (None, at(120))
        assert advance(task, ProviderTaskNotFound("unknown"), at(128)).status is Status.QUEUED

    def test_a_rejection_follows_the_same_rule_with_its_own_code(self) -> None:
        task = a_task()
        for second in (0, 60, 120):
            task = advance(task, ProviderRejected("bad id"), at(second))
        assert task.error is not None
        assert task.error.code is ErrorCode.PROVIDER_REJECTED


class TestSuccessWithoutAFile:
    def test_is_asked_three_more_times_20_seconds_apart(self) -> None:
        task = a_task()
        for second in (0, 20, 40):
            task = advance(task, EMPTY, at(second))
            assert task.status is Status.QUEUED
            assert task.due_at == at(second + 20)
        assert task.streak is not None
        assert task.streak.kind is StreakKind.NO_FILE
        task = advance(task, EMPTY, at(60))
        assert task.error is not None
        assert task.error.code is ErrorCode.NO_VIDEO

    def test_is_forgotten_when_the_file_appears(self) -> None:
        task = advance(a_task(), EMPTY, at(0))
        assert advance(task, DONE, at(20)).status is Status.COPYING


class TestATaskThatIsAskedApart:
    def test_is_put_off_on_the_copys_schedule_before_each_poll(self) -> None:
        task = a_task(deadline_s=7 * 86_400)
        now, delays = at(0), []
        for _ in range(11):
            task = set_apart(task, now)
            assert task.due_at is not None
            delays.append((task.due_at - now).total_seconds())
            now = task.due_at
        assert delays == [30, 30, 120, 600, 1800, 3600, 7200, 14_400, 28_800, 28_800, 28_800]

    def test_shows_that_it_was_interrupted_when_it_is_put_off_again(self) -> None:
        once = set_apart(a_task(), at(1))
        assert once.last_poll_error is None
        twice = set_apart(once, at(31))
        assert twice.last_poll_error == PollError("interrupted", POLL_INTERRUPTED, at(31))

    def test_is_not_asked_by_two_at_once(self) -> None:
        once = set_apart(a_task(), at(1))
        assert set_apart(once, at(30)) is once
        assert set_apart(once, at(31)) is not once

    @pytest.mark.parametrize("outcome", [running(), QUEUED, EMPTY, DONE, *FAULTS, ProviderTaskNotFound("gone")])
    def test_is_as_before_whatever_it_is_answered(self, outcome: Observation | ProviderError) -> None:
        after = advance(set_apart(set_apart(a_task(), at(1)), at(61)), outcome, at(62))
        assert not after.apart
        assert after.last_poll_error is None or after.last_poll_error.kind != "interrupted"

    def test_is_put_off_to_its_deadline_at_most(self) -> None:
        assert set_apart(a_task(deadline_s=3600), at(3590)).due_at == at(3600)
        assert set_apart(a_task(deadline_s=3600), at(3610)).due_at == at(3610)

    def test_is_left_alone_once_it_is_not_polled_any_more(self) -> None:
        copying = advance(a_task(), DONE, at(1))
        assert set_apart(copying, at(2)) is copying


class TestTheDeadline:
    def test_a_last_answer_expires_the_task(self) -> None:
        assert advance(a_task(deadline_s=60), running(10), at(60)).status is Status.EXPIRED
        assert advance(a_task(deadline_s=60), ProviderTaskNotFound("?"), at(60)).status is Status.EXPIRED

    def test_a_success_at_the_last_poll_still_counts(self) -> None:
        assert advance(a_task(deadline_s=60), DONE, at(70)).status is Status.COPYING

    def test_a_last_poll_that_fails_is_repeated_for_a_minute(self) -> None:
        task = advance(a_task(deadline_s=60), ProviderUnavailable("503"), at(60))
        assert task.status is Status.QUEUED
        assert expire(task, at(119.9)) is task
        assert advance(task, ProviderUnavailable("503"), at(120)).status is Status.EXPIRED
        assert expire(task, at(120)).status is Status.EXPIRED

    def test_copying_does_not_expire(self) -> None:
        copying = advance(a_task(deadline_s=60), DONE, at(59))
        assert expire(copying, at(10_000)) is copying


class TestTheEnd:
    FILE = StoredFile(1, FileKind.VIDEO, "bucket", "default/tsk_1/1.mp4", 10, "ab", "video/mp4", VIDEO)

    def test_a_copied_task_is_completed(self) -> None:
        task = copied(advance(a_task(), DONE, at(1)), [self.FILE], at(5))
        assert (task.status, task.files, task.step, task.due_at) == (Status.COMPLETED, (self.FILE,), None, None)

    def test_a_copy_that_was_interrupted_is_cleaned_up_after_completion(self) -> None:
        task = copied(advance(a_task(), DONE, at(1)), [self.FILE], at(5), clean=True)
        assert (task.status, task.step, task.due_at) == (Status.COMPLETED, Step.CLEAN, at(65))
        assert cleaned(task).due_at is None

    def test_a_copy_that_failed_for_good_leaves_nothing_behind(self) -> None:
        task = copy_failed(advance(a_task(), DONE, at(1)), "gone", at(5))
        assert task.error is not None
        assert (task.status, task.error.code, task.step) == (Status.FAILED, ErrorCode.COPY_FAILED, Step.CLEAN)

    @pytest.mark.parametrize("outcome", [None, running(1), DONE], ids=["queued", "processing", "copying"])
    def test_an_owner_may_cancel_until_the_end(self, outcome: Observation | None) -> None:
        task = a_task() if outcome is None else advance(a_task(), outcome, at(1))
        cancelled = cancel(task, at(2))
        assert cancelled.status is Status.CANCELLED
        assert (cancelled.step is Step.CLEAN) is (task.status is Status.COPYING)
        assert cancel(cancelled, at(3)) is cancelled

    @pytest.mark.parametrize("outcome", [None, running(1), DONE], ids=["queued", "processing", "copying"])
    def test_a_running_task_that_is_deleted_is_cancelled_and_removed_once_an_old_claim_has_ended(
        self, outcome: Observation | None
    ) -> None:
        task = a_task() if outcome is None else advance(a_task(), outcome, at(1))
        deleted = delete(task, at(2))
        assert (deleted.status, deleted.deleted, deleted.step, deleted.due_at) == (
            Status.CANCELLED,
            True,
            Step.CLEAN,
            at(62),
        )
        assert [line.reason for line in deleted.history[len(task.history) :]] == ["deleted by the owner"]

    def test_an_ended_task_that_is_deleted_stays_as_it_ended(self) -> None:
        done = copied(advance(a_task(), DONE, at(1)), [self.FILE], at(5))
        deleted = delete(done, at(9))
        assert deleted == replace(done, deleted=True, step=Step.CLEAN, due_at=at(69))
        assert delete(deleted, at(30)) is deleted, "a second deletion puts nothing off"

    def test_a_deleted_task_is_moved_by_nobody(self) -> None:
        deleted = delete(a_task(), at(1))
        assert advance(deleted, DONE, at(2)) is deleted
        assert cancel(deleted, at(2)) is deleted
        assert expire(deleted, at(100_000)) is deleted

    def test_fresh_links_replace_old_ones_of_the_same_kind_and_number(self) -> None:
        copying = advance(a_task(), DONE, at(1))
        fresh = relinked(copying, replace(DONE, videos=("https://cdn.example.com/v.mp4?again",)))
        assert fresh.sources[0].url.endswith("?again")
        assert relinked(copying, EMPTY) is copying


outcomes = st.one_of(
    st.builds(
        Observation,
        state=st.sampled_from(ProviderState),
        progress=st.one_of(st.none(), st.integers(-1000, 1000)),
        videos=st.sampled_from([(), (VIDEO,), (VIDEO, VIDEO + "2")]),
        images=st.sampled_from([(), ("https://a/1.png",)]),
        error=st.one_of(st.none(), st.text(max_size=5)),
        duration_s=st.one_of(st.none(), st.floats()),
    ),
    st.sampled_from([*FAULTS, ProviderTaskNotFound("?"), ProviderRejected("?")]),
)
words = st.lists(st.tuples(outcomes, st.floats(min_value=0, max_value=200)), max_size=25)


@given(words, st.integers(min_value=60, max_value=2000))
def test_any_words_of_a_provider_keep_the_life_of_a_task_legal(
    said: list[tuple[Observation | ProviderError, float]], deadline_s: int
) -> None:
    task, now = a_task(deadline_s=deadline_s), BORN
    for outcome, seconds in said:
        now += timedelta(seconds=seconds)
        before, task = task, advance(task, outcome, now)
        if before.status.terminal:
            assert task is before, "a terminal task is frozen"
        if task.status is not before.status:
            assert task.status in TRANSITIONS[before.status], "no backward move"
            assert task.history[:-1] == before.history
        else:
            assert task.history == before.history
        assert task.progress is None or 0 <= task.progress <= 100
        assert (task.due_at is None) == (task.step is None), "whatever is due says what for"
        assert (task.error is not None) == (task.status is Status.FAILED)
    for earlier, later in zip(task.history, task.history[1:], strict=False):
        assert later.source is earlier.target
        assert later.at >= earlier.at
    assert task.history[-1].target is task.status


class TestAChangeOfProgressAlone:
    def test_is_what_the_index_shows_nothing_of(self) -> None:
        started = advance(a_task(), running(10), at(1))
        more = Observation(
            ProviderState.PROCESSING, progress=20, images=("https://a/1.png",), model="sora", duration_s=4.0
        )
        assert notes_progress(started, advance(started, more, at(20)))

    def test_is_no_other_change(self) -> None:
        started = advance(a_task(), running(10), at(1))
        doubted = advance(started, ProviderTaskNotFound("?"), at(20))
        assert not notes_progress(a_task(), started)
        assert not notes_progress(started, doubted)
        assert not notes_progress(doubted, advance(doubted, running(20), at(40)))
        assert not notes_progress(started, hinted(started, at(20)))
        assert not notes_progress(started, advance(started, DONE, at(20)))

    def test_another_reading_of_a_task_says_what_it_does_not_know_itself(self) -> None:
        known = advance(a_task(), running(10), at(1))
        later = replace(hinted(known, at(9)), progress=None, progress_at=None, progress_known=False, version=3)
        assert with_progress(later, known) == replace(later, progress=10, progress_at=at(1), progress_known=True)
        assert with_progress(known, later) is known
        assert with_progress(later, later) is later


class TestAHint:
    def test_a_hint_makes_a_task_due_and_changes_nothing_else(self) -> None:
        task = a_task()
        after = hinted(task, at(30))
        assert (after.hint, after.due_at) == (Hint(at(30), 1), at(30))
        assert replace(after, hint=None, due_at=task.due_at) == task

    def test_a_second_hint_soon_after_counts_from_five_seconds_on_and_further_ones_say_nothing_new(self) -> None:
        once = hinted(a_task(), at(30))
        twice = hinted(once, at(31))
        assert (twice.hint, twice.due_at) == (Hint(at(35), 2), at(35))
        assert hinted(twice, at(34.9)) is twice
        assert hinted(twice, at(35)).hint == Hint(at(40), 3)
        assert hinted(twice, at(60)).hint == Hint(at(60), 3)

    def test_what_is_past_polling_or_its_deadline_takes_no_hint(self) -> None:
        for task in (advance(a_task(), DONE, at(1)), cancel(a_task(), at(1)), delete(a_task(), at(1))):
            assert hinted(task, at(2)) is task
        task = a_task(deadline_s=60)
        assert hinted(task, at(60)) is task

    def test_success_without_a_file_is_looked_at_in_its_own_time(self) -> None:
        doubted = advance(a_task(), EMPTY, at(1))
        assert hinted(doubted, at(2)) is doubted
        put_off = set_apart(a_task(), at(1))
        assert hinted(put_off, at(2)) is put_off

    def test_a_task_that_is_not_found_is_lost_no_sooner_for_hints(self) -> None:
        task = a_task()
        for second in range(0, 119, 5):
            task = advance(hinted(task, at(second)), ProviderTaskNotFound("404"), at(second))
        assert task.status is Status.QUEUED

    @given(st.lists(st.floats(0, 4), max_size=60))
    def test_however_they_come_hints_are_five_seconds_apart_and_the_last_word_is_followed(
        self, pauses_s: list[float]
    ) -> None:
        task, now_s, times = a_task(), 1.0, set()
        for pause_s in pauses_s:
            now_s += pause_s
            task = hinted(task, at(now_s))
            assert task.hint is not None
            assert 0 <= (task.hint.at - at(now_s)).total_seconds() <= HINT_EVERY_S
            times.add(task.hint.at)
        in_order = sorted(times)
        apart = [(later - earlier).total_seconds() for earlier, later in pairwise(in_order)]
        assert all(gap_s >= HINT_EVERY_S for gap_s in apart)
