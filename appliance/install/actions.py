"""Pure: no clock, no socket, no await.

The single changes of an installation, as data.  `str()` describes one; `execute.py` makes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs


@attrs.frozen
class Owner:
    """User and group of a file, by name: an earlier step of the plan may create them."""

    user: str = "root"
    group: str = "root"

    def __str__(self) -> str:
        return f"{self.user}:{self.group}"


ROOT: Final = Owner()


@attrs.frozen
class _Owned:
    """A path, with the mode and the owner that it gets."""

    path: Path
    mode: int = 0o755
    owner: Owner = ROOT

    def __str__(self) -> str:
        return f"make {self._name()} ({self.mode:04o} {self.owner})"

    def _name(self) -> str:
        return str(self.path)


@attrs.frozen
class Touch(_Owned):
    """A file that exists, whatever its content; made empty if it is missing."""


@attrs.frozen
class Folder(_Owned):
    """A folder that exists, with this owner and mode; its content is left alone."""

    def _name(self) -> str:
        return f"{self.path}/"


@attrs.frozen
class GiveBack(_Owned):
    """The owner and mode that a folder had before any install; a missing folder is not made."""

    def __str__(self) -> str:
        return f"give back {self.path}/ ({self.mode:04o} {self.owner})"


@attrs.frozen
class Write:
    """A file with this text."""

    path: Path
    text: str
    mode: int = 0o644
    owner: Owner = ROOT

    def __str__(self) -> str:
        return f"write {self.path} ({self.mode:04o} {self.owner})"


@attrs.frozen
class Link:
    """A symlink."""

    path: Path
    target: str

    def __str__(self) -> str:
        return f"link {self.path} -> {self.target}"


@attrs.frozen
class Unpack:
    """A built program: copies folder `source` to `target`, and its `launcher` as `program`."""

    source: Path
    launcher: str
    target: Path
    program: str

    def __str__(self) -> str:
        return f"unpack the program to {self.target}/"


@attrs.frozen
class Remove:
    """Removes a file, a link, or a folder with everything in it."""

    path: Path

    def __str__(self) -> str:
        return f"remove {self.path}"


@attrs.frozen
class RemoveEmpty:
    """Removes a folder if it is empty; what others put there stays."""

    path: Path

    def __str__(self) -> str:
        return f"remove {self.path}/ if it is empty"


@attrs.frozen
class Install:
    """Installs Debian's packages, and keeps their daemons from starting."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"install packages: {' '.join(self.names)}"


@attrs.frozen
class Run:
    """Runs a program, and waits until it ends."""

    command: tuple[str, ...]

    def __str__(self) -> str:
        return "run " + " ".join(self.command)


@attrs.frozen
class Settle:
    """Checks that units run, for a while: systemd would restart one that ends at once."""

    units: tuple[str, ...]

    def __str__(self) -> str:
        return f"see that these run: {' '.join(self.units)}"


@attrs.frozen
class StateBack:
    """Replaces the state by its copy, if the state's version is above `reads`."""

    state: Path
    copy: Path
    aside: Path  # where the replaced state is kept
    reads: int  # the latest version of the state that this program reads

    def __str__(self) -> str:
        return (
            f"put {self.copy} in the place of {self.state}, where the version before cannot read"
            f" that any more, and keep it as {self.aside}"
        )

    @property
    def older(self) -> Path:
        """Where the state is kept that an earlier StateBack has put aside."""
        return self.aside.with_name(self.aside.name + "-older")

    @property
    def scratch(self) -> tuple[Path, Path]:
        """Two temporary paths: the unfinished copy, and the replaced state until it is put aside.

        The second exists only between `swap` and `keep`: it tells an undo that the state was
        moved, and that this very run moved it.
        """
        name = self.state.name
        return self.state.with_name(f"{name}-back"), self.state.with_name(f"{name}-leaving")

    @property
    def tidy(self) -> str:
        """A shell command that moves what an interrupted run has left to where it belongs."""
        state, (_, leaving) = self.state, self.scratch
        back = f"if [ -e {leaving} ] && [ ! -e {state} ]; then mv -T {leaving} {state}; fi"
        return f"{back} && if [ -e {leaving} ]; then {self.keep}; fi"

    @property
    def swap(self) -> str:
        """A shell command that swaps the state for its copy, once all of the copy is beside it."""
        state, (new, leaving) = self.state, self.scratch
        return (
            f"rm -rf {new} && cp -a {self.copy} {new} && chmod 711 {new}"
            f" && mv -T {state} {leaving} && mv -T {new} {state}"
        )

    @property
    def unswap(self) -> str:
        """A shell command that undoes `swap`; the copy in the state's place is removed last."""
        state, (new, leaving) = self.state, self.scratch
        away = f"if [ -e {state} ]; then mv -T {state} {new}; fi"
        back = f"{away} && mv -T {leaving} {state} && rm -rf {new}"
        return f"rm -rf {new} && if [ -e {leaving} ]; then {back}; fi"

    @property
    def keep(self) -> str:
        """A shell command that puts the replaced state aside; keeps the one put aside before."""
        aside, older, (_, leaving) = self.aside, self.older, self.scratch
        room = f"if [ -e {aside} ]; then rm -rf {older} && mv -T {aside} {older}; fi"
        return f"{room} && mv -T {leaving} {aside}"

    @property
    def unkeep(self) -> str:
        """A shell command that undoes `keep`; does nothing if `leaving` has not moved yet."""
        _, leaving = self.scratch
        return f"[ -e {leaving} ] || mv -T {self.aside} {leaving}"


@attrs.frozen
class All:
    """Several actions, in order."""

    actions: tuple[Action, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.actions))


Action = (
    Write
    | Touch
    | Folder
    | GiveBack
    | Link
    | Unpack
    | Remove
    | RemoveEmpty
    | Install
    | Run
    | Settle
    | StateBack
    | All
)


@attrs.frozen
class Step:
    """One change, the reason for it, and the action that undoes it.

    `stays` names what stays for good, where `undo` is None.
    """

    why: str
    do: Action
    undo: Action | None
    stays: str = ""
