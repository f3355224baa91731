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
    "--srv",
    type=click.Path(path_type=Path),
    help="Use this folder instead of the configuration's paths.srv.",
)


@click.group()
def image() -> None:
    """Manage images: the root filesystems that testboxes boot."""


@image.command(short_help="Build an image from packages.")
@click.argument("system", metavar="OS", type=click.Choice(["debian"]))
@click.argument("version")
@click.argument("arch")
@click.option(
    "--mirror",
    metavar="URI",
    help="Mirror for packages, updates and security fixes; by default apt's own sources.",
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


@image.command("import", short_help="Make an image from an existing root filesystem.")
@click.argument("source", metavar="DIR-OR-TAR", type=click.Path(path_type=Path))
@click.option("--os", "system", required=True, help="The `os` in job documents.")
@click.option("--version", required=True, help="The `os_version` in job documents.")
@click.option("--arch", required=True, help="The architecture, such as x86_64.")
@_SRV
@click.pass_context
def import_(
    ctx: click.Context, source: Path, system: str, version: str, arch: str, srv: Path | None
) -> None:
    """Make an image from an existing root filesystem, which is copied and not changed."""
    from appliance.boot.images import image_import

    place = _own_place(ctx, srv)
    with told() as say:
        made = image_import.import_(place, source.absolute(), system, version, arch, say)
    echo(str(made))


@image.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_SRV
@click.pass_context
def list_(ctx: click.Context, as_json: bool, srv: Path | None) -> None:
    """List the images that job documents can ask for."""
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


@image.command(short_help="Check that images are complete and readable.")
@click.argument("name", metavar="[OS/ARCH/VERSION]", required=False)
@_SRV
@click.pass_context
def check(ctx: click.Context, name: str | None, srv: Path | None) -> None:
    """Check that images are complete and that testboxes can read them; exit code 1 if not."""
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


@image.command(short_help="Remove unused snapshots.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@_SRV
@click.pass_context
def gc(ctx: click.Context, dry_run: bool, srv: Path | None) -> None:
    """Remove snapshots that no symlink points to and no waiting or running job needs.

    Only folders named `<version>-<timestamp>` are considered, and none where an image is being
    made now.  If the server is stopped, the jobs in its state on the disk are considered.
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
            # A submit that is being read now may yet pin one of them: wait, then ask again.
            pause = partial(time.sleep, 2 * pinning.FRESH_S)
            found = image_gc.remove(place, found, lambda: _used(ctx), pause)
    for one in found:
        echo(f"{one.url}  {shows.size(one.size_bytes)}")
    total = shows.size(sum(one.size_bytes for one in found))
    echo(f"{len(found)} snapshots, {total}{' would go' if dry_run else ' are gone'}")


def _used(ctx: click.Context) -> set[str]:
    """Returns the snapshots that jobs need: from the server, else from the state on the disk."""
    from appliance.cli import state_report
    from appliance.cli.connection import connect
    from appliance.control.lab_verbs import pinned

    try:
        with connect(ctx) as server:
            return set(server.ask("images-used")["snapshots"])
    except NotRunning:
        config = load_config(ctx)
    if not config.paths.state.exists():
        return set()
    folder, state = state_report.survey(config, None)
    unknown = "which images its jobs need is not known"
    if state.damage:
        raise BadState(f"{folder / str(state.damage[0])}; see `appliance state check`: {unknown}")
    if not state.files:
        raise BadState(f"{folder}: holds no state; is its disk mounted?  {unknown}")
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
    """Like _place(), for writing as root.  Raises Refused where other users may write too."""
    from appliance.fs import owner

    place = _place(ctx, srv)
    for kind in (place / "os", *place.glob("os/*"), *place.glob("os/*/*")):
        owner.check_roots(kind)
    return place


@contextmanager
def told() -> Iterator[Callable[[str], None]]:
    """Yields a function that reports progress: lines, or on a terminal the latest line only.

    SIGTERM, or closing the terminal (except under nohup), ends the work cleanly.
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

        # A long line is cut: with no_wrap and ratio it cannot push the other columns away.
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
    """Returns the line without colours and control characters."""
    return "".join(filter(str.isprintable, re.sub(r"\x1b\[[0-9;]*m", "", line)))


def _stop(number: int, frame: object) -> None:
    for each in _ENDS:
        signal.signal(each, signal.SIG_IGN)  # ignore further signals: cleaning up has begun
    sys.exit(128 + number)
