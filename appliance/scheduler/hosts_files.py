"""The operator's hosts files: one YAML file per testbox, in the shape of lkp's.

The file's name is the testbox's (`taishan200--a108` or `taishan200--a108.yaml`).  lkp's own files
name no MAC: such a file describes a box that has none yet, or a kind of virtual box, which
`vm-2p8g` does for every `vm-2p8g.<host>-1` (docs/wire.md#the-boot-script).

Beside them is a folder with one file per testbox for dnsmasq (dhcp-hostsdir), which reads each as
soon as it is there.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog
import yaml

from appliance import yaml_edit, yaml_text
from appliance.boot.daemons import dnsmasq, own_ipxe
from appliance.config import Paths
from appliance.errors import ApplianceError, BadConfig, BadRequest
from appliance.fs import atomic, owner, plain_files
from appliance.jobs import box
from appliance.jobs.box import Facts
from appliance.jobs.documents import checks, document
from appliance.keep.results import make_folders

_KINDS: Final = ("vm-", "dc-")
_ITS_OWN: Final = frozenset(["mac", "uuid"])
FILE_BYTES_MAX: Final = 2**20  # bytes of one; lkp's own have a few hundred
_NO_MAC: Final = "02:00:00:00:00:00"
# What editors and people leave beside a file that they change.
_COPIES: Final = ("~", ".bak", ".old", ".orig", ".rej", ".save", ".swp", ".dpkg-dist", ".dpkg-old")
# In a message: what it quotes, and the key that it begins with.
_VALUE: Final = re.compile(r"(['\"])(.+?)\1")
_KEY: Final = re.compile(r"([A-Za-z_]+):")

log = structlog.get_logger()


def read_all(folder: Path, default_queue: str) -> tuple[list[Facts], list[str]]:
    """The boxes in `folder`, and what is wrong with those files that cannot be used.

    Files that only describe are neither.  Root reads them as their folder's owner.  Raises Refused.
    """
    with owner.acting(folder):
        return _read_all(folder, default_queue)


def _read_all(folder: Path, default_queue: str) -> tuple[list[Facts], list[str]]:
    facts, wrong = [], []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_file() and not path.name.startswith(".") and not path.name.endswith(_COPIES):
            try:
                found = read(path, default_queue)
            except BadConfig as error:
                wrong.append(str(error))
            else:
                facts += [found] if found is not None else []
    return facts, wrong


def read(path: Path, default_queue: str) -> Facts | None:
    """What a file says of its box; None where it describes none, or one that has no MAC yet.

    Raises BadConfig: unreadable, not YAML, or a value that does not fit.
    """
    name = path.name.removesuffix(".yaml")
    try:
        fields = yaml_text.load(_text(path)) or {}
        if not isinstance(fields, dict):
            raise BadConfig(f"{path}: must be a mapping, such as `mac: [aa:bb:cc:dd:ee:ff]`")
        fields = {**kind(path.parent, name), **fields}
        if not fields.get("mac") and not (document.is_container(name) and "." in name):
            box.facts(name, {**fields, "mac": _NO_MAC}, default_queue)  # it must fit all the same
            return None
        return box.facts(name, fields, default_queue)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadConfig(f"{path}: {error}") from error
    except BadConfig:
        raise
    except ApplianceError as error:
        raise BadConfig(f"{path}: {error}") from error


def _text(path: Path) -> str:
    """A link may lead to lkp's own file.  Raises OSError, UnicodeDecodeError."""
    return plain_files.read(path, FILE_BYTES_MAX, follow=True).decode("utf-8")


def kind(folder: Path, name: str) -> dict[str, Any]:
    """What the file of its kind says of a virtual box; empty for others.  Raises BadConfig."""
    whole, dot, _ = name.partition(".")
    if not dot or not whole.startswith(_KINDS):
        return {}
    return {key: value for key, value in fields(folder, whole).items() if key not in _ITS_OWN}


def check(path: Path, text: str, default_queue: str) -> Facts:
    """The Facts in `text`, were it the file at `path`.

    Raises BadConfig: `file:line: what is wrong and what would be right`.
    """
    name = path.name.removesuffix(".yaml")
    try:
        found = yaml_text.load(text) or {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark is not None else text.count("\n") + 1
        raise BadConfig(f"{path}:{line}: {error.problem or error}; it is no YAML") from error
    except yaml.YAMLError as error:
        raise BadConfig(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise BadConfig(f"{path}:1: must be a mapping, such as `mac: [aa:bb:cc:dd:ee:ff]`")
    try:
        return box.facts(name, {**kind(path.parent, name), **found}, default_queue)
    except BadConfig:
        raise
    except ApplianceError as error:
        said = str(error).removeprefix(f"{name}: ")
        raise BadConfig(f"{path}{_line(text, said)}: {said}") from error


def _line(text: str, said: str) -> str:
    """`:line` of what a message is about: the value that it quotes, else the key that it names."""
    value, key = _VALUE.search(said), _KEY.match(said)
    lines = text.splitlines()
    for word in (value and value[2], key and f"{key[1]}:", "mac:" if "MAC" in said else None):
        for number, line in enumerate(lines, 1):
            if word and word in line.partition(" #")[0]:
                return f":{number}"
    return ""


def write(folder: Path, name: str, changed: Mapping[str, Any]) -> Path:
    """The file of a box; what is there already and not in `changed` stays.

    Raises OSError, and BadConfig where it cannot be read.
    """
    return put(folder, name, {**fields(folder, name), **changed})


def fields(folder: Path, name: str) -> dict[str, Any]:
    """What stands in the file of a box; empty without one.  Raises BadConfig."""
    path = path_of(folder, name)
    try:
        old = yaml_text.load(_text(path)) if path.exists() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadConfig(f"{path}: {error}") from error
    return old if isinstance(old, dict) else {}


def macs_in(fields: Mapping[str, Any]) -> list[str]:
    """The MACs that a file names.  Raises BadRequest for what is none."""
    found = fields.get("mac") or []
    return [box.normal_mac(str(mac)) for mac in (found if isinstance(found, list) else [found])]


def put(folder: Path, name: str, whole: Mapping[str, Any]) -> Path:
    """The file of a box durably says this and nothing else; a person's comments and order stay.

    Raises OSError.
    """
    path = path_of(folder, name)
    text = None
    if path.exists():
        with contextlib.suppress(UnicodeDecodeError):
            text = yaml_edit.changed(_text(path), whole)
        if text is None:
            log.warning("comments in a hosts file are lost: it is written anew", host=name)
    return put_text(folder, name, document.dump(whole) if text is None else text)


def put_text(folder: Path, name: str, text: str) -> Path:
    """The file of a box is durably `text`, as a person has written it.  Raises OSError."""
    make_folders(folder)
    path = path_of(folder, name)
    atomic.put(path, [text.encode()], 0o644)
    return path


def path_of(folder: Path, name: str) -> Path:
    """Where the file of a box lies, or would."""
    bare = folder / name
    path = folder / f"{name}.yaml"
    return bare if bare.exists() and not path.exists() else path


def remove(folder: Path, name: str) -> None:
    """The file of a box, if there is one, is gone for good.  Raises OSError."""
    for path in (folder / f"{name}.yaml", folder / name):
        path.unlink(missing_ok=True)
    if folder.is_dir():
        atomic.sync_folder(folder)


def announce(paths: Paths, facts: Facts) -> None:
    """dnsmasq knows a box from now on, and which iPXE it gets.  Raises OSError.

    One whose own iPXE is not there gets what all others get, and the log says why.
    """
    name, file = facts.name, None
    lend(paths.dhcp_hosts, name, dnsmasq.host_entry(name, facts.macs))
    if facts.ipxe is not None:
        try:
            file = own_ipxe.find(paths.tftp, name, facts.ipxe)
        except BadRequest as error:
            log.error("no iPXE of its own", host=name, why=str(error))
    if file is not None:
        own_ipxe.give(paths.tftp, name, facts.macs, file)
    else:
        own_ipxe.take_away(paths.tftp, name)


def forget(paths: Paths, name: str) -> None:
    """dnsmasq is told no longer that a box is known.  Raises OSError."""
    end_lease(paths.dhcp_hosts, name)
    own_ipxe.take_away(paths.tftp, name)


def lend(folder: Path, name: str, entry: str) -> None:
    """Tell dnsmasq, by its line, that a box is known.  Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if not path.exists() or path.read_text() != entry:
        beside = folder.parent / f".{name}.new"  # not within: dnsmasq reads all it finds there
        atomic.put(path, [entry.encode()], 0o644, beside=beside, durable=False)


def end_lease(folder: Path, name: str) -> None:
    """No longer; dnsmasq knows what it has read until it starts again.  Raises OSError."""
    (folder / name).unlink(missing_ok=True)


def cluster(folder: Path, name: str) -> Any:
    """What the operator's file of a cluster says.  Raises BadRequest without a readable one."""
    try:
        checks.box(name)  # no path
        return yaml_text.load((folder / name).read_text(encoding="utf-8"))
    except (ValueError, OSError, yaml.YAMLError) as error:
        raise BadRequest(f"can't get cluster info: {name[:80]}; see {folder}") from error
