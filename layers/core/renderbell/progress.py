"""What a poller notes for its successor of how far its tasks have come, in ten bytes each. No I/O."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from renderbell.task import Frames, Task

__all__ = ["MOST_NOTED", "NO_NOTES", "ProgressNotes", "noted", "unpacked"]

MOST_NOTED = 30_000  # tasks: 300 kB of an item's 400

_NOTE = struct.Struct(">6sBHB")  # whose, per cent, how many frames, how many seconds ago
_NONE = 255  # instead of per cent
_MOST_FRAMES = 65_535
_LONG_AGO_S = 255  # all that is longer ago

Note = tuple[int, int, int]  # per cent, frames, seconds


@dataclass(frozen=True, slots=True)
class ProgressNotes:
    """What was stored of tasks' progress at a time, by a hash of their ids; of others nothing is known.

    A note may be out of date, or another task's with the same hash. So it only says what need not be written again.
    """

    at: datetime
    notes: Mapping[bytes, Note] = field(default_factory=dict)

    def told(self, task: Task) -> Task:
        """The task with what is noted of its progress; unchanged where nothing is."""
        note = self.notes.get(_key(task.task_id)) if self.notes else None
        if note is None:
            return task
        per_cent, frames, seconds = note
        return replace(
            task,
            progress=None if per_cent == _NONE else per_cent,
            progress_at=self.at - timedelta(seconds=seconds),
            frames=Frames(frames, "") if frames else None,
            progress_known=True,
        )

    def says_more_than(self, other: ProgressNotes) -> bool:
        """Whether it knows of progress that the other does not."""
        return any(note[:2] != other.notes.get(key, (None,))[:2] for key, note in self.notes.items())

    def packed(self) -> bytes:
        """All notes as bytes."""
        return b"".join(_NOTE.pack(key, *note) for key, note in self.notes.items())


NO_NOTES = ProgressNotes(datetime.min.replace(tzinfo=UTC))


def unpacked(packed: bytes, at: datetime) -> ProgressNotes:
    """The notes of a time as they were packed; raises `ValueError` for what no notes are."""
    if len(packed) % _NOTE.size:
        raise ValueError("no notes of progress")
    notes = {key: (per_cent, frames, seconds) for key, per_cent, frames, seconds in _NOTE.iter_unpack(packed)}
    if any(100 < per_cent != _NONE for per_cent, _, _ in notes.values()):
        raise ValueError("no progress")
    return ProgressNotes(at, notes)


def noted(tasks: Iterable[Task], at: datetime, before: ProgressNotes) -> ProgressNotes:
    """What is known of tasks' progress at a time: by themselves, else by earlier notes."""
    notes: dict[bytes, Note] = {}
    doubtful: set[bytes] = set()
    for task in tasks:
        known = task if task.progress_known else before.told(task)
        if known.progress_at is None or (known.frames is not None and known.frames.count > _MOST_FRAMES):
            continue
        key = _key(task.task_id)
        if key in notes:
            doubtful.add(key)
        seconds = int((at - known.progress_at).total_seconds())
        notes[key] = (
            _NONE if known.progress is None else known.progress,
            known.frames.count if known.frames is not None else 0,
            min(max(seconds, 0), _LONG_AGO_S),
        )
    sure = [(key, note) for key, note in notes.items() if key not in doubtful]
    return ProgressNotes(at, dict(sure[:MOST_NOTED]))


def _key(task_id: str) -> bytes:
    return hashlib.blake2b(task_id.encode(), digest_size=6).digest()
