"""The map in appliance/__init__.py is the house as it stands, and no import runs upwards in it."""

from __future__ import annotations

import ast
import re

import pytest

from tests.test_tidy import MODULES, PURE, ROOT, TREES, imports

# From the top to the ground.  A module imports from its own room and from those below.
ROOMS = (
    "cli", "run", "install", "doctor", "doors", "control", "web", "scheduler", "keep", "boot",
    "jobs", "config",
)  # fmt: skip
GROUND = len(ROOMS)
# Names that two rooms share: a command and what it does, a door and what follows from it.
SAME_SUBJECT = {
    "backup": {"cli/backup", "keep/repair/backup"},
    "reports": {"doors/reports", "scheduler/reports"},
    "results": {"cli/results", "keep/results"},
}


def room(name):
    """How far down a module stands: 0 is the top."""
    first = name.partition("/")[0]
    if name == "__main__":
        return 0
    return ROOMS.index(first) if first in ROOMS else GROUND


def upward_imports(name, tree):
    """What a module imports from a room above its own."""
    for module, attribute in imports(tree):
        imported = MODULES.get(f"{module}.{attribute}") or MODULES.get(module)
        if imported is not None and imported != "__init__" and room(imported) < room(name):
            yield f"{name} imports {imported}"


def map_lines():
    """The map's modules and rooms, as paths, with whether each is said to be pure."""
    way, found = [], {}
    for line in (ast.get_docstring(TREES["__init__"]) or "").splitlines()[4:]:
        match = re.fullmatch(r"( {4,})([\w/]+)(?: {2,}(pure )?.*)?", line)
        if match is None:
            continue
        depth = len(match[1]) // 2 - 2
        way[depth:] = [match[2].rstrip("/")]
        found["/".join(way)] = bool(match[3])
    return found


def test_no_import_runs_upwards():
    assert [] == [wrong for name, tree in TREES.items() for wrong in upward_imports(name, tree)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("jobs/job", "from appliance.keep import results"),
        ("boot/script/ipxe", "from appliance.scheduler.scheduler import Scheduler"),
        ("keep/results", "def f():\n    from appliance.web import files"),
        ("web/http", "import appliance.doors.reports"),
        ("threads", "from appliance.config import Config"),
        ("control/server", "from appliance import run"),
    ],
)
def test_an_import_that_runs_upwards_is_found(name, text):
    assert [] != list(upward_imports(name, ast.parse(text)))


def test_whatever_is_in_jobs_is_pure():
    inside = {name for name in TREES if name.startswith("jobs/") and "__init__" not in name}

    assert set() == inside - {*PURE}


def test_every_room_is_drawn_in_its_order():
    drawn = [name for name in map_lines() if "/" not in name]

    assert list(ROOMS) == drawn[: len(ROOMS)]


def test_every_module_is_on_the_map():
    names = {name.removesuffix("/__init__") for name in TREES} - {"__init__"}

    assert set() == {name for name in names if not name.startswith("boot/runner/")} - {*map_lines()}


def test_the_map_names_only_what_is_there_and_says_which_are_pure():
    drawn = map_lines()
    there = {name.removesuffix("/__init__") for name in TREES} | {
        path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_dir()
    }

    assert set() == drawn.keys() - there
    assert {name for name, pure in drawn.items() if pure} == {*PURE}


def test_two_modules_of_one_name_have_one_subject():
    rooms = {}
    for name in TREES:
        rooms.setdefault(name.rpartition("/")[2], []).append(name)

    assert SAME_SUBJECT == {
        name: set(where) for name, where in rooms.items() if len(where) > 1 and name != "__init__"
    }
