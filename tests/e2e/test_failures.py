"""An invocation that fails ends in the queue, and the operator's command tells of it."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest

from local.emulator import aws_environment
from local.failures import main
from tests.e2e.client import Client

pytestmark = pytest.mark.e2e


def test_a_failed_invocation_is_told_by_the_documented_command(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = client.house.stack
    for name, value in aws_environment(stack.aws_endpoint_url).items():
        monkeypatch.setenv(name, value)
    functions: Any = stack.session().client("lambda", endpoint_url=stack.aws_endpoint_url)
    notifier, poller = stack.outputs["NotifierFunctionName"], stack.outputs["PollerFunctionName"]
    for function, payload in ((notifier, {"odd": "one"}), (poller, {"worker": 99})):
        functions.invoke(FunctionName=function, InvocationType="Event", Payload=json.dumps(payload).encode())

    def told() -> list[str]:
        assert main(["--stack", stack.name], session=boto3.Session()) == 0
        lines = capsys.readouterr().out.splitlines()
        ours = [line for line in lines if '{"odd":"one"}' in line or '{"worker":99}' in line]
        return ours if len(ours) == 2 else []

    lines = client.until(told, "both failures in the queue")
    assert [line for line in lines if f"{notifier}  failed" in line and "pk and sk" in line]
    assert [line for line in lines if f"{poller}  failed" in line and "a worker of this deployment" in line]
    assert client.until(told, "the same again: looking removes nothing") == lines
