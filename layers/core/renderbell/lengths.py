"""How long a connection's tasks have taken, as a small sketch that says when one is likely to end. No I/O."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
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

    def hazard(self, age_s: float) -> tuple[float, float, float]:
        """How likely a task of that age ends within a second, now or soon: by its bin or the next, whichever is more.

        0 where no end has been seen near that age. With it, the ages from which on and until which it is the same.
        """
        starts_s, hazards = self._hazards
        number = bisect_right(starts_s, age_s) - 1
        return hazards[number], starts_s[number], starts_s[number + 1]

    @cached_property
    def _total(self) -> int:
        return sum(self.weights.values())

    @cached_property
    def _hazards(self) -> tuple[list[float], list[float]]:
        """From which age on which hazard holds; the last age is none."""
        own: dict[int, float] = {}
        left = self._total
        for number, weight in sorted(self.weights.items()):
            width_s = _start_s(number + 1) - _start_s(number)
            own[number] = weight / (width_s * (left - weight / 2))  # half of its own have ended at its middle
            left -= weight
        starts_s, hazards = [-math.inf], [0.0]
        for number in sorted({number + near for number in own for near in (-1, 0, 1)}):
            hazard = max(own.get(number, 0.0), own.get(number + 1, 0.0))
            if number <= 0:  # what is shorter than a second counts as one
                hazards = [hazard]
            elif hazard != hazards[-1]:
                starts_s.append(_start_s(number))
                hazards.append(hazard)
        return [*starts_s, math.inf], hazards


def _bin(length_s: float) -> int:
    """The bin of a length; what is shorter than a second counts as one."""
    return math.floor(math.log2(max(length_s, 1.0)) * BINS_PER_DOUBLING)


def _start_s(number: int) -> float:
    """The shortest length of a bin."""
    return float(2.0 ** (number / BINS_PER_DOUBLING))
