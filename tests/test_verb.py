"""control/verb: what a program of somebody's own sends is checked before a verb runs."""

from __future__ import annotations

import typing

import attrs
import pytest

from appliance.control import verbs  # noqa: F401 - every verb is known then
from appliance.control.verb import FILTER_MAX, NAME_BYTES_MAX, VERBS, Document, request
from appliance.errors import BadRequest

# For each type of a field: what fits, and what is near to it and does not.
FITS = {
    "text": "x",
    "a number": 1.5,
    "a whole number": 3,
    "true or false": True,
    "a list of texts": ["a", "b"],
    "a list of at most": ["a"],
    "a list of {": [{"text": "a"}],
}
MISFITS = {
    "text": [1, b"x", ["x"], True],
    "a number": ["1", True, float("nan"), float("inf"), 1e16, [1]],
    "a whole number": [-1, 1.5, "1", True, 10**16],
    "true or false": [0, 1, "yes", []],
    "a list of texts": ["ab", [1], {"a": "b"}, ("a",)],
    "a list of at most": [["x"] * (FILTER_MAX + 1), "ab", [1]],
    "a list of {": [
        {}, ["x"], [{}], [{"text": 1}], [{"text": "a", "name": "x" * (NAME_BYTES_MAX + 1)}],
        [{"text": "a", "defaults": {"a": 1}}], [{"text": "a", "overrides": ["a"]}],
    ],
}  # fmt: skip


def wire(field):
    return field.metadata.get("wire", field.name)


def said_right(name, wrong):
    """What is said to be right when a field is `wrong`; an object fits none."""
    with pytest.raises(BadRequest) as caught:
        request(name, {wrong: object()})
    said = str(caught.value).removeprefix(f"{name}: {wrong!r} must be ")
    return next(words for words in FITS if said.startswith(words))


ALL = [(name, wire(field)) for name, verb in VERBS.items() for field in attrs.fields(verb.request)]


def whole(name, but=""):
    """The arguments that a verb cannot do without."""
    fields = [field for field in attrs.fields(VERBS[name].request)
              if field.default is attrs.NOTHING and wire(field) != but]  # fmt: skip
    return {wire(field): FITS[said_right(name, wire(field))] for field in fields}


@pytest.mark.parametrize(("name", "field"), ALL)
def test_what_fits_is_taken_and_what_is_near_to_it_is_refused_with_words(name, field):
    right = said_right(name, field)
    others = whole(name, but=field)
    request(name, {**others, field: FITS[right]})

    for wrong in MISFITS[right]:
        with pytest.raises(BadRequest, match=f"^{name}: '{field}' must be {right}"):
            request(name, {**others, field: wrong})


@pytest.mark.parametrize(("name", "field"), [(n, f) for n, f in ALL if f in whole(n)])
def test_what_a_verb_cannot_do_without_is_named(name, field):
    for said in ({}, {field: None}):
        with pytest.raises(BadRequest, match=f"^{name}: '{field}' is missing"):
            request(name, {**whole(name, but=field), **said})


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize("unknown", ["no-such", 5, ("a",), "", "x" * 10_000])
def test_what_a_verb_does_not_know_is_refused_with_what_it_takes(name, unknown):
    with pytest.raises(BadRequest, match=f"^{name}: .* is not known to it; it takes ") as caught:
        request(name, {**whole(name), unknown: 1})
    assert len(str(caught.value)) < 500
    request(name, {**whole(name), unknown: None})  # which says nothing


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_says_what_it_is_for_in_a_sentence(name):
    for text in (VERBS[name].request.__doc__, VERBS[name].request.do.__doc__):
        assert text
        assert text.partition("\n")[0][-1] in ".:,"


def test_a_document_of_a_newer_client_may_say_more():
    made = request("submit", {"documents": [{"text": "a", "newer": 1}], "key": "k"})

    assert [Document("a")] == typing.cast("typing.Any", made).documents
