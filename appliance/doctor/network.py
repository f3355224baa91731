"""Doctor's checks of the network: server, interfaces, DHCP, ports, doors, providers, boxes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Final

from appliance import addresses
from appliance.doctor import (
    boxes,
    facts,
    findings,
    firewall,
    machine,
    ports,
    probe,
    provider_cards,
    reach,
    wire,
)
from appliance.doctor.facts import World
from appliance.doctor.findings import Finding
from appliance.doors.neighbours import Kernel, OnLink, Own, Routed
from appliance.scheduler import hosts_files

UNITS: Final = (
    Path("/etc/systemd/system"),
    Path("/usr/lib/systemd/system"),
    Path("/lib/systemd/system"),
)
KNOCK_S: Final = 3.0
_AS_ROOT: Final = "sudo appliance doctor"
_HEAD_BYTES: Final = 4096


def server(world: World) -> list[Finding]:
    """Checks that a server of ours answers and takes jobs."""
    path = world.config.paths.control_socket
    if world.running:
        gate = world.status.get("gate") or []
        if gate:
            means, mend = "no new jobs are taken", "appliance status"
            return [findings.error("server", "; ".join(gate), means, mend)]
        return [findings.ok("server", f"lab {world.status['lab']} answers at {path}")]
    if not os.access(path, os.R_OK | os.W_OK) and path.exists():
        return [findings.skipped("server", f"{path} may not be used", "sudo appliance doctor")]
    if any((folder / "appliance.service").exists() for folder in UNITS):
        mend = "systemctl start appliance.target; journalctl -u appliance"
        return [findings.error("server", f"nobody answers at {path}", "no box gets a job", mend)]
    return [findings.skipped("server", f"none runs yet: nobody answers at {path}")]


def interface(world: World) -> list[Finding]:
    """Checks that each interface exists and has an address that boot scripts may name."""
    if not facts.interfaces(world.config):
        mend = "[network] interface in appliance.toml, or `appliance install --interface IFACE`"
        why = "none is named in the configuration"
        return [findings.skipped("interface", why, mend)]
    found = []
    for name in facts.interfaces(world.config):
        try:
            own = facts.own_addresses(name)
        except OSError:
            there = ", ".join(one for _, one in socket.if_nameindex() if one != "lo")
            means, mend = "boxes are not there", f"[network] interface: there are {there or 'none'}"
            found.append(findings.error(f"interface {name}", "there is none", means, mend))
            continue
        wanted = world.config.network.address
        if not own:
            means = "neither dnsmasq nor a door can answer there"
            mend = f"ip addr add ADDRESS/BITS dev {name}, and the same in the system's own files"
            found.append(findings.error(f"interface {name}", "has no IPv4 address", means, mend))
        elif wanted and wanted not in own and wanted not in facts.all_addresses():
            means = f"boot scripts send boxes to {wanted} (network.address)"
            mend = f"[network] address = {own[0]!r}, or give {name} that address"
            told = f"has {', '.join(own)}, not {wanted}"
            found.append(findings.error(f"interface {name}", told, means, mend))
        else:
            found.append(findings.ok(f"interface {name}", ", ".join(own)))
    return found


def on_wire(world: World) -> list[Finding]:
    """Checks who answers DHCP on each interface, and what a box would boot; takes ANSWER_S."""
    config, found = world.config, []
    longest = float(world.status.get("longest_runtime") or config.defaults.runtime)
    proxy, own = config.network.proxy, facts.all_addresses()
    known = next((row["macs"][0] for row in world.rows if row["known"] and row["macs"]), None)
    names = facts.interfaces(config)
    heard = probe.discover_all(names, list(wire.EXPECTED), known if proxy else None)
    for name, answers in zip(names, heard, strict=True):
        if answers.trouble:
            found += wire.unanswered(name, answers.trouble)
            continue
        found += wire.servers(name, answers.offers, own, proxy=proxy)
        if facts.owner_is_ours(world, 67):
            if proxy and known is None:
                why = "in proxyDHCP mode only known boxes are answered, and there are none yet"
                found.append(findings.skipped(f"boot on {name}", why))
            else:
                ours = {o.file: o for _, o in answers.offers if o.server in own and o.file}
                firsts = [_first(file, offer.next_server) for file, offer in ours.items()]
                found += wire.boots(answers.offers, own, firsts, name, world.archs)
        else:
            found.append(findings.skipped(f"boot on {name}", "our dnsmasq does not run yet"))
        leases = [o.lease_s for _, o in answers.offers if o.lease_s and not o.proxy]
        seconds = min(leases) if leases else machine.lease_of(facts.conf_text(world, "dnsmasq"))
        found.append(machine.lease(seconds, longest, config.waits, proxy=proxy))
    return found


def _first(file: str, server: str) -> wire.First:
    block = probe.first_block(server, file)
    return wire.First(file, len(block.data), block.trouble)


def owners(world: World) -> list[Finding]:
    """Checks who has each port of the appliance."""
    own = facts.all_addresses()
    return [
        ports.judge(each, world.listeners, own, running=world.running)
        for each in ports.wanted(world.config)
    ]


def reached(world: World) -> list[Finding]:
    """Checks that each door answers at the lab's addresses, and the firewall in front of them."""
    config = world.config
    named = [config.network.address] if config.network.address else []
    there = [a for name in facts.interfaces(config) for a in facts.own_addresses(name)]
    own = list(dict.fromkeys([*named, *there]))
    found: list[Finding] = []
    if not world.running:
        found.append(findings.skipped("doors", "no server runs yet"))
    elif not own:
        found.append(findings.skipped("doors", "the lab's address is not known: name an interface"))
    else:
        tcp = [each for each in ports.wanted(config) if each.protocol == "tcp"]
        found += [reach.reach(_knock(each, address)) for address in own for each in tcp]
    return [*found, _firewall(world)]


def _firewall(world: World) -> Finding:
    """Checks the firewall, as root; `nft` does not list the rules of iptables-legacy."""
    if os.geteuid() != 0:
        return findings.skipped("firewall", "to read its rules, root is needed", _AS_ROOT)
    said = {"nft": firewall.of_nft(_says("nft", "-j", "list", "ruleset"))}
    if _has_old_tables():
        said["iptables"] = firewall.of_iptables(_says("iptables-legacy", "-S", "INPUT"))
    wanted = [(each.protocol, each.port) for each in ports.wanted(world.config)]
    interface = ", ".join(facts.interfaces(world.config)) or "the lab"
    return firewall.judge(said, wanted, interface)


def _says(program: str, *words: str) -> str | None:
    """Returns the output of a program; None: it is not installed."""
    found = shutil.which(program, path=f"{os.defpath}:/usr/sbin:/sbin")
    if found is None:
        return None
    return subprocess.run([found, *words], capture_output=True, text=True, check=False).stdout


def _has_old_tables() -> bool:
    """Whether iptables-legacy has a filter table; running iptables would load the module."""
    try:
        return "filter" in Path("/proc/net/ip_tables_names").read_text().split()
    except OSError:
        return False


def _knock(each: ports.Wanted, address: str) -> reach.Knock:
    name = each.key.removeprefix("ports.")
    speaks_http = each.daemon == "appliance"
    trouble = ""
    try:
        with socket.create_connection((address, each.port), KNOCK_S) as sock:
            if speaks_http:
                sock.sendall(f"HEAD / HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
                if not sock.recv(_HEAD_BYTES).startswith(b"HTTP/1.1 "):
                    trouble = "what answers is no door of the appliance"
    except OSError as error:
        trouble = error.strerror or str(error)
    return reach.Knock(name, address, each.port, trouble, each.needed)


def claimed(world: World) -> list[Finding]:
    """Checks how the machines that run virtual testboxes are identified."""
    config = world.config
    if not config.network.check_neighbour:
        return []
    named, _ = hosts_files.read_all(config.paths.hosts, config.defaults.queue)
    owners = {mac: box.name for box in named for mac in box.macs}
    kernel = Kernel()
    try:
        return [_claim(entry, kernel, owners) for entry in config.network.providers]
    finally:
        kernel.close()


def _claim(entry: str, kernel: Kernel, owners: dict[str, str]) -> Finding:
    network = addresses.machine(entry).network
    first = network[min(1, network.num_addresses - 1)]  # no machine has the network's own address
    try:
        place = kernel.place(str(first))
    except OSError as error:
        return findings.skipped(f"provider {entry}", error.strerror or str(error))
    if isinstance(place, Own):
        return findings.ok(f"provider {entry}", "is this server itself")
    card = place.card if isinstance(place, OnLink) else None
    return provider_cards.judge(entry, card, owners, routed=isinstance(place, Routed))


def parked(world: World) -> list[Finding]:
    """Checks the iPXE of parked boxes."""
    if not world.running:
        return [findings.skipped("iPXE of parked boxes", "no server runs yet")]
    found = boxes.parked(world.rows, world.config.waits)
    return found or [findings.ok("iPXE of parked boxes", "no box is parked")]
