"""A source that stalls, over real connections: what came before the time was up is kept, and the rest follows."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import TYPE_CHECKING, cast

import pytest

from renderbell.archive import SAVING_S, Archive
from renderbell.egress import Downloader
from renderbell.errors import CopyError, OutOfTimeError
from renderbell.providers.base import Connection
from renderbell.task import FileKind, Source, StoredFile, Upload
from tests.fake_source import video_bytes
from tests.s3 import BUCKET, FakeS3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART = 10_000


class StallingSource(ThreadingHTTPServer):
    """Sends what was asked for up to a byte, then nothing more, or goes away."""

    def __init__(self, body: bytes) -> None:
        self.body, self.up_to, self.goes_away = body, len(body), False
        self.asked: list[str | None] = []
        self.over = Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: StallingSource

    def do_GET(self) -> None:
        source = self.server
        source.asked.append(self.headers.get("Range"))
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start, size = (int(asked[1]) if asked else 0), len(source.body)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        self.wfile.write(source.body[start : source.up_to])
        self.wfile.flush()
        if source.up_to < size and not source.goes_away:
            source.over.wait(30)

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def source() -> Iterator[StallingSource]:
    with StallingSource(video_bytes(55_000)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


class Try:
    """One invocation after another on the source's file; each begins with two seconds for the source."""

    def __init__(self, source: StallingSource, put_bytes: int) -> None:
        self.source, self.s3 = source, FakeS3(smallest_part_bytes=PART)
        self.archive = Archive(
            lambda: cast("S3Client", self.s3),
            BUCKET,
            Downloader(),
            max_bytes=10**6,
            part_bytes=PART,
            put_bytes=put_bytes,
        )
        self.upload: Upload | None = None

    def remember(self, upload: Upload | None) -> None:
        self.upload = upload

    def run(self, source_s: float = 2.0) -> StoredFile:
        ends = time.monotonic() + SAVING_S + source_s
        return self.archive.store(
            prefix="team/t1",
            n=1,
            source=Source(FileKind.VIDEO, f"{self.source.url}/v.mp4"),
            connection=Connection(name="studio", type="jimmy", base_url=self.source.url),
            upload=self.upload,
            checkpoint=self.remember,
            seconds_left=lambda: ends - time.monotonic(),
        )


@pytest.mark.parametrize("put_bytes", [PART, 100_000], ids=["in parts", "to be put at once"])
@pytest.mark.parametrize("goes_away", [False, True], ids=["stalls", "goes away"])
def test_a_source_that_stops_halfway_is_left_in_time_and_asked_for_the_rest(
    source: StallingSource, put_bytes: int, goes_away: bool
) -> None:
    copy = Try(source, put_bytes)
    source.up_to, source.goes_away = 34_000, goes_away
    started = time.monotonic()
    with pytest.raises(CopyError) as raised:
        copy.run()
    assert isinstance(raised.value, OutOfTimeError) is not goes_away
    assert time.monotonic() - started < 10
    assert sorted(copy.s3.uploads["u1"].parts) == [1, 2, 3]
    source.up_to = len(source.body)
    copy.run(source_s=60)
    assert source.asked == [None, "bytes=30000-"]
    assert copy.s3.objects["team/t1/1.mp4"].body == source.body
    assert copy.s3.part_bytes_sent == len(source.body)
