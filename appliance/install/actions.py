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
    def command(self) -> str:
        """For a shell: the state is where it was until all of its copy lies beside it."""
        state, aside, new = self.state, self.aside, self._new
        return (
            f"rm -rf {new} {aside} && cp -a {self.copy} {new} && chmod 711 {new}"
            f" && mv -T {state} {aside} && mv -T {new} {state}"
        )

    @property
    def undo(self) -> str:
        """For a shell: nothing is removed where the command did not come so far as to move it."""
        state, aside = self.state, self.aside
        back = f"rm -rf {state} && mv -T {aside} {state}"
        return f"rm -rf {self._new}; [ ! -e {aside} ] || {{ {back}; }}"

    @property
    def _new(self) -> Path:
        return self.state.with_name(self.state.name + "-back")


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
