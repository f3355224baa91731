"""`appliance results`: the files that a job uploaded."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from appliance.cli import durations, show
from appliance.cli.connection import connect
from appliance.cli.show import echo
from appliance.control.client import Server
from appliance.errors import BadRequest


@click.command()
@click.argument("job", metavar="JOB|gc")
@click.argument(
    "action", type=click.Choice(["list", "cat", "fetch", "keep", "unkeep"]), default="list"
)
@click.argument("paths", nargs=-1)
@click.option(
    "--to", type=click.Path(path_type=Path), help="fetch: into this folder (default ./JOB)."
)
@click.option(
    "--older-than", "older", help="gc: jobs that ended this long ago or earlier: 30d, 12h."
)
@click.option("--dry-run", is_flag=True, help="gc: only say what it would remove.")
@click.option("--json", "as_json", is_flag=True, help="list, gc: print JSON.")
@click.pass_context
def results(
    ctx: click.Context,
    job: str,
    action: str,
    paths: tuple[str, ...],
    to: Path | None,
    older: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Show the results of JOB: list them, cat PATHS to stdout, or fetch all or PATHS to a folder.

    keep: `results gc` never removes them; unkeep: it may again.
    gc: remove the results of all jobs that ended before --older-than.
    """
    with connect(ctx) as server:
        if job == "gc":
            _sweep(server, older, dry_run=dry_run, as_json=as_json)
            return
        if action in ("keep", "unkeep"):
            server.ask("results-keep", job=job, on=action == "keep")
            return
        listed = server.ask("results", job=job)
        _warn(job, listed)
        if action == "list" and as_json:
            show.as_json(listed)
        elif action == "list":
            echo(listed["root"])
            rows = [[file["path"], show.size(file["size"])] for file in listed["files"]]
            show.table(["FILE", "SIZE"], rows)
        elif action == "cat":
            if not paths:
                raise BadRequest("name what to print: appliance results JOB cat stdout")
            for path in paths:
                _cat(_parts(server, job, path))
        else:
            folder = to or Path(job)
            for path in paths or [file["path"] for file in listed["files"]]:
                _fetch(server, job, path, folder)
            echo(str(folder))


def _warn(job: str, listed: dict[str, Any]) -> None:
    """Warns that some or all results of the job are missing."""
    if listed.get("swept") is not None:
        echo(f"{job}: `results gc` removed them {show.ago(listed['swept'])} ago", err=True)
    if listed.get("lacking"):
        echo(f"{job}: not all of them: {listed['lacking']}", err=True)


def _sweep(server: Server, older: str | None, *, dry_run: bool, as_json: bool) -> None:
    if older is None:
        raise BadRequest("say how old: appliance results gc --older-than 30d")
    rows = server.ask("results-gc", older=durations.length(older), dry_run=dry_run)["jobs"]
    if as_json:
        show.as_json(rows)
        return
    show.table(["JOB", "SIZE", "FOLDER"],
               [[row["job"], show.size(row["bytes"]), row["root"]] for row in rows])  # fmt: skip
    total = show.size(sum(row["bytes"] for row in rows))
    echo(f"{'would free' if dry_run else 'freed'} {total}")


def _cat(parts: Iterator[bytes]) -> None:
    """Writes the bytes to stdout; on a terminal, without control characters."""
    if not _is_terminal():
        for data in parts:
            sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    for data in parts:
        show.echo(decoder.decode(data).replace("\r\n", "\n"), nl=False)
    show.echo(decoder.decode(b"", final=True), nl=False)


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _parts(server: Server, job: str, path: str) -> Iterator[bytes]:
    offset: int | None = 0
    while offset is not None:
        part = server.ask("read", job=job, path=path, offset=offset)
        yield part["data"]
        offset = part["next"]


def _fetch(server: Server, job: str, path: str, folder: Path) -> None:
    target = (folder / path).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise BadRequest(f"{path} leads out of {folder}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        for data in _parts(server, job, path):
            file.write(data)
