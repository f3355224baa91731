"""Pure: no clock, no socket, no await.

DHCP packets of a booting box (RFC 2131, 2132, 4578): makes a DISCOVER, reads an OFFER.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

import attrs

SERVER_PORT: Final = 67
CLIENT_PORT: Final = 68
PROXY_PORT: Final = 4011
_COOKIE: Final = b"\x63\x82\x53\x63"
_BROADCAST: Final = 0x8000  # flag: broadcast the answer, since the box has no address yet
_HEADER: Final = struct.Struct("!4BIHH4s4s4s4s16s64s128s")
_DISCOVER, _OFFER, _REQUEST, _ACK = 1, 2, 3, 5
_PAD, _LEASE, _OVERLOAD, _TYPE, _SERVER, _CLASS, _TFTP_FILE = 0, 51, 52, 53, 54, 60, 67
_WANTED: Final = bytes((1, 3, 6, 43, 54, 60, 66, 67, 51))
_END: Final = 255
_ETHERTYPE_IP: Final = 0x0800
_UDP: Final = 17


@attrs.frozen
class Asked:
    """How a box identifies itself."""

    word: str  # for messages: "UEFI x86-64 firmware"
    arch: int  # option 93
    ipxe: bool = False  # option 175


@attrs.frozen
class Offer:
    """One server's answer."""

    transaction: int
    server: str  # option 54; if missing, the sender's address
    mac: str  # the sender's card; empty if the offer came through the kernel
    address: str  # offered to the box; "0.0.0.0" if only a boot file is offered (proxyDHCP)
    file: str  # the boot file; empty: none
    next_server: str  # which serves the file
    lease_s: int | None = None  # 0xffffffff: for ever

    @property
    def proxy(self) -> bool:
        """Whether it offers a boot file and no address."""
        return self.address == "0.0.0.0"


def discover(mac: bytes, transaction: int, asked: Asked) -> bytes:
    """Returns the payload of a DHCPDISCOVER."""
    return _message(_DISCOVER, mac, transaction, asked)


def request_proxy(mac: bytes, transaction: int, asked: Asked) -> bytes:
    """Returns the request to a proxyDHCP server's PROXY_PORT, sent if its offer named no file."""
    return _message(_REQUEST, mac, transaction, asked)


def _message(kind: int, mac: bytes, transaction: int, asked: Asked) -> bytes:
    head = _HEADER.pack(
        1, 1, 6, 0, transaction, 0, _BROADCAST,
        b"", b"", b"", b"", mac.ljust(16, b"\0"), b"", b"",
    )  # fmt: skip
    options = [
        _option(_TYPE, bytes((kind,))),
        _option(55, _WANTED),
        _option(57, struct.pack("!H", 1472)),
        _option(_CLASS, b"PXEClient:Arch:%05d:UNDI:003016" % asked.arch),
        _option(93, struct.pack("!H", asked.arch)),
        _option(94, b"\x01\x03\x10"),
        _option(97, b"\0" + mac.rjust(16, b"\0")),
    ]
    if asked.ipxe:
        options.append(_option(175, b"\x01\x01\x01"))
    return head + _COOKIE + b"".join(options) + bytes((_END,))


def frame(mac: bytes, payload: bytes) -> bytes:
    """Wraps `payload` as a box broadcasts it: Ethernet, IPv4 from 0.0.0.0, no UDP checksum."""
    udp = struct.pack("!4H", CLIENT_PORT, SERVER_PORT, 8 + len(payload), 0) + payload
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, _UDP, 0, b"\0" * 4, b"\xff" * 4
    )
    head = head[:10] + struct.pack("!H", _checksum(head)) + head[12:]
    return b"\xff" * 6 + mac + struct.pack("!H", _ETHERTYPE_IP) + head + udp


def offer(packet: bytes) -> Offer | None:
    """Reads the OFFER in an Ethernet frame; None for anything else, however broken."""
    if len(packet) < 14 + 20 + 8 or packet[12:14] != struct.pack("!H", _ETHERTYPE_IP):
        return None
    ip = packet[14:]
    length = (ip[0] & 15) * 4
    udp = ip[length:]
    if ip[0] >> 4 != 4 or ip[9] != _UDP or len(udp) < 8 or udp[2:4] != struct.pack("!H", 68):
        return None
    return offer_in(udp[8:], ".".join(map(str, ip[12:16])), packet[6:12].hex(":"))


def answer_of_proxy(payload: bytes, source: str) -> Offer | None:
    """Reads the answer to `request_proxy`."""
    return offer_in(payload, source, kind=_ACK)


def offer_in(payload: bytes, source: str, mac: str = "", *, kind: int = _OFFER) -> Offer | None:
    """Reads the answer in a datagram's payload, which came from the address `source`."""
    if len(payload) < _HEADER.size + 4 or payload[_HEADER.size : _HEADER.size + 4] != _COOKIE:
        return None
    fields = _HEADER.unpack_from(payload)
    options = _options(payload[_HEADER.size + 4 :])
    yours, following, sname, file = fields[8], fields[9], fields[12], fields[13]
    overload = options.get(_OVERLOAD, b"\0")[:1]
    if overload in (b"\x01", b"\x03"):  # the field of the file name holds options
        options, file = {**_options(file), **options}, b""
    if overload in (b"\x02", b"\x03"):
        options = {**_options(sname), **options}
    if fields[0] != 2 or options.get(_TYPE) != bytes((kind,)):
        return None
    server, lease = options.get(_SERVER, b""), options.get(_LEASE, b"")
    name = options.get(_TFTP_FILE, file).split(b"\0")[0]
    return Offer(
        fields[4],
        _address(server) if len(server) == 4 else source,
        mac,
        _address(yours),
        "".join(c for c in name.decode("ascii", "replace") if c.isprintable()),
        _address(following) if any(following) else source,
        struct.unpack("!I", lease)[0] if len(lease) == 4 else None,
    )


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != _END:
        if data[at] == _PAD:
            at += 1
            continue
        if at + 1 >= len(data):
            break
        size = data[at + 1]
        found[data[at]] = found.get(data[at], b"") + data[at + 2 : at + 2 + size]
        at += 2 + size
    return found


def _option(code: int, value: bytes) -> bytes:
    return bytes((code, len(value))) + value


def _address(four: bytes) -> str:
    return str(ipaddress.IPv4Address(four))


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
