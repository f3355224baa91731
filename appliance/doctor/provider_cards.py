"""Pure: no clock, no socket, no await.

Judges how machines that run virtual testboxes are identified: by card, or by address only.
"""

from __future__ import annotations

from collections.abc import Mapping

from appliance import addresses
from appliance.doctor import findings
from appliance.doctor.findings import Finding

_MEANS = "whoever takes such an address registers boxes, and gets other boxes' jobs and secrets"


def judge(entry: str, card: str | None, owners: Mapping[str, str], *, routed: bool) -> Finding:
    """Judges one entry of network.providers.  `card`: the one at its address now; None: unknown.

    `owners`: names of registered boxes, by card; `routed`: the address is behind a router.
    """
    machine, looked_at = addresses.machine(entry), f"provider {entry}"
    one = machine.network.num_addresses == 1
    if routed:
        return _far(looked_at, machine)
    if machine.cards:
        if one and card is not None and card not in machine.cards:
            return _other(looked_at, machine, card)
        return findings.ok(looked_at, "is known by its card")
    if one and card is not None and card in owners:
        found = f"{card} is there, which is the testbox {owners[card]}'s"
        means = "it is taken for that testbox, and for no machine that runs virtual ones"
        mend = f'if {owners[card]} does run some: providers = ["{entry} {card}"]'
        return findings.error(looked_at, found, means, mend)
    seen = card or "MAC"
    mend = f'providers = ["{machine.network.network_address} {seen}"]'
    what = "its address" if one else "an address in it"
    more = "" if one else ", with one entry for each machine"
    return findings.warning(looked_at, f"is believed by {what} alone", _MEANS, mend + more)


def _far(looked_at: str, machine: addresses.Machine) -> Finding:
    if not machine.cards:
        return findings.ok(looked_at, "is behind a router: no testbox here can be it")
    found = "is behind a router, where no card is to be seen"
    mend = f'providers = ["{machine.network.network_address}"]'
    return findings.error(looked_at, found, "it is refused", mend)


def _other(looked_at: str, machine: addresses.Machine, card: str) -> Finding:
    found = f"{card} has its address now"
    means = "it is refused; it has a new card, or somebody has taken its address"
    mend = f'if it is a new card: providers = ["{machine.network.network_address} {card}"]'
    return findings.error(looked_at, found, means, mend)
