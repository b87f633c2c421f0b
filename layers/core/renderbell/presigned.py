"""Links to stored files that work without a key, for a while."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from unicodedata import combining, normalize
from urllib.parse import quote

from renderbell.errors import ConfigurationError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["content_disposition", "presigned_url"]


def presigned_url(s3: S3Client, bucket: str, key: str, *, expires_s: int, download_name: str | None = None) -> str:
    """A link to a stored file that is good for `expires_s` seconds; with a name it downloads instead of playing.

    The client must be made with `signature_version="s3v4"`: boto3's default still signs links the old way, which
    newer regions refuse.
    """
    params: dict[str, str] = {"Bucket": bucket, "Key": key}
    if download_name is not None:
        params["ResponseContentDisposition"] = content_disposition(download_name)
    url = s3.generate_presigned_url("get_object", Params=params, ExpiresIn=expires_s)
    if "X-Amz-Signature=" not in url:
        raise ConfigurationError('the S3 client must be made with signature_version="s3v4"')
    return url


_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f-\x9f"\\/:*?<>|]')
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]|%")


def content_disposition(download_name: str) -> str:
    """The header that makes a browser save a file under this name (RFC 6266): plain ASCII, and the name itself."""
    sound = download_name.encode("utf-8", "replace").decode()  # a lone surrogate has no UTF-8
    name = _NOT_IN_NAMES.sub("_", sound).strip(" .") or "download"
    without_accents = "".join(c for c in normalize("NFKD", name) if not combining(c))
    ascii_name = _NOT_PLAIN.sub("_", without_accents)
    return f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(name, safe='')}"
