"""A backup: one zip file with the state, the configuration and the hosts files.

Zip has a checksum for each file and its list at the end, so one that was cut off or damaged is
seen before anything is changed.  It holds the secrets of jobs: only its owner may read it.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from appliance import config as configs
from appliance.config import Config
from appliance.errors import BadConfig, BadState, NewerState, Refused
from appliance.jobs.store import Store
from appliance.keep import (
    archive,
    archive_file,
    frames,
    heads,
    offline,
    owner,
    plain,
    records,
    replay,
    results,
    versions,
)
from appliance.keep.disk import StateFolder, new_folder, sync_folder

VERSION: Final = 1
ABOUT: Final = "backup.json"
STATE: Final = "state"
HOSTS: Final = "hosts"
CONFIGURATION: Final = "appliance.toml"
LEASES: Final = "dnsmasq.leases"
ASIDE: Final = "replaced-"  # in the state folder: what a restore has replaced
SNAPSHOT: Final = replay.snapshot_name(1)  # its name in each backup
_OWNER_ONLY: Final = 0o600
# What is read as a whole: the list of contents is 200 bytes, a hosts file some kilobytes.
_SMALL_BYTES_MAX: Final = 2**20
# A store of a million jobs that wait: read as a whole, too.
_SNAPSHOT_BYTES_MAX: Final = 2 * 2**30
# A large file that shrinks more than this was made to fill a disk: our rows shrink to a tenth.
_BOMB_BYTES: Final = 64 * 2**20
_BOMB_RATIO: Final = 200
_STATE_NAMES: Final = frozenset([SNAPSHOT, archive_file.NAME, LEASES])
_COUNTS: Final = ("jobs", "archived", "boxes")
_COPY_BYTES: Final = 2**20
# Of a file: Linux takes 255 (NAME_MAX), and while it is written it has five more, `.NAME.new`.
_NAME_BYTES_MAX: Final = 250


class Writer:
    """Makes a backup; it has its name when it is whole."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._path, self._beside = path, path.with_name(f".{path.name}.new")
        self._beside.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.fdopen(os.open(self._beside, flags, _OWNER_ONLY), "wb")
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED, compresslevel=3)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if not self._file.closed:  # it was not finished
            with contextlib.suppress(ValueError):
                self._zip.close()
            self._file.close()
            self._beside.unlink(missing_ok=True)

    def add(self, name: str, pieces: Iterable[bytes]) -> None:
        """One file."""
        with self._zip.open(name, "w", force_zip64=True) as entry:
            for piece in pieces:
                entry.write(piece)

    def finish(self, about: Mapping[str, Any]) -> None:
        """It is whole and durable, and replaces an older one of that name."""
        self.add(ABOUT, [json.dumps({"version": VERSION, **about}, indent=2).encode()])
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._beside, self._path)
        sync_folder(self._path.absolute().parent)


@attrs.frozen
class Backup:
    """A whole one, open for reading."""

    zip: zipfile.ZipFile
    about: dict[str, Any]
    store: Store  # as of then

    def names(self, below: str) -> list[str]:
        """The names of the files in that folder of it."""
        found = [name.partition("/") for name in self.zip.namelist()]
        return [name for folder, _, name in found if folder == below and name]

    def read(self, name: str) -> bytes:
        """A whole small file."""
        return self.zip.read(name)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Backup]:
    """Raises BadState where it is no backup, not whole, or of a newer program; OSError."""
    try:
        with zipfile.ZipFile(path) as found:
            yield _checked(found, path)
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError) as error:
        raise BadState(f"{path}: no whole backup: {error}") from error


def _checked(found: zipfile.ZipFile, path: Path) -> Backup:
    """Looks at names and sizes before anything is inflated, and at all of it after that."""
    for entry in found.infolist():
        _check_name(entry.filename, path)
        _check_size(entry, path)
    for name, count in Counter(found.namelist()).items():
        if count > 1:
            raise BadState(f"{path}: {name} is in it twice")
    try:
        if (bad := found.testzip()) is not None:
            raise BadState(f"{path}: {bad} in it is damaged")
        about = json.loads(found.read(ABOUT))
    except (RuntimeError, struct.error) as error:  # encrypted; packed otherwise; nested too deeply
        raise BadState(f"{path}: no backup that can be read: {error}") from error
    if not isinstance(about, dict) or type(about.get("version")) is not int:
        raise BadState(f"{path}: no backup: {ABOUT} in it says no version")
    if about["version"] > VERSION:
        raise NewerState(f"{path}: was written by a newer appliance; nothing was changed")
    if not all(type(about.get(key)) is int and about[key] >= 0 for key in _COUNTS):
        raise BadState(f"{path}: {ABOUT} in it must have numbers for {', '.join(_COUNTS)}")
    if (rows := f"{STATE}/{archive_file.NAME}") in found.namelist():
        with found.open(rows) as source:
            version = heads.of_archive(source.read(heads.ARCHIVE_BYTES))
        if not version:
            raise BadState(f"{path}: {archive_file.NAME} in it is no archive of the appliance")
        versions.check(version, f"{path}: {archive_file.NAME}", "archive")
    data = found.read(f"{STATE}/{SNAPSHOT}")
    store = replay.load_snapshot(data, f"{path}: {SNAPSHOT}").store
    if store.counter > records.GIVEN_MAX:
        many = f"counter = {store.counter} is no number that a lab reaches"
        raise BadState(f"{path}: {SNAPSHOT}: {many}")
    if CONFIGURATION in found.namelist():
        _check_configuration(found.read(CONFIGURATION), f"{path}: {CONFIGURATION}")
    return Backup(found, {"made": "", **about}, store)


def _check_configuration(data: bytes, name: str) -> None:
    """Raises BadConfig where no server would start with it."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadConfig(f"{name}: is no UTF-8 (byte {error.start})") from error
    configs.parse(text, name)


def _check_name(whole: str, path: Path) -> None:
    folder, _, name = whole.partition("/")
    plain = name not in ("", ".", "..") and "/" not in name and name.isprintable()
    ours = name in _STATE_NAMES if folder == STATE else folder == HOSTS
    if whole not in (ABOUT, CONFIGURATION) and not (plain and ours):
        raise BadState(f"{path}: {whole[:200]!a} in it is no file's name in a backup")
    if len(os.fsencode(name)) > _NAME_BYTES_MAX:
        raise BadState(
            f"{path}: {whole[:200]!a} in it has a name of more than {_NAME_BYTES_MAX} bytes"
        )


def _check_size(entry: zipfile.ZipInfo, path: Path) -> None:
    """As the list says it: no more is ever inflated."""
    most = {
        f"{STATE}/{archive_file.NAME}": None,
        f"{STATE}/{SNAPSHOT}": _SNAPSHOT_BYTES_MAX,
        f"{STATE}/{LEASES}": _BOMB_BYTES,  # of a million leases
    }
    limit = most.get(entry.filename, _SMALL_BYTES_MAX)
    shrunk = entry.file_size > _BOMB_RATIO * max(1, entry.compress_size)
    if limit is not None and entry.file_size > limit:
        why = f"{entry.file_size} bytes, more than the {limit} that it may have"
    elif entry.file_size > _BOMB_BYTES and shrunk:
        why = f"{entry.file_size} bytes packed into {entry.compress_size}: no server wrote that"
    else:
        return
    raise BadState(f"{path}: {entry.filename} in it has {why}")


def in_the_way(config: Config, backup: Backup, configuration: Path) -> list[Path]:
    """What a restore would replace: files that are there, and not what the backup has."""
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
        return plain.read(path, len(data), follow=True) == data
    except OSError:
        return False


def _state_files(state: Path) -> list[Path]:
    names = os.listdir(state) if state.is_dir() else []
    ours = (*archive_file.FILES, archive.MENDED, LEASES)
    return [state / name for name in sorted(names) if replay.NAME.match(name) or name in ours]


def restore(config: Config, backup: Backup, configuration: Path, *, replace: bool) -> Path | None:
    """Make what the backup holds the state, the hosts files and the configuration.

    No new job gets a number that a job had which the backup does not know: as far as the state
    that is there tells, or results.

    Returns the folder that has what was replaced.  Raises BadState where a server runs, Refused
    where something is in the way and `replace` was not said, OSError; nothing is removed ever.
    In each folder root is its owner: the state and the hosts files are the server's.
    """
    state, hosts, found = config.paths.state, config.paths.hosts, config.paths.srv / "result"
    with owner.acting(state):
        disk = StateFolder(state)
    with contextlib.closing(disk):  # no server, from here on
        there = in_the_way(config, backup, configuration)
        _check_places(config, backup, configuration, there)
        if there and not replace:
            named = ", ".join(map(str, there[:5])) + (" and more" if there[5:] else "")
            raise Refused(f"nothing was changed; in the way: {named}; --yes moves it aside")
        with owner.acting(state):
            # One that was broken off has moved some of the state, or all of it, aside.
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
            # As an install has it: the server's group may read it, and accounts are in it.
            whose = (0, state.stat().st_gid) if os.geteuid() == 0 else None
            _put(configuration, _pieces(backup, CONFIGURATION), 0o640, whose)
        with owner.acting(state):
            (state / replay.RESTORING).unlink()
            sync_folder(state)
    return aside


def _check_places(config: Config, backup: Backup, configuration: Path, there: list[Path]) -> None:
    """Raises Refused for what would stop a restore half-way."""
    hosts, folders = config.paths.hosts, []
    with owner.acting(hosts):
        targets = [hosts / name for name in backup.names(HOSTS)]
        folders += [path for path in targets if plain.kind(path) == plain.FOLDER]
    if CONFIGURATION in backup.zip.namelist():
        owner.check_roots(configuration.absolute().parent)
        folders += [configuration] * (plain.kind(configuration) == plain.FOLDER)
    for path in folders:
        raise Refused(f"nothing was changed; {path}: is a folder, where a file belongs")
    for path in there:
        if path.parent != config.paths.state and len(os.fsencode(_aside(path))) > _NAME_BYTES_MAX:
            raise Refused(f"nothing was changed; {path}: its name is too long to be kept aside")


def _aside(path: Path) -> str:
    """The name there of what is no state file."""
    return f"{path.parent.name}-{path.name}"


def _move_aside(state: Path, there: list[Path]) -> Path:
    with owner.acting(state):
        aside = new_folder(state, ASIDE)
    for path in there:
        if path.parent == state:
            with owner.acting(state):
                path.rename(aside / path.name)
            continue
        # Another owner's, it may be, or on another file system: a copy.
        with owner.acting(path.parent):
            data = plain.read(path, follow=True)
        with owner.acting(state):
            plain.put(aside / _aside(path), [data])
            sync_folder(aside)
        with owner.acting(path.parent):
            path.unlink()
    with owner.acting(state):
        for folder in (aside, state):
            sync_folder(folder)
    return aside


def _pieces(backup: Backup, name: str) -> Iterator[bytes]:
    with backup.zip.open(name) as source:
        while data := source.read(_COPY_BYTES):
            yield data


def _put(
    path: Path,
    pieces: Iterable[bytes],
    mode: int = _OWNER_ONLY,
    whose: tuple[int, int] | None = None,
) -> None:
    """One file, whole and durable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain.put(path, pieces, mode, whose)
    sync_folder(path.parent)
