"""appliance/cli: how quickly a command starts."""

import subprocess
import sys

import pytest

# What takes tens of milliseconds and more to import.
HEAVY = {"cattrs", "hypercorn", "quart", "rich", "sqlite3", "structlog", "trio", "yaml"}
LOADS = """
import contextlib, io, sys
from appliance.cli import group
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    group(sys.argv[1:], prog_name="appliance")
print(*sys.modules)
"""


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["state", "--help"], ["jobs", "-h"]])
def test_a_command_that_only_says_something_loads_nothing_heavy(words):
    done = subprocess.run(
        [sys.executable, "-c", LOADS, *words], capture_output=True, text=True, check=True
    )

    assert set() == HEAVY & set(done.stdout.split())
