"""snippets: what can be seen without the other server; tests/test_dhcp.py runs two of them."""

import pytest
from click.testing import CliRunner

from appliance.boot.daemons import snippets
from appliance.cli import group
from appliance.config import Config, Network
from appliance.errors import BadConfig, BadRequest

LAB = Config(network=Network(address="172.28.0.1"))
MACS = ["52:54:00:12:34:56", "52:54:00:12:34:57"]


def test_the_command_names_the_boxes_of_the_hosts_files_and_what_it_leaves_out(tmp_path):
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts/rack-7.yaml").write_text(f"mac: {MACS[0]}\n")
    (tmp_path / "hosts/rack-8.yaml").write_text("mac: [\n")
    file = tmp_path / "appliance.toml"
    file.write_text(f'[network]\naddress = "172.28.0.1"\n[paths]\nhosts = "{tmp_path}/hosts"\n')

    done = CliRunner().invoke(group, ["--config", str(file), "dhcp-snippet", "isc"])

    assert (0, snippets.snippet("isc", LAB, MACS[:1])) == (done.exit_code, done.stdout)
    assert "left out: " in done.stderr
    assert "rack-8.yaml" in done.stderr


def test_windows_has_a_policy_for_each_kind_of_client_and_ipxes_is_the_first():
    lines = snippets.snippet("windows", LAB, MACS).splitlines()

    assert "Add-DhcpServerv4Class -Name 'appliance iPXE' -Type User -Data 'iPXE'" in lines
    assert "$boxes = @('EQ', '525400123456', '525400123457')" in lines
    assert [
        "iPXE' -ProcessingOrder 1 -Condition AND -UserClass @('EQ', 'appliance iPXE')",
        "bios' -ProcessingOrder 2 -Condition AND -VendorClass @('EQ', 'appliance bios 0*')",
        "efi-x86_64' -ProcessingOrder 3 -Condition AND"
        " -VendorClass @('EQ', 'appliance efi-x86_64 7*', 'appliance efi-x86_64 9*')",
        "http-efi-x86_64' -ProcessingOrder 4 -Condition AND"
        " -VendorClass @('EQ', 'appliance http-efi-x86_64 16*')",
        "efi-arm64' -ProcessingOrder 5 -Condition AND"
        " -VendorClass @('EQ', 'appliance efi-arm64 11*')",
        "http-efi-arm64' -ProcessingOrder 6 -Condition AND"
        " -VendorClass @('EQ', 'appliance http-efi-arm64 19*')",
    ] == [
        line.split(" -Name 'appliance ")[1].removesuffix(" -MacAddress $boxes")
        for line in lines
        if line.startswith("Add-DhcpServerv4Policy -ScopeId $scope ")
    ]
    set_value = "Set-DhcpServerv4OptionValue -ScopeId $scope -PolicyName 'appliance {}'"
    for name, option, value in (
        ("iPXE", 67, "boot.ipxe"),
        ("efi-arm64", 66, "172.28.0.1"),
        ("efi-arm64", 67, "ipxe/bin-arm64-efi/snp.efi"),
        ("http-efi-arm64", 60, "HTTPClient"),
        ("http-efi-arm64", 67, "http://172.28.0.1:8800/ipxe/bin-arm64-efi/snp.efi"),
    ):
        assert f"{set_value.format(name)} -OptionId {option} -Value '{value}'" in lines


def test_a_class_of_windows_matches_what_firmware_says():
    text = snippets.snippet("windows", LAB, MACS)

    for data in ("PXEClient:Arch:00000", "PXEClient:Arch:00011", "HTTPClient:Arch:00016"):
        assert f" -Type Vendor -Data '{data}'\n" in text


@pytest.mark.parametrize("kind", snippets.KINDS)
def test_only_the_testboxes_are_named_unless_every_machine_is_meant(kind):
    named, everybody = (snippets.snippet(kind, LAB, macs) for macs in (MACS, None))

    assert "525400123456" in named.replace(":", "")
    assert "525400" not in everybody.replace(":", "")


@pytest.mark.parametrize("kind", snippets.KINDS)
@pytest.mark.parametrize("address", ["", "lab.example", "::1"])
def test_a_server_without_an_ipv4_address_cannot_be_pointed_at(kind, address):
    with pytest.raises(BadConfig, match=r"network\.address must say"):
        snippets.snippet(kind, Config(network=Network(address=address)), MACS)


@pytest.mark.parametrize("kind", snippets.KINDS)
def test_without_testboxes_it_says_how_to_have_some(kind):
    with pytest.raises(BadConfig, match="`appliance host add`, or say --all"):
        snippets.snippet(kind, LAB, [])


@pytest.mark.parametrize("kind", snippets.KINDS)
def test_only_macs_reach_another_servers_grammar(kind):
    with pytest.raises(BadRequest):
        snippets.snippet(kind, LAB, ["52:54:00:12:34:56; }"])
