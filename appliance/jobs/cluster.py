"""Pure: no clock, no socket, no await.

Jobs that run together: the nodes of a cluster report their state and wait for each other
(`lkp-cluster-sync`, docs/wire.md#clusters).

A cluster is the jobs of one submit whose documents name the same `cluster`.  A node's state is
kept with its job and belongs to the attempt that reported it: a node that is run again starts over,
and the others wait for it.

    start --> ready --> finish        reported by each node; a gate opens when all have reported it
      '---------'---------'--> abort  reported, or implied when a job ends before the gate: all
                                      waiting nodes get `abort`
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from appliance.errors import BadRequest
from appliance.jobs.box import normal_mac
from appliance.jobs.changes import Job, Node
from appliance.jobs.job import SUCCESS, Finished

ABORT: Final = "abort"
RETRY: Final = "retry"  # tells the client to ask again
WRITE: Final = "write_state"
ROLES: Final = "roles_ip"
# The word that a node sends -> its state from then on.
STATES: Final = {
    "abort": ABORT,
    "failed": ABORT,
    "wait_start": "start",
    "wait_ready": "ready",
    "finished": "finish",
    "wait_finish": "finish",
}
WORDS: Final = (*STATES, WRITE, ROLES)
# Roles, and direct cards, per node: a box has a handful, and every node's answer holds them all.
PARTS_MAX: Final = 16
# The shells of other nodes export a role as a variable name.
_ROLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}\Z")


def name(job: Job) -> str:
    """Returns a name of the job's cluster that is unique; it has blanks, which no job id has."""
    return f"{job.document.cluster} {job.key} {job.submitter}"


def members(jobs: Iterable[Job], job: Job) -> list[Job]:
    """Filters the `jobs` of one submit for those in the cluster of `job`, itself included."""
    cluster = job.document.cluster
    if cluster is None:
        return [other for other in jobs if other.id == job.id]
    return [other for other in jobs if other.document.cluster == cluster]


def said(job: Job, word: str, query: Mapping[str, str]) -> Node:
    """Returns the node of `job` after its current attempt has sent `word`.

    Raises BadRequest for an invalid word, role or address.
    """
    if word not in WORDS:
        raise BadRequest(f"state: {word[:40]!r} must be one of {', '.join(WORDS)}")
    node = _node(job)
    if word == WRITE:
        return attrs.evolve(
            node,
            roles=tuple(map(_role, _parts(query, "node_roles"))),
            ip=" ".join(map(_address, _parts(query, "ip")[:1])),
            direct_macs=tuple(map(normal_mac, _parts(query, "direct_macs"))),
            direct_ips=tuple(map(_address, _parts(query, "direct_ips"))),
        )
    state = STATES.get(word, node.state)
    return attrs.evolve(node, state=state, ready=node.ready or state == "ready")


def _node(job: Job) -> Node:
    assert job.attempt is not None
    if job.node is not None and job.node.attempt == job.attempt.number:
        return job.node
    return Node(job.attempt.number)


def _parts(query: Mapping[str, str], name: str) -> list[str]:
    parts = query.get(name, "").split()
    if len(parts) > PARTS_MAX:
        raise BadRequest(f"{name}: at most {PARTS_MAX}")
    return parts


def _role(text: str) -> str:
    if not _ROLE.match(text):
        raise BadRequest(f"node_roles: {text[:40]!r} must be a name of letters, digits and _ -")
    return text


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise BadRequest(f"{text[:40]!r} is no IP address") from None


def gate(word: str, node: Node) -> str | None:
    """Returns the state that all nodes must reach before `word` is answered; None: answer at once.

    A node with a daemon sends `finished` once the daemon runs, before it waits for the others.
    This `finished` must not wait: the client nodes are waiting for the daemon.
    """
    if word == "finished" and not node.ready:
        return None
    return STATES[word] if word.startswith("wait_") or word == "finished" else None


def answer(nodes: Iterable[Job], state: str) -> str:
    """Returns the answer to a node waiting at the gate `state`: `state`, `abort` or `retry`."""
    passed = [_passed(job, state) for job in nodes]
    if False in passed:
        return ABORT
    return state if all(passed) else RETRY


def _passed(job: Job, state: str) -> bool | None:
    """Tells whether the node of `job` has passed the gate; None: not yet; False: never will."""
    node = job.node
    over = isinstance(job.state, Finished)
    if node is None or job.attempt is None or node.attempt != job.attempt.number:
        return _never_or(over and _well(job), over)
    if node.state == ABORT:
        return False
    there = {"start": bool(node.state), "ready": node.ready, "finish": node.state == "finish"}
    return _never_or(there[state] or (over and _well(job)), over)


def _never_or(passed: bool, over: bool) -> bool | None:
    return True if passed else (False if over else None)


def _well(job: Job) -> bool:
    return isinstance(job.state, Finished) and job.state.health == SUCCESS


def roles_ip(nodes: Iterable[Job]) -> str:
    """Returns every role's addresses, as NAME=VALUE lines that a node's shell exports."""
    lines = []
    for node in (job.node for job in nodes if job.node is not None):
        for role in node.roles:
            lines += [f"direct_{role}_ips={' '.join(node.direct_ips)}", f"{role}={node.ip}"]
    return "\n".join(lines)


def shown(nodes: Iterable[Job]) -> dict[str, dict[str, str]]:
    """Returns every node's state, roles and addresses, by job id."""
    return {
        job.id: {
            "state": job.node.state,
            "roles": " ".join(job.node.roles),
            "ip": job.node.ip,
            "direct_macs": " ".join(job.node.direct_macs),
            "direct_ips": " ".join(job.node.direct_ips),
        }
        for job in nodes
        if job.node is not None
    }
