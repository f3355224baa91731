"""Runs a program to its end and returns its output."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import Final

from appliance.errors import Refused

SHOWN_LINES: Final = 15  # of a failed program's output


def run(command: Sequence[str], **environ: str) -> str:
    """Returns what `command` prints.  Raises Refused if it fails, with the end of its output."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **environ},
            check=False,
        )
    except OSError as error:
        raise Refused(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        said = "\n".join(done.stdout.strip().splitlines()[-SHOWN_LINES:])
        raise Refused(f"`{' '.join(command)}` ended with status {done.returncode}:\n{said}")
    return done.stdout
