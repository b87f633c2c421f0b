"""How callers write numbers, flags and times, wherever they stand: in one way each."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from renderbell.items import parse_time

__all__ = ["WHOLE", "Flag", "Moment", "Whole"]

_DIGITS = re.compile(r"0|[1-9][0-9]{0,17}")
_FLAGS = {"true": True, "false": False}


def _whole(value: object) -> int:
    if not isinstance(value, str) or not _DIGITS.fullmatch(value):
        raise PydanticCustomError("number_invalid", "must be a whole number in decimal digits, such as 20")
    return int(value)


def _flag(value: object) -> bool:
    flag = _FLAGS.get(value) if isinstance(value, str) else None
    if flag is None:
        raise PydanticCustomError("flag_invalid", "must be true or false")
    return flag


def _moment(value: object) -> datetime:
    try:
        if isinstance(value, str):
            return parse_time(value)
    except ValueError:
        pass
    words = "must be a time in ISO 8601 with its zone, such as 2026-03-01T12:00:00Z (in a URL a + is written %2B)"
    raise PydanticCustomError("time_invalid", words)


WHOLE = BeforeValidator(_whole)  # of a path or a query; behind bounds, which the OpenAPI document would miss else
Whole = Annotated[int, WHOLE]
Flag = Annotated[bool, BeforeValidator(_flag)]  # of a query
Moment = Annotated[datetime, BeforeValidator(_moment)]
