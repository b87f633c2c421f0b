"""How many of an owner's slow receivers may hold a notifier at a time, and whose turn it is: pure.

An attempt at a slow receiver holds an invocation for 15 s and more. An owner's share three seats, first come, first
served, so that twenty hosts that hang take no more of the notifier than three.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["Seats"]

SEATS = 3
HELD = timedelta(seconds=90)  # longer than an invocation sends; whoever dies leaves its seat then
ASKS_AGAIN = timedelta(seconds=50)  # who waits asks every 20 s, and one of its invocations may be lost
MAX_WAITING = 100  # receivers


class Seats(NamedTuple):
    """Who sits until when, by tokens, and which receivers have waited since when and asked when last."""

    taken: Mapping[str, datetime] = MappingProxyType({})
    waiting: Mapping[str, tuple[datetime, datetime]] = MappingProxyType({})
    version: int = 0

    def asked(self, receiver: str, token: str, now: datetime) -> tuple[Seats, bool]:
        """The seats after a receiver has asked for one, and whether it has it under this token."""
        taken = {one: until for one, until in self.taken.items() if until > now and one != token}
        waiting = {one: (since, last) for one, (since, last) in self.waiting.items() if now - last < ASKS_AGAIN}
        since, _ = waiting.pop(receiver, (now, now))
        before = sum((first, name) < (since, receiver) for name, (first, _) in waiting.items())
        if before < SEATS - len(taken):
            return self._after(taken | {token: now + HELD}, waiting), True
        if len(waiting) < MAX_WAITING:
            waiting[receiver] = since, now
        return self._after(taken, waiting), False

    def left(self, token: str) -> Seats:
        """The seats after one was left."""
        return self._after({one: until for one, until in self.taken.items() if one != token}, self.waiting)

    def _after(self, taken: Mapping[str, datetime], waiting: Mapping[str, tuple[datetime, datetime]]) -> Seats:
        return self._replace(taken=taken, waiting=waiting, version=self.version + 1)
