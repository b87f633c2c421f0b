"""The deployed API against its own document: Schemathesis makes up calls and judges every answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from local.serving import LoopbackServer
from local.stack import ROOT
from tests.e2e.client import Client
from tests.e2e.conftest import CALLBACK_SECRET, CONTRACT, SHARED

pytestmark = pytest.mark.e2e

OWNER = "contract"
EXAMPLES = 10  # made up for each route, beside those that cover its parameters one by one
LEAST_CALLS = 300
LEAST_WELL = 0.3  # of all answers
COMPLETED, FAILED, RUNNING, CANCELLED, KEYS, ENDPOINTS = 2, 6, 30, 25, 10, 14
AT_ONCE = 3  # tasks that end together: the emulator starts a process for each, or drops it
RUN_LIMIT_S = 900  # it takes two minutes on an idle machine


class Caller:
    """An owner of its own, so that nothing of the other tests is touched."""

    def __init__(self, client: Client, hook: str) -> None:
        self.client = client
        asked = {"owner": OWNER, "name": "contract", "scope": "admin"}
        minted = client.call("POST", "/keys", json=asked).json()
        self.key, self.key_id = minted["key"], minted["key_id"]
        self.hook = hook

    def post(self, path: str, body: dict[str, Any], *, status: int = 201) -> dict[str, Any]:
        answer = self.client.call("POST", path, json=body, headers={"x-api-key": self.key})
        assert answer.status_code == status, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def task(self, **render: Any) -> str:
        provider_task_id = self.client.house.simulators.create("jimmy", **render)
        body = {
            "connection": SHARED,
            "provider_task_id": provider_task_id,
            "webhook_url": self.hook,
        }
        task_id: str = self.post("/tasks", body)["task_id"]
        return task_id

    def running(self, number: int) -> list[str]:
        """So many tasks that are seldom polled, of renders that nobody knows; nobody is told how they end."""
        quiet = [{"url": self.hook, "events": ["task.processing"]}]
        renders = [
            {"connection": CONTRACT, "provider_task_id": f"running-{n}", "webhooks": quiet} for n in range(number)
        ]
        results = self.post("/tasks/batch", {"tasks": renders}, status=200)["results"]
        assert all(one["status"] == 201 for one in results)
        return [one["task"]["task_id"] for one in results]

    def made(self, number: int, **render: Any) -> list[str]:
        """So many tasks that have ended, a few at a time."""
        task_ids: list[str] = []
        while len(task_ids) < number:
            task_ids += self.ended([self.task(**render) for _ in range(min(AT_ONCE, number - len(task_ids)))])
        return task_ids

    def ended(self, task_ids: list[str]) -> list[str]:
        """The same ids, once all of these tasks have ended and told of it."""

        def all_have() -> bool:
            tasks = [self.read(task_id) for task_id in task_ids]
            told = all(one["state"] == "delivered" for task in tasks for one in task["deliveries"])
            return told and all(task["deliveries"] for task in tasks)

        self.client.until(all_have, "the end of all tasks")
        return task_ids

    def endpoint(self, *, disabled: bool) -> str:
        """An endpoint that is told of no task's end; its tests are sent, unless it is switched off."""
        body = {"url": self.hook, "disabled": disabled, "events": ["task.processing"]}
        endpoint_id: str = self.post("/endpoints", body)["endpoint_id"]
        return endpoint_id

    def read(self, task_id: str) -> dict[str, Any]:
        answer = self.client.call("GET", f"/tasks/{task_id}", headers={"x-api-key": self.key})
        assert answer.status_code == 200
        task: dict[str, Any] = answer.json()
        return task


@pytest.fixture(scope="module")
def hook() -> Iterator[str]:
    """Where webhooks go that nobody looks at; the receiver would ask the API for the secret of each."""
    with LoopbackServer(Response(status_code=204)) as server:
        yield f"{server.url}/hook"


@pytest.fixture(scope="module")
def caller(client: Client, hook: str) -> Caller:
    return Caller(client, hook)


def ids_of_all_kinds(caller: Caller) -> dict[str, list[str]]:
    """What the made-up calls may name."""
    completed = caller.made(COMPLETED, seconds=0, size_bytes=100_000)
    failed = caller.made(FAILED, seconds=0, outcome="fail")
    running, cancelled = caller.running(RUNNING), []
    while len(running) > RUNNING - CANCELLED:
        cancelled.append(caller.post(f"/tasks/{running.pop()}/cancel", {}, status=200)["task_id"])
    asked = {"owner": OWNER, "name": "spare", "scope": "read"}
    endpoints = [caller.endpoint(disabled=n > 2) for n in range(ENDPOINTS)]
    return {
        "completed tasks": completed,
        "failed tasks": failed,
        "cancelled tasks": cancelled,
        "running tasks": running,
        "spare keys": [caller.post("/keys", asked)["key_id"] for _ in range(KEYS)],
        "endpoints": endpoints[:2],
        "endpoints that change": endpoints[2:3],
        "spare endpoints": endpoints[3:],
    }


def world_of(caller: Caller) -> dict[str, Any]:
    """What the hooks are told."""
    ids = ids_of_all_kinds(caller)
    (told,) = caller.read(ids["completed tasks"][0])["deliveries"]
    return {
        "connection": CONTRACT,
        "callback secret": CALLBACK_SECRET,
        "hook": caller.hook,
        "own key": caller.key_id,
        "told endpoint": told["endpoint_id"],
        "ids": ids,
    }


def test_every_answer_is_as_documented(
    client: Client, caller: Caller, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    calls = tmp_path / "calls.jsonl"
    world = world_of(caller) | {"calls": str(calls)}
    (tmp_path / "world.json").write_text(json.dumps(world))
    api = client.house.stack.api_url
    run = subprocess.run(
        [
            str(Path(sys.executable).with_name("st")),
            *("--config-file", str(Path(__file__).with_name("schemathesis.toml"))),
            *("run", f"{api}/openapi.json", "--url", api, "-H", f"x-api-key: {caller.key}"),
            *("--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"),
            *("--max-examples", str(EXAMPLES), "--request-timeout", "90"),
            # One at a time: Hypothesis parses sources, and two threads that do break Python 3.11's parser.
            *("--seed", "1", "--generation-database", "none", "--workers", "1", "--no-color"),
        ],
        cwd=tmp_path,
        env=os.environ
        | {
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "CONTRACT_WORLD": str(tmp_path / "world.json"),
            "SCHEMATHESIS_HOOKS": "tests.e2e.contract_hooks",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "layers" / "core")]),
        },
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )
    answers: list[tuple[str, str, str, int]] = [json.loads(line) for line in calls.read_text().splitlines()]
    told = table(answers)
    _, _, summary = run.stdout.partition("= SUMMARY =")
    measured(f"Schemathesis against the local stack:\n{told}\n{summary.strip('= ')}")
    assert run.returncode == 0, f"{run.stdout[-20_000:]}\n{run.stderr[-3000:]}"
    assert len(answers) >= LEAST_CALLS
    assert sum(200 <= status < 300 for *_, status in answers) >= LEAST_WELL * len(answers), told


def table(answers: list[tuple[str, str, str, int]]) -> str:
    """How many calls of each route there were, and how many were answered with 2xx."""
    made, well = Counter[str](), Counter[str]()
    for route, method, _, status in answers:
        name = route if route.startswith(f"{method} ") else "other methods of all routes"
        made[name] += 1
        well[name] += 200 <= status < 300
    lines = [f"{well[name]:5} of {made[name]:5} 2xx  {name}" for name in sorted(made)]
    return "\n".join([*lines, f"{sum(well.values()):5} of {sum(made.values()):5} 2xx  in all"])
