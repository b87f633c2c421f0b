"""The simulated providers as one server: five origins, each with its wire format, its files and the control API.

The control API is the same on every origin:

    POST  /_sim/tasks          {"provider"?, "provider_task_id"?, and any other field of `TaskSpec`} -> 201, the task
    GET   /_sim/tasks          all tasks
    GET   /_sim/tasks/<id>     one task: polls and downloads seen, size and SHA-256 of each file (id percent-encoded)
    PATCH /_sim/tasks/<id>     changes what the task is told to do, from its creation on
    POST  /_sim/trouble        {"provider"?, and any field of `Trouble`}: disturbs all status requests from now on
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from local.ports import HOST
from local.providers.lifecycle import FileTrouble, Outcome, ProviderType, SimulatedTask, TaskSpec, Trouble
from local.providers.video import VideoFile
from local.providers.wire import WIRES, Answer, Ask, FileAsk, MoneyPrinterTurbo
from local.serving import LoopbackServer

PNG = bytes.fromhex(  # one grey pixel, for preview frames
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)
HTML = "<!doctype html><html><body><h1>Sorry</h1><p>This video is not available.</p></body></html>"
_JSON_OBJECT = TypeAdapter(dict[str, Any])

Clock = Callable[[], datetime]
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that a task saw: a status poll, or a download with its Range header; `port` is the caller's."""

    at: datetime
    status: int
    range: str | None = None
    port: int | None = None


@dataclass(slots=True)
class _Held:
    """A task and what the server remembers beside it."""

    task: SimulatedTask
    polls: list[Seen] = field(default_factory=list)
    downloads: list[Seen] = field(default_factory=list)
    file_troubles_used: dict[int, int] = field(default_factory=dict)
    files: dict[int, VideoFile] = field(default_factory=dict)


class Simulators:
    """The five simulated providers, as a context manager.

    `ports` gives fixed ports by provider; others are free ones. With a `journal` file tasks outlive a restart. The
    clock and the sleep are arguments, so that tests need no waiting.
    """

    def __init__(
        self,
        *,
        ports: Mapping[ProviderType, int] | None = None,
        journal: Path | None = None,
        clock: Clock = lambda: datetime.now(UTC),
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._journal = journal
        self._lock = threading.Lock()
        self._held: dict[tuple[ProviderType, str], _Held] = {}
        self._tokens: dict[tuple[ProviderType, str], _Held] = {}
        self._troubles: dict[ProviderType, tuple[datetime, Trouble]] = {}
        wanted = ports or {}
        self._server = LoopbackServer(self._app, [wanted.get(kind, 0) for kind in ProviderType])
        self._by_port: dict[int, ProviderType] = {}

    @property
    def provider_urls(self) -> dict[str, str]:
        """Each provider's origin by its type, once started."""
        return {kind.value: f"http://{HOST}:{port}" for port, kind in self._by_port.items()}

    def connections(
        self, *, poll_interval_s: float | None = 2, owners: Sequence[str] = ("default",)
    ) -> list[dict[str, object]]:
        """A connection to each provider, named like its type, as the operator would save it."""
        told: dict[str, object] = {"owners": list(owners)}
        if poll_interval_s is not None:
            told["poll_interval_s"] = poll_interval_s
        return [
            {"name": kind.value, "type": kind.value, "base_url": url, **WIRES[ProviderType(kind)].connection, **told}
            for kind, url in ((ProviderType(kind), url) for kind, url in self.provider_urls.items())
        ]

    def start(self) -> Self:
        """Serves, with the tasks that the journal remembers."""
        self._server.start()
        self._by_port = dict(zip(self._server.ports, ProviderType, strict=True))
        if self._journal is not None and self._journal.exists():
            for line in self._journal.read_text().splitlines():
                self._hold(SimulatedTask.model_validate_json(line))
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

    def create(self, provider: str, **told: object) -> str:
        """Makes a task and returns the provider's id for it; `told` are fields of `TaskSpec`."""
        return self._create({"provider": provider, **told}).spec.provider_task_id

    def change(self, provider: str, provider_task_id: str, **told: object) -> None:
        """Changes what a task is told to do, from its creation on."""
        self._change(self._find(ProviderType(provider), provider_task_id), told)

    def disturb(self, provider: str, trouble: Trouble | None) -> None:
        """Disturbs all status requests to a provider from now on; None ends it."""
        kind = ProviderType(provider)
        with self._lock:
            if trouble is None:
                self._troubles.pop(kind, None)
            else:
                self._troubles[kind] = (self._clock(), trouble)

    def polls(self, provider: str, provider_task_id: str) -> list[Seen]:
        """The status requests that a task has seen."""
        return list(self._find(ProviderType(provider), provider_task_id).polls)

    def downloads(self, provider: str, provider_task_id: str) -> list[Seen]:
        """The requests for its files that a task has seen."""
        return list(self._find(ProviderType(provider), provider_task_id).downloads)

    def file(self, provider: str, provider_task_id: str, n: int = 1) -> VideoFile:
        """A task's n-th file, for comparison."""
        return self._file(self._find(ProviderType(provider), provider_task_id), n)

    def _create(self, told: Mapping[str, object]) -> SimulatedTask:
        try:
            kind = ProviderType(str(told.get("provider")))
        except ValueError:
            TaskSpec.model_validate({"provider_task_id": "-", **told})  # says which providers there are
            raise
        base_url = self.provider_urls[kind]
        made = {"provider_task_id": WIRES[kind].new_task_id(secrets.randbits(128), base_url)}
        task = SimulatedTask(spec=TaskSpec.model_validate({**made, **told}), created_at=self._clock())
        self._hold(task)
        self._remember(task)
        return task

    def _change(self, held: _Held, told: Mapping[str, object]) -> None:
        spec = TaskSpec.model_validate({**held.task.spec.model_dump(exclude_defaults=True), **told})
        if (spec.provider, spec.provider_task_id) != (held.task.spec.provider, held.task.spec.provider_task_id):
            raise ValueError("a task keeps its provider and its id")
        held.task = SimulatedTask(spec=spec, created_at=held.task.created_at)
        held.files.clear()
        held.file_troubles_used.clear()
        self._remember(held.task)

    def _hold(self, task: SimulatedTask) -> None:
        kind, provider_task_id = task.spec.provider, task.spec.provider_task_id
        with self._lock:
            held = _Held(task)
            self._held[kind, provider_task_id] = held
            self._tokens[kind, WIRES[kind].token(provider_task_id)] = held

    def _remember(self, task: SimulatedTask) -> None:
        if self._journal is None:
            return
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, self._journal.open("a") as journal:
            journal.write(task.model_dump_json() + "\n")

    def _find(self, kind: ProviderType, provider_task_id: str) -> _Held:
        return self._held[kind, provider_task_id]

    @staticmethod
    def _file(held: _Held, n: int) -> VideoFile:
        return held.files.setdefault(n, held.task.file(n))

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        kind = self._by_port.get(scope["server"][1])
        if kind is None:  # asked between binding and the end of `start`
            response: Response = PlainTextResponse("starting", 503)
        elif request.url.path.startswith("/_sim/"):
            response = await self._control(kind, request)
        else:
            response = await self._provider(kind, request)
        with suppress(ConnectionAbortedError):  # a transfer cut on purpose; the server then closes the connection
            await response(scope, receive, send)

    async def _provider(self, kind: ProviderType, request: Request) -> Response:
        wire = WIRES[kind]
        ask = Ask(
            request.method,
            request.scope["raw_path"].decode("latin-1"),
            {name.lower(): value for name, value in request.headers.items()},
            await request.body(),
            request.scope["query_string"].decode("latin-1"),
        )
        wanted = wire.file_asked_for(ask)
        if wanted is not None:
            return await self._serve_file(kind, wanted, request)
        if ask.path.startswith("/frame_img/"):
            return Response(PNG, media_type="image/png")
        page = wire.page_asked_for(ask) if isinstance(wire, MoneyPrinterTurbo) else None
        if page is not None:
            return _response(page) if isinstance(page, Answer) else await self._list(MoneyPrinterTurbo(), *page)
        request_id = str(uuid4())
        provider_task_id = wire.asked_for(ask, request_id)
        if isinstance(provider_task_id, Answer):
            return _response(provider_task_id)
        held = self._held.get((kind, provider_task_id))
        if held is not None:
            self._begin(held)
        trouble = self._trouble(kind, held)
        if trouble is not None and trouble.delay_s:
            await self._sleep(trouble.delay_s)
        now = self._clock()
        if trouble is not None and trouble.status is not None:
            response = _troubled(trouble)
        elif held is None or held.task.ended_as(now) is Outcome.LOSE:
            response = _response(wire.unknown(ask, request_id))
        elif isinstance(wire, MoneyPrinterTurbo) and ask.method == "DELETE":
            answer = wire.deleted(held.task, now, ask, request_id)
            response = _response(answer)
            if answer.status == 200:
                self._change(held, {"outcome": Outcome.LOSE, "seconds": 0})
        else:
            response = _response(wire.status(held.task, now, self.provider_urls[kind], ask))
        if held is not None:
            port = request.client.port if request.client is not None else None
            held.polls.append(Seen(now, response.status_code, port=port))
        return response

    def _begin(self, held: _Held) -> None:
        """Lets a task that waits for its first poll begin."""
        if held.task.spec.from_first_poll and not held.polls:
            held.task = SimulatedTask(spec=held.task.spec, created_at=self._clock())
            self._remember(held.task)

    async def _list(self, wire: MoneyPrinterTurbo, page: int, size: int) -> Response:
        """A page of the tasks that the server knows; one that answers 500 for itself spoils the whole page."""
        trouble = self._trouble(wire.type, None)
        if trouble is not None and trouble.delay_s:
            await self._sleep(trouble.delay_s)
        if trouble is not None and trouble.status is not None:
            return _troubled(trouble)
        now = self._clock()
        every = [held for (kind, _), held in self._held.items() if kind is wire.type]
        known = [held for held in every if held.task.ended_as(now) is not Outcome.LOSE]
        shown = known[(page - 1) * size : page * size]
        for held in shown:
            self._begin(held)
            held.polls.append(Seen(now, 200))
        if any(own is not None and own.status == 500 for own in (held.task.trouble(now) for held in shown)):
            return PlainTextResponse("Internal Server Error", 500)
        return _response(wire.listed([held.task for held in known], now, page, size))

    def _trouble(self, kind: ProviderType, held: _Held | None) -> Trouble | None:
        now = self._clock()
        with self._lock:
            since, trouble = self._troubles.get(kind, (now, None))
        elapsed = (now - since).total_seconds()
        if trouble and trouble.from_s <= elapsed and (trouble.to_s is None or elapsed < trouble.to_s):
            return trouble
        return held.task.trouble(now) if held is not None else None

    async def _serve_file(self, kind: ProviderType, wanted: FileAsk, request: Request) -> Response:
        held = self._tokens.get((kind, wanted.token))
        now = self._clock()
        if held is None or wanted.n > held.task.spec.videos or held.task.ended_as(now) is not Outcome.SUCCEED:
            return JSONResponse({"detail": "Not Found"}, 404)
        if request.method not in {"GET", "HEAD"}:
            return JSONResponse({"detail": "Method Not Allowed"}, 405)
        if request.method == "HEAD" and wanted.head != 200:
            return JSONResponse({"detail": "Not Found" if wanted.head == 404 else "Forbidden"}, wanted.head)
        trouble = _next_trouble(held)
        file = held.task.file(wanted.n, changed=True) if trouble.changed else self._file(held, wanted.n)
        response = self._file_response(file, held.task, wanted, trouble, request)
        if request.method == "GET":
            held.downloads.append(Seen(now, response.status_code, request.headers.get("range")))
        return response

    def _file_response(
        self, file: VideoFile, task: SimulatedTask, wanted: FileAsk, trouble: FileTrouble, request: Request
    ) -> Response:
        if trouble.status is not None:
            return PlainTextResponse("no such file here", trouble.status)
        if trouble.html:
            return Response(HTML, media_type="text/html; charset=utf-8")
        headers = {
            "content-type": "video/mp4",
            "etag": file.etag,
            "last-modified": format_datetime(task.ends_at.astimezone(UTC), usegmt=True),
        }
        if not trouble.no_range:
            headers["accept-ranges"] = "bytes"
        if wanted.attachment:
            headers["content-disposition"] = f'attachment; filename="final-{wanted.n}.mp4"'
        start, stop, partial = 0, file.size_bytes, wanted.always_partial
        asked = request.headers.get("range")
        condition = request.headers.get("if-range")
        if asked and not trouble.no_range and condition in {None, headers["etag"], headers["last-modified"]}:
            found = byte_range(asked, file.size_bytes)
            if found is None:
                return Response(status_code=416, headers={"content-range": f"bytes */{file.size_bytes}"})
            (start, stop), partial = found, True
        headers["content-length"] = str(stop - start)
        if partial:
            headers["content-range"] = f"bytes {start}-{stop - 1}/{file.size_bytes}"
        status = 206 if partial else 200
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers)
        return StreamingResponse(self._bytes(file, start, stop, trouble), status, headers)

    async def _bytes(self, file: VideoFile, start: int, stop: int, trouble: FileTrouble) -> AsyncIterator[bytes]:
        end = stop if trouble.cut_after_bytes is None else min(stop, start + trouble.cut_after_bytes)
        step = None if trouble.bytes_per_s is None else max(1, trouble.bytes_per_s // 10)
        for chunk in file.chunks(start, end):
            for at in range(0, len(chunk), step or len(chunk)):
                yield chunk[at : at + (step or len(chunk))]
                if step is not None:
                    await self._sleep(0.1)
        if end < stop:
            raise ConnectionAbortedError("cut on purpose")

    async def _control(self, kind: ProviderType, request: Request) -> Response:
        path = request.scope["raw_path"].decode("latin-1")
        provider_task_id = unquote(path.removeprefix("/_sim/tasks/")) if path.startswith("/_sim/tasks/") else None
        try:
            if provider_task_id is not None:
                held = self._of_any(kind, provider_task_id)
                if held is None:
                    return JSONResponse({"detail": "no such simulated task"}, 404)
                if request.method == "PATCH":
                    self._change(held, _JSON_OBJECT.validate_json(await request.body()))
                    return JSONResponse(self._brief(held))
                return JSONResponse(await run_in_threadpool(self._report, held))
            if (request.method, path) == ("POST", "/_sim/tasks"):
                told = {"provider": kind.value, **_JSON_OBJECT.validate_json(await request.body() or b"{}")}
                task = self._create(told)
                return JSONResponse(self._brief(self._find(task.spec.provider, task.spec.provider_task_id)), 201)
            if (request.method, path) == ("GET", "/_sim/tasks"):
                return JSONResponse({"tasks": [self._brief(held) for held in list(self._held.values())]})
            if (request.method, path) == ("POST", "/_sim/trouble"):
                told = _JSON_OBJECT.validate_json(await request.body() or b"{}")
                provider = ProviderType(str(told.pop("provider", kind.value)))
                self.disturb(provider, Trouble.model_validate(told) if told else None)
                return Response(status_code=204)
        except ValidationError as error:
            return JSONResponse(
                {"detail": error.errors(include_url=False, include_context=False, include_input=False)}, 422
            )
        except ValueError as error:
            return JSONResponse({"detail": str(error)}, 422)
        return JSONResponse({"detail": "Not Found"}, 404)

    def _of_any(self, kind: ProviderType, provider_task_id: str) -> _Held | None:
        for one in (kind, *ProviderType):
            if (one, provider_task_id) in self._held:
                return self._held[one, provider_task_id]
        return None

    def _brief(self, held: _Held) -> dict[str, object]:
        spec, now = held.task.spec, self._clock()
        return {
            "provider": spec.provider.value,
            "provider_task_id": spec.provider_task_id,
            "phase": held.task.phase(now).value,
            "outcome": spec.outcome.value,
            "created_at": held.task.created_at.isoformat(),
            "ends_at": held.task.ends_at.isoformat(),
            "control_url": f"{self.provider_urls[spec.provider]}/_sim/tasks/{quote(spec.provider_task_id, safe='')}",
        }

    def _report(self, held: _Held) -> dict[str, object]:
        files = [self._file(held, n) for n in range(1, held.task.spec.videos + 1)]
        return {
            **self._brief(held),
            "polls": _shown(held.polls),
            "downloads": _shown(held.downloads),
            "files": [
                {"n": n, "size_bytes": file.size_bytes, "sha256": file.sha256} for n, file in enumerate(files, start=1)
            ],
        }


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """The start and the end, exclusive, of the one range that a Range header asks for; None if it cannot be had."""
    unit, _, value = header.partition("=")
    first, dash, last = value.strip().partition("-")
    numbers = [part for part in (first, last) if part]
    if (
        unit.strip() != "bytes"
        or not dash
        or not numbers
        or not all(part.isascii() and part.isdigit() for part in numbers)
    ):
        return None
    if not first:
        length = min(int(last), size)
        return (size - length, size) if length else None
    start, stop = int(first), min(int(last) + 1, size) if last else size
    return (start, stop) if start < stop else None


def _next_trouble(held: _Held) -> FileTrouble:
    """The first trouble that is not used up; it is used once more."""
    for number, trouble in enumerate(held.task.spec.file_trouble):
        used = held.file_troubles_used.get(number, 0)
        if trouble.times is None or used < trouble.times:
            held.file_troubles_used[number] = used + 1
            return trouble
    return FileTrouble()


def _troubled(trouble: Trouble) -> Response:
    headers = {} if trouble.retry_after is None else {"retry-after": str(trouble.retry_after)}
    status = trouble.status or 500
    return PlainTextResponse(trouble.body if trouble.body is not None else f"error {status}", status, headers)


def _response(answer: Answer) -> Response:
    headers = dict(answer.headers)
    if isinstance(answer.content, str):
        return PlainTextResponse(answer.content, answer.status, headers)
    return JSONResponse(answer.content, answer.status, headers)


def _shown(seen: Sequence[Seen]) -> list[dict[str, object]]:
    return [{"at": one.at.isoformat(), "status": one.status, "range": one.range} for one in seen]
