"""How soon due tasks are polled: 1,000 at once, and 10,000 in flight over the ends of ticks.

python -m tests.benchmarks.due BASE_URL CA_FILE     polls 1,000 tasks that are due now
"""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from local.emulator import Emulator, aws_environment
from renderbell.progress import NO_NOTES, noted
from renderbell.providers import Connection, HttpRequest, HttpResponse
from renderbell.providers.base import Observation, ProviderState
from renderbell.schedule import PollSchedule, next_moment
from renderbell.store import Lease, Served, Store
from renderbell.task import Task, advance
from tests.benchmarks.machine import ROOT, run, share_of_a_processor
from tests.benchmarks.report import Line, Plot, Section
from tests.benchmarks.rig import CONNECTION, KEY, SLOTS, TABLE, in_memory, polling, registered
from tests.benchmarks.server import MODEL, PROGRESS, Behaviour, provider
from tests.benchmarks.table import make_table, parameter, put_all
from tests.benchmarks.ticks import INTERVAL_S, OTHER, Ticks
from tests.deployment import in_process_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

CONCURRENCY = int(parameter("PollConcurrency"))
MEMORY_MB = int(parameter("PollerMemory"))
PROCESSOR_MB = 1769  # of a function's memory bring one processor (docs.aws.amazon.com/lambda, "Memory")

BURST, ANSWER_S, BURST_FACTOR = 1000, 0.2, 1.3

IN_FLIGHT, OF_OTHER = 10_000, 1000  # tasks; of the second connection
SLOW_SHARE = FAILING_SHARE = 0.05
TICK_EVERY_S, TICKS = 20.0, 4
WATCHED_S = TICK_EVERY_S * TICKS
LOADING_S = 25.0
FAILED_POLL = "poll brought no observation"
P95_SHARE, MEMORY_BYTES, DEAD_SHARE = 0.10, 256e6, 0.10


# -- 1,000 at once ----------------------------------------------------------------------------------------------------


def burst(base_url: str, ca_file: str) -> None:
    """Polls tasks that are all due, over connections that are open; prints when the last answer came, in seconds."""
    store, opening = in_memory(2 * CONCURRENCY)
    connection = Connection(name=CONNECTION, type="jimmy", base_url=base_url, api_key=KEY, poll_interval_s=3600)
    with polling(store, [connection], ca_file=ca_file, concurrency=CONCURRENCY) as rig:
        rig.poller.poll_due_tasks(0, time_limit_s=5)
        known = {task.provider_task_id for task in opening}
        fetch = rig.poller.fetch
        answered: dict[str, float] = {}

        def noting(asked: Connection, request: HttpRequest, timeout_s: float) -> HttpResponse:
            try:
                return fetch(asked, request, timeout_s)
            finally:
                answered.setdefault(request.url.rsplit("/", 1)[-1], time.monotonic())

        object.__setattr__(rig.poller, "fetch", noting)
        for task in registered(store, CONNECTION, BURST, start=len(opening)):
            _under_way(store, task)
        began = time.monotonic()
        rig.poller.poll_due_tasks(0, time_limit_s=10)
    last = [at for name, at in answered.items() if name not in known]
    assert len(last) == BURST
    print(json.dumps({"last_s": max(last) - began}))


def measure_burst(directory: Path) -> Section:
    """Three bursts; the median counts."""
    floor_s = math.ceil(BURST / CONCURRENCY) * ANSWER_S
    with provider(directory, Behaviour(delay_s=ANSWER_S)) as at:
        command = [sys.executable, "-m", "tests.benchmarks.due", at.base_url, at.ca_file]
        found = sorted(run(command).told["last_s"] for _ in range(3))
    ratio = found[1] / floor_s
    return Section(
        title="1,000 due tasks",
        target=(
            f"all polled within {BURST_FACTOR:g} times ceil(1000/concurrency) x {ANSWER_S:g} s at the default "
            "concurrency"
        ),
        verdict=f"{ratio:.2f} times",
        met=ratio <= BURST_FACTOR,
        head=["what", "seconds"],
        rows=[
            [f"the least that is possible, {CONCURRENCY} at a time", f"{floor_s:.2f}"],
            ["one after the other", f"{BURST * ANSWER_S:.0f}"],
            *[[f"Renderbell, run {number}", f"{one:.2f}"] for number, one in enumerate(found, 1)],
        ],
        notes=[
            "From the tick's beginning, its look and its lease included, over connections that an earlier tick has "
            "opened; the tasks are under way, so that nothing is to be written."
        ],
        plot=Plot(
            "burst",
            "share of runs",
            "seconds",
            lines=[Line("Renderbell", [0.0, 0.5, 1.0], found), Line("the least", [0.0, 1.0], [floor_s, floor_s])],
            limit=floor_s * BURST_FACTOR,
        ),
    )


# -- 10,000 in flight -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """The lateness of every poll in seconds, in order, and what the processes took."""

    late_s: Sequence[float]
    memory_bytes: float
    cpu_s: float
    polls: int

    def at(self, part: float) -> float:
        return self.late_s[min(len(self.late_s) - 1, math.floor(part * len(self.late_s)))]


@contextmanager
def _dead() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(4096)
        yield f"https://127.0.0.1:{silent.getsockname()[1]}"


def watch(directory: Path, *, dead: bool = False, share: float | None = None) -> Outcome | None:
    """Polls 10,000 tasks of two connections, the second of which may be dead; answers how late the first's polls were.

    Two processes take the ticks in turn. None if no share can be held.
    """
    tasks, began = [], 0.0
    with ExitStack() as running:
        emulator = running.enter_context(Emulator(directory / "aws"))
        behaviour = Behaviour(delay_s=ANSWER_S, slow_share=SLOW_SHARE, failing_share=FAILING_SHARE)
        at = running.enter_context(provider(directory, behaviour))
        other_url = running.enter_context(_dead()) if dead else at.base_url
        environment = {**os.environ, **aws_environment(emulator.url)}
        client = emulator.session().client("dynamodb", endpoint_url=emulator.url)
        make_table(client)
        began = time.time() + LOADING_S
        tasks = _load(client, CONNECTION, IN_FLIGHT - OF_OTHER, began)
        others = _load(client, OTHER, OF_OTHER, began)
        _hand_over(client, [*tasks, *others], began)
        assert time.time() < began, "loading took too long"
        processes = []
        for number in range(2):
            group = running.enter_context(share_of_a_processor(share, number)) if share is not None else None
            if share is not None and group is None:
                return None
            starts = [began + TICK_EVERY_S * tick for tick in range(number, TICKS, 2)]
            told = Ticks(
                base_url=at.base_url,
                other_url=other_url,
                ca_file=at.ca_file,
                endpoint_url=emulator.url,
                concurrency=CONCURRENCY,
                starts=starts,
                until=began + WATCHED_S,
                group=str(group) if group is not None else None,
            )
            command = [sys.executable, "-m", "tests.benchmarks.ticks", json.dumps(asdict(told))]
            processes.append(
                running.enter_context(
                    subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
                )
            )
        said = [process.communicate(timeout=WATCHED_S + 120)[0].splitlines() for process in processes]
    told_by = [json.loads(lines[-1]) for lines in said]
    asked = json.loads((directory / "asked.json").read_text())
    late_s = sorted(_lateness(tasks, asked, began, began + WATCHED_S - 5))
    if late_s[-1] >= INTERVAL_S:
        _explain(sum(late >= INTERVAL_S for late in late_s), said)
    return Outcome(
        late_s,
        max(one["memory"] for one in told_by),
        sum(one["cpu_s"] for one in told_by),
        sum(len(times) for times in asked.values()),
    )


def _explain(missing: int, said: Sequence[Sequence[str]]) -> None:
    """Shows what the pollers said where moments were left out; of single polls that failed there are hundreds."""
    print(f"{missing} moments without a poll; the pollers said:", file=sys.stderr)
    for number, lines in enumerate(said):
        for line in lines[:-1]:
            if FAILED_POLL not in line:
                print(f"poller {number}: {line}", file=sys.stderr)


def _load(client: Any, connection: str, number: int, began: float) -> list[Task]:
    """Puts tasks into the table that were registered within the hour before and are under way."""
    table = in_process_table(TABLE)
    store = Store(cast("DynamoDBClient", table), TABLE)
    births = [datetime.fromtimestamp(began - 3600 * (n + 1) / number, UTC) for n in range(number)]
    tasks = [_under_way(store, task) for task in registered(store, connection, number, births)]
    put_all(client, table.items())
    return tasks


def _under_way(store: Store, task: Task) -> Task:
    """A task after its first poll."""
    seen = Observation(ProviderState.PROCESSING, progress=PROGRESS, model=MODEL)
    return store.save(task, advance(task, seen, task.created_at))


def _hand_over(client: Any, tasks: Sequence[Task], began: float) -> None:
    """Leaves the lease as a poller does that has asked for everything until now."""
    at = datetime.fromtimestamp(began, UTC)
    lease = Lease(
        worker=0, holder="before", until=at, relief=False, served=Served(at), workers=1, slots=SLOTS, left=True
    )
    store = Store(client, TABLE)
    store.take_lease(lease, seen=None)
    store.keep_task_progress(0, noted(tasks, at, NO_NOTES))


def _lateness(
    tasks: Sequence[Task], asked: Mapping[str, Sequence[float]], began: float, until: float
) -> Iterator[float]:
    """From every moment within a time to the first poll after it, or beyond the end where there was none."""
    schedule = PollSchedule(INTERVAL_S)
    for task in tasks:
        times = asked.get(task.provider_task_id, ())
        moment = task.created_at
        while moment.timestamp() < until:
            if moment.timestamp() > began:
                served = [at for at in times if at >= moment.timestamp()]
                yield (min(served) if served else until + INTERVAL_S) - moment.timestamp()
            moment = next_moment(schedule, task.created_at, task.task_id, moment)


def measure_in_flight(directory: Path) -> Section:
    """Alone, beside a dead connection, and with the processor share of the function's memory."""
    share = MEMORY_MB / PROCESSOR_MB
    alone = watch(directory / "alone")
    beside = watch(directory / "beside", dead=True)
    held = watch(directory / "held", share=share)
    assert alone is not None
    assert beside is not None
    found = {
        "10,000 tasks": alone,
        f"{OF_OTHER:,} of them of a connection that never answers": beside,
        f"held to {share:.3f} of a processor ({MEMORY_MB} MB)": held,
    }
    limit_s = P95_SHARE * INTERVAL_S
    rows = [
        [
            name,
            f"{one.polls:,}",
            f"{one.at(0.5):.2f}",
            f"{one.at(0.95):.2f}",
            f"{one.at(0.99):.2f}",
            f"{one.late_s[-1]:.2f}",
            f"{one.memory_bytes / 1e6:.0f}",
            f"{one.cpu_s / WATCHED_S:.2f}",
        ]
        if one is not None
        else [name, *["?"] * 7]
        for name, one in found.items()
    ]
    judged = [one for one in found.values() if one is not None]
    moved = beside.at(0.95) / alone.at(0.95) - 1
    met = (
        all(one.at(0.95) < limit_s and one.memory_bytes < MEMORY_BYTES for one in judged)
        and moved < DEAD_SHARE
        and held is not None
    )
    curves = [
        Line(name, [one.at(part / 200) for part in range(200)], [part / 2 for part in range(200)])
        for name, one in found.items()
        if one is not None
    ]
    return Section(
        title="10,000 tasks in flight",
        target=(
            f"p95 lateness under 10 % of the interval ({limit_s:g} s), under 256 MB resident, a dead connection "
            "moves the "
            "p95 of the others by less than 10 %, also with the processor share of the function's memory"
        ),
        verdict=(
            f"p95 {alone.at(0.95):.2f} s, beside a dead connection {100 * moved:+.0f} %, with its share "
            + (f"{held.at(0.95):.2f} s" if held is not None else "not measured")
            + f"; at most {max(one.memory_bytes for one in judged) / 1e6:.0f} MB"
        ),
        met=met,
        head=["what", "polls", "p50 late, s", "p95", "p99", "most", "peak MB", "processors used"],
        rows=rows,
        notes=[
            f"One worker, {CONCURRENCY} polls at a time, an interval of {INTERVAL_S:g} s, the moments even over it; "
            "answers "
            f"after {ANSWER_S:g} s, of which {SLOW_SHARE:.0%} after 5 s and {FAILING_SHARE:.0%} are 503. {TICKS} "
            "ticks, one "
            f"every {TICK_EVERY_S:g} s instead of every minute, so {TICKS - 1} borders in {WATCHED_S:g} s: what is "
            "late is "
            "late for the look of whoever takes over. Two processes take the ticks in turn, as AWS Lambda does. The "
            "table is "
            "the emulator's. Lateness is that of the first connection's polls, from the moment to the request at the "
            "provider."
            + ("" if held is not None else " A processor share could not be held here: no control group can be made.")
        ],
        plot=Plot("in_flight", "seconds late", "per cent of polls", lines=curves),
    )


if __name__ == "__main__":
    burst(*sys.argv[1:])
