"""Runs many random worlds: `make soak ARGS='--worlds 20000'`, or one again that failed.

All cores are used. It stops at the first worlds that break a promise, or when the time is up, and says what was
measured. Without `--first` each day has worlds of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime
from itertools import islice

from tests.simulation.quiet import quiet
from tests.simulation.worlds import CALM, CRASHING, LAGGING, Figures, Weather, run_world

WEATHERS: dict[str, Weather | None] = {
    "calm": CALM,
    "lagging": LAGGING,
    "crashing": CRASHING,
    "stormy": None,
}
CHUNK = 25
SHOWN = 5  # broken worlds
WORLDS_A_DAY = 1_000_000  # the most that one run may ask for, so that the next day's are new


def run_chunk(seeds: range, weather: str) -> tuple[Figures, list[str]]:
    """Some worlds' figures, and what broke in them."""
    figures, broken = Figures(), []
    with quiet():
        for seed in seeds:
            try:
                figures.add(run_world(seed, WEATHERS[weather]))
            except Exception as error:
                broken.append("".join(traceback.format_exception(error)))
    return figures, broken


def first_of(day: date) -> int:
    """The first seed of a day's worlds."""
    return day.toordinal() * WORLDS_A_DAY


def parser() -> argparse.ArgumentParser:
    """What may be asked for."""
    words = argparse.ArgumentParser(
        prog="make soak",
        usage="make soak ARGS='[--weather W] [--first N] [--worlds N] [--minutes M]'",
        description="Runs random worlds on all cores, and stops at the first that break a promise.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    words.add_argument("--weather", choices=WEATHERS, default="stormy", help="what may go wrong")
    words.add_argument(
        "--first", type=int, default=first_of(datetime.now(UTC).date()), help="the first seed; today's if not given"
    )
    words.add_argument("--worlds", type=int, default=10_000, help="how many seeds, from the first on")
    words.add_argument("--minutes", type=float, default=60.0, help="no new worlds are begun after that")
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the worlds that were asked for; 1 if any broke a promise."""
    words = parser()
    asked = words.parse_args(arguments)
    if not 1 <= asked.worlds <= WORLDS_A_DAY or asked.minutes <= 0:
        words.error(f"--worlds must be 1 to {WORLDS_A_DAY}, and --minutes more than 0")
    print(f"{asked.weather} worlds from seed {asked.first} on", file=sys.stderr)
    until = time.monotonic() + 60 * asked.minutes
    last = asked.first + asked.worlds
    chunks = iter(range(first, min(first + CHUNK, last)) for first in range(asked.first, last, CHUNK))
    figures = Figures()
    broken: list[str] = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        while time.monotonic() < until and len(broken) < SHOWN:
            batch = list(islice(chunks, 4 * (os.cpu_count() or 1)))
            if not batch:
                break
            for found, errors in pool.map(run_chunk, batch, [asked.weather] * len(batch)):
                figures.add(found)
                broken += errors
            print(f"{figures.counts['worlds']} worlds, {len(broken)} broken", file=sys.stderr)
    for error in broken[:SHOWN]:
        print(error)
    measured = figures.first_polls and figures.gaps  # few worlds may have none
    print(f"{asked.weather}: {figures if measured else dict(figures.counts)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
