"""Whether the archive is whole: a start's check, SQLite's slower one, and SQLite's errors."""

from __future__ import annotations

import sqlite3
from typing import Final

from appliance.errors import BadState, DiskTrouble
from appliance.jobs.store import Store
from appliance.keep.sealed import HELP, NAME

# What Python's sqlite3 raises for a damaged file; UnicodeDecodeError if SQLite's message quotes
# bytes that are no text.
ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)

# Errors whose cause lies outside of the file (sqlite.org/rescode.html).
_NOT_NOW: Final = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM,
}  # fmt: skip


def trouble(error: sqlite3.Error | UnicodeDecodeError) -> DiskTrouble | BadState:
    """Turns SQLite's error into ours: DiskTrouble for an obstacle, BadState for a damaged file."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_NOW:
        return DiskTrouble(f"{NAME}: {error}")
    why = "malformed" if isinstance(error, UnicodeDecodeError) else " ".join(str(error).split())
    return BadState(f"{NAME}: {why}; {HELP}")


def lacks(connection: sqlite3.Connection, store: Store) -> str:
    """Says what the store relies on and the archive lacks, in words; empty: nothing."""
    (there,) = connection.execute("SELECT count(*) FROM job").fetchone()
    if there < store.archived:
        return f"holds {there} jobs, and {store.archived} were put there"
    newest = max(
        (job.number for job in store.jobs.values() if job.document.body is None), default=0
    )
    (filed,) = connection.execute("SELECT max(number) FROM body").fetchone()
    if newest > (filed or 0):
        return f"ends with document {filed or 0}, and document {newest} was put there"
    if (filed or 0) > store.counter:  # a body is filed only once the journal has its job
        lost = f"job {store.counter} is the newest that the journal knows"
        return f"holds document {filed}, and {lost}: records are lost"
    return ""


def unsound(connection: sqlite3.Connection) -> str:
    """Says what SQLite finds wrong with the file, tables against indexes; empty: nothing."""
    words = [word for (word,) in connection.execute("PRAGMA integrity_check(1)")]
    return "" if words == ["ok"] else " ".join(" ".join(map(str, words)).split())
