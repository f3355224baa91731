"""errors: each class knows what it is called at every door, and a client finds the class again."""

from __future__ import annotations

import inspect

import pytest

from appliance import errors
from appliance.cli import main
from appliance.control import client
from appliance.errors import ApplianceError, BadDocument, Problem

CLASSES = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, ApplianceError)
]


@pytest.mark.parametrize("each", CLASSES)
def test_a_status_is_one_of_http_and_an_exit_code_is_one_that_help_explains(each):
    assert each.status in (400, 403, 404, 503, 507)
    assert each.exit_code in (errors.USAGE, errors.NOT_FOUND, errors.REFUSED, errors.NO_SERVER,
                              errors.UNKNOWN)  # fmt: skip
    assert each.kind.replace("-", "").isalpha()


@pytest.mark.parametrize("each", [one for one in CLASSES if one is not BadDocument])
def test_a_command_ends_as_if_the_error_had_met_it_on_this_machine(each):
    """Its class may be another on the way; what scripts see is not."""
    found = client._error({"kind": each.kind, "message": "so it is"})

    assert "so it is" == str(found)
    if each is not errors.NotRunning:  # which no server says
        assert each.exit_code == found.exit_code


def test_a_bad_document_comes_with_its_problems():
    problem = Problem("field", 3, "is wrong")
    found = client._error({"kind": BadDocument.kind, "message": "", "problems": [
        {"field": "field", "line": 3, "message": "is wrong"}]})  # fmt: skip

    assert isinstance(found, BadDocument)
    assert [problem] == found.problems


def test_a_word_of_a_newer_server_is_a_refusal():
    assert errors.Refused is errors.of_kind("no-such-word")


@pytest.mark.parametrize("each", [one for one in CLASSES if one is not BadDocument])
def test_the_command_line_ends_with_the_errors_own_code(each, monkeypatch, capsys):
    def fails(**words):
        raise each("so it is")

    monkeypatch.setattr("appliance.cli.group.main", fails)
    with pytest.raises(SystemExit) as ended:
        main()

    assert each.exit_code == ended.value.code
    assert "appliance: so it is\n" == capsys.readouterr().err
