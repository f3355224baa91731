"""Result files: each is written beside its name, made durable, and only then takes its name.

Everything that blocks runs in a thread.  Knows folders and bytes, not jobs.
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
# The name is the mistake: a folder has it, a file stands in its way, it is too long.
_NAME: Final = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}
T = TypeVar("T")

ASIDE: Final = ".removed"  # under the results: what is on its way out
# suite, day, testbox or queue, system, parameters, job (docs/wire.md#uploads).
_DEPTH: Final = 6
_DIGITS_MAX: Final = 12  # of a job's number; what is longer is somebody else's folder
PART: Final = ".appliance-part-"  # prefix of files that are still being written
# What this process writes begins so.  Other files of that kind a killed one has left.
_MINE: Final = f"{PART}{secrets.token_hex(4)}-"
HIDDEN: Final = (PART, ASIDE)  # names that begin so are ours: never listed, never a client's


class Upload:
    """One file on its way.  Nothing stays of it unless `finish` returned."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside = path.with_name(_MINE + secrets.token_hex(8))
        self._descriptor: int | None = None
        self._replaced: int | None = None  # bytes

    async def __aenter__(self) -> Upload:
        """Raises NoSpace, and Refused where a file stands in the way of a folder."""
        await _in_thread(self._path, self._begin)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drop what was not finished."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            with contextlib.suppress(FileNotFoundError):
                self._beside.unlink()

    async def write(self, data: bytes | bytearray) -> None:
        """Raises NoSpace."""
        await _in_thread(self._path, partial(self._write, data))

    async def finish(self) -> int | None:
        """The file has its name, durably; the bytes of the file that had it before, if any had.

        Raises NoSpace, and Refused where a folder has the name.
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
    """Like make_folders.  Raises NoSpace, and Refused where a file stands in its way."""
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
    """Raises BadRequest where links on the way to `path` lead out of the folder `below`."""

    def leads_out() -> bool:
        real = Path(os.path.realpath(path.parent))  # resolve() raises for links in circles
        return not real.is_relative_to(os.path.realpath(below))

    if await _in_thread(path, leads_out):
        raise BadRequest(
            f"{path.name} would lie outside of the results: a link on the way leads out"
        )


def make_way(folder: Path) -> Path | None:
    """Where something that is no folder has the name of `folder`, its new name beside it.

    Durable on return.  Raises OSError.
    """
    if not os.path.lexists(folder) or folder.is_dir():
        return None
    aside = folder.with_name(f"{folder.name}.file-{secrets.token_hex(4)}")
    folder.rename(aside)
    atomic.sync_folder(folder.parent)
    return aside


def make_folders(folder: Path) -> bool:
    """`folder` and its parents, durably; whether one was missing.  Raises OSError."""
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
    """(relative path, bytes, modified UTC) of each finished file under `root`, sorted."""
    return sorted((path, facts.st_size, facts.st_mtime) for path, facts in _finished(root))


def _finished(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Each by its relative path; a box may have made a hundred thousand."""
    for folder in trees.walk(root):
        for entry in in_slices(folder.entries):
            with contextlib.suppress(FileNotFoundError):
                facts = entry.stat(follow_symlinks=False)
                if not entry.name.startswith(PART) and os.path.isfile(entry.path):
                    yield os.path.relpath(entry.path, root), facts


def used(root: Path) -> tuple[int, int]:
    """Bytes and names of all files under `root`, those that a killed server left half-written too.

    What this one is writing is counted where it is written.
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
    """Remove what killed servers left half-written under `root`; how many files, and their bytes.

    Uploads of this process go on.  Raises OSError.
    """
    count = size = 0
    for folder in trees.walk(root):
        for entry in folder.entries:
            if entry.name.startswith(PART) and not entry.name.startswith(_MINE):
                if entry.is_dir(follow_symlinks=False):
                    continue  # a person's
                with contextlib.suppress(FileNotFoundError):
                    size += entry.stat(follow_symlinks=False).st_size
                    os.unlink(entry.path)
                    count += 1
    return count, size


def newest_number(results: Path, lab: str) -> int:
    """The highest N among the folders `<lab>.<N>` of jobs below `results`; 0 without any.

    Reads every folder down to theirs, also of those on their way out.  Raises OSError.
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
    """Take the folder `root`, and parents of it that are empty then, out of sight; its new place.

    Durable on return.  Links are moved, not followed.  Raises OSError, and Refused where `root` is
    not inside of `below`.
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
    """Undo set_aside, if that was done; a file that was uploaded since stays.  Raises OSError.

    Durable on return; where it was interrupted it can be done again.
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
    """The folders that set_aside took out of sight, and that are not removed yet."""
    folder = below / ASIDE
    return sorted(folder.iterdir()) if folder.is_dir() else []


def remove(folder: Path) -> int:
    """Remove a folder, if it is there; the bytes that were freed.  Raises OSError."""
    freed, _ = used(folder)
    with contextlib.suppress(FileNotFoundError):
        trees.remove(folder)
    return freed
