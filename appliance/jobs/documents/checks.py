"""Pure: no clock, no socket, no await.

Checks of field values: each returns the value in its final form, or raises ValueError with the
correct form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

# The waits of config.Waits that a hosts file or a document may override.
DEADLINES: Final = ("boot", "boot_max", "post_run", "manual_check", "return_to_lobby")
RUNTIME_MAX_S: Final = 30 * 86400  # docs/wire.md#required-fields: borrow time cannot exceed 30 days

PACKAGES_MAX: Final = 100  # per job; clients send one, and each is looked up on the disk

ALONE: Final = "cs-localhost"  # the cluster of a job that runs alone (docs/wire.md#clusters)

_WORD: Final = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,99}\Z")
_BOX: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,99}\Z")
_URI: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+/[A-Za-z0-9._~:/%+@,=-]{1,500}\Z")
_DISK: Final = re.compile(r"/dev/[A-Za-z0-9._:/-]{1,200}\Z")
_LV: Final = re.compile(r"[A-Za-z0-9_+.-]{1,100}\Z")
_SIZE: Final = re.compile(r"[1-9][0-9]{0,5}[kKmMgGtT]?\Z")
_DOCKER: Final = re.compile(
    r"([a-z0-9][a-z0-9._-]*(:[0-9]{1,5})?/)?[a-z0-9][a-z0-9._/-]{0,150}(:[A-Za-z0-9_][A-Za-z0-9._-]{0,99})?\Z"
)
_DURATION: Final = re.compile(r"([0-9]{1,9})\s*([smhdw]?)\Z")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_PARAMETER: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}\Z")
_BOOT_PARAMETER: Final = re.compile(r"bp[0-9]*_")  # removed; docs/wire.md#the-boot-script


@attrs.frozen
class Package:
    """One repository of pkg_data: two archives under /srv/upload-files (docs/wire.md#packages)."""

    repo: str
    tag: str
    md5: str


def word(value: Any) -> str:
    text = single(value)
    if not _WORD.match(text):
        raise ValueError("must be one word of letters, digits and . _ + - (at most 100)")
    return text


def is_word(text: str) -> bool:
    """Tells whether `text` is a single name in a path."""
    return _WORD.match(text) is not None


def box(value: Any) -> str:
    text = single(value)
    if not _BOX.match(text):
        raise ValueError("must be a name of letters, digits and . _ ~ - (at most 100)")
    return text


def cluster(value: Any) -> str | None:
    name = box(value)
    return None if name == ALONE else name


def single(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("must be a single value")
    return str(value)


def one_of(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)

    return check


def whole(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return check


def count(value: Any) -> int:
    """Checks a small number; some clients put it in quotes."""
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch(r"[1-9][0-9]?", text):
        raise ValueError("must be a whole number from 1 to 99")
    return int(text)


def truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def duration(value: Any) -> int:
    match = _DURATION.match(str(value)) if not isinstance(value, bool) else None
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= RUNTIME_MAX_S:
        raise ValueError("must be a time such as 90, 10m, 2h or 1d, at most 30 days")
    return seconds


def deadlines(value: Any) -> dict[str, float]:
    """Checks a map of stages to times.  Raises ValueError with the correct form."""
    if not isinstance(value, dict) or not value.keys() <= set(DEADLINES):
        raise ValueError(f"must map some of {', '.join(DEADLINES)} to times such as 90, 10m or 2h")
    return {stage: float(duration(length)) for stage, length in value.items()}


def uri(value: Any) -> str:
    if not isinstance(value, str) or not _URI.match(value):
        raise ValueError("must be a plain http:// or https:// address, without spaces or quotes")
    return value


def uris(value: Any) -> tuple[str, ...]:
    return tuple(map(uri, value)) if isinstance(value, list) else (uri(value),)


def disk(value: Any) -> str:
    if not isinstance(value, str) or not _DISK.match(value) or ".." in value:
        raise ValueError("must be a path under /dev/")
    return value


def kernel_words(value: Any) -> str:
    text = single(value)
    if not re.fullmatch(r"[\x21-\x7e]+( +[\x21-\x7e]+)*|", text.strip(" ")):
        raise ValueError("must be printable ASCII on one line: it goes to the kernel as it is")
    if re.search(r"[$`\\{}|&;]", text):
        raise ValueError("must not hold $ ` \\ { } | & or ;: iPXE would take them for its own")
    if any(word.startswith("#") for word in text.split(" ")):
        raise ValueError("must not hold a word that begins with #: it begins a comment to iPXE")
    return " ".join(text.split(" ")).strip()


def list_of(check: Callable[[Any], str], what: str) -> Callable[[Any], tuple[str, ...]]:
    def check_all(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise ValueError(f"must be a list of {what}: [a, b]")
        return tuple(check(part) for part in value)

    return check_all


def script(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text: write `script: |` and the commands below it")
    if "\0" in value:
        raise ValueError("must not hold a NUL byte")
    text = value if value.startswith("#!") else "#!/bin/sh\n" + value
    return text if text.endswith("\n") else text + "\n"


def job2sh(value: Any) -> dict[str, list[str]]:
    if not isinstance(value, dict) or "run_job" not in value:
        raise ValueError("must map run_job (and more) to lists of shell lines")
    for name, lines in value.items():
        if not isinstance(name, str) or not isinstance(lines, list | str):
            raise ValueError(f"{str(name)[:100]} must be a list of shell lines")
    return {
        name: lines.splitlines() if isinstance(lines, str) else [str(line) for line in lines]
        for name, lines in value.items()
    }


def packages(value: Any) -> tuple[Package, ...]:
    """Checks a `pkg_data`.  Raises ValueError for any name that could lead out of its folder."""
    if not isinstance(value, dict):
        raise ValueError("must map repositories to {tag, md5}")
    if len(value) > PACKAGES_MAX:
        raise ValueError(f"must map at most {PACKAGES_MAX} repositories to {{tag, md5}}")
    named = []
    for repo, parts in value.items():
        if not isinstance(parts, dict) or not re.fullmatch(r"[0-9a-f]{32}", str(parts.get("md5"))):
            raise ValueError(f"{str(repo)[:100]} must have a tag and an md5 of 32 hex digits")
        named.append(Package(word(repo), word(parts.get("tag")), str(parts["md5"])))
    return tuple(named)


def secrets(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("must map names to single values")
    kept = {}
    for name, secret in value.items():
        text = single(secret)
        # the client's reader takes `name: value` lines and unquotes nothing (docs/wire.md#secrets)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name)) or not text.isprintable():
            raise ValueError("must map plain names to values on one line")
        kept[str(name)] = text
    return kept


def lv(value: Any) -> str:
    """Checks the name of a logical volume, or the suffix of one."""
    name = single(value)
    if not _LV.match(name):
        raise ValueError("must be a name of letters, digits and . _ + - (at most 100)")
    return name


def size(value: Any) -> str:
    """Checks a size in the form that lvcreate takes."""
    words = single(value)
    if not _SIZE.match(words):
        raise ValueError("must be a size such as 20G")
    return words


def docker_image(value: Any) -> str:
    """Checks the name of a container image, with or without a tag."""
    name = single(value)
    if not _DOCKER.match(name):
        raise ValueError("must be the name of an image, such as centos:7")
    return name


def boot_fields(fields: Mapping[str, Any]) -> list[str]:
    """Returns the fields that go to the kernel line: `boot_params`, then top-level `bp_...`."""
    own = [key for key in fields if _BOOT_PARAMETER.match(str(key))]
    return ["boot_params", *own] if fields.get("boot_params") else own


def boot_words(field: str, value: Any) -> str:
    """Returns the words for the kernel line from one of `boot_fields`."""
    listed = value if field == "boot_params" else {field: value}
    if not isinstance(listed, dict):
        raise ValueError("must map kernel parameters to values")
    return " ".join(parameter(key, said) for key, said in listed.items())


def parameter(key: Any, value: Any) -> str:
    """Turns `bp_key: value` into `key=value` for the kernel, or `key` if there is no value."""
    name = _BOOT_PARAMETER.sub("", str(key), count=1)
    if not _PARAMETER.match(name):
        raise ValueError(f"{str(key)[:40]!r} must be the name of a kernel parameter")
    if value is None or value == "":
        return name
    said = kernel_words(value)
    if " " in said:
        raise ValueError(f"{str(key)[:40]}: {said[:40]!r} must be one word")
    return f"{name}={said}"
