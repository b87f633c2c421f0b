"""Death at every step of two scenarios, with the emulator's DynamoDB and S3 instead of the in-process ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from local.emulator import S3_CONFIG, Emulator
from tests.deployment import OWNER
from tests.dynamodb import Item
from tests.s3 import BUCKET
from tests.simulation.crashes import strike_every_call
from tests.simulation.quiet import quiet
from tests.template import expanded
from tests.universe import DEATHS, TABLE, Boundaries, Plan, Universe

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.emulator


class WatchedS3:
    """A client of S3 whose calls, and pages, are boundaries."""

    def __init__(self, client: S3Client, boundaries: Boundaries) -> None:
        self._client = client
        self._boundaries = boundaries
        self.part_bytes_sent = 0

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        call = getattr(self._client, operation)

        def made(**arguments: Any) -> Any:
            with self._boundaries.around("s3", operation):
                if operation == "upload_part":
                    self.part_bytes_sent += arguments["ContentLength"]
                return call(**arguments)

        return made

    def get_paginator(self, operation: str) -> WatchedPages:
        """What lists page by page."""
        return WatchedPages(self._client, self._boundaries, operation)


class WatchedPages:
    """A list in S3, each page a boundary."""

    def __init__(self, client: Any, boundaries: Boundaries, operation: str) -> None:
        self._pages = client.get_paginator(operation)
        self._boundaries = boundaries
        self._operation = operation

    def paginate(self, **arguments: Any) -> Iterator[Any]:
        """The pages, one after the other."""
        pages = iter(self._pages.paginate(**arguments))
        while True:
            with self._boundaries.around("s3", self._operation):
                page = next(pages, None)
            if page is None:
                return
            yield page


class EmulatedUniverse(Universe):
    """A world in virtual time whose table and bucket are the emulator's, and empty."""

    def __init__(self, plan: Plan, dynamodb: DynamoDBClient, s3: S3Client) -> None:
        self._dynamodb = dynamodb
        self._bucket = s3
        self._empty()
        super().__init__(plan=plan, slots=1)

    def services(self) -> tuple[Any, Any]:
        self._watched = WatchedS3(self._bucket, self.boundaries)
        return self._dynamodb, self._watched

    def tasks_registered(self) -> int:
        return len(self.all_tasks())

    def part_bytes_sent(self) -> int:
        return self._watched.part_bytes_sent

    def items(self) -> list[Item]:
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=TABLE, ConsistentRead=True)
        return [item for page in pages for item in page["Items"]]

    def objects(self) -> dict[str, bytes]:
        listed = self._bucket.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        keys = [found["Key"] for found in listed]
        return {key: self._bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def open_uploads(self) -> int:
        return len(self._bucket.list_multipart_uploads(Bucket=BUCKET, Prefix=OWNER).get("Uploads", []))

    def _empty(self) -> None:
        for item in self.items():
            self._dynamodb.delete_item(TableName=TABLE, Key={"pk": item["pk"], "sk": item["sk"]})
        for found in self._bucket.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            self._bucket.delete_object(Bucket=BUCKET, Key=found["Key"])


@pytest.fixture
def make(emulator: Emulator, dynamodb: DynamoDBClient) -> Iterator[Callable[[Plan], Universe]]:
    described: dict[str, Any] = expanded.source()["Resources"]["Table"]["Properties"]
    parts = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
    dynamodb.create_table(TableName=TABLE, **{part: described[part] for part in parts})
    s3: S3Client = emulator.session().client("s3", endpoint_url=emulator.url, config=S3_CONFIG)
    s3.create_bucket(Bucket=BUCKET)
    with quiet():
        yield lambda plan: EmulatedUniverse(plan, dynamodb, s3)
    dynamodb.delete_table(TableName=TABLE)
    s3.close()


@pytest.mark.parametrize("name", ["a small video", "two videos"])
def test_whatever_call_is_struck_all_ends_well(
    name: str, make: Callable[[Plan], Universe], measured: Callable[[str], None]
) -> None:
    measured(f"on the emulator, {strike_every_call(name, make, lambda service: DEATHS)}")
