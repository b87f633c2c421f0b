"""Imports point one way, the core is pure, and only three files can open a connection: read from the source itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "layers" / "core" / "renderbell"


def rooms(package: str) -> set[str]:
    """The modules of one of the packages within ours."""
    return {f"{package}.{path.stem}" for path in (PACKAGE / package).glob("*.py")}


# From the inside out; a module imports only what stands beside or before it.
LAYERS = {
    "core": {
        *(
            "addresses",
            "delivery",
            "errors",
            "filetypes",
            "lengths",
            "models",
            "progress",
            "redaction",
            "schedule",
            "seats",
            "signing",
            "task",
        ),
        *rooms("providers"),
    },
    "parts": {
        *(
            "archive",
            "bus",
            "connections",
            "cursors",
            "dial",
            "egress",
            "endpoints",
            "expressions",
            "failures",
            "fetch",
            "ids",
            "inputs",
            "invoke",
            "items",
        ),
        *("presigned", "refresh", "start", "telemetry", "threads", "views", "webhooks"),
        *rooms("store"),
    },
    "use cases": {
        *(
            "agenda",
            "ask",
            "callbacks",
            "deliver",
            "idempotency",
            "jobs",
            "keys",
            "listing",
            "manage",
            "notify",
            "outbox",
            "poll",
        ),
        *("redeliver", "register", "transition", "wake"),
    },
    "entry": {
        *("authorize", "bootstrap", "settings"),
        *rooms("api"),
    },
    "functions": {f"functions.{path.parent.name}" for path in (ROOT / "functions").glob("*/app.py")},
}
RANKS = {name: rank for rank, names in enumerate(LAYERS.values()) for name in names}

# What takes its clock and its chance as arguments, beyond the core.
PURE = LAYERS["core"] - {"models"} | {
    "agenda",
    "cursors",
    "endpoints",
    "expressions",
    "ids",
    "items",
    "outbox",
    "views",
    "webhooks",
}
IMPURE = {
    *("asyncio", "aws_lambda_powertools", "botocore", "io", "logging", "multiprocessing", "os", "pathlib", "queue"),
    *("random", "secrets", "sys", "tempfile", "threading", "time", "uuid", "concurrent", "shutil"),
}
CLOCKS_AND_FILES = {".now", ".utcnow", ".today", "open", "print", "input"}  # as they are called

# What each module may take from outside the package; all else could open a connection or start something that can.
#
# A name is allowed as it stands: `ssl.SSLError` allows nothing else of `ssl`. A module's name allows what stands in the
# module itself, but none of the modules in it: `logging` allows `logging.getLogger` and not `logging.handlers`.
EVERYWHERE = {
    *("__future__", "base64", "binascii", "collections", "collections.abc", "contextlib", "dataclasses", "datetime"),
    *(
        "bisect",
        "decimal",
        "enum",
        "functools",
        "hashlib",
        "heapq",
        "hmac",
        "ipaddress",
        "itertools",
        "json",
        "math",
        "re",
    ),
    *("types", "typing", "unicodedata", "urllib.parse", "zoneinfo"),
    *("email.utils.format_datetime", "email.utils.parsedate_to_datetime", "aws_lambda_powertools.Logger"),
    *(f"pydantic.{name}" for name in ("AliasGenerator", "AfterValidator", "BeforeValidator")),
    *(f"pydantic.{name}" for name in ("ConfigDict", "Field", "GetCoreSchemaHandler", "JsonValue", "PlainSerializer")),
    *(f"pydantic.{name}" for name in ("PrivateAttr", "SecretStr", "ValidationError", "ValidationInfo")),
    *("pydantic.WithJsonSchema", "pydantic.field_validator", "pydantic.model_validator"),
    *("pydantic_core.CoreSchema", "pydantic_core.PydanticCustomError", "pydantic_core.core_schema"),
    *("pydantic_core.from_json",),
}
_POWERTOOLS = "aws_lambda_powertools"
HANDLER = {f"{_POWERTOOLS}.utilities.typing.LambdaContext"}
CORRELATED = HANDLER | {f"{_POWERTOOLS}.logging.correlation_paths"}
ANSWERING = {f"{_POWERTOOLS}.event_handler.Response", "http.HTTPStatus"}
AWS_ERRORS = {"botocore.exceptions.BotoCoreError", "botocore.exceptions.ClientError"}
ALLOWED = {
    "addresses": {"urllib3.exceptions.LocationParseError", "urllib3.util.parse_url"},
    "api.__main__": {"sys.stdout"},
    "api.account": ANSWERING,
    "api.callbacks": ANSWERING | {f"{_POWERTOOLS}.event_handler.openapi.params.Path"},
    "api.deliveries": ANSWERING | {f"{_POWERTOOLS}.event_handler.openapi.params.Body"},
    "api.endpoints": ANSWERING | {f"{_POWERTOOLS}.event_handler.openapi.params.Path"},
    "api.handler": CORRELATED | {f"{_POWERTOOLS}.event_handler.Response"},
    "api.keys": ANSWERING | {*(f"{_POWERTOOLS}.event_handler.openapi.params.{name}" for name in ("Path", "Query"))},
    "api.listing": ANSWERING | {f"{_POWERTOOLS}.event_handler.openapi.params.Query"},
    "api.problems": ANSWERING
    | {
        f"{_POWERTOOLS}.event_handler.exceptions.NotFoundError",
        f"{_POWERTOOLS}.event_handler.openapi.exceptions.RequestValidationError",
        f"{_POWERTOOLS}.event_handler.openapi.types.OpenAPIResponse",
    },
    "api.service": ANSWERING | {"importlib.resources", "string.Template"},
    "api.serving": ANSWERING
    | {
        f"{_POWERTOOLS}.event_handler.APIGatewayRestResolver",
        f"{_POWERTOOLS}.event_handler.openapi.params.Query",
        "inspect.getdoc",
    },
    "api.tasks": ANSWERING | {*(f"{_POWERTOOLS}.event_handler.openapi.params.{name}" for name in ("Path", "Query"))},
    "archive": AWS_ERRORS
    | {"concurrent.futures.Executor", "concurrent.futures.Future", "concurrent.futures.ThreadPoolExecutor"}
    | {"io.BytesIO"},
    "ask": {"traceback.format_tb"},
    "authorize": CORRELATED,
    "bootstrap": AWS_ERRORS
    | {f"{_POWERTOOLS}.Metrics", f"{_POWERTOOLS}.utilities.parameters.SSMProvider"}
    | {"boto3.client", "botocore.config.Config"}
    | {
        "os.environ",
        "os.urandom",
        "random.random",
        "secrets.token_urlsafe",
        "threading.RLock",
        "time.monotonic",
        "time.sleep",
        "uuid.uuid4",
    },
    "bus": AWS_ERRORS | {"botocore.exceptions.ConnectTimeoutError", "botocore.exceptions.ReadTimeoutError"},
    "dial": {  # it makes the connections
        *("certifi.where", "concurrent.futures.Future", "errno", "logging", "socket", "ssl", "time.monotonic"),
        *("http.client.BadStatusLine", "http.client.HTTPException", "http.client.HTTPMessage"),
        *("http.client.HTTPConnection", "http.client.HTTPConnection.getresponse", "http.client.HTTPResponse"),
        *("http.client.LineTooLong", "http.client.UnknownProtocol", "email.parser.Parser"),
        *("io.BufferedIOBase", "io.BufferedReader", "io.RawIOBase"),
        *("select.POLLIN", "select.POLLOUT", "select.poll"),
        *("threading.Lock", "threading.Thread", "threading.local"),
        *("urllib3.HTTPConnectionPool", "urllib3.HTTPSConnectionPool", "urllib3.HTTPResponse"),
        *("urllib3.connection.HTTPConnection", "urllib3.connection.HTTPSConnection"),
        *(f"urllib3.exceptions.{name}Error" for name in ("ConnectTimeout", "NameResolution", "NewConnection")),
        "urllib3.util.ssl_.create_urllib3_context",
    },
    "egress": {  # it sends over them
        *("http.cookiejar.DefaultCookiePolicy", "time.monotonic"),
        *("requests.PreparedRequest", "requests.Request", "requests.Response", "requests.Session"),
        *("requests.adapters.HTTPAdapter", "urllib3.BaseHTTPResponse", "urllib3.HTTPConnectionPool"),
    },
    "expressions": {"boto3.dynamodb.types.TypeDeserializer", "boto3.dynamodb.types.TypeSerializer"},
    "failures": {  # words only
        *("http.client.HTTPException", "http.client.IncompleteRead"),
        *("ssl.SSLEOFError", "ssl.SSLError", "ssl.SSLZeroReturnError"),
        *(f"urllib3.exceptions.{name}Error" for name in ("ConnectTimeout", "HTTP", "NameResolution", "NewConnection")),
        *(f"urllib3.exceptions.{name}Error" for name in ("Protocol", "ReadTimeout", "SSL")),
    },
    "progress": {"struct.Struct"},
    "fetch": {  # so does it
        *("http.client.HTTPException", "http.client.HTTPResponse", "time.monotonic"),
        *("urllib3.HTTPConnectionPool", "urllib3.HTTPHeaderDict", "urllib3.HTTPResponse", "urllib3.PoolManager"),
        *("urllib3.exceptions.DecodeError", "urllib3.util.Retry"),
    },
    "functions.notifier": HANDLER,
    "functions.poller": HANDLER,
    "models": {"pydantic.BaseModel", "threading.RLock"},
    "providers.base": {"http.client.HTTPMessage", "urllib3.HTTPHeaderDict"},
    "providers.spec": {"jmespath.compile", "jmespath.exceptions.JMESPathError"},
    "refresh": {"botocore.exceptions.ClientError", "threading.Lock", "threading.Thread"},
    "start": {"gc.disable", "gc.enable", "gc.freeze"},
    "store.answers": {"zlib.compress", "zlib.decompress"},
    "store.table": {"botocore.exceptions.ClientError", "random.uniform", "time.sleep"},
    "telemetry": {f"{_POWERTOOLS}.Metrics", f"{_POWERTOOLS}.metrics.MetricUnit", "threading.Lock"},
    "threads": {
        *("concurrent.futures.ThreadPoolExecutor", "queue.Empty", "queue.SimpleQueue"),
        *("threading.Thread", "time.sleep"),
    },
}
CLIENTS = {"PollClient", "Downloader", "WebhookClient"}
DYNAMIC = {"__import__", "__builtins__", "eval", "exec", "import_module", "importlib", "pkgutil", "runpy"}


@dataclass
class Source:
    """A module as it is written: what it imports at any depth, what it calls, and by which names it knows others."""

    name: str
    tree: ast.Module
    imports: set[str] = field(default_factory=set)  # "package.module.name"
    named: set[str] = field(default_factory=set)  # every name and attribute
    called: set[str] = field(default_factory=set)  # every name, and every attribute with its dot
    bound: dict[str, str] = field(default_factory=dict)  # a name here: what was imported as it
    brought: set[tuple[str, str]] = field(default_factory=set)  # all such pairs, though one name may have several
    whole: set[str] = field(default_factory=set)  # the names of "import …"
    packages: set[str] = field(default_factory=set)  # of "import a.b", without a name for it

    def __post_init__(self) -> None:
        for node in without_type_checking(self.tree):
            match node:
                case ast.Import(names):
                    self._bind((one.asname or one.name.split(".")[0], one.name) for one in names)
                    self.whole |= {one.asname or one.name for one in names if one.asname or "." not in one.name}
                    self.packages |= {one.name for one in names if not one.asname and "." in one.name}
                case ast.ImportFrom(module, names, level):
                    assert not level, f"{self.name} imports relatively"
                    self._bind((one.asname or one.name, f"{module}.{one.name}") for one in names)
                case ast.Call(func=ast.Name(id=text)):
                    self.called.add(text)
                case ast.Call(func=ast.Attribute(attr=text)):
                    self.called.add(f".{text}")
                case ast.Name(id=text) | ast.Attribute(attr=text):
                    self.named.add(text)

    def _bind(self, found: Iterator[tuple[str, str]]) -> None:
        for name, what in found:
            self.bound[name] = what
            self.brought.add((name, what))
            self.imports.add(what)

    @property
    def ours(self) -> set[str]:
        """The modules of the package that it imports."""
        return {found for one in self.imports if (found := module_of(one)) is not None}

    def taken(self) -> set[str]:
        """What it takes from outside the package.

        Of a module that it knows by name these are the names that it uses in it; the module itself counts as taken
        where it is used in any other way, or not at all. "import a.b" counts as such: it gives all of `a`.
        """
        nodes = list(ast.walk(self.tree))
        spoken = {id(node.value): node.attr for node in nodes if isinstance(node, ast.Attribute)}
        uses: dict[str, set[str | None]] = {}
        for node in nodes:
            if isinstance(node, ast.Name):
                uses.setdefault(node.id, set()).add(spoken.get(id(node)))
        found = {f"import {what}" for what in self.packages}
        for name, what in self.brought:
            if what.split(".")[0] == "renderbell":
                continue
            attributes = uses.get(name, set())
            if name not in self.whole or not attributes:
                attributes = attributes | {None}
            found |= {f"{what}.{one}" if one else what for one in attributes}
        return found


def without_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but what only a type checker imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from without_type_checking(node)


def module_of(imported: str) -> str | None:
    """The module of ours that an imported name is, or stands in."""
    parts = imported.split(".")
    if parts[0] != "renderbell":
        return None
    for length in (3, 2):
        name = ".".join(parts[1:length])
        if len(parts) >= length and name in RANKS:
            return name
    return f"{parts[1]}.__init__" if parts[1:2] and f"{parts[1]}.__init__" in RANKS else None


def sources() -> dict[str, Source]:
    files = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    files |= {f"functions.{path.parent.name}": path for path in (ROOT / "functions").glob("*/app.py")}
    del files["__init__"]
    return {name: Source(name, ast.parse(path.read_text(encoding="utf-8"))) for name, path in files.items()}


SOURCES = sources()


@cache
def is_module(name: str) -> bool:
    """Whether a name is a module's, be it in a package or because another module has imported it."""
    parent, _, last = name.rpartition(".")
    try:
        if isinstance(getattr(import_module(parent), last, None), ModuleType):
            return True
        return find_spec(name) is not None
    except ImportError:  # it stands in a class
        return False


def allows(name: str, what: str) -> bool:
    """Whether a module of ours may take something from outside the package."""
    if what in EVERYWHERE | ALLOWED.get(name, set()):
        return True
    parent = what.rpartition(".")[0]
    return bool(parent) and allows(name, parent) and not is_module(what)


def forbidden(source: Source, others: Mapping[str, Source]) -> set[str]:
    """What a module takes from outside the package, or by another module of ours, though nobody has allowed it."""
    found = {what for what in source.taken() if not allows(source.name, what)}
    for name, what in source.bound.items():  # what another module of ours has imported for itself
        module = module_of(what)
        if module is None or module == what.removeprefix("renderbell."):
            continue
        behind = others[module].bound.get(what.rsplit(".", 1)[-1]) if module in others else None
        if behind is not None and module_of(behind) is None and not allows(source.name, behind):
            found.add(f"{name} from {module}")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = module_of(source.bound.get(node.value.id, "")) or ""
            behind = others[module].bound.get(node.attr) if module in others else None
            if behind is not None and module_of(behind) is None and not allows(source.name, behind):
                found.add(f"{node.value.id}.{node.attr}")
    used = source.named | set(source.bound) | {one.split(".")[0] for one in source.imports - {"importlib.resources"}}
    return found | used & DYNAMIC


def test_every_module_has_its_layer() -> None:
    assert set(SOURCES) == set(RANKS)


def test_the_table_for_contributors_names_every_module() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    missing = {name for name in SOURCES if "." not in name and f"`{name}`" not in table}
    assert not missing


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_imports_point_one_way(source: Source) -> None:
    assert not {name for name in source.ours if RANKS[name] > RANKS[source.name]}


def test_imports_go_round_in_no_circle() -> None:
    graph = {name: source.ours - {name} for name, source in SOURCES.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(SOURCES)


@pytest.mark.parametrize("name", sorted(PURE))
def test_what_is_pure_has_no_clock_no_chance_no_files_no_network_and_no_aws(name: str) -> None:
    source = SOURCES[name]
    assert not {one for one in source.imports if one.split(".")[0] in IMPURE}
    assert not source.called & CLOCKS_AND_FILES


def test_what_is_pure_takes_hardly_anything_that_not_everybody_may() -> None:
    assert PURE & set(ALLOWED) == {"addresses", "expressions", "progress", "providers.base", "providers.spec"}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_module_takes_from_outside_the_package_only_what_it_is_allowed(source: Source) -> None:
    found = sorted(forbidden(source, SOURCES))
    assert not found, (
        f"{source.name} takes {', '.join(found)}. Only `dial`, `egress` and `fetch` may open connections, and nothing "
        "may start processes or import by name. If this does none of that, allow it on purpose: that very name, in "
        "ALLOWED above."
    )


def test_nothing_is_allowed_that_nobody_takes() -> None:
    taken = {name: source.taken() for name, source in SOURCES.items()}

    def is_used(one: str, by: set[str]) -> bool:
        return any(what in (one, f"{one}.{what.rpartition('.')[2]}") for what in by)

    unused = {f"{name}: {one}" for name, ones in ALLOWED.items() for one in ones if not is_used(one, taken[name])}
    unused |= {one for one in EVERYWHERE if not is_used(one, set().union(*taken.values()))}
    assert not unused


def test_boto3_makes_clients_in_bootstrap_alone() -> None:
    assert {name for name, ones in ALLOWED.items() if "boto3.client" in ones} == {"bootstrap"}


def test_the_store_alone_knows_keys_and_expressions() -> None:
    assert {name.split(".")[0] for name, source in SOURCES.items() if "expressions" in source.ours} == {"store"}


def test_only_the_store_knows_its_rooms() -> None:
    inside = rooms("store") - {"store.__init__"}
    assert not {name for name, source in SOURCES.items() if inside & source.ours and not name.startswith("store.")}


def test_what_may_open_connections_is_known_to_few() -> None:
    assert {name for name, source in SOURCES.items() if "dial" in source.ours} == {"egress", "failures", "fetch"}
    assert {name for name, source in SOURCES.items() if CLIENTS & set(source.bound)} == {"bootstrap"}


@pytest.mark.parametrize(
    "text",
    [
        "import requests",
        "import urllib.request",
        "from urllib import request",
        "import http.client as plain",
        "def lazily():\n    import socket",
        "def lazily():\n    if True:\n        from ssl import create_default_context",
        "try:\n    import urllib3\nexcept ImportError:\n    pass",
        "__import__('socket')",
        "import importlib\nimportlib.import_module('socket')",
        "from importlib import import_module as find\nfind('socket')",
        "from renderbell.dial import socket",
        "from renderbell.egress import requests as r",
        "from renderbell import dial\ndial.socket.create_connection(('h', 1))",
        "import renderbell.dial as d\nd.ssl",
        "import boto3",
        "from subprocess import run",
        "exec('import socket')",
        "from asyncio import open_connection",
        "from botocore.httpsession import URLLib3Session",
        "import botocore.awsrequest",
        "from botocore import awsrequest",
        "import botocore.session as session",
        "from botocore.exceptions import requests",
        "import urllib.robotparser",
        "from logging.handlers import SocketHandler",
        "import logging.handlers",
        "from xml.sax import parse\nparse('http://h')",
        "from pip._vendor import requests",
        "import pip._vendor.requests",
        "from concurrent.futures import ProcessPoolExecutor",
        "import concurrent.futures\nconcurrent.futures.ProcessPoolExecutor()",
        "import os\nos.posix_spawnp('curl', [], {})",
        "from os import execvp",
        "from pydantic import ImportString",
        "import re\nre.enum.sys.modules",
        "from typing import sys",
        "from json import decoder",
        "import something.nobody.knows",
        "import urllib.parse\nurllib.request.urlopen('http://h')",
        "import json as plain\nplain.decoder",
    ],
)
@pytest.mark.parametrize("name", ["views", "store.table", "bootstrap", "archive", "failures", "functions.poller"])
def test_every_way_round_is_seen(text: str, name: str) -> None:
    if (name, text) != ("bootstrap", "import boto3"):
        assert forbidden(Source(name, ast.parse(text)), SOURCES)


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.execvp('curl', [])",
        "import os\ngetattr(os, 'execvp')('curl', [])",
        "import os as plain\nplain.environ, plain.fork()",
        "import os\nos.path.os.system('curl')",
        "import os\ndef lazily():\n    from os import fork",
        "import boto3\nboto3.session.Session()",
        "import boto3, os\nboto3.client, os.environ\nboto3.utils",
        "import time\ntime.sleep\nimport time as os\nos.monotonic\nimport os\nos.system",
    ],
)
def test_who_may_take_something_may_not_take_all(text: str) -> None:
    assert forbidden(Source("bootstrap", ast.parse(text)), SOURCES)


@pytest.mark.parametrize(
    "text",
    ["from urllib.parse import quote", "import json\njson.loads", "from renderbell.addresses import EgressPolicy"],
)
def test_what_opens_nothing_is_let_through(text: str) -> None:
    assert not forbidden(Source("views", ast.parse(text)), SOURCES)
