"""The charts, functions of data alone: a colour and a marker per model, labels on the data."""

import base64
import io
import itertools
import math
import textwrap

import matplotlib
from matplotlib import image, ticker
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.path import Path
from matplotlib.transforms import ScaledTranslation

from clients.console.formatting import number
from clients.console.palette import styles

ARROW = Path([(0, -1), (0, 1), (-0.5, 0.3), (0, 1), (0.5, 0.3)])  # a marker for the legend
STYLE = {
    "text.parse_math": False,  # a "$" in the name of a file is no formula
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "lines.linewidth": 2,
    "hatch.linewidth": 1.5,
}
GREY = "#666666"
BOX = {"facecolor": "white", "edgecolor": "none", "pad": 2}  # behind text on a bar


def label_ends(ax, lines):
    """Write the names of lines [(name, x, y, colour), …] at their right ends, without overlaps."""
    to_pixels, gap = ax.transData.transform, 14 * ax.figure.dpi / 72
    look = {"textcoords": "offset points", "fontweight": "bold", "fontsize": 10}
    bottom = ax.get_ylim()[0]  # a name is never below the axes
    lines = [(name, x, max(y, bottom), colour) for name, x, y, colour in lines]
    last = max((x for _, x, _, _ in lines), default=0)
    for name, x, y, colour in lines:
        if x < last:  # above its end, not among the names at the right
            ax.annotate(name, (x, y), (-4, 9), ha="right", color=colour, **look)
    look |= {"va": "center", "annotation_clip": False}
    lines = sorted((line for line in lines if line[1] == last), key=lambda line: line[2])
    heights = [to_pixels((x, y))[1] for _, x, y, _ in lines]
    up = [*itertools.accumulate(heights, lambda below, height: max(height, below + gap))]
    top = ax.bbox.y1 + gap  # no name is above the axes: the title is there
    down = itertools.accumulate([top, *up[::-1]], lambda above, place: min(place, above - gap))
    places = [*down][:0:-1]
    for (name, x, y, colour), height, place in zip(lines, heights, places, strict=True):
        shift = (place - height) * 72 / ax.figure.dpi
        ax.annotate(name, (x, y), (6, shift), color=colour, **look)


def value_axis(ax, log):
    """Begin the vertical axis at 0, or make it logarithmic with enough labels to read it."""
    if log and any(y > 0 for line in ax.lines for y in line.get_ydata()):
        ax.set_yscale("log")
        low, high = ax.get_ylim()
        subs = (1, 1.5, 2, 3, 5, 7) if high < 10 * low else (1, 2, 5) if high < 200 * low else (1,)
        ax.yaxis.set_major_locator(ticker.LogLocator(subs=subs))
        ax.yaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter("{x:,g}")


def arrow(ax, point, side, colour):
    """Draw the arrow of a lower bound, away from its point: side is "up" or "right"."""
    shift = (0, 22) if side == "up" else (22, 0)  # points: its end is no part of the data
    look = {"arrowstyle": "<-", "color": colour, "lw": 2, "shrinkB": 0}
    ax.annotate("", point, shift, textcoords="offset points", arrowprops=look)


def curves(ax, lines, labels, log="xy", look=None):
    """Draw a number against the load, a line per model.

    lines: {model: [(load, Value), …]}, see stats.py. labels: title, xlabel, ylabel. log: which axes
    are logarithmic; a load of 0 has its place left of the others. look: {model: (colour, marker)}.
    A pale line is the range of the quartiles, an arrow a lower bound, a hollow mark a
    generator-limited run.
    """
    ends, legend = [], {}
    log_y = "y" in log and any(one.amount > 0 for points in lines.values() for _, one in points)
    for model, (colour, marker) in (look or styles(lines)).items():
        # A logarithmic axis has no place for 0.
        shown = [(x, value) for x, value in lines[model] if value.amount or not log_y]
        ys = [value.amount for _, value in shown]
        ax.plot([x for x, _ in shown], ys, color=colour, marker=marker, clip_on=False)
        for x, value in shown:
            ax.plot([x, x], [value.low, value.high], color=colour, alpha=0.4, lw=5)
            if value.bound:
                arrow(ax, (x, value.amount), "up", colour)
                legend[ARROW] = "lower bound: not all were answered"
            if value.limited:
                ax.plot(x, value.amount, marker, color=colour, mfc="white", mew=2, clip_on=False)
                legend["o"] = "hollow: generator-limited"
        for x, value in lines[model][-1:]:
            zero = ": 0" if log_y and not value.amount else ""
            ends.append((model + zero, x, value.amount, colour))
    places = sorted({x for points in lines.values() for x, _ in points})
    if "x" in log:
        if places[1:]:
            ax.set_xscale("symlog", linthresh=next(filter(None, places)), linscale=0.4)
        ax.xaxis.set_minor_locator(ticker.NullLocator())
        ax.set_xticks(places, [number(place) for place in places])
    if ARROW in legend:
        ax.margins(y=0.15)  # room for the arrows
    value_axis(ax, log_y)
    ax.set(**labels)
    label_ends(ax, ends)
    for mark, words in legend.items():
        fill = "white" if mark == "o" else GREY
        ax.plot([], [], ls="", marker=mark, color=GREY, mfc=fill, ms=9, mew=1.5, label=words)
    if legend:
        ax.legend(frameon=False, fontsize=10)


def bars(ax, values, labels):
    """Draw a bar per model. values: {model: (Value or None, its text)}; labels: title, xlabel."""
    most = max((value.high for value, _ in values.values() if value), default=0) or 1
    ax.set(**{"xlim": (0, 1.25 * most)} | labels)
    for place, (model, (value, text)) in enumerate(reversed(values.items())):
        colour, end = styles(values)[model][0], value.amount if value else 0
        ax.barh(place, end, color=colour, height=0.62)
        shift = 6  # points, not a share of the axis: that may be longer than the bars
        if value and value.bound:
            arrow(ax, (end, place), "right", colour)
            if end > ax.get_xlim()[1] / 3:
                ax.text(end / 2, place, text, ha="center", va="center", bbox=BOX)
                continue
            shift = 28  # right of the arrow: the bar has no room for it
        if value and value.high > value.low:  # a thin line from quartile to quartile
            ax.plot([value.low, value.high], [place, place], color=GREY, lw=2)
            end = value.high
        ax.annotate(text, (end, place), (shift, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(values)), reversed(values))
    ax.xaxis.set_major_locator(ticker.MaxNLocator(4))
    ax.xaxis.set_major_formatter("{x:,g}")
    ax.grid(visible=False)


def timelines(ax, series, labels, log=False):
    """Draw a number at each moment. series: {model: [(seconds, number or None), …]}."""
    ends = []
    for model, (colour, marker) in styles(series).items():
        xs, ys = zip(*series[model] or [(0.0, None)], strict=True)
        numbers = [math.nan if y is None else y for y in ys]  # a gap in the line
        ax.plot(xs, numbers, ".-", color=colour, ms=5)  # a number between two gaps is a dot
        ax.plot(xs, numbers, marker, color=colour, markevery=max(1, len(xs) // 8))
        if known := [(x, y) for x, y in series[model] if y is not None]:
            ends.append((model, *known[-1], colour))
    value_axis(ax, log)
    ax.margins(x=0.01)  # the names are right of the axes
    ax.set(**labels)
    label_ends(ax, [(model, max(end[1] for end in ends), y, c) for model, _, y, c in ends])


def distributions(ax, curves_of, labels):
    """Draw cumulative distributions of latencies: {model: ([(ms, share), …], last ms)}."""
    for model, (colour, _) in styles(curves_of).items():
        points, last = curves_of[model]
        if not last:
            continue
        xs, ys = zip(*points or [(last / 10, 0.0)], strict=True)
        ax.step(xs, ys, where="post", color=colour, label=model)
        if ys[-1] < 1:  # an open end: the rest was not answered until the last ms
            ax.plot([xs[-1], max(last, xs[-1])], [ys[-1]] * 2, ":", color=colour)
            arrow(ax, (max(last, xs[-1]), ys[-1]), "right", colour)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 3)))
    ax.xaxis.set_major_formatter("{x:,g}")
    ax.xaxis.set_minor_formatter(ticker.NullFormatter())  # it would label parts of one decade
    ax.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    ax.set(ylim=(0, 1.04), **labels)
    if ax.texts:  # the arrows
        ax.plot([], [], ":", color=GREY, label="the rest: not answered")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False)


def shares(ax, parts, labels, columns=5):
    """Draw the outcomes of all visitors, a bar per model that adds up to 100 %.

    parts: {label: (hatch, {model: count})}; the part without a hatch is drawn full.
    """
    models = list(next(iter(parts.values()))[1])[::-1]
    total = {model: sum(counts[model] for _, counts in parts.values()) for model in models}
    left, colours = dict.fromkeys(models, 0.0), styles(reversed(models))
    for hatch, counts in parts.values():
        for place, model in enumerate(models):
            share, colour = counts[model] / max(1, total[model]), colours[model][0]
            look = {"facecolor": "white" if hatch else colour, "edgecolor": colour, "hatch": hatch}
            ax.barh(place, share, left=left[model], height=0.62, **look)
            if share > 0.06:
                where = (left[model] + share / 2, place)
                ax.text(*where, number(counts[model]), ha="center", va="center", bbox=BOX)
            left[model] += share
    ax.set_yticks(range(len(models)), models)
    ax.xaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    ax.grid(visible=False)
    ax.set(xlim=(0, 1), **labels)
    signs = [
        Patch(facecolor="white" if hatch else GREY, edgecolor=GREY, hatch=hatch, label=label)
        for label, (hatch, counts) in parts.items()
        if any(counts[model] > 0.005 * total[model] for model in models)  # wide enough to be seen
    ]
    below = ax.transAxes + ScaledTranslation(0, -0.55, ax.figure.dpi_scale_trans)  # inches
    place = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": below}
    ax.legend(handles=signs, ncols=columns, columnspacing=1.2, borderpad=0, frameon=False, **place)


def picture(panels, title, note):
    """Return the main picture of a comparison as a PNG: these panels side by side.

    It is seen 880 pixels wide, two of its own for each, and no letter is lower than 12 of those.
    """
    figure, stream = sheet(panels, title, note, len(panels), (11, 4.3)), io.BytesIO()
    for ax in figure.axes[1:]:
        ax.set_yticklabels([])  # they are at the left
    figure.savefig(stream, dpi=160)
    return stream.getvalue()


def png(panel):
    """Return a chart of its own as text: a PNG in base64."""
    stream = io.BytesIO()
    draw(10, 5, panel).savefig(stream, format="png", dpi=140)
    return base64.b64encode(stream.getvalue()).decode()


def darken(png):
    """Return a PNG for a dark page: light is dark, hues stay.

    Adding 1 - (highest + lowest) to red, green and blue turns L of HLS into 1 - L, and no more.
    """
    colours, dark = image.imread(io.BytesIO(png))[:, :, :3], io.BytesIO()
    colours = colours + 1 - colours.max(2, keepdims=True) - colours.min(2, keepdims=True)
    image.imsave(dark, 0.05 + 0.95 * colours.clip(0, 1))  # no screen's page is quite black
    return dark.getvalue()


def draw(width, height, panel):
    """Return a Figure of one panel: panel(ax) draws it."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        panel(figure.add_subplot())
    return figure


def sheet(panels, title, note, columns=3, size=(19.2, 9)):
    """Return a Figure of many panels, each a function that draws on an Axes; size in inches."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1)  # inches: the panels' last and first numbers
        axes = figure.subplots(-(-len(panels) // columns), columns, squeeze=False)
        for ax, panel in itertools.zip_longest(axes.flat, panels):
            panel(ax) if panel else ax.set_visible(False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=17, fontweight="bold")
        note = textwrap.fill(note, int(11.5 * size[0]))  # letters in an inch
        figure.supxlabel(note, x=0.01, ha="left", fontsize=11, color="#555555")
    return figure
