"""Emulates a testbox by QEMU: real firmware, a network card without ROM, a serial line.

The card has no boot ROM, so that the firmware's own PXE boots and both DHCP stages are real
(docs/firmware.md#emulated-boxes).  Legacy BIOS is the exception: it cannot boot by PXE without the
card's ROM.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, Literal

import attrs
import trio

from appliance.errors import ApplianceError
from lab import patience
from lab.namespace import Namespace, program, signal_program
from lab.patience import Clock, TooLate

Firmware = Literal["uefi", "uefi-arm64", "bios"]


@attrs.frozen
class Machine:
    """A kind of machine that QEMU emulates; `uefi`: files of code and of empty variables."""

    qemu: str
    kind: Sequence[str]
    uefi: tuple[Path, Path] | None = None


# Debian's ovmf; later releases have only the 4M build.
_OVMF: Final = Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
_AAVMF: Final = Path("/usr/share/AAVMF/AAVMF_CODE.fd"), Path("/usr/share/AAVMF/AAVMF_VARS.fd")
MACHINES: Final[dict[Firmware, Machine]] = {
    "uefi": Machine("qemu-system-x86_64", ["-machine", "q35"], _OVMF),
    "uefi-arm64": Machine(
        "qemu-system-aarch64", ["-cpu", "cortex-a57", "-machine", "virt"], _AAVMF
    ),
    # SeaBIOS without graphics writes to the serial line.
    "bios": Machine("qemu-system-x86_64", ["-machine", "pc,graphics=off"]),
}
PROBE_S: Final = 15.0  # with KVM, firmware prints within two seconds; a broken KVM fails at once
# Of a box's own time.  Without KVM it takes two minutes from power-on to the end of a job, and four
# with the longest wait in iPXE that tests play (130 s).  A processor that shares its caches with
# other work does less in a second.
PATIENCE_S: Final = 600.0

# Terminal control sequences: firmware and iPXE draw on the serial line as on a screen.
_CONTROL: Final = re.compile(rb"\x1b\[[0-9;?=]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00-\x08\x0b-\x1f\x7f]")


@attrs.define(eq=False)
class Box:
    """One testbox, off until `power_on`, with the lines of its serial line so far."""

    name: str
    mac: str
    tap: str
    directory: Path  # for firmware variables and serial log
    firmware: Firmware = "uefi"
    spare: tuple[str, str] | None = None  # MAC and tap of a card before the one it boots from
    memory_mib: int = 2048
    nice: int = 0  # higher leaves more to others: a box that waits in firmware keeps a core busy
    more: Sequence[str] = ()  # further arguments of QEMU
    accel: str = "tcg"
    watch: Callable[[str], None] = lambda line: None  # called with each line of the serial log
    lines: list[str] = attrs.field(factory=list, init=False)
    clock: Clock = attrs.field(init=False)  # its own time, while its power is on
    _rest: bytes = attrs.field(default=b"", init=False)
    _more: trio.Event = attrs.field(factory=trio.Event, init=False)
    _process: trio.Process | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.clock = Clock(f"{self.name}'s own time")

    @property
    def is_on(self) -> bool:
        """Whether the power is on."""
        return self._process is not None

    @property
    def serial_log(self) -> Path:
        """The file with all bytes of the serial line."""
        return self.directory / f"{self.name}.serial.log"

    async def power_on(self, nursery: trio.Nursery, lab: Namespace) -> None:
        """Powers the box on; returns when QEMU runs."""
        assert self._process is None, f"{self.name} is on"
        variables = self.directory / f"{self.name}.vars.fd"
        uefi = MACHINES[self.firmware].uefi
        if uefi is not None and not variables.exists():
            shutil.copy(uefi[1], variables)
        with (self.directory / f"{self.name}.qemu.log").open("ab") as complaints:
            self._process = await lab.start(
                self._command(variables), stdout=subprocess.PIPE, stderr=complaints
            )
        nursery.start_soon(self._follow, self._process)
        nursery.start_soon(self._count, self._process)

    async def power_off(self) -> None:
        """Kills QEMU, as if the power failed: no connection is closed."""
        process, self._process = self._process, None
        assert process is not None, f"{self.name} is off"
        signal_program(process, signal.SIGKILL)
        await process.wait()

    @contextmanager
    def limit(self, what: str, allowed_s: float = PATIENCE_S) -> Iterator[None]:
        """Raises TooLate when this box has had `allowed_s` of its own time in the block."""
        with self.clock.limit(what, allowed_s):
            yield

    async def line(self, pattern: str, *, after: int = 0, allowed_s: float = PATIENCE_S) -> int:
        """Waits for a line that matches, from index `after` on; returns its index."""
        with self.limit(f"the line {pattern!r}", allowed_s):
            return await self._line(re.compile(pattern), after)

    async def _line(self, wanted: re.Pattern[str], after: int) -> int:
        looked = after
        while True:
            for index in range(looked, len(self.lines)):
                if wanted.search(self.lines[index]):
                    return index
            looked = max(after, len(self.lines))
            await self._more.wait()

    async def _follow(self, process: trio.Process) -> None:
        assert process.stdout is not None
        with self.serial_log.open("ab", buffering=0) as log:
            async for chunk in process.stdout:
                log.write(chunk)
                self._take(bytes(chunk))
        status = await process.wait()
        if process is self._process:
            raise ApplianceError(f"{self.name}: QEMU ended by itself with status {status}")

    async def _count(self, process: trio.Process) -> None:
        await self.clock.run(
            lambda: patience.look_at(program(process)), lambda: process is self._process
        )

    def _take(self, chunk: bytes) -> None:
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        for raw in whole:
            line = _CONTROL.sub(b"", raw).decode("utf-8", "replace").rstrip()
            if line:
                self.lines.append(line)
                self.watch(line)
        self._more.set()
        self._more = trio.Event()

    def _command(self, variables: Path) -> Sequence[str]:
        cards = [(self.mac, self.tap, ",bootindex=0")]
        if self.spare is not None:
            cards.insert(0, (*self.spare, ""))  # lower on the bus, so the kernel names it first
        words = []
        for number, (mac, tap, order) in enumerate(cards):
            rom = "" if self.firmware == "bios" else ",romfile="
            words += ["-netdev", f"tap,id=n{number},ifname={tap},script=no,downscript=no"]
            words += ["-device", f"virtio-net-pci,netdev=n{number},mac={mac}{rom}{order}"]
        return [
            *("nice", "-n", str(self.nice)),
            *self.machine(variables),
            *words,
            *self.more,
            *("-boot", "n", "-device", "virtio-rng-pci"),
            *("-uuid", str(uuid.uuid5(uuid.NAMESPACE_OID, self.name))),
            *("-smbios", f"type=1,manufacturer=QEMU,product=Lab box,serial=no. {self.name}"),
        ]

    def machine(self, variables: Path) -> Sequence[str]:
        """Returns QEMU's command without network: firmware, memory, serial line on stdout."""
        machine = MACHINES[self.firmware]
        words = [machine.qemu, "-name", self.name, "-m", str(self.memory_mib), "-nodefaults"]
        words += ["-serial", "stdio", "-display", "none", "-monitor", "none", *machine.kind]
        # KVM works only for this machine's own architecture.
        words += ["-accel", "tcg" if self.firmware == "uefi-arm64" else self.accel]
        if machine.uefi is not None:
            for drive in (
                f"format=raw,readonly=on,file={machine.uefi[0]}",
                f"format=raw,file={variables}",
            ):
                words += ["-drive", f"if=pflash,{drive}"]
        return words


async def accelerator(directory: Path) -> str:
    """Returns `kvm` if KVM can run real firmware, else `tcg`.

    A /dev/kvm that opens proves nothing: on some machines KVM makes a virtual CPU but cannot
    emulate instructions of the firmware's first millisecond.  So this function starts the firmware,
    which prints on the serial line within a second or two.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    probe = Box("probe", "52:54:00:a1:00:ff", "", directory, memory_mib=512, accel="kvm")
    variables = directory / "probe.vars.fd"
    shutil.copy(_OVMF[1], variables)
    command = [*probe.machine(variables), "-nic", "none", "-boot", "n"]
    clock = patience.of_the_machine()
    spoke = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run, patience.look_at_machine)
        with suppress(TooLate), clock.limit("a word of the firmware under KVM", PROBE_S):
            spoke = await _speaks(command, nursery)
        nursery.cancel_scope.cancel()
    variables.unlink()
    return "kvm" if spoke else "tcg"


async def _speaks(command: Sequence[str], nursery: trio.Nursery) -> bool:
    """Whether the firmware reaches its boot device selection; QEMU runs until `nursery` ends."""
    process: trio.Process = await nursery.start(
        partial(
            trio.run_process,
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            start_new_session=True,
        )
    )
    assert process.stdout is not None
    said = b""
    while b"internal error" not in said and (chunk := await process.stdout.receive_some()):
        said += chunk
        if b"Bds" in said:
            return True
    return False
