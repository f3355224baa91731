"""`make image`: builds the Debian image of the demo and the tests if its sources have changed.

A stamp in the cache holds a digest of the code that makes an image; modification times would
change with every checkout.
"""

from __future__ import annotations

import fcntl
import hashlib
import sys
from pathlib import Path
from typing import Final

import click

from appliance.boot.images import catalogue, image_build
from appliance.cli.images import told
from appliance.errors import ApplianceError, BadImage

IMAGE: Final = ("debian", "x86_64", "12")  # os, arch, version
SOURCES: Final = (
    "images/image_build.py",
    "images/apt_sources.py",
    "images/rootfs.py",
    "images/chroot_paths.py",
    "images/snapshot.py",
    "images/sandbox.py",
    "script/cgz.py",
    "dracut/**/*",
)


def digest(boot: Path) -> str:
    """Returns a digest of the sources of an image; `boot` is the folder appliance/boot."""
    found = hashlib.sha256()
    files = sorted(path for glob in SOURCES for path in boot.glob(glob) if path.is_file())
    assert files, boot
    for path in files:
        if "__pycache__" not in path.parts:
            found.update(f"{path.relative_to(boot)}\0{path.stat().st_size}\0".encode())
            found.update(path.read_bytes())
    return found.hexdigest()


def ensure(srv: Path) -> bool:
    """Builds the image in `srv` unless a complete one from the current sources exists.

    Returns True if it was built.  Raises BadImage if it cannot be built.
    """
    srv.mkdir(parents=True, exist_ok=True)
    stamp = srv / "made-from"
    wanted = digest(Path(image_build.__file__).parents[1])
    with (srv / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two makes at once, the second finds it built
        if stamp.exists() and stamp.read_text() == wanted and _boots(srv):
            return False
        system, arch, version = IMAGE
        click.echo(f"building the {system} {version} image in {srv}; this takes a few minutes")
        stamp.unlink(missing_ok=True)
        with told() as say:
            image_build.build(srv, version, arch, say, None)
        stamp.write_text(wanted)
        return True


def _boots(srv: Path) -> bool:
    system, arch, version = IMAGE
    try:
        boot = catalogue.resolve(srv, system, arch, version, "cifs")
    except BadImage:
        return False
    return not catalogue.missing(srv, boot)


def main() -> None:
    """Runs `python -m lab.cached_image SRV`."""
    try:
        ensure(Path(sys.argv[1]))
    except ApplianceError as error:
        click.secho(f"image: {error}", fg="red", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
