"""How answers look to people."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from appliance.cli import show


def coloured(heading, word):
    """The row as a terminal gets it."""

    @click.command()
    def command():
        show.table(["JOB", heading], [["lab.1", word]])

    done = CliRunner().invoke(command, color=True)
    assert done.exit_code == 0, done.output
    return done.output.splitlines()[1]


@pytest.mark.parametrize(
    ("heading", "word", "colour"),
    [
        ("HEALTH", "success", "green"),
        ("HEALTH", "cancel", "yellow"),
        ("HEALTH", "failed", "red"),
        ("HEALTH", "a word of a job's own", "red"),
        ("STATE", "parked", "green"),
    ],
)
def test_a_row_has_the_colour_of_what_became_of_it(heading, word, colour):
    assert click.style(f"lab.1  {word}", fg=colour, bold=False) == coloured(heading, word)


@pytest.mark.parametrize(
    ("heading", "word"), [("HEALTH", None), ("STATE", "off"), ("OS", "failed")]
)
def test_what_is_neither_good_nor_bad_has_none(heading, word):
    assert "\x1b[3" not in coloured(heading, word)
