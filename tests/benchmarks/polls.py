"""Polls per second of processor time: the whole poll path, against a loop that only fetches and parses.

Both keep to one processor and ask the same server, over TLS connections that are kept alive, 64 requests at a time.

    python -m tests.benchmarks.polls ours|loop BASE_URL CA_FILE     one side, in a process of its own
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
import time
from itertools import count
from pathlib import Path
from statistics import median

import requests
from requests.adapters import HTTPAdapter

from renderbell.providers import Connection
from tests.benchmarks.machine import pin, run
from tests.benchmarks.report import Bar, Plot, Section
from tests.benchmarks.rig import CONNECTION, INTERVAL_S, KEY, in_memory, polling
from tests.benchmarks.server import Behaviour, provider

TASKS = 3000  # due every second: more than one processor can ask
SECONDS = 10.0
THREADS = 64
ROUNDS = 3
TARGET = 2.0


def ours(base_url: str, ca_file: str) -> dict[str, object]:
    """One tick of the poller: it looks, takes its lease, polls, and writes what changes."""
    store, tasks = in_memory(TASKS)
    connection = Connection(name=CONNECTION, type="jimmy", base_url=base_url, api_key=KEY, poll_interval_s=INTERVAL_S)
    with polling(store, [connection], ca_file=ca_file, concurrency=THREADS) as rig:
        rig.poller.poll_due_tasks(0, time_limit_s=3)  # opens the connections, and stores what is new
        rig.counts.clear()
        before, began = time.process_time(), time.monotonic()
        rig.poller.poll_due_tasks(0, time_limit_s=SECONDS)
        used, took = time.process_time() - before, time.monotonic() - began
    stored = (store.task(task.task_id) for task in tasks)
    said = {task.provider_task_id: [task.status.value.lower(), task.progress] for task in stored if task is not None}
    return {"polls": rig.counts["Polls"], "cpu_s": used, "took_s": took, "said": said}


def loop(base_url: str, ca_file: str) -> dict[str, object]:
    """Sixty-four threads that fetch and parse through one `requests.Session`."""
    session = requests.Session()
    session.mount("https://", HTTPAdapter(pool_maxsize=THREADS))
    session.headers["Authorization"] = "Bearer key"
    said: dict[str, object] = {}

    def ask_for(seconds: float) -> int:
        numbers, ends = count(), time.monotonic() + seconds
        done = [0] * THREADS

        def ask(thread: int) -> None:
            while time.monotonic() < ends:
                name = f"{CONNECTION}-{next(numbers) % TASKS:06d}"
                data = session.get(f"{base_url}/api/open-api/v1/videos/{name}", timeout=10, verify=ca_file).json()[
                    "data"
                ]
                said[name] = [data["status"], data["progress"]]
                done[thread] += 1

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done)

    ask_for(3)
    before, began = time.process_time(), time.monotonic()
    polls = ask_for(SECONDS)
    used, took = time.process_time() - before, time.monotonic() - began
    return {"polls": polls, "cpu_s": used, "took_s": took, "said": said}


def _wrk(base_url: str) -> float | None:
    if shutil.which("wrk") is None:
        return None
    url = f"{base_url}/api/open-api/v1/videos/{CONNECTION}-000000"
    done = run(["wrk", "-t1", "-c64", "-d5s", "-H", "Authorization: Bearer key", url])
    asked = next(int(line.split()[0]) for line in done.output.splitlines() if "requests in" in line)
    return asked / done.cpu_s


def _side(name: str, base_url: str, ca_file: str) -> dict[str, object]:
    return run([sys.executable, "-m", "tests.benchmarks.polls", name, base_url, ca_file]).told


def _rate(outcome: dict[str, object]) -> float:
    return float(str(outcome["polls"])) / float(str(outcome["cpu_s"]))


def measure(directory: Path) -> Section:
    """Each side in turn, three times, and the medians' ratio."""
    rates: dict[str, list[float]] = {"loop": [], "ours": []}
    with provider(directory, Behaviour(), cpu=1) as at:
        for _ in range(ROUNDS):
            outcomes = {side: _side(side, at.base_url, at.ca_file) for side in rates}
            if outcomes["loop"]["said"] != outcomes["ours"]["said"]:
                raise AssertionError("the two sides do not know the same")
            for side, outcome in outcomes.items():
                rates[side].append(_rate(outcome))
        limit = _wrk(at.base_url)
    found = {side: median(measured) for side, measured in rates.items()}
    names = {"loop": "requests.Session, 64 threads, fetch and parse", "ours": "Renderbell, the whole poll path"}
    all_rates = found | ({} if limit is None else {"wrk": limit})
    names["wrk"] = "wrk, which parses nothing"
    rows = [
        [
            names[side],
            f"{rate:,.0f}",
            f"{1e6 / rate:,.0f}",
            f"{rate / found['loop']:.2f}",
            f"{rate / limit:.3f}" if limit else "?",
        ]
        for side, rate in all_rates.items()
    ]
    ratio = found["ours"] / found["loop"]
    each = "; ".join(f"{side}: " + ", ".join(f"{rate:,.0f}" for rate in measured) for side, measured in rates.items())
    return Section(
        title="Polls per processor second",
        target=f"at least {TARGET:g} times a `requests.Session` loop",
        verdict=f"{ratio:.2f} times",
        met=ratio >= TARGET,
        head=["side", "polls per CPU s", "µs a poll", "against the loop", "against wrk"],
        rows=rows,
        notes=[
            f"One processor, the server on the other; {TASKS:,} tasks that fall due every second, more than can be "
            "asked. "
            "Ours looks, schedules, asks, reads the answer as a typed model, decides, and writes what has changed, "
            "over "
            f"vetted connections with a wall-clock limit. Medians of {ROUNDS}; each: {each}."
        ],
        plot=Plot(
            "polls",
            "polls per CPU second",
            "",
            bars=[Bar(names[side].partition(",")[0], rate) for side, rate in found.items()],
        ),
    )


def main() -> None:
    """Runs one side and prints its outcome as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["ours", "loop"])
    parser.add_argument("base_url")
    parser.add_argument("ca_file")
    asked = parser.parse_args()
    pin(0)
    print(json.dumps({"ours": ours, "loop": loop}[asked.side](asked.base_url, asked.ca_file)))


if __name__ == "__main__":
    main()
