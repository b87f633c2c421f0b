"""What an operator is told of the messages in the failure queue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from botocore.stub import Stubber

from local.failures import failures_in, main, read_failure, summary

SAMPLES = Path(__file__).parents[2] / "fixtures" / "failures"
QUEUE = "https://sqs.eu-central-1.amazonaws.com/123456789012/failures"


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


def client(service: str) -> Any:
    keys: Any = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client(cast(Any, service), region_name="eu-central-1", **keys)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "function-error",
            "2026-11-22 11:04:18Z  renderbell-NotifierFunction-D28B697B198C  failed  "
            '{"pk":"TASK#tsk_01kjm4v8r0e3x5n7p9q2s4t6v8","sk":"TASK"}  '
            "Sandbox.Timedout: Task timed out after 300.00 seconds",
        ),
        (
            "aged-out",
            "2026-11-22 11:05:19Z  renderbell-PollerFunction-F6E9D8474BCD  aged out  "
            '{"worker":0,"task_id":"tsk_01kjm4v8r0e3x5n7p9q2s4t6v8"}',
        ),
        (
            "schedule",
            "2026-11-22 11:06:20Z  renderbell-PollerFunction-F6E9D8474BCD  not started  "
            '{"version":"0","source":"aws.scheduler","detail-type":"Scheduled Event","detail":{}}  '
            "AWS.Scheduler.InternalServerError: An internal error occurred.",
        ),
    ],
)
def test_a_message_is_told_in_one_line(name: str, line: str) -> None:
    assert read_failure(sample(name)).line() == line


@pytest.mark.parametrize("body", ["", "not JSON", "[]", "{}", '{"requestContext": null}', '{"requestContext": []}'])
def test_an_odd_message_is_shown_as_it_is(body: str) -> None:
    shown = read_failure(cast(Any, {"Body": body}))
    assert (shown.function, shown.reason, shown.payload) == ("the schedule", "not started", body)


def test_a_record_that_lacks_everything_but_its_reason_is_told_too() -> None:
    shown = read_failure(cast(Any, {"Body": '{"requestContext": {"condition": "ZeroReservedConcurrency"}}'}))
    assert (shown.reason, shown.payload, shown.error) == ("ZeroReservedConcurrency", "null", "")


def asked() -> dict[str, Any]:
    return {
        "QueueUrl": QUEUE,
        "MaxNumberOfMessages": 10,
        "VisibilityTimeout": 60,
        "WaitTimeSeconds": 1,
        "MessageSystemAttributeNames": ["SentTimestamp"],
        "MessageAttributeNames": ["All"],
    }


@pytest.mark.parametrize("delete", [False, True])
def test_all_messages_are_read_and_stay_unless_they_are_to_go(delete: bool) -> None:
    sqs = client("sqs")
    with Stubber(sqs) as stub:
        first, second = [sample("function-error"), sample("aged-out")], [sample("schedule")]
        handle = {"QueueUrl": QUEUE}
        for messages in (first, [], second, [], [], []):
            stub.add_response("receive_message", {"Messages": messages} if messages else {}, asked())
            for message in messages if delete else []:
                stub.add_response("delete_message", {}, {**handle, "ReceiptHandle": message["ReceiptHandle"]})
        for message in [] if delete else [*first, *second]:
            seen = {**handle, "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}
            stub.add_response("change_message_visibility", {}, seen)
        found = list(failures_in(sqs, QUEUE, delete=delete))
        stub.assert_no_pending_responses()
    assert [one.reason for one in found] == ["failed", "aged out", "not started"]


def test_the_summary_counts_each_kind() -> None:
    found = [read_failure(sample(name)) for name in ("function-error", "function-error", "aged-out")]
    assert summary(found) == (
        "3 in the failure queue: 2 failed (renderbell-NotifierFunction-D28B697B198C), "
        "1 aged out (renderbell-PollerFunction-F6E9D8474BCD)"
    )
    assert summary([]) == "the failure queue is empty"


class Session(boto3.Session):
    """Hands out prepared clients."""

    def __init__(self, **prepared: Any) -> None:
        super().__init__(region_name="eu-central-1")
        self.prepared = prepared

    def client(self, service_name: Any, *args: Any, **more: Any) -> Any:
        return self.prepared[service_name]


def test_a_stack_that_is_not_there_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    cloudformation = client("cloudformation")
    with Stubber(cloudformation) as stub:
        stub.add_client_error("describe_stacks", "ValidationError", "Stack with id other does not exist")
        assert main(["--stack", "other"], session=Session(cloudformation=cloudformation)) == 1
    assert "other does not exist" in capsys.readouterr().err
