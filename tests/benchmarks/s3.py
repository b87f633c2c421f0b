"""An S3 in a process of its own that takes uploads of any client and keeps digests instead of bytes.

    python -m tests.benchmarks.s3 DIRECTORY

`DIRECTORY` has `cert.pem` and `key.pem`. Prints its port and serves until its standard input ends; `GET /parts` tells
the number, size and SHA-256 of each part, and forgets them.
"""

from __future__ import annotations

import hashlib
import io
import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.integration.big_file import MIB

CHUNK = 256 * 1024


class _Unchunked(io.RawIOBase):
    """The body of a request that comes in chunks of HTTP."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        self._left = 0
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left and not self._ended:
            self._left = int(self._file.readline(), 16)
            self._ended = not self._left
            if self._ended:
                self._file.readline()
        data = self._file.read(min(self._left, len(buffer)))
        buffer[: len(data)] = data
        self._left -= len(data)
        if data and not self._left:
            self._file.readline()
        return len(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


class _S3(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = MIB
    parts: dict[int, tuple[int, str]] = {}  # noqa: RUF012 - one object at a time

    def do_PUT(self) -> None:
        number = int(parse_qs(urlsplit(self.path).query).get("partNumber", ["0"])[0])
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        body = io.BufferedReader(_Unchunked(self.rfile), MIB) if chunked else self.rfile
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            self.parts[number] = _signed_chunks(body)
            body.read()
        else:
            digest = hashlib.sha256()
            size = int(self.headers["Content-Length"])
            _take(body, size, digest)
            self.parts[number] = size, digest.hexdigest()
        told = {name: value for name, value in self.headers.items() if name.lower().startswith("x-amz-checksum-")}
        self._answer("", {"ETag": f'"{number}"', **told})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "uploads" in parse_qs(urlsplit(self.path).query, keep_blank_values=True):
            self._xml("InitiateMultipartUploadResult", "<UploadId>u1</UploadId>")
        else:
            self._xml("CompleteMultipartUploadResult", '<ETag>"x-9"</ETag>')

    def do_HEAD(self) -> None:
        self._answer(None, {"Content-Length": str(sum(size for size, _ in self.parts.values())), "ETag": '"x-9"'})

    def do_GET(self) -> None:
        told = sorted((number, size, digest) for number, (size, digest) in self.parts.items())
        self.parts.clear()
        self._answer(json.dumps(told), {})

    def _xml(self, name: str, inner: str) -> None:
        self._answer(f'<?xml version="1.0"?><{name}>{inner}</{name}>', {})

    def _answer(self, body: str | None, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in (headers if body is None else {"Content-Length": str(len(body)), **headers}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(body.encode())

    def log_message(self, *args: object) -> None:
        """Says nothing."""


def _signed_chunks(body: io.BufferedIOBase) -> tuple[int, str]:
    """Size and digest of what comes in the chunks that AWS's clients make of it, with a checksum behind them."""
    digest, whole = hashlib.sha256(), 0
    while size := int(body.readline().partition(b";")[0], 16):
        _take(body, size, digest)
        whole += size
        body.readline()
    while body.readline().strip():
        pass
    return whole, digest.hexdigest()


def _take(body: io.BufferedIOBase, size: int, digest: hashlib._Hash) -> None:
    while size:
        data = body.read(min(size, CHUNK))
        if not data:
            raise ConnectionError("the client has gone")
        digest.update(data)
        size -= len(data)


def main(directory: str) -> None:
    """Serves until the standard input ends."""
    server = _Server(("127.0.0.1", 0), _S3)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(directory) / "cert.pem", Path(directory) / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
