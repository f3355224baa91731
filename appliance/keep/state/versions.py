"""Pure: no clock, no socket, no await.

The version of the state: one number for journals, snapshots, the archive and exports.

    1   up to commit 546374a
    2   what clocks said: the change `Clocked`, `clock` in a snapshot's first record and in exports

Each file says at its head of which version it is.  A program writes its own version, and reads that
and every earlier one: what those lack has a default, where it is loaded.  It touches nothing that a
later one wrote.

Whoever adds a field or a change adds a version here and a golden state of it in `tests/golden`,
where `fields.txt` has all that is kept.  A version that no release has written may still change:
`python -m tests.golden_state` writes its golden state anew.
"""

from __future__ import annotations

from typing import Final

from appliance.errors import NewerState

VERSION: Final = 2
FIRST: Final = 1  # of programs that do not say which they read


def check(version: int, name: str, what: str = "") -> None:
    """Raises NewerState for the file of a later program; `what` the file is."""
    if version > VERSION:
        raise NewerState(
            f"{name}: was written by a newer appliance: {what or 'state'} version {version} is"
            f" newer than this program's, which is {VERSION}; nothing of it was touched"
        )
