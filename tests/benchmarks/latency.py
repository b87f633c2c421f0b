"""From the poll that finds a render completed to its webhook, against a bare chain on the same emulator."""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from local.house import House, running_house
from local.stack import python_runtime
from tests.benchmarks.report import Line, Plot, Section
from tests.e2e.client import Client

VIDEOS, SIZE_BYTES = 40, 200_000
P50_FACTOR, P95_FACTOR = 2.0, 3.0
BARE = "bare"
LIMIT_S = 60.0

T = TypeVar("T")


def _until(look: Callable[[], T | None]) -> T:
    limit = time.monotonic() + LIMIT_S
    while (found := look()) is None:
        if time.monotonic() > limit:
            raise AssertionError("a webhook did not come")
        time.sleep(0.02)
    return found


def _deploy_bare(house: House, video: bytes) -> Any:
    """The bare function, with our layer, which brings what it imports; answers a client of AWS Lambda."""
    functions: Any = house.stack.session().client("lambda", endpoint_url=house.stack.aws_endpoint_url)
    ours = functions.get_function_configuration(FunctionName=house.stack.outputs["NotifierFunctionName"])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as package:
        package.writestr("bare.py", Path(__file__).with_name("bare.py").read_text())
        package.writestr("video.mp4", video)
    functions.create_function(
        FunctionName=BARE,
        Runtime=python_runtime(),
        Role=ours["Role"],
        Handler="bare.handler",
        Code={"ZipFile": packed.getvalue()},
        Layers=[layer["Arn"] for layer in ours["Layers"]],
        MemorySize=ours["MemorySize"],
        Timeout=60,
    )
    return functions


def bare_s(house: House, functions: Any, number: int) -> float:
    """Seconds from the asynchronous invocation to the webhook."""
    key, url = f"bare/{number}.mp4", f"{house.receiver.url}/bare/{number}"
    began = time.time()
    event = {"bucket": house.stack.bucket, "key": key, "url": url}
    functions.invoke(FunctionName=BARE, InvocationType="Event", Payload=json.dumps(event))
    received = _until(lambda: next(iter(house.receiver.received(path=f"/bare/{number}")), None))
    return received.at.timestamp() - began


def ours_s(client: Client) -> tuple[float, dict[str, Any]]:
    """Seconds from the provider's answer that says so to the verified webhook, and what was stored."""
    task = client.start("jimmy", seconds=1, size_bytes=SIZE_BYTES)
    received = client.told(task["task_id"], "task.completed")
    data: dict[str, Any] = json.loads(received.body)["data"]
    return received.at.timestamp() - client.polled_at(task)[-1], data["videos"][0]


def measure(directory: Path) -> Section:
    """Both in turn, warm, one at a time."""
    theirs: list[float] = []
    ours: list[float] = []
    with running_house(directory, say=lambda text: None, poll_interval_s=1) as house:
        client = Client(house)
        source = house.simulators.create("jimmy", size_bytes=SIZE_BYTES)
        video = b"".join(house.simulators.file("jimmy", source).chunks())
        functions = _deploy_bare(house, video)
        house.receiver.order("/bare", secret="")
        for number in range(-2, VIDEOS):  # the first ones find everything cold
            bare = bare_s(house, functions, number)
            chain, stored = ours_s(client)
            if number >= 0:
                theirs.append(bare)
                ours.append(chain)
        s3 = house.stack.session().client("s3", endpoint_url=house.stack.aws_endpoint_url)
        put = s3.get_object(Bucket=house.stack.bucket, Key=f"bare/{VIDEOS - 1}.mp4")["Body"].read()
        assert hashlib.sha256(put).hexdigest() == hashlib.sha256(video).hexdigest()
        assert client.stored(stored) == (stored["size_bytes"], stored["sha256"])
        assert len(video) == stored["size_bytes"] == SIZE_BYTES
    p50 = median(ours) / median(theirs)
    p95 = _at(ours, 0.95) / _at(theirs, 0.95)
    rows = [
        [name, f"{1000 * median(found):.0f}", f"{1000 * _at(found, 0.95):.0f}", f"{1000 * max(found):.0f}"]
        for name, found in (("bare chain: put and post", theirs), ("Renderbell", ours))
    ]
    parts = [(n + 0.5) / VIDEOS for n in range(VIDEOS)]
    return Section(
        title="From completion to webhook",
        target=(
            f"beyond the polling interval, p50 at most {P50_FACTOR:g} times and p95 at most {P95_FACTOR:g} times a "
            "bare "
            "chain on the same emulator"
        ),
        verdict=f"p50 {p50:.2f} times, p95 {p95:.2f} times",
        met=p50 <= P50_FACTOR and p95 <= P95_FACTOR,
        head=["chain", "p50, ms", "p95, ms", "most, ms"],
        rows=rows,
        notes=[
            f"{VIDEOS} videos of {SIZE_BYTES / 1000:g} kB each, in turn, on the local stack. The bare chain is an "
            "asynchronous "
            "invocation of a function that puts the same bytes, which it holds already, and posts once. Ours begins "
            "with the "
            "provider's answer; it writes the transition, invokes the notifier, claims the task, downloads, puts "
            "with a "
            "checksum, writes the end with its delivery, claims that and posts, signed."
        ],
        plot=Plot(
            "latency",
            "seconds",
            "share of videos",
            lines=[Line("Renderbell", sorted(ours), parts), Line("bare chain", sorted(theirs), parts)],
        ),
    )


def _at(found: Sequence[float], part: float) -> float:
    return sorted(found)[min(len(found) - 1, math.floor(part * len(found)))]
