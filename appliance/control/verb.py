"""Defines verbs of the control socket: a class each, with its arguments as fields and a `do`.

    @verb("cancel")
    @attrs.frozen(kw_only=True)
    class Cancel:
        "Gives a job up.  Only its submitter or root may."

        job: str

        async def do(self, asked: Asked) -> Answer:
            ...

The types of the fields are checked before a verb runs, since any program may send requests.  A
field without a default is required; null counts as absent; an unknown name is refused.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from operator import eq
from typing import Any, Final, NewType, Protocol, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from appliance.errors import BadRequest, Refused
from appliance.jobs.changes import Job

if typing.TYPE_CHECKING:
    from appliance.control.verbs import Lab

NUMBER_MAX: Final = 1e15  # seconds or bytes; no time and no file is larger
# Of a document's name, which is kept and shown with its job; no file name is longer.
NAME_BYTES_MAX: Final = 255
# Words of a filter, with which each job is compared.  There are nine healths and some ten stages.
FILTER_MAX: Final = 32

Answer = dict[str, Any]
Event = Callable[[dict[str, Any]], Awaitable[None]]
Whole = NewType("Whole", int)  # 0 or more
Filter = NewType("Filter", list[str])  # at most FILTER_MAX words
Name = NewType("Name", str)  # at most NAME_BYTES_MAX bytes


@attrs.frozen
class Document:
    """One job document of a submit, with defaults for it and overrides of it."""

    text: str
    name: Name = Name("job.yaml")
    defaults: dict[str, str] = attrs.field(factory=dict)
    overrides: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Asked:
    """The lab that a verb works with, the user who asks, and the function that sends events."""

    lab: Lab
    user: str
    event: Event

    def only_root(self, does: str) -> None:
        """Raises Refused for anybody else: "only root drains the lab"."""
        if self.user != "root":
            raise Refused(f"only root {does}")

    def only_submitter(self, job: Job, does: str) -> None:
        """Raises Refused for anybody but the job's submitter and root."""
        if self.user not in ("root", job.submitter):
            raise Refused(f"{job.id} is {job.submitter}'s; only {job.submitter} or root {does} it")


class Request(Protocol):
    """What a class with @verb has."""

    async def do(self, asked: Asked) -> Answer:
        """Runs the verb and returns its answer.  Raises the errors of appliance.errors."""


@attrs.frozen
class Verb:
    """A verb's name, class and flags.

    `waits`: it may wait for days, and is cancelled when its client hangs up.
    `kept`: it waits by itself until all that it answers is durable.
    """

    name: str
    request: type[Request]
    waits: bool
    kept: bool


VERBS: Final[dict[str, Verb]] = {}

_Class = TypeVar("_Class", bound=type[Request])


def verb(name: str, *, waits: bool = False, kept: bool = False) -> Callable[[_Class], _Class]:
    """Makes a frozen attrs class the request of a verb."""

    def register(request: _Class) -> _Class:
        VERBS[name] = Verb(name, request, waits, kept)
        return request

    return register


def called(name: str, **more: Any) -> Any:
    """Makes a field whose name on the wire, such as `for` or `list`, is taken in Python."""
    return attrs.field(metadata={"wire": name}, **more)


def request(name: str, arguments: Mapping[Any, Any]) -> Request:
    """Makes the request of verb `name`.  Raises BadRequest, which says what would be right."""
    wanted = VERBS[name].request
    said = {key: value for key, value in arguments.items() if value is not None}
    try:
        made: Request = _converter.structure(said, wanted)
        return made
    except cattrs.ClassValidationError as error:
        raise BadRequest(f"{name}: {_complaint(wanted, said, error)}") from None


def _complaint(wanted: type, said: Mapping[Any, Any], error: cattrs.ClassValidationError) -> str:
    """Describes the first mistake."""
    fields = {_wire(field): field for field in attrs.fields(wanted)}
    hints = typing.get_type_hints(wanted)
    for wire, field in fields.items():
        if wire in said and not _fits(said[wire], hints[field.name]):
            return f"{wire!r} must be {_words(hints[field.name])}"
    for wire, field in fields.items():
        if wire not in said and field.default is attrs.NOTHING:
            return f"{wire!r} is missing"
    unknown = next((key for key in said if key not in fields), None)
    if unknown is None:
        raise error
    known = ", ".join(fields) or "nothing"
    return f"{str(unknown)[:40]!r} is not known to it; it takes {known}"


def _wire(field: attrs.Attribute[Any]) -> str:
    name: str = field.metadata.get("wire", field.name)
    return name


def _fits(value: Any, kind: Any) -> bool:
    try:
        _converter.structure(value, kind)
    except (ValueError, cattrs.BaseValidationError):
        return False
    return True


_WORDS: Final[Mapping[Any, str]] = {
    str: "text",
    float: "a number",
    Whole: "a whole number, 0 or more",
    bool: "true or false",
    list[str]: "a list of texts",
    Filter: f"a list of at most {FILTER_MAX} words",
    list[Document]: (
        f"a list of {{name, text, defaults, overrides}}; a name has at most {NAME_BYTES_MAX} bytes"
    ),
}


def _words(kind: Any) -> str:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(one for one in typing.get_args(kind) if one is not types.NoneType)
    return _WORDS[kind]


# ---- values


def _checked(fits: Callable[[Any], bool]) -> Callable[[Any, Any], Any]:
    """Makes a hook that returns a value unchanged or raises ValueError; it converts nothing."""

    def structure(value: Any, _: Any) -> Any:
        if not fits(value):
            raise ValueError
        return value

    return structure


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    return fits and math.isfinite(value) and abs(value) <= NUMBER_MAX


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= 0


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_filter(value: Any) -> bool:
    return _are_texts(value) and len(value) <= FILTER_MAX


def _are_words(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, [*value.keys(), *value.values()]))


def _is_name(value: Any) -> bool:
    return _is_text(value) and len(value) <= NAME_BYTES_MAX >= len(value.encode())


def _documents(value: Any, _: Any) -> list[Document]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError
    return [
        _converter.structure({key: part for key, part in one.items() if part is not None}, Document)
        for one in value
    ]


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


_HOOKS: Final[Sequence[tuple[Any, Callable[[Any, Any], Any]]]] = (
    (str, _checked(_is_text)),
    (float, _checked(_is_number)),
    (bool, _checked(_is_truth)),
    (Whole, _checked(_is_whole)),
    (Filter, _checked(_is_filter)),
    (Name, _checked(_is_name)),
    (list[str], _checked(_are_texts)),
    (dict[str, str], _checked(_are_words)),
    (list[Document], _documents),
)


def _request_hook(kind: Any) -> Callable[[Any, Any], Any]:
    """Makes a hook that refuses unknown names, except in a Document."""
    wired: Any = {
        field.name: override(rename=_wire(field))
        for field in attrs.fields(kind)
        if "wire" in field.metadata
    }
    strict = kind is not Document
    return make_dict_structure_fn(kind, _converter, _cattrs_forbid_extra_keys=strict, **wired)


def _converter_of(hooks: Sequence[tuple[Any, Callable[[Any, Any], Any]]]) -> cattrs.Converter:
    made = cattrs.Converter()
    made.register_structure_hook_factory(attrs.has, _request_hook)
    for kind, hook in hooks:
        if isinstance(kind, type):
            made.register_structure_hook(kind, hook)
        else:  # list[str], and our NewTypes
            made.register_structure_hook_func(partial(eq, kind), hook)
    return made


_converter: Final = _converter_of(_HOOKS)
