"""Pure: no clock, no socket, no await.

Judges DHCP offers on the lab's network: which servers lease addresses, and what a box would boot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from appliance.boot.daemons.dnsmasq import FIRMWARES
from appliance.doctor import findings
from appliance.doctor.dhcp import Asked, Offer
from appliance.doctor.findings import Finding

# How each kind of firmware identifies itself, and iPXE after it.
WORDS: Final = {"bios": "BIOS", "efi-x86_64": "UEFI x86-64", "efi-arm64": "UEFI arm64"}
FIRMWARE: Final = {
    Asked(f"{WORDS[each.tag]} firmware", each.archs[0]): each.file for each in FIRMWARES
}
IPXE: Final = Asked("iPXE", 7, ipxe=True)
EXPECTED: Final = {**FIRMWARE, IPXE: "boot.ipxe"}

# The arch, in hosts files, of boxes with each kind of firmware.
_ARCHS: Final = {"bios": "x86_64", "efi-x86_64": "x86_64", "efi-arm64": "aarch64"}

_FOREVER: Final = 0xFFFFFFFF

Heard = Sequence[tuple[Asked, Offer]]


def is_needed(tag: str, archs: set[str]) -> bool:
    """Whether a known box may have that firmware; `archs` of the known boxes, empty: none known.

    BIOS never counts as needed: hosts files do not name it, and a lab of UEFI boxes has none.
    """
    return _ARCHS[tag] in archs if archs and tag != "bios" else tag == "efi-x86_64"


def mend_of(tag: str) -> str:
    """Returns the command that brings iPXE for that firmware."""
    if tag == "efi-arm64":  # Debian has none before 13
        return "appliance tftpboot --arm64"
    return "appliance tftpboot (with --ipxe DIR where no package here has it)"


@attrs.frozen
class First:
    """The first block, by TFTP, of a file that was offered."""

    file: str
    size: int = 0
    trouble: str = ""


def servers(interface: str, heard: Heard, own: Iterable[str], *, proxy: bool) -> list[Finding]:
    """Judges who answers DHCP on `interface`; `own` are this machine's addresses."""
    mine = set(own)
    rivals = others(heard, mine)
    looked_at = f"DHCP servers on {interface}"
    found = [_other(looked_at, offer, interface, proxy=proxy) for offer in rivals]
    ours = sorted({offer.server for _, offer in heard} & mine)
    if proxy and all(offer.proxy for offer in rivals):
        means = "in proxyDHCP mode another server must lease the addresses: boxes get none"
        mend = "start that server, or give [network] a dhcp_range to lease addresses from here"
        found.append(findings.warning(looked_at, "nobody leases addresses", means, mend))
    if not found:
        alone = f"this machine alone ({', '.join(ours)})" if ours else "nobody answers yet"
        found.append(findings.ok(looked_at, alone))
    return found


def others(heard: Heard, own: Iterable[str]) -> list[Offer]:
    """Returns one offer of each server that is not on this machine."""
    mine = set(own)
    return [*{offer.server: offer for _, offer in heard if offer.server not in mine}.values()]


def told(offer: Offer) -> str:
    """Describes an offer for people: the server, the address and the boot file."""
    lease = "for ever" if offer.lease_s == _FOREVER else f"for {offer.lease_s} s"
    what = "no address" if offer.proxy else f"{offer.address} {lease}"
    card = f" ({offer.mac})" if offer.mac else ""
    boots = f", boot file {offer.file}" if offer.file else ""
    return f"{offer.server}{card} offers {what}{boots}"


def _other(looked_at: str, offer: Offer, interface: str, *, proxy: bool) -> Finding:
    if proxy and not offer.file:
        return findings.ok(looked_at, told(offer))
    if proxy:
        means = "it tells boxes what to boot, too: which answer a box takes is chance"
        mend = f"take the boot file (options 66, 67) out of the DHCP server {offer.server}"
    else:
        means = "two servers lease addresses: which answer a box takes is chance"
        mend = (
            f"turn it off on the network of {interface}, or leave the leases to it: take"
            " dhcp_range out of [network] (proxyDHCP)"
        )
    return findings.error(looked_at, told(offer), means, mend)


def boots(
    heard: Heard, own: Iterable[str], firsts: Sequence[First], interface: str, archs: set[str]
) -> list[Finding]:
    """Judges the file that we offer to each kind of firmware, and its first block.

    `archs`: of the known boxes.
    """
    mine, tried = set(own), {first.file: first for first in firsts}
    optional = {each.file for each in FIRMWARES if not is_needed(each.tag, archs)}
    found = []
    for asked, expected in EXPECTED.items():
        looked_at = f"boot of {asked.word} on {interface}"
        offer = next((o for a, o in heard if a == asked and o.server in mine), None)
        judged = _boot(looked_at, asked, expected, offer, tried)
        if judged.level == findings.ERROR and expected in optional:
            judged = attrs.evolve(judged, level=findings.WARNING)
        found.append(judged)
    return found


def _boot(
    looked_at: str, asked: Asked, expected: str, offer: Offer | None, tried: dict[str, First]
) -> Finding:
    if offer is None:
        means = "a box on this network stays with its firmware, or in its own disk"
        mend = "systemctl restart appliance-dnsmasq; then `journalctl -u appliance-dnsmasq`"
        return findings.error(looked_at, "our dnsmasq offers nothing", means, mend)
    where = f"{offer.file or 'no file'} from {offer.next_server}"
    if offer.file.removeprefix("/tftpboot/") != expected:
        mend = "systemctl restart appliance-dnsmasq: it runs with an older configuration"
        means = f"{asked.word} should be told {expected}"
        return findings.error(looked_at, f"it is told {where}", means, mend)
    first = tried.get(offer.file)
    if first is None:
        return findings.ok(looked_at, f"it is told {where}")
    if first.trouble:
        means = "a box with this firmware gets no further"
        tag = next((each.tag for each in FIRMWARES if each.file == expected), "")
        mend = mend_of(tag) if tag else "appliance tftpboot"
        return findings.error(looked_at, f"{where}: {first.trouble}", means, mend)
    return findings.ok(looked_at, f"{where}, first {first.size} bytes by TFTP")


def unanswered(interface: str, trouble: str) -> list[Finding]:
    """Returns the findings for an interface on which nothing could be asked."""
    mend = "sudo appliance doctor" if "root" in trouble else f"ip link show {interface}"
    return [
        findings.skipped(f"DHCP servers on {interface}", trouble, mend),
        findings.skipped(f"boot on {interface}", trouble, mend),
    ]
