"""Pure: no clock, no socket, no await.

The shapes of what the verbs of the command line take.  They are checked once, before any verb runs:
a program of somebody's own may send anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from appliance.errors import BadRequest

Shape = tuple[str, Callable[[Any], bool]]  # in words, and as a test

_NUMBER_MAX: Final = 1e15  # seconds or bytes: what is larger is no moment and no file
# Of a document's name, which is kept with its job for good and shown with it: a file has no longer.
NAME_BYTES_MAX: Final = 255
# In a list that each job is compared with, one word after the other.  There are nine healths and
# some ten stages.
FILTER_MAX: Final = 32


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    return fits and math.isfinite(value) and abs(value) <= _NUMBER_MAX


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= 0


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_filter(value: Any) -> bool:
    return _are_texts(value) and len(value) <= FILTER_MAX


def _are_words(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, [*value.keys(), *value.values()]))


def _are_papers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_paper, value))


def _is_paper(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_text(value.get("text"))
        and _is_name(value.get("name", ""))
        and all(_are_words(value.get(key) or {}) for key in ("defaults", "overrides"))
    )


def _is_name(value: Any) -> bool:
    return _is_text(value) and len(value) <= NAME_BYTES_MAX >= len(value.encode())


_TEXT: Final[Shape] = ("text", _is_text)
_NUMBER: Final[Shape] = ("a number", _is_number)
_WHOLE: Final[Shape] = ("a whole number, 0 or more", _is_whole)
_TRUTH: Final[Shape] = ("true or false", _is_truth)
_TEXTS: Final[Shape] = ("a list of texts", _are_texts)
_FILTER: Final[Shape] = (f"a list of at most {FILTER_MAX} words", _is_filter)
_PAPERS: Final[Shape] = (
    f"a list of {{name, text, defaults, overrides}}; a name has at most {NAME_BYTES_MAX} bytes",
    _are_papers,
)

SHAPES: Final[Mapping[str, Shape]] = {
    "documents": _PAPERS,
    **dict.fromkeys(
        (
            "job",
            "key",
            "user",
            "box",
            "queue",
            "path",
            "host",
            "name",
            "why",
            "for",
            "arch",
            "uuid",
            "text",
            "before",
            "level",
            "list",
            "ipxe",
            "kernel_params",
            "kernel_custom_params",
            "crashkernel",
            "memory",
            "nr_nic",
            "nr_disk",
            "disk_size",
        ),
        _TEXT,
    ),
    **dict.fromkeys(("limit", "offset"), _WHOLE),
    **dict.fromkeys(("since", "until", "seconds", "older"), _NUMBER),
    **dict.fromkeys(("health", "state"), _FILTER),
    **dict.fromkeys(("wait", "on", "dry_run", "replace", "failed"), _TRUTH),
    **dict.fromkeys(("macs", "queues", "tags", "console", "rootfs_disk"), _TEXTS),
}


def check(verb: str, arguments: Mapping[Any, Any]) -> None:
    """Raises BadRequest with what would be right; None stands for what is not there."""
    for name, value in arguments.items():
        if not isinstance(name, str):
            raise BadRequest(f"{verb}: an argument is named by a text")
        if value is not None and name in SHAPES:
            words, fits = SHAPES[name]
            if not fits(value):
                raise BadRequest(f"{verb}: {name!r} must be {words}")
