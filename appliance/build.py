"""Says what this program was built from, and where its parts are.

A built program carries `build.json`; a checkout has none.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Final

import attrs

import appliance

FACTS: Final = "build.json"
PACKAGE: Final = Path(appliance.__file__).parent


@attrs.frozen
class Build:
    """`commit` is empty in a checkout; `glibc` is the oldest version that works, such as "2.36"."""

    version: str
    commit: str
    python: str
    glibc: str

    @property
    def name(self) -> str:
        """One word for a directory, different for builds of different sources."""
        return f"{self.version}-{self.commit or 'checkout'}"

    def __str__(self) -> str:
        origin = f"commit {self.commit}" if self.commit else "from a checkout"
        needs = f", needs glibc {self.glibc}" if self.glibc else ""
        return f"{self.version} ({origin}, Python {self.python}{needs})"


def facts() -> Build:
    """Returns the build of the running program."""
    try:
        read = json.loads((PACKAGE / FACTS).read_text())
    except FileNotFoundError:
        read = {"commit": "", "glibc": ""}
    return Build(appliance.__version__, read["commit"], platform.python_version(), read["glibc"])


def reads(inside: Path) -> int | None:
    """Returns the latest state version that the built program in the folder `inside` reads.

    None: the program does not say, because it is from before there were two versions.
    """
    try:
        said = json.loads((inside / appliance.__name__ / FACTS).read_text())
    except FileNotFoundError:
        return None
    number: int | None = said.get("state")
    return number


def is_built() -> bool:
    """Whether this is a built program, with its interpreter inside."""
    return bool(getattr(sys, "frozen", False))


def command() -> list[str]:
    """Returns the command that starts this program again."""
    return [sys.executable] if is_built() else [sys.executable, "-m", "appliance"]


def unpacked() -> Path:
    """Returns the directory of this program's unpacked files.  Only for a built program."""
    return Path(sys._MEIPASS)  # type: ignore[attr-defined] # PyInstaller's
