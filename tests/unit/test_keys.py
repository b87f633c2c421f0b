"""API keys: minted for any owner, shown once, listed without themselves, deleted."""

from __future__ import annotations

import pytest

from renderbell.keys import MAX_KEYS, hash_key
from tests.fakes import captured_log
from tests.http_api import World

ASKED = {"owner": "team-a", "name": "ci", "scope": "write"}


def test_a_key_is_shown_once_and_kept_as_a_hash() -> None:
    world = World()
    with captured_log() as lines:
        minted = world.call("POST", "/keys", ASKED)
    assert minted.status == 201
    text = minted.json["key"]
    assert text.startswith("rbk_")
    assert len(text) > 20
    kept = world.store.key(hash_key(text))
    assert kept is not None
    assert (kept.owner, kept.scope, kept.name) == ("team-a", "write", "ci")
    assert minted.json == {
        "key_id": kept.key_id,
        "owner": "team-a",
        "name": "ci",
        "scope": "write",
        "created_at": "2026-03-01T12:00:00.000Z",
        "key": text,
        "withheld": None,
    }
    listed = world.call("GET", "/keys", query={"owner": "team-a"})
    assert listed.json["keys"] == [
        {name: value for name, value in minted.json.items() if name not in {"key", "withheld"}}
    ]
    assert text not in repr(lines)
    assert text not in repr(world.table.items())
    assert minted.headers["cache-control"] == "no-store"


def test_keys_are_listed_for_one_owner_the_oldest_first() -> None:
    world = World()
    for name in ("a", "b"):
        world.call("POST", "/keys", ASKED | {"name": name})
        world.clock.pass_s(1)
    world.call("POST", "/keys", ASKED | {"owner": "default", "name": "mine"})
    names = [key["name"] for key in world.call("GET", "/keys", query={"owner": "team-a"}).json["keys"]]
    assert names == ["a", "b"]
    assert [key["name"] for key in world.call("GET", "/keys").json["keys"]] == ["mine"]
    assert world.call("GET", "/keys", query={"owner": "nobody"}).json == {"keys": []}


def test_a_deleted_key_is_known_no_more() -> None:
    world = World()
    minted = world.call("POST", "/keys", ASKED).json
    wrong = world.call("DELETE", f"/keys/{minted['key_id']}")
    assert wrong.problem(404, "not_found"), "without the owner it is another owner's"
    assert world.store.key(hash_key(minted["key"])) is not None
    gone = world.call("DELETE", f"/keys/{minted['key_id']}", query={"owner": "team-a"})
    assert (gone.status, gone.text) == (204, "")
    assert world.store.key(hash_key(minted["key"])) is None
    assert world.call("GET", "/keys", query={"owner": "team-a"}).json == {"keys": []}
    assert world.call("DELETE", f"/keys/{minted['key_id']}", query={"owner": "team-a"}).problem(404, "not_found")


@pytest.mark.parametrize("scope", ["read", "write"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/keys"), ("GET", "/keys"), ("DELETE", "/keys/key_1")])
def test_keys_are_the_operators_alone(method: str, path: str, scope: str) -> None:
    world = World()
    body = ASKED if method == "POST" else None
    world.call(method, path, body, scope=scope).problem(403, "forbidden")
    assert world.call(method, path, body, scope="admin").status != 403


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"owner": "Team"}, "owner"),
        ({"owner": ""}, "owner"),
        ({"owner": "a" * 33}, "owner"),
        ({"owner": "team-a\n"}, "owner"),
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\x1bb"}, "name"),
        ({"name": "a\ud800b"}, "name"),
        ({"scope": "root"}, "scope"),
        ({"key": "rbk_mine"}, "key"),
    ],
)
def test_what_cannot_be_a_key_is_refused(asked: dict[str, str], named: str) -> None:
    world = World()
    problem = world.call("POST", "/keys", ASKED | asked).problem(422, "invalid_input")
    assert [one["field"] for one in problem["errors"]] == [named]
    assert world.store.keys("default") == ()


def test_an_owner_that_cannot_be_is_refused_in_the_query_too() -> None:
    world = World()
    problem = world.call("GET", "/keys", query={"owner": "Team A"}).problem(422, "invalid_input")
    assert problem["errors"][0]["field"] == "owner"


def test_an_owner_has_a_hundred_keys_at_most() -> None:
    world = World()
    for n in range(MAX_KEYS):
        assert world.call("POST", "/keys", ASKED | {"name": f"n{n}"}).status == 201
    world.call("POST", "/keys", ASKED).problem(409, "too_many_keys")
    assert world.call("POST", "/keys", ASKED | {"owner": "team-b"}).status == 201
    first = world.call("GET", "/keys", query={"owner": "team-a"}).json["keys"][0]["key_id"]
    assert world.call("DELETE", f"/keys/{first}", query={"owner": "team-a"}).status == 204
    assert world.call("POST", "/keys", ASKED).status == 201
    world.call("POST", "/keys", ASKED).problem(409, "too_many_keys")


def test_of_two_who_mint_the_last_key_at_once_one_does() -> None:
    world = World()
    for n in range(MAX_KEYS - 1):
        assert world.call("POST", "/keys", ASKED | {"name": f"n{n}"}).status == 201
    inner = []
    world.client.before["transact_write_items"] = lambda: inner.append(world.call("POST", "/keys", ASKED).status)
    world.call("POST", "/keys", ASKED).problem(409, "too_many_keys")
    assert inner == [201]
    assert len(world.store.keys("team-a")) == MAX_KEYS


def test_of_two_who_delete_a_key_at_once_one_does() -> None:
    world = World()
    key_id = world.call("POST", "/keys", ASKED).json["key_id"]
    path, query = f"/keys/{key_id}", {"owner": "team-a"}
    inner = []
    world.client.before["transact_write_items"] = lambda: inner.append(world.call("DELETE", path, query=query).status)
    world.call("DELETE", path, query=query).problem(404, "not_found")
    assert inner == [204]
