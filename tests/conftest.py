"""Which tests are quick: `make check` leaves out those that start real processes by the dozen."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Started in the background of a shell, everything below us would ignore Ctrl-C: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

_HERE = Path(__file__).parent
_SLOW = ("runner/", "test_runner.py", "test_serve.py", "end_to_end/")


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder like `tmp_path`, but one that daemons with users of their own may enter.

    pytest's lie in a folder that is its user's alone, and that all runs share.
    """
    made = Path(tempfile.mkdtemp(prefix="appliance-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if str(item.path.relative_to(_HERE)).startswith(_SLOW):
            item.add_marker(pytest.mark.slow)
