"""Runs all checks of doctor, in the order of a boot.

A check that cannot be made (no root, no server yet, no such program) becomes a finding with the
reason, and raises nothing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from appliance.config import Config
from appliance.doctor import facts, findings, host, network
from appliance.doctor.findings import Finding
from appliance.errors import ApplianceError


def look(config: Config, say: Callable[[str], None] = lambda what: None) -> list[Finding]:
    """Runs every check, in the order of a boot.  Takes some ten seconds, to hear the network."""
    found: list[Finding] = []
    with facts.gather(config) as world:
        for what, check in (
            ("the server", network.server),
            ("interfaces", network.interface),
            ("the wire", network.on_wire),
            ("ports", network.owners),
            ("limits", host.limits),
            ("disks", host.disks),
            ("clock", host.clock),
            ("iPXE", host.ipxe),
            ("configurations", host.configurations),
            ("images", host.image_states),
            ("doors", network.reached),
            ("providers", network.claimed),
            ("testboxes", network.parked),
        ):
            say(what)
            try:
                found += check(world)
            except (OSError, ApplianceError, subprocess.SubprocessError) as error:
                found.append(findings.skipped(what, f"could not be looked at: {error}"))
    return found
