"""A task as webhooks and the API show it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from renderbell.delivery import Delivery, DeliveryState, new_delivery
from renderbell.providers import ProviderTime
from renderbell.task import (
    ErrorCode,
    FileKind,
    Frames,
    PollError,
    Request,
    Source,
    Status,
    Task,
    TaskError,
    Transition,
    Webhook,
    new_task,
)
from renderbell.views import example_view, iso_time, task_data, task_view
from tests.deployment import Deployment, Said
from tests.fakes import START, stored_file

TASK_ID = f"tsk_{1:026d}"


def a_task() -> Task:
    return new_task(
        task_id=TASK_ID,
        owner="default",
        connection="studio",
        provider="jimmy",
        provider_task_id="job/7",
        now=START,
        deadline_s=3600,
        slot=3,
        tells_processing=False,
    )


def a_request(**changes: object) -> Request:
    request = Request(
        task_id=TASK_ID, owner="default", created_at=START, deadline_s=3600, base_url="https://api.example/v1", ttl=0
    )
    return replace(request, **changes)  # type: ignore[arg-type]


def test_a_new_task_shows_every_field_even_where_nothing_is_known_yet() -> None:
    assert task_data(a_task(), a_request()).model_dump(mode="json") == {
        "task_id": TASK_ID,
        "owner": "default",
        "connection": "studio",
        "provider": "jimmy",
        "provider_task_id": "job/7",
        "retry_of": None,
        "status": "QUEUED",
        "progress": None,
        "metadata": {},
        "created_at": "2026-03-01T12:00:00.000Z",
        "expires_at": "2026-03-01T13:00:00.000Z",
        "times": {
            "queued_at": "2026-03-01T12:00:00.000Z",
            "processing_at": None,
            "copying_at": None,
            "ended_at": None,
        },
        "model": None,
        "duration_s": None,
        "frames": None,
        "provider_times": {},
        "error": None,
        "history": [{"at": "2026-03-01T12:00:00.000Z", "from": None, "to": "QUEUED", "reason": "registered"}],
        "sources": [],
        "videos": [],
    }


def test_a_stored_file_is_shown_with_a_lasting_link_and_without_the_sources() -> None:
    task = replace(
        a_task(),
        status=Status.COMPLETED,
        files=(stored_file(2, key="default/tsk/2.mp4"),),
        sources=(Source(FileKind.VIDEO, "https://cdn.example/1.mp4"),),
    )
    for base_url in ("https://api.example/v1", "https://api.example/v1/"):
        shown = task_data(task, a_request(base_url=base_url)).model_dump(mode="json")
        assert shown["sources"] == []
        assert shown["videos"] == [
            {
                "n": 2,
                "kind": "video",
                "url": f"https://api.example/v1/tasks/{TASK_ID}/videos/2",
                "s3_uri": "s3://videos/default/tsk/2.mp4",
                "bucket": "videos",
                "key": "default/tsk/2.mp4",
                "size_bytes": 1234,
                "sha256": stored_file().sha256,
                "content_type": "video/mp4",
                "duration_s": None,
                "source_url": "https://cdn.example/1.mp4",
            }
        ]


def test_a_task_that_is_not_copied_yet_shows_the_providers_links() -> None:
    task = replace(a_task(), status=Status.COPYING, sources=(Source(FileKind.VIDEO, "https://cdn.example/1.mp4"),))
    shown = task_data(task, a_request()).model_dump(mode="json")
    assert shown["sources"] == [{"kind": "video", "url": "https://cdn.example/1.mp4"}]
    assert shown["videos"] == []


def test_an_image_beside_the_video_that_a_provider_made_is_shown() -> None:
    world = Deployment()
    links = {"video_url": "https://cdn.example/1.mp4", "image_url": "https://cdn.example/cover.png"}
    task_id = world.register(Said(0, {"status": "completed", "progress": 100, "result": links}))
    world.run(10)
    shown = task_data(world.task(task_id), a_request()).model_dump(mode="json")
    assert shown["status"] == "COMPLETED"
    assert [one["kind"] for one in shown["videos"]] == ["video"]
    assert shown["frames"] == {"count": 1, "newest": "https://cdn.example/cover.png"}


def test_what_the_provider_says_is_kept_apart_and_untouched() -> None:
    task = replace(
        a_task(),
        status=Status.FAILED,
        error=TaskError(ErrorCode.PROVIDER_FAILED, "out of credits"),
        frames=Frames(3, "https://cdn.example/f3.png"),
        provider_times={
            "finished_at": ProviderTime(1772366400, START),
            "created_at": ProviderTime("2026-03-01 20:00:00", None),
        },
    )
    shown = task_data(task, a_request()).model_dump(mode="json")
    assert shown["error"] == {"code": "provider_failed", "message": "out of credits"}
    assert shown["frames"] == {"count": 3, "newest": "https://cdn.example/f3.png"}
    assert shown["provider_times"] == {
        "created_at": {"raw": "2026-03-01 20:00:00", "at": None},
        "finished_at": {"raw": 1772366400, "at": "2026-03-01T12:00:00.000Z"},
    }
    assert type(shown["provider_times"]["finished_at"]["raw"]) is int


def test_the_order_of_mappings_does_not_change_the_bytes() -> None:
    one = task_data(a_task(), a_request(metadata={"b": "2", "a": "1"}))
    other = task_data(a_task(), a_request(metadata={"a": "1", "b": "2"}))
    assert one.model_dump_json() == other.model_dump_json()
    assert '"metadata":{"a":"1","b":"2"}' in one.model_dump_json()


def test_a_time_is_utc_and_has_one_form() -> None:
    assert iso_time(datetime(2026, 3, 1, 20, 0, 0, 1999, tzinfo=timezone(timedelta(hours=8)))) == (
        "2026-03-01T12:00:00.001Z"
    )


def test_only_the_api_shows_webhooks_deliveries_and_the_last_poll_error() -> None:
    webhook = Webhook("https://example.com/hook", ("task.completed",))
    task = replace(a_task(), last_poll_error=PollError("auth", "401", START))
    delivery = a_delivery("task.completed", START)
    shown = task_view(task, a_request(webhooks=(webhook,)), (delivery,)).model_dump(mode="json")
    assert shown["webhooks"] == [{"url": "https://example.com/hook", "events": ["task.completed"]}]
    assert shown["last_poll_error"] == {"kind": "auth", "message": "401", "at": "2026-03-01T12:00:00.000Z"}
    assert shown["deliveries"] == [
        {
            "event": "task.completed",
            "endpoint_id": "url_0123",
            "url": "https://example.com/hook",
            "state": "pending",
            "created_at": "2026-03-01T12:00:00.000Z",
            "tries": 0,
            "next_attempt_at": "2026-03-01T12:01:00.000Z",
            "last_attempt_at": None,
            "last_status": None,
            "last_error": None,
        }
    ]
    told = task_data(task, a_request(webhooks=(webhook,))).model_dump(mode="json")
    assert set(shown) - set(told) == {"webhooks", "deliveries", "last_poll_error"}


def test_deliveries_stand_in_the_order_of_their_events() -> None:
    later = a_delivery("task.completed", START + timedelta(seconds=5))
    sooner = replace(a_delivery("task.processing", START), state=DeliveryState.DELIVERED, due_at=None)
    shown = task_view(a_task(), a_request(), (later, sooner))
    assert [one.event for one in shown.deliveries] == ["task.processing", "task.completed"]
    assert shown.deliveries[0].next_attempt_at is None


def test_the_example_of_the_documents_is_a_finished_task() -> None:
    shown = example_view("https://api.example").model_dump(mode="json")
    assert shown["status"] == "COMPLETED"
    assert shown["history"][-1]["to"] == "COMPLETED"
    assert shown["videos"][0]["url"].startswith("https://api.example/tasks/tsk_")


def a_delivery(event: str, at: datetime) -> Delivery:
    return new_delivery(
        task_id=TASK_ID,
        owner="default",
        event=event,
        endpoint_id="url_0123",
        receiver="example.com",
        url="https://example.com/hook",
        slot=3,
        ttl=None,
        now=at,
    )


def test_the_time_of_each_state_is_that_of_the_history() -> None:
    steps = (Status.QUEUED, Status.PROCESSING, Status.COPYING, Status.COMPLETED)
    history = tuple(
        Transition(START + timedelta(seconds=n), before, after, "so")
        for n, (before, after) in enumerate(zip((None, *steps), steps, strict=False))
    )
    whole = replace(a_task(), status=Status.COMPLETED, history=history)
    assert task_data(whole, a_request()).model_dump(mode="json")["times"] == {
        "queued_at": "2026-03-01T12:00:00.000Z",
        "processing_at": "2026-03-01T12:00:01.000Z",
        "copying_at": "2026-03-01T12:00:02.000Z",
        "ended_at": "2026-03-01T12:00:03.000Z",
    }
    running = task_data(replace(whole, status=Status.COPYING, history=history[:3]), a_request()).times
    assert (running.copying_at, running.ended_at) == (START + timedelta(seconds=2), None)


def test_the_length_of_a_video_is_told_where_there_is_one_alone() -> None:
    one, image, other = stored_file(1), replace(stored_file(2), kind=FileKind.IMAGE), stored_file(3)
    task = replace(a_task(), status=Status.COMPLETED, duration_s=4.5)
    for files, told in (((one, image), [4.5, None]), ((one, other), [None, None])):
        shown = task_data(replace(task, files=files), a_request())
        assert [video.duration_s for video in shown.videos] == told


def test_a_retry_names_the_task_that_it_takes_up() -> None:
    assert task_data(a_task(), a_request(retry_of="tsk_0")).retry_of == "tsk_0"
