"""Pure: no clock, no socket, no await.

One form for each address.  A socket that serves both families shows 10.0.0.5 as `::ffff:10.0.0.5`,
IPv6 can be written in many ways, and every check compares text: so what comes in at a door gets
its normal form there, and nobody behind the doors sees another.
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
    """The one form of an address: IPv4 where it is IPv4 in IPv6, else lower case and compressed.

    The zone of a link-local address is dropped: it is a name of our own, and says nothing of the
    other end.  What is no address stays as it is.
    """
    if ":" not in text:
        return text  # as the kernel writes it
    try:
        address = ipaddress.IPv6Address(text.partition("%")[0])
    except ValueError:
        return text
    return str(address.ipv4_mapped or address)


def end(name: Sequence[Any]) -> tuple[str, int]:
    """Address and port of one end of a connection, from what its socket says."""
    return normal(name[0]), name[1]


def in_url(host: str) -> str:
    """`host` as a URL has it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def network(text: str) -> Network:
    """The network that `text` names: an address alone is a network of one.  Raises ValueError."""
    found = ipaddress.ip_network(text, strict=False)
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= _MAPPED_BITS:
        first = found.network_address.ipv4_mapped
        if first is not None:
            return ipaddress.ip_network(f"{first}/{found.prefixlen - _MAPPED_BITS}")
    return found


def card(text: str) -> str:
    """The MAC address `text` as aa:bb:cc:dd:ee:ff.  Raises ValueError."""
    if not _CARD.match(text):
        raise ValueError(f"{text[:40]!r} is no MAC address")
    digits = re.sub(r"[:-]", "", text).lower()
    return ":".join(digits[n : n + 2] for n in range(0, 12, 2))


@attrs.frozen
class Machine:
    """Where a machine is, or several are, and which cards it has; none named: any."""

    network: Network
    cards: tuple[str, ...] = ()


def machine(text: str) -> Machine:
    """The one in `10.0.0.9`, `10.0.0.9 52:54:00:00:00:09` or `10.0.0.0/24`.  Raises ValueError."""
    words = text.split()
    return Machine(network(words[0] if words else ""), tuple(card(word) for word in words[1:]))


@functools.lru_cache(1000)  # as below
def machines(texts: tuple[str, ...]) -> tuple[Machine, ...]:
    """All of them."""
    return tuple(machine(text) for text in texts)


def machines_at(address: str, texts: tuple[str, ...]) -> list[Machine]:
    """Those of `texts` that an address, in its normal form, may be."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return []
    return [each for each in machines(texts) if found in each.network]


@functools.lru_cache(1000)  # configurations: a server has one, its tests some
def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(network(text) for text in texts)


def is_in(address: str, networks: tuple[str, ...]) -> bool:
    """Whether an address, in its normal form, lies in one of `networks`; nothing else does."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in each for each in _networks(networks))


def is_loopback(address: str) -> bool:
    """Whether an address never comes from outside this machine."""
    return is_in(address, ("127.0.0.0/8", "::1"))


def is_own(client: str, server: str) -> bool:
    """Whether a connection from `client` to `server` comes from this very machine.

    Nobody else can hold one from the address that it is made to.  Everybody who has a shell here
    comes so, and all of them are one.
    """
    return client == server or is_loopback(client)


def is_link_local(address: str) -> bool:
    """Whether an IPv6 address names nobody without its zone: on each link it may be another's."""
    return is_in(address, ("fe80::/10",))
