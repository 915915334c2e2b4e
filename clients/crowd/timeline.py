"""A crowd on the terminal: the timeline, a row a client, and the scoreboard in words."""

from collections import Counter

from rich.console import Group
from rich.table import Table
from rich.text import Text

from clients.console.printable import printable
from clients.crowd.simulation import ENDS
from clients.crowd.stats import intervals, scoreboard, state

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
KINDS = 3  # of failures that are told
STEPS = [factor * ten for ten in (0.01, 0.1, 1, 10, 100, 1000) for factor in (1, 2, 5)]


def picture(data, width, height):
    """Return the timeline for a terminal of so many columns and rows."""
    until, board = data["seconds"], Table.grid(padding=(0, 1))
    columns = max(10, width - len(str(len(data["clients"]))) - STATUS - 3)
    cell = next((step for step in STEPS if step * columns > until), STEPS[-1])
    shown = data["clients"][: max(1, height - 5)]
    rest = data["clients"][len(shown) :]
    for client in shown:
        number = Text(str(client["number"]), justify="right")
        board.add_row(number, past(client, until, cell), present(client, until))
    board.add_row("", axis(columns, cell), "")
    return Group(board, *([others(rest, until)] if rest else []), legend())


def at_the_end(data, console):
    """Return the timeline that leaves room below it for the summary, and for the prompt."""
    below = len(console.render_lines(summary(data))) + 1
    return picture(data, console.width, console.height - below)


def past(client, until, cell):
    """Return what one client has done, so many seconds a character."""
    line = [None] * (int(until / cell) + 1)
    for name, began, ended in intervals(client, until):
        for place in range(int(began / cell), int(ended / cell) + 1):
            line[place] = name
    for at, what in client["events"]:
        if what in LOOKS:
            line[int(at / cell)] = what
    return Text("", no_wrap=True).join(Text(*LOOKS.get(name, (" ", ""))) for name in line)


def present(client, until):
    """Return what one client does now, and for how long it has done it."""
    name, seconds = state(client, until)
    text = name if name in (*ENDS, "to come") else f"{name} {seconds:.1f} s"
    return Text(f"{text:<{STATUS}}", style=LOOKS.get(name, ("", ""))[1], no_wrap=True)


def axis(columns, cell):
    """Return the seconds under the picture, every ten characters."""
    marks = [f"{place * cell:g} s" for place in range(0, columns - 9, 10)]
    return Text("".join(f"{mark:<10}" for mark in marks), style="dim")


def others(clients, until):
    """Return one line about the clients for whom there is no row."""
    states = [state(client, until)[0] for client in clients]
    counts = ", ".join(f"{states.count(name)} {name}" for name in dict.fromkeys(states))
    return Text(f"and {len(clients)} more: {counts}", style="bold")


def legend():
    """Return what the signs mean."""
    text = Text(no_wrap=True)
    for name, (sign, style) in LOOKS.items():
        text.append(f"{sign} ", style).append(f"{name}  ")
    return text


def summary(data):
    """Return the scoreboard as a table, with the questions and the clients each in a sentence."""
    board, clients = scoreboard(data), data["clients"]
    table = Table.grid(padding=(0, 1))
    for name in ("asked", "answered", "still waiting", "never served"):
        table.add_row(Text(str(board[name]), justify="right"), name)
    ends = ", ".join(f"{board[end]} {end}" for end in ENDS)
    came = f"{board['came']} of {len(clients)} clients came: {ends}; {data['seconds']:.1f} s"
    failed = [one["error"] for one in clients if state(one, data["seconds"])[0] == "failed"]
    return Group(came, table, *why(failed))


def why(errors):
    """Yield what those who failed were told, the commonest KINDS of it with their numbers.

    All that they were told could scroll the picture away.
    """
    kinds = Counter(errors).most_common(KINDS)
    for error, count in kinds:
        yield Text(printable(f"{count} failed: {error}"))
    if rest := len(errors) - sum(count for _, count in kinds):
        yield Text(f"and {rest} more failed")
