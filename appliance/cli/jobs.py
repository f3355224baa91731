"""`appliance jobs`, `show`, `cancel` and `renew`."""

from __future__ import annotations

import getpass
import time
from typing import Any

import click

from appliance.cli import durations, each
from appliance.cli import show as shows
from appliance.cli.connection import connect
from appliance.cli.show import echo, secho


@click.command()
@click.option("--mine", is_flag=True, help="Only jobs that I submitted.")
@click.option("--failed", is_flag=True, help="Only jobs that ended without success.")
@click.option("--stage", multiple=True, help="submit, offered, boot, running, post_run, finish.")
@click.option("--box", help="Only jobs of this testbox.")
@click.option("--queue", help="Only jobs of this queue.")
@click.option("--since", help="Only jobs submitted within the last 90s, 30m, 12h, 7d.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many (default 1000).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def jobs(ctx: click.Context, /, mine: bool, failed: bool, as_json: bool, **wanted: Any) -> None:
    """List jobs, newest first."""
    since = time.time() - durations.length(wanted["since"]) if wanted["since"] else None
    with connect(ctx) as server:
        answer = server.ask(
            "jobs",
            user=getpass.getuser() if mine else None,
            failed=failed or None,
            state=list(wanted["stage"]),
            box=wanted["box"],
            queue=wanted["queue"],
            since=since,
            limit=wanted["limit"],
        )
    if lacks := answer.get("lacks"):
        secho(f"some are not shown: {lacks}", err=True, fg="red")
    if as_json:
        shows.as_json(answer["jobs"])
        return
    shows.table(
        ["JOB", "SUITE", "BY", "AGE", "STAGE", "HEALTH", "BOX", "QUEUE", "OS", "WHY"],
        [
            [
                row["id"], row["suite"], row["submitter"], shows.ago(row["submitted"]),
                row["stage"], row["health"], row["box"], row["queue"],
                f"{row['os']} {row['arch']}", row["reason"] or "",
            ]
            for row in answer["jobs"]
        ],
    )  # fmt: skip


@click.command()
@click.argument("job")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(ctx: click.Context, job: str, as_json: bool) -> None:
    """Show one job: its document, attempts and history."""
    with connect(ctx) as server:
        answer = server.ask("show", job=job)
    if as_json:
        shows.as_json(answer)
        return
    row = answer["job"]
    for name in ("id", "suite", "submitter", "stage", "health", "reason", "lacking", "box",
                 "result_root"):  # fmt: skip
        if row[name]:
            echo(f"{name:12} {row[name]}")
    echo()
    for moment in answer["history"]:
        box = f" on {moment['box']}, attempt {moment['attempt']}" if moment["box"] else ""
        what = f"  {moment['what']}" if moment["what"] else ""
        echo(f"{shows.clock(moment['at'])}  {moment['stage']}{box}{what}")


@click.command()
@click.argument("jobs", nargs=-1, required=True)
@click.pass_context
def cancel(ctx: click.Context, jobs: tuple[str, ...]) -> None:
    """Cancel JOBS.  A testbox that runs one of them notices within ten seconds and reboots."""
    with connect(ctx) as server:

        def give_up(job: str) -> None:
            row = server.ask("cancel", job=job)["job"]
            echo(f"{row['id']} {row['health']}")

        ctx.exit(each(jobs, give_up))


@click.command()
@click.argument("job")
@click.argument("length")
@click.pass_context
def renew(ctx: click.Context, job: str, length: str) -> None:
    """Give a running JOB more time: LENGTH such as 90s, 30m, 12h."""
    with connect(ctx) as server:
        row = server.ask("renew", job=job, seconds=durations.length(length))["job"]
    echo(f"{row['id']} has {length} more")
