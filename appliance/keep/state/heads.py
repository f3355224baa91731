"""Reads the versions in the heads of state files, before anything is opened or made.

Read without SQLite, since SQLite changes what it opens: it writes its log into the file, and
creates a missing file.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from appliance.errors import BadState
from appliance.fs import plain_files
from appliance.keep.sealed import NAME
from appliance.keep.state import frames, replay, versions

_LINE_BYTES: Final = 80  # the header line of a journal has 20
# SQLite's own header has 100 bytes; in it, big-endian, are our mark and our version
# (sqlite.org/fileformat2.html#the_database_header).
ARCHIVE_BYTES: Final = 100
APPLICATION_ID: Final = 0x41504C41  # "APLA"
_MARK: Final = slice(68, 72)
_VERSION: Final = slice(60, 64)


def of_archive(head: bytes) -> int:
    """Returns the version in the first bytes of an archive; 0 if the bytes are not ours."""
    if len(head) < ARCHIVE_BYTES or int.from_bytes(head[_MARK], "big") != APPLICATION_ID:
        return 0
    return int.from_bytes(head[_VERSION], "big")


def newest(folder: Path) -> int:
    """Returns the highest version of the state files in `folder`; 0 if none has one."""
    return max([0, *_versions(folder).values()])


def check(folder: Path) -> None:
    """Raises NewerState, with the file's name, for a file of a later program; for no other."""
    for name, version in _versions(folder).items():
        what = "archive" if name == NAME else replay.NAME.sub(r"\1", name)
        versions.check(version, name, what)


def _versions(folder: Path) -> dict[str, int]:
    """Returns the versions of the files that can be read and are ours."""
    found: dict[str, int] = {}
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(folder)):
            if name == NAME or replay.NAME.match(name):
                with contextlib.suppress(OSError, BadState):
                    found[name] = _version_of(name, _head(folder / name))
    return found


def _version_of(name: str, head: bytes) -> int:
    if name == NAME:
        return of_archive(head)
    header = frames.SNAPSHOT if name.startswith("snapshot") else frames.JOURNAL
    return frames.version_of(head, header, name)


def _head(path: Path) -> bytes:
    descriptor = plain_files.open_(path, os.O_RDONLY)
    try:
        return os.read(descriptor, max(_LINE_BYTES, ARCHIVE_BYTES))
    finally:
        os.close(descriptor)
