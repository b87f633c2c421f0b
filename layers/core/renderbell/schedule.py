"""When to poll next, and when to try again: pure functions of times and counts.

Clock and randomness are arguments, so that every figure here can be tested exactly.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import datetime, timedelta

__all__ = ["COPY_RETRIES", "WEBHOOK_RETRIES", "PollSchedule", "RetryPolicy", "next_moment", "phase"]

HOUR_S = 3600.0
MAX_RETRY_AFTER_S = 24 * HOUR_S


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """How often to poll: every `interval_s` seconds."""

    interval_s: float


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


def next_moment(schedule: PollSchedule, created_at: datetime, task_id: str, after: datetime | None) -> datetime:
    """The first polling moment later than `after`; None means that none has been served yet.

    The moments are `created_at` and then `created_at + (phase + k) * interval` for k >= 1. They follow from the
    task alone, so any worker finds them again without a stored word.
    """
    if after is None or after < created_at:
        return created_at
    interval = schedule.interval_s
    start = phase(task_id)
    elapsed = (after - created_at).total_seconds() / interval
    k = max(1, math.floor(elapsed - start) + 1)
    moment = created_at + timedelta(seconds=(start + k) * interval)
    while moment <= after:  # rounding to microseconds may land on `after` itself
        k += 1
        moment = created_at + timedelta(seconds=(start + k) * interval)
    return moment


def last_moment(schedule: PollSchedule, created_at: datetime, task_id: str, until: datetime) -> datetime:
    """The latest polling moment at or before `until`; the task's creation if there is none."""
    before = until - timedelta(seconds=schedule.interval_s)
    moment = created_at
    upcoming = next_moment(schedule, created_at, task_id, before)
    while upcoming <= until:
        moment = upcoming
        upcoming = next_moment(schedule, created_at, task_id, upcoming)
    return moment


@dataclass(frozen=True, slots=True)
class RetryPolicy:
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


@dataclass(frozen=True, slots=True)
class Take:
    """The item may be claimed; its claim must be written with a new end unless `keeps_due`."""

    keeps_due: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """The item may not be claimed: it is not due, or another's claim runs."""


@dataclass(frozen=True, slots=True)
class Later:
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
