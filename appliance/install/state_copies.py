"""Pure: no clock, no socket, no await.

What installs and rollbacks keep of the state, beside it: its copy from before the last upgrade,
and what such a copy has replaced.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from appliance.install.actions import StateBack

# Taken away again once the new version has read the state.  systemd starts one that failed again,
# by then with a state that it may have changed: the file's end says that the copy is made.
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
    """What stands in `passing` for the time of an upgrade."""
    copy, new, old = copies_of(state)
    return _COPY.format(state=state, copy=copy, new=new, old=old, passing=passing)


def copy_of(state: Path) -> Path:
    """Where the state as the version before left it is kept."""
    return state.with_name(state.name + "-before")


def copies_of(state: Path) -> list[Path]:
    """That place, that of the copy in the making, and that of the one which it replaces."""
    copy = copy_of(state)
    return [copy, copy.with_name(copy.name + ".new"), copy.with_name(copy.name + ".old")]


def after_of(state: Path) -> Path:
    """Where the state is kept that this copy has replaced."""
    return state.with_name(state.name + "-after")


def all_of(state: Path) -> list[Path]:
    """The state, and all that installs and rollbacks make beside it."""
    swap = back(state, 0)
    return [state, *copies_of(state), swap.aside, swap.older, *swap.scratch]


def back(state: Path, reads: int) -> StateBack:
    """Back to that copy, for a program that reads the state up to this version."""
    return StateBack(state, copy_of(state), after_of(state), reads)
