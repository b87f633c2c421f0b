"""Outbound HTTP that reaches only vetted addresses: polls, downloads and webhooks, each with a wall-clock limit.

| client | may reach | limits |
|---|---|---|
| `PollClient` | the connection's own origins; else public https | no redirects, 2 MiB after decompression |
| `Downloader` | the connection's own origins; else public https | 3 redirects, each vetted; the body is streamed |
| `WebhookClient` | public https, and what the `EgressPolicy` opens | no redirects, 4 KiB of the answer are read |

A connection's own origins are exactly the scheme, host and port of its `base_url` and `media_base_url`: these are the
operator's word and may be http, private and on any port. `addresses` has the rules, `dial` the connections, and `fetch`
the `PollClient`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from time import monotonic
from typing import Any, NoReturn
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, HTTPConnectionPool

from renderbell.addresses import (
    EgressPolicy,
    Origin,
    Target,
    check_public_target,
    own_origins,
    parse_target,
    permits_own,
    permits_public,
)
from renderbell.delivery import REFUSED, Answer
from renderbell.dial import Exchange, Guard, Lookup, Resolver, exchanging, resolve
from renderbell.errors import AddressRefusedError, ConnectError
from renderbell.failures import FAILURES, STRAY, raise_egress, sentence_of, word_of
from renderbell.fetch import NO_RETRIES, USER_AGENT, pool_manager
from renderbell.providers.base import Connection
from renderbell.providers.reading import retry_after_s

__all__ = ["Download", "Downloader", "WebhookClient"]

MAX_REDIRECTS = 3
MAX_WEBHOOK_ANSWER = 4096
DOWNLOAD_IDLE_S = 30.0
WEBHOOK_TIMEOUT_S = 15.0

_CHUNK = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAFE_ELSEWHERE = frozenset({"accept", "if-range", "range"})  # headers that may go to another origin


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Download:
    """One answer to a download, its body still to come; `url` is where redirects ended."""

    status: int
    headers: Mapping[str, str]
    url: str
    _chunks: Callable[[], Iterator[bytes]]

    def iter(self) -> Iterator[bytes]:
        """The body's bytes as they arrive, in chunks of at most 64 KiB.

        Raises `DeadlineError`, or `ConnectError` where the body stalls, breaks off or is shorter than announced.
        """
        return self._chunks()


class Downloader:
    """Fetches files, one fresh connection each; safe to share between threads."""

    def __init__(
        self, *, idle_s: float = DOWNLOAD_IDLE_S, resolver: Resolver = resolve, ca_file: str | None = None
    ) -> None:
        lookup = Lookup(resolver)
        self._idle_s = idle_s
        self._own = _session(Guard(permits_own, False, lookup, ca_file))
        self._public = _session(Guard(permits_public, False, lookup, ca_file))

    @contextmanager
    def open(
        self, url: str, *, connection: Connection | None, headers: Mapping[str, str], timeout_s: float
    ) -> Iterator[Download]:
        """Sends a GET and follows up to 3 redirects; `timeout_s` limits everything, the body included.

        Headers other than `Range`, `If-Range` and `Accept` go only to the first URL's origin, and if there is a
        connection only where that is one of its own. Raises `AddressRefusedError`, `DeadlineError` or `ConnectError`.
        """
        exchange = Exchange(monotonic() + timeout_s, min(self._idle_s, timeout_s))
        own = own_origins(connection.base_url, connection.media_base_url) if connection else frozenset()
        target = _download_target(url)
        trusted = target.origin if connection is None or target.origin in own else None
        for _ in range(MAX_REDIRECTS + 1):
            response = self._get(target, own, _for_origin(headers, target.origin == trusted), exchange, timeout_s)
            try:
                onward = response.headers.get("Location") if response.status_code in _REDIRECTS else None
                if onward is None:
                    yield _download(response, target, exchange, timeout_s)
                    return
            finally:
                response.close()
            target = _download_target(_redirected(target, onward))
        raise ConnectError(f"more than {MAX_REDIRECTS} redirects")

    def _get(
        self, target: Target, own: frozenset[Origin], headers: Mapping[str, str], exchange: Exchange, timeout_s: float
    ) -> requests.Response:
        if target.origin not in own:
            check_public_target(target)
        session = self._own if target.origin in own else self._public
        try:
            return _send(session, exchange, target, headers)
        except (*FAILURES, *STRAY) as error:
            raise_egress(error, target.host, exchange, timeout_s)


def _download_target(url: str) -> Target:
    return parse_target(url.replace(" ", "%20"))  # file names with spaces are common; a host with one is refused


def _for_origin(headers: Mapping[str, str], trusted: bool) -> dict[str, str]:
    return {name: value for name, value in headers.items() if trusted or name.lower() in _SAFE_ELSEWHERE}


def _redirected(target: Target, location: str) -> str:
    """The URL that a redirect leads to."""
    with suppress(UnicodeError):  # http.client reads as Latin-1 what is most often UTF-8
        location = location.encode("latin-1").decode()
    try:
        return urljoin(target.url, location)
    except ValueError:
        raise AddressRefusedError(f"{target.host} redirects to something that is no URL") from None


def _download(response: requests.Response, target: Target, exchange: Exchange, timeout_s: float) -> Download:
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if response.ok and encoding not in {"", "identity"}:
        raise ConnectError("the source sends its file compressed, which was not asked for")
    return Download(
        response.status_code,
        response.raw.headers,
        target.url,
        partial(_chunks_of, response.raw, target.host, exchange, timeout_s),
    )


def _chunks_of(raw: BaseHTTPResponse, host: str, exchange: Exchange, timeout_s: float) -> Iterator[bytes]:
    try:
        while chunk := raw.read1(_CHUNK, decode_content=False):
            yield chunk
    except (*FAILURES, *STRAY) as error:
        raise_egress(error, host, exchange, timeout_s)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class WebhookClient:
    """Posts webhooks, one fresh connection each; safe to share between threads."""

    def __init__(
        self,
        policy: EgressPolicy | None = None,
        *,
        clock: Callable[[], datetime] = _utc_now,
        resolver: Resolver = resolve,
        ca_file: str | None = None,
    ) -> None:
        self._policy = policy or EgressPolicy()
        self._clock = clock
        self._session = _session(Guard(self._policy.permits, False, Lookup(resolver), ca_file))

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float = WEBHOOK_TIMEOUT_S) -> Answer:
        """What one attempt brought; never raises for what the network or the receiver does.

        `timeout_s` limits the whole attempt: an answer whose body is not there in time counts as none. `error` is one
        of `timeout`, `dns`, `connection`, `tls`, `protocol` and `address_refused`.
        """
        started = monotonic()
        exchange = Exchange(started + timeout_s, timeout_s)
        host = "the receiver"
        try:
            target = parse_target(url)
            host = target.host
            self._policy.check(target)
            response = _send(self._session, exchange, target, headers, body)
            try:
                kept = _read_start(response.raw)
                answer = partial(Answer, response.status_code, body=kept, retry_after_s=self._hint(response))
            finally:
                response.close()
        except AddressRefusedError as error:
            answer = partial(Answer, None, REFUSED, str(error), refused=True)
        except (*FAILURES, *STRAY) as error:
            answer = partial(Answer, None, word_of(error), sentence_of(error, host, timeout_s))
        return answer(duration_ms=round((monotonic() - started) * 1000))

    def _hint(self, response: requests.Response) -> float | None:
        """The receiver's `Retry-After` in seconds, a date taken against our own clock."""
        now = format_datetime(self._clock().astimezone(UTC), usegmt=True)
        return retry_after_s({"Retry-After": response.headers.get("Retry-After", ""), "Date": now})


def _read_start(raw: BaseHTTPResponse) -> str:
    """The first 4 KiB of the answer as text, never decompressed; nothing more is read."""
    start = bytearray()
    try:
        while len(start) < MAX_WEBHOOK_ANSWER and (
            chunk := raw.read1(MAX_WEBHOOK_ANSWER - len(start), decode_content=False)
        ):
            start += chunk
    except (*FAILURES, *STRAY) as error:
        if word_of(error) == "timeout":
            raise
        # The receiver has given its answer; that its text broke off changes nothing.
    return start.decode("utf-8", "replace")


class _VettingAdapter(HTTPAdapter):
    """Requests' transport over vetted connections; what is dialled is read from the URL by `parse_target` alone."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        super().__init__(pool_maxsize=64, max_retries=NO_RETRIES)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        """Makes the pools of vetted connections."""
        self.poolmanager = pool_manager(self._guard, maxsize)

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: object, proxies: object = None, cert: object = None
    ) -> HTTPConnectionPool:
        """The pool for the request's URL."""
        target = parse_target(request.url or "")
        pool: HTTPConnectionPool = self.poolmanager.connection_from_host(target.host, target.port, target.scheme)
        return pool

    def cert_verify(self, conn: object, url: str, verify: object, cert: object) -> None:
        """Leaves certificates to the connection, which always checks them."""

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> NoReturn:
        """Refuses: behind a proxy nobody vets what is dialled."""
        raise AddressRefusedError("proxies are not used: they would dial what nobody vetted")


class _Session(requests.Session):
    """A session that takes nothing from the environment and remembers nothing."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Knows of no redirects: requests would read their bodies whole, however large, even if told not to follow."""


def _session(guard: Guard) -> _Session:
    session = _Session()
    session.trust_env = False
    session.cookies.set_policy(_NoCookies())
    session.mount("http://", _VettingAdapter(guard))
    session.mount("https://", _VettingAdapter(guard))
    return session


def _send(
    session: _Session, exchange: Exchange, target: Target, headers: Mapping[str, str], body: bytes | None = None
) -> requests.Response:
    """The answer to a GET, or to a POST of a body; its own body is still unread, and the caller closes it."""
    ours = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Connection": "close"}
    method = "GET" if body is None else "POST"
    request = requests.Request(method, target.url, headers={**ours, **headers}, data=body).prepare()
    request.url = target.url  # as it was read, not as requests spells it
    with exchanging(exchange):
        return session.send(request, stream=True, allow_redirects=False, timeout=None, proxies={}, verify=True)


class _NoCookies(DefaultCookiePolicy):
    def __init__(self) -> None:
        super().__init__(allowed_domains=[])
