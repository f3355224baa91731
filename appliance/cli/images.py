"""`appliance image`: build, import, list, check, gc."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from appliance.cli import load_config
from appliance.cli import show as shows
from appliance.cli.show import echo
from appliance.errors import BadState, NotFound, NotRunning

if TYPE_CHECKING:
    from appliance.boot.images.catalogue import Image

_ENDS: Final = (signal.SIGTERM, signal.SIGHUP)
_SRV = click.option(
    "--srv", type=click.Path(path_type=Path), help="Instead of the configuration's paths.srv."
)


@click.group()
def image() -> None:
    """The root filesystems that boxes boot."""


@image.command(short_help="Build an image from packages.")
@click.argument("system", metavar="OS", type=click.Choice(["debian"]))
@click.argument("version")
@click.argument("arch")
@click.option(
    "--mirror",
    metavar="URI",
    help="Where packages come from, with updates and security fixes; else apt's own sources.",
)
@_SRV
@click.pass_context
def build(
    ctx: click.Context, system: str, version: str, arch: str, mirror: str | None, srv: Path | None
) -> None:
    """Build an image from packages: appliance image build debian 12 x86_64."""
    from appliance.boot.images import image_build

    place = _own_place(ctx, srv)
    with told() as say:
        made = image_build.build(place, version, arch, say, mirror)
    echo(str(made))


@image.command("import", short_help="Make an image of a root filesystem that exists.")
@click.argument("source", metavar="DIR-OR-TAR", type=click.Path(path_type=Path))
@click.option("--os", "system", required=True, help="What documents call it: os.")
@click.option("--version", required=True, help="What documents call it: os_version.")
@click.option("--arch", required=True, help="Such as x86_64.")
@_SRV
@click.pass_context
def import_(
    ctx: click.Context, source: Path, system: str, version: str, arch: str, srv: Path | None
) -> None:
    """Make an image of a root filesystem that exists; it is copied, and not changed."""
    from appliance.boot.images import image_import

    place = _own_place(ctx, srv)
    with told() as say:
        made = image_import.import_(place, source.absolute(), system, version, arch, say)
    echo(str(made))


@image.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@_SRV
@click.pass_context
def list_(ctx: click.Context, as_json: bool, srv: Path | None) -> None:
    """List the images that documents can ask for."""
    from appliance.boot.images import catalogue

    rows = [_row(one) for one in catalogue.images(_place(ctx, srv))]
    if as_json:
        shows.as_json(rows)
        return
    shows.table(
        ["OS", "VERSION", "ARCH", "KERNELS", "SIZE", "SNAPSHOT", "PROBLEMS"],
        [
            [
                *(row["os"], row["version"], row["arch"], row["kernels"]),
                None if row["size_bytes"] is None else shows.size(row["size_bytes"]),
                row["snapshot"],
                "; ".join(row["problems"]),
            ]
            for row in rows
        ],
    )


@image.command(short_help="Look whether images are whole and can be read.")
@click.argument("name", metavar="[OS/ARCH/VERSION]", required=False)
@_SRV
@click.pass_context
def check(ctx: click.Context, name: str | None, srv: Path | None) -> None:
    """Look whether images are whole and can be read by boxes; exit code 1 if one is not."""
    from appliance.boot.images import catalogue, rootfs

    place = _place(ctx, srv)
    found = [one for one in catalogue.images(place) if name in (None, one.name)]
    if not found:
        there = ", ".join(one.name for one in catalogue.images(place)) or "none"
        raise NotFound(f"no image {name or 'at all'} in {place}/os; there are: {there}")
    bad = False
    for one in found:
        problems = [*one.problems, *rootfs.flaws(place / one.snapshot[1:])]
        echo(f"{one.name}: {'; '.join(problems) or 'good'} ({one.snapshot})")
        bad = bad or bool(problems)
    if bad:
        ctx.exit(1)


@image.command(short_help="Remove snapshots that nothing needs.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@_SRV
@click.pass_context
def gc(ctx: click.Context, dry_run: bool, srv: Path | None) -> None:
    """Remove snapshots that no symlink stands for, and no job that waits or runs has pinned.

    Only `<version>-<timestamp>` folders are looked at, and none where an image is being made now.
    With the server stopped, the jobs in its state count.
    """
    from appliance.boot.images import image_gc, pinning

    place = _own_place(ctx, srv)
    if not (place / "os").is_dir():
        raise NotFound(f"there are no images: {place}/os is not there")
    with image_gc.turn(place):
        found, busy = image_gc.unused(place, _used(ctx))
        for folder in busy:
            echo(f"{folder}: an image is being made here: left alone", err=True)
        if found and not dry_run:
            # A document that was looked at before may be pinned yet.
            pause = partial(time.sleep, 2 * pinning.FRESH_S)
            found = image_gc.remove(place, found, lambda: _used(ctx), pause)
    for one in found:
        echo(f"{one.url}  {shows.size(one.size_bytes)}")
    total = shows.size(sum(one.size_bytes for one in found))
    echo(f"{len(found)} snapshots, {total}{' would go' if dry_run else ' are gone'}")


def _used(ctx: click.Context) -> set[str]:
    """The snapshots that jobs need, as the server says, or else its state."""
    from appliance.cli.connection import connect
    from appliance.control.lab_verbs import pinned
    from appliance.keep.repair import offline, survey

    try:
        with connect(ctx) as server:
            return set(server.ask("images-used")["snapshots"])
    except NotRunning:
        config = load_config(ctx)
    if not config.paths.state.exists():
        return set()
    with offline.reading(config.paths.state) as contents:
        state = survey.survey(contents, config.lab)
    if state.damage:
        why = "`appliance state check`: which images its jobs need is not known"
        raise BadState(f"{config.paths.state / str(state.damage[0])}; see {why}")
    return pinned(state.store)


def _row(one: Image) -> dict[str, Any]:
    return {
        "os": one.os,
        "version": one.version,
        "arch": one.arch,
        "snapshot": one.snapshot,
        "kernels": list(one.kernels),
        "size_bytes": one.size_bytes,
        "complete": one.complete,
        "problems": list(one.problems),
    }


def _place(ctx: click.Context, srv: Path | None) -> Path:
    place: Path = srv.absolute() if srv is not None else load_config(ctx).paths.srv
    return place


def _own_place(ctx: click.Context, srv: Path | None) -> Path:
    """The same, for root to make and remove in.  Raises Refused where others may, too."""
    from appliance.fs import owner

    place = _place(ctx, srv)
    for kind in (place / "os", *place.glob("os/*"), *place.glob("os/*/*")):
        owner.check_roots(kind)
    return place


@contextmanager
def told() -> Iterator[Callable[[str], None]]:
    """What happens, line by line; a person sees the latest one move.

    SIGTERM, and a terminal that is closed (not under nohup), end it cleanly.
    """
    before = {number: signal.getsignal(number) for number in _ENDS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        if not sys.stderr.isatty():
            yield lambda line: echo(line, err=True)
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.table import Column

        # What is too long is cut: with a width of its own it pushes the others off the line.
        newest = TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1))
        columns = SpinnerColumn(), TimeElapsedColumn(), newest
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, expand=True) as progress:
            task = progress.add_task("starting", total=None)
            yield lambda line: progress.update(task, description=escape(_plain(line)))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _plain(line: str) -> str:
    """Without colours and whatever else would move the cursor."""
    return "".join(filter(str.isprintable, re.sub(r"\x1b\[[0-9;]*m", "", line)))


def _stop(number: int, frame: object) -> None:
    for each in _ENDS:
        signal.signal(each, signal.SIG_IGN)  # one is enough: cleaning up has begun
    sys.exit(128 + number)
