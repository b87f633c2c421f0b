"""Cursors: a place in a list, sealed so that it is good for this list alone.

A cursor tells nothing but where its list goes on, and is bound to the owner and to all that was asked for. It is no
secret: the seal keeps a place that somebody has made up, or has been given for another list, from being taken.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence

from renderbell.errors import InvalidInputError

__all__ = ["cursor_key", "list_name", "open_cursor", "seal_cursor"]

FIELD = "cursor"
MAX_LENGTH = 1000
_SEAL_BYTES = 16


def cursor_key(master: bytes, owner: str) -> bytes:
    """The key that seals an owner's cursors, derived from the deployment's master secret."""
    return hmac.new(master, f"renderbell/v1\0cursor\0{owner}".encode(), hashlib.sha256).digest()


def list_name(owner: str, route: str, query: Mapping[str, object]) -> str:
    """The one name of what was asked for: equal queries have the same, whatever the order of their parts."""
    return json.dumps([owner, route, query], sort_keys=True, separators=(",", ":"))


def seal_cursor(key: bytes, of: str, place: Sequence[str]) -> str:
    """The cursor that leads to a place of a list."""
    told = json.dumps(list(place), separators=(",", ":")).encode()
    seal = hmac.new(key, told + b"\0" + of.encode(), hashlib.sha256).digest()[:_SEAL_BYTES]
    return base64.urlsafe_b64encode(seal + told).decode().rstrip("=")


def open_cursor(key: bytes, of: str, cursor: str) -> tuple[str, ...]:
    """The place that a cursor leads to; raises `InvalidInputError` unless it was sealed for this very list."""
    try:
        if len(cursor) > MAX_LENGTH:
            raise ValueError("too long")
        told = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[_SEAL_BYTES:])
        place = tuple(str(part) for part in told)
        sealed = seal_cursor(key, of, place)
    except (ValueError, TypeError, RecursionError):
        sealed = None
    # As text: several texts may decode to the same bytes.
    if sealed is None or not hmac.compare_digest(sealed.encode(), cursor.encode(errors="replace")):
        raise InvalidInputError(FIELD, "is no cursor of this list", code="cursor_invalid")
    return place
