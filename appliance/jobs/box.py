"""Pure: no clock, no socket, no await.

A testbox: its identity, the operator's settings for it, and its last boots.

The operator's hosts file is authoritative for a known box.  A box that asks for work and is in no
hosts file is unknown: it is listed and may wait in the lobby, but gets no job.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from appliance import addresses
from appliance.errors import BadRequest
from appliance.jobs.documents import checks, ipxe_words
from appliance.jobs.documents.document import ARCHS, group_of, is_container

BOOTS_KEPT: Final = 10  # last boots of a box, step by step, for `host show`
DETAIL_MAX: Final = 200  # characters of one step's detail: a path, or the text of a report
STEPS_MAX: Final = 100  # per boot: a script has some ten files and a job some ten reports

# SMBIOS UUIDs that whole series of boards share: all zeros, erased flash, and vendors' examples.
_JUNK_UUIDS: Final = frozenset(
    [
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "03000200-0400-0500-0006-000700080009",
        "00020003-0004-0005-0006-000700080009",
    ]
)
STRANGER: Final = "unknown-"  # prefix of an unregistered box's name; its MAC follows
PRESENT_MIN_S: Final = 1200.0  # twice the ten minutes for which a server tests its memory
CRASHKERNEL_AUTO: Final = frozenset(["centos", "openeuler", "rhel"])
CRASHKERNEL_SMALL: Final = "128M"  # for hosts with up to 8 GB
CRASHKERNEL_BY_SIZE: Final = "4G-8G:128M,8G-16G:256M,16G-:512M"  # nothing below 4 GB
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
# iPXE's ${buildarch} -> the word that documents use
_ARCH_WORDS: Final = {"arm64": "aarch64", "aarch64": "aarch64", "x86_64": "x86_64"}


def normal_mac(text: str) -> str:
    """Returns `text` as aa:bb:cc:dd:ee:ff.  Raises BadRequest if it is not six hex pairs."""
    try:
        return addresses.card(text)
    except ValueError as error:
        raise BadRequest(f"{error}: six pairs of hex digits, - or : between") from error


def container_name(text: str) -> str:
    """Returns a container's testbox name; newer providers send its host's.  Raises BadRequest."""
    check_name(text)
    return text if is_container(text) else f"dc-{text}"


def mac_of(name: str) -> str:
    """Returns a made-up MAC for a container, which has none: always the same for a name."""
    digits = hashlib.sha256(name.encode()).hexdigest()
    return normal_mac("02" + digits[:10])  # locally administered: no real card has it


def usable_uuid(text: str | None) -> str | None:
    """Returns the UUID in lower case, or None if it is malformed or shared by many boards."""
    uuid = (text or "").strip().lower()
    return uuid if _UUID.match(uuid) and uuid not in _JUNK_UUIDS else None


@attrs.frozen
class Identity:
    """What a box says about itself when it asks for work, and the address it asked from."""

    mac: str
    address: str
    arch: str | None = None
    uuid: str | None = None
    serial: str = ""
    product: str = ""


def identity(mac: str, address: str, query: Mapping[str, str]) -> Identity:
    """Builds an Identity from `/boot.ipxe/mac/<mac>?arch=&uuid=&serial=&product=`."""
    return Identity(
        normal_mac(mac),
        address,
        _ARCH_WORDS.get(query.get("arch", "")),
        usable_uuid(query.get("uuid")),
        _shown(query.get("serial", "")),
        _shown(query.get("product", "")),
    )


def _shown(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:80]


@attrs.frozen
class Facts:
    """The keys of the operator's hosts file that the appliance uses."""

    name: str
    macs: tuple[str, ...]
    arch: str | None = None
    uuid: str | None = None
    queues: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    memory_gb: int | None = None
    rootfs_disk: tuple[str, ...] = ()
    crashkernel: str | None = None
    console: tuple[str, ...] | None = None
    kernel_params: str = ""
    nr_nic: int | None = None
    deadlines: Mapping[str, float] = attrs.field(factory=dict)  # seconds; see checks.DEADLINES
    ipxe: str | None = None  # path of the iPXE build for this box (boot/daemons/own_ipxe.py)
    nr_disk: int | None = None
    disk_size: str | None = None

    @functools.cached_property
    def served(self) -> tuple[str, ...]:
        """The queues that the box serves, its own name first (docs/wire.md#queues)."""
        return tuple(dict.fromkeys([self.name, group_of(self.name), *self.queues]))

    def crash_memory(self, system: str) -> str:
        """Returns crashkernel= for an os on this host: from the hosts file, else by memory size."""
        return self.crashkernel or crash_memory(self.memory_gb, system)

    @property
    def comments(self) -> Mapping[str, str]:
        """The boot script's comments about the box's hardware (document.COMMENTS)."""
        said = {"nr_nic": self.nr_nic, "nr_disk": self.nr_disk, "disk_size": self.disk_size}
        return {name: str(value) for name, value in said.items() if value is not None}


def crash_memory(memory_gb: int | None, system: str) -> str:
    """Returns crashkernel= for a host's memory (docs/wire.md#the-boot-script).

    Only Red Hat's kernels and their derivatives understand `auto`.  Other kernels get a size, or,
    where the memory is unknown, a table of sizes from which the kernel chooses.
    """
    if memory_gb is None:
        return "auto" if system in CRASHKERNEL_AUTO else CRASHKERNEL_BY_SIZE
    if memory_gb <= 8:
        return "auto" if system in CRASHKERNEL_AUTO else CRASHKERNEL_SMALL
    return "256M" if memory_gb <= 16 else "512M"


def check_name(name: str) -> None:
    """Raises BadRequest if `name` is not a valid testbox name."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", name):
        raise BadRequest(f"{name!r} is no testbox name: letters, digits and . _ - (at most 64)")
    if name.startswith(STRANGER):
        raise BadRequest(f"{name!r} is no testbox name: {STRANGER}... are boxes without one")


def facts(name: str, text: Mapping[str, Any], default_queue: str) -> Facts:
    """Reads Facts from a hosts file's fields.  Raises BadRequest with the key and its form."""
    check_name(name)
    macs = tuple(dict.fromkeys(normal_mac(str(mac)) for mac in _list(text, "mac")))
    if not macs and is_container(name):
        macs = (mac_of(name),)
    if not macs:
        raise BadRequest(f"{name}: mac: must name at least one MAC address")
    arch = text.get("arch")
    if arch is not None and arch not in ARCHS:
        raise BadRequest(f"{name}: arch: {arch!r} must be one of {', '.join(ARCHS)}")
    uuid = str(text.get("uuid") or "").strip()
    if uuid and not _UUID.match(uuid.lower()):
        raise BadRequest(f"{name}: uuid: {uuid[:80]!r} is no UUID: 8-4-4-4-12 hex digits")
    memory = re.match(r"([0-9]{1,6})\s*[gG]?", str(text.get("memory", "")))
    console = _words(name, text, "console") if "console" in text else None
    ipxe = text.get("ipxe") or None
    if ipxe is not None and not (isinstance(ipxe, str) and ipxe.isprintable()):
        raise BadRequest(f"{name}: ipxe: {ipxe!r} must be the name of a file")
    return Facts(
        name,
        macs,
        arch,
        usable_uuid(uuid),
        _words(name, text, "queues") or (default_queue,),
        _words(name, text, "tags"),
        int(memory[1]) if memory else None,
        _words(name, text, "rootfs_disk"),
        _words(name, text, "crashkernel")[0] if text.get("crashkernel") else None,
        console,
        _kernel_params(name, text),
        _count(text, "nr_nic"),
        _deadlines(name, text.get("deadlines") or {}),
        ipxe,
        _count(text, "nr_disk"),
        _disk_size(name, text),
    )  # fmt: skip


def _count(text: Mapping[str, Any], key: str) -> int | None:
    """Returns a small number; None for anything else, which lkp's own hosts files may hold."""
    value = str(text.get(key))
    return int(value) if re.fullmatch(r"[0-9]{1,3}", value) else None


def _disk_size(name: str, text: Mapping[str, Any]) -> str | None:
    value = text.get("disk_size")
    try:
        return checks.size(value) if value is not None else None
    except ValueError as error:
        raise BadRequest(f"{name}: disk_size: {str(value)[:40]!r} {error}") from error


def _kernel_params(name: str, text: Mapping[str, Any]) -> str:
    """Joins the words that the host adds to a kernel line, from all keys that can hold some."""
    words = []
    for field in checks.boot_fields(text):
        try:
            words += checks.boot_words(field, text[field]).split()
        except ValueError as error:
            raise BadRequest(f"{name}: {field}: {error}") from error
    for key in ("kernel_custom_params", "kernel_params"):
        own = _words(name, {key: str(text.get(key) or "").split()}, key)
        for word in own:
            if not ipxe_words.is_plain(word):
                raise BadRequest(f"{name}: {key}: {word!r} must not be: iPXE takes it for its own")
        words += own
    return " ".join(words)


def _deadlines(name: str, value: Any) -> dict[str, float]:
    try:
        return checks.deadlines(value)
    except ValueError as error:
        raise BadRequest(f"{name}: deadlines: {error}") from error


def _list(text: Mapping[str, Any], key: str) -> list[Any]:
    value = text.get(key)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _words(name: str, text: Mapping[str, Any], key: str) -> tuple[str, ...]:
    words = tuple(str(word) for word in _list(text, key))
    for word in words:
        if not re.fullmatch(r"[\x21-\x7e]+", word):
            raise BadRequest(f"{name}: {key}: {word!r} must be printable ASCII without blanks")
        if "${" in word or word in ipxe_words.OPERATORS:
            raise BadRequest(f"{name}: {key}: {word!r} must not be: iPXE takes it for its own")
    return words


@attrs.frozen
class Step:
    """One thing that happened in a boot."""

    at: float
    what: str  # "script", "file", "report", ...
    detail: str = ""
    size: int | None = None  # bytes
    seconds: float | None = None


@attrs.define
class BootLog:
    """One boot of a box, from one request for work to the next."""

    began: float
    job: str | None = None
    attempt: int | None = None
    steps: list[Step] = attrs.Factory(list)
    ended: str | None = None


@attrs.frozen
class Reservation:
    """A person's claim on a box: it runs only one submitter's jobs, or none."""

    user: str | None  # whose jobs the box takes; None: no jobs at all
    until: float  # UTC
    by: str
    why: str = ""


@attrs.define
class Box:
    """A testbox as the store knows it."""

    name: str
    macs: tuple[str, ...]
    facts: Facts | None = None  # None: not registered
    arch: str | None = None  # as boot.ipxe reported; the hosts file takes precedence
    uuid: str | None = None
    serial: str = ""
    product: str = ""
    address: str | None = None  # where its last request for work came from
    since: float = 0.0  # when its current state began
    job: str | None = None  # the job whose attempt it holds
    misses: int = 0  # boots and jobs lost in a row (jobs/misses.py)
    backoff_until: float = 0.0
    lost: tuple[str, ...] = ()  # the jobs whose boots it lost in a row
    quick: tuple[tuple[str, str], ...] = ()  # (job, suite) of consecutive quick failures
    quarantine: str = ""  # why it gets no job until a person releases it
    reservation: Reservation | None = None
    boots: list[BootLog] = attrs.Factory(list)

    @property
    def known(self) -> bool:
        """Whether a hosts file names it."""
        return self.facts is not None

    @property
    def takes_jobs(self) -> bool:
        """Whether the box may get jobs: neither quarantined nor held by a person."""
        held = self.reservation is not None and self.reservation.user is None
        return not self.quarantine and not held

    @property
    def runs_arch(self) -> str | None:
        """The box's arch; None: unknown, and no job matches."""
        return (self.facts and self.facts.arch) or self.arch

    @property
    def boot(self) -> BootLog | None:
        """The boot under way, or the last one."""
        return self.boots[-1] if self.boots else None

    @property
    def asked(self) -> float:
        """When the box last asked for work, UTC; 0 if never."""
        return self.boots[-1].began if self.boots else 0.0


def present_for(park: float) -> float:
    """Returns for how many seconds after its last request a box counts as present: two waits."""
    return max(2 * park, PRESENT_MIN_S)


def is_there(box: Box, at: float, park: float) -> bool:
    """Tells whether the box has a job, or last asked shortly before `at` or after it."""
    return box.job is not None or box.asked > at - present_for(park)


def inherit(box: Box, other: Box) -> None:
    """Merges `other`, the same machine's earlier entry, into `box`; the later address wins."""
    box.arch, box.uuid = box.arch or other.arch, box.uuid or other.uuid
    box.serial, box.product = box.serial or other.serial, box.product or other.product
    box.since = max(box.since, other.since)
    if box.address is None or (box.job is None and other.asked > box.asked):
        box.address = other.address or box.address
    if other.asked > box.asked:
        box.boots = [*box.boots[-BOOTS_KEPT + 1 :], BootLog(other.asked)]


def shifted(boot: BootLog, seconds: float) -> BootLog:
    """Returns the boot with all its times moved by `seconds`, as the wall clock was."""
    steps = [attrs.evolve(step, at=step.at + seconds) for step in boot.steps]
    return attrs.evolve(boot, began=boot.began + seconds, steps=steps)


def fetched(box: Box, job: str, attempt: int) -> set[str]:
    """Returns the paths (cut to DETAIL_MAX) that the box fetched for this attempt in this boot."""
    boot = box.boot
    if boot is None or (boot.job, boot.attempt) != (job, attempt):
        return set()
    return {step.detail for step in boot.steps if step.what == "file"}


def remember(box: Box, step: Step, job: str | None, attempt: int | None) -> None:
    """Records a step of the boot under way; a full list loses its middle, not its ends."""
    if not box.boots:
        box.boots.append(BootLog(step.at))
    boot = box.boots[-1]
    if job is not None:
        boot.job, boot.attempt = job, attempt
    if len(boot.steps) >= STEPS_MAX:
        del boot.steps[STEPS_MAX // 2]
    boot.steps.append(step)
