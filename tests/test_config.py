"""What the operator may write, and what a mistake is told."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from appliance import config, toml_text
from appliance.config import Config, Network
from appliance.errors import BadConfig
from appliance.jobs.documents.document import ARCHS, OS_MOUNTS
from appliance.scheduler import accounts
from appliance.toml_lines import lines_of


def refused(text):
    with pytest.raises(BadConfig) as caught:
        config.parse(text, "a.toml")
    return str(caught.value)


def test_nothing_written_is_the_whole_default():
    assert Config() == config.parse("", "a.toml")


def test_every_kind_of_value_is_taken():
    found = config.parse(
        'lab = "north"\n'
        '[network]\naddress = "10.0.0.1"\ndhcp_range = ["10.0.0.10", "10.0.0.99"]\n'
        "check_neighbour = false\n"
        "[ports]\nscheduler = 3999\n"
        '[paths]\nsrv = "/data"\n'
        "[waits]\npark = 60\ndrip = 0.5\n",
        "a.toml",
    )

    assert (
        Config(
            lab="north",
            network=Network(
                address="10.0.0.1", dhcp_range=("10.0.0.10", "10.0.0.99"), check_neighbour=False
            ),
            ports=attrs.evolve(Config().ports, scheduler=3999),
            paths=attrs.evolve(Config().paths, srv=Path("/data")),
            waits=attrs.evolve(Config().waits, park=60.0, drip=0.5),
        )
        == found
    )
    assert isinstance(found.waits.park, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labb = 'x'", "unknown key labb; did you mean lab?"),
        ("[wait]\npark = 1", "unknown key wait; did you mean waits?"),
        ("[waits]\nparked = 1", "unknown key waits.parked; did you mean waits.park?"),
        ("[ports]\nzzz = 1", "unknown key ports.zzz; known: cifs, "),
        ("lab = 5", "lab = 5 should be a string"),
        ("ports = 5", "ports is a table: write it as [ports]"),
        ("[ports]\nscheduler = '3000'", "ports.scheduler = '3000' should be a whole number"),
        ("[ports]\nscheduler = 3000.0", "ports.scheduler = 3000.0 should be a whole number"),
        ("[ports]\nscheduler = true", "ports.scheduler = True should be a whole number"),
        ("[ports]\nscheduler = 0", "ports.scheduler = 0 must be more than 0"),
        ("[waits]\npark = -1", "waits.park = -1 must be more than 0 (seconds)"),
        ("[waits]\npark = nan", "waits.park = nan must be more than 0 (seconds)"),
        ("[waits]\npark = '1h'", "waits.park = '1h' should be seconds"),
        ("[paths]\nsrv = 'data'", "paths.srv = 'data' should be an absolute path"),
        ("[network]\ncheck_neighbour = 1", "network.check_neighbour = 1 should be true or false"),
        ("[network]\ndhcp_range = ['10.0.0.1']", "should be a list of two strings"),
        ("[network]\ndhcp_range = [1, 2]", "should be a list of two strings"),
        ("[network]\nproviders = '10.0.0.1'", "should be a list of strings"),
        ("[network]\nproviders = ['10.0.0.1', 'rack']", "'rack' must be an address, better with"),
        ("[network]\nproviders = ['10.0.0.1 52:54']", 'as in "10.0.0.9 52:54:00:00:00:09"'),
        ("[network]\nproviders = ['']", "providers: '' must be"),
        ("[network]\nproviders = ['52:54:00:00:00:01']", "'52:54:00:00:00:01' must be"),
        ("[network", "a.toml:1: Expected "),
        ("lab = 'a'\nlab = 'b'", "a.toml:2: Cannot overwrite a value"),
    ],
)
def test_a_mistake_names_the_file_the_key_and_what_would_be_right(text, message):
    found = refused(text)

    assert found.startswith("a.toml:")
    assert message in found


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "a\\nb", "-x", ".x", "ä", "x" * 41])
def test_a_lab_whose_jobs_no_box_could_fetch_is_refused(name):
    assert "lab" in refused(f'lab = "{name}"')


def test_a_port_that_no_machine_has_is_refused():
    assert 65535 == config.parse("[ports]\nos = 65535", "a.toml").ports.os
    assert "ports.os = 65536 must be at most 65535" in refused("[ports]\nos = 65536")


def test_a_job_without_arch_or_mount_cannot_be_given_one_there_is_not():
    for arch in ARCHS:
        assert arch == config.parse(f"[defaults]\narch = '{arch}'", "a.toml").defaults.arch
    for mount in OS_MOUNTS:
        assert mount == config.parse(f"[defaults]\nos_mount = '{mount}'", "f").defaults.os_mount

    assert "defaults.arch" in refused("[defaults]\narch = 'riscv64'")
    assert "defaults.os_mount" in refused("[defaults]\nos_mount = 'smb'")


@pytest.mark.parametrize("key", ["os", "os_version", "queue"])
@pytest.mark.parametrize("word", ["", "../x", "a b", "a/b", "-x", "ä"])
def test_a_default_that_no_document_could_say_is_refused(key, word):
    assert f"defaults.{key}" in refused(f'[defaults]\n{key} = "{word}"')


def test_two_doors_on_one_port_are_refused():
    said = refused("[ports]\nscheduler = 8000")

    assert "ports.scheduler and ports.os are both 8000" in said


@pytest.mark.parametrize("address", ["", "10.0.0.1", "lab.example", "[fe80::1]"])
def test_an_address_may_be_any_that_an_url_can_hold(address):
    parsed = config.parse(f"[network]\naddress = '{address}'", "a.toml")

    assert address == parsed.network.address


BREAKS_OUT = ["10.0.0.1 x", "${x}", "a/b", "a\\nb", "10.0.0.1:80", "fe80::1", "[x]"]


@pytest.mark.parametrize("address", BREAKS_OUT)
def test_an_address_that_would_break_out_of_a_boot_script_is_refused(address):
    assert "network.address" in refused(f'[network]\naddress = "{address}"')


@pytest.mark.parametrize("word", ["inf", "-inf"])
def test_no_wait_is_for_ever(word):
    assert "waits.drip" in refused(f"[waits]\ndrip = {word}")


def test_a_file_is_found_by_argument_then_by_environment_then_in_its_place(tmp_path, monkeypatch):
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text(f'lab = "{name}"\n')
    monkeypatch.delenv("APPLIANCE_CONFIG", raising=False)
    monkeypatch.setattr(config, "CONFIG_FILE", tmp_path / "three")
    assert "three" == config.load().lab
    monkeypatch.setenv("APPLIANCE_CONFIG", str(tmp_path / "two"))
    assert "two" == config.load().lab
    assert "one" == config.load(tmp_path / "one").lab


def test_only_a_file_that_somebody_named_must_be_there(tmp_path, monkeypatch):
    monkeypatch.delenv("APPLIANCE_CONFIG", raising=False)
    monkeypatch.setattr(config, "CONFIG_FILE", tmp_path / "none")
    assert Config() == config.load()
    with pytest.raises(BadConfig, match="none: no such file"):
        config.load(tmp_path / "none")
    monkeypatch.setenv("APPLIANCE_CONFIG", str(tmp_path / "none"))
    with pytest.raises(BadConfig, match="none: no such file"):
        config.load()


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin").write_bytes(b"lab = '\xe4'")
    for path in (tmp_path, tmp_path / "latin"):
        with pytest.raises(BadConfig, match=str(path)):
            config.load(path)


def test_the_places_that_follow_from_others():
    paths = config.parse('[paths]\nrun = "/r"\nstate = "/s"', "a.toml").paths

    assert (Path("/r/control.sock"), Path("/s/dhcp-hosts")) == (
        paths.control_socket,
        paths.dhcp_hosts,
    )


def test_providers_are_any_number_of_addresses_and_networks():
    for written in (
        [],
        ["10.0.0.1"],
        ["10.0.0.1 52:54:00:00:00:01 52-54-00-00-00-02"],
        ["10.0.0.1/24", "fe80::1", "10.1.0.0/16"],
    ):
        parsed = config.parse(f"[network]\nproviders = {written}", "a.toml")

        assert tuple(written) == parsed.network.providers


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("# a\n\nlabb = 'x'", 3, "unknown key labb; did you mean lab?"),
        ("[waits]\npark = 1\n\nparked = 2", 4, "unknown key waits.parked"),
        ("lab = 'x'\n[network]\n\n[wait]\npark = 1", 4, "unknown key wait;"),
        ("network.adress = '10.0.0.1'", 1, "did you mean network.address?"),
        ("lab = 'x'\nnetwork . 'adress' = '10.0.0.1'", 2, "did you mean network.address?"),
        ("ports = { os = 8000,\n}" if False else "ports = { os = 8000, oss = 1 }", 1, "ports.oss"),
        ("[ports]\nos = 1\ninitrd = 'a'", 3, "ports.initrd = 'a' should be a whole number"),
        ("[ports]\nos = 1\n[ports.os2]\n", 3, "unknown key ports.os2; did you mean ports.os?"),
        (
            "[network]\ndhcp_range = [\n  '10.0.0.1', # a ] b\n '10.0.0.2']\nlisten = 1",
            5,
            "network.listen",
        ),
        ('lab = """x\n[waits]\ny"""\n[waits]\nparkk = 1', 5, "waits.parkk"),
        ("[accounts.ann]\nmy_name='a'\n[accounts.bob]\nmy_nam='b'", 4, "accounts.bob.my_nam;"),
        (
            "[accounts]\nann = { my_email = 'a@b', my_tokn = 'x' }",
            2,
            "did you mean accounts.ann.my_",
        ),
        ("\n[accounts.root]\n", 2, "root may do what no account may"),
        ("\ninterface = 'eth0'", 2, "unknown key interface; did you mean network.interface?"),
        ("[ports]\nos = 9\ninitrd = 9", 3, "each door needs its own"),
        ("lab = 'a b'", 1, "lab = 'a b' must be one word"),
        ("[network]\nlisten = 'x'\nproviders = ['rack']", 3, "network.providers"),
        ("[defaults]\nos = 'debian'\narch = 'vax'", 3, "defaults.arch = 'vax' must be one of"),
    ],
)
def test_a_mistake_is_told_with_its_line(text, line, said):
    found = refused(text)

    assert found.startswith(f"a.toml:{line}: ")
    assert said in found


@pytest.mark.parametrize(
    "value", ["[" * 9999, "{a=" * 999 + "1", "9" * 5000], ids=["lists", "tables", "digits"]
)
def test_what_no_parser_comes_back_from_is_no_configuration(value):
    with pytest.raises(BadConfig, match="no TOML that can be read"):
        config.parse(f"lab = {value}", "appliance.toml")


@pytest.mark.parametrize(
    "key",
    [
        ".".join(["a"] * 20_000),
        " . ".join(["'a'", '"b"'] * 11),
        "[" + ".".join(["a-b"] * 21) + "]\nx",
        "x = {" + ".".join(["a"] * 21),
    ],
    ids=["plain", "quoted", "table", "inline"],
)
def test_a_key_of_many_parts_is_refused_before_it_costs_their_square(key):
    assert "a.toml:2: a key of more than 20 parts" == refused(f"lab = 'lab'\n{key} = 1\n")


def test_a_comment_with_dots_and_a_long_number_are_no_key():
    text = f"# {'.' * 200}\n# 1.2.3.4 and so on{'...' * 30}\nlab = 'lab'  # {'a' * 300}.b\n"

    assert Config() == config.parse(text, "a.toml")


def test_a_file_that_no_lab_needs_is_refused_unread(tmp_path):
    assert "larger than 1048576 characters" in refused(" " * (2**20 + 1))
    path = tmp_path / "a.toml"
    with path.open("wb") as sparse:
        sparse.truncate(2**40)  # a terabyte of holes
    with pytest.raises(BadConfig, match="larger than 1048576"):
        config.load(path)


def test_a_long_value_is_not_told_to_its_end():
    words = ", ".join(["'x'"] * 10_000)

    assert len(refused(f"lab = [{words}]")) < 300


def test_the_lines_are_looked_for_once_however_many_accounts_there_are(monkeypatch):
    looked = []
    monkeypatch.setattr(toml_text, "lines_of", lambda text: looked.append(text) or lines_of(text))
    account = f'my_email = "a@b.c"\nmy_name = "a"\nmy_token = "{accounts.hashed("x")}"\n'
    text = "".join(f"[accounts.u{n}]\n{account}" for n in range(50))

    assert 50 == len(config.parse(text, "a.toml").accounts)
    assert 1 == len(looked)
