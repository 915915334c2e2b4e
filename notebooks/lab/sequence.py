"""Sequence diagrams: every packet, state and call of a connection, as they were observed."""

import itertools
import math
from dataclasses import dataclass

import numpy
from matplotlib.colors import same_color
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle
from matplotlib.transforms import offset_copy

from clients.console.formatting import number
from clients.console.palette import OTHER_STYLES
from load_tests.harness.charts import draw

from .observation import Call

END_COLOUR = {"client": OTHER_STYLES[0][0], "server": OTHER_STYLES[5][0]}
OPENING, OPEN, CLOSING, TIME_WAIT = "#F3D27A", "#A9D8C6", "#E3B7CF", "#AFC6E4"
NO_CONNECTION = "#B2B2B2"  # LISTEN, too: that socket does not change, and each SYN gets a new one
COLOUR = {
    **dict.fromkeys(("LISTEN", "CLOSED"), NO_CONNECTION),
    **dict.fromkeys(("SYN-SENT", "SYN-RECEIVED"), OPENING),
    "ESTABLISHED": OPEN,
    **dict.fromkeys(("FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "CLOSE-WAIT", "LAST-ACK"), CLOSING),
    "TIME-WAIT": TIME_WAIT,
}
GREY = "#555555"
LEFT_OUT = "#E9E9E9"  # time in which nothing happens
MEANING = {
    OPENING: "being opened",
    OPEN: "ESTABLISHED",
    CLOSING: "being closed",
    TIME_WAIT: "TIME-WAIT",
    NO_CONNECTION: "CLOSED or LISTEN: no connection",
    LEFT_OUT: "time left out",
}
LOST = 0.8  # of its way, where the arrow of a lost packet ends
SHORT = 0.004  # seconds that are too short to be seen: events so close are drawn as one moment

# Inches down the page: the delay of a packet, title and caption together, and a line of text.
PACKET, MARGIN, LINE = 0.62, 1.8, 0.17

# Parts of the width of the page: how wide a life line is, and from its middle to ...
BAR = 0.014
TIME = 0.012  # ... the times at which a packet is sent or arrives,
STATE = 0.05  # ... the names of states,
TICK = 0.15  # ... the end of the thin line where a state begins,
CALL = 0.16  # ... the program's calls,
EDGE = 0.008  # ... where arrows begin and end, inside.


@dataclass(frozen=True)
class Side:
    """The place of one end's life line on the page, and the direction outwards."""

    x: float
    outside: int  # 1: to the right, -1: to the left

    def away(self, distance):
        """Return the place at a distance outside the life line, inside it if below 0."""
        return self.x + self.outside * distance

    def write(self, ax, distance, place, text, rise, **look):
        """Write text that begins at a distance outside the life line and goes outwards."""
        align = "left" if self.outside > 0 else "right"
        write(ax, (self.away(distance), place), text, (0, rise), ha=align, **look)


SIDES = {"client": Side(0.34, -1), "server": Side(0.66, 1)}


def write(ax, place, text, shift=(0, 0), **look):
    """Write text at a place of the data; shift: points to the right and up."""
    moved = offset_copy(ax.transData, ax.figure, *shift, units="points")
    ax.text(*place, text, transform=moved, **{"ha": "center", "va": "center"} | look)


def state_intervals(data, end, port=None):
    """Return [(state, began, ended), ...] of a connection at one end, in order; times in seconds.

    ended is None for the last state. port: the client's. Raises ValueError if there are several
    connections and no port.
    """
    mine = [change for change in data.states if change.end == end]
    changes = [change for change in mine if port in (None, change.client_port)]
    if len(ports := sorted({change.client_port for change in changes})) > 1:
        raise ValueError(f"these are {len(ports)} connections: name one with port=, one of {ports}")
    ends = [*(change.at for change in changes[1:]), None]
    return [(change.state, change.at, ended) for change, ended in zip(changes, ends, strict=False)]


class TimeScale:
    """Time that runs down a page: to scale, but long pauses without an event are cut."""

    def __init__(self, moments, longest):
        self.moments, self.longest = sorted(set(moments)), longest
        self.line = LINE / PACKET * longest / 2  # the height of a line of text, in shown seconds
        self.places = [0.0]  # how far down each moment is, in seconds of shown time
        self.cuts = []  # [(from place, to place, the seconds that were cut), ...]
        for before, moment in itertools.pairwise(self.moments):
            top, gap = self.places[-1], moment - before
            if gap > longest:
                self.cuts.append((top, top + longest / 2, gap))
                gap = longest / 2
            self.places.append(top + gap)

    def __call__(self, moment):
        """Return the place of a moment; one outside the scale is moved to its nearer end."""
        return numpy.interp(moment, self.moments, self.places)


def sequence_diagram(data, title, since=0.0, until=float("inf"), port=None):
    """Return a Figure of one connection as in a textbook: time runs down, arrows are packets.

    Each arrow begins where the packet was sent and ends where it arrived, to scale. since, until:
    seconds to draw. port: see state_intervals().
    """
    packets = [p for p in data.packets if since <= p.sent <= until and port in (None, p.port)]
    calls = [row for row in call_texts(data, port) if since <= row[0] <= until]
    delay = min((p.arrived - p.sent for p in packets if p.arrived), default=0.05)
    moving = [at for p in packets for at in (p.sent, p.arrived or p.sent + delay)]
    last = max([*moving, *(at for at, _, _ in calls)])
    alone = {}  # the times of calls and states that are near no packet, and so need a number
    for end in SIDES:
        began = [at for _, at, _ in state_intervals(data, end, port) if since <= at <= last]
        events = [*began, *(at for at, one, _ in calls if one == end)]
        alone[end] = [at for at in events if min(abs(at - other) for other in moving) > 5 * SHORT]
    moments = [*moving, *(at for at, _, _ in calls), *itertools.chain(*alone.values())]
    # The last moment: room for the last states.
    scale = TimeScale([*moments, last + 0.4 * delay], longest=2 * delay)
    length = scale.places[-1]

    def panel(ax):
        ax.set(xlim=(0, 1), ylim=(length, 0))
        ax.axis("off")
        for end, side in SIDES.items():
            look = {"fontweight": "bold", "fontsize": 13, "color": END_COLOUR[end]}
            write(ax, (side.x, 0), end, (0, 18), va="baseline", **look)
            life_line(ax, scale, side, state_intervals(data, end, port))
            write_calls(ax, scale, side, [(at, text) for at, one, text in calls if one == end])
            times = [(p.sent, "") for p in packets if p.sender == end]
            came = [p for p in packets if p.sender != end and p.arrived]
            times += [(p.arrived, remark(end, p, packets, data)) for p in came]
            write_times(ax, scale, end, sorted(times + [(at, "") for at in alone[end]]))
        for group in grouped(packets):
            sent = group[0].sent
            meets = [0.5 + (p.sent - sent) / (2 * delay) for p in packets if crosses(group[0], p)]
            arrow(ax, scale, group, delay, meets, [label(p, packets) for p in group])
        left, right = (side.away(0.01) for side in SIDES.values())
        for top, bottom, gap in scale.cuts:
            look = {"facecolor": LEFT_OUT, "edgecolor": "white", "zorder": 0}
            ax.add_patch(Rectangle((left, top), right - left, bottom - top, **look))
            text = f"{number(gap * 1000)} ms left out"
            write(ax, (0.5, (top + bottom) / 2), text, color=GREY, fontsize=9.5)
        shown = [patch.get_facecolor() for patch in ax.patches]
        squares = [Patch(color=colour, label=meaning) for colour, meaning in MEANING.items()]
        squares = [one for one in squares if any(same_color(one.get_fc(), fc) for fc in shown)]
        look = {"loc": "upper left", "bbox_to_anchor": (-0.02, 0), "borderaxespad": 0.3, "ncols": 6}
        look |= {"frameon": False, "fontsize": 9, "handlelength": 1, "columnspacing": 1.4}
        words = {"title": f"{data.source}. Times in ms.", "title_fontsize": 9, "alignment": "left"}
        ax.legend(handles=squares, **look, **words)
        ax.set_title(title, pad=42)

    return draw(10, MARGIN + PACKET * length / delay, panel)


def life_line(ax, scale, side, states):
    """Draw the states of one end; a state too short to be seen shares the label of the next."""
    first, last = scale.moments[0], scale.moments[-1]
    passed, since, free = [], None, -math.inf  # free: there is no label from here down
    for state, began, ended in states:
        if began > last or (ended or last) < first + SHORT:  # over when the picture begins
            continue
        passed.append(state)
        since = began if len(passed) == 1 else since
        if ended and ended - began < SHORT:
            continue
        top = scale(since)
        bottom = scale(ended) if ended else top if state == "CLOSED" else scale.places[-1]
        colour = COLOUR[state]
        if bottom > top:
            ax.add_patch(Rectangle((side.x - BAR / 2, top), BAR, bottom - top, color=colour, lw=0))
        ax.plot([side.x, side.away(TICK)], [top, top], color=colour, lw=1)
        place, below = max(top, free), since >= first  # above: the calls begin at the top
        look = {"va": "top" if below else "bottom", "fontsize": 9.5}
        side.write(ax, STATE, place, ",\n".join(passed), -3 if below else 2, **look)
        passed, free = [], place + (scale.line * len(passed) if below else 0)


def call_texts(data, port):
    """Return [(when, end, text), ...]: a call that blocked has two texts, begun and returned."""
    calls, rows = list(data.calls), []
    for one in getattr(data, "clients", []):
        if one.port == port and one.connected:  # the connect() of a client that was one of many
            calls.append(Call("client", "connect()", one.began, one.connected))
    for call in calls:
        result = f" = {call.result}" if call.result else ""
        if call.result and call.result.endswith("Error"):
            result = f":\n{call.result}"  # two lines, or the page would be too narrow
        if call.ended - call.began > SHORT:
            rows.append((call.began, call.end, f"{call.name} blocks"))
            rows.append((call.ended, call.end, f"{call.name}{result or ' returns'}"))
        else:
            rows.append((call.began, call.end, f"{call.name}{result}"))
    return sorted(rows, key=lambda row: row[0])


def write_calls(ax, scale, side, rows):
    """Write the program's calls outside the life line; one that has no room is below another."""
    look = {"va": "top", "fontsize": 9, "family": "monospace", "color": GREY}
    free = -math.inf
    for at, text in rows:
        place = max(scale(at), free)
        side.write(ax, CALL, place, text, 3, **look)
        free = place + scale.line * len(text.splitlines())


def grouped(packets):
    """Return lists of packets that one end sent at one moment: one arrow, two labels."""
    groups = []
    for packet in packets:
        mine = [group for group in groups if group[0].sender == packet.sender]
        if mine and packet.sent - mine[-1][0].sent < SHORT:
            mine[-1].append(packet)
        else:
            groups.append([packet])
    return groups


def crosses(packet, other):
    """Return whether two packets meet on their way."""
    if packet.sender == other.sender or not (packet.arrived and other.arrived):
        return False
    return packet.sent < other.arrived - SHORT and other.sent < packet.arrived - SHORT


def arrow(ax, scale, group, delay, meets, texts):
    """Draw what was sent at one moment, with one label or two; a lost packet does not arrive.

    meets: the shares of its way at which other arrows cross it. The label is away from them.
    """
    first, last = group[0], group[-1]
    side, colour = SIDES[first.sender], END_COLOUR[first.sender]
    start, share = side.away(-EDGE), LOST if first.lost else 1
    end = start + share * (1 - 2 * start)
    top, bottom = scale(first.sent), scale(last.arrived or first.sent + share * delay)
    line = {"arrowstyle": "-|>", "mutation_scale": 14, "shrinkA": 0, "shrinkB": 0, "lw": 1.8}
    ax.add_patch(FancyArrowPatch((start, top), (end, bottom), color=colour, **line))
    if first.lost:
        ax.plot(end, bottom, "x", color="black", ms=11, mew=3, zorder=4)
        write(ax, (end, bottom), "lost", (-22 * side.outside, 0), fontweight="bold")
    # The longest part that nothing crosses, or one nearer to the sender if it is half as long:
    # so the labels of two packets that cross are at different ends.
    free = max(itertools.pairwise([0, *sorted(meets), 1]), key=lambda part: part[1] - 2 * part[0])
    middle, across, down = sum(free) / 2, end - start, bottom - top
    place = start + middle * across, top + middle * down
    slant = math.degrees(math.atan(down / across))  # of the data, not of the page
    look = {"rotation": slant, "transform_rotates_text": True, "rotation_mode": "anchor"}
    for text, align, shift in zip(dict.fromkeys(texts), ("bottom", "top"), (2, -2), strict=False):
        text, size = (text.replace("   ", " "), 8) if meets else (text, 9.5)  # half a line is short
        size = min(size, 8.5) if len(text) > 29 else size  # or it would touch the next line
        write(ax, place, text, (0, shift), va=align, fontsize=size, **look)


def label(packet, packets):
    """Return the text of a packet's arrow, as in a textbook: SYN-ACK  seq=0 ack=1."""
    numbers = [f"seq={packet.seq}"] if packet.flags != "ACK" else []
    numbers += [f"ack={packet.ack}"] if packet.ack is not None else []
    numbers += [f"{packet.length} bytes"] if packet.length else []
    numbers += ["again"] if any(is_copy(packet, other) for other in packets) else []
    return f"{packet.flags}   {' '.join(numbers)}"


def is_copy(packet, other):
    """Return whether a packet retransmits what another one carried: SYN, FIN or data."""
    if other.sent >= packet.sent or packet.flags == "ACK":
        return False
    names = ("sender", "port", "flags", "seq")
    return all(getattr(packet, name) == getattr(other, name) for name in names)


def remark(end, packet, packets, data):
    """Return what a receiver did with a packet that it could not use; "" for all others.

    Concluded from the states: an ACK that does not end SYN-RECEIVED must have been dropped.
    """
    at, states = packet.arrived, state_intervals(data, end, packet.port)
    if any(state == "CLOSED" and began < at for state, began, _ in states):
        return "no such connection"
    if any(is_copy(packet, other) and other.arrived for other in packets):
        return "has it already"
    for state, began, ended in states:  # an ACK completes the handshake at once, or is dropped
        if state == "SYN-RECEIVED" and began < at < (ended or math.inf) - 0.02:
            return "dropped" if "ACK" in packet.flags else ""
    return ""


def write_times(ax, scale, end, moments):
    """Write when packets were sent or arrived next to a life line; one moment once."""
    last = -math.inf
    for at, text in moments:
        if text or scale(at) - last > 2 * SHORT:  # or else they would overlap
            look = {"fontsize": 8, "color": "black" if text else END_COLOUR[end]}
            look |= {"fontweight": "bold" if text else "normal", "va": "baseline"}
            words = number(round(at * 1000)) + f"  {text}".rstrip()
            SIDES[end].write(ax, TIME, scale(at), words, 2, **look)
            last = scale(at)
