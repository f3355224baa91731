"""Doctor's checks of this machine: limits, disks, clock, configurations, iPXE, images."""

from __future__ import annotations

import ctypes
import grp
import os
import resource
import shutil
import stat
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

import attrs

from appliance import names
from appliance.boot.daemons import dnsmasq, smb, tftp
from appliance.boot.images import catalogue, rootfs
from appliance.config import Config
from appliance.doctor import boot_files, facts, findings, machine
from appliance.doctor.facts import CONFIGURATIONS, World
from appliance.doctor.findings import Finding
from appliance.errors import BadConfig

TIMEX_BYTES: Final = 512  # struct timex has 208; the rest is room for later kernels
TIMEX_TO_STATUS: Final = "@I4li"  # modes, offset, freq, maxerror, esterror, status
STA_UNSYNC: Final = 0x40  # linux/timex.h
CHECKER_S: Final = 20.0  # testparm looks up its host's name, which may be slow


def limits(world: World) -> list[Finding]:
    """Checks the ARP table, open files, and dnsmasq's limits of transfers and leases."""
    found = []
    folder = Path("/proc/sys/net/ipv4/neigh/default")
    try:
        one, two, three = (int((folder / f"gc_thresh{n}").read_text()) for n in (1, 2, 3))
        found.append(machine.neighbours((one, two, three), world.boxes))
    except OSError as error:  # older kernels have none in a network namespace
        found.append(findings.skipped("ARP table", f"{error.filename}: {error.strerror}"))
    limit = facts.open_files_of(world.server_pid) if world.server_pid else None
    whose = "the server" if limit is not None else "a process of yours"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    found.append(machine.open_files(limit or hard, whose, world.boxes, world.config))
    conf = facts.conf_text(world, "dnsmasq")
    if conf:
        pid = next(
            (o.pid for one in world.listeners if one.port == 67 for o in one.owners if o.ours), None
        )
        found.append(machine.transfers(conf, facts.open_files_of(pid) if pid else None))
        found.append(machine.leases(conf, world.boxes))
    return found


def clock(world: World) -> list[Finding]:
    """Checks that the clock is synchronised, and is not behind the records of the state."""
    return machine.clock(_ahead(world.config.paths.state), synchronised=_synchronised())


def _ahead(state: Path) -> float | None:
    """Returns how many seconds the state's newest file is ahead of the clock; None: unreadable."""
    try:
        with os.scandir(state) as entries:
            ends = [entry.stat(follow_symlinks=False).st_mtime for entry in entries]
    except FileNotFoundError:
        return 0.0  # there is no state yet
    except OSError:
        return None
    return max(ends, default=0.0) - time.time()


def _synchronised() -> bool | None:
    """Whether adjtimex(2) says that the clock is synchronised; None: the call is not allowed."""
    room = ctypes.create_string_buffer(TIMEX_BYTES)  # all zero: modes 0 changes nothing
    if ctypes.CDLL(None).adjtimex(room) < 0:
        return None
    status: int = struct.unpack_from(TIMEX_TO_STATUS, room)[-1]
    return not status & STA_UNSYNC


def disks(world: World) -> list[Finding]:
    """Checks free space where results and the state lie, once for each file system."""
    config, found = world.config, []
    seen: set[int] = set()
    for path, upload in (
        (config.paths.srv / "result", config.limits.upload_attempt_bytes),
        (config.paths.state, None),
    ):
        there = next(one for one in (path, *path.parents) if one.exists())
        device = there.stat().st_dev
        if device not in seen:
            seen.add(device)
            stat = os.statvfs(there)
            room = machine.Room(
                str(path), stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize,
                stat.f_favail, stat.f_files,
            )  # fmt: skip
            found += machine.disk(room, config.space, upload)
    return found


def ipxe(world: World) -> list[Finding]:
    """Checks iPXE for each firmware, and the first script that it reads."""
    root = world.config.paths.tftp
    there = [_tftp_file(root / name, name) for name in tftp.NAMES]
    found = boot_files.ipxe(there, world.archs)
    script = root / "boot.ipxe"
    config = world.config
    template = next(path for path in tftp.TEMPLATES if path.name == script.name)
    wanted = dnsmasq.first_script(
        template.read_text(), config.network.address, config.ports.scheduler
    )
    file = _tftp_file(script, "boot.ipxe")
    current = not file.trouble and tftp.holds(script, wanted.encode())
    return [*found, boot_files.boot_ipxe(file, current=current)]


def _tftp_file(path: Path, name: str) -> boot_files.TftpFile:
    try:
        stat = path.stat()
    except OSError as error:
        trouble = "is missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
        return boot_files.TftpFile(name, trouble=trouble)
    if not stat.st_mode & 0o004:
        return boot_files.TftpFile(name, stat.st_size, "is not readable by dnsmasq's user")
    if outer := closed(path.parent):
        return boot_files.TftpFile(
            name, stat.st_size, f"lies in {outer}, which is closed to others"
        )
    return boot_files.TftpFile(name, stat.st_size, "" if stat.st_size else "is empty")


def closed(folder: Path, gid: int | None = None) -> Path | None:
    """Returns the outermost folder on the way to `folder` that other users may not enter.

    A folder of the group `gid` counts as open if that group may enter it.  Raises OSError.
    """

    def entered(found: os.stat_result) -> bool:
        return bool(found.st_mode & (stat.S_IXGRP if found.st_gid == gid else stat.S_IXOTH))

    way = (*reversed(folder.parents), folder)
    return next((one for one in way if not entered(one.stat())), None)


def _servers_group() -> int | None:
    try:
        return grp.getgrnam(names.GROUP).gr_gid
    except KeyError:  # not installed
        return None


def configurations(world: World) -> list[Finding]:
    """Checks the configurations of dnsmasq and smbd: those in use, else those of an install."""
    if not facts.interfaces(world.config):
        return [findings.skipped("configurations of daemons", "no interface is named yet")]
    found = []
    with tempfile.TemporaryDirectory(prefix="appliance-doctor-") as scratch:
        for daemon, checker in (
            ("dnsmasq", ("dnsmasq", "--test", "--conf-file={}")),
            ("smbd", ("testparm", "--suppress-prompt", "{}")),
        ):
            conf = world.confs.get(daemon)
            if conf is None:
                try:
                    conf = _rendered(world.config, daemon, Path(scratch))
                except BadConfig as error:
                    means = f"no configuration for {daemon} can be written"
                    looked_at = f"configuration of {daemon}"
                    found.append(
                        findings.error(looked_at, str(error), means, "change appliance.toml")
                    )
                    continue
            found.append(boot_files.configuration(_checked(daemon, checker, conf)))
    return found


def _rendered(config: Config, daemon: str, scratch: Path) -> Path:
    """Writes the configuration that an install would write for a daemon.  Raises BadConfig.

    testparm requires the folders in it, which only an install makes; so smb.conf gets folders
    below `scratch`.
    """
    conf = scratch / CONFIGURATIONS[daemon]
    if daemon == "dnsmasq":
        conf.write_text(dnsmasq.configuration(config))
        return conf
    smb.configuration(config)  # raises BadConfig for the real paths
    paths = attrs.evolve(config.paths, state=scratch / "state", run=scratch / "run")
    elsewhere = attrs.evolve(config, paths=paths)
    for folder in smb.directories(elsewhere):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    conf.write_text(smb.configuration(elsewhere))
    return conf


def _checked(daemon: str, checker: tuple[str, ...], conf: Path) -> boot_files.Checked:
    command = [word.format(conf) for word in checker]
    sbin = f"{os.defpath}:/usr/sbin:/sbin:/usr/local/sbin"
    program = shutil.which(command[0], path=sbin)
    if program is None:
        why = f"{command[0]} is not installed; `appliance install` brings it"
        return boot_files.Checked(daemon, str(conf), 0, "", why)
    done = subprocess.run(
        [program, *command[1:]],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        timeout=CHECKER_S, check=False,
    )  # fmt: skip
    said = done.stderr if daemon == "smbd" else done.stdout + done.stderr
    return boot_files.Checked(daemon, str(conf), done.returncode, said)


def image_states(world: World) -> list[Finding]:
    """Checks every image; slow, since boot files are unpacked."""
    srv = world.config.paths.srv
    states = []
    for image in catalogue.images(srv):
        problems = list(image.problems)
        folder = srv / image.snapshot[1:]
        if not problems:
            problems += rootfs.flaws(folder)
        # An install lets only the server's group enter /srv/os.
        if outer := closed(folder / "boot", _servers_group()):
            problems.append(f"{outer} is not readable by others")
        kernel = image.kernels[0] if image.kernels else "none"
        states.append(boot_files.ImageState(image.name, kernel, tuple(problems)))
    found = boot_files.images(states, str(srv))
    if states:
        folder = srv / "os"
        nosuid = bool(os.statvfs(folder).f_flag & os.ST_NOSUID)
        entered = bool(folder.stat().st_mode & stat.S_IXOTH)
        found.append(boot_files.rights(str(folder), nosuid=nosuid, entered=entered))
    return found
