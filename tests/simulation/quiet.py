"""Thousands of runs full of trouble would spend their time on writing log lines and on looking for garbage."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager

GARBAGE = 100_000  # objects that may come before it is looked for


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is logged meanwhile, and garbage is seldom looked for."""
    logging.disable(logging.CRITICAL)
    usual = gc.get_threshold()
    gc.set_threshold(GARBAGE, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        logging.disable(logging.NOTSET)
