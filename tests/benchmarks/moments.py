"""Lateness and polls of moments that follow from tasks' lengths, against fixed intervals, by simulation.

Lengths are drawn from what is published (`PUBLISHED`), and, against us, from an exponential distribution, of which
nothing can be learnt. Each run starts without any knowledge; the first quarter of its tasks is not counted. Beside it
stands what a schedule could do at best that knew them exactly.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import NormalDist, fmean

from renderbell.lengths import Lengths
from renderbell.providers import PROVIDERS
from renderbell.schedule import PollSchedule, next_moment
from tests.benchmarks.bounds import STEPS, Promise, fewest_polls, fixed_polls
from tests.benchmarks.report import Line, Plot, Section, Table

TASKS = 4000
LIKELY = 20_000  # lengths that stand for a distribution
TOLERANCE = 1.05  # of medians of so many tasks: twice the standard error of their ratio
BORN = datetime(2026, 1, 1, tzinfo=UTC)

Quantile = Callable[[float], float]  # the length that a share of tasks does not exceed


def evenly(least_s: float, most_s: float) -> Quantile:
    """Any length between two is as likely as another."""
    return lambda share: least_s + share * (most_s - least_s)


def spread(median_s: float, sigma: float, least_s: float, most_s: float) -> Quantile:
    """A log-normal distribution, cut off at its ends."""
    normal = NormalDist(0, sigma)
    return lambda share: min(most_s, max(least_s, median_s * math.exp(normal.inv_cdf(share))))


def by_percentiles(*points: tuple[float, float]) -> Quantile:
    """Geometrically between the percentiles that are published."""

    def length_s(share: float) -> float:
        for (lower, shorter), (upper, longer) in pairwise(points):
            if share <= upper:
                return float(shorter * (longer / shorter) ** ((share - lower) / (upper - lower)))
        return points[-1][1]

    return length_s


PUBLISHED: Mapping[str, Quantile] = {
    "a 5-s clip: p50 43, p75 48, p90 56, p99 72 s": by_percentiles(
        (0, 36), (0.5, 43), (0.75, 48), (0.9, 56), (0.99, 72), (1, 80)
    ),
    "fast tier, 30 to 60 s": evenly(30, 60),
    "standard tier, 90 to 180 s": evenly(90, 180),
    "high tier, 180 to 540 s": evenly(180, 540),
    "all tiers, 33 to 540 s, median 150": spread(150, 0.75, 33, 540),
}
OF_SCENEXT: Mapping[str, Quantile] = {"10 to 20 minutes": evenly(600, 1200)}
UNKNOWABLE: Mapping[str, Quantile] = {"exponential, mean 180 s": lambda share: -180 * math.log(1 - share)}
SOURCES = (
    "Lengths as published: 10 to 20 minutes in Scenext's documentation; the percentiles of a 5-second clip at "
    "creativeai.run/performance, drawn geometrically between them; the tiers of "
    "vivideo.ai/research/ai-video-render-time-benchmark, evenly within each, and all of them log-normally around their "
    "median. The exponential one is not published and not judged: how long such a task has run says nothing of when it "
    "ends."
)
BOUND = (
    "The best schedule within a provider's bounds that knows the lengths' distribution exactly, against the fixed "
    f"interval, by dynamic programming in steps of 1/{STEPS} of the interval. In brackets: with the 95th percentile of "
    "lateness no later than the fixed interval's; without that, half of the tasks may be found late for the rest's sake"
)

EXPLAINED = (
    "Bounds are the providers' documented ones. MoneyPrinterTurbo's document has one figure, a loop that sleeps 5 s, "
    "and no lower bound. So its interval is also its least: it can save polls, but not be found sooner. The server is "
    "the user's own; who allows it more has the last rows, which are in brackets as they are not judged.",
    "Where lengths are narrow, an end is nearly known, and few polls stand around it. Where they are wide (the high "
    "tier, and all tiers together), no moment is much likelier than another, and what is saved in polls is "
    "lost in lateness.",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds from a task's end to the poll that finds it, and polls for each task."""

    median_s: float
    p95_s: float
    polls: float


def simulate(schedule: PollSchedule, quantile: Quantile, *, learns: bool, seed: int = 1) -> Outcome:
    """Polls tasks one after the other until each is found ended."""
    chance, known = random.Random(seed), Lengths()
    late_s: list[float] = []
    polls: list[int] = []
    for number in range(TASKS):
        end = BORN + timedelta(seconds=quantile(chance.random()))
        before, moment, asked = BORN, BORN, 1
        while moment < end:
            before, moment = moment, next_moment(schedule, BORN, f"task-{number}", moment, known if learns else None)
            asked += 1
        before_s, found_s = (before - BORN).total_seconds(), (moment - BORN).total_seconds()
        known = known.added(schedule.length_s(before_s, found_s, found_s))
        if number >= TASKS // 4:
            late_s.append((moment - end).total_seconds())
            polls.append(asked)
    ordered = sorted(late_s)
    return Outcome(ordered[len(ordered) // 2], ordered[int(0.95 * len(ordered))], fmean(polls))


@dataclass(frozen=True, slots=True)
class Possible:
    """What the best schedule within the bounds does, for one of what the fixed interval does."""

    polls: float  # at the same median lateness
    p95: float  # with these polls
    median: float  # at the same polls

    @property
    def enough(self) -> bool:
        """Whether it reaches either half of the target."""
        return self.polls <= 0.5 or self.median <= 0.5


def possible(schedule: PollSchedule, lengths_s: Sequence[float], others: Sequence[Promise]) -> Possible:
    """What can be done at best while other promises are kept."""
    interval_s, usual = schedule.interval_s, fixed_polls(schedule.interval_s, lengths_s)
    medians_s = [interval_s * steps / STEPS for steps in range(1, STEPS // 2 + 1)]

    def affordable(median_s: float) -> bool:
        best = fewest_polls(schedule, lengths_s, [Promise(median_s, 0.5), *others])
        return best is not None and best.polls <= usual

    best = fewest_polls(schedule, lengths_s, [Promise(interval_s / 2, 0.5), *others])
    if best is None:
        raise AssertionError("the fixed interval itself keeps what it promises")
    median_s = medians_s[bisect_left(medians_s[:-1], True, key=affordable)]
    return Possible(best.polls / usual, best.percentile_s(0.95) / (0.95 * interval_s), median_s / (interval_s / 2))


@dataclass(frozen=True, slots=True)
class Bound:
    """What any schedule within the bounds can do, at all and without finding the last twentieth later."""

    at_all: Possible
    as_soon: Possible
    p95: float | None  # at the least, with half the polls at the same median

    @property
    def reach(self) -> str:
        """Whether such a schedule reaches the target."""
        if self.as_soon.enough:
            return "yes"
        return "no" if self.p95 is None else f"only with p95 {self.p95:.1f} times as late"

    def cells(self) -> list[str]:
        """As a part of a table's row."""
        return [
            f"{self.at_all.polls:.2f} ({self.as_soon.polls:.2f})",
            f"{self.at_all.p95:.2f}",
            f"{self.at_all.median:.2f} ({self.as_soon.median:.2f})",
            self.reach,
        ]


def bound(schedule: PollSchedule, quantile: Quantile) -> Bound:
    """For lengths of one distribution."""
    lengths_s = [quantile((number + 0.5) / LIKELY) for number in range(LIKELY)]
    usual_s = 0.95 * schedule.interval_s
    at_all = possible(schedule, lengths_s, [])
    p95s = [1 + step / 10 for step in range(math.ceil(10 * at_all.p95))] if at_all.polls <= 0.5 else []

    def enough(p95: float) -> bool:
        promises = [Promise(schedule.interval_s / 2, 0.5), Promise(p95 * usual_s, 0.05)]
        best = fewest_polls(schedule, lengths_s, promises)
        return best is not None and best.polls <= 0.5 * fixed_polls(schedule.interval_s, lengths_s)

    p95 = p95s[bisect_left(p95s[:-1], True, key=enough)] if p95s else None
    return Bound(at_all, possible(schedule, lengths_s, [Promise(usual_s, 0.05)]), p95)


@dataclass(frozen=True, slots=True)
class Compared:
    """A schedule that learns against its interval alone, with one distribution of lengths."""

    who: str
    lengths: str
    judged: bool
    fixed: Outcome
    ours: Outcome
    bound: Bound | None

    @property
    def late(self) -> float:
        """Our median lateness for one of the fixed interval's."""
        return self.ours.median_s / self.fixed.median_s

    @property
    def polls(self) -> float:
        """Our polls for one of the fixed interval's."""
        return self.ours.polls / self.fixed.polls

    @property
    def reached(self) -> str:
        """Which half of the target is met, if one is."""
        if self.late <= TOLERANCE and self.polls <= 0.5:
            return "half the polls"
        return "half the lateness" if self.late <= 0.5 * TOLERANCE and self.polls <= 1.0 else "no"

    def row(self) -> list[str]:
        """As a row of the table."""
        return [
            self.who,
            self.lengths,
            f"{self.fixed.median_s:.1f}",
            f"{self.ours.median_s:.1f}",
            f"{self.late:.2f}",
            f"{self.fixed.polls:.1f}",
            f"{self.ours.polls:.1f}",
            f"{self.polls:.2f}",
            f"{self.ours.p95_s / self.fixed.p95_s:.2f}",
            self.reached if self.judged else f"({self.reached})",
        ]


def compared() -> Iterator[Compared]:
    """Each provider's own schedule with the lengths that may be its tasks'."""
    own = {kind: provider.poll_schedule for kind, provider in PROVIDERS.items()}
    published = {**PUBLISHED, **UNKNOWABLE}
    for who, schedule, lengths in (
        ("scenext", own["scenext"], {**OF_SCENEXT, **UNKNOWABLE}),
        ("capcut-mate, jimmy", own["capcut-mate"], published),
        ("moneyprinterturbo", own["moneyprinterturbo"], published),
        ("the same, `poll_least_s` 2.5 and `poll_most_s` 40", PollSchedule(5.0, 2.5, 40.0), PUBLISHED),
    ):
        fixed = PollSchedule(schedule.interval_s)
        for name, quantile in lengths.items():
            judged = who in {"scenext", "capcut-mate, jimmy", "moneyprinterturbo"} and name not in UNKNOWABLE
            without, ours = (simulate(one, quantile, learns=one is schedule) for one in (fixed, schedule))
            yield Compared(who, name, judged, without, ours, bound(schedule, quantile) if judged else None)


def measure() -> Section:
    """Each provider's schedule against the interval that it advises, alone."""
    if PROVIDERS["capcut-mate"].poll_schedule != PROVIDERS["jimmy"].poll_schedule:
        raise AssertionError("two providers have one row though they differ")
    found = list(compared())
    judged = [one for one in found if one.judged]
    missed = [one for one in judged if one.reached == "no"]
    misses = [f"{one.who} with {one.lengths} (in reach: {one.bound.reach})" for one in missed if one.bound]
    return Section(
        title="Moments",
        target=(
            "against the interval that the provider advises, at the same median lateness at most half the polls, or at "
            f"the same polls at most half the lateness (within {TOLERANCE - 1:.0%}, twice the standard error)"
        ),
        verdict=f"{len(judged) - len(misses)} of {len(judged)} combinations; not " + "; ".join(misses),
        met=not misses,
        head=[
            "provider",
            "lengths",
            "median s late, fixed",
            "ours",
            "ratio",
            "polls, fixed",
            "ours",
            "ratio",
            "p95 late, ratio",
            "target",
        ],
        rows=[one.row() for one in found],
        more=[
            Table(
                BOUND,
                [
                    "provider",
                    "lengths",
                    "polls, at the same median",
                    "its p95",
                    "median, at the same polls",
                    "in reach",
                ],
                [[one.who, one.lengths, *one.bound.cells()] for one in judged if one.bound],
            )
        ],
        notes=[
            f"{TASKS * 3 // 4:,} tasks each, by simulation. {SOURCES}",
            *EXPLAINED,
        ],
        plot=Plot(
            "moments",
            "polls, against the fixed interval",
            "median lateness, against it",
            lines=[
                *(
                    Line(
                        who,
                        [one.polls for one in judged if one.who == who],
                        [one.late for one in judged if one.who == who],
                        dots=True,
                    )
                    for who in dict.fromkeys(one.who for one in judged)
                ),
                Line(
                    "target: on or below",
                    [0.4, 0.5, 0.5, 1.0, 1.0],
                    [TOLERANCE, TOLERANCE, 0.5 * TOLERANCE, 0.5 * TOLERANCE, 0.4],
                ),
            ],
        ),
    )
