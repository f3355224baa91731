"""Pure: no clock, no socket, no await.

The files that the boot script of a job names, as URLs, and which of them are ours to serve.
"""

from __future__ import annotations

from typing import Final

from appliance.jobs.changes import Job

RUNNER: Final = "/runner.cgz"


def job_cgz_path(job: Job) -> str:
    """Clients find the job's id in this path (docs/wire.md#the-boot-script)."""
    return f"/job_initrd_tmpfs/{job.id}/job.cgz"


def own_paths(job: Job) -> set[str]:
    """The paths of those that we serve, whatever the document says: one from elsewhere is not ours.

    job.cgz is always among them.
    """
    paths = {url for url in urls(job) if url.startswith("/")} | {job_cgz_path(job)}
    return paths if job.document.packages else paths | {RUNNER}


def urls(job: Job) -> list[str]:
    """Of its kernel, its initrds and its packages, in the order of the script."""
    pinned = job.pinned
    urls = [*filter(None, [pinned.kernel]), *pinned.initrds, *pinned.packages]
    if job.document.os_mount == "initramfs":  # others fetch these once they run
        urls += [*pinned.deps, *pinned.pkgs]
    return urls
