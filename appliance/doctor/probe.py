"""Asks the network as a box would: DHCPDISCOVER on an interface, the first block by TFTP.

The question is sent twice, with the same transaction id: as a raw frame, as a box without an
address sends it; and through the kernel, since only the kernel loops a broadcast back to a DHCP
server on this machine.  Answers are read from a raw socket, which also sees the answers that this
machine sends, and from the kernel's socket, since without a cable the raw socket sees nothing.
No lease is taken: no server that leases addresses is sent a REQUEST.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import select
import socket
import struct
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import attrs

from appliance.doctor import dhcp

# dnsmasq pings an address for 3 s before it offers the address to a new client.
ANSWER_S: Final = 5.0
# When the question is repeated, for a busy server or a switch port that has just come up.
AGAIN_S: Final = 2.0
TFTP_S: Final = 3.0
PROXY_S: Final = 2.0
EVERYBODY: Final = "255.255.255.255"
_ETH_P_ALL: Final = 3
_FRAME_MAX: Final = 65536


@attrs.frozen
class Answers:
    """The offers on one interface, each with the kind of box it was made to."""

    interface: str
    offers: tuple[tuple[dhcp.Asked, dhcp.Offer], ...] = ()
    trouble: str = ""  # why nothing could be asked


def discover(
    interface: str, asked: Sequence[dhcp.Asked], mac: str | None = None, patience: float = ANSWER_S
) -> Answers:
    """Collects offers for `patience` seconds; `mac` is the interface's own by default."""
    try:
        with _raw(interface) as raw, _looped(interface) as looped:
            card = bytes.fromhex(mac.replace(":", "")) if mac else raw.getsockname()[4]
            if len(card) != 6:
                return Answers(interface, trouble="it has no Ethernet address")
            offers = _collect(raw, looped, card, asked, patience)
        return Answers(interface, tuple((each, _completed(each, o, card)) for each, o in offers))
    except PermissionError:
        return Answers(interface, trouble="to ask as a box does, root is needed")
    except OSError as error:
        absent = error.errno in (errno.ENODEV, errno.ENXIO)
        why = "there is no such interface" if absent else error.strerror or str(error)
        return Answers(interface, trouble=why)


def discover_all(
    interfaces: Sequence[str],
    asked: Sequence[dhcp.Asked],
    mac: str | None = None,
    patience: float = ANSWER_S,
) -> list[Answers]:
    """Runs `discover` on several interfaces at once; takes `patience` seconds in all."""

    def ask(name: str) -> Answers:
        return discover(name, asked, mac, patience)

    with ThreadPoolExecutor(len(interfaces) or 1) as several:
        return list(several.map(ask, interfaces))


def _raw(interface: str) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    try:
        raw.bind((interface, _ETH_P_ALL))
    except OSError:
        raw.close()
        raise
    return raw


def _looped(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        with contextlib.suppress(OSError):  # a DHCP client here may have the port for itself
            sock.bind((EVERYBODY, dhcp.CLIENT_PORT))  # not its unicast answers
    except OSError:
        sock.close()
        raise
    return sock


def _collect(
    raw: socket.socket,
    looped: socket.socket,
    card: bytes,
    asked: Sequence[dhcp.Asked],
    patience: float,
) -> list[tuple[dhcp.Asked, dhcp.Offer]]:
    questions = {secrets.randbits(32): each for each in asked}
    found: dict[tuple[str, str], tuple[dhcp.Asked, dhcp.Offer]] = {}
    began = time.monotonic()
    due = began
    while (now := time.monotonic()) < began + patience:
        if due <= now:
            for transaction, each in questions.items():
                _send(raw, looped, card, dhcp.discover(card, transaction, each))
            due = now + AGAIN_S if now < began + AGAIN_S else began + patience
        readable, _, _ = select.select([raw, looped], [], [], min(due, began + patience) - now)
        for sock in readable:
            data, (source, *_) = sock.recvfrom(_FRAME_MAX)
            offer = dhcp.offer(data) if sock is raw else dhcp.offer_in(data, source)
            if offer is not None and offer.transaction in questions:
                each = questions[offer.transaction]
                known = found.get((each.word, offer.server))
                if known is None or not known[1].mac:
                    found[each.word, offer.server] = (each, offer)
    return list(found.values())


def _completed(asked: dhcp.Asked, offer: dhcp.Offer, card: bytes) -> dhcp.Offer:
    """Completes an offer with the file that a proxyDHCP server names only in a second answer."""
    if not offer.proxy or offer.file:
        return offer
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PROXY_S)
        try:
            request = dhcp.request_proxy(card, offer.transaction, asked)
            sock.sendto(request, (offer.server, dhcp.PROXY_PORT))
            data, (source, *_) = sock.recvfrom(_FRAME_MAX)
        except OSError:
            return offer
    told = dhcp.answer_of_proxy(data, source)
    if told is None or told.transaction != offer.transaction:
        return offer
    return attrs.evolve(offer, file=told.file, next_server=told.next_server)


def _send(raw: socket.socket, looped: socket.socket, card: bytes, payload: bytes) -> None:
    raw.send(dhcp.frame(card, payload))
    try:
        looped.sendto(payload, (EVERYBODY, dhcp.SERVER_PORT))
    except OSError as error:
        # Without an address this machine runs no DHCP server either.
        if error.errno not in (errno.ENETUNREACH, errno.EADDRNOTAVAIL):
            raise


@attrs.frozen
class Block:
    """The first block of a file, or why it could not be loaded."""

    data: bytes = b""
    trouble: str = ""


def first_block(server: str, file: str) -> Block:
    """Loads the first block of `file` by TFTP (RFC 1350), then aborts the transfer."""
    request = b"\0\1" + file.encode() + b"\0octet\0"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TFTP_S)
        try:
            sock.sendto(request, (server, 69))
            data, peer = sock.recvfrom(_FRAME_MAX)
            (code,) = struct.unpack_from("!H", data)
            if code == 3:
                sock.sendto(b"\0\5\0\0called off\0", peer)
                return Block(data[4:])
            return Block(trouble=data[4:].split(b"\0")[0].decode("ascii", "replace"))
        except (TimeoutError, ConnectionRefusedError):
            return Block(trouble=f"{server} does not answer TFTP")
        except (OSError, struct.error) as error:
            return Block(trouble=str(error))
