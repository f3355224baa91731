"""Registers virtual testboxes (names, MACs, queues) for the machines that run them, the providers.

docs/wire.md#providers specifies the requests.
`Admission.check_trusted` says who may send them.  Values that the operator wrote into a hosts file
stay: a provider may change only values that came from a provider, and add values that the file
leaves open.  To a file that names disks no provider may add a MAC, since the disks are wiped.

The values are kept in the box's hosts file; `from_providers` lists the keys that came this way.
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
NOT_YET: Final = "No yet!"  # a parameter is missing; scripts of 2021 compare these very words
OURS: Final = "from_providers"
PRESENT_S: Final = 60.0  # a provider beats every 30 s
PROVIDERS_MAX: Final = 10_000  # each takes a name and a time
MACS_MAX: Final = 16  # of one box
TYPES: Final = ("vm", "dc", "hw")

log = structlog.get_logger()

Query = Mapping[str, str]
Fields = dict[str, Any]


def with_mac(name: str, fields: Fields, mac: str) -> Fields:
    """Returns a hosts file's fields with `mac`, as a provider reports it.  Raises Refused."""
    macs = hosts_files.macs_in(fields)
    if mac in macs:
        return fields
    if not _open(fields, "mac", macs) or fields.get("rootfs_disk"):
        raise Refused(f"{name} is the operator's: `appliance host add {name} --mac {mac}`")
    if len(macs) >= MACS_MAX:
        raise Refused(f"{name} has {MACS_MAX} MAC addresses already")
    return _said(fields, "mac", [*macs, mac])


def without_mac(name: str, fields: Fields, mac: str) -> Fields:
    """Returns the fields without `mac`; empty: nothing is left.  Raises Refused."""
    if "mac" not in _ours(fields):
        raise Refused(f"{name} is the operator's: `appliance host remove {name}`")
    rest = [other for other in hosts_files.macs_in(fields) if other != mac]
    if rest:
        return _said(fields, "mac", rest)
    left = {key: value for key, value in fields.items() if key not in {*_ours(fields), OURS}}
    return left


def with_queues(name: str, fields: Fields, queues: list[str]) -> Fields:
    """Returns the fields with the queues that a provider reports.  Raises Refused."""
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
    """Carries out the providers' requests; most are answered once the change is on disk."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._one_by_one = trio.Lock()  # each request reads a file and writes it
        self._queues: dict[str, list[str]] = {}  # of names whose MAC is not known yet
        self._present: dict[str, float] = {}  # when each provider expires, in trio's time

    async def set_mac(self, query: Query) -> str:
        """Does set_host_mac.  Raises BadRequest, Refused, and what `register` raises."""
        name, text = query.get("hostname"), query.get("mac")
        if not name or not text:
            return NOT_YET
        mac = boxes.normal_mac(text)
        async with self._one_by_one:
            fields = with_mac(name, await self._fields(name), mac)
            other = self._scheduler.store.box_of(boxes.Identity(mac, ""))
            if other is not None and other.known and other.name != name:
                await self._drop(other, mac)  # the provider has given this MAC another name
            if name in self._queues:
                fields = with_queues(name, fields, self._queues.pop(name))
            await self._register(name, fields)
        return DONE

    async def del_mac(self, query: Query) -> str:
        """Does del_host_mac; a MAC of no known box changes nothing."""
        if not query.get("mac"):
            return NOT_YET
        mac = boxes.normal_mac(query["mac"])
        async with self._one_by_one:
            box = self._scheduler.store.box_of(boxes.Identity(mac, ""))
            if box is not None and box.known:
                await self._drop(box, mac)
        return DONE

    async def set_queues(self, query: Query) -> str:
        """Does set_host2queues; the queues stay in memory until the box has a MAC."""
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
        """Does del_host2queues; the box serves the queues of its name and the default again."""
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
        """Does register-host2redis: notes that a provider is there, for as long as it beats."""
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
        """Does heart-beat: returns whether the provider is registered, and extends that."""
        key = f"{query.get('type', '')} {query.get('hostname', '')}"
        now = trio.current_time()
        if self._present.get(key, 0.0) <= now:
            return False
        self._present[key] = now + PRESENT_S
        return True

    async def _fields(self, name: str) -> Fields:
        """Returns the fields of the box's hosts file; empty without one."""
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
