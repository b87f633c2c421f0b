"""What pollers note for each other of their tasks' progress."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderbell.progress import MOST_NOTED, NO_NOTES, noted, unpacked
from renderbell.task import Frames, Status, Task, advance
from tests.unit.test_task import BORN, a_task, at, running

NEWEST = "https://a/1.png"


def known(task_id: str = "tsk_1", *, progress: int | None = 40, frames: int = 0, at_s: float = 0) -> Task:
    """A task whose progress is stored."""
    shown = Frames(frames, NEWEST) if frames else None
    started = replace(a_task(), task_id=task_id, status=Status.PROCESSING)
    return replace(started, progress=progress, progress_at=at(at_s), frames=shown)


def from_the_index(task: Task) -> Task:
    """The same as the index shows it."""
    return replace(task, progress=None, progress_at=None, frames=None, progress_known=False)


tasks = st.builds(
    known,
    task_id=st.integers(0, 10**9).map("tsk_{}".format),
    progress=st.one_of(st.none(), st.integers(0, 100)),
    frames=st.integers(0, 70_000),
    at_s=st.floats(-100_000, 0),
)


@given(st.lists(tasks, unique_by=lambda task: task.task_id), st.floats(0, 1000))
def test_what_is_noted_of_a_task_is_what_was_known_and_at_the_earliest_when(found: list[Task], seconds: float) -> None:
    notes = noted(found, at(seconds), NO_NOTES)
    again = unpacked(notes.packed(), at(seconds))
    assert again == notes
    for task in found:
        told = again.told(from_the_index(task))
        if task.frames is not None and task.frames.count > 65_535:
            assert not told.progress_known
            continue
        assert told.progress_known
        assert told.progress == task.progress
        assert (told.frames and told.frames.count) == (task.frames and task.frames.count)
        assert task.progress_at is not None
        assert told.progress_at is not None
        age_s = (at(seconds) - task.progress_at).total_seconds()
        late_s = (told.progress_at - task.progress_at).total_seconds()
        assert 0 <= late_s < 1 or (age_s > 255 and late_s >= 0), "else a write is refused, or one comes too soon"


@given(st.binary(max_size=60))
def test_what_no_notes_are_is_refused_or_harmless(garbage: bytes) -> None:
    try:
        notes = unpacked(garbage, BORN)
    except ValueError:
        return
    assert len(garbage) % 10 == 0
    told = notes.told(from_the_index(a_task()))
    assert told.progress is None or 0 <= told.progress <= 100


@pytest.mark.parametrize("packed", [b"x", b"x" * 11, b"123456\x65\0\0\0", b"123456\xfe\0\0\0"])
def test_bytes_of_another_length_and_more_than_100_per_cent_are_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match="progress"):
        unpacked(packed, BORN)


def test_of_a_task_that_is_not_noted_nothing_is_known() -> None:
    notes = noted([known("tsk_1")], at(1), NO_NOTES)
    other = from_the_index(known("tsk_2"))
    assert notes.told(other) is other
    assert NO_NOTES.told(other) is other


def test_a_task_without_progress_or_of_which_nothing_is_known_is_not_noted() -> None:
    assert noted([a_task(), from_the_index(known("tsk_2"))], at(1), NO_NOTES).notes == {}


def test_what_is_noted_stays_so_until_more_is_known() -> None:
    first = noted([known("tsk_1", at_s=0), known("tsk_2", at_s=0), known("tsk_3")], at(10), NO_NOTES)
    unseen, further = from_the_index(known("tsk_1")), known("tsk_2", progress=60, at_s=65)
    second = noted([unseen, further], at(70), first)
    assert len(second.notes) == 2, "a task that is gone is forgotten"
    assert second.told(unseen) == replace(unseen, progress=40, progress_at=at(0), progress_known=True)
    assert second.told(from_the_index(further)).progress == 60


def test_two_tasks_with_the_same_hash_are_both_left_out() -> None:
    assert noted([known("tsk_1"), known("tsk_1", progress=50), known("tsk_2")], at(1), NO_NOTES).notes.keys() == (
        noted([known("tsk_2")], at(1), NO_NOTES).notes.keys()
    )


def test_notes_fit_into_an_item() -> None:
    notes = noted((known(f"tsk_{n}") for n in range(MOST_NOTED + 5)), at(1), NO_NOTES)
    assert len(notes.notes) == MOST_NOTED
    assert len(notes.packed()) < 0.8 * 400 * 1024


def test_notes_are_written_again_only_for_news() -> None:
    before = noted([known("tsk_1"), known("tsk_2")], at(1), NO_NOTES)
    assert before.says_more_than(NO_NOTES)
    assert not noted([known("tsk_1")], at(100), before).says_more_than(before), "one that is gone is none"
    assert noted([known("tsk_1", progress=41)], at(100), before).says_more_than(before)
    assert noted([known("tsk_1", frames=1)], at(100), before).says_more_than(before)
    assert noted([known("tsk_3")], at(100), before).says_more_than(before)
    assert not NO_NOTES.says_more_than(before)


def test_the_time_between_two_stored_changes_is_kept_over_a_hand_over() -> None:
    notes = noted([known(progress=40, at_s=0)], at(3), NO_NOTES)
    successor = notes.told(from_the_index(known()))
    assert advance(successor, running(40), at(60)) is successor
    assert advance(successor, running(50), at(14.9)) is successor
    assert advance(successor, running(50), at(15)).progress == 50


def test_a_clock_that_goes_behind_the_one_that_stored_notes_no_time_to_come() -> None:
    notes = noted([known(at_s=2)], at(1), NO_NOTES)
    assert notes.told(from_the_index(known())).progress_at == at(1)
