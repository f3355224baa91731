"""The drawing of a job's life in BOOTING.md, made from the transition function itself.

python -m tests.life_cycle     writes it anew
"""

from __future__ import annotations

from pathlib import Path

from appliance.errors import IllegalMove
from appliance.jobs import job as jobs
from appliance.jobs.job import Finished, Queued, Rules
from tests.test_job import EVENTS, STATES

BOOTING = Path(__file__).parents[1] / "BOOTING.md"
BEGIN, END = "```mermaid\n", "```\n"
NAMES = {
    "queued": "submit", "offered": "offered", "loading": "boot: loading",
    "loaded": "boot: loaded", "running": "running", "post_run": "post_run", "held": "held",
}  # fmt: skip
WORDS = {
    "offer": "a box is handed its script", "fetch": "job.cgz fetched", "load": "all files fetched",
    "begin": "job_state=running", "wrap": "job_state=post_run", "hold": "manual_check, renew",
    "close": "lkp-post-run", "lapse": "silent until its deadline", "asked": "its box asks again",
    "undelivered": "its box left untold", "fail": "its files are gone",
}  # fmt: skip
# Events that only change what a state carries, or that end everything alike: said in words.
LEFT_OUT = {"renew", "verdict", "refuse", "cancel"}


def drawing() -> str:
    """A mermaid state diagram: every move that leads from one box of it to another."""
    lines = ["stateDiagram-v2"]
    ids = {name: name.replace(" ", "_") for name in NAMES}
    lines += [f'    state "{NAMES[name]}" as {ids[name]}' for name in NAMES]
    lines.append("    [*] --> queued: a person submits it")
    moves: dict[tuple[str, str], list[str]] = {}
    for name in NAMES:
        for event in EVENTS:
            if event in LEFT_OUT:
                continue
            for target in _targets(name, event):
                if target != ids[name]:
                    moves.setdefault((ids[name], target), []).append(WORDS[event])
    lines += [f"    {a} --> {b}: {' / '.join(words)}" for (a, b), words in moves.items()]
    return "\n".join(lines) + "\n"


def _targets(name: str, event: str) -> list[str]:
    """Where the event leads, with the plainest rules and with those that run a job again."""
    found: dict[str, None] = {}
    for rules in (Rules(), Rules(retry=True), Rules(reboots=1)):
        try:
            state = jobs.advance(STATES[name], EVENTS[event], rules)
        except IllegalMove:
            continue
        found[_id(state)] = None
    return list(found)


def _id(state: jobs.State) -> str:
    if isinstance(state, Queued):
        return "queued"
    if isinstance(state, Finished):
        return "[*]"
    if jobs.is_loaded(state):
        return "loaded"
    return {"boot": "loading", "renew": "held", "manual_check": "held"}.get(
        jobs.stage(state), jobs.stage(state)
    )


def in_booting() -> str:
    """The drawing that stands in BOOTING.md."""
    text = BOOTING.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) :].split(END, 1)[0]


if __name__ == "__main__":
    whole = BOOTING.read_text(encoding="utf-8")
    BOOTING.write_text(whole.replace(BEGIN + in_booting(), BEGIN + drawing()), encoding="utf-8")
