"""The archive's file: made, opened, copied.  Runs in a thread, or while no server runs."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from appliance.errors import BadState, DiskTrouble
from appliance.fs import plain_files
from appliance.keep import sealed, soundness
from appliance.keep.sealed import HELP
from appliance.keep.state import heads, versions

NAME: Final = sealed.NAME
_SQLITES: Final = ("", "-wal", "-shm", "-journal")  # suffixes of the files SQLite may make
FILES: Final = tuple(NAME + ending for ending in _SQLITES)
_MODE: Final = 0o600  # jobs have secrets; SQLite gives its log the same mode
# How long SQLite waits while another program holds the file, as a backup does for a moment.
BUSY_S: Final = 5.0
LOG_BYTES_MAX: Final = 16 * 2**20  # the write-ahead log is cut to this once it was copied

_SCHEMA: Final = f"""
BEGIN;
CREATE TABLE body (number INTEGER PRIMARY KEY, cbor BLOB NOT NULL);
CREATE TABLE job (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, submitter TEXT NOT NULL, key TEXT NOT NULL,
    submitted REAL NOT NULL, finished REAL NOT NULL, health TEXT NOT NULL, box TEXT,
    queue TEXT NOT NULL, stays INTEGER NOT NULL, cbor BLOB NOT NULL
);
CREATE INDEX job_by_key ON job (submitter, key);
CREATE INDEX job_by_box ON job (box, number);
CREATE INDEX job_to_sweep ON job (finished) WHERE stays = 0;
CREATE TABLE attempt (token TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {heads.APPLICATION_ID};
PRAGMA user_version = {versions.VERSION};
COMMIT;
"""


def connect(path: Path | Literal[":memory:"], mode: str = "rwc") -> sqlite3.Connection:
    """Opens the file; creates a missing one if `mode` has a `c`.  Raises BadState, DiskTrouble."""
    where = path if path == ":memory:" else f"{path.absolute().as_uri()}?mode={mode}"
    if path != ":memory:":
        _check_files(path, mode)
        heads.check(path.parent)
    try:
        if path != ":memory:" and mode == "rwc":
            # SQLite would make the file readable for everybody.  An existing file is not opened
            # here: closing it would drop the locks of this process's other connection.
            if not path.exists():
                path.touch(_MODE)
            path.chmod(_MODE)
    except OSError as error:
        raise DiskTrouble(f"{NAME}: {error.strerror}") from error
    try:
        connection = sqlite3.connect(
            str(where), BUSY_S, uri=True, check_same_thread=False, isolation_level=None
        )
        with contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            _prepare(connection)
            stack.pop_all()
    except soundness.ERRORS as error:
        raise soundness.trouble(error) from error
    return connection


def _check_files(path: Path, mode: str) -> None:
    """Checks files before SQLite opens them: SQLite follows symlinks, and its errors say little.

    Raises BadState, DiskTrouble.
    """
    for each in (path.with_name(path.name + ending) for ending in _SQLITES):
        if what := plain_files.kind(each):
            raise BadState(f"{NAME}: {each.name} is {what}, where a plain file belongs; {HELP}")
        mine = not mode.startswith("rw") or os.access(each, os.R_OK | os.W_OK, effective_ids=True)
        if each.exists() and not mine:
            raise DiskTrouble(f"{NAME}: {each.name} is somebody else's, or closed to its owner")


def _prepare(connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application != heads.APPLICATION_ID:
        raise BadState(f"{NAME}: is no archive of the appliance")
    versions.check(version, NAME, "archive")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # in WAL mode: each commit syncs the log
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_MAX}")
    connection.text_factory = _text
    if not tables:
        connection.executescript(_SCHEMA)
    elif not set(schema()) <= set(connection.execute(_OF_SCHEMA)):
        raise BadState(f"{NAME}: its tables are not those that this program makes; {HELP}")


def _text(data: bytes) -> str:
    """Decodes text; invalid UTF-8 means one damaged row (is_whole), and must stop no others."""
    return data.decode("utf-8", "surrogateescape")


_OF_SCHEMA: Final = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"


@functools.cache
def schema() -> list[tuple[str, str]]:
    """Returns the tables and indexes: their names, and the SQL that makes them."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA)
        return connection.execute(_OF_SCHEMA).fetchall()


def mark(connection: sqlite3.Connection) -> None:
    """Marks the file with this program's version; earlier programs then refuse it.

    The mark must be in the file itself: `heads` does not see SQLite's log.
    """
    if connection.execute("PRAGMA user_version").fetchone() != (versions.VERSION,):
        connection.execute(f"PRAGMA user_version = {versions.VERSION}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def copy(connection: sqlite3.Connection, path: Path) -> None:
    path.touch(_MODE, exist_ok=False)
    with contextlib.closing(sqlite3.connect(path)) as target:
        connection.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")  # the copy is one file


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
