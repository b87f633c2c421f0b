"""Ids: a prefix that says of what, and a ULID in small letters."""

from __future__ import annotations

import re
from datetime import datetime

__all__ = ["ENTROPY_BYTES", "id_pattern", "new_id"]

ENTROPY_BYTES = 10

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str, now: datetime, entropy: bytes) -> str:
    """An id of the time in milliseconds and 10 random bytes.

    It sorts by time, cannot be guessed, and needs no escaping anywhere.
    """
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"an id takes {ENTROPY_BYTES} random bytes")
    number = (int(now.timestamp() * 1000) << 80) | int.from_bytes(entropy)
    return f"{prefix}_" + "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def id_pattern(prefix: str) -> re.Pattern[str]:
    """What ids of a prefix look like."""
    return re.compile(rf"{prefix}_[0-9a-z]{{26}}")
