"""Pure: no clock, no socket, no await.

Where the results of a job lie, and which of the names there are the server's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from appliance.errors import BadRequest

# However it is written: where file systems take no heed of case, blanks or dots at the end, these
# are one name, and for people they are anyway.
_ATTEMPT: Final = re.compile(r"\s*attempt-\d+[\s.]*", re.IGNORECASE)


def attempt_root(result_root: str, number: int) -> str:
    """Attempt 1 uploads to the result root, attempt n to a folder of its own in it."""
    return result_root if number == 1 else f"{result_root}/attempt-{number}"


def check_names(number: int, names: Sequence[str]) -> None:
    """Raises BadRequest where attempt `number` would use another attempt's name.

    `names` lead from its root to what it uploads.  In the first one's root lie the others': what it
    left under such a name would be shown as theirs, or stand in their way.
    """
    if number == 1 and names and _ATTEMPT.fullmatch(names[0]):
        raise BadRequest(f"{names[0][:60]!r}: such names are the server's, for the job's attempts")


def no_job(parameters: str, job_id: str) -> str:
    """`parameters` as a folder's name that is no job's: else one's results lay in another's."""
    lab, _, _ = job_id.rpartition(".")
    return re.sub(rf"\A{re.escape(lab)}\.(?=[0-9]+\Z)", f"{lab}-", parameters)
