"""What an e2e test does to the deployed stack: real HTTP calls, and waiting for what they bring about."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import requests

from local.house import House
from local.receiver import Received

T = TypeVar("T")

END = {"COMPLETED", "FAILED", "EXPIRED", "CANCELLED"}
CALL_LIMIT_S = 60.0
LOOK_EVERY_S = 0.3
LAST_LINES = 12

# What a lost process or wake-up costs at most: the lease or the claim of whoever is gone runs out (45 s, 60 s), and the
# next minute's tick finds what is due. On a busy machine the emulator loses one now and then.
LIMIT_S = 200.0


@dataclass(frozen=True)
class Client:
    """One caller of the API, with an eye on the simulated providers, the receiver and the bucket."""

    house: House
    http: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.http.trust_env = False
        self.http.headers["x-api-key"] = self.house.stack.api_key

    def of(self, owner: str, scope: str = "write") -> Client:
        """Another owner's client, with a key of its own."""
        answer = self.call("POST", "/keys", json={"owner": owner, "name": "e2e", "scope": scope})
        assert answer.status_code == 201, answer.text
        other = Client(self.house)
        other.http.headers["x-api-key"] = answer.json()["key"]
        return other

    def call(self, method: str, path: str, *, allow_redirects: bool = False, **more: Any) -> requests.Response:
        """One request to the API; redirects are shown, not followed."""
        url = f"{self.house.stack.api_url}{path}"
        return self.http.request(method, url, timeout=CALL_LIMIT_S, allow_redirects=allow_redirects, **more)

    def hook(self, name: str) -> str:
        """A webhook URL of the receiver's."""
        return f"{self.house.receiver.url}/hooks/{name}"

    def start(self, provider: str, *, connection: str | None = None, **told: Any) -> dict[str, Any]:
        """Makes a task at a simulated provider and registers it; `asked` goes into the registration."""
        asked: dict[str, Any] = told.pop("asked", {})
        provider_task_id = self.house.simulators.create(provider, **told)
        body = {
            "connection": connection or provider,
            "provider_task_id": provider_task_id,
            "webhook_url": self.hook(provider),
            **asked,
        }
        answer = self.call("POST", "/tasks", json=body)
        assert answer.status_code == 201, answer.text
        task: dict[str, Any] = answer.json()
        return task

    def task(self, task_id: str) -> dict[str, Any]:
        """A task as the API shows it."""
        answer = self.call("GET", f"/tasks/{task_id}")
        assert answer.status_code == 200, answer.text
        task: dict[str, Any] = answer.json()
        return task

    def until(self, look: Callable[[], T | None], what: str, *, limit_s: float = LIMIT_S) -> T:
        """What a look finds once it finds something; fails with `what` if that takes too long."""
        limit = time.monotonic() + limit_s
        while not (found := look()):
            if time.monotonic() > limit:
                raise AssertionError(f"{what} did not happen within {limit_s:.0f} s\n{self.last_words()}")
            time.sleep(LOOK_EVERY_S)
        return found

    def settled(self, task_id: str) -> dict[str, Any]:
        """A task once it has ended and no webhook of it is pending."""

        def look() -> dict[str, Any] | None:
            task = self.task(task_id)
            over = task["status"] in END and all(one["state"] != "pending" for one in task["deliveries"])
            return task if over else None

        return self.until(look, f"the end of {task_id} and of its deliveries")

    def ended(self, task_id: str, *, limit_s: float = LIMIT_S) -> dict[str, Any]:
        """A task once it has ended."""

        def look() -> dict[str, Any] | None:
            task = self.task(task_id)
            return task if task["status"] in END else None

        try:
            return self.until(look, f"the end of {task_id}", limit_s=limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.task(task_id)}") from None

    def told(self, task_id: str, kind: str, *, limit_s: float = LIMIT_S) -> Received:
        """The verified webhook of a type for a task, once it was answered with success."""

        def look() -> Received | None:
            found = self.house.receiver.received(task_id=task_id, type=kind)
            return found[0] if found and 204 in found[0].answers else None

        received = self.until(look, f"{kind} for {task_id}", limit_s=limit_s)
        assert received.verified, "the independent package refuses the signature"
        return received

    def stored(self, video: dict[str, Any]) -> tuple[int, str]:
        """Size and SHA-256 of what S3 really holds for a video."""
        s3 = self.house.stack.session().client("s3", endpoint_url=self.house.stack.aws_endpoint_url)
        digest, size = hashlib.sha256(), 0
        for chunk in s3.get_object(Bucket=video["bucket"], Key=video["key"])["Body"].iter_chunks(1 << 20):
            digest.update(chunk)
            size += len(chunk)
        return size, digest.hexdigest()

    def physical_name(self, logical_id: str) -> str:
        """What a resource of the template is called in the stack."""
        stack = self.house.stack
        resources = stack.session().client("cloudformation", endpoint_url=stack.aws_endpoint_url)
        found = resources.describe_stack_resource(StackName=stack.name, LogicalResourceId=logical_id)
        name: str = found["StackResourceDetail"]["PhysicalResourceId"]
        return name

    def logged(self, log_group: str, pattern: str = "") -> list[str]:
        """The lines that a function has logged, as far as its invocations have ended; all, or those with a pattern."""
        stack = self.house.stack
        logs = stack.session().client("logs", endpoint_url=stack.aws_endpoint_url)
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=self.physical_name(log_group), filterPattern=pattern
        )
        return [event["message"] for page in pages for event in page["events"]]

    def last_words(self) -> str:
        """The last lines of poller and notifier, and who polls: what a look in vain is explained by."""
        stack = self.house.stack
        dynamodb = stack.session().client("dynamodb", endpoint_url=stack.aws_endpoint_url)
        leases = dynamodb.query(
            TableName=stack.table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": "LEASE#0"}},
            ConsistentRead=True,
        )["Items"]
        logs = {group: self.logged(group)[-LAST_LINES:] for group in ("PollerFunctionLogs", "NotifierFunctionLogs")}
        lines = [f"{group}: {line.strip()}" for group, found in logs.items() for line in found]
        return "\n".join([f"now {datetime.now(UTC).isoformat()}", f"lease {json.dumps(leases)}", *lines])

    def remains(self, task: dict[str, Any]) -> list[str]:
        """What there is of a task: items of the table, objects and open uploads."""
        stack, below = self.house.stack, f"{task['owner']}/{task['task_id']}/"
        dynamodb = stack.session().client("dynamodb", endpoint_url=stack.aws_endpoint_url)
        s3 = stack.session().client("s3", endpoint_url=stack.aws_endpoint_url)
        items = dynamodb.query(
            TableName=stack.table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"TASK#{task['task_id']}"}},
            ConsistentRead=True,
        )
        objects = s3.list_objects_v2(Bucket=stack.bucket, Prefix=below).get("Contents", [])
        uploads = s3.list_multipart_uploads(Bucket=stack.bucket, Prefix=below).get("Uploads", [])
        keys = [item["sk"]["S"] for item in items["Items"]]
        return keys + [one["Key"] for one in objects] + [one["Key"] for one in uploads]

    def polled_at(self, task: dict[str, Any]) -> list[float]:
        """When a task's provider was asked, in epoch seconds."""
        seen = self.house.simulators.polls(task["provider"], task["provider_task_id"])
        return [one.at.timestamp() for one in seen]
