"""Draws a crowd on the terminal: the timeline, a row per client, and the summary."""

from collections import Counter

from rich.console import Group
from rich.table import Table
from rich.text import Text

from clients.console.printable import printable
from clients.crowd.simulation import ENDS
from clients.crowd.stats import intervals, state, summary

LOOKS = {  # state: its sign in the picture and its colour
    "connecting": ("~", "magenta"),
    "waiting": ("░", "yellow"),
    "answered": ("█", "green"),
    "thinking": ("─", "cyan"),
    "silent": ("┄", "red"),
    "cut off": ("x", "bold red"),
    "failed": ("!", "bold red"),
}
STATUS = len("connecting 3599.9 s")  # columns for what a client does now
KINDS = 3  # of failures that are printed
STEPS = [factor * ten for ten in (0.01, 0.1, 1, 10, 100, 1000) for factor in (1, 2, 5)]


def timeline(result, width, height):
    until, table = result.seconds, Table.grid(padding=(0, 1))
    columns = max(10, width - len(str(len(result.clients))) - STATUS - 3)
    cell = next((step for step in STEPS if step * columns > until), STEPS[-1])
    shown = result.clients[: max(1, height - 5)]
    rest = result.clients[len(shown) :]
    for client in shown:
        number = Text(str(client.number), justify="right")
        name, seconds = state(client, until)
        status = name if name in (*ENDS, "to come") else f"{name} {seconds:.1f} s"
        status = Text(f"{status:<{STATUS}}", LOOKS.get(name, ("", ""))[1], no_wrap=True)
        table.add_row(number, past(client, until, cell), status)
    marks = [f"{place * cell:g} s" for place in range(0, columns - 9, 10)]
    table.add_row("", Text("".join(f"{mark:<10}" for mark in marks), style="dim"), "")
    signs = Text(no_wrap=True)
    for name, (sign, style) in LOOKS.items():
        signs.append(f"{sign} ", style).append(f"{name}  ")
    counts = Counter(state(client, until)[0] for client in rest)
    others = ", ".join(f"{count} {name}" for name, count in counts.items())
    more = [Text(f"and {len(rest)} more: {others}", style="bold")] if rest else []
    return Group(table, *more, signs)


def final_timeline(result, console):
    """Return the timeline that leaves room below it for the summary and the prompt."""
    below = len(console.render_lines(summary_table(result))) + 1
    return timeline(result, console.width, console.height - below)


def past(client, until, cell):
    """Return the states of one client in time, a character per cell seconds."""
    line = [None] * (int(until / cell) + 1)
    for name, began, ended in intervals(client, until):
        for place in range(int(began / cell), int(ended / cell) + 1):
            line[place] = name
    for at, what in client.events:
        if what in LOOKS:
            line[int(at / cell)] = what
    return Text("", no_wrap=True).join(Text(*LOOKS.get(name, (" ", ""))) for name in line)


def summary_table(result):
    """Return the summary as text: the clients in a sentence, the questions in a table."""
    counts, table = summary(result), Table.grid(padding=(0, 1))
    for name in ("asked", "answered", "still_waiting", "unserved"):
        table.add_row(Text(str(getattr(counts, name)), justify="right"), name.replace("_", " "))
    ends = f"{counts.left} left, {counts.cut_off} cut off, {counts.failed} failed"
    came = f"{counts.came} of {len(result.clients)} clients came: {ends}; {result.seconds:.1f} s"
    errors = [one.error for one in result.clients if state(one, result.seconds)[0] == "failed"]
    kinds = Counter(errors).most_common(KINDS)  # all of them could scroll the timeline away
    failed = [Text(printable(f"{count} failed: {error}")) for error, count in kinds]
    if rest := len(errors) - sum(count for _, count in kinds):
        failed.append(Text(f"and {rest} more failed"))
    return Group(came, table, *failed)
