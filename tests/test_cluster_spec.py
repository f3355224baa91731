"""One document for several machines: who runs what, in the field's own shapes."""

from __future__ import annotations

import pytest

from appliance.errors import BadRequest
from appliance.jobs.documents import cluster_spec

# The shapes of the field's own files of clusters: with addresses of their own, and without.
CEPH = {
    "switch": "Switch-P12",
    "ip0": 7,
    "nodes": {
        "rack-7": {"roles": ["cephnode1"], "macs": ["44:67:47:00:00:07", "44-67-47-00-00-08"]},
        "rack-8": {"roles": ["cephclient1", "cephclient2"], "macs": ["44:67:47:00:00:09"]},
        "rack-9": {"roles": ["nothing"], "macs": ["44:67:47:00:00:10"]},
    },
}
VIRTUAL = {
    "ip0": 1,
    "nodes": {
        "vm-2p16g-multi-node--1": {"roles": ["server"]},
        "vm-2p16g-multi-node--2": {"roles": ["client"]},
    },
}
OLD = {"localhost": {"roles": ["server", "client"]}}
JOB = {"suite": "iperf", "cluster": "cs", "tbox_group": "x", "cluster_spec": {}, "testbox": "x"}


def test_each_node_with_a_role_of_the_job_gets_a_document():
    ours = {**JOB, "if role cephnode1": {}, "if role cephclient1 cephclient2": {}}

    first, second = cluster_spec.documents(ours, CEPH)
    assert {
        "suite": "iperf", "cluster": "cs", "testbox": "rack-7", "queue": "rack-7",
        "node_roles": "cephnode1", "nr_nic": 2,
        "direct_macs": "44:67:47:00:00:07 44:67:47:00:00:08",
        "direct_ips": "192.168.222.7 192.168.222.8",
        "if role cephnode1": {}, "if role cephclient1 cephclient2": {},
    } == first  # fmt: skip
    assert ("rack-8", "cephclient1 cephclient2", "192.168.222.9") == (
        second["testbox"], second["node_roles"], second["direct_ips"],
    )  # fmt: skip


def test_two_of_a_kind_are_asked_for_by_their_kind():
    made = cluster_spec.documents({**JOB, "if role server": 1, "if role client": 1}, VIRTUAL)

    assert [("vm-2p16g-multi-node", "server"), ("vm-2p16g-multi-node", "client")] == [
        (one["testbox"], one["node_roles"]) for one in made
    ]
    assert all("direct_ips" not in one and "nr_nic" not in one for one in made)


def test_a_job_without_roles_runs_on_every_node():
    assert ["server client"] == [one["node_roles"] for one in cluster_spec.documents(JOB, OLD)]


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        (None, "must map hosts"),
        ([], "must map hosts"),
        ({}, "must map 1 to 100"),
        ({"nodes": []}, "must map 1 to 100"),
        ({"nodes": {str(n): {} for n in range(101)}}, "must map 1 to 100"),
        ({"nodes": {"a": {"roles": "server"}}}, "a: roles must be a list"),
        ({"nodes": {"a": {"roles": ["server"], "macs": ["x"]}}}, "is no MAC"),
        ({"nodes": {"a": {"roles": ["other"]}}}, "no node has one of the job's roles: server"),
        ({"ip0": "x", "nodes": {"a": {}}}, "ip0"),
        ({"ip0": 255, "nodes": {"a": {}}}, "ip0"),
        ({"ip0": 254, "nodes": {"a": {"roles": ["server"], "macs": ["44:67:47:00:00:09"] * 2}}},
         "not so many addresses"),
    ],
)  # fmt: skip
def test_a_spec_that_makes_no_sense_is_refused(spec, word):
    with pytest.raises(BadRequest, match=word):
        cluster_spec.documents({**JOB, "if role server": {}}, spec)
