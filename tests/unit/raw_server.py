"""A server on loopback that answers with whatever bytes a test wants, at whatever pace."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Handler = Callable[["Visit"], None]


@dataclass
class Visit:
    """One accepted connection; `number` counts them from 1."""

    sock: socket.socket
    number: int
    closing: threading.Event

    def request(self) -> bytes:
        """The next request, head and body; empty when the client has gone."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.sock.recv(65536)
            if not more:
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = next((int(v) for k, v in _headers(head) if k == b"content-length"), 0)
        while len(body) < length:
            body += self.sock.recv(65536)
        return head + b"\r\n\r\n" + body

    def send(self, *parts: bytes) -> None:
        """Sends bytes at once."""
        self.sock.sendall(b"".join(parts))

    def drip(self, parts: Iterable[bytes], every_s: float = 0.02) -> None:
        """Sends one part at a time until the client goes or the server stops."""
        for part in parts:
            self.send(part)
            if self.closing.wait(every_s):
                return

    def wait(self) -> None:
        """Holds the connection open, silent, until the server stops."""
        self.closing.wait(10)


@dataclass
class RawServer:
    """A running server; `requests` holds what it was sent, and setting `closing` ends all waiting and dripping."""

    host: str
    port: int
    closing: threading.Event
    visits: list[Visit] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


def answer(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    """An answer with its length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def always(*parts: bytes) -> Handler:
    """Answers every request of a connection with the same bytes."""

    def handle(visit: Visit) -> None:
        while visit.request():
            visit.send(*parts)

    return handle


@contextmanager
def raw_server(handler: Handler, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[RawServer]:
    """Runs a server whose connections are each handled by `handler` in a thread of their own."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family, backlog=128)
    closing = threading.Event()
    server = RawServer(host, listener.getsockname()[1], closing)
    threads: list[threading.Thread] = []

    def serve(sock: socket.socket, visit: Visit) -> None:
        with suppress(OSError), sock:
            if tls is not None:
                visit.sock = tls.wrap_socket(sock, server_side=True)
            with visit.sock:
                record = visit.request

                def request() -> bytes:
                    data = record()
                    if data:
                        server.requests.append(data)
                    return data

                visit.request = request  # type: ignore[method-assign]
                handler(visit)

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.settimeout(10)
            visit = Visit(sock, len(server.visits) + 1, closing)
            server.visits.append(visit)
            threads.append(threading.Thread(target=serve, args=(sock, visit), daemon=True))
            threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield server
    finally:
        closing.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(5)
        for visit in server.visits:
            with suppress(OSError):
                visit.sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)


def _headers(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        yield name.strip().lower(), value.strip()
