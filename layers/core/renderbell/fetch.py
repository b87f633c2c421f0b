"""Asking providers over vetted connections that are kept alive, with a wall-clock limit.

Whoever only polls needs nothing of requests, and its cold start does not import it: so this stands apart from `egress`,
whose table has its limits too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from http.client import HTTPException
from http.client import HTTPResponse as PlainResponse
from itertools import count
from time import monotonic
from typing import cast

from urllib3 import HTTPConnectionPool, HTTPHeaderDict, HTTPResponse, PoolManager
from urllib3.exceptions import DecodeError
from urllib3.util import Retry

from renderbell.addresses import (
    Target,
    authority_prefix,
    check_public_target,
    own_origins,
    parse_target,
    permits_own,
    permits_public,
)
from renderbell.dial import Exchange, Guard, Lookup, Resolver, Whole, close_unused, exchanging, resolve, vetted
from renderbell.errors import AddressRefusedError, ProviderAuthError, ProviderProtocolError, ProviderUnavailable
from renderbell.failures import FAILURES, STRAY, sentence_of, was_closed
from renderbell.providers.base import Connection, HttpRequest, HttpResponse

__all__ = ["LOOK_EVERY", "NO_RETRIES", "USER_AGENT", "PollClient", "pool_manager"]

USER_AGENT = "Renderbell/0.1.0"
NO_RETRIES = Retry.from_int(False)

MOST_KEPT = 256  # a function may have 1,024 files open; those in use and DynamoDB's come on top
LOOK_EVERY = 32  # so many newly opened connections it is looked whether too many are kept

MAX_POLL_BODY = 2 * 1024 * 1024

_CHUNK = 64 * 1024
_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})


class PollClient:
    """Asks providers for the status of tasks, over connections that are kept alive; safe to share between threads."""

    def __init__(
        self,
        *,
        connections_per_host: int = 64,
        resolver: Resolver = resolve,
        ca_file: str | None = None,
        most_kept: int = MOST_KEPT,
    ) -> None:
        lookup = Lookup(resolver)
        self._pools = {
            permits: pool_manager(Guard(permits, True, lookup, ca_file, _read_whole), connections_per_host)
            for permits in (permits_own, permits_public)
        }
        self._routes: dict[str, tuple[str, HTTPConnectionPool]] = {}
        self._most_kept = most_kept
        self._opened = count(1)

    def fetch(self, connection: Connection, request: HttpRequest, timeout_s: float) -> HttpResponse:
        """The provider's answer, whatever its status; `timeout_s` limits the whole exchange, lookup to last byte.

        Raises `ProviderUnavailable` where no answer came, `ProviderProtocolError` for one that is too large or cannot
        be read, `ProviderAuthError` for a connection whose address may not be reached.
        """
        try:
            pool, uri = self._route(connection, request.url)
        except AddressRefusedError as error:
            raise ProviderAuthError(f"the connection's address may not be reached: {error}") from None
        headers = _with_defaults(request.headers, json_body=request.json is not None)
        body = None if request.json is None else json.dumps(request.json, separators=(",", ":")).encode()
        exchange = Exchange(monotonic() + timeout_s, timeout_s)
        ask = partial(_ask, pool, request.method, uri, headers, body)
        try:
            with exchanging(exchange):
                try:
                    return ask()
                except FAILURES as error:
                    if exchange.connected or not was_closed(error):
                        raise
                # A kept connection that the provider had closed; at worst it is asked twice, which changes nothing.
                exchange.fresh_only = True
                return ask()
        except AddressRefusedError as error:
            raise ProviderAuthError(f"the connection's address may not be reached: {error}") from None
        except DecodeError:
            raise ProviderProtocolError("the answer's compression cannot be read") from None
        except FAILURES as error:
            raise ProviderUnavailable(sentence_of(error, pool.host, timeout_s)) from None
        except STRAY as error:
            raise ProviderProtocolError(sentence_of(error, pool.host, timeout_s)) from None
        finally:
            if exchange.connected and next(self._opened) % LOOK_EVERY == 0:
                close_unused(self._all_pools(), self._most_kept)

    def close(self) -> None:
        """Closes the idle connections; the client can be used on."""
        pools = self._all_pools()
        self._routes.clear()
        for manager in self._pools.values():
            manager.clear()
        for pool in pools:
            pool.close()

    def _route(self, connection: Connection, url: str) -> tuple[HTTPConnectionPool, str]:
        """The pool and the request target of a URL; without parsing it where it plainly lies under `base_url`."""
        route = self._routes.get(connection.base_url)
        if route is None or route[1].pool is None:  # closed
            route = authority_prefix(connection.base_url), self._pool(parse_target(connection.base_url), permits_own)
            self._routes[connection.base_url] = route
        prefix, pool = route
        if url.startswith(prefix):
            return pool, url[len(prefix) - 1 :]
        target = parse_target(url)
        if target.origin in own_origins(connection.base_url, connection.media_base_url):
            return self._pool(target, permits_own), target.uri
        check_public_target(target)
        return self._pool(target, permits_public), target.uri

    def _all_pools(self) -> set[HTTPConnectionPool]:
        """The pools that anybody may be asked from; a manager forgets the least used of very many, a route does not."""
        keyed = [(manager.pools, key) for manager in self._pools.values() for key in manager.pools.keys()]  # noqa: SIM118 - it is no mapping to iterate
        found = {pools.get(key) for pools, key in keyed} | {pool for _, pool in list(self._routes.values())}
        return {pool for pool in found if pool is not None}

    def _pool(self, target: Target, permits: Callable[..., bool]) -> HTTPConnectionPool:
        return self._pools[permits].connection_from_host(target.host, target.port, target.scheme)


def _ask(
    pool: HTTPConnectionPool, method: str, uri: str, headers: Mapping[str, str], body: bytes | None
) -> HttpResponse:
    try:
        answer = cast(
            "Whole",
            pool.urlopen(
                method, uri, body=body, headers=headers, retries=NO_RETRIES, redirect=False, assert_same_host=False
            ),
        )
    except _UnreadableError as error:
        if error.status < 400:
            raise error.reason from None
        return HttpResponse(error.status, error.headers, b"")  # it says enough: a 503 is one, whatever its page
    return HttpResponse(answer.status, answer.headers, answer.body)


class _UnreadableError(Exception):
    """A body that is not read to its end, so that its connection is not used again."""

    def __init__(self, answer: PlainResponse, reason: Exception) -> None:
        super().__init__(reason)
        self.status, self.reason = answer.status, reason
        self.headers = cast("Mapping[str, str]", answer.headers)


def _read_whole(answer: PlainResponse) -> bytes:
    """The whole body of a poll's answer, decompressed; raises `_UnreadableError`."""
    try:
        encodings = _encodings_of(answer)
        if not encodings:
            return _read_plain(answer)
        if len(encodings) > 1 or encodings[0] not in _ENCODINGS:  # what is packed twice may take days to unpack
            raise ProviderProtocolError("the answer has an encoding that was not asked for")
        headers = HTTPHeaderDict(answer.headers.items())
        headers["Content-Encoding"] = encodings[0]
        return _within_limit(HTTPResponse(answer, headers, answer.status, preload_content=False).read)
    except (DecodeError, ProviderProtocolError) as error:
        raise _UnreadableError(answer, error) from None


def _encodings_of(answer: PlainResponse) -> list[str]:
    """What an answer's body was packed with, one after the other; nearly always nothing."""
    said = answer.headers.get_all("Content-Encoding")
    if said is None:
        return []
    words = [word.strip().lower() for word in ",".join(said).split(",")]
    return [word for word in words if word not in {"", "identity"}]


def _read_plain(answer: PlainResponse) -> bytes:
    if answer.length is None:
        if "Content-Length" in answer.headers and not answer.chunked:
            raise HTTPException("the answer's length is no number")
        return _within_limit(answer.read)
    if answer.length > MAX_POLL_BODY:
        raise _too_large(answer.read(_CHUNK))
    return answer.read()


def _within_limit(read: Callable[[int], bytes]) -> bytes:
    chunks, size = [], 0
    while chunk := read(_CHUNK):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_POLL_BODY:
            raise _too_large(chunks[0])
    return b"".join(chunks)


def _too_large(start: bytes) -> ProviderProtocolError:
    text = start[:1000].decode("utf-8", "replace")
    return ProviderProtocolError(f"the answer is larger than {MAX_POLL_BODY} bytes", raw=text)


def pool_manager(guard: Guard, maxsize: int) -> PoolManager:
    """Pools of vetted connections, by host."""
    manager = PoolManager(num_pools=256, maxsize=maxsize, timeout=None, retries=NO_RETRIES)
    manager.pool_classes_by_scheme = vetted(guard)
    return manager


def _with_defaults(headers: Mapping[str, str], *, json_body: bool) -> dict[str, str]:
    """The headers of a poll; what the provider's description sets wins, in whatever case."""
    merged = {"User-Agent": USER_AGENT}
    if json_body:
        merged["Content-Type"] = "application/json"
    for name, value in headers.items():
        merged.pop(name.title(), None)
        merged[name] = value
    return merged
