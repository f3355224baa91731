"""`appliance doctor`: finds what is wrong with this lab, and says how to fix it."""

from __future__ import annotations

import sys

import click

from appliance.cli import load_config
from appliance.cli import show as shows
from appliance.cli.show import echo, secho
from appliance.errors import FAILED

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red", "skipped": None}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--all", "everything", is_flag=True, help="Show what is fine, too.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, everything: bool) -> None:
    """Check this lab, before or after an install.  Nothing is changed.

    Each finding says what was checked, what was found, what that means, and the command that
    fixes it.  Run as root, the command sees more: it asks the network for an address as a testbox
    would, without taking a lease.  Checks that could not be made are listed with the reason.

    Exit codes: 0 no errors (there may be warnings), 1 at least one error, 2 the configuration
    cannot be read.
    """
    from appliance.doctor import findings, look

    config = load_config(ctx)

    def say(what: str) -> None:
        if sys.stderr.isatty() and not as_json:
            echo(f"\r\033[Klooking at {what}", nl=False, err=True)

    found = look.look(config, say)
    if sys.stderr.isatty() and not as_json:
        echo("\r\033[K", nl=False, err=True)
    counts = findings.counts(found)
    if as_json:
        shows.as_json({"findings": [finding.row for finding in found], **counts})
    else:
        for finding in found:
            if everything or finding.level != findings.OK:
                _tell(finding)
        told = ", ".join(f"{n} {level}" for level, n in counts.items() if n)
        echo(f"{len(found)} things looked at: {told}")
    if counts[findings.ERROR]:
        ctx.exit(FAILED)


def _tell(finding: object) -> None:
    from appliance.doctor.findings import Finding

    assert isinstance(finding, Finding)
    secho(f"{finding.level:8}", fg=_COLOURS[finding.level], bold=True, nl=False)
    echo(f" {finding.looked_at}: {finding.found}")
    for word, text in (("means", finding.means), ("mend", finding.mend)):
        if text:
            echo(f"         {word}: {text}")
