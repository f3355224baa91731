"""`appliance results`: what a job left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from appliance.cli import show
from appliance.cli.wire import Server, connect
from appliance.errors import BadRequest


@click.command()
@click.argument("job")
@click.argument("action", type=click.Choice(["list", "cat", "fetch"]), default="list")
@click.argument("paths", nargs=-1)
@click.option("--to", type=click.Path(path_type=Path), help="fetch: into this folder (./JOB).")
@click.option("--json", "as_json", is_flag=True, help="list: for programs.")
@click.pass_context
def results(
    ctx: click.Context,
    job: str,
    action: str,
    paths: tuple[str, ...],
    to: Path | None,
    as_json: bool,
) -> None:
    """The results of JOB: list them, cat PATHS to stdout, or fetch all or PATHS into a folder."""
    with connect(ctx) as server:
        listed = server.ask("results", job=job)
        if action == "list" and as_json:
            show.as_json(listed)
        elif action == "list":
            click.echo(listed["root"])
            rows = [[file["path"], show.size(file["size"])] for file in listed["files"]]
            show.table(["FILE", "SIZE"], rows)
        elif action == "cat":
            if not paths:
                raise BadRequest("name what to print: appliance results JOB cat stdout")
            for path in paths:
                for data in _parts(server, job, path):
                    sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            folder = to or Path(job)
            for path in paths or [file["path"] for file in listed["files"]]:
                _fetch(server, job, path, folder)
            click.echo(str(folder))


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
