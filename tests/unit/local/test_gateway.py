"""What stands before the emulator's API: everything passes, but for the emulator's own answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from local.gateway import Gateway
from local.serving import LoopbackServer

TEMPLATE = Path(__file__).parents[3] / "template.yaml"


class Api:
    """Repeats what it was sent, or answers as it was told."""

    def __init__(self) -> None:
        self.answer: Response | None = None
        self.server = LoopbackServer(self._app)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        told = {
            "method": request.method,
            "path": scope["raw_path"].decode(),
            "query": scope["query_string"].decode(),
            "key": request.headers.get("x-api-key"),
            "body": (await request.body()).decode("latin-1"),
        }
        await (self.answer or JSONResponse(told, 207, {"x-told": "so"}))(scope, receive, send)


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    with api.server:
        yield api


@pytest.fixture
def gateway(api: Api) -> Iterator[Gateway]:
    with Gateway(TEMPLATE) as gateway:
        gateway.lead_to(f"{api.server.url}/deep/down")
        yield gateway


def call(gateway: Gateway, method: str = "GET", path: str = "/tasks", **more: object) -> requests.Response:
    with requests.Session() as http:
        http.trust_env = False
        return http.request(method, gateway.url + path, timeout=10, allow_redirects=False, **more)  # type: ignore[arg-type]


def test_a_call_passes_as_it_is(gateway: Gateway) -> None:
    answer = call(gateway, "PATCH", "/tasks/a%2Fb%20c?x=1&x=%20", data="ü{".encode(), headers={"x-api-key": "rbk_1"})
    assert answer.status_code == 207
    assert answer.headers["x-told"] == "so"
    assert answer.json() == {
        "method": "PATCH",
        "path": "/deep/down/tasks/a%2Fb%20c",
        "query": "x=1&x=%20",
        "key": "rbk_1",
        "body": "ü{".encode().decode("latin-1"),
    }


def test_a_redirect_is_not_followed_and_an_empty_answer_stays_empty(gateway: Gateway, api: Api) -> None:
    api.answer = Response("", 302, {"Location": "https://example.com/video"})
    assert call(gateway).headers["location"] == "https://example.com/video"
    api.answer = Response(status_code=204)
    assert (call(gateway).status_code, call(gateway).content) == (204, b"")


@pytest.mark.parametrize(
    ("said", "status", "told"),
    [
        ({"message": "Unauthorized"}, 401, (401, "unauthorized")),
        ({"message": "Missing Authentication Token"}, 403, (404, "not_found")),
        ({"Message": "User is not authorized to access this resource"}, 403, (403, "forbidden")),
        ({"message": "Too Many Requests"}, 429, (429, "throttled")),
        ({"message": 'Bad "request" body'}, 400, (400, "bad_request")),
        ({"message": "Internal server error"}, 502, (502, "internal_error")),
    ],
)
def test_the_emulators_own_answers_become_the_templates(
    gateway: Gateway, api: Api, said: dict[str, str], status: int, told: tuple[int, str]
) -> None:
    api.answer = JSONResponse(said, status)
    answer = call(gateway)
    assert (answer.status_code, answer.json()["code"]) == told
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers.get("retry-after") == ("1" if status == 429 else None)


def test_what_a_function_says_passes_though_it_is_an_error(gateway: Gateway, api: Api) -> None:
    problem = {"type": "about:blank", "title": "Unauthorized", "status": 401, "detail": "no", "code": "unauthorized"}
    api.answer = JSONResponse(problem, 401, media_type="application/problem+json")
    assert call(gateway).json() == problem


def test_beside_the_stage_and_before_it_leads_anywhere_there_is_no_route(gateway: Gateway) -> None:
    with requests.Session() as http:
        http.trust_env = False
        answer = http.get(gateway.url.removesuffix("/v1") + "/v2/tasks", timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    with Gateway(TEMPLATE) as fresh:
        assert call(fresh).status_code == 404
