"""Every recorded exchange with the two open servers, and what it must be read as."""

from __future__ import annotations

import json
from typing import Any

import pytest

from renderbell.providers import (
    PROVIDERS,
    ProviderAuthError,
    ProviderError,
    ProviderProtocolError,
    ProviderRejected,
    ProviderTaskNotFound,
    ProviderUnavailable,
)
from tests.unit.providers.answers import RECORDINGS, answer, connection

BASE_URL = "http://192.168.1.20:8080"
COS = (
    "https://bucket-1250000000.cos.ap-guangzhou.myqcloud.com/2026-11-22/20261122100000abcd1234.mp4"
    "?q-sign-algorithm=sha1&q-ak=AKIDEXAMPLE&q-sign-time=1763779200;1764384000&q-key-time=1763779200;1764384000"
    "&q-header-list=host&q-url-param-list=&q-signature=0"
)

NOT_FOUND = ProviderTaskNotFound
UNAVAILABLE = ProviderUnavailable
REJECTED = ProviderRejected
AUTH = ProviderAuthError
PROTOCOL = ProviderProtocolError  # also: another route's answer, which is no status

# name: an error, or (state, progress, videos, combined, error)
Expected = type[ProviderError] | tuple[str, int | None, tuple[str, ...], tuple[str, ...], str | None]

DONE: Expected = ("succeeded", 100, (COS,), (), None)

CAPCUT_MATE: dict[str, Expected] = {
    "mem-pending": ("queued", 0, (), (), None),
    "mem-processing": ("processing", 70, (), (), None),
    "mem-completed": DONE,
    "mem-failed": ("failed", None, (), (), "视频上传失败"),
    "mem-completed-race": ("succeeded", 95, (), (), None),
    "db-completed": DONE,
    "db-failed": ("failed", None, (), (), "导出草稿失败"),
    "unknown (zh default)": NOT_FOUND,
    "unknown (en)": NOT_FOUND,
    "completed (en)": DONE,
    "url without draft_id": NOT_FOUND,
    "empty string": NOT_FOUND,
    "not a url": NOT_FOUND,
    "url that urlparse refuses (2032)": UNAVAILABLE,
    "memory task asked with another host (key is the whole url)": NOT_FOUND,
    "persisted task asked with another host (key is draft_id)": DONE,
    "missing field": REJECTED,
    "missing field (en)": REJECTED,
    "null draft_url": REJECTED,
    "number draft_url": REJECTED,
    "json array": REJECTED,
    "broken json": REJECTED,
    "form body": REJECTED,
    "GET instead of POST": PROTOCOL,
    "unknown route": PROTOCOL,
    "root": PROTOCOL,
    "active count": PROTOCOL,
    "gen_video without apiKey (ENABLE_APIKEY=true)": AUTH,
    "gen_video bad apiKey": REJECTED,
    "after restart: mem-pending": NOT_FOUND,
    "after restart: mem-processing": NOT_FOUND,
    "after restart: mem-completed": NOT_FOUND,
    "after restart: db-completed": DONE,
    "after restart: db-failed": ("failed", None, (), (), "导出草稿失败"),
}


def finished(task_id: str) -> Expected:
    """A finished MoneyPrinterTurbo task: relative links, resolved."""
    files = f"{BASE_URL}/tasks/{task_id}"
    return ("succeeded", 100, (f"{files}/final-1.mp4",), (f"{files}/combined-1.mp4",), None)


REAL = finished("0d30ba8f-3f33-469f-ae56-d38cc6db610f")
SEEDED = finished("6c85c8cc-a77a-42b9-bc30-947815aa0558")

MONEYPRINTERTURBO: dict[str, Expected] = {
    "upload-material": PROTOCOL,
    "list-empty": PROTOCOL,
    "submit-video": PROTOCOL,
    "poll state=4 progress=10": ("processing", 20, (), (), None),  # its name is older than its answer
    "delete-while-running": REJECTED,
    "list-while-running": PROTOCOL,
    "poll state=4 progress=40": ("processing", 40, (), (), None),
    "poll state=4 progress=50": ("processing", 50, (), (), None),
    "poll state=4 progress=75": ("processing", 75, (), (), None),
    "poll state=1 progress=100": REAL,
    "list-after-done": PROTOCOL,
    "submit-will-fail": PROTOCOL,
    "poll-failed-script": (
        "failed",
        5,
        (),
        (),
        "moonshot: api_key is not set, please set it in the config.toml file.",
    ),
    "submit-missing-material": PROTOCOL,
    "poll-failed-materials": ("failed", 40, (), (), "no valid local video materials were found"),
    "submit-audio-only": PROTOCOL,
    "poll-audio-only-done (state 1, videos null)": ("succeeded", 100, (), (), None),
    "delete-failed-task": PROTOCOL,
    "get-after-delete": NOT_FOUND,
    "submit-invalid-body": REJECTED,
    "submit-broken-json": REJECTED,
    "get-task-after-restart (memory store lost)": NOT_FOUND,
    "list-after-restart": PROTOCOL,
    "delete-after-restart": NOT_FOUND,
    "get completed": SEEDED,
    "get processing-0": ("processing", 0, (), (), None),
    "get processing-75": ("processing", 75, (), (), None),
    "get processing-but-100": ("processing", 100, (), (), None),
    "get failed-with-stage": ("failed", 30, (), (), "failed to prepare narration audio"),
    "get failed-old-shape": ("failed", None, (), (), None),
    "get completed-audio-only": ("succeeded", 100, (), (), None),
    "get completed-file-gone": ("succeeded", 100, (), (), None),
    "get corrupt-record (500)": UNAVAILABLE,
    "get unknown": NOT_FOUND,
    "get completed, other Host header": SEEDED,
    "get completed again": SEEDED,
    "get unknown with x-task-id": NOT_FOUND,
    "get with wrong x-api-key (not enforced)": SEEDED,
    "get trailing slash": PROTOCOL,
    "get id with encoded slash": PROTOCOL,
    "list (one record corrupt -> 500 for the whole page)": UNAVAILABLE,
    "list page1 size3": PROTOCOL,
    "list page2 size3": PROTOCOL,
    "list page99": PROTOCOL,
    "list page0": REJECTED,
    "list page_size0": REJECTED,
    "list page_size huge": PROTOCOL,
    "list page=abc": REJECTED,
    "stream start past size": REJECTED,
    "stream multi range": REJECTED,
    "stream bad unit": REJECTED,
    "stream HEAD": PROTOCOL,
    "stream missing file": NOT_FOUND,
    "stream directory": NOT_FOUND,
    "stream traversal encoded": AUTH,
    "stream traversal plain": AUTH,
    "download HEAD": PROTOCOL,
    "download missing": NOT_FOUND,
    "download traversal": AUTH,
    "download absolute": AUTH,
    "static missing": PROTOCOL,
    "unknown route": PROTOCOL,
    "method not allowed": PROTOCOL,
    "delete processing": REJECTED,
    "delete completed": PROTOCOL,
    "get deleted": NOT_FOUND,
    "static of deleted": PROTOCOL,
    "delete again": NOT_FOUND,
    "delete failed": PROTOCOL,
}

TABLES = {"capcut-mate": CAPCUT_MATE, "moneyprinterturbo": MONEYPRINTERTURBO}


def exchanges(provider: str) -> list[dict[str, Any]]:
    """The recorded exchanges that hold their answer's text; those of files hold only a checksum."""
    lines = (RECORDINGS / f"{provider}.jsonl").read_text(encoding="utf-8").splitlines()
    recorded = [json.loads(line) for line in lines]
    return [exchange for exchange in recorded if "body" not in exchange["response"]]


ALL = [(provider, exchange) for provider in TABLES for exchange in exchanges(provider)]


@pytest.mark.parametrize(("provider", "exchange"), ALL, ids=[f"{p}: {e['name']}" for p, e in ALL])
def test_a_recorded_answer_is_read_as_the_table_says(provider: str, exchange: dict[str, Any]) -> None:
    expected = TABLES[provider][exchange["name"]]
    recorded = exchange["response"]
    response = answer(recorded.get("json", recorded.get("text")), recorded["status"], recorded["headers"])
    account = connection(provider, base_url=BASE_URL)

    if isinstance(expected, tuple):
        seen = PROVIDERS[provider].parse_status(account, response)
        assert (seen.state.value, seen.progress, seen.videos, seen.combined, seen.error) == expected
        assert seen.images == ()
    else:
        with pytest.raises(expected):
            PROVIDERS[provider].parse_status(account, response)


@pytest.mark.parametrize("provider", TABLES)
def test_the_table_names_every_recorded_answer_and_no_other(provider: str) -> None:
    names = [exchange["name"] for exchange in exchanges(provider)]
    assert sorted(names) == sorted(TABLES[provider])


def status_exchanges(provider: str, name: str) -> dict[str, Any]:
    """One recorded exchange by its name."""
    return next(exchange for exchange in exchanges(provider) if exchange["name"] == name)


def test_our_capcut_mate_request_is_the_recorded_one() -> None:
    recorded = status_exchanges("capcut-mate", "completed (en)")["request"]
    account = connection("capcut-mate", base_url=BASE_URL)
    request = PROVIDERS["capcut-mate"].status_request(account, recorded["json"]["draft_url"])
    assert (request.method, request.url, request.json) == (
        recorded["method"],
        BASE_URL + recorded["path"],
        recorded["json"],
    )
    assert request.headers["Accept-Language"] == recorded["headers"]["Accept-Language"]


def test_our_moneyprinterturbo_request_is_the_recorded_one() -> None:
    recorded = status_exchanges("moneyprinterturbo", "get completed")["request"]
    account = connection("moneyprinterturbo", base_url=BASE_URL)
    request = PROVIDERS["moneyprinterturbo"].status_request(account, "6c85c8cc-a77a-42b9-bc30-947815aa0558")
    assert (request.method, request.url, request.json) == (recorded["method"], BASE_URL + recorded["path"], None)
