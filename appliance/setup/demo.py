"""`make demo`: one bare machine, from power-on to a finished job, each stage as it happens."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import click
import trio

from appliance.cli import show
from appliance.cli.wire import Server
from appliance.config import Config
from appliance.errors import ApplianceError
from appliance.setup.lab import Lab, lab

REPOSITORY: Final = Path(__file__).parents[2]
CACHE: Final = REPOSITORY / ".cache"
JOB: Final = REPOSITORY / "examples/hello.yaml"
BOX: Final = "box-1"
PARKED_S: Final = 5.0  # so that the re-chain is seen; a real lab waits half an hour
ALL_S: Final = 900.0  # a boot takes a minute or two under TCG; after this something hangs

# What the box, dnsmasq and the server say when a stage begins.  First match, once per boot.
_STAGES: Final[tuple[tuple[str, str, str, str], ...]] = (
    (BOX, r"Start PXE over IPv4", "firmware", "asks the network what to boot"),
    ("dnsmasq", r"DHCPACK\(\S+\) (\S+)", "DHCP", r"the firmware has \1"),
    ("dnsmasq", r"sent \S+?tftpboot/(ipxe/\S+) to", "TFTP", r"\1"),
    (BOX, r"^iPXE (\S+) -- Open Source", "iPXE", r"\1 runs, and asks DHCP again"),
    ("dnsmasq", r"sent \S+/(boot\.ipxe) to", "TFTP", r"\1"),
    ("server", r'event="box parked"', "parked", "waits for work"),
    (BOX, r"(No job now)", "re-chain", r"\1: asks again"),
    (BOX, r"Linux version (\S+)", "kernel", r"Linux \1"),
    (BOX, r"CIFS: Attempting to mount (\S+)", "root", r"\1 over CIFS, an overlay on top"),
    (BOX, r"systemd\[1\]: (?:Detected|Hostname|Set hostname)", "init", "systemd runs from it"),
)


@attrs.define
class Story:
    """Tells each stage once per boot."""

    began: float = attrs.field(factory=time.monotonic)
    told: set[str] = attrs.field(factory=set)

    def tell(self, what: str, detail: str, colour: str | None = None) -> None:
        """One line: when, what, and what about it."""
        seconds = int(time.monotonic() - self.began)
        stage = click.style(f"{what:<10}", fg=colour, bold=colour is not None)
        click.echo(f"  {seconds // 60}:{seconds % 60:02}  {stage}  {detail}")

    def watch(self, who: str, line: str) -> None:
        """Looks for a stage in what somebody says."""
        for speaker, pattern, what, detail in _STAGES:
            if speaker == who and pattern not in self.told and (found := re.search(pattern, line)):
                self.told.add(pattern)
                self.tell(what, found.expand(detail))
                return


async def demo(keep_up: bool) -> None:
    """The whole path.  Raises ApplianceError when a stage fails."""
    story = Story()
    keep = CACHE / "demo" / time.strftime("%Y-%m-%d-%H-%M-%S")
    images = CACHE / "srv/os"
    click.secho("One bare machine, from power-on to a finished job\n", bold=True)
    with trio.fail_after(ALL_S) as patience:
        async with lab(images, keep, change=_impatient, watch=story.watch) as made:
            how = "KVM" if made.accel == "kvm" else "emulated (no usable KVM here)"
            box = made.box(BOX)
            _command(f"appliance host add {BOX} --mac {box.mac}")
            await made.run("host", "add", BOX, "--mac", box.mac)
            story.began = time.monotonic()
            story.tell("power on", f"{BOX}: UEFI x86-64, {box.memory_mib} MiB, no disk; {how}")
            await made.power_on(box)
            await box.line("No job now")
            job = await _submit(made)
            await trio.to_thread.run_sync(_follow, made.config, job, story, abandon_on_cancel=True)
            await _show_results(made, job, keep)
            again = len(box.lines)
            await box.line("Start PXE over IPv4", after=again)
            story.tell("reboot", f"{BOX} is back at its firmware, and asks for the next job")
            if keep_up:
                patience.deadline = float("inf")
                _how_to_go_on(made)
                await trio.sleep_forever()


def _impatient(config: Config) -> Config:
    waits = attrs.evolve(config.waits, park=PARKED_S, drip=PARKED_S / 2)
    return attrs.evolve(config, waits=waits)


async def _submit(made: Lab) -> str:
    _command(f"appliance submit {JOB.relative_to(REPOSITORY)}")
    said = await made.run("submit", str(JOB))
    return said.split()[0]


def _follow(config: Config, job: str, story: Story) -> None:
    """Tells what the server knows: the offer, each file with its rate, the run, the verdict."""
    fetched = 0
    with Server(str(config.paths.control_socket)) as events:
        for message in events.follow("wait", job=job):
            if "result" in message:
                row = message["result"]["job"]
                good = row["health"] == "success"
                story.tell("verdict", _verdict(row), "green" if good else "red")
                if not good:
                    raise ApplianceError(f"{job} ended as {row['health']}, not as a success")
                return
            event = message["event"]
            fetched = _tell_files(config, story, fetched)
            on = f" on {event['box']}" if event["box"] else ""
            story.tell(
                "job", f"{job}: {event['stage']}{on}  {event['what'] or ''}".rstrip(), "cyan"
            )


def _verdict(row: dict[str, Any]) -> str:
    return f"{row['id']} {row['health']}" + (f": {row['reason']}" if row["reason"] else "")


def _tell_files(config: Config, story: Story, fetched: int) -> int:
    with Server(str(config.paths.control_socket)) as server:
        boots = server.ask("host-show", host=BOX)["boots"]
    files = [step for step in (boots[-1]["steps"] if boots else []) if step["what"] == "file"]
    for step in files[fetched:]:
        name = step["detail"].rpartition("/")[2]
        story.tell("file", f"{name}  {show.size(step['bytes'])} in {step['seconds']:.1f} s")
    return len(files)


async def _show_results(made: Lab, job: str, keep: Path) -> None:
    click.echo()
    _command(f"appliance results {job}")
    listing = await made.run("results", job)
    click.echo(_indented(listing))
    click.echo(f"  They lie in {keep / 'srv/result'}, logs and the serial line in {keep}\n")


def _how_to_go_on(made: Lab) -> None:
    click.echo(
        f"\nThe lab stays up until Ctrl-C.  In another shell, in {REPOSITORY}:\n\n"
        f"  export APPLIANCE_CONFIG={made.config_file}\n"
        f"  .venv/bin/appliance submit {JOB.relative_to(REPOSITORY)} --wait\n"
        "  .venv/bin/appliance hosts\n"
    )


def _command(line: str) -> None:
    click.secho(f"  $ {line}", dim=True)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())


async def until_signalled(work: Callable[[], Any]) -> int:
    """Runs `work`; a signal ends it in order.  The exit status."""
    status = 0
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                nonlocal status
                async for number in signals:
                    status = 128 + number
                    click.echo("\n  cleaning up", err=True)
                    nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            await work()
            nursery.cancel_scope.cancel()
    return status


def main() -> None:
    """`python -m appliance.setup.demo [--keep]`."""
    parser = argparse.ArgumentParser(prog="demo")
    parser.add_argument("--keep", action="store_true", help="leave the lab up until Ctrl-C")
    keep_up = parser.parse_args().keep
    if os.geteuid() != 0:
        sys.exit("demo: root is needed for namespaces and taps: sudo make demo")
    wrong: list[str] = []
    status = 1
    try:
        status = trio.run(until_signalled, lambda: demo(keep_up))
    except* ApplianceError as group:
        wrong += [str(error) for error in _leaves(group)]
    except* trio.TooSlowError:
        wrong.append(f"not done after {ALL_S:.0f} s; the logs are in {CACHE / 'demo'}")
    for line in wrong:
        click.secho(f"demo: {line}", fg="red", err=True)
    sys.exit(status)


def _leaves(group: BaseException) -> list[BaseException]:
    if isinstance(group, BaseExceptionGroup):
        return [leaf for part in group.exceptions for leaf in _leaves(part)]
    return [group]


if __name__ == "__main__":
    main()
