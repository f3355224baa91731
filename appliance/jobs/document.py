"""Pure: no clock, no socket, no await.

A job document: the YAML a person submits.  Its fields, their defaults, and what is refused, with
which words.  Every mistake is named at once, with its field and its line.

A document is LKP-style YAML: any top-level key may be there, and scalars among them become the
job's environment.  The fields of FIELDS mean something to us and are checked.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import yaml

from appliance.config import Defaults
from appliance.errors import BadDocument, Problem
from appliance.jobs.job import Rules
from appliance.jobs.reading import Reading, read

OS_MOUNTS: Final = ("cifs", "nfs", "initramfs")
ARCHS: Final = ("aarch64", "x86_64")
# Of config.Waits, those that a hosts file or a document may choose for itself.
DEADLINES: Final = ("boot", "boot_max", "post_run", "manual_check", "return_to_lobby")
PRIORITY_MAX: Final = 100  # either way; a band wide enough for people, small enough to print
REBOOTS_MAX: Final = 100
RUNTIME_MAX_S: Final = 30 * 86400  # protocol.md §5.2: borrow time cannot exceed 30 days
# Set by the server for every job: a client's own value is dropped, not believed (§5.1, §5.4).
SERVER_FIELDS: Final = frozenset(
    """id plugins added_by errid stats start_time end_time finish_time job_health job_stage
    job_state result_root result_service upload_dirs submit_time submit_date kernel_params
    initrds_uri LKP_SERVER LKP_CGI_PORT SCHED_HOST SCHED_PORT RESULT_WEBDAV_PORT HTTP_PREFIX
    my_token""".split()  # noqa: SIM905 - one word a line would be 25 lines
)
# Never in job.yaml: they have their own files in job.cgz, or may not be read there at all.
APART: Final = frozenset(["job2sh", "script", "secrets", "pkg_data", "define_files"])

_WORD: Final = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,99}\Z")
_BOX: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,99}\Z")
_URI: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+/[A-Za-z0-9._~:/%+@,=-]{1,500}\Z")
_DISK: Final = re.compile(r"/dev/[A-Za-z0-9._:/-]{1,200}\Z")
_DURATION: Final = re.compile(r"([0-9]{1,9})\s*([smhdw]?)\Z")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@attrs.frozen
class Package:
    """One repository of pkg_data: two archives under /srv/upload-files (protocol.md §5.9)."""

    repo: str
    tag: str
    md5: str


_PLAIN: Final = Rules()
# Words that many documents share are kept once: a lab may have 100,000 jobs waiting, of some
# hundred kinds.  At most 1 MB.
WORDS_MAX: Final = 10_000


@functools.lru_cache(WORDS_MAX)
def _first_equal(word: str) -> str:
    return word


def once(word: str) -> str:
    """The same word, which all who have it share."""
    return _first_equal(word)


@attrs.frozen
class Body:
    """The large part of a document, which only the job itself needs: job.cgz is made of it."""

    script: str | None = None
    job2sh: Mapping[str, list[str]] | None = None
    secrets: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    fields: Mapping[str, Any] = attrs.field(factory=dict)  # as written, without APART


@attrs.frozen
class Document:
    """A document that fits, with every default filled in."""

    suite: str = attrs.field(converter=once)
    os: str = attrs.field(converter=once)
    os_version: str = attrs.field(converter=once)
    arch: str = attrs.field(converter=once)
    os_mount: str = attrs.field(converter=once)
    queue: str = attrs.field(converter=once)  # served by the boxes that may run it
    runtime: int  # seconds
    testbox: str | None = None
    tbox_group: str | None = None
    tags: tuple[str, ...] = ()
    priority: int = 0
    timeout: int | None = None
    rules: Rules = _PLAIN
    deadlines: Mapping[str, float] = attrs.field(factory=dict)  # seconds; see DEADLINES
    kernel_version: str | None = None
    kernel_uri: str | None = None
    modules_uri: str | None = None
    kernel_custom_params: str = ""
    rootfs_disk: tuple[str, ...] | None = None  # a choice among the disks of the hosts file
    packages: tuple[Package, ...] = ()  # its pkg_data
    cluster: str | None = None  # of the same submit, those that run together with it
    body: Body | None = None  # None: it lies in the archive

    @property
    def run_s(self) -> float:
        """How long it may run, in seconds (protocol.md §5.6)."""
        if self.timeout is not None:
            return float(self.timeout)
        return self.runtime + max(self.runtime / 8, 300) + math.sqrt(self.runtime)

    @property
    def group(self) -> str:
        """The testbox group in its result root; its queue's name where no box was named."""
        return self.tbox_group or (group_of(self.testbox) if self.testbox else self.queue)


def group_of(testbox: str) -> str:
    """The tbox_group of a testbox: up to the first `.` or `--` (protocol.md §5.5)."""
    return re.split(r"\.|--", testbox, maxsplit=1)[0]


def parse(
    text: str,
    name: str,
    defaults: Defaults,
    *,
    before: Mapping[str, str] | None = None,
    after: Mapping[str, str] | None = None,
) -> Document:
    """The document that YAML `text` says; `name` is its file's name, without path.

    `before` gives values where the text has none, `after` overrides it (protocol.md §9).
    Raises BadDocument with every mistake.
    """
    document, problems, _ = examine(text, name, defaults, before or {}, after or {})
    if problems:
        raise BadDocument(problems)
    return document


def examine(
    text: str, name: str, defaults: Defaults, before: Mapping[str, str], after: Mapping[str, str]
) -> tuple[Document, list[Problem], Mapping[str, int]]:
    """The document as far as it fits, what is wrong with it, and the line of each field.

    Raises BadDocument for what is no mapping of fields at all.
    """
    reading = read(text, before, after)
    document = _document(reading, name, defaults)
    problems = sorted(reading.problems, key=lambda problem: problem.line or 0)
    return document, problems, reading.lines


def _document(r: Reading, name: str, defaults: Defaults) -> Document:
    for field in SERVER_FIELDS & r.fields.keys():
        del r.fields[field]
    for field in [field for field in r.fields if field.startswith("secrets.")]:
        del r.fields[field]  # it would be a plain field, for everybody to read
        r.wrong(field, "write `secrets:` in the document, and the names below it")
    stem = re.sub(r"[^A-Za-z0-9._+-]+", "-", re.sub(r"\.ya?ml$", "", name)).strip("-._") or "job"
    testbox = r.take("testbox", _box, None)
    group = r.take("tbox_group", _box, None)
    served = group or (group_of(testbox) if testbox else defaults.queue)
    arch = r.take("arch", _one_of(ARCHS), r.take("os_arch", _one_of(ARCHS), defaults.arch))
    kernel_uri = r.take("kernel_uri", _uri, None)
    document = Document(
        suite=r.take("suite", _word, stem[:100]),
        os=r.take("os", _word, defaults.os),
        os_version=r.take("os_version", _word, defaults.os_version),
        arch=arch,
        os_mount=r.take("os_mount", _one_of(OS_MOUNTS), defaults.os_mount),
        queue=r.take("queue", _box, testbox or served),
        runtime=r.take("runtime", _duration, defaults.runtime),
        testbox=testbox,
        tbox_group=group,
        tags=r.take("tags", _list_of(_word, "words"), ()),
        priority=r.take("priority", _whole(-PRIORITY_MAX, PRIORITY_MAX), 0),
        timeout=r.take("timeout", _duration, None),
        rules=Rules(
            retry=r.take("retry", _truth, False),
            reboots=r.take("reboots", _whole(0, REBOOTS_MAX), 0),
            own_kernel=kernel_uri is not None,
        ),
        deadlines=r.take("deadlines", deadlines, {}),
        kernel_version=r.take("kernel_version", _word, None),
        kernel_uri=kernel_uri,
        modules_uri=r.take("modules_uri", _uri, None),
        kernel_custom_params=r.take("kernel_custom_params", _kernel_words, ""),
        rootfs_disk=r.take("rootfs_disk", _list_of(_disk, "disks such as /dev/sdb"), None),
        packages=r.take("pkg_data", packages, ()),
        cluster=r.take("cluster", _cluster, None),
    )
    body = Body(
        script=r.take("script", _script, None),
        job2sh=r.take("job2sh", _job2sh, None),
        secrets=r.take("secrets", _secrets, {}, secret=True),
        fields={key: value for key, value in r.fields.items() if key not in APART},
    )
    if r.ok("script") and r.ok("job2sh"):
        _something_to_run(r, body)
    return attrs.evolve(document, body=body)


def _something_to_run(r: Reading, body: Body) -> None:
    if body.script is None and body.job2sh is None:
        near = r.nearest("script")
        hint = f" (line {r.lines.get(near)} says {near!r})" if near else ""
        r.wrong("script", f"nothing to run: write `script: |` and the commands below it{hint}")
    if body.script is not None and body.job2sh is not None:
        r.wrong("script", "a document brings a script or job2sh, not both")


def _word(value: Any) -> str:
    text = _text(value)
    if not _WORD.match(text):
        raise ValueError("must be one word of letters, digits and . _ + - (at most 100)")
    return text


def _box(value: Any) -> str:
    text = _text(value)
    if not _BOX.match(text):
        raise ValueError("must be a name of letters, digits and . _ ~ - (at most 100)")
    return text


def _cluster(value: Any) -> str | None:
    name = _box(value)
    return None if name == "cs-localhost" else name  # protocol.md §5.7: a job of its own


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("must be a single value")
    return str(value)


def _one_of(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)

    return check


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return check


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _duration(value: Any) -> int:
    match = _DURATION.match(str(value)) if not isinstance(value, bool) else None
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= RUNTIME_MAX_S:
        raise ValueError("must be a time such as 90, 10m, 2h or 1d, at most 30 days")
    return seconds


def deadlines(value: Any) -> dict[str, float]:
    """Stages and how long each may take.  Raises ValueError with what would be right."""
    if not isinstance(value, dict) or not value.keys() <= set(DEADLINES):
        raise ValueError(f"must map some of {', '.join(DEADLINES)} to times such as 90, 10m or 2h")
    return {stage: float(_duration(length)) for stage, length in value.items()}


def _uri(value: Any) -> str:
    if not isinstance(value, str) or not _URI.match(value):
        raise ValueError("must be a plain http:// or https:// address, without spaces or quotes")
    return value


def _disk(value: Any) -> str:
    if not isinstance(value, str) or not _DISK.match(value) or ".." in value:
        raise ValueError("must be a path under /dev/")
    return value


def _kernel_words(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(r"[\x21-\x7e]+( +[\x21-\x7e]+)*|", text.strip(" ")):
        raise ValueError("must be printable ASCII on one line: it goes to the kernel as it is")
    if re.search(r"[$`\\{}|&;]", text):
        raise ValueError("must not hold $ ` \\ { } | & or ;: iPXE would take them for its own")
    return " ".join(text.split(" ")).strip()


def _list_of(check: Callable[[Any], str], what: str) -> Callable[[Any], tuple[str, ...]]:
    def check_all(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise ValueError(f"must be a list of {what}: [a, b]")
        return tuple(check(part) for part in value)

    return check_all


def _script(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text: write `script: |` and the commands below it")
    if "\0" in value:
        raise ValueError("must not hold a NUL byte")
    text = value if value.startswith("#!") else "#!/bin/sh\n" + value
    return text if text.endswith("\n") else text + "\n"


def _job2sh(value: Any) -> dict[str, list[str]]:
    if not isinstance(value, dict) or "run_job" not in value:
        raise ValueError("must map run_job (and more) to lists of shell lines")
    for name, lines in value.items():
        if not isinstance(name, str) or not isinstance(lines, list | str):
            raise ValueError(f"{name} must be a list of shell lines")
    return {
        name: lines.splitlines() if isinstance(lines, str) else [str(line) for line in lines]
        for name, lines in value.items()
    }


def packages(value: Any) -> tuple[Package, ...]:
    """What a `pkg_data` names.  Raises ValueError: nothing in it may leave its root."""
    if not isinstance(value, dict):
        raise ValueError("must map repositories to {tag, md5}")
    named = []
    for repo, parts in value.items():
        if not isinstance(parts, dict) or not re.fullmatch(r"[0-9a-f]{32}", str(parts.get("md5"))):
            raise ValueError(f"{repo} must have a tag and an md5 of 32 hex digits")
        named.append(Package(_word(repo), _word(parts.get("tag")), str(parts["md5"])))
    return tuple(named)


def _secrets(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("must map names to single values")
    secrets = {}
    for name, secret in value.items():
        text = _text(secret)
        # the client's reader takes `name: value` lines and unquotes nothing (protocol.md §5.8)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name)) or not text.isprintable():
            raise ValueError("must map plain names to values on one line")
        secrets[str(name)] = text
    return secrets


def dump(fields: Mapping[str, Any]) -> str:
    """`fields` as the simple block-style YAML that clients read line by line (protocol.md §6)."""
    text: str = yaml.dump(
        dict(fields),
        Dumper=yaml.CSafeDumper,
        default_flow_style=False,
        sort_keys=False,
        allow_unicode=True,
        width=10_000,
    )
    return text
