"""`appliance hosts` and `appliance host ...`: the testboxes."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import click

from appliance import errors
from appliance.cli import durations
from appliance.cli import show as shows
from appliance.cli.connection import connect
from appliance.cli.show import echo


@click.command()
@click.option("--unknown", is_flag=True, help="Only boxes that nobody registered.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def hosts(ctx: click.Context, unknown: bool, as_json: bool) -> None:
    """List testboxes, known and unknown: the state of each, and since when.

    parked: waits for a job.  booting, running, post_run: works on a job.  returning: its job has
    ended, and it has not asked again yet.  backing-off: a boot failed, and it gets no job for a
    while.  held, quarantined: gets no jobs.  away: has not asked for a long time.
    """
    with connect(ctx) as server:
        rows = server.ask("hosts")["hosts"]
    everybody = rows
    if unknown:
        rows = [row for row in rows if not row["known"]]
    if as_json:
        shows.as_json(rows)
        return
    shows.table(
        ["BOX", "STATE", "FOR", "JOB", "ARCH", "ADDRESS", "MAC", "QUEUES", "PRODUCT", "KEPT"],
        [
            [
                row["name"], row["state"], shows.ago(row["since"]), row["job"], row["arch"],
                row["address"], row["macs"], row["queues"], row["product"], _kept(row),
            ]
            for row in sorted(rows, key=lambda row: (not row["known"], row["name"]))
        ],
    )  # fmt: skip
    if any(not row["known"] for row in rows):
        echo("\nMake an unknown box known: appliance host add NAME --mac MAC", err=True)
    for row in rows:
        if row["says"]:
            echo(_confirm(row, everybody), err=True)


def _kept(row: dict[str, Any]) -> str:
    """Says why a box gets no jobs or only some, and which name an unknown box claims."""
    says = f"says it is {row['says']} (UUID)" if row["says"] else ""
    return "; ".join(word for word in (row["kept"], says) if word)


def _confirm(row: dict[str, Any], everybody: list[dict[str, Any]]) -> str:
    """Returns the command that confirms the name an unknown box claims."""
    macs = [mac for one in everybody if one["name"] == row["says"] for mac in one["macs"]]
    words = " ".join(f"--mac {mac}" for mac in (*macs, *row["macs"]))
    return f"If {row['name']} is {row['says']}: appliance host add {row['says']} {words}"


@click.group()
def host() -> None:
    """Manage one testbox: register, show, preview its next boot, hold or reserve it."""


@host.command(short_help="Register a testbox, or change its settings.")
@click.argument("name", required=False)
@click.option("--mac", "macs", multiple=True, help="Its MAC address; repeat for each network card.")
@click.option(
    "--from",
    "source",
    type=click.File(encoding="utf-8", errors="replace"),
    help="Add every testbox of a CSV list, or none.  Its first line is `name,mac,arch,...`.",
)
@click.option("--replace", is_flag=True, help="Replace its MACs by the given ones.")
@click.option(
    "--arch",
    type=click.Choice(["x86_64", "aarch64"]),
    help="Its architecture, if boot.ipxe cannot tell.",
)
@click.option("--uuid", help="Its SMBIOS UUID; `hosts` says if an unknown card reports it.")
@click.option(
    "--queue", "queues", multiple=True, help="A queue it serves besides its own name; repeatable."
)
@click.option("--tag", "tags", multiple=True, help="A tag that jobs may ask for; repeatable.")
@click.option("--console", multiple=True, help="Kernel console, instead of its arch's; repeatable.")
@click.option("--kernel-params", help="Extra parameters for its kernel command line.")
@click.option("--ipxe", help="Its own iPXE: a file, or a name below ipxe/ in the tftp root.")
@click.pass_context
def add(
    ctx: click.Context, /, name: str | None, source: IO[str] | None, replace: bool, **fields: Any
) -> None:
    """Register a testbox.  A parked box stays parked and becomes known.

    For a known box, only the given options change.
    """
    if source is not None:
        if name or any(fields.values()):
            raise click.UsageError("with --from, everything stands in the list")
        with connect(ctx) as server:
            rows = server.ask("host-add", list=source.read(), replace=replace)["hosts"]
        shows.table(["BOX", "STATE", "MAC"], [[r["name"], r["state"], r["macs"]] for r in rows])
        return
    if not name or not (fields["macs"] or name.startswith("dc-")):
        raise click.UsageError("wanted: NAME and --mac MAC, or --from LIST")
    wanted = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in fields.items()
        if value
    }
    with connect(ctx) as server:
        answer = server.ask("host-add", name=name, replace=replace, **wanted)
    row = answer["host"]
    if answer.get("replaced"):
        echo(f"MACs: {', '.join(answer['replaced'])} -> {', '.join(row['macs'])}")
    echo(f"{row['name']} is known, now {row['state']}; see {answer['file']}")


@host.command()
@click.argument("box")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Use this file's text instead of starting an editor.",
)
@click.pass_context
def edit(ctx: click.Context, box: str, source: Path | None) -> None:
    """Edit the hosts file of BOX in $VISUAL or $EDITOR.

    The text is checked before it takes effect.  For a mistake the command prints file, line and
    what would be right, and changes nothing; it keeps your text and says where.
    """
    with connect(ctx) as server:
        before = server.ask("host-file", host=box)
    if source is not None:
        _change(ctx, before, source.read_text(encoding="utf-8"))
        return
    # The name comes from the server: it must not lead root to write elsewhere.
    prefix = f"appliance-{Path(before['name']).name}-"
    descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=".yaml")
    draft = Path(name)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(before["text"])
    while True:
        click.edit(filename=str(draft))
        text = draft.read_text(encoding="utf-8")
        if text == before["text"]:
            draft.unlink()
            echo("nothing was changed")
            return
        try:
            _change(ctx, before, text)
        except errors.ApplianceError as error:
            if sys.stdin.isatty():
                echo(f"appliance: {error}", err=True)
                if click.confirm("edit it again?", default=True, err=True):
                    continue
            again = f"appliance host edit {before['name']} --from {draft}"
            echo(f"what you wrote is kept: {again}", err=True)
            raise
        draft.unlink()
        return


def _change(ctx: click.Context, before: dict[str, Any], text: str) -> None:
    with connect(ctx) as server:
        answer = server.ask("host-edit", host=before["name"], text=text, before=before["text"])
    row = answer["host"]
    echo(f"{answer['file']} is in effect; {row['name']} is {row['state']}")


@host.command(short_help="Unregister a testbox.")
@click.argument("box")
@click.pass_context
def remove(ctx: click.Context, box: str) -> None:
    """Unregister BOX: its hosts file is removed, and it gets no more jobs."""
    with connect(ctx) as server:
        row = server.ask("host-remove", host=box)["host"]
    echo(f"{row['name']} is unknown, now {row['state']}")


@host.command()
@click.argument("box")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(ctx: click.Context, box: str, as_json: bool) -> None:
    """Show BOX (a name or MAC) and its last boots, step by step."""
    with connect(ctx) as server:
        answer = server.ask("host-show", host=box)
    if as_json:
        shows.as_json(answer)
        return
    row = answer["host"]
    echo(f"{row['name']}  {row['state']} for {shows.ago(row['since'])}")
    if row["says"]:
        echo(f"  says it is {row['says']}, by its UUID; nothing else speaks for that")
    for name in ("kept", "macs", "arch", "address", "queues", "uuid", "serial", "product"):
        value = row[name]
        if value:
            echo(f"  {name:8} {', '.join(value) if isinstance(value, list) else value}")
    for boot in answer["boots"]:
        _boot(boot)


def _boot(boot: dict[str, Any]) -> None:
    job = f"  {boot['job']}, attempt {boot['attempt']}" if boot["job"] else ""
    echo(f"\n{shows.clock(boot['began'])}  asked for work{job}")
    for step in boot["steps"]:
        line = f"  +{step['at'] - boot['began']:7.1f} s  {step['what']:8} {step['detail']}"
        if "bytes" in step:
            line += f"  {shows.size(step['bytes'])}"
        if step.get("seconds"):
            line += f" at {shows.size(step['bytes'] / step['seconds'])}/s"
        echo(line)
    if boot["ended"]:
        last = boot["steps"][-1]["what"] if boot["steps"] else "the question"
        echo(f"  stopped after {last}: {boot['ended']}")


@host.command(short_help="Show the boot script that a testbox would get now.")
@click.argument("box")
@click.option("--job", help="Preview this job instead of the next one.")
@click.pass_context
def preview(ctx: click.Context, box: str, job: str | None) -> None:
    """Show the boot script that BOX would get now; no job is given out."""
    with connect(ctx) as server:
        answer = server.ask("host-preview", host=box, job=job)
    echo(f"# {answer['why']}", err=True)
    echo(answer["script"], nl=False)


@host.command(short_help="Give a testbox no jobs for a while.")
@click.argument("box")
@click.option("--for", "whom", help="The person who uses it; shown to others.")
@click.option("--until", required=True, help="12h, 7d, or a date and time.")
@click.pass_context
def hold(ctx: click.Context, box: str, whom: str | None, until: str) -> None:
    """Give BOX no jobs for a while; a job that runs on it goes on.

    The hold ends at --until, or with `appliance host release`.  Only root may.
    """
    why = f"for {whom}" if whom else ""
    with connect(ctx) as server:
        row = server.ask("host-reserve", host=box, why=why, **durations.until(until))["host"]
    echo(f"{row['name']} is {row['kept']}, now {row['state']}")


@host.command()
@click.argument("box")
@click.option("--for", "whom", required=True, help="Only this submitter's jobs run on it.")
@click.option("--until", required=True, help="12h, 7d, or a date and time.")
@click.pass_context
def reserve(ctx: click.Context, box: str, whom: str, until: str) -> None:
    """Reserve BOX for one submitter's jobs for a while.

    The reservation ends at --until, or with `appliance host release`.  Only root may.
    """
    with connect(ctx) as server:
        answer = server.ask("host-reserve", host=box, **durations.until(until), **{"for": whom})
    row = answer["host"]
    echo(f"{row['name']} is {row['kept']}, now {row['state']}")


@host.command(short_help="Give a testbox jobs again.")
@click.argument("box")
@click.pass_context
def release(ctx: click.Context, box: str) -> None:
    """Give BOX jobs again: end its quarantine, hold, reservation and back-off."""
    with connect(ctx) as server:
        row = server.ask("host-release", host=box)["host"]
    echo(f"{row['name']} gets jobs again, now {row['state']}")
