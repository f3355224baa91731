"""Restores a backup in place of the state, the hosts files and the configuration.

Whatever would stop a restore half-way is looked for before the first change.  Nothing is ever
removed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from appliance.config import Config
from appliance.errors import Refused
from appliance.fs import atomic, owner, plain_files
from appliance.keep import archive, archive_file, results
from appliance.keep.repair import offline
from appliance.keep.repair.backup import (
    CONFIGURATION,
    HOSTS,
    LEASES,
    NAME_BYTES_MAX,
    OWNER_ONLY,
    SNAPSHOT,
    STATE,
    Backup,
)
from appliance.keep.state import frames, records, replay
from appliance.keep.state.disk import StateFolder, new_folder

ASIDE: Final = "replaced-"  # in the state folder: begins the names of folders with replaced files
_COPY_BYTES: Final = 2**20


def in_the_way(config: Config, backup: Backup, configuration: Path) -> list[Path]:
    """Returns the files a restore would replace: all state files, others if they differ."""
    state, hosts = config.paths.state, config.paths.hosts
    with owner.acting(state):
        there = _state_files(state)
    with owner.acting(hosts):
        there += [
            path
            for path in (sorted(hosts.iterdir()) if hosts.is_dir() else [])
            if path.is_file()
            and not (
                path.name in backup.names(HOSTS)
                and _holds(path, backup.read(f"{HOSTS}/{path.name}"))
            )
        ]
    has = CONFIGURATION in backup.zip.namelist()
    if has and configuration.exists() and not _holds(configuration, backup.read(CONFIGURATION)):
        there.append(configuration)
    return there


def _holds(path: Path, data: bytes) -> bool:
    try:
        return plain_files.read(path, len(data), follow=True) == data
    except OSError:
        return False


def _state_files(state: Path) -> list[Path]:
    names = os.listdir(state) if state.is_dir() else []
    ours = (*archive_file.FILES, archive.MENDED, LEASES)
    return [state / name for name in sorted(names) if replay.NAME.match(name) or name in ours]


def restore(config: Config, backup: Backup, configuration: Path, *, replace: bool) -> Path | None:
    """Makes the backup's contents the state, the hosts files and the configuration.

    No new job gets the number of a job that is missing in the backup, as far as the existing state
    or the results tell those numbers.

    Returns the folder with the replaced files.  Raises BadState if a server runs, Refused if
    something is in the way and `replace` is false, OSError.  Nothing is ever removed.
    Root acts as each folder's owner: the state and the hosts files are the server's.
    """
    state, hosts, found = config.paths.state, config.paths.hosts, config.paths.srv / "result"
    with owner.acting(state):
        disk = StateFolder(state)
    with contextlib.closing(disk):  # no server can start from here on
        there = in_the_way(config, backup, configuration)
        _check_places(config, backup, configuration, there)
        if there and not replace:
            named = ", ".join(map(str, there[:5])) + (" and more" if there[5:] else "")
            raise Refused(f"nothing was changed; in the way: {named}; --yes moves it aside")
        with owner.acting(state):
            # An interrupted restore may have moved some or all of the state aside.
            places = (state, *state.glob(f"{ASIDE}*"))
            before = max(offline.counter(place, config.lab) for place in places)
        with owner.acting(found):
            newest = results.newest_number(found, config.lab)
        backup.store.counter = max(backup.store.counter, before, newest)
        with owner.acting(state):
            _put(state / replay.RESTORING, [])
        aside = _move_aside(state, there) if there else None
        with owner.acting(state):
            for name in backup.names(STATE):
                if name != SNAPSHOT:
                    _put(state / name, _pieces(backup, f"{STATE}/{name}"))
            # The snapshot comes last: without one there is no state yet.
            _put(state / SNAPSHOT, records.snapshot(records.image_of(backup.store, 0)))
            _put(state / replay.journal_name(1), [frames.JOURNAL_HEADER])
        with owner.acting(hosts):
            for name in backup.names(HOSTS):
                _put(hosts / name, _pieces(backup, f"{HOSTS}/{name}"), 0o644)
        if CONFIGURATION in backup.zip.namelist():
            # As an install makes it: it holds accounts, and the server's group may read it.
            whose = (0, state.stat().st_gid) if os.geteuid() == 0 else None
            _put(configuration, _pieces(backup, CONFIGURATION), 0o640, whose)
        with owner.acting(state):
            (state / replay.RESTORING).unlink()
            atomic.sync_folder(state)
    return aside


def _check_places(config: Config, backup: Backup, configuration: Path, there: list[Path]) -> None:
    """Raises Refused for anything that would stop a restore half-way."""
    hosts, folders = config.paths.hosts, []
    with owner.acting(hosts):
        targets = [hosts / name for name in backup.names(HOSTS)]
        folders += [path for path in targets if plain_files.kind(path) == plain_files.FOLDER]
    if CONFIGURATION in backup.zip.namelist():
        owner.check_roots(configuration.absolute().parent)
        folders += [configuration] * (plain_files.kind(configuration) == plain_files.FOLDER)
    for path in folders:
        raise Refused(f"nothing was changed; {path}: is a folder, where a file belongs")
    for path in there:
        if path.parent != config.paths.state and len(os.fsencode(_aside(path))) > NAME_BYTES_MAX:
            raise Refused(f"nothing was changed; {path}: its name is too long to be kept aside")


def _aside(path: Path) -> str:
    """Returns the name that a file other than a state file gets in the folder set aside."""
    return f"{path.parent.name}-{path.name}"


def _move_aside(state: Path, there: list[Path]) -> Path:
    with owner.acting(state):
        aside = new_folder(state, ASIDE)
    for path in there:
        if path.parent == state:
            with owner.acting(state):
                path.rename(aside / path.name)
            continue
        # Copied, since it may be another owner's or on another file system.
        with owner.acting(path.parent):
            data = plain_files.read(path, follow=True)
        with owner.acting(state):
            atomic.put(aside / _aside(path), [data])
            atomic.sync_folder(aside)
        with owner.acting(path.parent):
            path.unlink()
    with owner.acting(state):
        for folder in (aside, state):
            atomic.sync_folder(folder)
    return aside


def _pieces(backup: Backup, name: str) -> Iterator[bytes]:
    with backup.zip.open(name) as source:
        while data := source.read(_COPY_BYTES):
            yield data


def _put(
    path: Path,
    pieces: Iterable[bytes],
    mode: int = OWNER_ONLY,
    whose: tuple[int, int] | None = None,
) -> None:
    """Writes one file, complete and durable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.put(path, pieces, mode, whose)
