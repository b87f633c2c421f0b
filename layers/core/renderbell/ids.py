"""Ids: a prefix that says of what, and a ULID in small letters."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import NamedTuple

__all__ = ["ENTROPY_BYTES", "Seed", "id_pattern", "new_id"]

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


class Seed(NamedTuple):
    """What a call names the things by that it makes: `repeated`, the call finds what was made before it died.

    `word` is random, and `at` is when it was made the first time.
    """

    word: str
    at: datetime
    repeated: bool = False

    def id(self, prefix: str) -> str:
        """The id of the one thing of its kind that the call makes."""
        return new_id(prefix, self.at, hashlib.sha256(f"{prefix}\0{self.word}".encode()).digest()[:ENTROPY_BYTES])

    def nth(self, n: int) -> Seed:
        """The seed of the nth part of a call."""
        return self._replace(word=f"{self.word}.{n}")

    def has_done(self, at: datetime | None) -> bool:
        """Whether what happened at a time, and can happen once, came of this call or of another beside it."""
        return self.repeated and at is not None and at >= self.at


def id_pattern(prefix: str) -> re.Pattern[str]:
    """What ids of a prefix look like."""
    return re.compile(rf"{prefix}_[0-9a-z]{{26}}")
