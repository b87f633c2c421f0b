"""What the demo takes for a success, and how it shows the way there."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from local.demo import (
    PlainView,
    Run,
    StoredObject,
    TaskAnswer,
    VideoAnswer,
    description,
    problems_of,
    results_table,
    verdict,
)
from local.providers.video import VideoFile
from local.receiver import Received

SOURCE = VideoFile("jimmy/a/1")


def task(status: str = "COMPLETED", *, progress: int | None = 100, sha256: str = SOURCE.sha256) -> TaskAnswer:
    video = VideoAnswer(n=1, bucket="videos", key="default/tsk_1/1.mp4", size_bytes=SOURCE.size_bytes, sha256=sha256)
    return TaskAnswer(
        task_id="tsk_1",
        connection="jimmy",
        provider="jimmy",
        provider_task_id="a",
        status=status,
        progress=progress,
        error=None,
        last_poll_error=None,
        videos=(video,) if status == "COMPLETED" else (),
    )


def webhook(kind: str = "task.completed", *, verified: bool = True) -> Received:
    return Received(
        path="/hooks/jimmy",
        webhook_id="evt_tsk_1_task_completed",
        type=kind,
        task_id="tsk_1",
        verified=verified,
        body=b"{}",
        body_sha="0",
        headers={},
        at=datetime(2026, 3, 1, tzinfo=UTC),
        attempts=1,
    )


def good() -> Run:
    stored = StoredObject("videos", "default/tsk_1/1.mp4", SOURCE.size_bytes, SOURCE.sha256)
    return Run(task(), [stored], [webhook()])


def test_a_stored_and_told_render_has_no_problems() -> None:
    assert problems_of(good(), [SOURCE]) == []


def test_a_task_that_did_not_complete_is_a_problem() -> None:
    one = good()
    one.task, one.stored = task("FAILED"), []
    assert "FAILED" in problems_of(one, [SOURCE])[0]


def test_a_missing_video_is_a_problem() -> None:
    assert problems_of(good(), [SOURCE, SOURCE]) == ["1 videos are stored, the provider made 2"]


@pytest.mark.parametrize("stored", [("0" * 64, SOURCE.size_bytes), (SOURCE.sha256, 1)])
def test_an_object_that_differs_from_its_source_is_a_problem(stored: tuple[str, int]) -> None:
    one = good()
    one.stored = [StoredObject("videos", "k", stored[1], stored[0])]
    assert any("differs from the provider's file" in problem for problem in problems_of(one, [SOURCE]))


def test_a_checksum_that_the_api_tells_wrongly_is_a_problem() -> None:
    one = good()
    one.task = task(sha256="0" * 64)
    assert any("the API tells another" in problem for problem in problems_of(one, [SOURCE]))


def test_a_missing_webhook_is_a_problem_and_so_is_one_of_another_type() -> None:
    one = good()
    for one.webhooks in ([], [webhook("task.failed")]):
        assert problems_of(one, [SOURCE]) == ["no webhook task.completed arrived"]


def test_a_webhook_with_a_bad_signature_is_a_problem() -> None:
    one = good()
    one.webhooks = [webhook(verified=False)]
    assert problems_of(one, [SOURCE]) == ["webhook evt_tsk_1_task_completed was not verified"]


def test_the_verdict_counts_what_happened() -> None:
    failed = Run(task("FAILED"), [], [webhook(verified=False)])
    assert verdict([good(), good()]) == "2 of 2 videos stored, 2 of 2 webhooks verified"
    assert verdict([good(), failed]) == "1 of 2 videos stored, 1 of 2 webhooks verified"


def test_the_demo_file_says_what_is_stored_and_who_was_told() -> None:
    assert description("http://api", "rbk_1", [good()]) == {
        "api_url": "http://api",
        "api_key": "rbk_1",
        "tasks": [
            {
                "task_id": "tsk_1",
                "connection": "jimmy",
                "provider": "jimmy",
                "status": "COMPLETED",
                "videos": [
                    {
                        "bucket": "videos",
                        "key": "default/tsk_1/1.mp4",
                        "size_bytes": SOURCE.size_bytes,
                        "sha256": SOURCE.sha256,
                    }
                ],
                "webhooks": [
                    {
                        "type": "task.completed",
                        "webhook_id": "evt_tsk_1_task_completed",
                        "verified": True,
                        "attempts": 1,
                    }
                ],
            }
        ],
    }


def test_without_a_terminal_every_change_is_one_line() -> None:
    out = io.StringIO()
    view = PlainView(Console(file=out))
    for status, progress in (
        ("QUEUED", None),
        ("QUEUED", None),
        ("PROCESSING", 40),
        ("PROCESSING", 40),
        ("COPYING", 100),
    ):
        view.show(task(status, progress=progress))
    assert [line.split() for line in out.getvalue().splitlines()] == [
        ["jimmy", "QUEUED"],
        ["jimmy", "PROCESSING", "40", "%"],
        ["jimmy", "COPYING", "100", "%"],
    ]


def test_the_results_fit_into_80_columns() -> None:
    out = io.StringIO()
    one = good()
    one.stored = [StoredObject("videos", "default/tsk_01m816xt3330j8zpsvfyj4fh0r/1.mp4", 40_000_000, "f" * 64)]
    Console(file=out, width=80).print(results_table([one]))
    text = out.getvalue()
    for word in ("jimmy", "COMPLETED", "40,000,000", "ffffffffffff…", "task.completed", "verified", "1.mp4"):
        assert word in text
