"""What the classroom writes on its panels: rows of plain text, each with a style.

width, height: the columns and rows of the panel. names: {"host:port": what that client is called}.
What is too wide is cut by the screen, with "…";
where there was no room for more rows, or more names, a sign says so ("⋮", "and 38 more").
"""

import itertools
import math
from collections import Counter

from rich.cells import cell_len
from textual.content import Content

from clients.console.printable import printable

BAD = "bold #b00020"
# The client's SYN was answered, but its last word found the accept queue full and was dropped.
LOST = ("ESTABLISHED", None)
HALF_OPEN = ("ESTABLISHED", "SYN-RECEIVED")  # the same, but the server's kernel still asks for it
WIDE = 53  # columns from which a table has room for the states of both ends


def head(rows, height):
    """Return at most height rows; the last one then says how many there are besides."""
    if len(rows) <= height:
        return rows
    return [*rows[: height - 1], (f"… and {len(rows) - height + 1} more", "dim")]


def last(text, width, height):
    """Return the last words of a server, as many as fit, in the colour of an alarm."""
    lines = [
        part.plain.rstrip()
        for line in text.splitlines()
        for part in Content(printable(line)).wrap(
            width
        )  # in columns: a Chinese character takes two
    ]
    cut = len(lines) - height
    shown = [f"⋮ {cut + 1} lines", *lines[cut + 1 :]] if cut > 0 else lines
    return [(line, "#b00020") for line in shown]


def size(count):
    """Return a number of bytes in a few characters."""
    return str(count) if count < 10_000 else f"{count / 1024:,.0f}K"


def source(stage, names, height):
    """Return the lines on which threads stand, marked, and as much around them as has room.

    Lines on which one has slept before are kept in view where they fit.
    """
    if stage.plain:
        words = "it is no Python program:", "its lines cannot be shown,", "only the kernel's side"
        return head([(text, "dim") for text in words], height)
    lines = stage.lines
    marks = {
        line: [label(call, these, names) for call, these in what.items()]
        for line, what in standing(stage.threads).items()
    }
    line, values = stage.walk.variables(lambda number: lines[number - 1])
    if line in marks:
        marks[line] += [f"   {named(value, names)}" for value in values]
    shown = around(stage.anchors | set(marks), marks, len(lines), height)
    shown = shown or around(set(marks), marks, len(lines), height)
    rows, before = [], 0
    for line in [*shown, len(lines) + 1]:
        if line > before + 1:
            rows.append((f"     ⋮ {line - before - 1} lines", "dim"))
        if line <= len(lines):
            rows.append((f"{line:>4} {lines[line - 1]}", "bold" if line in marks else ""))
            rows += [(f"   ▶ {text}", "mark") for text in marks.get(line, [])]
        before = line
    return rows


def named(text, names):
    """Return a text in which connections are called by their clients."""
    for peer, name in names.items():
        text = text.replace(f"connection with {peer} ", f"{name} ")
    return text


def standing(threads):
    """Return {line: {system call: [thread, ...]}} for the threads that are in the program."""
    places = {}
    for thread in threads:
        if thread.line:
            places.setdefault(thread.line, {}).setdefault(thread.call, []).append(thread)
    return places


def around(wanted, marks, last, height):
    """Return the wanted lines and as many neighbours as fit, the nearest first; none if none do."""

    def fits(lines):
        gaps = sum(b > a + 1 for a, b in itertools.pairwise([0, *sorted(lines), last + 1]))
        return len(lines) + gaps + sum(map(len, marks.values())) <= height

    def distance(line):
        return min((abs(line - other) for other in wanted), default=line)

    shown = set()
    for line in sorted(range(1, last + 1), key=distance):
        if not fits(shown | {line}):
            break
        shown.add(line)
    return sorted(shown) if wanted <= shown else []


def label(call, threads, names):
    """Return what is said of the threads that stand on one line in one system call."""
    call = call or "here (what it sleeps in, only Linux tells)"
    if len(threads) > 1:
        peers = [thread.remote for thread in threads if thread.remote]
        return f"{len(threads)} threads: {call}" + (", each for its own client" if peers else "")
    [thread] = threads
    fd, peer = thread.fd, thread.remote
    text = f"{thread.name}: {call}" + ("" if fd is None else f"(fd {fd})")
    return text + (f", waiting for {names.get(peer, peer)}" if peer else "")


def kernel_side(stage, names, width, height):
    """Return the accept queue as a bar, who is in it, and each connection as the kernel has it."""
    rows = stage.connections
    cells = min(stage.limit, max(4, width - 26))
    full = "█" * math.ceil(cells * stage.queue / stage.limit)
    queued = [short(row, names) for row in rows if row.queued]
    asking = [short(row, names) for row in rows if row.theirs == "SYN-SENT"]
    half = [short(row, names) for row in rows if row.states == HALF_OPEN]
    dropped = [short(row, names) for row in rows if row.states == LOST]
    top = [
        (f"accept queue {full:·<{cells}} {stage.queue} of {stage.limit}", "bold"),
        (some("  in it: ", queued, width), "bold #8a5a00" if queued else "dim"),
        (some("SYN-SENT: ", asking, width), BAD if asking else "dim"),
    ]
    if half:
        top.append((some("ACK dropped, still SYN-RECEIVED: ", half, width), BAD))
    if dropped:
        top.append((some("the server has no socket for: ", dropped, width), BAD))
    table = [(connection(row, names, width), "") for row in rows]
    if stage.time_wait:
        table.append((f"TIME-WAIT: {stage.time_wait} (over; the kernel keeps the port)", "dim"))
    ends = f"{'its end':<13}{'at the server':<14}" if width >= WIDE else f"{'state':<13}"
    title = (f"{'':<4}{ends}{'at':<6}{'unread':>8}{'unsent':>8}", "dim")
    return [*top, title, *head(table, height - len(top) - 1)]


def some(what, names, width):
    """Return what and as many of the names as fit, and how many more there are."""
    for count in range(len(names), 0, -1):
        rest = f" and {len(names) - count} more" if count < len(names) else ""
        text = what + ", ".join(names[:count]) + rest
        if cell_len(text) <= width:
            return text
    return what + (f"{len(names)} of them" if names else "nobody")


def short(row, names):
    """Return what the client of a connection is called where there is little room."""
    return names.get(row.client, row.client).removeprefix("client ")


def connection(row, names, width):
    """Return one connection: bytes are those in the server's buffers."""
    place = "queue" if row.queued else "-" if row.fd is None else f"fd {row.fd}"
    ends = f"{row.theirs or '-':<13}{row.ours or '-':<14}"
    if width < WIDE:
        ends = f"{row.ours or row.theirs:<13}"
    return f"{short(row, names):<4}{ends}{place:<6}{size(row.unread):>8}{size(row.unsent):>8}"


def clients(cast, guests, chosen, height, lost=()):
    """Return a row a client: what it does and since when, what it said and was told.

    guests: rows that tell of clients that nobody here conducts. The chosen one is always shown.
    lost: the names of those who believe that they are connected, and the server has no socket.
    If there are more than fit, the first row counts them: there no note to the teacher hides it.
    """
    does = {one: "no server socket" if one.name in lost else one.doing for one in cast}
    rows = [*(puppet_row(one, does[one], one.number == chosen) for one in cast), *guests]
    if len(rows) <= height or height < 4:
        return head(rows, height)
    place = next((at for at, puppet in enumerate(cast) if puppet.number == chosen), 0)
    above = max(0, min(place - height // 2, len(rows) - height + 1))
    counts = Counter(does.values())
    tally = ", ".join(f"{count} {doing}" for doing, count in counts.items())
    more = f"{len(rows)} in all: {tally}" + (f", {len(guests)} guests" if guests else "")
    return [(more, "bold"), *rows[above : above + height - 1]]


def puppet_row(puppet, doing, chosen):
    """Return the row of a client that the teacher conducts; doing: what it does, in words."""
    sign, style = ("▸", "reverse") if chosen else (" ", "")
    text = f"{sign}{puppet.number:>3} {doing} {puppet.waited():.0f} s"
    return f"{text:<21} {puppet_talk(puppet)}", style


def puppet_talk(puppet):
    """Return what a puppet said last and what it was told."""
    if puppet.doing == "broke off":
        return puppet.why
    if not puppet.reading:
        return f"{size(puppet.flooded)} bytes asked"
    if not puppet.said:
        return ""
    told = repr(puppet.told)[2:-1] if puppet.told else "(none yet)"
    return f"{repr(puppet.said)[2:-1]} → {told}"


def guest_row(row, called, said, seconds):
    """Return the row of a client that came by itself; said: as the server's log has it."""
    where = "closed by the server" if row.fd is None else "connected"
    where = "in the accept queue" if row.queued else where
    heard = f"said {printable(said)}" if said else "has said nothing"
    return f" {called:>3} {row.client} {where} {seconds:.0f} s, {heard}", ""
