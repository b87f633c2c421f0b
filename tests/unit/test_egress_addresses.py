from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.util import parse_url

from renderbell.addresses import (
    EgressPolicy,
    check_public_target,
    check_webhook_url,
    is_public,
    own_origins,
    parse_target,
    permits_own,
    permits_public,
)
from renderbell.errors import AddressRefusedError, ConfigurationError

REFUSED_V4 = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16",
    "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
]  # fmt: skip


@pytest.mark.parametrize("cidr", REFUSED_V4)
def test_refused_ipv4_ranges_are_refused_from_the_first_to_the_last_address(cidr: str) -> None:
    network = IPv4Network(cidr)
    assert not is_public(str(network[0]))
    assert not is_public(str(network[-1]))
    assert not is_public(f"::ffff:{network[0]}")


@pytest.mark.parametrize("cidr", REFUSED_V4)
def test_the_neighbours_of_a_refused_range_are_judged_on_their_own(cidr: str) -> None:
    network = IPv4Network(cidr)
    for number in (int(network[0]) - 1, int(network[-1]) + 1):
        if 0 <= number < 2**32:
            neighbour = IPv4Address(number)
            inside = any(neighbour in IPv4Network(other) for other in REFUSED_V4)
            assert is_public(str(neighbour)) is not inside


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8", "93.184.216.34", "172.15.255.255", "172.32.0.0", "100.63.255.255", "223.255.255.255",
        "2606:4700:4700::1111", "2001:4860:4860::8888", "2001:200::1", "2600::", "3ffe::1", "::ffff:8.8.8.8",
        "2606:4700:0000:0000:0000:0000:0000:1111",
    ],
)  # fmt: skip
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address) is True


@pytest.mark.parametrize(
    "address",
    [
        "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "64:ff9b::7f00:1",
        "64:ff9b::808:808", "64:ff9b:1::1", "::127.0.0.1", "::8.8.8.8", "100::1", "2001::1", "2001:1ff::1",
        "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "2620:4f:8000::1", "3fff::1", "3fff:fff:ffff::1", "4000::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0:8.8.8.8", "0:0:0:0:0:ffff:7f00:1",
        "fe80::5efe:127.0.0.1", "2600::5efe:10.0.0.1", "2600::200:5efe:10.0.0.1",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
    ],
)  # fmt: skip
def test_ipv6_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert is_public(address) is False


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "example.com", "8.8.8.8 ", " 8.8.8.8", "8.8.8.8\n", "8.8.8", "8.8.8.8.8", "134744072", "0x08080808",
        "010.8.8.8", "08.8.8.8", "8.8.8.8/32", "[2606:4700::1]", "2606:4700::1%0", "2606:4700::1%", "8.8.8.8%1", "::g",
        "\uff18.8.8.8", "8。8.8.8", "1:2", "::ffff:8.8.8", "http://8.8.8.8",
    ],
)  # fmt: skip
def test_whatever_is_not_plainly_an_address_is_not_public(text: str) -> None:
    assert is_public(text) is False


@settings(deadline=None)
@given(st.text(max_size=50))
def test_any_text_gets_a_verdict(text: str) -> None:
    assert is_public(text) in {True, False}


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_judged_as_the_one_inside(address: IPv4Address) -> None:
    assert is_public(f"::ffff:{address}") is is_public(str(address))


@settings(deadline=None)
@given(st.ip_addresses(v=6))
def test_only_global_unicast_and_mapped_addresses_are_public(address: IPv6Address) -> None:
    if is_public(str(address)):
        assert address.ipv4_mapped is not None or int(address) >> 125 == 1


CLOSED_TO_ALL = [
    "169.254.169.254", "169.254.170.2", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.255", "::", "fd00:ec2::254",
    "ff02::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "fe80::1%eth0", "nonsense",
    "::169.254.169.254", "::ffff:0:169.254.169.254", "64:ff9b:1::a9fe:a9fe", "fd12::5efe:a9fe:a9fe",
    "2600::200:5efe:169.254.170.2", "2001:0:a9fe:a9fe::1", "2001:0:1:2::5601:5601", "fd00:ec2::23", "::0.0.0.2",
]  # fmt: skip


@pytest.mark.parametrize("address", CLOSED_TO_ALL)
def test_some_addresses_stay_closed_whatever_the_operator_opens(address: str) -> None:
    everything = EgressPolicy.from_settings(True, ["0.0.0.0/0", "::/0"])
    assert not everything.permits(address, usual_port=True)
    assert not permits_own(address, usual_port=True)
    assert not permits_public(address, usual_port=True)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "192.168.0.5", "::1", "fd12::1", "8.8.8.8"])
def test_an_own_origin_may_be_private(address: str) -> None:
    assert permits_own(address, usual_port=False)


def test_a_policy_opens_only_its_own_ranges() -> None:
    policy = EgressPolicy.from_settings(False, ["10.20.0.0/16", "fd12::/32", ""])
    assert policy.permits("10.20.3.4", usual_port=False)
    assert policy.permits("::ffff:10.20.3.4", usual_port=True)
    assert policy.permits("fd12::1", usual_port=True)
    assert policy.permits("8.8.8.8", usual_port=True)
    assert not policy.permits("8.8.8.8", usual_port=False)
    assert not policy.permits("10.21.0.1", usual_port=True)
    assert not policy.permits("127.0.0.1", usual_port=True)


@pytest.mark.parametrize("cidr", ["10.0.0.1/8", "loopback", "10.0.0.0/33"])
def test_an_unreadable_range_is_a_configuration_error(cidr: str) -> None:
    with pytest.raises(ConfigurationError, match="AllowedPrivateCidrs"):
        EgressPolicy.from_settings(False, [cidr])


TRICKS = [
    r"http://127.0.0.1\@example.com/",
    r"https://example.com\@127.0.0.1/",
    r"https:\\example.com/",
    "http://%31%32%37.0.0.1/",
    "https://example.com%2f@127.0.0.1/",
    "https://user@example.com/",
    "https://user:secret@example.com/",
    "https://@example.com/",
    "https://example.com@127.0.0.1/",
    "https://example.com:pass@127.0.0.1:80/",
    "https://exa mple.com/",
    "https://example.com/a b",
    "https://exam\tple.com/",
    "https://example.com/\r\nHost: internal",
    "https://example.com/\x00",
    " https://example.com/",
    "https://example.com/\u2028",
    "https://\u200bexample.com/",
    "https://\uff11\uff12\uff17.0.0.1/",
    "https://127。0。0。1/",
    "https://ⓔxample.com/",
    "https://①②⑦.0.0.1/",
    "https://2130706433/",
    "https://0x7f.1/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://127.1/",
    "https://0/",
    "https://127.0.0.1./",
    "https://1.2.3.256/",
    "https://[::1%25lo]/",
    "https://[::1%lo]/",
    "https://[::1/",
    "https://[127.0.0.1]/",
    "https://[v1.fe]/",
    "https://::1/",
    "https:///path",
    "https://",
    "https:/example.com/",
    "https:example.com",
    "//example.com/",
    "example.com",
    "",
    "ftp://example.com/",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "https://example.com:0/",
    "https://example.com:65536/",
    "https://example.com:-1/",
    "https://example.com:port/",
    "https://example.com:\u0661/",
    "https://.example.com/",
    "https://example..com/",
    "https://-example.com/",
    "https://" + "a" * 64 + ".com/",
    "https://" + "a." * 127 + "com/",
    "https://ex+ample.com/",
    "https://exa<mple.com/",
    "https://\ud800.com/",
]


@pytest.mark.parametrize("url", TRICKS)
def test_a_url_that_could_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(AddressRefusedError):
        parse_target(url)


@pytest.mark.parametrize(
    ("url", "origin", "uri"),
    [
        ("https://example.com", ("https", "example.com", 443), "/"),
        ("HTTPS://Example.COM:443/A?b=C#d", ("https", "example.com", 443), "/A?b=C"),
        ("http://example.com:8080/x", ("http", "example.com", 8080), "/x"),
        ("https://example.com.:/", ("https", "example.com.", 443), "/"),
        ("https://my_service.example.com/", ("https", "my_service.example.com", 443), "/"),
        ("https://bücher.example/ü", ("https", "xn--bcher-kva.example", 443), "/%C3%BC"),
        ("http://127.0.0.1:49152/hook", ("http", "127.0.0.1", 49152), "/hook"),
        ("https://[2606:4700::1111]:8443/", ("https", "[2606:4700::1111]", 8443), "/"),
        ("https://example.com/a@b:c?d=e@f\u00e9", ("https", "example.com", 443), "/a@b:c?d=e@f%C3%A9"),
        ("https://example.com?x=/y", ("https", "example.com", 443), "/?x=/y"),
    ],
)
def test_a_plain_url_is_read_once_and_for_all(url: str, origin: tuple[str, str, int], uri: str) -> None:
    target = parse_target(url)
    assert (target.origin, target.uri) == (origin, uri)
    assert parse_target(target.url) == target


@settings(deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"https?://[^/]{0,20}(/.{0,10})?", fullmatch=True))
def test_what_is_accepted_has_one_reading_and_everything_else_is_refused(url: str) -> None:
    try:
        target = parse_target(url)
    except AddressRefusedError:
        return
    assert parse_url(url).host == target.host
    assert parse_target(target.url) == target
    assert target.host.isascii()


def test_own_origins_are_compared_by_scheme_host_and_port() -> None:
    own = own_origins("http://10.0.0.5:8080/api", None, "https://media.example.com")
    assert own == {("http", "10.0.0.5", 8080), ("https", "media.example.com", 443)}


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "https://example.com:8443/", "https://localhost/", "https://a.localhost/",
        "https://nas.local/", "https://x.internal/", "https://x.home.arpa/", "https://x.localdomain/", "https://nas/",
        "https://nas./", "https://localhost./", "https://10.0.0.1/", "https://127.0.0.1/", "https://[::1]/",
        "https://[::ffff:10.0.0.1]/", "https://169.254.169.254/latest/meta-data/",
    ],
)  # fmt: skip
def test_foreign_hosts_are_public_https_on_the_usual_port_or_refused(url: str) -> None:
    with pytest.raises(AddressRefusedError):
        check_public_target(parse_target(url))
    with pytest.raises(AddressRefusedError):
        check_webhook_url(url, EgressPolicy())


@pytest.mark.parametrize("url", ["https://example.com/x", "https://93.184.216.34/", "https://[2606:4700::1111]/"])
def test_public_https_is_accepted(url: str) -> None:
    check_public_target(parse_target(url))
    check_webhook_url(url, EgressPolicy())


def test_the_local_stack_opens_loopback_on_any_port_and_nothing_else() -> None:
    local = EgressPolicy.from_settings(True, ["127.0.0.0/8"])
    check_webhook_url("http://127.0.0.1:49152/hook", local)
    check_webhook_url("http://example.com/hook", local)
    check_webhook_url("http://receiver.test:8080/hook", local)  # the resolved address decides
    for url in ("http://10.0.0.1/hook", "http://8.8.8.8:8080/", "http://localhost:49152/", "http://169.254.169.254/"):
        with pytest.raises(AddressRefusedError):
            check_webhook_url(url, local)


def test_plain_http_needs_the_operators_word() -> None:
    with pytest.raises(AddressRefusedError, match="https"):
        check_webhook_url("http://example.com/", EgressPolicy())
    check_webhook_url("http://example.com/", EgressPolicy(allow_http=True))


def test_a_very_long_webhook_url_is_refused() -> None:
    check_webhook_url("https://example.com/" + "a" * 2000, EgressPolicy())
    with pytest.raises(AddressRefusedError, match="longer"):
        check_webhook_url("https://example.com/" + "a" * 2100, EgressPolicy())


def test_a_refusal_does_not_repeat_the_path_or_query() -> None:
    with pytest.raises(AddressRefusedError) as refused:
        check_webhook_url("https://10.0.0.1/path?token=hush", EgressPolicy())
    assert "hush" not in str(refused.value)
    assert "path" not in str(refused.value)
