"""Everything that runs locally, together: emulator, simulated providers, receiver and the deployed stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from local.emulator import Emulator, stop_leftover
from local.gateway import Gateway
from local.keys import keys_of_teams
from local.ports import PortBook
from local.providers.lifecycle import ProviderType
from local.providers.server import Simulators
from local.receiver import Receiver
from local.stack import ROOT, TEMPLATE, Stack, build, deploy

LOCAL = ROOT / ".local"
FIRST_EMULATOR_PORT = 4566
FIRST_PROVIDER_PORT = 4701
FIRST_RECEIVER_PORT = 4751
FIRST_GATEWAY_PORT = 4801

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class House:
    """What runs."""

    emulator: Emulator
    simulators: Simulators
    receiver: Receiver
    stack: Stack
    keys: Mapping[str, str] = field(default_factory=dict)  # of further owners


@contextmanager
def running_house(
    directory: Path,
    *,
    say: Say,
    ports: PortBook | None = None,
    parameters: Mapping[str, str] | None = None,
    poll_interval_s: float = 2,
    teams: Sequence[str] = (),
) -> Iterator[House]:
    """Starts everything with its state under the directory, and stops all of it at the end.

    With a port book everything is found where it was the last time, as far as the ports are free. `teams` are owners
    beside `default` who may use the connections; each gets a key.
    """
    stop_leftover(directory)  # or it would keep its port from its successor
    say("building functions and layer (the first time this downloads what ships)")
    build()
    with ExitStack() as started:
        say("starting the AWS emulator")
        emulator = started.enter_context(Emulator(directory, port=_port(ports, "emulator", FIRST_EMULATOR_PORT)))
        provider_ports = {
            kind: _port(ports, kind.value, FIRST_PROVIDER_PORT + number) or 0
            for number, kind in enumerate(ProviderType)
        }
        simulators = started.enter_context(
            Simulators(ports=provider_ports, journal=directory / "simulated-tasks.jsonl")
        )
        receiver = started.enter_context(Receiver(port=_port(ports, "receiver", FIRST_RECEIVER_PORT) or 0))
        gateway = started.enter_context(Gateway(TEMPLATE, port=_port(ports, "gateway", FIRST_GATEWAY_PORT) or 0))
        say("deploying template.yaml with SAM")
        connections = simulators.connections(poll_interval_s=poll_interval_s, owners=("default", *teams))
        stack = deploy(emulator.url, gateway, connections=connections, parameters=parameters)
        keys = keys_of_teams(stack, teams, directory / "keys.json")
        receiver.use_api(stack.api_url, stack.api_key, *keys.values())
        try:
            yield House(emulator, simulators, receiver, stack, keys)
        finally:
            say("stopping everything")


def _port(ports: PortBook | None, name: str, first: int) -> int | None:
    return None if ports is None else ports.port(name, first)
