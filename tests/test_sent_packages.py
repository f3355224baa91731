"""Packages that clients send: many at once, or one that is there already, take little memory."""

from __future__ import annotations

import base64
import hashlib
import tracemalloc

import trio

from appliance.jobs.documents.checks import Package
from appliance.json_text import Long
from appliance.keep import packages

SIZE = 6 * 2**20


def package(data):
    return Package("r", "t", hashlib.md5(data).hexdigest())


async def test_to_look_whether_a_package_is_there_takes_no_memory_of_its_size(tmp_path):
    data = bytes(SIZE)
    path = packages.place(tmp_path, package(data))
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    del data
    tracemalloc.start()
    try:
        assert await packages.is_there(tmp_path, package(bytes(SIZE)))
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        assert not await packages.is_there(tmp_path, Package("r", "t", "0" * 32))
        found = Package("r", "t", path.stem)
        assert await packages.is_there(tmp_path, found)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()

    assert peak < SIZE / 4


async def test_packages_that_come_at_once_are_decoded_one_after_the_other(tmp_path, monkeypatch):
    at_once, most, decode = 0, 0, packages._decoded

    def noted(content, package):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            return decode(content, package)
        finally:
            at_once -= 1

    monkeypatch.setattr(packages, "_decoded", noted)
    async with trio.open_nursery() as nursery:
        for n in range(6):
            data = bytes([n]) * SIZE
            content = Long(bytearray(base64.encodebytes(data)))
            nursery.start_soon(packages.keep, tmp_path, package(data), content)

    assert 1 == most
    assert 6 == len(list(tmp_path.rglob("*.cgz")))
