"""`appliance status`, `drain` and `resume`: the lab as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from appliance.cli import durations
from appliance.cli import show as shows
from appliance.cli.connection import connect
from appliance.cli.show import echo, secho


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """The lab in one screen: what is wrong, what boxes do, what waits, what runs, the disk.

    Exit code 5 where no server answers; trouble in the lab is told, and no failure of the command.
    """
    with connect(ctx) as server:
        answer = server.ask("status")
    if as_json:
        shows.as_json(answer)
        return
    for line in screen(answer):
        secho(line, fg="red" if line.startswith("! ") else None)


def screen(answer: Mapping[str, Any]) -> list[str]:
    """The answer of `status`, as lines; what is wrong begins with `! `."""
    lines = [f"lab {answer['lab']}, appliance {answer['version']}, up {shows.ago(answer['since'])}"]
    lines += [f"! {text}" for text in answer["wrong"]]
    for what in ("boxes", "jobs"):
        counts = ", ".join(f"{n} {word}" for word, n in sorted(answer[what].items())) or "none"
        lines.append(f"{what}: {counts}")
    if (oldest := answer["oldest"]) is not None:
        lines.append(
            f"oldest waiting: {oldest['id']} for {shows.ago(oldest['submitted'])},"
            f" {oldest['submitter']}'s, in {oldest['queue']} on {oldest['arch']}"
        )
    holding = sum(n for word, n in answer["jobs"].items() if word not in ("submit", "finish"))
    for row in answer["running"]:
        on = f"{row['id']:10} {row['stage']:12} {row['box']}"
        lines.append(f"  {on:40} {row['suite'] or ''} for {row['submitter']}")
    if holding > len(answer["running"]):
        lines.append(f"  and {holding - len(answer['running'])} more")
    for disk in answer["disks"]:
        what, free = ", ".join(disk["what"]), shows.size(disk["free"])
        lines.append(f"disk: {free} of {shows.size(disk['size'])} free for {what}")
    if answer["log_level"] != "info":
        lines.append(f"log level: {answer['log_level']}")
    return lines


@click.command()
@click.option("--wait", "waits", is_flag=True, help="Until no job holds a testbox any more.")
@click.pass_context
def drain(ctx: click.Context, waits: bool) -> None:
    """Give out no more jobs, also after a restart; those that run go on.

    Boxes stay parked and submits are taken.  With --wait it is told who is waited for, and ends
    when the lab is quiet.  `appliance resume` ends it.  Only root may.
    """
    with connect(ctx) as server:
        for message in server.follow("drain", wait=waits):
            if "event" in message:
                row = message["event"]["job"]
                left = message["event"]["running"]
                echo(f"{left} left; waiting for {row['id']} on {row['box']} ({row['stage']})")
    left = message["result"]["jobs"]
    echo(f"drained; {len(left)} jobs still hold a testbox" if left else "drained: all is quiet")


@click.command()
@click.pass_context
def resume(ctx: click.Context) -> None:
    """Give out jobs again, after `appliance drain`.  Only root may."""
    with connect(ctx) as server:
        server.ask("resume")
    echo("jobs are given out again")


@click.command("log-level")
@click.argument("level", required=False, type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--for", "length", help="For so long, then as before: 10m, 2h.")
@click.pass_context
def log_level(ctx: click.Context, level: str | None, length: str | None) -> None:
    """Change what the running server logs; without LEVEL, say what it is.

    At debug it logs each request.  A restart begins with info again.
    """
    if length is not None and level is None:
        raise click.UsageError("--for needs a LEVEL")
    seconds = durations.length(length) if length is not None else None
    with connect(ctx) as server:
        answer = server.ask("log-level", level=level, seconds=seconds)
    back = f", {answer['then']} again in {length}" if length is not None else ""
    echo(f"{answer['level']}{back}")
