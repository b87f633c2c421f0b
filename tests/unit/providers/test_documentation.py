"""The connections in docs/providers.md and in the README can be used as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from renderbell.providers import PROVIDERS, Connection
from tests.unit.providers.test_generic_specs import SPECS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "providers.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
ON_PAGE: list[dict[str, Any]] = [
    json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
]
IN_README: list[dict[str, Any]] = [
    json.loads(value) for value in re.findall(r"^put \w+ '(\{.*?\})'$", README, re.DOTALL | re.MULTILINE)
]


@pytest.mark.parametrize("written", ON_PAGE + IN_README, ids=lambda written: written["type"])
def test_a_documented_connection_is_valid(written: dict[str, Any]) -> None:
    key = {"api_key": "secret"} if "api_key" in written else {}  # the page shows an ellipsis
    Connection.model_validate(written | key | {"name": "example"})


@pytest.mark.parametrize("written", [ON_PAGE, IN_README], ids=["page", "readme"])
def test_every_type_has_an_example(written: list[dict[str, Any]]) -> None:
    assert {one["type"] for one in written} == set(PROVIDERS)


def test_the_two_specs_of_the_page_are_the_tested_ones() -> None:
    specs = [written["spec"] for written in ON_PAGE if "spec" in written]
    for spec, tested in zip(specs, [SPECS["runway"], SPECS["kling"]], strict=True):
        assert {**spec["request"], "method": "GET"} == {**tested["request"], "method": "GET"}
        assert {**spec, "request": None} == {**tested, "request": None}
