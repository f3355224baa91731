"""Writes the page of a folder piece by piece: as nginx would write it, ordered by name.

A folder may have a hundred thousand names, and twenty people may look at it at the same time.  So
a page is never in memory as a whole.  The folder is read for its next names, as many as fill a
window, and each piece looks up and writes some of them.  Between two pieces only the last name must
be kept: if the rest of the window is dropped because the client is slow, the folder is read again.

Must not: be called on the loop, which would wait for the disk; know HTTP.
"""

from __future__ import annotations

import errno
import html
import itertools
import os
import stat
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote_from_bytes

from appliance.errors import NoSpace, NotFound
from appliance.keep.results import HIDDEN
from appliance.turns import in_slices
from appliance.web.open_files import LeavesRoots

# Each name is a line of some 150 bytes: a page of 15 MB.  An attempt may have fewer names
# (config.Limits).
NAMES_MAX: Final = 100_000
# Bytes of the next names: some 15,000 usual ones, or 3,500 of the longest.  A folder of NAMES_MAX
# is read seven times for its page, or thirty times, and each time takes 0.1 s.
WINDOW_BYTES: Final = 2**20
NAME_BYTES: Final = 41  # what Python needs for a name besides its bytes
PIECE_BYTES: Final = 64 * 1024  # of text, at least: some 400 lines
_HIDDEN: Final = tuple(map(os.fsencode, HIDDEN))

_SHOWN: Final = (stat.S_IFREG, stat.S_IFDIR)  # links and the like are no results

FOOT: Final = b"</pre><hr></body>\n</html>\n"


class Folder:
    """An open folder whose page is being written.  The caller closes it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._last = b""  # the last name that was written
        self._next: list[bytes] = []  # the window, in reverse order
        self._more = True  # whether there may be names behind the window

    @property
    def holds(self) -> bool:
        """Returns whether names that are not written yet are in memory."""
        return bool(self._next)

    def forget(self) -> None:
        """Drops these names; the next piece reads them again."""
        self._more = self._more or self.holds
        self._next = []

    def close(self) -> None:
        """Closes the folder."""
        os.close(self._descriptor)

    def piece(self) -> tuple[bytes, bool]:
        """Returns the next lines, of one window, and whether there may be more.

        Raises OSError, and NoSpace for a folder of more than NAMES_MAX names.
        """
        lines: list[bytes] = []
        size = 0
        if not self._next:
            self._next, self._more = _window(self._descriptor, self._last)
        for _ in in_slices(itertools.repeat(None)):
            if size >= PIECE_BYTES or not self._next:
                break
            self._last = self._next.pop()
            line = self._line(self._last)
            lines.append(line)
            size += len(line)
        return b"".join(lines), bool(self._next) or self._more

    def _line(self, name: bytes) -> bytes:
        try:
            facts = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:  # it was renamed or removed just now
            return b""
        return _line(name, facts) if stat.S_IFMT(facts.st_mode) in _SHOWN else b""


def open_folder(root: Path, names: list[bytes], *, may_be_file: bool) -> Folder:
    """Opens the folder `names` below `root`.

    Raises NotFound, LeavesRoots, and NotADirectoryError if `names` is a file and `may_be_file`.
    """
    if any(name.startswith(_HIDDEN) for name in names):
        raise NotFound("not shown")
    path = os.path.join(os.fsencode(root), *names)
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOTDIR and may_be_file:
            raise
        raise NotFound(os.strerror(error.errno or 0)) from error
    try:
        landed = os.readlink(b"/proc/self/fd/%d" % folder)
        real = os.fsencode(os.path.realpath(root))
        if landed != real and not landed.startswith(real + b"/"):
            raise LeavesRoots(f"leads outside, to {os.fsdecode(landed)!r}")
    except BaseException:
        os.close(folder)
        raise
    return Folder(folder)


def head(names: list[bytes]) -> bytes:
    """Returns the page's text above the lines."""
    title = html.escape("/" + b"/".join(names).decode("utf-8", "replace") + "/")
    return (
        f"<html>\n<head><title>Index of {title}</title></head>\n<body>\n<h1>Index of {title}</h1>"
        f'<hr><pre><a href="../">../</a>\n'
    ).encode()


def _window(folder: int, after: bytes) -> tuple[list[bytes], bool]:
    """Returns the names after `after` that fit, in reverse order, and whether there are more."""
    kept: list[bytes] = []
    size, bound = 0, None
    with os.scandir(folder) as found:
        for count, entry in enumerate(in_slices(found)):
            if count >= NAMES_MAX:
                raise NoSpace(f"more than {NAMES_MAX} names here: too many to list")
            name = os.fsencode(entry.name)
            if name <= after or (bound is not None and name > bound) or name.startswith(_HIDDEN):
                continue
            kept.append(name)
            size += len(name) + NAME_BYTES
            if size > 2 * WINDOW_BYTES:
                kept, size = _smallest(kept)
                bound = kept[-1]
    whole = len(kept)
    kept, _ = _smallest(kept)
    more = bound is not None or len(kept) < whole
    kept.reverse()
    return kept, more


def _smallest(names: list[bytes]) -> tuple[list[bytes], int]:
    """Returns the first names in order that fit into a window, at least one, and their size."""
    names.sort()
    size = 0
    for place, name in enumerate(names):
        size += len(name) + NAME_BYTES
        if size > WINDOW_BYTES and place:
            return names[:place], size - len(name) - NAME_BYTES
    return names, size


def _line(name: bytes, facts: os.stat_result) -> bytes:
    is_folder = stat.S_ISDIR(facts.st_mode)
    slash = "/" if is_folder else ""
    link = quote_from_bytes(name, safe="") + slash
    shown = html.escape(name.decode("utf-8", "replace")) + slash
    at = time.strftime("%d-%b-%Y %H:%M", time.gmtime(facts.st_mtime))
    size = "-" if is_folder else str(facts.st_size)
    return f'<a href="./{link}">{shown}</a> {at} {size:>19}\n'.encode()
