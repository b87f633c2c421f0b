from __future__ import annotations

import gzip
import io
import json
import logging
import os
import socket
import threading
import tomllib
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from http.client import HTTPResponse as PlainResponse
from importlib.metadata import version
from pathlib import Path
from time import monotonic, process_time

import pytest
import urllib3.connection
from standardwebhooks import Webhook as Verifier

from renderbell.addresses import EgressPolicy
from renderbell.delivery import Answer
from renderbell.dial import KEPT_S, Exchange, Guard, Lookup, SocketAddress, exchanging, vetted
from renderbell.egress import Downloader, WebhookClient
from renderbell.endpoints import derive_secret
from renderbell.errors import (
    AddressRefusedError,
    ConnectError,
    DeadlineError,
    EgressError,
    ProviderAuthError,
    ProviderError,
    ProviderProtocolError,
    ProviderUnavailable,
)
from renderbell.fetch import LOOK_EVERY, USER_AGENT, PollClient
from renderbell.providers.base import Connection, HttpRequest, HttpResponse
from renderbell.webhooks import signed_headers
from tests.unit.raw_server import Handler, RawServer, Visit, always, answer, raw_server
from tests.unit.tls_files import TLSFiles, make_tls_files

LIMIT_S = 0.4
IN_TIME_S = 2.5  # generous: the machine is shared
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LOCAL = EgressPolicy.from_settings(True, ["127.0.0.0/8", "::1/128"])
TLS_HOST = "render.example.test"


class Names:
    """A resolver over a table of "address address | what the next lookup gets"; it keeps what it was asked."""

    def __init__(self, table: dict[str, str] | None = None) -> None:
        self.asked: list[str] = []
        self._table = {name: text.split("|") for name, text in (table or {}).items()}

    def __call__(self, host: str, port: int) -> Sequence[SocketAddress]:
        self.asked.append(host)
        turns = self._table.get(host, [host] if host.startswith("127.") else [])
        if not turns:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        addresses = (turns.pop(0) if len(turns) > 1 else turns[0]).split()
        return [(one, port, 0, 0) if ":" in one else (one, port) for one in addresses]


def connection(base_url: str, **more: str) -> Connection:
    return Connection(name="farm", type="capcut-mate", base_url=base_url, **more)  # type: ignore[arg-type]


@contextmanager
def polling(**options: object) -> Iterator[PollClient]:
    with closing(PollClient(**options)) as client:  # type: ignore[arg-type]
        yield client


def fetch(client: PollClient, server: RawServer, path: str = "/status", timeout_s: float = 5) -> HttpResponse:
    return client.fetch(connection(server.url), HttpRequest("GET", server.url + path), timeout_s)


def download(
    url: str,
    *,
    own: str | None = None,
    client: Downloader | None = None,
    headers: dict[str, str] | None = None,
    timeout_s: float = 5,
    **more: str,
) -> tuple[int, bytes]:
    with (client or Downloader()).open(
        url, connection=connection(own, **more) if own else None, headers=headers or {}, timeout_s=timeout_s
    ) as got:
        return got.status, b"".join(got.iter())


def post(server: RawServer, timeout_s: float = 5, client: WebhookClient | None = None) -> Answer:
    client = client or WebhookClient(LOCAL, clock=lambda: NOW)
    return client.post(f"{server.url}/hook", {"webhook-id": "evt_1"}, b'{"a":1}', timeout_s)


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TLSFiles:
    return make_tls_files(tmp_path_factory.mktemp("tls"), TLS_HOST)


def test_urllib3_still_has_the_private_names_that_the_vetting_hangs_on() -> None:
    plain = urllib3.connection.HTTPConnection("example.com", 80)
    assert plain._dns_host == "example.com"
    assert callable(urllib3.connection.HTTPConnection._new_conn)
    assert urllib3.connection.HTTPSConnection._new_conn is urllib3.connection.HTTPConnection._new_conn
    assert version("urllib3").startswith("2.")
    for name in ("_read_status", "_check_close", "_read_next_chunk_size"):
        assert callable(getattr(PlainResponse, name))


def test_the_user_agent_names_the_projects_version() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert f"Renderbell/{project['version']}" == USER_AGENT


# --- what is reached -------------------------------------------------------------------------------------------------


def test_every_client_reaches_an_own_or_opened_loopback_server() -> None:
    with raw_server(always(answer(b"hello"))) as server, polling() as client:
        assert fetch(client, server).body == b"hello"
        assert download(f"{server.url}/v.mp4", own=server.url) == (200, b"hello")
        assert post(server).status == 200


def test_an_own_origin_on_ipv6_loopback_is_reached() -> None:
    with raw_server(always(answer(b"six")), host="::1") as server, polling() as client:
        url = f"http://[::1]:{server.port}"
        assert client.fetch(connection(url), HttpRequest("GET", f"{url}/x"), 5).body == b"six"
        assert download(f"{url}/x", own=url) == (200, b"six")
        assert b"Host: [::1]:" in server.requests[0]


@pytest.mark.parametrize("base", ["http://127.0.0.1:{}", "https://127.0.0.1:{}"])
def test_a_private_host_that_is_not_the_connections_own_is_never_dialled(base: str) -> None:
    with raw_server(always(answer(b"secret"))) as server, polling() as client:
        url = base.format(server.port)
        with pytest.raises(ProviderAuthError):
            client.fetch(connection("https://api.example.com"), HttpRequest("GET", f"{url}/x"), 5)
        with pytest.raises(AddressRefusedError):
            download(f"{url}/x", own="https://api.example.com")
        with pytest.raises(AddressRefusedError):
            download(f"{url}/x")
        assert WebhookClient(EgressPolicy(allow_http=True)).post(f"{url}/x", {}, b"").refused
        assert not server.visits


def test_the_media_origin_is_the_connections_own_too() -> None:
    with raw_server(always(answer(b"video"))) as media:
        own = connection("https://api.example.com", media_base_url=media.url)
        with Downloader().open(f"{media.url}/v.mp4", connection=own, headers={}, timeout_s=5) as got:
            assert b"".join(got.iter()) == b"video"


def test_a_kept_connection_to_an_own_origin_is_no_way_in_for_others() -> None:
    names = Names({"farm.example.com": "127.0.0.1"})
    with raw_server(always(answer(b"secret"))) as server, polling(resolver=names) as client:
        own = connection(f"http://farm.example.com:{server.port}")
        request = HttpRequest("GET", f"http://farm.example.com:{server.port}/x")
        assert client.fetch(own, request, 5).body == b"secret"
        with pytest.raises(ProviderAuthError):
            client.fetch(connection("https://other.example.com"), request, 5)


@pytest.mark.parametrize("answers", ["93.184.216.34 127.0.0.1", "127.0.0.1 2606:4700::1", "::ffff:10.0.0.1"])
def test_one_bad_address_spoils_a_name(answers: str) -> None:
    names = Names({"hooks.example.com": answers})
    assert WebhookClient(resolver=names).post("https://hooks.example.com/", {}, b"").error == "address_refused"
    with pytest.raises(AddressRefusedError):
        download("https://hooks.example.com/v.mp4", client=Downloader(resolver=names))
    with polling(resolver=names) as client, pytest.raises(ProviderAuthError):
        client.fetch(connection("https://a.example.com"), HttpRequest("GET", "https://hooks.example.com/"), 5)


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "0.0.0.0", "::", "::ffff:169.254.170.2"])
def test_an_own_name_that_leads_to_the_instances_credentials_is_the_operators_to_mend(address: str) -> None:
    names = Names({"farm.example.com": address})
    own = connection("http://farm.example.com")
    with polling(resolver=names) as client, pytest.raises(ProviderAuthError, match="may not be reached"):
        client.fetch(own, HttpRequest("GET", "http://farm.example.com/latest/meta-data/?key=hush"), 5)
    with pytest.raises(AddressRefusedError):
        download("http://farm.example.com/v.mp4", own="http://farm.example.com", client=Downloader(resolver=names))


def test_a_name_is_resolved_once_and_what_was_vetted_is_what_is_dialled() -> None:
    with raw_server(always(answer(b"here"))) as server:
        names = Names({"hooks.example.com": "127.0.0.1 | 169.254.169.254"})
        client = WebhookClient(LOCAL, resolver=names)
        url = f"http://hooks.example.com:{server.port}/"
        assert client.post(url, {}, b"").body == "here"
        assert names.asked == ["hooks.example.com"]
        assert client.post(url, {}, b"").refused  # the next attempt asks, and is judged, again
        assert len(server.visits) == 1


def test_the_peer_is_judged_again_once_it_is_connected() -> None:
    judged: list[str] = []

    def only_the_first_time(address: str, *, usual_port: bool) -> bool:
        judged.append(address)
        return len(judged) == 1

    with raw_server(always(answer(b"secret"))) as server:
        pool = vetted(Guard(only_the_first_time, True))["http"]("127.0.0.1", server.port)
        with exchanging(Exchange(monotonic() + 5, 5)), pytest.raises(AddressRefusedError):
            pool.urlopen("GET", "/")
        assert judged == ["127.0.0.1", "127.0.0.1"]
        assert not server.requests


def test_a_vetted_connection_is_of_no_use_without_a_time_limit() -> None:
    with raw_server(always(answer(b"ok"))) as server:
        pool = vetted(Guard(LOCAL.permits, True))["http"]("127.0.0.1", server.port)
        with pytest.raises(RuntimeError, match="outside of an exchange"):
            pool.urlopen("GET", "/")


def test_the_host_header_keeps_the_name() -> None:
    with raw_server(always(answer())) as server:
        client = WebhookClient(LOCAL, resolver=Names({"hooks.example.com": "127.0.0.1"}))
        client.post(f"http://hooks.example.com:{server.port}/", {}, b"")
        assert f"\r\nHost: hooks.example.com:{server.port}\r\n".encode() in server.requests[0]


def test_a_closed_first_address_is_passed_over() -> None:
    with raw_server(always(answer(b"second"))) as server:
        client = WebhookClient(LOCAL, resolver=Names({"hooks.example.com": "127.0.0.99 127.0.0.1"}))
        assert client.post(f"http://hooks.example.com:{server.port}/", {}, b"").body == "second"


def test_a_silent_first_address_leaves_time_for_the_second() -> None:
    with (
        raw_server(always(answer(b"second"))) as server,
        socket.create_server(("127.0.0.99", server.port), backlog=0),  # full after one; the next are not answered
        socket.create_connection(("127.0.0.99", server.port)),
    ):
        client = WebhookClient(LOCAL, resolver=Names({"hooks.example.com": "127.0.0.99 127.0.0.1"}))
        assert client.post(f"http://hooks.example.com:{server.port}/", {}, b"", 1.5).body == "second"


def test_proxies_are_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(always(answer(b"proxied"))) as proxy, raw_server(always(answer(b"direct"))) as server:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert post(server).body == "direct"
        assert download(server.url, own=server.url) == (200, b"direct")
        with polling() as client:
            assert fetch(client, server).body == b"direct"
        assert not proxy.visits
    plain = vetted(Guard(LOCAL.permits, True))["http"]
    with pytest.raises(AddressRefusedError, match="proxies"):
        plain.ConnectionCls("example.com", 80, proxy=urllib3.util.parse_url(proxy.url))
    with pytest.raises(AddressRefusedError, match="proxies"):
        plain.ConnectionCls("example.com", 80).set_tunnel("example.com", 443)


def test_no_password_is_taken_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hush\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with raw_server(always(answer())) as server:
        post(server)
        download(server.url, own=server.url)
        assert not any(b"authorization" in request.lower() for request in server.requests)


def test_cookies_are_not_kept() -> None:
    with raw_server(always(answer(b"", "200 OK", "Set-Cookie: a=b; Path=/"))) as server:
        client = WebhookClient(LOCAL)
        post(server, client=client)
        post(server, client=client)
        assert not any(b"cookie" in request.lower() for request in server.requests)


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_tls_asks_for_and_checks_the_name_while_it_dials_the_vetted_address(tls: TLSFiles) -> None:
    names = Names({TLS_HOST: "127.0.0.1"})
    tls.server_names.clear()
    with raw_server(always(answer(b"sealed")), tls.server) as server:
        url = f"https://{TLS_HOST}:{server.port}"
        with polling(resolver=names, ca_file=tls.ca_file) as client:
            for _ in range(3):
                assert client.fetch(connection(url), HttpRequest("GET", f"{url}/x"), 5).body == b"sealed"
        assert len(server.visits) == 1  # kept alive
        downloader = Downloader(resolver=names, ca_file=tls.ca_file)
        assert download(f"{url}/x", own=url, client=downloader) == (200, b"sealed")
        assert WebhookClient(LOCAL, resolver=names, ca_file=tls.ca_file).post(f"{url}/x", {}, b"").body == "sealed"
    assert tls.server_names == [TLS_HOST] * 3


def test_a_certificate_for_another_name_is_refused(tls: TLSFiles) -> None:
    names = Names({"other.example.test": "127.0.0.1"})
    with raw_server(always(answer(b"sealed")), tls.server) as server:
        url = f"https://other.example.test:{server.port}"
        with polling(resolver=names, ca_file=tls.ca_file) as client, pytest.raises(ProviderUnavailable, match="TLS"):
            client.fetch(connection(url), HttpRequest("GET", f"{url}/x"), 5)
        with pytest.raises(ConnectError, match="TLS"):
            download(f"{url}/x", own=url, client=Downloader(resolver=names, ca_file=tls.ca_file))
        assert WebhookClient(LOCAL, resolver=names, ca_file=tls.ca_file).post(url, {}, b"").error == "tls"
        assert not server.requests


def test_an_unknown_authority_is_refused(tls: TLSFiles) -> None:
    names = Names({TLS_HOST: "127.0.0.1"})
    with raw_server(always(answer(b"sealed")), tls.server) as server:
        url = f"https://{TLS_HOST}:{server.port}"
        with polling(resolver=names) as client, pytest.raises(ProviderUnavailable, match=r"TLS.*issuer"):
            client.fetch(connection(url), HttpRequest("GET", f"{url}/x"), 5)
        assert not server.requests


@pytest.mark.parametrize("with_tls", [False, True])
def test_a_dripping_answer_ends_on_time_over_tls_too(tls: TLSFiles, with_tls: bool) -> None:
    names = Names({TLS_HOST: "127.0.0.1"})

    def drip(visit: Visit) -> None:
        visit.request()
        visit.drip(bytes([byte]) for byte in answer(b"x" * 10_000))

    with raw_server(drip, tls.server if with_tls else None) as server:
        url = f"http{'s' if with_tls else ''}://{TLS_HOST}:{server.port}"
        with polling(resolver=names, ca_file=tls.ca_file) as client:
            began = monotonic()
            with pytest.raises(ProviderUnavailable, match=r"within 0\.4 s"):
                client.fetch(connection(url), HttpRequest("GET", f"{url}/x"), LIMIT_S)
            assert monotonic() - began < IN_TIME_S


def test_a_silent_tls_handshake_ends_on_time() -> None:
    with raw_server(Visit.wait) as server:
        began = monotonic()
        url = f"https://127.0.0.1:{server.port}"
        assert WebhookClient(LOCAL).post(f"{url}/", {}, b"", LIMIT_S).error == "timeout"
        assert monotonic() - began < IN_TIME_S


# --- the wall clock --------------------------------------------------------------------------------------------------


def head_dripping(visit: Visit) -> None:
    visit.request()
    visit.drip(bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\nX-Filler: " + b"a" * 10_000)


def body_dripping(visit: Visit) -> None:
    visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n")
    visit.drip(b"x" for _ in range(3000))


def chunks_dripping(visit: Visit) -> None:
    visit.request()
    visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    visit.drip(b"1\r\nx\r\n" for _ in range(3000))


def always_continuing(visit: Visit) -> None:
    visit.request()
    visit.drip(b"HTTP/1.1 100 Continue\r\n\r\n" for _ in range(3000))


def silent(visit: Visit) -> None:
    visit.request()
    visit.wait()


SLOW = [head_dripping, body_dripping, chunks_dripping, always_continuing, silent]


@pytest.mark.parametrize("slow", SLOW)
def test_a_poll_ends_on_time_whatever_drips(slow: Handler) -> None:
    with raw_server(slow) as server, polling() as client:
        began = monotonic()
        with pytest.raises(ProviderUnavailable, match=r"did not answer within 0\.4 s"):
            fetch(client, server, timeout_s=LIMIT_S)
        assert LIMIT_S * 0.9 < monotonic() - began < IN_TIME_S


@pytest.mark.parametrize("slow", SLOW)
def test_a_download_ends_on_time_whatever_drips(slow: Handler) -> None:
    with raw_server(slow) as server:
        began = monotonic()
        with pytest.raises(DeadlineError):
            download(f"{server.url}/v.mp4", own=server.url, timeout_s=LIMIT_S)
        assert LIMIT_S * 0.9 < monotonic() - began < IN_TIME_S


@pytest.mark.parametrize("slow", SLOW)
def test_a_webhook_attempt_ends_on_time_and_a_late_body_is_no_success(slow: Handler) -> None:
    with raw_server(slow) as server:
        began = monotonic()
        got = post(server, timeout_s=LIMIT_S)
        assert monotonic() - began < IN_TIME_S
        assert (got.status, got.error, got.refused) == (None, "timeout", False)
        assert 300 <= got.duration_ms < IN_TIME_S * 1000


def test_a_slow_redirect_counts_into_the_downloads_time() -> None:
    def redirect(visit: Visit) -> None:
        visit.request()
        visit.closing.wait(0.25)
        visit.send(answer(b"", "302 Found", "Location: /again"))

    with raw_server(redirect) as server:
        with pytest.raises(DeadlineError):
            download(f"{server.url}/v.mp4", own=server.url, timeout_s=LIMIT_S)
        assert len(server.visits) == 2


def test_a_kept_connection_gets_a_new_limit_with_each_poll() -> None:
    def second_drips(visit: Visit) -> None:
        visit.request()
        visit.send(answer(b"first"))
        visit.request()
        visit.drip(bytes([byte]) for byte in answer(b"x" * 10_000))

    with raw_server(second_drips) as server, polling() as client:
        assert fetch(client, server, timeout_s=30).body == b"first"
        began = monotonic()
        with pytest.raises(ProviderUnavailable):
            fetch(client, server, timeout_s=LIMIT_S)
        assert monotonic() - began < IN_TIME_S
        assert len(server.visits) == 1


def test_a_receiver_that_takes_nothing_ends_the_attempt_on_time() -> None:
    with raw_server(Visit.wait) as server:
        began = monotonic()
        got = WebhookClient(LOCAL).post(f"{server.url}/", {}, b"x" * 50_000_000, LIMIT_S)
        assert got.error == "timeout"
        assert monotonic() - began < IN_TIME_S


@pytest.mark.parametrize("with_tls", [False, True])
def test_a_body_that_a_slow_receiver_takes_bit_by_bit_arrives_whole(tls: TLSFiles, with_tls: bool) -> None:
    body = bytes(range(256)) * 60_000
    taken: list[bytes] = []

    def slow(visit: Visit) -> None:
        visit.closing.wait(0.2)  # until nothing more fits into the system's buffers
        taken.append(visit.request().partition(b"\r\n\r\n")[2])
        visit.send(answer())

    with raw_server(slow, tls.server if with_tls else None) as server:
        client = WebhookClient(LOCAL, resolver=Names({TLS_HOST: "127.0.0.1"}), ca_file=tls.ca_file)
        url = f"http{'s' if with_tls else ''}://{TLS_HOST}:{server.port}/"
        assert client.post(url, {}, body).status == 200
    assert taken == [body]


def test_a_name_lookup_that_hangs_ends_on_time_and_is_shared() -> None:
    hang = threading.Event()
    asked: list[str] = []

    def hanging(host: str, port: int) -> Sequence[SocketAddress]:
        asked.append(host)
        hang.wait(10)
        return [("127.0.0.1", port)]

    try:
        with polling(resolver=hanging) as client:
            own = connection("http://farm.example.com")
            began = monotonic()
            for _ in range(2):
                with pytest.raises(ProviderUnavailable, match=r"within 0\.2 s"):
                    client.fetch(own, HttpRequest("GET", "http://farm.example.com/x"), 0.2)
            assert monotonic() - began < IN_TIME_S
        assert asked == ["farm.example.com"]
    finally:
        hang.set()


def test_a_lookup_is_not_remembered_once_it_is_done() -> None:
    names = Names({"farm.example.com": "127.0.0.1 | 127.0.0.2"})
    lookup = Lookup(names)
    assert lookup("farm.example.com", 80, 5) == [("127.0.0.1", 80)]
    assert lookup("farm.example.com", 80, 5) == [("127.0.0.2", 80)]


# --- polls -----------------------------------------------------------------------------------------------------------


def test_a_poll_sends_what_the_provider_described_and_brings_back_any_status() -> None:
    with raw_server(always(answer(b'{"e":1}', "503 Down", "Retry-After: 7"))) as server, polling() as client:
        request = HttpRequest("POST", f"{server.url}/q?a=b", {"Authorization": "Bearer k"}, {"id": "ü"})
        got = client.fetch(connection(server.url), request, 5)
        assert (got.status, got.body, got.headers["retry-after"]) == (503, b'{"e":1}', "7")
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        assert head.startswith(b"POST /q?a=b HTTP/1.1\r\n")
        assert b"\r\nAuthorization: Bearer k" in head
        assert b"\r\nContent-Type: application/json" in head
        assert f"\r\nUser-Agent: {USER_AGENT}".encode() in head
        assert json.loads(body) == {"id": "ü"}


def test_a_described_header_replaces_our_own_in_any_case() -> None:
    with raw_server(always(answer())) as server, polling() as client:
        request = HttpRequest("GET", f"{server.url}/", {"user-agent": "Theirs"})
        client.fetch(connection(server.url), request, 5)
        assert server.requests[0].lower().count(b"user-agent:") == 1


def test_polls_share_kept_connections() -> None:
    with raw_server(always(answer(b"ok"))) as server, polling(connections_per_host=4) as client:
        for _ in range(20):
            assert fetch(client, server).status == 200
        assert len(server.visits) == 1
        with ThreadPoolExecutor(4) as threads:
            assert all(got.body == b"ok" for got in threads.map(lambda _: fetch(client, server), range(40)))
        assert len(server.visits) <= 5


def test_a_poll_does_not_follow_redirects() -> None:
    with raw_server(always(answer(b"", "302 Found", "Location: /other"))) as server, polling() as client:
        assert fetch(client, server).status == 302
        assert len(server.requests) == 1


@pytest.mark.parametrize("reset", [False, True])
def test_a_kept_connection_that_the_provider_closed_is_replaced_unseen(reset: bool) -> None:
    def one_answer_each(visit: Visit) -> None:
        visit.request()
        visit.send(answer(b"ok"))
        visit.request()  # reads the next one and goes away without a word
        if reset:
            visit.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with raw_server(one_answer_each) as server, polling() as client:
        for _ in range(3):
            assert fetch(client, server).body == b"ok"
        assert len(server.visits) == 3


def test_one_of_several_connections_that_the_provider_closed_is_not_replaced_by_another_of_them() -> None:
    together = threading.Barrier(2)

    def one_answer_each(visit: Visit) -> None:
        visit.request()
        if visit.number <= 2:
            together.wait(5)
        visit.send(answer(b"ok"))
        visit.request()

    with raw_server(one_answer_each) as server, polling() as client, ThreadPoolExecutor(2) as threads:
        assert all(got.body == b"ok" for got in threads.map(lambda _: fetch(client, server), range(2)))
        assert fetch(client, server).body == b"ok"
        assert len(server.visits) == 3


def test_an_exchange_that_wants_a_fresh_connection_takes_no_kept_one() -> None:
    with raw_server(always(answer(b"ok"))) as server:
        pool = vetted(Guard(LOCAL.permits, True))["http"]("127.0.0.1", server.port)
        for fresh_only, connections in ((False, 1), (False, 1), (True, 2), (False, 2)):
            with exchanging(Exchange(monotonic() + 5, 5, fresh_only)):
                assert pool.urlopen("GET", "/").data == b"ok"
            assert len(server.visits) == connections
        pool.close()


def open_at(server: RawServer) -> int:
    return sum(visit.sock.fileno() >= 0 for visit in list(server.visits))


def test_no_more_connections_are_kept_than_a_process_has_files_for() -> None:
    hosts, at_once, most = 12, 8, 20
    together = threading.Barrier(at_once)

    def meeting(visit: Visit) -> None:
        while visit.request():
            together.wait(5)
            visit.send(answer(b"ok"))

    names = Names({f"h{host}.example.com": "127.0.0.1" for host in range(hosts)})
    with (
        raw_server(meeting) as server,
        polling(connections_per_host=at_once, resolver=names, most_kept=most) as client,
        ThreadPoolExecutor(at_once) as threads,
    ):

        def ask(host: int) -> list[bytes]:
            base = f"http://h{host}.example.com:{server.port}"
            request = HttpRequest("GET", f"{base}/x")
            asked = [threads.submit(client.fetch, connection(base), request, 5) for _ in range(at_once)]
            return [each.result().body for each in asked]

        for host in range(hosts):
            assert ask(host) == [b"ok"] * at_once
        limit = monotonic() + IN_TIME_S
        while open_at(server) > most + LOOK_EVERY and monotonic() < limit:
            threading.Event().wait(0.01)
        assert open_at(server) <= most + LOOK_EVERY < len(server.visits)
        visits = len(server.visits)
        assert ask(hosts - 1) == [b"ok"] * at_once  # the last used are those that stay
        assert len(server.visits) == visits
        assert ask(0) == [b"ok"] * at_once  # and those that were closed are opened again


def test_a_connection_that_was_long_unused_is_not_trusted() -> None:
    with raw_server(always(answer(b"ok"))) as server:
        pool = vetted(Guard(LOCAL.permits, True))["http"]("127.0.0.1", server.port)
        for ago_s, connections in ((0.0, 1), (KEPT_S - 5, 1), (KEPT_S + 1, 1), (0.0, 2)):
            exchange = Exchange(monotonic() + 5, 5)
            with exchanging(exchange):
                assert pool.urlopen("GET", "/").data == b"ok"
            assert len(server.visits) == connections
            exchange.deadline = monotonic() - ago_s  # as if it had been so long ago
        pool.close()


def test_connections_to_very_many_hosts_are_not_all_kept() -> None:
    """More than there are pools in urllib3's manager, which forgets the least used without closing them."""
    most, names = 20, Names({f"h{host}.example.com": "127.0.0.1" for host in range(330)})
    with raw_server(always(answer(b"ok"))) as server, polling(resolver=names, most_kept=most) as client:
        for host in [*range(330), *range(330)]:
            base = f"http://h{host}.example.com:{server.port}"
            assert client.fetch(connection(base), HttpRequest("GET", f"{base}/x"), 5).body == b"ok"
        limit = monotonic() + IN_TIME_S
        while open_at(server) > most + LOOK_EVERY and monotonic() < limit:
            threading.Event().wait(0.01)
        assert open_at(server) <= most + LOOK_EVERY
        client.close()
        while open_at(server) and monotonic() < limit:
            threading.Event().wait(0.01)
        assert not open_at(server)


def test_a_provider_that_hangs_up_on_new_connections_is_asked_once() -> None:
    def hang_up(visit: Visit) -> None:
        visit.request()

    with raw_server(hang_up) as server, polling() as client:
        with pytest.raises(ProviderUnavailable, match="connection"):
            fetch(client, server)
        assert len(server.visits) == 1


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_an_oversized_answer_is_not_read_to_its_end(framing: str) -> None:
    block = b"x" * 65536

    def flood(visit: Visit) -> None:
        visit.request()
        extra = {"length": "Content-Length: 100000000", "chunked": "Transfer-Encoding: chunked", "close": "X: y"}
        visit.send(f"HTTP/1.1 200 OK\r\n{extra[framing]}\r\n\r\n".encode())
        while True:
            visit.send(b"10000\r\n" + block + b"\r\n" if framing == "chunked" else block)

    with raw_server(flood) as server, polling() as client:
        with pytest.raises(ProviderProtocolError, match="larger") as refused:
            fetch(client, server)
        assert refused.value.raw.startswith("xxx")


def test_an_answer_just_within_the_limit_is_read_whole() -> None:
    body = os.urandom(2 * 1024 * 1024)
    with raw_server(always(answer(body))) as server, polling() as client:
        assert fetch(client, server).body == body


def test_a_compressed_answer_is_read_though_it_was_not_asked_for() -> None:
    body = gzip.compress(b'{"ok":true}')
    with raw_server(always(answer(body, "200 OK", "Content-Encoding: gzip"))) as server, polling() as client:
        assert fetch(client, server).body == b'{"ok":true}'
        assert b"\r\nAccept-Encoding: identity\r\n" in server.requests[0]


def test_a_compressed_flood_is_cut_off() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(40)) + packer.flush()
    assert len(bomb) < 100_000
    with (
        raw_server(always(answer(bomb, "200 OK", "Content-Encoding: gzip"))) as server,
        polling() as client,
        pytest.raises(ProviderProtocolError, match="larger"),
    ):
        fetch(client, server)


def test_a_compressed_flood_takes_little_memory() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(200)) + packer.flush()
    with raw_server(always(answer(bomb, "200 OK", "Content-Encoding: gzip"))) as server, polling() as client:
        tracemalloc.start()
        try:
            with pytest.raises(ProviderProtocolError, match="larger"):
                fetch(client, server)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 16_000_000


def test_a_body_that_is_compressed_twice_is_not_read() -> None:
    """A few bytes may stand for days of work that brings nothing: no limit of size or time would be met."""
    body = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + b"\x00\x00\x00\xff\xff" * 40_000_000  # of empty blocks
    for _ in range(3):
        body = gzip.compress(body, 1)
    twice = answer(body, "200 OK", "Content-Encoding: gzip, gzip", "Content-Encoding: gzip, gzip")
    with raw_server(always(twice)) as server, polling() as client:
        began = process_time()
        with pytest.raises(ProviderProtocolError):
            fetch(client, server, timeout_s=LIMIT_S)
        assert process_time() - began < LIMIT_S


def test_an_encoding_that_changes_nothing_is_passed_over() -> None:
    body = b'{"ok":true}'
    for packed, encodings in (
        (body, ["identity"]), (body, ["Identity, identity"]), (body, [""]),
        (gzip.compress(body), ["identity, gzip"]), (gzip.compress(body), ["identity", "X-GZip"]),
        (zlib.compress(body), ["deflate,"]),
    ):  # fmt: skip
        headers = [f"Content-Encoding: {encoding}" for encoding in encodings]
        with raw_server(always(answer(packed, "200 OK", *headers))) as server, polling() as client:
            assert fetch(client, server).body == body


def test_bombs_within_bombs_are_cut_off_too() -> None:
    body = b"\0" * 100_000_000
    for _ in range(2):
        body = gzip.compress(body)
    for encoding in ("gzip, gzip", ", ".join(["gzip"] * 20)):
        with (
            raw_server(always(answer(body, "200 OK", f"Content-Encoding: {encoding}"))) as server,
            polling() as client,
            pytest.raises(ProviderProtocolError),
        ):
            fetch(client, server)


@pytest.mark.parametrize("status", ["429 Too Many Requests", "500 Oops", "503 Busy"])
@pytest.mark.parametrize(
    "more",
    [
        ["Content-Encoding: br"],
        ["Content-Encoding: gzip"],
        [f"X-Filler: {'x' * 100}"],
    ],
    ids=["an encoding not asked for", "a compression that is none", "too large"],
)
def test_a_status_that_says_to_come_back_later_does_so_whatever_its_page(status: str, more: list[str]) -> None:
    page = b"x" * 3_000_000
    with raw_server(always(answer(page, status, "Retry-After: 7", *more))) as server, polling() as client:
        got = fetch(client, server)
        assert (got.status, got.headers["Retry-After"], got.body) == (int(status[:3]), "7", b"")
        assert fetch(client, server).status == got.status


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"]
)
def test_a_connection_that_is_reset_brings_no_answer_to_any_client(sent: bytes) -> None:
    def reset(visit: Visit) -> None:
        visit.request()
        visit.send(sent)
        visit.closing.wait(0.05)  # so that what was sent is read before the reset drops it
        visit.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with raw_server(reset) as server:
        with polling() as client, pytest.raises(ProviderUnavailable, match="connection"):
            fetch(client, server)
        with pytest.raises(ConnectError, match="connection"):
            download(server.url, own=server.url)
        got = post(server)
        assert (got.status, got.error) == ((200, None) if sent.endswith(b"ab") else (None, "connection"))


@pytest.mark.parametrize(
    ("body", "encoding"), [(b"no gzip", "gzip"), (b"what", "br"), (b"what", "zstd"), (b"what", "gzip, dcb")]
)
def test_an_answer_whose_encoding_cannot_be_read_is_a_protocol_error(body: bytes, encoding: str) -> None:
    with (
        raw_server(always(answer(body, "200 OK", f"Content-Encoding: {encoding}"))) as server,
        polling() as client,
        pytest.raises(ProviderProtocolError),
    ):
        fetch(client, server)


@pytest.mark.parametrize(
    "answered",
    [
        b"", b"SMTP ready\r\n\r\n", b"HTTP/1.1 twohundred OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/3.7 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nshort", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n{} so {}.",
    ],
)  # fmt: skip
def test_an_answer_that_is_not_sound_http_is_an_error_of_ours_for_every_client(answered: bytes) -> None:
    def handle(visit: Visit) -> None:
        visit.request()
        visit.send(answered)

    with raw_server(handle) as server:
        with polling() as client, pytest.raises(ProviderUnavailable):
            fetch(client, server)
        with pytest.raises(ConnectError):
            download(server.url, own=server.url)
        assert post(server).error in {None, "connection", "protocol"}


def path_of(request: bytes) -> bytes:
    return request.split(b" ")[1]


def interim_first(status: str) -> Handler:
    """Answers each request with its path; the first of a connection gets an interim answer before."""

    def handle(visit: Visit) -> None:
        interim = f"HTTP/1.1 {status}\r\nLink: </x>\r\n\r\n".encode()
        while request := visit.request():
            visit.send(interim, answer(path_of(request)))
            interim = b""

    return handle


@pytest.mark.parametrize("status", ["100 Continue", "102 Processing", "103 Early Hints", "199 What"])
def test_an_interim_answer_is_not_taken_for_the_final_one(status: str) -> None:
    with raw_server(interim_first(status)) as server, polling() as client:
        for path in ("/alices", "/bobs", "/carols"):
            assert fetch(client, server, path).body == path.encode()
        assert len(server.visits) == 1
        assert download(f"{server.url}/file", own=server.url) == (200, b"/file")
        sent = post(server)
        assert (sent.status, sent.body) == (200, "/hook")


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", b"HTTP/1.1 103 Hints\r\n\r\n" * 50]
)
def test_an_answer_that_never_becomes_final_is_none_and_its_connection_is_not_used_again(interim: bytes) -> None:
    def handle(visit: Visit) -> None:
        request = visit.request()
        visit.send(interim if visit.number != 2 else b"", answer(path_of(request)))
        visit.wait()

    with raw_server(handle) as server, polling() as client:
        with pytest.raises(ProviderUnavailable):
            fetch(client, server, "/alices")
        assert fetch(client, server, "/bobs").body == b"/bobs"
        assert len(server.visits) == 2
        with pytest.raises(ConnectError):
            download(server.url, own=server.url)
        assert post(server).error == "protocol"


ANOTHERS = answer(b"another's")


@pytest.mark.parametrize(
    "first",
    [
        answer(b"mine") + ANOTHERS[:20],
        b"HTTP/1.1 204 No Content\r\n\r\n" + ANOTHERS[:20],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmine\r\n0\r\n\r\n" + ANOTHERS[:20],
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nno header\r\n\r\nmine",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nmine",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: x\r\n\r\nmine",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n4\r\nmine\r\n0\r\n\r\n",
    ],
    ids=[
        "more than its length",
        "a body where none may be",
        "more than its chunks",
        "no header",
        "two lengths",
        "odd coding",
        "two codings",
    ],
)
@pytest.mark.parametrize("with_tls", [False, True])
def test_a_connection_with_anything_unexpected_on_it_is_not_used_again(
    tls: TLSFiles, with_tls: bool, first: bytes
) -> None:
    def handle(visit: Visit) -> None:
        visit.request()
        visit.send(first if visit.number == 1 else answer(b"its own"))
        if visit.request():
            visit.send(ANOTHERS[20:], ANOTHERS)

    with (
        raw_server(handle, tls=tls.server if with_tls else None) as server,
        polling(resolver=Names({TLS_HOST: "127.0.0.1"}), ca_file=tls.ca_file) as client,
    ):
        base = f"https://{TLS_HOST}:{server.port}" if with_tls else server.url
        own = connection(base)
        assert client.fetch(own, HttpRequest("GET", f"{base}/1"), 5).status in {200, 204}
        assert client.fetch(own, HttpRequest("GET", f"{base}/2"), 5).body == b"its own"


@pytest.mark.parametrize("size", [b"-5", b"-1", b"-fffffffffffffffffffff"])
def test_a_negative_chunk_is_an_error_of_ours_for_every_client(size: bytes) -> None:
    broken = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\nabc\r\n0\r\n\r\n" % size
    with raw_server(always(broken)) as server:
        with polling() as client, pytest.raises(ProviderProtocolError):
            fetch(client, server)
        with pytest.raises(ConnectError):
            download(server.url, own=server.url)
        assert post(server).status == 200  # its text does not matter


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_an_answer_that_never_has_a_body_is_not_waited_on_for_one(status: str) -> None:
    with raw_server(always(f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())) as server:
        code = int(status[:3])
        with polling() as client:
            assert (fetch(client, server).status, fetch(client, server).body) == (code, b"")
            assert len(server.visits) == 2  # the end of such a body may come yet
        assert download(server.url, own=server.url) == (code, b"")
        assert post(server, timeout_s=LIMIT_S).status == code


@pytest.mark.parametrize("length", ["0_4", "+4", "4, 4", "4.0", "9" * 5000, "-4", "0x4", "\xb24", ""])
def test_a_length_that_is_no_number_is_no_answer_to_a_poll(length: str) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")
    with raw_server(always(head, b"mine")) as server, polling() as client, pytest.raises(ProviderUnavailable):
        fetch(client, server)


def test_spaces_around_a_length_are_none_of_it() -> None:
    with raw_server(always(b"HTTP/1.1 200 OK\r\nContent-Length: \t 2 \t\r\n\r\nok")) as server, polling() as client:
        assert [fetch(client, server).body for _ in range(2)] == [b"ok"] * 2


def test_spaces_around_a_coding_are_none_of_it() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \t Chunked \t\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    with raw_server(always(chunked)) as server, polling() as client:
        assert [fetch(client, server).body for _ in range(2)] == [b"ok"] * 2
        assert len(server.visits) == 1
        assert download(server.url, own=server.url) == (200, b"ok")
        assert post(server).body == "ok"


WHOLE = {
    "length": answer(b"<>" * 10, "200 OK", "X: y", " folded"),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"8;a=b\r\n<><><><>\r\nc\r\n<><><><><><>\r\n0\r\nT: x\r\n\r\n",
    "interim": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(b"<>" * 10),
    "packed": answer(gzip.compress(b"<>" * 10), "200 OK", "Content-Encoding: gzip"),
}


@pytest.mark.parametrize("framing", WHOLE)
@pytest.mark.parametrize("with_tls", [False, True])
def test_an_answer_reads_the_same_wherever_it_is_cut(tls: TLSFiles, with_tls: bool, framing: str) -> None:
    whole = WHOLE[framing]

    def cutting(visit: Visit) -> None:
        visit.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while request := visit.request():
            at = int(path_of(request)[1:])
            if at:
                visit.send(whole[:at])
                visit.closing.wait(0.001)
                visit.send(whole[at:])
            else:
                visit.drip((bytes([byte]) for byte in whole), 0)

    with (
        raw_server(cutting, tls.server if with_tls else None) as server,
        polling(resolver=Names({TLS_HOST: "127.0.0.1"}), ca_file=tls.ca_file) as client,
    ):
        base = f"https://{TLS_HOST}:{server.port}" if with_tls else server.url
        own = connection(base)
        for at in range(len(whole)):
            assert client.fetch(own, HttpRequest("GET", f"{base}/{at}"), 5).body == b"<>" * 10
        assert len(server.visits) == 1


@pytest.mark.parametrize("with_tls", [False, True])
def test_what_comes_after_an_answer_while_its_connection_is_kept_is_nobodys(tls: TLSFiles, with_tls: bool) -> None:
    go, sent = threading.Semaphore(0), threading.Semaphore(0)

    def talkative(visit: Visit) -> None:
        while visit.request():
            visit.send(answer(b"its own"))
            go.acquire(timeout=5)
            visit.send(ANOTHERS)
            sent.release()

    with (
        raw_server(talkative, tls.server if with_tls else None) as server,
        polling(resolver=Names({TLS_HOST: "127.0.0.1"}), ca_file=tls.ca_file) as client,
    ):
        base = f"https://{TLS_HOST}:{server.port}" if with_tls else server.url
        for visits in (1, 2, 3):
            assert client.fetch(connection(base), HttpRequest("GET", f"{base}/x"), 5).body == b"its own"
            assert len(server.visits) == visits
            go.release()
            assert sent.acquire(timeout=5)


def test_an_answer_over_tls_is_read_whole_however_long_it_is(tls: TLSFiles) -> None:
    """What is decrypted with the bytes before it waits where the system does not see it."""
    sizes = (0, 1, 8_000, 8_192, 12_000, 16_384, 16_385, 100_000, 2_000_000)

    def sized(visit: Visit) -> None:
        while request := visit.request():
            visit.send(answer(b"x" * int(path_of(request)[1:])))

    with (
        raw_server(sized, tls.server) as server,
        polling(resolver=Names({TLS_HOST: "127.0.0.1"}), ca_file=tls.ca_file) as client,
    ):
        base = f"https://{TLS_HOST}:{server.port}"
        for size in sizes:
            got = client.fetch(connection(base), HttpRequest("GET", f"{base}/{size}"), IN_TIME_S)
            assert len(got.body) == size
        assert len(server.visits) == 1


def test_what_tls_has_decrypted_beyond_a_full_buffer_is_nobodys(tls: TLSFiles) -> None:
    """It waits where the system does not see it."""
    head = answer(b"", "200 OK").replace(b"Length: 0", b"Length: %d")
    body = b"x" * (io.DEFAULT_BUFFER_SIZE - len(head % 1000))

    def handle(visit: Visit) -> None:
        while visit.request():
            visit.send(answer(body) + ANOTHERS if visit.number == 1 else answer(b"its own"))

    with (
        raw_server(handle, tls.server) as server,
        polling(resolver=Names({TLS_HOST: "127.0.0.1"}), ca_file=tls.ca_file) as client,
    ):
        base = f"https://{TLS_HOST}:{server.port}"
        assert client.fetch(connection(base), HttpRequest("GET", f"{base}/1"), 5).body == body
        assert client.fetch(connection(base), HttpRequest("GET", f"{base}/2"), 5).body == b"its own"


class OddNames(Names):
    """A resolver that raises what nobody expects."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def __call__(self, host: str, port: int) -> Sequence[SocketAddress]:
        raise self._error


@pytest.mark.parametrize(
    "error", [ValueError("https://h/?sig=SECRET"), OverflowError("SECRET"), AttributeError("SECRET")]
)
def test_whatever_the_libraries_raise_becomes_an_error_of_ours_that_tells_no_secret(error: Exception) -> None:
    url = "https://render.example.com/x?sig=SECRET"
    with polling(resolver=OddNames(error)) as client, pytest.raises(ProviderProtocolError) as polled:
        client.fetch(connection("https://render.example.com"), HttpRequest("GET", url), 5)
    with pytest.raises(ConnectError) as downloaded:
        download(url, client=Downloader(resolver=OddNames(error)))
    sent = WebhookClient(resolver=OddNames(error)).post(url, {}, b"{}")
    assert (sent.status, sent.error) == (None, "protocol")
    assert "SECRET" not in f"{polled.value} {downloaded.value} {sent}"


def test_the_libraries_log_no_link_and_so_no_signature(caplog: pytest.LogCaptureFixture) -> None:
    def handle(visit: Visit) -> None:
        visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nno header\r\nX: y\r\n\r\nok")

    with caplog.at_level(logging.DEBUG), raw_server(handle) as server, polling() as client:
        fetch(client, server, "/status?sig=SECRET")
        download(f"{server.url}/v.mp4?sig=SECRET", own=server.url)
        WebhookClient(LOCAL).post(f"{server.url}/hook?sig=SECRET", {}, b"{}")
    assert "SECRET" not in caplog.text


def test_a_failed_poll_says_why_without_the_query() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with polling(resolver=Names()) as client:
        for base, words in (
            (f"http://127.0.0.1:{port}", "Connection refused"),
            ("http://nowhere.example.com", "the name nowhere.example.com was not found"),
        ):
            with pytest.raises(ProviderUnavailable, match=words) as failed:
                client.fetch(connection(base), HttpRequest("GET", f"{base}/x?key=hush"), 5)
            assert "hush" not in str(failed.value)
            assert failed.value.__cause__ is None


def test_a_base_url_that_only_begins_alike_is_another_origin() -> None:
    with raw_server(always(answer(b"secret"))) as server, polling() as client:
        own = connection(f"http://127.0.0.1:{str(server.port)[:-1]}")
        with pytest.raises((ProviderAuthError, ProviderUnavailable)):
            client.fetch(own, HttpRequest("GET", f"{server.url}/x"), 5)
        with pytest.raises(ProviderAuthError):
            client.fetch(connection(server.url), HttpRequest("GET", f"{server.url}@10.0.0.1/x"), 5)
        assert not server.visits


def test_a_client_works_on_after_it_was_closed() -> None:
    with raw_server(always(answer(b"ok"))) as server, polling() as client:
        fetch(client, server)
        client.close()
        assert fetch(client, server).body == b"ok"


# --- downloads -------------------------------------------------------------------------------------------------------


def test_a_download_streams_status_headers_and_bytes() -> None:
    body = os.urandom(3_000_000)
    with raw_server(always(answer(body, "206 Partial Content", "Content-Range: bytes 0-2999999/3000000"))) as server:
        own = connection(server.url)
        with Downloader().open(
            f"{server.url}/a b.mp4?x=1", connection=own, headers={"Range": "bytes=0-"}, timeout_s=10
        ) as got:
            assert (got.status, got.headers["content-range"]) == (206, "bytes 0-2999999/3000000")
            assert got.url == f"{server.url}/a%20b.mp4?x=1"
            chunks = list(got.iter())
        assert b"".join(chunks) == body
        assert max(map(len, chunks)) <= 1024 * 1024
        head = server.requests[0]
        assert head.startswith(b"GET /a%20b.mp4?x=1 HTTP/1.1\r\n")
        assert b"\r\nRange: bytes=0-\r\n" in head
        assert b"\r\nAccept-Encoding: identity\r\n" in head


def test_a_chunked_body_without_a_length_is_streamed() -> None:
    parts = [b"5\r\nhello\r\n", b"6\r\n world\r\n", b"0\r\n\r\n"]
    with raw_server(always(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *parts)) as server:
        assert download(server.url, own=server.url) == (200, b"hello world")


def test_a_body_shorter_than_announced_is_an_error_after_what_came() -> None:
    def cut(visit: Visit) -> None:
        visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x" * 400)

    with (
        raw_server(cut) as server,
        Downloader().open(server.url, connection=connection(server.url), headers={}, timeout_s=5) as got,
    ):
        came = got.iter()
        assert len(next(came)) <= 400
        with pytest.raises(ConnectError):
            list(came)


def test_a_body_that_was_compressed_unasked_is_an_error() -> None:
    packed = answer(gzip.compress(b"video"), "200 OK", "Content-Encoding: gzip")
    with raw_server(always(packed)) as server, pytest.raises(ConnectError, match="compressed"):
        download(server.url, own=server.url)


def test_an_error_status_is_handed_over() -> None:
    with raw_server(always(answer(b"gone", "410 Gone"))) as server:
        assert download(server.url, own=server.url) == (410, b"gone")


def redirecting(*locations: str) -> Handler:
    def handle(visit: Visit) -> None:
        visit.request()
        if visit.number <= len(locations):
            visit.send(answer(b"x" * 100, "302 Found", f"Location: {locations[visit.number - 1]}"))
        else:
            visit.send(answer(b"video"))

    return handle


def test_up_to_three_redirects_are_followed() -> None:
    with (
        raw_server(redirecting("/a", "b?c=d", "e fü")) as server,
        Downloader().open(server.url, connection=connection(server.url), headers={}, timeout_s=5) as got,
    ):
        assert got.url == f"{server.url}/e%20f%C3%BC"
        assert b"".join(got.iter()) == b"video"
    with raw_server(redirecting("/a", "/b", "/c", "/d")) as server, pytest.raises(ConnectError, match="3 redirects"):
        download(server.url, own=server.url)


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/", "https://127.0.0.1/", "http://example.com/", "https://localhost/",
        "file:///etc/passwd", "https://user:pass@example.com/", "//127.0.0.1:1/", "https://[fd00:ec2::254]/",
        "http://[::ffff:169.254.169.254]/", "https://[bad/", "https://example.com:8443/", "gopher://example.com/",
    ],
)  # fmt: skip
def test_a_redirect_to_where_nobody_may_go_is_refused(location: str) -> None:
    with raw_server(redirecting(location)) as server:
        with pytest.raises(AddressRefusedError):
            download(server.url, own=server.url)
        assert len(server.visits) == 1


def test_a_redirects_own_body_is_not_read() -> None:
    def endless(visit: Visit) -> None:
        visit.request()
        if visit.number > 1:
            visit.send(answer(b"video"))
            return
        visit.send(b"HTTP/1.1 302 Found\r\nLocation: /v\r\n\r\n")
        while True:
            visit.send(b"x" * 65536)

    with raw_server(endless) as server:
        assert download(server.url, own=server.url) == (200, b"video")


def test_credentials_stay_with_their_origin() -> None:
    with raw_server(always(answer(b"video"))) as media, raw_server(redirecting("/same", f"{media.url}/v")) as api:
        headers = {"Authorization": "Bearer hush", "X-Key": "hush", "Range": "bytes=5-", "If-Range": '"e"'}
        download(api.url, own=api.url, headers=headers, media_base_url=media.url)
        assert [b"hush" in request for request in api.requests] == [True, True]
        assert b"hush" not in media.requests[0]
        assert b"\r\nRange: bytes=5-\r\n" in media.requests[0]
        assert b'\r\nIf-Range: "e"\r\n' in media.requests[0]


def test_leaving_a_download_early_closes_its_connection() -> None:
    gone = threading.Event()

    def flood(visit: Visit) -> None:
        visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                visit.send(b"x" * 65536)
        finally:
            gone.set()

    with raw_server(flood) as server:
        with Downloader().open(server.url, connection=connection(server.url), headers={}, timeout_s=5) as got:
            next(got.iter())
        assert gone.wait(5)


def test_a_stalled_body_is_given_up_before_the_deadline() -> None:
    def stall(visit: Visit) -> None:
        visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nxxx")
        visit.wait()

    with raw_server(stall) as server:
        client = Downloader(idle_s=0.3)
        began = monotonic()
        with pytest.raises(ConnectError, match="nothing came"):
            download(server.url, own=server.url, client=client, timeout_s=30)
        assert monotonic() - began < IN_TIME_S


# --- webhooks --------------------------------------------------------------------------------------------------------


def test_an_attempt_records_what_the_receiver_answered() -> None:
    with raw_server(always(answer("schön".encode(), "202 Accepted"))) as server:
        got = post(server)
        assert (got.status, got.error, got.refused, got.body) == (202, None, False, "schön")
        assert 0 <= got.duration_ms < IN_TIME_S * 1000
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        assert head.startswith(b"POST /hook HTTP/1.1\r\n")
        assert b"\r\nwebhook-id: evt_1" in head
        assert f"\r\nUser-Agent: {USER_AGENT}".encode() in head
        assert body == b'{"a":1}'


def test_what_arrives_verifies_with_an_independent_library() -> None:
    secret = derive_secret(b"master", "owner", "default", 1)
    body = '{"type":"task.completed","data":{"title":"Grüße"}}'.encode()
    with raw_server(always(answer(b"ok"))) as server:
        headers = signed_headers([secret], "evt_tsk_1_task_completed", datetime.now(UTC), body)
        assert WebhookClient(LOCAL).post(f"{server.url}/hook", headers, body).status == 200
        head, _, arrived = server.requests[0].partition(b"\r\n\r\n")
    lines = (line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    got = {name.lower(): value for name, value in lines}
    assert got["content-type"] == "application/json"
    assert Verifier(secret).verify(arrived, got) == json.loads(body)


def test_each_attempt_has_a_connection_of_its_own() -> None:
    with raw_server(always(answer(b"ok"))) as server:
        client = WebhookClient(LOCAL)
        assert {post(server, client=client).status for _ in range(3)} == {200}
        assert len(server.visits) == 3


def test_an_attempt_with_an_empty_body_says_so() -> None:
    with raw_server(always(answer())) as server:
        assert WebhookClient(LOCAL).post(f"{server.url}/", {}, b"").status == 200
        assert server.requests[0].startswith(b"POST ")
        assert b"\r\nContent-Length: 0" in server.requests[0]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect"])
def test_a_webhook_never_follows_a_redirect(status: str) -> None:
    with raw_server(always(answer(b"", status, "Location: /other"))) as server:
        assert post(server).status == int(status[:3])
        assert len(server.visits) == 1


def test_only_the_start_of_an_answer_is_read() -> None:
    def flood(visit: Visit) -> None:
        visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            visit.send(b"10000\r\n" + b"y" * 65536 + b"\r\n")

    with raw_server(flood) as server:
        got = post(server)
        assert (got.status, got.body) == (200, "y" * 4096)


def test_an_answer_is_kept_as_text_whatever_its_bytes() -> None:
    with raw_server(always(answer(b"\xff\xfe ok"))) as server:
        assert post(server).body == "\ufffd\ufffd ok"
    packed = gzip.compress(b"\0" * 1_000_000)
    with raw_server(always(answer(packed, "200 OK", "Content-Encoding: gzip"))) as server:
        got = post(server)
        assert got.status == 200
        assert got.body.startswith("\x1f")  # as it came: nothing is decompressed
        assert len(got.body) <= 4096


def test_an_answer_whose_text_breaks_off_is_still_an_answer() -> None:
    def cut(visit: Visit) -> None:
        visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nreceived")

    with raw_server(cut) as server:
        got = post(server)
        assert (got.status, got.body) == (200, "received")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0), ("0", 0.0), ("Sun, 01 Mar 2026 12:05:00 GMT", 300.0), ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("soon", None), ("-5", None), ("", None), ("Sun, 99 Mar 2026 12:05:00 GMT", None), ("1e3", None),
    ],
)  # fmt: skip
def test_retry_after_is_read_as_seconds_or_date_and_ignored_otherwise(value: str, seconds: float | None) -> None:
    with raw_server(always(answer(b"", "503 Busy", f"Retry-After: {value}"))) as server:
        assert post(server).retry_after_s == seconds


def test_failures_are_told_apart_in_a_word() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert WebhookClient(LOCAL).post(f"http://127.0.0.1:{port}/", {}, b"").error == "connection"
    assert WebhookClient(LOCAL, resolver=Names()).post("http://a.example.com/", {}, b"").error == "dns"
    with raw_server(always(b"SMTP ready\r\n\r\n")) as server:
        assert post(server).error == "protocol"
    with raw_server(lambda visit: visit.send(b"SMTP ready\r\n\r\n")) as server:
        assert WebhookClient(LOCAL).post(f"https://127.0.0.1:{server.port}/", {}, b"").error == "tls"


@pytest.mark.parametrize("url", ["http://example.com/", "https://10.0.0.1/", "https://a@example.com/", "nonsense", ""])
def test_a_webhook_url_that_may_not_be_reached_is_a_refusal_and_not_an_exception(url: str) -> None:
    got = WebhookClient().post(url, {}, b"{}")
    assert (got.status, got.error, got.refused) == (None, "address_refused", True)


def test_no_file_descriptor_is_left_behind() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def odd(visit: Visit) -> None:
        visit.request()
        handlers: list[Callable[[], None]] = [
            lambda: visit.send(answer(b"ok")),
            lambda: visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx"),
            lambda: visit.send(b"junk\r\n"),
            lambda: visit.send(answer(b"x" * 100_000)),
        ]
        handlers[visit.number % len(handlers)]()

    with raw_server(odd) as server:
        webhooks, downloads = WebhookClient(LOCAL), Downloader()
        before = descriptors()
        with polling() as client:
            for _ in range(20):
                post(server, client=webhooks)
                with suppress(ProviderError):
                    fetch(client, server)
                with suppress(EgressError):
                    download(server.url, own=server.url, client=downloads)
        limit = monotonic() + 5
        while descriptors() > before and monotonic() < limit:  # the server's threads close their ends
            threading.Event().wait(0.01)
        assert descriptors() <= before
