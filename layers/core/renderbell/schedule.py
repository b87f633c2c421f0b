"""When to poll next, and when to try again: pure functions of times and counts.

Clock and randomness are arguments, so that every figure here can be tested exactly.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from renderbell.lengths import Lengths

__all__ = ["COPY_RETRIES", "WEBHOOK_RETRIES", "PollSchedule", "RetryPolicy", "between", "next_moment", "phase"]

HOUR_S = 3600.0
MAX_RETRY_AFTER_S = 24 * HOUR_S
WIDEST = 6  # doublings between two of a schedule's intervals
POLLS_WEIGHT = 10.0  # at an interval of 10 s, one poll more is worth half a second of lateness less
LATE_SHARE = 4  # a task that is older than any has been is asked for after a quarter of what it is older
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)  # where the grids begin that tasks share


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """How often to poll: every `interval_s` seconds.

    With `least_s` and `most_s`, where it is known how long tasks take: as often as that asks for, between these. Both
    are powers of two apart from each other and from the interval, so that every wider grid lies within the finer ones.
    Tasks whose schedules are `together` under one name have one grid, so that they fall due at the same moments.
    """

    interval_s: float
    least_s: float | None = None
    most_s: float | None = None
    together: str | None = None

    def __post_init__(self) -> None:
        for longer, shorter in ((self.interval_s, self.least_s), (self.most_s, self.interval_s)):
            if longer is not None and shorter is not None and math.log2(longer / shorter) not in range(WIDEST + 1):
                raise ValueError("a schedule's intervals are powers of two apart")

    @property
    def adapts(self) -> bool:
        """Whether what is known of tasks' lengths makes a difference."""
        return self.grid()[1] > 1

    def grid(self) -> tuple[float, int]:
        """The finest grid in seconds, and how many of its points the widest interval spans."""
        step_s = self.least_s or self.interval_s
        return step_s, round((self.most_s or self.interval_s) / step_s)

    def stride(self, age_s: float, lengths: Lengths | None) -> tuple[int, float, float]:
        """How many points of the finest grid lie between two polls at an age: a power of two.

        Polling every d seconds finds an end d/2 late; with the hazard h, polls and lateness together cost least where
        d grows with 1/sqrt(h). A poll finds what has ended before it, so h is the highest since the point before. Past
        all that is known, a task is asked for in proportion to how late it is. Source of the weight:
        docs/decisions.md. With it, the ages between which it is the same for sure.
        """
        if lengths is None or not lengths.known or not self.adapts:
            return self._within(self.interval_s), -math.inf, math.inf
        late_s = age_s - lengths.longest_s
        if late_s <= 0:
            hazard, since_s, until_s = lengths.hazard(age_s, self.grid()[0])
            wished_s = math.sqrt(self.interval_s / POLLS_WEIGHT / hazard) if hazard else math.inf
            return self._within(wished_s), since_s, min(until_s, lengths.longest_s)
        points = self._within(max(self.interval_s, late_s / LATE_SHARE))
        step_s, widest = self.grid()
        since_s = points * step_s * LATE_SHARE if points * step_s > self.interval_s else 0.0
        until_s = points * 2 * step_s * LATE_SHARE if points < widest else math.inf
        return points, lengths.longest_s + since_s, lengths.longest_s + until_s

    def length_s(self, before_s: float, due_s: float, found_s: float) -> float:
        """How long a task is taken to have run that went on at one moment, and was found ended after the next was due.

        In the middle, but hardly before the poll that was due: where that was far, no end was likely until shortly
        before it.
        """
        return max((before_s + found_s) / 2, due_s - self.grid()[0] / 2)

    def _within(self, wished_s: float) -> int:
        """How many points lie in the widest distance that is no longer than what is wished for."""
        step_s, widest = self.grid()
        points = 1
        while points * 2 <= widest and points * 2 * step_s <= wished_s:
            points *= 2
        return points


def between(least_s: float, interval_s: float, most_s: float) -> PollSchedule:
    """A schedule within bounds, which are taken inwards to powers of two from the interval, at most 64 times."""
    shorter = min(WIDEST, math.floor(math.log2(interval_s / least_s)))
    longer = min(WIDEST, math.floor(math.log2(most_s / interval_s)))
    return PollSchedule(interval_s, interval_s / 2**shorter, interval_s * 2**longer)


def phase(task_id: str) -> float:
    """Where in its interval a task is polled: -1 < phase <= 0, uniform over task ids.

    It is not positive, so that the first gap is never longer than one interval.
    """
    digest = hashlib.blake2b(task_id.encode(), digest_size=8).digest()
    return -(int.from_bytes(digest) / 2**64)


def slot_of(task_id: str, slots: int) -> int:
    """The slot of the `due` index that a task is put into: a hash of its id over the number of slots."""
    digest = hashlib.blake2b(task_id.encode(), digest_size=8, person=b"slot").digest()
    return int.from_bytes(digest) % slots


def next_moment(
    schedule: PollSchedule, created_at: datetime, task_id: str, after: datetime | None, lengths: Lengths | None = None
) -> datetime:
    """The first polling moment later than `after`; None means that none has been served yet.

    The moments are `created_at` and then points of a grid that begins at a place of the task's own, or of all that are
    asked together. They follow from the task, its connection's schedule and what is known of its `lengths`, so any
    worker finds them again without a stored word. Whatever is known, each point of the widest grid is one of them:
    nobody who knows more or less than the last one can leave a task unasked for longer than `most_s`.
    """
    if after is None or after < created_at:
        return created_at
    points = _Points(schedule, created_at, task_id, lengths)
    n = max(points.first, points.before(after))
    while points.at(n) <= after:
        n += 1
    return points.at(points.asked_from(n))


def last_moment(
    schedule: PollSchedule, created_at: datetime, task_id: str, until: datetime, lengths: Lengths | None = None
) -> datetime:
    """The latest polling moment at or before `until`; the task's creation if there is none."""
    points = _Points(schedule, created_at, task_id, lengths)
    n = points.before(until) + 1
    while points.at(n) > until:
        n -= 1
    n = points.asked_until(n)
    return points.at(n) if n >= points.first else created_at


class _Points:
    """The finest grid of a task; number `first` is its first point after the task's creation.

    A point of a shared grid is reckoned from its number alone, so that it is the same instant for every task.
    """

    __slots__ = ("_born_s", "_lengths", "_offset", "_origin", "_schedule", "_start", "_step_s", "first")

    def __init__(self, schedule: PollSchedule, created_at: datetime, task_id: str, lengths: Lengths | None) -> None:
        self._schedule = schedule
        self._lengths = lengths
        self._step_s, widest = schedule.grid()
        shared = schedule.together is not None
        place = -phase(task_id if schedule.together is None else schedule.together) * widest  # 0 <= place < widest
        self._offset = int(place)
        self._start = self._offset - place  # -1 < start <= 0
        self._origin = EPOCH if shared else created_at
        self._born_s, self.first = 0.0, 1
        if shared:
            self._born_s = (created_at - EPOCH).total_seconds()
            self.first = self.before(created_at)
            while self.at(self.first) <= created_at:
                self.first += 1

    def before(self, time: datetime) -> int:
        """The number of a point at or just before a time."""
        return math.floor((time - self._origin).total_seconds() / self._step_s - self._start)

    def at(self, n: int) -> datetime:
        return self._origin + timedelta(seconds=(self._start + n) * self._step_s)

    def asked_from(self, n: int) -> int:
        """The first polling moment's number, from this point on.

        It leaps: a widest interval may have 4,096 points, and a holder looks for the moments of thousands of tasks.
        """
        while True:
            age_s, (stride, _, until_s) = self._stride(n)
            ahead = -(n + self._offset) % stride
            if not ahead:
                return n
            n += max(1, math.floor(min(ahead, (until_s - age_s) / self._step_s)))

    def asked_until(self, n: int) -> int:
        """The last polling moment's number, up to this point; less than `first` if there is none."""
        while n >= self.first:
            age_s, (stride, since_s, _) = self._stride(n)
            behind = (n + self._offset) % stride
            if not behind:
                return n
            n -= max(1, math.floor(min(behind, (age_s - since_s) / self._step_s)))
        return n

    def _stride(self, n: int) -> tuple[float, tuple[int, float, float]]:
        age_s = (self._start + n) * self._step_s - self._born_s
        return age_s, self._schedule.stride(age_s, self._lengths)


class RetryPolicy(NamedTuple):
    """A retry schedule as a value: the delay after the n-th failed try, and how far it may stray.

    `delays_s[n - 1]` is the delay in seconds after failure n; after the last one there is no further try.
    `jitter` is the largest relative deviation, 0.2 meaning ±20 %.
    """

    delays_s: tuple[float, ...]
    jitter: float = 0.0

    def next_delay(
        self, failures: int, *, random_factor: float = 0.5, retry_after: float | None = None
    ) -> float | None:
        """Seconds until the next try after `failures` failed ones, or None when the tries are used up.

        `random_factor` is uniform in 0..1. A `retry_after` hint can only delay, by at most 24 h, and never changes
        the number of tries.
        """
        if failures < 1:
            raise ValueError("a retry follows at least one failure")
        if failures > len(self.delays_s):
            return None
        delay = self.delays_s[failures - 1] * (1 + self.jitter * (2 * random_factor - 1))
        if retry_after is None or not retry_after > 0:
            return delay
        return max(delay, min(retry_after, MAX_RETRY_AFTER_S))


# After failure n: at once, 30 s, 2 min, 10 min, 30 min, 1, 2, 4, 8 h; the tenth failure is the last.
COPY_RETRIES = RetryPolicy((0.0, 30.0, 120.0, 600.0, 1800.0, HOUR_S, 2 * HOUR_S, 4 * HOUR_S, 8 * HOUR_S))

# Standard Webhooks: at once, then 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h: 75 h 35 min in all.
WEBHOOK_RETRIES = RetryPolicy(
    (5.0, 300.0, 1800.0, 2 * HOUR_S, 5 * HOUR_S, 10 * HOUR_S, 14 * HOUR_S, 20 * HOUR_S, 24 * HOUR_S), jitter=0.2
)

# A connection that does not answer: one probe after 2 s, then doubling to 5 minutes.
CONNECTION_BACKOFF_S = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0)


class Take(NamedTuple):
    """The item may be claimed; its claim must be written with a new end unless `keeps_due`."""

    keeps_due: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """The item may not be claimed: it is not due, or another's claim runs."""


class Later(NamedTuple):
    """An expired claim was a failed try; the next one is due at `due_at`."""

    due_at: datetime


@dataclass(frozen=True, slots=True)
class Exhausted:
    """An expired claim was the last try."""


CLAIM_S = 60.0
CLAIM_RENEW_S = 20.0
CLAIM_ENOUGH_S = 40.0  # a fresh item with this much left before it is due needs no new end
DUE_TOLERANCE_S = 2.0  # clocks differ


def judge_claim(
    *,
    due_at: datetime,
    tries: int,
    claimed: bool,
    policy: RetryPolicy,
    now: datetime,
    random_factor: float = 0.5,
) -> Take | Wait | Later | Exhausted:
    """Whether an item of work may be claimed now.

    It may if it is due, or fresh (no try yet), and no other claim runs; a claim ends at `due_at`. A claim that ran
    out counts as one failed try: the same schedule, the same end.
    """
    left_s = (due_at - now).total_seconds()
    if claimed:
        if left_s > 0:
            return Wait()
        delay_s = policy.next_delay(max(1, tries), random_factor=random_factor)
        if delay_s is None:
            return Exhausted()
        if delay_s + left_s > DUE_TOLERANCE_S:
            return Later(due_at + timedelta(seconds=delay_s))
        return Take(keeps_due=False)
    if left_s <= DUE_TOLERANCE_S:
        return Take(keeps_due=False)
    if tries == 0:
        return Take(keeps_due=left_s >= CLAIM_ENOUGH_S)
    return Wait()
