"""Connects a command to the server that its command line names."""

from __future__ import annotations

import click

from appliance.cli import load_config
from appliance.control.client import Server, connect_over_ssh, connect_to


def connect(ctx: click.Context) -> Server:
    """Connects to the server of -H, else to the configuration's control socket.

    Raises NotRunning, Refused and BadRequest as `connect_to` and `connect_over_ssh` do.
    """
    host = ctx.find_root().params.get("host")
    if host:
        return Server(connect_over_ssh(host))
    return Server(connect_to(str(load_config(ctx).paths.control_socket)))
