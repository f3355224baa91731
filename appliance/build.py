"""What this program was built from, and where its parts lie.

A built one carries `build.json`; a checkout has none.
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
    """`commit` is empty in a checkout; `glibc` is the oldest that will do, "2.36"."""

    version: str
    commit: str
    python: str
    glibc: str

    @property
    def name(self) -> str:
        """One word for a directory: no two builds of different sources have the same."""
        return f"{self.version}-{self.commit or 'checkout'}"

    def __str__(self) -> str:
        origin = f"commit {self.commit}" if self.commit else "from a checkout"
        needs = f", needs glibc {self.glibc}" if self.glibc else ""
        return f"{self.version} ({origin}, Python {self.python}{needs})"


def facts() -> Build:
    """Of the running program."""
    try:
        read = json.loads((PACKAGE / FACTS).read_text())
    except FileNotFoundError:
        read = {"commit": "", "glibc": ""}
    return Build(appliance.__version__, read["commit"], platform.python_version(), read["glibc"])


def reads(inside: Path) -> int | None:
    """The latest version of the state that the built program reads whose files lie in `inside`.

    None: it does not say, as those from before there were two.
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
    """How this very program is started once more."""
    return [sys.executable] if is_built() else [sys.executable, "-m", "appliance"]


def unpacked() -> Path:
    """The directory that holds this built program's files.  Only for a built one."""
    return Path(sys._MEIPASS)  # type: ignore[attr-defined] # PyInstaller's
