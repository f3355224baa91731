"""Reports on the state on the disk, for people and programs, for `appliance state`.

A module of its own because its imports take half a second.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from appliance.cli import show as shows
from appliance.cli.show import echo, secho
from appliance.config import Config
from appliance.errors import Refused
from appliance.jobs.job import stage
from appliance.keep import soundness
from appliance.keep.repair import offline, rescue
from appliance.keep.repair import survey as surveys
from appliance.keep.repair.survey import Survey

_IDS_SHOWN = 50


def survey(config: Config, folder: Path | None) -> tuple[Path, Survey]:
    """Reads the state in `folder`, by default the configuration's; returns the folder and state.

    Raises NotFound without such a folder, BadState where a server runs, Refused.
    """
    folder = folder or config.paths.state
    assert folder is not None
    with told(folder), offline.reading(folder) as contents:
        found = surveys.survey(contents, config.lab)
        if (damage := rescue.damage(folder, found.store)) is not None:
            found.damage.append(damage)
        return folder, found


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Turns errors of the system and of the archive into errors for the command line."""
    try:
        yield
    except OSError as error:
        raise Refused(f"{error.filename or path}: {error.strerror}") from error
    except soundness.ERRORS as error:
        raise soundness.trouble(error) from error


def row(folder: Path, found: Survey) -> dict[str, Any]:
    """Returns the report for programs."""
    jobs = found.store.jobs.values()
    return {
        "folder": str(folder),
        "files": [attrs.asdict(file) for file in found.files],
        "jobs": [{"id": job.id, "stage": stage(job.state)} for job in jobs],
        "boxes": list(found.store.boxes),
        "counter": found.store.counter,
        "archived": found.store.archived,
        "torn": found.torn,
        "damage": [attrs.asdict(damage) for damage in found.damage],
    }


def tell(folder: Path, found: Survey) -> None:
    """Prints the report for people."""
    store = found.store
    echo(f"{folder}:")
    for file in found.files:
        unused = "" if file.used else ", no longer used"
        size = shows.size(file.size)
        echo(f"  {file.name}  {size}, {_count(file.records, 'whole record')}{unused}")
    stages = Counter(stage(job.state) for job in store.jobs.values())
    words = ", ".join(f"{n} {word}" for word, n in sorted(stages.items()))
    echo(
        f"{_count(len(store.jobs), 'job')}{f' ({words})' if words else ''},"
        f" {shows.testboxes(len(store.boxes))}; the newest job was number"
        f" {store.counter}"
    )
    if store.archived:
        echo(f"{_count(store.archived, 'job')} more in the archive")
    if found.torn:
        echo(f"{found.torn}; nobody was told of it")
    for damage in found.damage:
        secho(str(damage), fg="red")
        names = list(damage.jobs)
        more = f" and {len(names) - _IDS_SHOWN} more" if len(names) > _IDS_SHOWN else ""
        named = f"; it names {', '.join(names[:_IDS_SHOWN])}{more}" if names else ""
        echo(f"  a repair loses {damage.lost or 'nothing more by this'}{named}")
    if found.damage:
        held = [name for name in surveys.ids(found.damage) if name not in store.jobs]
        if held:
            more = " ..." if len(held) > _IDS_SHOWN else ""
            echo(f"jobs that a repair would not bring back: {', '.join(held[:_IDS_SHOWN])}{more}")


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"
