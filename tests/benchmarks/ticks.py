"""The ticks of one process of the poller, over the emulator's table: `python -m tests.benchmarks.ticks '{…}'`.

Prints its peak of resident memory, its processor time and its counts, and imports nothing that the function would not.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from renderbell.bootstrap import TICKING
from renderbell.providers import Connection
from renderbell.store import Store
from tests.benchmarks.machine import resident_bytes
from tests.benchmarks.rig import CONNECTION, TABLE, polling

INTERVAL_S = 120.0
OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """What the ticks of one process are given; `starts` are epoch seconds, `until` when the last of all ends."""

    base_url: str
    other_url: str
    ca_file: str
    endpoint_url: str
    concurrency: int
    starts: Sequence[float]
    until: float
    group: str | None

    def connections(self) -> list[Connection]:
        """A connection that answers, and another that may not."""
        told: dict[str, Any] = {"type": "jimmy", "api_key": "key", "poll_interval_s": INTERVAL_S}
        return [
            Connection(name=CONNECTION, base_url=self.base_url, **told),
            Connection(name=OTHER, base_url=self.other_url, **told),
        ]

    def run(self) -> None:
        """Ticks as the schedule starts them, each in its turn."""
        if self.group is not None:
            Path(self.group).write_text("0")
        client = boto3.client(
            "dynamodb", endpoint_url=self.endpoint_url, config=TICKING.merge(Config(max_pool_connections=128))
        )
        with polling(
            Store(client, TABLE), self.connections(), ca_file=self.ca_file, concurrency=self.concurrency
        ) as rig:
            before = time.process_time()
            for start in self.starts:
                time.sleep(max(0.0, start - time.time()))
                rig.poller.poll_due_tasks(0, time_limit_s=self.until - time.time())
            used = time.process_time() - before
        print(json.dumps({"memory": resident_bytes(), "cpu_s": used, "counts": rig.counts}))


if __name__ == "__main__":
    Ticks(**json.loads(sys.argv[1])).run()
