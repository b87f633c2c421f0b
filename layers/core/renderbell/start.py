"""How every function starts."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["starting"]


@contextmanager
def starting() -> Iterator[None]:
    """A cold start, in which nobody looks for garbage; nor does anybody later among what it has made, which stays."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
