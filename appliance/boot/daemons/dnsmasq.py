"""Pure: no clock, no socket, no await.

Makes dnsmasq's configuration, one file per known testbox, and the first scripts that iPXE reads.
A box asks twice: its firmware gets iPXE by TFTP; then iPXE, known by its option 175, gets
boot.ipxe, which sends it to the scheduler.

Values from the operator's configuration go into dnsmasq's own syntax.  Each is checked so that it
cannot end its line or field; an invalid value is refused with its key.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from appliance.config import Config
from appliance.errors import BadConfig, BadRequest

# Concurrent TFTP transfers.  After a power cut a whole lab asks within one minute, and a request
# over the limit is dropped without an answer: firmware asks five or six times and then gives up
# PXE for good.  dnsmasq's default is 50; it lowers the value by itself to what its open-file
# limit allows.
TFTP_MAX: Final = 10_000
# Leases.  One per network card that ever asked: 10,000 boxes with two cards, and as many again
# that were replaced or re-cabled within a lease's seven days.  dnsmasq's default is 1000; a box
# over the limit gets no answer at all.
LEASES_MAX: Final = 40_000
# Longer than any job: our own initramfs renews its lease (dracut/, lease.sh), but most others lose
# the address, and the network root with it, when the lease ends (docs/firmware.md#dracut).  Known
# testboxes have infinite leases (`host_entry`).
LEASE: Final = "168h"


@attrs.frozen
class Firmware:
    """One kind of firmware, and the iPXE that it can run."""

    tag: str
    archs: tuple[int, ...]  # DHCP option 93, RFC 4578 and its registry
    service: tuple[str, ...]  # dnsmasq's names of these archs, for proxyDHCP
    file: str  # below the tftp root; the EFI names are Compass-CI's
    http: int | None = None  # option 93 of the same firmware when it boots by HTTP


FIRMWARES: Final = (
    Firmware("bios", (0,), ("x86PC",), "undionly.kpxe"),
    # x86-64 firmware sends 7; the first edition of the RFC meant it to send 9.
    Firmware("efi-x86_64", (7, 9), ("BC_EFI", "X86-64_EFI"), "ipxe/bin-x86_64-efi/snp.efi", 16),
    Firmware("efi-arm64", (11,), ("ARM64_EFI",), "ipxe/bin-arm64-efi/snp.efi", 19),
)
HTTP_CLIENT: Final = "HTTPClient"  # option 60; firmware wants it repeated in the offer
# The folder of the tftp root that the initrd port also serves, to firmware that boots by HTTP.
HTTP_ROOT: Final = "ipxe"

# The first script that iPXE reads: boot.ipxe if DHCP names it, else autoexec.ipxe.
SCRIPTS: Final = ("boot.ipxe", "autoexec.ipxe")

_INTERFACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,14}\Z")
# No blank, control character, comma, quote, backslash or '#': they are part of dnsmasq's syntax.
_PATH: Final = re.compile(r"/[^\s\x00-\x1f\x7f-\x9f,\"'\\#]*\Z")
_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}\Z")
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z")
_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}\Z")
_TEMPLATE_WORD: Final = re.compile(r"@([A-Z]+)@")


def configuration(config: Config, *, tftp_only: bool = False) -> str:
    """Returns a complete dnsmasq.conf for this lab.  Raises BadConfig with the invalid key.

    `tftp_only`: another DHCP server points boxes to this TFTP server.
    """
    if tftp_only:
        return "\n".join((*_general(config), ""))
    return "\n".join((*_general(config), *_leases(config), *_boot_files(config), ""))


def host_entry(name: str, macs: Sequence[str]) -> str:
    """Returns the `dhcp-hostsdir` file of one testbox: all its MACs, and an infinite lease.

    The testbox's name is sent as its host name if it is a valid DNS label.
    """
    for mac in macs:
        if not _MAC.match(mac):
            raise BadRequest(f"{mac!r} is not a MAC such as 52:54:00:12:34:56")
    if not macs:
        raise BadRequest(f"testbox {name!r} has no MAC")
    words = [mac.lower().replace("-", ":") for mac in macs]
    if _LABEL.match(name):
        words.append(name)
    return ",".join([*words, "infinite"]) + "\n"


def first_script(template: str, host: str, port: int) -> str:
    """Fills the scheduler's address into `template`, one of SCRIPTS.

    An empty `host` becomes `${next-server}`: the machine whose dnsmasq answered the box.
    """
    if host and not _HOST.match(host):
        raise BadConfig(f"network.address = {host!r} should be an address or a host name")
    words = {"SCHEDULER": host or "${next-server}", "PORT": str(port)}
    return _TEMPLATE_WORD.sub(lambda found: words[found[1]], template)


def _general(config: Config) -> list[str]:
    return [
        "# Written by `appliance dnsmasq-config`; change appliance.toml instead.",
        "port=0",  # DHCP and TFTP only, no DNS
        *(f"interface={name}" for name in interfaces(config)),
        "except-interface=lo",
        "bind-interfaces",  # so another dnsmasq can run on other interfaces
        f"pid-file={_path(config.paths.run / 'dnsmasq.pid', 'paths.run')}",
        "",
        "enable-tftp",
        # Absolute names below the root and names relative to it both work.
        f"tftp-root={_path(config.paths.tftp, 'paths.tftp')}",
        # <root>/<mac> first, if it exists: a testbox's own iPXE (own_ipxe.py).
        "tftp-unique-root=mac",
        f"tftp-max={TFTP_MAX}",
        "",
    ]


def _leases(config: Config) -> list[str]:
    network = config.network
    lines = [
        f"dhcp-leasefile={_path(config.paths.state / 'dnsmasq.leases', 'paths.state')}",
        # Firmware, iPXE and Linux send different client ids, but a box must keep one address.
        "dhcp-ignore-clid",
        f"dhcp-hostsdir={_path(config.paths.dhcp_hosts, 'paths.state')}",
        f"dhcp-lease-max={LEASES_MAX}",
    ]
    netmask = _netmask(network.netmask, "network.netmask")
    if network.dhcp_range is None:
        # ProxyDHCP: the network has other machines too, so only known testboxes are answered.
        ranges = [f"dhcp-range={_network(config, netmask)},proxy", *_segments(config)]
        return [*lines, *ranges, "dhcp-ignore=tag:!known"]
    first, last = _range(network.dhcp_range, "network.dhcp_range")
    return [
        *lines,
        "dhcp-authoritative",
        f"dhcp-range={first},{last},{netmask},{LEASE}",
        # An option without a value is not sent; without this line dnsmasq would name itself router.
        f"dhcp-option=option:router{_optional(network.router, 'network.router')}",
        f"dhcp-option=option:dns-server{_optional(network.dns, 'network.dns')}",
        # No other server answers PXE here, so iPXE need not wait for a proxyDHCP offer (2 to 4 s).
        "dhcp-option=encap:175,176,1b",
        *_segments(config),
    ]


def _segments(config: Config) -> list[str]:
    """Returns the lines of the further networks; a tag ties each one's options to it."""
    lines = []
    for name, segment in config.network.more.items():
        key = f"network.more.{name}"
        if not _LABEL.match(name):
            raise BadConfig(f"{key}: {name!r} should be one word of letters, digits and -")
        netmask = _netmask(segment.netmask, f"{key}.netmask")
        if (segment.dhcp_range is None) != (config.network.dhcp_range is None):
            raise BadConfig(f"{key}: either every network has a dhcp_range, or none (proxyDHCP)")
        if segment.dhcp_range is None:
            address = _address(segment.address, f"{key}.address")
            at = ipaddress.IPv4Network(f"{address}/{netmask}", strict=False).network_address
            lines.append(f"dhcp-range={at},proxy")
            continue
        if not segment.interface and not segment.router:
            raise BadConfig(f"{key}.router: boxes behind a relay need a router to reach us")
        first, last = _range(segment.dhcp_range, f"{key}.dhcp_range")
        lines += [
            f"dhcp-range=set:{name},{first},{last},{netmask},{LEASE}",
            f"dhcp-option=tag:{name},option:router{_optional(segment.router, f'{key}.router')}",
        ]
    return lines


def _range(ends: tuple[str, str], key: str) -> tuple[ipaddress.IPv4Address, ipaddress.IPv4Address]:
    first, last = (_address(end, key) for end in ends)
    if last < first:
        raise BadConfig(f"{key}: {first} lies after {last}")
    return first, last


def _boot_files(config: Config) -> list[str]:
    lines = ["", "dhcp-match=set:ipxe,175"]
    for firmware in FIRMWARES:
        lines += [f"dhcp-match=set:{firmware.tag},93,{arch}" for arch in firmware.archs]
    if config.network.dhcp_range is None:
        lines += [
            f"pxe-service=tag:!ipxe,{service},appliance,{firmware.file}"
            for firmware in FIRMWARES
            for service in firmware.service
        ]
    # In proxyDHCP mode dnsmasq names itself as the TFTP server only to UEFI.
    server = f",,{config.network.address}" if config.network.dhcp_range is None else ""
    lines += [f"dhcp-boot=tag:{firmware.tag},{firmware.file}{server}" for firmware in FIRMWARES]
    if config.network.dhcp_range is not None:  # a proxy answers only PXE
        lines += _http_boot(config)
    # The last matching line wins, and must be this one: iPXE sends option 93 too.
    return [*lines, f"dhcp-boot=tag:ipxe,boot.ipxe{server}"]


def _http_boot(config: Config) -> list[str]:
    if not config.network.address:
        return []  # the URL needs an address; without it such firmware boots by TFTP
    address = _address(config.network.address, "network.address")
    lines = []
    for firmware in FIRMWARES:
        if firmware.http is not None:
            tag = f"http-{firmware.tag}"
            url = f"http://{address}:{config.ports.initrd}/{firmware.file}"
            lines += [
                f"dhcp-match=set:{tag},93,{firmware.http}",
                f"dhcp-option-force=tag:{tag},60,{HTTP_CLIENT}",
                f"dhcp-boot=tag:{tag},{url}",
            ]
    return lines


def interfaces(config: Config) -> tuple[str, ...]:
    """Returns the interfaces of the testboxes' networks.  Raises BadConfig for an invalid name."""
    if not config.network.interface:
        raise BadConfig("network.interface: name the interface that the testboxes are on")
    for name in config.network.interfaces:
        if not _INTERFACE.match(name):
            what = f"network.interface = {name!r}"
            raise BadConfig(f"{what} should be an interface's name, such as eth0")
    return config.network.interfaces


def _path(path: Path, key: str) -> str:
    text = str(path)
    if not _PATH.match(text) or not text.isprintable():
        raise BadConfig(
            f"{key} = {text!r} should be an absolute path without blanks, commas, quotes,"
            " backslashes or '#'"
        )
    return text


def _address(text: str, key: str) -> ipaddress.IPv4Address:
    try:
        return ipaddress.IPv4Address(text)
    except ValueError as error:
        raise BadConfig(f"{key} = {text!r} should be an IPv4 address") from error


def _optional(text: str, key: str) -> str:
    return f",{_address(text, key)}" if text else ""


def _netmask(text: str, key: str) -> ipaddress.IPv4Address:
    try:
        return ipaddress.IPv4Network(f"0.0.0.0/{text}").netmask
    except ValueError as error:
        raise BadConfig(f"{key} = {text!r} should be a netmask, such as 255.255.255.0") from error


def _network(config: Config, netmask: ipaddress.IPv4Address) -> ipaddress.IPv4Address:
    if not config.network.address:
        raise BadConfig(
            "network.address: proxyDHCP (no network.dhcp_range) needs the appliance's address"
        )
    address = _address(config.network.address, "network.address")
    return ipaddress.IPv4Network(f"{address}/{netmask}", strict=False).network_address
