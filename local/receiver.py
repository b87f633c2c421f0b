"""A webhook receiver that verifies every signature with the independent `standardwebhooks` package.

Webhooks go to any path; what happened to them is asked for and steered beside that:

    GET  /_received?task_id=&type=&path=   the webhooks seen, one entry for each path and webhook id
    POST /_control                         {"path"?, and any field of `Order`}

`fail` is how many of the next requests to the path are answered with `status`, `always` answers so until told
otherwise; an empty order makes the path well again. Without a path the order holds for all paths that have none.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Annotated, Self

import requests
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from local.serving import LoopbackServer

EVERY_PATH = "*"

Sleep = Callable[[float], Awaitable[None]]
SecretSource = Callable[[], str]


class Order(BaseModel):
    """How requests to a path are answered; see the module's head."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fail: Annotated[int, Field(ge=0)] = 0
    always: bool = False
    status: Annotated[int, Field(ge=200, le=599)] = 500
    retry_after: str | int | None = None
    delay_s: Annotated[float, Field(ge=0, le=600)] = 0
    secret: str | None = None


class _PathOrder(Order):
    path: str = EVERY_PATH


@dataclass(slots=True)
class Received:
    """One webhook as a path saw it: all requests with the same webhook id.

    `verified` is true if every one of them had a good signature and the same bytes.
    """

    path: str
    webhook_id: str
    type: str | None
    task_id: str | None
    verified: bool
    body: bytes
    body_sha: str
    headers: Mapping[str, str]
    at: datetime
    attempts: int = 0
    answers: list[int] = field(default_factory=list)
    attempts_at: list[datetime] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """Everything but the body's bytes, which come as text."""
        return {
            "path": self.path,
            "webhook_id": self.webhook_id,
            "type": self.type,
            "task_id": self.task_id,
            "verified": self.verified,
            "attempts": self.attempts,
            "answers": self.answers,
            "at": self.at.isoformat(),
            "attempts_at": [at.isoformat() for at in self.attempts_at],
            "body_sha": self.body_sha,
            "body": self.body.decode(errors="replace"),
            "headers": dict(self.headers),
        }


class Receiver:
    """The receiver as a context manager.

    Its secret is given, or fetched from the API when it is first needed and again when a signature does not match,
    because it may have been rotated.
    """

    def __init__(
        self,
        *,
        secret: str | None = None,
        port: int = 0,
        secret_source: SecretSource | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._secrets: tuple[str, ...] = () if secret is None else (secret,)
        self._sources: tuple[SecretSource, ...] = () if secret_source is None else (secret_source,)
        self._sleep = sleep
        self._lock = threading.Lock()
        self._orders: dict[str, Order] = {}
        self._seen: dict[tuple[str, str], Received] = {}
        self._server = LoopbackServer(self._app, (port,))

    @property
    def url(self) -> str:
        """Its address; webhooks may go to any path below it."""
        return self._server.url

    def start(self) -> Self:
        """Serves."""
        self._server.start()
        return self

    def stop(self) -> None:
        """Stops serving."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def use_api(self, api_url: str, *api_keys: str) -> None:
        """Takes the secret of each key's owner from the API from now on."""
        self._secrets = ()
        self._sources = tuple(partial(fetch_secret, api_url, key) for key in api_keys)

    def order(self, path: str = EVERY_PATH, **order: object) -> None:
        """Tells how requests to a path are answered from now on; nothing given makes it well again."""
        self._give(path, Order.model_validate(order))

    def received(
        self,
        *,
        task_id: str | None = None,
        type: str | None = None,
        path: str | None = None,
    ) -> list[Received]:
        """The webhooks seen so far, oldest first."""
        with self._lock:
            seen = list(self._seen.values())
        return [
            one
            for one in seen
            if (task_id is None or one.task_id == task_id)
            and (type is None or one.type == type)
            and (path is None or one.path == path)
        ]

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._answer(request)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.url.path
        if path == "/_received" and request.method == "GET":
            asked = {name: request.query_params.get(name) for name in ("task_id", "type", "path")}
            return JSONResponse({"webhooks": [one.as_json() for one in self.received(**asked)]})
        if path == "/_control" and request.method == "POST":
            try:
                told = _PathOrder.model_validate_json(await request.body() or b"{}")
            except ValidationError as error:
                return JSONResponse(
                    {"detail": error.errors(include_url=False, include_context=False, include_input=False)}, 422
                )
            self._give(told.path, Order(**told.model_dump(exclude={"path"})))
            return Response(status_code=204)
        if request.method != "POST":
            return JSONResponse({"detail": "webhooks come by POST"}, 405)
        return await self._webhook(path, request)

    async def _webhook(self, path: str, request: Request) -> Response:
        body = await request.body()
        at = datetime.now(UTC)
        order = self._orders.get(path) or self._orders.get(EVERY_PATH) or Order()
        headers = {name.lower(): value for name, value in request.headers.items()}
        failing = order.always or order.fail > 0
        if order.fail > 0:
            self._give(path if path in self._orders else EVERY_PATH, order.model_copy(update={"fail": order.fail - 1}))
        verified = await run_in_threadpool(self._verified, body, headers, order.secret)
        status = 401 if not verified else order.status if failing else 204
        kind, task_id = _what(body)
        body_sha = hashlib.sha256(body).hexdigest()
        webhook_id = headers.get("webhook-id", "")
        new = Received(path, webhook_id, kind, task_id, verified, body, body_sha, headers, at)
        self._record(new, status)
        if order.delay_s:
            await self._sleep(order.delay_s)
        if status == 204:
            return Response(status_code=204)
        hint = {} if order.retry_after is None else {"retry-after": str(order.retry_after)}
        return JSONResponse({"detail": "bad signature" if not verified else "as ordered"}, status, hint)

    def _give(self, path: str, order: Order) -> None:
        with self._lock:
            self._orders[path] = order

    def _verified(self, body: bytes, headers: Mapping[str, str], path_secret: str | None) -> bool:
        if path_secret is not None:
            return signature_matches(path_secret, body, headers)
        if any(signature_matches(secret, body, headers) for secret in self._secrets):
            return True
        try:
            fresh = tuple(source() for source in self._sources)
        except requests.RequestException:
            return False
        self._secrets = fresh or self._secrets
        return any(signature_matches(secret, body, headers) for secret in fresh)

    def _record(self, new: Received, status: int) -> None:
        with self._lock:
            one = self._seen.setdefault((new.path, new.webhook_id), new)
            one.verified = one.verified and new.verified and one.body_sha == new.body_sha
            one.attempts += 1
            one.answers.append(status)
            one.attempts_at.append(new.at)


def fetch_secret(api_url: str, api_key: str) -> str:
    """The owner's webhook secret, from the API."""
    with requests.Session() as http:
        http.trust_env = False
        answer = http.get(f"{api_url}/webhook-secret", headers={"x-api-key": api_key}, timeout=30)
    answer.raise_for_status()
    return str(answer.json()["secret"])


def signature_matches(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """Whether the independent implementation accepts the signature, the id and the time."""
    try:
        Webhook(secret).verify(body, dict(headers))
    except (WebhookVerificationError, ValueError):  # a malformed header raises ValueError there
        return False
    return True


def _what(body: bytes) -> tuple[str | None, str | None]:
    try:
        found = json.loads(body)
    except ValueError:
        return None, None
    if not isinstance(found, dict):
        return None, None
    kind, data = found.get("type"), found.get("data")
    task_id = data.get("task_id") if isinstance(data, dict) else None
    return kind if isinstance(kind, str) else None, task_id if isinstance(task_id, str) else None
