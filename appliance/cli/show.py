"""Prints answers: aligned columns for people, JSON for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from appliance.printable import printable

_COLOURS = {"success": "green", "parked": "green", "running": "cyan", "cancel": "yellow"}


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Prints text with control characters removed, since parts of it may come from strangers."""
    click.echo(printable(text, "\n\t"), err=err, nl=nl)


def secho(
    text: str, *, fg: str | None = None, bold: bool = False, err: bool = False, nl: bool = True
) -> None:
    """Like echo(), in a colour."""
    click.secho(printable(text, "\n\t"), fg=fg, bold=bold, err=err, nl=nl)


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints columns as wide as their widest cell, two blanks between; nothing is cut."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max(len(heading), *(len(row[n]) for row in cells)) if cells else len(heading)
        for n, heading in enumerate(headings)
    ]
    secho(_line(headings, widths), bold=True)
    for row, shown in zip(rows, cells, strict=True):
        line = _line(shown, widths)
        secho(line, fg=_colour(dict(zip(headings, row, strict=True))))


def _colour(row: Mapping[str, Any]) -> str | None:
    """Returns a job's colour by its health (any word); other rows' by the first known word."""
    if row.get("HEALTH"):
        return _COLOURS.get(row["HEALTH"], "red")
    words = (word for word in row.values() if isinstance(word, str))
    return next((_COLOURS[word] for word in words if word in _COLOURS), None)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return printable(",".join(str(part) for part in value)) or "-"
    return printable(str(value))


def as_json(value: Any) -> None:
    """Prints one JSON document on stdout, all of it printable."""
    click.echo(json_text(value, indent=2))


def json_text(value: Any, indent: int | None = None) -> str:
    """Returns readable JSON: unprintable characters are escaped as \\uXXXX."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def testboxes(count: int) -> str:
    """Returns the number with its word: `1 testbox`, `2 testboxes`."""
    return f"{count} testbox{'' if count == 1 else 'es'}"


def ago(moment: float | None) -> str:
    """Returns how long ago, in the largest unit that fits twice: `75s`, `12m`, `3h`, `9d`."""
    if not moment:
        return "-"
    seconds = max(0, int(time.time() - moment))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def clock(moment: float) -> str:
    """Returns the local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(moment))


def size(count: float) -> str:
    """Formats a number of bytes as B, KiB, MiB or GiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
