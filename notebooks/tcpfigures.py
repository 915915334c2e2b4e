"""Pictures of TCP, each drawn from what tcplab observed: ladders, state diagrams, queues."""

import itertools
import math

from figures import OTHERS, draw, number
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.ticker import MaxNLocator

SIDES = {"client": (0.32, -1), "server": (0.68, 1)}  # where the life line stands, and its outside
END_COLOUR = {"client": OTHERS[0][0], "server": OTHERS[5][0]}
OPENING, OPEN, CLOSING, LINGERING = "#F3D27A", "#A9D8C6", "#E3B7CF", "#C9C9C9"
COLOUR = {
    "LISTEN": OPENING,
    "SYN-SENT": OPENING,
    "SYN-RECEIVED": OPENING,
    "ESTABLISHED": OPEN,
    "FIN-WAIT-1": CLOSING,
    "FIN-WAIT-2": CLOSING,
    "CLOSING": CLOSING,
    "CLOSE-WAIT": CLOSING,
    "LAST-ACK": CLOSING,
    "TIME-WAIT": LINGERING,
    "CLOSED": LINGERING,
}
GREY = "#555555"
SHORT = 0.004  # seconds that cannot be seen in a picture

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


def spells(data, end, port=None):
    """Return how long a connection was in each state at one end, in order.

    port: the client's, where there are many. [(state, began, ended), ...] in seconds; ended is
    None for the state in which the observation ended.
    """
    key = "port" if end == "client" else "to"
    changes = [
        change for change in data["states"] if change["end"] == end and port in (None, change[key])
    ]
    later = itertools.chain((change["at"] for change in changes[1:]), [None])
    return [
        (change["state"], change["at"], until)
        for change, until in zip(changes, later, strict=False)
    ]


class Clock:
    """Time that runs down a page: to scale, but long waits in which nothing happens are cut."""

    def __init__(self, moments, longest):
        self.cuts, places, place = [], [], 0.0
        self.moments = sorted(set(moments))
        for before, moment in itertools.pairwise([self.moments[0], *self.moments]):
            gap = moment - before
            if gap > longest:
                self.cuts.append((place, place + longest / 2, gap))
                gap = longest / 2
            place += gap
            places.append(place)
        self.places = places

    def __call__(self, moment):
        """Return the place of a moment: its distance from the top in seconds of shown time."""
        for (a, b), (x, y) in zip(
            itertools.pairwise(self.moments), itertools.pairwise(self.places), strict=True
        ):
            if a <= moment <= b:
                return x + (moment - a) / (b - a) * (y - x)
        return self.places[0] if moment < self.moments[0] else self.places[-1]


def ladder(data, title, since=0.0, until=float("inf"), port=None):
    """Draw one connection as a textbook does: time runs down, a slanted line is a packet.

    Each line begins where the packet was sent and ends where it arrived, to scale; waits in which
    nothing happens are cut and say how long they were. since, until: seconds to draw. port: the
    client's, where there are many.
    """
    packets = [
        p for p in data["packets"] if since <= p["at"] <= until and port in (None, p["port"])
    ]
    calls = [row for row in notes(data["calls"]) if since <= row[0] <= until]
    states = {end: spells(data, end, port) for end in SIDES}
    moments = [p["at"] for p in packets] + [p["arrived"] for p in packets if p["arrived"]]
    moments += [at for at, _, _ in calls]
    delay = min((p["arrived"] - p["at"] for p in packets if p["arrived"]), default=0.05)
    clock = Clock([*moments, max(moments) + 0.4 * delay], 2 * delay)
    length = clock.places[-1]

    def panel(ax):
        ax.set(xlim=(0, 1), ylim=(length, 0))
        ax.axis("off")
        for end, (x, outside) in SIDES.items():
            ax.annotate(
                end,
                (x, 0),
                (0, 18),
                textcoords="offset points",
                ha="center",
                fontweight="bold",
                fontsize=13,
            )
            life_line(ax, clock, states[end], x, outside)
            write_calls(
                ax, clock, [(at, text) for at, who, text in calls if who == end], x, outside
            )
        for group in grouped(packets):
            arrow(ax, clock, group, crossed=any(crosses(group[0], packet) for packet in packets))
        for top, bottom, gap in clock.cuts:
            ax.add_patch(Rectangle((0.31, top), 0.38, bottom - top, color="#F4F4F4", zorder=0))
            ax.text(
                0.5,
                (top + bottom) / 2,
                f"{number(gap * 1000)} ms",
                color=GREY,
                fontsize=9.5,
                ha="center",
                va="center",
            )
        caption(ax, f"{data['source']}. Times in ms; a packet takes {number(delay * 1000)} ms.")
        ax.set_title(title, pad=42)

    return turn(draw(10, 1.5 + 0.62 * (length / delay), panel))


def caption(ax, text):
    """Say below a picture where its data come from."""
    ax.annotate(
        text,
        (0, 0),
        (0, -26),
        xycoords="axes fraction",
        textcoords="offset points",
        color=GREY,
        fontsize=9,
    )


def life_line(ax, clock, states, x, outside):
    """Draw the states of one end; those too short to be told apart share a label."""
    first, last = clock.moments[0], clock.moments[-1]
    passed = []
    for state, began, ended in states:
        if began > last or (ended or last) < first + SHORT:  # over when the picture begins
            continue
        passed.append(state)
        if ended and ended - began < SHORT:
            continue
        top = clock(began)
        bottom = clock(ended) if ended else top if state == "CLOSED" else clock.places[-1]
        colour = COLOUR[state]
        ax.add_patch(Rectangle((x - 0.007, top), 0.014, bottom - top, color=colour, lw=0))
        ax.plot([x, x + outside * 0.11], [top, top], color=colour, lw=1)
        ax.annotate(
            ",\n".join(passed),
            (x + outside * 0.012, top),
            (0, -3),
            textcoords="offset points",
            ha="right" if outside < 0 else "left",
            va="top",
            fontsize=9.5,
        )
        passed = []


def notes(calls):
    """Return [(when, end, text), ...]: a call that waited has two lines, begun and returned."""
    rows = []
    for call in calls:
        answer = "" if call["answer"] is None else f" = {call['answer']}"
        if call["answer"] and call["answer"].endswith("Error"):
            answer = f": {call['answer']}"
        if call["ended"] - call["began"] > 0.004:
            rows.append((call["began"], call["end"], f"{call['call']} waits"))
            rows.append((call["ended"], call["end"], f"{call['call']}{answer or ' returns'}"))
        else:
            rows.append((call["began"], call["end"], f"{call['call']}{answer}"))
    return sorted(rows, key=lambda row: row[0])


def write_calls(ax, clock, rows, x, outside):
    """Write the program's calls outside the life line; those of one moment stand together."""
    x += outside * 0.125
    together = []
    for at, text in rows:
        if together and clock(at) - together[-1][0] < 0.045 * clock.places[-1] / 4:
            together[-1][1].append(text)
        else:
            together.append((clock(at), [text]))
    for place, texts in together:
        ax.annotate(
            "\n".join(texts),
            (x, place),
            (0, 3),
            textcoords="offset points",
            ha="right" if outside < 0 else "left",
            va="top",
            fontsize=9,
            family="monospace",
            color=GREY,
        )


def grouped(packets):
    """Yield lists of packets that one end sent at nearly the same time: one arrow, two labels."""
    groups = []
    for packet in packets:
        for group in groups[-2:]:
            if group[0]["sender"] == packet["sender"] and packet["at"] - group[0]["at"] < 0.003:
                group.append(packet)
                break
        else:
            groups.append([packet])
    return groups


def crosses(packet, other):
    if packet["sender"] == other["sender"] or not (packet["arrived"] and other["arrived"]):
        return False
    return packet["at"] < other["arrived"] - 0.003 and other["at"] < packet["arrived"] - 0.003


def arrow(ax, clock, group, crossed):
    """Draw what was sent at one moment, with one label or two."""
    sender, (x, away) = group[0]["sender"], SIDES[group[0]["sender"]]
    top, x = clock(group[0]["at"]), x - away * 0.008
    lost = group[0]["arrived"] is None
    bottom = clock(group[-1]["arrived"] or group[0]["at"] + 0.05)
    across = (1 - 2 * x) * (0.5 if lost else 1)
    colour = END_COLOUR[sender]
    ax.add_patch(
        FancyArrowPatch(
            (x, top),
            (x + across, bottom),
            arrowstyle="-|>",
            lw=1.8,
            mutation_scale=14,
            color=colour,
            shrinkA=0,
            shrinkB=0,
        )
    )
    if lost:
        ax.text(
            x + across,
            bottom,
            "lost",
            color=colour,
            ha="center",
            va="center",
            fontweight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    texts = list(dict.fromkeys(label(packet) for packet in group))
    share, first_below = (0.25, sender == "client") if crossed else (0.5, False)
    for text, below in zip(texts, (first_below, not first_below), strict=False):
        write_along(ax, (x, top), (x + across, bottom), share, text, below)
    ax.annotate(
        number(round(group[0]["at"] * 1000)),
        (x + away * 0.02, top),
        (0, 2),
        fontsize=8,
        textcoords="offset points",
        ha="left" if away > 0 else "right",
        color=colour,
    )


def write_along(ax, start, end, share, text, below):
    """Write text on a slanted line, above or below it; turn() makes it follow the line."""
    (x, top), (u, bottom) = start, end
    written = ax.annotate(
        text,
        (x + share * (u - x), top + share * (bottom - top)),
        (0, -2 if below else 2),
        textcoords="offset points",
        ha="center",
        va="top" if below else "bottom",
        rotation_mode="anchor",
        fontsize=9.5,
    )
    written.set_gid((start, end))


def turn(figure):
    """Turn the text on slanted lines, once the layout has decided how steep they are."""
    figure.draw_without_rendering()
    for ax in figure.axes:
        for text in (text for text in ax.texts if text.get_gid()):
            start, end = map(ax.transData.transform, text.get_gid())
            angle = math.degrees(math.atan2(end[1] - start[1], end[0] - start[0]))
            text.set_rotation((angle + 90) % 180 - 90)  # it reads from left to right
    return figure


def label(packet):
    """Return what a textbook writes on a packet's line: SYN ACK  seq=0 ack=1."""
    numbers = [f"seq={packet['seq']}"] if packet["flags"] != "ACK" else []
    numbers += [f"ack={packet['ack']}"] if packet["ack"] is not None else []
    numbers += [f"{packet['length']} bytes"] if packet["length"] else []
    return f"{packet['flags']}   {' '.join(numbers)}"


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
