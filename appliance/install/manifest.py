"""Pure: no clock, no socket, no await.

What earlier installs did: a record beside the program.  Where there is no program, because an
uninstall took it away or an install failed, a note beside the configuration has the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from appliance.install.actions import Folder, GiveBack, Owner, Step, Write
from appliance.install.site import Places


def of(texts: Mapping[Path, str], places: Places) -> dict[str, Any]:
    """What earlier installs did; empty before the first one."""
    text = texts.get(places.record) or texts.get(places.kept)
    record: dict[str, Any] = json.loads(text) if text else {}
    return record


def written(path: Path, record: Mapping[str, Any]) -> Write:
    """The file that says so; root's alone, it holds the configuration."""
    return Write(path, json.dumps(record, indent=1) + "\n", 0o600)


def of_packages(
    texts: Mapping[Path, str], places: Places, before: Mapping[str, Any], new: Sequence[str]
) -> Write:
    """The record, or the note, with the packages that are now installed."""
    names = sorted({*before.get("packages", ()), *new})
    path = places.record if places.record in texts else places.kept
    return written(path, {**before, "packages": names})


def closed(steps: Iterable[Step]) -> dict[str, list[str]]:
    """The folders that `steps` take into use as they are there: as they were, by path.

    [user, group, mode in octal digits]
    """
    return {
        str(step.undo.path): [step.undo.owner.user, step.undo.owner.group, f"{step.undo.mode:o}"]
        for step in steps
        if isinstance(step.do, Folder) and isinstance(step.undo, Folder)
    }


def opened(record: Mapping[str, Any]) -> list[GiveBack]:
    """Those that no install made, as they were before the first one."""
    made = record.get("made", ())  # the record of an earlier version has some in both
    return [
        GiveBack(Path(path), int(mode, 8), Owner(user, group))
        for path, (user, group, mode) in sorted(record.get("closed", {}).items())
        if path not in made
    ]


def note(texts: Mapping[Path, str], places: Places, steps: Iterable[Step]) -> Write | None:
    """The note as it is after `steps`; None where there is none."""
    for step in steps:
        if isinstance(step.do, Write) and step.do.path == places.kept:
            return step.do
    text = texts.get(places.kept)
    return None if text is None else Write(places.kept, text, 0o600)


def removes(packages: Sequence[str]) -> str:
    """The command that removes `packages`, for people."""
    return f"apt-get purge {' '.join(packages)}"


def brought(record: Mapping[str, Any]) -> list[str]:
    """The packages of the distribution's that installs installed, for people."""
    packages = record.get("packages")
    return [f"packages that an install brought: {removes(packages)}"] if packages else []
