"""The fewest polls of any schedule within a provider's bounds that knows exactly how long tasks take.

That a share of tasks is found within some seconds of their end is a sum over tasks, as polls are. So a price on those
that are found later turns both into one cost, and the cheapest schedule is found backwards in time. Of all prices the
best one gives the least that any schedule, or a lot drawn among several, can do (Lagrange's multipliers).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from renderbell.schedule import PollSchedule

__all__ = ["STEPS", "Best", "Promise", "fewest_polls", "fixed_polls"]

STEPS = 40  # of an interval; polls are at multiples of these after a task's creation
CLOSE = 1e-3  # polls for each task by which the figure may be too low
DEAREST = 1e5  # polls; what is not kept at that price of a late task cannot be kept
SAME = 1e-9  # seconds, and shares


@dataclass(frozen=True, slots=True)
class Promise:
    """At most a share of tasks is found later than so long after their end."""

    within_s: float
    late: float


def fixed_polls(interval_s: float, lengths_s: Sequence[float]) -> float:
    """Polls for each task at an interval alone: one at its creation, those of its length, and the one that finds it."""
    return 2 + fmean(lengths_s) / interval_s


def fewest_polls(
    schedule: PollSchedule, lengths_s: Sequence[float], promises: Sequence[Promise], steps: int = STEPS
) -> Best | None:
    """The best that keeps all promises; None where nothing does. Each length is as likely as another.

    Two polls are as far apart as the schedule's bounds allow; only the first after a task's creation may come sooner,
    as it does on a grid.
    """
    return _cheapest(_Ages(schedule, lengths_s, steps), promises, ())


class _Ages:
    """A task's ages in equal steps, with the shares of tasks that have ended before and by each."""

    def __init__(self, schedule: PollSchedule, lengths_s: Sequence[float], steps: int) -> None:
        ordered = sorted(lengths_s)
        self.step_s = schedule.interval_s / steps
        self.least = round((schedule.least_s or schedule.interval_s) / self.step_s)
        self.most = round((schedule.most_s or schedule.interval_s) / self.step_s)
        self.end = max(1, math.ceil(ordered[-1] / self.step_s - SAME))  # all have ended by then
        ages_s = [number * self.step_s for number in range(self.end + self.most)]
        self.before = [bisect_left(ordered, age_s - SAME) / len(ordered) for age_s in ages_s]
        self.by = [bisect_right(ordered, age_s + SAME) / len(ordered) for age_s in ages_s]

    def late(self, earlier: int, later: int, steps: int) -> float:
        """The share of tasks that end between two polls and are found later than so many steps."""
        return max(0.0, self.before[later - steps] - self.by[earlier]) if later - steps > earlier else 0.0


@dataclass(frozen=True, slots=True)
class Best:
    """Lists of polls' ages in steps, each with the share of tasks to which it is given."""

    ages: _Ages
    given: Sequence[tuple[float, Sequence[int]]]

    @property
    def polls(self) -> float:
        """For each task, the one at its creation included."""
        return sum(share * (2 + sum(1 - self.ages.by[age] for age in moments)) for share, moments in self.given)

    def late(self, within_s: float) -> float:
        """The share of tasks that is found later than so long after their end."""
        steps = round(within_s / self.ages.step_s)
        return sum(
            share * self.ages.late(earlier, later, steps)
            for share, moments in self.given
            for earlier, later in zip((0, *moments), moments, strict=False)
        )

    def percentile_s(self, share: float) -> float:
        """Within how long that share of tasks is found, in whole steps."""
        steps = range(self.ages.most + 1)
        return next(n * self.ages.step_s for n in steps if self.late(n * self.ages.step_s) <= 1 - share + SAME)


def _cheapest(ages: _Ages, promises: Sequence[Promise], prices: Sequence[tuple[Promise, float]]) -> Best | None:
    """The fewest polls that keep the promises, where a late task of others costs its price in polls.

    What is best at one price costs, at any other, what lies on a line, and no price can cost more. Between a price that
    is too low and one at which the promise is kept, the next to try is where their lines meet.
    """
    if not promises:
        return _backwards(ages, [(round(one.within_s / ages.step_s), price) for one, price in prices])
    promise, *others = promises

    def at(price: float) -> Best | None:
        return _cheapest(ages, others, [*prices, (promise, price)])

    def over(best: Best) -> float:
        return best.late(promise.within_s) - promise.late

    def cost(best: Best) -> float:
        return best.polls + sum(price * best.late(one.within_s) for one, price in prices)

    price = 1.0
    low = high = at(0.0)
    while high is not None and over(high) > SAME:
        if price > DEAREST:
            return None
        low, high, price = high, at(price), price * 4
    if low is None or high is None or low is high:
        return high
    while True:
        price = (cost(high) - cost(low)) / (over(low) - over(high))
        middle = at(price)
        if middle is None:
            return None
        if cost(middle) + price * over(middle) >= cost(low) + price * over(low) - CLOSE:
            break
        low, high = (middle, high) if over(middle) > 0 else (low, middle)
    share = over(low) / (over(low) - over(high))
    mixed = ((1 - share, low), (share, high))
    return Best(ages, [(weight * part, moments) for weight, one in mixed for part, moments in one.given])


def _backwards(ages: _Ages, prices: Sequence[tuple[int, float]]) -> Best:
    """The one list of polls that costs least, where tasks found later than so many steps cost a price each.

    What a distance costs falls apart into what the earlier poll adds and what the later one does, once it is known
    which prices are due: those of fewer steps than the distance. So the best next poll is the least of a window that
    moves with the earlier one.
    """
    prices = sorted(prices)
    ahead = [0.0] * (ages.end + ages.most)  # what is still to come after a poll
    following = [0] * ages.end
    windows = []
    nearest = ages.least
    for due in range(len(prices) + 1):
        farthest = min(ages.most, prices[due][0]) if due < len(prices) else ages.most
        if farthest >= nearest:
            windows.append(_Window(ages, prices[:due], nearest, farthest, ahead))
            nearest = farthest + 1
    for age in range(ages.end - 1, 0, -1):
        cost, following[age] = min(window.least(age) for window in windows)
        ahead[age] = 1 - ages.by[age] + cost
    first = min(
        range(1, ages.most + 1),
        key=lambda age: ahead[age] + sum(price * ages.late(0, age, steps) for steps, price in prices),
    )
    moments = [first]
    while moments[-1] < ages.end:
        moments.append(following[moments[-1]])
    return Best(ages, [(1.0, moments)])


class _Window:
    """The best next poll between two distances, asked for ages that go down one by one from the end."""

    def __init__(
        self, ages: _Ages, due: Sequence[tuple[int, float]], nearest: int, farthest: int, ahead: Sequence[float]
    ) -> None:
        self._nearest, self._farthest = nearest, farthest
        self._ahead, self._due, self._ages = ahead, due, ages
        self._price = sum(price for _, price in due)
        self._rising: deque[tuple[float, int]] = deque()  # by cost, the nearest last
        for age in range(ages.end - 1 + farthest, ages.end - 1 + nearest, -1):
            self._enter(age)

    def least(self, earlier: int) -> tuple[float, int]:
        """What it costs at least, and the next poll's age."""
        self._enter(earlier + self._nearest)
        while self._rising[0][1] > earlier + self._farthest:
            self._rising.popleft()
        cost, age = self._rising[0]
        return cost - self._price * self._ages.by[earlier], age

    def _enter(self, age: int) -> None:
        cost = self._ahead[age]
        for steps, price in self._due:
            cost += price * self._ages.before[age - steps]
        while self._rising and self._rising[-1][0] >= cost:
            self._rising.pop()
        self._rising.append((cost, age))
