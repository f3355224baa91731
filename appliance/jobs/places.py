"""Pure: no clock, no socket, no await.

The folders of a job's results, and which names in them are reserved for the server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from appliance.errors import BadRequest

# In any spelling: file systems that ignore case, blanks or trailing dots take these for one name,
# and so do people.
_ATTEMPT: Final = re.compile(r"\s*attempt-\d+[\s.]*", re.IGNORECASE)


def attempt_root(result_root: str, number: int) -> str:
    """Returns an attempt's folder: the result root for attempt 1, else a folder inside it."""
    return result_root if number == 1 else f"{result_root}/attempt-{number}"


def check_names(number: int, names: Sequence[str]) -> None:
    """Raises BadRequest if attempt `number` would write into another attempt's folder.

    `names` is the path below the attempt's root.  The root of attempt 1 contains the folders of the
    other attempts: a file of its own under such a name would look like theirs, or block them.
    """
    if number == 1 and names and _ATTEMPT.fullmatch(names[0]):
        raise BadRequest(f"{names[0][:60]!r}: such names are the server's, for the job's attempts")


def no_job(parameters: str, job_id: str) -> str:
    """Alters `parameters` if it looks like a job id, so results never land in another job's."""
    lab, _, _ = job_id.rpartition(".")
    return re.sub(rf"\A{re.escape(lab)}\.(?=[0-9]+\Z)", f"{lab}-", parameters)
