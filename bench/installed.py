"""An installed server, as `make binary` and `appliance install` make it: size, times, memory.

In a container with a real systemd (tests/installed): there is no peer that does the same, so each
row is beside its aim.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import attrs
import trio

from bench.table import Row
from release import binary
from tests.installed import tree
from tests.installed.container import Container, container

RUNS: Final = 5
COMMANDS: Final = 30  # of a client each
IDLE_S: Final = 5.0
SIZE_MIB: Final = 40
INSTALL_S: Final = 20.0
START_S: Final = 2.0
RESIDENT_MB: Final = 100
CLIENT_MS: Final = 150
# The shell's own clock, in seconds, one line for each run.
_TIMED: Final = (
    f"TIMEFORMAT=%3R; for _ in $(seq {COMMANDS}); do time appliance {{}} >/dev/null; done"
)


@attrs.define
class Measured:
    """Seconds of each run, and bytes."""

    installs: list[float] = attrs.field(factory=list)
    starts: list[float] = attrs.field(factory=list)
    resident: list[int] = attrs.field(factory=list)
    clients: dict[str, list[float]] = attrs.field(factory=dict)


def rows() -> list[Row]:
    """Builds the program, and installs it again and again."""
    with tempfile.TemporaryDirectory(prefix="appliance-bench-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        program = folder / "builds/appliance"
        subprocess.run(
            ["make", "-s", "-C", binary.REPOSITORY, "binary", f"TARGET={program}", "NAME=bench"],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        size = program.stat().st_size / 2**20
        found = trio.run(_measure, program, folder)
    resident = statistics.median(found.resident) / 2**20
    made = [
        _row("the program, one file", size, SIZE_MIB, "{:.1f} MiB"),
        _row(
            "install, packages present, with doctor", _median(found.installs), INSTALL_S, "{:.1f} s"
        ),
        _row(
            "systemctl start until all of it is ready", _median(found.starts), START_S, "{:.2f} s"
        ),
        _row("resident memory of an idle server", resident, RESIDENT_MB, "{:.0f} MB"),
    ]
    for command, seconds in found.clients.items():
        milliseconds = [1000 * each for each in seconds]
        made.append(_row(f"`appliance {command}`", _median(milliseconds), CLIENT_MS, "{:.0f} ms"))
    return made


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _row(what: str, value: float, aim: float, form: str) -> Row:
    ratio = f"{value / aim:.2f} of the aim"
    return Row(what, form.format(value), "", ratio, f"under {aim:g} {form.split()[1]}", value < aim)


async def _measure(program: Path, folder: Path) -> Measured:
    found = Measured()
    server = await trio.to_thread.run_sync(tree.ensure)
    images = folder / "images"
    images.mkdir()
    async with container(server, folder, 0, images, {program.parent: "/mnt"}) as on:
        await on.run("cp", "/mnt/appliance", "/root/")
        await _install(on)  # brings the packages
        for _ in range(RUNS):
            await on.run("appliance", "uninstall", "--purge")
            found.installs.append(await _install(on))
        for _ in range(RUNS):
            await on.run("systemctl", "stop", "appliance.target")
            found.starts.append((await on.run("systemctl", "start", "appliance.target")).seconds)
            await trio.sleep(IDLE_S)
            found.resident.append(await _resident(on))
        for command in ("--version", "--help", "jobs", "status"):
            said = await on.run("bash", "-c", _TIMED.format(command))
            found.clients[command] = [float(line) for line in said.out.split()]
    return found


async def _install(on: Container) -> float:
    return (await on.run("/root/appliance", "install", "--interface", "lab0")).seconds


async def _resident(on: Container) -> int:
    """Bytes, of the server's one process."""
    pid = (await on.run("systemctl", "show", "-P", "MainPID", "appliance.service")).out.strip()
    lines = on.path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) * 1024
