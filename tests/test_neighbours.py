"""doors/neighbours and doors/netlink: who is at an address."""

import json
import os
import struct
import subprocess
import sys

import pytest

from appliance.doors import neighbours, netlink
from appliance.doors.neighbours import Kernel, OnLink, Own, Routed

MAC = "52:54:00:00:00:05"
ADDRESS = bytes([10, 0, 0, 9])


def attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def message(kind, body, number=7):
    return struct.pack("=IHHII", 16 + len(body), kind, 0, number, 0) + body


def route(*attributes, kind=1, number=7):
    """As rtnetlink(7) says of RTM_NEWROUTE: family, two lengths, tos, table, ..., type, flags."""
    about = struct.pack("=8BI", 2, 32, 0, 0, 254, 0, 0, kind, 0)
    return message(24, about + b"".join(attributes), number)


def entry(*attributes, number=7):
    """RTM_NEWNEIGH: family, pad, interface, state, flags, type."""
    about = struct.pack("=BxHiHBB", 2, 0, 3, 2, 0, 1)
    return message(28, about + b"".join(attributes), number)


def error(code, number=7):
    return message(2, struct.pack("=i", -code) + bytes(16), number)


INTERFACE = attribute(4, struct.pack("=i", 3))


@pytest.mark.parametrize(
    ("data", "way"),
    [
        (route(attribute(1, ADDRESS), INTERFACE), netlink.Way(3)),
        (route(INTERFACE, attribute(5, ADDRESS)), netlink.Way(3, gateway=True)),
        (route(INTERFACE, attribute(18, b"\x0a\0" + bytes(16))), netlink.Way(3, gateway=True)),
        (route(INTERFACE, kind=2), netlink.Way(local=True)),
        (route(INTERFACE, number=8), None),
    ],
)
def test_the_kernels_route_says_whether_an_address_is_ours_near_or_far(data, way):
    assert way == netlink.way(data, 7)


@pytest.mark.parametrize(
    ("data", "card"),
    [
        (entry(attribute(1, ADDRESS), attribute(2, bytes.fromhex("525400000005"))), MAC),
        (entry(attribute(1, ADDRESS)), ""),  # it is being looked for, or did not answer
        (entry(attribute(2, bytes(6))), ""),
        (entry(attribute(2, bytes(range(20)))), ""),  # InfiniBand's: no MAC of ours
        (entry(attribute(2, bytes.fromhex("525400000005")), number=6), None),
    ],
)
def test_the_kernels_neighbour_says_whose_card_it_is(data, card):
    assert card == netlink.card(data, 7)


@pytest.mark.parametrize(
    ("read", "data"),
    [
        (netlink.way, error(101)),
        (netlink.card, error(2)),
        (netlink.card, error(95)),
        (netlink.way, route(INTERFACE, kind=7)),  # unreachable
        (netlink.way, route(INTERFACE, kind=3)),  # broadcast
        (netlink.way, route()),
        (netlink.way, entry()),
        (netlink.card, route()),
    ],
)
def test_what_the_kernel_refuses_or_nobody_understands_is_an_error(read, data):
    with pytest.raises(OSError, match=r".+"):
        read(data, 7)


def test_an_attribute_shorter_than_its_head_ends_the_answer():
    broken = entry(struct.pack("=HH", 0, 2) + bytes(8))

    assert "" == netlink.card(broken, 7)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_real_kernel_knows_its_own_addresses(address):
    kernel = Kernel()

    assert [Own(), Own()] == [kernel.place(address), kernel.place(address)]
    kernel.close()


@pytest.mark.parametrize("address", ["224.0.0.1", "255.255.255.255", "x", "", "10.0.0.1\n"])
def test_what_nobody_can_connect_from_is_an_error(address):
    with pytest.raises(OSError, match=r".+"):
        Kernel().place(address)


def test_a_socket_that_failed_is_not_asked_again():
    kernel = Kernel()
    kernel.place("127.0.0.1")
    kernel._socket.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        kernel.place("127.0.0.1")

    assert Own() == kernel.place("127.0.0.1")
    kernel.close()


PLACES = """
import json, sys
from appliance.doors.neighbours import Kernel
kernel = Kernel()
print(json.dumps({address: repr(kernel.place(address)) for address in sys.argv[1:]}))
"""
LINKS = """
set -e
mount -t proc -o subset=pid proc /proc  # as systemd's ProcSubset=pid shows it to our unit
ip link set lo up
ip link add lab0 type bridge
ip addr add 10.1.0.1/24 dev lab0
ip addr add fd01::1/64 dev lab0 nodad
ip link set lab0 up
ip tuntap add tun0 mode tun
ip addr add 10.2.0.1/24 dev tun0
ip link set tun0 up
ip route add 10.3.0.0/24 via 10.1.0.254
ip neigh add 10.1.0.5 lladdr 52:54:00:00:00:05 nud stale dev lab0
ip neigh add fd01::5 lladdr 52:54:00:00:00:06 nud reachable dev lab0
ip neigh add 10.1.0.6 nud failed dev lab0
exec "$@"
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
def test_the_real_kernel_says_who_is_on_its_links_and_who_is_behind_them():
    places = {
        "10.1.0.1": Own(),
        "fd01::1": Own(),
        "10.1.0.5": OnLink(MAC),
        "fd01::5": OnLink("52:54:00:00:00:06"),
        "10.1.0.6": OnLink(None),
        "10.1.0.7": OnLink(None),
        "fd01::7": OnLink(None),
        "10.2.0.5": Routed(),  # a tunnel's neighbours have no cards
        "10.3.0.5": Routed(),
    }
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", LINKS, "sh", sys.executable, "-c", PLACES,
         *places],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert {address: repr(place) for address, place in places.items()} == json.loads(done.stdout)


def test_a_kernel_that_answers_other_questions_is_not_listened_to_for_ever(monkeypatch):
    monkeypatch.setattr(neighbours.netlink, "way", lambda data, number: None)

    with pytest.raises(OSError, match=r"other questions|unavailable"):
        Kernel().place("127.0.0.1")
