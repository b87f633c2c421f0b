"""What tests of the simulated providers share: a clock that only moves when told to, and a poll by the real code."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import requests

from local.providers.server import Simulators
from renderbell.providers import PROVIDERS, Connection, HttpResponse, Observation

START = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


@dataclass
class FakeClock:
    """A clock that stands still; sleeping is the one way to move it, and takes no time."""

    now: datetime = START
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> datetime:
        return self.now

    def at(self, seconds: float) -> None:
        self.now = START + timedelta(seconds=seconds)

    def reset(self) -> None:
        self.now = START
        self.slept.clear()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)


def connection(simulators: Simulators, provider: str, **changed: object) -> Connection:
    found = next(one for one in simulators.connections() if one["type"] == provider)
    return Connection.model_validate({**found, **changed})


def ask(of: Connection, task_id: str, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """The answer to the request that the real provider code builds."""
    request = PROVIDERS[of.type].status_request(of, task_id)
    answer = requests.request(
        request.method, request.url, headers={**request.headers, **(headers or {})}, json=request.json, timeout=10
    )
    return HttpResponse(answer.status_code, answer.headers, answer.content)


def poll(of: Connection, task_id: str) -> Observation:
    """What the real provider code makes of the simulated provider's answer."""
    return PROVIDERS[of.type].parse_status(of, ask(of, task_id))
