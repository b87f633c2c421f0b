"""Hostile addresses, each tried on each client: nothing of ours is dialled, and the failure is clear and final."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, cast

import pytest

from renderbell.addresses import EgressPolicy, check_webhook_url
from renderbell.archive import Archive
from renderbell.delivery import DeliveryState, judge, new_delivery
from renderbell.dial import SocketAddress
from renderbell.egress import Downloader, WebhookClient
from renderbell.errors import AddressRefusedError, ProviderAuthError, SourceRefusedError
from renderbell.fetch import PollClient
from renderbell.providers.base import Connection, HttpRequest
from renderbell.task import FileKind, Source
from tests.unit.raw_server import RawServer, Visit, always, answer, raw_server
from tests.unit.test_egress_addresses import CLOSED_TO_ALL, TRICKS
from tests.virtual import START

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Whatever leads to this machine, the instance's credentials or a private network, in all spellings of the place.
PLACES = [
    "127.0.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "127.1", "127.0.1", "0",
    "0x0", "00000177.0.0.1", "0.0.0.0", "127.0.0.1.", "127.127.127.127", "0x7f.1", "%31%32%37.0.0.1",
    "127%2e0%2e0%2e1", "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1",
    "127.0.0.\uff11", "[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]", "[::1%25lo]", "[::1%lo]", "[fe80::1%25eth0]", "[fe80::1]", "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001:0:4136:e378:8000:63bf:80ff:fffe]", "[fe80::5efe:7f00:1]",
    "[2600::5efe:127.0.0.1]", "[fc00::1]", "[fec0::1]", "[ff02::1]", "[100::1]", "[2001:db8::1]", "[fd00:ec2::254]",
    "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "169.254.170.2", "169.254.170.23", "10.0.0.1", "0xa.1", "012.0.0.1",
    "192.168.0.1", "0300.0250.0.1", "172.16.0.1", "100.64.0.1", "198.18.0.1", "224.0.0.1", "255.255.255.255",
    "192.0.0.192", "[::ffff:10.0.0.1]", "[2002:a00:1::]", "[127.0.0.1]", "::1", "localhost", "LOCALHOST",
    "localhost.", "a.localhost", "localhost.localdomain", "nas", "nas.", "nas.local", "metadata.google.internal",
    "router.home.arpa", "\u24dbocalhost", "loc\xadalhost", "local\u200bhost", "localhost\u3002", "user@127.0.0.1",
    "me:secret@127.0.0.1", "@127.0.0.1", "example.com@127.0.0.1", "example.com:443@127.0.0.1",
    "127.0.0.1\\@example.com", "example.com\\@127.0.0.1", "127.0.0.1\\.example.com", "127.0.0.1#@example.com",
    "127.0.0.1?@example.com", "127.0.0.1/@example.com", "127.0.0.1;@example.com", "127.0.0.1\t", "127.0.0.1\r\nX: y",
    "127.0.0.1%00.example.com", "127.0.0.1%23.example.com", "127.0.0.1%2f.example.com", "127.0.0.1 .example.com",
    "127.0.0.1\x00.example.com", "127.0.0.1\u2028", "127.0.0.1\uff0fexample.com", "127.0.0.1,example.com", "[::1",
]  # fmt: skip
NAMES = ["any.example.com", "127.0.0.1.example.com", "xn--localhost-.example.com"]  # only a lookup gives them away


def urls(places: list[str]) -> list[str]:
    """Links to places, with each scheme, on the usual port and on that of a server that is there."""
    return [
        f"{scheme}://{place}{port}/x?sig=HUSH"
        for place in places
        for scheme in ("https", "http")
        for port in ("", ":{}")
    ]


PLAINLY_CLOSED = [*urls(PLACES), *TRICKS]
URLS = [*PLAINLY_CLOSED, *urls(NAMES)]

# What the resolver answers for a name that looks sound.
ANSWERS = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "169.254.170.2",
    "172.16.0.1", "172.31.255.255", "192.0.0.170", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "100::1",
    "2001::1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001:db8::1", "2002:7f00:1::", "2002:a00:1::", "3fff::1",
    "2600::5efe:127.0.0.1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::5efe:127.0.0.1", "fec0::1", "ff02::1",
    "93.184.216.34 127.0.0.1", "127.0.0.1 93.184.216.34", "2606:4700::1111 ::1", "93.184.216.34 fd00:ec2::254",
]  # fmt: skip

# Beside a connection's own origin `http://127.0.0.1:{}`: the same machine, and yet another origin.
BESIDE = [
    "https://127.0.0.1:{}/x", "http://127.0.0.1/x", "http://127.0.0.1:1{}/x", "http://127.0.0.1.:{}/x",
    "http://127.0.0.2:{}/x", "http://127.1:{}/x", "http://localhost:{}/x", "http://[::1]:{}/x",
    "http://2130706433:{}/x", "http://[::ffff:127.0.0.1]:{}/x", "http://user@127.0.0.1:{}/x",
    "http://127.0.0.1:{}@127.0.0.1:{}/x", "http://127.0.0.1:{}\\@example.com/x", "http://own.example.com:{}/x",
    "http://127.0.0.1:{}.example.com/x",
]  # fmt: skip

REDIRECTS = [url for url in URLS if url.strip() and not any(part in url for part in ("\r", "\n", "\x00", "\ud800"))] + [
    "https://[bad/",
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
    "data:text/plain,x",
    "\\\\127.0.0.1\\x",
]
STAYS = ("https:/example.com/", "https:example.com", "//example.com/", "example.com")  # a path of the own origin

FOREIGN = Connection(name="farm", type="jimmy", base_url="https://api.example.com")


class Leads:
    """A resolver for which every name leads to the same addresses."""

    def __init__(self, addresses: str) -> None:
        self._addresses = addresses.split()

    def __call__(self, host: str, port: int) -> Sequence[SocketAddress]:
        return [(one, port, 0, 0) if ":" in one else (one, port) for one in self._addresses]


HERE = Leads("127.0.0.1")


@pytest.fixture(scope="module")
def server() -> Iterator[RawServer]:
    """What may never be reached."""
    with raw_server(always(answer(b"secret"))) as running:
        yield running


def poll(url: str, resolver: Leads, connection: Connection = FOREIGN) -> str:
    with closing(PollClient(resolver=resolver)) as client, pytest.raises(ProviderAuthError) as refused:
        client.fetch(connection, HttpRequest("GET", url), 2)
    return str(refused.value)


def download(url: str, resolver: Leads, connection: Connection | None = None) -> str:
    client = Downloader(resolver=resolver)
    with (
        pytest.raises(AddressRefusedError) as refused,
        client.open(url, connection=connection, headers={}, timeout_s=2),
    ):
        pass
    return str(refused.value)


def send(url: str, resolver: Leads, policy: EgressPolicy | None = None) -> str:
    got = WebhookClient(policy, resolver=resolver).post(url, {}, b"{}", 2)
    assert (got.status, got.error, got.refused) == (None, "address_refused", True)
    return got.detail or ""


CLIENTS: dict[str, Callable[[str, Leads], str]] = {
    "a poll": poll,
    "a download": download,
    "a download of a connection": lambda url, resolver: download(url, resolver, FOREIGN),
    "a webhook": send,
    "a webhook where http is allowed": lambda url, resolver: send(url, resolver, EgressPolicy(allow_http=True)),
}


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_no_spelling_of_a_closed_place_is_reached(client: Callable[[str, Leads], str], server: RawServer) -> None:
    for url in URLS:
        said = client(url.replace("{}", str(server.port)), HERE)
        assert said
        assert "HUSH" not in said
        assert "secret" not in said.removeprefix("the URL must not contain a user name or password")
    assert not server.visits


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_no_name_that_leads_to_a_closed_place_is_followed(client: Callable[[str, Leads], str]) -> None:
    for addresses in ANSWERS:
        assert "may not be reached" in client("https://video.example.com/x?sig=HUSH", Leads(addresses))


def test_no_redirect_to_a_closed_place_is_followed(server: RawServer) -> None:
    def redirect(visit: Visit) -> None:
        number = int(visit.request().split(b" ")[1].removeprefix(b"/"))
        location = REDIRECTS[number].replace("{}", str(server.port))
        visit.send(answer(b"", "302 Found", "Location: @@").replace(b"@@", location.encode("utf-8", "replace")))

    with raw_server(redirect) as source:
        own = Connection(name="farm", type="jimmy", base_url=source.url)
        for number, location in enumerate(REDIRECTS):
            before = len(source.visits)
            if location in STAYS:
                continue
            download(f"{source.url}/{number}", HERE, own)
            assert len(source.visits) == before + 1, location
    assert not server.visits


def test_what_lies_beside_a_connections_own_origin_is_not_its_own(server: RawServer) -> None:
    own = Connection(name="farm", type="jimmy", base_url=server.url)
    for pattern in BESIDE:
        url = pattern.replace("{}", str(server.port))
        poll(url, HERE, own)
        download(url, HERE, own)
    assert not server.visits


def test_what_is_closed_to_all_is_closed_to_the_operators_own_words_too() -> None:
    everything = EgressPolicy.from_settings(True, ["0.0.0.0/0", "::/0"])
    for address in CLOSED_TO_ALL:
        if "%" in address or address == "nonsense":
            continue
        own = Connection(name="farm", type="jimmy", base_url="http://farm.example.com:8080")
        for resolver in (Leads(address), Leads(f"10.0.0.1 {address}")):
            poll("http://farm.example.com:8080/x", resolver, own)
            download("http://farm.example.com:8080/x", resolver, own)
            send("http://farm.example.com:8080/x", resolver, everything)


def test_an_opened_network_opens_webhooks_only(server: RawServer) -> None:
    url = f"http://hooks.example.com:{server.port}/x"
    opened = EgressPolicy.from_settings(True, ["127.0.0.0/8"])
    assert WebhookClient(opened, resolver=HERE).post(url, {}, b"{}").status == 200
    assert len(server.visits) == 1
    server.visits.clear()
    poll(url, HERE)
    download(url, HERE)
    assert not server.visits


def test_how_many_were_tried(measured: Callable[[str], None]) -> None:
    closed = len([one for one in CLOSED_TO_ALL if "%" not in one and one != "nonsense"])
    tried = len(CLIENTS) * (len(URLS) + len(ANSWERS)) + len(REDIRECTS) - len(STAYS) + 2 * len(BESIDE) + 6 * closed
    measured(
        f"addresses tried: {tried}, by {len(CLIENTS)} ways to ask, of {len(URLS)} URLs, {len(ANSWERS)} lookups, "
        f"{len(REDIRECTS)} redirects, {len(BESIDE)} neighbours of an own origin, {closed} that are closed to all"
    )
    assert tried >= 2_000


# --- a refusal, all the way ------------------------------------------------------------------------------------------


def test_a_refused_url_is_told_when_it_is_registered() -> None:
    for url in PLAINLY_CLOSED:
        with pytest.raises(AddressRefusedError) as refused:
            check_webhook_url(url.replace("{}", "8443"), EgressPolicy())
        assert "HUSH" not in str(refused.value)


def test_a_refused_webhook_ends_its_delivery_at_once_and_says_why() -> None:
    got = WebhookClient(resolver=HERE).post("https://hooks.example.com/x?sig=HUSH", {}, b"{}")
    delivery = new_delivery(
        task_id="t",
        owner="o",
        event="task.completed",
        endpoint_id="e",
        receiver="hooks.example.com",
        url="https://hooks.example.com/x?sig=HUSH",
        slot=0,
        ttl=None,
        now=START,
    )
    after = judge(delivery, got, START, 0.5)
    assert (after.state, after.due_at, after.last_error) == (DeliveryState.REFUSED, None, "address_refused")
    assert got.detail == "hooks.example.com leads to an address that may not be reached"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://cdn.example.com/v.mp4?sig=HUSH", "cdn.example.com leads to an address that may not be reached"),
        ("http://169.254.169.254/v.mp4?sig=HUSH", "169.254.169.254 may only be reached over https"),
        ("https://me:HUSH@cdn.example.com/v.mp4", "the URL must not contain a user name or password"),
    ],
)
def test_a_refused_source_ends_the_copy_at_once_and_says_why_without_the_query(url: str, why: str) -> None:
    archive = Archive(lambda: cast("S3Client", object()), "videos", Downloader(resolver=HERE), max_bytes=1000)
    with pytest.raises(SourceRefusedError, match=why) as refused:
        archive.store(
            prefix="default/t",
            n=1,
            source=Source(FileKind.VIDEO, url),
            connection=FOREIGN,
            upload=None,
            checkpoint=lambda upload: None,
            seconds_left=lambda: 100.0,
        )
    assert "HUSH" not in str(refused.value)


def test_a_refused_poll_is_the_operators_to_mend_and_says_why() -> None:
    own = Connection(name="farm", type="jimmy", base_url="http://farm.example.com")
    said = poll("http://farm.example.com/x?key=HUSH", Leads("169.254.169.254"), own)
    assert said == (
        "the connection's address may not be reached: farm.example.com leads to an address that may not be reached"
    )
