"""Pure: no clock, no socket, no await.

Makes ganesha.conf for a private nfs-ganesha that exports /srv/os read-only to every testbox, as
NFS 4.  It is the modern choice for a rootfs: links, setuid bits, modes and case arrive as they are
on disk, in a dialect that every kernel still speaks.  It is a user-space program, so it also runs
where the kernel has no nfsd.  It shares only the port with an NFS server of the machine.

It does not cross mounts: boxes do not see file systems mounted inside the tree.
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


# Without this, version 6 exits where the kernel does not let it mark itself as a process that disk
# I/O depends on (CAP_SYS_RESOURCE, which containers lack).  It only reads, so it need not.
_NEWER: Final = """\
    allow_set_io_flusher_fail = true;
"""
_RELEASE: Final = re.compile(r"Release = V(\d+)")


def version_of(said: str) -> int:
    """Parses the major version from the output of `ganesha.nfsd -v`; 4 if there is none in it."""
    found = _RELEASE.search(said)
    return int(found[1]) if found else 4


def configuration(config: Config, version: int = 4) -> str:
    """Returns a complete ganesha.conf for this lab; `version` is ganesha's major version.

    Raises BadConfig with the invalid key.
    """
    # Ganesha binds to one address; with several interfaces it must be 0.0.0.0.
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
    """Returns the command that starts ganesha in the foreground, with its log on stdout."""
    pid = config.paths.run / "ganesha/ganesha.pid"
    return ("ganesha.nfsd", "-F", "-f", str(file), "-p", str(pid), "-L", "STDOUT")


def directories(config: Config) -> tuple[Path, ...]:
    """Returns the directories that must exist before ganesha starts."""
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
