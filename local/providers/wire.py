"""The five wire formats as values: a request in, an answer out. Pure.

Each simulated provider is one class here: what it reads of a request, and how it says where a task stands. The shapes
and quirks are those of the real services; a class names the ones it plays.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import ClassVar, Protocol
from urllib.parse import parse_qsl, quote, unquote

from local.providers.lifecycle import Outcome, Phase, ProviderType, SimulatedTask

HOSTED_ZONE = timezone(timedelta(hours=8))  # where the hosted CapCut-Mate and Scenext presumably run


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: `path` and `query` still percent-encoded, the names of `headers` in lower case."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    query: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: `content` is sent as JSON unless it is text."""

    status: int
    content: object
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileAsk:
    """A request for a task's n-th file, and how the route that it came over behaves."""

    token: str
    n: int
    head: int = 200  # how HEAD is answered: pre-signed links and MoneyPrinterTurbo's stream refuse it
    always_partial: bool = False
    attachment: bool = False


class Wire(Protocol):
    """One provider's way to talk."""

    @property
    def type(self) -> ProviderType:
        """The provider."""

    @property
    def connection(self) -> Mapping[str, object]:
        """The fields, besides name, type and address, that a connection to the simulated provider needs."""

    def new_task_id(self, unique: int, base_url: str) -> str:
        """A task id of the provider's own kind made from a random number of 128 bits."""

    def asked_for(self, ask: Ask, request_id: str) -> str | Answer:
        """The id of the task that a status request asks for, or the error for any other request."""

    def unknown(self, ask: Ask, request_id: str) -> Answer:
        """The answer for a task that the provider does not know."""

    def status(self, task: SimulatedTask, now: datetime, base_url: str, ask: Ask) -> Answer:
        """Where a task stands, in the provider's words."""

    def token(self, provider_task_id: str) -> str:
        """What stands for the task in its files' links."""

    def file_asked_for(self, ask: Ask) -> FileAsk | None:
        """The file that a request asks for, if it asks for one."""


class CapCutMate:
    """Every answer is HTTP 200 with a code; naive local times; progress is a stage; completed before it has a link."""

    type: ClassVar = ProviderType.CAPCUT_MATE
    connection: ClassVar[Mapping[str, object]] = {"timezone": "+08:00"}
    RACE_S = 0.05  # how long a task is completed without its link
    _STAGES = (10, 20, 30, 40, 50, 70, 95)
    _TEXTS: ClassVar[Mapping[int, tuple[str, str]]] = {
        0: ("成功", "Success"),
        1001: ("参数校验失败", "Parameter validation failed"),
        2031: ("视频生成任务未找到", "Video generation task not found"),
    }

    def new_task_id(self, unique: int, base_url: str) -> str:
        return f"{base_url}/openapi/capcut-mate/v1/get_draft?draft_id={unique % 10**22:022d}"

    def asked_for(self, ask: Ask, request_id: str) -> str | Answer:
        if ask.path != "/openapi/capcut-mate/v1/gen_video_status":
            return Answer(200, {"code": 404, "message": 'HTTP Error 404, detail: {"detail":"Not Found"}'})
        if ask.method != "POST":
            return Answer(200, {"code": 405, "message": 'HTTP Error 405, detail: {"detail":"Method Not Allowed"}'})
        body = _json_object(ask.body)
        if body is None:
            return self._error(ask, 1001, ": Input should be a valid dictionary or object to extract fields from")
        if "draft_url" not in body:
            return self._error(ask, 1001, "draft_url: Field required")
        draft_url = body["draft_url"]
        if not isinstance(draft_url, str):
            return self._error(ask, 1001, "draft_url: Input should be a valid string")
        return draft_url

    def unknown(self, ask: Ask, request_id: str) -> Answer:
        return self._error(ask, 2031)

    def status(self, task: SimulatedTask, now: datetime, base_url: str, ask: Ask) -> Answer:
        outcome, phase = task.ended_as(now), task.phase(now)
        status, progress, link, error, completed_at = "pending", 0, "", "", None
        if outcome is Outcome.FAIL:
            status, error, completed_at = "failed", task.spec.error or "视频上传失败", task.ends_at
        elif outcome is not None and (now - task.ends_at).total_seconds() < self.RACE_S:
            status, progress = "completed", 95
        elif outcome is not None:
            status, progress, completed_at = "completed", 100, task.ends_at
            link = "" if outcome is Outcome.NO_VIDEO else self._link(task, base_url)
        elif phase is Phase.PROCESSING:
            status, progress = "processing", self._STAGES[int(task.fraction(now) * len(self._STAGES))]
        return Answer(
            200,
            {
                **self._head(ask, 0),
                "draft_url": task.spec.provider_task_id,
                "status": status,
                "progress": progress,
                "video_url": link,
                "error_message": error,
                "created_at": self._time(task.created_at),
                "started_at": None if phase is Phase.QUEUED else self._time(task.started_at),
                "completed_at": completed_at and self._time(completed_at),
            },
        )

    def token(self, provider_task_id: str) -> str:
        return _token(provider_task_id)

    def file_asked_for(self, ask: Ask) -> FileAsk | None:
        found = re.fullmatch(r"/\d{4}-\d\d-\d\d/([0-9a-f]{24})\.mp4", ask.path)
        return FileAsk(found[1], 1, head=403) if found else None

    def _link(self, task: SimulatedTask, base_url: str) -> str:
        signed_from = int(task.ends_at.timestamp())
        span = f"{signed_from};{signed_from + 604_800}"
        return (
            f"{base_url}/{task.ends_at.astimezone(HOSTED_ZONE):%Y-%m-%d}/{self.token(task.spec.provider_task_id)}.mp4"
            f"?q-sign-algorithm=sha1&q-ak=AKIDEXAMPLE&q-sign-time={span}&q-key-time={span}"
            "&q-header-list=host&q-url-param-list=&q-signature=0"
        )

    def _head(self, ask: Ask, code: int) -> dict[str, object]:
        english = ask.headers.get("accept-language", "").startswith("en")
        return {"code": code, "message": self._TEXTS[code][1 if english else 0]}

    def _error(self, ask: Ask, code: int, detail: str = "") -> Answer:
        head = self._head(ask, code)
        return Answer(200, {**head, "message": f"{head['message']}({detail})"} if detail else head)

    @staticmethod
    def _time(at: datetime) -> str:
        return at.astimezone(HOSTED_ZONE).replace(tzinfo=None).isoformat()


class Scenext:
    """A list of finished frames instead of a number; a list of results; errors as `messages` inside HTTP 200."""

    type: ClassVar = ProviderType.SCENEXT
    connection: ClassVar[Mapping[str, object]] = {"api_key": "sim-scenext-key"}
    FRAMES = 5

    def new_task_id(self, unique: int, base_url: str) -> str:
        return _uuid(unique)

    def asked_for(self, ask: Ask, request_id: str) -> str | Answer:
        task_id = _segment(ask, "/api/get_status/")
        if task_id is None:
            return Answer(404, {"detail": "Not Found"})
        if ask.method != "GET":
            return Answer(405, {"detail": "Method Not Allowed"})
        if "authorization" not in ask.headers:
            return Answer(403, {"detail": "Not authenticated"})
        if not _bearer(ask, self.connection):
            return Answer(401, {"status": "error", "data": {"messages": "Unauthorized: Invalid API key"}})
        return task_id

    def unknown(self, ask: Ask, request_id: str) -> Answer:
        return Answer(200, {"status": "error", "data": {"messages": "Server error:list index out of range"}})

    def status(self, task: SimulatedTask, now: datetime, base_url: str, ask: Ask) -> Answer:
        outcome = task.ended_as(now)
        data: dict[str, object] = {"task_id": task.spec.provider_task_id, "status": "IN_PROGRESS"}
        if outcome is Outcome.FAIL:
            text = task.spec.error or "任务执行失败，本次不消耗"  # noqa: RUF001 - as it is sent
            result: object = {"error": text} if task.spec.version == "old" else [{"type": "text", "content": text}]
            data |= {"status": "FAILED", "consumption": [], "result": result}
        elif outcome is not None:
            frames = self._frames(task, base_url, self.FRAMES)
            data |= {"status": "COMPLETED", "progress": frames, "consumption": [{"type": "video", "amount": 1}]}
            data |= {"result": self._result(task, base_url), "title": "Simulated"}
            data |= {"created_at": _offset_time(task.created_at), "finish_at": _offset_time(task.ends_at)}
        else:
            data["progress"] = self._frames(task, base_url, math.floor(task.fraction(now) * self.FRAMES))
        return Answer(200, {"status": "success", "data": data})

    def token(self, provider_task_id: str) -> str:
        return _token(provider_task_id)

    def file_asked_for(self, ask: Ask) -> FileAsk | None:
        found = re.fullmatch(r"/Video/simulated/Manim([0-9a-f]{24})-(\d{1,2})\.mp4", ask.path)
        return FileAsk(found[1], int(found[2])) if found else None

    def _result(self, task: SimulatedTask, base_url: str) -> object:
        token = self.token(task.spec.provider_task_id)
        count = 0 if task.spec.outcome is Outcome.NO_VIDEO else task.spec.videos
        links = [f"{base_url}/Video/simulated/Manim{token}-{n}.mp4" for n in range(1, count + 1)]
        if task.spec.version == "old" and len(links) <= 1:
            return {"video_url": links[0] if links else None}
        return [{"type": "video", "content": link} for link in links]

    def _frames(self, task: SimulatedTask, base_url: str, count: int) -> list[dict[str, str]]:
        token, expires = self.token(task.spec.provider_task_id), int(task.created_at.timestamp()) + 86_400
        return [
            {
                "id": f"frame{n}",
                "image": f"{base_url}/frame_img/{token}/frame{n}.png"
                f"?OSSAccessKeyId=LTAIEXAMPLE&Expires={expires}&Signature=0",
            }
            for n in range(1, count + 1)
        ]


class Jimmy:
    """An envelope whose code is an integer (older: text); every business error is HTTP 200; epoch seconds."""

    type: ClassVar = ProviderType.JIMMY
    connection: ClassVar[Mapping[str, object]] = {"api_key": "sim-jimmy-key"}

    def new_task_id(self, unique: int, base_url: str) -> str:
        return f"task_{unique:032x}"

    def asked_for(self, ask: Ask, request_id: str) -> str | Answer:
        task_id = _segment(ask, "/api/open-api/v1/videos/")
        if task_id is None or ask.method != "GET":
            return Answer(404, "404 page not found")
        if not _bearer(ask, self.connection):
            return Answer(200, {"code": 20001, "msg": "", "data": None})
        return task_id

    def unknown(self, ask: Ask, request_id: str) -> Answer:
        return Answer(200, {"code": -1, "msg": "record not found", "data": None})

    def status(self, task: SimulatedTask, now: datetime, base_url: str, ask: Ask) -> Answer:
        outcome, phase = task.ended_as(now), task.phase(now)
        word = {Phase.QUEUED: "queued", Phase.PROCESSING: "processing"}.get(phase, "completed")
        progress = 0 if phase is Phase.QUEUED else max(1, int(task.fraction(now) * 100))
        link, error = "", ""
        match outcome:
            case Outcome.FAIL:
                word, progress, error = "failed", 0, task.spec.error or "the upstream model refused the prompt"
            case Outcome.CANCEL:
                word = "canceled"
            case Outcome.SUCCEED:
                link = f"{base_url}/media/{self.token(task.spec.provider_task_id)}.mp4"
        data = {
            "task_id": task.spec.provider_task_id,
            "status": word,
            "progress": progress,
            "model": "jimmy-sim-1",
            "created_at": int(task.created_at.timestamp()),
            "completed_at": int(task.ends_at.timestamp()) if outcome else 0,
            "result": {"video_url": link, "image_url": "", "draft_cache_url": ""},
            "error_message": error,
            "cost": 0,
            "usage": {"completion_tokens": 0, "total_tokens": 0},
        }
        return Answer(200, {"code": "20000" if task.spec.version == "old" else 20000, "msg": "ok", "data": data})

    def token(self, provider_task_id: str) -> str:
        return _token(provider_task_id)

    def file_asked_for(self, ask: Ask) -> FileAsk | None:
        found = re.fullmatch(r"/media/([0-9a-f]{24})\.mp4", ask.path)
        return FileAsk(found[1], 1, head=403) if found else None


class MoneyPrinterTurbo:
    """States 4, 1 and -1; relative links; real 404 bodies that begin with the request's id; no key, no times."""

    type: ClassVar = ProviderType.MONEYPRINTERTURBO
    connection: ClassVar[Mapping[str, object]] = {}
    _STEPS = (5, 10, 20, 40, 50, 75)
    _NULLS = (
        "videos",
        "combined_videos",
        "failed_stage",
        "error",
        "cross_post_state",
        "cross_post_results",
        "cross_post_error",
    )

    def new_task_id(self, unique: int, base_url: str) -> str:
        return _uuid(unique)

    def asked_for(self, ask: Ask, request_id: str) -> str | Answer:
        segment = ask.path.removeprefix("/api/v1/tasks/")
        if segment == ask.path or not segment or "/" in segment or "%2f" in segment.lower():
            return Answer(404, {"detail": "Not Found"})
        if ask.method not in {"GET", "DELETE"}:
            return Answer(405, {"detail": "Method Not Allowed"})
        return unquote(segment)

    def unknown(self, ask: Ask, request_id: str) -> Answer:
        prefix = ask.headers.get("x-task-id", request_id)
        return Answer(404, {"status": 404, "message": f"{prefix}: task not found"})

    def status(self, task: SimulatedTask, now: datetime, base_url: str, ask: Ask) -> Answer:
        root = base_url if task.spec.version == "old" else ""  # v1.2.6 puts the asked host in front
        return Answer(200, {"status": 200, "message": "success", "data": self._data(task, now, root)})

    def _data(self, task: SimulatedTask, now: datetime, root: str) -> dict[str, object]:
        outcome, old = task.ended_as(now), task.spec.version == "old"
        data: dict[str, object] = {"task_id": task.spec.provider_task_id, "state": 4, "progress": 0}
        if not old:
            data |= dict.fromkeys(self._NULLS)
        if outcome is Outcome.FAIL:
            data |= {"state": -1, "progress": 0}
            if not old:
                text = task.spec.error or "moonshot: api_key is not set, please set it in the config.toml file."
                data |= {"progress": 5, "failed_stage": "script", "error": text}
        elif outcome is not None:
            data |= {"state": 1, "progress": 100, "script": "hello world", "terms": "", "audio_duration": 4}
            data |= {"audio_file": f"/srv/MoneyPrinterTurbo/storage/tasks/{task.spec.provider_task_id}/audio.mp3"}
            if outcome is not Outcome.NO_VIDEO:
                data |= {"videos": self._links(task, root, "final"), "materials": []}
                data |= {"combined_videos": self._links(task, root, "combined")}
        elif task.phase(now) is Phase.PROCESSING:
            data["progress"] = self._STEPS[int(task.fraction(now) * len(self._STEPS))]
        return data

    def page_asked_for(self, ask: Ask) -> tuple[int, int] | Answer | None:
        """The page of the list that a request asks for and its size, the error for a wrong one, None for another."""
        if ask.path != "/api/v1/tasks":
            return None
        if ask.method != "GET":
            return Answer(405, {"detail": "Method Not Allowed"})
        given = dict(parse_qsl(ask.query))
        asked = {name: given.get(name, usual) for name, usual in (("page", "1"), ("page_size", "10"))}
        for name, text in asked.items():
            wrong: dict[str, object] = {"loc": ["query", name], "input": text}
            if not re.fullmatch(r"-?\d+", text):
                message = "Input should be a valid integer, unable to parse string as an integer"
                return Answer(400, {"status": 400, "data": [{"type": "int_parsing", "msg": message, **wrong}]})
            if int(text) < 1:
                message = "Input should be greater than or equal to 1"
                return Answer(400, {"status": 400, "data": [{"type": "greater_than_equal", "msg": message, **wrong}]})
        return int(asked["page"]), int(asked["page_size"])

    def listed(self, tasks: Sequence[SimulatedTask], now: datetime, page: int, size: int) -> Answer:
        """A page of the list; its videos are paths in the server's file system, and no bound keeps it small."""
        shown = tasks[(page - 1) * size : page * size]
        items = [self._data(task, now, "/srv/MoneyPrinterTurbo/storage") for task in shown]
        data = {"tasks": items, "total": len(tasks), "page": page, "page_size": size}
        return Answer(200, {"status": 200, "message": "success", "data": data})

    def deleted(self, task: SimulatedTask, now: datetime, ask: Ask, request_id: str) -> Answer:
        """The answer to a request to delete a task, 200 where it is done; only version 1.2.6 deletes a running one."""
        if task.ended_as(now) is None and task.spec.version != "old":
            prefix = ask.headers.get("x-task-id", request_id)
            return Answer(409, {"status": 409, "message": f"{prefix}: task is still running"})
        return Answer(200, {"status": 200, "message": "success", "data": None})

    def token(self, provider_task_id: str) -> str:
        return provider_task_id

    def file_asked_for(self, ask: Ask) -> FileAsk | None:
        found = re.fullmatch(
            r"(/tasks|/api/v1/stream|/api/v1/download)(?:/tasks)?/([^/]+)/(?:final|combined)-(\d{1,2})\.mp4", ask.path
        )
        if found is None:
            return None
        token, n = unquote(found[2]), int(found[3])
        if found[1] == "/tasks":
            return FileAsk(token, n)
        streamed = found[1] == "/api/v1/stream"
        return FileAsk(token, n, head=404, always_partial=streamed, attachment=not streamed)

    def _links(self, task: SimulatedTask, root: str, kind: str) -> list[str]:
        folder = f"{root}/tasks/{quote(task.spec.provider_task_id, safe='')}"
        return [f"{folder}/{kind}-{n}.mp4" for n in range(1, task.spec.videos + 1)]


class Mingyan:
    """A flat body without envelope or progress; the creation time in epoch seconds; the error is text."""

    type: ClassVar = ProviderType.MINGYAN
    connection: ClassVar[Mapping[str, object]] = {"api_key": "sim-mingyan-key"}

    def new_task_id(self, unique: int, base_url: str) -> str:
        return f"video_{unique:032x}"

    def asked_for(self, ask: Ask, request_id: str) -> str | Answer:
        task_id = _segment(ask, "/kyyReactApiServer/v1/result/")
        if task_id is None or ask.method != "GET":
            return Answer(404, {"message": f"No handler found for {ask.method} {ask.path}"})
        if not _bearer(ask, self.connection):
            return Answer(401, {"code": "401", "msg": "invalid token", "data": None})
        return task_id

    def unknown(self, ask: Ask, request_id: str) -> Answer:
        return Answer(404, {"code": "404", "msg": "task not found", "data": None})

    def status(self, task: SimulatedTask, now: datetime, base_url: str, ask: Ask) -> Answer:
        outcome, old = task.ended_as(now), task.spec.version == "old"
        word = {Phase.QUEUED: "queued", Phase.PROCESSING: "processing"}.get(task.phase(now), "completed")
        body: dict[str, object] = {
            "id": task.spec.provider_task_id,
            "object": "video",
            "created": int(task.created_at.timestamp()),
            "model": "videos_stable",
            "status": word,
            "video_url": None,
            "error": None,
        }
        if outcome is Outcome.FAIL:
            text = task.spec.error or "the prompt was refused"
            body |= {"status": "failed", "error": {"message": text} if old else text}
        elif outcome is not None:
            body |= {"actualDuration": 4.0, "totalTokens": "0" if old else 0}
            if outcome is not Outcome.NO_VIDEO:
                body["video_url"] = f"{base_url}/generated/{self.token(task.spec.provider_task_id)}.mp4"
        return Answer(200, {"code": "0", "msg": None, "data": body} if old else body)

    def token(self, provider_task_id: str) -> str:
        return _token(provider_task_id)

    def file_asked_for(self, ask: Ask) -> FileAsk | None:
        found = re.fullmatch(r"/generated/([0-9a-f]{24})\.mp4", ask.path)
        return FileAsk(found[1], 1) if found else None


WIRES: Mapping[ProviderType, Wire] = {
    wire.type: wire for wire in (CapCutMate(), Scenext(), Jimmy(), MoneyPrinterTurbo(), Mingyan())
}


def _json_object(body: bytes) -> dict[str, object] | None:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _segment(ask: Ask, prefix: str) -> str | None:
    """The one path segment after the prefix, decoded."""
    rest = ask.path.removeprefix(prefix)
    return unquote(rest) if rest != ask.path and rest and "/" not in rest else None


def _bearer(ask: Ask, connection: Mapping[str, object]) -> bool:
    return ask.headers.get("authorization") == f"Bearer {connection['api_key']}"


def _token(provider_task_id: str) -> str:
    return hashlib.sha256(provider_task_id.encode()).hexdigest()[:24]


def _uuid(unique: int) -> str:
    text = f"{unique:032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def _offset_time(at: datetime) -> str:
    return at.astimezone(HOSTED_ZONE).isoformat()
