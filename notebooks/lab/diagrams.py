"""Pictures of TCP besides the sequence diagrams: its states, and the accept queue."""

import itertools

from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from clients.console.formatting import number
from load_tests.harness.charts import draw

from .sequence import COLOUR, END_COLOUR, GREY, OPENING, caption, legend, state_intervals, write

# RFC 9293, figure 5: the place of each state, and what leads from one to the next. A connection
# is CLOSED before it begins and again at the end; the diagram has a place for each.
END = "the end"
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
    END: (2.5, 0),
}
STEPS = {
    ("CLOSED", "LISTEN"): "listen()",
    ("CLOSED", "SYN-SENT"): "connect(): send SYN",
    ("LISTEN", "SYN-RECEIVED"): "SYN comes: send SYN-ACK",
    ("SYN-SENT", "ESTABLISHED"): "SYN-ACK comes: send ACK",
    ("SYN-RECEIVED", "ESTABLISHED"): "ACK comes",
    ("ESTABLISHED", "FIN-WAIT-1"): "close(): send FIN",
    ("ESTABLISHED", "CLOSE-WAIT"): "FIN comes: send ACK",
    ("FIN-WAIT-1", "FIN-WAIT-2"): "ACK comes",
    ("FIN-WAIT-1", "CLOSING"): "FIN comes:\nsend ACK",
    ("FIN-WAIT-1", "TIME-WAIT"): "FIN-ACK\ncomes:\nsend ACK",
    ("FIN-WAIT-2", "TIME-WAIT"): "FIN comes: send ACK",
    ("CLOSING", "TIME-WAIT"): "ACK comes",
    ("CLOSE-WAIT", "LAST-ACK"): "close(): send FIN",
    ("LAST-ACK", END): "ACK comes",
    ("TIME-WAIT", END): "60 s pass",
}
BEFORE = {"SYN-SENT": ["CLOSED"], "SYN-RECEIVED": ["CLOSED", "LISTEN"]}  # too short to be seen
WIDTH, HEIGHT = 0.6, 0.32  # of a state's box, in the units of PLACES
ANSWERED = END_COLOUR["client"]  # the colour of a SYN that was answered
UNSEEN = "#777777"  # the colour of states and arrows on no path


def state_durations(data, end, port=None):
    """Return {state: seconds that a connection was in it at one end, None: it still was}."""
    return {
        state: None if ended is None else ended - began
        for state, began, ended in state_intervals(data, end, port)
    }


def state_diagram(paths, title, note):
    """Return a Figure of TCP's states, with the paths marked: {name: (colour, durations)}.

    durations: of state_durations().
    """
    seen, taken = {place: {} for place in PLACES}, {}
    for colour, durations in paths.values():
        path = dict.fromkeys(BEFORE.get(next(iter(durations)), []))
        path |= {END if state == "CLOSED" else state: durations[state] for state in durations}
        taken |= dict.fromkeys(itertools.pairwise(path), colour)
        for place, seconds in path.items():
            seen[place][colour] = seconds

    def panel(ax):
        ax.set(xlim=(-0.55, 3.15), ylim=(-0.5, 6.45))
        ax.axis("off")
        boxes = {place: state_box(ax, place, seen[place]) for place in PLACES}
        for step, text in STEPS.items():
            transition(ax, boxes, step, text, taken.get(step))
        words = "stays in LISTEN:\neach SYN gets\na new socket"
        x, y = PLACES["LISTEN"]
        write(ax, (x - 0.6 * WIDTH, y), words, ha="right", fontsize=8.5)
        colours = {name: colour for name, (colour, _) in paths.items()}
        colours |= {"both": "black", "not taken in this experiment": UNSEEN}
        for rank, (name, colour) in enumerate(colours.items()):
            ax.text(-0.5, 6.3 - 0.25 * rank, name, color=colour, fontweight="bold", fontsize=11)
        legend(ax)
        caption(ax, note, below=40)
        ax.set_title(title, pad=10)

    return draw(10, 8.2, panel)


def state_box(ax, place, seen):
    """Draw a state and return its box; seen: {colour of a path: seconds or None}."""
    (x, y), state = PLACES[place], "CLOSED" if place == END else place
    times = [(colour, duration(seconds)) for colour, seconds in seen.items() if seconds]
    edge = "black" if len(seen) > 1 else next(iter(seen), "#BBBBBB")
    look = {"facecolor": COLOUR[state] if seen else "white", "lw": 2.5 if seen else 1, "zorder": 3}
    corner, style = (x - WIDTH / 2, y - HEIGHT / 2), "round,pad=0.02"
    box = FancyBboxPatch(corner, WIDTH, HEIGHT, boxstyle=style, edgecolor=edge, **look)
    ax.add_patch(box)
    look = {"color": "black" if seen else UNSEEN, "fontweight": "bold", "fontsize": 10}
    write(ax, (x, y + (0.06 if times else 0)), state, zorder=4, **look)
    for rank, (colour, text) in enumerate(times):
        middle = x + WIDTH / 2 * (rank - (len(times) - 1) / 2)
        colour = "black" if len(times) == 1 else colour
        write(ax, (middle, y - 0.09), text, zorder=4, fontsize=9.5, color=colour)
    return box


def duration(seconds):
    return f"{number(seconds * 1000)} ms" if seconds < 1 else f"{seconds:.1f} s"


def transition(ax, boxes, step, text, colour):
    """Draw the arrow from one state to the next, in the colour of the path that took it, if any."""
    (x, y), (u, v) = (PLACES[place] for place in step)
    ends = {"patchA": boxes[step[0]], "patchB": boxes[step[1]]}
    arrow = FancyArrowPatch((x, y), (u, v), arrowstyle="-|>", mutation_scale=16, zorder=2, **ends)
    arrow.set(color=colour or "#CCCCCC", lw=3 if colour else 1)
    ax.add_patch(arrow)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    look = {"color": "black" if colour else UNSEEN, "fontsize": 8.5, "bbox": box}
    write(ax, ((x + u) / 2, (y + v) / 2), text, zorder=2.5, **look)


def syn_timeline(results, title):
    """Return a Figure of each SYN of the clients that had to wait: {name: AcceptQueue}.

    A row per client; all begin at the first client's connect().
    """

    def panel(ax):
        rows = []
        for name, data in results.items():
            for rank, client in enumerate(data.clients, 1):
                packets = [p for p in data.packets if p.port == client.port]
                syns = [p.sent for p in packets if p.flags == "SYN"]
                if len(syns) > 1:
                    syn_row(ax, len(rows), syns, client, data.watched)
                    rows.append(f"{name}, client {rank}")
        room = max(call.ended for data in results.values() for call in data.calls)
        ax.axvline(room, color=GREY, ls="--", zorder=0)
        words = f"accept() at {room:.1f} s makes room for one client"
        ax.text(room, -0.75, words, color=GREY, ha="center", va="bottom", fontsize=10)
        ax.set_yticks(range(len(rows)), rows)
        ax.set_ylim(len(rows) - 0.5, -0.7)
        ax.set_xlim(right=1.13 * max(data.watched for data in results.values()))
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("seconds since the first client's connect()")
        ax.set_title(title, pad=22)
        look = {"frameon": False, "ncols": 3, "loc": "upper left", "bbox_to_anchor": (-0.25, -0.13)}
        ax.plot([], [], "x", color="black", ms=9, mew=2, label="a SYN that is dropped")
        ax.plot([], [], "o", color=ANSWERED, ms=9, label="a SYN that is answered")
        ax.plot([], [], color=OPENING, lw=6, label="the client waits in SYN-SENT")
        ax.legend(**look)
        sources = dict.fromkeys(data.source for data in results.values())
        caption(ax, "; ".join(sources), below=76)

    return draw(10, 5.3, panel)


def syn_row(ax, row, syns, client, watched):
    """Draw how long a client waited; syns: when it sent each SYN; watched: until when, seconds."""
    answered = client.connected is not None
    ends = [client.began, client.connected if answered else watched]
    ax.plot(ends, [row, row], color=OPENING, lw=6, solid_capstyle="butt", zorder=1)
    for at in syns:
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        write(ax, (at, row), f"{at:.1f}", (0, 9), va="baseline", fontsize=9, bbox=box)
        if answered and at == syns[-1]:
            ax.plot(at, row, "o", color=ANSWERED, ms=9, zorder=2)
        else:
            ax.plot(at, row, "x", color="black", ms=8, mew=2, zorder=2)
    if not answered:
        write(ax, (watched, row), "still waits", (5, 0), ha="left", fontsize=10, color=GREY)


def half_open_port(data):
    """Return the port of a client that is connected, while the server has no such connection."""
    known = data.final["server"]
    return next(
        client.port
        for client in data.clients
        if client.connected and known.get(str(client.port)) != "ESTABLISHED"
    )
