"""A video's way into S3: one object per file, copied as a stream, checked, and continued where an earlier try stopped.

Up to 32 MiB a file is held in memory and put at once; above, it becomes a multipart upload whose state the caller
keeps (`Upload`), so that a later invocation asks the source only for what is missing. So does a smaller file whose
source is too slow for one invocation or breaks off. All parts but the last have the size noted in the upload: whoever
sends part n sends the same bytes, a claimant who has lost his claim too. Memory is bounded by what is put at once and
two parts. Nothing is stored that is not, by its first bytes, what it should be. Signed links are secrets: the texts of
errors carry a link without its query.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from io import BytesIO
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from renderbell.errors import (
    AddressRefusedError,
    CopyError,
    DeadlineError,
    EgressError,
    LinkExpiredError,
    OutOfTimeError,
    SourceRefusedError,
    StorageError,
    WrongContentError,
)
from renderbell.filetypes import HEAD_BYTES, sniff
from renderbell.providers.base import Connection
from renderbell.redaction import redacted
from renderbell.task import FileKind, Source, StoredFile, Upload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

__all__ = ["PART_BYTES", "PUT_BYTES", "Archive", "Download", "Downloads"]

MIB = 1024 * 1024
PUT_BYTES = 32 * MIB  # one PutObject up to here; in parts a 20 MB video would be seven requests
PART_BYTES = 5 * MIB  # S3's smallest: what a slow source brings in one invocation is kept but for less than this
MAX_PARTS = 10_000  # S3's limit for one upload
MARGIN_S = 10.0  # no effect on S3 is begun with less time left than this
# The source is left alone from here on, so that what it has brought can still be stored: up to 32 MiB, and a call to
# S3 that times out after 15 s can be repeated.
SAVING_S = 30.0
TOLERANCE_S = 1.0  # a download's deadline is that moment too, by another clock
READ_BYTES = MIB
VALIDATOR_AGE = timedelta(seconds=60)  # RFC 7232 section 2.2.2: from then on Last-Modified is a strong validator
EXPIRED_STATUSES = frozenset({401, 403, 404, 410})


class Download(Protocol):
    """One answer of a source, its body still to come."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; their names ignore case."""

    @property
    def url(self) -> str:
        """Where redirects ended."""

    def iter(self) -> Iterator[bytes]:
        """The body in chunks; raises `EgressError` where it breaks off."""


class Downloads(Protocol):
    """What opens a file's link: it vets addresses, follows redirects, and asks for no compression."""

    def open(
        self, url: str, *, connection: Connection | None, headers: Mapping[str, str], timeout_s: float
    ) -> AbstractContextManager[Download]:
        """Sends a GET; `timeout_s` limits the whole exchange. Raises `EgressError` where no answer comes."""


class _Part(NamedTuple):
    number: int
    size: int
    etag: str
    sha256: str | None  # base64, as S3 writes it


class _Answer(NamedTuple):
    """Which bytes of the file a source's answer brings.

    It brings those from `start` up to `end`; `total` is the file's length. Both are None where they were not announced.
    """

    start: int
    end: int | None
    total: int | None


def _one_thread() -> Executor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="upload-part")


class Archive:
    """Puts finished files into the team's bucket.

    `s3` gives the client, which deliveries alone do not need.
    `put_bytes` is the largest file that is put at once, `part_bytes` the smallest part of a larger one's upload.
    `uploader` runs the upload of a part while the next is downloaded, one job at a time.
    """

    def __init__(
        self,
        s3: Callable[[], S3Client],
        bucket: str,
        downloads: Downloads,
        *,
        max_bytes: int,
        part_bytes: int = PART_BYTES,
        put_bytes: int = PUT_BYTES,
        uploader: Callable[[], AbstractContextManager[Executor]] = _one_thread,
    ) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._downloads = downloads
        self._max_bytes = max_bytes
        self._part_bytes = part_bytes
        self._put_bytes = put_bytes
        self._uploader = uploader

    def store(
        self,
        *,
        prefix: str,
        n: int,
        source: Source,
        connection: Connection | None,
        upload: Upload | None,
        checkpoint: Callable[[Upload | None], None],
        seconds_left: Callable[[], float],
    ) -> StoredFile:
        """Copies one file to `<prefix>/<n>.<ext>`, going on with `upload` where that is possible.

        `checkpoint` gets the open upload right after it was created and after each stored part, and None when it was
        given up; what it raises passes through. `seconds_left` is asked at every chunk and before every effect on S3.
        Raises `OutOfTimeError` (the upload stays open), `LinkExpiredError`, `WrongContentError`, `SourceRefusedError`,
        else `CopyError`.
        """
        if upload is not None and upload.n != n:
            raise ValueError(f"the upload is of file {upload.n}, not {n}")
        copy = _Copy(
            s3=self._s3(),
            bucket=self._bucket,
            downloads=self._downloads,
            max_bytes=self._max_bytes,
            part_bytes=self._part_bytes,
            put_bytes=self._put_bytes,
            uploader=self._uploader,
            prefix=prefix,
            n=n,
            source=source,
            connection=connection,
            checkpoint=checkpoint,
            seconds_left=seconds_left,
        )
        return copy.run(upload)

    def clean(self, prefix: str, keep: Collection[str] = ()) -> None:
        """Aborts every open upload below `prefix` and deletes every object below it whose key is not kept."""
        if not prefix.strip("/"):
            raise ValueError("an empty prefix would empty the bucket")
        s3, below = self._s3(), prefix.rstrip("/") + "/"
        with _S3Errors("list the open uploads"):
            open_uploads = [
                (found["Key"], found["UploadId"])
                for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=below)
                for found in page.get("Uploads", [])
            ]
        for key, upload_id in open_uploads:
            _abort(s3, self._bucket, key, upload_id)
        with _S3Errors("list the objects"):
            keys = [
                found["Key"]
                for page in s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=below)
                for found in page.get("Contents", [])
            ]
        for key in keys:
            if key not in keep:
                with _S3Errors("delete an object"):
                    s3.delete_object(Bucket=self._bucket, Key=key)


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class _Copy:
    """One file's copying, with all that it needs at hand."""

    s3: S3Client
    bucket: str
    downloads: Downloads
    max_bytes: int
    part_bytes: int
    put_bytes: int
    uploader: Callable[[], AbstractContextManager[Executor]]
    prefix: str
    n: int
    source: Source
    connection: Connection | None
    checkpoint: Callable[[Upload | None], None]
    seconds_left: Callable[[], float]

    def run(self, upload: Upload | None) -> StoredFile:
        """Goes on with the upload or, where that cannot be, starts anew.

        Every failure of the source becomes a `CopyError` without the link's query. The causes are dropped on purpose:
        their texts may hold the signed link, and a traceback is logged.
        """
        try:
            return self._run(upload)
        except AddressRefusedError as error:
            raise SourceRefusedError(f"{self._link} may not be reached: {redacted(str(error))}") from None
        except DeadlineError as error:
            if self._is_late():
                raise OutOfTimeError(f"no time is left for {self._link}") from None
            raise CopyError(f"{self._link} took too long: {redacted(str(error))}") from None
        except EgressError as error:
            raise CopyError(f"{self._link} could not be fetched: {redacted(str(error))}") from None

    def _run(self, upload: Upload | None) -> StoredFile:
        if upload is None:
            return self._anew()
        parts = self._stored_parts(upload)
        if parts is None:  # completed by a claimant who died right after, or cleaned away
            size_bytes = self._completed_size(upload)
            if size_bytes is not None:
                return self._read_back(upload, size_bytes)
            self.checkpoint(None)
            return self._anew()
        offset = sum(part.size for part in parts)
        if _is_whole(upload, parts):
            return self._complete(upload, parts, sha256=None)
        if offset and self._may_resume(upload):
            return self._resume(upload, parts, offset)
        self._give_up(upload)
        return self._anew()

    # -- from the first byte

    def _anew(self) -> StoredFile:
        with self._opened({}) as download:
            self._check_status(download)
            return self._from_start(download)

    def _from_start(self, download: Download, *, ranges: bool = True) -> StoredFile:
        """Stores the file from an answer that brings all of it; without `ranges` the source is known to ignore them."""
        answer = self._answer(download)
        if answer.start != 0:
            raise CopyError(f"{self._link} answered a part of the file that was not asked for")
        if answer.total is not None:
            self._check_size(answer.total)
        if answer.end != answer.total or (answer.total is None and download.status == 206):
            raise CopyError(f"{self._link} answered 206 with what need not be the whole file")
        validator = _validator(download.headers)
        chunks = self._chunks(download, answer, _why_it_ends_here(validator, ranges))
        head, chunks = _peek(chunks, HEAD_BYTES)
        found = sniff(head, self.source.kind)
        if found is None:
            raise WrongContentError(self._refusal(download, head))
        extension, content_type = found
        begin = partial(
            self._create,
            f"{self.prefix}/{self.n}.{extension}",
            content_type,
            validator if ranges else None,
            answer.total,
        )
        if answer.total is not None and answer.total > self.put_bytes:
            return self._in_parts(begin, chunks, answer.total)
        limit = self.put_bytes if answer.total is None else answer.total
        held = _buffer(limit)
        try:
            surplus = _fill(held, limit, chunks)
        except (OutOfTimeError, EgressError):
            if validator is not None and ranges:
                self._save(begin, held, answer.total)
            raise
        if surplus is None:
            held.truncate()
            return self._put(f"{self.prefix}/{self.n}.{extension}", content_type, held.getvalue())
        return self._in_parts(begin, chain(_read_out(held), (surplus,), chunks), None)

    def _in_parts(self, begin: Callable[[int], Upload], chunks: Iterable[bytes], total: int | None) -> StoredFile:
        """Stores the file as an upload that is begun once its first part is there."""
        part_size = self._part_size(total)
        pieces = _pieces(chunks, part_size)
        held = deque([next(pieces)])
        upload = begin(part_size)
        whole = hashlib.sha256()
        try:
            parts = self._send(upload, [], chain(_emptied(held), pieces), whole.update)
        except SourceRefusedError:
            self._give_up(upload)
            raise
        return self._complete(upload, parts, sha256=whole.hexdigest)

    def _save(self, begin: Callable[[int], Upload], held: BytesIO, total: int | None) -> None:
        """Stores what has come of a file that was to be put at once, for the next try to go on after it."""
        part_size = self._part_size(total)
        if held.tell() < part_size:
            return
        with suppress(CopyError):  # what broke first is told
            whole_parts = (piece for piece in _pieces(_read_out(held), part_size) if len(piece) == part_size)
            self._send(begin(part_size), [], whole_parts, lambda piece: None)

    def _part_size(self, total: int | None) -> int:
        """The size of a new upload's parts: the smallest with which the largest possible file fits into an upload."""
        most = self.max_bytes if total is None else total
        if most <= MAX_PARTS * self.part_bytes:
            return self.part_bytes
        return -(-most // (MAX_PARTS * MIB)) * MIB

    def _put(self, key: str, content_type: str, body: bytes) -> StoredFile:
        digest = hashlib.sha256(body)
        self._check_time()
        with _S3Errors("store the file"):
            self.s3.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=body,
                ContentLength=len(body),
                ContentType=content_type,
                ChecksumSHA256=b64encode(digest.digest()).decode(),
            )
        return self._stored(key, content_type, len(body), digest.hexdigest())

    def _create(
        self, key: str, content_type: str, validator: str | None, size_bytes: int | None, part_size: int
    ) -> Upload:
        self._check_time()
        with _S3Errors("begin an upload"):
            created = self.s3.create_multipart_upload(
                Bucket=self.bucket, Key=key, ContentType=content_type, ChecksumAlgorithm="SHA256"
            )
        upload = Upload(
            n=self.n,
            key=key,
            upload_id=created["UploadId"],
            part_size=part_size,
            content_type=content_type,
            source_url=self.source.url,
            validator=validator,
            size_bytes=size_bytes,
        )
        try:
            self.checkpoint(upload)
        except Exception:
            with suppress(CopyError):  # nobody knows of it yet; if this fails, `clean` finds it
                _abort(self.s3, self.bucket, key, upload.upload_id)
            raise
        return upload

    # -- from where an earlier try stopped

    def _stored_parts(self, upload: Upload) -> list[_Part] | None:
        """The upload's parts that a further one can follow, in order; None if S3 no longer knows the upload."""
        self._check_time()
        listed: dict[int, _Part] = {}
        pages = self.s3.get_paginator("list_parts").paginate(
            Bucket=self.bucket, Key=upload.key, UploadId=upload.upload_id
        )
        with _S3Errors("list an upload's parts"):
            try:
                for page in pages:
                    for part in page.get("Parts", []):
                        number = part["PartNumber"]
                        listed[number] = _Part(number, part["Size"], part["ETag"], part.get("ChecksumSHA256"))
            except ClientError as error:
                if _code(error) == "NoSuchUpload":
                    return None
                raise
        parts: list[_Part] = []
        while (following := listed.get(len(parts) + 1)) is not None:
            parts.append(following)
            if following.size != upload.part_size:
                break
        if parts and parts[-1].size != upload.part_size and not _is_whole(upload, parts):
            parts.pop()
        return parts

    def _may_resume(self, upload: Upload) -> bool:
        """Whether the source can be asked for the rest.

        A strong ETag names the content, so it may come from a fresh link; a time names it only at the same address.
        """
        if upload.validator is None:
            return False
        return upload.validator.startswith('"') or _without_query(upload.source_url) == self._link

    def _resume(self, upload: Upload, parts: list[_Part], offset: int) -> StoredFile:
        headers = {"Range": f"bytes={offset}-"}
        if upload.validator is not None:
            headers["If-Range"] = upload.validator
        with self._opened(headers) as download:
            if download.status != 416:
                self._check_status(download)
                answer = self._answer(download)
                if answer.start == 0:  # changed, or the source knows no ranges: this answer is the whole file
                    self._give_up(upload)
                    return self._from_start(download, ranges=_changed(upload, download.headers, answer.total))
                answer = answer._replace(total=upload.size_bytes if answer.total is None else answer.total)
                # Without a total nobody could tell where the file ends.
                if answer.start == offset and answer.total and not _changed(upload, download.headers, answer.total):
                    return self._rest(upload, parts, download, answer)
        self._give_up(upload)
        return self._anew()

    def _rest(self, upload: Upload, parts: list[_Part], download: Download, answer: _Answer) -> StoredFile:
        upload = replace(upload, source_url=self.source.url, size_bytes=answer.total)
        pieces = _pieces(self._chunks(download, answer), upload.part_size)
        try:
            if answer.total is not None:
                self._check_size(answer.total)
            parts = self._send(upload, parts, pieces, lambda piece: None)
        except SourceRefusedError:
            self._give_up(upload)
            raise
        return self._complete(upload, parts, sha256=None)

    def _give_up(self, upload: Upload) -> None:
        self._check_time()
        _abort(self.s3, self.bucket, upload.key, upload.upload_id)
        self.checkpoint(None)

    # -- parts

    def _send(
        self,
        upload: Upload,
        parts: list[_Part],
        pieces: Iterable[bytes],
        hashed: Callable[[bytes], None],
    ) -> list[_Part]:
        """Uploads the pieces after `parts`, one while the next is downloaded, with a checkpoint after each."""
        sent = list(parts)
        pending: Future[_Part] | None = None

        def settle() -> None:
            nonlocal pending
            if pending is not None:
                future, pending = pending, None
                try:
                    sent.append(future.result())
                finally:
                    del future  # it holds its error, whose traceback holds this frame: a circle that keeps the part
                self.checkpoint(upload)

        with self.uploader() as worker:
            number = len(sent)
            try:
                for piece in pieces:
                    settle()
                    self._check_time()
                    number += 1
                    if number > MAX_PARTS:  # the limit was raised after the upload was begun
                        raise SourceRefusedError(
                            f"{self._link} has more than {MAX_PARTS} parts of {upload.part_size} bytes"
                        )
                    pending = worker.submit(self._send_part, upload, number, piece)
                    hashed(piece)  # while it is sent
                settle()
            except Exception:
                with suppress(CopyError):  # what broke first is told; a part that arrived still counts
                    settle()
                raise
        return sent

    def _send_part(self, upload: Upload, number: int, piece: bytes) -> _Part:
        checksum = b64encode(hashlib.sha256(piece).digest()).decode()
        with _S3Errors("store a part"):
            answer = self.s3.upload_part(
                Bucket=self.bucket,
                Key=upload.key,
                UploadId=upload.upload_id,
                PartNumber=number,
                Body=piece,
                ContentLength=len(piece),
                ChecksumSHA256=checksum,
            )
        return _Part(number, len(piece), answer["ETag"], checksum)

    def _complete(self, upload: Upload, parts: list[_Part], *, sha256: Callable[[], str] | None) -> StoredFile:
        """Joins the parts and checks the object's length; without a digest the object is read once for it."""
        self._check_time()
        size_bytes = sum(part.size for part in parts)
        with _S3Errors("complete an upload"):
            self.s3.complete_multipart_upload(
                Bucket=self.bucket,
                Key=upload.key,
                UploadId=upload.upload_id,
                MultipartUpload={"Parts": [_completed(part) for part in parts]},
            )
        if sha256 is None:
            return self._read_back(upload, size_bytes)
        with _S3Errors("show a stored file"):
            found = self.s3.head_object(Bucket=self.bucket, Key=upload.key)["ContentLength"]
        if found != size_bytes:
            self._wrong_length(size_bytes, found)
        return self._stored(upload.key, upload.content_type, size_bytes, sha256())

    # -- objects

    def _completed_size(self, upload: Upload) -> int | None:
        """The length of the object that this upload became; None if it became none."""
        with _S3Errors("show a stored file"):
            try:
                found = self.s3.head_object(Bucket=self.bucket, Key=upload.key)
            except ClientError as error:
                if _code(error) in {"404", "NoSuchKey", "NotFound"}:
                    return None
                raise
        size_bytes = found["ContentLength"]
        if upload.size_bytes not in (None, size_bytes):
            return None
        # An object from a single put is an earlier, smaller file's; a multipart object's ETag ends in "-<parts>".
        return size_bytes if "-" in found["ETag"] else None

    def _read_back(self, upload: Upload, size_bytes: int) -> StoredFile:
        """Reads the object once, for the digest of the whole and for its length."""
        digest = hashlib.sha256()
        found = 0
        self._check_time()
        with _S3Errors("read a stored file"):
            body = self.s3.get_object(Bucket=self.bucket, Key=upload.key)["Body"]
            with closing(body):
                for chunk in body.iter_chunks(READ_BYTES):
                    self._check_time()
                    found += len(chunk)
                    digest.update(chunk)
        if found != size_bytes:
            self._wrong_length(size_bytes, found)
        return self._stored(upload.key, upload.content_type, size_bytes, digest.hexdigest())

    def _wrong_length(self, expected: int, found: int) -> NoReturn:
        self.checkpoint(None)  # the upload is no more, and its object is not to be taken for the file
        raise CopyError(f"the stored object has {found} bytes instead of {expected}")

    def _stored(self, key: str, content_type: str, size_bytes: int, sha256: str) -> StoredFile:
        return StoredFile(
            n=self.n,
            kind=self.source.kind,
            bucket=self.bucket,
            key=key,
            size_bytes=size_bytes,
            sha256=sha256,
            content_type=content_type,
            source_url=self.source.url,
        )

    # -- the source

    @property
    def _link(self) -> str:
        return _without_query(self.source.url)

    def _opened(self, headers: Mapping[str, str]) -> AbstractContextManager[Download]:
        timeout_s = self.seconds_left() - SAVING_S
        if timeout_s <= TOLERANCE_S:
            raise OutOfTimeError(f"no time is left for {self._link}")
        return self.downloads.open(self.source.url, connection=self.connection, headers=headers, timeout_s=timeout_s)

    def _check_status(self, download: Download) -> None:
        if download.status in EXPIRED_STATUSES:
            raise LinkExpiredError(f"{self._link} answered {download.status}")
        if download.status not in {200, 206}:
            raise CopyError(f"{self._link} answered {download.status}")
        encoding = download.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in {"", "identity"}:
            raise CopyError(f"{self._link} answered in an encoding that was not asked for")

    def _answer(self, download: Download) -> _Answer:
        """Which bytes this answer brings; some sources answer 206 even where no range was asked for."""
        headers = download.headers
        if download.status == 206:
            match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
            if match is None:
                raise CopyError(f"{self._link} answered 206 without a readable Content-Range")
            start, end = int(match[1]), int(match[2]) + 1
            total = None if match[3] == "*" else int(match[3])
            if not start < end <= (end if total is None else total):
                raise CopyError(f"{self._link} answered 206 with an impossible Content-Range")
            return _Answer(start, end, total)
        length = headers.get("Content-Length", "").strip()
        known = _DIGITS.fullmatch(length) is not None and "Transfer-Encoding" not in headers
        size = int(length) if known else None
        return _Answer(0, size, size)

    def _chunks(self, download: Download, answer: _Answer, hopeless: str = "") -> Iterator[bytes]:
        """The body's chunks, checked on the way against what was announced, the limit and the time left.

        What an answer brings of the file is handed on before it is an error that the end is missing: it still counts.
        `hopeless` tells why a later try could not go on where this one stops.
        """
        received, end = answer.start, answer.end if answer.end is not None else answer.total
        began_with_s = self.seconds_left()
        try:
            for chunk in download.iter():
                received += len(chunk)
                self._check_size(received)
                if end is not None and received > end:
                    break
                yield chunk
                if self._is_late() and received != end:
                    raise DeadlineError("no time is left")
        except DeadlineError:
            if not self._is_late():
                raise
            got = received - answer.start
            if not hopeless and got < self.part_bytes:
                hopeless = f"a copy can only go on after {self.part_bytes} bytes"
            seconds = began_with_s - self.seconds_left()
            raise OutOfTimeError(
                f"{self._link} brought {got} bytes in {seconds:.0f} s and no end"
                + (f": {hopeless}" if hopeless else "")
            ) from None
        for announced in (end, answer.total):
            if announced is not None and received != announced:
                more_or_less = "more" if received > announced else "less"
                raise CopyError(f"{self._link} brought {more_or_less} than the {announced} bytes that it announced")

    def _refusal(self, download: Download, head: bytes) -> str:
        wanted = "image" if self.source.kind is FileKind.IMAGE else "video"
        if not head:
            return f"{self._link} brought an empty file, no {wanted}"
        told = "".join(c for c in download.headers.get("Content-Type", "")[:100] if c.isprintable())
        return f"{self._link} brought no {wanted} that is known here" + (f" (it says {told!r})" if told else "")

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self.max_bytes:
            raise SourceRefusedError(f"{self._link} is larger than the limit of {self.max_bytes} bytes")

    def _check_time(self) -> None:
        if self.seconds_left() <= MARGIN_S:
            raise OutOfTimeError(f"no time is left for {self._link}")

    def _is_late(self) -> bool:
        return self.seconds_left() <= SAVING_S + TOLERANCE_S


_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE)
_DIGITS = re.compile(r"\d{1,18}", re.ASCII)
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')


def _peek(chunks: Iterator[bytes], count: int) -> tuple[bytes, Iterator[bytes]]:
    """The first `count` bytes (fewer at the end of the file), and an iterator that still brings everything."""
    taken: deque[bytes] = deque()
    have = 0
    for chunk in chunks:
        taken.append(chunk)
        have += len(chunk)
        if have >= count:
            break
    return b"".join(taken)[:count], chain(_emptied(taken), chunks)


def _why_it_ends_here(validator: str | None, ranges: bool) -> str:
    """Why a source cannot be asked for the rest of its file; empty if it can."""
    if validator is None:
        return (
            "it cannot be continued, as its answer names no version of the file (a strong ETag, or Last-Modified and "
            "Date) or says that it takes no ranges"
        )
    return "" if ranges else "it cannot be continued, as it answers a range with the whole file"


def _fill(buffer: BytesIO, limit: int, chunks: Iterable[bytes]) -> bytes | None:
    """Writes the chunks until one does not fit any more, which is returned; None at their end."""
    for chunk in chunks:
        if buffer.tell() + len(chunk) > limit:
            return chunk
        buffer.write(chunk)
    return None


def _read_out(buffer: BytesIO) -> Iterator[bytes]:
    """What was written to a buffer, in chunks; then it is freed."""
    buffer.truncate()
    buffer.seek(0)
    with buffer:
        while chunk := buffer.read(READ_BYTES):
            yield chunk


def _pieces(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The chunks as pieces of exactly `size` bytes, each as soon as it is there, and what remains at the end.

    `BytesIO` hands its buffer out as `bytes` without a copy; botocore would copy a bytearray.
    """
    piece, filled = _buffer(size), 0
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            count = piece.write(rest[: size - filled])
            filled += count
            rest = rest[count:]
            if filled == size:
                yield piece.getvalue()
                piece, filled = _buffer(size), 0
    if filled:
        piece.truncate(filled)
        yield piece.getvalue()


def _buffer(size: int) -> BytesIO:
    """An empty buffer that has its full length already: growing ones fragment the heap."""
    buffer = BytesIO()
    buffer.seek(size - 1)
    buffer.write(b"\0")
    buffer.seek(0)
    return buffer


def _emptied(held: deque[bytes]) -> Iterator[bytes]:
    """What is held, without holding on to it: a part that is sent must not stay in memory."""
    while held:
        yield held.popleft()


def _is_whole(upload: Upload, parts: list[_Part]) -> bool:
    """Whether the parts are the whole file; where no length was announced, a short part is sent only at its end."""
    if upload.size_bytes is not None:
        return sum(part.size for part in parts) == upload.size_bytes
    return bool(parts) and parts[-1].size < upload.part_size


def _completed(part: _Part) -> CompletedPartTypeDef:
    completed: CompletedPartTypeDef = {"PartNumber": part.number, "ETag": part.etag}
    if part.sha256 is not None:
        completed["ChecksumSHA256"] = part.sha256
    return completed


def _validator(headers: Mapping[str, str]) -> str | None:
    """What names this version of the source in `If-Range`: a strong ETag, else a Last-Modified that is old enough.

    None too for a source that says that it knows no ranges.
    """
    if headers.get("Accept-Ranges", "").strip().lower() == "none":
        return None
    etag = headers.get("ETag", "").strip()
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    modified = headers.get("Last-Modified", "").strip()
    changed_at, answered_at = _http_date(modified), _http_date(headers.get("Date", ""))
    if changed_at is None or answered_at is None or answered_at - changed_at < VALIDATOR_AGE:
        return None
    return modified


def _http_date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text.strip())
    except (ValueError, OverflowError):
        return None
    return at if at.tzinfo is not None else None


def _changed(upload: Upload, headers: Mapping[str, str], total: int | None) -> bool:
    """Whether a partial answer is of another version of the source, as far as it tells."""
    if None not in (total, upload.size_bytes) and total != upload.size_bytes:
        return True
    if upload.validator is None:
        return True
    name = "ETag" if upload.validator.startswith('"') else "Last-Modified"
    told = headers.get(name)
    return told is not None and told.strip() != upload.validator


def _abort(s3: S3Client, bucket: str, key: str, upload_id: str) -> None:
    with _S3Errors("abort an upload"):
        try:
            s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
        except ClientError as error:
            if _code(error) != "NoSuchUpload":
                raise


class _S3Errors:
    """Turns what S3 and its client raise into a `StorageError` with S3's code.

    It is no `contextmanager`: a generator that raises another error makes a circle of references, which would keep a
    part's 32 MiB until the collector comes by.
    """

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ClientError):
            raise StorageError(f"S3 refused to {self._action}: {_code(error)}") from error
        if isinstance(error, BotoCoreError):
            raise StorageError(f"S3 could not be asked to {self._action}: {type(error).__name__}") from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _without_query(url: str) -> str:
    """The link as it may be told: scheme, host and path."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an unreadable link"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


# -- what a file is
