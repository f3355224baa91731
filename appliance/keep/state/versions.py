"""Pure: no clock, no socket, no await.

The version of the state: one number for journals, snapshots, the archive and exports.

    1   up to commit 546374a
    2   clock readings: the change `Clocked`, `clock` in a snapshot's first record and in exports

Each file has its version at its head.  A program writes its own version, and reads that and every
earlier one: fields that an earlier one lacks get a default when they are loaded.  It never
touches a file of a later version.

To add a field or a change, add a version here and its golden state in `tests/golden`, where
`fields.txt` lists all that is kept.  A version that no release has written may still change:
`python -m tests.golden_state` writes its golden state anew.
"""

from __future__ import annotations

from typing import Final

from appliance.errors import NewerState

VERSION: Final = 2
FIRST: Final = 1  # assumed for a program that does not say what it reads


def check(version: int, name: str, what: str = "") -> None:
    """Raises NewerState for the file of a later program; `what` is the kind of file."""
    if version > VERSION:
        raise NewerState(
            f"{name}: was written by a newer appliance: {what or 'state'} version {version} is"
            f" newer than this program's, which is {VERSION}; nothing of it was touched"
        )
