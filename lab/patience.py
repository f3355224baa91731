"""Deadlines that hold on a busy machine: they count the time that somebody was given.

A box made of QEMU is given CPU time, and time in which it sleeps because it has nothing to do.  The
time in which it could run, while other programs have the processors, is not its own.  On a machine
with nothing else to do, its own time is what a stopwatch shows.

Whoever a sleeping box waits for (a daemon, say) has to stand in line too.  So a second in which it
sleeps counts as the part of a processor that the kernel gives a program just then: two programs on
two processors have a whole one each, eight have a quarter.  The same share is the measure for
daemons and containers, which are too many processes to look at one by one.

The kernel says how much CPU time a process got.  How long it stood in line is estimated, by looking
twice a second whether one of its threads could run; not every kernel counts that.
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

LOOK_S: Final = (
    0.5  # between two looks: some hundred in a minute are a fair sample, and cost little
)
# The guard against a program that is never given anything: no test or demo waits for an hour.
WALL_S: Final = 3600.0
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class TooLate(ApplianceError):
    """Somebody had all the time that was allowed; `str()` says for what, and how much it was."""


@attrs.frozen
class Spent:
    """How much time somebody had."""

    cpu_s: float = 0.0
    asleep_s: float = 0.0  # as this machine's load makes it count
    wall_s: float = 0.0

    @property
    def own_s(self) -> float:
        """What deadlines are about."""
        return self.cpu_s + self.asleep_s

    def since(self, earlier: Spent) -> Spent:
        """What came after `earlier`."""
        return Spent(
            self.cpu_s - earlier.cpu_s,
            self.asleep_s - earlier.asleep_s,
            self.wall_s - earlier.wall_s,
        )


@attrs.frozen
class Look:
    """What the kernel says at one moment."""

    cpu_s: float = 0.0  # since the process exists
    wants_cpu: bool = False  # it runs, or stands in line
    share: float = 1.0  # of a processor, for each program that wants one


def after(spent: Spent, before: Look, now: Look, wall_s: float) -> Spent:
    """`spent`, and the time between two looks."""
    cpu_s = max(0.0, now.cpu_s - before.cpu_s)
    asleep_s = 0.0 if now.wants_cpu else max(0.0, wall_s - cpu_s) * now.share
    return Spent(spent.cpu_s + cpu_s, spent.asleep_s + asleep_s, spent.wall_s + wall_s)


@attrs.define(eq=False)
class Clock:
    """The time that `whose` had, and the limits that are set to it."""

    whose: str
    spent: Spent = attrs.field(factory=Spent, init=False)
    _limits: list[_Limit] = attrs.field(factory=list, init=False)

    async def run(
        self, look: Callable[[], Look], goes_on: Callable[[], bool] = lambda: True
    ) -> None:
        """Counts as long as `goes_on()`.  No limit is ever reached while nobody counts."""
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
        """Ends the block with TooLate when `allowed_s` have been spent in it; `what` it is for."""
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
    """One for daemons and other programs; it runs with `look_at_machine`."""
    return Clock("the time that this machine has for one program")


def look_at_machine(proc: Path = Path("/proc")) -> Look:
    """For a program that is looked at from far away: it may want the CPU or not."""
    return Look(share=share((proc / "stat").read_text()))


def look_at(pid: int | None, proc: Path = Path("/proc")) -> Look:
    """For one process with all its threads; one that is not there (any more) sleeps."""
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
    """Of a processor, what each program has that wants one, by /proc/stat.

    Those that wait for a disk count too, as they do in the load average; we who ask do not.
    """
    words = dict(line.split(" ", 1) for line in stat.splitlines())
    processors = sum(name.startswith("cpu") and name != "cpu" for name in words)
    load = int(words["procs_running"]) - 1 + int(words["procs_blocked"])
    return min(1.0, processors / max(1, load))


def cpu_time(stat: str) -> float:
    """Of all threads of a process, in seconds, by /proc/PID/stat."""
    user, system = _fields(stat)[11:13]
    return (int(user) + int(system)) / _TICKS_PER_S


def state(stat: str) -> str:
    """Of one thread: R when it runs or could run."""
    return _fields(stat)[0]


def _fields(stat: str) -> list[str]:
    # The name before them is in parentheses, and may hold blanks and parentheses itself.
    return stat.rpartition(")")[2].split()
