"""What a task uses of Lambda and CloudWatch Logs beside its write units, as measured on the deployed local stack."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from local.house import House, running_house
from tests.e2e.client import Client

TASKS = 12
SIZE_BYTES = 200_000
KEYS = 5
EVENT_BYTES = 26  # that CloudWatch Logs adds to each line
REPORT = re.compile(r"^REPORT .*?\bDuration: ([\d.]+) ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Seconds of one warm invocation, bytes of its log lines, and bytes of a webhook.

    The notifier's is one that copies a small video and posts once; `idle_s` is a tick that finds nothing due.
    """

    api_s: float
    authorizer_s: float
    notifier_s: float
    idle_s: float
    api_logged: float
    authorizer_logged: float
    notifier_logged: float
    poller_logged: float
    webhook_bytes: float


@dataclass(frozen=True, slots=True)
class Logged:
    """What a function has logged: seconds of its warm invocations, and bytes of one."""

    seconds: Sequence[float]
    bytes_each: float

    @property
    def usual_s(self) -> float:
        """Seconds of an invocation."""
        return median(self.seconds)


def logged(lines: Sequence[str]) -> Logged:
    """What is in a function's log lines; the first invocation is a cold start, and counts only if there is no other."""
    reports = [float(found[1]) / 1000 for line in lines if (found := REPORT.match(line))]
    if not reports:
        raise AssertionError("a function has not run")
    return Logged(reports[1:] or reports, sum(len(line.encode()) + EVENT_BYTES for line in lines) / len(reports))


def measured_on(house: House) -> Usage:
    """Registers tasks one after the other, each of which is read once when it is done."""
    client = Client(house)
    bodies = []
    for _ in range(TASKS):
        task_id = client.start("jimmy", seconds=1, size_bytes=SIZE_BYTES)["task_id"]
        bodies.append(client.told(task_id, "task.completed").body)
        client.task(task_id)
    notifier = logged(client.logged("NotifierFunctionLogs"))
    api = logged(client.logged("ApiFunctionLogs"))
    for number in range(KEYS):  # API Gateway asks for each key once
        client.of(f"owner-{number}").call("GET", "/connections")
    authorizer = logged(client.logged("AuthorizerFunctionLogs"))
    idle_s = [_idle_tick(client) for _ in range(3)]
    return Usage(
        api_s=api.usual_s,
        authorizer_s=authorizer.usual_s,
        notifier_s=notifier.usual_s,
        idle_s=min(idle_s),  # one may have had to start
        api_logged=api.bytes_each,
        authorizer_logged=authorizer.bytes_each,
        notifier_logged=notifier.bytes_each,
        poller_logged=logged(client.logged("PollerFunctionLogs")).bytes_each,
        webhook_bytes=median(len(body) for body in bodies),
    )


def _idle_tick(client: Client) -> float:
    """Seconds of a tick that finds nothing due."""
    stack = client.house.stack
    functions = stack.session().client("lambda", endpoint_url=stack.aws_endpoint_url)

    def tick() -> float | None:
        before = len(client.logged("PollerFunctionLogs", '"nothing due"'))
        answer = functions.invoke(FunctionName=stack.outputs["PollerFunctionName"], Payload=json.dumps({"worker": 0}))
        if "FunctionError" in answer:
            raise AssertionError("the poller broke")
        if len(client.logged("PollerFunctionLogs", '"nothing due"')) == before:
            return None
        lines = client.logged("PollerFunctionLogs")
        return next(float(found[1]) / 1000 for line in reversed(lines) if (found := REPORT.match(line)))

    return client.until(tick, "a tick with nothing due")


def measure(directory: Path) -> Usage:
    """On a local stack of its own."""
    with running_house(directory, say=lambda text: None, poll_interval_s=1) as house:
        return measured_on(house)
