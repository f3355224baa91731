"""Pure: no clock, no socket, no await.

What doctor says: one finding for each thing that it looked at, or could not look at.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import attrs

OK: Final = "ok"
WARNING: Final = "warning"  # it works, and will not one day, or not for everybody
ERROR: Final = "error"  # boxes or people meet it now, or at the next start
SKIPPED: Final = "skipped"  # not looked at, and `found` says why


@attrs.frozen
class Finding:
    """One thing that was looked at."""

    looked_at: str  # such as "port 67": the same word before and after an install
    level: str
    found: str
    means: str = ""  # what follows from it; empty where all is well
    mend: str = ""  # the command that mends it, or what a person must do

    @property
    def row(self) -> dict[str, Any]:
        """As a map, for programs."""
        return attrs.asdict(self)


def ok(looked_at: str, found: str) -> Finding:
    """All is well."""
    return Finding(looked_at, OK, found)


def warning(looked_at: str, found: str, means: str, mend: str) -> Finding:
    """It works as yet."""
    return Finding(looked_at, WARNING, found, means, mend)


def error(looked_at: str, found: str, means: str, mend: str) -> Finding:
    """It does not work."""
    return Finding(looked_at, ERROR, found, means, mend)


def skipped(looked_at: str, why: str, mend: str = "") -> Finding:
    """It could not be looked at."""
    return Finding(looked_at, SKIPPED, why, mend=mend)


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """How many there are of each level."""
    levels = [finding.level for finding in findings]
    return {level: levels.count(level) for level in (ERROR, WARNING, SKIPPED, OK)}
