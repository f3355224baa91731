"""Pure: no clock, no socket, no await.

From a job and a box to what the boot script says: URLs, initrds in order, the host's own words.
"""

from __future__ import annotations

from collections.abc import Iterable

from appliance.boot import ipxe
from appliance.config import Config
from appliance.jobs.box import Facts
from appliance.jobs.changes import Job
from appliance.jobs.document import Document

RUNNER = "/runner.cgz"


def boot_of(config: Config, job: Job, facts: Facts | None, host: str) -> ipxe.Boot:
    """What the boot script of `job` says on the box with `facts`, reaching us as `host`."""
    document = job.document
    scheduler = f"http://{host}:{config.ports.scheduler}"
    initrds = [_url(config, host, path) for path in job.pinned.initrds]
    initrds.append(scheduler + job_cgz_path(job))
    if not document.packages:
        initrds.append(scheduler + RUNNER)  # it brings no client of its own
    initrds += [_url(config, host, path) for path in job.pinned.packages]
    words = ipxe.HostWords()
    if facts is not None:
        words = ipxe.HostWords(
            disks_of(document, facts),
            facts.crash_memory,
            facts.console,
            facts.kernel_params,
            facts.nr_nic,
        )
    return ipxe.Boot(
        _url(config, host, job.pinned.kernel),
        tuple(initrds),
        document.os_mount,
        document.arch,
        host,
        job.pinned.root,
        document.kernel_custom_params,
        words,
    )


def disks_of(document: Document, facts: Facts | None) -> tuple[str, ...]:
    """The disks that a client may take for itself: the operator's, of which a document chooses."""
    disks = facts.rootfs_disk if facts is not None else ()
    if document.rootfs_disk is None:
        return disks
    return tuple(disk for disk in document.rootfs_disk if disk in disks)


def job_cgz_path(job: Job) -> str:
    """Clients find the job's id in this path (protocol.md §1.4)."""
    return f"/job_initrd_tmpfs/{job.id}/job.cgz"


def paths_of(job: Job) -> set[str]:
    """The URL paths that a job's script names, as a box asks for them."""
    pinned = job.pinned
    urls: Iterable[str] = [pinned.kernel, *pinned.initrds, *pinned.packages]
    paths = {url if url.startswith("/") else "/" + url.split("/", 3)[3] for url in urls}
    paths.add(job_cgz_path(job))
    return paths if job.document.packages else paths | {RUNNER}


def _url(config: Config, host: str, path: str) -> str:
    if not path.startswith("/"):
        return path  # the document's own, whole
    port = config.ports.os if path.startswith("/os/") else config.ports.initrd
    return f"http://{host}:{port}{path}"
