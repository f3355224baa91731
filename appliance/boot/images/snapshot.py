"""Builds an image in a hidden folder beside the finished images, then renames it.

Unfinished folders have a hidden name (".building-<pid>"), so neither `resolve` nor a person sees
them.  Only root can enter them: a root filesystem has folders that everybody may write to, and a
symlink planted by a local user in its /var/tmp must not mislead a builder that is root.
The builder holds a lock on its folder; a folder without a lock was left by a crash and is removed.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from appliance.errors import BadImage
from appliance.fs import trees

_BUILDING: Final = ".building-"
_LINK: Final = ".link-"


@attrs.frozen
class Snapshot:
    """A root filesystem being built."""

    root: Path
    version: str
    lock: int  # a descriptor; while any process has it open, `sweep` leaves the folder alone

    def publish(self, now: float | None = None) -> Path:
        """Renames the folder to `<version>-<timestamp>` and moves the version's symlink to it.

        Each of the two steps is atomic.
        """
        stamp = time.strftime("%Y-%m-%d-%H-%M-%S", time.gmtime(now))
        name = f"{self.version}-{stamp}"
        place = self.root.parents[1]
        final = place / name
        if os.path.lexists(final):
            raise BadImage(f"{final} exists already")
        link = place / self.version
        if link.exists() and not link.is_symlink():
            raise BadImage(f"{link} is not a symlink to a snapshot: move it away first")
        os.sync()  # after a power loss the image is complete or absent
        self.root.rename(final)
        passing = place / f"{_LINK}{os.getpid()}"
        passing.unlink(missing_ok=True)
        passing.symlink_to(name)
        passing.rename(link)
        return final


@contextmanager
def new(srv: Path, os_name: str, arch: str, version: str) -> Iterator[Snapshot]:
    """Makes an empty folder for one image, and removes it afterwards unless it was published."""
    place = srv / "os" / os_name / arch
    private = place / f"{_BUILDING}{os.getpid()}"
    with alone(srv):
        made = _make(place)
        sweep(place)
        private.mkdir(mode=0o700)
        lock = os.open(private, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        root = private / "root"
        root.mkdir()
        root.chmod(0o755)
        yield Snapshot(root, version, lock)
    finally:
        remove(private)
        os.close(lock)
        with alone(srv):
            for folder in made:
                if not any(folder.iterdir()):
                    folder.rmdir()


@contextmanager
def alone(srv: Path) -> Iterator[None]:
    """Holds the lock under which builders look for each other and change shared folders."""
    srv.mkdir(parents=True, exist_ok=True)
    lock = os.open(srv, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def is_building(place: Path) -> bool:
    """Tells whether an image is being built in `place`; a folder left by a crash does not count."""
    for building in place.glob(f"{_BUILDING}*"):
        try:
            lock = os.open(building, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
    return False


def sweep(place: Path) -> None:
    """Removes what crashed builds left in `place`."""
    for left in place.glob(f"{_BUILDING}*"):
        try:
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # its builder has just removed it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # the build is still running
        else:
            remove(left)
        finally:
            os.close(lock)
    for link in place.glob(f"{_LINK}*"):
        link.unlink(missing_ok=True)


def _make(place: Path) -> list[Path]:
    """Makes `place`; returns the folders that had to be made, innermost first."""
    made: list[Path] = []
    for folder in (place, *place.parents):
        if folder.exists():
            break
        made.append(folder)
    for folder in reversed(made):
        folder.mkdir(mode=0o755, exist_ok=True)
        folder.chmod(0o755)
    return made


def remove(root: Path) -> None:
    """Removes a folder, if it exists, and its contents.  Raises BadImage if a mount is in it."""
    if root.exists():
        check_no_mount(root)
        trees.remove(root)


def check_no_mount(root: Path) -> None:
    """Raises BadImage if something is mounted in `root`.

    Our programs run in their own mount namespaces: a mount seen here was made by somebody else.
    """
    for place in trees.mounts_in(root):
        raise BadImage(f"{place} is a mount: unmount it, then remove {root}")
