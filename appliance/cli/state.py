"""`appliance state`: the state on the disk, while no server uses it."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from appliance.cli import load_config
from appliance.cli import show as shows
from appliance.errors import FAILED, BadRequest, BadState, Refused
from appliance.fs import atomic

_folder = click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))


@click.group()
def state() -> None:
    """Check, repair, export or import the state on the disk.  The server must be stopped.

    FOLDER is by default the configuration's state folder.
    """


@state.command()
@_folder
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(ctx: click.Context, folder: Path | None, as_json: bool) -> None:
    """Show what the state holds and what is damaged.

    Exit code 0 if a server would start, else 1.
    """
    from appliance.cli import state_report

    folder, found = state_report.survey(load_config(ctx), folder)
    if as_json:
        shows.as_json(state_report.row(folder, found))
    else:
        state_report.tell(folder, found)
    if found.damage:
        ctx.exit(FAILED)


@state.command()
@_folder
@click.option("--yes", is_flag=True, help="Repair; without it, only say what would be lost.")
@click.pass_context
def repair(ctx: click.Context, folder: Path | None, yes: bool) -> None:
    """Say what a repair would lose; with --yes, repair.  No file is deleted.

    Exit code 0 if the state is sound or was repaired, 1 if it is damaged and --yes is missing.
    """
    import trio

    from appliance.cli import state_report
    from appliance.keep.repair import offline

    folder, found = state_report.survey(load_config(ctx), folder)
    state_report.tell(folder, found)
    if not found.damage:
        click.echo("nothing to repair")
    elif not yes:
        click.echo("nothing was changed; `appliance state repair --yes` does it")
        ctx.exit(FAILED)
    else:
        with state_report.told(folder):
            kept = trio.run(offline.repair, folder, found)
        click.echo(f"repaired; the files as they were are in {kept}")


@state.command()
@_folder
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file."
)
@click.pass_context
def export(ctx: click.Context, folder: Path | None, output: Path | None) -> None:
    """Print the state as readable JSON.  The output contains the secrets of jobs."""
    from appliance.cli import state_report
    from appliance.fs import plain_files
    from appliance.keep.repair import export as exports
    from appliance.keep.repair import rescue

    if output is not None and (what := plain_files.kind(output)):
        raise Refused(f"{output}: is {what}, and must be a file or nothing yet")
    folder, found = state_report.survey(load_config(ctx), folder)
    if found.damage:
        raise BadState(f"{folder / str(found.damage[0])}; `appliance state repair` comes first")
    with state_report.told(folder):
        text = exports.dump(rescue.whole(folder, found.store))
    if output is None:
        click.echo(text, nl=False)
        return
    with state_report.told(output):
        atomic.put(output, [text.encode()])  # readable only by its owner: documents hold secrets


@state.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@_folder
@click.pass_context
def import_(ctx: click.Context, file: Path, folder: Path | None) -> None:
    """Make a state from an export (- for standard input).  FOLDER must not hold a state yet.

    Job numbers that have results on this server are not used again.
    """
    import trio

    from appliance.cli import state_report
    from appliance.fs import owner
    from appliance.keep import results
    from appliance.keep.repair import export as exports
    from appliance.keep.repair import offline

    config = load_config(ctx)
    folder = folder or config.paths.state
    assert folder is not None
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{file}: {error}") from error
    store = exports.load(text, file.name)
    with state_report.told(folder):
        with owner.acting(config.paths.srv / "result"):
            given = results.newest_number(config.paths.srv / "result", config.lab)
        trio.run(partial(offline.begin, folder, store, given))
    click.echo(f"{folder}: {len(store.jobs)} jobs, {shows.testboxes(len(store.boxes))}")
