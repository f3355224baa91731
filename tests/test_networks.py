"""install/networks.py: from interfaces and ranges to the `[network]` of a configuration."""

from ipaddress import IPv4Address, IPv4Interface

import attrs
import pytest

from appliance import config
from appliance.boot.daemons import dnsmasq, ganesha, smb
from appliance.config import Config, Network, Segment
from appliance.errors import BadConfig, BadRequest
from appliance.install import networks, settings
from appliance.install.networks import Interface, Range

LAB = Interface("lab0", (IPv4Interface("172.28.0.1/24"),))
HALL = Interface("eth2", (IPv4Interface("10.2.0.254/24"),))
BARE = Interface("eth3", ())
THERE = {each.name: each for each in (LAB, HALL, BARE)}


def network(names, *ranges, proxy=False):
    return networks.network(names, [networks.range_of(r) for r in ranges], THERE, proxy=proxy)


def test_one_interface_leases_what_lies_above_its_own_address():
    expected = Network(
        interface="lab0", address="172.28.0.1", dhcp_range=("172.28.0.2", "172.28.0.254")
    )

    assert expected == network(["lab0"])


def test_an_interface_at_the_end_of_its_network_leases_what_lies_below():
    assert ("10.2.0.1", "10.2.0.253") == network(["eth2"]).dhcp_range


def test_a_range_that_nobody_chose_has_an_end():
    wide = {"lab0": Interface("lab0", (IPv4Interface("10.0.0.1/8"),))}
    first, last = networks.network(["lab0"], [], wide, proxy=False).dhcp_range

    assert 32_768 == int(IPv4Address(last)) - int(IPv4Address(first)) + 1


def test_a_range_goes_to_the_interface_whose_network_holds_it():
    made = network(["lab0", "eth2"], "10.2.0.10-10.2.0.20", "172.28.0.10-172.28.0.20")

    assert ("172.28.0.10", "172.28.0.20") == made.dhcp_range
    assert ("10.2.0.10", "10.2.0.20") == made.more["eth2"].dhcp_range
    assert "" == made.address  # each box is told the one that it reached
    assert ("lab0", "eth2") == made.interfaces


def test_a_network_behind_a_relay_is_one_more():
    made = network(["lab0"], "10.9.0.10-10.9.1.250/23@10.9.0.1")

    assert {
        "behind-10-9-0-1": Segment(
            dhcp_range=("10.9.0.10", "10.9.1.250"), netmask="255.255.254.0", router="10.9.0.1"
        )
    } == made.more
    assert ("172.28.0.2", "172.28.0.254") == made.dhcp_range


def test_with_proxy_dhcp_nothing_is_leased():
    made = network(["lab0", "eth2"], proxy=True)

    assert (None, None) == (made.dhcp_range, made.more["eth2"].dhcp_range)
    assert made.proxy


@pytest.mark.parametrize(
    ("names", "ranges", "proxy", "words"),
    [
        (["eth9"], [], False, "eth9: there is no such interface; there are: eth2, eth3, lab0"),
        (["eth3"], [], False, "eth3: it has no IPv4 address"),
        (["lab0", "lab0"], [], False, "lab0: named twice"),
        (["lab0"], ["10.1.0.5-10.1.0.9"], False, "no interface is in that network: lab0 "),
        (["lab0"], ["172.28.0.5-172.28.1.9"], False, "no interface is in that network"),
        (["lab0"], ["172.28.0.1-172.28.0.9"], False, "holds 172.28.0.1, which is this server"),
        (["lab0"], ["172.28.0.5-172.28.0.9"] * 2, False, "lab0 has 172.28.0.5-172.28.0.9 already"),
        (["lab0"], ["172.28.0.5-172.28.0.9"], True, "either another server leases, or this one"),
    ],
)
def test_what_cannot_be_served_is_refused_with_what_would_be_right(names, ranges, proxy, words):
    with pytest.raises(BadRequest) as refused:
        network(names, *ranges, proxy=proxy)

    assert words in str(refused.value)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(BadRequest) as refused:
        network(["eth9", "eth3"])

    assert 2 == len(str(refused.value).splitlines())


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0.1", "10.0.0.9-10.0.0.1", "10.0.0.1-10.0.0.999", "1.1.1.1-1.1.1.2/24",
     "10.0.0.1-10.0.0.9/24@10.1.0.1", "10.0.0.1-10.0.0.9/33@10.0.0.1", "a-b"],
)  # fmt: skip
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(BadRequest, match="--dhcp-range"):
        networks.range_of(text)


def test_a_range_is_read_as_it_is_written():
    first, last, relay = map(IPv4Address, ("10.0.0.5", "10.0.0.9", "10.0.0.1"))

    assert Range(first, last) == networks.range_of("10.0.0.5-10.0.0.9")
    assert Range(first, last, 24, relay) == networks.range_of("10.0.0.5-10.0.0.9/24@10.0.0.1")


MANY = (["lab0", "eth2"], "10.2.0.10-10.2.0.20", "10.9.0.10-10.9.0.250/24@10.9.0.1")


@pytest.mark.parametrize(
    "made",
    [network(["lab0"]), network(["lab0"], proxy=True), network(*MANY),
     network(["lab0", "eth2"], proxy=True)],
)  # fmt: skip
def test_the_written_configuration_says_the_same_network(made):
    assert Config(network=made) == config.parse(settings.text(made), "appliance.toml")


def test_dnsmasq_serves_every_network_with_its_own_router():
    lines = dnsmasq.configuration(Config(network=network(*MANY))).splitlines()

    assert [line for line in lines if line.startswith(("interface=", "dhcp-range="))] == [
        "interface=lab0",
        "interface=eth2",
        "dhcp-range=172.28.0.2,172.28.0.254,255.255.255.0,168h",
        "dhcp-range=set:eth2,10.2.0.10,10.2.0.20,255.255.255.0,168h",
        "dhcp-range=set:behind-10-9-0-1,10.9.0.10,10.9.0.250,255.255.255.0,168h",
    ]
    assert "dhcp-option=tag:eth2,option:router" in lines
    assert "dhcp-option=tag:behind-10-9-0-1,option:router,10.9.0.1" in lines


def test_proxy_dhcp_names_every_network():
    made = network(["lab0", "eth2"], proxy=True)
    lines = dnsmasq.configuration(Config(network=made)).splitlines()

    ranges = [line for line in lines if line.startswith("dhcp-range=")]
    assert ["dhcp-range=172.28.0.0,proxy", "dhcp-range=10.2.0.0,proxy"] == ranges


@pytest.mark.parametrize(
    ("segment", "words"),
    [
        (Segment(interface="eth2"), "either every network has a dhcp_range, or none"),
        (Segment(dhcp_range=("10.9.0.5", "10.9.0.9")), "network.more.x.router"),
        (Segment(interface="eth2", dhcp_range=("10.9.0.9", "10.9.0.5")), "lies after"),
        (Segment(interface="eth2\nx", dhcp_range=("10.9.0.5", "10.9.0.9")), "network.interface"),
    ],
)
def test_a_further_network_that_does_not_fit_is_refused_by_its_key(segment, words):
    main = network(["lab0"])
    with pytest.raises(BadConfig) as refused:
        dnsmasq.configuration(
            Config(network=Network(interface="lab0", address=main.address,
                                   dhcp_range=main.dhcp_range, more={"x": segment}))
        )  # fmt: skip

    assert words in str(refused.value)


def test_the_file_servers_serve_every_interface():
    made = Config(network=network(*MANY))

    assert "interfaces = lab0 eth2\n" in smb.configuration(made)
    assert "Bind_addr = 0.0.0.0;" in ganesha.configuration(made)


def test_the_same_is_asked_for_whatever_further_networks_are_called():
    lab = ("10.0.0.10", "10.0.0.99")
    far, near = (
        Segment(interface="lab1", dhcp_range=("10.0.1.10", "10.0.1.99")),
        Segment(dhcp_range=("10.0.2.10", "10.0.2.99"), router="10.0.2.1"),
    )
    one = Network(interface="lab0", dhcp_range=lab, more={"a": far, "b": near})
    renamed = attrs.evolve(one, more={"x": attrs.evolve(near, router=""), "y": far}, dns="10.0.0.1")
    other = attrs.evolve(one, more={"a": attrs.evolve(far, dhcp_range=lab), "b": near})

    assert networks.same(one, renamed)
    assert not networks.same(one, other)
    assert not networks.same(one, attrs.evolve(one, more={"a": far}))
    assert not networks.same(one, attrs.evolve(one, dhcp_range=None))
