"""Nothing in a root filesystem leads us out of it: those who make one run as root."""

from __future__ import annotations

import pytest

from appliance.boot import rootfs
from appliance.errors import BadImage

VERSION = "6.1"


@pytest.fixture
def host(tmp_path):
    """A folder that is not the root filesystem's."""
    (tmp_path / "host/sub").mkdir(parents=True)
    (tmp_path / "host/machine-id").write_text("the host's own")
    return tmp_path / "host"


@pytest.fixture
def root(tmp_path, host):
    made = tmp_path / "root"
    for folder in ("boot", "etc/ssh", "usr/lib/dracut/modules.d", "usr/lib/firmware", "var/tmp"):
        (made / folder).mkdir(parents=True)
    (made / "lib").symlink_to("usr/lib")
    (made / f"boot/vmlinuz-{VERSION}").write_bytes(b"kernel")
    tree = made / f"usr/lib/modules/{VERSION}"
    (tree / "kernel/lib").mkdir(parents=True)
    (tree / "kernel/lib/a.ko").write_bytes(b"module")
    (tree / "modules.dep").write_text("kernel/lib/a.ko:\n")
    return made


def test_a_merged_usr_is_no_way_out(root):
    rootfs.check_closed(root, VERSION)


@pytest.mark.parametrize("place", [
    "etc", "boot", "lib", "lib/modules", f"lib/modules/{VERSION}", "usr",
    "usr/lib/dracut/modules.d",
    "lib/firmware", "var", "var/tmp", "etc/ssh",
])  # fmt: skip
@pytest.mark.parametrize("absolute", [True, False])
def test_a_folder_that_leads_out_is_refused(root, host, place, absolute):
    folder = root / place
    if folder.is_symlink():
        folder.unlink()
    else:
        folder.rename(root / "moved")
    folder.symlink_to(host if absolute else "../" * (place.count("/") + 3) + str(host)[1:])
    (host / "sub").rmdir()

    with pytest.raises(BadImage, match="leads out of this root filesystem"):
        rootfs.check_closed(root, VERSION)


@pytest.mark.parametrize("place", [f"boot/modules-{VERSION}.cgz", "etc/machine-id", "etc/hostname"])
def test_a_file_of_ours_that_leads_out_is_replaced_and_not_followed(root, host, place):
    (root / place).symlink_to(host / "machine-id")
    rootfs.write(root / place, b"ours")
    rootfs.tidy(root)

    assert "the host's own" == (host / "machine-id").read_text()


@pytest.mark.parametrize("line", ["kernel/lib/../../../../../../host/machine-id:", "/etc/passwd:"])
def test_a_module_named_outside_its_tree_is_refused(root, line):
    tree = root / f"usr/lib/modules/{VERSION}"
    (tree / "modules.dep").write_text(f"kernel/lib/a.ko: {line[:-1]}\n{line}\n")

    with pytest.raises(BadImage, match=r"modules\.dep names"):
        rootfs.modules(root, VERSION, lambda text: None, 0)


def test_a_module_that_is_a_link_out_is_refused(root, host):
    module = root / f"usr/lib/modules/{VERSION}/kernel/lib/a.ko"
    module.unlink()
    module.symlink_to(host / "machine-id")

    with pytest.raises(BadImage, match="leads out of this root filesystem"):
        rootfs.modules(root, VERSION, lambda text: None, 0)
