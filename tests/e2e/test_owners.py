"""Two owners: what is one's is not there for the other, on every route, and a key that reads neither writes nor sees a
secret. Each refusal stands beside a call that succeeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from tests.e2e.client import Client
from tests.e2e.conftest import PRIVATE, SHARED

pytestmark = pytest.mark.e2e

SINCE = "2020-01-01T00:00:00Z"


@dataclass(frozen=True)
class Route:
    """A call of the first owner's, and what becomes of it with other keys; `None`: the path names nothing of hers.

    `path` and `body` name her things by the words in `Owners.names`.
    """

    method: str
    path: str
    well: int
    foreign: int
    reads: int
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As the document has it."""
        return f"{self.method} {self.path}"


READ, WRITE, ADMIN = "read", "write", "admin"

# In this order: what removes something comes last.
ROUTES = [
    Route("GET", "/tasks", 200, 200, 200),
    Route("GET", "/tasks", 200, 422, 200, query={"limit": "1", "cursor": "{cursor}"}),
    Route("GET", "/tasks", 200, 200, 200, query={"connection": PRIVATE}),
    Route("GET", "/tasks/{completed}", 200, 404, 200),
    Route("GET", "/tasks/{completed}/attempts", 200, 404, 200),
    Route("GET", "/tasks/{completed}/videos/1", 302, 404, 302),
    Route("GET", "/tasks/{completed}/videos/1", 200, 404, 200, query={"redirect": "false"}),
    Route("POST", "/tasks/{completed}/redeliver", 202, 404, 403, {}),
    Route("POST", "/tasks/{failed}/retry", 201, 404, 403),
    Route("POST", "/tasks/{running}/cancel", 200, 404, 403),
    Route("DELETE", "/tasks/{failed}", 202, 404, 403, query={"force": "true"}),
    Route("POST", "/tasks", 201, 422, 403, {"connection": PRIVATE, "provider_task_id": "one"}),
    Route("POST", "/tasks/batch", 200, 200, 403, {"tasks": [{"connection": PRIVATE, "provider_task_id": "two"}]}),
    Route("GET", "/connections", 200, 200, 200),
    Route("GET", "/endpoints", 200, 200, 200),
    Route("GET", "/endpoints/{endpoint}", 200, 404, 200),
    Route("GET", "/endpoints/{endpoint}/secret", 200, 404, 403),
    Route("PATCH", "/endpoints/{endpoint}", 200, 404, 403, {"description": "changed"}),
    Route("POST", "/endpoints/{endpoint}/test", 202, 404, 403),
    Route("POST", "/endpoints/{endpoint}/recover", 202, 404, 403, {"since": SINCE}),
    Route("POST", "/endpoints/{endpoint}/rotate-secret", 200, 404, 403),
    Route("DELETE", "/endpoints/{endpoint}", 204, 404, 403),
    Route("POST", "/endpoints", 201, 201, 403, {"url": "{hook}"}),
    Route("GET", "/webhook-secret", 200, 200, 403),
    Route("POST", "/webhook-secret/rotate", 200, 200, 403),
    Route("GET", "/keys", 200, 403, 403),
    Route("POST", "/keys", 201, 403, 403, {"owner": "alpha", "name": "more", "scope": "read"}),
    Route("DELETE", "/keys/{key}", 204, 403, 403, query={"owner": "alpha"}),
]
OPEN = {"GET /health", "GET /openapi.json", "GET /docs", "POST /callbacks/{connection}"}
PARAMETERS = {
    **dict.fromkeys(("completed", "failed", "running"), "task_id"),
    "endpoint": "endpoint_id",
    "key": "key_id",
}


@dataclass
class Owners:
    """Two owners, `alpha` and `beta`, and what the first has."""

    client: Client
    keys: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def mint(self, owner: str, scope: str) -> Any:
        answer = self.client.call("POST", "/keys", json={"owner": owner, "name": "test", "scope": scope})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def call(self, who: str, route: Route) -> requests.Response:
        """The call with somebody's key."""
        named = {name: value.format(**self.names) for name, value in route.query.items()}
        body = route.body
        if isinstance(body, dict):
            body = {key: value.format(**self.names) if isinstance(value, str) else value for key, value in body.items()}
        return self.client.call(
            route.method,
            route.path.format(**self.names),
            params=named,
            json=body,
            headers={"x-api-key": self.keys[who]},
        )

    def task(self, provider: str, **told: Any) -> str:
        """A task of the first owner's."""
        provider_task_id = self.client.house.simulators.create(provider, **told)
        body = {"connection": SHARED, "provider_task_id": provider_task_id, "webhook_url": self.client.hook("alpha")}
        answer = self.client.call("POST", "/tasks", json=body, headers={"x-api-key": self.keys["alpha"]})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["task_id"])

    def get(self, path: str) -> Any:
        """What the first owner reads."""
        answer = self.client.call("GET", path, headers={"x-api-key": self.keys["alpha"]})
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def owners(client: Client) -> Owners:
    owners = Owners(client)
    spare = owners.mint("alpha", "read")
    owners.keys = {
        "alpha": owners.mint("alpha", "write")["key"],
        "alpha, reading": owners.mint("alpha", "read")["key"],
        "alpha, admin": owners.mint("alpha", "admin")["key"],
        "beta": owners.mint("beta", "write")["key"],
    }
    owners.client.house.receiver.order("/hooks/alpha", secret=owners.get("/webhook-secret")["secret"])
    completed = owners.task("jimmy", seconds=0, size_bytes=100_000)
    failed = owners.task("jimmy", seconds=0, outcome="fail")
    running = owners.task("jimmy", seconds=3600)
    hook = client.hook("alpha")
    made = client.call("POST", "/endpoints", json={"url": hook}, headers={"x-api-key": owners.keys["alpha"]})
    for task_id in (completed, failed):
        client.until(lambda task_id=task_id: _is_told(owners.get(f"/tasks/{task_id}")), f"the end of {task_id}")  # type: ignore[misc]
    owners.names = {
        "completed": completed,
        "failed": failed,
        "running": running,
        "endpoint": made.json()["endpoint_id"],
        "key": spare["key_id"],
        "cursor": owners.get("/tasks?limit=1")["next_cursor"],
        "hook": hook,
    }
    return owners


def _is_told(task: Mapping[str, Any]) -> bool:
    return bool(task["deliveries"]) and all(one["state"] == "delivered" for one in task["deliveries"])


def test_the_table_names_every_route(client: Client) -> None:
    document = client.call("GET", "/openapi.json").json()
    served = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    named = {route.name for route in ROUTES}
    for word, parameter in PARAMETERS.items():
        named = {name.replace(f"{{{word}}}", f"{{{parameter}}}") for name in named}
    assert {name.replace("/videos/1", "/videos/{n}") for name in named} | OPEN == served


def test_what_is_one_owners_is_not_there_for_the_other(owners: Owners, measured: Callable[[str], None]) -> None:
    lines, hers = [], [value for name, value in owners.names.items() if name != "hook"]
    hidden = [*hers, PRIVATE]
    for route in ROUTES:
        foreign = owners.call("beta", route)
        reading = owners.call("alpha, reading", route)
        well = owners.call("alpha, admin" if route.path.startswith("/keys") else "alpha", route)
        told = f"{route.name} {dict(route.query) or ''}".strip()
        lines.append(
            f"{told}: her own {well.status_code}, the other {foreign.status_code}, reading {reading.status_code}"
        )
        assert (well.status_code, foreign.status_code, reading.status_code) == (
            route.well,
            route.foreign,
            route.reads,
        ), f"{lines[-1]}\n{well.text}\n{foreign.text}\n{reading.text}"
        seen = [word for word in hidden if word in foreign.text or word in str(foreign.headers)]
        sent = [word for word in hidden if word in foreign.request.url + str(foreign.request.body)]  # type: ignore[operator]
        assert set(seen) <= set(sent), f"{told}: {foreign.text}"
        if foreign.status_code in {403, 404}:
            assert foreign.json()["code"] in {"forbidden", "not_found"}
            assert "location" not in foreign.headers
        for answer in (foreign, reading):
            assert "whsec_" not in answer.text or (answer is foreign and route.path == "/webhook-secret")
    measured("owners and routes (what she gets, what another owner's key gets, what her reading key gets):")
    for line in lines:
        measured(line)


def test_what_is_not_hers_is_answered_like_what_is_not_there(owners: Owners) -> None:
    for theirs, nobodys in (
        ("/tasks/{completed}", "/tasks/tsk_" + "0" * 26),
        ("/endpoints/{endpoint}", "/endpoints/ep_" + "0" * 26),
    ):
        answers = [owners.call("beta", Route("GET", path, 200, 404, 200)) for path in (theirs, nobodys)]
        assert answers[0].json() == answers[1].json()
    named = [
        owners.call("beta", Route("POST", "/tasks", 201, 422, 403, {"connection": name, "provider_task_id": "x"}))
        for name in (PRIVATE, "nobodys")
    ]
    assert named[0].status_code == named[1].status_code == 422
    assert named[0].json() == named[1].json()


def test_a_deleted_key_lets_nobody_in_once_the_authorizers_answers_are_old(owners: Owners) -> None:
    minted = owners.mint("alpha", "read")

    def status() -> int:
        answer = owners.client.call("GET", "/connections", headers={"x-api-key": minted["key"]})
        return answer.status_code

    assert status() == 200
    gone = owners.client.call("DELETE", f"/keys/{minted['key_id']}?owner=alpha")
    assert gone.status_code == 204
    owners.client.until(lambda: status() == 401, "the key's end", limit_s=90)
