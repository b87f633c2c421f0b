"""A source of files that answers without a network: what tests hand to `Archive` instead of the downloader."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from urllib3 import HTTPHeaderDict

from renderbell.errors import ConnectError
from renderbell.providers.base import Connection


def video_bytes(size: int, seed: int = 1) -> bytes:
    """Bytes that begin like an MP4 file."""
    head = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp42"
    return (head + random.Random(seed).randbytes(max(0, size - len(head))))[:size]


@dataclass
class FakeFile:
    """One file as a server would send it; the fields are the server's quirks."""

    body: bytes
    status: int = 200
    etag: str | None = '"v1"'
    headers: dict[str, str] = field(default_factory=dict)
    announced: int | None = -1  # None: no Content-Length; -1: the truth
    ranges: bool = True
    heeds_if_range: bool = True
    always_206: bool = False
    chunk: int = 1000
    breaks_after: int | None = None  # bytes of one answer
    fails: Exception | None = None  # instead of an answer
    on_chunk: Callable[[int], None] = lambda offset: None


@dataclass(frozen=True)
class FakeDownload:
    """One answer."""

    status: int
    headers: Mapping[str, str]
    url: str
    chunks: Iterator[bytes]

    def iter(self) -> Iterator[bytes]:
        return self.chunks


@dataclass(frozen=True)
class Asked:
    """One request as it was made."""

    url: str
    connection: Connection | None
    headers: dict[str, str]
    timeout_s: float


class FakeDownloads:
    """Serves files by URL and keeps what was asked."""

    def __init__(self, files: dict[str, FakeFile]) -> None:
        self.files = files
        self.asked: list[Asked] = []

    @contextmanager
    def open(
        self, url: str, *, connection: Connection | None, headers: Mapping[str, str], timeout_s: float
    ) -> Iterator[FakeDownload]:
        self.asked.append(Asked(url, connection, dict(headers), timeout_s))
        file = self.files[url]
        if file.fails is not None:
            raise file.fails
        yield _answer(url, file, headers)


def _answer(url: str, file: FakeFile, asked: Mapping[str, str]) -> FakeDownload:
    size = len(file.body)
    headers = HTTPHeaderDict(file.headers)
    if file.etag is not None:
        headers["ETag"] = file.etag
    if file.status != 200:
        return FakeDownload(file.status, headers, url, iter([file.body]))
    status, start = 200, 0
    match = re.fullmatch(r"bytes=(\d+)-", asked.get("Range", ""))
    current = asked.get("If-Range") in (None, file.etag, file.headers.get("Last-Modified"))
    if match and file.ranges and (current or not file.heeds_if_range):
        status, start = 206, int(match[1])
        if start >= size:
            headers["Content-Range"] = f"bytes */{size}"
            return FakeDownload(416, headers, url, iter([]))
    if status == 206 or file.always_206:
        status = 206
        headers.setdefault("Content-Range", f"bytes {start}-{size - 1}/{size}")
    if file.announced is not None:
        headers["Content-Length"] = str(size - start if file.announced == -1 else file.announced)
    return FakeDownload(status, headers, url, _body(file, start))


def _body(file: FakeFile, start: int) -> Iterator[bytes]:
    end = len(file.body) if file.breaks_after is None else start + file.breaks_after
    for offset in range(start, min(end, len(file.body)), file.chunk):
        file.on_chunk(offset)
        yield file.body[offset : min(offset + file.chunk, end)]
    if end < len(file.body):
        raise ConnectError("the connection broke at https://cdn.example/v.mp4?sig=SECRET")
