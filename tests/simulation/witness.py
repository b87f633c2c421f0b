"""Watches a world from outside, and says which promises are broken: who polls when, and who is told what when.

It knows what was promised and not how it is kept: leases, back-offs and deliveries are judged by what is written of
them, and by what providers and receivers see.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

from renderbell.agenda import FAILURES_BEFORE_BACKOFF
from renderbell.delivery import DeliveryState
from renderbell.items import parse_time
from renderbell.lengths import WEIGHT
from renderbell.poll import NOTE_EVERY_S
from renderbell.schedule import CONNECTION_BACKOFF_S, DUE_TOLERANCE_S, WEBHOOK_RETRIES
from renderbell.store import HEALTH_ATTRIBUTES
from renderbell.webhooks import message_id
from tests.deployment import POLLER
from tests.dynamodb import Item
from tests.universe import CLOCKS_APART_S, Post, Universe
from tests.virtual import START, Process

AT_ONCE_S = 5.0  # how soon a receiver that is well hears of an event, in calm weather
LEFT_S = 65.0  # the same where a copy has ended so late in its invocation that it leaves the event to the poller
WELL_S = 4.9  # what a receiver that is well takes at most for an answer
SHARE = 5  # deliveries that a failing endpoint gets from each worker
SHARE_S = 20.0
STILL_COMING_S = 30.0  # who was already sending when an endpoint began to fail
UNDER_WAY_S = 2.0  # whoever sends later knew that it fails, but for the one who found it out and tries again soon
RELIEVED_S = 10.0  # in which a holder goes whose successor waits
BEGUN_S = 0.1  # from a poll's start to its request: a process may read the connections first
STARTED_S = BEGUN_S + NOTE_EVERY_S + 0.25  # the same, where the lease must name the task first
RESUMED_S = 0.5  # in which a process that stood still does what it had begun
DECIDED_S = 0.5  # from a decision to its being written
JITTER = 0.2
ATTEMPT_S = 16.0  # the longest
ANSWERED_S = 1.0  # until what a poll has brought is known to its process


def seconds(when: datetime) -> float:
    """A time as seconds since the start of the world."""
    return (when - START).total_seconds()


def _time(item: Mapping[str, Any], name: str) -> float | None:
    return seconds(parse_time(item[name]["S"])) if name in item else None


@dataclass(slots=True)
class _BackOff:
    """What a connection's item says, who wrote it, and when."""

    steps: int
    failures: int
    retry_s: float
    written_s: float
    writer: Process | None


@dataclass(slots=True)
class _Lane:
    """What one poller has seen of one connection."""

    stepped_s: float | None = None  # when it wrote its present back-off
    steps: int = 0
    bad: int = 0  # answers in a row
    bad_since_s: float = 0.0  # when the last of these came
    bad_before: int = 0  # of them, those beside a good one, or before another ended a back-off begun beside it, unseen
    inherited: int = 0
    good_s: float = -1.0  # when the last good answer came
    bad_until_good: int = 0  # failures in a row before it, which counts only when what it brought has been written
    hinted: bool = False  # since the last good answer
    probe_failed: bool = False  # one that was sent after the last step
    probe_hinted: bool = False  # and it said for how long to wait
    good_after_step: bool = False
    flying: list[float] = field(default_factory=list)  # when each began
    known: bool = False


@dataclass(slots=True)
class _Holder:
    """What a poller last wrote of the lease that it took."""

    until_s: float
    taken_s: float  # the first time
    failures: Mapping[str, int]  # in a row, of connections, as they were kept then
    relief_s: float | None = None  # since when another waits for it


class Witness:
    """Sees every write, poll and webhook of a world."""

    def __init__(self, universe: Universe, *, most_at_once: Mapping[str, int]) -> None:
        self._universe = universe
        self._most_at_once = most_at_once
        self.takings: list[float] = []  # when a lease passed to somebody
        self.polls: dict[str, list[float]] = defaultdict(list)  # by connection, those of pollers
        self.lengths_learned = 0  # of tasks, as far as they were written
        self._lengths_before: dict[tuple[str, str], int] = {}  # what the world began with
        self._holders: dict[Process, _Holder] = {}
        self._tokens: dict[str, Process] = {}
        self._back_offs: dict[str, _BackOff] = {}
        self._highest: dict[str, int] = defaultdict(int)  # the highest step that was ever written
        self._answered_s: dict[str, float] = defaultdict(lambda: -1.0)  # when a back-off has ended, by connection
        self._claims: dict[str, tuple[Process, float]] = {}  # who last said, and when, that he probes a connection
        self._lanes: dict[tuple[Process, str], _Lane] = defaultdict(_Lane)
        self._failing_s: dict[str, float] = {}  # since when, by endpoint
        self._failed: dict[str, list[tuple[float, float]]] = defaultdict(list)  # from when to when
        self._created_s: dict[tuple[str, str], float] = {}  # deliveries
        self._left: set[tuple[str, str]] = set()  # of them, those that are due at once, and not after a minute
        self._urls: dict[tuple[str, str], str] = {}
        self._attempts: dict[tuple[str, str], dict[str, tuple[float, Item]]] = defaultdict(dict)
        self._ended: dict[tuple[str, str], tuple[float, Item]] = {}
        universe.table.watchers.append(self._wrote)

    # -- what is written ----------------------------------------------------------------------------------------------

    @property
    def _now_s(self) -> float:
        return self._universe.now_s

    def _wrong(self, what: str) -> None:
        self._universe.note_wrong(what)

    def _wrote(self, key: tuple[str, str], old: Item | None, new: Item | None) -> None:
        pk, sk = key
        if sk.startswith("DELIVERY#"):
            self._delivery_written(key, old, new)
        elif sk.startswith("ATTEMPT#"):
            if new is not None:
                of = f"DELIVERY#{new['event']['S']}#{new['endpoint_id']['S']}"
                records = self._attempts[pk, of]
                # Two who find the same claim expired write the same record.
                records[sk] = records[sk][0] if sk in records else self._now_s, new
        elif sk == "LEASE":
            if new is not None:
                self._lease_written(pk, old, new)
        elif sk == "HEALTH":
            self._back_off_written(pk.removeprefix("CONNECTION#"), new)
        elif sk.startswith("HEALTH#"):
            self._endpoint_written(sk.removeprefix("HEALTH#"), new)
        elif sk.startswith("LENGTHS#"):
            self._lengths_written(key, old, new)

    def _lease_written(self, pk: str, old: Item | None, new: Item) -> None:
        process, now_s = self._universe.world.process, self._now_s
        if process is None:
            return
        token, until_s = new["holder"]["S"], _time(new, "until") or 0.0
        if old is None or old["holder"]["S"] != token:
            if old is not None and (_time(old, "until") or 0.0) > now_s + CLOCKS_APART_S:
                self._wrong(f"{pk} was taken from a holder whose time had not run out")
            if self._tokens.setdefault(token, process) is not process:
                self._wrong(f"{pk} was taken in another's name")
            self.takings.append(now_s)
            first = self._holders.get(process)  # one that takes it again goes on with what it knows
            failures = {name: one.failures for name, one in self._back_offs.items()}
            self._holders[process] = (
                replace(first, until_s=until_s, relief_s=None) if first else _Holder(until_s, now_s, failures)
            )
        elif until_s == _time(old, "until"):
            holder = self._holders.get(self._tokens[token])
            if "relief" in new and holder is not None:  # a wish that anybody may write
                holder.relief_s = holder.relief_s or now_s
        elif self._tokens.get(token) is not process:
            self._wrong(f"{pk} was renewed in another's name")
        else:
            self._holders[process].until_s = until_s

    def _endpoint_written(self, endpoint: str, new: Item | None) -> None:
        failing = new is not None and HEALTH_ATTRIBUTES[0] in new
        if failing:
            self._failing_s.setdefault(endpoint, self._now_s)
        elif endpoint in self._failing_s:
            self._failed[endpoint].append((self._failing_s.pop(endpoint), self._now_s))

    def _lengths_written(self, key: tuple[str, str], old: Item | None, new: Item | None) -> None:
        """One that goes by an older sketch may lose what has been learned since, and never what all have read."""
        after, before = _lengths_in(new), _lengths_in(old)
        if self._universe.world.process is None:
            self._lengths_before[key] = after
            return
        self.lengths_learned += max(0, after - before)
        if after <= self._lengths_before.get(key, 0):
            self._wrong(f"{key} was written with {after} lengths, and had {before}")

    # -- back-off -----------------------------------------------------------------------------------------------------

    def _back_off_written(self, name: str, new: Item | None) -> None:
        process, now_s = self._universe.world.process, self._now_s
        if process is None:
            return
        lane = self._lanes[process, name]
        if new is None or not int(new["steps"]["N"]):
            lane.stepped_s, lane.steps = None, 0
            if self._back_offs.pop(name, None) is not None:
                self._answered_s[name] = now_s
                for other in (one for (_, of), one in self._lanes.items() if of == name):
                    if other.stepped_s is None and other.bad + other.inherited >= FAILURES_BEFORE_BACKOFF:
                        other.bad_before = other.bad
            if new is not None:
                self._back_offs[name] = _BackOff(0, int(new["failures"]["N"]), 0.0, now_s, process)
            return
        if "probe" in new:
            self._claims[name] = process, now_s
            return
        steps, retry_s = int(new["steps"]["N"]), _time(new, "retry_at") or 0.0
        before = self._back_offs.get(name)
        highest = self._highest[name]
        self._highest[name] = max(highest, steps)
        self._back_offs[name] = _BackOff(steps, int(new["failures"]["N"]), retry_s, now_s, process)
        if process in self._universe.boundaries.harmed:
            pass  # what it could not write is missing here
        elif lane.stepped_s is not None and not lane.good_after_step:
            if steps not in {lane.steps + 1, (before.steps if before is not None else 0) + 1}:
                self._wrong(f"the back-off of {name} went from step {lane.steps} to {steps}")
            if not lane.probe_failed:
                self._wrong(f"the back-off of {name} went on to step {steps} though no probe had failed since the last")
        elif steps > highest + 1:
            self._wrong(f"the back-off of {name} began with step {steps}")
        elif steps == 1 and not lane.hinted:
            unsettled = lane.bad_until_good if lane.good_s >= now_s - ANSWERED_S else 0
            failures = lane.bad + lane.inherited + unsettled
            if failures < FAILURES_BEFORE_BACKOFF:
                self._wrong(f"{name} was left alone after {failures} failures in a row")
        usual_s = CONNECTION_BACKOFF_S[min(steps, len(CONNECTION_BACKOFF_S)) - 1]
        delay_s = retry_s - now_s - process.skew.total_seconds()
        least_s, most_s = usual_s * (1 - JITTER), usual_s * (1 + JITTER)
        if lane.hinted:
            most_s = max(most_s, HINT_S)
        if lane.probe_hinted and steps > 1:
            least_s = max(least_s, HINT_S)
        if not self._has_just_resumed(process) and not least_s - DECIDED_S <= delay_s <= most_s + CLOCKS_APART_S:
            self._wrong(f"step {steps} of the back-off of {name} lasts {delay_s:.1f} s instead of about {usual_s} s")
        lane.stepped_s, lane.steps, lane.probe_failed, lane.good_after_step = now_s, steps, False, False

    def poll_begins(self, process: Process | None, name: str, *, apart: Callable[[], bool]) -> None:
        """A poll leaves a process; `apart` says whether it is of a task that is asked apart from the others."""
        if process is None or process.name != POLLER:
            return
        now_s = self._now_s
        own_s = now_s + process.skew.total_seconds()
        self.polls[name].append(now_s)
        holder = self._holders.get(process)
        if holder is None:
            self._wrong(f"{name} was polled by somebody without a lease")
            return
        resumed = self._has_just_resumed(process)
        if own_s > holder.until_s + BEGUN_S and not resumed and not apart():
            self._wrong(f"{name} was polled {own_s - holder.until_s:.1f} s after the end of the poller's lease")
        waited_s = now_s - holder.relief_s if holder.relief_s is not None else 0.0
        if waited_s > RELIEVED_S and process.resumes_at is None and self._is_fit(process) and not apart():
            self._wrong(f"{name} was polled by one whose successor has waited for {waited_s:.1f} s")
        lane, item = self._lanes[process, name], self._back_offs.get(name)
        if not lane.known:
            lane.known = True
            lane.inherited = max(item.failures if item is not None else 0, holder.failures.get(name, 0))
        harmed = process in self._universe.boundaries.harmed
        if item is not None and item.steps and not resumed:
            mine = item.writer is process
            if (mine or (item.written_s < holder.taken_s and not harmed)) and own_s < item.retry_s - BEGUN_S:
                self._wrong(f"{name} was polled {item.retry_s - own_s:.1f} s before the end of its back-off")
            known = mine or item.written_s < holder.taken_s
            claim = self._claims.get(name)
            if known and not harmed and (claim is None or claim[0] is not process or claim[1] < item.written_s):
                self._wrong(f"{name} was sent a probe that nobody had claimed")
            if mine and not lane.good_after_step and any(began_s > item.written_s for began_s in lane.flying):
                self._wrong(f"{name} was sent a second probe while one was under way")
        asked_on = lane.bad - lane.bad_before >= FAILURES_BEFORE_BACKOFF and lane.bad_since_s < now_s - ANSWERED_S
        asked_on = asked_on and self._answered_s[name] < lane.bad_since_s  # elsewhere, which ends everybody's back-off
        holds = self._claims.get(name, (None, 0.0))[0] is process  # of a back-off that another has begun
        if asked_on and lane.stepped_s is None and not holds and not harmed and not resumed:
            self._wrong(f"{name} was asked on after {lane.bad} failures in a row")
        most = self._most_at_once.get(name)
        lane.flying.append(now_s)
        if most is not None and len(lane.flying) > most:
            self._wrong(f"{name} had {len(lane.flying)} polls of one poller at a time, allowed are {most}")

    def poll_ends(
        self, process: Process | None, name: str, began_s: float, *, good: bool, hinted: bool, lists: bool = False
    ) -> None:
        """A poll has an answer, which is good where the connection is well, whatever is said of the task.

        That of a list counts only if it is good: what fails then is asked singly.
        """
        if process is None or process.name != POLLER:
            return
        lane = self._lanes[process, name]
        if began_s in lane.flying:
            lane.flying.remove(began_s)
        after_step = lane.stepped_s is not None and began_s >= lane.stepped_s - DECIDED_S
        if good:
            settled = lane.good_s < self._now_s - ANSWERED_S
            lane.bad_until_good = lane.bad + lane.inherited + (0 if settled else lane.bad_until_good)
            lane.good_s = self._now_s
            lane.bad, lane.inherited, lane.hinted, lane.bad_before = 0, 0, False, 0
            lane.good_after_step = lane.good_after_step or after_step
        elif not lists:
            lane.bad, lane.bad_since_s = lane.bad + 1, self._now_s
            if lane.good_s >= self._now_s - ANSWERED_S:  # the good one may be known after this one, and end its row
                lane.bad_before = lane.bad
            lane.hinted = lane.hinted or hinted
            lane.probe_failed = lane.probe_failed or after_step
            lane.probe_hinted = after_step and hinted

    def _has_just_resumed(self, process: Process) -> bool:
        resumed = process.resumes_at
        return resumed is not None and (self._universe.world.now() - resumed).total_seconds() < RESUMED_S

    def assert_back_offs_ended(self) -> None:
        """Asserts that whoever had a good answer has ended the back-off that it knew of."""
        for name, item in self._back_offs.items():
            lane = self._lanes[item.writer, name] if item.steps and item.writer is not None else None
            if lane is None or item.writer is None or not lane.good_after_step:
                continue
            assert not self._is_fit(item.writer), f"{name} has answered well again, and its back-off still stands"

    # -- deliveries ---------------------------------------------------------------------------------------------------

    def _delivery_written(self, key: tuple[str, str], old: Item | None, new: Item | None) -> None:
        now_s = self._now_s
        if new is None:
            return
        if old is None:
            self._created_s[key] = now_s
            self._urls[key] = new["url"]["S"]
            if (_time(new, "due_at") or now_s) <= now_s:
                self._left.add(key)
            return
        if new["state"] != old["state"]:
            self._ended[key] = now_s, new
        if "token" in new and new["token"] != old.get("token"):
            failing_s = self._failing_s.get(new["endpoint_id"]["S"])
            early_s = (_time(old, "due_at") or 0.0) - now_s - DUE_TOLERANCE_S - CLOCKS_APART_S
            if failing_s is not None and failing_s < now_s - STILL_COMING_S and early_s > 0:
                self._wrong(f"{key} was sent to a failing endpoint {early_s:.1f} s before it was due")

    def _is_fit(self, process: Process | None) -> bool:
        """Whether nothing has happened to a process that could excuse it."""
        return process is not None and process.alive and process not in self._universe.boundaries.harmed

    def assert_deliveries_kept(self, *, calm: bool, errors: bool, skew_s: float) -> None:
        """Asserts what receivers were promised, of every delivery that there ever was."""
        posts: dict[tuple[str, str], list[Post]] = defaultdict(list)
        for post in self._universe.posts:
            posts[post.url, post.message_id].append(post)
        for key, url in self._urls.items():
            task_id = key[0].removeprefix("TASK#")
            event = key[1].split("#")[1]
            tries = posts.get((url, message_id(task_id, event)), [])
            about = f"{event} of {task_id} at {url}"
            self._assert_times(about, key, tries, skew_s)
            self._assert_not_again(about, key, tries)
            self._assert_recorded(about, key, tries, errors=errors)
        if calm:
            self._assert_heard_at_once(posts)
            self._assert_share()
        self._assert_endpoints_known()

    def _assert_times(self, about: str, key: tuple[str, str], tries: list[Post], skew_s: float) -> None:
        delays = WEBHOOK_RETRIES.delays_s
        records = [item for _, item in self._attempts.get(key, {}).values() if "status" in item]
        recorded_s = [_time(item, "at") or 0.0 for item in records]
        for number, (one, after) in enumerate(pairwise(tries)):
            ended_s = one.ended_s if one.ended_s is not None else one.began_s
            least_s = delays[min(number, len(delays) - 1)] * (1 - WEBHOOK_RETRIES.jitter)
            recorded = any(abs(at_s - one.began_s) <= CLOCKS_APART_S for at_s in recorded_s)
            if recorded and one.answer is not None and one.answer.status in {429, 503}:
                least_s = max(least_s, one.answer.retry_after_s or 0.0)
            early_s = ended_s + least_s - after.began_s - DUE_TOLERANCE_S - 2 * skew_s
            assert early_s <= 0, f"{about}: try {number + 2} came {early_s:.1f} s too early"

    def _assert_not_again(self, about: str, key: tuple[str, str], tries: list[Post]) -> None:
        records = self._attempts.get(key, {}).values()
        final = [at_s for at_s, item in records if _is_final(item)]
        if key in self._ended:
            final.append(self._ended[key][0])
        if final:
            after = [post for post in tries if post.began_s > min(final)]
            assert not after, f"{about} was sent again {after[0].began_s - min(final):.1f} s after its end was written"
        taken = [post for post in tries if post.answer is not None and post.answer.delivered]
        for post in taken[:-1]:
            assert not self._is_fit(post.process), f"{about} was sent again though its sender had a good answer"

    def _assert_recorded(self, about: str, key: tuple[str, str], tries: list[Post], *, errors: bool) -> None:
        if key not in self._ended:
            return  # it was deleted
        records = sorted(
            (item for _, item in self._attempts.get(key, {}).values()), key=lambda item: int(item["number"]["N"])
        )
        numbers = [int(item["number"]["N"]) for item in records]
        item = self._ended[key][1]
        count = int(item["tries"]["N"])
        if errors:
            numbers = sorted(set(numbers))
            assert not numbers or numbers[-1] <= count, f"{about} has attempts {numbers} after {count} tries"
        else:
            assert numbers == list(range(1, count + 1)), f"{about} has attempts {numbers} after {count} tries"
        assert len(tries) <= count, f"{about} was sent {len(tries)} times in {count} tries"
        times = [_time(record, "at") or 0.0 for record in records]
        assert times == sorted(times), f"{about} has attempts in no order"
        by_time = {round(post.began_s): post for post in tries}
        for record, at_s in zip(records, times, strict=True):
            next_s, number = _time(record, "next_at"), int(record["number"]["N"])
            if next_s is None:
                continue
            delay_s = WEBHOOK_RETRIES.delays_s[number - 1]
            post = next((by_time[n] for n in (round(at_s) + d for d in (0, 1, -1)) if n in by_time), None)
            hint_s = (post.answer.retry_after_s or 0.0) if post is not None and post.answer is not None else 0.0
            least_s = delay_s * (1 - WEBHOOK_RETRIES.jitter)
            most_s = max(delay_s * (1 + WEBHOOK_RETRIES.jitter), hint_s) + ATTEMPT_S
            assert least_s <= next_s - at_s <= most_s, f"{about}: {next_s - at_s:.0f} s after attempt {number}"
        if records and not errors and "status" in records[-1]:
            delivered = 200 <= int(records[-1]["status"]["N"]) < 300
            state = item["state"]["S"]
            assert delivered == (state == DeliveryState.DELIVERED), f"{about} is {state} after {records[-1]}"

    def _assert_heard_at_once(self, posts: Mapping[tuple[str, str], list[Post]]) -> None:
        """Asserts that a receiver that is well so far hears of an event soon."""
        unwell_s: dict[str, float] = {}
        for post in self._universe.posts:
            slow = post.ended_s is None or post.ended_s - post.began_s > WELL_S
            if slow or post.answer is None or not post.answer.delivered:
                unwell_s.setdefault(post.url, post.began_s)
        for key, url in self._urls.items():
            created_s, task_id = self._created_s[key], key[0].removeprefix("TASK#")
            tries = posts.get((url, message_id(task_id, key[1].split("#")[1])), [])
            late_s = tries[0].began_s - created_s if tries else math.inf
            most_s = LEFT_S if key in self._left else AT_ONCE_S
            is_well = unwell_s.get(url, math.inf) > created_s + most_s
            deleted = not tries and key not in self._ended
            assert late_s <= most_s or deleted or not is_well, f"{url} heard of {key} only after {late_s:.1f} s"

    def _assert_share(self) -> None:
        """Asserts that a failing endpoint gets no more than the pollers' share of its deliveries."""
        most = SHARE * self._universe.settings.workers + 1
        by_url: dict[str, list[float]] = defaultdict(list)
        for post in self._universe.posts:
            by_url[post.url].append(post.began_s)
        endpoints = {url: key[1].rsplit("#", 1)[-1] for key, url in self._urls.items()}
        for url, times in by_url.items():
            endpoint = endpoints[url]
            spans = [*self._failed[endpoint]]
            if endpoint in self._failing_s:
                spans.append((self._failing_s[endpoint], self._now_s))
            for since_s, until_s in spans:
                during = [at_s for at_s in times if since_s + UNDER_WAY_S < at_s < until_s]
                for first_s, last_s in zip(during, during[most:], strict=False):
                    within = f"{most + 1} webhooks within {last_s - first_s:.1f} s"
                    assert last_s - first_s >= SHARE_S - 1, f"{url} fails, and got {within}"

    def _assert_endpoints_known(self) -> None:
        """Asserts that what is kept of an endpoint's health is what its last answer said."""
        last: dict[str, Post] = {}
        crowded: set[str] = set()
        for post in self._universe.posts:  # in the order in which they began
            before = last.get(post.url)
            if before is not None and (before.ended_s is None or before.ended_s + DECIDED_S > post.began_s):
                crowded.add(post.url)
            else:
                crowded.discard(post.url)
            last[post.url] = post
        endpoints = {url: key[1].rsplit("#", 1)[-1] for key, url in self._urls.items()}
        for url, post in last.items():
            told = post.answer is not None and not post.answer.refused
            if url in crowded or not told or not post.heard or not self._is_fit(post.process) or url not in endpoints:
                continue
            assert post.answer is not None
            failing = endpoints[url] in self._failing_s
            assert failing != post.answer.delivered, f"{url} counts as {'failing' if failing else 'well'} after {post}"


HINT_S = 20.0  # the longest that a provider asks to be left alone


def _lengths_in(item: Item | None) -> int:
    """How many lengths a sketch holds."""
    weights = item["weights"]["M"].values() if item is not None else ()
    return sum(int(weight["N"]) for weight in weights) // WEIGHT


def _is_final(item: Item) -> bool:
    """Whether an attempt's record says that there is none after it."""
    return "next_at" not in item


def tightest(times: list[float], rate: float, takings: list[float], per_taking: float) -> float:
    """The most polls, of all windows, that a window had beyond what its rate allows; counts a second to catch up.

    Each time that somebody takes over a worker's lease adds `per_taking`.
    """
    worst, lowest, taken, at = 0.0, float("inf"), 0.0, 0
    for number, at_s in enumerate(times):
        while at < len(takings) and takings[at] <= at_s:
            taken, at = taken + per_taking, at + 1
        level = number - rate * at_s - taken
        lowest = min(lowest, level)
        worst = max(worst, level - lowest + 1 - rate * (1 + STARTED_S))
    return worst
