"""Pure: no clock, no socket, no await.

What an installation does, one small thing each: data that says itself.  `execute.py` does it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs


@attrs.frozen
class Owner:
    """Who has a file; names, since the user may be made by an earlier step."""

    user: str = "root"
    group: str = "root"

    def __str__(self) -> str:
        return f"{self.user}:{self.group}"


ROOT: Final = Owner()


@attrs.frozen
class _Owned:
    """What lies at `path`, and whose it is."""

    path: Path
    mode: int = 0o755
    owner: Owner = ROOT

    def __str__(self) -> str:
        return f"make {self._name()} ({self.mode:04o} {self.owner})"

    def _name(self) -> str:
        return str(self.path)


@attrs.frozen
class Touch(_Owned):
    """A file that is there, whatever stands in it."""


@attrs.frozen
class Folder(_Owned):
    """A folder that is there, and whose it is; not of what is in it."""

    def _name(self) -> str:
        return f"{self.path}/"


@attrs.frozen
class GiveBack(_Owned):
    """A folder that was there before any install, as it was then; none is made."""

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
    """A built program in its form as a folder: what `source` holds, with `launcher` to start it."""

    source: Path
    launcher: str
    target: Path
    program: str

    def __str__(self) -> str:
        return f"unpack the program to {self.target}/"


@attrs.frozen
class Remove:
    """A file, a link or a folder with all in it, gone."""

    path: Path

    def __str__(self) -> str:
        return f"remove {self.path}"


@attrs.frozen
class RemoveEmpty:
    """A folder, gone if nothing is in it; what others put there stays."""

    path: Path

    def __str__(self) -> str:
        return f"remove {self.path}/ if it is empty"


@attrs.frozen
class Install:
    """Debian's packages, without the daemons that they start by themselves."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"install packages: {' '.join(self.names)}"


@attrs.frozen
class Run:
    """A program, to its end."""

    command: tuple[str, ...]

    def __str__(self) -> str:
        return "run " + " ".join(self.command)


@attrs.frozen
class Settle:
    """Units that run, and still do a moment later: one that ends at once is started again."""

    units: tuple[str, ...]

    def __str__(self) -> str:
        return f"see that these run: {' '.join(self.units)}"


@attrs.frozen
class StateBack:
    """The copy of the state takes its place, where a program has to go on that reads less."""

    state: Path
    copy: Path
    aside: Path  # where that of now is kept
    reads: int  # the latest version of the state that this program reads

    def __str__(self) -> str:
        return (
            f"put {self.copy} in the place of {self.state}, where the version before cannot read"
            f" that any more, and keep it as {self.aside}"
        )

    @property
    def older(self) -> Path:
        """Where that is kept which an earlier one has put aside."""
        return self.aside.with_name(self.aside.name + "-older")

    @property
    def scratch(self) -> tuple[Path, Path]:
        """The copy in the making, and the state of now until it is put aside; gone at the end.

        The second is there only between `swap` and `keep`: by it, one that goes back knows that
        the state was moved, and by this very run.
        """
        name = self.state.name
        return self.state.with_name(f"{name}-back"), self.state.with_name(f"{name}-leaving")

    @property
    def tidy(self) -> str:
        """For a shell: what one that was cut short has left, put where it belongs."""
        state, (_, leaving) = self.state, self.scratch
        back = f"if [ -e {leaving} ] && [ ! -e {state} ]; then mv -T {leaving} {state}; fi"
        return f"{back} && if [ -e {leaving} ]; then {self.keep}; fi"

    @property
    def swap(self) -> str:
        """For a shell: the state is where it was until all of its copy lies beside it."""
        state, (new, leaving) = self.state, self.scratch
        return (
            f"rm -rf {new} && cp -a {self.copy} {new} && chmod 711 {new}"
            f" && mv -T {state} {leaving} && mv -T {new} {state}"
        )

    @property
    def unswap(self) -> str:
        """For a shell: nothing is removed before the state of now is in its place again."""
        state, (new, leaving) = self.state, self.scratch
        away = f"if [ -e {state} ]; then mv -T {state} {new}; fi"
        back = f"{away} && mv -T {leaving} {state} && rm -rf {new}"
        return f"rm -rf {new} && if [ -e {leaving} ]; then {back}; fi"

    @property
    def keep(self) -> str:
        """For a shell: the state of now is put aside; that of an earlier one is kept as well."""
        aside, older, (_, leaving) = self.aside, self.older, self.scratch
        room = f"if [ -e {aside} ]; then rm -rf {older} && mv -T {aside} {older}; fi"
        return f"{room} && mv -T {leaving} {aside}"

    @property
    def unkeep(self) -> str:
        """For a shell: `keep` finds `leaving`, so that it is done where that is gone."""
        _, leaving = self.scratch
        return f"[ -e {leaving} ] || mv -T {self.aside} {leaving}"


@attrs.frozen
class All:
    """Several, in order."""

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
    """One change, why it is made, and what takes it back.

    Where that is None and the change stays for good, `stays` says what stays.
    """

    why: str
    do: Action
    undo: Action | None
    stays: str = ""
