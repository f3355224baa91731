"""State files while no server uses them: read as they are, repaired, or made from an export.

A repair survives a kill at any point because of its order: damaged files are hard-linked into a
folder beside them, then the new snapshot is renamed into place, then the old names are removed.
Until that rename a start finds the state as it was before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from appliance.errors import BadState, NotFound
from appliance.fs import atomic, owner, plain_files
from appliance.jobs.store import Store
from appliance.keep import archive, archive_file
from appliance.keep.repair import rescue
from appliance.keep.repair.survey import Contents, Survey, survey
from appliance.keep.state import frames, records, replay
from appliance.keep.state.disk import StateFolder, lock, new_folder
from appliance.keep.state.records import StoreImage

# Most that root reads for the folder's owner: two snapshots of a million waiting jobs, and the
# journals beside them.
STATE_BYTES_MAX: Final = 6 * 2**30


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[Contents]:
    """Yields the state files in `folder`, locked against servers; root acts as the folder's owner.

    Raises NotFound without such a folder, BadState if a server runs or a later program wrote it,
    OSError, Refused.
    """
    if not folder.is_dir():
        raise NotFound(f"{folder}: there is no state; see `[paths] state` in the configuration")
    with owner.acting(folder), contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock(folder))
        except OSError as error:
            if error.errno != errno.EROFS:  # on a read-only file system nobody can change it
                raise
        yield _contents(folder)


def _contents(folder: Path) -> Contents:
    found: dict[str, bytes | OSError] = {}
    left = STATE_BYTES_MAX
    for name in sorted(os.listdir(folder)):
        if replay.NAME.match(name):
            try:
                found[name] = data = plain_files.read(folder / name, left)
                left -= len(data)
            except OSError as error:
                found[name] = error
    return found


async def repair(folder: Path, found: Survey) -> Path:
    """Makes `found` the state; returns the folder that keeps all older files.

    Raises BadState if a server runs or a folder or a link is in the way, Refused, OSError and
    SyncFailed; the state is then as before, or repaired.
    """
    with owner.acting(folder), contextlib.closing(StateFolder(folder)) as disk:
        if replay.RESTORING in await disk.names():
            raise BadState(f"{folder / replay.RESTORING}: {replay.BROKEN_OFF}")
        names = [file.name for file in found.files]
        for name in (*names, *rescue.files(folder), archive.MENDED):
            if what := plain_files.kind(folder / name):
                raise BadState(f"{folder / name}: {what} is in the way; move it away first")
        if any(damage.file == archive_file.NAME for damage in found.damage):
            kept = _set_aside(folder, [*names, *rescue.files(folder)])
            rescue.mend(folder)
        else:
            kept = _set_aside(folder, names)
        store = rescue.agreed(folder, found.store, time.time())
        image = records.image_of(store, found.next)
        await _write(disk, found.newest + 1, image)
        for name in names:
            await disk.remove(name)
    return kept


def _set_aside(folder: Path, names: list[str]) -> Path:
    """Makes a new folder beside the files and hard-links each file into it."""
    kept = new_folder(folder, "damaged-")
    for name in names:
        os.link(folder / name, kept / name)
    for changed in (kept, folder):
        atomic.sync_folder(changed)
    return kept


def counter(folder: Path, lab: str) -> int:
    """Returns the newest job number in the state in `folder`, damaged or not.

    0 if there is none, and for the state of a newer program.
    """
    try:
        found = survey(_contents(folder), lab)
    except BadState:
        return 0
    lost = (job.rpartition(".")[2] for damage in found.damage for job in damage.jobs)
    return max(found.store.counter, *map(int, lost), 0)


async def begin(folder: Path, store: Store, given: int = 0) -> None:
    """Makes `store` the state; new jobs get numbers above `given`.

    Raises BadState if there is a state already or a server runs, Refused, OSError and SyncFailed.
    """
    with owner.acting(folder), contextlib.closing(StateFolder(folder)) as disk:
        there = [
            name
            for name in await disk.names()
            if replay.NAME.match(name) or name == archive_file.NAME
        ]
        if there:
            raise BadState(f"{folder}: there is a state already: {', '.join(there[:3])}")
        store.counter = max(store.counter, given)
        image = records.image_of(store, 0)
        await _write(disk, 1, image)


async def _write(disk: StateFolder, number: int, image: StoreImage) -> None:
    await disk.replace(replay.snapshot_name(number), records.snapshot(image))
    await disk.append(replay.journal_name(number), frames.JOURNAL_HEADER)
