"""A provider for measurements, in a process of its own: it answers every status request after a time, over TLS.

    python -m tests.benchmarks.server DIRECTORY '{"delay_s": 0.2, "slow_share": 0.1, "failing_share": 0.0}' CPU

prints its port, and serves until its standard input ends; then it writes when it was asked for each task to
`DIRECTORY/asked.json`. What it costs is not measured.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

from tests.benchmarks.machine import pin, serving
from tests.unit.tls_files import make_tls_files

HOST = "localhost"
SLOW_S = 5.0
PROGRESS, MODEL = 40, "veo-3"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How it answers: after `delay_s`; a share of the requests only after 5 s, and a share with an error."""

    delay_s: float = 0.0
    slow_share: float = 0.0
    failing_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a provider listens, the authority that signed its certificate, and what it has noted once it has ended."""

    base_url: str
    ca_file: str
    asked_file: Path


class _Provider(asyncio.Protocol):
    """Jimmy's status route, one request after the other on each connection."""

    def __init__(self, behaviour: Behaviour, asked: dict[str, list[float]]) -> None:
        self._behaviour = behaviour
        self._asked = asked
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
            name = head.split(b" ", 2)[1].rsplit(b"/", 1)[-1].decode()
            times = self._asked[name]
            times.append(time.time())
            said, delay_s = answer_to(name, len(times), self._behaviour)
            if delay_s > 0:
                asyncio.get_running_loop().call_later(delay_s, self._send, said)
            else:
                self._send(said)

    def _send(self, said: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(said)


def answer_to(name: str, number: int, behaviour: Behaviour) -> tuple[bytes, float]:
    """The answer to the so manieth request for a task, and after how many seconds it comes."""
    share = int.from_bytes(blake2b(f"{name} {number}".encode(), digest_size=4).digest()) / 2**32
    if share < behaviour.failing_share:
        return _response("503 Service Unavailable", {"code": -1, "msg": "busy"}), behaviour.delay_s
    data = {
        "task_id": name,
        "status": "processing",
        "progress": PROGRESS,
        "model": MODEL,
        "created_at": 1_795_000_000,
        "completed_at": 0,
        "prompt": "a lighthouse at dusk, slow dolly, film grain " * 4,
        "result": None,
        "error_message": "",
    }
    slow = share < behaviour.failing_share + behaviour.slow_share
    return _response("200 OK", {"code": 20000, "msg": "ok", "data": data}), SLOW_S if slow else behaviour.delay_s


def _response(status: str, body: dict[str, object]) -> bytes:
    text = json.dumps(body).encode()
    head = [
        f"HTTP/1.1 {status}",
        "Server: nginx",
        "Date: Sun, 22 Nov 2026 12:00:00 GMT",
        "Content-Type: application/json; charset=utf-8",
        f"Content-Length: {len(text)}",
        "Connection: keep-alive",
        "X-Request-Id: 0f8fad5b-d9cb-469f-a165-70867728950e",
        "Strict-Transport-Security: max-age=31536000",
    ]
    return "\r\n".join([*head, "", ""]).encode() + text


async def _serve(behaviour: Behaviour, context: ssl.SSLContext, asked: dict[str, list[float]]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Provider(behaviour, asked), "127.0.0.1", 0, ssl=context, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    closed = asyncio.Event()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=wait, daemon=True).start()
    await closed.wait()
    server.close()


@contextmanager
def provider(directory: Path, behaviour: Behaviour, cpu: int | None = None) -> Iterator[Address]:
    """A provider that runs until the block ends, on one processor if one is named."""
    directory.mkdir(parents=True, exist_ok=True)
    words = [str(directory), json.dumps(asdict(behaviour)), *([] if cpu is None else [str(cpu)])]
    with serving("tests.benchmarks.server", *words) as port:
        yield Address(f"https://{HOST}:{port}", str(directory / "ca.pem"), directory / "asked.json")


def main(directory: str, behaviour: str, cpu: str = "") -> None:
    """Serves as the command line says."""
    if cpu:
        pin(int(cpu))
    files = make_tls_files(Path(directory), HOST)
    asked: dict[str, list[float]] = defaultdict(list)
    asyncio.run(_serve(Behaviour(**json.loads(behaviour)), files.server, asked))
    (Path(directory) / "asked.json").write_text(json.dumps(asked))


if __name__ == "__main__":
    main(*sys.argv[1:])
