"""Pure: no clock, no socket, no await.

A list of testboxes as exported from a spreadsheet: CSV, one box per line, with a header line of
hosts-file keys.  A cell with several values separates them with blanks.

    name,mac,arch,queues,console
    rack-7,52:54:00:12:34:56 52:54:00:12:34:57,aarch64,default fast,ttyAMA0
"""

from __future__ import annotations

import csv
from typing import Any, Final

import attrs

from appliance.errors import ApplianceError, BadRequest
from appliance.jobs import box

HOSTS_MAX: Final = 10_000  # per list
LINES_MAX: Final = 2 * HOSTS_MAX  # per list; some people leave every other line empty
PROBLEMS_MAX: Final = 50  # shown at once; further ones mostly repeat the first
LISTS: Final = ("mac", "queues", "tags", "console", "rootfs_disk")
KEYS: Final = (
    "name", *LISTS, "arch", "uuid", "memory", "crashkernel", "kernel_params",
    "kernel_custom_params", "nr_nic", "nr_disk", "disk_size", "ipxe",
)  # fmt: skip


@attrs.frozen
class Row:
    """One box of the list."""

    line: int
    name: str
    fields: dict[str, Any]  # in the form of a hosts file


def parse(text: str) -> list[Row]:
    """Parses a list into rows.  Raises BadRequest with every mistake and its line."""
    lines = text.removeprefix("\ufeff").splitlines()
    if len(lines) > LINES_MAX:
        raise BadRequest(f"more than {LINES_MAX} lines, or {HOSTS_MAX} testboxes, in one list")
    if not lines:
        raise BadRequest("the list is empty: its first line names columns, such as name,mac,arch")
    reader = csv.reader(lines, delimiter=_delimiter(lines[0]), strict=True)
    rows: list[Row] = []
    problems: list[str] = []
    try:
        columns = [column.strip() for column in next(reader)]
        if unknown := [column for column in columns if column not in KEYS]:
            problems.append(f"line 1: unknown columns {', '.join(map(repr, unknown))}"[:200])
        if "name" not in columns or "mac" not in columns or len(set(columns)) < len(columns):
            problems.append("line 1: it must name the columns `name` and `mac`, each column once")
        for cells in [] if problems else reader:
            if any(cell.strip() for cell in cells):
                _row(columns, cells, reader.line_num, rows, problems)
    except csv.Error as error:
        problems.append(f"line {reader.line_num}: no CSV: {error}")
    _check_apart(rows, problems)
    if not rows and not problems:
        problems.append("line 2: there is no testbox in it")
    complain(problems)
    return rows


def complain(problems: list[str]) -> None:
    """Raises BadRequest listing `problems`, if there are any."""
    if problems:
        more = len(problems) - PROBLEMS_MAX
        rest = [f"and {more} more"] if more > 0 else []
        raise BadRequest("\n".join(["nothing was added:", *problems[:PROBLEMS_MAX], *rest]))


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def _row(
    columns: list[str], cells: list[str], line: int, rows: list[Row], problems: list[str]
) -> None:
    if len(cells) != len(columns):
        problems.append(f"line {line}: {len(cells)} values for {len(columns)} columns")
        return
    said = {key: cell.strip() for key, cell in zip(columns, cells, strict=True) if cell.strip()}
    name = said.pop("name", "")
    fields = {key: value.split() if key in LISTS else value for key, value in said.items()}
    try:
        fields["mac"] = [box.normal_mac(mac) for mac in fields.get("mac", [])]
        box.facts(name, fields, "default")
    except ApplianceError as error:
        problems.append(f"line {line}: {error}")
        return
    rows.append(Row(line, name, fields))
    if len(rows) > HOSTS_MAX:
        raise BadRequest(f"more than {HOSTS_MAX} testboxes in one list")


def _check_apart(rows: list[Row], problems: list[str]) -> None:
    """Notes a problem for every name or MAC that occurs twice."""
    seen: dict[str, int] = {}
    for row in rows:
        for word in (row.name, *row.fields["mac"]):
            if word in seen:
                problems.append(f"line {row.line}: {word} is in line {seen[word]} already")
            seen.setdefault(word, row.line)
