"""Keys of further owners, minted through the API as an operator would, and remembered beside the stack's data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import requests

from local.stack import Stack, StackError

CALL_LIMIT_S = 60.0
SCOPE = "write"


def keys_of_teams(stack: Stack, teams: Sequence[str], path: Path) -> Mapping[str, str]:
    """A key of each owner: that of the last time where it still works, else a new one. Raises `StackError`."""
    remembered: Mapping[str, str] = json.loads(path.read_text()) if path.exists() else {}
    with requests.Session() as http:
        http.trust_env = False
        keys = {team: _working(http, stack, remembered.get(team)) or _minted(http, stack, team) for team in teams}
    if keys != remembered:
        path.touch(mode=0o600)
        path.write_text(json.dumps(keys, indent=2) + "\n")
    return keys


def _working(http: requests.Session, stack: Stack, key: str | None) -> str | None:
    if key is None:
        return None
    answer = http.get(f"{stack.api_url}/connections", headers={"x-api-key": key}, timeout=CALL_LIMIT_S)
    return key if answer.status_code == 200 else None


def _minted(http: requests.Session, stack: Stack, team: str) -> str:
    asked = {"owner": team, "name": "local", "scope": SCOPE}
    answer = http.post(f"{stack.api_url}/keys", headers=stack.headers, json=asked, timeout=CALL_LIMIT_S)
    if answer.status_code != 201:
        raise StackError(f"no key for {team}: {answer.status_code} {answer.text}")
    return str(answer.json()["key"])
