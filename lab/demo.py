"""`make demo`: shows one bare machine from power-on to a finished job, stage by stage."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any, Final

import attrs
import click
import trio

from appliance.cli import show
from appliance.config import Config
from appliance.control.client import Server, connect_to
from appliance.errors import ApplianceError
from lab.lab import Lab, lab
from lab.qemu import Box
from lab.story import BOX, Story

REPOSITORY: Final = Path(__file__).parents[1]
CACHE: Final = REPOSITORY / ".cache"
JOB: Final = REPOSITORY / "examples/hello.yaml"
PARKED_S: Final = 5.0  # short, to show the re-chain; a real lab waits half an hour


async def demo(keep_up: bool) -> None:
    """Runs the whole demo.  Raises ApplianceError if a stage fails."""
    story = Story()
    keep = CACHE / "demo" / time.strftime("%Y-%m-%d-%H-%M-%S")
    click.secho("One bare machine, from power-on to a finished job\n", bold=True)
    async with lab(CACHE / "srv/os", keep, change=_impatient, watch=story.watch) as made:
        box = made.box(BOX)
        story.clock, story.serial, story.usual = box.clock, box.lines, made.accel == "tcg"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(story.tell_of_waiting)
            try:
                await _play(made, box, story, keep)
            except BaseException:
                click.echo(f"  The serial line and all logs are in {keep}\n", err=True)
                raise
            nursery.cancel_scope.cancel()
        if keep_up:
            _how_to_go_on(made, keep)
            await trio.sleep_forever()


async def _play(made: Lab, box: Box, story: Story, keep: Path) -> None:
    how = "KVM" if made.accel == "kvm" else "emulated (no usable KVM here)"
    _command(f"appliance host add {BOX} --mac {box.mac}")
    await made.run("host", "add", BOX, "--mac", box.mac)
    story.began = story.now()
    story.tell("power on", f"{BOX}: UEFI x86-64, {box.memory_mib} MiB, no disk; {how}")
    await made.power_on(box)
    await box.line("No job now", allowed_s=inf)  # the story limits each stage
    _command(f"appliance submit {JOB.relative_to(REPOSITORY)}")
    job = (await made.run("submit", str(JOB))).split()[0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tell_files, made.config, story)
        await trio.to_thread.run_sync(_follow, made.config, job, story, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()
    await _show_results(made, job, keep)
    booted = await box.line("Linux version")
    await box.line("Start PXE over IPv4", after=booted, allowed_s=inf)
    story.tell("reboot", f"{BOX} is back at its firmware, and asks for the next job")


def _impatient(config: Config) -> Config:
    waits = attrs.evolve(config.waits, park=PARKED_S, drip=PARKED_S / 2)
    return attrs.evolve(config, waits=waits)


def _follow(config: Config, job: str, story: Story) -> None:
    """Prints the job's stages as the server reports them, until its verdict."""
    with Server(connect_to(str(config.paths.control_socket))) as server:
        for message in server.follow("wait", job=job):
            if "result" in message:
                _tell_verdict(message["result"]["job"], story)
                return
            event = message["event"]
            on = f" on {event['box']}" if event["box"] else ""
            what = f" ({event['what']})" if event["what"] else ""
            stage = event["stage"]
            story.tell("job", f"{job} {stage}{on}{what}", "cyan", f"job {stage}")


def _tell_verdict(row: dict[str, Any], story: Story) -> None:
    good = row["health"] == "success"
    reason = f": {row['reason']}" if row["reason"] else ""
    story.tell("verdict", f"{row['id']} {row['health']}{reason}", "green" if good else "red")
    if not good:
        raise ApplianceError(f"{row['id']} ended as {row['health']}, not as a success")


async def _tell_files(config: Config, story: Story) -> None:
    """Prints each file that the box has loaded, with size and time."""
    told = 0
    while True:
        for step in (steps := await trio.to_thread.run_sync(_files, config))[told:]:
            name = step["detail"].rpartition("/")[2]
            story.tell("file", f"{name}  {show.size(step['bytes'])} in {step['seconds']:.1f} s")
        told = max(told, len(steps))
        await trio.sleep(0.5)


def _files(config: Config) -> list[dict[str, Any]]:
    with Server(connect_to(str(config.paths.control_socket))) as server:
        boots = server.ask("host-show", host=BOX)["boots"]
    return [step for step in (boots[-1]["steps"] if boots else []) if step["what"] == "file"]


async def _show_results(made: Lab, job: str, keep: Path) -> None:
    click.echo()
    for words in (("results", job), ("results", job, "cat", "stdout")):
        _command(f"appliance {' '.join(words)}")
        said = await made.run(*words)
        click.echo(_indented(said) + "\n")
    click.echo(f"  The serial line and all logs are in {keep}\n")


def _how_to_go_on(made: Lab, keep: Path) -> None:
    sudo = "sudo " if "SUDO_USER" in os.environ else ""
    program = f"{sudo}.venv/bin/appliance --config {made.config_file}"
    click.echo(
        f"\nThe lab stays up until Ctrl-C; {keep} stays after it.\n"
        f"In another shell, in {REPOSITORY}:\n\n"
        f"  alias appliance='{program}'\n"
        "  appliance submit --wait examples/python.yaml\n"
        "  appliance results lab.2 cat stdout\n"
        "  appliance hosts\n"
        "  appliance watch\n"
    )


def _command(line: str) -> None:
    click.secho(f"  $ {line}", dim=True)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())


async def until_signalled(work: Callable[[], Any]) -> int:
    """Runs `work`, and cancels it at a signal; returns the exit status."""
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
    """Runs `python -m lab.demo [--keep]`."""
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
    for line in wrong:
        click.secho(f"demo: {line}", fg="red", err=True)
    sys.exit(status)


def _leaves(group: BaseException) -> list[BaseException]:
    if isinstance(group, BaseExceptionGroup):
        return [leaf for part in group.exceptions for leaf in _leaves(part)]
    return [group]


if __name__ == "__main__":
    main()
