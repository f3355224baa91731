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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show the lab in one screen: problems, testboxes, waiting and running jobs, disk space.

    Exit code 5 if no server answers.  Problems in the lab are shown and leave the exit code 0.
    """
    with connect(ctx) as server:
        answer = server.ask("status")
    if as_json:
        shows.as_json(answer)
        return
    for line in screen(answer):
        secho(line, fg="red" if line.startswith("! ") else None)


def screen(answer: Mapping[str, Any]) -> list[str]:
    """Formats the answer of `status` as lines; lines about problems begin with `! `."""
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
@click.option("--wait", "waits", is_flag=True, help="Wait until no job holds a testbox.")
@click.pass_context
def drain(ctx: click.Context, waits: bool) -> None:
    """Start no more jobs, even after a restart; running jobs go on.

    Boxes stay parked, and new jobs are accepted.  With --wait the command names the jobs it waits
    for, and ends when no job holds a testbox.  `appliance resume` ends the drain.  Only root may.
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
    """Start jobs again after `appliance drain`.  Only root may."""
    with connect(ctx) as server:
        server.ask("resume")
    echo("jobs are given out again")


@click.command("log-level")
@click.argument("level", required=False, type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--for", "length", help="Only for this long, then as before: 10m, 2h.")
@click.pass_context
def log_level(ctx: click.Context, level: str | None, length: str | None) -> None:
    """Change the running server's log level; without LEVEL, show it.

    At debug the server logs each request.  A restart sets the level to info.
    """
    if length is not None and level is None:
        raise click.UsageError("--for needs a LEVEL")
    seconds = durations.length(length) if length is not None else None
    with connect(ctx) as server:
        answer = server.ask("log-level", level=level, seconds=seconds)
    back = f", {answer['then']} again in {length}" if length is not None else ""
    echo(f"{answer['level']}{back}")
