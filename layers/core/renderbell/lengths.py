"""How long a connection's tasks have taken, as a small sketch that says when one is likely to end. No I/O."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

__all__ = ["ENOUGH", "MAX_LENGTH_S", "Lengths"]

BINS_PER_DOUBLING = 16  # a bin is 4.4 % wide
MAX_LENGTH_S = 604_800.0  # no task has a later deadline
WEIGHT = 4  # of a length that is new; it is forgotten when it has been halved to nothing
MOST_WEIGHT = 512 * WEIGHT  # then all is halved, so that what is new weighs more
ENOUGH = 20  # lengths; a sketch of fewer says nothing


@dataclass(frozen=True)
class Lengths:
    """Weights of lengths in seconds, by bins of equal ratio; older ones weigh less.

    At most 308 bins; of one model's tasks usually some twenty. Raises `ValueError` for what no lengths can have made.
    """

    weights: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        last = _bin(MAX_LENGTH_S)
        if not all(0 <= number <= last and 0 < weight <= MOST_WEIGHT for number, weight in self.weights.items()):
            raise ValueError("no sketch of lengths")

    @cached_property
    def known(self) -> bool:
        """Whether there is enough to go by."""
        return self._total >= ENOUGH * WEIGHT

    @cached_property
    def longest_s(self) -> float:
        """What no task has taken longer than; 0 where nothing is known."""
        return _start_s(max(self.weights) + 1) if self.weights else 0.0

    def added(self, length_s: float) -> Lengths:
        """The same with one more length."""
        number = _bin(min(length_s, MAX_LENGTH_S))
        weights = {**self.weights, number: self.weights.get(number, 0) + WEIGHT}
        if self._total + WEIGHT > MOST_WEIGHT:
            weights = {one: weight // 2 for one, weight in weights.items() if weight >= 2}
        return Lengths(weights)

    def hazard(self, age_s: float, back_s: float) -> tuple[float, float, float]:
        """How likely a task ends within a second, at the likeliest of the ages since so long before: by their bins.

        0 where no end has been seen at them. With it, the ages from which on and until which it is the same.
        """
        starts_s, hazards = self._highest(back_s)
        number = bisect_right(starts_s, age_s) - 1
        return hazards[number], starts_s[number], starts_s[number + 1]

    @cached_property
    def _total(self) -> int:
        return sum(self.weights.values())

    def _hazards(self) -> Iterator[tuple[float, float, float]]:
        """From which age until which one each bin's hazard holds, in their order."""
        left = self._total
        for number, weight in sorted(self.weights.items()):
            since_s, until_s = _start_s(number), _start_s(number + 1)
            hazard = weight / ((until_s - since_s) * (left - weight / 2))  # half of its own have ended at its middle
            yield since_s if number else -math.inf, until_s, hazard  # what is shorter than a second counts as one
            left -= weight

    def _highest(self, back_s: float) -> tuple[list[float], list[float]]:
        """From which age on which hazard is the highest of so long a time; the last age is none."""
        if back_s not in self._known:
            starts_s, hazards = [-math.inf], [0.0]
            coming, held = deque(self._hazards()), deque[tuple[float, float]]()  # what falls, with its end
            for edge_s in sorted({edge for since, until, _ in coming for edge in (since, until + back_s)}):
                while coming and coming[0][0] <= edge_s:
                    _, until_s, hazard = coming.popleft()
                    while held and held[-1][1] <= hazard:
                        held.pop()
                    held.append((until_s + back_s, hazard))
                while held and held[0][0] <= edge_s:
                    held.popleft()
                highest = held[0][1] if held else 0.0
                if highest != hazards[-1]:
                    starts_s.append(edge_s)
                    hazards.append(highest)
            self._known[back_s] = [*starts_s, math.inf], hazards
        return self._known[back_s]

    @cached_property
    def _known(self) -> dict[float, tuple[list[float], list[float]]]:
        """What has been found so far; a connection has one finest grid."""
        return {}


def _bin(length_s: float) -> int:
    """The bin of a length; what is shorter than a second counts as one."""
    return math.floor(math.log2(max(length_s, 1.0)) * BINS_PER_DOUBLING)


def _start_s(number: int) -> float:
    """The shortest length of a bin."""
    return float(2.0 ** (number / BINS_PER_DOUBLING))
