"""Pure: no clock, no socket, no await.

The files that a job's boot script names, as URLs, and which of them this server serves.
"""

from __future__ import annotations

from typing import Final

from appliance.jobs.changes import Job

RUNNER: Final = "/runner.cgz"


def job_cgz_path(job: Job) -> str:
    """Returns the path of job.cgz; clients read the job's id from it.

    See docs/wire.md#the-boot-script.
    """
    return f"/job_initrd_tmpfs/{job.id}/job.cgz"


def own_paths(job: Job) -> set[str]:
    """Returns the paths of the script's files on this server; whole URLs are other servers'.

    job.cgz is always among them.
    """
    paths = {url for url in urls(job) if url.startswith("/")} | {job_cgz_path(job)}
    return paths if job.document.packages else paths | {RUNNER}


def urls(job: Job) -> list[str]:
    """Returns the URLs of the kernel, initrds and packages, in the order of the script."""
    pinned = job.pinned
    urls = [*filter(None, [pinned.kernel]), *pinned.initrds, *pinned.packages]
    if job.document.os_mount == "initramfs":  # else the running client fetches these
        urls += [*pinned.deps, *pinned.pkgs]
    return urls
