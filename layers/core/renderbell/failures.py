"""What went wrong on the way to an answer: one word for records, one sentence for people, one error for callers.

Errors of urllib3 and requests hold URLs, and a URL's query may hold a secret; nothing of them is passed on but the
system's own words.
"""

from __future__ import annotations

import ssl
from http.client import HTTPException, IncompleteRead
from typing import NoReturn

from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)
from urllib3.exceptions import SSLError as TLSError

from renderbell.dial import Exchange
from renderbell.errors import ConnectError, DeadlineError

__all__ = ["FAILURES", "STRAY", "raise_egress", "sentence_of", "was_closed", "word_of"]

FAILURES = (HTTPError, HTTPException, OSError)  # which those of requests are, too

# What http.client and urllib3 let through where an answer is broken in a way that they do not foresee.
STRAY = (ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError)


def was_closed(error: BaseException) -> bool:
    """Whether a kept connection turned out to be closed by the other side before it answered."""
    cause = error.args[-1] if isinstance(error, ProtocolError | TLSError) and error.args else error
    return isinstance(cause, ConnectionError | ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _root(error: BaseException) -> BaseException:
    """The error within those of requests, which are known by that: to import them takes a cold start its time."""
    while isinstance(error, OSError) and error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    return error


def word_of(error: BaseException) -> str:
    """The class of a failure in one word."""
    match _root(error):
        case NameResolutionError():
            return "dns"
        case NewConnectionError():
            return "connection"
        case ConnectTimeoutError() | ReadTimeoutError() | TimeoutError():
            return "timeout"
        case TLSError() | ssl.SSLError():
            return "tls"
        case ProtocolError(args=(_, TimeoutError())):
            return "timeout"
        case ProtocolError(args=(_, HTTPException() as inner)) if not isinstance(inner, ConnectionError):
            return "connection" if isinstance(inner, IncompleteRead) else "protocol"
        case ProtocolError() | OSError():
            return "connection"
        case _:
            return "protocol"


def sentence_of(error: BaseException, host: str, timeout_s: float) -> str:
    """A failure in words, without the URL: its query may hold a secret."""
    match word_of(error):
        case "timeout":
            return f"{host} did not answer within {timeout_s:g} s"
        case "dns":
            return f"the name {host} was not found"
        case "tls":
            return f"TLS with {host} failed{_reason(error)}"
        case "connection":
            return f"the connection to {host} failed{_reason(error)}"
        case _:
            return f"{host} answered something that is not HTTP"


def _reason(error: BaseException) -> str:
    """What the system says of a failure: ", " and a few words, or nothing."""
    root = _root(error)
    causes = [root.__cause__, *root.args]
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return f": {getattr(cause, 'verify_message', '') or cause.reason or 'the handshake broke off'}"
        if isinstance(cause, OSError) and cause.strerror:
            return f": {cause.strerror}"
    return ""


def raise_egress(error: BaseException, host: str, exchange: Exchange, timeout_s: float) -> NoReturn:
    if word_of(error) != "timeout":
        raise ConnectError(sentence_of(error, host, timeout_s)) from None
    if exchange.overdue:
        raise DeadlineError(f"{host} did not finish within {timeout_s:g} s") from None
    raise ConnectError(f"nothing came from {host} for {exchange.idle_s:g} s") from None
