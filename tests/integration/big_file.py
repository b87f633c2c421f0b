"""A large video that is made as it is read: what two servers and a test agree on without storing it anywhere.

    python -m tests.integration.big_file source     streams the video, whole or from where a range begins
    python -m tests.integration.big_file s3 DIR     an S3 that keeps the digests of parts and drops their bytes

Each prints its port and serves until its standard input ends.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import ssl
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

MIB = 1024 * 1024
HEAD = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp42"
BLOCK = memoryview(random.Random(1).randbytes(MIB))


def blocks(start: int, end: int) -> Iterator[memoryview]:
    """The video's bytes from `start` to `end`; every MiB begins with its number, the first one like an MP4 file."""
    while start < end:
        number, offset = divmod(start, MIB)
        mark = memoryview(HEAD if number == 0 else number.to_bytes(8))
        block = mark[offset:] if offset < len(mark) else BLOCK[offset:]
        piece = block[: end - start]
        yield piece
        start += len(piece)


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Source(BaseHTTPRequestHandler):
    """`GET /<size>/<breaks after>/v.mp4`: without a range it breaks off there; `?unannounced` hides the length."""

    def do_GET(self) -> None:
        size, breaks = (int(part) for part in self.path.split("/")[1:3])
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("ETag", '"v1"')
        if not self.path.endswith("?unannounced"):
            self.send_header("Content-Length", str(size - start))
        self.end_headers()
        for piece in blocks(start, size if asked else min(size, breaks)):
            self.wfile.write(piece)
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Says nothing."""


class _S3(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    parts: dict[int, tuple[int, str]]  # number -> size, SHA-256 in base64
    puts = 0
    size = 0

    def do_PUT(self) -> None:
        url = urlsplit(self.path)
        number = int(parse_qs(url.query).get("partNumber", ["0"])[0])
        size, digest = self._received()
        if digest != self.headers["x-amz-checksum-sha256"]:
            self._answer(400, "<Error><Code>BadDigest</Code></Error>")
            return
        cls = type(self)
        cls.parts[number] = (size, digest)
        cls.puts += 1
        self._answer(200, "", {"ETag": f'"{number}"', "x-amz-checksum-sha256": digest})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if "uploads" in parse_qs(urlsplit(self.path).query, keep_blank_values=True):
            self._xml("InitiateMultipartUploadResult", "<UploadId>u1</UploadId>")
            return
        named = re.findall(r"<PartNumber>(\d+)</PartNumber>", body)
        checksums = re.findall(r"<ChecksumSHA256>([^<]+)</ChecksumSHA256>", body)
        assert checksums == [self.parts[int(number)][1] for number in named]
        type(self).size = sum(self.parts[int(number)][0] for number in named)
        self._xml("CompleteMultipartUploadResult", '<ETag>"x-9"</ETag>')

    def do_HEAD(self) -> None:
        self._answer(200, "", {"Content-Length": str(self.size), "ETag": '"x-9"'})

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/parts":
            self._answer(200, json.dumps([self.puts, [self.parts[number] for number in sorted(self.parts)]]))
        elif "uploadId" in parse_qs(url.query):
            listed = "".join(
                f'<Part><PartNumber>{number}</PartNumber><Size>{size}</Size><ETag>"{number}"</ETag>'
                f"<ChecksumSHA256>{digest}</ChecksumSHA256></Part>"
                for number, (size, digest) in sorted(self.parts.items())
            )
            self._xml("ListPartsResult", f"<IsTruncated>false</IsTruncated>{listed}")
        else:  # what was stored is known by its digests, so the object can be made anew
            self._answer(200, None, {"Content-Length": str(self.size), "ETag": '"x-9"'})
            for piece in blocks(0, self.size):
                self.wfile.write(piece)

    def _received(self) -> tuple[int, str]:
        size = left = int(self.headers["Content-Length"])
        digest, buffer = hashlib.sha256(), memoryview(bytearray(256 * 1024))
        while left:
            count = self.rfile.readinto(buffer[:left])
            digest.update(buffer[:count])
            left -= count
        return size, base64.b64encode(digest.digest()).decode()

    def _xml(self, name: str, inner: str) -> None:
        self._answer(200, f'<?xml version="1.0"?><{name}>{inner}</{name}>')

    def _answer(self, status: int, body: str | None, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        sent = {} if body is None else {"Content-Length": str(len(body))}
        for name, value in {**sent, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(body.encode())

    def log_message(self, *args: object) -> None:
        """Says nothing."""


def main(what: str, directory: str = "") -> None:
    """Serves until the standard input ends."""
    if what == "s3":
        _S3.parts = {}
        server = _Server(("127.0.0.1", 0), _S3)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(Path(directory) / "cert.pem", Path(directory) / "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    else:
        server = _Server(("127.0.0.1", 0), _Source)
    Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
