"""Reads the configuration: one frozen Config, read once from TOML and passed down.

No other module reads configuration files or the environment.
Every value has a default that works on a lab server with one interface.  A wrong key or value is
never ignored: the error names the file, the line, the key and the nearest known key.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from appliance import addresses, toml_text
from appliance.errors import BadConfig
from appliance.toml_text import File

CONFIG_FILE: Final = Path("/etc/appliance/appliance.toml")
PORT_MAX: Final = 65535
_SHOWN_CHARS: Final = 200  # of a wrong value
# Values that become part of URLs, paths and every job: pattern, and words for an error message.
_SHAPES: Final = {
    "lab": (r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", "one word of letters, digits, _ and - (at most 40)"),
    "network.address": (
        r"[A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\]",
        "a host name or address, without a port ([fe80::1] with its brackets)",
    ),
    # as allowed in a job document
    "defaults.os": (r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,99}", "one word"),
    "defaults.os_version": (r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,99}", "one word"),
    "defaults.queue": (r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,99}", "one word"),
    "defaults.arch": (r"aarch64|x86_64", "one of aarch64, x86_64"),
    "defaults.os_mount": (
        r"cifs|nfs|initramfs|container|local",
        "one of cifs, nfs, initramfs, container, local",
    ),
}

# What `appliance account` writes.
_ACCOUNT: Final = {
    "my_email": r"[^\s@]{1,100}@[^\s@]{1,100}",
    "my_name": r"[^\x00-\x1f\x7f]{1,100}",
    "my_token": r"sha256:[0-9a-f]{32}:[0-9a-f]{64}",
}


@attrs.frozen
class Segment:
    """A further network: on an interface of its own, or behind a DHCP relay."""

    interface: str = ""  # empty: a relay forwards its boxes' DHCP requests to us
    address: str = ""  # ours on that interface
    dhcp_range: tuple[str, str] | None = None  # as in Network; never None behind a relay
    netmask: str = "255.255.255.0"
    router: str = ""  # DHCP option 3; boxes behind a relay need it to reach us


@attrs.frozen
class Network:
    """The lab's network."""

    listen: str = "0.0.0.0"  # the address that every HTTP door binds; "::" serves both families
    address: str = ""  # host in the URLs of boot scripts; empty: the one the box reached us on
    interface: str = ""  # dnsmasq's; needed by dnsmasq-config only
    dhcp_range: tuple[str, str] | None = None  # first and last address; None: proxyDHCP
    netmask: str = "255.255.255.0"
    router: str = ""  # DHCP option 3; empty: none, boxes then see the lab only
    dns: str = ""  # DHCP option 6; empty: none
    # A client that acts as a box must have the box's card, as far as the kernel can see the card.
    check_neighbour: bool = True
    # Machines that run virtual testboxes: they may register boxes and ask in the boxes' names.
    # Each is an address with its cards ("10.0.0.9 52:54:00:00:00:09"), or only an address or
    # network, which any machine but a registered box can take.  The lab server always may.
    providers: tuple[str, ...] = ()
    more: Mapping[str, Segment] = attrs.field(factory=dict)  # further networks, by a name

    @property
    def interfaces(self) -> tuple[str, ...]:
        """The interfaces that testboxes are on, the first one first."""
        others = (segment.interface for segment in self.more.values())
        return tuple(name for name in (self.interface, *others) if name)

    @property
    def proxy(self) -> bool:
        """Whether another server leases addresses; other people's machines are on the network."""
        return bool(self.interface) and self.dhcp_range is None


@attrs.frozen
class Ports:
    """The ports (docs/wire.md#ports); boxes and clients hard-code them, tests use others."""

    scheduler: int = 3000
    os: int = 8000
    initrd: int = 8800
    upload: int = 3080
    results: int = 20007
    monitor: int = 20001
    cifs: int = 445
    nfs: int = 2049


@attrs.frozen
class Paths:
    """The folders (DESIGN.md#where-things-lie)."""

    srv: Path = Path("/srv")  # os/ initrd/ upload-files/ kernel/ result/, Compass-CI's layout
    state: Path = Path("/var/lib/appliance")
    run: Path = Path("/run/appliance")  # control.sock, pid files
    hosts: Path = Path("/etc/appliance/hosts")
    tftp: Path = Path("/tftpboot")

    @property
    def clusters(self) -> Path:
        """The clusters that jobs for several machines may name: one file each, in lkp's format."""
        return self.hosts.parent / "cluster"

    @property
    def control_socket(self) -> Path:
        """The control socket, for the command line."""
        return self.run / "control.sock"

    @property
    def dhcp_hosts(self) -> Path:
        """dnsmasq's `dhcp-hostsdir`: one file per known testbox, written by the server."""
        return self.state / "dhcp-hosts"


@attrs.frozen
class Waits:
    """Waits, in seconds, each with its reason."""

    park: float = 1800.0  # "half an hour": docs/wire.md#the-boot-wait
    # iPXE 2.0.0 drops a transfer with no body byte for 120 s (docs/firmware.md#waiting).
    drip: float = 30.0
    offer_lease: float = 180.0  # longer than iPXE's own 120 s watchdog
    boot: float = 600.0  # after the last byte fetched, until the first report
    boot_max: float = 3600.0  # in all (docs/wire.md#stages-and-deadlines)
    post_run: float = 1800.0  # docs/wire.md#stages-and-deadlines
    manual_check: float = 36000.0  # docs/wire.md#stages-and-deadlines
    return_to_lobby: float = 1800.0  # a box's power-on self-test can take ten minutes
    backoff_first: float = 30.0  # for a box that failed a boot before it had fetched everything
    backoff_max: float = 600.0
    shutdown_transfers: float = 60.0  # transfers under way at a stop
    # A disk recovers from a hiccup within seconds; after this, a person is told: not known yet.
    answer: float = 15.0


@attrs.frozen
class Limits:
    """Maxima; tests check each at its limit and one beyond."""

    unknown_boxes: int = 1000  # seats for boxes nobody registered
    boots_in_flight: int = 12  # per Gbit/s of the lab interface; others keep their seats
    upload_file_bytes: int = 2**30  # one result file
    upload_attempt_bytes: int = 10 * 2**30  # all results of one attempt
    upload_attempt_names: int = 200_000  # files, and folders on the way to each
    document_bytes: int = 2**20  # one job document
    # Finished jobs in memory, some 5 MB: late reports and people ask for the newest jobs.
    # Older ones are only in the archive.
    finished_in_memory: int = 1000


@attrs.frozen
class Space:
    """Bytes on the file system of the state."""

    # Reserved at the start and released when the disk is full: enough for the reports of some
    # 100,000 running jobs, or for a last snapshot of 20,000 jobs.
    reserve: int = 64 * 2**20
    warn: int = 2 * 2**30  # free; below it, one log line, while there is time to make room
    # Free; below it no new job is accepted, so that accepted jobs can end.
    low: int = 256 * 2**20
    # A journal longer than this is replaced by a snapshot; at 300 bytes a change, a start replays
    # it in about two seconds.
    journal: int = 16 * 2**20


@attrs.frozen
class Defaults:
    """Defaults of fields that a job document may leave out."""

    os: str = "debian"
    os_version: str = "12"
    arch: str = "x86_64"
    os_mount: str = "cifs"
    queue: str = "default"  # served by every testbox whose hosts file names no queues
    runtime: int = 3600


@attrs.frozen
class Account:
    """A user who may submit over the network, by the fields that LKP's clients send."""

    my_email: str = ""
    my_name: str = ""
    my_token: str = attrs.field(default="", repr=False)  # sha256:<salt>:<hash>, never the token


@attrs.frozen
class Config:
    """Everything the operator can choose."""

    lab: str = "lab"  # job ids are <lab>.<n>
    network: Network = Network()
    ports: Ports = Ports()
    paths: Paths = Paths()
    waits: Waits = Waits()
    limits: Limits = Limits()
    space: Space = Space()
    defaults: Defaults = Defaults()
    # By user name: an account's jobs belong to the local user of that name.  Empty: nobody may
    # submit over the network.
    accounts: Mapping[str, Account] = attrs.field(factory=dict)


def path_of(path: Path | None = None) -> Path:
    """Returns the file that `load` reads."""
    return path or Path(os.environ.get("APPLIANCE_CONFIG", CONFIG_FILE))


def load(path: Path | None = None) -> Config:
    """Loads the configuration from `path`, else $APPLIANCE_CONFIG, else CONFIG_FILE if it exists.

    Raises BadConfig: unreadable, not TOML, an unknown key, a value of the wrong type.
    """
    chosen = path_of(path)
    required = path is not None or "APPLIANCE_CONFIG" in os.environ
    try:
        with chosen.open(encoding="utf-8") as file:
            text = file.read(toml_text.CHARS_MAX + 1)
    except FileNotFoundError as error:
        if not required:
            return Config()
        raise BadConfig(f"{chosen}: no such file") from error
    except PermissionError as error:
        raise BadConfig(f"{chosen}: only root and the group appliance may read it") from error
    except OSError as error:
        raise BadConfig(f"{chosen}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadConfig(f"{chosen}: is no UTF-8 (byte {error.start})") from error
    return parse(text, str(chosen))


def parse(text: str, name: str) -> Config:
    """Parses a Config from TOML `text`; `name` is the file's name for messages."""
    file = File(name, text)
    config: Config = _section(Config, file.table(), file, "")
    for key, (pattern, right) in _SHAPES.items():
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        if not re.fullmatch(pattern, value):
            raise BadConfig(f"{file.at(key)}: {key} = {_said(value)} must be {right}")
    _check_ports(config.ports, file)
    for text in config.network.providers:
        try:
            addresses.machine(text)
        except ValueError:
            right = (
                'an address, better with its card as in "10.0.0.9 52:54:00:00:00:09",'
                " or a network such as 10.0.0.0/24"
            )
            where = file.at("network.providers")
            raise BadConfig(f"{where}: network.providers: {text!r} must be {right}") from None
    for user, account in config.accounts.items():
        _check_account(user, account, file)
    return config


def _check_ports(ports: Ports, file: File) -> None:
    doors: dict[int, str] = {}
    for field in attrs.fields(Ports):
        number = getattr(ports, field.name)
        if number in doors:
            both = f"ports.{doors[number]} and ports.{field.name}"
            where = file.at(f"ports.{field.name}", f"ports.{doors[number]}")
            raise BadConfig(f"{where}: {both} are both {number}: each door needs its own")
        doors[number] = field.name


def _check_account(user: str, account: Account, file: File) -> None:
    where = f"{file.at(f'accounts.{user}')}: accounts.{user}"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", user):
        raise BadConfig(f"{where}: must be named as a local user would be")
    if user == "root":
        raise BadConfig(f"{where}: root may do what no account may: choose another name")
    for key, pattern in _ACCOUNT.items():
        if not re.fullmatch(pattern, getattr(account, key)):
            raise BadConfig(f"{where}.{key}: is missing or wrong; `appliance account` writes it")


def _section(cls: type[Any], table: dict[str, Any], file: File, prefix: str) -> Any:
    hints = typing.get_type_hints(cls)
    known = {field.name for field in attrs.fields(cls)}
    chosen = {}
    for key, value in table.items():
        if key not in known:
            where = file.at(prefix + key)
            raise BadConfig(f"{where}: unknown key {prefix}{key}{_nearest(key, prefix, known)}")
        chosen[key] = _value(hints[key], value, file, prefix + key)
    return cls(**chosen)


def _nearest(key: str, prefix: str, known: set[str]) -> str:
    """Suggests a similar key of this table, else of another table, else lists this table's keys."""
    if near := difflib.get_close_matches(key, known, n=1):
        return f"; did you mean {prefix}{near[0]}?"
    elsewhere = {
        inner.name: f"{table}.{inner.name}"
        for table, kind in typing.get_type_hints(Config).items()
        for inner in (attrs.fields(kind) if attrs.has(kind) else ())
    }
    if near := difflib.get_close_matches(key, elsewhere, n=1, cutoff=0.8):
        return f"; did you mean {elsewhere[near[0]]}?"
    return f"; known: {', '.join(sorted(known))}"


def _value(wanted: Any, value: Any, file: File, key: str) -> Any:
    if attrs.has(wanted):
        if not isinstance(value, dict):
            raise BadConfig(f"{file.at(key)}: {key} is a table: write it as [{key}]")
        return _section(wanted, value, file, key + ".")
    if typing.get_origin(wanted) is Mapping:
        if not isinstance(value, dict):
            raise BadConfig(
                f"{file.at(key)}: {key} is a table of tables: write them as [{key}.NAME]"
            )
        part = typing.get_args(wanted)[1]
        return {word: _value(part, table, file, f"{key}.{word}") for word, table in value.items()}
    if isinstance(wanted, types.UnionType):
        wanted = next(part for part in typing.get_args(wanted) if part is not types.NoneType)
    if wanted is Path and isinstance(value, str) and Path(value).is_absolute():
        return Path(value)
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        if 0 < value < math.inf:
            return float(value)
        raise BadConfig(f"{file.at(key)}: {key} = {value} must be more than 0 (seconds) and finite")
    if wanted is int and isinstance(value, int) and not isinstance(value, bool):
        if key.startswith("ports.") and value > PORT_MAX:
            raise BadConfig(f"{file.at(key)}: {key} = {value} must be at most {PORT_MAX}")
        if value > 0:
            return value
        raise BadConfig(f"{file.at(key)}: {key} = {value} must be more than 0")
    if wanted in (str, bool) and isinstance(value, wanted):
        return value
    if (
        typing.get_origin(wanted) is tuple
        and isinstance(value, list)
        and all(isinstance(part, str) for part in value)
        and (... in typing.get_args(wanted) or len(value) == len(typing.get_args(wanted)))
    ):
        return tuple(value)
    words = {
        Path: "an absolute path",
        float: "seconds",
        int: "a whole number",
        str: "a string",
        bool: "true or false",
    }
    raise BadConfig(
        f"{file.at(key)}: {key} = {_said(value)} should be {words.get(wanted, _strings(wanted))}"
    )


def _said(value: Any) -> str:
    """Returns a value for a message, cut if it is long."""
    said = repr(value)
    return said if len(said) <= _SHOWN_CHARS else f"{said[:_SHOWN_CHARS]}..."


def _strings(wanted: Any) -> str:
    return "a list of strings" if ... in typing.get_args(wanted) else "a list of two strings"
