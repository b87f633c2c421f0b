"""Which URLs and addresses may be reached: pure judgement, no lookups and no connections.

Every URL that a user or a provider can choose goes through `parse_target`, once; what it returns is what is dialled.
One parser does both, because two parsers disagree on hostile input. The text of a host is never trusted for its
address (`2130706433` and `0x7f.1` are loopback for every resolver): the resolver's answers are judged by `is_public`
or by an `EgressPolicy`. The lists are explicit, because `ipaddress.is_global` says True for some NAT64, v4-compatible
and multicast addresses and changes with the patch release.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple, Protocol

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from renderbell.errors import AddressRefusedError, ConfigurationError

__all__ = [
    "DEFAULT_PORTS",
    "EgressPolicy",
    "Origin",
    "Permits",
    "Target",
    "authority_prefix",
    "check_public_target",
    "check_webhook_url",
    "is_public",
    "own_origins",
    "parse_target",
    "permits_own",
    "permits_public",
]

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_WEBHOOK_URL = 2048

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
Origin = tuple[str, str, int]  # scheme, host, port

_REFUSED_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Only global unicast is public; that leaves out loopback, ULA, link-local, NAT64 and multicast without naming them.
_GLOBAL_V6 = IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)

# Closed to everybody, whatever an operator opens: instance credentials, "this host", multicast.
_NEVER_V4 = tuple(IPv4Network(text) for text in ("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4"))
_NEVER_V6 = tuple(IPv6Network(text) for text in ("::/128", "fd00:ec2::/32", "ff00::/8"))
# The last 32 bits are an IPv4 address: v4-compatible, SIIT, NAT64 and its local form.
_LAST_IS_V4 = tuple(IPv6Network(text) for text in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"))
_ISATAP = {b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe"}

_REFUSED_NAMES = {"localhost", "localdomain", "local", "internal"}
_REFUSED_SUFFIXES = (".localhost", ".localdomain", ".local", ".internal", ".home.arpa")

_SCHEME_AND_AUTHORITY = re.compile(r"(https?)://([^/?#]*)", re.IGNORECASE)
_UNWANTED = re.compile(r"[\x00-\x20\x7f-\xa0\\\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]")
_NAME = re.compile(r"(?=.{1,254}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?")
_ENDS_IN_NUMBER = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)\.?")


def is_public(address: str) -> bool:
    """Whether an IP address, in text, is one of the public Internet.

    IPv4-mapped IPv6 addresses are judged as the IPv4 address in them. Whatever is not plainly an address, zone ids
    included, is not public.
    """
    ip = _address(address)
    return ip is not None and _is_public(ip)


class Permits(Protocol):
    """A rule for one resolved address; `usual_port` says that the port is the scheme's own one."""

    def __call__(self, address: str, *, usual_port: bool) -> bool:
        """Whether the address may be dialled."""


def permits_public(address: str, *, usual_port: bool) -> bool:
    """The rule for hosts that a user or a provider chose: public addresses, on the scheme's own port."""
    return usual_port and is_public(address)


def permits_own(address: str, *, usual_port: bool) -> bool:
    """The rule for an operator's own origin: private and loopback too, but nothing that is closed to everybody."""
    ip = _address(address)
    return ip is not None and not _is_closed(ip)


class EgressPolicy(NamedTuple):
    """What webhooks may reach beyond the public Internet on https, by the operator's settings.

    An address within `allowed_private` may be reached on any port; all others only on the scheme's own port.
    """

    allow_http: bool = False
    allowed_private: tuple[IPNetwork, ...] = ()

    @classmethod
    def from_settings(cls, allow_http: bool, cidrs: Sequence[str]) -> EgressPolicy:
        """The policy of the settings `AllowHttpWebhooks` and `AllowedPrivateCidrs`."""
        networks: list[IPNetwork] = []
        for text in filter(None, (cidr.strip() for cidr in cidrs)):
            try:
                networks.append(ip_network(text))
            except ValueError as error:
                raise ConfigurationError(f"AllowedPrivateCidrs: {error}") from None
        return cls(allow_http, tuple(networks))

    def permits(self, address: str, *, usual_port: bool) -> bool:
        """Whether a webhook may go to this resolved address."""
        ip = _address(address)
        if ip is None or _is_closed(ip):
            return False
        return self._opens(ip) or (usual_port and _is_public(ip))

    def check(self, target: Target) -> None:
        """Raises `AddressRefusedError` for a target that no lookup can make acceptable."""
        if target.scheme != "https" and not self.allow_http:
            raise AddressRefusedError("the URL must begin with https://")
        if target.address is not None:
            if not self.permits(target.address, usual_port=target.usual_port):
                raise AddressRefusedError(f"the address {target.host} may not be reached")
            return
        _check_name(target.host)
        if not target.usual_port and not self.allowed_private:  # else the resolved addresses decide
            raise AddressRefusedError(f"port {target.port} is not allowed")

    def _opens(self, ip: IPAddress) -> bool:
        return any(ip in network for network in self.allowed_private if network.version == ip.version)


def check_webhook_url(url: str, policy: EgressPolicy) -> None:
    """Raises `AddressRefusedError`, with a text for the caller, for a webhook URL that can never be delivered to.

    This is for a clear answer at registration. The guard is at the connection, which judges every address that the
    name resolves to.
    """
    if len(url) > MAX_WEBHOOK_URL:
        raise AddressRefusedError(f"the URL is longer than {MAX_WEBHOOK_URL} characters")
    policy.check(parse_target(url))


def check_public_target(target: Target) -> None:
    """Raises `AddressRefusedError` for a target that is not https on a public host's own port."""
    if target.scheme != "https":
        raise AddressRefusedError(f"{target.host} may only be reached over https")
    if not target.usual_port:
        raise AddressRefusedError(f"port {target.port} of {target.host} may not be reached")
    if target.address is None:
        _check_name(target.host)
    elif not is_public(target.address):
        raise AddressRefusedError(f"the address {target.host} may not be reached")


class Target(NamedTuple):
    """A URL as it is dialled: `uri` is the path with the query, `host` has the brackets of an IPv6 address."""

    scheme: str
    host: str
    port: int
    uri: str

    @property
    def origin(self) -> Origin:
        """Scheme, host and port."""
        return self.scheme, self.host, self.port

    @property
    def usual_port(self) -> bool:
        """Whether the port is the scheme's own one."""
        return self.port == DEFAULT_PORTS[self.scheme]

    @property
    def address(self) -> str | None:
        """The IP address that stands in the place of a host name, if one does."""
        text = self.host.strip("[]")
        return text if _address(text) is not None else None

    @property
    def url(self) -> str:
        """The URL in one spelling, without a fragment."""
        port = "" if self.usual_port else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.uri}"


def parse_target(url: str) -> Target:
    """The one reading of a URL; raises `AddressRefusedError` where it could be read in two ways.

    A host is a plain ASCII name (an international one in its encoded form), an IPv4 address in four decimal numbers
    or a bracketed IPv6 address without a zone.
    """
    start = _SCHEME_AND_AUTHORITY.match(url)
    if start is None:
        raise AddressRefusedError("the URL must begin with http:// or https://")
    if _UNWANTED.search(url):
        raise AddressRefusedError("the URL must not contain spaces, control characters or backslashes")
    authority = start[2]
    if "@" in authority:
        raise AddressRefusedError("the URL must not contain a user name or password")
    if "%" in authority:
        raise AddressRefusedError("the host of the URL must not be percent-encoded")
    try:
        parts = parse_url(url)
    except (LocationParseError, ValueError):  # a lone surrogate is a plain ValueError
        raise AddressRefusedError("the URL cannot be read") from None
    if parts.scheme not in DEFAULT_PORTS or not parts.host or parts.auth is not None:
        raise AddressRefusedError("the URL must have a scheme and a host")
    port = DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    if port == 0:
        raise AddressRefusedError("the port of the URL must not be 0")
    _check_host(parts.host)
    return Target(parts.scheme, parts.host, port, parts.request_uri)


@lru_cache(maxsize=512)
def own_origins(*base_urls: str | None) -> frozenset[Origin]:
    """The origins of an operator's own URLs; those that are not set are left out."""
    return frozenset(parse_target(url).origin for url in base_urls if url is not None)


def authority_prefix(url: str) -> str:
    """The text of a URL up to and with the slash after its authority.

    A URL that begins with it has the same authority, to the letter; `parse_target` has judged that one.
    """
    start = _SCHEME_AND_AUTHORITY.match(url)
    if start is None:
        raise AddressRefusedError("the URL must begin with http:// or https://")
    return f"{start[0]}/"


def _check_host(host: str) -> None:
    if host.startswith("["):
        if _address(host.strip("[]")) is None:
            raise AddressRefusedError("the host of the URL is no IPv6 address")
    elif _ENDS_IN_NUMBER.fullmatch(host):  # browsers read these as IPv4, in many spellings
        if _address(host) is None:
            raise AddressRefusedError("the host of the URL is no plain IPv4 address")
    elif not _NAME.fullmatch(host):
        raise AddressRefusedError("the host of the URL is no host name")


def _check_name(host: str) -> None:
    """Refuses, before any lookup, names that can only be local."""
    name = host.removesuffix(".")
    if name in _REFUSED_NAMES or name.endswith(_REFUSED_SUFFIXES) or name == "home.arpa":
        raise AddressRefusedError(f"the host {host} is a local name")
    if "." not in name:
        raise AddressRefusedError(f"the host {host} has no dot")


def _address(text: str) -> IPAddress | None:
    """The address, an IPv4-mapped one unwrapped; None for everything that is not plainly one."""
    if not isinstance(text, str) or "%" in text:
        return None
    try:
        ip = ip_address(text)
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def _is_public(ip: IPAddress) -> bool:
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in _REFUSED_V4)
    return ip in _GLOBAL_V6 and not any(ip in network for network in _REFUSED_V6) and ip.packed[8:12] not in _ISATAP


def _is_closed(ip: IPAddress) -> bool:
    if isinstance(ip, IPv4Address):
        return any(ip in network for network in _NEVER_V4)
    return any(ip in network for network in _NEVER_V6) or any(map(_is_closed, _carried(ip)))


def _carried(ip: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that a translator or a tunnel would carry packets for this address on to."""
    last = IPv4Address(int(ip) & 0xFFFFFFFF)
    if int(ip) > 1 and any(ip in network for network in _LAST_IS_V4):
        yield last
    if ip.packed[8:12] in _ISATAP:
        yield last
    if ip.sixtofour is not None:
        yield ip.sixtofour
    if ip.teredo is not None:
        yield from ip.teredo
