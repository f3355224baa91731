"""Rows of the archive as no program of ours writes them: a value of any type in any column."""

from __future__ import annotations

import contextlib
import sqlite3

from appliance.keep import archive_file


def spoil(path, table, column, number, value):
    """Put `value` there, whatever the schema says; the schema is ours again afterwards."""
    sql = dict(archive_file.schema())[table]
    _rewrite(path, table, sql.replace(" NOT NULL", ""))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE number = ?", (value, number))
    _rewrite(path, table, sql)


def _rewrite(path, table, sql):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, table))
