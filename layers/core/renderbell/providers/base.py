"""The contract between the poller and a provider: requests and answers are values, nothing here does I/O.

A provider is one module with one object that builds the status request and reads the answer. It never looks at a
clock: a relative time in an answer is taken against the answer's own `Date` header.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial
from http.client import HTTPMessage
from types import MappingProxyType
from typing import Annotated, NamedTuple, Protocol, Self, runtime_checkable
from urllib.parse import quote, urlsplit

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator
from urllib3 import HTTPHeaderDict

from renderbell.errors import ProviderProtocolError
from renderbell.models import Model
from renderbell.providers.reading import Answer, storable, time_of, zone_of
from renderbell.providers.spec import GenericSpec
from renderbell.schedule import PollSchedule
from renderbell.signing import key_of

GENERIC = "generic"
MAX_TASK_ID_BYTES = 2048
MAX_LISTED = 20_000  # tasks on a page: of 2 MiB some 100 bytes each
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64  # of Standard Webhooks

Name = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]


class ProviderState(StrEnum):
    """What a provider says of a task, reduced to the five things that matter."""

    QUEUED = "queued"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class HttpRequest(NamedTuple):
    """One request to a provider; `json` is sent as the body if it is not None."""

    method: str
    url: str
    headers: Mapping[str, str] = MappingProxyType({})
    json: object = None


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One answer of a provider; the names of `headers` ignore case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.headers, HTTPHeaderDict | HTTPMessage):
            object.__setattr__(self, "headers", HTTPHeaderDict(self.headers))


class ProviderTime(NamedTuple):
    """A time as the provider wrote it; `at` is UTC, or None where the zone or the unit is not known."""

    raw: str | int | float
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Observation:
    """What one answer says of a task.

    `progress` is 0..100 or None; `videos`, `images` and `combined` are absolute http(s) URLs; `error` is text or None;
    the keys of `provider_times` are `created_at`, `started_at`, `finished_at` and `expires_at`; `duration_s` is the
    video's length in seconds; `provider_task_id` is the task that the answer says it is about, where it says so.
    """

    state: ProviderState
    progress: int | None = None
    videos: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    combined: tuple[str, ...] = ()
    error: str | None = None
    model: str | None = None
    provider_times: Mapping[str, ProviderTime] = field(default_factory=lambda: MappingProxyType({}))
    duration_s: float | None = None
    provider_task_id: str | None = field(default=None, compare=False)  # whose word it is, not what it says

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", ProviderState(self.state))


@dataclass(frozen=True, slots=True)
class Listed:
    """What one page of a provider's list says of the tasks that were looked for.

    `running` are those that run, by id; `unclear` those that have ended, cannot be read or are there twice: they are to
    be asked for singly, like all that are not there. `count` is how many tasks the page holds in all.
    """

    running: Mapping[str, Observation]
    unclear: frozenset[str]
    count: int
    more: bool  # whether there may be a further page


class Callback(NamedTuple):
    """A provider's own call that its signature has proved; None: it names no task."""

    provider_task_id: str | None


class Connection(Model):
    """An operator's account with a provider.

    `base_url` is the provider's address without the API's own path; `timezone` (an IANA name or `+08:00`) gives naive
    times a meaning; `media_base_url` resolves relative video links of providers that answer storage keys; `owners`
    lists who may use the connection (`*`: everybody); `poll_interval_s` replaces the provider's interval, and with
    `poll_least_s` or `poll_most_s` tasks are polled more often or more seldom where it is known how long they take;
    `spec` describes a provider of type `generic`; `callback_secret` is what calls back are signed with; `batch` false
    has each task asked for singly, although the provider has a list.
    """

    # Without the input: an error's text must not show the key.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Name
    type: Name
    base_url: str
    api_key: SecretStr | None = None
    callback_secret: SecretStr | None = None
    timezone: str | None = None
    poll_interval_s: Annotated[float, Field(ge=1, le=3600)] | None = None
    poll_least_s: Annotated[float, Field(ge=1, le=3600)] | None = None
    poll_most_s: Annotated[float, Field(ge=1, le=3600)] | None = None
    max_polls_per_s: Annotated[float, Field(ge=1e-4, le=10_000)] | None = None
    max_concurrency: Annotated[int, Field(ge=1, le=1_000)] | None = None
    deadline_s: Annotated[int, Field(ge=60, le=604_800)] | None = None
    media_base_url: str | None = None
    copy_combined: bool = False
    batch: bool = True
    owners: tuple[Annotated[str, Field(pattern=r"^([a-z0-9-]{1,32}|\*)$")], ...] = ("default",)
    spec: GenericSpec | None = None

    @field_validator("base_url", "media_base_url")
    @classmethod
    def _plain_http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not _URL_TEXT.fullmatch(value):
            raise ValueError("must be a URL of printable ASCII characters")
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be an http or https URL with a host")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("must have no user, query or fragment")
        _ = parts.port  # raises ValueError where it is no number
        return value.rstrip("/")

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _KEY.fullmatch(value.get_secret_value()):
            raise ValueError("must be printable ASCII without spaces around it")  # a line break would start a header
        return value

    @field_validator("callback_secret")
    @classmethod
    def _signs(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not MIN_SECRET_BYTES <= len(key_of(value.get_secret_value())) <= MAX_SECRET_BYTES:
            raise ValueError(f"must hold {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None:
            zone_of(value)
        return value

    @model_validator(mode="after")
    def _intervals_in_order(self) -> Self:
        given = [one for one in (self.poll_least_s, self.poll_interval_s, self.poll_most_s) if one is not None]
        if given != sorted(given):
            raise ValueError("poll_least_s, poll_interval_s and poll_most_s must not be in another order")
        return self

    @model_validator(mode="after")
    def _spec_where_it_belongs(self) -> Self:
        if self.type == GENERIC and self.spec is None:
            raise ValueError("a connection of type generic needs a spec")
        if self.type != GENERIC and self.spec is not None:
            raise ValueError("only a connection of type generic has a spec")
        return self


class Provider(Protocol):
    """What the poller needs of a provider."""

    @property
    def type(self) -> str:
        """The connection type that this provider serves."""

    @property
    def poll_schedule(self) -> PollSchedule:
        """How often to ask, by the provider's own advice; a connection's `poll_interval_s` overrides it."""

    def status_request(self, connection: Connection, provider_task_id: str) -> HttpRequest:
        """The request that asks for the task's status."""

    def parse_status(self, connection: Connection, response: HttpResponse) -> Observation:
        """What the answer says; raises a `ProviderError` where it is no observation."""


class CallsBack(Protocol):
    """A provider that calls back in a form of its own, beside the standard one."""

    @property
    def type(self) -> str:
        """The connection type that this provider serves."""

    def verify_callback(
        self, connection: Connection, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> Callback | None:
        """The call, if the connection's secret has signed it; the headers' names are in lower case.

        It does the same work for a connection without a secret, so that its time tells nobody which these are.
        """


@runtime_checkable
class DeletingProvider(Protocol):
    """What a provider has besides that can delete a task, with its files."""

    def delete_request(self, connection: Connection, provider_task_id: str) -> HttpRequest:
        """The request that deletes the task."""

    def parse_delete(self, connection: Connection, response: HttpResponse) -> None:
        """Raises a `ProviderError` unless the task is deleted; `ProviderTaskNotFound` where there is none."""


@runtime_checkable
class ListingProvider(Protocol):
    """What a provider has besides that lists many tasks in one answer."""

    def lists(self, connection: Connection) -> bool:
        """Whether it does so for this connection."""

    def list_request(self, connection: Connection, page: int) -> HttpRequest:
        """The request for a page of the list; the first is 1."""

    def parse_list(self, connection: Connection, response: HttpResponse, wanted: Collection[str]) -> Listed:
        """What the page says of the wanted ids, read as single answers are.

        Raises a `ProviderError` where it is no such page.
        """


_URL_TEXT = re.compile(r"[\x21-\x5b\x5d-\x7e]{1,2048}")  # a backslash is read as a slash by some
_KEY = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?")
_RUNS = frozenset({ProviderState.QUEUED, ProviderState.PROCESSING})
_TELLING = re.compile(r"auth|cookie|credential|key|passw|secret|session|sign|token", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
TASK_ID_PATTERN = r"^[^\x00-\x1f\x7f-\x9f\ufffd]+$"  # nearly the same, for the OpenAPI document


def check_provider_task_id(provider_task_id: str) -> None:
    """Raises `ValueError` for an id that cannot be asked for safely.

    An id becomes one percent-encoded path segment; urllib3 resolves `.` and `..`, so these would call another route
    with the operator's key.
    """
    if not provider_task_id:
        raise ValueError("must not be empty")
    if provider_task_id in {".", ".."}:
        raise ValueError("must not be a dot segment")
    if _CONTROL.search(provider_task_id):
        raise ValueError("must not contain control characters")
    if "\ufffd" in provider_task_id:  # what a decoder writes for bytes it could not read: the real id is lost
        raise ValueError("must not contain the replacement character U+FFFD")
    try:
        size = len(provider_task_id.encode())
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode") from None
    if size > MAX_TASK_ID_BYTES:
        raise ValueError(f"must be at most {MAX_TASK_ID_BYTES} bytes of UTF-8")


def id_in_answer(value: str | int | None) -> str | None:
    """The id that an answer gives its task, as text; None where it gives none."""
    return None if value is None else str(value).strip() or None


def listed(found: Iterable[tuple[str, Observation | None]], *, count: int, more: bool) -> Listed:
    """A page of a list from what it says of each task, by id; None is what cannot be read.

    Nothing of it is looked at where it is absurdly long: that could take seconds.
    """
    if count > MAX_LISTED:
        raise ProviderProtocolError(f"a page of {count} tasks")
    running: dict[str, Observation] = {}
    unclear: set[str] = set()
    for name, seen in found:
        if seen is None or seen.state not in _RUNS or running.get(name, seen) != seen:
            unclear.add(name)
        else:
            running[name] = seen
    sure = {name: seen for name, seen in running.items() if name not in unclear}
    return Listed(sure, frozenset(unclear), count, more)


def path_segment(provider_task_id: str) -> str:
    """The id as one percent-encoded segment of a URL's path."""
    return quote(provider_task_id, safe="")


def request_headers(connection: Connection, name: str = "", form: str = "{api_key}") -> dict[str, str]:
    """The headers of a status request, with the key in the header `name` if there are both."""
    headers = {"Accept": "application/json"}
    key = connection.api_key.get_secret_value() if name and connection.api_key else ""
    if key:
        headers[name] = form.replace("{api_key}", key)
    return headers


def bearer(connection: Connection) -> dict[str, str]:
    """The headers of a status request to a provider that wants the key as a bearer token."""
    return request_headers(connection, "Authorization", "Bearer {api_key}")


def answer_of(connection: Connection, response: HttpResponse) -> Answer:
    """The response, ready to be read without ever showing the connection's secrets."""
    return Answer(response.status, response.headers, response.body, partial(secrets_of, connection))


def secrets_of(connection: Connection) -> frozenset[str]:
    """What a connection holds that must not be repeated: its key, the secret of its callbacks, and what its spec sends
    under a telling name."""
    key = connection.api_key.get_secret_value() if connection.api_key else ""
    signs = connection.callback_secret.get_secret_value() if connection.callback_secret else ""
    sent = list(connection.spec.fixed()) if connection.spec else []
    found = {
        key,
        signs,
        *(word for name, value in sent if _TELLING.search(name) for word in (value, value.split(" ")[-1])),
    }
    return frozenset(found - {""})


def provider_times(connection: Connection, **raw_times: str | int | float | None) -> Mapping[str, ProviderTime]:
    """The times that an answer holds, by name; null, zero and empty text mean that there is none yet."""
    return {
        name: ProviderTime(storable(raw), time_of(raw, connection.timezone)) for name, raw in raw_times.items() if raw
    }
