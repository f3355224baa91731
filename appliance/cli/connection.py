"""Connects a command to the server that its command line names."""

from __future__ import annotations

import click

from appliance.cli import load_config
from appliance.control.client import Server, connect_over_ssh, connect_to


def connect(ctx: click.Context) -> Server:
    """The server that the configuration names, or -H on the command line.

    Raises NotRunning, Refused and BadRequest as `connect_to` and `connect_over_ssh` do.
    """
    host = ctx.find_root().params.get("host")
    if host:
        return Server(connect_over_ssh(host))
    return Server(connect_to(str(load_config(ctx).paths.control_socket)))
