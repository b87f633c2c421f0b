"""What integration tests share: one emulator a session, and a table as the template describes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest
from botocore.config import Config

from local.emulator import Emulator
from renderbell.store import Store
from tests.deployment import in_process_table
from tests.template import expanded

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """The embedded AWS emulator on a free port, with its state in a directory of its own."""
    with Emulator(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture(scope="session")
def dynamodb(emulator: Emulator) -> DynamoDBClient:
    """A client of the emulator's DynamoDB."""
    client: DynamoDBClient = emulator.session().client(
        "dynamodb", endpoint_url=emulator.url, config=Config(max_pool_connections=32)
    )
    return client


@pytest.fixture
def table(dynamodb: DynamoDBClient) -> Iterator[str]:
    """An empty table with the keys and indexes that the template gives it."""
    described: dict[str, Any] = expanded.source()["Resources"]["Table"]["Properties"]
    name = f"table-{uuid4().hex}"
    dynamodb.create_table(
        TableName=name,
        **{
            part: described[part]
            for part in ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
        },
    )
    yield name
    dynamodb.delete_table(TableName=name)


@pytest.fixture(params=["emulator", "in_process"])
def store(request: pytest.FixtureRequest) -> Store:
    """The store over an empty table, of each kind that the contract must hold on."""
    if request.param == "in_process":
        return Store(cast("DynamoDBClient", in_process_table("table")), "table")
    return Store(request.getfixturevalue("dynamodb"), request.getfixturevalue("table"))
