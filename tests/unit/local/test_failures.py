"""What an operator is told of the messages in the failure queue."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from botocore.stub import Stubber

from local.failures import FailureQueue, main, read_failure, summary

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
        "VisibilityTimeout": 300,
        "WaitTimeSeconds": 1,
        "MessageSystemAttributeNames": ["SentTimestamp"],
        "MessageAttributeNames": ["All"],
    }


def given(stub: Stubber, *batches: list[Any]) -> None:
    """What the queue answers, and three times nothing then."""
    for messages in (*batches, [], [], []):
        stub.add_response("receive_message", {"Messages": messages} if messages else {}, asked())


def test_all_messages_are_read_in_the_order_of_time_and_each_once() -> None:
    sqs = client("sqs")
    first, second = sample("function-error"), sample("aged-out")
    with Stubber(sqs) as stub:
        given(stub, [second], [second], [first])
        found = FailureQueue(sqs, QUEUE).read()
        stub.assert_no_pending_responses()
    assert [one.reason for one in found] == ["failed", "aged out"]


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


def stack_found(stub: Stubber) -> None:
    stack = {
        "StackName": "renderbell",
        "CreationTime": "2026-11-22T00:00:00Z",
        "StackStatus": "CREATE_COMPLETE",
        "Outputs": [{"OutputKey": "FailureQueueUrl", "OutputValue": QUEUE}],
    }
    stub.add_response("describe_stacks", {"Stacks": [stack]}, {"StackName": "renderbell"})


def test_what_was_looked_at_is_put_back_into_sight(capsys: pytest.CaptureFixture[str]) -> None:
    cloudformation, sqs = client("cloudformation"), client("sqs")
    messages = [sample("function-error"), sample("aged-out")]
    with Stubber(cloudformation) as stack, Stubber(sqs) as stub:
        stack_found(stack)
        given(stub, messages)
        for message in messages:
            seen = {"QueueUrl": QUEUE, "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}
            stub.add_response("change_message_visibility", {}, seen)
        assert main([], session=Session(cloudformation=cloudformation, sqs=sqs)) == 0
        stub.assert_no_pending_responses()
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_nothing_is_removed_before_all_has_been_shown(capsys: pytest.CaptureFixture[str]) -> None:
    cloudformation, sqs = client("cloudformation"), client("sqs")
    messages = [sample("function-error"), sample("aged-out")]
    shown: list[str] = []

    def note_what_is_shown(**_: object) -> None:
        shown.append(capsys.readouterr().out)

    sqs.meta.events.register("before-parameter-build.sqs.DeleteMessage", note_what_is_shown)
    with Stubber(cloudformation) as stack, Stubber(sqs) as stub:
        stack_found(stack)
        given(stub, messages)
        for message in messages:
            gone = {"QueueUrl": QUEUE, "ReceiptHandle": message["ReceiptHandle"]}
            stub.add_response("delete_message", {}, gone)
        assert main(["--delete"], session=Session(cloudformation=cloudformation, sqs=sqs)) == 0
        stub.assert_no_pending_responses()
    assert shown[0].splitlines() == [
        *(read_failure(message).line() for message in messages),
        "2 in the failure queue: 1 failed (renderbell-NotifierFunction-D28B697B198C), "
        "1 aged out (renderbell-PollerFunction-F6E9D8474BCD)",
    ]


def test_what_could_not_be_shown_is_not_removed() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    cloudformation, sqs = client("cloudformation"), client("sqs")
    message = sample("function-error")
    with Stubber(cloudformation) as stack, Stubber(sqs) as stub:
        stack_found(stack)
        given(stub, [message])
        seen = {"QueueUrl": QUEUE, "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}
        stub.add_response("change_message_visibility", {}, seen)
        with redirect_stdout(Broken()), pytest.raises(BrokenPipeError):
            main(["--delete"], session=Session(cloudformation=cloudformation, sqs=sqs))
        stub.assert_no_pending_responses()


def test_a_stack_that_is_not_there_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    cloudformation = client("cloudformation")
    with Stubber(cloudformation) as stub:
        stub.add_client_error("describe_stacks", "ValidationError", "Stack with id other does not exist")
        assert main(["--stack", "other"], session=Session(cloudformation=cloudformation)) == 1
    told = capsys.readouterr().err
    assert "other in eu-central-1" in told
    assert "other does not exist" in told
    assert "REGION=" in told
