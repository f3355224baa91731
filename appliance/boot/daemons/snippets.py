"""Pure: no clock, no socket, no await.

Makes configuration snippets for another DHCP server that points testboxes to the appliance: ISC
dhcpd, Kea, and Windows.  Firmware gets the iPXE that it can run, iPXE gets boot.ipxe, and the
answers to other machines do not change.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from appliance.boot.daemons.dnsmasq import FIRMWARES
from appliance.config import Config
from appliance.errors import BadConfig
from appliance.jobs.box import normal_mac

NAME: Final = "appliance"
_BOOT_IPXE: Final = "boot.ipxe"


@attrs.frozen
class _Case:
    """A kind of client, and its boot file."""

    name: str
    archs: tuple[int, ...]  # DHCP option 93; empty: iPXE itself, with any value
    file: str
    http: bool = False


@attrs.frozen
class _Site:
    server: str
    macs: tuple[str, ...] | None  # None: every machine
    cases: tuple[_Case, ...]  # the first that matches applies


def snippet(kind: str, config: Config, macs: Sequence[str] | None) -> str:
    """Returns the snippet for a DHCP server of KINDS, for the boxes with `macs`; None: for all.

    Raises BadConfig if network.address is missing or `macs` is empty.
    """
    try:
        server = str(ipaddress.IPv4Address(config.network.address))
    except ValueError as error:
        raise BadConfig("network.address must say the appliance's IPv4 address") from error
    if macs is not None and not macs:
        raise BadConfig("no testbox is registered: `appliance host add`, or say --all")
    cases = [_Case("iPXE", (), _BOOT_IPXE)]
    for firmware in FIRMWARES:
        cases.append(_Case(firmware.tag, firmware.archs, firmware.file))
        if firmware.http is not None:
            url = f"http://{server}:{config.ports.initrd}/{firmware.file}"
            cases.append(_Case(f"http-{firmware.tag}", (firmware.http,), url, http=True))
    known = None if macs is None else tuple(normal_mac(mac) for mac in macs)
    return KINDS[kind](_Site(server, known, tuple(cases)))


def _isc(site: _Site) -> str:
    lines = [
        "# Into dhcpd.conf, at its top level.",
        f"option {NAME}-arch code 93 = unsigned integer 16;",
        f"option {NAME}-ipxe code 175 = string;",
    ]
    if site.macs is not None:
        lines += [f'class "{NAME}" {{', "    match hardware;"]
    word = "if"
    for case in site.cases:
        archs = (arch.to_bytes(2).hex(":") for arch in case.archs)
        test = " or ".join(f"option {NAME}-arch = {arch}" for arch in archs)
        lines.append(f"    {word} {test or f'exists {NAME}-ipxe'} {{")
        if case.http:
            lines.append('        option vendor-class-identifier "HTTPClient";')
        lines += [
            f"        next-server {site.server};",
            f'        filename "{case.file}";',
            "    }",
        ]
        word = "elsif"
    lines += ["}"] if site.macs is not None else []
    lines += [f'subclass "{NAME}" 1:{mac};' for mac in site.macs or ()]
    return "\n".join([*lines, ""])


def _kea(site: _Site) -> str:
    whose = " or ".join(f"pkt4.mac == 0x{mac.replace(':', '')}" for mac in site.macs or ())
    classes: list[dict[str, Any]] = []
    for case in site.cases:
        fits = " or ".join(f"option[93].hex == 0x{arch:04x}" for arch in case.archs)
        tests = [f"({fits})" if fits else "option[175].exists"]
        if fits:
            tests.append("not option[175].exists")
        if whose:
            tests.append(f"({whose})")
        made: dict[str, Any] = {
            "name": f"{NAME}-{case.name}",
            "test": " and ".join(tests),
            "next-server": site.server,
            "boot-file-name": case.file,
        }
        if case.http:
            option = {"name": "vendor-class-identifier", "data": "HTTPClient", "always-send": True}
            made["option-data"] = [option]
        classes.append(made)
    return (
        "// A file of its own, for the Dhcp4 section:\n"
        f'//     "client-classes": <?include "/etc/kea/{NAME}.json"?>,\n'
        f"{json.dumps(classes, indent=4)}\n"
    )


def _windows(site: _Site) -> str:
    lines = [
        "# PowerShell, as an administrator of the DHCP server; then the scope of the testboxes.",
        '$scope = "192.0.2.0"',
        f"Add-DhcpServerv4Class -Name '{NAME} iPXE' -Type User -Data 'iPXE'",
    ]
    macs = ""
    if site.macs is not None:
        words = ", ".join(f"'{mac.replace(':', '')}'" for mac in site.macs)
        lines.append(f"$boxes = @('EQ', {words})")
        macs = " -MacAddress $boxes"
    for order, case in enumerate(site.cases, 1):
        name = f"{NAME} {case.name}"
        vendor = "HTTPClient" if case.http else "PXEClient"
        tests = f"-UserClass @('EQ', '{name}')"
        if case.archs:
            names = [f"{name} {arch}" for arch in case.archs]
            for each, arch in zip(names, case.archs, strict=True):
                data = f"{vendor}:Arch:{arch:05}"
                lines.append(f"Add-DhcpServerv4Class -Name '{each}' -Type Vendor -Data '{data}'")
            words = ", ".join(f"'{each}*'" for each in names)  # the star: what follows the class
            tests = f"-VendorClass @('EQ', {words})"
        lines.append(
            f"Add-DhcpServerv4Policy -ScopeId $scope -Name '{name}' -ProcessingOrder {order}"
            f" -Condition AND {tests}{macs}"
        )
        values = {66: site.server, 67: case.file} | ({60: "HTTPClient"} if case.http else {})
        lines += [
            f"Set-DhcpServerv4OptionValue -ScopeId $scope -PolicyName '{name}'"
            f" -OptionId {option} -Value '{value}'"
            for option, value in values.items()
        ]
    if any(case.http for case in site.cases):
        option = "-OptionId 60 -Name 'Vendor class' -Type String"
        lines[2:2] = [
            "# Where somebody has defined option 60 already, the next line fails, and may.",
            f"Add-DhcpServerv4OptionDefinition {option}",
        ]
    return "\n".join([*lines, ""])


KINDS: Final[dict[str, Callable[[_Site], str]]] = {"isc": _isc, "kea": _kea, "windows": _windows}
