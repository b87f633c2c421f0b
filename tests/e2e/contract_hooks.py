"""What Schemathesis is told of the deployed stack: which things there are, and where webhooks may go.

A document says which calls are well-formed; that a named connection exists, or a task of this id, it cannot say. So
the sound parts of a call get real names in place of made-up ones, and what is meant to be refused stays as it is.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
import uuid
from pathlib import Path
from typing import Any

import requests
import schemathesis
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import TestPhase

from renderbell.signing import key_of, signature
from renderbell.task import MIN_DEADLINE_S

WORLD: dict[str, Any] = json.loads(Path(os.environ["CONTRACT_WORLD"]).read_text())
CALLS = Path(WORLD["calls"])
HOOK: str = WORLD["hook"]
POOLS: dict[str, list[str]] = WORLD["ids"]  # by what they are good for
USED_UP = {  # the first call takes it away
    "DELETE /tasks/{task_id}": "cancelled tasks",
    "POST /tasks/{task_id}/retry": "failed tasks",
    "DELETE /endpoints/{endpoint_id}": "spare endpoints",
    "DELETE /keys/{key_id}": "spare keys",
}
KEPT = {
    "POST /tasks/{task_id}/cancel": "running tasks",
    "PATCH /endpoints/{endpoint_id}": "endpoints that change",
    "task_id": "completed tasks",
    "endpoint_id": "endpoints",
}
GONE = {name: f"{prefix}_{'0' * 26}" for name, prefix in (("task_id", "tsk"), ("endpoint_id", "ep"), ("key_id", "key"))}
LONG_S = 3600
MOST_MADE_LONGER = 1000  # characters, of at most 2048 bytes
KNOWN_ID = re.compile(r"(tsk|ep|key)_[0-9a-z]{26}")
NEEDED = {WORLD["own key"], *(one for pool in KEPT.values() for one in POOLS[pool])}  # to the end

choose = random.Random(1)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Gives the sound parts of a call real names."""

    def sound(where: ParameterLocation) -> bool:
        return case.meta is None or not case.meta.is_negative_at(where)

    label: str = case.operation.label
    in_a_story = case.meta is not None and case.meta.phase.name is TestPhase.STATEFUL
    well = case.meta is None or case.meta.generation.mode.is_positive
    for name, made_up in (case.path_parameters or {}).items():
        if sound(ParameterLocation.PATH):
            if not (in_a_story and _may_be_used(label, made_up, case.query or {})):
                case.path_parameters[name] = _path_parameter(label, name, well=well)
        elif isinstance(made_up, str):  # in which the emulator's judgement of policies knows no line break
            case.path_parameters[name] = made_up.replace("\n", " ").replace("%0A", " ")
    if sound(ParameterLocation.HEADER) and case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = uuid.uuid4().hex  # made-up ones repeat, and a repeated one is refused
    if sound(ParameterLocation.QUERY) and case.query:
        case.query.pop("cursor", None)  # only one that was answered can be used
        if label == "DELETE /keys/{key_id}":
            case.query.pop("owner", None)
    if sound(ParameterLocation.BODY) and isinstance(case.body, dict):
        case.body = _body(label, case.body)
    if label == "POST /callbacks/{connection}" and well:
        kwargs["auth"] = _signed


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Notes the answer, and makes room for the next endpoint: an owner has at most 20."""
    mode = "made up" if case.meta is None else case.meta.generation.mode.value
    with CALLS.open("a") as calls:
        calls.write(json.dumps([case.operation.label, case.method.upper(), mode, response.status_code]) + "\n")
    in_passing = case.meta is not None and case.meta.phase.name is not TestPhase.STATEFUL
    if in_passing and case.operation.label == "POST /endpoints" and response.status_code == 201:
        url = f"{response.request.url}/{response.json()['endpoint_id']}"
        requests.delete(url, headers={"x-api-key": response.request.headers["x-api-key"]}, timeout=60)


def _may_be_used(label: str, made_up: Any, query: dict[str, Any]) -> bool:
    """Whether a name is that of an answer before, and is no other call's to need or another provider's to delete."""
    known = isinstance(made_up, str) and KNOWN_ID.fullmatch(made_up)
    return bool(known) and not (label in USED_UP and (made_up in NEEDED or query.get("at_provider")))


def _path_parameter(label: str, name: str, *, well: bool) -> Any:
    """A real name."""
    if name == "n":
        return 1
    if name == "connection":
        return WORLD["connection"]
    if label in USED_UP:
        left = POOLS[USED_UP[label]] if well else []
        return left.pop() if left else GONE[name]
    return choose.choice(POOLS[KEPT.get(label) or KEPT[name]])


def _body(label: str, body: dict[str, Any]) -> dict[str, Any]:
    if label == "POST /tasks/batch" and isinstance(body.get("tasks"), list):
        return body | {"tasks": [_render(one) if isinstance(one, dict) else one for one in body["tasks"]]}
    if label == "POST /tasks":
        return _anew(_render(body))
    if label in {"POST /endpoints", "PATCH /endpoints/{endpoint_id}"}:
        return _endpoint(body)
    if label == "POST /tasks/{task_id}/redeliver" and body.get("endpoint_id"):
        return body | {"endpoint_id": WORLD["told endpoint"]}
    return body


def _render(body: dict[str, Any]) -> dict[str, Any]:
    told = body | {"connection": WORLD["connection"]}
    deadline_s = told.get("deadline_s")
    if isinstance(deadline_s, int) and MIN_DEADLINE_S <= deadline_s < LONG_S:
        told["deadline_s"] += LONG_S  # dozens would end within the run, and the emulator starts a process for each
    if told.get("webhook_url"):
        told["webhook_url"] = HOOK
        told.pop("webhooks", None)
    if isinstance(told.get("webhooks"), list):
        told["webhooks"] = [
            one | {"url": f"{HOOK}/{n}"} if isinstance(one, dict) else one for n, one in enumerate(told["webhooks"])
        ]
    return told


def _anew(body: dict[str, Any]) -> dict[str, Any]:
    """The same of a render that nobody watches yet, else most would be refused; not so the hundred of a batch."""
    provider_task_id = body.get("provider_task_id")
    if isinstance(provider_task_id, str) and 0 < len(provider_task_id) < MOST_MADE_LONGER:
        return body | {"provider_task_id": provider_task_id + uuid.uuid4().hex}
    return body


def _endpoint(body: dict[str, Any]) -> dict[str, Any]:
    told = dict(body)
    if "url" in told:
        told["url"] = HOOK
    if "headers" in told:  # names must differ in more than their case
        told["headers"] = {name.lower(): value for name, value in told["headers"].items()}
    return told


def _signed(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """The call, signed as its provider would."""
    body, now = request.body or b"", str(int(time.time()))
    raw = body.encode() if isinstance(body, str) else body
    signed = signature(key_of(WORLD["callback secret"]), "msg_1", now, raw)
    request.headers.update({"webhook-id": "msg_1", "webhook-timestamp": now, "webhook-signature": f"v1,{signed}"})
    return request
