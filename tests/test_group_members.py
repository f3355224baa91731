"""Who is in the group, or has an account: what they send is bounded, and let go of."""

from __future__ import annotations

import gc

import pytest

from appliance import yaml_text
from appliance.control import verbs  # noqa: F401 - every verb is known then
from appliance.control.job_verbs import read_part
from appliance.control.verb import FILTER_MAX, NAME_BYTES_MAX, request
from appliance.errors import BadRequest, NotFound
from appliance.jobs.documents.checks import Package
from appliance.keep import packages
from appliance.yaml_text import COPIED_MAX, TooLarge

TEXTS = [
    "a: &x {long}\nb: [{many}]",
    "a: &x {{k: {long}}}\nb: [{many}]",
    "a: &x\n  ? {long}\n  : 1\nb: [{many}]",
]


@pytest.mark.parametrize("text", TEXTS)
def test_aliases_of_a_long_text_count_as_what_they_stand_for(text):
    long = "y" * 10_000
    fits, over = COPIED_MAX // len(long) - 1, COPIED_MAX // len(long) + 1

    yaml_text.load(text.format(long=long, many=", ".join(["*x"] * fits)))
    with pytest.raises(TooLarge, match="aliases"):
        yaml_text.load(text.format(long=long, many=", ".join(["*x"] * over)))


def test_a_name_and_a_filter_have_a_size():
    request("submit", {"documents": [{"text": "x", "name": "é" * (NAME_BYTES_MAX // 2)}],
                       "key": "k"})  # fmt: skip
    request("jobs", {"health": ["x"] * FILTER_MAX})
    for verb, arguments in (
        ("submit", {"documents": [{"text": "x", "name": "é" * NAME_BYTES_MAX}]}),
        ("jobs", {"health": ["x"] * (FILTER_MAX + 1)}),
        ("jobs", {"state": ["x"] * (FILTER_MAX + 1)}),
    ):
        with pytest.raises(BadRequest, match="at most"):
            request(verb, arguments)


@pytest.mark.parametrize("path", ["a\0b", "x/" * 3000, "x" * 300, "file/below"])
def test_a_result_that_cannot_be_is_none(tmp_path, path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotFound):
        read_part(tmp_path, path, 0)


def test_behind_the_end_of_a_result_there_is_nothing(tmp_path):
    (tmp_path / "file").write_text("x")
    assert (b"", 1) == read_part(tmp_path, "file", 10**15)


async def test_a_refused_package_is_let_go_of_at_once(tmp_path):
    gc.collect()
    gc.disable()
    try:
        content = "A" * 4_000_000
        with pytest.raises(BadRequest) as caught:
            await packages.keep(tmp_path, Package("repo", "v1", "0" * 32), content)
        del caught
        large = [one for one in gc.get_objects() if type(one).__name__ == "frame"
                 and "_decoded" == one.f_code.co_name]  # fmt: skip
        assert [] == large
    finally:
        gc.enable()
