"""Times as a person types them: how long, or until when."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from appliance.errors import BadRequest

_LENGTH: Final = re.compile(r"(\d{1,6})([smhd])\Z")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def length(text: str) -> float:
    """Seconds.  Raises BadRequest with what would be right."""
    found = _LENGTH.match(text)
    if not found:
        raise BadRequest(f"{text!r} is no length of time: write 90s, 30m, 12h or 7d")
    return float(int(found[1]) * _UNITS[found[2]])


def until(text: str) -> dict[str, float]:
    """`seconds` from now, by the server's clock, or `until` a local date and time as UTC seconds.

    Raises BadRequest.
    """
    if _LENGTH.match(text):
        return {"seconds": length(text)}
    try:
        return {"until": datetime.fromisoformat(text).timestamp()}
    except ValueError:
        raise BadRequest(f"{text!r} is no moment: write 12h, 7d or 2030-01-31T18:00") from None
