"""What the emulator's API Gateway lacks: a short address, and the template's own answers to what no function answers.

The emulator leaves `GatewayResponses` aside and answers `{"message": …}`; AWS answers as the template says. Everything
else passes through as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import urllib3
import yaml
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from local.serving import LoopbackServer

STAGE = "v1"
CALL_LIMIT_S = 60.0
HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
# The emulator's own answers, and what AWS calls them.
KINDS = {
    (401, "Unauthorized"): "UNAUTHORIZED",
    (403, "Missing Authentication Token"): "MISSING_AUTHENTICATION_TOKEN",
    (403, "User is not authorized to access this resource"): "ACCESS_DENIED",
    (404, "Not Found"): "RESOURCE_NOT_FOUND",
    (429, "Too Many Requests"): "THROTTLED",
    (504, "Endpoint request timed out"): "INTEGRATION_TIMEOUT",
}


@dataclass(frozen=True, slots=True)
class GatewayResponse:
    """An answer that API Gateway makes itself; `status` None: as it would be anyway."""

    status: int | None
    headers: Mapping[str, str]
    body: str


def gateway_responses(template: Path) -> Mapping[str, GatewayResponse]:
    """The answers that a template gives its API, by AWS's names for what they answer."""
    resources = yaml.load(template.read_text(), _Loader)["Resources"]
    (api,) = [one for one in resources.values() if one["Type"] == "AWS::Serverless::Api"]
    return {
        kind: GatewayResponse(
            status=told.get("StatusCode"),
            headers={
                name: value.strip("'") for name, value in told.get("ResponseParameters", {}).get("Headers", {}).items()
            },
            body=told["ResponseTemplates"]["application/json"],
        )
        for kind, told in api["Properties"]["GatewayResponses"].items()
    }


class Gateway:
    """Stands before an API of the emulator, which `lead_to` names; a context manager.

    What no function answers is answered as the template says.
    """

    def __init__(self, template: Path, *, port: int = 0) -> None:
        self._responses = gateway_responses(template)
        self._target: str | None = None
        self._pool = urllib3.PoolManager(maxsize=32)
        self._server = LoopbackServer(self._app, (port,))

    @property
    def url(self) -> str:
        """The API's address."""
        return f"{self._server.url}/{STAGE}"

    def lead_to(self, api_url: str) -> None:
        """Calls go there from now on."""
        self._target = api_url

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        self._pool.clear()

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        answer = await run_in_threadpool(self._answer, request, body)
        await answer(scope, receive, send)

    def _answer(self, request: Request, body: bytes) -> Response:
        path, prefix = request.scope["raw_path"].decode("latin-1"), f"/{STAGE}"
        if self._target is None or not path.startswith(f"{prefix}/"):
            return self._own("MISSING_AUTHENTICATION_TOKEN", 403, "Missing Authentication Token")
        query = request.scope["query_string"].decode("latin-1")
        target = self._target + path.removeprefix(prefix) + (f"?{query}" if query else "")
        headers = [(name, value) for name, value in request.headers.items() if name not in HOP_BY_HOP]
        called = self._pool.request(
            request.method,
            target,
            body=body,
            headers=urllib3.HTTPHeaderDict([*headers, ("host", urlsplit(self._target).netloc)]),
            redirect=False,
            retries=False,
            timeout=CALL_LIMIT_S,
            decode_content=False,
        )
        message = _message(called.data)
        if message is not None:
            usual = "DEFAULT_5XX" if called.status >= 500 else "DEFAULT_4XX"
            return self._own(KINDS.get((called.status, message), usual), called.status, message)
        answer = Response(called.data, called.status)
        for name, value in called.headers.items():
            if name.lower() not in HOP_BY_HOP:
                answer.headers.append(name, value)
        return answer

    def _own(self, kind: str, status: int, message: str) -> Response:
        told = self._responses[kind]
        body = told.body.replace("$context.error.messageString", json.dumps(message)).replace("$context.requestId", "-")
        return Response(body, told.status or status, told.headers)


class _Loader(yaml.SafeLoader):
    """Reads a template; what intrinsic functions would give is left out."""


def _intrinsic(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> Any:
    return None


_Loader.add_multi_constructor("!", _intrinsic)


def _message(body: bytes) -> str | None:
    """The only thing that the emulator says when it answers itself; functions answer otherwise."""
    try:
        told = json.loads(body)
    except ValueError:
        return None
    if not isinstance(told, dict) or len(told) != 1:
        return None
    ((name, value),) = told.items()
    return value if name.lower() == "message" and isinstance(value, str) else None
