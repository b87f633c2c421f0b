"""The deployed stacks that the e2e tests share; each has an emulator of its own."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from local.house import running_house
from local.providers.server import Simulators
from local.stack import put_connection
from tests.e2e.client import Client
from tests.e2e.hostile import Hostile

POLL_INTERVAL_S = 1.0

CALLBACK_SECRET = "whsec_" + base64.b64encode(b"the secret of a provider's calls").decode()

# Further owners' connections to one of the simulated providers: of several together, and of one alone.
SHARED, PRIVATE, CONTRACT = "shared", "alphas-own", "contract"
OWNERS_CONNECTIONS: dict[str, tuple[str, dict[str, object]]] = {
    SHARED: ("jimmy", {"owners": ["alpha", "beta", "contract"], "poll_interval_s": 1}),
    PRIVATE: ("jimmy", {"owners": ["alpha"], "poll_interval_s": 1}),
    CONTRACT: (  # for made-up renders, which are seldom asked for, can be deleted there, and are called back about
        "moneyprinterturbo",
        {"owners": ["contract"], "poll_interval_s": 300, "callback_secret": CALLBACK_SECRET},
    ),
}

# What the teams that go along all routes use; of the slow ones nobody hears in time but by their providers' own calls.
TEAMS = ("batches", "deleting", "ends", "hooks", "lists", "repeating", "retrying")
STUDIO, CALLING, CALLING_SCENEXT = "studio", "calling", "calling-scenext"
CALLING_S = 300.0
OWNERS_CONNECTIONS |= {
    STUDIO: ("jimmy", {"owners": list(TEAMS), "poll_interval_s": 1}),
    CALLING: ("jimmy", {"owners": list(TEAMS), "poll_interval_s": CALLING_S, "callback_secret": CALLBACK_SECRET}),
    CALLING_SCENEXT: ("scenext", {"owners": list(TEAMS), "poll_interval_s": CALLING_S}),
}


def first_of_its_kind(stack: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Fails where another process of this run has deployed the same stack: `tests/conftest.py` should prevent it."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        (tmp_path_factory.getbasetemp().parent / stack).mkdir()


@pytest.fixture(scope="session")
def hostile() -> Iterator[Hostile]:
    """A provider and receiver that repeats the secrets it is sent."""
    with Hostile() as running:
        yield running


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory, hostile: Hostile, unwoken: Unwoken) -> Iterator[Client]:
    """A client of the real template, deployed to an emulator; what nobody wakes goes on beside it."""
    first_of_its_kind("stack", tmp_path_factory)
    with running_house(
        tmp_path_factory.mktemp("house"), say=lambda text: None, poll_interval_s=POLL_INTERVAL_S
    ) as house:
        more = [
            {**_connection(house.simulators, kind), "name": name, **told}
            for name, (kind, told) in OWNERS_CONNECTIONS.items()
        ]
        for connection in (*hostile.connections(), *more):  # before a function has read any
            put_connection(house.stack.aws_endpoint_url, house.stack.name, connection)
        yield Client(house)


@dataclass(frozen=True)
class Unwoken:
    """A stack that nobody wakes, with a task polled every second and one polled every 60 s."""

    client: Client
    often: dict[str, Any]
    rare: dict[str, Any]


@pytest.fixture(scope="session")
def unwoken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unwoken]:
    """Registers tasks that only the schedule finds; they go on in minutes, beside the other tests."""
    first_of_its_kind("unwoken stack", tmp_path_factory)
    with running_house(
        tmp_path_factory.mktemp("unwoken"), say=lambda text: None, poll_interval_s=POLL_INTERVAL_S
    ) as house:
        slow = {**_connection(house.simulators, "mingyan"), "name": "every-minute", "poll_interval_s": 60}
        put_connection(house.stack.aws_endpoint_url, house.stack.name, slow)
        client = Client(house)
        with _wake_ups_switched_off(client):
            often = client.start("jimmy", seconds=66, from_first_poll=True)
            rare = client.start("mingyan", connection="every-minute", seconds=62, from_first_poll=True)
        yield Unwoken(client, often, rare)


def _connection(simulators: Simulators, kind: str) -> dict[str, object]:
    return next(one for one in simulators.connections() if one["type"] == kind)


@contextmanager
def _wake_ups_switched_off(client: Client) -> Iterator[None]:
    """Points the API's wake-ups at a function that does not exist, as if every one of them got lost."""
    stack = client.house.stack
    functions = stack.session().client("lambda", endpoint_url=stack.aws_endpoint_url)
    name = stack.outputs["ApiFunctionName"]
    before = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    nobody = {**before, "POLLER_FUNCTION_NAME": "nobody"}
    functions.update_function_configuration(FunctionName=name, Environment={"Variables": nobody})
    try:
        yield
    finally:
        functions.update_function_configuration(FunctionName=name, Environment={"Variables": before})
