"""Pure: no clock, no socket, no await.

One form for each address.  A socket that serves both families shows 10.0.0.5 as `::ffff:10.0.0.5`,
IPv6 can be written in many ways, and every check compares text: so what comes in at a door gets
its normal form there, and nobody behind the doors sees another.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence
from typing import Any

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
