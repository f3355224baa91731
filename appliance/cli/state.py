"""`appliance state`: the state on the disk, while no server uses it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import click
import trio

from appliance.cli import FAILED, load_config
from appliance.cli import show as shows
from appliance.errors import BadRequest, BadState, Refused
from appliance.jobs.job import stage
from appliance.keep import archive, offline, rescue, results, survey
from appliance.keep import export as exports
from appliance.keep.survey import Survey

_OWNER_ONLY = 0o600  # documents hold secrets
_IDS_SHOWN = 50

_folder = click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))


@click.group()
def state() -> None:
    """The state on the disk: check, repair, export, import.  The server must not run.

    FOLDER is the state folder of the configuration unless another is named.
    """


@state.command()
@_folder
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def check(ctx: click.Context, folder: Path | None, as_json: bool) -> None:
    """What there is, and what is damaged.  Exit code 0 if a server would start, else 1."""
    folder, found = _survey(ctx, folder)
    if as_json:
        shows.as_json(_row(folder, found))
    else:
        _tell(folder, found)
    if found.damage:
        ctx.exit(FAILED)


@state.command()
@_folder
@click.option("--yes", is_flag=True, help="Do it; without, it is only said what would be lost.")
@click.pass_context
def repair(ctx: click.Context, folder: Path | None, yes: bool) -> None:
    """Say what a repair would lose, and with --yes do it.  No file is deleted.

    Exit code 0 if all is well (now), 1 if there is damage and --yes was not said.
    """
    folder, found = _survey(ctx, folder)
    _tell(folder, found)
    if not found.damage:
        click.echo("nothing to repair")
    elif not yes:
        click.echo("nothing was changed; `appliance state repair --yes` does it")
        ctx.exit(FAILED)
    else:
        with _told(folder):
            kept = trio.run(offline.repair, folder, found)
        click.echo(f"repaired; the files as they were are in {kept}")


@state.command()
@_folder
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Not to stdout.")
@click.pass_context
def export(ctx: click.Context, folder: Path | None, output: Path | None) -> None:
    """The state as JSON for people.  It holds the secrets of jobs."""
    folder, found = _survey(ctx, folder)
    if found.damage:
        raise BadState(f"{folder / str(found.damage[0])}; `appliance state repair` comes first")
    text = exports.dump(rescue.whole(folder, found.store))
    if output is None:
        click.echo(text, nl=False)
        return
    with _told(output):
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)


@state.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@_folder
@click.pass_context
def import_(ctx: click.Context, file: Path, folder: Path | None) -> None:
    """Make a state from an export (- for standard input).  FOLDER may not hold one yet.

    Numbers of jobs that have results here are not given again.
    """
    config = load_config(ctx)
    folder = folder or config.paths.state
    assert folder is not None
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{file}: {error}") from error
    store = exports.load(text, file.name)
    with _told(folder):
        given = results.newest_number(config.paths.srv / "result", config.lab)
        trio.run(partial(offline.begin, folder, store, given))
    click.echo(f"{folder}: {len(store.jobs)} jobs, {len(store.boxes)} testboxes")


def _survey(ctx: click.Context, folder: Path | None) -> tuple[Path, Survey]:
    config = load_config(ctx)
    folder = folder or config.paths.state
    assert folder is not None
    with _told(folder), offline.reading(folder) as contents:
        found = survey.survey(contents, config.lab)
        if (damage := rescue.damage(folder, found.store)) is not None:
            found.damage.append(damage)
        return folder, found


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the system refuses, as a person is told it."""
    try:
        yield
    except OSError as error:
        raise Refused(f"{error.filename or path}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise archive.trouble(error) from error


def _row(folder: Path, found: Survey) -> dict[str, Any]:
    jobs = found.store.jobs.values()
    return {
        "folder": str(folder),
        "files": [attrs.asdict(file) for file in found.files],
        "jobs": [{"id": job.id, "stage": stage(job.state)} for job in jobs],
        "boxes": list(found.store.boxes),
        "counter": found.store.counter,
        "archived": found.store.archived,
        "torn": found.torn,
        "damage": [attrs.asdict(damage) for damage in found.damage],
    }


def _tell(folder: Path, found: Survey) -> None:
    store = found.store
    click.echo(f"{folder}:")
    for file in found.files:
        unused = "" if file.used else ", no longer used"
        size = shows.size(file.size)
        click.echo(f"  {file.name}  {size}, {_count(file.records, 'whole record')}{unused}")
    stages = Counter(stage(job.state) for job in store.jobs.values())
    words = ", ".join(f"{n} {word}" for word, n in sorted(stages.items()))
    click.echo(
        f"{_count(len(store.jobs), 'job')}{f' ({words})' if words else ''},"
        f" {_count(len(store.boxes), 'testbox', 'testboxes')}; the newest job was number"
        f" {store.counter}"
    )
    if store.archived:
        click.echo(f"{_count(store.archived, 'job')} more in the archive")
    if found.torn:
        click.echo(f"{found.torn}; nobody was told of it")
    for damage in found.damage:
        click.secho(str(damage), fg="red")
        names = list(damage.jobs)
        more = f" and {len(names) - _IDS_SHOWN} more" if len(names) > _IDS_SHOWN else ""
        named = f"; it names {', '.join(names[:_IDS_SHOWN])}{more}" if names else ""
        click.echo(f"  a repair loses {damage.lost or 'nothing more by this'}{named}")
    if found.damage:
        held = [name for name in survey.ids(found.damage) if name not in store.jobs]
        if held:
            more = " ..." if len(held) > _IDS_SHOWN else ""
            click.echo(
                f"jobs that a repair would not bring back: {', '.join(held[:_IDS_SHOWN])}{more}"
            )


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"
