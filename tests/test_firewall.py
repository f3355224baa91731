"""doctor/firewall.py: what would drop what boxes send, as nft and iptables really say it."""

import os
import subprocess

import pytest

from appliance.doctor import firewall

PORTS = [("tcp", 3000), ("tcp", 8000), ("udp", 67)]
ABSENT = firewall.of_nft(None)
CHAIN = "nft add table inet lab; nft 'add chain inet lab %s { type filter hook %s priority 0; %s }'"
ACCEPTS = "policy accept;"


def said(script: str, program: str) -> str:
    """What `program` says in a network of its own, after `script`."""
    asks = {"nft": "nft -j list ruleset", "iptables": "iptables-legacy -S INPUT"}[program]
    command = ["unshare", "--net", "sh", "-ec", f"{script}\n{asks}"]
    environ = {**os.environ, "PATH": "/usr/sbin:/usr/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    return done.stdout


def needs_root(test):
    """A network of its own needs root; the programs are of packages.sh."""
    return pytest.mark.root(
        pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")(test)
    )


@pytest.mark.parametrize(
    ("script", "drops"),
    [
        ("true", []),
        (CHAIN % ("in", "input", "policy drop;"), ["lab in"]),
        (CHAIN % ("in", "input", ACCEPTS), []),
        (CHAIN % ("on", "forward", "policy drop;"), []),
        # As firewalld does it: what nobody let in meets the last rule.
        (
            CHAIN % ("in", "input", ACCEPTS) + "; nft add rule inet lab in counter reject",
            ["lab in"],
        ),
        (CHAIN % ("in", "input", ACCEPTS) + "; nft add rule inet lab in ct state invalid drop", []),
        ("iptables-nft -P INPUT DROP", ["filter INPUT"]),
    ],
)
@needs_root
def test_what_nft_says(script, drops):
    assert drops == firewall.of_nft(said(script, "nft"))


@pytest.mark.parametrize(
    ("script", "drops"),
    [
        ("true", []),
        ("iptables-legacy -P INPUT DROP", ["iptables INPUT"]),
        ("iptables-legacy -A INPUT -j REJECT", ["iptables INPUT"]),
        ("iptables-legacy -A INPUT -p tcp --dport 22 -j DROP", []),
    ],
)
@needs_root
def test_what_the_older_iptables_says(script, drops):
    assert drops == firewall.of_iptables(said(script, "iptables"))


def test_what_drops_is_named_with_the_ports_to_let_in():
    found = firewall.judge({"nft": ["lab in"], "iptables": ["iptables INPUT"]}, PORTS, "eth1")

    assert ("warning", "lab in, iptables INPUT drops by default") == (found.level, found.found)
    assert "let in from eth1: tcp 3000, 8000; udp 67" == found.mend


def test_where_nothing_drops_all_is_well():
    assert "ok" == firewall.judge({"nft": []}, PORTS, "eth1").level


@pytest.mark.parametrize(
    ("readings", "why", "mend"),
    [
        ({"nft": ABSENT}, "nft: not installed", "apt-get install nftables"),
        ({"nft": [], "iptables": ABSENT}, "iptables: not installed", "apt-get install iptables"),
        ({"nft": firewall.of_nft("")}, "nft: says nothing that can be read", ""),
        ({"nft": firewall.of_nft("[1]")}, "nft: says nothing that can be read", ""),
        (
            {"nft": [], "iptables": firewall.of_iptables("")},
            "iptables: says nothing that can be read",
            "",
        ),
    ],
)
def test_what_cannot_be_read_is_not_called_well(readings, why, mend):
    found = firewall.judge(readings, PORTS, "eth1")

    assert "skipped" == found.level
    assert f"whether one drops what comes in is not known: {why}" == found.found
    assert mend == found.mend


def test_one_that_drops_is_told_even_if_the_other_cannot_be_read():
    assert "warning" == firewall.judge({"nft": ["a in"], "iptables": ABSENT}, PORTS, "eth1").level
