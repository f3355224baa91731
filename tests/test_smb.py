"""boot/daemons/smb: the configuration against Samba's own checker, and a real smbd that uses it."""

import os
import shutil
import subprocess
from pathlib import Path

import attrs
import pytest
import trio
from click.testing import CliRunner

from appliance.boot.daemons import smb
from appliance.cli import group
from appliance.config import Config, Network, Paths, Ports
from appliance.errors import BadConfig
from lab.lab import toml
from lab.namespace import BRIDGE, SERVER, namespace

SBIN = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
TESTPARM = shutil.which("testparm", path=SBIN)
PORT = 4450


def lab(directory: Path) -> Config:
    return Config(
        network=Network(interface=BRIDGE, address=SERVER),
        ports=Ports(cifs=PORT),
        paths=Paths(srv=directory / "srv", state=directory / "state", run=directory / "run"),
    )


def checked(text: str, directory: Path) -> subprocess.CompletedProcess[str]:
    file = directory / "smb.conf"
    file.write_text(text)
    return subprocess.run(
        [TESTPARM, "-s", file], capture_output=True, text=True, check=False, timeout=30
    )


needs_testparm = pytest.mark.skipif(TESTPARM is None, reason="samba is not installed")


@needs_testparm
def test_samba_itself_accepts_it_without_a_complaint(tmp_path):
    config = lab(tmp_path)
    for directory in smb.directories(config):
        directory.mkdir(parents=True, exist_ok=True)

    done = checked(smb.configuration(config), tmp_path)

    assert 0 == done.returncode
    assert "Loaded services file OK." in done.stderr
    for word in ("ERROR", "WARNING", "Unknown", "Ignoring"):
        assert word not in done.stderr, done.stderr


@needs_testparm
def test_no_box_is_asked_before_another_one_reads(tmp_path):
    """One that has lost power would not answer, and the other would wait for each file."""
    said = checked(smb.configuration(lab(tmp_path)), tmp_path).stdout

    share = said[said.index("[os]") :]
    for words in ("fake oplocks = Yes", "oplocks = No", "level2 oplocks = No"):
        assert f"\t{words}\n" in share, said


@needs_testparm
def test_the_checker_can_complain(tmp_path):
    text = smb.configuration(lab(tmp_path)).replace("wide links", "wyde links")

    assert "Unknown parameter" in checked(text, tmp_path).stderr


def test_nothing_is_shared_with_the_machines_samba(tmp_path):
    text = smb.configuration(lab(tmp_path))

    places = [line.split(" = ")[1] for line in text.splitlines() if " = /" in line]
    assert 9 == len(places)
    assert all(place.startswith(str(tmp_path)) for place in places if place != "/dev/null")
    assert f"smb ports = {PORT}\n" in text
    assert f"interfaces = {BRIDGE}\n" in text
    assert "bind interfaces only = yes\n" in text


@pytest.mark.parametrize("path", ["/srv/a\n[all]\npath = /", "/srv/%U", '/srv/"a', "/srv/a\\"])
@pytest.mark.parametrize("key", ["run", "srv"])
def test_no_path_can_leave_its_line(key, path):
    config = Config(network=Network(interface="lab0"), paths=Paths(**{key: Path(path)}))

    with pytest.raises(BadConfig, match="paths"):
        smb.configuration(config)


@pytest.mark.parametrize("name", ["", "lab0\n[all]", "lab 0", "lab0,lo", "lab0\x00"])
def test_only_an_interface_becomes_the_interface(tmp_path, name):
    config = attrs.evolve(lab(tmp_path), network=Network(interface=name))

    with pytest.raises(BadConfig, match=r"network\.interface"):
        smb.configuration(config)


@pytest.mark.parametrize("options", [[], ["--directories"]])
def test_the_command_prints_it_and_makes_its_directories_when_asked(tmp_path, options):
    config = lab(tmp_path)
    file = tmp_path / "appliance.toml"
    file.write_text(toml(config))

    done = CliRunner().invoke(group, ["--config", str(file), "smb-config", *options])

    assert (0, smb.configuration(config)) == (done.exit_code, done.stdout)
    assert {bool(options)} == {path.is_dir() for path in smb.directories(config)}


class Smbd:
    """A private smbd over `os`, asked with smbclient as the seed's kernel line asks: NT1, guest."""

    def __init__(self, directory: Path, inside) -> None:
        self.directory = directory
        self.inside = inside

    async def start(self) -> None:
        config = lab(self.directory)
        for path in smb.directories(config):
            path.mkdir(parents=True, exist_ok=True)
        file = self.directory / "smb.conf"
        file.write_text(smb.configuration(config))
        await self.inside.start(
            ["smbd", "--foreground", "--no-process-group", f"--configfile={file}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not self.inside.listening(PORT):  # noqa: ASYNC110
            await trio.sleep(0.05)

    async def ask(self, command: str, *options: str) -> str:
        process = await self.inside.start(
            [
                *("smbclient", f"//{SERVER}/os", "-p", str(PORT), "-N", "-m", "NT1"),
                *("--option=client min protocol=NT1", *options, "-c", command),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said = b"".join([bytes(chunk) async for chunk in process.stdout])
        await process.wait()
        return said.decode()


@pytest.fixture
async def smbd(tmp_path):
    tree = tmp_path / "srv/os/root"
    tree.mkdir(parents=True)
    (tmp_path / "secret").write_text("the server's own")
    (tree / "shadow").write_text("only for root")
    (tree / "shadow").chmod(0o600)
    (tree / "sudo").write_text("setuid")
    (tree / "sudo").chmod(0o4755)
    (tree / "Name").write_text("upper")
    (tree / "name").write_text("lower")
    (tree / "inside").symlink_to("shadow")
    (tree / "absolute").symlink_to("/etc/passwd")
    (tree / "outside").symlink_to("../../../secret")
    tmp_path.chmod(0o755)
    with trio.fail_after(30):
        async with namespace(0) as inside:
            server = Smbd(tmp_path, inside)
            await server.start()
            yield server


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


@needs_root
@pytest.mark.root
async def test_a_guest_reads_a_rootfs_as_it_is_on_disk(smbd):
    said = await smbd.ask("posix; cd root; stat shadow; stat absolute; readlink absolute")

    assert "(0600/-rw-------)\tUid: 0\tGid: 0" in said, said
    assert "symbolic link" in said, said
    assert "/etc/passwd" in said, said


@needs_root
@pytest.mark.root
async def test_names_that_differ_in_case_are_two_files(smbd):
    assert (await smbd.ask("cd root; get Name -")).startswith("upper")
    assert (await smbd.ask("cd root; get name -")).startswith("lower")
    assert "NOT_FOUND" in await smbd.ask("cd root; get NAME -")


@needs_root
@pytest.mark.root
async def test_a_file_that_only_root_may_read_is_read(smbd):
    assert "only for root" in await smbd.ask("cd root; get shadow -")


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("link", ["absolute", "outside"])
async def test_the_server_follows_no_link_out_of_the_share(smbd, link):
    said = await smbd.ask(f"cd root; get {link} -")

    assert "ACCESS_DENIED" in said or "NOT_FOUND" in said, said
    assert "root:" not in said
    assert "the server's own" not in said


@needs_root
@pytest.mark.root
async def test_nothing_can_be_written(smbd):
    said = await smbd.ask(f"lcd {smbd.directory}; put secret written")

    assert "ACCESS_DENIED" in said, said
    assert not (smbd.directory / "srv/os/written").exists()
