"""Pure: no clock, no socket, no await.

The appliance.toml of a new installation: chosen settings, and more settings in comments.
"""

from __future__ import annotations

import json
from typing import Final

from appliance.config import Network, Segment

_HEAD: Final = """\
# The appliance's configuration, written by `appliance install`.  It is yours: no later install
# changes it.  After a change: `appliance install`, which renews what is made from this file.
# Every value has a default; `appliance/config.py` lists them with their reasons.

# Job ids are <lab>.<number>.
# lab = "lab"

"""
_MAIN: Final = """\
[network]
# The interface that the testboxes are on.
interface = {interface}
# The address that boot scripts name; empty: each box is told the one that it reached us on.
address = {address}
{leases}
# DHCP options 3 and 6 for testboxes; empty: they see the lab only.
# router = ""
# dns = ""
# Machines that run virtual testboxes, and may register them: "ADDRESS MAC", or networks.
# providers = []
"""
_TAIL: Final = """
[defaults]
# What a job document need not say.
# os = "debian"
# os_version = "12"
# arch = "x86_64"
# runtime = 3600

[waits]
# Seconds an idle testbox waits before it asks again.
# park = 1800

[limits]
# Bytes of one result file, and of all results of one attempt.
# upload_file_bytes = 1073741824
# upload_attempt_bytes = 10737418240

# Who may submit over the network; `appliance account` prints such a table.
# [accounts.ann]
"""


def text(network: Network) -> str:
    """Returns a complete appliance.toml; `config.parse` reads `network` back from it."""
    main = _MAIN.format(
        interface=json.dumps(network.interface),
        address=json.dumps(network.address),
        leases=_leases(network),
    )
    more = "".join(_segment(name, segment) for name, segment in network.more.items())
    return _HEAD + main + more + _TAIL


def _leases(network: Network | Segment) -> str:
    mask = f"netmask = {json.dumps(network.netmask)}"
    if network.dhcp_range is None:
        return f"# No dhcp_range: another server leases the addresses (proxyDHCP).\n{mask}"
    ends = json.dumps(list(network.dhcp_range))
    return f"# The addresses that testboxes get.\ndhcp_range = {ends}\n{mask}"


def _segment(name: str, segment: Segment) -> str:
    lines = [f"\n[network.more.{name}]"]
    if segment.interface:
        lines.append(f"interface = {json.dumps(segment.interface)}")
        lines.append(f"address = {json.dumps(segment.address)}")
    lines.append(_leases(segment))
    if segment.router:
        lines.append("# The relay, by which these boxes reach us.")
        lines.append(f"router = {json.dumps(segment.router)}")
    return "\n".join([*lines, ""])
