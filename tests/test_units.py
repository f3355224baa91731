"""systemd/: the units are accepted, closed in, and fit the configuration."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance import names
from appliance.config import Config, Paths
from appliance.install import units
from appliance.web import listen

UNITS = Path(__file__).parents[1] / "systemd"
EXPOSURE_MAX = 2.0  # of 10; a service without any of this has 9.6
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))


def values(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)


def test_every_unit_is_accepted_by_systemd(tmp_path):
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/bin/appliance", shutil.which("true"))
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
    )

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_closed_in(service):
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / service)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    level = float(re.search(r"exposure level for \S+: ([0-9.]+)", said)[1])

    # smbd and ganesha act for every owner of a file, and so keep the capabilities for that.
    assert level <= {"appliance.service": EXPOSURE_MAX}.get(service, 3.5)


def test_the_server_has_no_capability_and_is_not_root():
    assert [""] == values("appliance.service", "CapabilityBoundingSet")
    assert ["appliance"] == values("appliance.service", "User")
    assert ["strict"] == values("appliance.service", "ProtectSystem")


def test_the_sockets_are_those_of_a_configuration_that_names_none():
    config = Config()
    doors = [f"{config.network.listen}:{port}" for port in listen.ports_of(config)]

    assert doors == values("appliance.socket", "ListenStream")
    assert [str(listen.BACKLOG)] == values("appliance.socket", "Backlog")
    control_socket = str(config.paths.control_socket)
    assert [control_socket] == values("appliance-control.socket", "ListenStream")
    assert [names.GROUP] == values("appliance-control.socket", "SocketGroup")


def test_the_target_starts_every_service_and_a_stop_of_it_stops_them():
    wanted = " ".join(values("appliance.target", "Wants")).split()

    assert {unit.name for unit in UNITS.iterdir()} == {*wanted, "appliance.target"}
    assert {unit: ["appliance.target"] for unit in wanted} == {
        unit: values(unit, "PartOf") for unit in wanted
    }


def test_the_server_may_take_as_long_to_stop_as_its_configuration_lets_it():
    (stop_s,) = values("appliance.service", "TimeoutStopSec")

    assert Config().waits.shutdown_transfers + 60 <= float(stop_s)


def test_the_server_may_write_where_its_paths_are():
    usual, moved = Config(), Config(paths=Paths(tftp=Path("/boot-files")))
    (written,) = values("appliance.service", "ReadWritePaths")
    made = units.drop_ins(moved, ())["appliance.service.d/paths.conf"]

    for path in (usual.paths.hosts, usual.paths.tftp, usual.paths.srv / "result"):
        assert f"-{path}" in written.split()
    assert " -/boot-files\n" in made
    assert {} == units.drop_ins(usual, ())
