"""Three pollers share the slots of a stack; one is killed, and the schedule brings its tasks back."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from local.emulator import PID_FILE
from local.house import running_house
from local.providers.server import Seen
from renderbell.poll import LEASE_S, MINUTE_S
from renderbell.schedule import slot_of
from renderbell.store import Lease, Store
from tests.e2e.client import Client
from tests.e2e.conftest import first_of_its_kind

SOCKETS = Path("/proc/net/tcp")  # of Linux; it says which process asks

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not SOCKETS.exists(), reason="needs /proc")]

WORKERS, SLOTS = 3, 7  # which are not divided evenly
INTERVAL_S = 2.0
TASKS = 3  # of each worker, at least
MOST_TASKS = 60
SEEN = 4  # polls of each task, by which its worker's process is known
LATE_S = 6.0  # a cold start, and a hand-over, on a busy machine
SWEEP_S = 10.0  # how late the emulator's schedule may be
EXTRA = 4  # polls of a task: by whoever takes over, and where one that was late is followed by one on time
UNDER_WAY_S = 0.5  # what the killed process had sent is answered


@dataclass(frozen=True)
class Shared:
    """A stack of several workers, and its tasks by worker."""

    client: Client
    tasks: Mapping[int, list[dict[str, Any]]]

    def leases(self) -> list[Lease | None]:
        """Who holds which worker's slots."""
        stack = self.client.house.stack
        dynamodb = stack.session().client("dynamodb", endpoint_url=stack.aws_endpoint_url)
        store = Store(dynamodb, stack.table)
        return [store.lease(worker) for worker in range(WORKERS)]

    def polls(self, worker: int, since: datetime) -> dict[str, list[Seen]]:
        """What a worker's tasks were asked since a time."""
        seen = self.client.house.simulators.polls
        polls = {task["task_id"]: seen("jimmy", task["provider_task_id"]) for task in self.tasks[worker]}
        return {task_id: [one for one in of if one.at >= since] for task_id, of in polls.items()}

    def processes(self) -> list[int]:
        """The process that asks for all tasks of a worker, by worker; asserts that there is one, and no two alike.

        It is found out while no lease changes hands.
        """
        since, holders = datetime.now(UTC), _holders(self.leases())

        def look() -> list[dict[str, list[Seen]]] | None:
            nonlocal since, holders
            polls = [self.polls(worker, since) for worker in range(WORKERS)]
            if holders != (now := _holders(self.leases())) or None in now:
                since, holders = datetime.now(UTC), now
                return None
            return polls if all(len(seen) >= SEEN for of in polls for seen in of.values()) else None

        polls = self.client.until(look, f"{SEEN} polls of each task by the same holders", limit_s=2 * MINUTE_S)
        owners = _owners_of_sockets(self.client.house.emulator.directory)
        found = [{owners.get(one.port or 0) for seen in of.values() for one in seen} for of in polls]
        processes = [process for one in found for process in one if process is not None]
        assert [len(one) for one in found] == [1] * WORKERS, found
        assert len(set(processes)) == WORKERS, found
        return processes


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A deployed stack with three workers, each of which has tasks that do not end."""
    first_of_its_kind("stack of several workers", tmp_path_factory)
    parameters = {"PollerWorkers": str(WORKERS), "Slots": str(SLOTS)}
    with running_house(
        tmp_path_factory.mktemp("workers"), say=lambda text: None, parameters=parameters, poll_interval_s=INTERVAL_S
    ) as house:
        client = Client(house)
        tasks: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for _ in range(MOST_TASKS):
            task = client.start("jimmy", seconds=3600, size_bytes=100_000)
            tasks[slot_of(task["task_id"], SLOTS) % WORKERS].append(task)
            if len(tasks) == WORKERS and min(map(len, tasks.values())) >= TASKS:
                break
        yield Shared(client, tasks)


def test_a_killed_workers_tasks_are_asked_again_within_a_tick_while_the_others_go_on(
    shared: Shared, measured: Callable[[str], None]
) -> None:
    began = datetime.now(UTC)
    victim, before = 1, shared.processes()
    killed = datetime.now(UTC)
    _kill(before[victim], shared)
    ending = shared.tasks[victim][0]
    shared.client.house.simulators.change("jimmy", ending["provider_task_id"], seconds=0)
    after_death = killed + timedelta(seconds=UNDER_WAY_S)
    dead = shared.leases()[victim]
    assert dead is not None
    assert not dead.left
    assert dead.until > after_death, "it died in the middle of its tick"

    most_s = max(LEASE_S, MINUTE_S) + INTERVAL_S  # the next minute's tick waits for the dead one's lease, if need be
    shared.client.until(
        lambda: all(shared.polls(victim, after_death).values()),
        "a poll of each of the dead worker's tasks",
        limit_s=most_s + SWEEP_S + 2 * LATE_S,
    )
    ended = shared.client.ended(ending["task_id"])
    shared.tasks[victim].remove(ending)
    assert before[victim] not in shared.processes()
    assert ended["status"] == "COMPLETED"
    shared.client.told(ending["task_id"], "task.completed")

    unasked: list[tuple[datetime, datetime]] = []
    gaps: list[tuple[datetime, datetime]] = []
    for worker in range(WORKERS):
        for seen in shared.polls(worker, began).values():
            times = [one.at for one in seen]
            longest = max(pairwise(times), key=lambda pair: pair[1] - pair[0])
            (unasked if worker == victim else gaps).append(longest)
            turns_s = (times[-1] - times[0]).total_seconds() / INTERVAL_S
            assert len(times) <= turns_s + 2 + EXTRA, "asked by one worker only, but for who takes over"
    left_s = (dead.until - killed).total_seconds()
    unasked_s = [(later - earlier).total_seconds() for earlier, later in unasked]
    gaps_s = [(later - earlier).total_seconds() for earlier, later in gaps]
    measured(
        f"a worker of three killed {left_s:.1f} s before the end of its lease: its tasks "
        f"unasked for {min(unasked_s):.1f} to {max(unasked_s):.1f} s, polled every {INTERVAL_S:.0f} s; "
        f"the others' for {max(gaps_s):.1f} s at most"
    )
    assert all(earlier < after_death and later > dead.until for earlier, later in unasked), "nobody has taken a lease"
    assert max(unasked_s) <= most_s + SWEEP_S + LATE_S
    assert max(gaps_s) <= INTERVAL_S + LATE_S


def _holders(leases: list[Lease | None]) -> list[str | None]:
    return [None if lease is None else lease.holder for lease in leases]


def _kill(process: int, shared: Shared) -> None:
    """Kills a function's process, which must be the emulator's."""
    emulator = int((shared.client.house.emulator.directory / PID_FILE).read_text())
    assert os.getpgid(process) == emulator != process
    os.kill(process, signal.SIGKILL)


def _owners_of_sockets(emulator: Path) -> dict[int, int]:
    """The emulator's processes by the local ports of their connections."""
    lines = (line.split() for line in SOCKETS.read_text().splitlines()[1:])
    ports = {f"socket:[{line[9]}]": int(line[1].rpartition(":")[2], 16) for line in lines}
    group = int((emulator / PID_FILE).read_text())
    owners: dict[int, int] = {}
    for process in (int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()):
        try:
            if os.getpgid(process) != group:
                continue
            opened = [os.readlink(one) for one in (Path("/proc") / str(process) / "fd").iterdir()]
        except OSError:  # it has ended, or the file has been closed
            continue
        owners |= {ports[name]: process for name in opened if name in ports}
    return owners
