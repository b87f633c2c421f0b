from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from renderbell.delivery import DEFAULT_EVENTS, EVENT_OF_STATUS, TASK_EVENTS, DeliveryState
from renderbell.endpoints import derive_secret, endpoint_id
from renderbell.errors import ProviderTaskNotFound
from renderbell.providers.base import Observation, ProviderState, ProviderTime
from renderbell.task import (
    ErrorCode,
    FileKind,
    Frames,
    Request,
    Source,
    Status,
    StoredFile,
    Task,
    TaskError,
    Transition,
    Webhook,
    advance,
    cancel,
    cleaned,
    copied,
    copy_failed,
    expire,
    new_task,
)
from renderbell.views import TaskView, task_view
from renderbell.webhooks import (
    MAX_BODY_BYTES,
    deliveries_for,
    event_body,
    event_data,
    message_id,
    receiver_of,
    sign,
    signed_headers,
)

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CURRENT = derive_secret(b"master", "owner", "default", 2)
PREVIOUS = derive_secret(b"master", "owner", "default", 1)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def registered() -> Task:
    return new_task(
        task_id="tsk_1",
        owner="default",
        connection="farm",
        provider="capcut-mate",
        provider_task_id="draft/1",
        now=T0,
        deadline_s=3600,
        slot=3,
        tells_processing=True,
    )


def request(*webhooks: Webhook, **metadata: str) -> Request:
    return Request(
        task_id="tsk_1",
        owner="default",
        created_at=T0,
        deadline_s=3600,
        base_url="https://api.example.com/v1",
        ttl=1_900_000_000,
        metadata=metadata,
        webhooks=webhooks,
    )


def processing(task: Task | None = None) -> Task:
    seen = Observation(ProviderState.PROCESSING, progress=40, images=("https://p.example.com/f1.png",), model="m1")
    return advance(task or registered(), seen, at(10))


def copying(task: Task | None = None) -> Task:
    times = {"finished_at": ProviderTime("2026-03-01 12:01", at(60))}
    done = Observation(
        ProviderState.SUCCEEDED, videos=("https://p.example.com/v.mp4?sig=1",), duration_s=12.5, provider_times=times
    )
    return advance(task or processing(), done, at(60))


def stored(n: int = 1, source_url: str = "https://p.example.com/v.mp4?sig=1") -> StoredFile:
    return StoredFile(n, FileKind.VIDEO, "videos", f"default/tsk_1/{n}.mp4", 1234, "ab" * 32, "video/mp4", source_url)


def completed() -> Task:
    return copied(copying(), [stored()], at(70))


def lost() -> Task:
    task = registered()
    for seconds in (10, 75, 140):
        task = advance(task, ProviderTaskNotFound("no such draft"), at(seconds))
    return task


ENDED = {
    "task.completed": completed(),
    "task.failed": copy_failed(copying(), "the source answered 403", at(90)),
    "task.expired": expire(registered(), at(4000)),
    "task.cancelled": cancel(processing(), at(20)),
}


# --- signing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "id_", "timestamp", "body", "signature"),
    [
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1649367553,
            b'{"email":"test@example.com","username":"test_user"}',
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
    ],
)
def test_the_specifications_vectors_are_signed_as_published(
    secret: str, id_: str, timestamp: int, body: bytes, signature: str
) -> None:
    assert sign([secret], id_, timestamp, body) == signature


@pytest.mark.parametrize("secret", [CURRENT, PREVIOUS])
def test_while_a_secret_is_rotated_both_verify(secret: str) -> None:
    now = datetime.now(UTC)  # the verifier looks at the clock
    body = event_body(completed(), request(title="Ein Film für dich"), "task.completed")
    headers = signed_headers([CURRENT, PREVIOUS], message_id("tsk_1", "task.completed"), now, body)
    assert Verifier(secret).verify(body, headers) == json.loads(body)
    assert headers["webhook-signature"].split(" ")[0] == sign(
        [CURRENT], headers["webhook-id"], int(now.timestamp()), body
    )
    assert headers["content-type"] == "application/json"


def test_a_changed_body_or_an_older_secret_does_not_verify() -> None:
    headers = signed_headers([CURRENT], "evt_1", datetime.now(UTC), b'{"a":1}')
    with pytest.raises(WebhookVerificationError):
        Verifier(CURRENT).verify(b'{"a":2}', headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(PREVIOUS).verify(b'{"a":1}', headers)


def test_the_timestamp_is_the_attempts_own_in_whole_seconds() -> None:
    in_another_zone = datetime.fromisoformat("2026-03-01T20:00:00.900+08:00")
    headers = signed_headers([CURRENT], "evt_1", in_another_zone, b"{}")
    assert headers["webhook-timestamp"] == str(int(T0.timestamp()))


@pytest.mark.parametrize("secret", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_not base64!", "whsec_abc"])
def test_a_secret_in_another_form_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        sign([secret], "evt_1", 1, b"{}")


def test_a_message_id_belongs_to_the_event_and_has_no_dot() -> None:
    assert message_id("tsk_1", "task.completed") == "evt_tsk_1_task_completed"
    assert len({message_id("tsk_1", event) for event in TASK_EVENTS}) == len(TASK_EVENTS)


# --- what is said ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ENDED)
def test_data_is_the_task_as_the_api_shows_it_without_other_receivers_business(event: str) -> None:
    task, asked = ENDED[event], request(Webhook("https://a.example.com/", DEFAULT_EVENTS), title="x")
    shown = task_view(task, asked, ()).model_dump(mode="json")
    private = set(TaskView.model_fields) - event_data(task, asked, event).keys()
    assert private == {"webhooks", "deliveries", "last_poll_error"}
    assert event_data(task, asked, event) == {key: value for key, value in shown.items() if key not in private}


def test_a_body_is_compact_utf8_with_type_time_and_data() -> None:
    body = event_body(completed(), request(title="Grüße", an="x"), "task.completed")
    assert body.startswith(
        b'{"type":"task.completed","timestamp":"2026-03-01T12:01:10.000Z","data":{"task_id":"tsk_1",'
    )
    assert '"metadata":{"an":"x","title":"Grüße"}'.encode() in body
    message = json.loads(body)
    assert message["data"]["status"] == "COMPLETED"
    (video,) = message["data"]["videos"]
    assert video["url"] == "https://api.example.com/v1/tasks/tsk_1/videos/1"
    assert video["source_url"] == "https://p.example.com/v.mp4?sig=1"


@pytest.mark.parametrize("event", ENDED)
def test_the_time_of_a_message_is_that_of_its_event(event: str) -> None:
    task = ENDED[event]
    assert EVENT_OF_STATUS[task.status] == event
    message = json.loads(event_body(task, request(), event))
    assert message["timestamp"] == message["data"]["history"][-1]["at"]
    assert message["data"]["history"][-1]["to"] == task.status


def test_what_happens_after_the_end_changes_no_byte() -> None:
    task = ENDED["task.failed"]
    before = event_body(task, request(), "task.failed")
    assert task.due_at is not None  # something is still to be cleaned up
    after = replace(cleaned(task), version=task.version + 2)
    assert event_body(after, request(), "task.failed") == before


def test_processing_is_told_the_same_however_far_the_task_has_come() -> None:
    first = processing()
    further = advance(
        first,
        Observation(ProviderState.PROCESSING, progress=80, model="m2", images=("https://p/1", "https://p/2")),
        at(40),
    )
    told = event_body(first, request(), "task.processing")
    for later in (further, copying(further), completed(), cancel(first, at(30)), ENDED["task.failed"]):
        assert event_body(later, request(), "task.processing") == told
    data = json.loads(told)["data"]
    assert (data["status"], data["progress"], data["frames"], data["model"]) == ("PROCESSING", None, None, None)
    assert [line["to"] for line in data["history"]] == ["QUEUED", "PROCESSING"]
    assert json.loads(told)["timestamp"] == "2026-03-01T12:00:10.000Z"


def test_a_lost_task_says_why() -> None:
    data = event_data(lost(), request(), "task.failed")
    assert data["error"] == {"code": "provider_task_lost", "message": "no such draft"}


def test_numbers_that_json_cannot_hold_become_null() -> None:
    odd = replace(completed(), duration_s=float("nan"), provider_times={"expires_at": ProviderTime(float("inf"), None)})
    data = json.loads(event_body(odd, request(), "task.completed"), parse_constant=pytest.fail)["data"]
    assert data["duration_s"] is None
    assert data["provider_times"] == {"expires_at": {"raw": None, "at": None}}


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_frames_are_the_first_to_be_left_out() -> None:
    frames = Frames(3, "https://p.example.com/" + "f" * 19_000)
    data = json.loads(event_body(replace(completed(), frames=frames), request(), "task.completed"))["data"]
    assert data["frames"] is None
    assert data["videos"][0]["source_url"]


def test_the_providers_links_are_the_next() -> None:
    long = "https://p.example.com/" + "v" * 4000
    files = tuple(stored(n, long) for n in range(1, 9))
    task = replace(completed(), files=files, frames=Frames(1, "https://p.example.com/f"))
    body = event_body(task, request(), "task.completed")
    data = json.loads(body)["data"]
    assert len(body) <= MAX_BODY_BYTES
    assert data["frames"] is None
    assert [video["source_url"] for video in data["videos"]] == [""] * 8
    assert all(video["url"] for video in data["videos"])
    failed = replace(ENDED["task.failed"], sources=tuple(Source(FileKind.VIDEO, long) for _ in range(8)))
    assert json.loads(event_body(failed, request(), "task.failed"))["data"]["sources"] == []


def test_an_errors_text_is_clipped_only_when_it_must_be() -> None:
    said = "…" * 999
    failed = replace(ENDED["task.failed"], error=TaskError(ErrorCode.COPY_FAILED, said))
    assert event_data(failed, request(), "task.failed")["error"] == {"code": "copy_failed", "message": said}
    tight = replace(
        failed, provider_task_id='"' * 2048, model='"' * 1000, error=TaskError(ErrorCode.COPY_FAILED, "\x01" * 1000)
    )
    full = request(**{f"k{n}": '"' * 250 for n in range(16)})
    data = json.loads(event_body(tight, full, "task.failed"))["data"]
    assert data["error"]["message"] == "\x01" * 200 + "…"
    assert data["model"] == '"' * 1000
    assert len(data["metadata"]) == 16


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@settings(deadline=None)  # a shared machine may be slow
@given(
    event=st.sampled_from(sorted(ENDED)),
    metadata=st.dictionaries(texts, texts, max_size=16),
    task_id_of_provider=st.sampled_from(["x", '"' * 2048, "ü" * 1024]),
    links=st.lists(texts.map(lambda text: "https://p/" + text * 20), max_size=20),
    message=texts,
    model=st.none() | texts,
    raw=st.one_of(texts, st.integers(-(2**63), 2**63), st.floats()),
)
def test_every_legal_task_has_a_body_within_the_limit(
    *,
    event: str,
    metadata: dict[str, str],
    task_id_of_provider: str,
    links: list[str],
    message: str,
    model: str | None,
    raw: str | float,
) -> None:
    task = replace(
        ENDED[event],
        provider_task_id=task_id_of_provider,
        files=tuple(stored(n, link) for n, link in enumerate(links, 1)),
        sources=tuple(Source(FileKind.VIDEO, link) for link in links),
        error=TaskError(ErrorCode.PROVIDER_FAILED, message * 5),
        model=model,
        provider_times={"created_at": ProviderTime(raw, None)},
    )
    asked = replace(request(), metadata=metadata)
    body = event_body(task, asked, event)
    assert len(body) <= MAX_BODY_BYTES
    assert body == event_body(task, asked, event)
    assert json.loads(body)["type"] == event


def worst(base_url: str, *, videos: int = 20, metadata: dict[str, str] | None = None) -> tuple[Task, Request]:
    """A task at every limit that a registration, a provider and the names in S3 have."""
    owner, task_id = "o" * 32, "tsk_" + "7" * 26
    files = tuple(
        replace(
            stored(n, "https://p.example.com/" + '"' * 4000),
            bucket="b" * 63,
            key=f"{owner}/{task_id}/{n}.webm",
            size_bytes=10**12,
            content_type="video/x-msvideo",
        )
        for n in range(1, videos + 1)
    )
    task = replace(
        completed(),
        task_id=task_id,
        owner=owner,
        connection="c" * 32,
        provider_task_id='"' * 2048,
        model="\x01" * 1000,
        provider_times={name: ProviderTime("\x01" * 64, T0) for name in ("created_at", "started_at", "finished_at")},
        files=files,
        error=TaskError(ErrorCode.COPY_FAILED, "\x01" * 1000),
        frames=Frames(99, "https://p.example.com/" + '"' * 4000),
    )
    full = {f"{n:02d}": '"' * 254 for n in range(16)} if metadata is None else metadata
    return task, replace(request(), task_id=task_id, owner=owner, base_url=base_url, metadata=full)


@pytest.mark.parametrize(
    "base_url",
    [
        "https://a1b2c3d4e5.execute-api.ap-southeast-2.amazonaws.com/production",
        "https://" + "a" * 120,
        "https://a/" + '"' * 118,
        "https://a/" + "\U0001f3ac" * 118,
        "https://a/" + "x" * 9000,
    ],
    ids=["API Gateway", "128 characters", "128 that are escaped", "128 of four bytes", "far beyond"],
)
def test_twenty_videos_and_a_long_base_url_do_not_break_the_limit(base_url: str) -> None:
    for event in ("task.completed", "task.failed"):
        body = event_body(*worst(base_url), event)
        assert len(body) <= MAX_BODY_BYTES
        data = json.loads(body)["data"]
        assert [(one["n"], one["key"].rpartition("/")[2]) for one in data["videos"]] == [
            (n, f"{n}.webm") for n in range(1, 21)
        ]
        assert data["provider_task_id"] == '"' * 2048


def test_what_others_can_tell_goes_before_the_callers_metadata() -> None:
    asked = {"order": "4711", "note": "x" * 1000}
    task, told = worst("https://api.example.com/" + "x" * 104, metadata=asked)
    data = json.loads(event_body(task, told, "task.completed"))["data"]
    assert {one["s3_uri"] for one in data["videos"]} == {""}
    assert data["metadata"] == asked
    assert all(one["sha256"] and one["url"].startswith(told.base_url) for one in data["videos"])


@settings(deadline=None)
@given(
    event=st.sampled_from(sorted(ENDED)),
    base=st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), max_size=118),
    pairs=st.dictionaries(st.text('"a\\é', min_size=1, max_size=20), st.text('"\\é🎬'), max_size=16),
    videos=st.integers(0, 20),
)
def test_no_base_url_that_a_stack_takes_breaks_the_limit(
    event: str, base: str, pairs: dict[str, str], videos: int
) -> None:
    task, told = worst(f"https://a/{base}", videos=videos, metadata=pairs)
    body = event_body(task, told, event)
    assert len(body) <= MAX_BODY_BYTES
    assert len(json.loads(body)["data"]["videos"]) == videos


def test_a_task_without_its_history_still_has_a_body() -> None:
    bare = replace(completed(), history=())
    assert json.loads(event_body(bare, request(), "task.completed"))["timestamp"] == "2026-03-01T12:00:00.000Z"
    line = Transition(at(60), Status.PROCESSING, Status.COPYING, "the provider succeeded")
    assert event_body(replace(completed(), history=(line,)), request(), "task.processing")


# --- who is told -----------------------------------------------------------------------------------------------------


def test_an_event_makes_one_delivery_for_each_endpoint_that_wants_it() -> None:
    a, b, c = (f"https://{name}.example.com/" for name in "abc")
    asked = request(
        Webhook(a, DEFAULT_EVENTS),
        Webhook(b, ("task.processing",)),
        Webhook(a, ("task.completed",)),
        Webhook(c, TASK_EVENTS),
    )
    made = deliveries_for(completed(), asked, "task.completed", at(70))
    assert [(one.url, one.endpoint_id) for one in made] == [(a, endpoint_id(a)), (c, endpoint_id(c))]
    first = made[0]
    assert (first.task_id, first.owner, first.event, first.slot) == ("tsk_1", "default", "task.completed", 3)
    assert (first.state, first.tries, first.ttl) == (DeliveryState.PENDING, 0, 1_900_000_000)
    assert (first.created_at, first.due_at) == (at(70), at(130))
    assert [one.url for one in deliveries_for(processing(), asked, "task.processing", at(10))] == [b, c]


def test_nobody_is_told_what_nobody_asked_for() -> None:
    assert (
        deliveries_for(processing(), request(Webhook("https://a.example.com/", DEFAULT_EVENTS)), "task.processing", T0)
        == ()
    )
    assert deliveries_for(completed(), request(), "task.completed", T0) == ()


def test_at_most_twenty_endpoints_are_told() -> None:
    asked = request(*(Webhook(f"https://h{n}.example.com/", DEFAULT_EVENTS) for n in range(30)))
    assert len(deliveries_for(completed(), asked, "task.completed", T0)) == 20


@pytest.mark.parametrize(
    ("url", "receiver"),
    [
        ("https://hooks.example.com/a?task=1", "hooks.example.com"),
        ("https://Hooks.EXAMPLE.com./b", "hooks.example.com"),
        ("https://hooks.example.com:443/", "hooks.example.com"),
        ("http://hooks.example.com/", "hooks.example.com"),
        ("https://hooks.example.com:8443/", "hooks.example.com:8443"),
        ("http://hooks.example.com:443", "hooks.example.com:443"),
        ("https://[2001:DB8::1]/x", "[2001:db8::1]"),
    ],
)
def test_whatever_leads_to_one_host_is_one_receiver(url: str, receiver: str) -> None:
    assert receiver_of(url) == receiver


@pytest.mark.parametrize("url", ["https://a@b.example.com/", "ftp://example.com/", "nonsense", "https://exa mple.com/"])
def test_a_url_that_cannot_be_read_is_a_receiver_of_its_own(url: str) -> None:
    assert receiver_of(url) == endpoint_id(url)


def test_a_delivery_knows_its_receiver() -> None:
    asked = request(*(Webhook(f"https://a.example.com/{n}", DEFAULT_EVENTS) for n in range(3)))
    assert {one.receiver for one in deliveries_for(completed(), asked, "task.completed", T0)} == {"a.example.com"}
