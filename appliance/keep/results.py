"""Result files: each is written under a temporary name, made durable, then renamed.

Everything that blocks runs in a thread.  This module knows folders and bytes, not jobs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

from appliance import threads
from appliance.errors import BadRequest, NoSpace, Refused
from appliance.fs import atomic, trees
from appliance.keep.state.disk import NO_ROOM
from appliance.turns import in_slices

_NO_SPACE: Final = NO_ROOM | {errno.EFBIG}
# Errors due to the name: a folder has it, a file stands in a folder's place, it is too long.
_NAME: Final = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}
T = TypeVar("T")

ASIDE: Final = ".removed"  # under the results: holds folders that are being removed
# suite, day, testbox or queue, system, parameters, job (docs/wire.md#uploads).
_DEPTH: Final = 6
_DIGITS_MAX: Final = 12  # of a job's number; a folder with a longer one is not ours
PART: Final = ".appliance-part-"  # prefix of files that are still being written
# Prefix of this process's own part files; all others were left by killed processes.
_MINE: Final = f"{PART}{secrets.token_hex(4)}-"
HIDDEN: Final = (PART, ASIDE)  # prefixes of our own names: never listed, never a client's


class Upload:
    """One file being uploaded.  Nothing of it stays unless `finish` returned."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside = path.with_name(_MINE + secrets.token_hex(8))
        self._descriptor: int | None = None
        self._replaced: int | None = None  # size of the file that had the name before

    async def __aenter__(self) -> Upload:
        """Opens a temporary file.  Raises NoSpace, and Refused if a file is in a folder's place."""
        await _in_thread(self._path, self._begin)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Removes the temporary file unless `finish` has renamed it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            with contextlib.suppress(FileNotFoundError):
                self._beside.unlink()

    async def write(self, data: bytes | bytearray) -> None:
        """Appends `data`.  Raises NoSpace."""
        await _in_thread(self._path, partial(self._write, data))

    async def finish(self) -> int | None:
        """Gives the file its name, durably; returns the size of the file it replaced, if any.

        Raises NoSpace, and Refused if a folder has the name.
        """
        await _in_thread(self._path, self._finish)
        return self._replaced

    def _begin(self) -> None:
        make_folders(self._path.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._beside, flags, 0o644)

    def _write(self, data: bytes | bytearray) -> None:
        assert self._descriptor is not None
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def _finish(self) -> None:
        assert self._descriptor is not None
        os.fsync(self._descriptor)
        with contextlib.suppress(FileNotFoundError):
            self._replaced = self._path.lstat().st_size
        atomic.replace(self._beside, self._path)
        os.close(self._descriptor)
        self._descriptor = None


async def make_folder(folder: Path) -> bool:
    """Like make_folders, in a thread.  Raises NoSpace, and Refused if a file is in its place."""
    return await _in_thread(folder, partial(make_folders, folder))


async def _in_thread(path: Path, work: Callable[[], T]) -> T:
    try:
        return await threads.run(work)
    except OSError as error:
        if error.errno in _NAME:
            raise Refused(f"{path.name}: {error.strerror}") from error
        what = "no space for" if error.errno in _NO_SPACE else "the disk does not take"
        raise NoSpace(f"{what} {path.name}: {error.strerror}") from error


async def check_inside(path: Path, below: Path) -> None:
    """Raises BadRequest if symlinks on the way to `path` lead out of the folder `below`."""

    def leads_out() -> bool:
        real = Path(os.path.realpath(path.parent))  # resolve() raises for circular symlinks
        return not real.is_relative_to(os.path.realpath(below))

    if await _in_thread(path, leads_out):
        raise BadRequest(
            f"{path.name} would lie outside of the results: a link on the way leads out"
        )


def make_way(folder: Path) -> Path | None:
    """Renames anything but a folder that has the name of `folder`; returns its new path, or None.

    Durable on return.  Raises OSError.
    """
    if not os.path.lexists(folder) or folder.is_dir():
        return None
    aside = folder.with_name(f"{folder.name}.file-{secrets.token_hex(4)}")
    folder.rename(aside)
    atomic.sync_folder(folder.parent)
    return aside


def make_folders(folder: Path) -> bool:
    """Makes `folder` and its parents, durably; returns whether one was missing.  Raises OSError."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for made in reversed(missing):
        with contextlib.suppress(FileExistsError):
            made.mkdir(mode=0o755)
        if not made.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file has the name of a folder", str(made))
        atomic.sync_folder(made.parent)
    return bool(missing)


def listing(root: Path) -> list[tuple[str, int, float]]:
    """Returns (relative path, bytes, modified UTC) of each finished file under `root`, sorted."""
    return sorted((path, facts.st_size, facts.st_mtime) for path, facts in _finished(root))


def _finished(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yields each finished file by its relative path; a box may have made a hundred thousand."""
    for folder in trees.walk(root):
        for entry in in_slices(folder.entries):
            with contextlib.suppress(FileNotFoundError):
                facts = entry.stat(follow_symlinks=False)
                if not entry.name.startswith(PART) and os.path.isfile(entry.path):
                    yield os.path.relpath(entry.path, root), facts


def used(root: Path) -> tuple[int, int]:
    """Counts bytes and names of all files under `root`, those left by killed servers included.

    Files that this process is writing are left out: their writers count them.
    """
    size = names = 0
    for folder in trees.walk(root):
        for entry in in_slices(folder.entries):
            with contextlib.suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False) and not entry.name.startswith(_MINE):
                    size += entry.stat(follow_symlinks=False).st_size
                    names += folder.depth + 1
    return size, names


def drop_parts(root: Path) -> tuple[int, int]:
    """Removes part files of killed servers under `root`; returns how many, and their bytes.

    Leaves uploads of this process alone.  Raises OSError.
    """
    count = size = 0
    for folder in trees.walk(root):
        for entry in folder.entries:
            if entry.name.startswith(PART) and not entry.name.startswith(_MINE):
                if entry.is_dir(follow_symlinks=False):
                    continue  # not ours: we make no such folder
                with contextlib.suppress(FileNotFoundError):
                    size += entry.stat(follow_symlinks=False).st_size
                    os.unlink(entry.path)
                    count += 1
    return count, size


def newest_number(results: Path, lab: str) -> int:
    """Returns the highest N of the jobs' folders `<lab>.<N>` below `results`; 0 without any.

    Reads every folder down to theirs, also those being removed.  Raises OSError.
    """
    job = re.compile(rf"{re.escape(lab)}\.([0-9]{{1,{_DIGITS_MAX}}})")
    found, folders = 0, [(results, 1)] if results.is_dir() else []
    while folders:
        folder, depth = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if match := job.fullmatch(entry.name):
                    found = max(found, int(match[1]))
                elif depth < _DEPTH and entry.is_dir(follow_symlinks=False):
                    folders.append((Path(entry.path), depth + 1))
    return found


def set_aside(root: Path, below: Path) -> Path:
    """Moves the folder `root` out of sight, removes empty parents; returns its new path.

    Durable on return.  Symlinks are moved, not followed.  Raises OSError, and Refused if `root` is
    not inside `below`.
    """
    if not root.resolve().is_relative_to(below.resolve()) or root.resolve() == below.resolve():
        raise Refused(f"{root} is not inside of {below}")
    aside = below / ASIDE / root.name
    if not root.exists():
        return aside
    make_folders(aside.parent)
    root.rename(aside)
    atomic.sync_folder(aside.parent)
    atomic.sync_folder(root.parent)
    for parent in root.parents:
        if parent == below:
            break
        with contextlib.suppress(OSError):
            parent.rmdir()
    return aside


def put_back(aside: Path, root: Path) -> None:
    """Undoes set_aside, if that was done; a file that was uploaded since stays.  Raises OSError.

    Durable on return; after an interruption it can be called again.
    """
    if not aside.exists():
        return
    make_folders(root)
    for there in sorted(aside.iterdir()):
        place = root / there.name
        if not os.path.lexists(place):
            there.rename(place)
        elif there.is_dir() and not there.is_symlink() and place.is_dir():
            put_back(there, place)
    atomic.sync_folder(root)
    trees.remove(aside)


def set_apart(below: Path) -> list[Path]:
    """Returns the folders that set_aside moved out of sight and nobody has removed yet."""
    folder = below / ASIDE
    return sorted(folder.iterdir()) if folder.is_dir() else []


def remove(folder: Path) -> int:
    """Removes a folder, if it is there; returns the bytes that were freed.  Raises OSError."""
    freed, _ = used(folder)
    with contextlib.suppress(FileNotFoundError):
        trees.remove(folder)
    return freed
