"""Removes from a root filesystem the special files that must not be on a file server.

Device nodes, pipes and sockets belong to the machine that made them: a box makes its own.  Programs
that give root rights stay, since people on a box need `su`; the mount options of /srv/os keep them
from local users of this server, which doctor checks (doctor/boot_files).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from appliance.boot.images.sandbox import Say
from appliance.errors import BadImage
from appliance.fs import trees

_KINDS: Final = {
    stat.S_IFCHR: "device", stat.S_IFBLK: "device", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket",
}  # fmt: skip
_NAMED_MAX: Final = 20
_CAPABILITY: Final = "security.capability"


def strip(root: Path, say: Say) -> None:
    """Removes everything but files, folders and symlinks, and reports it.

    Raises BadImage if folders are nested too deeply to be walked.
    """
    check_depth(root)
    gone, powerful = [], 0
    for folder in trees.walk(root, strict=True):
        for entry in folder.entries:
            mode = entry.stat(follow_symlinks=False).st_mode
            if kind := _KINDS.get(stat.S_IFMT(mode)):
                os.unlink(entry.path)
                gone.append(f"{os.path.relpath(entry.path, root)!a} ({kind})")
            elif stat.S_ISREG(mode):
                powerful += bool(mode & (stat.S_ISUID | stat.S_ISGID)) or _has_capability(entry)
    for name in sorted(gone)[:_NAMED_MAX]:
        say(f"left out: {name}")
    if len(gone) > _NAMED_MAX:
        say(f"left out: {len(gone) - _NAMED_MAX} more devices, pipes and sockets")
    if powerful:
        say(f"{powerful} programs give rights to whoever runs them: `appliance doctor` looks at it")


def check_depth(root: Path) -> None:
    """Raises BadImage if folders are nested too deeply."""
    if (deep := trees.too_deep(root)) is not None:
        raise BadImage(
            f"{deep!a} has more than {trees.DEPTH_MAX} folders in each other, or paths of more than"
            f" {trees.PATH_BYTES_MAX} bytes: a root filesystem has some thirty"
        )


def _has_capability(entry: os.DirEntry[str]) -> bool:
    try:
        return bool(os.getxattr(entry.path, _CAPABILITY, follow_symlinks=False))
    except OSError:  # no capability, or no support in the file system
        return False
