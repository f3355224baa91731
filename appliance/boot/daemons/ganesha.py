"""Pure: no clock, no socket, no await.

What nfs-ganesha is told: a private one that shows /srv/os read-only to every testbox, as NFS 4.
It is the modern choice for a rootfs: links, setuid bits, modes and case arrive as they are on disk,
in a dialect that every kernel still speaks.  A program and no kernel module, so it also runs where
the kernel has no nfsd.  It shares nothing with an NFS server of the machine but the port.

It does not cross mounts: what is mounted inside the tree is not seen by boxes.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Final

from appliance.config import Config
from appliance.errors import BadConfig

# The kernel line of a job is `root=ADDRESS:/os/...` and has no place for another port.
PORT: Final = 2049
# '"' ends a string and '\' escapes in ganesha.conf; '$' begins one of its variables.
_PATH: Final = re.compile(r"/[^\x00-\x1f\x7f-\x9f\"\\$%]*\Z")

_TEMPLATE: Final = """\
# Written by `appliance nfs-config`; change appliance.toml instead.
NFS_CORE_PARAM {{
    Bind_addr = {address};
    NFS_Port = {port};
    # 4 alone: no portmapper, no mountd, no lock daemon, and so no port but this one.
    Protocols = 4;
    Enable_NLM = false;
    Enable_RQUOTA = false;
    Enable_UDP = false;
{newer}}}

NFS_KRB5 {{
    Active_krb5 = false;
}}

NFSV4 {{
    # Nobody writes, so nobody has a lock to reclaim: a box need not wait after our restart.
    Graceless = true;
    RecoveryBackend = fs;
    RecoveryRoot = "{recovery}";
    # An image's users are numbers; the server's names for them mean nothing to a box.
    Only_Numeric_Owners = true;
}}

EXPORT {{
    Export_Id = 1;
    Path = "{os}";
    # As the kernel line asks for it.
    Pseudo = "/os";
    Protocols = 4;
    Transports = TCP;
    SecType = sys;
    Access_Type = RO;
    # A rootfs has files that only root may read, and the box is root.
    Squash = No_Root_Squash;
    FSAL {{
        Name = VFS;
    }}
}}

LOG {{
    Default_Log_Level = EVENT;
}}
"""


# Version 6 ends where the kernel does not treat it as a server that writes to disks, for which it
# needs CAP_SYS_RESOURCE, and containers have none.  It only reads.
_NEWER: Final = """\
    allow_set_io_flusher_fail = true;
"""
_RELEASE: Final = re.compile(r"Release = V(\d+)")


def version_of(said: str) -> int:
    """The major version by what `ganesha.nfsd -v` says; 4 where it says nothing of the kind."""
    found = _RELEASE.search(said)
    return int(found[1]) if found else 4


def configuration(config: Config, version: int = 4) -> str:
    """A complete ganesha.conf for this lab; `version` is ganesha's.

    Raises BadConfig, with the key that does not fit.
    """
    # It binds to one address.  With several interfaces that is the one which stands for all.
    several = len(config.network.interfaces) > 1
    chosen = "0.0.0.0" if several else config.network.address.strip("[]")
    try:
        address = str(ipaddress.ip_address(chosen))
    except ValueError:
        raise BadConfig(
            f"network.address = {config.network.address!r} should be this server's address in the"
            " lab: ganesha listens there and nowhere else"
        ) from None
    return _TEMPLATE.format(
        address=address,
        port=PORT,
        newer=_NEWER if version > 4 else "",
        recovery=_path(_recovery(config)),
        os=_path(config.paths.srv / "os"),
    )


def command(config: Config, file: Path) -> tuple[str, ...]:
    """How it is started with that configuration: in the foreground, its log on standard output."""
    pid = config.paths.run / "ganesha/ganesha.pid"
    return ("ganesha.nfsd", "-F", "-f", str(file), "-p", str(pid), "-L", "STDOUT")


def directories(config: Config) -> tuple[Path, ...]:
    """Those that must exist before it starts."""
    return (_recovery(config), config.paths.run / "ganesha")


def _recovery(config: Config) -> Path:
    return config.paths.run / "ganesha/recovery"


def _path(path: Path) -> str:
    text = str(path)
    if not _PATH.match(text) or not text.isprintable() or text != text.strip():
        raise BadConfig(
            f"paths: {text!r} should be an absolute path without '$', '%', '\"', backslashes or"
            " control characters"
        )
    return text
