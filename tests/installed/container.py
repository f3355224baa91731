"""A whole server in a container: Debian's tree booted by its own systemd, on a lab's wire.

It lives in the namespace of a lab (lab/namespace.py): however the test ends, the kernel
takes the container, its processes and its mounts along.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from lab import patience
from lab.namespace import Namespace, Overlay, namespace
from lab.patience import Clock
from tests.scenery import TAIL_LINES, add_tail

# Of the time that the machine has for one program.
BOOT_S = 60.0
COMMAND_S = 240.0  # an install that unpacks all of its packages takes half a minute
UP = ("running", "degraded")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@attrs.frozen
class Said:
    """What a command in the container left."""

    status: int
    out: str
    seconds: float


@attrs.frozen
class Container:
    """A running one.  `leader` is its systemd, as this machine counts processes."""

    inside: Namespace
    leader: int
    console: Path
    clock: Clock

    def path(self, path: str) -> Path:
        """Where to find from outside what is at `path` in it."""
        return Path(f"/proc/{self.leader}/root") / path.lstrip("/")

    async def run(
        self, *command: str, user: str = "root", check: bool = True, allowed_s: float = COMMAND_S
    ) -> Said:
        """Runs a command in it, as a shell there would; its output and errors together."""
        who = ["runuser", "-u", user, "--"] if user != "root" else []
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
        enter = ["nsenter", f"--target={self.leader}", *spaces, "--root"]
        environ = [
            "env",
            "-i",
            "--chdir=/",
            f"PATH={PATH}",
            "HOME=/root",
            "TERM=dumb",
            "LC_ALL=C.UTF-8",
        ]
        began = trio.current_time()
        said = " ".join(command).partition("\n")[0]
        with self.clock.limit(f"`{said}`", allowed_s):
            done = await trio.run_process(
                [*enter, *environ, *who, *command],
                capture_stdout=True, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
        out = done.stdout.decode("utf-8", "replace")
        assert not check or done.returncode == 0, f"`{said}`: status {done.returncode}\n{out}"
        return Said(done.returncode, out, trio.current_time() - began)

    async def json(self, *command: str) -> Any:
        """What a command says for programs."""
        return json.loads((await self.run(*command, "--json")).out)

    def write(self, path: str, text: str) -> None:
        """Puts a file there."""
        self.path(path).write_text(text)


@asynccontextmanager
async def container(
    tree: Path, keep: Path, taps: int, images: Path, shown: Mapping[Path, str]
) -> AsyncIterator[Container]:
    """A server made of `tree`, whose changes are kept in memory, with `images` as its /srv/os.

    `shown`: folders of this machine that it sees read-only, and where.  A failure in the block
    shows how its journal ends.
    """
    overlay = Overlay(images, keep / "images")
    clock = patience.of_the_machine()
    async with namespace(taps, [overlay]) as inside, trio.open_nursery() as nursery:
        nursery.start_soon(clock.run, patience.look_at_machine)
        binds = [f"--bind-ro={path}:{place}" for path, place in shown.items()]
        console = keep / "console.log"
        with console.open("wb") as log:
            process = await inside.start(
                [
                    *("systemd-nspawn", "--quiet", f"--directory={tree}", "--volatile=overlay"),
                    *("--boot", "--register=no", "--keep-unit", "--console=pipe"),
                    *("--machine=server", "--capability=CAP_NET_ADMIN", "--link-journal=no"),
                    "--timezone=off",  # a file of its own there, which tzdata replaces
                    "--system-call-filter=open_by_handle_at",  # what an NFS server lives on
                    *binds,
                    f"--bind={overlay.merged}:/srv/os",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        with clock.limit("the container's systemd to be up", BOOT_S):
            made = Container(inside, await _leader(process.pid), console, clock)
            while await _state(made) not in UP:  # noqa: ASYNC110 - it's another kernel's process
                await trio.sleep(0.2)
        try:
            yield made
        except BaseException as error:
            add_tail(error, "the server's journal", await _journal(made))
            raise
        nursery.cancel_scope.cancel()


async def _journal(made: Container) -> list[str]:
    with trio.CancelScope(shield=True):  # bounded by what one command may take
        words = ("journalctl", "-q", "-n", str(TAIL_LINES), "-o", "short")
        return (await made.run(*words, check=False)).out.splitlines()


async def _state(made: Container) -> str:
    return (await made.run("systemctl", "is-system-running", check=False)).out.strip()


async def _leader(nsenter: int) -> int:
    """The container's systemd: the only child of nspawn, which is nsenter's."""
    while not (found := _systemd_below(nsenter)):  # noqa: ASYNC110 - as above
        await trio.sleep(0.1)
    return found


def _systemd_below(nsenter: int) -> int | None:
    inits = (init for nspawn in _children(nsenter) for init in _children(nspawn))
    return next((pid for pid in inits if _name(pid) == "systemd"), None)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _children(pid: int) -> list[int]:
    try:
        return [int(w) for w in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
