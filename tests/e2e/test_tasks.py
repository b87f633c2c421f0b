"""The main job through the deployed stack: from the registration to the object in S3 and the verified webhook."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from local.providers.lifecycle import ProviderType
from tests.e2e.client import Client

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", autouse=True)
def deleted(client: Client) -> dict[str, Any]:
    """A task that was deleted during its copy; what is left is removed a minute later, beside other tests."""
    task = client.start("jimmy", seconds=1, size_bytes=400_000, file_trouble=[{"bytes_per_s": 10_000}])
    route = f"/tasks/{task['task_id']}"
    client.until(lambda: client.task(task["task_id"])["status"] == "COPYING", "the copy")
    refused = client.call("DELETE", route)
    assert (refused.status_code, refused.json()["code"]) == (409, "task_running")
    answer = client.call("DELETE", f"{route}?force=true")
    assert (answer.status_code, answer.json()) == (202, {"task_id": task["task_id"], "deleted": True})
    calls = [
        ("GET", route),
        ("DELETE", f"{route}?force=true"),
        ("POST", f"{route}/cancel"),
        ("GET", f"{route}/videos/1"),
    ]
    assert [client.call(*one).status_code for one in calls] == [404] * 4
    return task


def test_a_task_of_every_provider_ends_in_s3_and_at_the_webhook(client: Client) -> None:
    tasks = {kind: client.start(kind.value, seconds=4, size_bytes=300_000) for kind in ProviderType}
    for kind, task in tasks.items():
        done = client.ended(task["task_id"])
        assert done["status"] == "COMPLETED", done
        states = [line["to"] for line in done["history"]]
        assert states[0] == "QUEUED"
        assert states[-2:] == ["COPYING", "COMPLETED"]
        (video,) = done["videos"]
        source = client.house.simulators.file(kind.value, task["provider_task_id"])
        assert (video["size_bytes"], video["sha256"]) == (source.size_bytes, source.sha256)
        assert client.stored(video) == (source.size_bytes, source.sha256)
        assert video["content_type"] == "video/mp4"
        received = client.told(task["task_id"], "task.completed")
        data = json.loads(received.body)["data"]
        assert data["videos"] == done["videos"]
        assert data["provider"] == kind.value


def test_a_video_beyond_32_mib_is_copied_in_parts(client: Client) -> None:
    size = 35 * 1024 * 1024
    task = client.start("moneyprinterturbo", seconds=1, size_bytes=size)
    done = client.ended(task["task_id"])
    (video,) = done["videos"]
    source = client.house.simulators.file("moneyprinterturbo", task["provider_task_id"])
    assert (video["size_bytes"], video["sha256"]) == (size, source.sha256)
    assert client.stored(video) == (size, source.sha256)


def test_several_videos_of_one_task_are_all_stored(client: Client) -> None:
    task = client.start("moneyprinterturbo", seconds=1, videos=3, size_bytes=100_000)
    done = client.ended(task["task_id"])
    assert [video["n"] for video in done["videos"]] == [1, 2, 3]
    for video in done["videos"]:
        source = client.house.simulators.file("moneyprinterturbo", task["provider_task_id"], video["n"])
        assert client.stored(video) == (100_000, source.sha256)


def test_a_stored_video_is_fetched_through_a_presigned_link(client: Client) -> None:
    task = client.start("jimmy", seconds=1, size_bytes=100_000)
    done = client.ended(task["task_id"])
    (video,) = done["videos"]
    assert video["url"] == f"{client.house.stack.api_url}/tasks/{task['task_id']}/videos/1"
    shown = client.call("GET", f"/tasks/{task['task_id']}/videos/1")
    assert shown.status_code == 302
    with requests.Session() as anonymous:
        anonymous.trust_env = False
        part = anonymous.get(shown.headers["location"], headers={"Range": "bytes=0-99"}, timeout=30)
        assert (part.status_code, len(part.content)) == (206, 100)
        asked = client.call("GET", f"/tasks/{task['task_id']}/videos/1?redirect=false&download=true")
        assert asked.status_code == 200
        whole = anonymous.get(asked.json()["url"], timeout=30)
        assert len(whole.content) == 100_000
        assert whole.headers["content-disposition"].startswith("attachment;")
    assert client.call("GET", f"/tasks/{task['task_id']}/videos/2").status_code == 404


def test_a_task_that_fails_at_its_provider_is_told_as_failed(client: Client) -> None:
    task = client.start("capcut-mate", seconds=2, outcome="fail", error="导出草稿失败")
    done = client.ended(task["task_id"])
    assert (done["status"], done["error"]["code"]) == ("FAILED", "provider_failed")
    assert "导出草稿失败" in done["error"]["message"]
    data = json.loads(client.told(task["task_id"], "task.failed").body)["data"]
    assert data["error"] == done["error"]
    assert done["videos"] == []


def test_a_cancelled_task_stays_cancelled_whatever_its_provider_does(client: Client) -> None:
    task = client.start("scenext", seconds=5)
    client.until(lambda: client.polled_at(task), "the first poll")
    answer = client.call("POST", f"/tasks/{task['task_id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "CANCELLED")
    client.told(task["task_id"], "task.cancelled")
    again = client.call("POST", f"/tasks/{task['task_id']}/cancel")
    assert again.status_code == 200
    later = client.start("scenext", seconds=7)
    assert client.ended(later["task_id"])["status"] == "COMPLETED"
    assert client.task(task["task_id"])["status"] == "CANCELLED"
    kinds = [one.type for one in client.house.receiver.received(task_id=task["task_id"])]
    assert kinds == ["task.cancelled"]


def test_a_provider_that_answers_500_for_a_while_costs_only_time(client: Client) -> None:
    trouble = [{"from_s": 0, "to_s": 8, "status": 500}, {"from_s": 8, "to_s": 12, "status": 429, "retry_after": 2}]
    task = client.start("mingyan", seconds=13, trouble=trouble)
    seen = client.until(lambda: client.task(task["task_id"])["last_poll_error"], "the poll error")
    assert seen["kind"] == "unavailable"
    done = client.ended(task["task_id"])
    assert done["status"] == "COMPLETED"
    assert done["last_poll_error"] is None
    client.told(task["task_id"], "task.completed")


def test_a_providers_nonsense_is_kept_and_polled_again(client: Client) -> None:
    trouble = [{"from_s": 0, "to_s": 5, "status": 200, "body": "<html>we are down</html>"}]
    task = client.start("jimmy", seconds=6, trouble=trouble)
    seen = client.until(lambda: client.task(task["task_id"])["last_poll_error"], "the poll error")
    assert seen["kind"] == "protocol"
    assert "we are down" in seen["message"]
    assert client.ended(task["task_id"])["status"] == "COMPLETED"


def test_a_page_where_a_video_should_be_is_not_stored(client: Client) -> None:
    task = client.start("jimmy", seconds=1, size_bytes=100_000, file_trouble=[{"times": 1, "html": True}])
    done = client.ended(task["task_id"])
    (video,) = done["videos"]
    assert client.stored(video)[0] == 100_000
    broken = client.start("jimmy", seconds=1, file_trouble=[{"html": True}])
    seen = client.until(lambda: client.task(broken["task_id"])["last_poll_error"], "the copy's error")
    assert "no video" in seen["message"]
    s3 = client.house.stack.session().client("s3", endpoint_url=client.house.stack.aws_endpoint_url)
    listed = s3.list_objects_v2(Bucket=client.house.stack.bucket, Prefix=f"default/{broken['task_id']}/")
    assert listed["KeyCount"] == 0


def test_a_receiver_that_fails_first_gets_the_same_message_again(client: Client) -> None:
    client.house.receiver.order("/hooks/flaky", fail=1, status=503)
    task = client.start("jimmy", seconds=1, asked={"webhook_url": client.hook("flaky")})
    client.ended(task["task_id"])
    received = client.told(task["task_id"], "task.completed")
    assert received.answers == [503, 204]
    assert received.webhook_id == f"evt_{task['task_id']}_task_completed"
    shown = client.until(
        lambda: next((one for one in client.task(task["task_id"])["deliveries"] if one["state"] == "delivered"), None),
        "the delivery's end",
    )
    assert shown["tries"] == 2


def test_processing_is_told_on_request(client: Client) -> None:
    events = ["task.processing", "task.completed"]
    hooks = [{"url": client.hook("both"), "events": events}, {"url": client.hook("end")}]
    provider_task_id = client.house.simulators.create("jimmy", seconds=5)
    body = {"connection": "jimmy", "provider_task_id": provider_task_id, "webhooks": hooks, "metadata": {"a": "ü"}}
    task = client.call("POST", "/tasks", json=body).json()
    client.told(task["task_id"], "task.processing")
    client.ended(task["task_id"])
    client.told(task["task_id"], "task.completed")
    ends = client.house.receiver.received(task_id=task["task_id"], path="/hooks/end")
    assert [one.type for one in ends] == ["task.completed"]
    assert json.loads(ends[0].body)["data"]["metadata"] == {"a": "ü"}


def test_a_task_that_has_ended_is_deleted_and_its_render_registered_anew(client: Client) -> None:
    task = client.start("jimmy", seconds=1, size_bytes=100_000)
    client.ended(task["task_id"])
    client.told(task["task_id"], "task.completed")
    route = f"/tasks/{task['task_id']}"
    client.until(lambda: client.task(task["task_id"])["deliveries"][0]["state"] == "delivered", "the delivery's end")
    assert client.call("DELETE", route).status_code == 202
    assert client.call("GET", route).status_code == 404
    assert client.call("GET", f"{route}/videos/1").status_code == 404
    again = client.call("POST", "/tasks", json={"connection": "jimmy", "provider_task_id": task["provider_task_id"]})
    assert again.status_code == 201
    assert client.ended(again.json()["task_id"])["status"] == "COMPLETED"


def test_a_task_that_was_deleted_during_its_copy_leaves_nothing_behind(client: Client, deleted: dict[str, Any]) -> None:
    assert client.until(lambda: client.remains(deleted) == [], "the removal")
    assert client.house.receiver.received(task_id=deleted["task_id"]) == []
