"""The ladder: every packet, state and call of a conversation, drawn from what was observed."""

import itertools
import math

from matplotlib.patches import FancyArrowPatch, Rectangle

from load_tests.measuring.charts import OTHERS, draw, number

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
