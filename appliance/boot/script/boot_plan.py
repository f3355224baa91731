"""Pure: no clock, no socket, no await.

Turns a job and a box into the contents of a boot script: URLs, initrds in order, the words from the
hosts file; and into the equivalent for a host of containers.
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
    """Returns the script that boots `job` on the box with `facts`.  Raises Refused if too long."""
    if job.document.os_mount == CONTAINER:
        return container(config, job, host)
    return ipxe.script(boot_of(config, job, facts, host))


def boot_of(config: Config, job: Job, facts: Facts | None, host: str) -> ipxe.Boot:
    """Returns the contents of the boot script; the box reaches this server as `host`."""
    document, pinned = job.document, job.pinned
    initrds = [_url(config, host, path) for path in pinned.initrds]
    if document.os_mount == "initramfs":  # else the running client fetches these
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
    """Returns the URLs that every box gets: job.cgz, and the client that runs the job."""
    scheduler = f"http://{host}:{config.ports.scheduler}"
    found = [scheduler + served.job_cgz_path(job)]
    if not job.document.packages:
        found.append(scheduler + served.RUNNER)  # the job has no client of its own
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
    """Returns the disks that a client may use: the operator's, or the document's choice of them."""
    disks = facts.rootfs_disk if facts is not None else ()
    if document.rootfs_disk is None:
        return disks
    return tuple(disk for disk in document.rootfs_disk if disk in disks)


def container(config: Config, job: Job, host: str) -> str:
    """Returns the JSON that a host of containers gets instead of a script.

    See docs/wire.md#websockets.
    """
    return json.dumps(
        {
            "job_id": job.id,
            "docker_image": job.document.docker_image,
            "initrds": json.dumps(common_initrds(config, job, host)),
        }
    )


def fetched_later(config: Config, job: Job, host: str) -> dict[str, list[str]]:
    """Returns the URLs that the client fetches itself, by name in job.sh (docs/wire.md#files)."""
    return {
        "initrd_deps": [_url(config, host, path) for path in job.pinned.deps],
        "initrd_pkgs": [_url(config, host, path) for path in job.pinned.pkgs],
    }


@attrs.frozen
class File:
    """A file that a script names: the port and path of its URL."""

    port: int
    path: str
    host: str | None = None  # as written in the document; None: this server


def files_of(config: Config, job: Job) -> set[File]:
    """Returns the files that a job's script names, as a box asks for them."""
    files = {_file(config, url) for url in served.urls(job)}
    files.add(File(config.ports.scheduler, served.job_cgz_path(job)))
    if not job.document.packages:
        files.add(File(config.ports.scheduler, served.RUNNER))
    return files


def _file(config: Config, url: str) -> File:
    if url.startswith("/"):
        return File(_port(config, url), url)
    try:  # a whole URL from the document
        parts = urlsplit(url)
        port = parts.port or _USUAL_PORTS.get(parts.scheme, 0)
    except ValueError:  # invalid port or host: matches no request
        return File(0, url, "")
    return File(port, unquote(parts.path), parts.hostname or "")


def _port(config: Config, path: str) -> int:
    return config.ports.os if path.startswith("/os/") else config.ports.initrd


def _url(config: Config, host: str, path: str) -> str:
    if not path.startswith("/"):
        return path  # a whole URL from the document
    return f"http://{host}:{_port(config, path)}{path}"
