"""Connections that resolve once, dial only what was vetted, and keep to a wall clock.

The address rule sits in the connection itself, between the lookup and the dialling, so that "checked" and "dialled"
cannot differ (DNS rebinding). The connection keeps the host's name: Host, SNI and the certificate check are urllib3's.

A `timeout=` of urllib3 or requests counts per socket read, so a server that drips a byte at a time is waited for
without end. Here every read and write of a socket, the TLS handshake included, is given what is left of the exchange's
time; no timer and no thread is needed, and what runs out of time raises where it happens instead of looking like the
end of an answer. The sockets do not block, and are waited for where that is needed: setting a time-out is a system
call, at each of which another thread takes the interpreter.

What stays open for the next request must be at its very beginning, or one task gets another's answer: interim answers
are read past, and a connection with anything unexpected on it is not used again.

`_new_conn` and `_dns_host` are private names of urllib3 2; `_read_status`, `_check_close` and `_read_next_chunk_size`
are http.client's. A test fails if they vanish.
"""

from __future__ import annotations

import errno
import io
import logging
import math
import re
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from email.parser import Parser
from functools import lru_cache
from http.client import BadStatusLine, HTTPException, HTTPMessage, LineTooLong, UnknownProtocol
from http.client import HTTPConnection as PlainConnection
from http.client import HTTPResponse as PlainResponse
from ipaddress import ip_address
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, cast

import certifi
from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

from renderbell.addresses import Permits
from renderbell.errors import AddressRefusedError

if TYPE_CHECKING:
    from queue import LifoQueue

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = [
    "KEPT_S",
    "Exchange",
    "Guard",
    "Lookup",
    "Resolver",
    "SocketAddress",
    "Whole",
    "close_unused",
    "exchanging",
    "resolve",
    "tls_context",
    "vetted",
]

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
Resolver = Callable[[str, int], Sequence[SocketAddress]]

KEPT_S = 60.0  # a connection unused for longer, by the end of its last exchange's time, is not used again

_JOIN_S = 2.0  # a lookup that began this recently is shared
_MAX_INTERIM = 20  # interim answers that are read past
_SWITCHING_PROTOCOLS = 101  # what follows is no HTTP
_WITHOUT_BODY = frozenset({204, 304})
_MAX_LINE = 65536  # as http.client has it, and the next
_MAX_HEADERS = 100
_MAX_DIGITS = 18  # of a length
_ENDS = frozenset({b"\r\n", b"\n", b""})
_PLAIN_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t]*)\r\n")


def resolve(host: str, port: int) -> Sequence[SocketAddress]:
    """Every TCP address of a name, as the system's resolver gives them."""
    found = socket.getaddrinfo(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
    return tuple(dict.fromkeys(entry[4] for entry in found if entry[0] in {socket.AF_INET, socket.AF_INET6}))  # type: ignore[misc]


class Lookup:
    """A resolver with a time limit.

    getaddrinfo cannot be interrupted, so it runs in a thread that is left behind when the time is up. Connections
    that open at the same moment share one lookup of a name: Lambda has no DNS cache of its own.
    """

    def __init__(self, resolver: Resolver = resolve) -> None:
        self._resolver = resolver
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], tuple[float, Future[Sequence[SocketAddress]]]] = {}

    def __call__(self, host: str, port: int, timeout_s: float) -> Sequence[SocketAddress]:
        """The addresses; raises `TimeoutError`, or `OSError` where there are none."""
        if _is_literal(host):
            return self._resolver(host, port)
        return self._shared(host, port).result(timeout_s)

    def _shared(self, host: str, port: int) -> Future[Sequence[SocketAddress]]:
        now = monotonic()
        with self._lock:
            since, future = self._running.get((host, port), (-math.inf, None))
            if future is not None and now - since < _JOIN_S:
                return future
            future = Future()
            self._running[host, port] = (now, future)
        try:
            threading.Thread(target=self._run, args=(host, port, future), name="lookup", daemon=True).start()
        except RuntimeError as error:  # no thread to be had
            self._finish(host, port, future)
            future.set_exception(socket.gaierror(socket.EAI_AGAIN, str(error)))
        return future

    def _run(self, host: str, port: int, future: Future[Sequence[SocketAddress]]) -> None:
        try:
            addresses = self._resolver(host, port)
        except Exception as error:  # handed to whoever waits
            self._finish(host, port, future)
            future.set_exception(error)
        else:
            self._finish(host, port, future)
            future.set_result(addresses)

    def _finish(self, host: str, port: int, future: Future[Sequence[SocketAddress]]) -> None:
        with self._lock:
            if self._running.get((host, port), (0.0, None))[1] is future:
                del self._running[host, port]


@dataclass(slots=True)
class Exchange:
    """One request and its answer, on the monotonic clock.

    `deadline` ends it, whatever it is doing; `idle_s` is the longest wait for one read or write. `fresh_only` wants a
    new connection; `connected` tells that one was opened.
    """

    deadline: float
    idle_s: float
    fresh_only: bool = False
    connected: bool = False

    @property
    def left_s(self) -> float:
        """The seconds until the deadline; raises `TimeoutError` once it has passed."""
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError("the wall-clock limit passed")
        return left

    @property
    def overdue(self) -> bool:
        """Whether the deadline has passed."""
        return monotonic() >= self.deadline


_NO_TIME = Exchange(-math.inf, 0.0)  # what was never told its time may not read or write


class _Current(threading.local):
    exchange: Exchange | None = None


_current = _Current()


@contextmanager
def exchanging(exchange: Exchange) -> Iterator[None]:
    """Gives what this thread requests to an exchange; its socket keeps the exchange when this ends."""
    before = _current.exchange
    _current.exchange = exchange
    try:
        yield
    finally:
        _current.exchange = before


def _present() -> Exchange:
    if _current.exchange is None:
        raise RuntimeError("a vetted connection is used outside of an exchange")
    return _current.exchange


class _TimedSocket(socket.socket):
    exchange: Exchange = _NO_TIME
    asked: bool = False  # has just sent, so that nothing can have come yet
    paused: bool = False  # brings nothing more, without waiting
    spoilt: bool = False  # has brought what nobody asked for

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        _begin_reading(self)
        while True:
            try:
                return super().recv_into(buffer, nbytes, flags)
            except BlockingIOError:
                _wait(self, select.POLLIN)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        left = memoryview(data).cast("B")
        while left:
            _ = self.exchange.left_s
            try:
                left = left[super().send(left, flags) :]
            except BlockingIOError:
                _wait(self, select.POLLOUT)
        self.asked = True

    def settimeout(self, value: float | None) -> None:
        if self.exchange is _NO_TIME:
            super().settimeout(value)


class _TimedSSLSocket(ssl.SSLSocket):
    exchange: Exchange = _NO_TIME
    asked: bool = False
    paused: bool = False
    spoilt: bool = False
    filled: bool = False  # the last read took all there was room for, so more may have been decrypted

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        _begin_reading(self)
        while True:
            try:
                count: int = super().recv_into(buffer, nbytes, flags)
                self.filled = count >= (nbytes or len(memoryview(buffer)))
                return count
            except ssl.SSLWantReadError:
                _wait(self, select.POLLIN)
            except ssl.SSLWantWriteError:
                _wait(self, select.POLLOUT)

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:  # sendall goes through it
        while True:
            _ = self.exchange.left_s
            try:
                sent = super().send(data, flags)
            except ssl.SSLWantReadError:
                _wait(self, select.POLLIN)
            except ssl.SSLWantWriteError:
                _wait(self, select.POLLOUT)
            else:
                self.asked = True
                return sent

    def settimeout(self, value: float | None) -> None:
        if self.exchange is _NO_TIME:
            super().settimeout(value)


def _begin_reading(sock: _TimedSocket | _TimedSSLSocket) -> None:
    if sock.paused:
        raise BlockingIOError(errno.EAGAIN, "paused")
    if sock.asked:  # a try now would be in vain, and gives other threads the interpreter
        sock.asked = False
        _wait(sock, select.POLLIN)
    else:
        _ = sock.exchange.left_s


def _wait(sock: _TimedSocket | _TimedSSLSocket, event: int) -> None:
    """Waits until a socket can go on, for what is left of the exchange's time; raises `TimeoutError`."""
    exchange = sock.exchange
    poller = select.poll()
    poller.register(sock, event)
    if not poller.poll(math.ceil(1000 * min(exchange.left_s, exchange.idle_s))):
        raise TimeoutError("the time limit passed")


class _Reader(io.BufferedReader):
    """An answer's bytes; when it is closed, it notes on the socket whether more came than the answer's own.

    http.client drops the surplus of a buffer: the next answer would be read from its middle.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        super().__init__(raw)
        self._sock = sock

    def close(self) -> None:
        if not self.closed and isinstance(self._sock, _TimedSocket | _TimedSSLSocket):
            self._sock.paused = True
            with suppress(OSError, ValueError):  # a socket that timed out or was closed is not used again anyhow
                self._sock.spoilt |= bool(self.peek(1))
            self._sock.paused = False
        super().close()


class _FinalResponse(PlainResponse):
    """The final answer to a request; http.client takes every interim one but 100 for it."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = _Reader(self.fp.detach(), sock)

    def begin(self) -> None:
        """Reads the status and the headers, and how long the body is; as http.client does, with a faster parser."""
        if self.headers is not None:
            return
        self.headers = self.msg = self._read_head()
        codings = [coding.strip(" \t").lower() for coding in self.headers.get_all("Transfer-Encoding", [])]
        lengths = self.headers.get_all("Content-Length", [])
        without_body = self.status in _WITHOUT_BODY or self._method == "HEAD"
        self.chunked = codings[:1] == ["chunked"] and not without_body
        self.chunk_left = None
        self.length = _length_of(lengths[0]) if len(set(lengths)) == 1 and not self.chunked else None
        if without_body:
            self.length = 0
        # A body may end elsewhere than we think, or only the connection's end tells.
        doubtful = (
            self.headers.defects or len(lengths) > 1 or (codings and (not self.chunked or codings[1:] or lengths))
        )
        endless = self.length is None and not self.chunked
        self.will_close = bool(doubtful) or endless or self._check_close()

    def _read_head(self) -> HTTPMessage:
        for _ in range(_MAX_INTERIM + 1):
            version, status, reason = self._read_status()  # type: ignore[attr-defined]
            if not version.startswith("HTTP/1."):
                raise UnknownProtocol(version)
            headers = _read_headers(self.fp)
            if status >= 200:
                self.version = 10 if version == "HTTP/1.0" else 11
                self.code = self.status = status
                self.reason = reason.strip()
                return headers
            if status == _SWITCHING_PROTOCOLS:
                break
        raise BadStatusLine(f"{status} is no final answer")

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:  # http.client would read on, to nowhere
            raise OverflowError("a chunk has a negative size")
        return size


def _length_of(text: str) -> int | None:
    digits = text.strip(" \t")
    return int(digits) if digits.isdecimal() and len(digits) <= _MAX_DIGITS else None  # int() takes "1_0", and a sign


def _read_headers(file: io.BufferedIOBase) -> HTTPMessage:
    """An answer's headers; what does not look plain is left to the parser of the standard library."""
    lines: list[bytes] = []
    while (line := file.readline(_MAX_LINE + 1)) not in _ENDS:
        if len(line) > _MAX_LINE:
            raise LineTooLong("header line")
        lines.append(line)
        if len(lines) > _MAX_HEADERS:
            raise HTTPException(f"got more than {_MAX_HEADERS} headers")
    message = HTTPMessage()
    for line in lines:
        plain = _PLAIN_HEADER.fullmatch(line)
        if plain is None:
            text = b"".join([*lines, b"\r\n"]).decode("iso-8859-1")
            return Parser(_class=HTTPMessage).parsestr(text)
        message.set_raw(plain[1].decode(), plain[2].decode())
    return message


@lru_cache(maxsize=8)
def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """A context that checks certificates against certifi's bundle, or against the given file alone."""
    context = create_urllib3_context()
    context.load_verify_locations(ca_file or certifi.where())
    context.sslsocket_class = _TimedSSLSocket
    return context


@dataclass(frozen=True, slots=True)
class Guard:
    """What a pool's connections may reach, and whether they stay open for the next request.

    `ca_file` holds the certificate authorities to trust instead of certifi's. With `read` an answer is read to its end
    where it is received, and comes as a `Whole`.
    """

    permits: Permits
    keep_alive: bool
    lookup: Lookup = field(default_factory=Lookup)
    ca_file: str | None = None
    read: Callable[[PlainResponse], bytes] | None = None


class Whole:
    """A whole answer, with what `urlopen` asks of one, and adds to it; a response of urllib3's takes 60 µs to make."""

    version_string = "HTTP/1"
    length_remaining = 0

    def __init__(self, status: int, headers: HTTPMessage, body: bytes) -> None:
        self.status = status
        self.headers = cast("Mapping[str, str]", headers)  # it has what is used of one
        self.body = body


class _VettedConnection(HTTPConnection):
    guard: ClassVar[Guard]
    response_class = _FinalResponse

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("proxy") is not None:
            raise AddressRefusedError("proxies are not used: they would dial what nobody vetted")
        super().__init__(*args, **kwargs)

    def set_tunnel(self, *args: Any, **kwargs: Any) -> None:
        """Refuses: behind a proxy nobody vets what is dialled."""
        raise AddressRefusedError("proxies are not used: they would dial what nobody vetted")

    def _new_conn(self) -> socket.socket:
        exchange = _present()
        addresses = self._vetted_addresses(exchange)
        error: OSError = OSError("no address")
        for position, address in enumerate(addresses):
            # A share of the time for each address, so that a silent first one leaves some for the others.
            try:
                return self._dial(address, exchange, exchange.left_s / (len(addresses) - position))
            except OSError as failed:
                error = failed
        if isinstance(error, TimeoutError):
            raise ConnectTimeoutError(self, f"connecting to {self.host} took too long") from error
        raise NewConnectionError(self, error.strerror or str(error)) from error

    def _vetted_addresses(self, exchange: Exchange) -> Sequence[SocketAddress]:
        host = self._dns_host.strip("[]")
        try:
            addresses = self.guard.lookup(host, self.port, exchange.left_s)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"the name lookup of {self.host} took too long") from error
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except (OSError, UnicodeError) as error:
            unknown = socket.gaierror(socket.EAI_NONAME, str(error))
            raise NameResolutionError(self.host, self, unknown) from error
        if not addresses:
            raise NameResolutionError(self.host, self, socket.gaierror(socket.EAI_NONAME, "no address"))
        if not all(self._permitted(address) for address in addresses):  # one bad address spoils the name
            raise AddressRefusedError(f"{self.host} leads to an address that may not be reached")
        return addresses

    def _permitted(self, address: SocketAddress) -> bool:
        return self.guard.permits(address[0], usual_port=self.port == self.default_port)

    def _dial(self, address: SocketAddress, exchange: Exchange, timeout_s: float) -> _TimedSocket:
        sock = _TimedSocket(socket.AF_INET6 if len(address) == 4 else socket.AF_INET, socket.SOCK_STREAM)
        try:
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(min(timeout_s, exchange.idle_s))
            sock.connect(address)
            peer = sock.getpeername()
            if not self._permitted(peer):
                raise AddressRefusedError(f"{self.host} leads to an address that may not be reached")
            sock.settimeout(exchange.left_s)  # for the TLS handshake, which counts it over the whole of itself
        except BaseException:
            sock.close()
            raise
        sock.exchange = exchange
        exchange.connected = True
        return sock

    @property
    def is_connected(self) -> bool:
        """Whether the connection can take a request: it is open, and nothing waits on it to be read.

        What a frozen function or a router on the way has forgotten looks open, and a poll would wait on it in vain.
        """
        sock = self.sock
        if isinstance(sock, _TimedSocket | _TimedSSLSocket) and (
            sock.spoilt or monotonic() > sock.exchange.deadline + KEPT_S
        ):
            return False
        if isinstance(sock, _TimedSSLSocket) and sock.filled and sock.pending():  # no longer seen from outside
            return False
        return super().is_connected

    def connect(self) -> None:
        super().connect()
        if isinstance(self.sock, _TimedSocket | _TimedSSLSocket):
            self.sock.setblocking(False)
            self.sock.exchange = _present()

    def request(self, *args: Any, **kwargs: Any) -> None:
        exchange = _present()
        if self.sock is not None:
            if exchange.fresh_only and not exchange.connected:
                self.close()  # urllib3 connects again; another thread may have put back what is just as stale
            elif isinstance(self.sock, _TimedSocket | _TimedSSLSocket):
                self.sock.exchange = exchange
        super().request(*args, **kwargs)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in urllib3
        if self.guard.read is not None:
            with closing(PlainConnection.getresponse(self)) as plain:
                return Whole(plain.status, plain.headers, self.guard.read(plain))  # type: ignore[return-value]
        response = super().getresponse()
        if not self.guard.keep_alive and self.sock is not None:
            sock, self.sock = self.sock, None
            sock.close()  # the answer still reads from it; the last one to close it ends the connection
        return response


class _VettedTLSConnection(_VettedConnection, HTTPSConnection):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Whatever the pool was told: the certificate is checked, and by a context whose sockets keep the time.
        own: dict[str, Any] = dict.fromkeys(("ca_certs", "ca_cert_dir", "assert_hostname", "assert_fingerprint"))
        own |= {"ssl_context": tls_context(self.guard.ca_file), "cert_reqs": ssl.CERT_REQUIRED}
        super().__init__(*args, **(kwargs | own))


def vetted(guard: Guard) -> dict[str, type[HTTPConnectionPool]]:
    """Pool classes by scheme whose connections obey the guard; for `PoolManager.pool_classes_by_scheme`.

    From here on urllib3 logs errors only: its other lines hold whole URLs, and a URL's query may hold a secret.
    """
    logging.getLogger("urllib3").setLevel(logging.ERROR)

    class TCPConnection(_VettedConnection):
        pass

    class TLSConnection(_VettedTLSConnection):
        pass

    class TCPPool(HTTPConnectionPool):
        ConnectionCls = TCPConnection

    class TLSPool(HTTPSConnectionPool):
        ConnectionCls = TLSConnection

    TCPConnection.guard = TLSConnection.guard = guard
    return {"http": TCPPool, "https": TLSPool}


def close_unused(pools: Iterable[HTTPConnectionPool], most: int) -> None:
    """Closes connections that are kept and not in use until so many are left, the longest unused first."""
    queues = [pool.pool for pool in pools if pool.pool is not None]
    ended = sorted(sock.exchange.deadline for queue in queues for _, sock in _kept(queue))
    if len(ended) <= most:
        return
    last = ended[-most - 1]
    for queue in queues:
        with queue.mutex:  # nobody takes one meanwhile
            for connection, sock in _kept(queue):
                if sock.exchange.deadline <= last:
                    connection.close()  # in its place, where it is opened again when somebody takes it


def _kept(queue: LifoQueue[Any]) -> list[tuple[_VettedConnection, _TimedSocket | _TimedSSLSocket]]:
    found = [(connection, connection.sock) for connection in list(queue.queue) if connection is not None]
    return [(connection, sock) for connection, sock in found if isinstance(sock, _TimedSocket | _TimedSSLSocket)]


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
