"""Pure: no clock, no socket, no await.

Makes the drop-ins for the units in systemd/ from the configuration.  A configuration with default
ports, address and paths needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appliance import addresses
from appliance.config import Config, Paths, Ports

TARGET: Final = "appliance.target"
SERVER: Final = "appliance.service"
SOCKETS: Final = ("appliance.socket", "appliance-control.socket")
# Daemons that serve boxes beside the server; each may be left to somebody else.
DAEMONS: Final = {
    "dnsmasq": "appliance-dnsmasq.service",
    "cifs": "appliance-cifs.service",
    "nfs": "appliance-nfs.service",
}
DROP_INS: Final = {
    "appliance.socket.d/ports.conf",
    "appliance-control.socket.d/paths.conf",
    "appliance.service.d/paths.conf",
    "appliance-dnsmasq.service.d/paths.conf",
}
_HEAD: Final = "# Written by `appliance install` from appliance.toml.\n"


def drop_ins(config: Config, doors: Sequence[int]) -> dict[str, str]:
    """Returns the drop-ins that a configuration needs, by path below a folder of units.

    `doors` are the ports of the server's doors, in order.
    """
    made = {}
    if config.ports != Ports() or config.network.listen != "0.0.0.0":
        host = addresses.in_url(config.network.listen)
        streams = [f"ListenStream={host}:{port}" for port in doors]
        lines = ["ListenStream=", *streams]
        if host.startswith("["):  # else net.ipv6.bindv6only decides
            lines.append("BindIPv6Only=both")
        made["appliance.socket.d/ports.conf"] = _section("Socket", lines)
    paths, usual = config.paths, Paths()
    if paths.run != usual.run:
        lines = ["ListenStream=", f"ListenStream={paths.control_socket}"]
        made["appliance-control.socket.d/paths.conf"] = _section("Socket", lines)
    own = [(each.srv, each.state, each.hosts, each.tftp) for each in (paths, usual)]
    if own[0] != own[1]:
        srv = (paths.srv / "result", paths.srv / "upload-files")
        writes = (paths.state, *srv, paths.hosts, paths.tftp)
        lines = ["ReadWritePaths=" + " ".join(f"-{path}" for path in writes)]
        made["appliance.service.d/paths.conf"] = _section("Service", lines)
        lines = [f"ReadWritePaths=-{paths.state / 'dnsmasq.leases'}"]
        made["appliance-dnsmasq.service.d/paths.conf"] = _section("Service", lines)
    return made


def _section(name: str, lines: Sequence[str]) -> str:
    return _HEAD + "\n".join([f"[{name}]", *lines, ""])
