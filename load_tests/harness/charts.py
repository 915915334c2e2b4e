"""The pictures: one colour and one marker a model, labels on the data, the finding in the title."""

import itertools
import statistics
import textwrap

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
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


def label_ends(ax, lines):
    """Write the name of each line at its right end; names that would overlap are moved apart.

    lines: [(name, x, y, colour), ...] in data coordinates. A line that ends before the others has
    its name above its end, where theirs go on.
    """
    to_pixels, gap = ax.transData.transform, 14 * ax.figure.dpi / 72
    look = {"textcoords": "offset points", "fontweight": "bold", "fontsize": 10}
    last = max((x for _, x, _, _ in lines), default=0)
    for name, x, y, colour in lines:
        if x < last:
            ax.annotate(name, (x, y), (-4, 9), ha="right", color=colour, **look)
    lines = sorted((line for line in lines if line[1] == last), key=lambda line: line[2])
    heights = [to_pixels((x, y))[1] for _, x, y, _ in lines]
    places = []
    for height in heights:
        places.append(max(height, places[-1] + gap) if places else height)
    highest = ax.bbox.y1
    for rank in reversed(range(len(places))):  # none above the axes, where the title stands
        places[rank] = min(places[rank], highest)
        highest = places[rank] - gap
    for (name, x, y, colour), height, place in zip(lines, heights, places, strict=True):
        shift = (place - height) * 72 / ax.figure.dpi
        ax.annotate(
            name,
            (x, y),
            (6, shift),
            color=colour,
            va="center",
            annotation_clip=False,
            **look,
        )


def value_axis(ax, log):
    """Let the vertical axis begin at 0, or be logarithmic with enough labels to read it."""
    if log:
        ax.set_yscale("log")
        low, high = ax.get_ylim()
        subs = (1, 1.5, 2, 3, 5, 7) if high < 10 * low else (1, 2, 5) if high < 200 * low else (1,)
        ax.yaxis.set_major_locator(LogLocator(subs=subs))
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def place_axis(ax, places):
    """Label the horizontal axis at these places and nowhere else."""
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(places, [number(place) for place in places])


def load_unit(results):
    """Return what the load of a comparison is counted in."""
    return "arrivals a second" if results["options"]["loop"] == "open" else "users"


def load_text(results, load):
    """Return a load with its unit: "1 user", "200 users", "0.5 arrivals a second"."""
    unit = load_unit(results)
    if load == 1:
        unit = unit.replace("users", "user").replace("arrivals", "arrival")
    return f"{load:g} {unit}"


def sound(results):
    """Return the runs of a comparison that gave numbers."""
    return [run for run in results["runs"] if not run["error"]]


def heaviest(results):
    """Return the runs with the most load of those that gave numbers."""
    most = max(run["load"] for run in sound(results))
    return [run for run in sound(results) if run["load"] == most]


def looks_of(results):
    """Return {model: (colour, marker)} of all the models of a comparison."""
    return styles(dict.fromkeys(run["model"] for run in results["runs"]))


def curves(ax, results, metric, title):
    """Draw a metric of report.py against the load, a line a model.

    Where the number is a lower bound it has an arrow that points upwards; where the load
    generator was the limit, its mark is hollow.
    """
    ends, shown = [], {}
    for name, (colour, marker) in looks_of(results).items():
        runs = [run for run in sound(results) if run["model"] == name]
        runs = [run for run in runs if metric.value(run) is not None]
        if not runs:
            continue
        xs, ys = [run["load"] for run in runs], [metric.value(run) for run in runs]
        ax.plot(xs, ys, color=colour, marker=marker, clip_on=False)
        for run, x, y in zip(runs, xs, ys, strict=True):
            if metric.is_bound(run):
                arrow = {"arrowstyle": "<-", "color": colour, "lw": 2}
                ax.annotate("", (x, y), (0, 22), textcoords="offset points", arrowprops=arrow)
                shown[ARROW] = "at least: the run ended before the answer came"
            if metric.generated and run["generator"]["bottleneck"]:
                ax.plot(x, y, marker, color=colour, mfc="white", mew=2, clip_on=False)
                shown["o"] = "hollow: Locust was too slow, the number is also its own"
        ends.append((name, xs[-1], ys[-1], colour))
    loads = sorted({run["load"] for run in results["runs"]})
    if len(loads) > 1:
        ax.set_xscale("log")
    place_axis(ax, loads)
    if any(metric.is_bound(run) for run in sound(results) if metric.value(run) is not None):
        ax.margins(y=0.15)  # room for the arrows
    value_axis(ax, metric.log)
    loop = results["options"]["loop"]
    ax.set(title=title, xlabel=f"{load_unit(results)} ({loop} loop)", ylabel=metric.axis)
    if metric.proportional and len(loads) > 1 and ends:
        in_proportion(ax, results, [end[1:3] for end in ends])
    label_ends(ax, ends)
    for mark, words in shown.items():
        ax.plot([], [], ls="", marker=mark, color=GREY, mfc="white" if mark == "o" else GREY,
                ms=9, mew=1.5, label=words)  # fmt: skip
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=10)


def in_proportion(ax, results, ends):
    """Draw the slope of what grows as the load does, below the highest end of ends [(x, y), ...].

    Both axes are logarithmic: there it is one straight line, wherever it begins.
    """
    (least, most), (x, y) = ax.get_xlim(), max(ends, key=lambda end: end[1])
    low, high = ax.get_ylim()
    words = f"dotted slope: twice the {load_unit(results)}, twice the number"
    ys = [y / 2 * least / x, y / 2 * most / x]
    ax.plot([least, most], ys, ":", color=GREY, label=words, scalex=False, scaley=False)
    ax.set(xlim=(least, most), ylim=(low, high))


def bars(ax, results, metric, title):
    """Draw a metric of report.py as a bar a model, for the runs with the most load.

    A bar that is a lower bound ends in an arrow.
    """
    style, runs = looks_of(results), heaviest(results)[::-1]
    most = max((metric.value(run) or 0 for run in runs), default=0) or 1
    for place, run in enumerate(runs):
        value, (colour, _) = metric.value(run), style[run["model"]]
        ax.barh(place, value or 0, color=colour, height=0.62)
        text = "too few at a time to tell" if value is None else metric.said(run)
        if metric.generated and run["generator"]["bottleneck"]:
            text += "*"
        if value is not None and metric.is_bound(run):
            arrow = {"arrowstyle": "->", "color": colour, "lw": 3, "shrinkA": 0}
            start, end = (value, place), (value + 0.16 * most, place)
            ax.annotate("", end, start, arrowprops=arrow)
            box = {"facecolor": "white", "edgecolor": "none", "pad": 2}
            where = (value / 2, place)
            ax.text(*where, f"longer than {text}", ha="center", va="center", bbox=box)
        else:
            ax.text((value or 0) + 0.03 * most, place, text, va="center")
    ax.set_yticks(range(len(runs)), [run["model"] for run in runs])
    ax.set_xlim(0, 1.25 * most)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ax.grid(visible=False)
    ax.set(title=title, xlabel=metric.axis)


def timelines(ax, results, title):
    """Draw how many visitors were being served at each moment of the runs with the most load."""
    style, ends = looks_of(results), []
    for run in heaviest(results):
        moments, counts = zip(*run["serving"], strict=True)
        colour, marker = style[run["model"]]
        every = max(1, len(moments) // 8)
        ax.plot(moments, counts, color=colour, marker=marker, markevery=every)
        ends.append((run["model"], moments[-1], counts[-1], colour))
    ax.set_ylim(bottom=0)
    loop = results["options"]["loop"]
    xlabel = f"seconds since the first visitor came ({loop} loop)"
    ax.set(title=title, xlabel=xlabel, ylabel="visitors")
    label_ends(ax, ends)


def outcomes(ax, results, title, short=False):
    """Draw what became of all visitors of the runs with the most load, a bar a model.

    short: do not tell apart those who were left waiting.
    """
    well = "connected" if results["options"]["load"] == "idlers" else "greeted"
    kinds = {  # a model's colour, full where it served, hatched where it did not
        well: (("finished", "still served", "idle"), ""),
        "just came": (("just came",), "...."),
        "connected, never greeted": (("never greeted",), "////"),
        "never connected": (("never connected",), "xx"),
        "failed": (("failed",), "**"),
    }
    if short:
        kinds["left waiting"] = (
            kinds.pop("connected, never greeted")[0] + kinds.pop("never connected")[0],
            "//",
        )
    style, runs, found = looks_of(results), heaviest(results)[::-1], []
    box = {"facecolor": "white", "edgecolor": "none", "pad": 2}
    for place, run in enumerate(runs):
        board, left = run["scoreboard"], 0
        colour, _ = style[run["model"]]
        for kind, (fates, hatch) in kinds.items():
            count = sum(board[name] for name in fates)
            share = count / max(1, board["came"])
            look = {"facecolor": "white" if hatch else colour, "edgecolor": colour, "hatch": hatch}
            ax.barh(place, share, left=left, height=0.62, **look)
            if share > 0.06:
                where = (left + share / 2, place)
                ax.text(*where, number(count), ha="center", va="center", bbox=box)
            if count:
                found.append(kind)
            left += share
    ax.set_yticks(range(len(runs)), [run["model"] for run in runs])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    ax.grid(visible=False)
    ax.set(title=title, xlabel="share of the visitors that came", xlim=(0, 1))
    signs = [
        Patch(facecolor="white" if hatch else GREY, edgecolor=GREY, hatch=hatch, label=kind)
        for kind, (_, hatch) in kinds.items()
        if kind in found
    ]
    below = ax.transAxes + ScaledTranslation(0, -0.55, ax.figure.dpi_scale_trans)  # inches
    place = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": below}
    place |= {"borderpad": 0, "frameon": False}
    ax.legend(handles=signs, ncols=2 if short else 5, columnspacing=1.2, **place)


def darken(path, dark):
    """Write the picture at path to dark as well, for a dark page: light is dark, hues stay.

    In HLS colours, adding 1 - (highest + lowest) to red, green and blue turns the lightness L
    into 1 - L, and changes nothing else.
    """
    colours = plt.imread(path)[:, :, :3]
    colours = colours + 1 - colours.max(2, keepdims=True) - colours.min(2, keepdims=True)
    plt.imsave(dark, 0.05 + 0.95 * colours.clip(0, 1))  # no screen's page is quite black


def draw(width, height, panel):
    """Return a Figure of one panel: panel(ax) draws it."""
    with plt.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        panel(figure.add_subplot())
    return figure


def sheet(panels, title, note, columns=3, size=(19.2, 9)):
    """Return a Figure of many panels, each a function that draws on an Axes; size in inches."""
    with plt.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1)  # inches: the panels' last and first numbers
        axes = figure.subplots(-(-len(panels) // columns), columns, squeeze=False)
        for ax, panel in itertools.zip_longest(axes.flat, panels):
            panel(ax) if panel else ax.set_visible(False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=17, fontweight="bold")
        note = textwrap.fill(note, int(11.5 * size[0]))  # so many letters fit in an inch
        figure.supxlabel(note, x=0.01, ha="left", fontsize=11, color="#555555")
    return figure


def measured(ax, series, title, x_label, y_label, log="xy"):
    """Draw raw numbers as dots, and a line through their medians, labelled at its end.

    series: {name: (colour, marker, [(x, [numbers]), ...])}; log: which axes are logarithmic; an
    x of 0 has its place left of the others.
    """
    ends = []
    for name, (colour, marker, points) in series.items():
        xs = [x for x, _ in points]
        middles = [statistics.median(values) for _, values in points]
        for x, values in points:
            if len(values) > 1:
                ax.plot([x] * len(values), values, ".", color=colour, alpha=0.35, ms=5)
        ax.plot(xs, middles, color=colour, marker=marker, clip_on=False)
        ends.append((name, xs[-1], middles[-1], colour))
    places = sorted({x for _, _, points in series.values() for x, _ in points})
    if "x" in log:
        ax.set_xscale("symlog", linthresh=places[places[0] == 0] or 1, linscale=0.4)
        place_axis(ax, places)
    value_axis(ax, "y" in log)
    ax.set(title=title, xlabel=x_label, ylabel=y_label)
    label_ends(ax, ends)
