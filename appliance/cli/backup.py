"""`appliance backup` and `appliance restore`: state and configuration in one file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from appliance import errors
from appliance.cli import load_config
from appliance.cli import show as shows
from appliance.cli.connection import connect
from appliance.cli.show import echo
from appliance.jobs.job import Finished


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_context
def backup(ctx: click.Context, file: Path) -> None:
    """Write state, configuration and hosts files of the running server to FILE.

    FILE holds jobs, testboxes and the archive of finished jobs as of one moment, but no images
    and no results.  FILE contains the secrets of jobs; only its owner may read it.  Run this
    command on the lab server, as root.
    """
    from appliance import config as configuration
    from appliance.keep.repair import backup as backups

    if ctx.find_root().params.get("host"):
        raise errors.BadRequest(
            "the configuration lies on the lab server: run it there, without -H"
        )
    with connect(ctx) as server, backups.Writer(file) as writer:
        messages = server.follow("backup")
        first = next(messages)
        while "event" in first:
            name = str(first["event"]["file"])
            after: list[dict[str, Any]] = []
            writer.add(name, _data(messages, after))
            first = after[0]
        path = configuration.path_of(ctx.obj)
        if path.exists():
            writer.add(backups.CONFIGURATION, [path.read_bytes()])
        about = dict(first["result"])
        writer.finish({**about, "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
    size = shows.size(file.stat().st_size)
    jobs = about["jobs"] + about["archived"]
    echo(f"{file}: {size}; {jobs} jobs, {shows.testboxes(about['boxes'])} of lab {about['lab']}")


def _data(messages: Iterator[dict[str, Any]], after: list[dict[str, Any]]) -> Iterator[bytes]:
    """Yields the pieces of one file; appends the message that follows them to `after`."""
    for message in messages:
        if "event" not in message or "data" not in message["event"]:
            after.append(message)
            return
        yield message["event"]["data"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--yes", is_flag=True, help="Move existing files aside; nothing is deleted.")
@click.pass_context
def restore(ctx: click.Context, file: Path, yes: bool) -> None:
    """Restore state and configuration from the backup FILE.  The server must be stopped.

    If files are in the way, the command names them and refuses; with --yes it moves them into a
    folder beside the state and prints the folder's name.  A damaged or truncated FILE changes
    nothing.
    """
    from appliance import config as configuration
    from appliance.keep.repair import backup as backups
    from appliance.keep.repair import restore as restores

    path = configuration.path_of(ctx.obj)
    with backups.opened(file) as found:
        if not path.exists() and backups.CONFIGURATION in found.zip.namelist():
            text = found.read(backups.CONFIGURATION).decode()
            config = configuration.parse(text, f"{file}: {backups.CONFIGURATION}")
        else:
            config = load_config(ctx)
        aside = restores.restore(config, found, path, replace=yes)
        about, store = found.about, found.store
    jobs = about["jobs"] + about["archived"]
    echo(f"restored {jobs} jobs and {shows.testboxes(about['boxes'])}, as of {about['made']}")
    if again := sum(not isinstance(job.state, Finished) for job in store.jobs.values()):
        echo(f"{again} of them were not over then: what has ended since runs again")
    echo(f"the next job will be {config.lab}.{store.counter + 1}")
    if aside is not None:
        echo(f"what was there before is in {aside}")
