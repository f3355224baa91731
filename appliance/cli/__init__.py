"""What a person types.  Commands are imported when they are called: a client starts quickly."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import click

from appliance import build, errors
from appliance.cli.show import echo

# command -> module:attribute, in the order of a job's life
_COMMANDS: Final = {
    "install": "appliance.cli.setup:install",
    "uninstall": "appliance.cli.setup:uninstall",
    "serve": "appliance.cli.serve:serve",
    "submit": "appliance.cli.submit:submit",
    "jobs": "appliance.cli.jobs:jobs",
    "show": "appliance.cli.jobs:show",
    "wait": "appliance.cli.submit:wait",
    "cancel": "appliance.cli.jobs:cancel",
    "renew": "appliance.cli.jobs:renew",
    "results": "appliance.cli.results:results",
    "hosts": "appliance.cli.hosts:hosts",
    "host": "appliance.cli.hosts:host",
    "status": "appliance.cli.lab:status",
    "watch": "appliance.cli.watch:watch",
    "log-level": "appliance.cli.lab:log_level",
    "doctor": "appliance.cli.doctor:doctor",
    "drain": "appliance.cli.lab:drain",
    "resume": "appliance.cli.lab:resume",
    "control-proxy": "appliance.cli.control_proxy:control_proxy",
    "account": "appliance.cli.account:account",
    "state": "appliance.cli.state:state",
    "backup": "appliance.cli.backup:backup",
    "restore": "appliance.cli.backup:restore",
    "image": "appliance.cli.images:image",
    "tftpboot": "appliance.cli.render:tftpboot",
    "dnsmasq-config": "appliance.cli.render:dnsmasq_config",
    "dhcp-snippet": "appliance.cli.render:dhcp_snippet",
    "smb-config": "appliance.cli.render:smb_config",
    "nfs-config": "appliance.cli.render:nfs_config",
}


class _Commands(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(str(build.facts()), prog_name="appliance")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="The configuration; by default $APPLIANCE_CONFIG or /etc/appliance/appliance.toml.",
)
@click.option("-H", "--host", help="Another machine's server: ssh://[user@]host[:port].")
@click.pass_context
def group(ctx: click.Context, config: Path | None, host: str | None) -> None:
    """One lab server's appliance: from power-on to a finished job.

    Exit codes: 0 done, 1 the job failed, 2 wrong usage or document, 3 no such thing,
    4 refused, 5 no server, 6 not known: ask again.
    """
    ctx.obj = config


def each(names: Iterable[str], do: Callable[[str], None]) -> int:
    """Do it for all of them, and say what goes wrong with some; the first one's exit code.

    Raises NotRunning: without a server there is no next one.
    """
    code = 0
    for name in names:
        try:
            do(name)
        except errors.NotRunning:
            raise
        except errors.ApplianceError as error:
            echo(f"appliance: {error}", err=True)
            code = code or error.exit_code
    return code


def main() -> None:
    """The program.  Errors of the world are one line on stderr and an exit code."""
    try:
        code = group.main(standalone_mode=False)  # what ctx.exit() was given
        sys.exit(code if isinstance(code, int) else 0)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except errors.ApplianceError as error:
        echo(f"appliance: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `appliance jobs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:  # a folder that cannot be written, a disk that is full
        where = f"{error.filename}: " if error.filename else ""
        echo(f"appliance: {where}{error.strerror or error}", err=True)
        sys.exit(errors.REFUSED)


def load_config(ctx: click.Context) -> Any:
    """The Config that the command line names."""
    from appliance import config

    return config.load(ctx.obj)
