"""What a task costs in DynamoDB, from its registration to its delivered webhook, as the table itself counts it.

The use cases run in virtual time over the emulator's table, and every call says what it has used.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from botocore.config import Config

from local.emulator import Emulator
from renderbell.store import Store
from renderbell.task import Status, StoredFile
from tests.benchmarks.report import Bar, Plot, Section, Table
from tests.benchmarks.rig import SLOTS, TABLE
from tests.benchmarks.table import make_table
from tests.deployment import OWNER, Deployment, Said, ScriptedArchive, processing

MOST_UNITS = 32.0
PROGRESS_UNITS = 1.0  # of a stored change
INTERVAL_S, INTERVALS_S = 10.0, (5.0, 30.0)
PROCESSING_S = 180.0
CHANGES = 20
METADATA = {"project": "spring-campaign", "scene": "17", "requested_by": "ada@example.com", "render": "final-4k"}
LARGEST = {f"key-{number:02d}": "x" * 249 + f"{number:x}" for number in range(16)}  # 4 KiB of 16 pairs
LINK = "https://cdn.example.com/video.mp4?X-Amz-Signature=".ljust(600, "s")
PROVIDER_TASK_ID = "task_0b7e5b1c5e0f4c6ea9d3f1c0a8b4d2e6"
BUCKET = "renderbell-bucket-1a2b3c4d5e6f"  # as CloudFormation names it
HOOK = "https://hooks.example.com/renders"
WRITES = {"put_item", "update_item", "delete_item", "transact_write_items"}
STEADY_S = (60.0, 180.0)  # when the poller has begun and has yet to end
MINUTES = 4
GETS_ON_S = 20.0  # by one per cent each
BUSY_WITH = 30  # tasks, of which one at least is due every second or two
REGISTRATION = ("transact_write_items", "marker + request + task")
STEPS = {  # what a write of a task is for
    REGISTRATION: "registration",
    ("update_item", "task"): "PROCESSING, or a progress change",
    ("transact_write_items", "marker + task"): "COPYING; the marker goes",
    ("update_item", "claim of task"): "the copy is claimed",
    ("transact_write_items", "delivery + task"): "COMPLETED, with its delivery",
    ("update_item", "claim of delivery"): "the delivery is claimed",
    ("put_item", "attempt"): "the attempt",
    ("update_item", "delivery"): "delivered",
}
TOLD = list(STEPS)[3:]  # copying and telling

KEPT = {"lease", "progress"}  # what a worker writes for the next one
OF_WORKERS = {"due", "health", *KEPT}  # what is read however few tasks there are

Call = tuple[str, str]  # the operation and what it touches


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Capacity units of DynamoDB: of one task, and of a worker for each minute.

    `registration` and `later` are all that a task writes; of these, `request` is for what was asked (its owner's list
    included) and `told` for copying and telling. `shown` are the read units of showing the task to its owner. A worker
    that has tasks runs for `poller_s` of each minute.
    """

    registration: float
    later: float
    request: float
    told: float
    reads: float
    shown: float
    stored_bytes: float
    lease_writes_per_minute: float
    reads_per_minute: float
    idle_reads_per_minute: float
    poller_s: float

    @property
    def writes(self) -> float:
        """All that a task writes."""
        return self.registration + self.later

    @property
    def state(self) -> float:
        """What polling it and keeping its state writes: the task's own item and its marker."""
        return self.writes - self.request - self.told


@dataclass
class Metered:
    """A client of DynamoDB that asks each call what it has used; `units` and `steady` are by call."""

    client: Any
    now_s: Callable[[], float] = lambda: 0.0
    units: Counter[Call] = field(default_factory=Counter)
    indexed: Counter[tuple[Call, str]] = field(default_factory=Counter)  # of the units, those of each index
    calls: Counter[Call] = field(default_factory=Counter)
    refused: Counter[Call] = field(default_factory=Counter)  # calls, which are charged too
    steady: Counter[Call] = field(default_factory=Counter)  # within `STEADY_S`
    put_bytes: dict[str, int] = field(default_factory=dict)  # of each kind of item, at the most

    @property
    def exceptions(self) -> Any:
        """The client's own."""
        return self.client.exceptions

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        call = getattr(self.client, operation)

        def made(**arguments: Any) -> Any:
            try:
                answer = call(**arguments, ReturnConsumedCapacity="INDEXES")
            except self.client.exceptions.ConditionalCheckFailedException:
                self.refused[operation, _touched(arguments)] += 1
                raise
            self._count((operation, _touched(arguments)), answer.get("ConsumedCapacity", []))
            for item in _put(arguments):
                self.put_bytes[_kind(item)] = max(item_bytes(item), self.put_bytes.get(_kind(item), 0))
            return answer

        return made

    def _count(self, call: Call, told: Any) -> None:
        tables = told if isinstance(told, list) else [told]
        used = sum(one["CapacityUnits"] for one in tables)
        for one in tables:
            for index, units in one.get("GlobalSecondaryIndexes", {}).items():
                self.indexed[call, index] += units["CapacityUnits"]
        self.calls[call] += 1
        self.units[call] += used
        if STEADY_S[0] <= self.now_s() < STEADY_S[1]:
            self.steady[call] += used


def _touched(arguments: Mapping[str, Any]) -> str:
    """What a call is about: the kinds of its items, or the index that it asks."""
    if "TransactItems" in arguments:
        actions = [next(iter(one.values())) for one in arguments["TransactItems"]]
        return " + ".join(sorted(_kind(one.get("Key") or one["Item"]) for one in actions))
    if "Key" not in arguments and "Item" not in arguments:
        return str(arguments.get("IndexName", "items"))
    kind = _kind(arguments.get("Key") or arguments["Item"])
    return f"claim of {kind}" if _claims(arguments) else kind


def _claims(arguments: Mapping[str, Any]) -> bool:
    """Whether an update sets a token."""
    sets = str(arguments.get("UpdateExpression", "")).partition("REMOVE")[0]
    names = arguments.get("ExpressionAttributeNames", {})
    return any(name == "token" and f"{short} =" in sets for short, name in names.items())


def _put(arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The items that a call puts."""
    if "Item" in arguments:
        yield arguments["Item"]
    for action in arguments.get("TransactItems", []):
        if "Put" in action:
            yield action["Put"]["Item"]


def _kind(item: Mapping[str, Any]) -> str:
    """The kind of an item, by its key."""
    pk, sk = (item[name]["S"].split("#")[0].lower() for name in ("pk", "sk"))
    return "marker" if pk == "ongoing" else str(sk)


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker that has tasks needs in a minute: write and read units, and seconds of pollers."""

    lease_writes: float
    reads: float
    poller_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One task from its registration to its delivered webhook; `end_bytes` are of what is left then."""

    metered: Metered
    polls: int
    end_bytes: Mapping[str, int]
    shown: float

    @property
    def registration(self) -> float:
        """Write units of the registration."""
        return self.metered.units[REGISTRATION]

    @property
    def later(self) -> float:
        """Write units of all that follows it, without the worker's leases."""
        return self._of(_writes) - self.registration - self.leases

    @property
    def leases(self) -> float:
        """Write units of what workers keep: leases, and notes of progress."""
        return self._of(lambda call: _writes(call) and call[1] in KEPT)

    @property
    def changes(self) -> int:
        """How often the task was written as it was polled, its first poll included."""
        return self.metered.calls["update_item", "task"]

    def units(self, worker: Worker, idle_reads_per_minute: float) -> Units:
        """As data that costs are reckoned from."""
        return Units(
            registration=self.registration,
            later=self.later,
            request=2 * math.ceil(self.metered.put_bytes["request"] / 1024) + 1,  # a transaction's; its place in a list
            told=sum(self.metered.units[call] for call in TOLD),
            reads=self._of(lambda call: not _writes(call) and call[1] not in OF_WORKERS) + 1,  # one of the lease
            shown=self.shown,
            stored_bytes=float(sum(size + 100 for size in self.end_bytes.values())),  # 100 are DynamoDB's own
            lease_writes_per_minute=worker.lease_writes,
            reads_per_minute=worker.reads,
            idle_reads_per_minute=idle_reads_per_minute,
            poller_s=worker.poller_s,
        )

    def _of(self, wanted: Callable[[Call], bool]) -> float:
        return float(sum(units for call, units in self.metered.units.items() if wanted(call)))


def _writes(call: Call) -> bool:
    return call[0] in WRITES


def item_bytes(item: Mapping[str, Any]) -> int:
    """An item's size as DynamoDB counts it.

    Source: "DynamoDB item sizes and formats" in its Developer Guide.
    """
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def _value_bytes(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return len(content.encode())
        case "N":
            return math.ceil(len(content.strip("-").replace(".", "").strip("0")) / 2) + 1
        case "L":
            return 3 + sum(1 + _value_bytes(one) for one in content)
        case "M":
            return 3 + sum(1 + len(name.encode()) + _value_bytes(one) for name, one in content.items())
        case "SS":
            return sum(len(one.encode()) for one in content)
        case _:  # BOOL, NULL
            return 1


class Archive(ScriptedArchive):
    """Stores by name only, into a bucket with as long a name as a deployed one has."""

    def store(self, **asked: Any) -> StoredFile:
        return replace(super().store(**asked), bucket=BUCKET)


def live(
    client: Any, *, interval_s: float = INTERVAL_S, metadata: Mapping[str, str] = METADATA, progress: int = 1
) -> Outcome:
    """One task with three minutes of processing, whose provider tells of progress so many times."""
    world, metered = _world(client)
    world.connect("studio", poll_interval_s=interval_s)
    steps = [processing(1 + PROCESSING_S * n / progress, progress=10 + n) for n in range(progress)]
    done = Said(1 + PROCESSING_S, {"status": "completed", "progress": 100, "result": {"video_url": LINK}})
    world.provider.scripts[PROVIDER_TASK_ID] = [*steps, done]
    task_id = world.register(at_s=1, webhooks=[HOOK], provider_task_id=PROVIDER_TASK_ID, metadata=dict(metadata))
    world.tick_every_minute(until_s=60 * MINUTES)
    world.run(60 * MINUTES + 20)
    looking = Metered(client)
    world.store = Store(cast("Any", looking), TABLE)
    shown = world.tasks(lambda: "").read_task(task_id, owner=OWNER)
    if shown.task.status is not Status.COMPLETED or [one.url for one in world.receivers.received] != [HOOK]:
        raise AssertionError("the task was not completed, or its webhook not delivered")
    if metered.refused:
        raise AssertionError(f"writes were refused, and would be charged: {metered.refused}")
    end_bytes = {_kind(item): item_bytes(item) for item in _emptied(client)}
    return Outcome(metered, len(world.provider.polls[PROVIDER_TASK_ID]), end_bytes, float(sum(looking.units.values())))


def busy(client: Any) -> Worker:
    """A worker with tasks that are polled all the time, and get on."""
    world, metered = _world(client)
    stages = [processing(GETS_ON_S * stage, progress=stage) for stage in range(int(60 * MINUTES / GETS_ON_S))]
    for n in range(BUSY_WITH):
        world.register(*stages, at_s=1 + n * INTERVAL_S / BUSY_WITH)
    world.tick_every_minute(until_s=60 * MINUTES)
    world.run(60 * MINUTES)
    minutes = (STEADY_S[1] - STEADY_S[0]) / 60
    _emptied(client)
    return Worker(
        sum(units for call, units in metered.steady.items() if _writes(call) and call[1] in KEPT) / minutes,
        sum(units for call, units in metered.steady.items() if not _writes(call)) / minutes,
        sum(max(0.0, min(end, STEADY_S[1]) - max(began, STEADY_S[0])) for began, end in world.ticks) / minutes,
    )


def idle(client: Any) -> float:
    """Read units a minute where there are no tasks."""
    world, metered = _world(client)
    world.tick_every_minute(until_s=60 * MINUTES)
    world.run(60 * MINUTES)
    if any(map(_writes, metered.units)):
        raise AssertionError("something was written though there was nothing to do")
    return sum(metered.units.values()) / MINUTES


def _world(client: Any) -> tuple[Deployment, Metered]:
    """A deployment over the emulator's table."""
    world = Deployment(slots=SLOTS)
    metered = Metered(client, lambda: world.now_s)
    world.store = Store(cast("Any", metered), TABLE)
    return world, metered


def _emptied(client: Any) -> list[Mapping[str, Any]]:
    """All items of the table, which has none afterwards."""
    pages = client.get_paginator("scan").paginate(TableName=TABLE)
    found: list[Mapping[str, Any]] = [item for page in pages for item in page["Items"]]
    for item in found:
        client.delete_item(TableName=TABLE, Key={"pk": item["pk"], "sk": item["sk"]})
    return found


def measure(directory: Path) -> tuple[Section, Units]:
    """The task of the target, and what makes a difference to it."""
    logging.disable(logging.INFO)  # every tick says that it is done
    try:
        with Emulator(directory) as emulator:
            config = Config(max_pool_connections=32)
            client = emulator.session().client("dynamodb", endpoint_url=emulator.url, config=config)
            make_table(client)
            usual = live(client)
            others = {f"polled every {one:g} s": live(client, interval_s=one) for one in INTERVALS_S}
            moved = {one: live(client, interval_s=one, progress=CHANGES) for one in (INTERVAL_S, *INTERVALS_S)}
            largest = live(client, metadata=LARGEST)
            units = usual.units(busy(client), idle(client))
    finally:
        logging.disable(logging.NOTSET)
    return _section(usual, others, moved, largest, units), units


def _section(
    usual: Outcome, others: Mapping[str, Outcome], moved: Mapping[float, Outcome], largest: Outcome, units: Units
) -> Section:
    a_change = max((one.later - usual.later) / (one.changes - usual.changes) for one in moved.values())
    each = usual.registration + usual.later
    met = {
        f"at most {MOST_UNITS:g}": each <= MOST_UNITS,
        "whatever the number of polls": all(
            (one.registration, one.later) == (usual.registration, usual.later) for one in others.values()
        ),
        f"a stored progress change costs {a_change:g}": a_change <= PROGRESS_UNITS,
        "the largest metadata adds only at registration": largest.later == usual.later,
    }
    named = {
        f"polled every {INTERVAL_S:g} s": usual,
        **others,
        **{
            f"every {interval_s:g} s, {CHANGES} progress changes, of which {one.changes - 1} were stored": one
            for interval_s, one in moved.items()
        },
        "the largest metadata": largest,
    }
    steps = {what: call for call, what in STEPS.items() if usual.metered.calls[call]}
    return Section(
        title="Write units",
        target=(
            f"at most {MOST_UNITS:g} write units from registration to delivered webhook, whatever the number of polls, "
            f"apart from stored progress changes, which cost {PROGRESS_UNITS:g} each; the largest metadata adds only "
            "at registration"
        ),
        verdict=f"{each:g}; " + "; ".join(f"{what}: {'yes' if good else 'no'}" for what, good in met.items()),
        met=all(met.values()),
        head=["task", "polls", "at registration", "afterwards", "together", "the worker's"],
        rows=[
            [
                name,
                f"{one.polls}",
                f"{one.registration:g}",
                f"{one.later:g}",
                f"{one.registration + one.later:g}",
                f"{one.leases:g}",
            ]
            for name, one in named.items()
        ],
        more=[
            Table(
                f"By operation, polled every {INTERVAL_S:g} s",
                ["step", "operation", "what it writes", "calls", "units", "of them in `due`", "in `list`"],
                [
                    [
                        what,
                        call[0],
                        call[1],
                        f"{usual.metered.calls[call]}",
                        f"{usual.metered.units[call]:g}",
                        *(f"{usual.metered.indexed[call, index]:g}" for index in ("due", "list")),
                    ]
                    for what, call in steps.items()
                ],
            ),
            Table(
                "Bytes of each item, as DynamoDB counts them",
                ["item", "as it is put", "at the end"],
                [
                    [kind, f"{size:,}", f"{usual.end_bytes[kind]:,}" if kind in usual.end_bytes else "removed"]
                    for kind, size in usual.metered.put_bytes.items()
                ],
            ),
        ],
        notes=_notes(units),
        plot=Plot(
            "writes",
            "write units of a task",
            "",
            bars=[Bar(what, usual.metered.units[call]) for what, call in steps.items()],
        ),
    )


def _notes(units: Units) -> Sequence[str]:
    return [
        f"{len(METADATA)} metadata pairs, one webhook, a link of {len(LINK)} bytes, {PROCESSING_S:g} s of processing, "
        f"{SLOTS} slots. The table is the emulator's, and the units are its answers to `ReturnConsumedCapacity`, with "
        "the indexes. They follow DynamoDB's rules: a unit for each KiB of an item, twice that in a transaction, one "
        "for each index that a write touches, two where it changes the index's key.",
        "A progress change, stored every 15 s at most, writes the item alone: the index `due` does not show it. A "
        "poller that goes notes for the next one how far its tasks have come, so that a hand-over writes and reads "
        "none of them; there was one in every minute, and no write was refused.",
        f"A worker that has tasks writes {units.lease_writes_per_minute:g} units a minute: its lease, and where any "
        f"task has got on its notes, a unit for each hundred tasks. With {BUSY_WITH} of them it reads "
        f"{units.reads_per_minute:g}: its lease and every slot every 3 s, and once a minute the notes and all that is "
        "due, at half a unit for 4 KiB (the notes at a whole one). Where nothing is due, "
        f"{units.idle_reads_per_minute:g} are read in a minute and none written. Of each minute, pollers run "
        f"{units.poller_s:.1f} s: for a moment there are two when one hands over to the next.",
    ]
