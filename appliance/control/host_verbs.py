"""The verbs about testboxes: list, register, show, hold and reserve them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import structlog

from appliance import threads
from appliance.boot.daemons import own_ipxe
from appliance.control.verb import Answer, Asked, called, verb
from appliance.errors import ApplianceError, BadRequest, NoSpace, NotFound, Refused
from appliance.jobs import box as boxes
from appliance.jobs import hosts_csv
from appliance.jobs.box import Box, Facts
from appliance.jobs.job import stage
from appliance.jobs.shown import views
from appliance.scheduler import hosts_files
from appliance.scheduler.scheduler import Scheduler

_REGISTERS = "says which testboxes there are"

log = structlog.get_logger()


def row(scheduler: Scheduler, box: Box) -> dict[str, Any]:
    """Returns a testbox as people and programs are shown it."""
    return views.host_row(scheduler.store, scheduler.lobby, box, scheduler.clock.now())


@verb("hosts")
@attrs.frozen(kw_only=True)
class Hosts:
    """Lists every testbox, known or not."""

    async def do(self, asked: Asked) -> Answer:
        """Returns {"hosts": [...]}."""
        scheduler = asked.lab.scheduler
        return {"hosts": [row(scheduler, box) for box in scheduler.store.boxes.values()]}


@verb("host-add")
@attrs.frozen(kw_only=True)
class HostAdd:
    """Registers a testbox or changes its hosts file; or does so for all boxes of a list, or none.

    Only root may.  A field that is not given stays as it is in the hosts file.
    """

    name: str | None = None
    replace: bool = False  # whether the box may lose MACs
    listed: str | None = called("list", default=None)  # CSV; then no other field is given
    macs: list[str] | None = None
    queues: list[str] | None = None
    tags: list[str] | None = None
    console: list[str] | None = None
    rootfs_disk: list[str] | None = None
    arch: str | None = None
    uuid: str | None = None
    ipxe: str | None = None
    memory: str | None = None
    crashkernel: str | None = None
    kernel_params: str | None = None
    kernel_custom_params: str | None = None
    nr_nic: str | None = None
    nr_disk: str | None = None
    disk_size: str | None = None

    async def do(self, asked: Asked) -> Answer:
        """Returns {"host", "file", "replaced"}, or {"hosts"} for a list.

        Raises Refused if a box would lose MACs and `replace` is not set.
        """
        asked.only_root(_REGISTERS)
        scheduler = asked.lab.scheduler
        if self.listed is not None:
            return await _add_all(scheduler, self.listed, replace=self.replace)
        if self.name is None:
            raise BadRequest("host-add: 'name' is missing")
        facts = await _facts(scheduler, self.name, self._fields())
        gone = await _replaced(scheduler, facts, replace=self.replace)
        box, file = await _add(scheduler, facts, self._fields())
        return {"host": row(scheduler, box), "file": str(file), "replaced": gone}

    def _fields(self) -> dict[str, Any]:
        """Returns the given fields, by the keys of a hosts file."""
        said = {field.name: getattr(self, field.name) for field in attrs.fields(HostAdd)}
        said["mac"] = said.pop("macs")
        for other in ("name", "replace", "listed"):
            del said[other]
        return {key: value for key, value in said.items() if value}


async def _replaced(scheduler: Scheduler, facts: Facts, *, replace: bool) -> list[str]:
    """Returns the MACs that the box loses: those in its hosts file or memory, not in `facts`.

    Raises Refused if there are any, unless `replace` is set.
    """
    folder = scheduler.config.paths.hosts
    there = scheduler.store.boxes.get(facts.name)
    has = list(there.facts.macs) if there is not None and there.facts is not None else []
    with contextlib.suppress(BadRequest):  # losing a broken MAC is no loss
        fields = await threads.run(hosts_files.fields, folder, facts.name)
        has += hosts_files.macs_in(fields)
    gone = [mac for mac in dict.fromkeys(has) if mac not in facts.macs]
    if gone and not replace:
        raise Refused(
            f"{facts.name} has {', '.join(gone)} already, and would lose that: name every MAC,"
            " or say --replace"
        )
    return gone


async def _add_all(scheduler: Scheduler, text: str, *, replace: bool) -> Answer:
    """Adds every box of a list.  Raises BadRequest with every mistake and its line, adding none."""
    rows = await threads.run(partial(hosts_csv.parse, text))
    ready, problems = [], []
    for each in rows:
        try:
            facts = await _facts(scheduler, each.name, each.fields)
            scheduler.known(facts)
            await _replaced(scheduler, facts, replace=replace)
            ready.append((facts, each.fields))
        except ApplianceError as error:
            problems.append(f"line {each.line}: {error}")
    hosts_csv.complain(problems)
    added = [await _add(scheduler, facts, fields) for facts, fields in ready]
    return {"hosts": [row(scheduler, box) for box, _ in added]}


async def _facts(scheduler: Scheduler, name: str, changed: Mapping[str, Any]) -> Facts:
    """Returns what the box's hosts file will say.  Raises BadRequest, BadConfig."""
    config = scheduler.config
    boxes.check_name(name)

    def read() -> dict[str, Any]:
        folder = config.paths.hosts
        return {**hosts_files.kind(folder, name), **hosts_files.fields(folder, name), **changed}

    fields = await threads.run(read)
    facts = boxes.facts(name, fields, config.defaults.queue)
    if facts.ipxe is not None:
        await threads.run(own_ipxe.find, config.paths.tftp, name, facts.ipxe)
    return facts


async def _add(scheduler: Scheduler, facts: Facts, fields: Mapping[str, Any]) -> tuple[Box, Path]:
    fields = {**fields, "mac": list(facts.macs)}
    folder = scheduler.config.paths.hosts
    return await _keep(scheduler, facts, partial(hosts_files.write, folder, facts.name, fields))


async def _keep(scheduler: Scheduler, facts: Facts, write: Callable[[], Path]) -> tuple[Box, Path]:
    """Registers a box and writes its hosts file."""
    paths, where = scheduler.config.paths, list[Path]()

    async def keep() -> None:
        try:
            where.append(await threads.run(write))
        except OSError as error:
            raise NoSpace(f"{error.filename or paths.hosts}: {error.strerror}") from error
        try:
            await threads.run(hosts_files.announce, paths, facts)
        except OSError as error:  # the server's next start tells dnsmasq
            log.warning("dnsmasq was not told", host=facts.name, why=str(error))

    return await scheduler.register(facts, keep), where[0]


@verb("host-file")
@attrs.frozen(kw_only=True)
class HostFile:
    """Reads a known box's hosts file, for `edit`.  Only root may."""

    host: str

    async def do(self, asked: Asked) -> Answer:
        """Returns {"name", "file", "text"}."""
        asked.only_root(_REGISTERS)
        box = _box(asked, self.host)
        path = _path(asked, box)
        return {"name": box.name, "file": str(path), "text": await _text(path)}


@verb("host-edit")
@attrs.frozen(kw_only=True)
class HostEdit:
    """Replaces the text `before` of a known box's hosts file by `text`.  Only root may."""

    host: str
    text: str
    before: str

    async def do(self, asked: Asked) -> Answer:
        """Returns {"host", "file"}.

        Raises BadConfig with file and line; Refused if the file is no longer `before`, or if a
        MAC belongs to another box.  After an error nothing is changed.
        """
        asked.only_root(_REGISTERS)
        scheduler = asked.lab.scheduler
        box = _box(asked, self.host)
        path, paths = _path(asked, box), scheduler.config.paths
        check = partial(hosts_files.check, path, self.text, scheduler.config.defaults.queue)
        facts = await threads.run(check)
        if facts.ipxe is not None:
            await threads.run(own_ipxe.find, paths.tftp, box.name, facts.ipxe)
        if await _text(path) != self.before:
            raise Refused(f"{path} was changed by somebody else meanwhile: edit that")
        write = partial(hosts_files.put_text, paths.hosts, box.name, self.text)
        box, file = await _keep(scheduler, facts, write)
        return {"host": row(scheduler, box), "file": str(file)}


@verb("host-remove")
@attrs.frozen(kw_only=True)
class HostRemove:
    """Removes a testbox's hosts file, which makes the box unknown.  Only root may."""

    host: str

    async def do(self, asked: Asked) -> Answer:
        """Returns {"host"}.

        Raises NoSpace if the file cannot be removed: the server's next start knows the box again.
        """
        asked.only_root(_REGISTERS)
        scheduler = asked.lab.scheduler
        box, paths = _box(asked, self.host), scheduler.config.paths
        await scheduler.unregister(box, asked.user)
        try:
            await threads.run(hosts_files.remove, paths.hosts, box.name)
            await threads.run(hosts_files.forget, paths, box.name)
        except OSError as error:
            why = f"{error.filename}: {error.strerror}"
            raise NoSpace(f"{why}: at the next start {box.name} is known again") from error
        return {"host": row(scheduler, box)}


@verb("host-show")
@attrs.frozen(kw_only=True)
class HostShow:
    """Shows one testbox, named by name or MAC, with its last boots."""

    host: str

    async def do(self, asked: Asked) -> Answer:
        """Returns {"host", "boots"}."""
        box = _box(asked, self.host)
        return {"host": row(asked.lab.scheduler, box), "boots": views.boot_rows(box)}


@verb("host-preview")
@attrs.frozen(kw_only=True)
class HostPreview:
    """Shows the script that a testbox would get; no job is given out."""

    host: str
    job: str | None = None  # instead of the one that would be next

    async def do(self, asked: Asked) -> Answer:
        """Returns {"script", "why"}."""
        scheduler, box = asked.lab.scheduler, _box(asked, self.host)
        seat = scheduler.lobby.seat(box.name)
        job = await scheduler.find(self.job) if self.job else scheduler.store.next_for(box)
        if job is None:
            return {"script": "", "why": "no queued job fits it; it would be parked"}
        script = scheduler.script(job, box, seat.reached if seat else "SERVER")
        if self.job:
            return {"script": script, "why": f"{job.id}, were it next; it is in {stage(job.state)}"}
        return {"script": script, "why": f"{job.id} would be next"}


@verb("host-reserve")
@attrs.frozen(kw_only=True)
class HostReserve:
    """Reserves a testbox for one submitter's jobs, or holds it from all jobs.  Only root may."""

    host: str
    whom: str | None = called("for", default=None)  # whose jobs the box takes; None: nobody's
    why: str = ""
    seconds: float | None = None  # the end, in seconds from now; or
    until: float | None = None  # the end, in UTC seconds

    async def do(self, asked: Asked) -> Answer:
        """Returns {"host"}."""
        asked.only_root("keeps testboxes")
        scheduler, box = asked.lab.scheduler, _box(asked, self.host)
        until = self.until
        if self.seconds is not None:
            until = scheduler.clock.now() + self.seconds
        if until is None:
            raise BadRequest("host-reserve: 'until' is missing")
        await scheduler.reserve(box, self.whom or None, until, asked.user, self.why)
        return {"host": row(scheduler, box)}


@verb("host-release")
@attrs.frozen(kw_only=True)
class HostRelease:
    """Gives a testbox jobs again.  Only root may."""

    host: str

    async def do(self, asked: Asked) -> Answer:
        """Returns {"host"}."""
        asked.only_root("releases testboxes")
        scheduler, box = asked.lab.scheduler, _box(asked, self.host)
        await scheduler.release(box, asked.user)
        return {"host": row(scheduler, box)}


def _box(asked: Asked, word: str) -> Box:
    """Finds a box by name or MAC.  Raises NotFound."""
    store = asked.lab.scheduler.store
    if word in store.boxes:
        return store.boxes[word]
    try:
        found = store.box_of(boxes.Identity(boxes.normal_mac(word), ""))
    except BadRequest:
        found = None
    if found is None:
        raise NotFound(f"no testbox {word[:80]}")
    return found


def _path(asked: Asked, box: Box) -> Path:
    """Returns the path of a box's hosts file.  Raises NotFound for an unknown box."""
    if not box.known:
        raise NotFound(f"{box.name} is unknown; `appliance host add NAME --mac MAC` first")
    return hosts_files.path_of(asked.lab.scheduler.config.paths.hosts, box.name)


async def _text(path: Path) -> str:
    """Reads a file.  Raises NotFound if it cannot be read."""
    try:
        return await threads.run(partial(path.read_text, encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(f"{path}: {error}") from error
