"""Pure: no clock, no socket, no await.

The facts of an installation: the places that it may change, the program, what is wished for, and
what this server is like before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from appliance import names
from appliance.config import Config
from appliance.install import units
from appliance.install.actions import Owner
from appliance.keep.state import versions

SERVER: Final = Owner(names.USER, names.GROUP)
DHCP: Final = Owner("appliance-dnsmasq", "appliance-dnsmasq")
# Debian's package names, by the part of an install that needs them; "" is never left out.
PACKAGES: Final = {
    # cpio looks into images, mmdebstrap makes them.
    "": ("ipxe", "cpio", "mmdebstrap"),
    "dnsmasq": ("dnsmasq-base",),
    "cifs": ("samba",),
    "nfs": ("nfs-ganesha", "nfs-ganesha-vfs"),
}


@attrs.frozen
class Places:
    """The paths of an installation; tests choose another root."""

    root: Path = Path("/")

    @property
    def lib(self) -> Path:
        """The folder of the program, with one folder for each version."""
        return self.root / "usr/lib/appliance"

    @property
    def current(self) -> Path:
        """A symlink to the version that runs."""
        return self.lib / "current"

    @property
    def previous(self) -> Path:
        """A symlink to the version before."""
        return self.lib / "previous"

    @property
    def record(self) -> Path:
        """What earlier installs did, for an uninstall."""
        return self.lib / "installed.json"

    @property
    def kept(self) -> Path:
        """The record after an uninstall, for a later install or purge."""
        return self.root / "etc/appliance/installed.json"

    @property
    def unfinished(self) -> Path:
        """A file that exists during an install, and after an interrupted one."""
        return self.lib / "unfinished"

    @property
    def packaged(self) -> Path:
        """A file that exists if a Debian package brought the program."""
        return self.lib / "packaged"

    @property
    def command(self) -> Path:
        """The command that people type."""
        return self.root / "usr/bin/appliance"

    @property
    def units(self) -> Path:
        """The folder of the unit files."""
        return self.root / "usr/lib/systemd/system"

    @property
    def drop_ins(self) -> Path:
        """The folder of drop-ins: what the configuration changes in the units."""
        return self.root / "etc/systemd/system"

    @property
    def passing(self) -> Path:
        """A drop-in that exists only during an upgrade."""
        return self.root / "run/systemd/system/appliance.service.d/upgrade.conf"

    @property
    def sysusers(self) -> Path:
        """The users and groups of the daemons."""
        return self.root / "usr/lib/sysusers.d/appliance.conf"

    @property
    def config(self) -> Path:
        """The configuration, which is the operator's."""
        return self.root / "etc/appliance/appliance.toml"


@attrs.frozen
class Program:
    """A build: its name, the folder that has its unpacked files, and its units and documents.

    `documents`: man page and completions, by path below the root.  `reads`: the latest version of
    the state that the build reads (keep/state/versions.py).
    """

    name: str
    source: Path
    launcher: str
    units: Mapping[str, str]
    documents: Mapping[str, str] = attrs.field(factory=dict)
    reads: int = versions.FIRST


Whose = tuple[Owner, int]  # a folder's owner and mode


@attrs.frozen
class Found:
    """What was found on this server."""

    packages: frozenset[str] = frozenset()  # installed ones, of those that may be wanted
    texts: Mapping[Path, str] = attrs.field(factory=dict)  # of files that may be written
    links: Mapping[Path, str] = attrs.field(factory=dict)  # "" for a path that is not a symlink
    folders: Mapping[Path, Whose] = attrs.field(factory=dict)  # existing ones
    active: frozenset[str] = frozenset()  # our units that run
    tftp: bool = False  # the tftp root is laid out for this configuration
    state: int = 0  # the version of the state; 0: there is no state, or it has no version
    copy: int = 0  # the version of the state's copy from before the last upgrade
    reads: int = versions.FIRST  # the latest version that the installed program reads


@attrs.frozen
class Wish:
    """What is asked for: a configuration, its text, and the parts that are left to others."""

    config: Config
    text: str
    doors: Sequence[int]
    without: frozenset[str] = frozenset()

    @property
    def daemons(self) -> list[str]:
        """Returns the units that this installation runs beside the server."""
        return [unit for name, unit in units.DAEMONS.items() if name not in self.without]

    @property
    def packages(self) -> list[str]:
        """Returns the Debian packages that this installation needs."""
        wanted = [names for what, names in PACKAGES.items() if what not in self.without]
        return [name for names in wanted for name in names]
