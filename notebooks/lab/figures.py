"""The pictures that only the notebooks draw; those of the report as well are in charts.py."""

import functools
import math
import statistics

from clients.console.formatting import count, milliseconds, number
from clients.console.palette import MODELS, styles
from load_tests.harness.charts import bars, curves, draw, sheet, value_axis
from load_tests.harness.stats import Value, nearest_rank, quartiles

from . import gil
from .sequence import GREY


def of_comparison(results, name, height, title):
    """Return a figure of a comparison's report ("outcomes", "tail", …) with this title."""
    from load_tests.harness import figures, stats  # not at the top: the report's page comes with it

    panel = figures.of_report(stats.summarise(results))[name]
    panel.keywords["labels"]["title"] = title
    return draw(9, height, panel)


def stall(found, since, until):
    """Return a Figure of a load.Stall, from since to until in seconds: a line per request."""

    def panel(ax, loop, colour):
        requests = found.greetings[loop]
        ax.axvspan(found.began, found.ended, color="#F3D9A4", lw=0)
        shown = sorted((one.began, one.ended) for one in requests if since < one.began < until)
        began, ended = zip(*shown, strict=True)
        ax.hlines(range(len(shown)), began, ended, color=colour, lw=0.8)
        ax.plot(began, range(len(shown)), "o", color=colour, ms=3)  # some lines are too short
        slow = sum(one.began < found.ended and one.ended > found.began for one in requests)
        ax.text(until, 0, f"{slow} of {len(requests)} requests meet the stall", ha="right", size=12)
        times = sorted(1000 * one.seconds for one in requests)
        p50, p99 = (milliseconds(nearest_rank(times, share)) for share in (50, 99))
        ax.set_title(f"The {loop} reports: p50 {p50}, p99 {p99}", color=colour, fontsize=14)
        ax.set(xlabel="seconds since the start", ylabel="requests, in order")
        ax.set(xlim=(since, until), yticks=[])

    look = styles(found.greetings).items()
    panels = [functools.partial(panel, loop=loop, colour=colour) for loop, (colour, _) in look]
    title = "The closed loop sends hardly any requests while the server stalls"
    note = "Shaded: the server stalls. A line: a request, from its due time (dot) to its answer."
    return sheet(panels, title, note, 1, (10, 7.6))


def rounds(found, what, title, unit, factor, label, log="xy"):
    """Return a panel of a sheet: a field of each round, times factor; {clients: [Measured, ...]}.

    label: which clients. log: the logarithmic axes.
    """
    from .load import model  # not at the top: pandas comes with it

    lines = {model(one): [] for servers in found.values() for one in servers}
    for clients, servers in found.items():
        for one in servers:
            values = [factor * getattr(each, what) for each in one.rounds]
            lines[model(one)].append((clients, Value(*quartiles(values))))

    def panel(ax):
        curves(ax, lines, {"title": title, "xlabel": label, "ylabel": unit}, log)
        if "y" in log:  # a tenth more must look small
            low, high = ax.get_ylim()
            ax.set_ylim(min(low, high / 30), high)
            value_axis(ax, True)

    return panel


def gil_timeline(found, title, note):
    """Return a Figure of CPU-bound threads, {name: gil.gil_timeline()}: one row per thread.

    Dark: the thread runs. Pale: it waits for the GIL.
    """
    colours = {gil.RUNS: MODELS["02_threaded"][0], gil.WAITS: "#E9C46A", gil.BLOCKED: "white"}

    def panel(ax, name, threads):
        for row, spans in enumerate(threads.values()):
            bars = [(1000 * began, 1000 * (ended - began)) for _, began, ended in spans]
            ax.broken_barh(bars, (row - 0.35, 0.7), color=[colours[what] for what, *_ in spans])
        ax.set_yticks(range(len(threads)), [f"thread {row + 1}" for row in range(len(threads))])
        ax.invert_yaxis()
        ax.grid(visible=False)
        ax.set(title=name, xlabel="milliseconds", xlim=(0, None))
        for what in (gil.RUNS, gil.WAITS):
            ax.plot([], [], color=colours[what], lw=8, label=what)
        ax.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=10)

    panels = [functools.partial(panel, name=name, threads=one) for name, one in found.items()]
    return sheet(panels, title, note, 1, (10, 2.1 * len(found) + 0.8))


def workloads(results, title, note):
    """Return a Figure of workloads: {work: a Comparison}, a panel each.

    A panel names the servers that reach nine tenths of the best throughput, of those without
    unserved visitors; the bars of the others are pale. A generator-limited throughput is a lower
    bound, with the mark * and an arrow, and then no server is named.
    """

    def panel(ax, work, data):
        values = {}
        for run in data.runs:
            limited, rate, unserved = run.generator.limited, run.throughput, run.outcomes.unserved
            words = number(rate) + ("*" if limited else "")
            words += f", {unserved} unserved" if unserved else ""
            values[run.model] = Value(*[rate] * 3, bound=bool(limited)), words
        bars(ax, values, {"xlabel": "greetings per second (closed loop)"})
        for bar, run in zip(ax.patches, reversed(data.runs), strict=False):
            bar.set_alpha(0.35 if run.outcomes.unserved else 1)
        most = max(run.throughput for run in data.runs)
        ax.set_xlim(0, 1.5 * most)  # room for the words
        fair = [run for run in data.runs if not run.outcomes.unserved]
        best = 0.9 * max((run.throughput for run in fair), default=0)
        if any(run.generator.limited for run in fair):
            found = "undecided, generator-limited*"
        elif min(run.throughput for run in data.runs) >= 0.9 * most:
            found = "all have the same throughput"
        else:
            ahead = [run.model for run in fair if run.throughput >= best]
            found = f"best: {', '.join(ahead) or 'none'}"
        ax.set_title(f"{work}:\n{found}")

    panels = [functools.partial(panel, work=work, data=data) for work, data in results.items()]
    return sheet(panels, title, note, 2, (13, 7))


def wake_ups(times):
    """Return a Figure of what one wake-up costs: {call: {descriptors: [µs, ...]}}."""
    words = {"select": "select\n(none above 1,023)", "epoll": "epoll: the same\nfor all numbers"}
    words["poll"] = "poll: ten times as\nmany, about ten\ntimes as long"
    lines = {
        words[kind]: [(watched, Value(*quartiles(one))) for watched, one in its.items()]
        for kind, its in times.items()
    }
    look = styles(lines) | {words["epoll"]: MODELS["03_epoll"]}
    most = max(times["epoll"])
    slow, fast = (statistics.median(times[kind][most]) for kind in ("poll", "epoll"))
    least = number(10 ** int(math.log10(slow / fast)))  # one run is no measure of more digits
    title = f"Which of {most:,} is ready? poll takes more than {least} times as long as epoll"
    labels = {"title": title, "xlabel": "descriptors watched, one of them ready"}
    labels["ylabel"] = "µs per wake-up (median; pale: quartiles)"
    return draw(10, 4.8, lambda ax: curves(ax, lines, labels, look=look))


def crowds(results, title):
    """Return a Figure of crowds, {model: WatchedCrowd}: a panel each, with a row per client."""
    end = max(data.seconds for data in results.values()) * 1.1  # room for "leaves last"

    def panel(ax, name, colour):
        data = results[name]
        for client in data.clients:
            crowd_row(ax, client, colour)
        ax.set_ylim(len(data.clients) + 0.6, 0.4)
        ax.set_yticks([client.number for client in data.clients])
        ax.grid(visible=False, axis="y")
        labels = {"xlabel": "seconds since the first client's connect()", "ylabel": "client"}
        ax.set(xlim=(0, end), **labels)
        threads = count(max(one.threads for one in data.readings), "thread")
        queue = max(one.accept_queue for one in data.readings)
        words = f"{name}: at most {threads}, and {queue} in the accept queue"
        ax.set_title(words, color=colour)

    look = styles(results).items()
    panels = [functools.partial(panel, name=name, colour=colour) for name, (colour, _) in look]
    note = "Dotted: connected, without an answer so far. Dot: an answer. Shaded: it is served."
    return sheet(panels, title, note, 1, (10, 2.9 * len(results) + 0.6))


def crowd_row(ax, client, colour):
    """Draw a client: when it waits for its first answer, its answers, and when it is served."""
    row, began, (ended, end) = client.number, client.events[0].at, client.events[-1]
    answers = [at for at, what in client.events if what == "answered"]
    connected = next((at for at, what in client.events if what == "connected"), ended)
    served = min([*answers, ended])
    if connected - began > 0.2:
        ax.text(began, row, " not connected", va="center", fontsize=9, color=GREY)
    ax.plot([connected, served], [row, row], color=colour, lw=1.8, ls=":")
    ax.barh(row, ended - served, left=served, height=0.5, color=colour, alpha=0.35, lw=0)
    [dots] = ax.plot(answers, [row] * len(answers), "o", color=colour, ms=6, clip_on=False)
    dots.set_in_layout(False)  # unclipped, they would take room from the rows
    words = " cut off" if end == "cut off" else " leaves last" if client.silent else ""
    ax.text(ended, row, words, va="center", fontsize=9)
