"""What machines that run virtual testboxes say of them: names, MACs and queues.

docs/wire.md#providers specifies the requests.
Who may say it: `Admission.check_trusted`.  A name in a hosts file is the operator's: over the wire
only what was said over the wire can be changed, and what a hosts file leaves open can be added.  A
file that names disks leaves nothing open, since its box's disks are wiped.

What is said is kept in the box's hosts file; `from_providers` lists the keys that came this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import structlog
import trio

from appliance import threads
from appliance.errors import BadRequest, NoSpace, Refused
from appliance.jobs import box as boxes
from appliance.jobs.documents.document import ARCHS, is_container
from appliance.scheduler import hosts_files
from appliance.scheduler.scheduler import Scheduler

DONE: Final = "Done"
NOT_YET: Final = "No yet!"  # a word is missing; scripts of 2021 compare it so
OURS: Final = "from_providers"
PRESENT_S: Final = 60.0  # a provider beats every 30 s
PROVIDERS_MAX: Final = 10_000  # a name and a moment each
MACS_MAX: Final = 16  # of one box
TYPES: Final = ("vm", "dc", "hw")

log = structlog.get_logger()

Query = Mapping[str, str]
Fields = dict[str, Any]


def with_mac(name: str, fields: Fields, mac: str) -> Fields:
    """A hosts file's fields when a provider says that `mac` is the box's.  Raises Refused."""
    macs = hosts_files.macs_in(fields)
    if mac in macs:
        return fields
    if not _open(fields, "mac", macs) or fields.get("rootfs_disk"):
        raise Refused(f"{name} is the operator's: `appliance host add {name} --mac {mac}`")
    if len(macs) >= MACS_MAX:
        raise Refused(f"{name} has {MACS_MAX} MAC addresses already")
    return _said(fields, "mac", [*macs, mac])


def without_mac(name: str, fields: Fields, mac: str) -> Fields:
    """The fields when `mac` is the box's no longer; empty: nothing is left.  Raises Refused."""
    if "mac" not in _ours(fields):
        raise Refused(f"{name} is the operator's: `appliance host remove {name}`")
    rest = [other for other in hosts_files.macs_in(fields) if other != mac]
    if rest:
        return _said(fields, "mac", rest)
    left = {key: value for key, value in fields.items() if key not in {*_ours(fields), OURS}}
    return left


def with_queues(name: str, fields: Fields, queues: list[str]) -> Fields:
    """The fields when a provider says which queues the box serves.  Raises Refused."""
    if not _open(fields, "queues", fields.get("queues")):
        raise Refused(f"{name} is the operator's: its queues stand in its hosts file")
    fields = _said(fields, "queues", queues)
    archs = {arch for arch in ARCHS for queue in queues if queue.endswith(f".{arch}")}
    if len(archs) == 1 and _open(fields, "arch", fields.get("arch")):
        fields = _said(fields, "arch", archs.pop())  # vm-2p8g.aarch64 (docs/wire.md#queues)
    return fields


def _ours(fields: Fields) -> list[str]:
    return [str(key) for key in fields.get(OURS) or []]


def _open(fields: Fields, key: str, value: Any) -> bool:
    return not value or key in _ours(fields)


def _said(fields: Fields, key: str, value: Any) -> Fields:
    ours = list(dict.fromkeys([*_ours(fields), key]))
    return {**fields, key: value, OURS: ours}


class Providers:
    """The verbs, each answered once what it says is kept."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._one_by_one = trio.Lock()  # each reads a file, and writes it
        self._queues: dict[str, list[str]] = {}  # of names whose MAC is not known yet
        self._present: dict[str, float] = {}  # until when; trio's time, a restart asks anew

    async def set_mac(self, query: Query) -> str:
        """set_host_mac.  Raises BadRequest, Refused, and what `register` raises."""
        name, text = query.get("hostname"), query.get("mac")
        if not name or not text:
            return NOT_YET
        mac = boxes.normal_mac(text)
        async with self._one_by_one:
            fields = with_mac(name, await self._fields(name), mac)
            other = self._scheduler.store.box_of(boxes.Identity(mac, ""))
            if other is not None and other.known and other.name != name:
                await self._drop(other, mac)  # a slot of the provider has another name now
            if name in self._queues:
                fields = with_queues(name, fields, self._queues.pop(name))
            await self._register(name, fields)
        return DONE

    async def del_mac(self, query: Query) -> str:
        """del_host_mac: nothing happens where the MAC is nobody's."""
        if not query.get("mac"):
            return NOT_YET
        mac = boxes.normal_mac(query["mac"])
        async with self._one_by_one:
            box = self._scheduler.store.box_of(boxes.Identity(mac, ""))
            if box is not None and box.known:
                await self._drop(box, mac)
        return DONE

    async def set_queues(self, query: Query) -> str:
        """set_host2queues: kept in memory until the box has a MAC."""
        name, text = query.get("host"), query.get("queues")
        if not name or not text:
            return NOT_YET
        queues = [word for word in text.split(",") if word]
        async with self._one_by_one:
            fields = with_queues(name, await self._fields(name), queues)
            boxes.facts(name, {"mac": "02:00:00:00:00:00", **fields}, "default")
            if hosts_files.macs_in(fields) or is_container(name):
                await self._register(name, fields)
            elif len(self._queues) < PROVIDERS_MAX:
                self._queues[name] = queues
        return DONE

    async def del_queues(self, query: Query) -> str:
        """del_host2queues: it serves those of its name and the lab's default again."""
        name = query.get("host")
        if not name:
            return NOT_YET
        async with self._one_by_one:
            self._queues.pop(name, None)
            fields = await self._fields(name)
            if "queues" in fields:
                fields = with_queues(name, fields, [])
                await self._register(name, fields)
        return DONE

    def present(self, query: Query) -> str:
        """register-host2redis: a provider is there, for as long as it beats."""
        name, kind = query.get("hostname", ""), query.get("type", "")
        boxes.check_name(name)
        if kind not in TYPES:
            raise BadRequest(f"type: {kind[:40]!r} must be one of {', '.join(TYPES)}")
        now = trio.current_time()
        self._present = {key: until for key, until in self._present.items() if until > now}
        if len(self._present) < PROVIDERS_MAX:
            self._present[f"{kind} {name}"] = now + PRESENT_S
        return DONE

    def beats(self, query: Query) -> bool:
        """heart-beat: whether the provider is known to be there; it stays so for a while."""
        key = f"{query.get('type', '')} {query.get('hostname', '')}"
        now = trio.current_time()
        if self._present.get(key, 0.0) <= now:
            return False
        self._present[key] = now + PRESENT_S
        return True

    async def _fields(self, name: str) -> Fields:
        """What stands in the box's hosts file; empty without one."""
        boxes.check_name(name)
        folder = self._scheduler.config.paths.hosts
        return await threads.run(hosts_files.fields, folder, name)

    async def _register(self, name: str, fields: Fields) -> None:
        config = self._scheduler.config
        kind = await threads.run(hosts_files.kind, config.paths.hosts, name)
        facts = boxes.facts(name, {**kind, **fields}, config.defaults.queue)

        async def write() -> None:
            await _on_disk(partial(hosts_files.put, config.paths.hosts, name, fields))
            await _on_disk(partial(hosts_files.announce, config.paths, facts))

        await self._scheduler.register(facts, write)
        log.info("provider registered a box", box=name, macs=facts.macs, queues=facts.queues)

    async def _drop(self, box: boxes.Box, mac: str) -> None:
        paths = self._scheduler.config.paths
        fields = without_mac(box.name, await self._fields(box.name), mac)
        if fields.get("mac"):
            await self._register(box.name, fields)
            return
        await self._scheduler.unregister(box, "its provider")
        if fields:
            await _on_disk(partial(hosts_files.put, paths.hosts, box.name, fields))
        else:
            await _on_disk(partial(hosts_files.remove, paths.hosts, box.name))
        await _on_disk(partial(hosts_files.forget, paths, box.name))


async def _on_disk(change: partial[Any]) -> None:
    try:
        await threads.run(change)
    except OSError as error:
        raise NoSpace(f"{error.filename}: {error.strerror}") from error
