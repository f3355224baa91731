"""Two builds of this checkout, `first` and `second`: each as one file and as a Debian package."""

from __future__ import annotations

import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
NAMES = ("first", "second")


def make(folder: Path) -> Path:
    """What `make deb` makes of them: FOLDER/NAME/appliance and FOLDER/NAME/appliance_*.deb."""
    for name in NAMES:
        there = folder / name
        asked = [f"TARGET={there / 'appliance'}", f"NAME={name}", f"DEB={there}"]
        subprocess.run(["make", "-s", "-C", str(REPOSITORY), "deb", *asked], check=True)
    return folder
