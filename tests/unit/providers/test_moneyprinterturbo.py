"""MoneyPrinterTurbo beyond the recordings: links of all versions, old shapes, errors."""

from __future__ import annotations

import pytest

from renderbell.providers import (
    PROVIDERS,
    DeletingProvider,
    Observation,
    ProviderAuthError,
    ProviderError,
    ProviderProtocolError,
    ProviderRejected,
    ProviderState,
    ProviderTaskNotFound,
    ProviderUnavailable,
)
from tests.unit.providers.answers import KEY, answer, connection

MPT = PROVIDERS["moneyprinterturbo"]
BASE = "http://192.168.1.20:8080"
FILE = "/tasks/6c85c8cc/final-1.mp4"


def read(body: object, status: int = 200, base_url: str = BASE) -> Observation:
    return MPT.parse_status(connection("moneyprinterturbo", base_url=base_url), answer(body, status))


def task(state: object, **fields: object) -> dict[str, object]:
    return {"status": 200, "message": "success", "data": {"task_id": "6c85c8cc", "state": state} | fields}


@pytest.mark.parametrize(
    ("told", "link"),
    [
        (FILE, BASE + FILE),
        ("http://localhost:8080" + FILE, "http://localhost:8080" + FILE),
        ("/srv/MoneyPrinterTurbo/storage" + FILE, None),  # the file is gone: its path on the server
        ("C:\\MoneyPrinterTurbo\\storage\\tasks\\x\\final-1.mp4", None),
        ("http://mpt.example.com/http://127.0.0.1:28080" + FILE, BASE + FILE),  # 1.2.6, asked under two addresses
        ("http://a/http://b/https://c" + FILE, BASE + FILE),
        ("http://mpt.example.com/http://127.0.0.1:28080/other/x.mp4", None),
        ("/tasks/../config.toml", None),
        ("/tasks/x/../../config.toml", None),
        ("tasks/x/final-1.mp4", None),
        ("file:///tasks/x/final-1.mp4", None),
        ("", None),
        (7, None),
        (None, None),
    ],
)
def test_only_links_of_the_server_and_absolute_ones_are_links(told: object, link: str | None) -> None:
    seen = read(task(1, videos=[told], combined_videos=[told]))
    assert seen.videos == seen.combined == (() if link is None else (link,))


def test_relative_links_keep_the_path_of_a_server_behind_a_prefix() -> None:
    assert read(task(1, videos=[FILE]), base_url="https://host/mpt/").videos == ("https://host/mpt" + FILE,)


def test_all_final_videos_are_outputs_in_their_order() -> None:
    files = [f"/tasks/x/final-{n}.mp4" for n in (1, 2, 3)]
    assert read(task(1, videos=files)).videos == tuple(BASE + file for file in files)


def test_the_documented_success_is_read() -> None:
    body = {
        "status": 200,
        "message": "success",
        "data": {"state": 1, "progress": 100, "videos": ["http://h:8080" + FILE]},
    }
    assert read(body).videos == ("http://h:8080" + FILE,)


def test_a_failure_of_version_1_2_6_has_no_text_and_no_progress() -> None:
    seen = read(task(-1, progress=0))
    assert (seen.state, seen.error, seen.progress) == (ProviderState.FAILED, None, None)


def test_a_failure_without_text_names_its_stage() -> None:
    assert read(task(-1, progress=40, failed_stage="materials", error=None)).error == "failed at stage materials"


@pytest.mark.parametrize("state", [4, "4", 0, 2, 99])
def test_every_other_state_is_still_running(state: object) -> None:
    assert read(task(state, progress=100, videos=[FILE])).state is ProviderState.PROCESSING
    assert read(task(state, progress=100, videos=[FILE])).videos == ()


@pytest.mark.parametrize("state", [None, "done", [], 1.5])
def test_a_missing_state_is_an_unreadable_answer(state: object) -> None:
    with pytest.raises(ProviderProtocolError):
        read(task(state))


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({"status": 404, "message": "r-1: task not found"}, 404, ProviderTaskNotFound),
        ({"detail": "Not Found"}, 404, ProviderProtocolError),
        ({"message": "Not Found"}, 404, ProviderProtocolError),  # API Gateway's word
        ({"message": "no Route matched with those values"}, 404, ProviderProtocolError),  # Kong's
        ("<html>", 404, ProviderProtocolError),
        ({"status": 401, "message": "invalid token: http://x, ua"}, 401, ProviderAuthError),
        ({"detail": "Method Not Allowed"}, 405, ProviderProtocolError),
        ("Internal Server Error", 500, ProviderUnavailable),
        ({"message": "queue full"}, 429, ProviderUnavailable),
        ("", 307, ProviderProtocolError),
    ],
)
def test_a_wrong_base_url_is_told_from_an_unknown_task(
    body: object, status: int, expected: type[ProviderError]
) -> None:
    with pytest.raises(expected):
        read(body, status)


def test_the_key_goes_into_the_header_that_the_server_checks() -> None:
    request = MPT.status_request(connection("moneyprinterturbo"), "a/b")
    assert request.headers["x-api-key"] == KEY
    assert request.url == "https://provider.example/api/v1/tasks/a%2Fb"
    assert "x-api-key" not in MPT.status_request(connection("moneyprinterturbo", api_key=None), "a").headers


# -- deleting ---------------------------------------------------------------------------------------------------------


def deleted(body: object, status: int = 200) -> type[ProviderError] | None:
    """The error that an answer to a deletion is."""
    assert isinstance(MPT, DeletingProvider)
    try:
        MPT.parse_delete(connection("moneyprinterturbo"), answer(body, status))
    except ProviderError as error:
        return type(error)
    return None


def test_a_task_is_deleted_on_its_own_route_with_the_key() -> None:
    assert isinstance(MPT, DeletingProvider)
    request = MPT.delete_request(connection("moneyprinterturbo", base_url=BASE), "a/../b c")
    assert (request.method, request.url, request.json) == ("DELETE", f"{BASE}/api/v1/tasks/a%2F..%2Fb%20c", None)
    assert request.headers["x-api-key"] == KEY


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"status": 200, "message": "success", "data": None}, 200, None),
        ({"status": 404, "message": "1d: task not found"}, 404, ProviderTaskNotFound),
        ({"detail": "Not Found"}, 404, ProviderProtocolError),
        ({"status": 409, "message": "1d: task is still running"}, 409, ProviderRejected),
        ({"detail": "Method Not Allowed"}, 405, ProviderProtocolError),
        ({"status": 401, "message": "invalid token: http://x, curl"}, 401, ProviderAuthError),
        ("Internal Server Error", 500, ProviderUnavailable),
        ("<html>Welcome to nginx</html>", 200, ProviderProtocolError),
        ("", 200, ProviderProtocolError),
    ],
)
def test_only_the_servers_own_word_says_that_it_is_deleted(
    body: object, status: int, error: type[ProviderError] | None
) -> None:
    assert deleted(body, status) is error


def test_no_other_provider_deletes() -> None:
    assert {name for name, one in PROVIDERS.items() if isinstance(one, DeletingProvider)} == {"moneyprinterturbo"}
