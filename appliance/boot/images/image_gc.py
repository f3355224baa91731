"""Removes unused images: snapshots that no symlink leads to and no job has pinned.

Only folders with the name of a snapshot, `<version>-<timestamp>`, are considered; a folder with
another name belongs to a person.  A snapshot is first renamed to a hidden name, so that it cannot
be pinned any more; then the pinned snapshots are read again, and only then is it removed.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from appliance.boot.images import catalogue, snapshot
from appliance.errors import Refused
from appliance.fs import trees

_SNAPSHOT: Final = re.compile(r".+-\d{4}(-\d\d){5}\Z")
# Prefixes of hidden names, like those of builds under way: hidden until the second look at what is
# pinned, and being removed.
_REMOVING: Final = ".removing-"
_REMOVED: Final = ".removed-"

Used = Callable[[], set[str]]  # URL paths of the snapshots that jobs have pinned


@attrs.frozen
class Unused:
    """An unused snapshot."""

    folder: Path
    url: str  # "/os/debian/x86_64/12-2026-01-02-03-04-05"
    size_bytes: int  # on disk


def snapshot_of(path: str) -> str | None:
    """Returns the snapshot that contains a URL path; None if it is in none."""
    names = path.split("/")
    return "/".join(names[:5]) if len(names) >= 5 and names[1] == "os" else None


def unused(srv: Path, used: set[str]) -> tuple[list[Unused], list[Path]]:
    """Returns the unused snapshots, and the folders skipped because an image is made there."""
    kept = {os.path.realpath(link) for link in _links(srv)}
    found, busy = [], []
    for place in sorted(srv.glob("os/[!.]*/[!.]*")):
        if place.is_symlink() or not place.is_dir():
            continue
        if snapshot.is_building(place):
            busy.append(place)
            continue
        for folder in sorted(place.glob("[!.]*")):
            if folder.is_symlink() or not folder.is_dir() or not _SNAPSHOT.match(folder.name):
                continue
            real = Path(os.path.realpath(folder))
            url = catalogue.url_path(srv, real)
            if url not in used and not any(_within(one, str(real)) for one in kept):
                found.append(Unused(folder, url, size_of(folder)))
    return found, busy


@contextmanager
def turn(srv: Path) -> Iterator[None]:
    """Takes the lock for one removal at a time, and cleans up after an interrupted one.

    Raises Refused if another removal has the lock, OSError.
    """
    lock = os.open(srv / "os", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for hidden in srv.glob(f"os/[!.]*/[!.]*/{_REMOVING}*"):
            hidden.rename(hidden.with_name(hidden.name.removeprefix(_REMOVING)))
        for gone in srv.glob(f"os/[!.]*/[!.]*/{_REMOVED}*"):
            snapshot.remove(gone)
        yield
    except BlockingIOError:
        raise Refused(f"{srv}/os: another `appliance image gc` is at it") from None
    finally:
        os.close(lock)


def remove(srv: Path, what: list[Unused], used: Used, pause: Callable[[], None]) -> list[Unused]:
    """Removes `what`, under `turn`, except for snapshots pinned meanwhile; returns those removed.

    `pause` waits until everybody who found a snapshot before it was hidden has pinned it.  Raises
    BadImage if something is mounted in one, OSError; snapshots of which nothing was removed get
    their names back.
    """
    aside: dict[Path, Unused] = {}
    try:
        with snapshot.alone(srv):
            for one in what:
                if not snapshot.is_building(one.folder.parent):
                    hidden = one.folder.with_name(_REMOVING + one.folder.name)
                    one.folder.rename(hidden)
                    aside[hidden] = one
        pause()
        needed = used()
        gone = []
        for hidden, one in list(aside.items()):
            if one.url not in needed:
                snapshot.check_no_mount(hidden)
                doomed = one.folder.with_name(_REMOVED + one.folder.name)
                hidden.rename(doomed)
                del aside[hidden]
                snapshot.remove(doomed)
                gone.append(one)
        return gone
    finally:
        for hidden, one in aside.items():
            hidden.rename(one.folder)


def size_of(folder: Path) -> int:
    """Returns the folder's bytes on disk; a hard-linked file counts once."""
    total, seen = 0, set()
    for each in trees.walk(folder):
        for entry in each.entries:
            found = entry.stat(follow_symlinks=False)
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total


def _links(srv: Path) -> list[Path]:
    """Returns every symlink in the image tree, down to the level of versions."""
    found = [path for depth in ("*", "*/*", "*/*/*") for path in srv.glob(f"os/{depth}")]
    return [path for path in found if path.is_symlink()]


def _within(target: str, folder: str) -> bool:
    """Tells whether a link to `target` needs `folder`: equal to it, in it, or above it."""
    return os.path.commonpath((target, folder)) in (target, folder)
