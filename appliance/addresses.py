"""Pure: no clock, no socket, no await.

Gives each address one form.  A socket for both families shows 10.0.0.5 as `::ffff:10.0.0.5`, IPv6
can be written in many ways, and every check compares text: so the doors normalise each address
that comes in, and no other room sees another form.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Sequence
from typing import Any, Final

import attrs

_CARD: Final = re.compile(r"[0-9a-fA-F]{2}([:-]?)(?:[0-9a-fA-F]{2}\1){4}[0-9a-fA-F]{2}\Z")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED_BITS = 96  # of ::ffff:0:0/96, which has all of IPv4 in it


def normal(text: str) -> str:
    """Normalises an address: a mapped one to IPv4, other IPv6 to lower case and compressed.

    Drops the zone of a link-local address, which names our own interface and not the other end.
    Returns text that is no address unchanged.
    """
    if ":" not in text:
        return text  # IPv4, which the kernel writes in one form
    try:
        address = ipaddress.IPv6Address(text.partition("%")[0])
    except ValueError:
        return text
    return str(address.ipv4_mapped or address)


def end(name: Sequence[Any]) -> tuple[str, int]:
    """Returns address and port of one end of a connection, from its socket's name."""
    return normal(name[0]), name[1]


def in_url(host: str) -> str:
    """Returns `host` as written in a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def network(text: str) -> Network:
    """Parses a network; an address alone is a network of one.  Raises ValueError."""
    found = ipaddress.ip_network(text, strict=False)
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= _MAPPED_BITS:
        first = found.network_address.ipv4_mapped
        if first is not None:
            return ipaddress.ip_network(f"{first}/{found.prefixlen - _MAPPED_BITS}")
    return found


def card(text: str) -> str:
    """Normalises a MAC address to aa:bb:cc:dd:ee:ff.  Raises ValueError."""
    if not _CARD.match(text):
        raise ValueError(f"{text[:40]!r} is no MAC address")
    digits = re.sub(r"[:-]", "", text).lower()
    return ":".join(digits[n : n + 2] for n in range(0, 12, 2))


@attrs.frozen
class Machine:
    """The network of one or more machines, and their cards; no cards: any card."""

    network: Network
    cards: tuple[str, ...] = ()


def machine(text: str) -> Machine:
    """Parses `10.0.0.9`, `10.0.0.9 52:54:00:00:00:09` or `10.0.0.0/24`.  Raises ValueError."""
    words = text.split()
    return Machine(network(words[0] if words else ""), tuple(card(word) for word in words[1:]))


@functools.lru_cache(1000)  # as for _networks
def machines(texts: tuple[str, ...]) -> tuple[Machine, ...]:
    """Parses several machines."""
    return tuple(machine(text) for text in texts)


def machines_at(address: str, texts: tuple[str, ...]) -> list[Machine]:
    """Returns the machines in `texts` whose network holds an address in its normal form."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return []
    return [each for each in machines(texts) if found in each.network]


@functools.lru_cache(1000)  # configurations: a server has one, tests have several
def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(network(text) for text in texts)


def is_in(address: str, networks: tuple[str, ...]) -> bool:
    """Whether an address, in its normal form, is in one of `networks`; other text never is."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in each for each in _networks(networks))


def is_loopback(address: str) -> bool:
    """Whether an address is used only within this machine."""
    return is_in(address, ("127.0.0.0/8", "::1"))


def is_own(client: str, server: str) -> bool:
    """Whether a connection from `client` to `server` comes from this machine itself.

    Only this machine can connect from the address that it connects to.  All users with a shell
    here come from such addresses, and count as one client.
    """
    return client == server or is_loopback(client)


def is_link_local(address: str) -> bool:
    """Whether an IPv6 address is link-local: it may be another machine's on each link."""
    return is_in(address, ("fe80::/10",))
