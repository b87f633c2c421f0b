"""`make demo`: one render per provider through the real stack, from the registration to the verified webhook.

Exits 0 only if every task was COMPLETED, every stored object has the source's SHA-256, and every webhook was verified.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import requests
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from local.emulator import EmulatorError
from local.house import LOCAL, House, running_house
from local.providers.lifecycle import ProviderType
from local.providers.video import VideoFile
from local.receiver import Received
from local.signals import StoppedError, stopped_by_signals
from local.stack import StackError

DEMO_FILE = LOCAL / "demo.json"
TASK_LIMIT_S = 180.0
WEBHOOK_LIMIT_S = 90.0
CALL_LIMIT_S = 30.0
LOOK_EVERY_S = 0.5
PLAIN_WIDTH = 140  # of lines in a log
SECONDS = {  # from the first poll to the finished render; progress is stored every 15 s at most
    ProviderType.CAPCUT_MATE: 20,
    ProviderType.SCENEXT: 24,
    ProviderType.JIMMY: 18,
    ProviderType.MONEYPRINTERTURBO: 22,
    ProviderType.MINGYAN: 16,
}
SIZES = {  # one beyond 32 MiB, which is copied in parts
    ProviderType.CAPCUT_MATE: 2_000_000,
    ProviderType.SCENEXT: 5_000_000,
    ProviderType.JIMMY: 40_000_000,
    ProviderType.MONEYPRINTERTURBO: 8_000_000,
    ProviderType.MINGYAN: 1_000_000,
}
END = {"COMPLETED", "FAILED", "EXPIRED", "CANCELLED"}


class DemoError(Exception):
    """The demo did not end as it must."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class VideoAnswer(_Answer):
    """What is used of a stored file in the API's answer."""

    n: int
    bucket: str
    key: str
    size_bytes: int
    sha256: str


class ErrorAnswer(_Answer):
    """What is used of an error in the API's answer."""

    message: str


class TaskAnswer(_Answer):
    """What is used of a task in the API's answer."""

    task_id: str
    connection: str
    provider: str
    provider_task_id: str
    status: str
    progress: int | None
    error: ErrorAnswer | None
    last_poll_error: ErrorAnswer | None
    videos: tuple[VideoAnswer, ...]


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it was read back from S3."""

    bucket: str
    key: str
    size_bytes: int
    sha256: str


@dataclass(slots=True)
class Run:
    """One task of the demo: the API's last word on it, what S3 really holds, and the webhooks that came."""

    task: TaskAnswer
    stored: list[StoredObject] = field(default_factory=list)
    webhooks: list[Received] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class View(Protocol):
    """How the tasks' way is shown."""

    def show(self, task: TaskAnswer) -> None:
        """Shows where a task stands now."""


class PlainView:
    """A line for every change, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, str] = {}

    def show(self, task: TaskAnswer) -> None:
        text = task.status if task.progress is None else f"{task.status} {task.progress} %"
        if self._shown.get(task.task_id) != text:
            self._shown[task.task_id] = text
            self._console.print(f"  {task.provider:<18} {text}", highlight=False)


class BarView:
    """A progress bar a task, for terminals."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def show(self, task: TaskAnswer) -> None:
        if task.task_id not in self._bars:
            self._bars[task.task_id] = self._progress.add_task(task.provider, total=100, status=task.status)
        done = 100 if task.status in {"COPYING", *END} else task.progress
        self._progress.update(self._bars[task.task_id], completed=done, status=task.status)


class Api:
    """The few calls of the HTTP API that the demo makes."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.headers["x-api-key"] = key

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def register(self, connection: str, provider_task_id: str, webhook_url: str) -> TaskAnswer:
        """Registers a task; raises `DemoError` unless it is created."""
        body = {
            "connection": connection,
            "provider_task_id": provider_task_id,
            "webhook_url": webhook_url,
            "metadata": {"made_by": "make demo"},
        }
        answer = self._http.post(f"{self._url}/tasks", json=body, timeout=CALL_LIMIT_S)
        if answer.status_code != 201:
            raise DemoError(f"POST /tasks for {connection}: {answer.status_code} {answer.text}")
        return TaskAnswer.model_validate_json(answer.content)

    def task(self, task_id: str) -> TaskAnswer:
        """Reads a task."""
        answer = self._http.get(f"{self._url}/tasks/{task_id}", timeout=CALL_LIMIT_S)
        if answer.status_code != 200:
            raise DemoError(f"GET /tasks/{task_id}: {answer.status_code} {answer.text}")
        return TaskAnswer.model_validate_json(answer.content)


def main() -> int:
    """Runs the demo; the exit status is 0 only if all of it happened."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    begun = time.monotonic()

    def say(text: str) -> None:
        console.print(f"· {text}", highlight=False)

    DEMO_FILE.unlink(missing_ok=True)
    directory = LOCAL / f"demo-{os.getpid()}"
    try:
        with stopped_by_signals():
            _remove_old(LOCAL)
            shutil.rmtree(directory, ignore_errors=True)
            with running_house(directory, say=say) as house:
                runs = run(house, console, say)
            problems = [f"{one.task.provider}: {problem}" for one in runs for problem in one.problems]
            told = verdict(runs)
    except StoppedError as error:
        console.print(f"stopped by {error}", style="yellow")
        shutil.rmtree(directory, ignore_errors=True)
        return 130
    except (DemoError, EmulatorError, StackError, OSError) as error:
        problems, told = [str(error)], ""
    if problems:
        for problem in problems:
            console.print(f"✗ {problem}", style="red", markup=False)
        if told:
            console.print(told, highlight=False)
        console.print(f"The demo failed. What was running left its log and data in {directory}.", highlight=False)
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    console.print(
        f"✓ {told}; {time.monotonic() - begun:.0f} s; {DEMO_FILE.relative_to(LOCAL.parent)}",
        style="green",
        highlight=False,
    )
    return 0


def run(house: House, console: Console, say: Callable[[str], None]) -> list[Run]:
    """Takes one task per provider from registration to webhook, checks everything, and writes the demo file."""
    api = Api(house.stack.api_url, house.stack.api_key)
    try:
        say("registering a render per provider through the API")
        runs = [Run(_register(api, house, kind)) for kind in ProviderType]
        with _view(console) as view:
            _watch(api, runs, view)
        say("waiting for the webhooks, and comparing the stored objects with their sources")
        _collect_webhooks(house, runs)
    finally:
        api.close()
    for one in runs:
        one.stored = list(_fetch_stored(house, one.task))
        one.problems = problems_of(one, [house.simulators.file(one.task.provider, one.task.provider_task_id)])
    described = description(house.stack.api_url, house.stack.api_key, runs)
    DEMO_FILE.write_text(json.dumps(described, indent=2) + "\n")
    console.print(results_table(runs))
    return runs


def _register(api: Api, house: House, kind: ProviderType) -> TaskAnswer:
    provider_task_id = house.simulators.create(
        kind, seconds=SECONDS[kind], size_bytes=SIZES[kind], from_first_poll=True
    )
    return api.register(kind.value, provider_task_id, f"{house.receiver.url}/hooks/{kind.value}")


def _watch(api: Api, runs: Sequence[Run], view: View) -> None:
    """Looks at the tasks until all have ended; raises `DemoError` if that takes too long."""
    limit = time.monotonic() + TASK_LIMIT_S
    for one in runs:
        view.show(one.task)
    while open_runs := [one for one in runs if one.task.status not in END]:
        if time.monotonic() > limit:
            raise DemoError(
                f"not all tasks ended within {TASK_LIMIT_S:.0f} s: "
                + "; ".join(_standing(one.task) for one in open_runs)
            )
        time.sleep(LOOK_EVERY_S)
        for one in open_runs:
            one.task = api.task(one.task.task_id)
            view.show(one.task)


def _standing(task: TaskAnswer) -> str:
    error = task.error or task.last_poll_error
    return f"{task.provider} is {task.status}" + (f" ({error.message})" if error else "")


def _collect_webhooks(house: House, runs: Sequence[Run]) -> None:
    """Waits for a webhook to each ended task, for a bounded time; what is missing is found by the check."""
    limit = time.monotonic() + WEBHOOK_LIMIT_S
    while True:
        for one in runs:
            one.webhooks = house.receiver.received(task_id=one.task.task_id)
        if all(one.webhooks for one in runs) or time.monotonic() > limit:
            return
        time.sleep(LOOK_EVERY_S)


def _fetch_stored(house: House, task: TaskAnswer) -> Iterator[StoredObject]:
    """What S3 really holds for a task, read back whole."""
    s3 = house.stack.session().client("s3", endpoint_url=house.stack.aws_endpoint_url)
    for video in task.videos:
        digest, size = hashlib.sha256(), 0
        for chunk in s3.get_object(Bucket=video.bucket, Key=video.key)["Body"].iter_chunks(1 << 20):
            digest.update(chunk)
            size += len(chunk)
        yield StoredObject(video.bucket, video.key, size, digest.hexdigest())


def problems_of(one: Run, sources: Sequence[VideoFile]) -> list[str]:
    """Everything about a task that is not as it must be; `sources` are the provider's files in their order."""
    task, problems = one.task, []
    if task.status != "COMPLETED":
        problems.append(_standing(task))
    elif len(task.videos) != len(sources):
        problems.append(f"{len(task.videos)} videos are stored, the provider made {len(sources)}")
    for video, stored, source in zip(task.videos, one.stored, sources, strict=False):
        found = (stored.sha256, stored.size_bytes)
        if found != (source.sha256, source.size_bytes):
            problems.append(f"s3://{stored.bucket}/{stored.key} differs from the provider's file")
        if found != (video.sha256, video.size_bytes):
            problems.append(f"the API tells another size or SHA-256 than s3://{stored.bucket}/{stored.key} has")
    if not any(webhook.type == "task.completed" for webhook in one.webhooks):
        problems.append("no webhook task.completed arrived")
    problems.extend(
        f"webhook {webhook.webhook_id} was not verified" for webhook in one.webhooks if not webhook.verified
    )
    return problems


def verdict(runs: Sequence[Run]) -> str:
    """How much of what was to happen did."""
    stored = sum(1 for one in runs if one.task.status == "COMPLETED" and one.stored)
    webhooks = [webhook for one in runs for webhook in one.webhooks]
    verified = sum(1 for webhook in webhooks if webhook.verified)
    return f"{stored} of {len(runs)} videos stored, {verified} of {len(webhooks)} webhooks verified"


def description(api_url: str, api_key: str, runs: Sequence[Run]) -> dict[str, object]:
    """What `.local/demo.json` says."""
    return {
        "api_url": api_url,
        "api_key": api_key,
        "tasks": [
            {
                "task_id": one.task.task_id,
                "connection": one.task.connection,
                "provider": one.task.provider,
                "status": one.task.status,
                "videos": [asdict(stored) for stored in one.stored],
                "webhooks": [
                    {
                        "type": webhook.type,
                        "webhook_id": webhook.webhook_id,
                        "verified": webhook.verified,
                        "attempts": webhook.attempts,
                    }
                    for webhook in one.webhooks
                ],
            }
            for one in runs
        ],
    }


def results_table(runs: Sequence[Run]) -> Table:
    """What is stored and who was told, narrow enough for 80 columns."""
    table = Table(title="What is stored, and who was told", show_lines=True)
    for name in ("provider", "stored video", "bytes, SHA-256", "webhook"):
        table.add_column(name, overflow="fold", no_wrap=name != "stored video")
    for one in runs:
        table.add_row(
            f"{one.task.provider}\n{one.task.status}",
            "\n".join(stored.key for stored in one.stored),
            "\n".join(f"{stored.size_bytes:,}\n{stored.sha256[:12]}…" for stored in one.stored),
            "\n".join(f"{webhook.type}\n{'verified' if webhook.verified else 'WRONG'}" for webhook in one.webhooks),
        )
    return table


@contextmanager
def _view(console: Console) -> Iterator[View]:
    if not console.is_terminal:
        yield PlainView(console)
        return
    columns = (TextColumn("  {task.description:<18}"), BarColumn(), TextColumn("{task.fields[status]:<10}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        yield BarView(progress)


def _remove_old(directory: Path) -> None:
    """Removes what failed demos left, unless their process still runs."""
    for old in directory.glob("demo-*"):
        pid = old.name.removeprefix("demo-")
        if pid.isdigit() and not _runs(int(pid)):
            shutil.rmtree(old, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    sys.exit(main())
