"""Show the results of a comparison: a table, a picture, and a page that opens offline."""

import base64
import html
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from load_tests.measuring import charts
from load_tests.measuring.charts import load_unit, milliseconds, number
from load_tests.measuring.score import FATES, never_served

DASH = "-"


# What is measured of a run, None where there is nothing


def first_p50(run):
    return time_of(run, "first", "p50")


def first_p99(run):
    return time_of(run, "first", "p99")


def time_of(run, what, share):
    found = run["latency"][what][share]
    return found and max(found["ms"], 1e-3)


def is_bound(what, share, run):
    found = run["latency"][what][share]
    return bool(found) and not found["exact"]


def bounded(run, what, share):
    """Return a time as text, "≥" before it if it is only a lower bound."""
    found = run["latency"][what][share]
    if not found:
        return DASH
    return f"{'' if found['exact'] else '≥ '}{milliseconds(found['ms'])}"


def per_connection(run):
    """Return KiB for each connection, where there are enough of them to tell."""
    server = run["server"]
    enough = server["connections_most"] >= 10
    return max(server["rss_per_connection"], 0) / 1024 if enough else None


def cpu(run):
    return run["server"]["cpu_us_per_greeting"]


def text(value, suffix=""):
    return DASH if value is None else number(value) + suffix


def sound(results):
    return [run for run in results["runs"] if not run["error"]]


def never(run):
    return never_served(run["scoreboard"])


@dataclass
class Curve:
    """A figure of one number against the load, a line a model.

    heading, unit, explanation: its texts. measure(run): the number, None where there is none;
    show(run): the same as text. best: max or min, whichever is better. latency: (what, share)
    if it is a latency, whose axis is logarithmic and whose numbers may be lower bounds.
    generated: whether a load generator that is too slow spoils it.
    """

    heading: str
    unit: str
    explanation: str
    measure: Callable
    show: Callable
    best: Callable = min
    latency: tuple = ()
    generated: bool = False

    def draw(self, ax, results):
        title = finding(results, self.heading, self.measure, self.show, self.best)
        slow = self.generated and any(run["generator"]["bottleneck"] for run in sound(results))
        bound = partial(is_bound, *self.latency) if self.latency else None
        title += "*" if slow else ""
        charts.curves(ax, results, self.measure, title, self.unit, bool(self.latency), bound)


def finding(results, what, measure, show, best):
    """Return a title: the best and the worst of the models under the most load, by measure."""
    most = max(run["load"] for run in sound(results))
    runs = [run for run in sound(results) if run["load"] == most and measure(run) is not None]
    if not runs:
        return what
    good, bad = best(runs, key=measure), (min if best is max else max)(runs, key=measure)
    ends = [good] if good is bad else [good, bad]
    return f"{what}: " + ", ".join(f"{run['model']} {show(run)}" for run in ends)


CURVES = {
    "first": Curve(
        "First greeting p99",
        "ms, p99",
        "How long the slowest hundredth waited for the first greeting, from the start of connect. "
        "An arrow upwards: the end of the run cut off requests that had no answer, so the true "
        "value is higher.",
        first_p99,
        lambda run: bounded(run, "first", "p99"),
        latency=("first", "p99"),
        generated=True,
    ),
    "next": Curve(
        "Later greetings p99",
        "ms, p99",
        "The same for the later greetings: whoever is served at all is served quickly.",
        lambda run: time_of(run, "next", "p99"),
        lambda run: bounded(run, "next", "p99"),
        latency=("next", "p99"),
        generated=True,
    ),
    "rate": Curve(
        "Greetings a second",
        "greetings a second",
        "Greetings answered in a second, over the whole run.",
        lambda run: run["greetings_per_second"],
        lambda run: number(run["greetings_per_second"]),
        best=max,
        generated=True,
    ),
    "threads": Curve(
        "Threads",
        "threads",
        "The most threads that the server had at once.",
        lambda run: run["server"]["threads_most"],
        lambda run: number(run["server"]["threads_most"]),
    ),
    "cpu": Curve(
        "CPU a greeting",
        "µs",
        "CPU time of the server for each greeting, accepting and closing included.",
        cpu,
        lambda run: text(cpu(run), " µs"),
    ),
    "memory": Curve(
        "Memory a connection",
        "KiB",
        "By how much the server's resident memory grew, for each connection that it held at "
        "once; only where it held at least ten. The kernel's own memory is not in it.",
        per_connection,
        lambda run: text(per_connection(run), " KiB"),
    ),
}
UNFIT = {"idlers": {"serving", "first", "next", "rate", "cpu"}, "chatterbox": {"serving"}}


def panels(results):
    """Return {name: (what to look for, panel(ax))} of the figures that this load has to show."""
    left = finding(results, "Left waiting", never, lambda run: number(never(run)), min)

    def mean(run):
        return run["serving_mean"]

    served = finding(results, "Served at once", mean, lambda run: number(mean(run)), max)
    shown = {
        "fate": (
            "What became of everybody who came, in the runs with the most load. Nobody is left "
            "out: the parts add up to all that came.",
            partial(charts.outcomes, results=results, title=left),
        ),
        "serving": (
            "How many visitors were being served at each moment, from the first greeting until "
            "they left. A blocking server serves one; the others differ by nothing but noise "
            "until the machine is full.",
            partial(charts.timelines, results=results, title=served),
        ),
        **{
            name: (curve.explanation, partial(curve.draw, results=results))
            for name, curve in CURVES.items()
        },
    }
    unfit = UNFIT.get(results["options"]["load"], set())
    return {name: panel for name, panel in shown.items() if name not in unfit}


def asked(results):
    """Return one sentence that says what was asked of the servers, and of which machine."""
    options = results["options"]
    loop = (
        "Open loop: visitors come whether or not the server keeps up, and their times count from "
        "the moment they meant to come."
        if options["loop"] == "open"
        else "Closed loop: a user who waits sends nothing else."
    )
    extra = "".join(
        f", --{name} {options[name]:g}" for name in ("wait", "compute") if options[name]
    )
    return (
        f"{loop} Load: {options['load']}, {options['seconds']:g} s a run, "
        f"--backlog {options['backlog']}{extra}, {options['processes']} Locust process(es). "
        f"{machine(results)}"
    )


def machine(results):
    """Return the day of a comparison and its machine, in one line."""
    what = results["machine"]
    return (
        f"{results['date'][:10]}, Python {what['python']}, Linux {what['kernel']}, "
        f"{what['cores']} cores."
    )


def starred(results):
    """Return the note that explains the star, "" if no generator was the bottleneck."""
    slow = [run["generator"] for run in sound(results) if run["generator"]["bottleneck"]]
    if not slow or results["options"]["load"] == "idlers":
        return ""
    busy, late = (max(one[name] for one in slow) for name in ("cpu_share", "lag_ms_p99"))
    how = f"{busy:.0%} of a core, late by {late:.0f} ms"
    return f" * The load generator, not the server, was the limit: {how}."


# The columns of the table; those from "greetings/s" on need a wide terminal.
COLUMNS = {
    "came": lambda run: number(run["scoreboard"]["came"]),
    "never served": lambda run: f"[bold red]{never(run)}[/]" if never(run) else "0",
    "served at once": lambda run: number(run["serving_mean"]),
    "first p50": lambda run: bounded(run, "first", "p50"),
    "first p99": lambda run: bounded(run, "first", "p99"),
    "threads": lambda run: number(run["server"]["threads_most"]),
    "greetings/s": lambda run: (
        number(run["greetings_per_second"]) + ("*" if run["generator"]["bottleneck"] else "")
    ),
    "KiB a connection": lambda run: text(per_connection(run)),
    "CPU µs a greeting": lambda run: text(cpu(run)),
}


def table(results, wide):
    """Return the table of all the runs for the terminal."""
    columns = dict(list(COLUMNS.items())[: None if wide else 6])
    looks = {"title_justify": "left", "title_style": "", "box": SIMPLE_HEAD, "pad_edge": False}
    shown = Table(title=asked(results), **looks)
    shown.add_column("server", no_wrap=True)
    for name in (load_unit(results), *columns):
        shown.add_column(name, justify="right", max_width=None if wide else 9)
    last = None
    for run in results["runs"]:
        if last not in (None, run["load"]):
            shown.add_section()
        last = run["load"]
        texts = ["failed"] if run["error"] else [show(run) for show in columns.values()]
        shown.add_row(run["model"], number(run["load"]), *texts)
    return shown


def failures(results):
    """Return a line for each run in which visitors failed: how many, and the commonest reason."""
    lines = []
    for run in sound(results):
        if failed := run["scoreboard"]["failed"]:
            reason = max(run["errors"], key=run["errors"].get)
            what = f"{failed} of {run['scoreboard']['came']} visitors failed"
            lines.append(f"{run['model']}, {run['load']:g} {load_unit(results)}: {what}: {reason}")
    return lines


RATIOS = {
    "greetings/s": lambda run: run["greetings_per_second"],
    "first p50": first_p50,
    "first p99": first_p99,
    "KiB/conn.": per_connection,
    "CPU µs/greet.": cpu,
}


def ratios(results, old):
    """Return a table of these results over old ones, for the runs that both have."""
    shown = Table(title=f"These results over those of {old['date'][:16]}", title_justify="left")
    shown.add_column("server", no_wrap=True)
    for name in (load_unit(results), *RATIOS):
        shown.add_column(name, justify="right")
    before = {(run["model"], run["load"]): run for run in sound(old)}
    for run in sound(results):
        if then := before.get((run["model"], run["load"])):
            pairs = [(measure(run), measure(then)) for measure in RATIOS.values()]
            texts = [f"{now / past:.2f}" if now and past else DASH for now, past in pairs]
            shown.add_row(run["model"], number(run["load"]), *texts)
    return shown


def picture(results, path, dark):
    """Draw the six figures that say most, on one sheet; to dark the same for a dark page."""
    all_panels = panels(results)
    order = ("fate", "serving", "first", "rate", "threads", "cpu", "memory")
    wanted = [name for name in order if name in all_panels][:6]
    most = max(run["load"] for run in sound(results))
    title = f"The same load on each server: what it does with {most:g} {load_unit(results)}"
    sheet = charts.sheet(
        [all_panels[name][1] for name in wanted], title, asked(results) + starred(results)
    )
    sheet.savefig(path, dpi=110)
    charts.darken(path, dark)


def page(results, path):
    """Write the whole report as one file that needs nothing else."""
    parts = [f"<p class=asked>{html.escape(asked(results) + starred(results))}</p>"]
    if results["interrupted"]:
        parts.append("<p class=error>Interrupted: this is what was measured until then.</p>")
    for run in results["runs"]:
        if run["error"]:
            message = f"{run['model']}, load {run['load']:g}: {run['error']}"
            parts.append(f"<p class=error>{html.escape(message)}</p>")
    parts += [f"<p class=error>{html.escape(line)}</p>" for line in failures(results)]
    parts += [scores(results), *map(_section, panels(results).values())]
    style = (Path(__file__).parent / "report.css").read_text()
    path.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        f"<title>The models compared</title><style>{style}</style>"
        f"<h1>The models compared</h1>{''.join(parts)}</html>"
    )


def _section(panel):
    explanation, draw = panel
    stream = io.BytesIO()
    charts.draw(10, 5, draw).savefig(stream, format="png", dpi=140)
    picture = base64.b64encode(stream.getvalue()).decode()
    alt = html.escape(explanation)
    return f"<section><img alt='{alt}' src='data:image/png;base64,{picture}'><p>{alt}</p></section>"


def scores(results):
    """Return the scoreboard as an HTML table: what became of everybody who came."""
    head = "".join(f"<th title='{html.escape(FATES[name])}'>{name}" for name in FATES)
    rows = []
    for run in sound(results):
        board = run["scoreboard"]
        numbers = "".join(
            f"<td class={'bad' if name.startswith('never') and board[name] else 'n'}>{board[name]}"
            for name in FATES
        )
        server = run["server"]
        rows.append(
            f"<tr><td>{html.escape(run['model'])}<td class=n>{run['load']:g}"
            f"<td class=n>{board['came']}{numbers}"
            f"<td class=n>{server['accept_queue_most']} of {server['accept_queue_limit']}"
            f"<td class=n>{server['syn_sent_most']}<td class=n>{server['listen_drops']}"
            f"<td class=n>{run['generator']['cpu_share']:.0%}"
            f"<td><a href='{html.escape(run['locust'])}'>Locust</a>"
        )
    meanings = "".join(f"<dt>{name}<dd>{html.escape(text)}" for name, text in FATES.items())
    return (
        "<h2>Scoreboard</h2><table><tr><th>server<th>load<th>came" + head +
        "<th>accept queue<th>SYN-SENT<th>SYN drops<th>generator<th>report" + "".join(rows) +
        f"</table><details><summary>What the words mean</summary><dl>{meanings}"
        "<dt>accept queue<dd>the most connections seen waiting for accept(), of how many fit"
        "<dt>SYN-SENT<dd>the most clients seen whose connect() had no answer yet"
        "<dt>SYN drops<dd>packets that the kernel dropped because the accept queue was full "
        "(ListenDrops, of the whole machine)<dt>generator<dd>the CPU share of the busiest Locust "
        "process; above 90 % it is the bottleneck</dl></details>"
    )  # fmt: skip
