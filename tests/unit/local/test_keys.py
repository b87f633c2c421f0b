"""Keys of further owners: minted once, remembered, and minted anew where they no longer work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from local.keys import keys_of_teams
from local.serving import LoopbackServer
from local.stack import Stack, StackError

FIRST = "rbk_first"


class Api:
    """As much of the API as keys need."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}  # by key
        self.refuses = False
        self._numbers = count(1)
        self.server = LoopbackServer(self._app)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        key = request.headers["x-api-key"]
        if request.method == "GET":
            answer = JSONResponse({}, 200 if key in self.owners else 401)
        elif key != FIRST or self.refuses:
            answer = JSONResponse({"code": "forbidden"}, 403)
        else:
            made = f"rbk_{next(self._numbers)}"
            self.owners[made] = (await request.json())["owner"]
            answer = JSONResponse({"key": made}, 201)
        await answer(scope, receive, send)

    @property
    def stack(self) -> Stack:
        return Stack(
            name="renderbell",
            api_url=self.server.url,
            api_key=FIRST,
            aws_endpoint_url="",
            region="",
            table="",
            bucket="",
            outputs={},
        )


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    with api.server:
        yield api


def test_each_team_gets_a_key_and_keeps_it(api: Api, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = keys_of_teams(api.stack, ("team-a", "team-b"), path)
    assert {team: api.owners[key] for team, key in keys.items()} == {"team-a": "team-a", "team-b": "team-b"}
    assert json.loads(path.read_text()) == keys
    assert path.stat().st_mode & 0o077 == 0
    assert keys_of_teams(api.stack, ("team-a", "team-b"), path) == keys
    assert len(api.owners) == 2


def test_a_key_that_no_longer_works_is_minted_anew(api: Api, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    before = keys_of_teams(api.stack, ("team-a", "team-b"), path)
    del api.owners[before["team-a"]]
    after = keys_of_teams(api.stack, ("team-a", "team-b"), path)
    assert after["team-a"] != before["team-a"]
    assert after["team-b"] == before["team-b"]


def test_without_teams_nothing_is_asked_or_written(api: Api, tmp_path: Path) -> None:
    assert keys_of_teams(api.stack, (), tmp_path / "keys.json") == {}
    assert list(tmp_path.iterdir()) == []


def test_an_api_that_refuses_is_told_of(api: Api, tmp_path: Path) -> None:
    api.refuses = True
    with pytest.raises(StackError, match="no key for team-a: 403"):
        keys_of_teams(api.stack, ("team-a",), tmp_path / "keys.json")
