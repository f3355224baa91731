"""`appliance serve`: the server itself."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli import load_config
from appliance.errors import ApplianceError


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--verbose", is_flag=True, help="Log each request; see also `appliance log-level`.")
@click.pass_context
def serve(ctx: click.Context, path: Path | None, verbose: bool) -> None:
    """Run the server until SIGTERM or SIGINT.

    When stopping, the server answers every parked box with a script that makes it ask again, lets
    transfers end (a minute at most), and writes a last snapshot.  Under systemd it uses socket
    activation, reports when it is ready, and logs to the journal with fields.
    """
    import trio

    from appliance import log, run

    if path is not None:
        ctx.obj = path
    log.begin(verbose=verbose)
    try:
        trio.run(run.until_signalled, load_config(ctx))
    except BaseExceptionGroup as group:
        known, other = group.split(ApplianceError)
        if other is not None or known is None:
            raise
        raise _first(known) from None  # an expected error, not a bug: no traceback


def _first(group: BaseExceptionGroup[ApplianceError]) -> ApplianceError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
