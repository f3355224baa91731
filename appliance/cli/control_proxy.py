"""`appliance control-proxy`: joins the control socket to standard input and output, for ssh."""

from __future__ import annotations

import os
import socket
import sys
import threading

import click

from appliance.cli import load_config
from appliance.control.client import connect_to

_BYTES = 2**16


@click.command("control-proxy", hidden=True)
@click.pass_context
def control_proxy(ctx: click.Context) -> None:
    """Join the control socket to standard input and output; `appliance -H` starts this.

    The server sees requests as those of the user who runs this command.
    """
    server = connect_to(str(load_config(ctx).paths.control_socket))

    def to_server() -> None:
        while data := os.read(sys.stdin.fileno(), _BYTES):
            server.sendall(data)
        server.shutdown(socket.SHUT_RDWR)  # the client is gone and waits for no answer

    threading.Thread(target=to_server, daemon=True).start()
    while data := server.recv(_BYTES):
        view = memoryview(data)
        while view:
            view = view[os.write(sys.stdout.fileno(), view) :]
