"""lab/cached_image: built once, again when a source or a boot file changes, never half."""

import pytest

from appliance.errors import BadImage
from lab import cached_image


@pytest.fixture
def builds(monkeypatch, tmp_path):
    """How often the image was built; `boot` stands in for appliance/boot."""
    boot = tmp_path / "boot"
    (boot / "dracut/90appliance").mkdir(parents=True)
    (boot / "images").mkdir()
    for name in ("images/image_build.py", "images/rootfs.py", "dracut/90appliance/root.sh"):
        (boot / name).write_text("as it is")
    made = []
    monkeypatch.setattr(cached_image.image_build, "__file__", str(boot / "images/image_build.py"))
    monkeypatch.setattr(cached_image.image_build, "build", lambda *arguments: made.append(1))
    monkeypatch.setattr(cached_image, "_boots", lambda srv: bool(made))
    return made


def test_it_is_built_once(builds, tmp_path):
    assert [True, False, False] == [cached_image.ensure(tmp_path / "srv") for _ in range(3)]
    assert 1 == len(builds)


@pytest.mark.parametrize("name", ["images/rootfs.py", "dracut/90appliance/root.sh"])
def test_a_changed_source_builds_it_again(builds, tmp_path, name):
    cached_image.ensure(tmp_path / "srv")
    (tmp_path / "boot" / name).write_text("as it will be")

    assert cached_image.ensure(tmp_path / "srv")
    assert not cached_image.ensure(tmp_path / "srv")


def test_a_new_date_alone_builds_nothing(builds, tmp_path):
    cached_image.ensure(tmp_path / "srv")
    (tmp_path / "boot/images/rootfs.py").touch()

    assert not cached_image.ensure(tmp_path / "srv")


def test_an_image_that_lost_a_boot_file_is_built_again(builds, tmp_path, monkeypatch):
    cached_image.ensure(tmp_path / "srv")
    monkeypatch.setattr(cached_image, "_boots", lambda srv: False)

    assert cached_image.ensure(tmp_path / "srv")


def test_a_failed_build_is_not_taken_for_one_that_is_there(builds, tmp_path, monkeypatch):
    def fails(*arguments):
        raise BadImage("no mirror")

    with monkeypatch.context() as broken:
        broken.setattr(cached_image.image_build, "build", fails)
        with pytest.raises(BadImage):
            cached_image.ensure(tmp_path / "srv")

    assert cached_image.ensure(tmp_path / "srv")
