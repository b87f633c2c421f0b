"""`make bench`: measures everything side by side and writes docs/benchmarks.md with its plots.

python -m tests.benchmarks                   all of it (about a quarter of an hour on two processors)
python -m tests.benchmarks polls copies      some of it, printed instead
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from tests.benchmarks import copies, cost, due, latency, machine, moments, polls, starts, usage, writes
from tests.benchmarks.report import Section, table

DOCS = machine.ROOT / "docs"


@cache
def _written() -> tuple[Section, writes.Units]:
    with tempfile.TemporaryDirectory() as directory:
        return writes.measure(Path(directory))


MEASUREMENTS: dict[str, Callable[[Path], Section]] = {
    "polls": polls.measure,
    "burst": due.measure_burst,
    "in-flight": due.measure_in_flight,
    "writes": lambda directory: _written()[0],
    "latency": latency.measure,
    "moments": lambda directory: moments.measure(),
    "copies": copies.measure,
    "starts": starts.measure,
    "cost": lambda directory: cost.measure(_written()[1], usage.measure(directory)),
}
INTRODUCTION = """\
What `make bench` has measured, both sides of each comparison in the same run on the same machine. Ratios are what
counts; absolute figures only describe this machine. Before each timing the two sides' results were compared."""


def main() -> None:
    """Measures, and writes or prints what was measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(MEASUREMENTS))
    names: Sequence[str] = parser.parse_args().names
    if unknown := set(names) - set(MEASUREMENTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    began = time.monotonic()
    sections = {}
    for name in names or MEASUREMENTS:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as directory:
            section = sections[name] = MEASUREMENTS[name](Path(directory))
        took = time.monotonic() - started
        print(f"{section.title}: {section.verdict}: {section.outcome} ({took:.0f} s)", file=sys.stderr, flush=True)
    took = time.monotonic() - began
    if names:
        print("\n\n".join(section.markdown() for section in sections.values()))
    else:
        _write(list(sections.values()), took)


def _write(sections: Sequence[Section], took: float) -> None:
    plots = DOCS / "benchmarks"
    plots.mkdir(exist_ok=True)
    for section in sections:
        if section.plot is not None:
            section.plot.write(plots)
    described = [*machine.described(), ("date", f"{datetime.now(UTC):%Y-%m-%d}"), ("took", f"{took / 60:.1f} minutes")]
    outcomes = [[f"[{one.title}](#{_anchor(one.title)})", one.verdict, one.outcome] for one in sections]
    parts = [
        "# Benchmarks",
        INTRODUCTION,
        table(["what", "measured", "target"], outcomes),
        "## The machine",
        table(["", ""], described),
        *(section.markdown() for section in sections),
    ]
    (DOCS / "benchmarks.md").write_text("\n\n".join(parts) + "\n")


def _anchor(title: str) -> str:
    kept = (one for one in title.lower() if one.isalnum() or one in " -")
    return "".join(kept).replace(" ", "-")


if __name__ == "__main__":
    main()
