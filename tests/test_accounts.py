"""Accounts: their table in the configuration, and the command that writes it."""

from __future__ import annotations

import tomllib

import pytest
import yaml
from click.testing import CliRunner

from appliance import config
from appliance.cli.account import account
from appliance.errors import BadConfig, BadRequest, Refused
from appliance.scheduler import accounts


def test_what_the_command_prints_is_an_account_and_the_person_can_use_it():
    printed = CliRunner().invoke(account, ["ann", "ann@example.org", "--name", 'A "n" é']).output
    table, _, mine = printed.partition("# ~/.config/compass-ci/defaults/account.yaml\n")
    said = yaml.safe_load(mine)
    chosen = config.parse(table, "test")

    assert {"my_email", "my_name", "my_token"} == said.keys()
    assert "ann" == accounts.verify(chosen.accounts, said)
    assert said["my_token"] not in table
    with pytest.raises(Refused):
        accounts.verify(chosen.accounts, said | {"my_token": said["my_token"][:-1]})


def test_a_token_can_be_brought_and_is_not_a_short_one():
    arguments = ["ann", "ann@example.org", "--token"]
    table = CliRunner().invoke(account, arguments, input="0123456789abcdef\n").output
    short = CliRunner().invoke(account, arguments, input="0123456789abcde\n")
    token = tomllib.loads(table.partition("#")[0])["accounts"]["ann"]["my_token"]

    assert accounts.hashed("0123456789abcdef", token.split(":")[1]) == token
    assert isinstance(short.exception, BadRequest)


def test_the_same_token_has_another_hash_each_time():
    assert accounts.hashed("x") != accounts.hashed("x")


@pytest.mark.parametrize(
    ("user", "fields"),
    [
        ("root", {}),
        ("a b", {}),
        ("ann", {"my_email": "nobody"}),
        ("ann", {"my_name": ""}),
        ("ann", {"my_token": "0123456789abcdef"}),
        ("ann", {"mytoken": "x"}),
    ],
)
def test_an_account_that_cannot_be_used_is_named(user, fields):
    fits = {"my_email": "a@b", "my_name": "A", "my_token": accounts.hashed("x")} | fields
    lines = "".join(f'{key} = "{value}"\n' for key, value in fits.items())

    with pytest.raises(BadConfig, match=r"accounts\."):
        config.parse(f'[accounts."{user}"]\n{lines}', "test")


def test_accounts_are_tables():
    with pytest.raises(BadConfig, match="table of tables"):
        config.parse("accounts = 1\n", "test")
    with pytest.raises(BadConfig, match=r"accounts\.ann is a table"):
        config.parse("[accounts]\nann = 1\n", "test")
