"""A video's way into S3, against the emulator's S3: uploads, checksums, lists and links as a server has them."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import requests

from local.emulator import S3_CONFIG, Emulator
from renderbell.archive import Archive
from renderbell.errors import CopyError
from renderbell.presigned import presigned_url
from renderbell.task import FileKind, Source, StoredFile, Upload
from tests.fake_source import FakeDownloads, FakeFile, video_bytes

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.emulator

PART = 256 * 1024  # the emulator accepts smaller parts than AWS's 5 MiB
LINK = "https://cdn.example/v.mp4"
PREFIX = "team/t1"


@pytest.fixture(scope="session")
def s3(emulator: Emulator) -> Iterator[S3Client]:
    client: S3Client = emulator.session().client("s3", endpoint_url=emulator.url, config=S3_CONFIG)
    yield client
    client.close()


@pytest.fixture
def bucket(s3: S3Client) -> str:
    name = f"videos-{uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return name


class Try:
    """One invocation after another on the same file."""

    def __init__(self, s3: S3Client, bucket: str, file: FakeFile, *, put_bytes: int = PART) -> None:
        self.s3, self.bucket, self.file = s3, bucket, file
        self.downloads = FakeDownloads({LINK: file})
        self.archive = Archive(
            lambda: s3, bucket, self.downloads, max_bytes=100 * PART, part_bytes=PART, put_bytes=put_bytes
        )
        self.upload: Upload | None = None

    def remember(self, upload: Upload | None) -> None:
        self.upload = upload

    def run(self, n: int = 1) -> StoredFile:
        return self.archive.store(
            prefix=PREFIX,
            n=n,
            source=Source(FileKind.VIDEO, LINK),
            connection=None,
            upload=self.upload,
            checkpoint=self.remember,
            seconds_left=lambda: 600.0,
        )

    def run_until_it_breaks(self, after: int) -> None:
        self.file.breaks_after = after
        with pytest.raises(CopyError, match="could not be fetched"):
            self.run()
        self.file.breaks_after = None
        self.downloads.asked.clear()

    @property
    def open_uploads(self) -> list[str]:
        found = self.s3.list_multipart_uploads(Bucket=self.bucket)
        return [upload["Key"] for upload in found.get("Uploads", [])]

    @property
    def keys(self) -> list[str]:
        return [found["Key"] for found in self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])]

    def check(self, stored: StoredFile) -> None:
        """The object is the source's file, under the described key, and nothing is left open."""
        found = self.s3.get_object(Bucket=self.bucket, Key=stored.key)
        assert found["Body"].read() == self.file.body
        assert found["ContentType"] == stored.content_type == "video/mp4"
        assert stored.size_bytes == len(self.file.body)
        assert stored.sha256 == hashlib.sha256(self.file.body).hexdigest()
        assert self.keys == [stored.key]
        assert self.open_uploads == []


def video(size: int, *, seed: int = 1, announced: int | None = -1) -> FakeFile:
    return FakeFile(video_bytes(size, seed), chunk=60_000, announced=announced)


@pytest.mark.parametrize("announced", [-1, None], ids=["announced", "unannounced"])
@pytest.mark.parametrize("size", [1000, PART, PART + 1, 2 * PART, 3 * PART + 5])
def test_a_file_of_any_length_arrives_whole(s3: S3Client, bucket: str, size: int, announced: int | None) -> None:
    copy = Try(s3, bucket, video(size, announced=announced))
    copy.check(copy.run())


def test_a_single_put_carries_its_checksum(s3: S3Client, bucket: str) -> None:
    copy = Try(s3, bucket, video(1000))
    stored = copy.run()
    found = s3.head_object(Bucket=bucket, Key=stored.key, ChecksumMode="ENABLED")
    assert found["ChecksumSHA256"] == b64encode(bytes.fromhex(stored.sha256)).decode()


def test_a_broken_download_goes_on_where_it_stopped(s3: S3Client, bucket: str) -> None:
    copy = Try(s3, bucket, video(5 * PART + 9))
    copy.run_until_it_breaks(3 * PART + 100)
    assert copy.open_uploads == [f"{PREFIX}/1.mp4"]
    stored = copy.run()
    assert copy.downloads.asked[0].headers["Range"] == f"bytes={3 * PART}-"
    copy.check(stored)


def test_a_small_file_that_breaks_off_goes_on_after_the_parts_that_were_kept(s3: S3Client, bucket: str) -> None:
    copy = Try(s3, bucket, video(4 * PART + 9), put_bytes=8 * PART)
    copy.run_until_it_breaks(2 * PART + 100)
    assert copy.open_uploads == [f"{PREFIX}/1.mp4"]
    stored = copy.run()
    assert copy.downloads.asked[0].headers["Range"] == f"bytes={2 * PART}-"
    copy.check(stored)


def test_a_changed_source_starts_anew(s3: S3Client, bucket: str) -> None:
    copy = Try(s3, bucket, video(4 * PART))
    copy.run_until_it_breaks(2 * PART + 1)
    copy.file.body, copy.file.etag = video_bytes(3 * PART, seed=2), '"v2"'
    copy.check(copy.run())


def test_an_upload_that_was_completed_by_a_dead_claimant_is_found(s3: S3Client, bucket: str) -> None:
    copy = Try(s3, bucket, video(3 * PART))
    first = copy.run()
    copy.downloads.asked.clear()
    assert copy.run() == first
    assert copy.downloads.asked == []
    copy.check(first)


def test_an_upload_that_was_cleaned_away_starts_anew(s3: S3Client, bucket: str) -> None:
    copy = Try(s3, bucket, video(4 * PART))
    copy.run_until_it_breaks(2 * PART + 1)
    copy.archive.clean(PREFIX)
    assert copy.open_uploads == []
    copy.check(copy.run())


def test_parts_that_are_all_there_are_joined_without_asking_the_source(s3: S3Client, bucket: str) -> None:
    copy = Try(s3, bucket, video(2 * PART + 9))
    copy.run_until_it_breaks(2 * PART + 1)
    upload = copy.upload
    assert upload is not None
    last = copy.file.body[2 * PART :]
    s3.upload_part(
        Bucket=bucket,
        Key=upload.key,
        UploadId=upload.upload_id,
        PartNumber=3,
        Body=last,
        ChecksumSHA256=b64encode(hashlib.sha256(last).digest()).decode(),
    )
    stored = copy.run()
    assert copy.downloads.asked == []
    copy.check(stored)


def test_cleaning_removes_all_that_is_not_kept_and_nothing_of_a_neighbour(s3: S3Client, bucket: str) -> None:
    copy = Try(s3, bucket, video(1000))
    kept = copy.run().key
    for key in (f"{PREFIX}/1.webm", f"{PREFIX}/2.mp4", "team/t10/1.mp4"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
        s3.create_multipart_upload(Bucket=bucket, Key=key)
    copy.archive.clean(PREFIX, keep=[kept])
    assert copy.keys == [kept, "team/t10/1.mp4"]
    assert copy.open_uploads == ["team/t10/1.mp4"]


def test_a_presigned_url_serves_the_file_its_ranges_and_its_name(s3: S3Client, bucket: str) -> None:
    copy = Try(s3, bucket, video(1000))
    stored = copy.run()
    url = presigned_url(s3, bucket, stored.key, expires_s=60, download_name="Été.mp4")
    with requests.Session() as http:
        http.trust_env = False
        whole = http.get(url, timeout=10)
        part = http.get(url, timeout=10, headers={"Range": "bytes=10-19"})
        forged = http.get(url.replace("1.mp4?", "2.mp4?"), timeout=10)
    assert (whole.status_code, whole.content, whole.headers["Content-Type"]) == (200, copy.file.body, "video/mp4")
    assert (
        whole.headers["Content-Disposition"] == "attachment; filename=\"Ete.mp4\"; filename*=UTF-8''%C3%89t%C3%A9.mp4"
    )
    assert (part.status_code, part.content) == (206, copy.file.body[10:20])
    assert forged.status_code == 403
