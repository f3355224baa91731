"""`appliance serve`: the server itself."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from appliance.cli import load_config


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), help="The configuration.")
@click.option("--verbose", is_flag=True, help="Log each request.")
@click.pass_context
def serve(ctx: click.Context, path: Path | None, verbose: bool) -> None:
    """Run the appliance until SIGTERM or SIGINT."""
    from appliance import log, run

    if path is not None:
        ctx.obj = path
    log.begin(verbose=verbose)
    trio.run(run.until_signalled, load_config(ctx))
