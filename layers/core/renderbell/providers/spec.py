"""The description of a `generic` provider: what to send, and JMESPath expressions that read the answer.

Everything is checked when a connection is saved, so that a poll meets no syntax error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import parse_qsl

import jmespath  # type: ignore[import-untyped]
from jmespath.exceptions import JMESPathError  # type: ignore[import-untyped]
from pydantic import (
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    PrivateAttr,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from renderbell.models import Model

__all__ = [
    "AuthSpec",
    "Expression",
    "GenericSpec",
    "ListSpec",
    "RequestSpec",
    "StateName",
    "StateWord",
    "check_header",
    "word_of",
]

TASK_ID = "{task_id}"
PAGE = "{page}"
API_KEY = "{api_key}"
MAX_EXPRESSION = 2_000

# What the HTTP client sets itself; a second value would change how the message is framed.
FRAMING_HEADERS = frozenset({"connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"})

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?")
_PATH = re.compile(r"/[\x21\x24-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]*")  # what a path and a query may hold

StateName = Literal["queued", "processing", "succeeded", "failed", "cancelled"]
StateWord = str | int | bool


class Expression:
    """A compiled JMESPath expression."""

    __slots__ = ("_compiled", "source")

    def __init__(self, source: str) -> None:
        if len(source) > MAX_EXPRESSION:
            raise ValueError(f"must be at most {MAX_EXPRESSION} characters")
        try:
            self._compiled = jmespath.compile(source)
        except (JMESPathError, RecursionError, ValueError) as error:
            raise ValueError(f"is no JMESPath expression: {error}") from None
        self.source = source

    def search(self, document: object) -> object:
        """What the expression yields; None where it fails on this document."""
        try:
            found: object = self._compiled.search(document)
        except Exception:  # JMESPath's functions raise whatever Python raises on odd values
            return None
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __repr__(self) -> str:
        return f"Expression({self.source!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from_text = core_schema.no_info_after_validator_function(cls, core_schema.str_schema(min_length=1))
        return core_schema.json_or_python_schema(
            json_schema=from_text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), from_text]),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda expression: expression.source, return_schema=core_schema.str_schema()
            ),
        )


def word_of(value: object) -> str | None:
    """A state as the word that `states` maps: text as it is, numbers and booleans as JSON writes them, else None."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int | float):
        try:
            return str(value)
        except ValueError:  # more digits than Python converts
            return None
    return None


class _Strict(Model):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class _Request(_Strict):
    """A request in which a placeholder may stand."""

    PLACEHOLDER: ClassVar[str]

    method: Literal["GET", "POST", "PUT"] = "GET"
    path: Annotated[str, Field(max_length=2_000)]
    headers: Mapping[str, str] = Field(default_factory=dict)
    body: JsonValue = Field(default=None, alias="json")

    @field_validator("path")
    @classmethod
    def _plain_path(cls, value: str) -> str:
        if not _PATH.fullmatch(value.replace(cls.PLACEHOLDER, "x")):
            raise ValueError(
                f"must start with / and hold only a path and a query, with {cls.PLACEHOLDER} as its only placeholder"
            )
        if {".", ".."} & set(value.partition("?")[0].split("/")):
            raise ValueError("must have no dot segments")
        return value

    @field_validator("headers")
    @classmethod
    def _plain_headers(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name, text in value.items():
            check_header(name, text)
        if len({name.lower() for name in value}) < len(value):
            raise ValueError("must name each header once")
        return value

    @property
    def varies(self) -> bool:
        """Whether the placeholder stands in it anywhere."""
        texts = [self.path, *self.headers.values(), *(text for _, text in _fields(self.body))]
        return any(self.PLACEHOLDER in text for text in texts)

    def fixed(self) -> Iterator[tuple[str, str]]:
        """What is sent each time: headers, parameters of the query and fields of the body, by name."""
        named = [*self.headers.items(), *parse_qsl(self.path.partition("?")[2]), *_fields(self.body)]
        return ((name, value) for name, value in named if self.PLACEHOLDER not in value)


class RequestSpec(_Request):
    """The status request; `{task_id}` in the path (percent-encoded), in header values and in the body's strings."""

    PLACEHOLDER = TASK_ID

    @model_validator(mode="after")
    def _names_the_task(self) -> Self:
        if not self.varies:
            raise ValueError("must use {task_id} in the path, a header or the body")
        return self


class ListRequestSpec(_Request):
    """The request for the list; `{page}` in the path, in header values and in the body's strings, if it has pages."""

    PLACEHOLDER = PAGE


class AuthSpec(_Strict):
    """How the connection's `api_key` is sent; nothing is sent without a key."""

    header: str = "Authorization"
    format: str = "Bearer {api_key}"

    @model_validator(mode="after")
    def _plain_header(self) -> Self:
        check_header(self.header, self.format)
        if API_KEY not in self.format:
            raise ValueError("format must contain {api_key}")
        return self


class ListSpec(_Strict):
    """How a provider lists many tasks: its request, where they stand in the answer, and each one's id.

    A task of the list is read as an answer of its own is, or, with `put_in`, as the list's answer is that holds this
    task alone in the field of that name. `more` says whether there is another page; without it there is one after each
    that is not empty. `first_page` is the number of the first.
    """

    request: ListRequestSpec
    items: Expression
    task_id: Expression
    put_in: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    more: Expression | None = None
    first_page: Annotated[int, Field(ge=0, le=1)] = 1


class GenericSpec(_Strict):
    """A provider in words: its status request, its states and where everything stands in its answers.

    `progress_scale` is the value that means 100 %; `ok` false, and `not_found`, `auth_error` and `rejected` true, are
    verdicts on the answer; `callback_task_id` finds the task in the provider's own calls; `list` asks for many tasks at
    once; the rest is what an observation holds.
    """

    request: RequestSpec
    auth: AuthSpec = Field(default_factory=AuthSpec)
    state: Expression
    states: Mapping[StateName, tuple[StateWord, ...]]
    videos: Expression
    progress: Expression | None = None
    progress_scale: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] = 100.0
    error: Expression | None = None
    images: Expression | None = None
    not_found: Expression | None = None
    auth_error: Expression | None = None
    rejected: Expression | None = None
    ok: Expression | None = None
    model: Expression | None = None
    duration_s: Expression | None = None
    created_at: Expression | None = None
    started_at: Expression | None = None
    finished_at: Expression | None = None
    expires_at: Expression | None = None
    callback_task_id: Expression | None = None
    listing: ListSpec | None = Field(default=None, alias="list")
    poll_interval_s: Annotated[float, Field(ge=1, le=3600)] | None = None

    _names: dict[str, StateName] = PrivateAttr(default_factory=dict)
    _times: tuple[tuple[str, Expression], ...] = PrivateAttr(default=())

    @field_validator("states")
    @classmethod
    def _one_meaning_a_word(
        cls, value: Mapping[StateName, tuple[StateWord, ...]]
    ) -> Mapping[StateName, tuple[StateWord, ...]]:
        words = [word_of(word) for listed in value.values() for word in listed]
        if None in words:
            raise ValueError("must hold no empty word")
        if len(set(words)) < len(words):
            raise ValueError("must list each word once")
        if not value.get("succeeded"):
            raise ValueError("must say which words mean succeeded")
        return value

    @model_validator(mode="after")
    def _one_auth_header(self) -> Self:
        for request in self._requests():
            if self.auth.header.lower() in {name.lower() for name in request.headers}:
                raise ValueError("request.headers must not hold the header that auth sends")
        return self

    def _requests(self) -> tuple[_Request, ...]:
        return (self.request,) if self.listing is None else (self.request, self.listing.request)

    def fixed(self) -> Iterator[tuple[str, str]]:
        """What is sent whatever the task is, by name."""
        return chain.from_iterable(request.fixed() for request in self._requests())

    def model_post_init(self, context: object, /) -> None:
        """Keeps what every poll looks up."""
        self._names.update((str(word_of(word)), name) for name, words in self.states.items() for word in words)
        times = {
            "created_at": self.created_at,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "expires_at": self.expires_at,
        }
        self._times = tuple((name, expression) for name, expression in times.items() if expression is not None)

    def state_named(self, word: str) -> StateName | None:
        """The state that a provider's word means, or None for a word that no state lists."""
        return self._names.get(word)

    @property
    def times(self) -> tuple[tuple[str, Expression], ...]:
        """The times that the spec reads, by the names that an observation gives them."""
        return self._times


def check_header(name: str, value: str) -> None:
    """Raises `ValueError` for a header that cannot be sent safely: control characters would start another one."""
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("a header's name must be a token")
    if name.lower() in FRAMING_HEADERS:
        raise ValueError(f"the header {name} is set by the HTTP client")
    if len(value) > 8_000 or not _HEADER_VALUE.fullmatch(value):
        raise ValueError(f"the value of the header {name} must be printable ASCII without spaces around it")


def _fields(template: JsonValue, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(template, str):
        yield name, template
    elif isinstance(template, dict):
        for key, value in template.items():
            yield from _fields(value, key)
    elif isinstance(template, list):
        for value in template:
            yield from _fields(value, name)
