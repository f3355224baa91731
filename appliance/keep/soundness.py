"""Whether the archive is whole: what a start asks of it, what takes longer, what SQLite says."""

from __future__ import annotations

import sqlite3
from typing import Final

from appliance.errors import BadState, DiskTrouble
from appliance.jobs.store import Store
from appliance.keep.sealed import HELP, NAME

# What Python's sqlite3 raises for a damaged file: the second, where SQLite's message quotes bytes
# that are no text.
ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)

# What the world does to a file that is whole (sqlite.org/rescode.html).
_NOT_NOW: Final = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM,
}  # fmt: skip


def trouble(error: sqlite3.Error | UnicodeDecodeError) -> DiskTrouble | BadState:
    """What SQLite says, in our words: something is in the way, or the file is damaged."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_NOW:
        return DiskTrouble(f"{NAME}: {error}")
    why = "malformed" if isinstance(error, UnicodeDecodeError) else " ".join(str(error).split())
    return BadState(f"{NAME}: {why}; {HELP}")


def lacks(connection: sqlite3.Connection, store: Store) -> str:
    """What the store relies on and is not there, in words; empty where nothing is."""
    (there,) = connection.execute("SELECT count(*) FROM job").fetchone()
    if there < store.archived:
        return f"holds {there} jobs, and {store.archived} were put there"
    newest = max(
        (job.number for job in store.jobs.values() if job.document.body is None), default=0
    )
    (filed,) = connection.execute("SELECT max(number) FROM body").fetchone()
    if newest > (filed or 0):
        return f"ends with document {filed or 0}, and document {newest} was put there"
    if (filed or 0) > store.counter:  # filed once the journal had the job
        lost = f"job {store.counter} is the newest that the journal knows"
        return f"holds document {filed}, and {lost}: records are lost"
    return ""


def unsound(connection: sqlite3.Connection) -> str:
    """What SQLite finds wrong with the file, tables against indexes; empty where nothing is."""
    words = [word for (word,) in connection.execute("PRAGMA integrity_check(1)")]
    return "" if words == ["ok"] else " ".join(" ".join(map(str, words)).split())
