"""Pure: no clock, no socket, no await.

What installs and rollbacks keep beside the state: its copy from before the last upgrade, and the
state that such a copy has replaced.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from appliance.install.actions import StateBack

# Removed once the new version has read the state.  systemd restarts a version that failed, which
# may have changed the state by then: file `passing` is removed when the copy is made, so that a
# restart makes no other.
_COPY: Final = """\
# For the time of one upgrade: the state as the version before left it, for `install --rollback`.
[Service]
ExecStartPre=+/bin/sh -c 'if [ -e {passing} ]; then \
    {{ rm -rf {new} {old} && cp -a --reflink=auto {state} {new} && chmod 700 {new}; }} \
    || {{ rm -rf {new}; exit 1; }}; \
    if [ -e {copy} ]; then mv -T {copy} {old}; fi && mv -T {new} {copy} \
    && rm -rf {old} && rm -f {passing}; fi'
"""


def drop_in(state: Path, passing: Path) -> str:
    """Returns the text of drop-in `passing`, which exists during an upgrade."""
    copy, new, old = copies_of(state)
    return _COPY.format(state=state, copy=copy, new=new, old=old, passing=passing)


def copy_of(state: Path) -> Path:
    """Returns the path of the state's copy, as the version before left the state."""
    return state.with_name(state.name + "-before")


def copies_of(state: Path) -> list[Path]:
    """Returns the paths of the copy, of an unfinished new copy, and of the copy being replaced."""
    copy = copy_of(state)
    return [copy, copy.with_name(copy.name + ".new"), copy.with_name(copy.name + ".old")]


def after_of(state: Path) -> Path:
    """Returns the path of the state that the copy has replaced."""
    return state.with_name(state.name + "-after")


def all_of(state: Path) -> list[Path]:
    """Returns the paths of the state and of all that installs and rollbacks make beside it."""
    swap = back(state, 0)
    return [state, *copies_of(state), swap.aside, swap.older, *swap.scratch]


def back(state: Path, reads: int) -> StateBack:
    """Returns the action that restores the copy, for a program that reads up to version `reads`."""
    return StateBack(state, copy_of(state), after_of(state), reads)
