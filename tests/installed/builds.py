"""Two builds of this checkout, `first` and `second`: each as one file and as a Debian package.

UPGRADE_FROM=<commit> makes the first one of that commit.  From one whose state has an older version
the upgrade is played as ever, and the tests of a rollback without the state fail: it is refused.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
NAMES = ("first", "second")


def make(folder: Path) -> Path:
    """What `make deb` makes of them: FOLDER/NAME/appliance and FOLDER/NAME/appliance_*.deb."""
    for name in NAMES:
        there, source = folder / name, REPOSITORY
        if name == NAMES[0] and "UPGRADE_FROM" in os.environ:
            source = checkout(folder / "source", os.environ["UPGRADE_FROM"])
        asked = [f"TARGET={there / 'appliance'}", f"NAME={name}", f"DEB={there}"]
        subprocess.run(["make", "-s", "-C", str(source), "deb", *asked], check=True)
    return folder


def checkout(folder: Path, commit: str) -> Path:
    """The files of a commit."""
    folder.mkdir()
    git = ["git", "-c", "safe.directory=*", "-C", str(REPOSITORY), "archive", commit]
    packed = subprocess.run(git, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed, check=True)
    return folder
