"""Pure: no clock, no socket, no await.

The gate: whether new work is taken.  It is shut for as long as anybody has a reason, and only
whoever shut it opens it again.  What was taken before goes on meanwhile.
"""

from __future__ import annotations

from appliance.errors import DiskTrouble


class Gate:
    """Open until somebody shuts it."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Gate {'shut: ' + ', '.join(self._reasons) if self._reasons else 'open'}>"

    def shut(self, who: str, why: str) -> None:
        """`why` replaces what `who` said before."""
        self._reasons[who] = why

    def open(self, who: str) -> None:
        """`who` has no reason any more."""
        self._reasons.pop(who, None)

    def is_shut_by(self, who: str) -> bool:
        """Whether `who` has a reason."""
        return who in self._reasons

    @property
    def reasons(self) -> list[str]:
        """Why it is shut; empty while it is open."""
        return list(self._reasons.values())

    def check(self) -> None:
        """Raises DiskTrouble where it is shut."""
        if self._reasons:
            raise DiskTrouble(
                f"{'; '.join(self.reasons)}. Nothing was taken: submit again when there is room,"
                " and see `appliance status`"
            )
