"""images/catalogue: what boots a name, what is said when it does not; nothing leaves srv."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.boot.images import catalogue, rootfs
from appliance.cli import group
from appliance.errors import BadImage

KERNEL = "6.1.0-9-amd64"


def put(file: Path, data: bytes = b"x") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def link(at: Path, target: str) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(target)


def snapshot(srv: Path, name: str = "12-2026-01-02-03-04-05", *kernels: str) -> Path:
    folder = srv / "os/debian/x86_64" / name
    for kernel in kernels or (KERNEL,):
        put(folder / f"boot/vmlinuz-{kernel}")
        put(folder / f"boot/modules-{kernel}.cgz")
    first = (kernels or (KERNEL,))[0]
    put(folder / f"boot/initramfs.lkp-{first}.img")
    link(folder / "boot/vmlinuz", f"vmlinuz-{first}")
    link(folder / "initrd.lkp", f"./boot/initramfs.lkp-{first}.img")
    return folder


@pytest.fixture
def srv(tmp_path: Path) -> Path:
    snapshot(tmp_path)
    link(tmp_path / "os/debian/x86_64/12", "12-2026-01-02-03-04-05")
    return tmp_path


def debian(srv: Path, version: str = "12", os_mount: str = "cifs", **more: str) -> catalogue.Boot:
    return catalogue.resolve(srv, "debian", "x86_64", version, os_mount, **more)


@pytest.mark.parametrize("os_mount", ["cifs", "nfs", "local"])
def test_the_versions_symlink_pins_the_snapshot_it_stands_for_now(srv: Path, os_mount: str) -> None:
    root = "/os/debian/x86_64/12-2026-01-02-03-04-05"

    assert debian(srv, os_mount=os_mount) == catalogue.Boot(
        kernel=f"{root}/boot/vmlinuz-{KERNEL}",
        initrds=(
            f"{root}/boot/initramfs.lkp-{KERNEL}.img",
            f"{root}/boot/modules-{KERNEL}.cgz",
        ),
        root=root,
        kernel_version=KERNEL,
    )


def test_a_chain_of_symlinks_is_followed_to_its_end(srv: Path) -> None:
    link(srv / "os/debian/x86_64/stable", "stable-iso")
    link(srv / "os/debian/x86_64/stable-iso", "12")

    assert debian(srv, "stable").root == "/os/debian/x86_64/12-2026-01-02-03-04-05"


def test_a_named_kernel_brings_its_modules_but_not_its_initramfs(tmp_path: Path) -> None:
    snapshot(tmp_path, "12", KERNEL, "6.9.0-1-amd64")

    boot = debian(tmp_path, kernel_version="6.9.0-1-amd64")

    assert boot.kernel.endswith("/boot/vmlinuz-6.9.0-1-amd64")
    assert boot.initrds[0].endswith(f"/boot/initramfs.lkp-{KERNEL}.img")
    assert boot.initrds[1].endswith("/boot/modules-6.9.0-1-amd64.cgz")


def test_initramfs_mode_takes_the_osimage_then_the_modules(srv: Path) -> None:
    place = srv / "initrd/osimage/debian/x86_64/12"
    put(place / "20260102.0.cgz")
    link(place / "current", "20260102.0.cgz")
    put(place / "run-ipconfig_1.cgz")
    link(place / "run-ipconfig.cgz", "run-ipconfig_1.cgz")

    assert debian(srv, os_mount="initramfs").initrds == (
        "/initrd/osimage/debian/x86_64/12/20260102.0.cgz",
        f"/os/debian/x86_64/12-2026-01-02-03-04-05/boot/modules-{KERNEL}.cgz",
        "/initrd/osimage/debian/x86_64/12/run-ipconfig_1.cgz",
    )


def test_an_image_that_is_not_there_is_answered_with_those_that_are(srv: Path) -> None:
    with pytest.raises(BadImage, match=r"no image debian/x86_64/13; images: debian/x86_64/12$"):
        debian(srv, "13")


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("gentoo", "x86_64", "12", "cifs"), "os"),
        (("debian", "aarch64", "12", "cifs"), "arch"),
        (("debian", "x86_64", "13", "cifs"), "os_version"),
        (("debian", "x86_64", "12", "cifs", "9.9.9"), "kernel_version"),
    ],
)
def test_the_field_that_asks_for_too_much_is_named(
    srv: Path, words: tuple[str, ...], field: str
) -> None:
    with pytest.raises(BadImage) as caught:
        catalogue.resolve(srv, *words)

    assert field == caught.value.field


def test_no_images_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="there are no images in"):
        debian(tmp_path)


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        (f"boot/vmlinuz-{KERNEL}", "boot/vmlinuz"),
        (f"boot/modules-{KERNEL}.cgz", f"boot/modules-{KERNEL}.cgz"),
        (f"boot/initramfs.lkp-{KERNEL}.img", "initrd.lkp"),
    ],
)
def test_what_is_missing_is_named(srv: Path, gone: str, named: str) -> None:
    (srv / "os/debian/x86_64/12" / gone).unlink()

    with pytest.raises(BadImage, match=named):
        debian(srv)


@pytest.mark.parametrize("word", ["..", ".hidden", "", "a/b", "12\n", "${x}", "a b", "\u0661"])
def test_a_word_that_could_be_more_than_one_name_is_refused(srv: Path, word: str) -> None:
    with pytest.raises(BadImage, match="one word"):
        debian(srv, word)


def test_a_link_out_of_srv_is_no_image(srv: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = snapshot(tmp_path_factory.mktemp("outside"))
    link(srv / "os/debian/x86_64/out", str(outside))

    with pytest.raises(BadImage, match="no image debian/x86_64/out"):
        debian(srv, "out")


def test_a_file_that_is_a_link_out_of_srv_is_missing(
    srv: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret = put(tmp_path_factory.mktemp("outside") / "secret")
    modules = srv / f"os/debian/x86_64/12/boot/modules-{KERNEL}.cgz"
    modules.unlink()
    modules.symlink_to(secret)

    with pytest.raises(BadImage, match="modules-"):
        debian(srv)


def test_links_in_a_circle_are_no_image(srv: Path) -> None:
    link(srv / "os/debian/x86_64/a", "b")
    link(srv / "os/debian/x86_64/b", "a")

    with pytest.raises(BadImage, match="no image debian/x86_64/a"):
        debian(srv, "a")


def test_what_vanished_after_the_submit_is_found_at_dispatch(srv: Path) -> None:
    boot = debian(srv)
    assert catalogue.missing(srv, boot) == []

    os.unlink(f"{srv}{boot.initrds[1]}")

    assert catalogue.missing(srv, boot) == [boot.initrds[1]]


def test_the_list_names_each_image_once_and_says_what_is_wrong(srv: Path) -> None:
    snapshot(srv, "11")
    (srv / "os/debian/x86_64/11" / f"boot/vmlinuz-{KERNEL}").chmod(0o600)
    (srv / "os/debian/x86_64/.building-1").mkdir()

    found = catalogue.images(srv)

    assert [one.name for one in found] == ["debian/x86_64/11", "debian/x86_64/12"]
    assert [one.complete for one in found] == [False, True]
    assert "not readable by others" in found[0].problems[0]
    assert found[1].kernels == (KERNEL,)


def listed(srv: Path, *options: str) -> str:
    done = CliRunner().invoke(group, ["image", "list", "--srv", str(srv), *options])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_list_shows_the_size_that_was_counted_when_it_was_made(srv: Path) -> None:
    put(srv / "os/debian/x86_64/12" / catalogue.SIZE, b"790052864\n")

    heading, row = listed(srv).splitlines()
    assert "SIZE" in heading
    assert "753.5 MiB" in row
    assert json.loads(listed(srv, "--json"))[0]["size_bytes"] == 790052864


@pytest.mark.parametrize("figure", [None, b"", b"-1", b"many", b"9" * 5000, b"\xff\xfe", b"1e9"])
def test_an_image_without_a_figure_has_no_size(srv: Path, figure: bytes | None) -> None:
    if figure is not None:
        put(srv / "os/debian/x86_64/12" / catalogue.SIZE, figure)

    assert json.loads(listed(srv, "--json"))[0]["size_bytes"] is None
    assert "  -  " in listed(srv).splitlines()[1]


def test_a_size_is_not_read_from_outside(srv: Path) -> None:
    put(srv.parent / "elsewhere", b"12345")
    (srv / "os/debian/x86_64/12" / catalogue.SIZE).symlink_to(srv.parent / "elsewhere")

    assert json.loads(listed(srv, "--json"))[0]["size_bytes"] is None


def test_a_size_counts_what_the_disk_gives(tmp_path: Path) -> None:
    put(tmp_path / "one/large", b"x" * 2**20)
    os.link(tmp_path / "one/large", tmp_path / "one/again")
    (tmp_path / "one/link").symlink_to("/etc")
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", 2**30)

    assert 2**20 <= rootfs.size(tmp_path) < 2**20 + 2**16


@pytest.mark.parametrize("name", [b"caf\xe9", b"new\nline", b"we ird", b"a$b", b"x" * 200])
def test_a_folder_that_no_document_can_name_is_no_image(srv: Path, name: bytes) -> None:
    (srv / "os" / os.fsdecode(name) / "x86_64/1/boot").mkdir(parents=True)
    (srv / "os/debian/x86_64" / os.fsdecode(name)).mkdir()

    with pytest.raises(BadImage, match=r"no image debian/x86_64/13; images: debian/x86_64/12$"):
        debian(srv, "13")
    assert ["debian/x86_64/12"] == [image.name for image in catalogue.images(srv)]


def test_an_image_that_would_not_boot_is_offered_to_nobody(srv: Path) -> None:
    (srv / "os/debian/x86_64/empty").mkdir()

    with pytest.raises(BadImage, match=r"no image debian/x86_64/13; images: debian/x86_64/12$"):
        debian(srv, "13")
    listed = {image.name: image.complete for image in catalogue.images(srv)}
    assert {"debian/x86_64/12": True, "debian/x86_64/empty": False} == listed


@pytest.mark.parametrize("name", [b"12 b", b"caf\xe9", b"a\nb", b"${x}", b"a,rw", b"a%20"])
def test_a_snapshot_or_kernel_whose_name_would_break_a_script_line_does_not_boot(
    tmp_path: Path, name: bytes
) -> None:
    word = os.fsdecode(name)
    snapshot(tmp_path, word)
    link(tmp_path / "os/debian/x86_64/12", word)
    snapshot(tmp_path, "13", f"6.1{word}")

    for version in ("12", "13"):
        with pytest.raises(BadImage, match=f"{version} .* lacks a plain name for ") as caught:
            debian(tmp_path, version)
        str(caught.value).encode()
    assert not any(image.complete for image in catalogue.images(tmp_path))


def test_a_local_image_without_modules_boots_and_another_does_not(srv: Path) -> None:
    (srv / f"os/debian/x86_64/12/boot/modules-{KERNEL}.cgz").unlink()

    assert [f"initramfs.lkp-{KERNEL}.img"] == [
        path.rsplit("/", 1)[1] for path in debian(srv, os_mount="local").initrds
    ]
    with pytest.raises(BadImage, match="modules"):
        debian(srv, os_mount="nfs")


def test_a_container_needs_no_image_of_ours(tmp_path: Path) -> None:
    assert catalogue.Boot("", (), "", "") == debian(tmp_path, os_mount="container")


@pytest.mark.parametrize(
    ("os_mount", "mount"), [("cifs", "nfs"), ("nfs", "nfs"), ("local", "local")]
)
def test_files_of_programs_are_those_that_are_there_with_links_followed(
    srv: Path, os_mount: str, mount: str
) -> None:
    deps, pkgs = srv / f"initrd/deps/{mount}/debian", srv / f"initrd/pkg/{mount}/debian"
    put(deps / "x86_64/12/lkp/lkp_20210906.cgz")
    link(deps / "x86_64/12/lkp/lkp.cgz", "lkp_20210906.cgz")
    put(pkgs / "x86_64/12/iperf/3.9.cgz")
    put(pkgs / "x86_64/12/fio/fio_1.cgz")
    link(pkgs / "x86_64/12/fio/latest.cgz", "fio_1.cgz")
    link(pkgs / "x86_64/12/evil/latest.cgz", "/etc/passwd")
    programs = (("lkp", "latest"), ("iperf", "3.9"), ("fio", "latest"), ("evil", "latest"))
    boot = catalogue.resolve(srv, "debian", "x86_64", "12", os_mount, None, programs)

    assert (f"/initrd/deps/{mount}/debian/x86_64/12/lkp/lkp_20210906.cgz",) == boot.deps
    assert (
        f"/initrd/pkg/{mount}/debian/x86_64/12/iperf/3.9.cgz",
        f"/initrd/pkg/{mount}/debian/x86_64/12/fio/fio_1.cgz",
    ) == boot.pkgs
    assert [] == catalogue.missing(srv, boot)
    (srv / boot.pkgs[1][1:]).unlink()
    assert [boot.pkgs[1]] == catalogue.missing(srv, boot)
