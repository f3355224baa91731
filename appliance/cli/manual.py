"""Makes the manual page and the shell completions from the commands themselves."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from appliance import names
from appliance.cli import group

_VARIABLE: Final = "_APPLIANCE_COMPLETE"
MAN: Final = "usr/share/man/man1/appliance.1"
_SHELLS: Final[dict[str, type[ShellComplete]]] = {
    "usr/share/bash-completion/completions/appliance": BashComplete,
    "usr/share/zsh/vendor-completions/_appliance": ZshComplete,
    "usr/share/fish/vendor_completions.d/appliance.fish": FishComplete,
}


def all_of(version: str) -> dict[str, str]:
    """Returns the manual page and completions, by their path below the root of a system."""
    made = {MAN: manual(version)}
    for place, shell in _SHELLS.items():
        made[place] = shell(group, {}, names.PROGRAM, _VARIABLE).source()
    return made


def manual(version: str) -> str:
    """Returns appliance(1), in roff."""
    context = click.Context(group, info_name=names.PROGRAM)
    lines = [
        f'.TH APPLIANCE 1 "" "appliance {_escaped(version)}"',
        ".SH NAME",
        r"appliance \- takes testboxes from power-on to a finished job",
        ".SH SYNOPSIS",
        r".B appliance",
        r"[\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGUMENTS\fR]",
        ".SH DESCRIPTION",
        *_paragraphs(group.help or ""),
        ".SH OPTIONS",
        *_options(group, context),
        ".SH COMMANDS",
    ]
    for name, command in _commands(group, context, ""):
        pieces = " ".join(command.collect_usage_pieces(click.Context(command)))
        lines += [f".SS {_escaped(name)} {_escaped(pieces)}", *_paragraphs(command.help or "")]
        lines += _options(command, click.Context(command))
    lines += [
        ".SH FILES",
        r"\fI/etc/appliance/appliance.toml\fR, \fI/etc/appliance/hosts/\fR,",
        r"\fI/var/lib/appliance/\fR, \fI/srv/\fR, \fI/run/appliance/control.sock\fR",
        ".SH SEE ALSO",
        ".BR dnsmasq (8),",
        ".BR smbd (8)",
    ]
    return "\n".join([*lines, ""])


def _commands(
    command: click.Command, context: click.Context, before: str
) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return []
    found = []
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        found += _commands(inner, context, f"{before}{name} ") or [(before + name, inner)]
    return found


def _options(command: click.Command, context: click.Context) -> list[str]:
    lines = []
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and not parameter.hidden:
            words, text = parameter.get_help_record(context) or ("", "")
            lines += [".TP", rf"\fB{_escaped(words)}\fR", _escaped(text)]
    return lines


def _paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in text.replace("\b", "").split("\n\n"):
        lines += [".PP", _escaped(" ".join(paragraph.split()))]
    return lines


def _escaped(text: str) -> str:
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped
