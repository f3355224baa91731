"""What firmware says and hears: DHCP packets made by hand, and the answers to them.

    python pxe.py CARD MAC ARCH [KIND]

is a machine that sends a DHCPDISCOVER to everybody, and a DHCPREQUEST to port 4011 of whoever
offered no address; it prints all answers as JSON.  KIND is PXEClient (firmware, the default),
HTTPClient (firmware that boots by HTTP), iPXE, or Linux.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time

COOKIE = bytes([99, 130, 83, 99])
BROADCAST = 0x8000
PATIENCE_S = 5.0
MORE_S = 0.3  # of silence after an answer: nobody else answers
MESSAGES = {1: "DISCOVER", 2: "OFFER", 3: "REQUEST", 5: "ACK", 6: "NAK"}


def packet(message: int, mac: bytes, arch: int, kind: str, address: str = "0.0.0.0") -> bytes:
    """A question of the kind of client that `kind` says."""
    options = bytes([53, 1, message])
    if kind != "Linux":
        vendor = "HTTPClient" if kind == "HTTPClient" else "PXEClient"
        text = f"{vendor}:Arch:{arch:05}:UNDI:003001".encode()
        options += bytes([60, len(text)]) + text
        options += bytes([93, 2]) + struct.pack("!H", arch) + bytes([94, 3, 1, 3, 1])
        options += bytes([97, 17, 0]) + bytes(10) + mac
    if kind == "iPXE":
        options += bytes([77, 4]) + b"iPXE" + bytes([175, 3, 235, 1, 1])
    options += bytes([55, 8, 1, 3, 6, 12, 43, 60, 66, 67, 255])
    head = struct.pack("!BBBBIHH", 1, 1, 6, 0, int.from_bytes(mac[2:]), 0, BROADCAST)
    place = socket.inet_aton(address)
    return head + place + bytes(12) + mac + bytes(10) + bytes(64) + bytes(128) + COOKIE + options


def understand(data: bytes, sender: str) -> dict:
    """An answer: who sent it, and what it says to load from where."""
    options, at = {}, 240
    while at < len(data) and data[at] != 255:
        if data[at] == 0:
            at += 1
            continue
        options[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    file = options.get(67) or data[108:236]
    lease = options.get(51)
    return {
        "from": sender,
        "message": MESSAGES[options[53][0]],
        "address": socket.inet_ntoa(data[16:20]),
        "server": socket.inet_ntoa(data[20:24]),
        "file": file.split(b"\0")[0].decode(),
        "vendor": options.get(60, b"").split(b"\0")[0].decode(),
        "lease": struct.unpack("!I", lease)[0] if lease else None,
        "options": sorted(options),
    }


def hear(sock: socket.socket, mac: bytes) -> list[dict]:
    """The answers to this machine, until nobody answers any more."""
    heard, end = [], time.monotonic() + PATIENCE_S
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            data, (sender, _) = sock.recvfrom(2048)
        except TimeoutError:
            break
        if data[:1] == b"\x02" and data[28:34] == mac:
            heard.append(understand(data, sender))
            end = min(end, time.monotonic() + MORE_S)
    return heard


def main(card: str, address: str, arch: str, kind: str = "PXEClient") -> None:
    """Asks, and prints what was answered."""
    mac = bytes.fromhex(address.replace(":", ""))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, card.encode())
        sock.bind(("", 68))
        sock.sendto(packet(1, mac, int(arch), kind), ("255.255.255.255", 67))
        heard = hear(sock, mac)
        for server in {answer["from"] for answer in heard if answer["address"] == "0.0.0.0"}:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
                way.connect((server, 4011))
                own = way.getsockname()[0]
            sock.sendto(packet(3, mac, int(arch), kind, own), (server, 4011))
            heard += hear(sock, mac)
    print(json.dumps(heard))


if __name__ == "__main__":
    main(*sys.argv[1:])
