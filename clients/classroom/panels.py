"""What the classroom writes on its panels: rows of plain text, each with a style, cut to a width.

Where something had no room stands a sign ("…", "⋮", "and 38 more").
"""

import itertools
import textwrap
from collections import Counter

from clients.system.text import printable

BAD = "bold #b00020"
# The client's SYN was answered, but its last word found the accept queue full and was dropped.
LOST = ("ESTABLISHED", None)
HALF_OPEN = ("ESTABLISHED", "SYN-RECEIVED")  # the same, but the server's kernel still asks for it


def fit(text, width):
    """Return text in at most width columns; where it was cut stands a sign."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def some(names, width):
    """Return as many of the names as fit, and how many more there are."""
    for count in range(len(names), 0, -1):
        rest = f" and {len(names) - count} more" if count < len(names) else ""
        text = ", ".join(names[:count]) + rest
        if len(text) <= width:
            return text
    return f"{len(names)} of them" if names else "nobody"


def head(rows, height):
    """Return at most height rows; the last one then says how many there are besides."""
    if len(rows) <= height:
        return rows
    return [*rows[: height - 1], (f"… and {len(rows) - height + 1} more", "dim")]


def last(lines, width, height):
    """Return the last words of a server, as many as fit, in the colour of an alarm."""
    lines = [part for line in lines for part in textwrap.wrap(printable(line), width) or [""]]
    cut = len(lines) - height
    shown = [f"⋮ {cut + 1} lines", *lines[cut + 1 :]] if cut > 0 else lines
    return [(fit(line, width), "#b00020") for line in shown]


def size(count):
    """Return a number of bytes in a few characters."""
    return str(count) if count < 10_000 else f"{count / 1024:,.0f}K"


def source(threads, lines, anchors, name, width, height):
    """Return the lines on which threads stand, marked, and as much around them as has room.

    lines: of the program; anchors: numbers of lines to keep in view; name: a function from
    "host:port" to what that client is called.
    """
    marks = {}
    for line, what in standing(threads).items():
        marks[line] = [label(call, these, name) for call, these in what.items()]
    shown = around(anchors | set(marks), marks, len(lines), height)
    shown = shown or around(set(marks), marks, len(lines), height)
    rows, before = [], 0
    for line in [*shown, len(lines) + 1]:
        if line > before + 1:
            rows.append((f"     ⋮ {line - before - 1} lines", "dim"))
        if line <= len(lines):
            rows.append((f"{line:>4} {lines[line - 1]}", "bold" if line in marks else ""))
            rows += [(f"   ▶ {text}", "mark") for text in marks.get(line, [])]
        before = line
    return [(fit(text, width), style) for text, style in rows]


def standing(threads):
    """Return {line: {system call: [thread, ...]}} for the threads that are in the program."""
    places = {}
    for thread in threads:
        if thread["line"]:
            places.setdefault(thread["line"], {}).setdefault(thread["call"], []).append(thread)
    return places


def around(wanted, marks, last, height):
    """Return the wanted lines and as many neighbours as fit, the nearest first; none if none do."""

    def fits(lines):
        gaps = sum(b > a + 1 for a, b in itertools.pairwise([0, *sorted(lines), last + 1]))
        return len(lines) + gaps + sum(map(len, marks.values())) <= height

    shown = set(wanted)
    if not fits(shown):
        return []
    for reach in range(1, last):
        before = len(shown)
        for line in sorted(line + step for line in wanted for step in (-reach, reach)):
            if 1 <= line <= last and fits(shown | {line}):
                shown.add(line)
        if len(shown) == before:
            break
    return sorted(shown)


def label(call, threads, name):
    """Return what is said of the threads that stand on one line in one system call."""
    call = call or "here (what it sleeps in, only Linux tells)"
    if len(threads) > 1:
        peers = [thread["peer"] for thread in threads if thread["peer"]]
        return f"{len(threads)} threads: {call}" + (", each for its own client" if peers else "")
    [thread] = threads
    text = f"{thread['name']}: {call}"
    if thread["fd"] is not None:
        text += f"(fd {thread['fd']})"
    return text + (f", waiting for {name(thread['peer'])}" if thread["peer"] else "")


def kernel_side(view, limit, name, width, height):
    """Return the accept queue as a bar, who is in it, and each connection as the kernel has it."""
    rows = view["connections"]
    cells = min(limit, max(4, width - 26))
    full = "█" * round(cells * view["queue"] / limit)
    queued = [short(row, name) for row in rows if row["queued"]]
    asking = [short(row, name) for row in rows if row["theirs"] == "SYN-SENT"]
    half = [short(row, name) for row in rows if (row["theirs"], row["ours"]) == HALF_OPEN]
    dropped = [short(row, name) for row in rows if (row["theirs"], row["ours"]) == LOST]
    top = [
        (f"accept queue {full:░<{cells}} {view['queue']} of {limit}", "bold"),
        (f"  in it: {some(queued, width - 9)}", "bold #8a5a00" if queued else "dim"),
        (f"SYN-SENT: {some(asking, width - 10)}", BAD if asking else "dim"),
    ]
    if half:
        top.append((f"ACK dropped, still SYN-RECEIVED: {some(half, width - 33)}", BAD))
    if dropped:
        top.append((f"the server has no socket for: {some(dropped, width - 30)}", BAD))
    table = [(connection(row, name, width), "") for row in rows]
    if view["time_wait"]:
        table.append((f"TIME-WAIT: {view['time_wait']} (over; the kernel keeps the port)", "dim"))
    wide = width >= 62
    ends = f"{'its end':<13}{'at the server':<14}" if wide else f"{'state':<13}"
    title = (f"{'':<4}{ends}{'at':<6}{'unread':>8}{'unsent':>8}", "dim")
    return [
        (fit(text, width), style)
        for text, style in [*top, title, *head(table, height - len(top) - 1)]
    ]


def short(row, name):
    """Return what the client of a row is called where there is little room."""
    return name(row["client"]).removeprefix("client ")


def connection(row, name, width):
    """Return one connection: bytes are those in the server's buffers."""
    place = "queue" if row["queued"] else f"fd {row['fd']}" if row["fd"] is not None else "-"
    ends = f"{row['theirs'] or '-':<13}{row['ours'] or '-':<14}"
    if width < 62:
        ends = f"{row['ours'] or row['theirs']:<13}"
    return f"{short(row, name):<4}{ends}{place:<6}{size(row['unread']):>8}{size(row['unsent']):>8}"


def clients(cast, guests, chosen, width, height):
    """Return a row a client: what it does and since when, what it said and was told.

    guests: rows that tell of clients that nobody here conducts. The chosen one is always shown.
    """
    rows = []
    for puppet in cast:
        said = puppet_talk(puppet)
        sign = "▸" if puppet.number == chosen else " "
        text = f"{sign}{puppet.number:>3} {puppet.doing} {puppet.waited():.0f} s"
        rows.append((f"{text:<21} {said}", "reverse" if puppet.number == chosen else ""))
    rows += guests
    place = next((at for at, puppet in enumerate(cast) if puppet.number == chosen), 0)
    above = max(0, min(place - height // 2, len(rows) - height))
    if len(rows) <= height or height < 4:
        return [(fit(text, width), style) for text, style in head(rows, height)]
    shown = rows[above : above + height - 1]
    counts = Counter(puppet.doing for puppet in cast)
    tally = ", ".join(f"{count} {doing}" for doing, count in counts.items())
    more = f"… {len(rows)} in all: {tally}" + (f", {len(guests)} guests" if guests else "")
    return [(fit(text, width), style) for text, style in [*shown, (more, "dim")]]


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


def guest(called, address, row, said, seconds):
    """Return the row of a client that came by itself; said: as the server's log has it."""
    where = "connected" if row["fd"] is not None else "closed by the server"
    where = "in the accept queue" if row["queued"] else where
    heard = f"said {printable(said)}" if said else "has said nothing"
    return f" {called:>3} {address} {where} {seconds:.0f} s, {heard}", ""
