"""Looks into a stack's failure queue: `make failures STACK=renderbell`.

Each message is one event that ended without success: the function raised or ran out of time, the event waited longer
than its 60 s (`due_at` brings its work back), or the schedule could not start a tick. Nothing is removed without
`--delete`, and losing a message loses no work.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoRegionError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

OUTPUT = "FailureQueueUrl"
HIDDEN_S = 300  # how long a message that was read stays out of the next reading
EMPTY_READS = 3  # a queue of SQS may answer nothing though it holds something
MEANINGS = {
    "RetriesExhausted": "failed",
    "EventAgeExceeded": "aged out",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """One event that ended without success."""

    at: datetime
    function: str
    reason: str
    payload: str
    error: str

    def line(self) -> str:
        """It as one line."""
        return f"{self.at:%Y-%m-%d %H:%M:%S}Z  {self.function}  {self.reason}  {self.payload}  {self.error}".rstrip()


def read_failure(message: MessageTypeDef) -> Failure:
    """What a message of the queue says; never raises for what stands in it."""
    at = datetime.fromtimestamp(int(message.get("Attributes", {}).get("SentTimestamp", "0")) / 1000, UTC)
    text = message.get("Body", "")
    attributes = {name: one.get("StringValue", "") for name, one in message.get("MessageAttributes", {}).items()}
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    told = body if isinstance(body, dict) else {}
    context = _object(told.get("requestContext"))
    if "condition" in context:  # the record of an asynchronous invocation
        condition = str(context["condition"])
        response = _object(told.get("responsePayload"))
        words = [str(response[name]) for name in ("errorType", "errorMessage") if response.get(name)]
        return Failure(
            at,
            _name(str(context.get("functionArn", ""))),
            MEANINGS.get(condition, condition),
            json.dumps(told.get("requestPayload"), separators=(",", ":")),
            ": ".join(words),
        )
    words = [attributes[name] for name in ("ERROR_CODE", "ERROR_MESSAGE") if attributes.get(name)]
    return Failure(at, _name(attributes.get("TARGET_ARN", "")) or "the schedule", "not started", text, ": ".join(words))


@dataclass(slots=True)
class FailureQueue:
    """The failures of a stack; what is read stays in the queue, out of sight until it is given back or removed."""

    client: SQSClient
    url: str
    held: dict[str, str] = field(default_factory=dict)  # receipt handles by the messages' ids

    def read(self) -> list[Failure]:
        """All of them, in the order of time."""
        found = []
        empty = 0
        while empty < EMPTY_READS:
            got = self.client.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=10,
                VisibilityTimeout=HIDDEN_S,
                WaitTimeSeconds=1,
                MessageSystemAttributeNames=["SentTimestamp"],
                MessageAttributeNames=["All"],
            ).get("Messages", [])
            fresh = [message for message in got if message["MessageId"] not in self.held]
            empty = 0 if fresh else empty + 1
            self.held |= {message["MessageId"]: message["ReceiptHandle"] for message in got}
            found += [read_failure(message) for message in fresh]
        return sorted(found, key=lambda one: one.at)

    def remove(self) -> None:
        """Removes what was read, and nothing that came since."""
        for message_id, handle in list(self.held.items()):
            self.client.delete_message(QueueUrl=self.url, ReceiptHandle=handle)
            del self.held[message_id]

    def give_back(self) -> None:
        """Puts back into sight what was read and not removed."""
        for handle in self.held.values():
            self.client.change_message_visibility(QueueUrl=self.url, ReceiptHandle=handle, VisibilityTimeout=0)


def summary(found: Sequence[Failure]) -> str:
    """How many there are of each kind."""
    if not found:
        return "the failure queue is empty"
    kinds = dict.fromkeys((one.function, one.reason) for one in found)
    counts = (
        f"{sum(1 for one in found if (one.function, one.reason) == kind)} {kind[1]} ({kind[0]})" for kind in kinds
    )
    return f"{len(found)} in the failure queue: {', '.join(counts)}"


def main(arguments: Sequence[str] | None = None, *, session: boto3.Session | None = None) -> int:
    """Prints what lies in a stack's failure queue."""
    parser = argparse.ArgumentParser(
        prog="make failures",
        usage="make failures [STACK=…] [REGION=…] [ARGS=--delete]",
        description="Looks into a stack's failure queue.",
    )
    parser.add_argument("--stack", default="renderbell", help="the stack's name (default: renderbell)")
    parser.add_argument("--region", help="the stack's region (default: as for every AWS tool)")
    parser.add_argument("--delete", action="store_true", help="remove what has been shown, once it has been shown")
    told = parser.parse_args(arguments)
    clients = session or boto3.Session(region_name=told.region)
    try:
        stacks = clients.client("cloudformation").describe_stacks(StackName=told.stack)["Stacks"]
        queue_url = _output(stacks[0].get("Outputs", []))
        queue = FailureQueue(clients.client("sqs"), queue_url)
        try:
            found = queue.read()
            for one in found:
                print(one.line())
            print(summary(found), flush=True)
            if told.delete:  # only now that they are shown
                queue.remove()
        finally:
            queue.give_back()
    except NoRegionError:
        print("make failures: name the region: REGION=eu-central-1", file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError, LookupError) as error:
        where = f" in {clients.region_name}" if clients.region_name else ""
        print(
            f"make failures: {told.stack}{where}: {error}\nSTACK=… and REGION=… name another stack or region.",
            file=sys.stderr,
        )
        return 1
    return 0


def _output(outputs: Iterable[Mapping[str, object]]) -> str:
    for one in outputs:
        if one.get("OutputKey") == OUTPUT:
            return str(one["OutputValue"])
    raise LookupError(f"the stack has no output {OUTPUT}")


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _name(arn: str) -> str:
    """The function's name in its ARN, with or without a version behind it."""
    parts = arn.split(":")
    return parts[6] if len(parts) > 6 else arn


if __name__ == "__main__":
    sys.exit(main())
