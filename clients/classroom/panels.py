"""The texts of the classroom's panels.

A row is a list of Cells. width, height: the columns and rows of a panel. names: {"host:port": the
client's label}. rows: {label: Connection}. The screen cuts what is too wide, with "…"; where rows
or names are left out, a sign says so ("⋮", "and 38 more").
"""

import itertools
import math
import re
from collections import Counter
from typing import NamedTuple

from rich.cells import cell_len
from textual.content import Content

from clients.console.printable import printable

# The client's SYN was answered, but its last ACK found the accept queue full and was dropped.
LOST = ("ESTABLISHED", None)
HALF_OPEN = ("ESTABLISHED", "SYN-RECEIVED")  # the same, but the server's kernel keeps its request
WIDE = 53  # columns from which a table has room for the states of both ends


class Cell(NamedTuple):
    """A piece of a row."""

    text: str
    style: str = ""  # a key of app.STYLES
    key: tuple = ()  # what it shows: after a key press, a cell with another text is marked


def line(text, style="", key=()):
    return [Cell(text, style, key)]


def failure(log, status, program, lines, width, height):
    """Return the rows of a server that has ended: its last line, where it failed, its log."""
    reason = (log.strip() or status).splitlines()[-1]
    rows = [line(reason, "bad")]
    if failed := re.findall(rf'File "{re.escape(str(program))}", line (\d+)', log):
        rows += excerpt(lines, {int(failed[-1]): [reason]}, set(), max(4, height // 2))
    return rows + last_lines(f"{log}\n{status}", width, height - len(rows))


def last_lines(text, width, height):
    """Return the last lines of a text, wrapped, in the style of an error."""
    lines = [part for one in text.strip().splitlines() for part in wrapped(one, width)]
    cut = len(lines) - height
    shown = [f"⋮ {cut + 1} lines", *lines[cut + 1 :]] if cut > 0 else lines
    return [line(one, "bad") for one in shown]


def wrapped(text, width):
    """Return a text as lines of at most width columns; a Chinese character takes two."""
    return [part.plain.rstrip() for part in Content(printable(text)).wrap(width)]


def size(count):
    """Return a number of bytes in a few characters."""
    return str(count) if count < 10_000 else f"{count / 1024:,.0f}K"


def source(monitor, names, height):
    """Return the lines on which threads are, marked, and as much around them as fits."""
    if not monitor.is_python:
        words = "it is no Python program:", "its lines cannot be shown,", "only the kernel's side"
        return [line(text, "dim") for text in words][:height]
    lines = monitor.lines
    groups, marks = {}, {}
    for thread in monitor.threads:
        if thread.line:
            groups.setdefault((thread.line, thread.call), []).append(thread)
    for (number, call), threads in groups.items():
        marks.setdefault(number, []).append(label(call, threads, names))
    number, values = monitor.stepper.variables(lines)
    if number in marks:
        text = "\n".join([*marks.pop(number), *(f"   {value}" for value in values)])
        for address, name in names.items():
            text = text.replace(f"connection with {address} ", f"{name} ")
        marks = {number: text.split("\n")} | marks
    return excerpt(lines, marks, monitor.anchors, height)


def excerpt(lines, marks, anchors, height):
    """Return numbered lines of a program: those with marks, those of anchors, and neighbours.

    marks: {number of a line: texts to be shown below it}; the first ones are shown in any case.
    """
    shown = around(anchors | set(marks), marks, len(lines), height)
    while not shown and marks:
        shown = around(set(marks), marks, len(lines), height)
        marks = marks if shown else dict(list(marks.items())[:-1])
    rows, before = [], 0
    for number in [*shown, len(lines) + 1]:
        if number > before + 1:
            left_out = number - before - 1
            rows.append(line(f"     ⋮ {left_out} line{'s' * (left_out > 1)}", "dim"))
        if number <= len(lines):
            rows.append(line(f"{number:>4} {lines[number - 1]}", "bold" if number in marks else ""))
            for text in marks.get(number, []):
                rows.append([Cell("   ▶ ", "mark", ("mark", number, text)), Cell(text, "mark")])
        before = number
    return rows


def around(wanted, marks, last, height):
    """Return the wanted lines and as many neighbours as fit, the nearest first; none if none do."""

    def fits(lines):
        gaps = sum(b > a + 1 for a, b in itertools.pairwise([0, *sorted(lines), last + 1]))
        return len(lines) + gaps + sum(map(len, marks.values())) <= height

    def distance(number):
        return min((abs(number - other) for other in wanted), default=number)

    shown = set()
    for number in sorted(range(1, last + 1), key=distance):
        if not fits(shown | {number}):
            break
        shown.add(number)
    return sorted(shown) if wanted <= shown else []


def label(call, threads, names):
    """Return the text for the threads that are on one line in one system call."""
    call = call or "here (its system call is known on Linux only)"
    if len(threads) > 1:
        each = any(thread.remote for thread in threads)
        return f"{len(threads)} threads: {call}" + (", each for its own client" if each else "")
    [thread] = threads
    name = thread.name.partition(" ")[0].replace("Thread-", "t")
    text = f"{name}: {call}" + ("" if thread.fd is None else f"({thread.fd})")
    arrow = "→" if call.startswith("send") else "←"
    return text + (f" {arrow} {names.get(thread.remote, thread.remote)}" if thread.remote else "")


def queue(monitor, rows, width):
    """Return the rows about the accept queue: a bar, the clients in it and those outside of it."""
    cells = min(monitor.limit, max(4, width - 26))
    bar = "█" * math.ceil(cells * monitor.queue / monitor.limit)
    count = f"{monitor.queue} of {monitor.limit}"
    found = [[Cell(f"accept queue {bar:·<{cells}} ", "bold"), Cell(count, "bold", ("queue",))]]
    for title, style, always, condition in (
        ("  in it: ", "waiting", True, lambda row: row.queued),
        ("SYN-SENT: ", "bad", True, lambda row: row.client_state == "SYN-SENT"),
        ("ACK dropped, still SYN-RECEIVED: ", "bad", False, lambda row: row.states == HALF_OPEN),
        ("the server has no socket for: ", "bad", False, lambda row: row.states == LOST),
    ):
        labels = [short(label) for label, row in rows.items() if condition(row)]
        if labels or always:
            style = style if labels else "dim"
            found.append([Cell(title, style), Cell(some(labels, width, title), style, (title,))])
    return found


def some(names, width, title=""):
    """Return as many of the names as fit next to the title, and how many more there are."""
    for count in range(len(names), 0, -1):
        rest = f" and {len(names) - count} more" if count < len(names) else ""
        text = ", ".join(names[:count]) + rest
        if cell_len(title + text) <= width:
            return text
    return f"{len(names)} of them" if names else "none"


def short(name):
    """Return a client's label where there is little room."""
    return name.removeprefix("client ")


def connections(rows, left_out, chosen, width, height, time_wait):
    """Return a table with a title; its last row counts those not shown, left_out at least."""
    ends = f"{'client end':<13}{'server end':<14}" if width >= WIDE else f"{'state':<13}"
    title = line(f"{'':<5}{ends}{'at':<6}{'Recv-Q':>7}{'Send-Q':>7}", "dim")
    table = [connection(row, label, chosen, width) for label, row in rows.items()]
    if time_wait:
        table.append(line(f"TIME-WAIT: {time_wait} (closed; the kernel keeps the address)", "dim"))
    if left_out or len(table) >= height:
        left_out += len(table[height - 2 :])
        table[height - 2 :] = [line(f"… and {left_out} more (PgUp PgDn)", "dim")]
    return [title, *table]


def connection(row, label, chosen, width):
    client, server = row.client_state or "-", row.server_state or "-"
    style = "bad" if client == "SYN-SENT" else ""
    cells = [
        Cell(f"{client:<13}", style, (label, "client")),
        Cell(f"{server:<14}", "", (label, "server")),
    ]
    if width < WIDE:
        cells = [Cell(f"{row.server_state or client:<13}", style, (label, "state"))]
    place = "queue" if row.queued else "-" if row.fd is None else f"fd {row.fd}"
    cells.append(Cell(f"{place:<6}", "", (label, "at")))
    for column, count in (("Recv-Q", row.recv_q), ("Send-Q", row.send_q)):
        cells.append(Cell(f"{size(count):>7}", "waiting" if count else "dim", (label, column)))
    sign, style = ("▸", "bold") if label == chosen else (" ", "")
    return [Cell(f"{sign}{short(label):<4}", style), *cells]


class Person(NamedTuple):
    label: str
    state: str
    seconds: float  # in that state
    talk: str  # what it sent and received


def clients(people, states, chosen, width, height):
    """Return a row per Person, the chosen one marked.

    states: those of all clients, if people are only some of them. If there are more than fit, the
    first row counts them; if all fit, a long text is wrapped and not cut where there is room.
    """
    rows = [client(one, chosen) for one in people]
    if len(states) > min(height, len(people)) and height >= 4:
        counts = ", ".join(f"{count} {state}" for state, count in Counter(states).items())
        return [line(f"{len(states)} in all: {counts}", "bold"), *rows[: height - 1]]
    in_full = [part for row in rows for part in wrap(row, width)]
    return (in_full if len(in_full) <= height else rows)[:height]


def client(one, chosen):
    sign, style = ("▸", "chosen") if one.label == chosen else (" ", "")
    return [
        Cell(f"{sign}{short(one.label):>3} ", style),
        Cell(one.state, style, (one.label, "does")),
        Cell(f" {one.seconds:.0f} s ".ljust(17 - len(one.state)), style),
        Cell(one.talk, style, (one.label, "talk")),
    ]


def wrap(row, width):
    """Return a row in as many rows as it needs, the following ones indented."""
    *first, last = row
    indent = sum(cell_len(cell.text) for cell in first)
    text, *more = wrapped(last.text, max(10, width - indent)) or [""]
    rest = [[Cell(" " * indent, last.style), last._replace(text=one)] for one in more]
    return [[*first, last._replace(text=text)], *rest]
