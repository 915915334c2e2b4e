"""The texts of the classroom's panels.

A row is a list of (text, style), the style as rich names it, or MODEL. width, height: the columns
and rows of a panel. names: {"host:port": the client's label}. clients: a ClientRow of each, or of
those that are shown. The screen cuts what is too wide, with "…"; where rows or names are left out,
a sign says so ("⋮", "and 38 more").
"""

import itertools
import math
import re
from collections import Counter

from rich.cells import cell_len
from textual.content import Content

from clients.console.printable import printable

WIDE = 53  # columns from which a table has room for the states of both ends
BAD, WAITING, MODEL = "bold #b00020", "bold #7a4f00", "model"  # MODEL: in the model's colour


def failure(monitor, width, height):
    """Return the rows of a server that has ended: its last line, where it failed, its log."""
    log, status = monitor.ended
    reason = (log.strip() or status).splitlines()[-1]
    rows = [[(reason, BAD)]]
    if failed := re.findall(rf'File "{re.escape(str(monitor.program))}", line (\d+)', log):
        rows += excerpt(monitor.lines, {int(failed[-1]): [reason]}, set(), max(4, height // 2))
    return rows + last_lines(f"{log}\n{status}", width, height - len(rows))


def last_lines(text, width, height):
    """Return the last lines of a text, wrapped, in the style of an error."""
    whole = [Content(printable(one)) for one in text.strip().splitlines()]
    lines = [part.plain.rstrip() for one in whole for part in one.wrap(width)]
    cut = len(lines) - height
    shown = [f"⋮ {cut + 1} lines", *lines[cut + 1 :]] if cut > 0 else lines
    return [[(one, BAD)] for one in shown]


def size(count):
    """Return a number of bytes in a few characters."""
    return str(count) if count < 10_000 else f"{count / 1024:,.0f}K"


def source(monitor, names, height):
    """Return the lines on which threads are, marked, and as much around them as fits."""
    lines = monitor.lines
    groups, marks = {}, {}
    for thread in monitor.threads:
        if thread.line:
            groups.setdefault((thread.line, thread.call or "running"), []).append(thread)
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
    wanted = anchors | set(marks)
    while not (shown := around(wanted, marks, len(lines), height)) and marks:
        if wanted == set(marks):
            marks = dict(list(marks.items())[:-1])
        wanted = set(marks)
    rows, before = [], 0
    for number in [*shown, len(lines) + 1]:
        if number > before + 1:
            left_out = number - before - 1
            rows.append([(f"     ⋮ {left_out} line{'s' if left_out > 1 else ''}", "dim")])
        if number <= len(lines):
            style = "bold" if number in marks else ""
            rows.append([(f"{number:>4} {lines[number - 1]}", style)])
            rows += [[(f"   ▶ {text}", MODEL)] for text in marks.get(number, [])]
        before = number
    return rows


def around(wanted, marks, last, height):
    """Return the wanted lines and as many neighbours on both sides as fit; none if none do."""
    shown = []
    for count in range(2 * height + 1):  # more lines never need fewer rows
        near = (range(one - count // 2, one + (count + 1) // 2 + 1) for one in wanted or {1})
        lines = sorted(set(itertools.chain(*near)) & set(range(1, last + 1)))
        gaps = sum(b > a + 1 for a, b in itertools.pairwise([0, *lines, last + 1]))
        if len(lines) + gaps + sum(map(len, marks.values())) > height:
            break
        shown = lines
    return shown


def label(call, threads, names):
    """Return the text for the threads that are on one line in one system call."""
    if len(threads) > 1:
        each = any(thread.remote for thread in threads)
        return f"{len(threads)} threads: {call}" + (", each for its own client" if each else "")
    [thread] = threads
    name = thread.name.partition(" ")[0].replace("Thread-", "t")
    text = f"{name}: {call}" + ("" if thread.fd is None else f"({thread.fd})")
    arrow = "→" if call.startswith("send") else "←"
    return text + (f" {arrow} {names.get(thread.remote, thread.remote)}" if thread.remote else "")


def queue(monitor, clients, width):
    """Return the rows about the accept queue: a bar, the clients in it and those outside of it."""
    cells = min(monitor.limit, max(4, width - 26))
    bar = "█" * math.ceil(cells * monitor.queue / monitor.limit)
    found = [[(f"accept queue {bar:·<{cells}} {monitor.queue} of {monitor.limit}", "bold")]]
    groups = {"  in it: ": [], "SYN-SENT: ": []}
    for row in clients:
        if row.connection and (title := place(row.connection)):
            groups.setdefault(title, []).append(short(row.label))
    for title, labels in groups.items():
        style = "dim" if not labels else WAITING if title == "  in it: " else BAD
        found.append([(title + some(labels, width, title), style)])
    return found


def place(connection):
    """Return the title of the row for a connection that is not the program's; None if it is."""
    match connection.client_state, connection.server_state:
        case _ if connection.queued:
            return "  in it: "
        case "SYN-SENT", _:
            return "SYN-SENT: "
        case "ESTABLISHED", "SYN-RECEIVED":
            return "ACK dropped, still SYN-RECEIVED: "
        case "ESTABLISHED", None:
            return "the server has no socket for: "
    return None


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


def connections(clients, left_out, chosen, width, height, time_wait):
    """Return a table with a title; its last row counts those not shown, left_out at least."""
    ends = f"{'client end':<13}{'server end':<14}" if width >= WIDE else f"{'state':<13}"
    title = [(f"{'':<5}{ends}{'at':<6}{'Recv-Q':>7}{'Send-Q':>7}", "dim")]
    table = [connection(row.label, row.connection, chosen, width) for row in clients]
    if time_wait:
        table.append([(f"TIME-WAIT: {time_wait} (closed; the kernel keeps the address)", "dim")])
    if left_out or len(table) >= height:
        left_out += len(table[height - 2 :])
        table[height - 2 :] = [[(f"… and {left_out} more (PgUp PgDn)", "dim")]]
    return [title, *table]


def connection(label, one, chosen, width):
    client, server = one.client_state or "-", one.server_state or "-"
    ends = f"{client:<13}{server:<14}" if width >= WIDE else f"{one.server_state or client:<13}"
    at = "queue" if one.queued else "-" if one.fd is None else f"fd {one.fd}"
    sign, style = ("▸", "bold") if label == chosen else (" ", "")
    return [
        (f"{sign}{short(label):<4}", style),
        (ends, BAD if client == "SYN-SENT" else ""),
        (f"{at:<6}", ""),
        *((f"{size(count):>7}", WAITING if count else "dim") for count in (one.recv_q, one.send_q)),
    ]


def clients(shown, all_rows, chosen, height):
    """Return a row for each client that is shown, the chosen one marked.

    If not all fit, the first row counts them.
    """
    rows = [client(row, chosen) for row in shown]
    if len(all_rows) > min(height, len(rows)) and height >= 4:
        states = Counter(row.state for row in all_rows)
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        rows.insert(0, [(f"{len(all_rows)} in all: {counts}", "bold")])
    return rows[:height]


def client(row, chosen):
    sign, style = ("▸", "reverse") if row.label == chosen else (" ", "")
    state = f"{row.state} {row.seconds:.0f} s "
    return [(f"{sign}{short(row.label):>3} {state:<17}{row.talk}", style)]
