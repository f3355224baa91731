"""Pure: no clock, no socket, no await.

Writes netlink questions about one address and reads the kernel's answers: the route to the address
(RTM_GETROUTE) and the card that has it (RTM_GETNEIGH).  See rtnetlink(7).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

import attrs

_HEAD: Final = struct.Struct("=IHHII")  # length, kind, flags, number, port
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # family, bits, ..., type, flags
_NEIGHBOUR: Final = struct.Struct("=BxHiHBB")  # family, interface, state, flags, type
_ERROR: Final = struct.Struct("=i")
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, kind
_INDEX: Final = struct.Struct("=i")

_ERROR_KIND: Final = 2
_ROUTE_KINDS: Final = (24, 26)  # the answer, the question
_NEIGHBOUR_KINDS: Final = (28, 30)
_REQUEST: Final = 1
_FAMILIES: Final = {4: 2, 16: 10}  # bytes of an address -> AF_INET, AF_INET6

_UNICAST, _LOCAL = 1, 2  # types of a route
_DESTINATION, _INTERFACE, _GATEWAY, _VIA = 1, 4, 5, 18  # attributes of a route
_CARD: Final = 2  # attribute of a neighbour; present only while the kernel would send to it
_MAC_BYTES: Final = 6


@attrs.frozen
class Way:
    """The route of packets to an address."""

    interface: int = 0  # its index
    local: bool = False  # the address is our own
    gateway: bool = False  # via a router


def ask_way(address: bytes, number: int) -> bytes:
    """Returns the question for the route to `address`."""
    family, bits = _FAMILIES[len(address)], 8 * len(address)
    about = _ROUTE.pack(family, bits, 0, 0, 0, 0, 0, 0, 0)
    return _question(_ROUTE_KINDS[1], about, address, number)


def ask_card(address: bytes, interface: int, number: int) -> bytes:
    """Returns the question for the card that has `address` on the link of `interface`."""
    about = _NEIGHBOUR.pack(_FAMILIES[len(address)], 0, interface, 0, 0, 0)
    return _question(_NEIGHBOUR_KINDS[1], about, address, number)


def way(data: bytes, number: int) -> Way | None:
    """Returns the route in an answer; None: it answers another question.

    Raises OSError with the kernel's error, and if the kernel sends nothing to such an address.
    """
    found = _answer(data, number, _ROUTE_KINDS[0], _ROUTE.size)
    if found is None:
        return None
    about, more = found
    kind = _ROUTE.unpack(about)[7]
    if kind == _LOCAL:
        return Way(local=True)
    if kind != _UNICAST or _INTERFACE not in more:
        raise OSError("the kernel has no way to such an address")
    (interface,) = _INDEX.unpack(more[_INTERFACE])
    return Way(interface, gateway=_GATEWAY in more or _VIA in more)


def card(data: bytes, number: int) -> str | None:
    """Returns the MAC in an answer; empty: the kernel has none; None: it answers another question.

    Raises OSError with the kernel's error.
    """
    found = _answer(data, number, _NEIGHBOUR_KINDS[0], _NEIGHBOUR.size)
    if found is None:
        return None
    mac = found[1].get(_CARD, b"")
    return mac.hex(":") if len(mac) == _MAC_BYTES and any(mac) else ""


def _question(kind: int, about: bytes, address: bytes, number: int) -> bytes:
    body = about + _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address), _DESTINATION) + address
    return _HEAD.pack(_HEAD.size + len(body), kind, _REQUEST, number, 0) + body


def _answer(
    data: bytes, number: int, kind: int, size: int
) -> tuple[bytes, Mapping[int, bytes]] | None:
    length, said, _, of, _ = _HEAD.unpack_from(data)
    if of != number:
        return None
    body = data[_HEAD.size : length]
    if said == _ERROR_KIND:
        (error,) = _ERROR.unpack_from(body)
        raise OSError(-error, f"error {-error}")
    if said != kind:
        raise OSError(f"the kernel answers a question of kind {kind} with {said}")
    return body[:size], _attributes(body[size:])


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break  # malformed: with a length of 0 this loop would never end
        found[kind] = data[_ATTRIBUTE.size : length]
        data = data[length + -length % 4 :]
    return found
