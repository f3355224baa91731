"""Pure: no clock, no socket, no await.

From a job and a box to what the boot script says: URLs, initrds in order, the host's own words;
and the same for a host of containers.
"""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import unquote, urlsplit

import attrs

from appliance.boot.script import ipxe
from appliance.config import Config
from appliance.jobs import served
from appliance.jobs.box import Facts, crash_memory
from appliance.jobs.changes import Job
from appliance.jobs.documents.document import COMMENTS, CONTAINER, Document

_USUAL_PORTS: Final = {"http": 80, "https": 443}


def script(config: Config, job: Job, facts: Facts | None, host: str) -> str:
    """What the box with `facts` is told to boot `job`.  Raises Refused where it would not fit."""
    if job.document.os_mount == CONTAINER:
        return container(config, job, host)
    return ipxe.script(boot_of(config, job, facts, host))


def boot_of(config: Config, job: Job, facts: Facts | None, host: str) -> ipxe.Boot:
    """What the boot script of `job` says on the box with `facts`, reaching us as `host`."""
    document, pinned = job.document, job.pinned
    initrds = [_url(config, host, path) for path in pinned.initrds]
    if document.os_mount == "initramfs":  # others fetch these once they run
        initrds += [_url(config, host, path) for path in (*pinned.deps, *pinned.pkgs)]
    return ipxe.Boot(
        _url(config, host, pinned.kernel),
        (*initrds, *common_initrds(config, job, host)),
        document.os_mount,
        document.arch,
        host,
        pinned.root,
        document.kernel_custom_params,
        _host_words(job, facts),
        document.local,
    )


def common_initrds(config: Config, job: Job, host: str) -> list[str]:
    """The job itself, and the client that runs it: what every box gets, however it boots."""
    scheduler = f"http://{host}:{config.ports.scheduler}"
    found = [scheduler + served.job_cgz_path(job)]
    if not job.document.packages:
        found.append(scheduler + served.RUNNER)  # it brings no client of its own
    return found + [_url(config, host, path) for path in job.pinned.packages]


def _host_words(job: Job, facts: Facts | None) -> ipxe.HostWords:
    document = job.document
    said = {
        **(facts.comments if facts is not None else {}),
        **dict(comment.split("=", 1) for comment in document.comments),
    }
    comments = tuple(f"{name}={said[name]}" for name in COMMENTS if name in said)
    if facts is None:
        return ipxe.HostWords((), crash_memory(None, document.os), comments=comments)
    return ipxe.HostWords(
        disks_of(document, facts),
        facts.crash_memory(document.os),
        facts.console,
        facts.kernel_params,
        comments,
    )


def disks_of(document: Document, facts: Facts | None) -> tuple[str, ...]:
    """The disks that a client may take for itself: the operator's, of which a document chooses."""
    disks = facts.rootfs_disk if facts is not None else ()
    if document.rootfs_disk is None:
        return disks
    return tuple(disk for disk in document.rootfs_disk if disk in disks)


def container(config: Config, job: Job, host: str) -> str:
    """What a host of containers is told instead of a script (docs/wire.md#websockets)."""
    return json.dumps(
        {
            "job_id": job.id,
            "docker_image": job.document.docker_image,
            "initrds": json.dumps(common_initrds(config, job, host)),
        }
    )


def fetched_later(config: Config, job: Job, host: str) -> dict[str, list[str]]:
    """What its client fetches by itself, in job.sh's own words (docs/wire.md#files)."""
    return {
        "initrd_deps": [_url(config, host, path) for path in job.pinned.deps],
        "initrd_pkgs": [_url(config, host, path) for path in job.pinned.pkgs],
    }


@attrs.frozen
class File:
    """One that a script names: at which door, and under which path."""

    port: int
    path: str
    host: str | None = None  # as the document wrote it; None: it is ours


def files_of(config: Config, job: Job) -> set[File]:
    """The files that a job's script names, as a box asks for them."""
    files = {_file(config, url) for url in served.urls(job)}
    files.add(File(config.ports.scheduler, served.job_cgz_path(job)))
    if not job.document.packages:
        files.add(File(config.ports.scheduler, served.RUNNER))
    return files


def _file(config: Config, url: str) -> File:
    if url.startswith("/"):
        return File(_port(config, url), url)
    try:  # the document's own, whole
        parts = urlsplit(url)
        port = parts.port or _USUAL_PORTS.get(parts.scheme, 0)
    except ValueError:  # a port or a host that is none: nobody has it
        return File(0, url, "")
    return File(port, unquote(parts.path), parts.hostname or "")


def _port(config: Config, path: str) -> int:
    return config.ports.os if path.startswith("/os/") else config.ports.initrd


def _url(config: Config, host: str, path: str) -> str:
    if not path.startswith("/"):
        return path  # the document's own, whole
    return f"http://{host}:{_port(config, path)}{path}"
