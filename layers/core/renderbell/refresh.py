"""A value of AWS's that is read now and then, and serves on for a while when it cannot be read again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, NamedTuple, TypeVar

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from renderbell.errors import ConfigurationError

__all__ = ["RETRY_S", "STALE_S", "Refreshed", "in_background"]

STALE_S = 900.0  # how long an old value serves while it cannot be read again
RETRY_S = 5.0  # how often reading is tried meanwhile

T = TypeVar("T")

logger = Logger()


def in_background(job: Callable[[], None]) -> None:
    """Runs a job in a thread of its own, which keeps no process alive."""
    threading.Thread(target=job, name="refresh", daemon=True).start()


def _at_once(job: Callable[[], None]) -> None:
    job()


class _Held(NamedTuple, Generic[T]):
    """What was read last, the time its reading began, and when to read again."""

    value: T
    read_at: float
    next_read_at: float


class Refreshed(Generic[T]):
    """A value read at most every `max_age_s`; safe to use from several threads.

    One thread reads again while the others go on with the old value; only without any do they wait. While it cannot
    be read, the old value serves for 15 minutes; without any, `get` raises `ConfigurationError`, and nothing is tried
    again for 5 s, so that a service that hangs does not hold every caller. `read` gets the old value; `clock` counts
    seconds from an arbitrary start; `spawn` runs a reading for which nobody needs to wait.
    """

    def __init__(
        self,
        what: str,
        read: Callable[[T | None], T],
        clock: Callable[[], float],
        *,
        max_age_s: float,
        spawn: Callable[[Callable[[], None]], None] = _at_once,
    ) -> None:
        self._what = what
        self._read = read
        self._clock = clock
        self._max_age_s = max_age_s
        self._spawn = spawn
        self._reading = threading.Lock()
        self._reads = 0
        self._held: _Held[T] | None = None  # replaced as a whole, so it is read without the lock
        self._hopeless_until: float | None = None
        self._tried_at: float | None = None

    def get(self) -> T:
        """The value; raises `ConfigurationError` where there is none that may be used."""
        reads = self._reads  # before anything that a read changes
        held, now = self._held, self._clock()
        if held is not None and now < held.next_read_at:
            return held.value
        if held is not None and now - held.read_at <= STALE_S:
            if self._reading.acquire(blocking=False):
                try:
                    self._spawn(lambda: self._refresh(reads))
                except RuntimeError:  # no thread to be had
                    self._reading.release()
            else:
                return held.value
        elif self._hopeless_until is None or now >= self._hopeless_until:
            self._reading.acquire()
            self._refresh(reads)
        held = self._held
        if held is None:
            raise ConfigurationError(f"{self._what} cannot be read")
        return held.value

    def newest(self) -> T:
        """The value as it stands now: read again, and waited for, unless that was tried within the last 5 s."""
        reads = self._reads
        if self._tried_at is None or self._clock() - self._tried_at >= RETRY_S:
            self._reading.acquire()
            self._refresh(reads)
        return self.get()

    def freshen(self) -> None:
        """Has a value that is old but may still be used read again; `spawn` says who waits for that."""
        held = self._held
        if held is not None and self._clock() - held.read_at <= STALE_S:
            with suppress(ConfigurationError):
                self.get()

    def _refresh(self, reads: int) -> None:
        """Reads again unless another has done so since `reads`, whose result is ours too; gives the lock back."""
        try:
            if self._reads == reads:
                self._read_again()
                self._reads += 1
        finally:
            self._reading.release()

    def _read_again(self) -> None:
        held, began = self._held, self._clock()
        try:
            value = self._read(held.value if held is not None else None)
        except Exception as error:  # whatever the client raises, an old value is better than none
            now = self._tried_at = self._clock()
            logger.warning(f"{self._what} cannot be read", extra={"error": _word(error)})
            usable = held is not None and now - held.read_at <= STALE_S
            self._hopeless_until = None if usable else now + RETRY_S
            self._held = held._replace(next_read_at=now + RETRY_S) if held is not None and usable else None
            return
        self._hopeless_until = None
        self._tried_at = self._clock()
        self._held = _Held(value, began, self._tried_at + self._max_age_s)  # a slow read must not be due at its end


def _word(error: BaseException) -> str:
    """The kind of an error; its text may hold more than a log should."""
    cause = error.__context__ or error  # Powertools wraps what its client raised
    return str(cause.response["Error"]["Code"]) if isinstance(cause, ClientError) else type(cause).__name__
