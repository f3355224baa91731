"""Prints the stages of `make demo` as they happen, and what the demo waits for when it is quiet."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import click
import trio

from lab import patience
from lab.patience import Clock, Spent, TooLate

BOX: Final = "box-1"
QUIET_S: Final = 10.0  # of wall time without a line; then one says what the demo waits for
STAGE_S: Final = 300.0  # of the box's own time: ten times the longest stage without KVM
TAIL_LINES: Final = 15  # of the serial line, when a stage does not come

# Who prints what when a stage begins: speaker, pattern, stage, text.  The first match counts, once.
_STAGES: Final[tuple[tuple[str, str, str, str], ...]] = (
    (BOX, r"Start PXE over IPv4", "firmware", "asks the network what to boot"),
    ("dnsmasq", r"DHCPACK\(\S+\) (\S+)", "DHCP", r"the firmware has \1"),
    ("dnsmasq", r"sent \S+?tftpboot/(ipxe/\S+) to", "TFTP", r"\1"),
    (BOX, r"^iPXE (\S+) -- Open Source", "iPXE", r"\1 runs, and asks DHCP again"),
    ("dnsmasq", r"sent \S+/(boot\.ipxe) to", "TFTP", r"\1"),
    ("server", r'event="box parked"', "parked", "waits for work"),
    (BOX, r"(No job now)", "re-chain", r"\1: asks again"),
    (BOX, r"Linux version (\S+)", "kernel", r"Linux \1"),
    (BOX, r"appliance: root: (\S+) \((\w+),", "root", r"\1 by \2, under an overlay in memory"),
    (BOX, r"Welcome to (Debian GNU/Linux \d+[^!]{0,20})!", "userland", r"\1"),
)


@attrs.frozen
class Wait:
    """The wait from one stage to the next."""

    since: str  # the stage that began
    awaited: str
    usual_s: float  # of the box's own time, emulated on two otherwise idle processors


# In the order of a boot.
WAITS: Final = (
    Wait("power on", "the firmware to ask the network", 8),
    Wait("DHCP", "the firmware to load iPXE", 1),
    Wait("firmware", "the firmware to load iPXE", 1),
    Wait("TFTP", "iPXE to run", 1),
    Wait("iPXE", "iPXE to ask the server", 18),
    Wait("parked", "its first wait for a job to end", 5),
    Wait("re-chain", "a job to be submitted", 1),
    Wait("job submit", "the job to be offered", 1),
    Wait("job offered", "the box to load the job's files", 1),
    Wait("job boot", "the kernel to run", 5),
    Wait("kernel", "the root filesystem", 12),
    Wait("root", "userland", 5),
    Wait("userland", "the job to run", 27),
    Wait("job running", "the job's script to end", 4),
    Wait("job post_run", "the results to arrive", 7),
    Wait("job finish", "the box to reboot", 15),
)
_PLACES: Final = {wait.since: place for place, wait in enumerate(WAITS)}


@attrs.define
class Story:
    """Prints each stage once."""

    now: Callable[[], float] = time.monotonic
    clock: Clock | None = None  # the box's, once it exists
    serial: Sequence[str] = ()  # lines of the box's serial line
    usual: bool = True  # whether the box is emulated, so that the usual times apply
    began: float = attrs.field(init=False)
    _told: set[str] = attrs.field(factory=set, init=False)
    _place: int = attrs.field(default=0, init=False)
    _since: Spent = attrs.field(factory=Spent, init=False)
    _spoke: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.began = self._spoke = self.now()

    def tell(self, what: str, detail: str, colour: str | None = None, stage: str = "") -> None:
        """Prints a line: time, `what`, `detail`.  `stage`: the stage in WAITS if not `what`."""
        self._spoke = self.now()
        seconds = int(self._spoke - self.began)
        styled = click.style(f"{what:<10}", fg=colour, bold=colour is not None)
        click.echo(f"  {seconds // 60}:{seconds % 60:02}  {styled}  {detail}")
        # Speakers may be heard in the wrong order, so the place never goes back.
        place = _PLACES.get(stage or what, 0)
        if place > self._place:
            self._place, self._since = place, self._spent()

    def watch(self, who: str, line: str) -> None:
        """Looks for a stage in a line of the speaker `who`."""
        for speaker, pattern, what, detail in _STAGES:
            if speaker == who and pattern not in self._told and (found := re.search(pattern, line)):
                self._told.add(pattern)
                self.tell(what, found.expand(detail))
                return

    async def tell_of_waiting(self) -> None:
        """Calls look() once a second until cancelled; raises TooLate if a stage does not begin."""
        while True:
            await trio.sleep(1)
            self.look()

    def look(self) -> None:
        """Prints what the demo waits for if nothing was printed for QUIET_S.

        Raises TooLate if the stage has lasted for STAGE_S of the box's own time.
        """
        wait, had = WAITS[self._place], self._spent().since(self._since)
        if had.own_s > STAGE_S or had.wall_s > patience.WALL_S:
            raise TooLate(self._too_late(wait, had))
        if self.now() - self._spoke >= QUIET_S:
            usually = f", usually {wait.usual_s:.0f}" if self.usual else ""
            own = f"{had.own_s:.0f} s of its own time since {wait.since!r}"
            self.tell("waiting", f"for {wait.awaited}: {own}{usually}")

    def _too_late(self, wait: Wait, had: Spent) -> str:
        tail = [f"    {line}" for line in self.serial[-TAIL_LINES:]]
        said = (
            f"waited for {wait.awaited}: {had.own_s:.0f} s of {BOX}'s own time since {wait.since!r}"
            f" ({had.cpu_s:.0f} s of CPU time, {had.asleep_s:.0f} s asleep), {STAGE_S:.0f} allowed;"
            f" {had.wall_s:.0f} s of wall; the serial line ends with"
        )
        return "\n".join([said, *tail])

    def _spent(self) -> Spent:
        return self.clock.spent if self.clock is not None else Spent()
