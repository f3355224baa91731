"""A folder in the making, beside the images of its kind; it gets its name when it is whole.

Half-made folders are hidden (".building-<pid>"), so neither `resolve` nor a person sees them.
They are root's alone until then: a root filesystem has folders that everybody may write to, and
a local user's link in /var/tmp of one must not meet a maker who is root.
Their maker holds a lock on the folder: one that nobody locks was left by a crash, and goes.
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
    """A root filesystem in the making."""

    root: Path
    version: str
    lock: int  # a descriptor: whoever has it open keeps the folder from being swept away

    def publish(self, now: float | None = None) -> Path:
        """`<version>-<timestamp>`, and the version's symlink moves to it, in one step each."""
        stamp = time.strftime("%Y-%m-%d-%H-%M-%S", time.gmtime(now))
        name = f"{self.version}-{stamp}"
        place = self.root.parents[1]
        final = place / name
        if os.path.lexists(final):
            raise BadImage(f"{final} exists already")
        link = place / self.version
        if link.exists() and not link.is_symlink():
            raise BadImage(f"{link} is not a symlink to a snapshot: move it away first")
        os.sync()  # a machine that loses power has the whole image or none
        self.root.rename(final)
        passing = place / f"{_LINK}{os.getpid()}"
        passing.unlink(missing_ok=True)
        passing.symlink_to(name)
        passing.rename(link)
        return final


@contextmanager
def new(srv: Path, os_name: str, arch: str, version: str) -> Iterator[Snapshot]:
    """An empty folder for one image; it is gone afterwards unless it was published."""
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
    """While makers look for each other, and make or remove the folders that they share."""
    srv.mkdir(parents=True, exist_ok=True)
    lock = os.open(srv, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def is_building(place: Path) -> bool:
    """Whether somebody makes an image in `place` now; a folder left by a crash does not count."""
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
            continue  # its maker has just removed it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # somebody is at it
        else:
            remove(left)
        finally:
            os.close(lock)
    for link in place.glob(f"{_LINK}*"):
        link.unlink(missing_ok=True)


def _make(place: Path) -> list[Path]:
    """The folders that had to be made, innermost first."""
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
    """The folder with all in it, if it is there.  Raises BadImage where a mount is in it."""
    if root.exists():
        check_no_mount(root)
        trees.remove(root)


def check_no_mount(root: Path) -> None:
    """Raises BadImage where something is mounted in it.

    Programs run in mount namespaces of their own: a mount seen here was made by somebody else.
    """
    for place in trees.mounts_in(root):
        raise BadImage(f"{place} is a mount: unmount it, then remove {root}")
