"""The command line.  A command's module is imported only when called, so clients start quickly."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import click

from appliance import build, errors
from appliance.cli.show import echo


@attrs.frozen
class _Command:
    """Where a command is defined, and its line in the help."""

    where: str  # module:attribute
    does: str
    hidden: bool = False


# The help prints this table and imports no command.
_SECTIONS: Final[Mapping[str, Mapping[str, _Command]]] = {
    "Jobs": {
        "submit": _Command("submit:submit", "Submit job documents."),
        "jobs": _Command("jobs:jobs", "List jobs, newest first."),
        "show": _Command("jobs:show", "Show one job: its document, attempts and history."),
        "wait": _Command("submit:wait", "Follow jobs until they end."),
        "cancel": _Command("jobs:cancel", "Cancel jobs."),
        "renew": _Command("jobs:renew", "Give a running job more time."),
        "results": _Command("results:results", "List, read, fetch, keep or remove results."),
    },
    "Testboxes": {
        "hosts": _Command("hosts:hosts", "List testboxes and what each does."),
        "host": _Command("hosts:host", "Add, change, show, hold or reserve a testbox."),
    },
    "Images": {
        "image": _Command("images:image", "Build, import, list, check or remove images."),
    },
    "The lab": {
        "status": _Command("lab:status", "Show the lab in one screen."),
        "watch": _Command("watch:watch", "Show the lab live."),
        "doctor": _Command("doctor:doctor", "Find what is wrong and how to fix it."),
        "drain": _Command("lab:drain", "Start no more jobs; running jobs go on."),
        "resume": _Command("lab:resume", "Start jobs again after a drain."),
        "account": _Command("account:account", "Print an account for submits over the network."),
    },
    "The server": {
        "install": _Command("setup:install", "Install or upgrade this server, or roll back."),
        "uninstall": _Command("setup:uninstall", "Remove what `install` made."),
        "serve": _Command("serve:serve", "Run the server."),
        "log-level": _Command("lab:log_level", "Show or change the running server's log level."),
        "backup": _Command("backup:backup", "Write state and configuration to one file."),
        "restore": _Command("backup:restore", "Restore state and configuration from a backup."),
        "state": _Command("state:state", "Check, repair, export or import the state."),
        "tftpboot": _Command("render:tftpboot", "Lay out the files that firmware loads by TFTP."),
        "dnsmasq-config": _Command("render:dnsmasq_config", "Print a dnsmasq.conf."),
        "dhcp-snippet": _Command("render:dhcp_snippet", "Print settings for another DHCP server."),
        "smb-config": _Command("render:smb_config", "Print an smb.conf."),
        "nfs-config": _Command("render:nfs_config", "Print a ganesha.conf."),
        "control-proxy": _Command("control_proxy:control_proxy", "Serve `appliance -H`.", True),
    },
}
_COMMANDS: Final = {name: one for part in _SECTIONS.values() for name, one in part.items()}


class _Commands(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the commands in the order of the table."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].where.partition(":")
        found = importlib.import_module(f"appliance.cli.{module}")
        command: click.Command = getattr(found, attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one section of the help for each section of the table."""
        width = max(map(len, _COMMANDS))
        for title, part in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name.ljust(width), one.does) for name, one in part.items() if not one.hidden]
                )


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(str(build.facts()), prog_name="appliance")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Configuration file; by default $APPLIANCE_CONFIG or /etc/appliance/appliance.toml.",
)
@click.option("-H", "--host", help="Use another machine's server: ssh://[user@]host[:port].")
@click.pass_context
def group(ctx: click.Context, config: Path | None, host: str | None) -> None:
    """Run a lab: take testboxes from power-on to a finished job.

    Exit codes: 0 done, 1 the job failed, 2 wrong usage or bad document, 3 not found,
    4 refused, 5 no server answers, 6 outcome unknown: ask again.
    """
    ctx.obj = config


def each(names: Iterable[str], do: Callable[[str], None]) -> int:
    """Calls `do` for every name and prints each error; returns the first error's exit code.

    Raises NotRunning at once: without a server the other names would fail too.
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
    """Runs the program.  An expected error is one line on stderr and an exit code."""
    try:
        code = group.main(standalone_mode=False)  # the value passed to ctx.exit()
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
    """Loads the configuration that the command line names."""
    from appliance import config

    return config.load(ctx.obj)
