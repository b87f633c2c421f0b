"""Who is let in, and as whom."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from renderbell.authorize import Authorizer, build_handler
from renderbell.keys import Scope, hash_key
from renderbell.store import ApiKey
from tests.fakes import START, FakeContext, FakeStore, captured_log

SECRET = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8S9t0U1v"
FIRST = f"rbk_{SECRET}"
TEAM_KEY = "rbk_teamTeamTeamTeamTeamTeamTeamTeam"
EVENT = Path(__file__).parents[2] / "events" / "authorizer.json"


@dataclass
class World:
    """The handler over fakes."""

    store: FakeStore = field(default_factory=FakeStore)
    trouble: Exception | None = None

    def __post_init__(self) -> None:
        self.store.put_key(ApiKey("key_1", hash_key(TEAM_KEY), "team-a", "write", "ci", START))
        self.handler = build_handler(Authorizer(self.store, self.first_secret))

    def first_secret(self) -> str:
        if self.trouble is not None:
            raise self.trouble
        return SECRET

    def ask(self, key: object = None, *, header: str = "x-api-key") -> dict[str, Any]:
        event = json.loads(EVENT.read_text())
        del event["headers"]["x-api-key"]
        if key is not None:
            event["headers"][header] = key
        return self.handler(event, FakeContext())


def test_the_first_key_is_the_admin_of_the_default_owner() -> None:
    assert World().ask(FIRST)["context"] == {"owner": "default", "scope": "admin", "key_id": "first"}


def test_a_stored_key_is_its_owner_with_its_scope() -> None:
    answer = World().ask(TEAM_KEY)
    assert answer["context"] == {"owner": "team-a", "scope": "write", "key_id": "key_1"}
    assert answer["principalId"] == "team-a"


def test_the_policy_opens_the_whole_stage_because_the_answer_is_cached_for_every_route() -> None:
    assert World().ask(FIRST)["policyDocument"] == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Action": "execute-api:Invoke",
                "Effect": "Allow",
                "Resource": "arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/prod/*",
            }
        ],
    }


def test_the_headers_name_ignores_case() -> None:
    for header in ("X-Api-Key", "X-API-KEY", "x-api-key"):
        assert World().ask(FIRST, header=header)["context"]["owner"] == "default"


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "rbk_",
        SECRET,
        FIRST[:-1],
        FIRST + "x",
        FIRST.lower(),
        " " + FIRST,
        FIRST + "\n",
        "rbk_" + "x" * 10_000,
        "rbk_" + "é" * 32,
        "rbk_\ud800" + "x" * 32,
        hash_key(TEAM_KEY),
        "Bearer " + TEAM_KEY,
        7,
        [FIRST],
    ],
)
def test_no_key_or_a_wrong_one_raises_exactly_what_api_gateway_makes_401_of(key: object) -> None:
    with pytest.raises(Exception, match=r"^Unauthorized$") as refused:
        World().ask(key)
    assert type(refused.value) is Exception


def test_an_event_without_headers_is_refused() -> None:
    event = json.loads(EVENT.read_text()) | {"headers": None}
    with pytest.raises(Exception, match=r"^Unauthorized$"):
        World().handler(event, FakeContext())


def test_an_empty_secret_opens_nothing() -> None:
    handler = build_handler(Authorizer(FakeStore(), lambda: ""))
    event = json.loads(EVENT.read_text())
    event["headers"]["x-api-key"] = "rbk_"
    with pytest.raises(Exception, match=r"^Unauthorized$"):
        handler(event, FakeContext())


def test_trouble_of_ours_is_never_taken_for_a_wrong_key() -> None:
    world = World()
    world.store.trouble = RuntimeError("throttled")
    with pytest.raises(RuntimeError, match="throttled"):
        world.ask(TEAM_KEY)
    with pytest.raises(RuntimeError, match="no secret"):
        World(trouble=RuntimeError("no secret")).ask(TEAM_KEY)


def test_no_key_is_ever_logged() -> None:
    world = World()
    with captured_log() as lines:
        world.ask(FIRST)
        with pytest.raises(Exception, match=r"^Unauthorized$"):
            world.ask("rbk_wrongWrongWrongWrongWrong")
    assert [line["message"] for line in lines] == ["let in", "refused"]
    assert SECRET not in str(lines)
    assert "wrongWrong" not in str(lines)


def test_each_scope_covers_those_before_it() -> None:
    read, write, admin = Scope.READ, Scope.WRITE, Scope.ADMIN
    covered = {(one, other) for one in Scope for other in Scope if one.covers(other)}
    assert covered == {(read, read), (write, read), (write, write), (admin, read), (admin, write), (admin, admin)}
