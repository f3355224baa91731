"""Checks whether this machine can run programs of another architecture, and what it lacks.

qemu-user runs them once it is registered with the kernel's binfmt_misc.  In a chroot it must be
registered with the flag F, since the qemu program itself does not exist in the chroot.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

BINFMT: Final = Path("/proc/sys/fs/binfmt_misc")
_INSTALL: Final = "install qemu-user-static, binfmt-support and arch-test (Debian's names)"


def lacks(arch: str, binfmt: Path | None = None) -> str | None:
    """Returns why programs of `arch` do not run here, and what would help; None if they do."""
    machine = os.uname().machine
    if arch == machine:
        return None
    binfmt = binfmt or BINFMT
    about = f"this machine is {machine} and runs no programs of {arch}"
    if not (binfmt / "register").exists():
        mount = f"mount -t binfmt_misc binfmt_misc {binfmt}"
        return f"{about}: `{mount}`, or this kernel has no binfmt_misc"
    try:
        said = (binfmt / f"qemu-{arch}").read_text().splitlines()
    except OSError:
        return f"{about}: {_INSTALL}; where they are, `update-binfmts --enable qemu-{arch}`"
    if "enabled" not in said:
        return f"{about}: qemu-{arch} is disabled in {binfmt}; `update-binfmts --enable`"
    flags = next((line.split(":", 1)[1] for line in said if line.startswith("flags:")), "")
    if "F" not in flags:
        return f"{about} in a chroot: qemu-{arch} is registered without the flag F; {_INSTALL}"
    return None
