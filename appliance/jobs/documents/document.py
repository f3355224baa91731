"""Pure: no clock, no socket, no await.

A job document: the YAML a person submits.  Its fields, their defaults, and the error messages.
All mistakes are reported at once, each with its field and line.

A document is LKP-style YAML: it may have any top-level key, and scalars among them become the
job's environment.  The fields that the appliance itself uses are checked (`_document`).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs
import yaml

from appliance.config import Defaults
from appliance.errors import BadDocument, Problem
from appliance.jobs.documents import checks
from appliance.jobs.documents.checks import Package
from appliance.jobs.documents.reading import Reading, read
from appliance.jobs.job import Rules

OS_MOUNTS: Final = ("cifs", "nfs", "initramfs", "container", "local")
ARCHS: Final = ("aarch64", "x86_64")
CONTAINER: Final = "container"
LOCAL: Final = "local"
# The default os_version of each os other than the lab's default os (docs/wire.md#files).
OS_VERSIONS: Final = {
    "openeuler": "20.03", "centos": "7.6.1810", "debian": "sid", "ubuntu": "20.04", "fedora": "33",
}  # fmt: skip
DOCKER_IMAGE: Final = "centos:7"  # docs/wire.md#files
LV_SIZE: Final = "10G"  # size of a local root, as in 2021 (docs/wire.md#the-boot-script)
PROGRAMS_MAX: Final = 100  # programs whose files are looked up; the largest suites have some twenty
PRIORITY_MAX: Final = 100  # from -100 to 100: enough for people, and short to print
REBOOTS_MAX: Final = 100
# Set by the server for every job: a value sent by a client is dropped
# (docs/wire.md#submitting-a-job).
SERVER_FIELDS: Final = frozenset(
    """id plugins added_by errid stats start_time end_time finish_time job_health job_stage
    job_state result_root result_service upload_dirs submit_time submit_date kernel_params
    initrds_uri LKP_SERVER LKP_CGI_PORT SCHED_HOST SCHED_PORT RESULT_WEBDAV_PORT HTTP_PREFIX
    my_token""".split()  # noqa: SIM905 - one word a line would be 25 lines
)
# Comments in a boot script, which hosts of virtual boxes read (docs/wire.md#the-boot-script), with
# the check of each value.
COMMENTS: Final = {
    "nr_nic": checks.count,
    "nr_disk": checks.count,
    "disk_size": checks.size,
}
# Fields kept out of job.yaml: they have files of their own in job.cgz, or must not be in it at all.
APART: Final = frozenset(["job2sh", "script", "secrets", "pkg_data", "define_files"])

_VIRTUAL: Final = ("vm-", "dc-", "vt-")
_PLAIN: Final = Rules()
# Words shared by many documents are stored once: a lab may have 100,000 jobs waiting, of some
# hundred kinds.  The cache takes at most 1 MB.
WORDS_MAX: Final = 10_000


@functools.lru_cache(WORDS_MAX)
def _first_equal(word: str) -> str:
    return word


def once(word: str) -> str:
    """Returns an equal string, the same object for all callers."""
    return _first_equal(word)


@attrs.frozen
class Body:
    """The large part of a document, needed only to make job.cgz."""

    script: str | None = None
    job2sh: Mapping[str, list[str]] | None = None
    secrets: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    fields: Mapping[str, Any] = attrs.field(factory=dict)  # as written, without APART

    @property
    def programs(self) -> tuple[tuple[str, str], ...]:
        """The programs that it runs, with versions (docs/wire.md#files); lkp itself comes first."""
        found = {"lkp": "latest"}
        for field in ("monitor", "monitors", "pp"):
            listed = self.fields.get(field)
            for name in listed if isinstance(listed, dict) else ():
                program = re.sub(r"-[0-9]+\Z", "", str(name))
                version = str(self.fields.get(f"{program}_version") or "latest")
                if checks.is_word(program) and checks.is_word(version):
                    found[program] = version
        return tuple(found.items())[:PROGRAMS_MAX]


@attrs.frozen
class Document:
    """A valid document, with every default filled in."""

    suite: str = attrs.field(converter=once)
    os: str = attrs.field(converter=once)
    os_version: str = attrs.field(converter=once)
    arch: str = attrs.field(converter=once)
    os_mount: str = attrs.field(converter=once)
    queue: str = attrs.field(converter=once)  # boxes that serve it may run the job
    runtime: int  # seconds
    testbox: str | None = None
    tbox_group: str | None = None
    tags: tuple[str, ...] = ()
    priority: int = 0
    timeout: int | None = None
    rules: Rules = _PLAIN
    deadlines: Mapping[str, float] = attrs.field(factory=dict)  # seconds; see checks.DEADLINES
    kernel_version: str | None = None
    kernel_uri: str | None = None
    modules_uri: tuple[str, ...] = ()  # newer clients name several
    kernel_custom_params: str = ""
    rootfs_disk: tuple[str, ...] | None = None  # a selection from the hosts file's disks
    packages: tuple[Package, ...] = ()  # from pkg_data
    cluster: str | None = None  # jobs of one submit with the same cluster run together
    docker_image: str | None = None  # only with os_mount container
    local: str = ""  # only with os_mount local: words about its volumes for the kernel line
    comments: tuple[str, ...] = ()  # "nr_nic=2": for the host that makes the box (see COMMENTS)
    body: Body | None = None  # None: it is in the archive

    @property
    def run_s(self) -> float:
        """The longest time the job may run, in seconds (docs/wire.md#stages-and-deadlines)."""
        if self.timeout is not None:
            return float(self.timeout)
        return self.runtime + max(self.runtime / 8, 300) + math.sqrt(self.runtime)

    @property
    def platform(self) -> str:
        """The kind of box it needs: a machine of an arch, or a host of containers of that arch."""
        return platform(self.arch, container=self.os_mount == CONTAINER)

    @property
    def group(self) -> str:
        """The testbox group in its result root; the queue's name if no box was named."""
        return self.tbox_group or (group_of(self.testbox) if self.testbox else self.queue)


def group_of(testbox: str) -> str:
    """Returns a testbox's tbox_group: up to the first `.` or `--` (docs/wire.md#queues)."""
    return re.split(r"\.|--", testbox, maxsplit=1)[0]


def line(queue: str, arch: str) -> str:
    """Returns the queue's name without `.<arch>`, which virtual boxes' queues may end in.

    Clients of 2021 add the arch (docs/wire.md#queues); it is not needed, since jobs are only
    matched with boxes of their arch.
    """
    return queue.removesuffix(f".{arch}") if queue.startswith(_VIRTUAL) else queue


def is_container(testbox: str | None) -> bool:
    """Tells whether a testbox, or a group of them, is made of containers (docs/wire.md#files)."""
    return testbox is not None and testbox.startswith("dc-")


def platform(arch: str, *, container: bool) -> str:
    """Returns the kind of box for an arch; containers and machines are different kinds."""
    return f"{arch} container" if container else arch


def parse(
    text: str,
    name: str,
    defaults: Defaults,
    *,
    before: Mapping[str, str] | None = None,
    after: Mapping[str, str] | None = None,
) -> Document:
    """Parses a document from YAML `text`; `name` is its file's name, without path.

    `before` gives defaults for fields that the text lacks, `after` overrides the text
    (docs/wire.md#defaults-and-overrides).  Raises BadDocument with every mistake.
    """
    found = examine(text, name, defaults, before or {}, after or {})
    if found.problems:
        raise BadDocument(found.problems)
    return found.document


@attrs.frozen
class Examined:
    """A document as far as it is valid, and its mistakes."""

    document: Document
    problems: list[Problem]
    lines: Mapping[str, int]  # the line of each field
    values: int  # number of names and values in it


def examine(
    text: str, name: str, defaults: Defaults, before: Mapping[str, str], after: Mapping[str, str]
) -> Examined:
    """Reads a document as far as it is valid, and collects every mistake.

    Raises BadDocument if `text` is not a mapping of fields at all.
    """
    reading = read(text, before, after)
    document = _document(reading, name, defaults)
    problems = sorted(reading.problems, key=lambda problem: problem.line or 0)
    return Examined(document, problems, reading.lines, reading.values)


def _document(r: Reading, name: str, defaults: Defaults) -> Document:
    for field in SERVER_FIELDS & r.fields.keys():
        del r.fields[field]
    for field in [field for field in r.fields if field.startswith("secrets.")]:
        del r.fields[field]  # as a plain field everybody could read it
        r.wrong(field, "write `secrets:` in the document, and the names below it")
    stem = re.sub(r"[^A-Za-z0-9._+-]+", "-", re.sub(r"\.ya?ml$", "", name)).strip("-._") or "job"
    testbox = r.take("testbox", checks.box, None)
    group = r.take("tbox_group", checks.box, None)
    served = group or (group_of(testbox) if testbox else defaults.queue)
    arch = r.take("os_arch", checks.one_of(ARCHS), defaults.arch)
    kernel_uri = r.take("kernel_uri", checks.uri, None)
    document = Document(
        suite=r.take("suite", checks.word, stem[:100]),
        **_system(r, testbox, group, defaults),
        arch=r.take("arch", checks.one_of(ARCHS), arch),
        queue=r.take("queue", checks.box, testbox or served),
        runtime=r.take("runtime", checks.duration, defaults.runtime),
        testbox=testbox,
        tbox_group=group,
        tags=r.take("tags", checks.list_of(checks.word, "words"), ()),
        priority=r.take("priority", checks.whole(-PRIORITY_MAX, PRIORITY_MAX), 0),
        timeout=r.take("timeout", checks.duration, None),
        rules=Rules(
            retry=r.take("retry", checks.truth, False),
            reboots=r.take("reboots", checks.whole(0, REBOOTS_MAX), 0),
            own_kernel=kernel_uri is not None,
        ),
        deadlines=r.take("deadlines", checks.deadlines, {}),
        kernel_version=r.take("kernel_version", checks.word, None),
        kernel_uri=kernel_uri,
        modules_uri=r.take("modules_uri", checks.uris, ()),
        kernel_custom_params=_kernel_words(r),
        rootfs_disk=r.take("rootfs_disk", checks.list_of(checks.disk, "disks, as in"), None),
        packages=r.take("pkg_data", checks.packages, ()),
        cluster=r.take("cluster", checks.cluster, None),
        comments=_comments(r),
    )
    if document.os_mount == LOCAL:
        document = attrs.evolve(document, local=_volumes(r, document))
    body = Body(
        script=r.take("script", checks.script, None),
        job2sh=r.take("job2sh", checks.job2sh, None),
        secrets=r.take("secrets", checks.secrets, {}, secret=True),
        fields={key: value for key, value in r.fields.items() if key not in APART},
    )
    if r.ok("script") and r.ok("job2sh"):
        _something_to_run(r, body)
    return attrs.evolve(document, body=body)


def _system(
    r: Reading, testbox: str | None, group: str | None, defaults: Defaults
) -> dict[str, Any]:
    """Reads the fields about the system: os, os_version, os_mount, docker_image."""
    os_mount = r.take("os_mount", checks.one_of(OS_MOUNTS), defaults.os_mount)
    default_os, default_version, image = defaults.os, None, None
    if is_container(testbox) or is_container(group):
        os_mount = CONTAINER
    if os_mount == CONTAINER:
        image = r.take("docker_image", checks.docker_image, DOCKER_IMAGE)
        default_os, _, default_version = image.rsplit("/", 1)[-1].partition(":")
    system = r.take("os", checks.word, default_os)
    if not default_version:
        own = system == defaults.os
        default_version = None if own else OS_VERSIONS.get(system)
    version = r.take("os_version", checks.word, default_version or defaults.os_version)
    if os_mount == LOCAL and not version.endswith("-iso"):
        # An image to install from, not a network root (docs/wire.md#files).
        version += "-iso"
    return {"os": system, "os_version": version, "os_mount": os_mount, "docker_image": image}


def _kernel_words(r: Reading) -> str:
    words = []
    for field in checks.boot_fields(r.fields):
        try:
            words.append(checks.boot_words(field, r.fields[field]))
        except ValueError as error:
            r.wrong(field, str(error))
    words.append(r.take("kernel_custom_params", checks.kernel_words, ""))
    return " ".join(filter(None, words))


def _comments(r: Reading) -> tuple[str, ...]:
    said = [(name, r.take(name, check, None)) for name, check in COMMENTS.items()]
    return tuple(f"{name}={value}" for name, value in said if value is not None)


def _volumes(r: Reading, document: Document) -> str:
    """Returns the kernel line's words about a local root (docs/wire.md#the-boot-script).

    As in 2021, all keys are there, even empty ones.
    """
    version = document.os_version.replace("-", "_")
    volume = f"/dev/mapper/os-{document.os}_{document.arch}_{version}_"
    source, boot, own = (
        (volume + name) if (name := r.take(field, checks.lv, None)) is not None else ""
        for field in ("src_lv_suffix", "boot_lv_suffix", "os_lv")
    )
    size = r.take("os_lv_size", checks.size, LV_SIZE)
    return (
        f"local use_root_partition={source} save_root_partition={boot}"
        f" os_version={document.os_version} os_lv_size={size} os_partition={own} rw"
    )


def _something_to_run(r: Reading, body: Body) -> None:
    if body.script is None and body.job2sh is None:
        near = r.nearest("script")
        hint = f" (line {r.lines.get(near)} says {near!r})" if near else ""
        r.wrong("script", f"nothing to run: write `script: |` and the commands below it{hint}")
    if body.script is not None and body.job2sh is not None:
        r.wrong("script", "a document brings a script or job2sh, not both")


def dump(fields: Mapping[str, Any]) -> str:
    """Dumps `fields` as block-style YAML, which clients read line by line (docs/wire.md#jobcgz)."""
    text: str = yaml.dump(
        dict(fields),
        Dumper=yaml.CSafeDumper,
        default_flow_style=False,
        sort_keys=False,
        allow_unicode=True,
        width=10_000,
    )
    return text
