"""An S3 in memory and an executor without threads: what tests hand to `Archive` instead of AWS and its upload thread.

The same calls give the same ids, in the same order, so a run can be repeated exactly.
"""

# ruff: noqa: N803 - the parameters bear S3's names

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

BUCKET = "videos"

_STATUSES = {"404": 404, "NoSuchKey": 404, "NoSuchUpload": 404, "NoSuchBucket": 404, "SlowDown": 503}


@dataclass
class OpenUpload:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    content_type: str
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class StoredObject:
    """An object with what `Archive` looks at."""

    body: bytes
    content_type: str
    etag: str


class FakeBody:
    """The body of an object that is read."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        """The body in chunks."""
        for at in range(0, len(self._body), size):
            yield self._body[at : at + size]

    def close(self) -> None:
        """Nothing to close."""


class FakePaginator:
    """A list, page by page; each page is a call of its own."""

    def __init__(self, pages: Callable[..., Iterator[dict[str, Any]]]) -> None:
        self.paginate = pages


def _unhindered(operation: str) -> AbstractContextManager[object]:
    return nullcontext()


class FakeS3:
    """One bucket with the operations that `Archive` uses, S3's errors included.

    `calls` names every call in order. `fails` maps an operation to what it raises instead of doing anything. `around`
    is entered before each call's effect and left after it; what it raises goes to the caller. Every checksum is
    checked; lists have `page_size` things a page; parts below `smallest_part_bytes` may only be an upload's last.
    """

    def __init__(
        self,
        bucket: str = BUCKET,
        *,
        around: Callable[[str], AbstractContextManager[object]] = _unhindered,
        smallest_part_bytes: int = 0,
        page_size: int = 2,
    ) -> None:
        self.objects: dict[str, StoredObject] = {}
        self.uploads: dict[str, OpenUpload] = {}
        self.calls: list[str] = []
        self.part_bytes_sent = 0
        self.fails: dict[str, Exception] = {}
        self._bucket = bucket
        self.around = around
        self._smallest_part_bytes = smallest_part_bytes
        self._page_size = page_size
        self._ids = 0

    # -- objects

    def put_object(
        self, *, Bucket: str, Key: str, Body: bytes, ContentLength: int, ContentType: str, ChecksumSHA256: str
    ) -> dict[str, Any]:
        """Stores an object whole."""
        with self._operation("put_object", Bucket):
            self._check("PutObject", Body, ContentLength, ChecksumSHA256)
            self.objects[Key] = StoredObject(bytes(Body), ContentType, _etag(Body))
            return {"ETag": self.objects[Key].etag, "ChecksumSHA256": ChecksumSHA256}

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        """An object's length and ETag."""
        with self._operation("head_object", Bucket):
            if Key not in self.objects:
                raise client_error("404", "HeadObject")  # an answer to HEAD has no body, so no code
            found = self.objects[Key]
            return {"ContentLength": len(found.body), "ContentType": found.content_type, "ETag": found.etag}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        """An object, its body to be read."""
        with self._operation("get_object", Bucket):
            if Key not in self.objects:
                raise client_error("NoSuchKey", "GetObject")
            found = self.objects[Key]
            return {"Body": FakeBody(found.body), "ContentLength": len(found.body), "ETag": found.etag}

    def delete_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        """Removes an object, if it is there."""
        with self._operation("delete_object", Bucket):
            self.objects.pop(Key, None)
            return {}

    # -- uploads

    def create_multipart_upload(
        self, *, Bucket: str, Key: str, ContentType: str, ChecksumAlgorithm: str
    ) -> dict[str, Any]:
        """Begins an upload."""
        with self._operation("create_multipart_upload", Bucket):
            assert ChecksumAlgorithm == "SHA256"
            self._ids += 1
            upload_id = f"u{self._ids}"
            self.uploads[upload_id] = OpenUpload(Key, ContentType)
            return {"Bucket": Bucket, "Key": Key, "UploadId": upload_id}

    def upload_part(
        self,
        *,
        Bucket: str,
        Key: str,
        UploadId: str,
        PartNumber: int,
        Body: bytes,
        ContentLength: int,
        ChecksumSHA256: str,
    ) -> dict[str, Any]:
        """Stores a part; one of the same number is replaced."""
        with self._operation("upload_part", Bucket):
            assert 1 <= PartNumber <= 10_000
            self._check("UploadPart", Body, ContentLength, ChecksumSHA256)
            self.part_bytes_sent += len(Body)
            self._upload(Key, UploadId, "UploadPart").parts[PartNumber] = bytes(Body)
            return {"ETag": _etag(Body), "ChecksumSHA256": ChecksumSHA256}

    def complete_multipart_upload(
        self, *, Bucket: str, Key: str, UploadId: str, MultipartUpload: dict[str, list[dict[str, Any]]]
    ) -> dict[str, Any]:
        """Joins the named parts to an object; the others are dropped."""
        with self._operation("complete_multipart_upload", Bucket):
            name = "CompleteMultipartUpload"
            upload = self._upload(Key, UploadId, name)
            named = MultipartUpload["Parts"]
            numbers = [part["PartNumber"] for part in named]
            if not numbers:
                raise client_error("MalformedXML", name)
            if numbers != list(range(1, len(numbers) + 1)):  # consecutive from 1, as the parts carry checksums
                raise client_error("InvalidPartOrder", name)
            for part in named:
                body = upload.parts.get(part["PartNumber"])
                if body is None or (part["ETag"], part["ChecksumSHA256"]) != (_etag(body), b64(body)):
                    raise client_error("InvalidPart", name)
            bodies = [upload.parts[number] for number in numbers]
            if any(len(body) < self._smallest_part_bytes for body in bodies[:-1]):
                raise client_error("EntityTooSmall", name)
            del self.uploads[UploadId]
            whole = b"".join(bodies)
            self.objects[Key] = StoredObject(whole, upload.content_type, f'{_etag(whole)[:-1]}-{len(bodies)}"')
            return {"Bucket": Bucket, "Key": Key, "ETag": self.objects[Key].etag}

    def abort_multipart_upload(self, *, Bucket: str, Key: str, UploadId: str) -> dict[str, Any]:
        """Ends an upload and drops its parts."""
        with self._operation("abort_multipart_upload", Bucket):
            self._upload(Key, UploadId, "AbortMultipartUpload")
            del self.uploads[UploadId]
            return {}

    # -- lists

    def get_paginator(self, name: str) -> FakePaginator:
        """What lists page by page."""
        pages: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
            "list_parts": self._list_parts,
            "list_multipart_uploads": self._list_uploads,
            "list_objects_v2": self._list_objects,
        }
        return FakePaginator(pages[name])

    def _list_parts(self, *, Bucket: str, Key: str, UploadId: str) -> Iterator[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            parts = self._upload(Key, UploadId, "ListParts").parts
            return [
                {"PartNumber": number, "Size": len(body), "ETag": _etag(body), "ChecksumSHA256": b64(body)}
                for number, body in sorted(parts.items())
            ]

        return self._pages("list_parts", Bucket, "Parts", found)

    def _list_uploads(self, *, Bucket: str, Prefix: str) -> Iterator[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            below = [(upload.key, name) for name, upload in self.uploads.items() if upload.key.startswith(Prefix)]
            return [{"Key": key, "UploadId": name} for key, name in sorted(below)]

        return self._pages("list_multipart_uploads", Bucket, "Uploads", found)

    def _list_objects(self, *, Bucket: str, Prefix: str) -> Iterator[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            return [
                {"Key": key, "Size": len(self.objects[key].body), "ETag": self.objects[key].etag}
                for key in sorted(self.objects)
                if key.startswith(Prefix)
            ]

        return self._pages("list_objects_v2", Bucket, "Contents", found)

    def _pages(
        self, operation: str, bucket: str, name: str, found: Callable[[], Sequence[object]]
    ) -> Iterator[dict[str, Any]]:
        at = 0
        while True:
            with self._operation(operation, bucket):
                listed = found()
            yield {name: listed[at : at + self._page_size]} if listed[at:] else {}
            at += self._page_size
            if at >= len(listed):
                return

    # -- what all share

    @contextmanager
    def _operation(self, name: str, bucket: str) -> Iterator[None]:
        self.calls.append(name)
        if name in self.fails:
            raise self.fails[name]
        with self.around(name):
            if bucket != self._bucket:
                raise client_error("NoSuchBucket", name)
            yield

    def _upload(self, key: str, upload_id: str, operation: str) -> OpenUpload:
        if upload_id not in self.uploads or self.uploads[upload_id].key != key:
            raise client_error("NoSuchUpload", operation)
        return self.uploads[upload_id]

    @staticmethod
    def _check(operation: str, body: bytes, length: int, checksum: str) -> None:
        if len(body) != length or b64(body) != checksum:
            raise client_error("BadDigest", operation)


class SameThread(Executor):
    """Runs each job at once, in the thread that submits it.

    An error of the job is its future's; what is no `Exception` (a simulated death) goes straight to the submitter.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Runs the job and returns its finished future."""
        future: Future[Any] = Future()
        try:
            result = fn(*args, **kwargs)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        return future


def b64(body: bytes) -> str:
    """A body's SHA-256 as S3 writes it."""
    return b64encode(hashlib.sha256(body).digest()).decode()


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def client_error(code: str, operation: str = "Operation") -> ClientError:
    """An error as S3's client raises it."""
    return ClientError(
        {
            "Error": {"Code": code, "Message": "about team/t1/1.mp4"},
            "ResponseMetadata": {  # type: ignore[typeddict-item]
                "HTTPStatusCode": _STATUSES.get(code, 400)
            },
        },
        operation,
    )
