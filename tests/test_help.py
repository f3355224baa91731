"""The help of the command line: grouped, a line for each command, and none of them cut off."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from appliance import cli

WIDTH = 80  # of a terminal that nobody has made wider
GROUPS = [
    name
    for name in cli._COMMANDS
    if isinstance(cli.group.get_command(click.Context(cli.group), name), click.Group)
]


def said(*words):
    done = CliRunner().invoke(cli.group, [*words, "--help"], terminal_width=WIDTH)
    assert done.exit_code == 0, done.output
    return done.output


def commands(text):
    """The lines that name commands, under whatever heading."""
    lines = text[text.index("--help") :].splitlines()[1:]
    return [line for line in lines if line.startswith("  ") and not line.startswith("   ")]


def test_commands_stand_under_what_they_are_about():
    heads = [line for line in said().splitlines() if line.endswith(":") and line[0] != " "]

    assert ["Options:", "Jobs:", "Testboxes:", "Images:", "The lab:", "The server:"] == heads


def test_every_command_has_its_line_but_what_only_ssh_starts():
    named = [line.split()[0] for line in commands(said())]

    assert [name for name in cli._COMMANDS if name != "control-proxy"] == named


@pytest.mark.parametrize("words", [[], *([name] for name in GROUPS)])
def test_no_line_is_cut_off_or_runs_on(words):
    lines = commands(said(*words))

    assert lines
    assert [] == [line for line in lines if line.endswith("...") or len(line) > WIDTH]
    assert all(line.endswith(".") for line in lines)


def test_the_help_imports_no_command():
    program = "import sys; from appliance import cli\ntry: cli.group(['--help'])\nfinally: " \
              "print([m for m in sys.modules if m.startswith('appliance.cli.')])"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True)  # fmt: skip

    assert "['appliance.cli.show']" == done.stdout.splitlines()[-1]
