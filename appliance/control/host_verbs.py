"""What a person may ask about testboxes: which there are, what they do, who gets their time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from appliance import threads
from appliance.boot.daemons import own_ipxe
from appliance.errors import ApplianceError, BadRequest, NoSpace, NotFound, Refused
from appliance.jobs import box as boxes
from appliance.jobs import hosts_csv
from appliance.jobs.job import stage
from appliance.jobs.shown import views
from appliance.scheduler import hosts_files
from appliance.scheduler.scheduler import Scheduler

log = structlog.get_logger()

Arguments = dict[str, Any]


class Testboxes:
    """The verbs, for one scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def row(self, box: boxes.Box) -> dict[str, Any]:
        """One testbox, as it is shown."""
        scheduler = self._scheduler
        return views.host_row(scheduler.store, scheduler.lobby, box, scheduler.clock.now())

    async def all(self) -> dict[str, Any]:
        """Every testbox, known or not."""
        return {"hosts": [self.row(box) for box in self._scheduler.store.boxes.values()]}

    async def add(self, arguments: Arguments, user: str) -> dict[str, Any]:
        """Register one, or change what its hosts file says; or all of a `list`, or none of it.

        Raises Refused where it would take MACs away from one, and `replace` was not said.
        """
        _only_root(user, "says which testboxes there are")
        replace = bool(arguments.get("replace"))
        if arguments.get("list") is not None:
            return await self._add_all(str(arguments["list"]), replace)
        name, others = str(arguments["name"]), ("name", "replace")
        fields = {key: value for key, value in arguments.items() if value and key not in others}
        if macs := fields.pop("macs", None):
            fields["mac"] = macs
        if unknown := sorted(fields.keys() - {*hosts_csv.KEYS}):
            known = ", ".join(hosts_csv.KEYS)
            raise BadRequest(f"host-add: {unknown[0][:40]!r} is no key of a testbox: {known}")
        facts = await self._facts(name, fields)
        gone = await self._replaced(facts, replace)
        box, file = await self._add(facts, fields)
        return {"host": self.row(box), "file": str(file), "replaced": gone}

    async def _replaced(self, facts: boxes.Facts, replace: bool) -> list[str]:
        """The MACs that the box has, by its hosts file or in memory, and will have no longer."""
        folder = self._scheduler.config.paths.hosts
        there = self._scheduler.store.boxes.get(facts.name)
        has = list(there.facts.macs) if there is not None and there.facts is not None else []
        with contextlib.suppress(BadRequest):  # what is no MAC goes, and is no loss
            fields = await threads.run(hosts_files.fields, folder, facts.name)
            has += hosts_files.macs_in(fields)
        gone = [mac for mac in dict.fromkeys(has) if mac not in facts.macs]
        if gone and not replace:
            raise Refused(
                f"{facts.name} has {', '.join(gone)} already, and would lose that: name every MAC,"
                " or say --replace"
            )
        return gone

    async def _add_all(self, text: str, replace: bool) -> dict[str, Any]:
        """Raises BadRequest with every mistake and its line; then nothing was added."""
        rows = await threads.run(partial(hosts_csv.parse, text))
        ready, problems = [], []
        for row in rows:
            try:
                facts = await self._facts(row.name, row.fields)
                self._scheduler.known(facts)
                await self._replaced(facts, replace)
                ready.append((facts, row.fields))
            except ApplianceError as error:
                problems.append(f"line {row.line}: {error}")
        hosts_csv.complain(problems)
        added = [await self._add(facts, fields) for facts, fields in ready]
        return {"hosts": [self.row(box) for box, _ in added]}

    async def _facts(self, name: str, changed: Arguments) -> boxes.Facts:
        """What its hosts file will say.  Raises BadRequest, BadConfig."""
        config = self._scheduler.config
        boxes.check_name(name)

        def read() -> Arguments:
            folder = config.paths.hosts
            return {**hosts_files.kind(folder, name), **hosts_files.fields(folder, name), **changed}

        fields = await threads.run(read)
        facts = boxes.facts(name, fields, config.defaults.queue)
        if facts.ipxe is not None:
            await threads.run(own_ipxe.find, config.paths.tftp, name, facts.ipxe)
        return facts

    async def _add(self, facts: boxes.Facts, fields: Arguments) -> tuple[boxes.Box, Path]:
        fields = {**fields, "mac": list(facts.macs)}
        folder = self._scheduler.config.paths.hosts
        return await self._keep(facts, partial(hosts_files.write, folder, facts.name, fields))

    async def file(self, arguments: Arguments, user: str) -> dict[str, Any]:
        """The text of a known box's hosts file, for `edit`."""
        _only_root(user, "says which testboxes there are")
        box = self._box(str(arguments["host"]))
        path = self._path(box)
        return {"name": box.name, "file": str(path), "text": await _text(path)}

    async def edit(self, arguments: Arguments, user: str) -> dict[str, Any]:
        """Make `text` a known box's hosts file, where that was `before`.

        Raises BadConfig with file and line, and Refused where the file has changed since, or one
        of the MACs is another's; nothing is changed then.
        """
        _only_root(user, "says which testboxes there are")
        box, text = self._box(str(arguments["host"])), str(arguments["text"])
        path, paths = self._path(box), self._scheduler.config.paths
        check = partial(hosts_files.check, path, text, self._scheduler.config.defaults.queue)
        facts = await threads.run(check)
        if facts.ipxe is not None:
            await threads.run(own_ipxe.find, paths.tftp, box.name, facts.ipxe)
        if await _text(path) != str(arguments["before"]):
            raise Refused(f"{path} was changed by somebody else meanwhile: edit that")
        box, file = await self._keep(
            facts, partial(hosts_files.put_text, paths.hosts, box.name, text)
        )
        return {"host": self.row(box), "file": str(file)}

    def _path(self, box: boxes.Box) -> Path:
        """Of its hosts file.  Raises NotFound for a box that has none."""
        if not box.known:
            raise NotFound(f"{box.name} is unknown; `appliance host add NAME --mac MAC` first")
        return hosts_files.path_of(self._scheduler.config.paths.hosts, box.name)

    async def _keep(self, facts: boxes.Facts, write: Callable[[], Path]) -> tuple[boxes.Box, Path]:
        """Register a box and have its hosts file written."""
        paths, where = self._scheduler.config.paths, list[Path]()

        async def keep() -> None:
            try:
                where.append(await threads.run(write))
            except OSError as error:
                raise NoSpace(f"{error.filename or paths.hosts}: {error.strerror}") from error
            try:
                await threads.run(hosts_files.announce, paths, facts)
            except OSError as error:  # the next start tells it
                log.warning("dnsmasq was not told", host=facts.name, why=str(error))

        return await self._scheduler.register(facts, keep), where[0]

    async def remove(self, arguments: Arguments, user: str) -> dict[str, Any]:
        """Its hosts file goes, and it is unknown from then on."""
        _only_root(user, "says which testboxes there are")
        box, paths = self._box(str(arguments["host"])), self._scheduler.config.paths

        await self._scheduler.unregister(box, user)
        try:
            await threads.run(hosts_files.remove, paths.hosts, box.name)
            await threads.run(hosts_files.forget, paths, box.name)
        except OSError as error:
            why = f"{error.filename}: {error.strerror}"
            raise NoSpace(f"{why}: at the next start {box.name} is known again") from error
        return {"host": self.row(box)}

    async def show(self, arguments: Arguments) -> dict[str, Any]:
        """One, by name or MAC, with its last boots."""
        box = self._box(str(arguments["host"]))
        return {"host": self.row(box), "boots": views.boot_rows(box)}

    async def preview(self, arguments: Arguments) -> dict[str, Any]:
        """The script that it would get; nothing is handed out."""
        box = self._box(str(arguments["host"]))
        store, seat = self._scheduler.store, self._scheduler.lobby.seat(box.name)
        wanted = arguments.get("job")
        job = await self._scheduler.find(str(wanted)) if wanted else store.next_for(box)
        if job is None:
            return {"script": "", "why": "no queued job fits it; it would be parked"}
        shown = self._scheduler.script(job, box, seat.reached if seat else "SERVER")
        named = f"{job.id}, were it next; it is in {stage(job.state)}"
        return {"script": shown, "why": named if wanted else f"{job.id} would be next"}

    async def reserve(self, arguments: Arguments, user: str) -> dict[str, Any]:
        """`for`: whose jobs it takes; without it nobody's.  `until` then, or for `seconds`."""
        _only_root(user, "keeps testboxes")
        box, whom = self._box(str(arguments["host"])), arguments.get("for")
        why, seconds = str(arguments.get("why") or ""), arguments.get("seconds")
        if seconds is not None:
            until = self._scheduler.clock.now() + float(seconds)
        else:
            until = float(arguments["until"])
        await self._scheduler.reserve(box, str(whom) if whom else None, until, user, why)
        return {"host": self.row(box)}

    async def release(self, arguments: Arguments, user: str) -> dict[str, Any]:
        """It gets jobs again."""
        _only_root(user, "releases testboxes")
        box = self._box(str(arguments["host"]))
        await self._scheduler.release(box, user)
        return {"host": self.row(box)}

    def _box(self, word: str) -> boxes.Box:
        """By name or by MAC.  Raises NotFound."""
        store = self._scheduler.store
        if word in store.boxes:
            return store.boxes[word]
        try:
            found = store.box_of(boxes.Identity(boxes.normal_mac(word), ""))
        except BadRequest:
            found = None
        if found is None:
            raise NotFound(f"no testbox {word[:80]}")
        return found


async def _text(path: Path) -> str:
    """Raises NotFound where it cannot be read."""
    try:
        return await threads.run(partial(path.read_text, encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(f"{path}: {error}") from error


def _only_root(user: str, does: str) -> None:
    if user != "root":
        raise Refused(f"only root {does}")
