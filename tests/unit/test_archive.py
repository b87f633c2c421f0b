"""A video's way into S3, against a fake source and an S3 in memory."""

from __future__ import annotations

import gc
import hashlib
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from renderbell.archive import MARGIN_S, PART_BYTES, SAVING_S, Archive
from renderbell.errors import (
    AddressRefusedError,
    ClaimLostError,
    ConfigurationError,
    ConnectError,
    CopyError,
    DeadlineError,
    LinkExpiredError,
    OutOfTimeError,
    SourceRefusedError,
    WrongContentError,
)
from renderbell.filetypes import sniff
from renderbell.presigned import content_disposition, presigned_url
from renderbell.providers.base import Connection
from renderbell.task import FileKind, Source, StoredFile, Upload
from tests.fake_source import FakeDownloads, FakeFile, video_bytes
from tests.s3 import BUCKET, FakeBody, FakeS3, OpenUpload, SameThread, StoredObject, client_error

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART = 4096
LIMIT = 50 * PART
LINK = "https://cdn.example/v.mp4"
SIGNED = f"{LINK}?Expires=9&sig=SECRET"
PREFIX = "team/t1"


# -- a try at a copy


class ForgetfulS3(FakeS3):
    """An S3 that keeps no bodies, so that memory can be measured."""

    def upload_part(self, **part: Any) -> dict[str, Any]:
        answer = super().upload_part(**part)
        self.uploads[part["UploadId"]].parts[part["PartNumber"]] = b""
        return answer

    def complete_multipart_upload(self, **upload: Any) -> dict[str, Any]:
        self.objects[upload["Key"]] = StoredObject(b"", "video/mp4", '"x-6"')
        return {}


class Try:
    """One invocation after another on the same file: what is stored and what the task remembers."""

    def __init__(self, file: FakeFile | None = None, *, max_bytes: int = LIMIT) -> None:
        self.s3 = FakeS3()
        self.file = file if file is not None else FakeFile(b"")
        self.downloads = FakeDownloads({LINK: self.file, SIGNED: self.file})
        self.archive = self.archive_with(max_bytes=max_bytes)
        self.upload: Upload | None = None
        self.checkpoints: list[Upload | None] = []
        self.parts_at_checkpoints: list[int] = []
        self.claim_ends_after = 10_000
        self.left: Callable[[], float] = lambda: 600.0

    def archive_with(
        self, *, max_bytes: int = LIMIT, part_bytes: int = PART, put_bytes: int = PART, **more: Any
    ) -> Archive:
        return Archive(
            lambda: cast("S3Client", self.s3),
            BUCKET,
            self.downloads,
            max_bytes=max_bytes,
            part_bytes=part_bytes,
            put_bytes=put_bytes,
            **more,
        )

    def checkpoint(self, upload: Upload | None) -> None:
        if len(self.checkpoints) >= self.claim_ends_after:
            raise ClaimLostError("somebody else has it")
        self.checkpoints.append(upload)
        self.parts_at_checkpoints.append(sum(len(one.parts) for one in self.s3.uploads.values()))
        self.upload = upload

    def run(self, *, url: str = LINK, kind: FileKind = FileKind.VIDEO, n: int = 1) -> StoredFile:
        return self.archive.store(
            prefix=PREFIX,
            n=n,
            source=Source(kind, url),
            connection=None,
            upload=self.upload,
            checkpoint=self.checkpoint,
            seconds_left=self.left,
        )

    def run_until_it_breaks(self, after: int) -> None:
        """A first invocation whose source breaks off after so many bytes."""
        self.file.breaks_after = after
        with pytest.raises(CopyError, match="could not be fetched"):
            self.run()
        self.file.breaks_after = None
        self.s3.calls.clear()
        self.downloads.asked.clear()
        self.checkpoints.clear()

    @property
    def stored(self) -> bytes:
        assert list(self.s3.objects) == [f"{PREFIX}/1.mp4"]
        assert not self.s3.uploads
        return self.s3.objects[f"{PREFIX}/1.mp4"].body

    @property
    def nothing_is_stored(self) -> bool:
        return not self.s3.objects and not self.s3.uploads


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


# -- whole copies


def test_a_small_video_is_put_at_once_and_described() -> None:
    body = video_bytes(3000)
    copy = Try(FakeFile(body))
    assert copy.run(url=SIGNED) == StoredFile(
        n=1,
        kind=FileKind.VIDEO,
        bucket=BUCKET,
        key="team/t1/1.mp4",
        size_bytes=3000,
        sha256=sha(body),
        content_type="video/mp4",
        source_url=SIGNED,
    )
    assert copy.s3.calls == ["put_object"]
    stored = copy.s3.objects["team/t1/1.mp4"]
    assert (stored.body, stored.content_type) == (body, "video/mp4")
    assert copy.checkpoints == []


@pytest.mark.parametrize("announced", [-1, None], ids=["announced", "unannounced"])
@pytest.mark.parametrize("chunk", [7, 1000, PART, 3 * PART + 1])
@pytest.mark.parametrize(
    ("size", "parts"),
    [(24, 0), (PART - 1, 0), (PART, 0), (PART + 1, 2), (2 * PART, 2), (2 * PART + 1, 3), (5 * PART + 7, 6)],
)
def test_a_file_of_any_length_arrives_whole(size: int, parts: int, chunk: int, announced: int | None) -> None:
    body = video_bytes(size)
    copy = Try(FakeFile(body, chunk=chunk, announced=announced))
    stored = copy.run()
    assert copy.stored == body
    assert (stored.size_bytes, stored.sha256) == (size, sha(body))
    assert copy.s3.calls.count("upload_part") == parts
    assert copy.s3.calls.count("put_object") == (0 if parts else 1)
    assert copy.s3.calls.count("get_object") == 0  # the digest was made on the way


@given(size=st.integers(16, 6 * PART), chunk=st.integers(1, 3 * PART), cut=st.integers(0, 6 * PART))
def test_wherever_a_source_breaks_off_the_next_try_stores_the_same_file(size: int, chunk: int, cut: int) -> None:
    body = video_bytes(size)
    copy = Try(FakeFile(body, chunk=chunk))
    if cut < size:
        copy.run_until_it_breaks(cut)
    stored = copy.run()
    assert copy.stored == body
    assert (stored.size_bytes, stored.sha256) == (size, sha(body))


def test_an_upload_is_told_right_after_its_creation_and_after_each_part() -> None:
    copy = Try(FakeFile(video_bytes(3 * PART)))
    copy.run(url=SIGNED)
    upload = Upload(
        n=1,
        key="team/t1/1.mp4",
        upload_id="u1",
        part_size=PART,
        content_type="video/mp4",
        source_url=SIGNED,
        validator='"v1"',
        size_bytes=3 * PART,
    )
    assert copy.checkpoints == [upload] * 4
    assert copy.parts_at_checkpoints == [0, 1, 2, 3]


def test_no_more_than_two_parts_are_in_memory() -> None:
    part = 2**20
    copy = Try(FakeFile(video_bytes(6 * part), chunk=2**16))
    s3 = ForgetfulS3()
    archive = Archive(
        lambda: cast("S3Client", s3), BUCKET, copy.downloads, max_bytes=9 * part, part_bytes=part, put_bytes=part
    )
    tracemalloc.start()
    try:
        with pytest.raises(CopyError, match="0 bytes instead of"):
            archive.store(
                prefix=PREFIX,
                n=1,
                source=Source(FileKind.VIDEO, LINK),
                connection=None,
                upload=None,
                checkpoint=copy.checkpoint,
                seconds_left=copy.left,
            )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert s3.calls.count("upload_part") == 6
    assert 2 * part < peak < 2.5 * part


@pytest.mark.parametrize("breaks", ["source", "S3"])
def test_a_failed_copy_leaves_no_part_in_memory(breaks: str) -> None:
    part = 2**20
    copy = Try(FakeFile(video_bytes(3 * part), chunk=2**16))
    copy.archive = copy.archive_with(max_bytes=4 * part, part_bytes=part, put_bytes=part)
    if breaks == "source":
        copy.file.breaks_after = 3 * part // 2
    else:
        copy.s3.fails["upload_part"] = client_error("InternalError")
    gc.disable()  # what only the collector frees may stay for minutes
    tracemalloc.start()
    try:
        with suppress(CopyError):
            copy.run()
        copy.s3.fails.clear()
        copy.s3.uploads.clear()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert kept < part // 2


def test_two_files_of_a_task_have_their_own_keys() -> None:
    first, second = video_bytes(2000, seed=1), b"\x1aE\xdf\xa3\x9fB\x82\x84webm" + bytes(2 * PART)
    copy = Try()
    copy.downloads.files = {LINK: FakeFile(first), SIGNED: FakeFile(second)}
    one, two = copy.run(url=LINK, n=1), copy.run(url=SIGNED, n=2)
    assert (one.key, two.key) == ("team/t1/1.mp4", "team/t1/2.webm")
    assert {key: found.body for key, found in copy.s3.objects.items()} == {one.key: first, two.key: second}


def test_the_source_is_asked_with_the_connection_and_within_the_time_left() -> None:
    copy = Try(FakeFile(video_bytes(2000)))
    connection = Connection(name="studio", type="jimmy", base_url="https://api.example")
    copy.archive.store(
        prefix=PREFIX,
        n=1,
        source=Source(FileKind.VIDEO, LINK),
        connection=connection,
        upload=None,
        checkpoint=copy.checkpoint,
        seconds_left=lambda: 100.0,
    )
    (asked,) = copy.downloads.asked
    assert (asked.connection, asked.headers, asked.timeout_s) == (connection, {}, 100.0 - SAVING_S)


def test_an_upload_of_another_file_is_a_mistake() -> None:
    copy = Try(FakeFile(video_bytes(3 * PART)))
    copy.run_until_it_breaks(2 * PART)
    with pytest.raises(ValueError, match="file 1, not 2"):
        copy.run(n=2)


# -- what is refused


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!doctype html><html><body>Your link has expired</body></html>",
        b'{"code": 404, "msg": "not found"}',
        b"Not free",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"GIF89a" + bytes(100),
        bytes(5000),
        b"<html>" + b"x" * 3 * PART,
    ],
)
def test_what_is_no_video_is_refused_and_not_stored(body: bytes) -> None:
    copy = Try(FakeFile(body, headers={"Content-Type": "text/html"}))
    with pytest.raises(WrongContentError, match="no video"):
        copy.run()
    assert copy.nothing_is_stored
    assert copy.s3.calls == []


def test_an_html_page_is_refused_after_its_first_bytes() -> None:
    drawn: list[int] = []
    copy = Try(FakeFile(b"<html>" + b"x" * 10 * PART, chunk=512, on_chunk=drawn.append))
    with pytest.raises(WrongContentError, match="no video"):
        copy.run()
    assert drawn == [0, 512]


def test_an_image_is_stored_only_where_an_image_is_expected() -> None:
    copy = Try(FakeFile(b"\x89PNG\r\n\x1a\n" + bytes(100)))
    assert copy.run(kind=FileKind.IMAGE).content_type == "image/png"
    with pytest.raises(WrongContentError):
        copy.run(kind=FileKind.COMBINED)


def test_a_video_is_refused_where_an_image_is_expected() -> None:
    copy = Try(FakeFile(video_bytes(2000)))
    with pytest.raises(WrongContentError, match="no image"):
        copy.run(kind=FileKind.IMAGE)


@pytest.mark.parametrize("size", [1999, 2000])
def test_a_file_up_to_the_limit_is_copied(size: int) -> None:
    assert Try(FakeFile(video_bytes(size)), max_bytes=2000).run().size_bytes == size


def test_an_announced_length_above_the_limit_is_refused_before_anything_is_read() -> None:
    drawn: list[int] = []
    copy = Try(FakeFile(video_bytes(2001), on_chunk=drawn.append), max_bytes=2000)
    with pytest.raises(SourceRefusedError, match="larger than the limit of 2000 bytes"):
        copy.run()
    assert (drawn, copy.s3.calls) == ([], [])


def test_an_unannounced_length_above_the_limit_is_refused_on_the_way_and_its_upload_aborted() -> None:
    drawn: list[int] = []
    copy = Try(FakeFile(video_bytes(9 * PART), announced=None, on_chunk=drawn.append), max_bytes=3 * PART)
    with pytest.raises(SourceRefusedError, match="larger"):
        copy.run()
    assert max(drawn) <= 3 * PART
    assert copy.nothing_is_stored
    assert copy.upload is None


# -- what the source answers


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, LinkExpiredError), (403, LinkExpiredError), (404, LinkExpiredError), (410, LinkExpiredError)]
    + [(status, CopyError) for status in (204, 304, 400, 416, 429, 500, 503)],
)
def test_a_status_that_brings_no_file(status: int, error: type[CopyError]) -> None:
    copy = Try(FakeFile(video_bytes(2000), status=status))
    with pytest.raises(CopyError, match=f"answered {status}") as raised:
        copy.run()
    assert type(raised.value) is error
    assert copy.nothing_is_stored


def test_a_source_that_answers_206_without_being_asked_for_a_range_is_copied() -> None:
    body = video_bytes(3 * PART + 5)
    copy = Try(FakeFile(body, always_206=True))
    assert copy.run().sha256 == sha(body)
    assert copy.upload is not None
    assert copy.upload.size_bytes == len(body)


@pytest.mark.parametrize("content_range", ["", "bytes", "bytes 5-1999/2000", "bytes */2000", "items 0-1999/2000"])
def test_a_206_of_anything_but_the_whole_file_is_not_stored(content_range: str) -> None:
    copy = Try(FakeFile(video_bytes(2000), always_206=True, headers={"Content-Range": content_range}))
    with pytest.raises(CopyError):
        copy.run()
    assert copy.nothing_is_stored


@pytest.mark.parametrize("size", [2000, 3 * PART])
@pytest.mark.parametrize(
    "content_range",
    [
        *("bytes 0-1999/*", "bytes 0-12287/*", "bytes 0-5/*"),
        *("bytes 0-1999/99999", "bytes 0-5/2000", "bytes 0-2000/2000", "bytes 5-0/2000", "bytes 0-9/5"),
    ],
)
def test_an_unasked_206_that_is_not_provably_the_whole_file_is_never_stored(size: int, content_range: str) -> None:
    body = video_bytes(size)
    copy = Try(FakeFile(body, always_206=True, announced=None, headers={"Content-Range": content_range}))
    with pytest.raises(CopyError) as refused:
        copy.run()
    assert type(refused.value) is CopyError  # it is tried again
    assert not copy.s3.objects


def test_a_resumed_range_that_ends_early_is_kept_but_not_taken_for_the_rest() -> None:
    body = video_bytes(6 * PART + 9)
    copy = Try(FakeFile(body))
    copy.run_until_it_breaks(2 * PART + 1)
    copy.file.body = body[: 4 * PART + 7]  # the source sends a part of what it was asked for
    copy.file.headers["Content-Range"] = f"bytes {2 * PART}-{4 * PART + 6}/{len(body)}"
    with pytest.raises(CopyError, match="less than"):
        copy.run()
    assert not copy.s3.objects
    del copy.file.headers["Content-Range"]
    copy.file.body = body
    assert copy.run().sha256 == sha(body)
    assert copy.downloads.asked[-1].headers["Range"] == f"bytes={4 * PART}-"


@pytest.mark.parametrize("last", [3 * PART - 1, 5 * PART - 1])
def test_a_resumed_range_whose_bytes_are_not_those_it_names_is_an_error(last: int) -> None:
    copy = Try(FakeFile(video_bytes(4 * PART)))
    copy.run_until_it_breaks(2 * PART + 1)
    copy.file.headers["Content-Range"] = f"bytes {2 * PART}-{last}/*"
    with pytest.raises(CopyError):
        copy.run()
    assert not copy.s3.objects


def test_a_resumed_range_without_any_total_is_not_trusted_to_be_the_rest() -> None:
    body = video_bytes(4 * PART + 9)
    copy = Try(FakeFile(body, announced=None))
    copy.run_until_it_breaks(2 * PART + 1)
    copy.file.headers["Content-Range"] = f"bytes {2 * PART}-{len(body) - 1}/*"
    assert copy.run().sha256 == sha(body)
    assert [asked.headers for asked in copy.downloads.asked][1:] == [{}]  # from the first byte


def test_a_compressed_answer_is_not_stored() -> None:
    copy = Try(FakeFile(video_bytes(2000), headers={"Content-Encoding": "gzip"}))
    with pytest.raises(CopyError, match="encoding"):
        copy.run()
    assert copy.nothing_is_stored


@pytest.mark.parametrize(("announced", "word"), [(1999, "more"), (2001, "less"), (0, "more")])
def test_a_small_file_of_another_length_than_announced_is_not_stored(announced: int, word: str) -> None:
    copy = Try(FakeFile(video_bytes(2000), announced=announced))
    with pytest.raises(CopyError, match=f"brought {word} than the {announced} bytes"):
        copy.run()
    assert copy.nothing_is_stored


@pytest.mark.parametrize("difference", [-1, 1, PART])
def test_a_large_file_of_another_length_than_announced_is_not_completed(difference: int) -> None:
    copy = Try(FakeFile(video_bytes(3 * PART), announced=3 * PART + difference))
    with pytest.raises(CopyError, match="that it announced"):
        copy.run()
    assert not copy.s3.objects


def test_an_unreadable_length_counts_as_none() -> None:
    body = video_bytes(2000)
    copy = Try(FakeFile(body, announced=None, headers={"Content-Length": "-5"}))
    assert copy.run().sha256 == sha(body)


def test_a_length_beside_a_transfer_encoding_is_ignored() -> None:
    body = video_bytes(2000)
    copy = Try(FakeFile(body, announced=7, headers={"Transfer-Encoding": "chunked"}))
    assert copy.run().sha256 == sha(body)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (AddressRefusedError("10.0.0.7 is no public address"), SourceRefusedError),
        (ConnectError("name not known"), CopyError),
        (DeadlineError("180 s passed"), CopyError),
    ],
)
def test_trouble_on_the_way_to_the_source(raised: Exception, expected: type[CopyError]) -> None:
    copy = Try(FakeFile(b"", fails=raised))
    with pytest.raises(CopyError, match=str(raised)) as told:
        copy.run()
    assert type(told.value) is expected


SECRET = "https://user:SECRET@cdn.example/v.mp4?sig=SECRET"


@pytest.mark.parametrize(
    "file",
    [
        FakeFile(b"", fails=AddressRefusedError(f"{SECRET} is private")),
        FakeFile(b"", fails=ConnectError(f"no answer from ('{SECRET}',): /v.mp4?x=SECRET")),
        FakeFile(b"", fails=DeadlineError(SECRET)),
        FakeFile(video_bytes(2000), breaks_after=1500),
        FakeFile(b"", status=403),
        FakeFile(b"", status=500),
        FakeFile(b"<html>"),
        FakeFile(b""),
        FakeFile(video_bytes(2000), announced=2001),
        FakeFile(video_bytes(LIMIT + 1)),
        FakeFile(video_bytes(2000), always_206=True, headers={"Content-Range": "?"}),
        FakeFile(video_bytes(2000), headers={"Content-Encoding": "br"}),
    ],
)
def test_no_error_tells_the_query_of_a_signed_link(file: FakeFile) -> None:
    copy = Try(file)
    with pytest.raises(CopyError) as raised:
        copy.run(url=SIGNED)
    told = "".join(traceback.format_exception(raised.value)).splitlines()
    assert not [line for line in told if "SECRET" in line and "SECRET = " not in line]
    assert LINK in str(raised.value)


# -- an upload that is continued


def test_a_broken_download_goes_on_where_the_last_whole_part_ended() -> None:
    body = video_bytes(5 * PART + 7)
    copy = Try(FakeFile(body))
    copy.run_until_it_breaks(3 * PART + 100)
    upload = copy.upload
    assert upload is not None
    assert len(copy.s3.uploads[upload.upload_id].parts) == 3  # more than one page of the list

    stored = copy.run()

    (asked,) = copy.downloads.asked
    assert asked.headers == {"Range": f"bytes={3 * PART}-", "If-Range": '"v1"'}
    assert copy.s3.calls == ["list_parts"] * 2 + ["upload_part"] * 3 + ["complete_multipart_upload", "get_object"]
    assert copy.stored == body
    assert (stored.size_bytes, stored.sha256, stored.content_type) == (len(body), sha(body), "video/mp4")
    assert copy.checkpoints == [upload] * 3


def test_a_download_can_break_at_every_part_and_still_ends() -> None:
    body = video_bytes(4 * PART + 1)
    copy = Try(FakeFile(body))
    for _ in range(3):
        copy.run_until_it_breaks(PART + 1)
    assert copy.run().sha256 == sha(body)
    assert copy.stored == body


@pytest.mark.parametrize("heeds_if_range", [True, False], ids=["200", "206 of another version"])
def test_a_changed_source_starts_anew(heeds_if_range: bool) -> None:
    copy = Try(FakeFile(video_bytes(4 * PART)))
    copy.run_until_it_breaks(2 * PART + 1)
    changed = video_bytes(4 * PART, seed=2)
    copy.file.body, copy.file.etag, copy.file.heeds_if_range = changed, '"v2"', heeds_if_range
    assert copy.run().sha256 == sha(changed)
    assert copy.stored == changed
    assert copy.checkpoints[0] is None
    assert copy.upload is not None
    assert copy.upload.validator == '"v2"'
    assert len(copy.downloads.asked) == (1 if heeds_if_range else 2)  # a 200 is used as it comes


def test_a_changed_source_that_is_small_now_is_put_at_once() -> None:
    copy = Try(FakeFile(video_bytes(4 * PART)))
    copy.run_until_it_breaks(2 * PART + 1)
    copy.file.body, copy.file.etag = video_bytes(2000), '"v2"'
    assert copy.run().size_bytes == 2000
    assert len(copy.stored) == 2000


def test_a_source_of_another_length_starts_anew_even_under_the_same_etag() -> None:
    copy = Try(FakeFile(video_bytes(4 * PART)))
    copy.run_until_it_breaks(2 * PART + 1)
    copy.file.body = video_bytes(5 * PART, seed=3)
    assert copy.run().size_bytes == 5 * PART
    assert copy.stored == copy.file.body


def test_a_source_that_shrank_answers_416_and_starts_anew() -> None:
    copy = Try(FakeFile(video_bytes(4 * PART)))
    copy.run_until_it_breaks(3 * PART + 1)
    copy.file.body = video_bytes(2 * PART, seed=3)
    assert copy.run().size_bytes == 2 * PART
    assert [asked.headers for asked in copy.downloads.asked][1] == {}
    assert copy.stored == copy.file.body


def test_a_source_without_ranges_starts_anew_from_its_one_answer() -> None:
    body = video_bytes(4 * PART)
    copy = Try(FakeFile(body, ranges=False))
    copy.run_until_it_breaks(2 * PART + 1)
    assert copy.run().sha256 == sha(body)
    assert len(copy.downloads.asked) == 1
    assert copy.stored == body


def test_a_range_from_another_place_is_not_appended() -> None:
    copy = Try(FakeFile(video_bytes(4 * PART)))
    copy.run_until_it_breaks(2 * PART + 1)
    copy.file.headers["Content-Range"] = f"bytes 5-{4 * PART - 1}/{4 * PART}"
    copy.run()
    assert copy.stored == copy.file.body


OLD = "Mon, 01 Jun 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("etag", "headers", "validator"),
    [
        ('"v1"', {}, '"v1"'),
        ('"v1"', {"Last-Modified": OLD, "Date": "Mon, 01 Jun 2026 11:00:00 GMT"}, '"v1"'),
        ('W/"v1"', {}, None),
        ("v1", {}, None),
        (None, {}, None),
        (None, {"Last-Modified": OLD}, None),
        (None, {"Last-Modified": "yesterday", "Date": "today"}, None),
        (None, {"Last-Modified": OLD, "Date": "Mon, 01 Jun 2026 10:00:59 GMT"}, None),  # it may still be written
        (None, {"Last-Modified": OLD, "Date": "Mon, 01 Jun 2026 10:01:00 GMT"}, OLD),
        ('W/"v1"', {"Last-Modified": OLD, "Date": "Mon, 01 Jun 2026 11:00:00 GMT"}, OLD),
    ],
)
def test_only_a_validator_that_names_the_bytes_lets_a_download_go_on(
    etag: str | None, headers: dict[str, str], validator: str | None
) -> None:
    body = video_bytes(4 * PART)
    copy = Try(FakeFile(body, etag=etag, headers=headers))
    copy.run_until_it_breaks(2 * PART + 1)
    assert copy.upload is not None
    assert copy.upload.validator == validator
    assert copy.run().sha256 == sha(body)
    expected = {} if validator is None else {"Range": f"bytes={2 * PART}-", "If-Range": validator}
    assert [asked.headers for asked in copy.downloads.asked] == [expected]
    assert copy.stored == body


def test_an_etag_lets_a_fresh_link_go_on() -> None:
    body = video_bytes(4 * PART)
    copy = Try(FakeFile(body))
    copy.run_until_it_breaks(2 * PART + 1)
    fresh = "https://other.example/w.mp4?sig=2"
    copy.downloads.files[fresh] = copy.file
    assert copy.run(url=fresh).source_url == fresh
    assert "Range" in copy.downloads.asked[0].headers
    assert copy.upload is not None
    assert copy.upload.source_url == fresh
    assert copy.stored == body


@pytest.mark.parametrize(
    ("fresh", "goes_on"), [(f"{LINK}?sig=2", True), ("https://cdn.example/other.mp4?sig=1", False)]
)
def test_a_time_lets_only_the_same_address_go_on(fresh: str, goes_on: bool) -> None:
    headers = {"Last-Modified": OLD, "Date": "Mon, 01 Jun 2026 11:00:00 GMT"}
    body = video_bytes(4 * PART)
    copy = Try(FakeFile(body, etag=None, headers=headers))
    copy.run_until_it_breaks(2 * PART + 1)
    copy.downloads.files[fresh] = copy.file
    copy.run(url=fresh)
    assert ("Range" in copy.downloads.asked[0].headers) is goes_on
    assert copy.stored == body


@pytest.mark.parametrize("status", [403, 500])
def test_an_upload_outlives_an_expired_link_and_a_bad_moment(status: int) -> None:
    body = video_bytes(4 * PART)
    copy = Try(FakeFile(body))
    copy.run_until_it_breaks(2 * PART + 1)
    upload = copy.upload
    copy.file.status = status
    with pytest.raises(CopyError, match=str(status)):
        copy.run()
    assert copy.upload is upload
    copy.file.status = 200
    copy.run()
    assert copy.downloads.asked[-1].headers["Range"] == f"bytes={2 * PART}-"
    assert copy.stored == body


@pytest.mark.parametrize("announced", [-1, None])
def test_parts_that_are_all_there_are_joined_without_asking_the_source(announced: int | None) -> None:
    body = video_bytes(2 * PART + 9)
    copy = Try(FakeFile(body, announced=announced))
    copy.s3.fails["complete_multipart_upload"] = client_error("SlowDown")
    with pytest.raises(CopyError, match="SlowDown"):
        copy.run()
    copy.s3.fails.clear()
    copy.downloads.asked.clear()
    assert copy.run().sha256 == sha(body)
    assert copy.downloads.asked == []
    assert copy.stored == body


def test_whole_parts_of_an_unannounced_length_are_not_taken_for_the_whole_file() -> None:
    body = video_bytes(4 * PART + 9)
    copy = Try(FakeFile(body, announced=None))
    copy.run_until_it_breaks(2 * PART + 1)
    assert copy.run().size_bytes == len(body)
    assert copy.stored == body
    assert copy.upload is not None
    assert copy.upload.size_bytes == len(body)  # the range's answer told it


def test_a_part_that_was_on_its_way_when_the_source_broke_off_counts() -> None:
    copy = Try(FakeFile(video_bytes(4 * PART), breaks_after=3 * PART + 1))
    with pytest.raises(CopyError):
        copy.run()
    assert copy.parts_at_checkpoints == [0, 1, 2, 3]


@pytest.mark.parametrize("last", [2, 3])
def test_a_part_that_is_too_short_is_replaced_with_all_that_follows(last: int) -> None:
    body = video_bytes(4 * PART)
    copy = Try(FakeFile(body))
    copy.run_until_it_breaks(last * PART + 1)
    copy.s3.uploads["u1"].parts[2] = b"short"
    copy.run()
    assert copy.downloads.asked[0].headers["Range"] == f"bytes={PART}-"
    assert copy.stored == body


def test_a_gap_between_the_parts_is_filled() -> None:
    body = video_bytes(4 * PART)
    copy = Try(FakeFile(body))
    copy.run_until_it_breaks(3 * PART + 1)
    del copy.s3.uploads["u1"].parts[2]
    copy.run()
    assert copy.downloads.asked[0].headers["Range"] == f"bytes={PART}-"
    assert copy.stored == body


def test_an_upload_that_was_completed_by_a_dead_claimant_is_found() -> None:
    body = video_bytes(3 * PART)
    copy = Try(FakeFile(body))
    copy.run()
    copy.downloads.asked.clear()
    assert copy.run() == StoredFile(
        n=1,
        kind=FileKind.VIDEO,
        bucket=BUCKET,
        key="team/t1/1.mp4",
        size_bytes=len(body),
        sha256=sha(body),
        content_type="video/mp4",
        source_url=LINK,
    )
    assert copy.downloads.asked == []


@pytest.mark.parametrize("left_behind", [None, 100, PART])
def test_an_upload_that_was_cleaned_away_starts_anew(left_behind: int | None) -> None:
    body = video_bytes(3 * PART)
    copy = Try(FakeFile(body, announced=None))
    copy.run_until_it_breaks(PART + 1)
    copy.s3.uploads.clear()
    if left_behind is not None:  # an earlier, smaller file's object under the same key
        copy.s3.objects["team/t1/1.mp4"] = StoredObject(bytes(left_behind), "video/mp4", '"put"')
    assert copy.run().sha256 == sha(body)
    assert copy.checkpoints[0] is None
    assert copy.stored == body


def test_an_object_of_another_length_is_not_taken_for_the_completed_upload() -> None:
    body = video_bytes(3 * PART)
    copy = Try(FakeFile(body))
    copy.run_until_it_breaks(PART + 1)
    copy.s3.uploads.clear()
    copy.s3.objects["team/t1/1.mp4"] = StoredObject(bytes(5), "video/mp4", '"x-2"')
    copy.run()
    assert copy.stored == body


def test_an_object_of_the_wrong_length_is_an_error_and_its_upload_forgotten() -> None:
    copy = Try(FakeFile(video_bytes(3 * PART)))
    copy.s3.head_object = lambda **_: {"ContentLength": 5}  # type: ignore[method-assign]
    with pytest.raises(CopyError, match=f"5 bytes instead of {3 * PART}"):
        copy.run()
    assert copy.upload is None


def test_a_resumed_object_of_the_wrong_length_is_an_error_and_its_upload_forgotten() -> None:
    copy = Try(FakeFile(video_bytes(3 * PART)))
    copy.run_until_it_breaks(PART + 1)
    copy.s3.get_object = lambda **_: {"Body": FakeBody(b"short")}  # type: ignore[method-assign]
    with pytest.raises(CopyError, match="5 bytes instead of"):
        copy.run()
    assert copy.upload is None


def test_a_resumed_file_above_the_limit_is_refused_and_its_upload_aborted() -> None:
    copy = Try(FakeFile(video_bytes(6 * PART)))
    copy.run_until_it_breaks(2 * PART + 1)
    copy.archive = copy.archive_with(max_bytes=5 * PART)
    with pytest.raises(SourceRefusedError, match="larger"):
        copy.run()
    assert copy.nothing_is_stored


# -- claims, time and trouble with S3


def test_an_upload_that_could_not_be_remembered_is_aborted() -> None:
    copy = Try(FakeFile(video_bytes(3 * PART)))
    copy.claim_ends_after = 0
    with pytest.raises(ClaimLostError):
        copy.run()
    assert copy.nothing_is_stored


def test_a_lost_claim_stops_the_copy_and_leaves_the_upload_to_the_winner() -> None:
    copy = Try(FakeFile(video_bytes(9 * PART)))
    copy.claim_ends_after = 2
    with pytest.raises(ClaimLostError):
        copy.run()
    assert list(copy.s3.uploads) == ["u1"]
    assert len(copy.s3.uploads["u1"].parts) <= 3
    assert not copy.s3.objects


def test_a_lost_claim_can_also_be_told_where_the_time_is_asked() -> None:
    copy = Try(FakeFile(video_bytes(2000)))

    def left() -> float:
        raise ClaimLostError("somebody else has it")

    copy.left = left
    with pytest.raises(ClaimLostError):
        copy.run()


def test_without_time_nothing_is_begun() -> None:
    copy = Try(FakeFile(video_bytes(2000)))
    copy.left = lambda: MARGIN_S
    with pytest.raises(OutOfTimeError):
        copy.run()
    assert copy.downloads.asked == []


def test_time_that_runs_out_before_the_first_part_stores_nothing() -> None:
    drawn: list[int] = []
    copy = Try(FakeFile(video_bytes(3000), on_chunk=drawn.append))
    copy.left = lambda: 60.0 if len(drawn) < 2 else 5.0
    with pytest.raises(OutOfTimeError):
        copy.run()
    assert drawn == [0, 1000]
    assert copy.nothing_is_stored


def test_time_that_runs_out_leaves_the_upload_for_the_next_invocation() -> None:
    body = video_bytes(6 * PART)
    copy = Try(FakeFile(body))
    copy.left = lambda: 60.0 if copy.s3.calls.count("upload_part") < 3 else 5.0
    with pytest.raises(OutOfTimeError):
        copy.run()
    assert copy.upload is not None
    assert len(copy.s3.uploads["u1"].parts) == 3
    assert copy.checkpoints == [copy.upload] * 4  # the part that was on its way counts

    copy.left = lambda: 600.0
    assert copy.run().sha256 == sha(body)
    assert copy.downloads.asked[-1].headers["Range"] == f"bytes={3 * PART}-"
    assert copy.stored == body


def test_a_deadline_that_is_the_functions_own_is_no_fault_of_the_source() -> None:
    copy = Try(FakeFile(b"", fails=DeadlineError("passed")))
    times = iter([60.0, MARGIN_S])
    copy.left = lambda: next(times)
    with pytest.raises(OutOfTimeError):
        copy.run()


def test_time_that_runs_out_while_the_object_is_read_is_made_up_for_later() -> None:
    body = video_bytes(4 * PART)
    copy = Try(FakeFile(body))
    copy.run_until_it_breaks(2 * PART + 1)
    copy.left = lambda: 5.0 if "get_object" in copy.s3.calls else 600.0
    with pytest.raises(OutOfTimeError):
        copy.run()
    copy.left = lambda: 600.0
    assert copy.run().sha256 == sha(body)
    assert copy.stored == body


@pytest.mark.parametrize(
    ("operation", "size"),
    [
        ("put_object", 2000),
        ("create_multipart_upload", 3 * PART),
        ("upload_part", 3 * PART),
        ("complete_multipart_upload", 3 * PART),
        ("head_object", 3 * PART),
    ],
)
def test_what_s3_refuses_is_an_error_with_its_code(operation: str, size: int) -> None:
    copy = Try(FakeFile(video_bytes(size)))
    copy.s3.fails[operation] = client_error("AccessDenied")
    with pytest.raises(CopyError, match="AccessDenied") as raised:
        copy.run()
    assert "team" not in str(raised.value)


@pytest.mark.parametrize("operation", ["list_parts", "get_object"])
def test_what_s3_refuses_while_resuming_is_an_error_with_its_code(operation: str) -> None:
    copy = Try(FakeFile(video_bytes(4 * PART)))
    copy.run_until_it_breaks(2 * PART + 1)
    copy.s3.fails[operation] = client_error("InternalError")
    with pytest.raises(CopyError, match="InternalError"):
        copy.run()


def test_an_s3_that_cannot_be_reached_is_an_error_of_the_copy() -> None:
    copy = Try(FakeFile(video_bytes(2000)))
    copy.s3.fails["put_object"] = EndpointConnectionError(endpoint_url="https://s3.example")
    with pytest.raises(CopyError, match="EndpointConnectionError"):
        copy.run()


# -- a file to be put at once that does not come at once


@pytest.mark.parametrize("announced", [-1, None], ids=["announced", "unannounced"])
@pytest.mark.parametrize("trouble", ["breaks off", "time runs out", "deadline"])
def test_what_has_come_of_a_small_file_is_kept_in_whole_parts(trouble: str, announced: int | None) -> None:
    body = video_bytes(3 * PART + 100)
    copy = Try(FakeFile(body, chunk=500, announced=announced))
    copy.archive = copy.archive_with(put_bytes=4 * PART)
    clock = {"left": 600.0}
    copy.left = lambda: clock["left"]

    def on_chunk(offset: int) -> None:
        if offset >= 2 * PART + 900:
            if trouble == "breaks off":
                raise ConnectError("gone")
            clock["left"] = SAVING_S
            if trouble == "deadline":
                raise DeadlineError("passed")

    copy.file.on_chunk = on_chunk
    with pytest.raises(CopyError) as raised:
        copy.run()
    assert isinstance(raised.value, OutOfTimeError) is (trouble != "breaks off")
    assert not copy.s3.objects
    assert [len(part) for part in copy.s3.uploads["u1"].parts.values()] == [PART, PART]
    assert copy.upload is not None
    assert copy.checkpoints == [copy.upload] * 3

    copy.file.on_chunk, copy.left = lambda offset: None, lambda: 600.0
    assert copy.run().sha256 == sha(body)
    assert copy.downloads.asked[-1].headers == {"Range": f"bytes={2 * PART}-", "If-Range": '"v1"'}
    assert copy.stored == body
    assert copy.s3.part_bytes_sent == len(body)


@pytest.mark.parametrize(
    ("breaks_after", "etag", "ranges_refused"),
    [(PART - 1, '"v1"', False), (2 * PART, None, False), (2 * PART, '"v1"', True)],
)
def test_of_a_small_file_nothing_is_kept_that_no_later_try_could_use(
    breaks_after: int, etag: str | None, ranges_refused: bool
) -> None:
    headers = {"Accept-Ranges": "none"} if ranges_refused else {}
    copy = Try(FakeFile(video_bytes(3 * PART), etag=etag, breaks_after=breaks_after, headers=headers))
    copy.archive = copy.archive_with(put_bytes=4 * PART)
    with pytest.raises(CopyError, match="could not be fetched"):
        copy.run()
    assert copy.s3.calls == []


def test_the_source_is_left_alone_while_there_is_time_to_store_what_it_has_brought() -> None:
    copy = Try(FakeFile(video_bytes(3 * PART)))
    copy.left = lambda: SAVING_S
    with pytest.raises(OutOfTimeError):
        copy.run()
    assert copy.downloads.asked == []


def test_a_file_whose_last_bytes_come_when_the_time_is_nearly_up_is_whole() -> None:
    body = video_bytes(2500)
    drawn: list[int] = []
    copy = Try(FakeFile(body, on_chunk=drawn.append))
    copy.left = lambda: SAVING_S if drawn and drawn[-1] == 2000 else 600.0
    assert copy.run().sha256 == sha(body)


def test_a_deadline_on_the_way_that_is_not_the_functions_is_a_fault_of_the_source() -> None:
    def on_chunk(offset: int) -> None:
        if offset:
            raise DeadlineError("passed")

    copy = Try(FakeFile(video_bytes(3000), on_chunk=on_chunk))
    with pytest.raises(CopyError, match="took too long") as raised:
        copy.run()
    assert type(raised.value) is CopyError


def test_what_cannot_be_kept_does_not_hide_why_the_copy_ended() -> None:
    copy = Try(FakeFile(video_bytes(3 * PART), breaks_after=2 * PART))
    copy.archive = copy.archive_with(put_bytes=4 * PART)
    copy.s3.fails["create_multipart_upload"] = client_error("AccessDenied")
    with pytest.raises(CopyError, match="could not be fetched"):
        copy.run()


def test_a_lost_claim_is_told_even_while_a_broken_file_is_kept() -> None:
    copy = Try(FakeFile(video_bytes(3 * PART), breaks_after=2 * PART))
    copy.archive = copy.archive_with(put_bytes=4 * PART)
    copy.claim_ends_after = 0
    with pytest.raises(ClaimLostError):
        copy.run()
    assert copy.nothing_is_stored


@pytest.mark.parametrize("size", [4 * PART, 4 * PART + 1, 6 * PART, 7 * PART + 3])
@pytest.mark.parametrize("announced", [-1, None], ids=["announced", "unannounced"])
def test_what_is_larger_than_is_put_at_once_goes_in_parts(size: int, announced: int | None) -> None:
    body = video_bytes(size)
    copy = Try(FakeFile(body, chunk=777, announced=announced))
    copy.archive = copy.archive_with(put_bytes=4 * PART)
    assert copy.run().sha256 == sha(body)
    assert copy.stored == body
    assert copy.s3.calls.count("upload_part") == (0 if size == 4 * PART else -(-size // PART))


# -- S3's limits


@pytest.mark.parametrize(
    ("announced", "max_gib", "part_mib"),
    [(40 * 2**30, 100, 5), (60 * 2**30, 100, 7), (100 * 2**30, 100, 11), (None, 5, 5), (None, 100, 11)],
)
def test_the_largest_possible_file_fits_into_an_upload(announced: int | None, max_gib: int, part_mib: int) -> None:
    copy = Try(FakeFile(video_bytes(16 * 2**20), chunk=2**20, announced=announced, breaks_after=12 * 2**20))
    copy.archive = copy.archive_with(max_bytes=max_gib * 2**30, part_bytes=PART_BYTES, put_bytes=2**20)
    with pytest.raises(CopyError, match="could not be fetched"):
        copy.run()
    assert copy.upload is not None
    assert copy.upload.part_size == part_mib * 2**20
    assert copy.upload.part_size * 10_000 >= (announced or max_gib * 2**30)


def test_a_file_of_more_parts_than_an_upload_may_have_is_refused() -> None:
    body = video_bytes(10_000 * 16 + 40)
    copy = Try(FakeFile(body))
    copy.s3 = FakeS3(page_size=1000)
    copy.archive = copy.archive_with(max_bytes=len(body))
    parts = {number: body[(number - 1) * 16 : number * 16] for number in range(1, 10_001)}
    copy.s3.uploads["u1"] = OpenUpload("team/t1/1.mp4", "video/mp4", parts)
    copy.upload = Upload(1, "team/t1/1.mp4", "u1", 16, "video/mp4", LINK, '"v1"', None)
    with pytest.raises(SourceRefusedError, match="more than 10000 parts"):
        copy.run()
    assert copy.nothing_is_stored


@pytest.mark.parametrize(
    "path", ["announced", "unannounced", "held", "resumed", "resumed, unannounced", "relinked", "grown"]
)
def test_a_file_above_the_limit_is_refused_on_every_path(path: str) -> None:
    size = 6 * PART
    copy = Try(FakeFile(video_bytes(size), announced=None if "unannounced" in path or path == "held" else -1))
    below = copy.archive_with(max_bytes=size - 1, put_bytes=8 * PART if path == "held" else PART)
    url = LINK
    if path in {"announced", "unannounced", "held"}:
        copy.archive = below
    elif path in {"resumed", "resumed, unannounced"}:
        copy.run_until_it_breaks(2 * PART + 1)
        copy.archive = below
    else:
        copy.file.body = video_bytes(4 * PART)
        copy.archive = copy.archive_with(max_bytes=size - 1)
        copy.run_until_it_breaks(2 * PART + 1)
        copy.file.body, copy.file.etag = video_bytes(size, seed=2), '"v2"'
        url = SIGNED if path == "relinked" else LINK
    with pytest.raises(SourceRefusedError, match=f"larger than the limit of {size - 1} bytes"):
        copy.run(url=url)
    assert copy.nothing_is_stored
    assert copy.upload is None


# -- death


class Died(BaseException):
    """The process ended here."""


def dying(after: int, *, effect: bool) -> Callable[[str], AbstractContextManager[None]]:
    """Lets so many calls pass and dies at the next: before its effect, or just after it."""
    calls = iter(range(after + 1_000_000))

    @contextmanager
    def around(operation: str) -> Iterator[None]:
        number = next(calls)
        if number > after:
            raise AssertionError(f"{operation} after death")
        if number == after and not effect:
            raise Died
        yield
        if number == after:
            raise Died

    return around


@pytest.mark.parametrize("threads", [False, True], ids=["one thread", "two threads"])
@pytest.mark.parametrize("effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("flow", ["put", "parts", "kept", "resumed", "changed"])
def test_a_death_at_any_call_touches_s3_no_more_and_the_next_try_sends_only_what_is_missing(
    flow: str, effect: bool, threads: bool
) -> None:
    size = PART if flow == "put" else 4 * PART + 9
    deaths = 0
    for after in range(100):
        copy = Try(FakeFile(video_bytes(size)))
        uploader: dict[str, Any] = {} if threads else {"uploader": SameThread}
        put_bytes = 8 * PART if flow == "kept" else PART
        copy.archive = copy.archive_with(put_bytes=put_bytes, **uploader)
        if flow in {"resumed", "changed"}:
            copy.run_until_it_breaks(2 * PART + 1)
        if flow == "kept":
            copy.file.breaks_after = 3 * PART + 1
        if flow == "changed":
            copy.file.body, copy.file.etag = video_bytes(size, seed=2), '"v2"'
        copy.s3.around = dying(after, effect=effect)
        try:
            with suppress(CopyError):
                copy.run()
        except Died:
            deaths += 1
        finished = len(copy.s3.calls) <= after
        copy.s3.around = lambda operation: nullcontext()
        copy.file.breaks_after = None
        sent = copy.s3.part_bytes_sent
        known = copy.s3.uploads.get(copy.upload.upload_id) if copy.upload else None
        there = sum(len(part) for part in known.parts.values()) if known else 0
        if finished:
            break
        stored = copy.run()
        copy.archive.clean(PREFIX, keep=[stored.key])  # what a death between creating and noting an upload leaves
        assert copy.stored == copy.file.body
        assert (stored.size_bytes, stored.sha256) == (size, sha(copy.file.body))
        if there and flow != "changed":
            assert copy.s3.part_bytes_sent - sent == size - there, "the stored parts are not sent again"
    assert deaths == after >= (1 if flow == "put" else 4)


def test_a_death_while_an_upload_is_noted_touches_s3_no_more() -> None:
    copy = Try(FakeFile(video_bytes(3 * PART)))

    def checkpoint(upload: Upload | None) -> None:
        raise Died

    copy.checkpoint = checkpoint  # type: ignore[method-assign]
    with pytest.raises(Died):
        copy.run()
    assert copy.s3.calls == ["create_multipart_upload"]


def test_a_death_while_the_source_is_read_notes_nothing_more() -> None:
    def on_chunk(offset: int) -> None:
        if offset > 2 * PART:
            raise Died

    copy = Try(FakeFile(video_bytes(4 * PART), on_chunk=on_chunk))
    copy.archive = copy.archive_with(uploader=SameThread)
    with pytest.raises(Died):
        copy.run()
    assert copy.parts_at_checkpoints == [0, 1]
    assert copy.s3.calls == ["create_multipart_upload", "upload_part", "upload_part"]


@pytest.mark.parametrize("broken_after", range(1, 5))
@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("size", [PART, 3 * PART, 4 * PART + 9, 6 * PART])
def test_a_source_that_changes_at_any_point_ends_in_the_new_file(
    broken_after: int, heeds_if_range: bool, size: int
) -> None:
    copy = Try(FakeFile(video_bytes(4 * PART + 9)))
    copy.run_until_it_breaks(broken_after * PART + 3)
    changed = video_bytes(size, seed=2)
    copy.file.body, copy.file.etag, copy.file.heeds_if_range = changed, '"v2"', heeds_if_range
    copy.file.breaks_after = PART + 1  # and breaks off once more
    with suppress(CopyError):
        copy.run()
    copy.file.breaks_after = None
    assert copy.run().sha256 == sha(changed)
    assert copy.stored == changed


# -- cleaning


def test_cleaning_removes_all_that_is_not_kept_and_nothing_of_a_neighbour() -> None:
    copy = Try()
    for key in ("team/t1/1.mp4", "team/t1/1.webm", "team/t1/2.mp4", "team/t1/3.mp4", "team/t10/1.mp4", "team/t2/1.mp4"):
        copy.s3.objects[key] = StoredObject(b"", "video/mp4", "")
    for number, key in enumerate(("team/t1/1.mp4", "team/t1/2.mp4", "team/t1/3.mp4", "team/t10/1.mp4")):
        copy.s3.uploads[f"u{number}"] = OpenUpload(key, "video/mp4")
    copy.archive.clean(PREFIX, keep={"team/t1/1.mp4"})
    assert sorted(copy.s3.objects) == ["team/t1/1.mp4", "team/t10/1.mp4", "team/t2/1.mp4"]
    assert [upload.key for upload in copy.s3.uploads.values()] == ["team/t10/1.mp4"]
    copy.archive.clean(f"{PREFIX}/")
    assert sorted(copy.s3.objects) == ["team/t10/1.mp4", "team/t2/1.mp4"]


def test_cleaning_does_not_mind_an_upload_that_ended_meanwhile() -> None:
    copy = Try()
    copy.s3.uploads["u1"] = OpenUpload("team/t1/1.mp4", "video/mp4")
    copy.s3.fails["abort_multipart_upload"] = client_error("NoSuchUpload")
    copy.archive.clean(PREFIX)


def test_cleaning_that_s3_refuses_is_an_error() -> None:
    copy = Try()
    copy.s3.fails["list_objects_v2"] = client_error("AccessDenied")
    with pytest.raises(CopyError, match="AccessDenied"):
        copy.archive.clean(PREFIX)


@pytest.mark.parametrize("prefix", ["", "/"])
def test_cleaning_without_a_prefix_is_a_mistake(prefix: str) -> None:
    with pytest.raises(ValueError, match="empty the bucket"):
        Try().archive.clean(prefix)


# -- what a file is


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    box = b"ftyp" + major + b"\x00\x00\x02\x00" + b"".join(compatible)
    return (len(box) + 4).to_bytes(4) + box + bytes(64)


def ebml(doc_type: bytes) -> bytes:
    return b"\x1aE\xdf\xa3\xa3B\x86\x81\x01B\xf7\x81\x01B\x82" + bytes([0x80 | len(doc_type)]) + doc_type + bytes(64)


def packets(size: int, before: int = 0) -> bytes:
    return (bytes(before) + b"\x47" + b"\xff" * (size - 1 - before)) * 6


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (ftyp(b"isom", b"isom", b"iso2", b"avc1", b"mp41"), ("mp4", "video/mp4")),
        (ftyp(b"mp42"), ("mp4", "video/mp4")),
        (ftyp(b"dash", b"iso6"), ("mp4", "video/mp4")),
        (b"\x00\x00\x00\x18stypmsdh" + bytes(30), ("mp4", "video/mp4")),
        (ftyp(b"qt  "), ("mov", "video/quicktime")),
        (ftyp(b"M4V "), ("m4v", "video/x-m4v")),
        (ftyp(b"3gp5"), ("3gp", "video/3gpp")),
        (ftyp(b"3g2a"), ("3g2", "video/3gpp2")),
        (b"\x00\x00\x00\x08wide\x00\x10\x00\x00mdat", ("mov", "video/quicktime")),
        (b"\x12\x34\x56\x78mdat" + bytes(20), ("mov", "video/quicktime")),
        (b"\x00\x00\x00\x01mdat\x00\x00\x00\x01\x00\x00\x00\x00" + bytes(20), ("mov", "video/quicktime")),
        (b"\x00\x00\x00\x00mdat" + bytes(20), ("mov", "video/quicktime")),
        (b"\x00\x00\x34\x78moov" + bytes(20), ("mov", "video/quicktime")),
        (b"\x00\x00\x34\x78moov\x00\x00\x00\x6cmvhd" + bytes(20), ("mov", "video/quicktime")),
        (b"\x00\x00\x00\x08wide" + b"\x00\x00\x00\x10free" + bytes(8), ("mov", "video/quicktime")),
        (b"\x00\x00\x08\x00skip" + bytes(1016), ("mov", "video/quicktime")),
        (b"\x00\x00\x00\x14ftypqt  \x00\x00\x02\x00qt  \x00\x00\x00\x00mdat", ("mov", "video/quicktime")),
        (b"\x00\x00\x00\x14ftypisom\x00\x00\x02\x00\0\0\0\0\x00\x00\x00\x01mdat", ("mp4", "video/mp4")),
        (b"FLV\x01\x04\x00\x00\x00\x09\x00\x00\x00\x00\x12", ("flv", "video/x-flv")),
        (ebml(b"webm"), ("webm", "video/webm")),
        (ebml(b"matroska"), ("mkv", "video/matroska")),
        (b"RIFF\x00\x10\x00\x00AVI LIST", ("avi", "video/x-msvideo")),
        (b"FLV\x01\x05\x00\x00\x00\x09", ("flv", "video/x-flv")),
        (b"\x00\x00\x01\xba\x44\x00", ("mpg", "video/mpeg")),
        (b"\x00\x00\x01\xb3\x16\x00", ("mpg", "video/mpeg")),
        (packets(188), ("ts", "video/mp2t")),
        (packets(192, before=4), ("m2ts", "video/mp2t")),
        (ftyp(b"M4A "), None),
        (ftyp(b"avif", b"mif1"), None),
        (ftyp(b"heic", b"mif1"), None),
        (b"\x00\x00\x00\x18ftyp", None),
        (b"xxxxftypisom", None),
        (ebml(b"other"), None),
        (b"\x1aE\xdf\xa3", None),
        (b"\x1aE\xdf\xa3B\x82", None),
        (b"RIFF\x00\x10\x00\x00WAVEfmt ", None),
        (b"RIFF\x00\x10\x00\x00WEBPVP8 ", None),
        (b"aaaamdat<script>" + b"x" * 100, None),
        (b"\n\n\n\nmdat<script>alert(1)</script>", None),
        ("éémdat<script>".encode(), None),
        (b"\0\0\0\5mdat<script>", None),
        (b"\0\0\0\1mdat<script>alert(1)", None),
        (b"\0<a>moov<script>alert(1)</script>", None),
        (b"\0\0\0\2moov<script>alert(1)</script>", None),
        (b"\0\0\0\x08free<script>alert(1)</script>", None),
        (b"\0\0<!ftyphtml" + b"<script>alert(1)</script>" * 50, None),
        (b"\0\0\0\x18ftypisom\0\0\2\0isommp42<script>alert(1)</script>", None),
        (b"\0\0\0\x14ftypisom\0\0\2\0<!--<script>alert(1)</script>", None),
        (b"\0\0\0\x18ftyp<!--\0\0\2\0isommp42", None),
        (b"\0\0\0\x08ftypisom<script>", None),
        (b"FLV\x01<script>", None),
        (b"FLV\x01\x05\x00\x00\x00<script>", None),
        (b"FLV\x01", None),
        (b"not free of charge", None),
        (b"The wide world of errors", None),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", None),
        (b"%PDF-1.7", None),
        (b"PK\x03\x04" + bytes(400), None),
        (b"G" * 100, None),
        (b"\xff\xd8\xff\xe0", None),
        (b"", None),
    ],
)
def test_a_video_is_known_by_its_first_bytes(head: bytes, expected: tuple[str, str] | None) -> None:
    assert sniff(head, FileKind.VIDEO) == expected
    assert sniff(head, FileKind.COMBINED) == expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", ("jpg", "image/jpeg")),
        (b"\x89PNG\r\n\x1a\n\x00", ("png", "image/png")),
        (b"GIF87a", ("gif", "image/gif")),
        (b"GIF89a", ("gif", "image/gif")),
        (b"RIFF\x00\x10\x00\x00WEBPVP8 ", ("webp", "image/webp")),
        (ftyp(b"avif", b"mif1", b"miaf"), ("avif", "image/avif")),
        (ftyp(b"mif1", b"avif"), ("avif", "image/avif")),
        (ftyp(b"heic", b"mif1"), ("heic", "image/heic")),
        (ftyp(b"mif1", b"heic"), ("heic", "image/heic")),
        (ftyp(b"mif1"), ("heif", "image/heif")),
        (ftyp(b"isom", b"mp41"), None),
        (b"\x00\x00\x00\x18ftyp", None),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", None),
        (b"", None),
    ],
)
def test_an_image_is_known_by_its_first_bytes(head: bytes, expected: tuple[str, str] | None) -> None:
    assert sniff(head, FileKind.IMAGE) == expected


@given(head=st.binary(max_size=64), start=st.sampled_from([b"", b"\x00\x00\x00\x20ftyp", b"\x1aE\xdf\xa3B\x82"]))
def test_any_bytes_have_a_kind_or_none(head: bytes, start: bytes) -> None:
    for kind in FileKind:
        found = sniff(start + head, kind)
        assert found is None or found[1].split("/")[0] == ("image" if kind is FileKind.IMAGE else "video")


# -- links


def s3_client(signature_version: str | None) -> S3Client:
    client: S3Client = boto3.client(
        "s3",
        region_name="us-east-1",
        aws_access_key_id="id",
        aws_secret_access_key="key",
        config=Config(signature_version=signature_version, s3={"addressing_style": "virtual"}),
    )
    return client


def test_a_presigned_url_is_signed_with_version_4_and_expires() -> None:
    url = urlsplit(presigned_url(s3_client("s3v4"), BUCKET, "team/t1/1.mp4", expires_s=900))
    query = parse_qs(url.query)
    assert (url.scheme, url.path) == ("https", "/team/t1/1.mp4")
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["900"]
    assert "response-content-disposition" not in query


def test_a_presigned_url_can_name_the_download() -> None:
    url = presigned_url(s3_client("s3v4"), BUCKET, "team/t1/1.mp4", expires_s=900, download_name="Été.mp4")
    assert parse_qs(urlsplit(url).query)["response-content-disposition"] == [content_disposition("Été.mp4")]


def test_a_client_that_would_sign_the_old_way_is_a_mistake_of_the_configuration() -> None:
    with pytest.raises(ConfigurationError, match="s3v4"):
        presigned_url(s3_client(None), BUCKET, "team/t1/1.mp4", expires_s=900)


@pytest.mark.parametrize(
    ("name", "ascii_name", "encoded"),
    [
        ("trailer.mp4", "trailer.mp4", "trailer.mp4"),
        ("Été à la mer.mp4", "Ete a la mer.mp4", "%C3%89t%C3%A9%20%C3%A0%20la%20mer.mp4"),
        ("夏.mp4", "_.mp4", "%E5%A4%8F.mp4"),
        ('a"b\\c/d.mp4', "a_b_c_d.mp4", "a_b_c_d.mp4"),
        ("x\r\nSet-Cookie: a=b.mp4", "x__Set-Cookie_ a=b.mp4", "x__Set-Cookie_%20a%3Db.mp4"),
        ("100%25.mp4", "100_25.mp4", "100%2525.mp4"),
        ("..", "download", "download"),
        ("", "download", "download"),
        ("\ud800.mp4", "_.mp4", "_.mp4"),
    ],
)
def test_a_downloads_name_is_told_in_ascii_and_in_full(name: str, ascii_name: str, encoded: str) -> None:
    assert content_disposition(name) == f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{encoded}"
