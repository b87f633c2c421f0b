"""Stopping cleanly: the first signal that asks for it is an exception, the next ones are not heard."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(BaseException):
    """A signal asked to stop; no `Exception`, so that nothing on the way takes it for a failure."""


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raises `StoppedError` at the first signal; what it unwinds is then not disturbed by another."""

    def stop(number: int, _: FrameType | None) -> None:
        for one in SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        raise StoppedError(signal.Signals(number).name)

    before = {one: signal.signal(one, stop) for one in SIGNALS}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
