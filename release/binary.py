"""`make binary`: builds one executable with everything inside.

PyInstaller builds the program twice from one analysis: as a directory, which starts quickly, and as
one file, which unpacks itself to a temporary directory at each start.  The one file contains the
directory's launcher, so that `appliance install` can lay out the directory from it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import appliance
from appliance import build, names
from appliance.keep.state import versions

REPOSITORY: Final = Path(__file__).parents[1]
WORK: Final = REPOSITORY / ".cache/binary"
TARGET: Final = REPOSITORY / "dist" / names.PROGRAM
SPEC: Final = Path(__file__).with_name("binary.spec")
# The directory form's executable, contained in the one file.
LAUNCHER: Final = "launcher"
_GLIBC: Final = re.compile(rb"GLIBC_([0-9]+(?:\.[0-9]+)+)\0")
_BYTES_MAX: Final = 40 * 2**20  # people copy the executable by hand


def modules() -> list[str]:
    """Returns our modules, since PyInstaller does not see those that are imported by name."""
    root = build.PACKAGE
    names = (path.relative_to(root.parent).with_suffix("") for path in sorted(root.rglob("*.py")))
    return [".".join(name.parts).removesuffix(".__init__") for name in names]


def data_files() -> list[tuple[str, str]]:
    """Returns every non-Python file of the package, and its folder when unpacked."""
    root = build.PACKAGE
    names = [path for path in sorted(root.rglob("*")) if path.suffix not in (".py", ".pyc")]
    # The units' folder is a symlink, which rglob does not follow.
    names += sorted((root / "install/systemd").iterdir())
    return [(str(p), str(p.relative_to(root.parent).parent)) for p in names if p.is_file()]


def newest_glibc(files: Iterable[Path]) -> str:
    """Returns the newest glibc version that any of the ELF `files` needs, such as "2.36"."""
    wanted = {
        tuple(map(int, word.split(b".")))
        for file in files
        if (data := file.read_bytes()).startswith(b"\x7fELF")
        for word in _GLIBC.findall(data)
    }
    return ".".join(map(str, max(wanted)))


def write_facts(files: Iterable[Path]) -> Path:
    """Writes `build.json` for a program made of the binary `files`."""
    written = WORK / build.FACTS
    said = {
        "commit": os.environ["APPLIANCE_COMMIT"],
        "moment": _git("log", "-1", "--format=%cd", "--date=format:%Y%m%d%H%M%S"),
        "glibc": newest_glibc(files),
        "state": versions.VERSION,
    }
    written.write_text(json.dumps(said))
    return written


def read_facts() -> dict[str, Any]:
    """Reads the facts of the last build."""
    found: dict[str, Any] = json.loads((WORK / build.FACTS).read_text())
    return found


def commit() -> str:
    """Returns the checkout's commit, marked if files have changed since."""
    return _git("describe", "--always", "--dirty", "--exclude", "*")


def _git(*words: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def make(target: Path = TARGET, name: str | None = None) -> Path:
    """Builds the executable `target` from this checkout, as build `name` (default: its commit)."""
    WORK.mkdir(parents=True, exist_ok=True)
    made = WORK / "dist"
    subprocess.run(
        [
            *(sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "ERROR"),
            *("--distpath", str(made), "--workpath", str(WORK / "work"), str(SPEC)),
        ],
        check=True,
        env={**os.environ, "APPLIANCE_COMMIT": name or commit(), "PYTHONPATH": str(REPOSITORY)},
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(target.name + ".new")
    shutil.copy(made / names.PROGRAM, beside)
    beside.replace(target)
    return target


def main() -> None:
    """Runs `python -m release.binary [TARGET [NAME]]`."""
    target = make(Path(sys.argv[1]) if sys.argv[1:] else TARGET, *sys.argv[2:3])
    size = target.stat().st_size
    said = subprocess.run([target, "--version"], capture_output=True, text=True, check=True).stdout
    print(f"{target}: {size / 2**20:.1f} MiB, {said.strip()}")
    if size > _BYTES_MAX:
        sys.exit(f"binary: larger than {_BYTES_MAX // 2**20} MiB")
    assert appliance.__version__ in said


if __name__ == "__main__":
    main()
