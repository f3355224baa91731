"""Who is at an address, as the kernel of this server knows its neighbours on the lab's own link."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from appliance.jobs.box import Box

# By way of self: our unit sees of /proc the processes alone (ProcSubset=pid), not /proc/net.
ARP_TABLE: Final = Path("/proc/self/net/arp")


def neighbour(table: str, address: str) -> str | None:
    """The MAC that this table has for `address`; None where it has none, as on loopback."""
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) >= 4 and words[0] == address and words[3] != "00:00:00:00:00:00":
            return words[3].lower()
    return None


def is_card_of(box: Box, table: str, address: str) -> bool:
    """Whether a card at `address` is one that the hosts file gives to `box`.

    What boxes say of their own MACs does not count: anybody can say it.
    """
    return box.facts is not None and neighbour(table, address) in box.facts.macs
