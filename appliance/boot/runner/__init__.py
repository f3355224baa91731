"""runner.cgz: the client that runs a job on a testbox without lkp-tests.

It is an initrd after job.cgz.  The initramfs copies /lkp into the new root and the addon tree over
the root, so the service exists in every image.  With `os_mount: initramfs` there is no new root and
no copy: for those images the archive also has systemd's unit at the path where systemd looks.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from importlib import resources
from typing import Final

from appliance.boot.script.cgz import Entry, pack

SRC: Final = "lkp/lkp/src"
PARTS: Final = (
    "runner", "attempt", "capture", "console", "firmware",
    "http", "reboot", "report", "upload", "watchdog",
)  # fmt: skip

_ADDON: Final = f"{SRC}/rootfs/addon"
_UNIT: Final = "lkp-bootstrap.service"
_EXECUTABLE: Final = stat.S_IFREG | 0o755
_LINK: Final = stat.S_IFLNK | 0o777


def archive() -> bytes:
    """Packs the archive: always the same bytes for the same package."""
    return pack([*_parts(), *_addon(), *_units("")])


def _parts() -> Iterator[Entry]:
    for part in PARTS:
        yield Entry(f"{SRC}/runner/{part}.sh", _read(f"{part}.sh"), _EXECUTABLE)


def _addon() -> Iterator[Entry]:
    """Yields the files that start the runner: systemd's unit, and scripts for other inits.

    There is no rc.local, since an image may have its own.
    """
    yield from _units(f"{_ADDON}/")
    etc = f"{_ADDON}/etc"
    yield Entry(f"{etc}/init.d/lkp-bootstrap", _read("lkp-bootstrap.init"), _EXECUTABLE)
    for level in "2345":
        yield _link(f"{etc}/rc{level}.d/S77lkp-bootstrap", "../init.d/lkp-bootstrap")
    # OpenRC needs a script in its own format, and finds it by the link's name.
    yield Entry(f"{etc}/init.d/lkp-bootstrap-openrc", _read("lkp-bootstrap.openrc"), _EXECUTABLE)
    yield _link(f"{etc}/runlevels/default/lkp-bootstrap-openrc", "/etc/init.d/lkp-bootstrap-openrc")


def _units(place: str) -> Iterator[Entry]:
    """Yields systemd's unit and its link below `place`; at the top nothing else is packed.

    The kernel replaces a symlink in the image by a folder of the same name in the archive: /lib and
    /etc/init.d are symlinks in many images, the folders used here in none.
    """
    yield Entry(f"{place}usr/lib/systemd/system/{_UNIT}", _read(_UNIT))
    wants = f"{place}etc/systemd/system/multi-user.target.wants"
    yield _link(f"{wants}/{_UNIT}", f"/usr/lib/systemd/system/{_UNIT}")


def _link(path: str, target: str) -> Entry:
    return Entry(path, target.encode(), _LINK)


def _read(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()
