"""Which files boot a document: one look for many who ask at once, and never an old one for long."""

from __future__ import annotations

import shutil

import attrs
import pytest
import trio

from appliance.boot.images import catalogue, pinning
from appliance.config import Defaults
from appliance.errors import BadImage
from appliance.jobs.documents import document
from tests.test_serve import make_image


@pytest.fixture
def looks(monkeypatch):
    """The images that were looked for, in order."""
    found, resolve = [], catalogue.resolve

    def look(srv, *image):
        found.append(image[:3])
        return resolve(srv, *image)

    monkeypatch.setattr(catalogue, "resolve", look)
    return found


def a_document(text="script: x\n", **changes):
    return attrs.evolve(document.parse(text, "a.yaml", Defaults()), **changes)


async def test_those_who_ask_soon_after_each_other_share_one_look(tmp_path, looks):
    make_image(tmp_path)
    folder = pinning.ImageFolder(tmp_path)
    first = await folder.pin(a_document())
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(folder.pin, a_document())

    assert first == await folder.pin(a_document())
    assert [("debian", "x86_64", "12")] == looks


async def test_after_a_while_it_is_looked_for_again(tmp_path, looks, monkeypatch):
    snapshot = make_image(tmp_path)
    folder = pinning.ImageFolder(tmp_path)
    await folder.pin(a_document())
    shutil.rmtree(snapshot)
    for fresh in (-1.0, 100.0):  # and what is gone is not remembered
        monkeypatch.setattr(pinning, "FRESH_S", fresh)
        with pytest.raises(BadImage, match="there is no image debian/x86_64/12"):
            await folder.pin(a_document())

    assert 3 == len(looks)


async def test_each_image_and_way_to_mount_it_is_looked_for_by_itself(tmp_path, looks):
    make_image(tmp_path)
    folder = pinning.ImageFolder(tmp_path)
    cifs = await folder.pin(a_document())
    own = await folder.pin(a_document(modules_uri=("http://x/modules.cgz",)))
    nfs = await folder.pin(a_document(os_mount="nfs"))

    assert ("http://x/modules.cgz",) == own.initrds[1:]
    assert cifs == attrs.evolve(own, initrds=cifs.initrds) == nfs
    assert 2 == len(looks)


async def test_only_so_many_images_are_remembered(tmp_path, looks, monkeypatch):
    monkeypatch.setattr(pinning, "FOUND_MAX", 2)
    make_image(tmp_path)
    folder = pinning.ImageFolder(tmp_path)
    for mount in ("cifs", "nfs", "cifs"):
        await folder.pin(a_document(os_mount=mount))
    await folder.pin(a_document(kernel_version="6.1.0-1-amd64"))

    assert 2 == len(folder._found)
