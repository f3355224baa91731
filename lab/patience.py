"""Deadlines that hold on a busy machine: they count only the time that a program was given.

A QEMU box's own time is its CPU time plus the time that it sleeps because it has nothing to do.
Time in which it is runnable while other programs use the processors does not count.  On an
otherwise idle machine, its own time equals wall time.

A program that a sleeping box waits for (a daemon, say) has to wait for a processor, too.  So a
second of sleep counts only as the share of a processor that each program gets at that moment: two
programs on two processors get one each, eight get a quarter.  The same share is the measure for
daemons and containers, which have too many processes to watch one by one.

The kernel reports a process's CPU time.  How long the process was runnable but waiting is
estimated, by checking twice a second whether one of its threads is runnable; not every kernel
reports that time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from appliance.errors import ApplianceError

# Between two looks: some hundred in a minute are a fair sample, and cost little.
LOOK_S: Final = 0.5
# Guards against a program that never gets any time: no test or demo waits for an hour.
WALL_S: Final = 3600.0
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class TooLate(ApplianceError):
    """A program used up the time that it was allowed; `str()` says for what, and how much."""


@attrs.frozen
class Spent:
    """How much time a program had."""

    cpu_s: float = 0.0
    asleep_s: float = 0.0  # weighted by this machine's load
    wall_s: float = 0.0

    @property
    def own_s(self) -> float:
        """The time that counts for deadlines."""
        return self.cpu_s + self.asleep_s

    def since(self, earlier: Spent) -> Spent:
        """Returns the time spent since `earlier`."""
        return Spent(
            self.cpu_s - earlier.cpu_s,
            self.asleep_s - earlier.asleep_s,
            self.wall_s - earlier.wall_s,
        )


@attrs.frozen
class Look:
    """The kernel's numbers at one moment."""

    cpu_s: float = 0.0  # since the process started
    wants_cpu: bool = False  # whether it runs or is runnable
    share: float = 1.0  # of a processor, for each runnable program


def after(spent: Spent, before: Look, now: Look, wall_s: float) -> Spent:
    """Returns `spent` plus the time between two looks."""
    cpu_s = max(0.0, now.cpu_s - before.cpu_s)
    asleep_s = 0.0 if now.wants_cpu else max(0.0, wall_s - cpu_s) * now.share
    return Spent(spent.cpu_s + cpu_s, spent.asleep_s + asleep_s, spent.wall_s + wall_s)


@attrs.define(eq=False)
class Clock:
    """Counts the time that a program had, and enforces limits on it."""

    whose: str
    spent: Spent = attrs.field(factory=Spent, init=False)
    _limits: list[_Limit] = attrs.field(factory=list, init=False)

    async def run(
        self, look: Callable[[], Look], goes_on: Callable[[], bool] = lambda: True
    ) -> None:
        """Counts as long as `goes_on()`.  Limits take effect only while this runs."""
        before, at = look(), trio.current_time()
        while goes_on():
            await trio.sleep(LOOK_S)
            now, then = look(), trio.current_time()
            self.spent = after(self.spent, before, now, then - at)
            before, at = now, then
            for limit in self._limits:
                limit.enforce(self.spent)

    @contextmanager
    def limit(self, what: str, allowed_s: float) -> Iterator[None]:
        """Raises TooLate, which names `what`, when `allowed_s` have been spent in the block."""
        with trio.CancelScope() as scope:
            limit = _Limit(scope, self.spent, allowed_s)
            self._limits.append(limit)
            try:
                yield
            finally:
                self._limits.remove(limit)
        if scope.cancelled_caught:
            raise TooLate(self._sentence(what, self.spent.since(limit.began), allowed_s))

    def _sentence(self, what: str, had: Spent, allowed_s: float) -> str:
        said = f"waited for {what}: {had.own_s:.0f} s of {self.whose}, {allowed_s:.0f} allowed"
        if had.cpu_s:
            said += f" ({had.cpu_s:.0f} s of CPU time, {had.asleep_s:.0f} s asleep)"
        return f"{said}; {had.wall_s:.0f} s of wall"


@attrs.frozen(eq=False)
class _Limit:
    scope: trio.CancelScope
    began: Spent
    allowed_s: float

    def enforce(self, spent: Spent) -> None:
        had = spent.since(self.began)
        if had.own_s > self.allowed_s or had.wall_s > WALL_S:
            self.scope.cancel()


def of_the_machine() -> Clock:
    """Makes a Clock for daemons and other programs; run it with `look_at_machine`."""
    return Clock("the time that this machine has for one program")


def look_at_machine(proc: Path = Path("/proc")) -> Look:
    """Looks at the machine only, for programs whose own state is not watched."""
    return Look(share=share((proc / "stat").read_text()))


def look_at(pid: int | None, proc: Path = Path("/proc")) -> Look:
    """Looks at one process with all its threads; a missing process counts as asleep."""
    machine = look_at_machine(proc)
    if pid is None:
        return machine
    try:
        cpu_s = cpu_time((proc / f"{pid}/stat").read_text())
        states = [state(task.read_text()) for task in (proc / f"{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):
        return machine
    return attrs.evolve(machine, cpu_s=cpu_s, wants_cpu="R" in states)


def share(stat: str) -> float:
    """Returns each runnable program's share of a processor, from /proc/stat.

    Programs that wait for a disk count too, as in the load average; this process does not.
    """
    words = dict(line.split(" ", 1) for line in stat.splitlines())
    processors = sum(name.startswith("cpu") and name != "cpu" for name in words)
    load = int(words["procs_running"]) - 1 + int(words["procs_blocked"])
    return min(1.0, processors / max(1, load))


def cpu_time(stat: str) -> float:
    """Returns the CPU time of all threads of a process, in seconds, from /proc/PID/stat."""
    user, system = _fields(stat)[11:13]
    return (int(user) + int(system)) / _TICKS_PER_S


def state(stat: str) -> str:
    """Returns the state of one thread: R if it is running or runnable."""
    return _fields(stat)[0]


def _fields(stat: str) -> list[str]:
    # The name before the fields is in parentheses, and may hold blanks and parentheses itself.
    return stat.rpartition(")")[2].split()
