"""No secret is ever written down: the main job with marked secrets, in every trouble, and then a search for them.

A provider's signed link is data of the task: it may stand where the copy needs it and where its owner is shown it
(`PLACES_FOR_LINKS`), and nowhere else. A webhook's URL belongs to its owner likewise.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import requests

from local.ports import free_port
from tests.e2e.client import CALL_LIMIT_S, Client
from tests.e2e.hostile import TROUBLES, Hostile

pytestmark = pytest.mark.e2e

T = TypeVar("T")

FUNCTIONS = ("ApiFunction", "AuthorizerFunction", "PollerFunction", "NotifierFunction")
LINK, HOOK = "the provider's signature", "the webhook's token"
PLACES_FOR_LINKS = {
    LINK: {"TASK.sources", "TASK.files", "TASK.stored", "TASK.upload"},
    HOOK: {"REQUEST.webhooks", "DELIVERY.url"},
}
SHOWN_TO_THE_OWNER = {LINK: {"sources", "videos"}, HOOK: {"webhooks", "deliveries"}}
SHOWN_TO_A_RECEIVER = {LINK: {"sources", "videos"}, HOOK: set[str]()}


# -- searching --------------------------------------------------------------------------------------------------------


@cache
def forms(secret: str) -> set[str]:
    """The forms that a secret may be written down in: of its core, because a text may be cut off."""
    core = max(re.split(r"[^A-Za-z0-9]", secret), key=len)[:20]
    core = core if len(core) >= 16 else secret[:20]  # base64 may have a sign anywhere
    encoded = set()
    for before in range(3):  # base64 depends on where the secret begins
        start = -(-before * 8 // 6)
        whole = (before + len(core)) * 8 // 6
        encoded.add(base64.b64encode(b"\0" * before + core.encode()).decode()[start:whole])
    return {core.lower(), core.encode().hex(), "".join(f"%{byte:02x}" for byte in core.encode()), *encoded}


def found_in(text: str, marked: Mapping[str, str]) -> set[str]:
    """Which of the secrets a text holds, in any form."""
    lower = text.lower()
    return {
        name
        for name, secret in marked.items()
        if any(form in text or form in lower for form in forms(secret))
        or json.dumps(secret)[1:-1].lower() in lower
        or quote(secret, safe="").lower() in lower
    }


def text_of(value: object) -> str:
    """An attribute as text; what is packed in one (an answer that is kept) is unpacked."""
    return json.dumps(value, default=_unpacked)


def _unpacked(packed: bytes) -> str:
    try:
        return zlib.decompress(packed).decode()
    except zlib.error:  # a poller's notes
        return packed.decode("latin-1")


@dataclass
class Watched:
    """Everything that is written anywhere, and the secrets that are looked for."""

    client: Client
    marked: dict[str, str]
    bodies: list[str] = field(default_factory=list)
    tasks: Mapping[str, str] = field(default_factory=dict)

    def aws(self, service: str) -> Any:
        """A client of the emulator's."""
        stack = self.client.house.stack
        session: Any = stack.session()
        return session.client(service, endpoint_url=stack.aws_endpoint_url)

    def heard(self, answer: requests.Response, *_: Any, **__: Any) -> None:
        """Remembers what the API answered with an error."""
        if answer.status_code >= 400:
            self.bodies.append(f"{answer.status_code} {json.dumps(dict(answer.headers))} {answer.text}")

    def logs(self) -> Iterator[tuple[str, str]]:
        """Every line in every log group, with the group's name: what functions print, to stdout and stderr."""
        logs = self.aws("logs")
        for page in logs.get_paginator("describe_log_groups").paginate():
            for group in page["logGroups"]:
                name = group["logGroupName"]
                for events in logs.get_paginator("filter_log_events").paginate(logGroupName=name):
                    yield from ((name, event["message"]) for event in events["events"])

    def own_output(self) -> Iterator[tuple[str, str]]:
        """What the emulator itself printed, in which the functions' stderr appears too."""
        for line in self.client.house.emulator.log.read_text(errors="replace").splitlines():
            yield "the emulator's output", line

    def errors(self) -> Iterator[tuple[str, str]]:
        """Every error body that the API answered."""
        yield from (("an error body", body) for body in self.bodies)

    def items(self) -> Iterator[tuple[str, str]]:
        """Every attribute of every item in the table, with the item's kind."""
        pages = self.aws("dynamodb").get_paginator("scan").paginate(TableName=self.client.house.stack.table)
        for item in (item for page in pages for item in page["Items"]):
            kind = item["sk"]["S"].partition("#")[0] if item["pk"]["S"].startswith("TASK#") else "OTHER"
            yield from ((f"{kind}.{name}", text_of(value)) for name, value in item.items())

    def failures(self) -> Iterator[tuple[str, str]]:
        """Every message in the failure queue."""
        queue = self.client.house.stack.outputs["FailureQueueUrl"]
        for _ in range(10):
            got = self.aws("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0)
            yield from (("the failure queue", message["Body"]) for message in got.get("Messages", []))

    def everything(self) -> Iterator[tuple[str, str]]:
        """All of it."""
        for place in (self.logs, self.own_output, self.errors, self.items, self.failures):
            yield from place()

    def leaks(self) -> dict[tuple[str, str], str]:
        """Which secret was found where, apart from the places where links belong; with a text for each."""
        return {
            (name, place): text
            for place, text in self.everything()
            for name in found_in(text, self.marked)
            if place not in PLACES_FOR_LINKS.get(name, set())
        }


# -- the flow ---------------------------------------------------------------------------------------------------------


def derived(master: str, owner: str) -> bytes:
    """The key that signs an owner's webhooks, worked out from the design and not with our code."""
    return hmac.digest(master.encode(), b"renderbell/v1\0owner\0" + owner.encode() + b"\x001", "sha256")


@pytest.fixture(scope="module")
def watched(client: Client, hostile: Hostile) -> Watched:
    """The whole flow, in every trouble that writes texts."""

    stack = client.house.stack
    watch = Watched(client, {})
    master = watch.aws("secretsmanager").get_secret_value(SecretId=stack.outputs["MasterSecretArn"])["SecretString"]
    signing = derived(master, "default")
    assert client.call("GET", "/webhook-secret").json()["secret"] == f"whsec_{base64.b64encode(signing).decode()}"
    hook = f"marked{secrets.token_hex(16)}"
    wrong = f"rbk_marked{secrets.token_hex(16)}"
    watch.marked = {
        "the first API key": stack.api_key,
        "a wrong API key": wrong,
        "the provider's key": hostile.api_key,
        "the provider's second key": hostile.header,
        "the master secret": master,
        "the signing key": signing.hex(),
        "the webhook secret": base64.b64encode(signing).decode(),
        LINK: hostile.signature,
        HOOK: hook,
    }
    client.http.hooks["response"].append(watch.heard)
    try:
        knock_with_wrong_keys(client, watch, wrong)
        tasks = watch.tasks = begin_trouble(client, hostile, hook)
        send_keys_in_odd_places(client, [stack.api_key, wrong])
        wait_for_the_ends(client, tasks)
    finally:
        client.http.hooks["response"].remove(watch.heard)
    link = client.call("GET", f"/tasks/{tasks['fine']}/videos/1?redirect=false").json()["url"]
    with requests.Session() as anonymous:
        anonymous.trust_env = False
        assert anonymous.get(link, timeout=CALL_LIMIT_S).status_code == 200
    (ours,) = parse_qs(urlsplit(link).query)["X-Amz-Signature"]
    watch.marked["our presigned link"] = ours
    wait_for_the_log(client, watch, tasks)
    return watch


def begin_trouble(client: Client, hostile: Hostile, hook: str) -> Mapping[str, str]:
    """Registers a task for each trouble, with a receiver that repeats and one that is down; answers their ids."""
    down = f"http://127.0.0.1:{free_port()}/hooks/down?token={hook}"
    echo = f"{hostile.url}/hooks/echo?token={hook}"
    tasks = {}
    for trouble in TROUBLES:
        body = {
            "connection": f"hostile-{trouble}",
            "provider_task_id": f"{trouble}-{secrets.token_hex(4)}",
            "webhooks": [{"url": f"{echo}&for={trouble}"}, {"url": f"{down}&for={trouble}"}],
        }
        answer = client.call("POST", "/tasks", json=body)
        assert answer.status_code == 201, answer.text
        tasks[trouble] = answer.json()["task_id"]
        if trouble == "fine":
            client.ended(tasks[trouble])  # the functions run now: nine tasks at once would start each nine times
    assert client.call("POST", f"/tasks/{tasks['slow']}/cancel").status_code == 200
    return tasks


def wait_for_the_ends(client: Client, tasks: Mapping[str, str]) -> None:
    """Waits until every task has ended, and every receiver has been tried."""
    ends = {trouble: client.ended(task_id)["status"] for trouble, task_id in tasks.items()}
    assert ends == {**dict.fromkeys(TROUBLES, "COMPLETED"), "failing": "FAILED", "slow": "CANCELLED"}

    def tried() -> bool:
        deliveries = [one for task_id in tasks.values() for one in client.task(task_id)["deliveries"]]
        return len(deliveries) == 2 * len(tasks) and all(one["tries"] for one in deliveries)

    client.until(tried, "an attempt of every delivery")


def knock_with_wrong_keys(client: Client, watch: Watched, wrong: str) -> None:
    for key in (wrong, client.house.stack.api_key[:-1] + "ü", f"{wrong} {wrong}"):
        with requests.Session() as http:
            http.trust_env = False
            headers = {"x-api-key": key.encode(), "Authorization": b"Bearer " + key.encode()}
            watch.heard(http.get(f"{client.house.stack.api_url}/connections", headers=headers, timeout=CALL_LIMIT_S))


def send_keys_in_odd_places(client: Client, keys: list[str]) -> None:
    """Requests that are refused, with a key where it does not belong."""
    for key in keys:
        good = {"connection": "hostile-fine", "provider_task_id": "p-1"}
        odd: list[dict[str, Any]] = [
            {"connection": key},
            {"connection": [key]},
            {"provider_task_id": {"key": key}},
            {"provider_task_id": f"{key}\n"},
            {"deadline_s": key},
            {"metadata": key},
            {"metadata": {"key": [key]}},
            {"metadata": {f"{key}\0": "x"}},
            {"metadata": {key: 1}},
            {"webhook_url": f"https://user:{key}@example.com/"},
            {"webhook_url": f"https://169.254.169.254/?token={key}"},
            {"webhook_url": f"ftp://example.com/{key}"},
            {"webhook_url": f"https://{key}.internal/"},
            {"webhooks": [{"url": "https://example.com/", "events": [key]}]},
            {"webhooks": [{"url": "https://example.com/", "secret": key}]},
            {"api_key": key},
            {key: "the name of a field"},
        ]
        for change in odd:
            assert client.call("POST", "/tasks", json={**good, **change}).status_code == 422, list(change)
        for data in (f'{{"connection": "{key}', f'["{key}"]', f'"{key}"', f"api_key={key}"):
            assert client.call("POST", "/tasks", data=data.encode()).status_code == 422
        for path in (
            f"/tasks/{key}",
            f"/tasks/{key}/videos/{key}",
            f"/{key}",
            f"/tasks/tsk_{'0' * 26}/videos/1?redirect={key}&download={key}&x-api-key={key}",
            f"/tasks/tsk_{'0' * 26}/videos/{key}",
        ):
            assert client.call("GET", path).status_code in {403, 404, 422}


def wait_for_the_log(client: Client, watch: Watched, tasks: Mapping[str, str]) -> None:
    """A function's lines appear when its invocation ends, so the poller that runs is relieved by another."""
    functions = watch.aws("lambda")
    functions.invoke(
        FunctionName=client.house.stack.outputs["PollerFunctionName"], InvocationType="Event", Payload="{}"
    )
    polled = {tasks[trouble] for trouble in ("broken", "refused", "nonsense")}
    copied = {tasks[trouble] for trouble in ("page", "cut", "fine", "failing")}

    def written() -> bool:
        lines = [text for _, text in watch.logs() if "task_id" in text]
        of_polls = [line for line in lines if "poll brought no observation" in line]
        told = {task_id for task_id in polled if any(task_id in line for line in of_polls)}
        return told == polled and all(any(task_id in line for line in lines) for task_id in copied)

    client.until(written, "the functions' own words on the troubles")


# -- what must hold ---------------------------------------------------------------------------------------------------


def test_the_search_finds_what_is_planted(watched: Watched) -> None:
    """In every place and every form: otherwise a search that sees nothing would prove nothing."""
    client, stack = watched.client, watched.client.house.stack
    secret = f"planted{secrets.token_hex(16)}"
    planted = {"planted": secret}
    for form in (secret, base64.b64encode(b"x" + secret.encode()).decode(), secret.encode().hex(), quote(secret + "=")):
        assert found_in(f'{{"a": "{form}"}}', planted) == {"planted"}
    assert found_in(json.dumps({"a": f"…{secret[:24]}"}), planted) == {"planted"}, "cut off"
    assert found_in("nothing of it", planted) == set()

    event = json.dumps({"pk": f"TASK#{secret}", "sk": "TASK"})
    broken = json.dumps({"pk": f"ODD#{secret}"})
    functions, dynamodb = watched.aws("lambda"), watched.aws("dynamodb")
    for payload in (event, broken):
        functions.invoke(
            FunctionName=stack.outputs["NotifierFunctionName"], InvocationType="Event", Payload=payload.encode()
        )
    key = {"pk": {"S": "TASK#planted"}, "sk": {"S": "ATTEMPT#2026#url_0"}}
    dynamodb.put_item(TableName=stack.table, Item={**key, "body": {"S": f"you sent {secret}"}})
    client.http.hooks["response"].append(watched.heard)
    answer = client.call("POST", "/tasks", json={secret: 1})
    client.http.hooks["response"].remove(watched.heard)
    assert answer.status_code == 422
    places = {
        "the log": watched.logs,
        "an error body": watched.errors,
        "an attempt": watched.items,
        "the failure queue": watched.failures,
    }

    def all_found() -> bool:
        found = {name for name, look in places.items() if any(found_in(text, planted) for _, text in look())}
        return found == set(places)

    try:
        client.until(all_found, "the mark in every place")
    finally:
        dynamodb.delete_item(TableName=stack.table, Key=key)


def test_no_secret_is_written_anywhere(watched: Watched) -> None:
    assert watched.leaks() == {}


def test_what_was_searched_holds_the_flows_troubles(watched: Watched) -> None:
    """The texts that a leak would stand in are there."""
    logs = "\n".join(text for _, text in watched.logs())
    for words in ("poll brought no observation", "copy failed", "webhook not delivered", "refused"):
        assert words in logs
    attempts = [text for place, text in watched.items() if place.startswith("ATTEMPT.")]
    assert any("headers" in text for text in attempts), "the receiver's answer is kept"
    assert len(watched.bodies) > 40


def test_a_link_is_shown_to_the_owner_where_it_belongs(watched: Watched) -> None:
    for task_id in watched.tasks.values():
        for name, value in watched.client.task(task_id).items():
            for mark in found_in(text_of(value), watched.marked):
                assert name in SHOWN_TO_THE_OWNER.get(mark, set()), (mark, name)


def test_a_receiver_is_told_of_links_only_where_they_belong(watched: Watched, hostile: Hostile) -> None:
    assert len(hostile.told) >= len(TROUBLES)
    for told in hostile.told:
        for name, value in json.loads(told)["data"].items():
            for mark in found_in(text_of(value), watched.marked):
                assert name in SHOWN_TO_A_RECEIVER.get(mark, set()), (mark, name)
