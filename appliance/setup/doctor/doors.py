"""Pure: no clock, no socket, no await.

Whether the lab reaches the doors: what each answers at the lab's address, and firewalls before it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import attrs

from appliance.setup.doctor import findings
from appliance.setup.doctor.findings import Finding


@attrs.frozen
class Knock:
    """One door; `trouble` is empty where it answers as it should."""

    name: str
    address: str
    port: int
    trouble: str = ""
    needed: bool = True


def reach(knock: Knock) -> Finding:
    """What was found at one door."""
    looked_at = f"door {knock.name}"
    where = f"{knock.address} port {knock.port}"
    if not knock.trouble:
        return findings.ok(looked_at, f"answers at {where}")
    if not knock.needed:
        return findings.ok(looked_at, f"{where}: {knock.trouble}; jobs without it are not touched")
    mend = "appliance status; network.listen and network.address in appliance.toml"
    return findings.error(looked_at, f"{where}: {knock.trouble}", "boxes cannot reach it", mend)


def firewall(ruleset: str, ports: Sequence[tuple[str, int]], interface: str) -> Finding:
    """`nft -j list ruleset`: chains that drop what nobody let in."""
    looked_at = "firewall"
    try:
        rows: list[dict[str, Any]] = json.loads(ruleset)["nftables"]
    except (ValueError, KeyError, TypeError):
        return findings.skipped(looked_at, "nft says nothing that can be read")
    chains = [row["chain"] for row in rows if "chain" in row]
    dropping = [
        f"{chain['table']} {chain['name']}"
        for chain in chains
        if chain.get("hook") == "input" and chain.get("policy") == "drop"
    ]
    if not dropping:
        return findings.ok(looked_at, "none that drops what comes in")
    by_protocol = {
        protocol: ", ".join(str(port) for each, port in ports if each == protocol)
        for protocol in ("tcp", "udp")
    }
    means = "whether boxes get through cannot be seen from this machine"
    mend = f"let in from {interface}: " + "; ".join(
        f"{protocol} {which}" for protocol, which in by_protocol.items() if which
    )
    return findings.warning(looked_at, f"{', '.join(dropping)} drops by default", means, mend)
