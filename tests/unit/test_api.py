"""The API through its Lambda handler, with API Gateway's events."""

from __future__ import annotations

import base64
import json
import re
from datetime import timedelta

import pytest

from renderbell.api import base_url_of
from renderbell.endpoints import derive_secret
from renderbell.task import FileKind, Source, Status, Transition
from tests.fakes import (
    START,
    captured_log,
    stored_file,
)
from tests.http_api import BASE_URL, HOOK, MASTER, Answer, World, about, asking, sample

# -- registering ----------------------------------------------------------------------------------------------------


def test_the_sample_event_registers_a_task() -> None:
    world = World()
    answer = world.send(sample("register"))
    assert answer.status == 201
    assert answer.headers["content-type"] == "application/json"
    shown = answer.json
    assert (shown["status"], shown["owner"], shown["connection"], shown["provider"]) == (
        "QUEUED",
        "default",
        "studio",
        "jimmy",
    )
    assert shown["metadata"] == {"order": "4711"}
    assert shown["webhooks"][0]["url"] == "https://example.com/hooks/renders"
    assert shown["history"] == [
        {"at": "2026-03-01T12:00:00.000Z", "from": None, "to": "QUEUED", "reason": "registered"}
    ]
    assert world.request(shown["task_id"]).base_url == BASE_URL


def test_registering_again_answers_200_and_with_other_settings_409_with_the_id() -> None:
    world = World()
    task_id = world.registered(webhook_url=HOOK)
    again = world.register()
    assert (again.status, again.json["task_id"]) == (200, task_id)
    other = world.register({"connection": "studio", "provider_task_id": "job-7", "webhook_url": HOOK + "/2"})
    assert other.problem(409, "already_registered")["task_id"] == task_id


def test_links_start_with_the_public_base_url_where_there_is_one() -> None:
    world = World(public_base_url="https://renders.example.com/")
    task_id = world.registered()
    assert world.request(task_id).base_url == "https://renders.example.com"


def test_the_base_url_is_where_the_call_came_to() -> None:
    event = sample("cancel")
    assert base_url_of(event) == BASE_URL
    event["requestContext"] |= {"domainName": "api.example.com", "path": f"/renders{event['path']}"}
    assert base_url_of(event) == "https://api.example.com/renders"
    event["requestContext"]["path"] = event["path"] + "/"
    assert base_url_of(event) == "https://api.example.com"
    del event["requestContext"]["domainName"]
    event["headers"] = {"HOST": "127.0.0.1:4566", "X-Forwarded-Proto": "http"}
    assert base_url_of(event) == "http://127.0.0.1:4566"


def test_a_body_is_read_as_json_whatever_the_client_calls_it() -> None:
    for content_type in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data", ""):
        event = sample("register")
        event["headers"]["Content-Type"] = content_type
        assert World().send(event).status == 201
    event = sample("register")
    del event["headers"]["Content-Type"]
    assert World().send(event).status == 201


def test_a_body_in_base64_is_read() -> None:
    event = sample("register")
    event |= {"body": base64.b64encode(event["body"].encode()).decode(), "isBase64Encoded": True}
    assert World().send(event).status == 201


# -- bad input ------------------------------------------------------------------------------------------------------


def fields_of(answer: Answer) -> set[str]:
    return {one["field"] for one in answer.problem(422, "invalid_input")["errors"]}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "not json",
        "[" * 50_000,
        '{"a":' * 10_000,
        '{"deadline_s": ' + "9" * 5000 + "}",
        "\ufeff{}",
        '{"connection": "studio",}',
    ],
)
def test_malformed_json_is_422_and_nothing_is_kept(text: str) -> None:
    world = World()
    answer = world.register(raw=text)
    assert fields_of(answer) == {"body"}
    assert answer.json["errors"][0]["code"] == "json_invalid"
    assert world.task_ids() == []


@pytest.mark.parametrize("body", ["%%%", base64.b64encode(b"\xff\xfe{}").decode()])
def test_a_body_that_is_no_text_is_422(body: str) -> None:
    assert fields_of(World().send(sample("register") | {"body": body, "isBase64Encoded": True})) == {"body"}


@pytest.mark.parametrize("text", ["", "[]", "null", '"text"', "7", "true", "[{}]"])
def test_a_body_that_is_no_object_is_422(text: str) -> None:
    assert fields_of(World().register(raw=text)) == {"body"}


def test_a_missing_body_is_422() -> None:
    assert fields_of(World().send(sample("register") | {"body": None})) == {"body"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colour": "red", "x" * 500: 1}, {"colour", "x" * 200 + "…"}),
        ({"connection": "nowhere"}, {"connection"}),
        ({"connection": 7}, {"connection"}),
        ({"provider_task_id": ""}, {"provider_task_id"}),
        ({"provider_task_id": ".."}, {"provider_task_id"}),
        ({"provider_task_id": "a\u0000b"}, {"provider_task_id"}),
        ({"provider_task_id": "x" * 2049}, {"provider_task_id"}),
        ({"provider_task_id": "\ud800"}, {"provider_task_id"}),
        ({"webhook_url": "http://hooks.example.com/"}, {"webhook_url"}),
        ({"webhook_url": "https://10.0.0.1/"}, {"webhook_url"}),
        ({"webhook_url": "https://hooks.example.com/\ud800"}, {"webhook_url"}),
        ({"webhook_url": "https://hooks.example.com/" + "x" * 3000}, {"webhook_url"}),
        ({"webhooks": [{"url": HOOK}, {"url": "https://localhost/"}]}, {"webhooks.1.url"}),
        ({"webhooks": [{"url": HOOK, "events": ["nothing"]}]}, {"webhooks.0.events.0"}),
        ({"webhooks": [{"url": f"{HOOK}/{n}"} for n in range(21)]}, {"webhooks"}),
        ({"webhook_url": HOOK, "webhooks": []}, {"webhooks"}),
        ({"webhook_url": "ftp://x", "webhooks": [{"url": HOOK}]}, {"webhooks"}),
        ({"provider_task_id": "job-\ufffd"}, {"provider_task_id"}),
        ({"metadata": {"a": "x" * 5000}}, {"metadata"}),
        ({"metadata": {"a": "\ud800"}}, {"metadata"}),
        ({"metadata": {"a": 1, "b": []}}, {"metadata.a", "metadata.b"}),
        ({"deadline_s": 5}, {"deadline_s"}),
        ({"deadline_s": float("nan")}, {"deadline_s"}),
        ({"deadline_s": float("inf")}, {"deadline_s"}),
        ({"deadline_s": 90.5}, {"deadline_s"}),
        ({"\ud800": 1}, {"body"}),
        ({"connection": None, "deadline_s": "soon"}, {"connection", "deadline_s"}),
    ],
)
def test_what_cannot_be_used_is_422_that_names_every_field(change: dict[str, object], named: set[str]) -> None:
    world = World()
    answer = world.register({"connection": "studio", "provider_task_id": "job-7", **change})
    assert fields_of(answer) == named
    assert world.task_ids() == []
    assert world.invoker.invoked == []


@pytest.mark.parametrize("secret", ["rbk_0123456789abcdefgh", "whsec_SjJAw80Tu9uefwGhiOl7oSuezp1s/9fQrlR+0gT+qmg="])
def test_a_key_in_a_wrong_place_is_not_repeated(secret: str) -> None:
    for change in (
        {secret: 1},
        {"metadata": {secret: 1}},
        {"metadata": {"key": [secret]}},
        {"deadline_s": secret},
        {"connection": [secret]},
        {"webhook_url": f"https://{secret}.internal/"},
        {"webhook_url": f"https://me:{secret}@example.com/"},
    ):
        answer = World().register({"connection": "studio", "provider_task_id": "job-7", **change})
        answer.problem(422, "invalid_input")
        assert secret[6:].lower() not in (answer.text or "").lower(), list(change)


def test_a_body_of_many_unknown_fields_gets_a_short_answer_that_counts_the_rest() -> None:
    many = {f"{n:05d}" + "x" * 5: n for n in range(3000)}
    answer = World().register({"connection": "studio", "provider_task_id": "job-7", **many})
    told = answer.problem(422, "invalid_input")
    assert len(told["errors"]) == 20
    assert len({one["field"] for one in told["errors"]}) == 20
    assert told["detail"].endswith(" and 2980 more")
    assert len(answer.text or "") < 5_000


def test_no_more_are_counted_where_all_are_named() -> None:
    answer = World().register(
        {"connection": "studio", "provider_task_id": "job-7", **dict.fromkeys("abcdefghijklmnopqrst")}
    )
    told = answer.problem(422, "invalid_input")
    assert len(told["errors"]) == 20
    assert "more" not in told["detail"]


def test_a_missing_field_is_named() -> None:
    assert fields_of(World().register({})) == {"connection", "provider_task_id"}


def test_an_error_never_repeats_what_was_sent() -> None:
    secret = "hunter2"
    for body in (
        {"connection": secret, "provider_task_id": "x"},
        {"connection": "studio", "provider_task_id": [secret]},
        {"connection": "studio", "provider_task_id": "x", "webhook_url": f"http://u:{secret}@h.example.com/{secret}"},
        {"connection": "studio", "provider_task_id": "x", "metadata": {"a": [secret]}},
        {"connection": "studio", "provider_task_id": "x", "deadline_s": secret},
        {"connection": "studio", "provider_task_id": "x", "colour": secret},
        [secret],
    ):
        answer = World().register(body)
        fields_of(answer)
        assert secret not in str(answer)
    assert secret not in str(World().register(raw=f'{{"connection": "{secret}"'))


def test_a_body_over_64_kib_is_413() -> None:
    world = World()
    world.register(raw=" " * (64 * 1024 + 1)).problem(413, "body_too_large")
    world.register(raw='"' + "é" * (32 * 1024) + '"').problem(413, "body_too_large")
    assert (
        world.register(raw=json.dumps({"connection": "studio", "provider_task_id": "x"}).ljust(64 * 1024)).status == 201
    )


# -- who may what ---------------------------------------------------------------------------------------------------


def test_a_call_without_a_word_of_the_authorizer_is_401() -> None:
    for told in (None, {}, {"owner": "default"}, {"owner": "default", "scope": "emperor", "key_id": "k"}):
        event = sample("register")
        event["requestContext"]["authorizer"] = told
        World().send(event).problem(401, "unauthorized")


def test_a_read_key_reads_but_neither_writes_nor_sees_secrets() -> None:
    world = World()
    task_id = world.registered()
    world.register(scope="read").problem(403, "forbidden")
    world.send(about("cancel", task_id, scope="read")).problem(403, "forbidden")
    world.send(about("delete", task_id, scope="read")).problem(403, "forbidden")
    world.send(sample("webhook-secret", scope="read")).problem(403, "forbidden")
    assert world.send(about("read", task_id, scope="read")).status == 200
    assert world.send(sample("connections", scope="read")).status == 200
    assert world.task(task_id).status is Status.QUEUED


def test_a_write_key_registers_cancels_and_sees_the_secret() -> None:
    world = World()
    answer = world.register(scope="write")
    assert answer.status == 201
    assert world.send(about("cancel", answer.json["task_id"], scope="write")).status == 200
    assert world.send(about("delete", answer.json["task_id"], scope="write")).status == 202
    assert world.send(sample("webhook-secret", scope="write")).status == 200


def test_another_owners_task_is_404_even_for_an_admin() -> None:
    world = World()
    task_id = world.completed()
    for name in ("read", "cancel", "delete", "video"):
        world.send(about(name, task_id, owner="team-b")).problem(404, "not_found")


# -- reading and cancelling -----------------------------------------------------------------------------------------


def test_a_task_is_read_as_it_was_answered_at_registration() -> None:
    world = World()
    answer = world.register()
    read = world.send(about("read", answer.json["task_id"]))
    assert (read.status, read.json) == (200, answer.json)


@pytest.mark.parametrize("task_id", [f"tsk_{9:026d}", "x", "..", "a b", "tsk_" + "z" * 5000])
def test_an_unknown_task_is_404(task_id: str) -> None:
    for name in ("read", "cancel", "delete", "video"):
        World().send(about(name, task_id)).problem(404, "not_found")


def test_cancelling_is_idempotent_and_a_finished_task_is_409() -> None:
    world = World()
    task_id = world.registered(webhook_url=HOOK)
    for _ in range(2):
        answer = world.send(about("cancel", task_id))
        assert (answer.status, answer.json["status"]) == (200, "CANCELLED")
        assert [one["event"] for one in answer.json["deliveries"]] == ["task.cancelled"]
    world.send(about("cancel", world.completed())).problem(409, "task_ended")


def test_the_sample_event_deletes_a_running_task_and_every_route_answers_404_from_then_on() -> None:
    world = World()
    task_id = world.registered(webhook_url=HOOK)
    answer = world.send(about("delete", task_id))
    assert (answer.status, answer.json) == (202, {"task_id": task_id, "deleted": True})
    assert answer.headers["content-type"] == "application/json"
    for name in ("read", "cancel", "delete", "video"):
        world.send(about(name, task_id)).problem(404, "not_found")
    assert world.register().status == 201, "the render can be registered anew at once"


def test_a_task_with_stored_files_is_deleted_with_them() -> None:
    world = World()
    task_id = world.completed()
    assert world.send(about("video", task_id)).status == 302
    assert world.send(asking(about("delete", task_id), force="false")).status == 202
    world.send(about("video", task_id)).problem(404, "not_found")


def test_without_force_a_task_that_runs_or_is_yet_to_be_told_of_is_409() -> None:
    world = World()
    task_id = world.registered(webhook_url=HOOK)
    asked = asking(about("delete", task_id), force="false")
    told = asked | {"queryStringParameters": None, "multiValueQueryStringParameters": None}
    for event in (asked, told):
        world.send(event).problem(409, "task_running")
    assert world.send(about("cancel", task_id)).status == 200
    for event in (asked, told):
        world.send(event).problem(409, "delivery_pending")
    assert world.send(about("read", task_id)).status == 200


def test_a_force_that_is_no_flag_is_422() -> None:
    world = World()
    task_id = world.registered()
    answer = world.send(asking(about("delete", task_id), force="maybe"))
    assert {one["field"] for one in answer.problem(422, "invalid_input")["errors"]} == {"force"}
    assert not world.task(task_id).deleted


# -- files ----------------------------------------------------------------------------------------------------------


def test_a_stored_file_is_reached_by_a_redirect() -> None:
    world = World()
    task_id = world.completed()
    answer = world.send(about("video", task_id))
    assert (answer.status, answer.text) == (302, "")
    assert answer.headers["location"] == f"https://s3.test/videos/default/{task_id}/1.mp4?for=3600&as="
    assert answer.headers["cache-control"] == "no-store"


def test_a_file_can_be_asked_for_as_an_attachment() -> None:
    world = World()
    task_id = world.completed()
    answer = world.send(asking(about("video", task_id), download="true"))
    assert answer.headers["location"].endswith(f"&as={task_id}-1.mp4")


def test_without_a_redirect_the_url_is_told_with_its_end() -> None:
    world = World()
    task_id = world.completed()
    answer = world.send(asking(about("video", task_id), redirect="false", download="false"))
    assert answer.status == 200
    assert answer.json == {
        "url": f"https://s3.test/videos/default/{task_id}/1.mp4?for=3600&as=",
        "expires_at": "2026-03-01T13:00:00.000Z",
    }


def test_a_task_without_that_file_is_404() -> None:
    world = World()
    running = world.registered()
    sources = (Source(FileKind.VIDEO, "https://cdn.example.com/1.mp4"),)
    world.change(running, status=Status.COPYING, sources=sources)
    world.send(about("video", running)).problem(404, "not_found")
    done = world.completed()
    for n in ("2", "0"):
        world.send(about("video", done, n=n)).problem(404, "not_found")


def test_a_number_that_is_none_and_an_odd_flag_are_422() -> None:
    world = World()
    task_id = world.completed()
    assert fields_of(world.send(about("video", task_id, n="one"))) == {"n"}
    assert fields_of(world.send(about("video", task_id, n="9" * 5000))) == {"n"}
    assert fields_of(world.send(asking(about("video", task_id), redirect="perhaps"))) == {"redirect"}


def test_a_file_past_its_retention_is_410() -> None:
    world = World(video_retention_days=30)
    task_id = world.completed()
    world.clock.now = START + timedelta(days=30, seconds=-1)
    assert world.send(about("video", task_id)).status == 302
    world.clock.now = START + timedelta(days=30)
    world.send(about("video", task_id)).problem(410, "video_expired")


def test_a_files_retention_counts_from_when_its_copy_began_for_s3_may_count_it_from_then() -> None:
    world = World(video_retention_days=30)
    task_id = world.registered()
    copying = Transition(world.clock(), Status.QUEUED, Status.COPYING, "the provider succeeded")
    begun = world.change(task_id, status=Status.COPYING, history=(*world.task(task_id).history, copying))
    world.clock.pass_s(5 * 3600)
    world.change(
        task_id,
        status=Status.COMPLETED,
        step=None,
        due_at=None,
        files=(stored_file(key=f"default/{task_id}/1.mp4"),),
        history=(*begun.history, Transition(world.clock(), Status.COPYING, Status.COMPLETED, "copied")),
    )
    world.clock.now = START + timedelta(days=30, seconds=-1)
    assert world.send(about("video", task_id)).status == 302
    world.clock.now = START + timedelta(days=30)
    world.send(about("video", task_id)).problem(410, "video_expired")


def test_without_a_retention_rule_a_file_stays() -> None:
    world = World(video_retention_days=0)
    task_id = world.completed()
    world.clock.now = START + timedelta(days=40)
    assert world.send(about("video", task_id)).status == 302


# -- everything else ------------------------------------------------------------------------------------------------


def test_every_owner_has_a_webhook_secret_of_their_own() -> None:
    world = World()
    mine = world.send(sample("webhook-secret"))
    secret = derive_secret(MASTER, "owner", "default", 1)
    assert mine.json == {"secret": secret, "rotated_at": None, "previous_valid_until": None}
    assert mine.headers["cache-control"] == "no-store"
    assert world.send(sample("webhook-secret", owner="team-b")).json != mine.json


def test_connections_are_listed_for_who_may_use_them_and_without_what_is_the_operators() -> None:
    world = World()
    world.connect("theirs", "team-a")
    world.connect("shared", "*", poll_interval_s=45)
    answer = world.send(sample("connections"))
    assert [one["name"] for one in answer.json["connections"]] == ["shared", "studio"]
    assert answer.json["connections"][0] == {"name": "shared", "type": "jimmy", "poll_interval_s": 45.0}
    assert "hush" not in str(answer)
    assert "10.0.0.7" not in str(answer)


def test_health_needs_no_key() -> None:
    assert World().send(sample("health")).json["status"] == "ok"


def test_the_document_is_served_with_the_address_it_is_served_at() -> None:
    answer = World().send(sample("openapi"))
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["openapi"].startswith("3.1")
    assert answer.json["servers"] == [{"url": BASE_URL}]


def test_the_page_of_the_document_loads_nothing_from_elsewhere() -> None:
    answer = World().send(sample("docs"))
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.text is not None
    before, _, scripts = answer.text.partition("<script>")
    assert "<title>Renderbell</title>" in before
    assert re.findall(r"""(?:src|href)=["']?([^"'> ]*)""", before) == ["data:,"], "an icon, or browsers ask for one"
    assert not re.search(r"@import|<iframe|url\((?!.?data:)", before)
    assert 'url: "openapi.json"' in scripts.rpartition("<script>")[2]
    assert "format=json" not in answer.text, "which is this page again"
    assert len(answer.text.encode()) < 6_000_000  # what Lambda may answer


@pytest.mark.parametrize("part", ["#", '"', "?", "a\n", "\n", "\x9e", "\U0001f600", "é", "a b", "{id}", "100%"])
def test_a_path_may_hold_any_character(part: str) -> None:
    world = World()
    for path in (f"/tasks/{part}", f"/tasks/{part}/attempts", f"/tasks/{part}/videos/1", f"/endpoints/{part}/secret"):
        assert world.call("GET", path).problem(404, "not_found")["detail"] != "there is no such route"
    world.call("GET", f"/tasks/tsk_1/videos/{part}").problem(422, "invalid_input")
    event = sample("callback")
    assert World().send(event | {"path": f"/callbacks/{part}"}).problem(401, "unauthorized")


def test_a_path_with_a_slash_in_its_parameter_is_404() -> None:
    World().send(sample("read") | {"path": "/tasks/a/b"}).problem(404, "not_found")


@pytest.mark.parametrize("seconds", [90, 90.0])
def test_a_whole_number_may_be_written_with_a_fraction_of_zero(seconds: float) -> None:
    world = World()
    assert world.request(world.registered(deadline_s=seconds)).deadline_s == 90


def test_an_unknown_route_is_a_problem_document_too() -> None:
    event = sample("health") | {"path": "/nowhere", "resource": "/nowhere"}
    World().send(event).problem(404, "not_found")


@pytest.mark.parametrize(
    ("name", "method", "allowed"),
    [
        ("health", "DELETE", "GET"),
        ("register", "PUT", "GET, POST"),
        ("read", "POST", "DELETE, GET"),
        ("read", "HEAD", "DELETE, GET"),
        ("register-batch", "GET", "POST"),  # a task's route has a pattern that this path fits
    ],
)
def test_a_method_that_a_route_does_not_take_is_405_and_told_which_it_takes(
    name: str, method: str, allowed: str
) -> None:
    answer = World().send(sample(name) | {"httpMethod": method})
    answer.problem(405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


def test_trouble_of_ours_is_500_without_details_and_is_logged() -> None:
    world = World()
    world.client.trouble = RuntimeError("table arn:aws:secret-detail is throttled")
    with captured_log() as lines:
        answer = world.register()
    answer.problem(500, "internal_error")
    assert "secret-detail" not in str(answer)
    failed = next(line for line in lines if line["message"] == "request failed")
    assert "secret-detail" in failed["exception"]
    assert failed["correlation_id"] == sample("register")["requestContext"]["requestId"]


def test_every_call_is_one_line_in_the_log_that_shows_no_body() -> None:
    with captured_log() as lines:
        World().register({"connection": "studio", "provider_task_id": "hunter2"})
    (told,) = lines
    assert (told["message"], told["method"], told["route"], told["status"]) == ("request", "POST", "/tasks", 201)
    assert (told["owner"], told["key_id"]) == ("default", "first")
    assert "hunter2" not in str(told)


def test_a_refused_body_is_logged_too() -> None:
    with captured_log() as lines:
        World().register(raw="x" * 70_000)
    assert [line["status"] for line in lines] == [413]


def test_one_callers_name_does_not_stay_in_the_log_of_the_next() -> None:
    world = World()
    with captured_log() as lines:
        world.register()
        world.send(sample("health"))
    assert ["owner" in line for line in lines] == [True, False]
