"""Parses times as a person types them: a length, or a date and time."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from appliance.errors import BadRequest

_LENGTH: Final = re.compile(r"(\d{1,6})([smhd])\Z")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def length(text: str) -> float:
    """Returns seconds.  Raises BadRequest with examples of the right form."""
    found = _LENGTH.match(text)
    if not found:
        raise BadRequest(f"{text!r} is no length of time: write 90s, 30m, 12h or 7d")
    return float(int(found[1]) * _UNITS[found[2]])


def until(text: str) -> dict[str, float]:
    """Returns {"seconds": length from now}, or {"until": UTC seconds} for a local date and time.

    The server's clock counts the length.  Raises BadRequest.
    """
    if _LENGTH.match(text):
        return {"seconds": length(text)}
    try:
        return {"until": datetime.fromisoformat(text).timestamp()}
    except ValueError:
        raise BadRequest(f"{text!r} is no moment: write 12h, 7d or 2030-01-31T18:00") from None
