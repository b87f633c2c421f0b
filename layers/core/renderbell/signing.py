"""Signatures of Standard Webhooks: what signs the calls that go out, and checks those that come in. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac

__all__ = ["SECRET_PREFIX", "key_of", "signature"]

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix is public


def key_of(secret: str) -> bytes:
    """The key that a secret stands for; raises `ValueError` for one that is not `whsec_` and base64."""
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"a signing secret begins with {SECRET_PREFIX}")
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:  # binascii's error is one, and so is that for text which is no ASCII
        raise ValueError("a signing secret is base64 after its prefix") from None


def signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The base64 signature of one message: over its id, the time of the attempt and the exact bytes of the body."""
    named = f"{message_id}.{timestamp}.".encode("utf-8", "replace")
    return base64.b64encode(hmac.new(key, named + body, hashlib.sha256).digest()).decode()
