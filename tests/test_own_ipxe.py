"""boot/daemons/own_ipxe: one testbox gets another iPXE, and a real dnsmasq hands it out."""

import os
import shutil
import subprocess

import pytest
import trio

from appliance import run
from appliance.boot.daemons import dnsmasq, own_ipxe, tftp
from appliance.config import Config, Network, Paths
from appliance.errors import BadRequest
from appliance.jobs import box as boxes
from appliance.scheduler import hosts_files
from lab.namespace import BRIDGE, SERVER, namespace
from tests.lab import open_lab
from tests.machines import machine

MAC = "52:54:00:12:34:56"
OTHER = "52:54:00:12:34:57"
NAME = "ipxe/bin-x86_64-efi/snp.efi"


@pytest.fixture
def config(open_path):
    """A tftp root with what Debian's package has, and a build that somebody put beside it."""
    package = open_path / "package"
    package.mkdir()
    for name in ("undionly.kpxe", "snponly.efi"):
        (package / name).write_text(name)
    made = Config(
        network=Network(
            interface=BRIDGE, address=SERVER, dhcp_range=("172.28.0.10", "172.28.0.20")
        ),
        paths=Paths(
            tftp=open_path / "root",
            state=open_path / "state",
            run=open_path / "run",
            hosts=open_path / "hosts",
        ),
    )
    for path in (made.paths.dhcp_hosts, made.paths.run):
        path.mkdir(parents=True)
    tftp.lay_out(made, [package])
    (made.paths.tftp / "ipxe/mine.efi").write_text("mine")
    return made


def facts(**fields) -> boxes.Facts:
    return boxes.facts("rack-7", {"mac": [MAC, OTHER], **fields}, "default")


def behind(config: Config, mac: str, name: str) -> str:
    return (config.paths.tftp / mac.replace(":", "-") / name).read_text()


def test_a_box_finds_its_own_build_under_each_firmwares_name_by_each_of_its_cards(config):
    hosts_files.announce(config.paths, facts(ipxe="mine.efi"))

    for mac in (MAC, OTHER):
        for firmware in dnsmasq.FIRMWARES:
            assert "mine" == behind(config, mac, firmware.file)
        for script in dnsmasq.SCRIPTS:
            assert (config.paths.tftp / script).read_text() == behind(config, mac, script)
    assert "snponly.efi" == (config.paths.tftp / NAME).read_text()


def test_a_build_is_named_by_its_path_too(config, open_path):
    (open_path / "elsewhere.efi").write_text("elsewhere")

    hosts_files.announce(config.paths, facts(ipxe=str(open_path / "elsewhere.efi")))

    assert "elsewhere" == behind(config, MAC, NAME)


def test_a_card_that_is_the_boxs_no_longer_gets_what_all_get(config):
    hosts_files.announce(config.paths, facts(ipxe="mine.efi"))
    hosts_files.announce(config.paths, facts(ipxe="mine.efi", mac=[OTHER]))

    assert not (config.paths.tftp / MAC.replace(":", "-")).exists()
    assert "mine" == behind(config, OTHER, NAME)


@pytest.mark.parametrize("end", ["no longer said", "forgotten", "gone"])
def test_without_a_build_of_its_own_nothing_stays(config, end):
    before = sorted(config.paths.tftp.iterdir())
    hosts_files.announce(config.paths, facts(ipxe="mine.efi"))
    if end == "no longer said":
        hosts_files.announce(config.paths, facts())
    elif end == "forgotten":
        hosts_files.forget(config.paths, "rack-7")
    else:
        (config.paths.tftp / "ipxe/mine.efi").unlink()
        hosts_files.announce(config.paths, facts(ipxe="mine.efi"))

    assert sorted([*before, config.paths.tftp / "hosts"]) == sorted(config.paths.tftp.iterdir())
    assert [] == list(own_ipxe.given(config.paths.tftp))


def test_one_box_of_its_own_does_not_touch_anothers(config):
    other = boxes.facts("rack-8", {"mac": "52:54:00:12:34:99", "ipxe": "mine.efi"}, "default")
    hosts_files.announce(config.paths, other)
    hosts_files.announce(config.paths, facts(ipxe="mine.efi"))
    hosts_files.forget(config.paths, "rack-7")

    assert "mine" == behind(config, other.macs[0], NAME)
    assert ["rack-8"] == list(own_ipxe.given(config.paths.tftp))


def test_a_file_that_is_not_there_is_named_with_what_would_be_right(config):
    root = config.paths.tftp

    with pytest.raises(BadRequest) as caught:
        own_ipxe.find(root, "rack-7", "none.efi")

    assert (
        f"rack-7: ipxe: {root}/ipxe/none.efi: No such file or directory;"
        f" name a file that all may read, by its path or below {root}/ipxe"
    ) == str(caught.value)


@pytest.mark.parametrize("spoilt", ["folder", "empty"])
def test_what_is_no_ipxe_is_refused(config, spoilt):
    path = config.paths.tftp / "ipxe/spoilt"
    path.mkdir() if spoilt == "folder" else path.touch()

    with pytest.raises(BadRequest, match="is no file with an iPXE in it; name a file"):
        own_ipxe.find(config.paths.tftp, "rack-7", "spoilt")


@pytest.mark.parametrize("closed", ["shut/mine.efi", "shut"])
def test_a_file_that_dnsmasq_could_not_read_is_refused(config, open_path, closed):
    (open_path / "shut").mkdir()
    (open_path / "shut/mine.efi").write_text("mine")
    (open_path / closed).chmod(0o700 if closed == "shut" else 0o600)

    with pytest.raises(BadRequest, match=f"others may not: {open_path}/{closed}$"):
        own_ipxe.find(config.paths.tftp, "rack-7", f"{open_path}/shut/mine.efi")


@pytest.mark.parametrize("value", [7, ["a.efi"], "a\nb", {"efi": "x"}])
def test_a_hosts_file_names_one_file(value):
    with pytest.raises(BadRequest, match=r"rack-7: ipxe: .* must be the name of a file"):
        facts(ipxe=value)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
@pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq-base is not installed")
async def test_a_running_dnsmasq_gives_it_to_that_box_alone(config, open_path):
    """Without a restart, while others get what they got before."""
    (open_path / "conf").write_text(dnsmasq.configuration(config))
    got, script = {}, (config.paths.tftp / "boot.ipxe").read_text()

    with trio.fail_after(60):
        async with namespace(0) as inside:

            async def fetch(card: str, mac: str, address: str, name: str = NAME) -> str:
                url = f"tftp://{SERVER}/" + name.replace("/", "%2F")
                curl = await inside.start(
                    machine(card, mac, f"{address}/24", ["curl", "-s", "--max-time", "10", url]),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
                return b"".join([bytes(chunk) async for chunk in curl.stdout]).decode()

            await inside.start(
                ["dnsmasq", f"--conf-file={open_path}/conf", "--keep-in-foreground"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            while not inside.listening(69):  # noqa: ASYNC110
                await trio.sleep(0.02)
            got["before"] = await fetch("card-a", MAC, "172.28.0.101")
            hosts_files.announce(config.paths, facts(ipxe="mine.efi"))
            got["it"] = await fetch("card-b", MAC, "172.28.0.102")
            got["its script"] = await fetch("card-c", MAC, "172.28.0.103", "boot.ipxe")
            got["another"] = await fetch("card-d", "52:54:00:12:34:99", "172.28.0.104")
            hosts_files.announce(config.paths, facts())
            got["after"] = await fetch("card-e", MAC, "172.28.0.105")

    assert {
        "before": "snponly.efi",
        "it": "mine",
        "its script": script,
        "another": "snponly.efi",
        "after": "snponly.efi",
    } == got


async def test_a_start_gives_what_the_hosts_files_name_and_takes_away_what_none_does(config):
    """While it did not run, one file was written by hand and another went."""
    gone = boxes.facts("rack-8", {"mac": "52:54:00:12:34:99", "ipxe": "mine.efi"}, "default")
    hosts_files.announce(config.paths, gone)
    hosts_files.put(config.paths.hosts, "rack-7", {"mac": [MAC], "ipxe": "mine.efi"})
    async with open_lab(config) as lab:  # files are read in a thread: real time
        await run._learn_hosts(lab.scheduler)

    assert "mine" == behind(config, MAC, NAME)
    assert ["rack-7"] == list(own_ipxe.given(config.paths.tftp))
