"""Pure: no clock, no socket, no await.

Judges the iPXE version of each parked box by known behaviour (measured on real firmware).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from appliance.config import Waits
from appliance.doctor import findings
from appliance.doctor.findings import Finding

WATCHDOG_S: Final = 120.0  # iPXE 2.0.0 drops a transfer with no body byte for so long


@attrs.frozen
class Known:
    """A known behaviour of iPXE from version `first` up to, not including, `beyond`."""

    first: tuple[int, ...]
    beyond: tuple[int, ...]
    what: str


KNOWN: Final = (
    Known(
        (1, 0), (1, 20), "chained plainly it hangs at the 13th wait; our re-chain replaces itself"
    ),
    Known((1, 20), (2,), "chained plainly it hangs at about the 770th wait; ours replaces itself"),
    Known((2,), (99,), f"gives up a wait that is silent for {WATCHDOG_S:.0f} s; ours is not"),
)
_VERSION: Final = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


def known_of(version: str) -> str:
    """Returns the known behaviour of an iPXE version that matters; empty: none."""
    found = _VERSION.match(version)
    if not found:
        return ""
    numbers = tuple(int(word) for word in found.groups() if word)
    return "; ".join(each.what for each in KNOWN if each.first <= numbers < each.beyond)


def parked(rows: Iterable[Mapping[str, Any]], waits: Waits) -> list[Finding]:
    """Judges the boxes that `appliance hosts` lists, grouped by iPXE version."""
    by_version: dict[str, list[str]] = {}
    for row in rows:
        if row.get("ipxe") is not None:
            by_version.setdefault(str(row["ipxe"]), []).append(str(row["name"]))
    found = []
    for version, names in sorted(by_version.items()):
        shown = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
        looked_at = f"iPXE {version or 'of unknown version'}"
        if not version:
            means = "what it can do is not known: its boot.ipxe is not ours, or an older one"
            found.append(findings.warning(looked_at, shown, means, "appliance tftpboot"))
        elif waits.drip >= WATCHDOG_S and known_of(version) == KNOWN[-1].what:
            means = f"it drops the wait after {WATCHDOG_S:.0f} s, and boots from its own disk"
            mend = f"[waits] drip = 30 (it is {waits.drip:.0f})"
            found.append(findings.error(looked_at, shown, means, mend))
        else:
            note = known_of(version)
            found.append(findings.ok(looked_at, f"{shown}{f'; {note}' if note else ''}"))
    return found
