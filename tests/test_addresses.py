"""One form for each address, whichever socket it comes by: `listen = "::"` serves both families."""

from __future__ import annotations

import re
import socket
import subprocess

import attrs
import pytest

from appliance import addresses
from appliance.config import Config, Network, Paths, Ports, parse
from appliance.errors import BadConfig
from appliance.install import units
from appliance.web import listen
from tests import fakes
from tests import lab as labs
from tests.lab import ASK, MAC, open_lab
from tests.test_serve import Appliance, free_ports

HEX = MAC.replace(":", "-")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("10.77.0.10", "10.77.0.10"),
        ("::ffff:10.77.0.10", "10.77.0.10"),
        ("::FFFF:10.77.0.10", "10.77.0.10"),
        ("::ffff:a4d:a", "10.77.0.10"),
        ("0:0:0:0:0:ffff:10.77.0.10", "10.77.0.10"),
        ("2001:DB8:0:0::5", "2001:db8::5"),
        ("fe80::1%eth0", "fe80::1"),
        ("::", "::"),
        ("::1", "::1"),
        ("64:ff9b::a4d:a", "64:ff9b::a4d:a"),  # translated by somebody else: not ours to read
        ("lab.example", "lab.example"),
        ("not:an:address", "not:an:address"),
        ("", ""),
    ],
)
def test_each_address_has_one_form(text, normal):
    assert normal == addresses.normal(text)
    assert normal == addresses.normal(normal)
    assert (normal, 80) == addresses.end((text, 80, 0, 3))


@pytest.mark.parametrize(
    ("host", "shown"),
    [("10.0.0.1", "10.0.0.1"), ("2001:db8::1", "[2001:db8::1]"), ("[fe80::1]", "[fe80::1]"),
     ("lab.example", "lab.example")],
)  # fmt: skip
def test_ipv6_stands_in_brackets_in_a_url(host, shown):
    assert shown == addresses.in_url(host)


@pytest.mark.parametrize(
    ("address", "network", "is_in"),
    [
        ("10.9.0.7", "10.9.0.0/16", True),
        ("10.9.0.7", "10.9.0.7", True),
        ("10.9.0.7", "::ffff:10.9.0.0/112", True),
        ("10.9.0.7", "::ffff:10.9.0.7", True),
        ("10.8.0.7", "::ffff:10.9.0.0/112", False),
        ("2001:db8::7", "2001:DB8::/64", True),
        ("2001:db8::7", "10.9.0.0/16", False),
        ("10.9.0.7", "2001:db8::/64", False),
        ("10.9.0.7", "::/0", False),  # all of IPv6, and nothing of IPv4
        ("nobody", "0.0.0.0/0", False),
    ],
)
def test_networks_are_compared_in_the_same_form(address, network, is_in):
    assert is_in == addresses.is_in(address, (network,))


def test_providers_may_be_ipv6_and_a_wrong_one_is_named():
    text = '[network]\nproviders = ["2001:db8::/64", "::ffff:10.0.0.1"]\n'

    assert 2 == len(parse(text, "x").network.providers)
    with pytest.raises(BadConfig, match=r"x:2: network\.providers"):
        parse('[network]\nproviders = ["2001:db8::/129"]\n', "x")


# ---- through the doors

FORMS = [("10.0.0.5", "10.0.0.1"), ("::ffff:10.0.0.5", "::ffff:10.0.0.1")]
SIX = ("2001:DB8::5", "2001:db8::1")


def checking(tmp_path, **network):
    return Config(paths=labs.config(tmp_path).paths, network=Network(**network))


async def get(lab, target, ends, port=3000, method="GET", body=b"", **headers):
    client, server = ends
    return await fakes.fetch(
        lab.wire, method, target, headers, body, client=(client, 4000), server=(server, port)
    )


@pytest.mark.parametrize(
    ("ends", "host", "address"),
    [(FORMS[0], "10.0.0.1", "10.0.0.5"), (FORMS[1], "10.0.0.1", "10.0.0.5"),
     (SIX, "[2001:db8::1]", "2001:db8::5")],
)  # fmt: skip
async def test_a_box_gets_urls_that_work_and_is_who_its_card_says(tmp_path, ends, host, address):
    async with open_lab(checking(tmp_path)) as lab:
        lab.neighbours.cards = {address: MAC}
        await lab.know()
        job = await lab.submit()
        script = (await get(lab, ASK, ends)).body.decode()
        fetched = await get(lab, f"/job_initrd_tmpfs/{job.id}/job.cgz", ends)
        report = f"/~lkp/cgi-bin/lkp-jobfile-append-var?job_id={job.id}&job_state=running"
        reported = await get(lab, report, ends)
        put = await get(
            lab, f"{job.result_root}/a", ends, 3080, "PUT", b"x", cookie=f"JOBID={job.id}"
        )

        hosts = set(re.findall(r"http://(\[[^]]*\]|[^:/]*):\d+/", script))
        assert {host} == hosts
        assert [200, 200, 201] == [answer.status for answer in (fetched, reported, put)]
        assert address == lab.scheduler.store.box("box-1").address
        assert "running" == lab.stage(job)


@pytest.mark.parametrize(("ends", "host"), [(FORMS[1], "10.0.0.1"), (SIX, "[2001:db8::1]")])
async def test_an_idle_box_is_sent_back_to_where_it_came_from(autojump_clock, ends, host):
    async with open_lab() as lab:
        script = (await get(lab, ASK, ends)).body.decode()

        assert f"chain --replace --autofree http://{host}:3000/boot.ipxe/" in script


@pytest.mark.parametrize("ends", [*FORMS, SIX])
async def test_the_checks_of_a_card_hold_in_every_form(tmp_path, ends):
    async with open_lab(checking(tmp_path)) as lab:
        await lab.know()
        lab.neighbours.cards = {addresses.normal(ends[0]): "52:54:00:00:00:66"}
        asked = await get(lab, ASK, ends)

        assert 503 == asked.status
        assert b"52:54:00:00:00:66" in asked.body


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (("::ffff:10.9.0.7", "::ffff:10.0.0.1"), 200),  # a provider
        (("::ffff:10.0.0.1", "::ffff:10.0.0.1"), 200),  # the server itself
        (("::ffff:127.0.0.1", "::ffff:127.0.0.1"), 200),
        (("::1", "::1"), 200),
        (("2001:db8:9::7", "2001:db8::1"), 200),
        (("::ffff:10.0.0.5", "::ffff:10.0.0.1"), 403),
        (("2001:db8::5", "2001:db8::1"), 403),
    ],
)
async def test_who_is_trusted_is_so_in_every_form(tmp_path, ends, status):
    chosen = checking(tmp_path, providers=("10.9.0.0/16", "2001:db8:9::/48"))
    async with open_lab(chosen) as lab:
        lab.neighbours.cards |= dict.fromkeys(("10.9.0.7", "2001:db8:9::7"), "52:54:00:00:00:99")
        answer = await get(lab, f"/set_host_mac?hostname=vm-1&mac={HEX}", ends, method="PUT")

        assert status == answer.status


async def test_the_hosts_name_of_the_configuration_stands_in_urls_as_it_is(autojump_clock):
    chosen = attrs.evolve(
        labs.config(), network=Network(check_neighbour=False, address="[2001:db8::2]")
    )
    async with open_lab(chosen) as lab:
        await lab.know()
        await lab.submit()
        script = await (await lab.ask()).rest()

        assert b"http://[2001:db8::2]:3000/" in script


# ---- on real sockets


def dual(tmp_path, ports):
    names = ("scheduler", "os", "initrd", "upload", "results", "monitor")
    return Config(
        network=Network(listen="::"),
        ports=Ports(**dict(zip(names, ports, strict=True))),
        paths=Paths(run=tmp_path),
    )


def passed_socket(port, only):
    sock = socket.socket(socket.AF_INET6)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
    sock.bind(("::", port))
    return sock


def test_a_socket_on_every_address_takes_both_families(tmp_path):
    ports = free_ports(6)
    passed = passed_socket(ports[1], 0)
    doors = listen.sockets(dual(tmp_path, ports), [passed])
    try:
        assert passed is doors[1]
        for sock in doors:
            assert 0 == sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    finally:
        for sock in doors:
            sock.close()


def test_a_passed_socket_that_takes_ipv6_alone_is_refused(tmp_path):
    ports = free_ports(6)
    with (
        passed_socket(ports[1], 1) as passed,
        pytest.raises(BadConfig, match=rf"port {ports[1]} takes IPv6 alone.*BindIPv6Only=both"),
    ):
        listen.sockets(dual(tmp_path, ports), [passed])


def test_the_unit_of_the_sockets_asks_for_both_families():
    chosen = Config(network=Network(listen="::"))
    made = units.drop_ins(chosen, (3000,))["appliance.socket.d/ports.conf"]

    assert ["ListenStream=", "ListenStream=[::]:3000", "BindIPv6Only=both"] == [
        line for line in made.splitlines() if "=" in line
    ]


def curl(url, *words):
    done = subprocess.run(
        ["curl", "-sg", "--max-time", "10", "-w", "\n%{http_code}", *words, url],
        capture_output=True, text=True,
    )  # fmt: skip
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_real_client_of_either_family_goes_from_its_question_to_its_results(tmp_path, host):
    appliance = Appliance(tmp_path, "::")
    appliance.start()
    try:
        appliance.run("host", "add", "box-1", "--mac", HEX)
        (tmp_path / "hello.yaml").write_text("script: echo hi\n")
        words = appliance.run("submit", str(tmp_path / "hello.yaml")).stdout.split()
        job, root = words[0], words[1].removeprefix(f"{tmp_path}/srv")
        scheduler = f"http://{host}:{appliance.ports['scheduler']}"
        asked, script = curl(f"{scheduler}/boot.ipxe/mac/{HEX}?arch=x86_64")
        urls = re.findall(r"http://\S+", script)
        fetched = [curl(url, "-o", "/dev/null")[0] for url in urls]
        steps = appliance.run("host", "show", "box-1").stdout
        cookie = ("-b", f"JOBID={job}")
        upload = f"http://{host}:{appliance.ports['upload']}{root}/a"
        put, _ = curl(upload, *cookie, "-T", str(tmp_path / "hello.yaml"))
        strange, _ = curl(f"http://{host}:{appliance.ports['os']}/os/", "-X", "BAD\x01")
    finally:
        assert 0 == appliance.stop()

    assert 200 == asked
    assert {host} == {url.split("/")[2].rpartition(":")[0] for url in urls}
    assert len(fetched) >= 5
    assert {200} == set(fetched)
    assert all(url.split("/", 3)[3] in steps for url in urls)  # counted as its own
    assert 201 == put
    assert 400 == strange
    shown = (tmp_path / "log").read_text()
    assert "::ffff" not in shown
    assert f"client={host.strip('[]')}" in shown
