"""The template's table on the emulator, and its parameters' defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.benchmarks.rig import TABLE
from tests.template import expanded

RESOURCES: dict[str, Any] = expanded.source()


def parameter(name: str) -> str:
    """A parameter's default."""
    return str(RESOURCES["Parameters"][name]["Default"])


def make_table(client: Any) -> None:
    """Makes the table."""
    described: dict[str, Any] = RESOURCES["Resources"]["Table"]["Properties"]
    parts = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
    client.create_table(TableName=TABLE, **{part: described[part] for part in parts})


def put_all(client: Any, items: Sequence[dict[str, Any]]) -> None:
    """Puts items as they are."""
    for start in range(0, len(items), 25):
        left = {TABLE: [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]}
        while left:
            left = client.batch_write_item(RequestItems=left)["UnprocessedItems"]
