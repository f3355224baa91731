"""daemons/dnsmasq: the configuration against dnsmasq's own checker, and iPXE's first script."""

import shutil
import subprocess
from pathlib import Path

import attrs
import pytest

from appliance.boot.daemons import dnsmasq
from appliance.config import Config, Network, Paths, Segment
from appliance.errors import BadConfig, BadRequest

TFTPBOOT = Path(__file__).parents[1] / "tftpboot"
TEMPLATE = TFTPBOOT / "boot.ipxe"
DNSMASQ = shutil.which("dnsmasq", path="/usr/sbin:/usr/local/sbin:/usr/bin")


def lab(**network) -> Config:
    words = {
        "interface": "lab0",
        "address": "172.28.0.1",
        "dhcp_range": ("172.28.0.10", "172.28.3.250"),
        "netmask": "255.255.252.0",
    }
    return Config(network=Network(**words | network))


def lines(config: Config) -> list[str]:
    return [
        line for line in dnsmasq.configuration(config).splitlines() if line[:1] not in ("", "#")
    ]


def accepted(text: str, directory: Path) -> bool:
    file = directory / "dnsmasq.conf"
    file.write_text(text)
    done = subprocess.run(
        [DNSMASQ, "--test", f"--conf-file={file}"], capture_output=True, check=False
    )
    return done.returncode == 0


needs_dnsmasq = pytest.mark.skipif(DNSMASQ is None, reason="dnsmasq-base is not installed")


@needs_dnsmasq
@pytest.mark.parametrize("dhcp_range", [("172.28.0.10", "172.28.3.250"), None])
@pytest.mark.parametrize("router", ["", "172.28.0.254"])
def test_dnsmasq_itself_accepts_it(tmp_path, dhcp_range, router):
    assert accepted(dnsmasq.configuration(lab(dhcp_range=dhcp_range, router=router)), tmp_path)


@needs_dnsmasq
def test_the_checker_can_refuse(tmp_path):
    broken = dnsmasq.configuration(lab()).replace("168h", "168q")

    assert not accepted(broken, tmp_path)


def test_the_whole_configuration_of_a_lab():
    assert [
        "port=0",
        "interface=lab0",
        "except-interface=lo",
        "bind-interfaces",
        "pid-file=/run/appliance/dnsmasq.pid",
        "enable-tftp",
        "tftp-root=/tftpboot",
        "tftp-unique-root=mac",
        "tftp-max=10000",
        "dhcp-leasefile=/var/lib/appliance/dnsmasq.leases",
        "dhcp-ignore-clid",
        "dhcp-hostsdir=/var/lib/appliance/dhcp-hosts",
        "dhcp-lease-max=40000",
        "dhcp-authoritative",
        "dhcp-range=172.28.0.10,172.28.3.250,255.255.252.0,168h",
        "dhcp-option=option:router",
        "dhcp-option=option:dns-server",
        "dhcp-option=encap:175,176,1b",
        "dhcp-match=set:ipxe,175",
        "dhcp-match=set:bios,93,0",
        "dhcp-match=set:efi-x86_64,93,7",
        "dhcp-match=set:efi-x86_64,93,9",
        "dhcp-match=set:efi-arm64,93,11",
        "dhcp-boot=tag:bios,undionly.kpxe",
        "dhcp-boot=tag:efi-x86_64,ipxe/bin-x86_64-efi/snp.efi",
        "dhcp-boot=tag:efi-arm64,ipxe/bin-arm64-efi/snp.efi",
        "dhcp-match=set:http-efi-x86_64,93,16",
        "dhcp-option-force=tag:http-efi-x86_64,60,HTTPClient",
        "dhcp-boot=tag:http-efi-x86_64,http://172.28.0.1:8800/ipxe/bin-x86_64-efi/snp.efi",
        "dhcp-match=set:http-efi-arm64,93,19",
        "dhcp-option-force=tag:http-efi-arm64,60,HTTPClient",
        "dhcp-boot=tag:http-efi-arm64,http://172.28.0.1:8800/ipxe/bin-arm64-efi/snp.efi",
        "dhcp-boot=tag:ipxe,boot.ipxe",
    ] == lines(lab())


@needs_dnsmasq
def test_where_another_server_points_here_it_speaks_tftp_and_no_dhcp(tmp_path):
    text = dnsmasq.configuration(lab(dhcp_range=None), tftp_only=True)

    assert accepted(text, tmp_path)
    assert "tftp-root=/tftpboot" in text.splitlines()
    assert "dhcp-" not in text
    assert "pxe-" not in text


def test_router_and_dns_are_named_where_the_operator_names_them():
    found = lines(lab(router="172.28.0.254", dns="172.28.0.253"))

    assert "dhcp-option=option:router,172.28.0.254" in found
    assert "dhcp-option=option:dns-server,172.28.0.253" in found


def test_without_a_range_it_answers_known_boxes_only_and_gives_no_addresses():
    found = lines(lab(dhcp_range=None))

    assert "dhcp-range=172.28.0.0,proxy" in found
    assert "dhcp-ignore=tag:!known" in found
    assert "dhcp-authoritative" not in found
    assert "dhcp-option=encap:175,176,1b" not in found
    assert "pxe-service=tag:!ipxe,BC_EFI,appliance,ipxe/bin-x86_64-efi/snp.efi" in found
    assert "dhcp-boot=tag:ipxe,boot.ipxe,,172.28.0.1" in found
    assert not any("http://" in line for line in found)


def test_without_an_address_nothing_is_offered_by_http():
    assert not any("http" in line for line in lines(lab(address="")))


HOSTILE = ("lab0\ndhcp-script=/tmp/x", "lab0,lo", 'la"b', "lab 0", "lab0\r", "lab0\x00", "läb0")


def test_a_netmask_that_is_none_is_blamed_where_it_stands():
    segment = Segment(
        netmask="255.0.255.0", dhcp_range=("172.29.0.10", "172.29.0.99"), router="172.29.0.1"
    )
    bad = lab(more={"lab2": segment})
    with pytest.raises(BadConfig, match=r"^network\.more\.lab2\.netmask = '255\.0\.255\.0'"):
        dnsmasq.configuration(bad)


@pytest.mark.parametrize("word", HOSTILE)
@pytest.mark.parametrize("key", ["interface", "address", "netmask", "router", "dns"])
def test_no_word_of_the_network_can_leave_its_place(key, word):
    for dhcp_range in (("172.28.0.10", "172.28.0.20"), None):
        if key in ("router", "dns") and dhcp_range is None:
            continue  # another server's business
        with pytest.raises(BadConfig, match=f"network.{key}"):
            dnsmasq.configuration(lab(**{"dhcp_range": dhcp_range, key: word}))


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("word", [*HOSTILE, "172.28.0.1,172.28.0.2", "::1", ""])
def test_no_end_of_the_range_can_leave_its_place(end, word):
    ends = ["172.28.0.10", "172.28.0.20"]
    ends[end] = word

    with pytest.raises(BadConfig, match=r"network\.dhcp_range"):
        dnsmasq.configuration(lab(dhcp_range=tuple(ends)))


@pytest.mark.parametrize("path", ["/srv/a\nport=53", "/srv/a,b", "/srv/a b", '/srv/"a', "/srv/#a"])
@pytest.mark.parametrize("key", ["state", "run", "tftp"])
def test_no_path_can_leave_its_line(key, path):
    config = attrs.evolve(lab(), paths=Paths(**{key: Path(path)}))

    with pytest.raises(BadConfig, match=f"paths.{key}"):
        dnsmasq.configuration(config)


def test_a_range_that_runs_backwards_is_refused():
    with pytest.raises(BadConfig, match=r"172\.28\.0\.20 lies after 172\.28\.0\.10"):
        dnsmasq.configuration(lab(dhcp_range=("172.28.0.20", "172.28.0.10")))


@pytest.mark.parametrize("missing", ["interface", "address"])
def test_what_it_cannot_do_without_is_named(missing):
    with pytest.raises(BadConfig, match=f"network.{missing}"):
        dnsmasq.configuration(lab(dhcp_range=None, **{missing: ""}))


def test_a_known_testbox_keeps_its_address_for_ever():
    assert "52:54:00:00:00:01,52:54:00:00:00:02,box-1,infinite\n" == dnsmasq.host_entry(
        "box-1", ["52-54-00-00-00-01", "52:54:00:00:00:02"]
    )


@pytest.mark.parametrize("name", ["under_score", "dotted.name", "-dash", "x" * 64, "a,infinite\nb"])
def test_a_name_that_dhcp_cannot_carry_is_left_out(name):
    assert "52:54:00:00:00:01,infinite\n" == dnsmasq.host_entry(name, ["52:54:00:00:00:01"])


@pytest.mark.parametrize(
    "mac", ["52:54:00:00:00", "52:54:00:00:00:01\n", "*:*:*:*:*:*", "", "id:*"]
)
def test_only_macs_become_an_entry(mac):
    with pytest.raises(BadRequest):
        dnsmasq.host_entry("box-1", [mac])
    with pytest.raises(BadRequest):
        dnsmasq.host_entry("box-1", [])


def test_the_first_script_never_leaves_its_loop():
    script = dnsmasq.first_script(TEMPLATE.read_text(), "172.28.0.1", 3000)
    commands = [line for line in script.splitlines() if line and not line.startswith("#")]

    assert "#!ipxe" == script.splitlines()[0]
    assert ["set scheduler 172.28.0.1", "set port 3000"] == commands[:2]
    loop = commands[commands.index(":retry") :]
    assert [":retry", "imgfree"] == loop[:2]
    assert loop[2].startswith("chain http://${scheduler}:${port}/boot.ipxe/mac/${mac:hexhyp}?")
    assert loop[2].endswith(" || goto failed")
    assert ["goto failed", ":failed", "imgfree"] == loop[3:6]
    assert ["sleep 5", "goto retry"] == loop[-2:]
    assert not {"exit", "reboot", "sanboot", "shell"} & {line.split()[0] for line in commands}


def test_the_script_that_ipxe_finds_by_itself_asks_dhcp_first_and_never_ends_either():
    script = dnsmasq.first_script((TFTPBOOT / "autoexec.ipxe").read_text(), "172.28.0.1", 3000)
    commands = [line for line in script.splitlines() if line and not line.startswith("#")]

    assert [
        ":retry",
        "dhcp || goto failed",
        "chain tftp://172.28.0.1/boot.ipxe || goto failed",
        "goto failed",
        ":failed",
    ] == commands[:5]
    assert ["sleep 5", "goto retry"] == commands[-2:]


def test_what_a_box_says_of_itself_is_encoded():
    script = dnsmasq.first_script(TEMPLATE.read_text(), "172.28.0.1", 3000)

    for word in ("arch", "serial", "product"):
        assert f"{word}=${{{word}:uristring}}" in script
    assert "uuid=${uuid}" in script


def test_without_an_address_the_scheduler_is_whoever_answered_dhcp():
    assert "set scheduler ${next-server}\n" in dnsmasq.first_script(TEMPLATE.read_text(), "", 3000)


@pytest.mark.parametrize("host", ["a b", "a\nshell", "${x}", "a/b", "a:80"])
def test_only_a_host_name_or_address_becomes_the_scheduler(host):
    with pytest.raises(BadConfig, match=r"network\.address"):
        dnsmasq.first_script(TEMPLATE.read_text(), host, 3000)
