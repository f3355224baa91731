"""`appliance image`: build, import, list, check."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli import load_config


@click.group()
def image() -> None:
    """The root filesystems that boxes boot."""


@image.command()
@click.argument("system", metavar="OS", type=click.Choice(["debian"]))
@click.argument("version")
@click.argument("arch")
@click.option("--mirror", metavar="URI", help="Where packages come from; else apt's own sources.")
@click.option("--srv", type=click.Path(path_type=Path), help="Instead of the configuration's.")
@click.pass_context
def build(
    ctx: click.Context, system: str, version: str, arch: str, mirror: str | None, srv: Path | None
) -> None:
    """Build an image from packages: appliance image build debian 12 x86_64."""
    from appliance.boot import image_build

    place = srv.absolute() if srv is not None else load_config(ctx).paths.srv
    made = image_build.build(place, version, arch, lambda line: click.echo(line, err=True), mirror)
    click.echo(str(made))
