"""runner.cgz: the client that runs a job on a testbox without lkp-tests.

An initrd after job.cgz.  The initramfs copies /lkp into the new root, and the addon tree over it,
so the service is there whatever the image holds.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

from appliance.boot.cgz import Entry, pack

SRC: Final = "lkp/lkp/src"
SERVICE: Final = "lkp-bootstrap.service"
PARTS: Final = ("settings", "http", "report", "upload", "job", "reboot")

_EXECUTABLE: Final = 0o100755
_LINK: Final = 0o120777
_UNITS: Final = "usr/lib/systemd/system"
_WANTS: Final = "etc/systemd/system/multi-user.target.wants"


def archive() -> bytes:
    """The archive; the same bytes as long as the package is the same."""
    addon = f"{SRC}/rootfs/addon"
    return pack(
        [
            Entry(f"{SRC}/bin/run", _read("run.sh"), _EXECUTABLE),
            *(Entry(f"{SRC}/lib/{part}.sh", _read(f"{part}.sh")) for part in PARTS),
            Entry(f"{addon}/{_UNITS}/{SERVICE}", _read(SERVICE)),
            Entry(f"{addon}/{_WANTS}/{SERVICE}", f"/{_UNITS}/{SERVICE}".encode(), _LINK),
        ]
    )


def _read(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()
