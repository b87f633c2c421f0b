"""Runs many random worlds: `python -m tests.simulation.soak --worlds 20000`, or one again that failed.

All cores are used. It stops at the first worlds that break a promise, or when the time is up, and says what was
measured.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

from tests.simulation.worlds import CALM, CRASHING, Figures, Weather, run_world

WEATHERS: dict[str, Weather | None] = {"calm": CALM, "crashing": CRASHING, "stormy": None}
CHUNK = 25
SHOWN = 5  # broken worlds


def run_chunk(seeds: range, weather: str) -> tuple[Figures, list[str]]:
    """Some worlds' figures, and what broke in them."""
    logging.disable(logging.CRITICAL)
    figures, broken = Figures(), []
    for seed in seeds:
        try:
            figures.add(run_world(seed, WEATHERS[weather]))
        except Exception as error:
            broken.append("".join(traceback.format_exception(error)))
    return figures, broken


def main() -> int:
    """Runs the worlds that were asked for; 1 if any broke a promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weather", choices=WEATHERS, default="stormy")
    parser.add_argument("--first", type=int, default=1_000_000, help="the first seed")
    parser.add_argument("--worlds", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=60, help="no new worlds are begun after that")
    asked = parser.parse_args()
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
    if figures.first_polls and figures.gaps:
        print(f"{asked.weather}: {figures}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
