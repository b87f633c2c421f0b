"""Imports point one way, the core is pure, and only two files can open a connection: read from the source itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "layers" / "core" / "renderbell"

# From the inside out; a module imports only what stands beside or before it.
LAYERS = {
    "core": {
        *("addresses", "delivery", "errors", "filetypes", "redaction", "schedule", "task"),
        *(f"providers.{path.stem}" for path in (PACKAGE / "providers").glob("*.py")),
    },
    "parts": {
        *("archive", "connections", "dial", "egress", "endpoints", "expressions", "failures", "invoke", "items"),
        *("presigned", "refresh", "store", "telemetry", "threads", "views", "webhooks"),
    },
    "use cases": {"agenda", "ask", "deliver", "notify", "outbox", "poll", "register", "transition"},
    "entry": {"api", "authorize", "bootstrap", "settings"},
    "functions": {f"functions.{path.parent.name}" for path in (ROOT / "functions").glob("*/app.py")},
}
RANKS = {name: rank for rank, names in enumerate(LAYERS.values()) for name in names}

# What takes its clock and its chance as arguments, beyond the core.
PURE = LAYERS["core"] | {"agenda", "endpoints", "expressions", "items", "outbox", "views", "webhooks"}
IMPURE = {
    *("asyncio", "aws_lambda_powertools", "botocore", "io", "logging", "multiprocessing", "os", "pathlib", "queue"),
    *("random", "secrets", "sys", "tempfile", "threading", "time", "uuid", "concurrent", "shutil"),
}
CLOCKS_AND_FILES = {".now", ".utcnow", ".today", "open", "print", "input"}  # as they are called

# What can open a connection or start something that can.
NETWORK = {
    *(
        "aiohttp",
        "asyncio",
        "asyncore",
        "boto3",
        "ctypes",
        "ftplib",
        "grpc",
        "http",
        "httpx",
        "imaplib",
        "multiprocessing",
    ),
    *("nntplib", "poplib", "pycurl", "requests", "selectors", "smtplib", "socket", "socketserver", "ssl", "subprocess"),
    *("telnetlib", "urllib3", "webbrowser", "websockets", "wsgiref", "xmlrpc", "pty", "_socket", "_ssl"),
}
HARMLESS = {"http.HTTPStatus", "importlib.resources"}
MAY = {
    "dial": {"http", "socket", "ssl", "urllib3"},
    "egress": {"http", "requests", "urllib3"},
    "failures": {"http", "requests", "ssl", "urllib3"},
    "bootstrap": {"boto3"},
}
ONLY = {  # a name or two, which open nothing
    "addresses": {"urllib3.exceptions.LocationParseError", "urllib3.util.parse_url"},
    "expressions": {"boto3.dynamodb.types.TypeDeserializer", "boto3.dynamodb.types.TypeSerializer"},
    "providers.base": {"urllib3.HTTPHeaderDict"},
}
CLIENTS = {"PollClient", "Downloader", "WebhookClient"}
DYNAMIC = {"__import__", "__builtins__", "eval", "exec", "import_module", "importlib", "pkgutil", "runpy"}
PROCESSES = {"system", "popen", "spawnv", "spawnl", "execv", "execl", "fork", "posix_spawn", "modules"}


@dataclass
class Source:
    """A module as it is written: what it imports at any depth, what it calls, and by which names it knows others."""

    name: str
    tree: ast.Module
    imports: set[str] = field(default_factory=set)  # "package.module.name"
    named: set[str] = field(default_factory=set)  # every name and attribute
    called: set[str] = field(default_factory=set)  # every name, and every attribute with its dot
    bound: dict[str, str] = field(default_factory=dict)  # a name here: what was imported as it

    def __post_init__(self) -> None:
        for node in without_type_checking(self.tree):
            match node:
                case ast.Import(names):
                    self._bind((one.asname or one.name.split(".")[0], one.name) for one in names)
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
            self.imports.add(what)

    @property
    def ours(self) -> set[str]:
        """The modules of the package that it imports."""
        return {found for one in self.imports if (found := module_of(one)) is not None}

    def network(self) -> set[str]:
        """What it imports that can open a connection."""
        return {
            one
            for one in self.imports - HARMLESS
            if one.split(".")[0] in NETWORK or one.startswith(("urllib.request", "urllib.error", "urllib.response"))
        }


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
    return "providers.__init__" if parts[1:2] == ["providers"] else None


def sources() -> dict[str, Source]:
    files = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    files |= {f"functions.{path.parent.name}": path for path in (ROOT / "functions").glob("*/app.py")}
    del files["__init__"]
    return {name: Source(name, ast.parse(path.read_text(encoding="utf-8"))) for name, path in files.items()}


SOURCES = sources()


def unlawful_connections(source: Source, others: Mapping[str, Source]) -> set[str]:
    """By which names a module could open a connection though it may not."""
    found = {
        one
        for one in source.network()
        if one.split(".")[0] not in MAY.get(source.name, set()) and one not in (ONLY.get(source.name, set()))
    }
    for name, what in source.bound.items():  # what another module of ours has imported for itself
        module = module_of(what)
        if module is None or module == what.removeprefix("renderbell."):
            continue
        behind = others[module].bound.get(what.rsplit(".", 1)[-1]) if module in others else None
        if behind is not None and behind in others[module].network():
            found.add(f"{name} from {module}")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = module_of(source.bound.get(node.value.id, "")) or ""
            if module in others and others[module].bound.get(node.attr) in others[module].network():
                found.add(f"{node.value.id}.{node.attr}")
    used = source.named | set(source.bound) | {one.split(".")[0] for one in source.imports - HARMLESS}
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
    assert not source.network() - (ONLY.get(name, set()))
    assert not source.called & CLOCKS_AND_FILES


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_nothing_but_the_vetting_files_can_open_a_connection(source: Source) -> None:
    assert not unlawful_connections(source, SOURCES)
    assert not (source.named & PROCESSES and {"os", "sys"} & {one.split(".")[0] for one in source.imports})


def test_what_may_open_connections_is_known_to_few() -> None:
    assert {name for name, source in SOURCES.items() if "dial" in source.ours} == {"egress", "failures"}
    assert {name for name, source in SOURCES.items() if CLIENTS & set(source.bound)} == {"bootstrap"}


def test_only_the_failures_words_are_taken_from_what_could_connect() -> None:
    assert SOURCES["failures"].network() <= {
        "http.client.HTTPException",
        "http.client.IncompleteRead",
        "requests",
        "ssl",
        *(one for one in SOURCES["failures"].network() if one.startswith("urllib3.exceptions.")),
    }
    used = {
        node.attr
        for node in ast.walk(SOURCES["failures"].tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in {"requests", "ssl"}
    }
    assert used <= {"RequestException", "SSLError", "SSLEOFError", "SSLZeroReturnError"}


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
    ],
)
def test_every_way_round_is_seen(text: str) -> None:
    assert unlawful_connections(Source("views", ast.parse(text)), SOURCES)


@pytest.mark.parametrize(
    "text",
    ["from urllib.parse import quote", "from http import HTTPStatus", "from renderbell.egress import EgressPolicy"],
)
def test_what_opens_nothing_is_let_through(text: str) -> None:
    assert not unlawful_connections(Source("views", ast.parse(text)), SOURCES)
