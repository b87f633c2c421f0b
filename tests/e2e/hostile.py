"""A provider and a receiver that repeat every secret they see, wherever they can."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from local.providers.video import VideoFile
from local.serving import LoopbackServer

TROUBLES = ("fine", "broken", "refused", "nonsense", "failing", "page", "expired", "cut", "slow")
SPEC = {
    "request": {"path": "/v1/tasks/{task_id}"},
    "state": "status",
    "states": {"processing": ["RUNNING"], "succeeded": ["DONE"], "failed": ["FAILED"]},
    "videos": "video",
    "error": "error",
}


class Hostile:
    """A server whose tasks do what the first word of their id says; its webhooks answer 500 and repeat what came.

    broken      500 with the request's headers in its body, twice
    refused     401 that names the key, once
    nonsense    JSON that breaks off behind the signed link, once
    failing     the task's own error repeats key and link
    page        an HTML page that repeats the link, where the video should be, once
    expired     403 until the provider is asked for a fresh link
    cut         the video breaks off in the middle, once
    fine, slow  done at once; never done
    """

    def __init__(self) -> None:
        self.api_key = f"sk-Marked/{secrets.token_hex(16)}+key=="
        self.header = f"team-marked-{secrets.token_hex(16)}"
        self.signature = f"marked{secrets.token_hex(16)}"
        self.told: list[str] = []
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = LoopbackServer(self._app)

    @property
    def url(self) -> str:
        """Its address."""
        return self._server.url

    def connections(self) -> list[Mapping[str, object]]:
        """A connection for each kind of trouble: one that backs off must not hold up the others."""
        request = {**SPEC["request"], "headers": {"X-Team-Token": self.header}}  # type: ignore[dict-item]
        return [
            {
                "name": f"hostile-{trouble}",
                "type": "generic",
                "base_url": self.url,
                "api_key": self.api_key,
                "poll_interval_s": 1,
                "spec": {**SPEC, "request": request},
            }
            for trouble in TROUBLES
        ]

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        _, kind, name = request.url.path.split("/", 2)
        with self._lock:
            self._asked[f"{kind}/{name}"] += 1
            times = self._asked[f"{kind}/{name}"]
        if kind == "v1":
            response = self._status(name.removeprefix("tasks/"), times, request)
        elif kind == "files":
            response = self._file(name.removesuffix(".mp4"), times, request)
        else:
            response = JSONResponse(await self._repeated(request), 500, {"x-echo": str(request.url)})
        with suppress(ConnectionAbortedError):
            await response(scope, receive, send)

    def _link(self, name: str, times: int) -> str:
        credential = quote(f"AKIA{self.signature[:16]}/us-east-1", safe="")
        return f"{self.url}/files/{name}.mp4?X-Amz-Credential={credential}&v={times}&X-Amz-Signature={self.signature}"

    def _status(self, name: str, times: int, request: Request) -> Response:
        trouble, link = name.partition("-")[0], self._link(name, times)
        key = request.headers["authorization"]
        repeated = f"{key} {quote(key, safe='')} {base64.b64encode(key.encode()).decode()} {self.header} {link}"
        if trouble == "broken" and times <= 2:
            return JSONResponse({"message": "internal error", "sent": dict(request.headers), "said": repeated}, 500)
        if trouble == "refused" and times == 1:
            return JSONResponse({"error": f"invalid key: {repeated}"}, 401, {"www-authenticate": repeated})
        if trouble == "nonsense" and times == 1:
            return Response(
                f'{{"status": "DONE", "video": "{link}", "sent": "{repeated}', media_type="application/json"
            )
        if trouble == "failing":
            return JSONResponse({"status": "FAILED", "error": f"upload of {link} failed, sent {repeated}"})
        if trouble == "slow":
            return JSONResponse({"status": "RUNNING"})
        return JSONResponse({"status": "DONE", "video": link})

    def _file(self, name: str, times: int, request: Request) -> Response:
        trouble, url = name.partition("-")[0], str(request.url)
        if trouble == "page" and times == 1:
            return Response(f"<html><title>{url}</title>{json.dumps(dict(request.headers))}</html>", 200)
        if trouble == "expired" and request.query_params["v"] == "1":
            return Response(f"<Error><Message>Request has expired: {url}</Message></Error>", 403)
        file = VideoFile(name, 400_000)
        headers = {"content-type": "video/mp4", "content-length": str(file.size_bytes), "x-echo": url}
        cut = trouble == "cut" and times == 1

        async def body() -> AsyncIterator[bytes]:
            for chunk in file.chunks(0, 200_000 if cut else file.size_bytes):
                yield chunk
            if cut:
                raise ConnectionAbortedError("cut on purpose")

        return StreamingResponse(body(), 200, headers)

    async def _repeated(self, request: Request) -> Mapping[str, object]:
        body = (await request.body()).decode()
        self.told.append(body)
        return {"you": "sent", "headers": dict(request.headers), "url": str(request.url), "body": body[:400]}
