"""Looks for other DHCP servers before an install changes anything.

With two servers on one network, chance decides: a box takes whichever answer comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from appliance.config import Network
from appliance.doctor import probe, wire

ANYWAY: Final = "--lease-anyway"


def to_ask(network: Network, before: Network | None) -> list[str]:
    """Returns the interfaces on which this server will lease addresses, and did not `before`."""
    leased = [] if before is None else _leased(before)
    return [name for name in _leased(network) if name not in leased]


def _leased(network: Network) -> list[str]:
    segments = [(network.interface, network.dhcp_range)]
    segments += [(each.interface, each.dhcp_range) for each in network.more.values()]
    return [name for name, dhcp_range in segments if name and dhcp_range]


def heard(
    names: Sequence[str],
    own: Collection[str],
    say: Callable[[str], None],
    patience: float = probe.ANSWER_S,
) -> dict[str, list[str]]:
    """Returns offers of others than `own`, by interface; a failed probe is told, but no refusal."""
    if not names:
        return {}
    say(f"asking for other DHCP servers on {', '.join(names)}, for {patience:.0f} s")
    found = {}
    for answers in probe.discover_all(names, list(wire.EXPECTED), patience=patience):
        if answers.trouble:
            say(f"nobody could be asked on {answers.interface}: {answers.trouble}")
        elif offers := wire.others(answers.offers, own):
            found[answers.interface] = [wire.told(offer) for offer in offers]
    return found


def refusal(found: dict[str, list[str]], config: Path, *, written: bool) -> list[str]:
    """Returns why an install is refused, and what to do; `written`: `config` exists already."""
    if not found:
        return []
    wrong = [
        f"{name} has a DHCP server already: {each}"
        for name, offers in found.items()
        for each in offers
    ]
    proxy = f"take dhcp_range out of {config}" if written else "say --proxy-dhcp"
    return [
        *wrong,
        f"to leave the leases to it, {proxy}; else turn it off there, or say {ANYWAY} if you know"
        " that it will not answer testboxes",
    ]
