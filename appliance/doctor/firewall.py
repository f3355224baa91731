"""Pure: no clock, no socket, no await.

Judges whether `nft` or `iptables` rules drop incoming packets by default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from appliance.doctor import findings
from appliance.doctor.findings import Finding

# A rule with only these and a verdict of _ENDS applies to every packet that reaches it.
_PASSED_BY: Final = {"counter", "log", "limit"}
_ENDS: Final = {"drop", "reject"}
_POLICY: Final = re.compile(r"^-P INPUT DROP$", re.MULTILINE)
_LAST_RULE: Final = re.compile(
    r"^-A INPUT (-m comment --comment \S+ )?-j (DROP|REJECT)", re.MULTILINE
)

_ABSENT: Final = "not installed"
_PACKAGES: Final = {"nft": "nftables", "iptables": "iptables"}  # Debian's

# The names of chains that drop by default; or why the rules could not be read.
Reading = Sequence[str] | str


def of_nft(ruleset: str | None) -> Reading:
    """Finds input chains that drop by default in the output of `nft -j list ruleset`.

    `ruleset` None: nft is not installed.
    """
    if ruleset is None:
        return _ABSENT
    try:
        rows: list[dict[str, Any]] = json.loads(ruleset)["nftables"]
    except (ValueError, KeyError, TypeError):
        return "says nothing that can be read"
    chains = [row["chain"] for row in rows if row.get("chain", {}).get("hook") == "input"]
    ended = {_name(row["rule"], "chain") for row in rows if _ends(row.get("rule", {}))}
    return [
        "{1} {2}".format(*_name(chain, "name"))
        for chain in chains
        if chain.get("policy") == "drop" or _name(chain, "name") in ended
    ]


def _name(row: Mapping[str, Any], key: str) -> tuple[str, str, str]:
    return row["family"], row["table"], row[key]


def _ends(rule: Mapping[str, Any]) -> bool:
    words = {word for each in rule.get("expr", ()) for word in each} - _PASSED_BY
    return bool(words) and words <= _ENDS


def of_iptables(rules: str | None) -> Reading:
    """Does the same as of_nft() for the output of `iptables-legacy -S INPUT`."""
    if rules is None:
        return _ABSENT
    if not rules.startswith("-P INPUT "):
        return "says nothing that can be read"
    drops = _POLICY.search(rules) or _LAST_RULE.search(rules)
    return ["iptables INPUT"] if drops else []


def judge(
    readings: Mapping[str, Reading], ports: Sequence[tuple[str, int]], interface: str
) -> Finding:
    """Judges the readings, by program; `ports` are the ports that the lab must reach."""
    looked_at = "firewall"
    dropping = [name for said in readings.values() if not isinstance(said, str) for name in said]
    unread = [f"{name}: {said}" for name, said in readings.items() if isinstance(said, str)]
    if dropping:
        means = "whether boxes get through cannot be seen from this machine"
        by_protocol = {
            protocol: ", ".join(str(port) for each, port in ports if each == protocol)
            for protocol in ("tcp", "udp")
        }
        mend = f"let in from {interface}: " + "; ".join(
            f"{protocol} {which}" for protocol, which in by_protocol.items() if which
        )
        return findings.warning(looked_at, f"{', '.join(dropping)} drops by default", means, mend)
    if unread:
        absent = [_PACKAGES[name] for name, said in readings.items() if said == _ABSENT]
        why = f"whether one drops what comes in is not known: {'; '.join(unread)}"
        return findings.skipped(
            looked_at, why, f"apt-get install {' '.join(absent)}" * bool(absent)
        )
    return findings.ok(looked_at, f"none that drops what comes in ({', '.join(readings)})")
