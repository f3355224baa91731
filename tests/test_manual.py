"""cli/manual.py: what `man` and the shells make of it."""

import shutil
import subprocess

import pytest

from appliance import cli
from appliance.cli import manual


def test_the_manual_has_every_command():
    text = manual.manual("1.0")

    sections = [line for line in text.splitlines() if line.startswith(".SS ")]
    for name in cli.group.list_commands(None):
        escaped = name.replace("-", r"\-")
        assert any(line.startswith(f".SS {escaped} ") for line in sections), name
    assert r"\fB\-\-dry\-run\fR" in text


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff renders it")
def test_the_manual_is_roff_without_a_warning():
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww"],
        input=manual.manual("1.0"), capture_output=True, text=True,
    )  # fmt: skip

    assert (0, "") == (done.returncode, done.stderr)


def test_the_shells_complete_our_commands():
    made = manual.all_of("1.0")

    assert 4 == len(made)
    assert (
        "_APPLIANCE_COMPLETE=bash_complete"
        in made["usr/share/bash-completion/completions/appliance"]
    )
    assert all("appliance" in text for text in made.values())
