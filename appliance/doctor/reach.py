"""Pure: no clock, no socket, no await.

Judges whether each door answers at the lab's address.
"""

from __future__ import annotations

import attrs

from appliance.doctor import findings
from appliance.doctor.findings import Finding


@attrs.frozen
class Knock:
    """A connection to one door; `trouble` is empty if the door answered as it should."""

    name: str
    address: str
    port: int
    trouble: str = ""
    needed: bool = True


def reach(knock: Knock) -> Finding:
    """Judges one door."""
    looked_at = f"door {knock.name}"
    where = f"{knock.address} port {knock.port}"
    if not knock.trouble:
        return findings.ok(looked_at, f"answers at {where}")
    if not knock.needed:
        return findings.ok(looked_at, f"{where}: {knock.trouble}; jobs without it are not touched")
    mend = "appliance status; network.listen and network.address in appliance.toml"
    return findings.error(looked_at, f"{where}: {knock.trouble}", "boxes cannot reach it", mend)
