"""Scenarios of a task's life, and a harness that strikes each of them once at every call that leaves a process."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial

from renderbell.delivery import BUS_URL, Answer
from renderbell.poll import CAREFUL_AFTER
from renderbell.store import Lease, Served
from renderbell.task import Status
from tests.deployment import Said, failed, made_two_videos, processing, succeeded
from tests.fake_source import FakeFile, video_bytes
from tests.simulation.ends import assert_all_ended_well
from tests.universe import PART_BYTES, Call, Plan, Trouble, Universe, no_trouble, troubles_of
from tests.virtual import START

MakeWorld = Callable[[Plan], Universe]

HOOK = "https://example.com/hook"
OTHER = "https://other.example.com/hook"
SMALL, LARGE = 700, int(3.5 * PART_BYTES)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens in a world, and how its tasks end: usually the first way, and perhaps another after a blow.

    `dead` URLs never answer well; `in_parts` is the size of the file that is sent in parts.
    """

    build: Callable[[Universe], None]
    ends: tuple[Status, ...] = (Status.COMPLETED,)
    dead: frozenset[str] = frozenset()
    in_parts: int = 0


def video(world: Universe, size: int, *, name: str = "video", chunk_s: float = 0.2) -> None:
    """Puts a video where the scripted providers say it is."""
    file = FakeFile(video_bytes(size, seed=size), chunk=500, on_chunk=lambda offset: world.world.sleep(chunk_s))
    for query in ("", "?signature=s", "?signature=fresh"):
        world.sources.files[f"https://cdn.example.com/{name}.mp4{query}"] = file


def small_video(world: Universe) -> None:
    video(world, SMALL)
    world.register(processing(), succeeded(12), webhooks=[HOOK])


def multipart_video(world: Universe) -> None:
    video(world, LARGE)
    world.register(processing(), succeeded(12), webhooks=[HOOK])


def two_videos(world: Universe) -> None:
    video(world, SMALL, name="1")
    video(world, LARGE, name="2")
    world.connect("own", type="moneyprinterturbo")
    world.register(made_two_videos(), connection="own", webhooks=[HOOK])


def provider_failure(world: Universe) -> None:
    world.register(processing(), failed(12), webhooks=[HOOK])


def progress_over_hand_overs(world: Universe) -> None:
    stages = [processing(20.0 * stage, 10 * stage) for stage in range(8)]
    world.register(*stages, failed(160), webhooks=[HOOK])


def expiry(world: Universe) -> None:
    world.register(processing(), webhooks=[HOOK], deadline_s=60)


def cancel_during_copy(world: Universe) -> None:
    video(world, LARGE)
    world.register(succeeded(), webhooks=[HOOK])
    world.once_copying(lambda task_id: world.cancel(task_id, at_s=world.now_s + 1.2))


def forced_delete_during_copy(world: Universe) -> None:
    video(world, LARGE)
    world.register(succeeded(), webhooks=[HOOK])
    world.once_copying(lambda task_id: world.delete(task_id, at_s=world.now_s + 1.2))


def endpoint_that_fails_twice(world: Universe) -> None:
    video(world, SMALL)
    world.receivers.answers[HOOK] = [Answer(500), Answer(None, error="timeout", duration_ms=15_000), Answer(200)]
    world.register(succeeded(), webhooks=[HOOK])


def one_endpoint_is_dead(world: Universe) -> None:
    video(world, SMALL)
    world.receivers.answers[OTHER] = [Answer(503)]
    world.register(succeeded(), webhooks=[HOOK, OTHER])


def processing_is_not_heard(world: Universe) -> None:
    video(world, SMALL)
    world.receivers.answers[HOOK] = [Answer(500)] * 3 + [Answer(200)]
    script = [Said(0, {"status": "queued"}), processing(9), processing(19, 40), succeeded(40)]
    world.register(*script, webhooks=[HOOK], events=["task.processing", "task.completed"])


def provider_calls_back(world: Universe) -> None:
    """Long before the next poll, and once more while the video is copied."""
    video(world, SMALL)
    world.connect("slow", poll_interval_s=300)
    task_id = world.register(processing(), succeeded(12), connection="slow", webhooks=[HOOK])
    for at_s in (13, 14, 15.5):
        world.call_back(task_id, at_s=at_s)


def bus_hears_of_all(world: Universe) -> None:
    """At the third time."""
    video(world, SMALL)
    world.tells_bus = True
    world.receivers.answers[BUS_URL] = [Answer(None, error="bus_throttled")] * 2 + [Answer(200)]
    world.register(processing(), succeeded(12), webhooks=[HOOK])


def owners_endpoints(world: Universe) -> None:
    """A task without webhooks of its own; one of the endpoints fails twice, the other is tested meanwhile."""
    video(world, SMALL)
    world.receivers.answers[OTHER] = [Answer(503), Answer(503), Answer(204)]
    sound = world.manage(HOOK, events=["task.processing", "task.completed"], headers={"X-Team": "orders"})
    world.manage(OTHER)
    world.register(processing(), succeeded(12))
    world.test_endpoint(sound, at_s=30)


def pollers_have_died(world: Universe) -> None:
    """One of two tasks is suspected of it."""
    suspect, _ = [world.register(processing(), failed(45), webhooks=[HOOK]) for _ in range(2)]
    died = Lease(0, "dead", START, relief=False, served=Served(), workers=1, slots=1, deaths=CAREFUL_AFTER)
    world.store_of_tests.take_lease(died._replace(suspects={suspect: 1}), seen=None)


SCENARIOS = {
    "a small video": Scenario(small_video),
    "a multipart video": Scenario(multipart_video, in_parts=LARGE),
    "two videos": Scenario(two_videos, in_parts=LARGE),
    "the provider fails": Scenario(provider_failure, (Status.FAILED,)),
    "progress over hand-overs": Scenario(progress_over_hand_overs, (Status.FAILED,)),
    "expiry": Scenario(expiry, (Status.EXPIRED,)),
    "cancelled during copy": Scenario(cancel_during_copy, (Status.CANCELLED, Status.COMPLETED), in_parts=LARGE),
    "forced delete during copy": Scenario(forced_delete_during_copy, (), in_parts=LARGE),
    "an endpoint fails twice": Scenario(endpoint_that_fails_twice),
    "one of two endpoints is dead": Scenario(one_endpoint_is_dead, dead=frozenset({OTHER})),
    "processing is not heard": Scenario(processing_is_not_heard),
    "a provider calls back": Scenario(provider_calls_back),
    "the bus hears of all": Scenario(bus_hears_of_all),
    "an owner's endpoints": Scenario(owners_endpoints),
    "pollers have died": Scenario(pollers_have_died, (Status.FAILED,)),
}


def run(scenario: Scenario, make: MakeWorld, plan: Plan = no_trouble) -> Universe:
    """Runs a scenario until nothing is due any more, and asserts what must hold then."""
    world = make(plan)
    scenario.build(world)
    world.tick_while_due()
    world.run_to_the_end()
    assert_all_ended_well(world, dead=scenario.dead)
    ends = {task.status for task in world.all_tasks()}
    assert ends <= set(scenario.ends if plan is not no_trouble else scenario.ends[:1])
    assert bool(ends) == bool(scenario.ends), "nothing is left of what was deleted, and of all else something is"
    sent, tasks = (
        world.part_bytes_sent(),
        max(1, world.tasks_registered()),
    )  # a caller without an answer may register twice
    again = PART_BYTES * max(1, world.boundaries.struck)
    assert sent <= tasks * scenario.in_parts + again, f"{sent} bytes were sent in parts"
    return world


def strike_every_call(name: str, make: MakeWorld, troubles: Callable[[str], Iterable[Trouble]] = troubles_of) -> str:
    """Runs a scenario for each of its calls and each kind of trouble; says how many runs there were.

    Fresh invocations carry on from what is persisted when one has died.
    """
    scenario = SCENARIOS[name]
    calls = run(scenario, make).boundaries.calls
    runs = 0
    for call in calls:
        for trouble in troubles(call.service):
            runs += 1
            try:
                run(scenario, make, partial(_strike, call.number, trouble))
            except BaseException as error:
                error.add_note(f"{name}: {trouble} at call {call.number}, {call.service} {call.operation}")
                raise
    kinds = ", ".join(f"{count} {service}" for service, count in Counter(call.service for call in calls).items())
    return f"{name}: {len(calls)} crash points ({kinds}), {runs} runs"


def _strike(number: int, trouble: Trouble, call: Call) -> Trouble | None:
    return trouble if call.number == number else None


def strike_twice(name: str, make: MakeWorld, runs: int) -> None:
    """Runs a scenario with two blows at random calls, the second perhaps while it recovers from the first."""
    scenario, draws = SCENARIOS[name], random.Random(name)
    calls = len(run(scenario, make).boundaries.calls)
    for _ in range(runs):
        numbers = sorted(draws.sample(range(1, calls + calls // 2), 2))
        seed = draws.random()
        try:
            run(scenario, make, partial(_strike_at, numbers, random.Random(seed)))
        except BaseException as error:
            error.add_note(f"{name}: blows at the calls {numbers}, drawn with {seed}")
            raise


def _strike_at(numbers: Collection[int], draws: random.Random, call: Call) -> Trouble | None:
    return draws.choice(list(troubles_of(call.service))) if call.number in numbers else None
