"""Pure: no clock, no socket, no await.

What an installation is about: the places it may change, the program, what is wished for, and what
this server is like before.
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
# Debian's names, by what may be left out.
PACKAGES: Final = {
    # cpio looks into images, mmdebstrap makes them.
    "": ("ipxe", "cpio", "mmdebstrap"),
    "dnsmasq": ("dnsmasq-base",),
    "cifs": ("samba",),
    "nfs": ("nfs-ganesha", "nfs-ganesha-vfs"),
}


@attrs.frozen
class Places:
    """Where an installation lies; tests move it."""

    root: Path = Path("/")

    @property
    def lib(self) -> Path:
        """The program, one folder a version."""
        return self.root / "usr/lib/appliance"

    @property
    def current(self) -> Path:
        """A link to the version that runs."""
        return self.lib / "current"

    @property
    def previous(self) -> Path:
        """A link to the one before."""
        return self.lib / "previous"

    @property
    def record(self) -> Path:
        """What earlier installs did, for an uninstall."""
        return self.lib / "installed.json"

    @property
    def kept(self) -> Path:
        """The same after an uninstall: a later install goes on with it, and a later purge."""
        return self.root / "etc/appliance/installed.json"

    @property
    def unfinished(self) -> Path:
        """There while an install is under way, or after one that was cut short."""
        return self.lib / "unfinished"

    @property
    def packaged(self) -> Path:
        """There if the program's files are those of a Debian package."""
        return self.lib / "packaged"

    @property
    def command(self) -> Path:
        """What people type."""
        return self.root / "usr/bin/appliance"

    @property
    def units(self) -> Path:
        """Units as they are."""
        return self.root / "usr/lib/systemd/system"

    @property
    def drop_ins(self) -> Path:
        """What the configuration changes in them."""
        return self.root / "etc/systemd/system"

    @property
    def passing(self) -> Path:
        """Drop-ins for the time of an upgrade."""
        return self.root / "run/systemd/system/appliance.service.d/upgrade.conf"

    @property
    def sysusers(self) -> Path:
        """Who the daemons are."""
        return self.root / "usr/lib/sysusers.d/appliance.conf"

    @property
    def config(self) -> Path:
        """The operator's."""
        return self.root / "etc/appliance/appliance.toml"


@attrs.frozen
class Program:
    """The build that is installed: its name, where it lies unpacked, and its texts.

    `documents`: man page and completions, by their place below the root.  `reads`: the latest
    version of the state that it reads (keep/state/versions.py).
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
    """What this server is like."""

    packages: frozenset[str] = frozenset()  # Debian's, of those that may be wanted
    texts: Mapping[Path, str] = attrs.field(factory=dict)  # of files that may be written
    links: Mapping[Path, str] = attrs.field(factory=dict)  # "" where something else is there
    folders: Mapping[Path, Whose] = attrs.field(factory=dict)  # those that exist
    active: frozenset[str] = frozenset()  # our units that run
    tftp: bool = False  # the tftp root is what this configuration makes of it
    state: int = 0  # the version of the state that is there; 0: none is, or it does not say
    copy: int = 0  # that of its copy from before the last upgrade
    reads: int = versions.FIRST  # the latest that the program reads which is installed now


@attrs.frozen
class Wish:
    """What is asked for: a configuration, its text, and what is left to others."""

    config: Config
    text: str
    doors: Sequence[int]
    without: frozenset[str] = frozenset()

    @property
    def daemons(self) -> list[str]:
        """The units that this installation runs beside the server."""
        return [unit for name, unit in units.DAEMONS.items() if name not in self.without]

    @property
    def packages(self) -> list[str]:
        """Debian's packages that they need."""
        wanted = [names for what, names in PACKAGES.items() if what not in self.without]
        return [name for names in wanted for name in names]
