"""Pure: no clock, no socket, no await.

The gate: whether new work is taken.  It is shut as long as anybody has a reason, and each reason
is withdrawn only by the part that gave it.  Work that was taken before goes on.
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
        """Shuts the gate; `why` replaces an earlier reason of `who`."""
        self._reasons[who] = why

    def open(self, who: str) -> None:
        """Withdraws the reason of `who`; the gate opens if it was the last one."""
        self._reasons.pop(who, None)

    def is_shut_by(self, who: str) -> bool:
        """Whether `who` has a reason."""
        return who in self._reasons

    @property
    def reasons(self) -> list[str]:
        """Why it is shut; empty while it is open."""
        return list(self._reasons.values())

    def check(self) -> None:
        """Raises DiskTrouble if the gate is shut."""
        if self._reasons:
            raise DiskTrouble(
                f"{'; '.join(self.reasons)}. Nothing was taken: submit again when there is room,"
                " and see `appliance status`"
            )
