"""Pure: no clock, no socket, no await.

Findings of doctor: one for each check, including checks that could not be made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import attrs

OK: Final = "ok"
WARNING: Final = "warning"  # it works now, but may fail later or for some
ERROR: Final = "error"  # boxes or people are affected now, or at the next start
SKIPPED: Final = "skipped"  # not checked; `found` says why


@attrs.frozen
class Finding:
    """The result of one check."""

    looked_at: str  # such as "port 67"; the same before and after an install
    level: str
    found: str
    means: str = ""  # the consequence; empty if all is well
    mend: str = ""  # the command that fixes it, or what a person must do

    @property
    def row(self) -> dict[str, Any]:
        """The finding as a map, for programs."""
        return attrs.asdict(self)


def ok(looked_at: str, found: str) -> Finding:
    """Makes a finding: all is well."""
    return Finding(looked_at, OK, found)


def warning(looked_at: str, found: str, means: str, mend: str) -> Finding:
    """Makes a finding: it works so far."""
    return Finding(looked_at, WARNING, found, means, mend)


def error(looked_at: str, found: str, means: str, mend: str) -> Finding:
    """Makes a finding: it does not work."""
    return Finding(looked_at, ERROR, found, means, mend)


def skipped(looked_at: str, why: str, mend: str = "") -> Finding:
    """Makes a finding: it could not be checked."""
    return Finding(looked_at, SKIPPED, why, mend=mend)


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """Counts the findings of each level."""
    levels = [finding.level for finding in findings]
    return {level: levels.count(level) for level in (ERROR, WARNING, SKIPPED, OK)}
