"""Walks the syntax trees for the rules of DESIGN.md#rules-that-a-program-checks."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

import appliance

ROOT = Path(appliance.__file__).parent
TREES = {
    path.relative_to(ROOT).with_suffix("").as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(ROOT.rglob("*.py"))
}
MODULES = {
    "appliance." + name.replace("/", ".").removesuffix("__init__").strip("."): name
    for name in TREES
}
PURE = [
    name
    for name, tree in TREES.items()
    if (ast.get_docstring(tree) or "").startswith(("Pure:", "Pure."))
]

# What a pure module may import besides other pure modules: nothing here has a clock or a socket.
DATA = frozenset(
    """__future__ abc base64 binascii collections collections.abc contextlib csv dataclasses
    datetime difflib email.utils enum functools gzip hashlib heapq io ipaddress itertools json math
    operator re shlex stat string struct textwrap tomllib types typing urllib.parse zlib
    attrs cattrs cattrs.preconf.cbor2 cattrs.strategies cbor2 google_crc32c yaml
    ruamel.yaml ruamel.yaml.comments ruamel.yaml.error ruamel.yaml.scalarstring
    ruamel.yaml.util""".split()  # noqa: SIM905
)
# Types of the configuration are data; `appliance.config` itself reads files, so it is not pure.
CONFIG_TYPES = frozenset(
    "Config Defaults Limits Network Paths Ports Segment Space Waits".split()  # noqa: SIM905
)
# A path is a name as long as nobody opens it; the calls that would are forbidden below.
PATH_TYPES = frozenset(["Path", "PurePath", "PurePosixPath"])
# What reaches outside, however it was imported.
IMPURE_CALLS = frozenset(
    """open input print exec eval __import__ now today utcnow time monotonic perf_counter sleep
    read_text read_bytes write_text write_bytes iterdir mkdir unlink exists is_file is_dir stat
    resolve rglob glob touch rename""".split()  # noqa: SIM905
)
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 420  # a ratchet; aim at 300
NAMES_THAT_SAY_NOTHING = frozenset(["utils", "helpers", "common", "manager", "misc", "base"])
# Who may read the environment: the configuration, what systemd says, and
# whoever starts dpkg and mmdebstrap, which need PATH and the operator's proxies.
READS_ENVIRONMENT = re.compile(r"(config|systemd|programs|install/debian|boot/images/sandbox)$")


def imports(tree):
    """(module, name or None) of each import, at whatever depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where things come from"
            yield from ((node.module, alias.name) for alias in node.names)


def allowed_in_pure(module, name):
    """Whether a pure module may import this."""
    if module in DATA or (module == "pathlib" and name in PATH_TYPES):
        return True
    if module == "appliance.config":
        return name in CONFIG_TYPES
    return MODULES.get(f"{module}.{name}") in PURE or MODULES.get(module) in PURE


def impurities(tree):
    """What a pure module must not hold, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncWith | ast.AsyncFor):
            yield f"line {node.lineno}: async"
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in IMPURE_CALLS:
                yield f"line {node.lineno}: {name}()"
    for module, name in imports(tree):
        if not allowed_in_pure(module, name):
            yield f"imports {module}{'.' + name if name else ''}"


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_is_pure(name):
    assert [] == list(impurities(TREES[name]))


def test_there_are_pure_modules():
    assert {
        "errors",
        "boot/script/ipxe",
        "boot/script/cgz",
        "jobs/job",
        "jobs/store",
        "keep/state/records",
    } <= {*PURE}


@pytest.mark.parametrize(
    "text",
    [
        "import os",
        "import time",
        "import random",
        "from datetime import datetime\ndatetime.now()",
        "from pathlib import Path\nPath('x').read_text()",
        "def f():\n    import socket",
        "from appliance.config import load",
        "from appliance.scheduler import scheduler",
        "from appliance.scheduler.lobby import Seat",
        "async def f(): pass",
        "open('x')",
        "import trio",
    ],
)
def test_what_is_not_pure_is_found(text):
    assert [] != list(impurities(ast.parse(text)))


@pytest.mark.parametrize("name", TREES)
def test_every_module_opens_with_what_it_is_for(name):
    assert ast.get_docstring(TREES[name])


def test_no_function_is_longer_than_a_screen():
    long = [
        f"{name}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    ]

    assert [] == long


# Who starts threads otherwise: the journal's, whose errors end the process; Hypercorn's own; those
# of a start.
THREADS_OF_THEIR_OWN = {"threads", "keep/state/disk", "web/connections", "run"}


def test_what_fails_in_a_thread_leaves_nothing_behind():
    """An error that comes out of trio's threads refers to itself, and to what its frames held."""
    found = {
        name
        for name in TREES
        if "to_thread.run_sync" in (ROOT / f"{name}.py").read_text(encoding="utf-8")
    }

    assert THREADS_OF_THEIR_OWN == found


def test_no_file_is_longer_than_its_reader():
    lengths = {
        name: len((ROOT / f"{name}.py").read_text(encoding="utf-8").splitlines()) for name in TREES
    }

    assert {} == {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX}


def test_no_module_has_a_name_that_says_nothing():
    words = {part for name in TREES for part in name.split("/")}

    assert set() == words & NAMES_THAT_SAY_NOTHING


def test_only_the_edges_read_the_environment():
    readers = [
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"))
        or (isinstance(node, ast.alias) and node.name in ("environ", "getenv"))
    ]

    assert [] == sorted({name for name in readers if not READS_ENVIRONMENT.match(name)})


# Where a module is called otherwise than what is installed.
DISTRIBUTIONS = {
    "google_crc32c": "google-crc32c",
    "prometheus_client": "prometheus-client",
    "quart_trio": "quart-trio",
    "re2": "google-re2",
    "ruamel": "ruamel-yaml",
    "yaml": "pyyaml",
}


def declared():
    """What an installation asks for."""
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))
    wishes = project["project"]["dependencies"]
    return {re.match(r"[A-Za-z0-9._-]+", text)[0].lower() for text in wishes}


def test_what_is_imported_is_what_is_declared():
    modules = {module.partition(".")[0] for tree in TREES.values() for module, _ in imports(tree)}
    foreign = modules - sys.stdlib_module_names - {"appliance"}

    assert declared() == {DISTRIBUTIONS.get(name, name) for name in foreign}


def test_what_is_declared_is_locked_as_our_own_wish():
    """So that an update of what brings it along today does not take it away."""
    lock = (ROOT.parent / "requirements.lock").read_text(encoding="utf-8")
    wished = re.findall(
        r"^([a-z0-9-]+)==(?:(?!^[a-z]).)*? appliance \(pyproject", lock, re.MULTILINE | re.DOTALL
    )

    assert declared() <= {*wished}
