"""Pure: no clock, no socket, no await.

Makes smb.conf for a private smbd that exports /srv/os read-only to every testbox, in the dialect of
the wire's kernel line (`vers=1.0`, guest).  It shares nothing with the machine's own Samba: it has
its own directories, its own port if need be, and its own interface.

SMB1 with unix extensions is on purpose.  Only with it do symlinks, setuid bits, modes and case
arrive as they are on disk; over SMB 3.1.1 a Linux rootfs mounts wrongly
(docs/firmware.md#file-servers).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from appliance.boot.daemons import dnsmasq
from appliance.config import Config
from appliance.errors import BadConfig

# '%' begins a substitution, '"' quotes and a trailing backslash joins lines in smb.conf.
_PATH: Final = re.compile(r"/[^\x00-\x1f\x7f-\x9f%\"\\]*\Z")

_TEMPLATE: Final = """\
# Written by `appliance smb-config`; change appliance.toml instead.
[global]
    server role = standalone server
    workgroup = APPLIANCE
    smb ports = {port}
    interfaces = {interface}
    bind interfaces only = yes
    disable netbios = yes

    # The seed's `vers=1.0`, and what makes it carry a rootfs.
    server min protocol = NT1
    unix extensions = yes

    # Nobody has a name here: every testbox is the guest.
    map to guest = Bad User
    restrict anonymous = 0

    load printers = no
    printcap name = /dev/null
    disable spoolss = yes
    usershare max shares = 0

    private dir = {private}
    state directory = {state}
    cache directory = {cache}
    lock directory = {lock}
    pid directory = {pid}
    ncalrpc dir = {ncalrpc}
    log file = {log}
    max log size = 10000

[os]
    path = {os}
    read only = yes
    guest ok = yes
    # A rootfs has files that only root may read, and one owner for all of them: the box is root.
    force user = root
    # A link is data: the box follows it, inside its own root.  The server follows those that stay
    # inside the share, and no other ("/etc/shadow" of a rootfs is never the server's).
    follow symlinks = yes
    wide links = no
    # Names are what they are on disk.
    case sensitive = yes
    preserve case = yes
    store dos attributes = no
    map archive = no
    # Every box may cache every file: an image that boxes boot does not change.  With real oplocks
    # the first box to open a file is asked before the next one may, and for one that has lost power
    # smbd waits 35 s, file by file.
    fake oplocks = yes
    oplocks = no
    level2 oplocks = no
"""


def configuration(config: Config) -> str:
    """Returns a complete smb.conf for this lab.  Raises BadConfig with the invalid key."""
    names = " ".join(dnsmasq.interfaces(config))
    places = {role: _path(path) for role, path in _places(config).items()}
    return _TEMPLATE.format(port=config.ports.cifs, interface=names, **places)


def directories(config: Config) -> tuple[Path, ...]:
    """Returns the directories that must exist before smbd starts, accessible to root alone."""
    return tuple(path for role, path in _places(config).items() if role not in ("os", "log"))


def _places(config: Config) -> dict[str, Path]:
    # In /run: smbd's data about guests need not last, and paths.state belongs to another user.
    own = config.paths.run / "smbd"
    return {
        "private": own / "private",
        "state": own / "state",
        "cache": own / "cache",
        "lock": own / "lock",
        "pid": own,
        "ncalrpc": own / "ncalrpc",
        "log": own / "smbd.log",
        "os": config.paths.srv / "os",
    }


def _path(path: Path) -> str:
    text = str(path)
    if not _PATH.match(text) or not text.isprintable() or text != text.strip():
        raise BadConfig(
            f"paths: {text!r} should be an absolute path without '%', '\"', backslashes or"
            " control characters"
        )
    return text
