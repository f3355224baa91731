"""Which tests are quick: `make check` leaves out those that start real processes by the dozen."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# Started in the background of a shell, everything below us would ignore Ctrl-C: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

_HERE = Path(__file__).parent
_SLOW = ("runner/", "test_runner.py", "test_serve.py", "end_to_end/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if str(item.path.relative_to(_HERE)).startswith(_SLOW):
            item.add_marker(pytest.mark.slow)
