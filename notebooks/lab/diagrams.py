"""Pictures of TCP besides the ladders: its states, its queues, and how long things wait."""

import itertools

from lab.ladder import COLOUR, END_COLOUR, GREY, OPEN, OPENING, caption, spells
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from load_tests.measuring.charts import draw, number

# RFC 9293, figure 5: where each state stands, and what leads from one to the next.
PLACES = {
    "CLOSED": (1.5, 6),
    "LISTEN": (0.5, 5),
    "SYN-SENT": (2.5, 5),
    "SYN-RECEIVED": (0.5, 4),
    "ESTABLISHED": (1.5, 3),
    "FIN-WAIT-1": (0.5, 2),
    "CLOSE-WAIT": (2.5, 2),
    "FIN-WAIT-2": (0, 1),
    "CLOSING": (1.25, 1),
    "LAST-ACK": (2.5, 1),
    "TIME-WAIT": (0.5, 0),
    "CLOSED ": (2.5, 0),
}
STEPS = {
    ("CLOSED", "LISTEN"): "listen()",
    ("CLOSED", "SYN-SENT"): "connect(): send SYN",
    ("LISTEN", "SYN-RECEIVED"): "SYN comes: send SYN ACK",
    ("SYN-SENT", "ESTABLISHED"): "SYN ACK comes: send ACK",
    ("SYN-RECEIVED", "ESTABLISHED"): "ACK comes",
    ("ESTABLISHED", "FIN-WAIT-1"): "close(): send FIN",
    ("ESTABLISHED", "CLOSE-WAIT"): "FIN comes: send ACK",
    ("FIN-WAIT-1", "FIN-WAIT-2"): "ACK comes",
    ("FIN-WAIT-1", "CLOSING"): "FIN comes:\nsend ACK",
    ("FIN-WAIT-1", "TIME-WAIT"): "FIN ACK\ncomes",
    ("FIN-WAIT-2", "TIME-WAIT"): "FIN comes: send ACK",
    ("CLOSING", "TIME-WAIT"): "ACK comes",
    ("CLOSE-WAIT", "LAST-ACK"): "close(): send FIN",
    ("LAST-ACK", "CLOSED "): "ACK comes",
    ("TIME-WAIT", "CLOSED "): "60 s pass",
}


def lasted(data, end, port=None):
    """Return {state: seconds that a connection was in it at one end, None: it still was}."""
    return {
        state: None if ended is None else ended - began
        for state, began, ended in spells(data, end, port)
    }


def diagram(paths, title, note, key=True):
    """Draw TCP's states and mark those that were seen.

    paths: {name: (colour, what lasted() returns)}. Of paths in one colour the longest stay counts.
    key: whether to write the names.
    """

    def panel(ax):
        ax.set(xlim=(-0.55, 3.15), ylim=(-0.5, 6.45))
        ax.axis("off")
        seen = {state: {} for state in PLACES}
        for colour, path in paths.values():
            for state in reached(path):
                times = [seen[state].get(colour), path.get(state.strip())]
                seen[state][colour] = max((time for time in times if time), default=None)
        boxes = {state: node(ax, state, seen[state]) for state in PLACES}
        walked = {step: colour for colour, path in paths.values() for step in steps(path)}
        for step, text in STEPS.items():
            edge(ax, boxes, step, text, walked.get(step))
        for rank, (name, (colour, _)) in enumerate(paths.items() if key else ()):
            ax.text(-0.5, 6.3 - 0.25 * rank, name, color=colour, fontweight="bold", fontsize=11)
        caption(ax, note)
        ax.set_title(title, pad=10)

    return draw(10, 8.2, panel)


def steps(seen):
    """Return the steps of the diagram that a path took: [(state, next state), ...]."""
    states = list(seen)
    if states and states[0] == "SYN-SENT":
        states.insert(0, "CLOSED")
    if states and states[0] == "SYN-RECEIVED":
        states[:0] = ["CLOSED", "LISTEN"]
    if states[-1] == "CLOSED":
        states[-1] = "CLOSED "
    return list(itertools.pairwise(states))


def reached(seen):
    return {state for step in steps(seen) for state in step}


def node(ax, state, seen):
    """Draw a state, with how long it lasted on each path that came by, and return its box."""
    x, y = PLACES[state]
    times = [(colour, spoken(seconds)) for colour, seconds in seen.items() if seconds]
    box = FancyBboxPatch((x - 0.3, y - 0.16), 0.6, 0.32, boxstyle="round,pad=0.02", zorder=3)
    box.set(facecolor=COLOUR[state.strip()] if seen else "white", lw=2.5 if seen else 1)
    box.set_edgecolor(next(iter(seen)) if len(seen) == 1 else "black" if seen else "#BBBBBB")
    ax.add_patch(box)
    ax.text(
        x,
        y + (0.06 if times else 0),
        state.strip(),
        ha="center",
        va="center",
        zorder=4,
        fontweight="bold",
        fontsize=10,
        color="black" if seen else "#777777",
    )
    for rank, (colour, text) in enumerate(times):
        ax.text(
            x + 0.3 * (rank - (len(times) - 1) / 2),
            y - 0.09,
            text,
            ha="center",
            va="center",
            zorder=4,
            fontsize=9.5,
            color="black" if len(times) == 1 else colour,
        )
    return box


def spoken(seconds):
    return f"{number(seconds * 1000)} ms" if seconds < 1 else f"{seconds:.1f} s"


def edge(ax, boxes, step, text, colour):
    (x, y), (u, v) = (PLACES[state] for state in step)
    ends = dict(zip(("patchA", "patchB"), (boxes[state] for state in step), strict=True))
    arrow = FancyArrowPatch((x, y), (u, v), arrowstyle="-|>", mutation_scale=16, zorder=2, **ends)
    arrow.set(color=colour or "#CCCCCC", lw=3 if colour else 1)
    ax.add_patch(arrow)
    ax.text(
        (x + u) / 2,
        (y + v) / 2,
        text,
        ha="center",
        va="center",
        fontsize=8.5,
        zorder=2.5,
        color="black" if colour else "#777777",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


def bars(rows, title, unit, sources):
    """Draw rows of parts: {row: [(how many, what they are, colour, hatch), ...]}."""

    def panel(ax):
        for place, parts in enumerate(rows.values()):
            left = 0
            for count, _, colour, hatch in parts:
                ax.barh(place, count, left=left, color=colour, edgecolor="black", hatch=hatch)
                left += count
            said = ", ".join(f"{count} {what}" for count, what, _, _ in parts if count)
            ax.text(left, place, "  " + said, va="center")
        ax.set_yticks(range(len(rows)), rows)
        longest = max(sum(part[0] for part in parts) for parts in rows.values())
        ax.set_xlim(0, 2.3 * longest)  # room for the words
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.invert_yaxis()
        ax.grid(visible=False)
        ax.set_xlabel(unit)
        ax.set_title(title)
        caption_below(ax, sources)

    return draw(10, 1.8 + 0.5 * len(rows), panel)


def queue_bars(results, title):
    """Draw how many clients of each server were connected: {name: accept_queue()}."""
    rows = {}
    for name, data in results.items():
        connected = sum(client["connected"] is not None for client in data["clients"])
        waiting = len(data["clients"]) - connected
        rows[name] = [(connected, "connected", OPEN, ""), (waiting, "in SYN-SENT", OPENING, "//")]
    return bars(rows, title, "clients", results)


def handshake_bars(results, title):
    """Draw what became of clients whose handshakes cannot finish: {name: syn_queue()}."""
    rows = {}
    for name, data in results.items():
        kept, cookies = data["half_open"], data["counted"].get("SyncookiesSent", 0)
        dropped = data["clients"] - kept - cookies
        rows[name] = [
            (kept, "kept in the SYN queue", OPEN, ""),
            (cookies, "answered by cookie", OPENING, ".."),
            (dropped, "not answered", "white", "//"),
        ]
    return bars(rows, title, "clients whose last ACK was lost", results)


def caption_below(ax, results):
    sources = dict.fromkeys(data["source"] for data in results.values())
    ax.annotate(
        "; ".join(sources),
        (0, 0),
        (0, -48),
        xycoords="axes fraction",
        color=GREY,
        textcoords="offset points",
        fontsize=9,
    )


def attempts(results, title):
    """Draw each SYN of the clients that had to wait: {name: accept_queue()}, a row a client.

    A cross is a SYN that the server's kernel threw away, a circle one that it answered.
    """

    def panel(ax):
        place, ticks = 0, []
        for name, data in results.items():
            for client in data["clients"]:
                times = [
                    p["at"]
                    for p in data["packets"]
                    if p["port"] == client["port"] and p["flags"] == "SYN"
                ]
                if len(times) > 1:
                    waiting_row(ax, place, times, client)
                    ticks.append((place, f"{name}, client {1 + data['clients'].index(client)}"))
                    place += 1
        ax.set_yticks(*zip(*ticks, strict=True))
        ax.invert_yaxis()
        ax.set_ylim(top=-0.7)
        ax.set_xlabel("seconds since connect() was called")
        ax.grid(visible=False, axis="y")
        ax.set_title(title)
        caption_below(ax, results)
        return place

    return draw(10, 4.6, panel)


def waiting_row(ax, place, times, client):
    start, done = client["began"], client["connected"]
    times = [at - start for at in times]
    end = times[-1] if done is None else done - start
    ax.plot([0, end], [place, place], color=OPENING, lw=6, solid_capstyle="butt", zorder=1)
    lost = times if done is None else times[:-1]
    ax.plot(lost, [place] * len(lost), "x", color="black", ms=8, mew=2, zorder=2)
    if done is not None:
        ax.plot(times[-1], place, "o", color=END_COLOUR["client"], ms=9, zorder=2)
    for at in times:
        ax.annotate(
            f"{at:.1f}", (at, place), (0, 8), textcoords="offset points", ha="center", fontsize=9
        )


def left_over(data):
    """Return the port of a client that connected, and that the server does not know as such."""
    known = data["ends"]["server"]
    return next(
        client["port"]
        for client in data["clients"]
        if client["connected"] and known.get(str(client["port"])) != "ESTABLISHED"
    )


def countdown(data, title):
    """Draw how long TIME-WAIT has still to last, and who may listen on the port meanwhile."""

    def panel(ax):
        at, left = zip(*data["timer"], strict=True)
        ax.plot(at, left, color=GREY)
        ax.text(at[0], left[0], "  what the kernel's timer says", va="bottom", color=GREY)
        for reuse, place, name in ((False, -9, "without SO_REUSEADDR"), (True, -18, "with it")):
            tries = [one for one in data["attempts"] if one["reuse"] == reuse]
            for works, marker, colour in ((False, "x", "#A05A2C"), (True, "o", "#009E73")):
                times = [one["at"] for one in tries if (one["error"] is None) == works]
                ax.plot(times, [place] * len(times), marker, color=colour, ms=6, ls="")
            ax.text(at[0], place + 2.2, f"bind() and listen() {name}", fontsize=9.5)
        ax.set_ylim(-21, 66)
        ax.set_yticks(range(0, 61, 20))
        ax.set_xlabel("seconds since the client connected")
        ax.set_ylabel("seconds that TIME-WAIT still lasts")
        ax.set_title(title)
        caption_below(ax, {"": data})

    return draw(10, 5, panel)
