"""Pure: no clock, no socket, no await.

Rows of the table that `make bench` prints and README.md quotes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Final

import attrs

_HEADINGS: Final = ("what", "appliance", "against", "ratio", "aim", "")


@attrs.frozen
class Row:
    """One measurement beside its peer.  `good` is None where there is no aim."""

    what: str
    ours: str
    peer: str
    ratio: str
    aim: str
    good: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """As the table shows it."""
        verdict = {True: "yes", False: "NO", None: ""}[self.good]
        return (self.what, self.ours, self.peer, self.ratio, self.aim, verdict)


def markdown(rows: Sequence[Row]) -> str:
    """The table, its columns aligned for readers of the source."""
    lines = [_HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(_HEADINGS))]
    padded = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([padded[0], rule, *padded[1:]])


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all values do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


def median_and_p99(seconds: Sequence[float]) -> str:
    """In milliseconds, for people."""
    low, high = statistics.median(seconds), percentile(seconds, 99)
    return f"{low * 1000:.1f} ms, p99 {high * 1000:.1f} ms"
