"""`appliance submit` and `appliance wait`."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any, Final

import click

from appliance.cli import each, show
from appliance.cli.connection import connect
from appliance.cli.show import echo, secho
from appliance.control.client import Server
from appliance.errors import FAILED, USAGE, BadDocument, BadRequest, NotRunning, Unknown

# systemd keeps the sockets open while the server restarts.  A rollback closes them while transfers
# end (waits.shutdown_transfers, 60 s) and for some seconds of starting.
BACK_S: Final = 90.0
ASK_AGAIN_S: Final = 1.0


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="[KEY=VALUE...] FILE... [KEY=VALUE...]")
@click.option("--wait", "waits", is_flag=True, help="Follow the jobs until they end.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--key", help="Names this submit: repeating it with the same key makes no new jobs.")
@click.pass_context
def submit(
    ctx: click.Context, words: tuple[str, ...], waits: bool, as_json: bool, key: str | None
) -> None:
    """Submit job documents: YAML files, or - for standard input.

    KEY=VALUE before the first file is a default, which files override; after the first file,
    KEY=VALUE overrides the files.
    """
    documents = _documents(words)
    key = key or secrets.token_hex(16)
    with connect(ctx) as server:
        try:
            answer = server.ask("submit", documents=documents, key=key)
        except (Unknown, NotRunning) as error:
            raise Unknown(
                f"{error}\nIt is not known whether the jobs were taken."
                f" To find them, or else submit them, say the same again with --key {key}"
            ) from error
        except BadDocument as error:
            for problem in error.problems:
                echo(f"appliance: {problem}", err=True)
            ctx.exit(USAGE)
        for warning in answer["warnings"]:
            echo(f"appliance: {warning}", err=True)
        if not waits and as_json:
            show.as_json(answer["jobs"])
        elif not waits:
            for job in answer["jobs"]:
                echo(f"{job['id']}  {job['result_root']}")
        else:
            rows = [_follow(ctx, server, job["id"], quiet=as_json) for job in answer["jobs"]]
            if as_json:
                show.as_json(rows)
            if any(row["health"] != "success" for row in rows):
                ctx.exit(FAILED)


def _documents(words: tuple[str, ...]) -> list[dict[str, Any]]:
    """Reads the files among `words`, with the values before and after the first file."""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    files: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if equals and not os.path.exists(word):  # Path.exists() raises for a long value
            (after if files else before)[name] = value
        else:
            files.append(word)
    if not files:
        raise BadRequest("name at least one job document: appliance submit FILE")
    return [
        {"name": Path(file).name, "text": _text(file), "defaults": before, "overrides": after}
        for file in files
    ]


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise BadRequest(f"{file}: no such file") from error
    except OSError as error:
        raise BadRequest(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"{file}: is no UTF-8 (byte {error.start}): save it as UTF-8") from error


@click.command()
@click.argument("jobs", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def wait(ctx: click.Context, jobs: tuple[str, ...], as_json: bool) -> None:
    """Follow JOBS until they end.  Exit code 0 if all succeeded, else 1."""
    rows: list[dict[str, Any]] = []
    with connect(ctx) as server:
        code = each(jobs, lambda job: rows.append(_follow(ctx, server, job, quiet=as_json)))
    if as_json:
        show.as_json(rows)
    if code:
        ctx.exit(code)
    if any(row["health"] != "success" for row in rows):
        ctx.exit(FAILED)


def _follow(ctx: click.Context, server: Server, job: str, *, quiet: bool) -> dict[str, Any]:
    """Prints what happens to a job until it ends; returns its row.

    Reconnects if the server restarts.  Raises NotRunning if none answers for BACK_S.
    """
    told = 0
    there: Server | None = server
    until: float | None = None  # when to give up, while no server answers
    with contextlib.ExitStack() as stack:
        while True:
            try:
                there = there or stack.enter_context(connect(ctx))
                for number, message in enumerate(there.follow("wait", job=job)):
                    until = None
                    if "result" in message:
                        return _over(message["result"]["job"], quiet=quiet)
                    if number >= told and not quiet:
                        _happened(job, message["event"])
                    told = max(told, number + 1)
            except NotRunning as error:
                there = None
                if until is None:
                    echo(f"appliance: {error}; asking again", err=True)
                    until = time.monotonic() + BACK_S
                elif time.monotonic() > until:
                    raise NotRunning(f"{error}\nTo go on later: appliance wait {job}") from error
                time.sleep(ASK_AGAIN_S)


def _over(row: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    if not quiet:
        reason = f": {row['reason']}" if row["reason"] else ""
        colour = "green" if row["health"] == "success" else "red"
        secho(f"{row['id']} {row['health']}{reason}", fg=colour)
    return row


def _happened(job: str, event: dict[str, Any]) -> None:
    box = f" on {event['box']}" if event["box"] else ""
    what = f"  {event['what']}" if event["what"] else ""
    echo(f"{show.clock(event['at'])}  {job}  {event['stage']}{box}{what}")
