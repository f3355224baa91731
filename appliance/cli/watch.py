"""`appliance watch`: the lab, live."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from appliance.cli.connection import connect
from appliance.cli.lab import screen
from appliance.cli.show import echo, json_text
from appliance.printable import printable

_NEWS_SHOWN: Final = 15  # lines below the screen


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document a line.")
@click.pass_context
def watch(ctx: click.Context, as_json: bool) -> None:
    """Show the lab live: the screen of `appliance status`, and events as they happen.

    The server sends events; the command does not poll.  If standard output is not a terminal,
    it prints one line for each event.  It ends with Ctrl-C, or when the server stops (exit code 5).
    """
    with connect(ctx) as server:
        events = (message["event"] for message in server.follow("watch") if "event" in message)
        if as_json:
            for event in events:
                echo(json_text(event))
        elif sys.stdout.isatty():
            _live(events)
        else:
            for event in events:
                for news in event["news"]:
                    echo(line(news))
    from appliance.errors import NotRunning

    raise NotRunning("the server stopped")


def line(news: Mapping[str, Any]) -> str:
    """Formats one event as a line."""
    words = [
        str(news[key])
        for key in ("time", "job_id", "job_stage", "job_health", "testbox", "state")
        if news.get(key)
    ]
    said = str(news.get("message") or "")
    text = "  ".join([*words, said] if said else words)
    return printable(text)


def _live(events: Iterator[Mapping[str, Any]]) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    told: deque[str] = deque(maxlen=_NEWS_SHOWN)
    with Live(screen=False, auto_refresh=False) as live:
        for event in events:
            told += [line(news) for news in event["news"]]
            lines = [
                Text(text, style="bold red" if text.startswith("! ") else "", no_wrap=True)
                for text in screen(event["status"])
            ]
            news = [Text(text, style="dim", no_wrap=True) for text in told]
            live.update(Group(*lines, Text(""), *news), refresh=True)
