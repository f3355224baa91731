"""The operator's hosts files: one YAML file per testbox, in the format of lkp's.

The file's name is the testbox's (`taishan200--a108` or `taishan200--a108.yaml`).  lkp's own files
name no MAC: such a file describes a box whose MAC is not known yet, or a kind of virtual box, as
`vm-2p8g` does for every `vm-2p8g.<host>-1` (docs/wire.md#the-boot-script).

Beside the hosts files is a folder with one file per testbox for dnsmasq (dhcp-hostsdir), which
reads each file as soon as it appears.
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
FILE_BYTES_MAX: Final = 2**20  # of one hosts file; lkp's own have a few hundred
_NO_MAC: Final = "02:00:00:00:00:00"
# Suffixes of copies that editors and people leave beside a file that they change.
_COPIES: Final = ("~", ".bak", ".old", ".orig", ".rej", ".save", ".swp", ".dpkg-dist", ".dpkg-old")
# The quoted value in an error message, and the key that the message begins with.
_VALUE: Final = re.compile(r"(['\"])(.+?)\1")
_KEY: Final = re.compile(r"([A-Za-z_]+):")

log = structlog.get_logger()


def read_all(folder: Path, default_queue: str) -> tuple[list[Facts], list[str]]:
    """Returns the boxes in `folder`, and what is wrong with the files that cannot be used.

    Files for which `read` returns None are in neither.  Root acts as the folder's owner.
    Raises Refused.
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
    """Reads the file of a box; None if it describes a kind of box, or a box without a MAC.

    Raises BadConfig: unreadable, not YAML, or a value that does not fit.
    """
    name = path.name.removesuffix(".yaml")
    try:
        fields = yaml_text.load(_text(path)) or {}
        if not isinstance(fields, dict):
            raise BadConfig(f"{path}: must be a mapping, such as `mac: [aa:bb:cc:dd:ee:ff]`")
        fields = {**kind(path.parent, name), **fields}
        if not fields.get("mac") and not (document.is_container(name) and "." in name):
            box.facts(name, {**fields, "mac": _NO_MAC}, default_queue)  # check it anyway
            return None
        return box.facts(name, fields, default_queue)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadConfig(f"{path}: {error}") from error
    except BadConfig:
        raise
    except ApplianceError as error:
        raise BadConfig(f"{path}: {error}") from error


def _text(path: Path) -> str:
    """Reads a file, or lkp's own through a symlink.  Raises OSError, UnicodeDecodeError."""
    return plain_files.read(path, FILE_BYTES_MAX, follow=True).decode("utf-8")


def kind(folder: Path, name: str) -> dict[str, Any]:
    """Returns a virtual box's fields from its kind's file; empty for others.  Raises BadConfig."""
    whole, dot, _ = name.partition(".")
    if not dot or not whole.startswith(_KINDS):
        return {}
    return {key: value for key, value in fields(folder, whole).items() if key not in _ITS_OWN}


def check(path: Path, text: str, default_queue: str) -> Facts:
    """Returns the Facts that `text` would give as the file at `path`.

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
    """Returns `:line` of a message's subject: the value it quotes, else the key it names."""
    value, key = _VALUE.search(said), _KEY.match(said)
    lines = text.splitlines()
    for word in (value and value[2], key and f"{key[1]}:", "mac:" if "MAC" in said else None):
        for number, line in enumerate(lines, 1):
            if word and word in line.partition(" #")[0]:
                return f":{number}"
    return ""


def write(folder: Path, name: str, changed: Mapping[str, Any]) -> Path:
    """Writes `changed` into the file of a box; other fields stay.  Returns the file's path.

    Raises OSError, and BadConfig if the file cannot be read.
    """
    return put(folder, name, {**fields(folder, name), **changed})


def fields(folder: Path, name: str) -> dict[str, Any]:
    """Returns the fields in the file of a box; empty without a file.  Raises BadConfig."""
    path = path_of(folder, name)
    try:
        old = yaml_text.load(_text(path)) if path.exists() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadConfig(f"{path}: {error}") from error
    return old if isinstance(old, dict) else {}


def macs_in(fields: Mapping[str, Any]) -> list[str]:
    """Returns the MACs that a file names.  Raises BadRequest for anything that is no MAC."""
    found = fields.get("mac") or []
    return [box.normal_mac(str(mac)) for mac in (found if isinstance(found, list) else [found])]


def put(folder: Path, name: str, whole: Mapping[str, Any]) -> Path:
    """Makes `whole` the only fields in a box's file, durably; a person's comments and order stay.

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
    """Writes `text`, as a person wrote it, to the file of a box, durably.  Raises OSError."""
    make_folders(folder)
    path = path_of(folder, name)
    atomic.put(path, [text.encode()], 0o644)
    return path


def path_of(folder: Path, name: str) -> Path:
    """Returns the path of a box's file, whether or not the file exists."""
    bare = folder / name
    path = folder / f"{name}.yaml"
    return bare if bare.exists() and not path.exists() else path


def remove(folder: Path, name: str) -> None:
    """Removes the file of a box, if there is one, durably.  Raises OSError."""
    for path in (folder / f"{name}.yaml", folder / name):
        path.unlink(missing_ok=True)
    if folder.is_dir():
        atomic.sync_folder(folder)


def announce(paths: Paths, facts: Facts) -> None:
    """Tells dnsmasq about a box and the iPXE that it gets.  Raises OSError.

    A box whose own iPXE is missing gets the common one, and the log says why.
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
    """Undoes `announce` for a box.  Raises OSError."""
    end_lease(paths.dhcp_hosts, name)
    own_ipxe.take_away(paths.tftp, name)


def lend(folder: Path, name: str, entry: str) -> None:
    """Writes dnsmasq's line for a box, which makes the box known.  Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if not path.exists() or path.read_text() != entry:
        beside = folder.parent / f".{name}.new"  # not inside: dnsmasq reads every file there
        atomic.put(path, [entry.encode()], 0o644, beside=beside, durable=False)


def end_lease(folder: Path, name: str) -> None:
    """Removes dnsmasq's line; takes effect when dnsmasq restarts.  Raises OSError."""
    (folder / name).unlink(missing_ok=True)


def cluster(folder: Path, name: str) -> Any:
    """Returns the operator's file of a cluster.  Raises BadRequest if it cannot be read."""
    try:
        checks.box(name)  # so the name is no path
        return yaml_text.load((folder / name).read_text(encoding="utf-8"))
    except (ValueError, OSError, yaml.YAMLError) as error:
        raise BadRequest(f"can't get cluster info: {name[:80]}; see {folder}") from error
