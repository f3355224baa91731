"""`appliance account`: an account for submits over the network."""

from __future__ import annotations

import json
import secrets
import sys

import click

from appliance.cli.show import echo
from appliance.errors import BadRequest


@click.command()
@click.argument("user")
@click.argument("email")
@click.option("--name", help="The account's my_name; by default USER.")
@click.option("--token", "read", is_flag=True, help="Read the token from standard input.")
def account(user: str, email: str, name: str | None, read: bool) -> None:
    """Print an account for USER, who submits over the network as EMAIL.

    Add the table to appliance.toml; it takes effect at the server's next start.  The lines after
    the table belong in a file on the user's own machine.  The token is shown only here.
    """
    from appliance import config
    from appliance.scheduler import accounts

    token = sys.stdin.read().strip() if read else secrets.token_hex(16)
    if len(token) < accounts.TOKEN_CHARS_MIN:
        raise BadRequest(f"a token has at least {accounts.TOKEN_CHARS_MIN} characters")
    fields = {"my_email": email, "my_name": name or user, "my_token": accounts.hashed(token)}
    table = "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in fields.items()
    )
    text = f"[accounts.{json.dumps(user)}]\n{table}"
    config.parse(text, "account")
    echo(text)
    echo("# ~/.config/compass-ci/defaults/account.yaml")
    for key, value in {**fields, "my_token": token}.items():
        echo(f"{key}: {json.dumps(value, ensure_ascii=False)}")
