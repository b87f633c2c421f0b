"""`make up`: the local stack, left running until it is interrupted, and found again with its data the next time."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.emulator import EmulatorError
from local.house import LOCAL, House, running_house
from local.ports import PortBook
from local.signals import StoppedError, stopped_by_signals
from local.stack import StackError

STACK_FILE = LOCAL / "stack.json"
LOCK_FILE = LOCAL / "up.lock"
TEAMS = ("team-a", "team-b")


class AlreadyUpError(Exception):
    """Another `make up` runs here."""


def main() -> int:
    """Runs until a signal comes; the exit status is 0 after a clean stop."""
    try:
        with stopped_by_signals(), only_one(LOCK_FILE):
            STACK_FILE.unlink(missing_ok=True)  # of a run that was killed
            with running_house(LOCAL / "up", say=_say, ports=PortBook(LOCAL / "ports.json"), teams=TEAMS) as house:
                try:
                    _write(STACK_FILE, house)
                    print(instructions(house), flush=True)
                    while house.emulator.alive:
                        time.sleep(0.5)
                    print(f"the emulator has ended; see {house.emulator.log}", file=sys.stderr)
                    return 1
                finally:
                    STACK_FILE.unlink(missing_ok=True)
    except StoppedError:
        _say("stopped; `make up` goes on with the same data")
        return 0
    except (AlreadyUpError, EmulatorError, StackError, OSError) as error:
        print(f"make up: {error}", file=sys.stderr)
        return 1


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Holds the lock file with this process's id in it; raises `AlreadyUpError` while another does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read().strip()
            raise AlreadyUpError(f"the local stack is already up (pid {pid}); stop that one first") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def stack_description(house: House) -> dict[str, object]:
    """What `.local/stack.json` says."""
    stack = house.stack
    return {
        "api_url": stack.api_url,
        "api_key": stack.api_key,
        "api_keys": dict(house.keys),
        "aws_endpoint_url": stack.aws_endpoint_url,
        "region": stack.region,
        "stack": stack.name,
        "table": stack.table,
        "bucket": stack.bucket,
        "receiver_url": house.receiver.url,
        "provider_urls": house.simulators.provider_urls,
    }


def instructions(house: House) -> str:
    """Lines to paste into a shell."""
    stack, jimmy = house.stack, house.simulators.provider_urls["jimmy"]
    keys = "".join(f"  # or, of the owner {owner}: KEY={key}\n" for owner, key in house.keys.items())
    return f"""
Renderbell is up. Ctrl-C stops it; its data stay in {LOCAL / "up"}.

  API={stack.api_url}
  KEY={stack.api_key}
{keys}
  # a render of 20 seconds at a simulated provider
  curl -s {jimmy}/_sim/tasks -d '{{"provider_task_id": "my-render", "seconds": 20}}'
  # register it
  curl -s $API/tasks -H "x-api-key: $KEY" -H 'content-type: application/json' \\
    -d '{{"connection": "jimmy", "provider_task_id": "my-render", "webhook_url": "{house.receiver.url}/hooks"}}'
  # look at it, with the "task_id" of that answer
  TASK_ID=
  curl -s $API/tasks/$TASK_ID -H "x-api-key: $KEY"
  # the webhooks that arrived, each with the verdict on its signature
  curl -s "{house.receiver.url}/_received?task_id=$TASK_ID"
  # a presigned link to the stored video
  curl -s "$API/tasks/$TASK_ID/videos/1?redirect=false" -H "x-api-key: $KEY"

  # stop watching it, if it still runs
  curl -s -X POST $API/tasks/$TASK_ID/cancel -H "x-api-key: $KEY"
  # remove it with its video, even if it runs
  curl -s -X DELETE "$API/tasks/$TASK_ID?force=true" -H "x-api-key: $KEY"

  # AWS tools, and what lies in the failure queue
  export AWS_ENDPOINT_URL={stack.aws_endpoint_url} AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test \\
    AWS_DEFAULT_REGION={stack.region}
  aws s3 ls --recursive s3://{stack.bucket}
  make failures STACK={stack.name}

  API reference: {stack.api_url}/docs
  All of this as JSON: {STACK_FILE}
"""


def _write(path: Path, house: House) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(stack_description(house), indent=2) + "\n")
    partial.replace(path)


def _say(text: str) -> None:
    print(f"· {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
