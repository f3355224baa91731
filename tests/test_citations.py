"""What the repository says about itself is there: pages, their headings, and files.

A citation is a page's path and one of its headings, as a link has it: `docs/wire.md#ports`.  Pages
(*.md) may also name a page as a whole.  In the samples below, which lead nowhere, an `@` stands for
the dot of a page's name.

References to files are looked for in pages, docstrings and comments:

* whatever ends in `.py`, and `.sh` but for scripts that are made on a testbox;
* a path that begins with a folder of the repository or with a room of `appliance/`, past or
  present, so that a module that moves takes its references along;
* in pages, every relative path in backticks.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
# Rooms of appliance/.  One that ends stays in this list, so that what still names it is found.
ROOMS = frozenset(
    ["boot", "cli", "control", "doctor", "doors", "fs", "install", "jobs", "keep", "scheduler",
     "setup", "web"]
)  # fmt: skip
# Scripts of the wire, and of other programs: no files of ours.
NOT_OURS = frozenset(["job.sh"])
# What relative paths begin with that are no files of the repository, but of an archive, of the TFTP
# root, of an image, of the state; or no paths at all.
ELSEWHERE = (
    ".venv/", "dist/", "lkp/scheduled/", "lkp/lkp/src", "boot/vmlinuz", "boot/initramfs.lkp",
    "ipxe/", "osimage/", "dhcp-hosts/", "text/plain",
)  # fmt: skip
_PAGE = re.compile(r"(?<![\w./-])((?:[\w.-]+/)*[A-Za-z][\w-]*\.md)(?![\w-])(#[^\s)\]`'\",;:.]*)?")
_GONE = re.compile(r"(?<![\w./-])(?:protocol|facts|design|style|seed|house|next)\.txt\b")
_SCRIPT = re.compile(r"(?<![\w./~<>*{}$-])((?:[\w-]+/)*[A-Za-z_][\w-]*\.(?:py|sh))\b(?![-/])")
_SPAN = re.compile(r"`([^`\n]+)`")
_RELATIVE = re.compile(r"[A-Za-z_.][\w.-]*(?:/[\w.-]+)*/?\Z")


def tracked() -> list[str]:
    """Every file of the repository, also new ones that are not committed yet."""
    # Root may run these tests in the checkout of somebody else.
    command = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others",
               "--exclude-standard"]  # fmt: skip
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in set(listed.splitlines()) if (ROOT / name).is_file())


FILES = tracked()
PLACES = {*FILES, *(str(up) for name in FILES for up in PurePosixPath(name).parents)} - {"."}
TOPS = {name.split("/")[0] for name in FILES if "/" in name and not name.startswith(".")}


@cache
def text_of(name: str) -> str:
    """The text of a file; empty for one that is none."""
    data = (ROOT / name).read_bytes()
    try:
        return "" if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return ""


@cache
def headings(page: str) -> frozenset[str]:
    """The headings of a page, as links have them; a page is read outside of its code blocks."""
    text = re.sub(r"(?ms)^```.*?^```$", "", text_of(page))
    found: list[str] = []
    for title in re.findall(r"(?m)^#+ +(.*?) *$", text):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found.append(slug if slug not in found else f"{slug}-{found.count(slug)}")
    return frozenset(found)


def wrong_citations(name: str, text: str) -> Iterator[str]:
    """The citations in `text`, the file `name`, that lead nowhere."""
    for match in _PAGE.finditer(text):
        page, heading = match[1], (match[2] or "")[1:]
        # A page links relative to its own folder, as Markdown does; everybody else to the root.
        place = str(PurePosixPath(name).parent / page) if name.endswith(".md") else page
        if page.startswith("../"):
            place = page.removeprefix("../")
        place = place if place in PLACES else page
        if place not in PLACES:
            yield f"{name}: {page} is no page of the repository"
        elif heading and heading not in headings(place):
            yield f"{name}: {page} has no heading #{heading}"
        elif not heading and not is_page(name) and is_cited_as_prose(text, match.start()):
            yield f"{name}: {page} is cited without a heading"
    for match in _GONE.finditer(text):
        yield f"{name}: {match[0]} is no page of the repository"
    for match in re.finditer(r"\]\(#([^)]*)\)", text if is_page(name) else ""):
        if match[1] not in headings(name):
            yield f"{name}: there is no heading #{match[1]} here"


def is_page(name: str) -> bool:
    """Whether the file is read as a page."""
    return name.endswith(".md")


def is_cited_as_prose(text: str, at: int) -> bool:
    """Whether a page's name stands in brackets, as a source, and not as a file that is used."""
    return text[:at].rstrip().endswith("(")


def prose(name: str) -> str:
    """What of a file is written for people: all of a page, comments and docstrings of a program."""
    text = text_of(name)
    if is_page(name):
        return text
    if name.endswith(".py"):
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        told = [ast.get_docstring(node) for node in ast.walk(ast.parse(text))
                if isinstance(node, kinds)]  # fmt: skip
        return "\n".join([*comments, *filter(None, told)])
    return "\n".join(line for line in text.splitlines() if re.match(r"\s*[#;]", line))


def files_named(name: str, text: str) -> list[str]:
    """The files that `text`, the prose of the file `name`, names."""
    rooms = "|".join(sorted(TOPS | ROOMS))
    named = [match[1] for match in _SCRIPT.finditer(text) if match[1] not in NOT_OURS]
    named += re.findall(rf"(?<![\w./~<>*{{}}$:-])((?:{rooms})/[\w/-]*[\w/](?:\.\w+)?)", text)
    if is_page(name):
        spans = (span for match in _SPAN.finditer(text) for span in match[1].split())
        named += [span for span in spans if "/" in span and _RELATIVE.match(span)]
    return list(dict.fromkeys(named))


def wrong_files(name: str, text: str) -> Iterator[str]:
    """Those of them that are not there."""
    for path in files_named(name, text):
        if not path.startswith(ELSEWHERE) and not is_there(name, path.rstrip("/")):
            yield f"{name}: there is no {path}"


def is_there(name: str, path: str) -> bool:
    """Whether the file `name` can call something `path`: from the root, a room, or beside it."""
    if "/" not in path and path.endswith((".py", ".sh")):
        return any(place.rsplit("/", 1)[-1] == path for place in FILES)
    bases = (".", "appliance", *map(str, PurePosixPath(name).parents))
    places = [str(PurePosixPath(base) / path) for base in bases]
    return any(place in PLACES or f"{place}.py" in PLACES for place in places)


def test_every_citation_leads_to_a_heading_of_a_page_that_is_here():
    assert [] == [wrong for name in FILES for wrong in wrong_citations(name, text_of(name))]


def test_every_file_that_is_named_is_here():
    assert [] == [wrong for name in FILES for wrong in wrong_files(name, prose(name))]


def test_whatever_lies_elsewhere_is_named_somewhere():
    named = [path for name in FILES for path in files_named(name, prose(name))]

    assert set() == {start for start in ELSEWHERE if not any(p.startswith(start) for p in named)}


def test_no_room_is_forgotten():
    there = {name.split("/")[1] for name in FILES if re.match(r"appliance/[^/]+/", name)}

    assert set() == there - ROOMS


def test_there_are_citations_of_every_page():
    cited = {match[1] for name in FILES if not is_page(name)
             for match in _PAGE.finditer(text_of(name)) if match[2]}  # fmt: skip

    assert {"docs/wire.md", "docs/firmware.md", "DESIGN.md", "BOOTING.md"} <= cited


@pytest.mark.parametrize(
    ("find", "name", "text", "wrong"),
    [
        (wrong_citations, "appliance/run.py", "(docs/wire@md#no-such)", "has no heading #no-such"),
        (wrong_citations, "appliance/run.py", "(docs/none@md#ports)", "is no page"),
        (wrong_citations, "appliance/run.py", "(wire@md#ports)", "is no page"),
        (wrong_citations, "appliance/run.py", "(protocol@md §1.4)", "is no page"),
        (wrong_citations, "appliance/run.py", "half an hour: seed~txt", "is no page"),
        (wrong_citations, "appliance/run.py", "(DESIGN@md)", "without a heading"),
        (wrong_citations, "DESIGN.md", "[x](docs/wire@md#no-such)", "has no heading #no-such"),
        (wrong_citations, "docs/wire.md", "[x](firmware@md#no-such)", "has no heading"),
        (wrong_citations, "docs/wire.md", "[x](../NONE@md)", "is no page"),
        (wrong_citations, "docs/wire.md", "[x](#no-such)", "no heading #no-such here"),
        (wrong_files, "DESIGN.md", "`jobs/none.py` does", "there is no jobs/none.py"),
        (wrong_files, "DESIGN.md", "the table (`doors/none`)", "there is no doors/none"),
        (wrong_files, "DESIGN.md", "`none/none/` does", "there is no none/none/"),
        (wrong_files, "appliance/run.py", "as `none.py` does", "there is no none.py"),
        (wrong_files, "appliance/run.py", "see setup/none", "there is no setup/none"),
        (wrong_files, "appliance/run.py", "see tests/none.py", "there is no tests/none.py"),
        (wrong_files, "appliance/boot/x.sh", "# none.sh does", "there is no none.sh"),
    ],
)
def test_what_leads_nowhere_is_found(
    find: Callable[[str, str], Iterator[str]], name: str, text: str, wrong: str
) -> None:
    found = list(find(name, text.replace("@", ".").replace("~", ".")))

    assert any(wrong in one for one in found), found


@pytest.mark.parametrize(
    ("find", "name", "text"),
    [
        (wrong_citations, "appliance/run.py", "(docs/wire@md#jobcgz), and DESIGN@md#a-jobs-life."),
        (wrong_citations, "docs/wire.md", "[x](firmware@md#chaining) [y](../DESIGN@md) [](#ports)"),
        (wrong_files, "DESIGN.md", "`jobs/job.py`, `appliance/jobs/job.py`, `jobs/store`"),
        (wrong_files, "appliance/run.py", "config.py and job.sh, jobs/job.py"),
        (wrong_files, "DESIGN.md", "`/srv/os`, `GET /boot.ipxe/mac/<mac>`, `lkp/scheduled/job.sh`"),
    ],
)  # fmt: skip
def test_what_leads_somewhere_is_let_be(
    find: Callable[[str, str], Iterator[str]], name: str, text: str
) -> None:
    assert [] == list(find(name, text.replace("@", ".")))


def test_headings_are_the_links_that_github_makes_of_them():
    assert {"jobcgz", "dhcp-and-tftp", "the-boot-script"} <= headings("docs/wire.md")
    assert "a-bad-box-doesnt-eat-the-queue" in headings("DESIGN.md")
