"""install/install.py: which program may go on with which state, before anything is changed."""

import json

import attrs
import pytest

from appliance import build
from appliance.config import Config, Network, Paths
from appliance.errors import Refused
from appliance.install import debian, execute, install, server_facts, state_copies
from appliance.install.site import Places, Wish
from appliance.keep.state import versions

OLD, NEW = "1-old", "2-new"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A server with two programs: `previous` does not say which states it reads."""
    places = Places(tmp_path)
    both = ((OLD, {}, "setup/systemd"), (NEW, {"state": versions.VERSION}, "install/systemd"))
    for name, facts, units in both:
        inside = places.lib / "versions" / name / "_internal/appliance"
        (inside / units).mkdir(parents=True)
        (inside / build.FACTS).write_text(json.dumps(facts))
    places.current.symlink_to(f"versions/{NEW}")
    places.previous.symlink_to(f"versions/{OLD}")
    paths = Paths(state=tmp_path / "state", srv=tmp_path / "srv", tftp=tmp_path / "tftp")
    config = Config(network=Network(interface="lab0", address="172.28.0.1"), paths=paths)

    def unexpected(*args, **kwargs):
        raise AssertionError("something was done")

    monkeypatch.setattr(install, "PLACES", places)
    monkeypatch.setattr(install, "_check_machine", lambda: None)
    monkeypatch.setattr(install.configs, "load", lambda: config)
    monkeypatch.setattr(debian, "installed", lambda names: set(names))
    monkeypatch.setattr(server_facts, "active", lambda names: set(names))
    monkeypatch.setattr(execute, "carry_out", unexpected)
    return places


def a_state(folder, version):
    folder.mkdir()
    (folder / "journal-000001").write_bytes(b"appliance journal %d\n" % version)


def no_pages(version):
    return {}


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_rollback_to_a_program_that_does_not_know_the_states_version_changes_nothing(
    places, tmp_path, dry_run
):
    a_state(tmp_path / "state", versions.VERSION)
    a_state(tmp_path / "state-before", 1)
    said = []
    with pytest.raises(Refused, match=r"nothing was changed:\n.*1-old reads none above 1.*--with-"):
        install.rollback(said.append, no_pages, state=False, dry_run=dry_run)
    assert [] == said

    install.rollback(said.append, no_pages, state=True, dry_run=True)
    assert any("state-after" in line for line in said)


def test_a_rollback_on_a_state_that_the_version_before_reads_is_done(places, tmp_path):
    a_state(tmp_path / "state", 1)
    said = []
    install.rollback(said.append, no_pages, state=False, dry_run=True)

    assert any("the version that runs" in line for line in said)


def test_an_install_of_a_program_that_does_not_know_the_states_version_is_refused(places, tmp_path):
    a_state(tmp_path / "state", versions.VERSION + 1)
    config = install.configs.load()
    program = install._program_in(places.lib / "versions" / NEW, no_pages)
    found = install._found(program, config)
    wish = Wish(config, "", ())

    assert (versions.VERSION + 1, 0, versions.VERSION) == (found.state, found.copy, found.reads)
    with pytest.raises(Refused, match="state: was written by a newer appliance: version 3"):
        install._check(wish, found, program)
    later = attrs.evolve(program, reads=versions.VERSION + 1)
    with pytest.raises(Refused) as refused:  # of what else is wrong on this machine
        install._check(wish, found, later)
    assert "newer appliance" not in str(refused.value)


def test_the_running_program_reads_what_it_writes(places, monkeypatch):
    inside = places.lib / "versions" / NEW / "_internal"
    monkeypatch.setattr(build, "unpacked", lambda: inside)

    assert versions.VERSION == install._program(no_pages).reads
    assert state_copies.copy_of(places.lib).name == "appliance-before"
