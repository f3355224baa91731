"""Runs a whole lab on this machine: dnsmasq, smbd, the appliance, and QEMU testboxes.

The demo, the end-to-end test and the benchmarks use it.  It needs root but does not touch the
machine: daemons and boxes run in a namespace (`namespace.py`), their files are in one temporary
directory, and logs and results go where the caller says.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from appliance.boot.daemons import dnsmasq, ganesha, smb, tftp
from appliance.config import Config, Network, Paths
from appliance.errors import ApplianceError
from lab import patience
from lab.namespace import BRIDGE, SERVER, Namespace, Overlay, namespace, signal_program
from lab.patience import Clock, TooLate
from lab.qemu import Box, Firmware, accelerator

DHCP_RANGE: Final = ("172.28.0.10", "172.28.0.250")
# Seconds of the time that the machine has for one program (patience.py).
READY_S: Final = 30.0  # for a daemon to listen; after that its log is shown
STOP_S: Final = 20.0  # for the server's clean stop: boxes dismissed, snapshot written
COMMAND_S: Final = 60.0  # for one of the appliance's commands, which takes a second
TAPS: Final = 4

Watch = Callable[[str, str], None]  # takes the name of a daemon or box, and a line of its output


@attrs.define(eq=False)
class Lab:
    """A running lab."""

    config: Config
    config_file: Path
    keep: Path
    inside: Namespace
    nursery: trio.Nursery
    watch: Watch
    accel: str
    clock: Clock = attrs.field(factory=patience.of_the_machine)
    boxes: list[Box] = attrs.field(factory=list)
    daemons: dict[str, trio.Process] = attrs.field(factory=dict)

    def box(
        self, name: str, firmware: Firmware = "uefi", *, two_cards: bool = False, **more: Any
    ) -> Box:
        """Makes a testbox at this lab's bridge, still off.

        With `two_cards` it boots from the second card, and DHCP answers both.
        """
        number = len(self.boxes)
        used = {box.spare[1] for box in self.boxes if box.spare is not None}
        assert number + len(used) + two_cards < TAPS
        spare = f"52:54:00:a1:01:{number + 1:02x}", f"tap{TAPS - 1 - len(used)}"
        box = Box(
            name=name,
            mac=f"52:54:00:a1:00:{number + 1:02x}",
            tap=f"tap{number}",
            directory=self.keep,
            firmware=firmware,
            spare=spare if two_cards else None,
            accel=self.accel,
            watch=lambda line: self.watch(name, line),
            **more,
        )
        self.boxes.append(box)
        return box

    async def power_on(self, box: Box) -> None:
        """Powers `box` on."""
        await box.power_on(self.nursery, self.inside)

    async def run(self, *arguments: str, check: bool = True, allowed_s: float = COMMAND_S) -> str:
        """Runs `appliance ARGUMENTS` against this lab's server; returns what it prints."""
        with self.clock.limit(f"`appliance {' '.join(arguments)}`", allowed_s):
            done = await trio.run_process(
                [sys.executable, "-m", "appliance", *arguments],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env={
                    "APPLIANCE_CONFIG": str(self.config_file),
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                },
            )
        if check and done.returncode != 0:
            raise ApplianceError(
                f"appliance {' '.join(arguments)}: status {done.returncode}\n"
                f"{done.stdout.decode()}{done.stderr.decode()}"
            )
        return done.stdout.decode()

    async def start(self, name: str, command: Sequence[str], *ports: int) -> None:
        """Starts a daemon, waits until it listens on `ports`; the lab fails if the daemon ends."""
        log = self.keep / f"{name}.log"
        log.touch()  # the daemon may listen before _follow opens the log
        process = await self.inside.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.daemons[name] = process
        self.nursery.start_soon(self._follow, name, process, log)
        try:
            with self.clock.limit(f"{name} to listen on {ports}", READY_S):
                while not all(map(self.inside.listening, ports)):  # noqa: ASYNC110 - the kernel's
                    await trio.sleep(0.05)
        except TooLate as error:
            raise TooLate(f"{error}; the end of its log:\n{_tail(log)}") from None

    async def stop(self, name: str) -> int:
        """Stops a daemon, by SIGKILL after STOP_S; returns its exit status."""
        process = self.daemons.pop(name)
        signal_program(process, signal.SIGTERM)
        with suppress(TooLate), self.clock.limit(f"{name} to end", STOP_S):
            return await process.wait()
        signal_program(process, signal.SIGKILL)
        return await process.wait()

    async def _follow(self, name: str, process: trio.Process, log: Path) -> None:
        assert process.stdout is not None
        rest = b""
        with log.open("wb", buffering=0) as file:
            async for chunk in process.stdout:
                file.write(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self.watch(name, line.decode("utf-8", "replace"))
        status = await process.wait()
        if self.daemons.get(name) is process:
            raise ApplianceError(f"{name} ended with status {status}\n{_tail(log)}")


@asynccontextmanager
async def lab(
    os_images: Path,
    keep: Path,
    *,
    change: Callable[[Config], Config] = lambda config: config,
    watch: Watch = lambda who, line: None,
    serve: Sequence[str] = (sys.executable, "-m", "appliance", "serve", "--config"),
    nfs: bool = False,
    ipxe: Sequence[Path] = tftp.PACKAGED,
    dhcp: Callable[[Config], str] = dnsmasq.configuration,
    dhcp_ports: Sequence[int] = (67, 69),
) -> AsyncIterator[Lab]:
    """Runs a lab with the images of `os_images`, ready for boxes, until the end of the block.

    `keep` receives logs and results.  `change` may change the configuration.
    `serve` is the server's command, to which the configuration file is appended.
    `nfs` starts ganesha as well, for jobs that say `os_mount: nfs`.
    `ipxe` lists the folders in which iPXE is searched.
    `dhcp` makes another dnsmasq.conf, for a dnsmasq that listens on `dhcp_ports`.
    """
    directory = _directory(keep)
    try:
        config = change(_configuration(directory, keep))
        config_file = _lay_out(config, directory, ipxe, dhcp)
        images = Overlay(os_images, config.paths.srv / "os")
        async with (
            namespace(TAPS, [images], directory) as inside,
            trio.open_nursery() as nursery,
        ):
            accel = await accelerator(directory)
            made = Lab(config, config_file, keep, inside, nursery, watch, accel)
            nursery.start_soon(made.clock.run, patience.look_at_machine)
            await _start_daemons(made, directory, serve, dhcp_ports)
            if nfs:
                await _start_ganesha(made, directory)
            yield made
            await _stop(made)
            nursery.cancel_scope.cancel()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _start_daemons(
    made: Lab, directory: Path, serve: Sequence[str], dhcp_ports: Sequence[int]
) -> None:
    ports = made.config.ports
    await made.start(
        "server", [*serve, str(made.config_file)], ports.scheduler, ports.os, ports.upload
    )
    await made.start(
        "smbd",
        ["smbd", "--foreground", "--no-process-group", f"--configfile={directory}/smb.conf"],
        ports.cifs,
    )
    await made.start(
        "dnsmasq",
        [
            *("dnsmasq", f"--conf-file={directory}/dnsmasq.conf"),
            *("--keep-in-foreground", "--log-facility=-"),
        ],
        *dhcp_ports,
    )


async def _start_ganesha(made: Lab, directory: Path) -> None:
    command = ganesha.command(made.config, directory / "ganesha.conf")
    await made.start("ganesha", command, ganesha.PORT)
    # ganesha only logs a missing export, and runs on: of an overlay without file handles, say.
    if "Lookup failed on path" in (made.keep / "ganesha.log").read_text(errors="replace"):
        raise ApplianceError(f"ganesha cannot show the images\n{_tail(made.keep / 'ganesha.log')}")


async def _stop(made: Lab) -> None:
    for box in made.boxes:
        if box.is_on:
            await box.power_off()
    if "server" in made.daemons:
        await made.stop("server")
    made.daemons.clear()  # the others end with the namespace


def _directory(keep: Path) -> Path:
    keep.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="appliance-lab-"))
    directory.chmod(0o755)  # dnsmasq drops root and still reads files in here
    return directory


def _configuration(directory: Path, keep: Path) -> Config:
    return Config(
        network=Network(address=SERVER, interface=BRIDGE, dhcp_range=DHCP_RANGE),
        paths=Paths(
            srv=keep / "srv",
            state=directory / "state",
            run=directory / "run",  # the control socket's path must stay short
            hosts=directory / "hosts",
            tftp=directory / "tftpboot",
        ),
    )


def _lay_out(
    config: Config, directory: Path, ipxe: Sequence[Path], dhcp: Callable[[Config], str]
) -> Path:
    """Makes the directories and files that daemons need; returns the configuration file's path."""
    paths = config.paths
    wanted = (paths.srv / "os", paths.state, paths.run, paths.hosts, paths.dhcp_hosts)
    for path in (*wanted, *smb.directories(config), *ganesha.directories(config)):
        path.mkdir(parents=True, exist_ok=True)
    (directory / "dnsmasq.conf").write_text(dhcp(config))
    (directory / "smb.conf").write_text(smb.configuration(config))
    (directory / "ganesha.conf").write_text(ganesha.configuration(config))
    tftp.lay_out(config, ipxe)
    config_file = directory / "appliance.toml"
    config_file.write_text(toml(config))
    return config_file


def toml(config: Config) -> str:
    """Writes `config` as TOML, which `config.parse` reads back."""
    top, sections = [], []
    for field in attrs.fields(Config):
        value = getattr(config, field.name)
        if attrs.has(type(value)):
            sections += _table(field.name, value)
        elif isinstance(value, Mapping):
            for name, entry in value.items():
                sections += _table(f"{field.name}.{_toml_value(name)}", entry)
        else:
            top.append(f"{field.name} = {_toml_value(value)}")
    return "\n".join([*top, *sections, ""])


def _table(name: str, value: Any) -> list[str]:
    words = {key.name: getattr(value, key.name) for key in attrs.fields(type(value))}
    said = [f"{key} = {_toml_value(word)}" for key, word in words.items() if word is not None]
    return [f"\n[{name}]", *said]


def _toml_value(value: Any) -> str:
    # JSON's strings, numbers, booleans and lists are TOML's too.
    return json.dumps(value, default=str)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-20:] if log.exists() else []
    return "\n".join(f"    {line}" for line in lines)
