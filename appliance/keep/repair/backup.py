"""A backup: one zip file with the state, the configuration and the hosts files.

Zip has a checksum for each file and its list at the end, so a truncated or damaged backup is
noticed before anything is changed.  A backup holds the secrets of jobs: only its owner may read it.
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
from appliance.errors import BadConfig, BadState, NewerState
from appliance.fs import atomic
from appliance.jobs.store import Store
from appliance.keep import archive_file
from appliance.keep.state import heads, records, replay, versions

VERSION: Final = 1
ABOUT: Final = "backup.json"
STATE: Final = "state"
HOSTS: Final = "hosts"
CONFIGURATION: Final = "appliance.toml"
LEASES: Final = "dnsmasq.leases"
SNAPSHOT: Final = replay.snapshot_name(1)  # its name in each backup
OWNER_ONLY: Final = 0o600
# Largest file read as a whole: the list of contents is 200 bytes, a hosts file some kilobytes.
_SMALL_BYTES_MAX: Final = 2**20
# Largest snapshot, also read as a whole: a store of a million waiting jobs.
_SNAPSHOT_BYTES_MAX: Final = 2 * 2**30
# A larger file that shrinks by a larger ratio was made to fill a disk: our rows shrink to a tenth.
_BOMB_BYTES: Final = 64 * 2**20
_BOMB_RATIO: Final = 200
_STATE_NAMES: Final = frozenset([SNAPSHOT, archive_file.NAME, LEASES])
_COUNTS: Final = ("jobs", "archived", "boxes")
# Of a file's name: Linux allows 255 (NAME_MAX); while written it is five longer, `.NAME.new`.
NAME_BYTES_MAX: Final = 250


class Writer:
    """Writes a backup under a temporary name; `finish` renames it."""

    def __init__(self, path: Path) -> None:
        """Opens the temporary file.  Raises OSError."""
        self._path, self._beside = path, path.with_name(f".{path.name}.new")
        self._beside.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.fdopen(os.open(self._beside, flags, OWNER_ONLY), "wb")
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
        """Adds one file."""
        with self._zip.open(name, "w", force_zip64=True) as entry:
            for piece in pieces:
                entry.write(piece)

    def finish(self, about: Mapping[str, Any]) -> None:
        """Makes the backup complete and durable; replaces an older one of that name."""
        self.add(ABOUT, [json.dumps({"version": VERSION, **about}, indent=2).encode()])
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        atomic.replace(self._beside, self._path)


@attrs.frozen
class Backup:
    """A complete backup, open for reading."""

    zip: zipfile.ZipFile
    about: dict[str, Any]
    store: Store  # at the time of the backup

    def names(self, below: str) -> list[str]:
        """Returns the names of the files in the backup's folder `below`."""
        found = [name.partition("/") for name in self.zip.namelist()]
        return [name for folder, _, name in found if folder == below and name]

    def read(self, name: str) -> bytes:
        """Returns a small file as a whole."""
        return self.zip.read(name)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Backup]:
    """Opens a backup.  Raises BadState if it is none, not whole, or newer than us; OSError."""
    try:
        with zipfile.ZipFile(path) as found:
            yield _checked(found, path)
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError) as error:
        raise BadState(f"{path}: no whole backup: {error}") from error


def _checked(found: zipfile.ZipFile, path: Path) -> Backup:
    """Checks names and sizes before anything is inflated, then all contents."""
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
    """Raises BadConfig if no server would start with this configuration."""
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
    if len(os.fsencode(name)) > NAME_BYTES_MAX:
        raise BadState(
            f"{path}: {whole[:200]!a} in it has a name of more than {NAME_BYTES_MAX} bytes"
        )


def _check_size(entry: zipfile.ZipInfo, path: Path) -> None:
    """Checks a file's size in the zip's list: no more is ever inflated."""
    most = {
        f"{STATE}/{archive_file.NAME}": None,
        f"{STATE}/{SNAPSHOT}": _SNAPSHOT_BYTES_MAX,
        f"{STATE}/{LEASES}": _BOMB_BYTES,  # a million leases
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
