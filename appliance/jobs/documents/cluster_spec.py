"""Pure: no clock, no socket, no await.

Splits one document for several machines into one per machine, as the original does with a
`cluster_spec` (docs/wire.md#clusters).  `cluster` handles how these jobs wait for each other.

    cluster_spec: {ip0: 1, nodes: {rack-7: {roles: [server], macs: ["44:67:47:d7:6d:14"]}}}
    if role server: {...}                  names a role that the job uses
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from appliance.errors import BadRequest
from appliance.jobs.box import normal_mac

NODES_MAX: Final = 100  # per cluster
FIELDS_MAX: Final = 20_000  # in all its documents together; one of LKP's jobs has some forty
ROLES_CHARS_MAX: Final = 1000  # in one `if role ...`
_DIRECT: Final = "192.168.222"  # network of the cards that connect nodes directly
_ADDRESS_MAX: Final = 254
_ROLE: Final = re.compile(rf"if role (.{{1,{ROLES_CHARS_MAX}}})")
_COPY: Final = re.compile(r"--[0-9]+\Z")  # rack--1 and rack--2 are two machines of the kind `rack`


def documents(fields: Mapping[str, Any], spec: Any) -> list[dict[str, Any]]:
    """Returns the fields of each node's document, in the spec's order.  Raises BadRequest."""
    nodes, address = _nodes(spec)
    if len(nodes) * len(fields) > FIELDS_MAX:
        raise BadRequest(f"cluster_spec: {len(nodes)} hosts take {FIELDS_MAX} fields in all")
    wanted = dict.fromkeys(role for key in fields for role in _roles_in(key))
    made = []
    for host, node in nodes.items():
        roles = [str(role) for role in _list(host, node, "roles") if not wanted or role in wanted]
        if not roles:
            continue
        macs = [normal_mac(str(mac)) for mac in _list(host, node, "macs")]
        addresses = range(address, address + len(macs))
        if addresses and addresses[-1] > _ADDRESS_MAX:
            raise BadRequest("cluster_spec: there are not so many addresses behind ip0")
        address += len(macs)
        kind = _COPY.sub("", str(host))
        changed = {"testbox": kind, "queue": kind, "node_roles": " ".join(roles)}
        if macs:
            changed["nr_nic"] = 2  # type: ignore[assignment] # the lab's card and a direct one
            changed["direct_macs"] = " ".join(macs)
            changed["direct_ips"] = " ".join(f"{_DIRECT}.{last}" for last in addresses)
        kept = {key: fields[key] for key in fields if key not in ("cluster_spec", "tbox_group")}
        made.append({**kept, **changed})
    if not made:
        named = ", ".join(wanted)[:ROLES_CHARS_MAX]
        raise BadRequest(f"cluster_spec: no node has one of the job's roles: {named}")
    return made


def _nodes(spec: Any) -> tuple[Mapping[str, Any], int]:
    """Returns the nodes, and the last part of the first direct address."""
    if not isinstance(spec, dict):
        raise BadRequest("cluster_spec: must map hosts to their roles")
    nodes, first = spec.get("nodes", spec), spec.get("ip0", 1)
    if not isinstance(nodes, dict) or not 0 < len(nodes) <= NODES_MAX:
        raise BadRequest(f"cluster_spec: must map 1 to {NODES_MAX} hosts to their roles")
    if not str(first).isascii() or not str(first).isdigit() or not 0 < int(first) <= _ADDRESS_MAX:
        raise BadRequest(f"cluster_spec: ip0: must be a number from 1 to {_ADDRESS_MAX}")
    return nodes, int(first)


def _roles_in(key: str) -> list[str]:
    match = _ROLE.fullmatch(key)
    return match[1].split() if match is not None else []


def _list(host: str, node: Any, key: str) -> list[Any]:
    found = node.get(key) if isinstance(node, dict) else None
    if found is None:
        found = []
    if not isinstance(found, list) or len(found) > NODES_MAX:
        raise BadRequest(f"cluster_spec: {str(host)[:40]}: {key} must be a list")
    return found
