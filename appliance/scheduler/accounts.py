"""Who may submit over the network: the accounts of the configuration, and their tokens' hashes.

A token is a random word that cannot be guessed, so one round of a hash is enough to hide it from
people who read the configuration.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any, Final

from appliance.config import Account
from appliance.errors import BadRequest, Refused

OFF: Final = (
    "This server takes no jobs over the network. Its operator switches it on by an account:"
    " `appliance account NAME EMAIL` prints one, to be put into appliance.toml."
)
NOT_YOU: Final = "Failed to verify the account.\nPlease ask the lab's operator for one."
TOKEN_CHARS_MIN: Final = 16  # of a token that a person supplies: shorter ones can be guessed
_NOBODY: Final = f"sha256:{'0' * 32}:{'0' * 64}"


def hashed(token: str, salt: str | None = None) -> str:
    """Returns the hash that the configuration holds in place of `token`."""
    salt = salt or secrets.token_hex(16)
    return f"sha256:{salt}:{hashlib.sha256((salt + token).encode()).hexdigest()}"


def verify(accounts: Mapping[str, Account], said: Mapping[str, Any]) -> str:
    """Returns the user whose account `said` proves (docs/wire.md#accounts).

    Raises BadRequest for a missing field, Refused for a wrong one, without saying which.
    """
    if not accounts:
        raise Refused(OFF)
    for field in ("my_email", "my_name", "my_token"):
        if not isinstance(said.get(field), str) or not said[field]:
            raise BadRequest(f"Missing required job key: '{field}'.")
    email = said["my_email"]
    user = next((name for name, account in accounts.items() if account.my_email == email), None)
    account = accounts[user] if user is not None else Account("", "", _NOBODY)
    token = said["my_token"].encode("utf-8", "replace").decode()  # JSON can hold half a character
    fits = hmac.compare_digest(hashed(token, account.my_token.split(":")[1]), account.my_token)
    named = said.get("my_account", user) == user
    if user is None or not fits or account.my_name != said["my_name"] or not named:
        raise Refused(NOT_YOU)
    return user
