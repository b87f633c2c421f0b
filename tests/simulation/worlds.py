"""Random worlds: a seed says what tasks, providers and receivers there are, and what goes wrong.

The same seed always makes the same world, call by call. Nobody but the world draws from its random numbers in an order
that could differ: all threads are greenlets in virtual time.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

from renderbell.delivery import EVENT_OF_STATUS, REFUSED, Answer
from renderbell.errors import ProviderUnavailable
from renderbell.lengths import ENOUGH, Lengths
from renderbell.providers import Connection, HttpRequest, HttpResponse, poll_schedule_for
from renderbell.task import ErrorCode, Status, Task
from tests.deployment import NOTIFIER, POLLER, Said
from tests.fake_source import FakeFile, video_bytes
from tests.simulation.ends import assert_all_ended_well
from tests.simulation.witness import Witness, tightest
from tests.universe import DEATHS, PART_BYTES, S3_TROUBLES, Call, Trouble, Universe, troubles_of
from tests.virtual import START, Process

STORM_S = 600.0  # from then on nothing goes wrong any more, so that every promise can be kept
MOST_TASKS = 30  # of a world
OUTLASTING = 0.4  # the share of worlds in which tasks are still polled when the storm has settled
CROWDED_S = 150.0
CROWD = 12
DIES_WITHIN = {POLLER: 300, NOTIFIER: 20, "api": 6}  # calls
USUAL_TICK_S = 60.0  # then the next relieves it


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How likely what goes wrong, until the storm is over."""

    crashes: float = 0.0  # of invocations
    errors: float = 0.0  # of calls to AWS
    lost: float = 0.0  # of asynchronous invocations and ticks
    doubled: float = 0.0
    late: float = 0.0  # up to a minute
    tick_jitter_s: float = 1.0
    lag_s: float = 0.1  # of the index, at most
    skew_s: float = 0.0  # of each clock, either way
    changes: bool = False  # of workers and slots
    pauses: float = 0.0  # of pollers that stand still for a while
    s3: float = 0.0  # calls that botocore repeats, and those whose effect comes when nobody waits for it any more
    between: float = 0.0  # registrations around the looks of pollers
    deaths_by_time: bool = False  # a poller's: as likely in each second of its life


CALM = Weather()
# Nobody dies and nothing fails or is lost; the index alone shows writes late and in any order.
LAGGING = Weather(lag_s=2.0, between=0.01)
# Some end before their death would come: with this share a good 40 % of all really die.
CRASHING = Weather(crashes=0.48, deaths_by_time=True)


def stormy(rng: random.Random) -> Weather:
    """Everything may go wrong; how much differs between worlds."""

    def some(most: float) -> float:
        return rng.choice([0.0, rng.uniform(0, most), most])

    return Weather(
        crashes=some(0.4),
        errors=some(0.02),
        lost=some(0.4),
        doubled=some(0.3),
        late=some(0.4),
        tick_jitter_s=some(20.0),
        lag_s=some(2.0),
        skew_s=some(0.5),
        changes=rng.random() < 0.3,
        pauses=some(0.15),
        s3=some(0.1),
    )


@dataclass(frozen=True, slots=True)
class Life:
    """What a provider will make of a task, and what its owner does meanwhile."""

    outcome: str
    ends_s: float
    asked_at_s: float
    deadline_s: int
    connection: str
    cancelled: bool = False
    deleted: bool = False
    dead_source: bool = False


@dataclass
class Figures:
    """What was measured, in seconds unless said otherwise."""

    first_polls: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)  # beyond the interval, the last one until polling ended
    adaptive_gaps: list[float] = field(default_factory=list)  # the same, beyond the most of one that follows lengths
    late_gaps: list[float] = field(default_factory=list)  # the same, when the storm is over
    first_attempts: list[float] = field(default_factory=list)  # after the end of a task, at receivers that are well
    reads: list[int] = field(default_factory=list)  # of a task's items, besides looks
    writes: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, other: Figures) -> None:
        """Takes in what another world has measured."""
        self.first_polls += other.first_polls
        self.gaps += other.gaps
        self.adaptive_gaps += other.adaptive_gaps
        self.late_gaps += other.late_gaps
        self.first_attempts += other.first_attempts
        self.reads += other.reads
        self.writes += other.writes
        self.counts.update(other.counts)

    def __str__(self) -> str:
        told = ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))
        first, gaps, heard = self.first_polls, self.gaps, self.first_attempts
        return (
            f"{told}; first poll p50 {percentile(first, 0.5):.1f} p99 {percentile(first, 0.99):.1f} "
            f"max {max(first):.1f} s; gap beyond the interval p99 {percentile(gaps, 0.99):.1f} "
            f"p99.9 {percentile(gaps, 0.999):.1f} max {max(gaps):.1f} s; "
            f"first attempt after the end p99 {percentile(heard, 0.99):.1f} max {max(heard):.1f} s; "
            f"reads p50 {percentile(self.reads, 0.5)} max {max(self.reads)}, "
            f"writes p50 {percentile(self.writes, 0.5)} max {max(self.writes)} a task"
        )


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def run_world(seed: int, weather: Weather | None) -> Figures:
    """Runs a world to its end; an error says how to see it again."""
    try:
        return RandomWorld(seed, weather).run()
    except BaseException as error:
        name = {CALM: "calm", LAGGING: "lagging", CRASHING: "crashing", None: "stormy"}[weather]
        error.add_note(f"again: make soak ARGS='--weather {name} --first {seed} --worlds 1'")
        raise


class RandomWorld:
    """A universe with a population, both drawn from a seed."""

    def __init__(self, seed: int, weather: Weather | None = None) -> None:
        self.rng = random.Random(seed)
        self.weather = weather if weather is not None else stormy(self.rng)
        self.lives: dict[str, Life] = {}  # by the provider's task id
        self.dead_urls: set[str] = set()
        self.gone_urls: set[str] = set()
        self.refused_urls: set[str] = set()
        self.good_urls: set[str] = set()
        self.limited: set[str] = set()  # connections with a limit on their rate or on how many polls they take at once
        self.listing = random.Random(seed)  # which connections' providers list their tasks
        self.listed = 0  # requests for lists
        self.adapting = random.Random(f"{seed} adapts")  # which connections' polls follow from their tasks' lengths
        self.healthy: set[str] = set()  # connections that always answer soon, with no limit on their rate
        self._trouble: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
        self._dies_in: dict[Process, int] = {}
        self._behave: dict[str, Callable[[float], tuple[float, Answer]]] = {}
        self.polled: dict[str, list[float]] = defaultdict(list)  # by connection
        self.asked: dict[str, list[float]] = defaultdict(list)  # by the provider's task id, by pollers alone
        self.resettled_s: list[float] = []  # when workers or slots changed
        draws = self.rng
        self.most_at_once: dict[str, int] = {}  # polls of a connection that one poller has under way
        self._paused: set[Process] = set()
        self.universe = Universe(
            plan=self._plan,
            lag=lambda: draws.uniform(0.0, self.weather.lag_s),
            skew=lambda: draws.uniform(-self.weather.skew_s, self.weather.skew_s),
            arrivals=self._arrivals,
            latency=lambda: draws.uniform(0.002, 0.01),
            seed=seed,
            workers=draws.choice([1, 1, 2, 3]),
            slots=draws.choice([1, 2, 3]),
            concurrency=draws.choice([2, 8, 64]),
            many_tasks=random.Random(f"{seed} many").choice([1, 4, 500]),
        )
        self.universe.jitter = random.Random(draws.random()).random
        self.witness = Witness(self.universe, most_at_once=self.most_at_once)
        self._scripted_fetch = self.universe._fetch
        self.universe._fetch = self._fetch
        self.universe._post = self._verified(self.universe._post)
        self._populate()
        self.universe.tick_while_due(first_s=draws.uniform(0, 60))

    def run(self) -> Figures:
        """Lets the world come to its end, asserts every promise, and returns what was measured."""
        world = self.universe
        world.run_to_the_end()
        assert_all_ended_well(world, dead=self.dead_urls, gone=self.gone_urls, refused=self.refused_urls)
        for task in world.all_tasks():
            self._assert_true(task)
            self._assert_asked_in_time(task)
            self._assert_within_bounds(task)
            self._assert_not_asked_too_often(task)
        for name in world.connections:
            self._assert_within_rate(name)
        self.witness.assert_back_offs_ended()
        kind = self.weather
        self.witness.assert_deliveries_kept(calm=kind is CALM, errors=kind.errors > 0, skew_s=kind.skew_s)
        if self.weather is CALM:
            self._assert_nothing_in_vain()
            self._assert_lengths_learned()
        return self._measured()

    # -- what there is ------------------------------------------------------------------------------------------------

    def _populate(self) -> None:
        rng, world = self.rng, self.universe
        world.connections.clear()
        self._outlasts = rng.random() < OUTLASTING
        for number in range(rng.randint(1, 4)):
            self._connect(f"c{number}")
        urls = [f"https://r{number}.example.com/hook" for number in range(rng.randint(1, 4))]
        for url in urls:
            self._receive(url)
        number = 0
        for _ in range(rng.randint(1, 3)):
            at_s = rng.uniform(0, 200)
            connection = rng.choice(sorted(world.connections))
            spread_s = rng.choice([0.0, 1.0, 60.0])
            # Enough for a connection's limit to be felt.
            for _ in range(6 if connection in self.limited else rng.choice([1, 2, 3, 8])):
                number += 1
                self._task(number, connection, at_s + rng.uniform(0, spread_s), urls)
        self._urls = urls
        if rng.random() < 0.05:
            self._crowd(number)
        for name in sorted(world.connections):
            if poll_schedule_for(world.connections[name]).adapts:
                self._adapt(name)
        if self.weather.changes:
            for _ in range(rng.randint(1, 2)):
                self._resettle(rng.uniform(60, 900))

    def _connect(self, name: str) -> None:
        rng = self.rng
        interval_s = rng.choice([5, 10, 20, 30, 60, 120, 300] if not self.weather.between else [60, 120, 300])
        limits: dict[str, Any] = {}
        if rng.random() < 0.15:
            limits["max_polls_per_s"] = rng.choice([0.1, 0.2, 0.5])
            interval_s = rng.choice([5, 10, 20, 60])
        if rng.random() < 0.15:
            limits["max_concurrency"] = rng.choice([1, 2, 5])
        if limits:
            self.limited.add(name)
        if "max_concurrency" in limits:
            shared = 1 if self.weather.changes else self.universe.settings.workers
            self.most_at_once[name] = max(1, limits["max_concurrency"] // shared)
        lists = self.listing.random() < 0.4
        if lists:
            limits |= {"type": "generic", "spec": LISTING}
        intervals: dict[str, float | None] = {"poll_interval_s": interval_s}
        if self.adapting.random() < 0.35:
            least_s, most_s = self.adapting.choice(BOUNDS[2:] if self.weather.between else BOUNDS)
            intervals = {"poll_interval_s": None, "poll_least_s": least_s, "poll_most_s": most_s}
        self.universe.connect(name, **limits, **intervals)
        if rng.random() < 0.3:
            for _ in range(rng.randint(1, 2)):
                begin = rng.uniform(0, 600)
                kind = rng.choice(["dead", "429", "500", "401", "nonsense", "flaky"])
                self._trouble[name].append((begin, begin + rng.choice([20, 120, 600]), kind))
        elif not limits and not lists:  # nobody sees whom a list is asked for
            self.healthy.add(name)

    def _receive(self, url: str) -> None:
        rng = self.rng
        often, seldom = ["good"] * 3 + ["slow", "flaky", "down for a while"], ["dead", "gone", "refused"]
        kind = rng.choice(2 * often + seldom)
        hint_s = rng.choice([60.0, 900.0, 7000.0])
        until_s = rng.uniform(100, 2000)
        own = random.Random(rng.random())

        def behave(now_s: float) -> tuple[float, Answer]:
            match kind:
                case "slow":
                    return own.uniform(1, 14), Answer(200)
                case "flaky" if now_s < 2 * STORM_S and own.random() < 0.5:
                    return 0.1, Answer(500)
                case "down for a while" if now_s < until_s:
                    return own.choice([(0.1, Answer(503, retry_after_s=hint_s)), (15.0, Answer(None, error="timeout"))])
                case "dead":
                    return 15.0, Answer(None, error="timeout")
                case "gone":
                    return 0.1, Answer(410)
                case "refused":
                    return 0.1, Answer(None, error=REFUSED, refused=True)
            return 0.1, Answer(204)

        self._behave[url] = behave
        if kind == "good":
            self.good_urls.add(url)
        if kind == "dead":
            self.dead_urls.add(url)
        if kind == "gone":
            self.gone_urls.add(url)
        if kind == "refused":
            self.refused_urls.add(url)

    def _task(self, number: int, connection: str, at_s: float, urls: Sequence[str]) -> None:
        rng, world = self.rng, self.universe
        outcome = rng.choice(
            ["video"] * 6 + ["two videos", "failed", "cancelled", "unknown", "no file", "never", "unknown at first"]
        )
        long_s = STORM_S + SETTLED_S + 400 - at_s if self._outlasts else 0.0
        lasts_s = rng.choice([0.0, rng.uniform(0, 60), rng.uniform(0, 400), long_s])
        if connection in self.limited:
            lasts_s = min(lasts_s, CROWDED_S)  # many tasks, so not for long
        ends_s = at_s + lasts_s
        deadline_s = rng.choice([60, 300, 900]) if lasts_s <= 400 else 1500
        life = Life(outcome, ends_s, at_s, deadline_s, connection)
        name = f"https://cdn.example.com/{number}"
        life = replace(life, dead_source=self._source(name, outcome))
        events = rng.choice([None, ["task.processing", "task.completed", "task.failed", "task.expired"]])
        provider_task_id = f"p{number}"
        world.register(
            *_script(life, name),
            connection=connection,
            at_s=at_s,
            webhooks=rng.sample(urls, rng.randint(0, 1 if connection in self.limited else min(2, len(urls)))),
            events=events,
            deadline_s=deadline_s,
        )
        doing = rng.random()
        if doing < 0.16:
            delay_s = rng.choice([rng.uniform(0.1, 5), ends_s - at_s + rng.uniform(0.1, 20), rng.uniform(5, 300)])
            life = replace(life, cancelled=doing < 0.08, deleted=doing >= 0.08)
            act = world.cancel if life.cancelled else world.delete
            act(f"tsk_{number:026d}", at_s=at_s + delay_s)
        self.lives[provider_task_id] = life

    def _adapt(self, name: str) -> None:
        """What workers know of a connection's tasks from before the world began, and many more to learn from."""
        rng, world = self.adapting, self.universe
        usual_s, spread = rng.uniform(20, 300), rng.choice([0.02, 0.2, 1.0])
        for worker in range(world.settings.workers):
            lengths = Lengths()
            for _ in range(rng.choice([0, 0, ENOUGH - 2, 2 * ENOUGH, 5 * ENOUGH])):
                lengths = lengths.added(usual_s * (1 + rng.uniform(-spread, spread)))
            if lengths.weights:
                world.store_of_tests.keep_task_lengths(worker, name, lengths, START)
        if rng.random() < 0.2 and name not in self.limited:
            at_s = rng.uniform(0, 200)
            for number in range(len(self.lives) + 1, len(self.lives) + 1 + ENOUGH):
                asked_at_s = at_s + rng.uniform(0, 100)
                life = Life("failed", asked_at_s + usual_s * (1 + rng.uniform(-spread, spread)), asked_at_s, 900, name)
                self.lives[f"p{number}"] = life
                world.register(*_script(life, ""), connection=name, at_s=asked_at_s, deadline_s=900)

    def _crowd(self, number: int) -> None:
        """Many tasks that end at once, and tell of it where nobody answers well for a while."""
        rng, url = self.rng, "https://crowded.example.com/hook"
        at_s, connection = rng.uniform(0, 200), min(self.universe.connections)
        well_s, bad = (
            at_s + rng.uniform(20, 300),
            rng.choice([(0.1, Answer(500)), (15.0, Answer(None, error="timeout"))]),
        )
        self._behave[url] = lambda now_s: bad if now_s < well_s else (0.1, Answer(204))
        for n in range(number + 1, number + 1 + CROWD):
            life = Life("failed", at_s, at_s, 900, connection)
            self.lives[f"p{n}"] = life
            script = _script(life, f"https://cdn.example.com/{n}")
            self.universe.register(*script, connection=connection, at_s=at_s, webhooks=[url], deadline_s=900)

    def _source(self, name: str, outcome: str) -> bool:
        """Puts the files there; whether they can never be had."""
        rng, world = self.rng, self.universe
        kind = rng.choice(["fine"] * 5 + ["slow", "very slow", "breaks off", "no ranges", "dead"])
        chunk_s = {"slow": rng.uniform(1, 15), "very slow": rng.uniform(15, 19)}.get(kind, 0.01)
        for n in (1, 2) if outcome == "two videos" else (1,):
            size = rng.choice([300, PART_BYTES, rng.randint(100, 5 * PART_BYTES)])
            file = FakeFile(
                video_bytes(size, seed=rng.randrange(1000)),
                chunk=PART_BYTES // (6 if kind == "very slow" else 2),
                ranges=kind != "no ranges",
                on_chunk=lambda offset: world.world.sleep(chunk_s),
            )
            world.sources.files[f"{name}-{n}.mp4"] = file
            if kind == "breaks off":
                file.breaks_after = rng.randint(1, 3 * PART_BYTES)
                world.world.at(START + timedelta(seconds=1500), partial(_mend, file))
            if kind == "dead":
                file.status = 404
        return kind == "dead"

    def _resettle(self, at_s: float) -> None:
        workers, more = self.rng.choice([1, 2, 3, 4]), self.rng.choice([0, 2])

        def change() -> None:
            before = self.universe.settings
            self.universe.settings = before._replace(workers=workers, slots=before.slots + more)

        self.resettled_s.append(at_s)
        self.universe.world.at(START + timedelta(seconds=at_s), change)

    # -- what goes wrong ----------------------------------------------------------------------------------------------

    @property
    def _now_s(self) -> float:
        return self.universe.now_s

    @property
    def _storm(self) -> bool:
        return self._now_s < STORM_S

    def _plan(self, call: Call) -> Trouble | None:
        process, rng, weather = call.process, self.rng, self.weather
        if process is None or not self._storm:
            return None
        if weather.between and call.operation == "query" and rng.random() < weather.between:
            self._register_between()
        if weather.pauses and process.name == POLLER and process not in self._paused:
            self._paused.add(process)
            if rng.random() < weather.pauses:
                stands_s, world = rng.uniform(50, 70), self.universe.world
                begins_at = world.now() + timedelta(seconds=rng.uniform(0, USUAL_TICK_S))
                world.at(begins_at, lambda: world.pause(process, stands_s))
        if weather.crashes:
            if process not in self._dies_in:
                self._dies_in[process] = self._last_call(process.name) if self._is_doomed(process) else -1
            self._dies_in[process] -= 1
            if self._dies_in[process] == 0:
                return rng.choice(DEATHS)
        if call.service == "s3" and rng.random() < weather.s3:
            # An upload that is created twice within one call is known to nobody: the bucket's own rule ends it.
            return rng.choice(S3_TROUBLES[:-1] if call.operation == "create_multipart_upload" else S3_TROUBLES)
        if call.service not in {"provider", "receiver", "source"} and rng.random() < weather.errors:
            return rng.choice(troubles_of(call.service)[len(DEATHS) :])
        return None

    def _register_between(self) -> None:
        """Registers a task while a poller looks, or in the few seconds in which it may leave and look once more."""
        name = self.rng.choice(sorted(self.universe.connections))
        if len(self.lives) < MOST_TASKS:
            at_s = self._now_s + self.rng.choice([0.0, self.rng.uniform(0, 0.1), self.rng.uniform(0, 5)])
            self._task(len(self.lives) + 1, name, at_s, self._urls)

    def _last_call(self, function: str) -> int:
        """The call at which a doomed invocation dies, early ones as likely as late ones."""
        return int(math.exp(self.rng.uniform(0, math.log(DIES_WITHIN[function]))))

    def _is_doomed(self, process: Process) -> bool:
        """Whether an invocation dies at a call; some die at a time instead, a poller at any of its usual minute."""
        if self.rng.random() >= self.weather.crashes:
            return False
        if process.name == POLLER and (self.weather.deaths_by_time or self.rng.random() < 0.5):
            world = self.universe.world
            dies_s = self.rng.uniform(0, USUAL_TICK_S)
            world.at(world.now() + timedelta(seconds=dies_s), lambda: world.kill(process))
            return False
        return True

    def _arrivals(self, function: str) -> Sequence[float]:
        rng, weather = self.rng, self.weather
        usual_s = rng.uniform(0, weather.tick_jitter_s) if function == "schedule" else rng.uniform(0.02, 0.2)
        if not self._storm:
            return (0.05,)
        if rng.random() < weather.lost:
            return ()
        if rng.random() < weather.late:
            usual_s = rng.uniform(0, 60)
        if rng.random() < weather.doubled:
            return (usual_s, usual_s + rng.uniform(0, 60))
        return (usual_s,)

    def _fetch(self, connection: Connection, request: HttpRequest, timeout_s: float) -> HttpResponse:
        now_s = self._now_s
        self.polled[connection.name].append(now_s)
        process = self.universe.world.process
        lists = request.url.endswith("/list")
        if process is not None and process.name == POLLER and not lists:
            self.asked[request.url.rsplit("/", 1)[-1]].append(now_s)
        self.witness.poll_begins(process, connection.name, apart=lambda: self._is_asked_apart(request))
        good, hinted = False, False
        try:
            answer = self._answered(connection, request, timeout_s)
            good, hinted = answer.status in {200, 404}, answer.status == 429
            return answer
        finally:
            self.witness.poll_ends(process, connection.name, now_s, good=good, hinted=hinted, lists=lists)

    def _is_asked_apart(self, request: HttpRequest) -> bool:
        """Whether the task that a poll is of is written down as one that may end its process."""
        provider_id = request.url.rsplit("/", 1)[-1]
        return any(task.apart for task in self.universe.all_tasks() if task.provider_task_id == provider_id)

    def _answered(self, connection: Connection, request: HttpRequest, timeout_s: float) -> HttpResponse:
        now_s = self._now_s
        for begin_s, end_s, kind in self._trouble[connection.name]:
            if begin_s <= now_s < end_s:
                answer = self._troubled(kind, timeout_s)
                if answer is not None:
                    return answer
        if request.url.endswith("/list"):
            return self._list_of(connection)
        return self._scripted_fetch(connection, request, timeout_s)

    def _list_of(self, connection: Connection) -> HttpResponse:
        """What a connection's provider lists: the tasks that it knows, but now and then not one of them."""
        self.listed += 1
        told = {}
        for name in [name for name, life in self.lives.items() if life.connection == connection.name]:
            said = [one for one in self.universe.provider.scripts[name] if one.from_s <= self._now_s][-1]
            if isinstance(said.answer, dict):
                told[name] = said.answer
        if self.listing.random() < 0.1 and told:
            told.pop(self.listing.choice(sorted(told)))
        self.universe.world.sleep(0.2)
        body = {"code": 20000, "msg": "ok", "data": [{"id": name, **answer} for name, answer in told.items()]}
        return HttpResponse(200, {}, json.dumps(body).encode())

    def _troubled(self, kind: str, timeout_s: float) -> HttpResponse | None:
        sleep = self.universe.world.sleep
        match kind:
            case "dead":
                sleep(timeout_s)
                raise ProviderUnavailable("timeout")
            case "429":
                sleep(0.1)
                return HttpResponse(429, {"Retry-After": "20"}, b"")
            case "nonsense":
                sleep(0.1)
                return HttpResponse(200, {}, b"<html>")
            case "flaky" if self.rng.random() < 0.5:
                sleep(0.1)
                return HttpResponse(502, {}, b"")
            case "500" | "401":
                sleep(0.1)
                return HttpResponse(int(kind), {}, b"{}")
        return None

    def _verified(self, post: Callable[..., Answer]) -> Callable[..., Answer]:
        """Receivers that verify every signature, and then answer by their own nature."""

        def answer(url: str, headers: Mapping[str, str], body: bytes, timeout_s: float = 15.0) -> Answer:
            delay_s, said = self._behave[url](self._now_s)
            self.universe.world.sleep(max(0.0, delay_s - self.universe.receivers.latency_s))
            post(url, headers, body, timeout_s)
            return replace(said, duration_ms=round(delay_s * 1000))

        return answer

    # -- what must hold -----------------------------------------------------------------------------------------------

    def _assert_true(self, task: Task) -> None:
        """Asserts that a task ended as its provider and its owner wanted."""
        life = self.lives[task.provider_task_id]
        about = f"{task.task_id} ended as {task.status} ({task.error}) though {life}"
        match task.status:
            case Status.COMPLETED:
                assert "video" in life.outcome or life.outcome == "unknown at first", about
            case Status.CANCELLED:
                assert life.cancelled or life.outcome == "cancelled", about
            case Status.EXPIRED:
                over_s = (task.history[-1].at - task.expires_at).total_seconds()
                assert 0 <= over_s <= (EXPIRES_WITHIN_S if self.weather is CALM else STORM_S + EXPIRES_WITHIN_S), about
                if life.connection in self.healthy and life.outcome not in {"never", "unknown", "no file"}:
                    looked_s = (
                        self._most_s(life.connection)
                        + (CALM_GAP_S if self.weather is CALM else STORMY_GAP_S)
                        + DOUBTED_S
                    )
                    expires_s = (task.expires_at - START).total_seconds()
                    assert expires_s <= life.ends_s + looked_s, about
            case Status.FAILED:
                assert task.error is not None
                if task.error.code is ErrorCode.PROVIDER_TASK_LOST:
                    polls = self.asked[task.provider_task_id]
                    assert len(polls) >= 3, about
                    assert polls[-1] - polls[0] >= 118, about  # two minutes, by clocks up to a second apart
                expected = {
                    ErrorCode.PROVIDER_FAILED: life.outcome == "failed",
                    ErrorCode.PROVIDER_TASK_LOST: life.outcome in {"unknown"},
                    ErrorCode.NO_VIDEO: life.outcome == "no file",
                    ErrorCode.COPY_FAILED: life.dead_source,
                }
                assert expected.get(task.error.code, False), about

    def _assert_within_rate(self, name: str) -> None:
        """Asserts that a connection's rate held over any minute, but for what a hand-over may add."""
        rate = self.universe.connections[name].max_polls_per_s
        times = self.polled[name]
        if rate is None:
            return
        if not self.resettled_s:
            # Whoever takes over goes on with the pauses of the one before, unless that one died or lost its word.
            faultless = self.weather in {CALM, LAGGING}
            over = tightest(self.witness.polls[name], rate, self.witness.takings, 0.0 if faultless else 1 + rate)
            # One that stood still as it began to ask does so when it goes on, and begins the next in time.
            most_over = self.universe.settings.workers + bool(self.weather.pauses)
            assert over <= most_over, f"{name}: {over:.1f} polls more than {rate} a second allow, for all workers"
        most = rate * RATE_WINDOW_S + self.allowance(rate)
        for index, begin_s in enumerate(times):
            if any(at_s - RATE_WINDOW_S < begin_s < at_s + HAND_OVER_S for at_s in self.resettled_s):
                continue
            within = sum(1 for at_s in times[index:] if at_s < begin_s + RATE_WINDOW_S)
            assert within <= most, f"{name}: {within} polls within a minute of {begin_s:.1f} s, allowed are {most}"

    def _assert_nothing_in_vain(self) -> None:
        """Asserts that without faults nobody is told twice, or asked twice for one moment."""
        told = Counter((one.url, one.message_id) for one in self.universe.receivers.received)
        once = self.good_urls | self.gone_urls | self.refused_urls
        twice = [key for key, times in told.items() if times > 1 and key[0] in once]
        assert not twice, f"told more than once: {twice}"
        for task in self.universe.all_tasks():
            if task.connection in self.healthy and not self._is_doubted(task):
                least_s, most_s = self._least_s(task.connection), self._most_s(task.connection)
                # Whoever takes over asks young tasks again, since the index may not have shown them to the one before.
                young_until_s = (task.created_at - START).total_seconds() + most_s + YOUNG_S
                expires_s = (task.expires_at - START).total_seconds()  # it is asked then whatever its moments
                later = [poll for poll in self.asked[task.provider_task_id] if young_until_s < poll < expires_s]
                assert all(after - before >= least_s - LATE_S for before, after in pairwise(later)), task.task_id

    def _assert_lengths_learned(self) -> None:
        """Asserts that without faults every length is learned that polls in time have shown, and no task's twice.

        What is heard while a lease is handed over may be lost: the sketch has been written by then.
        """
        adapting = {name for name, of in self.universe.connections.items() if poll_schedule_for(of).adapts}
        in_time = {name for name in adapting - self.limited if not self._trouble[name]}
        shown = 0
        for task in (task for task in self.universe.all_tasks() if task.connection in in_time):
            life, polls = self.lives[task.provider_task_id], self.asked[task.provider_task_id]
            by_itself = task.status is not Status.EXPIRED and not life.cancelled and not self._is_doubted(task)
            # The first moment, of which nothing follows, may be asked for again until then.
            since_s = (task.created_at - START).total_seconds() + self._most_s(task.connection) + YOUNG_S
            handed_over = any(abs(at_s - polls[-1]) < HANDED_OVER_S for at_s in self.witness.takings) if polls else True
            shown += by_itself and not handed_over and polls[-1] > since_s
        most = sum(1 for life in self.lives.values() if life.connection in adapting)
        learned = self.witness.lengths_learned
        assert shown <= learned <= most, f"{learned} lengths were learned of {shown} to {most}"

    def _is_doubted(self, task: Task) -> bool:
        return self.lives[task.provider_task_id].outcome in {"unknown", "unknown at first", "no file"}

    def _assert_within_bounds(self, task: Task) -> None:
        """Asserts that reads and writes follow from what happened to a task, and not from how often it was polled."""
        client, pk = self.universe.client, f"TASK#{task.task_id}"
        attempts = len(self.universe.store_of_tests.attempts(task.task_id))
        most = (CALLS_A_TASK, CALLS_AN_ATTEMPT) if self.weather is CALM else (2 * CALLS_A_TASK, 2 * CALLS_AN_ATTEMPT)
        for kind, made in (("reads", client.reads[pk]), ("writes", client.writes[pk])):
            allowed = most[0] + most[1] * attempts
            if any(kind == "flaky" for _, _, kind in self._trouble[task.connection]):
                allowed += len(self.asked[task.provider_task_id])  # each error of another kind is written
            assert made <= allowed, f"{pk}: {made} {kind} with {attempts} attempts, allowed are {allowed}"

    def _assert_not_asked_too_often(self, task: Task) -> None:
        """Asserts that a task is asked once for each of its moments, and once more by whoever takes over."""
        polls = self.asked[task.provider_task_id]
        if not polls:
            return
        taken = sum(1 for at_s in self.witness.takings if polls[0] - 1 < at_s < polls[-1] + 1)
        # One with the settings before polls beside one with those of now.
        both_s = sum(max(0.0, min(polls[-1], at_s + HAND_OVER_S) - max(polls[0], at_s)) for at_s in self.resettled_s)
        most = (polls[-1] - polls[0] + both_s) / self._least_s(task.connection) + 1 + taken + EXTRA_POLLS
        assert len(polls) <= most, f"{task.task_id} was asked {len(polls)} times, allowed are {most:.1f}"

    def _assert_asked_in_time(self, task: Task) -> None:
        """Asserts that nothing was left unasked for longer than its connection's most, but for what weather excuses."""
        if task.connection not in self.healthy or self._is_doubted(task):
            return
        excused_s = CALM_GAP_S if self.weather in {CALM, LAGGING} else STORMY_GAP_S
        for before, gap_s in self._gaps(task):
            allowed_s = SETTLED_GAP_S if before >= STORM_S + SETTLED_S else excused_s
            assert gap_s <= allowed_s, f"{task.task_id} was left unasked from {before:.1f} s on, {gap_s:.1f} s too long"

    def _gaps(self, task: Task) -> list[tuple[float, float]]:
        """When a task was asked, and how much longer than at most it was not asked then, until polling ended."""
        most_s = self._most_s(task.connection)
        return [(before, after - before - most_s) for before, after in pairwise(self._seen(task))]

    def _seen(self, task: Task) -> list[float]:
        """When a task was asked, and when nobody had to ask any more."""
        ended_at = next(line.at for line in task.history if line.target not in WITH_PROVIDER)
        return [*self.asked[task.provider_task_id], (ended_at - START).total_seconds()]

    def _least_s(self, name: str) -> float:
        schedule = poll_schedule_for(self.universe.connections[name])
        return schedule.least_s or schedule.interval_s

    def _most_s(self, name: str) -> float:
        schedule = poll_schedule_for(self.universe.connections[name])
        return schedule.most_s or schedule.interval_s

    @staticmethod
    def allowance(rate: float) -> float:
        """How many polls more a minute may see: a second's worth and one for each worker and hand-over."""
        return rate * 5 + 12

    def _first_attempts(self, task: Task) -> list[float]:
        """How long after a task's end each receiver that is always well got its first word of it."""
        ended_s = (task.history[-1].at - START).total_seconds()
        first: dict[str, float] = {}
        for one in self.universe.messages(task.task_id):
            if one.data["type"] == EVENT_OF_STATUS[task.status] and one.url in self.good_urls:
                first.setdefault(one.url, one.at_s)
        return [at_s - ended_s for at_s in first.values()]

    def _measured(self) -> Figures:
        world, figures = self.universe, Figures()
        for task in world.all_tasks():
            figures.counts[task.status] += 1
            if task.connection in self.healthy and not self._is_doubted(task):
                adapts = poll_schedule_for(world.connections[task.connection]).adapts
                figures.first_polls.append((self._seen(task)[0]) - (task.created_at - START).total_seconds())
                for before, gap_s in self._gaps(task):
                    if before < STORM_S:
                        (figures.adaptive_gaps if adapts else figures.gaps).append(gap_s)
                    elif before >= STORM_S + SETTLED_S:
                        figures.late_gaps.append(gap_s)
            figures.first_attempts += self._first_attempts(task)
            pk = f"TASK#{task.task_id}"
            figures.reads.append(world.client.reads[pk])
            figures.writes.append(world.client.writes[pk])
        figures.counts["polls"] += sum(map(len, world.provider.polls.values()))
        figures.counts["lists"] += self.listed
        figures.counts["lengths learned"] += self.witness.lengths_learned
        figures.counts["calls"] += len(world.boundaries.calls)
        figures.counts["webhooks"] += len(world.receivers.received)
        begun = [one for one in world.started if one.began_s is not None and one.began_s < STORM_S]
        figures.counts["invocations in the storm"] += len(begun)
        figures.counts["of them died"] += sum(1 for one in begun if not one.alive)
        figures.counts["worlds"] += 1
        return figures


CALLS_A_TASK = 48  # ten tries of a copy, or a slow one whose claim is renewed for minutes
CALLS_AN_ATTEMPT = 4
CALM_GAP_S = 6.0  # beyond the interval
STORMY_GAP_S = STORM_S + 60.0  # as long as anything may happen, and until the next tick
SETTLED_GAP_S = 15.0  # after it: others' slow answers where threads are few
EXPIRES_WITHIN_S = 130.0  # a minute for a last answer, the answer itself, and the tick that comes within another
YOUNG_S = 20.0
EXTRA_POLLS = 9  # three that doubt a task, and those of the last minute, in which an answer is wanted
LATE_S = 10.0  # how late a poll may have been where threads are few; the next one is on time again
DOUBTED_S = 120.0  # what an unknown task, or one without a file, is asked again within
WITH_PROVIDER = {Status.QUEUED, Status.PROCESSING}
SETTLED_S = 240.0  # after the storm: late invocations have come, and those with other settings have gone
RATE_WINDOW_S = 60.0
HANDED_OVER_S = 2.0
HAND_OVER_S = 180.0  # an invocation with the settings before goes on that long


# The least and the most between polls of connections without an interval of their own; none: the provider's.
BOUNDS: Sequence[tuple[float | None, float | None]] = [
    (5, 40),
    (2, 20),
    (None, None),
    (20, 160),
    (60, 300),
    (None, 300),
]


STAGES = 10  # of which a provider tells, until it is done

LISTING = {  # a provider that speaks as Jimmy does, and lists its tasks
    "request": {"path": "/videos/{task_id}"},
    "state": "data.status",
    "states": {
        "processing": ["processing"],
        "succeeded": ["completed"],
        "failed": ["failed"],
        "cancelled": ["cancelled"],
    },
    "ok": "code == `20000`",
    "progress": "data.progress",
    "videos": "data.result.video_url",
    "error": "data.error_message",
    "list": {"request": {"path": "/list"}, "items": "data", "task_id": "id", "put_in": "data"},
}


def _mend(file: FakeFile) -> None:
    file.breaks_after = None


def _script(life: Life, name: str) -> list[Said]:
    """What a provider says of a task, in Jimmy's words."""
    took_s = life.ends_s - life.asked_at_s
    running = [
        Said(life.asked_at_s * (part > 0) + took_s * part / STAGES, {"status": "processing", "progress": 10 + 9 * part})
        for part in range(STAGES)
    ]
    unknown = Said(0, 404)
    match life.outcome:
        case "video":
            end: dict[str, object] | int = {"status": "completed", "result": {"video_url": f"{name}-1.mp4"}}
        case "two videos":
            end = {"status": "completed", "result": {"video_url": [f"{name}-1.mp4", f"{name}-2.mp4"]}}
        case "failed":
            end = {"status": "failed", "error_message": "no GPU"}
        case "cancelled":
            end = {"status": "cancelled"}
        case "no file":
            end = {"status": "completed", "result": {}}
        case "unknown":
            return [unknown]
        case "unknown at first":
            end = {"status": "completed", "result": {"video_url": f"{name}-1.mp4"}}
            return [unknown, Said(life.asked_at_s + 50, end)]
        case _:
            return running
    return [*running, Said(life.ends_s, end)]
