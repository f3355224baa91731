"""The state as JSON for people: what goes out comes back, and a person's mistake is named."""

from __future__ import annotations

import contextlib
import json
import math
import random

import attrs
import pytest

from appliance.errors import BadState
from appliance.jobs.documents.document import Body
from appliance.jobs.store import Store
from appliance.keep.repair import export
from appliance.keep.state import records
from tests import rich


@pytest.mark.parametrize("seed", range(30))
def test_what_is_exported_comes_back_exactly(seed):
    store, _ = rich.grow(seed, 150)
    again = export.load(export.dump(store), "f")

    assert (store.jobs, store.boxes, store.counter) == (again.jobs, again.boxes, again.counter)
    assert records.dump_store(store) == records.dump_store(again)
    assert [*store.jobs] == [*again.jobs]


def with_fields(fields):
    store, _ = rich.grow(1, 40)
    job = next(iter(store.jobs.values()))
    store.jobs[job.id] = attrs.evolve(
        job, document=attrs.evolve(job.document, body=Body(fields=fields))
    )
    return store, job.id


def test_values_that_json_does_not_know_come_back():
    fields = {
        "a": {1: "x", True and 2.5: [1, 1.0], "$map": "y", None: {}},
        "b": [float("inf"), -float("inf"), -0.0, 2**70, "ü\n漢"],
        "c": {"$float": "nan"},
    }
    store, name = with_fields(fields)
    text = export.dump(store)

    assert fields == export.load(text, "f").jobs[name].document.body.fields
    assert records.dump_store(store) == records.dump_store(export.load(text, "f"))


def test_what_is_no_number_comes_back_as_what_is_no_number():
    store, name = with_fields({"x": float("nan")})

    assert math.isnan(export.load(export.dump(store), "f").jobs[name].document.body.fields["x"])


def test_an_empty_state_is_a_state():
    assert records.dump_store(Store()) == records.dump_store(export.load(export.dump(Store()), "f"))


def some_work_and_some_do_not(seed):
    works = [box.job is not None for box in rich.grow(seed, 150)[0].boxes.values()]
    return any(works) and not all(works)


SEED = next(filter(some_work_and_some_do_not, range(100)))


def changed(path, value, seed=SEED):
    """The export of a random store, with one value changed; `path` as in the messages."""
    whole = json.loads(export.dump(rich.grow(seed, 150)[0]))
    *way, last = path
    place = whole
    for step in way:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["appliance state"], 3, "f: was written by a newer appliance: export version 3"),
        (["appliance state"], "1", 'f: $["appliance state"]: must be 2'),
        (["counter"], ..., "f: $: lacks 'counter'"),
        (["counter"], True, "f: $.counter: must be a whole number"),
        (["counter"], 10**12 + 1, "f: $.counter: must be at most 1000000000000"),
        (["archived"], 2**70, "f: $.archived: must be at most 1000000000000"),
        (["jobs", 1, "number"], -1, "f: $.jobs[1].number: must be at least 1"),
        (["counter"], 0, "f: $.counter: must be at least 1, the number of lab.1"),
        (["jobs"], {}, "f: $.jobs: must be a list"),
        (["surprise"], 1, "f: $: unknown key 'surprise'; known: appliance state, counter"),
        (["jobs", 1, "number"], "two", "f: $.jobs[1].number: must be a whole number"),
        (["jobs", 1, "number"], ..., "f: $.jobs[1].number: is missing"),
        (["jobs", 1, "colour"], 1, "f: $.jobs[1]: unknown: colour; known: id, number, name"),
        (["jobs", 1, "submitter"], 7, 'f: $.jobs[1].submitter: 7 must be written "7"'),
        (["jobs", 1, "id"], "lab.1", "f: $.jobs[1].id: 'lab.1' is there already: $.jobs[0].id"),
        (["jobs", 0, "state", "is"], "Lost", "f: $.jobs[0].state: 'Lost' is not one of the kinds"),
        (["jobs", 0, "state"], 5, "f: $.jobs[0].state"),
        (
            ["jobs", 0, "document", "body"],
            {"fields": {"$x": 1}},
            "f: $.jobs[0].document.body.fields: only",
        ),
        (["jobs", 0, "document", "body"], {"fields": {"$map": [[[], 1]]}}, "fields: only"),
        (["boxes", 0, "job"], "lab.77", "f: $.boxes[0].job: must be"),
        (["boxes", 0, "macs"], "x", 'f: $.boxes[0].macs: "x" must be written ["x"]'),
    ],
    ids=repr,
)
def test_a_mistake_names_the_file_the_path_and_what_would_be_right(path, value, message):
    with pytest.raises(BadState) as caught:
        export.load(changed(path, value), "f")

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f: line 1, column 1: not JSON"),
        ("{\n 'x'", "f: line 2, column 2: not JSON"),
        ("[]", "f: $: no export of the appliance"),
        ("[" * 100_000, "f: not JSON"),
        ('{"appliance state": NaN}', 'f: not JSON: NaN is no JSON; write {"$float": "nan"}'),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_export_is_refused(text, message):
    with pytest.raises(BadState) as caught:
        export.load(text, "f")

    assert str(caught.value).startswith(message)


def test_a_job_and_its_box_must_agree():
    store, _ = rich.grow(SEED, 150)
    held = next(n for n, box in enumerate(store.boxes.values()) if box.job is not None)
    other = next(n for n, box in enumerate(store.boxes.values()) if box.job is None)
    with pytest.raises(BadState, match=r"f: \$.jobs\[\d+\].state.attempt.box: there is no box"):
        export.load(changed(["boxes", held, "name"], "gone"), "f")
    with pytest.raises(BadState, match=r"f: \$.boxes\[\d+\].job: must be \"lab.\d+\", as"):
        export.load(changed(["boxes", held, "job"], None), "f")
    with pytest.raises(BadState, match=r"f: \$.boxes\[\d+\].job: must be null, as"):
        export.load(changed(["boxes", other, "job"], "lab.1"), "f")


def test_many_mistakes_are_not_all_shown():
    whole = json.loads(changed(["counter"], 10**6))
    whole["jobs"] = [{"id": "x"}] * 50
    with pytest.raises(BadState) as caught:
        export.load(json.dumps(whole), "f")

    assert 11 == len(str(caught.value).splitlines())


def test_a_whole_number_for_a_moment_is_taken():
    text = changed(["jobs", 0, "submitted"], 5)

    assert 5.0 == next(iter(export.load(text, "f").jobs.values())).submitted


JUNK = [None, True, -1, 0.5, "x", [], {}, [[]], {"is": "Queued"}, {"$map": [[1, 2]]}, 10**30]


@pytest.mark.parametrize("seed", range(5))
def test_any_value_anywhere_loads_or_is_refused(seed):
    rng = random.Random(seed)
    text = export.dump(rich.grow(seed, 60)[0])
    for _ in range(150):
        whole = json.loads(text)
        place, path = whole, []
        while True:
            key = rng.choice([*place] if isinstance(place, dict) else range(len(place)))
            path.append(key)
            if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.15:
                break
            place = place[key]
        place[key] = rng.choice(JUNK)
        try:
            with contextlib.suppress(BadState):
                export.load(json.dumps(whole), "f").check()
        except Exception as error:
            error.add_note(f"seed {seed}: {path} = {place[key]!r}")
            raise
