"""The ladder: every packet, state and call of a conversation, drawn from what was observed."""

import bisect
import itertools
import math
from dataclasses import dataclass

from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle
from matplotlib.transforms import offset_copy

from clients.console.formatting import number
from clients.console.palette import OTHER_STYLES
from load_tests.harness.charts import draw

END_COLOUR = {"client": OTHER_STYLES[0][0], "server": OTHER_STYLES[5][0]}
OPENING, OPEN, CLOSING, LINGERING = "#F3D27A", "#A9D8C6", "#E3B7CF", "#AFC6E4"
NO_CONNECTION = "#B2B2B2"  # LISTEN, too: that socket stays as it is, and each SYN gets a new one
COLOUR = {
    "LISTEN": NO_CONNECTION,
    "SYN-SENT": OPENING,
    "SYN-RECEIVED": OPENING,
    "ESTABLISHED": OPEN,
    "FIN-WAIT-1": CLOSING,
    "FIN-WAIT-2": CLOSING,
    "CLOSING": CLOSING,
    "CLOSE-WAIT": CLOSING,
    "LAST-ACK": CLOSING,
    "TIME-WAIT": LINGERING,
    "CLOSED": NO_CONNECTION,
}
GREY = "#555555"
LEFT_OUT = "#E9E9E9"  # time in which nothing happens
MEANING = {
    OPENING: "being opened",
    OPEN: "ESTABLISHED",
    CLOSING: "being closed",
    LINGERING: "TIME-WAIT",
    NO_CONNECTION: "CLOSED or LISTEN: no connection",
    LEFT_OUT: "time left out",
}
LOST = 0.8  # of the way that a lost packet is drawn to go
SHORT = 0.004  # seconds that cannot be seen in a picture: what lies so close is one moment

# Inches down the page: the time that a packet takes, and what is not time (title, caption).
PACKET, MARGIN, LINE = 0.62, 1.8, 0.17  # LINE: a line of words, in inches, too

# Parts of the width of the page: how wide a life line is, and from its middle to ...
BAR = 0.014
TIME = 0.012  # ... the moments at which a packet is sent or arrives,
STATE = 0.05  # ... the names of states,
TICK = 0.15  # ... the end of the thin line where a state begins,
CALL = 0.16  # ... the program's calls,
EDGE = 0.008  # ... where arrows begin and end, inside.


@dataclass(frozen=True)
class Side:
    """Where one end stands on the page: the place of its life line, and which way is outside."""

    x: float
    outside: int  # 1: to the right, -1: to the left

    def away(self, distance):
        """Return the place that lies so far outside the life line; inside it if below 0."""
        return self.x + self.outside * distance

    def write(self, ax, distance, place, text, rise, **look):
        """Write text that begins so far outside the life line and goes on outwards."""
        align = "left" if self.outside > 0 else "right"
        write(ax, (self.away(distance), place), text, (0, rise), ha=align, **look)


SIDES = {"client": Side(0.34, -1), "server": Side(0.66, 1)}


def write(ax, place, text, shift=(0, 0), **look):
    """Write text at a place of the data, shifted to the right and up by so many points."""
    moved = offset_copy(ax.transData, ax.figure, *shift, units="points")
    ax.text(*place, text, transform=moved, **{"ha": "center", "va": "center"} | look)


def caption(ax, text, below=26):
    """Say where the data come from, so many points below a picture."""
    moved = offset_copy(ax.transAxes, ax.figure, 0, -below, units="points")
    ax.text(0, 0, text, transform=moved, color=GREY, fontsize=9)


def spells(data, end, port=None):
    """Return how long a connection was in each state at one end, in order.

    port: the client's, where there are many; ValueError if it is missing then. [(state, began,
    ended), ...] in seconds; ended is None for the state in which the observation ended.
    """
    key = "port" if end == "client" else "to"
    changes = [change for change in data["states"] if change["end"] == end]
    ports = sorted({change[key] for change in changes})
    if port is None and len(ports) > 1:
        raise ValueError(
            f"these are {len(ports)} connections: say which with port=, one of {ports}"
        )
    changes = [change for change in changes if port in (None, change[key])]
    ends = [*(change["at"] for change in changes[1:]), None]
    return [
        (change["state"], change["at"], ended) for change, ended in zip(changes, ends, strict=False)
    ]


class Clock:
    """Time that runs down a page: to scale, but long waits in which nothing happens are cut.

    moments: seconds, and places: how far down each of them is, in seconds of shown time. cuts:
    [(from place, to place, the seconds that it stands for), ...].
    """

    def __init__(self, moments, longest):
        self.moments, self.places, self.cuts = sorted(set(moments)), [0.0], []
        self.longest = longest
        for before, moment in itertools.pairwise(self.moments):
            top, gap = self.places[-1], moment - before
            if gap > longest:
                self.cuts.append((top, top + longest / 2, gap))
                gap = longest / 2
            self.places.append(top + gap)

    def __call__(self, moment):
        """Return the place of a moment; those before the first and after the last are there."""
        moment = min(max(moment, self.moments[0]), self.moments[-1])
        rank = max(1, bisect.bisect_left(self.moments, moment))
        before, after = self.moments[rank - 1 : rank + 1]
        top, bottom = self.places[rank - 1 : rank + 1]
        return top + (moment - before) / (after - before) * (bottom - top)


def ladder(data, title, since=0.0, until=float("inf"), port=None):
    """Draw one connection as a textbook does: time runs down, a slanted line is a packet.

    Each line begins where the packet was sent and ends where it arrived, to scale; waits in which
    nothing happens are cut and say how long they were. since, until: seconds to draw. port: see
    spells().
    """
    packets = [
        p for p in data["packets"] if since <= p["at"] <= until and port in (None, p["port"])
    ]
    calls = [*data["calls"], *connects(data, port)]
    calls = [row for row in notes(calls) if since <= row[0] <= until]
    arrived = [p for p in packets if p["arrived"]]
    delay = min((p["arrived"] - p["at"] for p in arrived), default=0.05)
    moments = [p["at"] for p in packets] + [p["arrived"] or p["at"] + delay for p in packets]
    alone = {end: unannounced([row[0] for row in calls if row[1] == end], moments) for end in SIDES}
    moments += [at for at, _, _ in calls]
    for end, times in alone.items():
        begun = [at for _, at, _ in spells(data, end, port) if since <= at <= max(moments)]
        times += unannounced(begun, moments)
    moments += itertools.chain(*alone.values())
    moments.append(max(moments) + 0.4 * delay)  # so that one sees the last states
    clock = Clock(moments, longest=2 * delay)
    length = clock.places[-1]

    def panel(ax):
        ax.set(xlim=(0, 1), ylim=(length, 0))
        ax.axis("off")
        for end, side in SIDES.items():
            look = {"fontweight": "bold", "fontsize": 13, "color": END_COLOUR[end]}
            write(ax, (side.x, 0), end, (0, 18), va="baseline", **look)
            life_line(ax, clock, side, spells(data, end, port))
            write_calls(ax, clock, side, [(at, text) for at, who, text in calls if who == end])
            times = moments_of(end, packets, data) + [(at, "") for at in alone[end]]
            write_times(ax, clock, end, sorted(times))
        for group in grouped(packets):
            meets = [crossing(group[0], p, delay) for p in packets if crosses(group[0], p)]
            arrow(ax, clock, group, delay, meets, [label(p, packets) for p in group])
        left, right = (side.away(0.01) for side in SIDES.values())
        for top, bottom, gap in clock.cuts:
            look = {"facecolor": LEFT_OUT, "edgecolor": "white", "zorder": 0}
            ax.add_patch(Rectangle((left, top), right - left, bottom - top, **look))
            text = f"{number(gap * 1000)} ms left out"
            write(ax, (0.5, (top + bottom) / 2), text, color=GREY, fontsize=9.5)
        legend(ax)
        caption(ax, f"{data['source']}. Times in ms.", below=40)
        ax.set_title(title, pad=42)

    figure = draw(10, MARGIN + PACKET * length / delay, panel)
    figure.draw_without_rendering()  # a first layout leaves too much room beside long calls
    return figure


def legend(ax):
    """Say below a picture what the colours of its states mean, those that it has."""
    drawn = {patch.get_facecolor()[:3] for patch in ax.patches}
    drawn |= {to_rgb(line.get_color()) for line in ax.lines}  # CLOSED has a line and no bar
    squares = [
        Patch(color=colour, label=meaning)
        for colour, meaning in MEANING.items()
        if to_rgb(colour) in drawn
    ]
    look = {"frameon": False, "fontsize": 9, "handlelength": 1, "columnspacing": 1.4}
    below = offset_copy(ax.transAxes, ax.figure, -6, -4, units="points")
    look |= {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": below}
    ax.legend(handles=squares, ncols=6, borderaxespad=0, **look)


def life_line(ax, clock, side, states):
    """Draw the states of one end; those too short to be told apart share a label."""
    first, last = clock.moments[0], clock.moments[-1]
    line = LINE / PACKET * clock.longest / 2
    passed, since, free = [], None, -math.inf  # free: from here down no label stands
    for state, began, ended in states:
        if began > last or (ended or last) < first + SHORT:  # over when the picture begins
            continue
        passed.append(state)
        since = began if len(passed) == 1 else since
        if ended and ended - began < SHORT:
            continue
        top = clock(since)
        bottom = clock(ended) if ended else top if state == "CLOSED" else clock.places[-1]
        colour = COLOUR[state]
        if bottom > top:
            ax.add_patch(Rectangle((side.x - BAR / 2, top), BAR, bottom - top, color=colour, lw=0))
        ax.plot([side.x, side.away(TICK)], [top, top], color=colour, lw=1)
        place = max(top, free)
        side.write(ax, STATE, place, ",\n".join(passed), -3, va="top", fontsize=9.5)
        passed, free = [], place + line * len(passed)


def unannounced(times, moments):
    """Return those of some times that lie near none of these moments, and so have no number yet."""
    return [at for at in times if min(abs(at - moment) for moment in moments) > 5 * SHORT]


def connects(data, port):
    """Return the connect() of a client that was one of many, as an observed call."""
    call = {"end": "client", "call": "connect()", "answer": None}
    return [
        call | {"began": one["began"], "ended": one["connected"]}
        for one in data.get("clients", [])
        if one["port"] == port and one["connected"]
    ]


def notes(calls):
    """Return [(when, end, text), ...]: a call that waited has two lines, begun and returned."""
    rows = []
    for call in calls:
        answer = "" if call["answer"] is None else f" = {call['answer']}"
        if call["answer"] and call["answer"].endswith("Error"):
            answer = f":\n{call['answer']}"  # two lines, or the page would be too narrow
        if call["ended"] - call["began"] > SHORT:
            rows.append((call["began"], call["end"], f"{call['call']} waits"))
            rows.append((call["ended"], call["end"], f"{call['call']}{answer or ' returns'}"))
        else:
            rows.append((call["began"], call["end"], f"{call['call']}{answer}"))
    return sorted(rows, key=lambda row: row[0])


def write_calls(ax, clock, side, rows):
    """Write the program's calls outside the life line; those of one moment stand together."""
    together = []
    for at, text in rows:
        if together and clock(at) - together[-1][0] < SHORT:
            together[-1][1].append(text)
        else:
            together.append((clock(at), [text]))
    look = {"va": "top", "fontsize": 9, "family": "monospace", "color": GREY}
    for place, texts in together:
        side.write(ax, CALL, place, "\n".join(texts), 3, **look)


def grouped(packets):
    """Return lists of packets that one end sent at one moment: one arrow, two labels."""
    groups = []
    for packet in packets:
        for group in groups[-2:]:
            if group[0]["sender"] == packet["sender"] and packet["at"] - group[0]["at"] < SHORT:
                group.append(packet)
                break
        else:
            groups.append([packet])
    return groups


def crosses(packet, other):
    """Say whether two packets meet under way."""
    if packet["sender"] == other["sender"] or not (packet["arrived"] and other["arrived"]):
        return False
    return packet["at"] < other["arrived"] - SHORT and other["at"] < packet["arrived"] - SHORT


def crossing(packet, other, delay):
    """Return the share of its way after which a packet meets another one."""
    return (other["at"] - packet["at"] + delay) / (2 * delay)


def arrow(ax, clock, group, delay, meets, texts):
    """Draw what was sent at one moment, with one label or two; a lost packet does not arrive.

    meets: the shares of its way at which other lines cross it. The label keeps clear of them.
    """
    first, last = group[0], group[-1]
    side, colour, lost = SIDES[first["sender"]], END_COLOUR[first["sender"]], not first["arrived"]
    start, share = side.away(-EDGE), LOST if lost else 1
    end = start + share * (1 - 2 * start)
    top, bottom = clock(first["at"]), clock(last["arrived"] or first["at"] + share * delay)
    line = {"arrowstyle": "-|>", "mutation_scale": 14, "shrinkA": 0, "shrinkB": 0, "lw": 1.8}
    ax.add_patch(FancyArrowPatch((start, top), (end, bottom), color=colour, **line))
    if lost:
        ax.plot(end, bottom, "x", color="black", ms=11, mew=3, zorder=4)
        write(ax, (end, bottom), "lost", (-22 * side.outside, 0), fontweight="bold")
    # The longest part that nothing crosses; of two halves the nearer one, at both ends.
    free = max(itertools.pairwise([0, *sorted(meets), 1]), key=lambda part: part[1] - 1.1 * part[0])
    for text, below in zip(dict.fromkeys(texts), (False, True), strict=False):
        text, size = (text.replace("   ", " "), 8) if meets else (text, 9.5)  # half a line is short
        size = min(size, 8.5) if len(text) > 32 else size  # or it would touch the next line
        write_along(ax, (start, top), (end, bottom), sum(free) / 2, text, below, size)


def write_along(ax, start, end, share, text, below, size):
    """Write text along a slanted line, above or below it, at a share of its length."""
    across, down = end[0] - start[0], end[1] - start[1]
    write(
        ax,
        (start[0] + share * across, start[1] + share * down),
        text,
        (0, -2 if below else 2),
        va="top" if below else "bottom",
        fontsize=size,
        rotation=math.degrees(math.atan(down / across)),  # it reads from left to right
        rotation_mode="anchor",
        transform_rotates_text=True,  # the angle is one of the data, not of the page
    )


def label(packet, packets):
    """Return what a textbook writes on a packet's line: SYN ACK  seq=0 ack=1."""
    numbers = [f"seq={packet['seq']}"] if packet["flags"] != "ACK" else []
    numbers += [f"ack={packet['ack']}"] if packet["ack"] is not None else []
    numbers += [f"{packet['length']} bytes"] if packet["length"] else []
    numbers += ["again"] if any(is_copy(packet, other) for other in packets) else []
    return f"{packet['flags']}   {' '.join(numbers)}"


def is_copy(packet, other):
    """Say whether a packet carries what another one has carried before: SYN, FIN or data."""
    if other["at"] >= packet["at"] or packet["flags"] == "ACK":
        return False
    return all(packet[name] == other[name] for name in ("sender", "port", "flags", "seq"))


def moments_of(end, packets, data):
    """Return [(when, text), ...]: when packets left or reached one end, and what was odd then."""
    found = []
    for packet in packets:
        if packet["sender"] == end:
            found.append((packet["at"], ""))
        elif packet["arrived"]:
            found.append((packet["arrived"], fate(end, packet, packets, data)))
    return sorted(found)


def fate(end, packet, packets, data):
    """Return what a receiver did with a packet that it had no use for; "" for the others.

    Concluded from the states: an ACK that does not end SYN-RECEIVED must have been thrown away.
    """
    at, states = packet["arrived"], spells(data, end, packet["port"])
    if any(state == "CLOSED" and began < at for state, began, _ in states):
        return "no such connection"
    if any(is_copy(packet, other) and other["arrived"] for other in packets):
        return "has it already"
    # An ACK completes the handshake at once, or else it is thrown away.
    half_open = [
        (began, ended or math.inf)
        for state, began, ended in states
        if state == "SYN-RECEIVED" and "ACK" in packet["flags"]
    ]
    return "thrown away" if any(a < at < b - 0.02 for a, b in half_open) else ""


def write_times(ax, clock, end, moments):
    """Write when packets left or arrived beside a life line; those of one moment once."""
    last = -math.inf
    for at, odd in moments:
        if odd or clock(at) - last > 2 * SHORT:  # or else they would overlap
            text = number(round(at * 1000)) + (f"  {odd}" if odd else "")
            look = {"fontsize": 8, "color": "black" if odd else END_COLOUR[end]}
            weight = "bold" if odd else "normal"
            SIDES[end].write(ax, TIME, clock(at), text, 2, va="baseline", fontweight=weight, **look)
            last = clock(at)
