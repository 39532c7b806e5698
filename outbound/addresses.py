"""Which addresses we call: judged as the text that a caller gave, and again as the IP addresses it leads to.

Parsed once, so what is judged is what is called. Asks no server anything, not even for a name.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urljoin

import httpx

from config import Settings, split_list
from errors import AddressRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LONGEST_URL = 2000  # characters
NOT_PUBLIC = (
    "The address leads into a network that is not public. Give one that is reachable from the internet, "
    "or have the operator open that network (OUTBOUND_ALLOW)."
)

_DNS_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_ENDS_IN_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")  # 2130706433, 127.1: an IPv4 address in disguise

# IANA's special-purpose registries, in our own words: what `ipaddress` takes for global differs between Pythons.
_IPV4_NOT_PUBLIC = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 "
        "192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 "
        "168.63.129.16/32"  # looks public, but is the host that serves every machine of Azure
    ).split()
)
_IPV6_UNICAST = IPv6Network("2000::/3")
_IPV6_NOT_PUBLIC = tuple(IPv6Network(block) for block in ("2001::/23", "2001:db8::/32", "3fff::/20"))
_NAT64 = IPv6Network("64:ff9b::/96")
_LOOPBACK = IPv4Address("127.0.0.1")

_NO_ADDRESS = "This is no address that we call. Expected http:// or https://, a host, and no more than a port and path."


def networks(settings: Settings) -> tuple[Network, ...]:
    """That callers' addresses may lead into although they are not public."""
    return tuple(ip_network(part, strict=False) for part in split_list(settings.outbound_allow))


def check_url(url: str, allow: Sequence[Network]) -> None:
    """What can be said without DNS. Raises AddressRefused."""
    parsed_url(url, allow)


def is_public(address: Address, allow: Sequence[Network]) -> bool:
    """Global unicast, in every layer of it, or in one of the networks that the operator has opened."""
    if any(address in network for network in allow):
        return True
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _IPV4_NOT_PUBLIC)
    if address.scope_id is not None:
        return False
    if inner := _embedded(address):
        return all(is_public(ipv4, allow) for ipv4 in inner)
    return address in _IPV6_UNICAST and not any(address in network for network in _IPV6_NOT_PUBLIC)


def _embedded(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """Where packets to it come out as IPv4."""
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    if address.teredo:
        return address.teredo
    inner = address.ipv4_mapped or address.sixtofour
    return (inner,) if inner else ()


def parsed_url(url: str, allow: Sequence[Network]) -> httpx.URL:
    """What is judged here is, piece for piece, what is called."""
    _refuse_text(url)
    try:
        parsed = httpx.URL(url).copy_with(fragment=None)
    except (httpx.InvalidURL, ValueError):
        raise AddressRefused(_NO_ADDRESS) from None
    if parsed.scheme not in ("http", "https") or not parsed.raw_host:
        raise AddressRefused(_NO_ADDRESS)
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise AddressRefused("The port is not a number from 1 to 65535.")
    _refuse_host(parsed.raw_host.decode("ascii").lower().removesuffix("."), allow)
    return parsed


def _refuse_text(url: str) -> None:
    """What parsers disagree about."""
    if len(url) > LONGEST_URL:
        raise AddressRefused(f"The address has {len(url)} characters. Expected at most {LONGEST_URL}.")
    if not url.isprintable() or " " in url or "\\" in url:
        raise AddressRefused("The address holds a space, a backslash or a control character. Percent-encode it.")
    authority = re.split("[/?#]", url.partition("://")[2], maxsplit=1)[0]
    if "@" in authority:
        raise AddressRefused("The address holds a user name or a password. Give one without.")


def _refuse_host(host: str, allow: Sequence[Network]) -> None:
    address = _LOOPBACK if host == "localhost" or host.endswith(".localhost") else literal_address(host)
    if address is not None:
        if not is_public(address, allow):
            raise AddressRefused(NOT_PUBLIC)
    elif _ENDS_IN_NUMBER.fullmatch(host):
        raise AddressRefused("The host is an unusual form of an IP address. Write it as four decimal numbers.")
    elif not _DNS_NAME.fullmatch(host):
        raise AddressRefused("The host is neither a name nor an IP address. Check the address.")


def literal_address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def redirected(url: httpx.URL, location: str, allow: Sequence[Network]) -> httpx.URL:
    try:
        target = parsed_url(urljoin(str(url), location), allow)
    except AddressRefused as error:
        raise AddressRefused(f"The server redirects to another address. {error}") from None
    except ValueError:
        raise AddressRefused(f"The server redirects to another address. {_NO_ADDRESS}") from None
    if url.scheme == "https" and target.scheme == "http":
        raise AddressRefused("The server redirects from https to http. Give the recording's own address.")
    return target
