"""The poller's and the notifier's handlers: each sample event does what its name says."""

from __future__ import annotations

import gc
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from renderbell.errors import RenderbellError
from renderbell.start import starting
from tests.environment import ENVIRONMENT
from tests.fakes import FakeContext

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Loads a function's module as Lambda does, with its environment."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    def load(function: str) -> ModuleType:
        path = ROOT / "functions" / function / "app.py"
        spec = importlib.util.spec_from_file_location(f"{function}_app", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    gc.unfreeze()  # a function's process never ends, and this one goes on


class Context(FakeContext):
    """A context with time left."""

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        return 180_000


def event(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "events" / f"{name}.json").read_text())
    return loaded


@dataclass
class FakePoller:
    ticks: list[tuple[int, str | tuple[str, str] | None]] = field(default_factory=list)

    def poll_due_tasks(self, worker: int, *, woken_for: str | tuple[str, str] | None, time_limit_s: float) -> None:
        assert time_limit_s > 0
        self.ticks.append((worker, woken_for))


@dataclass
class FakePollerParts:
    poller: FakePoller = field(default_factory=FakePoller)
    workers: int = 3
    reserve_s: float = 10.0
    started: list[str] = field(default_factory=list)
    flushed: int = 0

    @property
    def counts(self) -> FakePollerParts:
        return self

    def flush(self) -> None:
        self.flushed += 1

    def start_others(self, function_name: str) -> None:
        self.started.append(function_name)


@pytest.fixture
def poller(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> tuple[Callable[[Mapping[str, Any]], None], FakePollerParts]:
    module = load("poller")
    assert module.parts.workers == 3, "wired from the environment"
    parts = FakePollerParts()
    monkeypatch.setattr(module, "parts", parts)
    return lambda one: module.handler(one, Context()), parts


def test_the_schedule_starts_worker_0_and_the_others(
    poller: tuple[Callable[[Mapping[str, Any]], None], FakePollerParts],
) -> None:
    handle, parts = poller
    handle(event("poller-schedule"))
    assert parts.poller.ticks == [(0, None)]
    assert parts.started == [Context().function_name]
    assert parts.flushed == 1


def test_a_worker_starts_no_other(poller: tuple[Callable[[Mapping[str, Any]], None], FakePollerParts]) -> None:
    handle, parts = poller
    handle(event("poller-worker"))
    assert parts.poller.ticks == [(event("poller-worker")["worker"], None)]
    assert parts.started == []


def test_a_wake_up_names_its_task(poller: tuple[Callable[[Mapping[str, Any]], None], FakePollerParts]) -> None:
    handle, parts = poller
    told = event("poller-wakeup")
    handle(told)
    assert parts.poller.ticks == [(told["worker"], told["task_id"])]
    assert parts.started == []


def test_a_wake_up_may_name_a_delivery(poller: tuple[Callable[[Mapping[str, Any]], None], FakePollerParts]) -> None:
    handle, parts = poller
    told = event("poller-delivery")
    handle(told)
    assert parts.poller.ticks == [(told["worker"], (told["delivery"]["pk"], told["delivery"]["sk"]))]
    assert parts.started == []


@pytest.mark.parametrize(
    "odd",
    [
        *({"worker": 3}, {"worker": -1}, {"worker": "0"}, {"worker": 0, "task_id": 7}),
        *({"worker": 0, "delivery": {"pk": "a"}}, {"worker": 0, "delivery": "a"}),
    ],
)
def test_an_odd_event_is_refused(
    poller: tuple[Callable[[Mapping[str, Any]], None], FakePollerParts], odd: dict[str, Any]
) -> None:
    handle, parts = poller
    with pytest.raises(RenderbellError):
        handle(odd)
    assert parts.poller.ticks == []


@dataclass
class FakeNotifierParts:
    handled: list[Mapping[str, Any]] = field(default_factory=list)
    flushed: int = 0

    @property
    def notifier(self) -> FakeNotifierParts:
        return self

    @property
    def counts(self) -> FakeNotifierParts:
        return self

    def flush(self) -> None:
        self.flushed += 1

    def handle(self, told: Mapping[str, Any], seconds_left: Callable[[], float]) -> None:
        assert seconds_left() > 0
        self.handled.append(told)


@pytest.mark.parametrize("name", ["notifier-task", "notifier-delivery", "notifier-deliveries"])
def test_the_notifier_hands_its_event_on(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module = load("notifier")
    assert module.parts.notifier.count is not None, "wired from the environment"
    parts = FakeNotifierParts()
    monkeypatch.setattr(module, "parts", parts)
    module.handler(event(name), Context())
    assert parts.handled == [event(name)]
    assert parts.flushed == 1


@pytest.mark.parametrize("function", ["poller", "notifier"])
def test_a_missing_setting_is_named_at_the_cold_start(
    load: Callable[[str], ModuleType], function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load(function)
    monkeypatch.delenv("TABLE_NAME")
    with pytest.raises(RenderbellError, match="TABLE_NAME"):
        getattr(module.bootstrap, function)()


@pytest.mark.parametrize("function", ["api", "authorizer", "notifier", "poller"])
def test_a_start_leaves_what_it_has_made_to_stay_and_garbage_is_collected_again(
    load: Callable[[str], ModuleType], function: str
) -> None:
    before = gc.get_freeze_count()
    load(function)
    assert gc.get_freeze_count() > before
    assert gc.isenabled()


def test_garbage_is_collected_again_after_a_start_that_failed() -> None:
    def fail() -> None:
        with starting():
            assert not gc.isenabled()
            raise RenderbellError("no settings")

    with pytest.raises(RenderbellError):
        fail()
    gc.unfreeze()
    assert gc.isenabled()
