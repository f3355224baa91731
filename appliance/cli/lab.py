"""`appliance status`, `drain` and `resume`: the lab as a whole."""

from __future__ import annotations

import click

from appliance.cli import show as shows
from appliance.cli.wire import connect


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """The lab in one screen."""
    with connect(ctx) as server:
        answer = server.ask("status")
    if as_json:
        shows.as_json(answer)
        return
    click.echo(
        f"lab {answer['lab']}, appliance {answer['version']}, up {shows.ago(answer['since'])}"
    )
    for reason in answer["gate"]:
        click.echo(f"no new jobs are taken: {reason}")
    if answer["drained"]:
        click.echo(f"drained by {answer['drained']}: no job is given out; see `appliance resume`")
    for what in ("boxes", "jobs"):
        counts = ", ".join(f"{n} {word}" for word, n in sorted(answer[what].items())) or "none"
        click.echo(f"{what}: {counts}")


@click.command()
@click.option("--wait", "waits", is_flag=True, help="Until no job holds a testbox any more.")
@click.pass_context
def drain(ctx: click.Context, waits: bool) -> None:
    """Give out no more jobs, also after a restart; those that run go on."""
    with connect(ctx) as server:
        for message in server.follow("drain", wait=waits):
            if "event" in message:
                row = message["event"]["job"]
                left = message["event"]["running"]
                click.echo(f"{left} left; waiting for {row['id']} on {row['box']} ({row['stage']})")
    left = message["result"]["jobs"]
    click.echo(
        f"drained; {len(left)} jobs still hold a testbox" if left else "drained: all is quiet"
    )


@click.command()
@click.pass_context
def resume(ctx: click.Context) -> None:
    """Give out jobs again."""
    with connect(ctx) as server:
        server.ask("resume")
    click.echo("jobs are given out again")
