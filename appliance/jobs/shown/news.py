"""Pure: no clock, no socket, no await.

Turns changes into the messages of the monitor's socket (docs/wire.md#the-monitor).

A message is one flat map; its keys depend on the change:

    job_id      always                     testbox     once a box has the job
    job_state   the field's legacy word    job_stage   the job's stage
    job_health  a verdict                  message     a text for people
    state       of the testbox, or `set ssh port` with ssh_port
    result_root at the job's submit and at its end

Clients wait for two values of job_state: `download`, when the box fetches its job, and
`extract_finished`, when no more messages about the job will come.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from appliance.jobs import job as jobs
from appliance.jobs.changes import Change, Job, Moved, Stepped, Submitted
from appliance.jobs.decisions import iso
from appliance.jobs.store import Store

DOWNLOAD: Final = "download"
END: Final = "extract_finished"
SSH: Final = "set ssh port"
_SSH_STEP: Final = re.compile(r"ssh_port=([0-9]+) ?(.*)", re.DOTALL)

Message = dict[str, Any]


def of(change: Change, store: Store) -> Message | None:
    """Returns the message about `change`, which `store` has applied; None if there is none."""
    match change:
        case Submitted(job):
            said = _about(job) | {"job_state": "submit", "result_root": _results(job)}
            return _at(job.submitted, said | {"message": f"submitted by {job.submitter}"})
        case Moved(job_id, event, at, what):
            return _at(at, _moved(store.jobs[job_id], event, what))
        case Stepped(box, step, job_id) if job_id is not None and step.what in _STEPS:
            said = {"job_id": job_id, "testbox": box} | _STEPS[step.what](step.detail)
            return _at(step.at, said)
    return None


def text(message: Message) -> str:
    """Serialises `message`: its keys for filters, and all of it again as `log`, for people."""
    return json.dumps(message | {"log": json.dumps(message)})


def _at(moment: float, said: Mapping[str, Any]) -> Message:
    return {"level": "INFO", "time": iso(moment), **said}


def _about(job: Job) -> Message:
    about = {"job_id": job.id, "job_stage": jobs.stage(job.state)}
    return about | ({"testbox": job.attempt.box} if job.attempt is not None else {})


def _moved(job: Job, event: jobs.Event, what: str) -> Message:
    said, state = _about(job), job.state
    if isinstance(state, jobs.Finished):
        said |= {"job_state": END, "job_health": state.health, "result_root": _results(job)}
        return said | {"message": state.reason or what or state.health}
    if isinstance(event, jobs.Fetch):
        word = DOWNLOAD
    elif isinstance(event, jobs.Verdict):
        word = event.health
        said["job_health"] = job.attempt and job.attempt.health
    else:
        word = jobs.stage(state)
    return said | {"job_state": word, "message": what}


def _results(job: Job) -> str:
    return f"/srv{job.result_root}"


def _ssh(detail: str) -> Message:
    match = _SSH_STEP.fullmatch(detail)
    port = {"ssh_port": match[1]} if match is not None else {}
    return {"state": SSH, **port, "message": match[2] if match is not None else detail}


def _report(detail: str) -> Message:
    state = {"state": detail[5:]} if detail.startswith("wtmp ") else {}
    return {**state, "message": detail}


# The steps of a boot that get a message of their own.
_STEPS: Final[Mapping[str, Callable[[str], Message]]] = {
    "ssh": _ssh,
    "report": _report,
    "file": lambda detail: {"message": f"has {detail}", "resource": detail},
    "missing": lambda detail: {"message": f"{detail} is gone", "resource": detail},
    "result": lambda detail: {"message": f"uploaded {detail}"},
}
