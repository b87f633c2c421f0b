"""What reading any provider's answer takes: JSON that may be anything, links, times, numbers, and errors by status.

Nothing here trusts a byte: whatever an answer holds becomes a value or None, or a `ProviderError` without secrets.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Annotated, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema, from_json

from renderbell.errors import (
    ProviderAuthError,
    ProviderError,
    ProviderProtocolError,
    ProviderRejected,
    ProviderTaskNotFound,
    ProviderUnavailable,
)
from renderbell.models import Model
from renderbell.redaction import redacted_start
from renderbell.schedule import MAX_RETRY_AFTER_S

MAX_LINK = 4096
MAX_RAW = 500
MAX_DETAIL = 500
MAX_ERROR = 2_000  # of a failed task
MAX_RAW_TIME = 64
MAX_DURATION_S = 1e7
EPOCH_MS_ABOVE = 1e11  # in seconds this would be the year 5138

# These say who is refused, what is missing or that it is too early, whatever the body holds.
_STATUS_DECIDES = frozenset({401, 402, 403, 404, 408, 425, 429})

# What FastAPI, Go, Spring and gateways say of a route that they do not have.
_NO_ROUTE = re.compile(
    r"not found|404 page not found|no (?:handler found|static resource|message available|route matched).*",
    re.IGNORECASE | re.DOTALL,
)

T = TypeVar("T")
M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class _OrNone:
    """Marks a field whose value becomes None where it has another type."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default=None, on_error="default")


Lenient = Annotated[T | None, _OrNone()]
"""An optional field of an answer: of the given type, or None. It never spoils the rest of the answer."""

RawTime = Lenient[str | int | float]


class Wire(Model):
    """The part of an answer that we read; everything else in it is ignored."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class Answer:
    """An answer that is being read: what its bytes, its status and the connection's secrets have in common."""

    __slots__ = ("_secrets", "body", "headers", "status")

    def __init__(
        self, status: int, headers: Mapping[str, str], body: bytes, secrets: Callable[[], Collection[str]]
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self._secrets = secrets

    @property
    def ok(self) -> bool:
        """Whether the HTTP status says success."""
        return 200 <= self.status < 300

    @property
    def defers_to_body(self) -> bool:
        """Whether a task in the body has more weight than the HTTP status: on 2xx, 400, 409, 422, 5xx."""
        return self.ok or (400 <= self.status < 600 and self.status not in _STATUS_DECIDES)

    def as_model(self, model: type[M]) -> M | None:
        """The body as a wire model, or None where it is no such JSON."""
        return self._parsed(model.model_validate_json)

    def as_json(self) -> tuple[object] | None:
        """The body as JSON in a tuple of one, or None where it is no JSON."""
        return self._parsed(lambda body: (from_json(body),))

    def _parsed(self, parse: Callable[[bytes], T]) -> T | None:
        try:
            return parse(self.body)
        except ValueError:  # pydantic's ValidationError is one
            mended = _mended(self.body)
        if mended is None:
            return None
        try:
            return parse(mended)
        except ValueError:
            return None

    def text(self, value: object) -> str | None:
        """A provider's error, whatever shape it has, as text without secrets; None where it says nothing."""
        found = _error_text(value)
        return None if found is None else redacted_start(found, MAX_ERROR, self._secrets()).strip() or None

    def raw(self) -> str:
        """The beginning of the body as text without secrets."""
        return redacted_start(self.body[: 64 * MAX_RAW].decode("utf-8", "replace"), MAX_RAW, self._secrets())

    def unreadable(self, message: str) -> ProviderProtocolError:
        """The error for an answer that cannot be read."""
        return ProviderProtocolError(f"HTTP {self.status}: {message}", raw=self.raw())

    def unavailable(self, detail: object = None) -> ProviderUnavailable:
        """The error for a provider that cannot answer now."""
        return ProviderUnavailable(self._message(detail), retry_after=retry_after_s(self.headers))

    def refused(self, kind: type[ProviderError], detail: object = None) -> ProviderError:
        """An error of a kind that carries nothing but its message."""
        return kind(self._message(detail))

    def error_by_status(self, detail: object = None, *, status: int | None = None) -> ProviderError:
        """The error that an HTTP status stands for where the body has no better word.

        404 and 405 mean here that the route does not exist: the operator's base URL is wrong. A provider that says
        404 of an unknown task must be asked before.
        """
        code = self.status if status is None else status
        if code in {401, 402, 403, 407}:
            return self.refused(ProviderAuthError, detail)
        if code in {408, 425, 429} or 500 <= code < 600:
            return self.unavailable(detail)
        if code in {404, 405}:
            return self.unreadable("the provider has no such route; is the connection's base_url right?")
        if 400 <= code < 500:
            return self.refused(ProviderRejected, detail)
        return self.unreadable("not an answer to a status request")

    def missing(self, detail: object) -> ProviderError:
        """The error for a 404: the task is not known where the body says so, else the route is not."""
        text = self.text(detail)
        if text is None or _NO_ROUTE.fullmatch(text):
            return self.error_by_status(status=404)
        return self.refused(ProviderTaskNotFound, text)

    def _message(self, detail: object) -> str:
        text = self.text(detail)
        return f"HTTP {self.status}" if text is None else f"HTTP {self.status}: {text[:MAX_DETAIL]}"


_LONE_SURROGATE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_BOM = b"\xef\xbb\xbf"


def _mended(body: bytes) -> bytes | None:
    """The body without a byte order mark and without the half characters that clipped texts end in, if it had any."""
    bare = body.removeprefix(_BOM)
    mended = _LONE_SURROGATE.sub(lambda found: rb"\ufffd" if found[1] else found[0], bare)
    return mended if mended != body else None


def _error_text(value: object, depth: int = 3) -> str | None:
    if isinstance(value, str):
        return value.strip() or None
    if value is None or isinstance(value, bool) or depth == 0:
        return None
    if isinstance(value, Mapping):
        for key in ("message", "messages", "msg", "detail", "error_message", "error", "reason", "code"):
            found = _error_text(value.get(key), depth - 1)
            if found is not None:
                return found
    elif isinstance(value, list):
        return "; ".join(text for item in value[:10] if (text := _error_text(item, depth - 1))) or None
    try:
        return json.dumps(value, ensure_ascii=False) if value != {} else None
    except (ValueError, TypeError, RecursionError):  # a number with too many digits, a structure too deep
        return None


_SECONDS = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?", re.ASCII)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds, at most 24 h; a date is taken against the answer's own `Date` header."""
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    if _SECONDS.fullmatch(value):
        return min(float(value), MAX_RETRY_AFTER_S)
    until, sent = _http_date(value), _http_date(headers.get("Date", ""))
    if until is None or sent is None:
        return None
    return min(max(0.0, (until - sent).total_seconds()), MAX_RETRY_AFTER_S)


def _http_date(value: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(value)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


# No white space, control characters, half characters or their replacement: such a link could not be sent as it is.
_LINK = re.compile(r"(?i:https?)://[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd]+")


def link(value: object) -> str | None:
    """An absolute http(s) URL with a host, or None; a file-system path is no link."""
    if not isinstance(value, str) or len(value) > MAX_LINK or not _LINK.fullmatch(value):
        return None
    try:
        parts = urlsplit(value)
        _ = parts.port  # raises ValueError where it is no port
        return value if parts.hostname else None
    except ValueError:
        return None


def links(values: object, resolve: Callable[[object], str | None] = link) -> tuple[str, ...]:
    """The usable links of a string or a list, in order and each once."""
    if isinstance(values, str):
        values = [values]
    if not isinstance(values, Iterable) or isinstance(values, Mapping):
        return ()
    found = (resolve(value) for value in values)
    return tuple(dict.fromkeys(url for url in found if url is not None))


def number(value: object) -> float | None:
    """A finite number, also one written as text; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def progress_of(value: object, scale: float = 100.0) -> int | None:
    """Progress in whole per cent, 0..100; `scale` is the value that means 100 %. Text may end in a per cent sign."""
    if isinstance(value, str) and value.rstrip().endswith("%"):
        value, scale = value.rstrip()[:-1], 100.0
    found = number(value)
    if found is None:
        return None
    return int(min(100.0, max(0.0, found / scale * 100.0 + 1e-9)))  # 0.29 of 1 is 29 %, not 28


def duration_of(value: object) -> float | None:
    """A video's length in seconds, to the millisecond."""
    found = number(value)
    return round(found, 3) if found is not None and 0 <= found <= MAX_DURATION_S else None


_OFFSET = re.compile(r"([+-])([01][0-9]|2[0-3]):([0-5][0-9])")
_EPOCH_TEXT = re.compile(r"[0-9]{9,16}(?:\.[0-9]{1,9})?")


@lru_cache(maxsize=64)
def zone_of(name: str) -> tzinfo:
    """The zone of an IANA name or of an offset such as `+08:00`; raises `ValueError` for anything else."""
    offset = _OFFSET.fullmatch(name)
    if offset:
        size = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return timezone(-size if offset[1] == "-" else size)
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: the name of a folder of zones
        raise ValueError("must be an IANA time zone or an offset like +08:00") from None


def time_of(raw: str | int | float, zone: str | None) -> datetime | None:
    """A provider's time in UTC, or None where its zone is unknown or its value absurd.

    Text is ISO 8601, or an epoch in digits; a naive time is in `zone`. An epoch above 1e11 is in milliseconds.
    """
    if isinstance(raw, str):
        text = raw.strip()
        if not _EPOCH_TEXT.fullmatch(text):
            return _iso_time(text, zone)
        raw = float(text)
    try:
        seconds = raw / 1000 if raw > EPOCH_MS_ABOVE else raw
        return datetime.fromtimestamp(seconds, UTC) if seconds > 0 else None
    except (ValueError, OverflowError, OSError):
        return None


def _iso_time(text: str, zone: str | None) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            if zone is None:
                return None
            at = at.replace(tzinfo=zone_of(zone))
        at = at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return at if at.year >= 1970 else None  # some servers write year 1 for "never"


def storable(raw: str | int | float) -> str | int | float:
    """A raw time as it can be kept: text is clipped, and a number beyond what a table holds becomes text."""
    if isinstance(raw, str):
        return raw[:MAX_RAW_TIME]
    if isinstance(raw, float):
        return raw if raw == 0 or 1e-100 < abs(raw) < 1e100 else str(raw)
    return raw if abs(raw) < 10**37 else "out of range"
