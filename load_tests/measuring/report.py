"""Show the results of a comparison: a table, a picture, and a page that opens offline.

METRICS says once what is measured of a run; columns, ratios and figures are made from it.
"""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
from jinja2 import Environment, FileSystemLoader
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from clients.system.launch import models
from load_tests.measuring import charts
from load_tests.measuring.charts import heaviest, load_unit, milliseconds, number, sound
from load_tests.measuring.results import save
from load_tests.measuring.score import FATES, all_failed, never_served

SCHEMA = 1  # of results.json
NAMES = {"text.parse_math": False}  # a "$" in the name of a file is no formula
DASH = "-"


def bounded(run, what, share):
    """Return a time as text, "≥" before it if it is only a lower bound."""
    found = run["latency"][what][share]
    if not found:
        return DASH
    return f"{'' if found['exact'] else '≥ '}{milliseconds(found['ms'])}"


def never(run):
    return never_served(run["scoreboard"])


def per_connection(run):
    """Return KiB for each connection, where there are enough of them to tell."""
    server = run["server"]
    enough = server["connections_most"] >= 10
    return max(server["rss_per_connection"], 0) / 1024 if enough else None


@dataclass(kw_only=True)
class Metric:
    """One number of a run, with all that its column and its figure need.

    column: its name in tables. of(run): the number, None where there is none. best: min or max,
    whichever is better. A figure has three texts: title, explanation and axis (its unit). unit:
    what follows the number in the title. generated: whether a load generator that is too slow
    spoils it. unfit: the loads of which it says nothing. panel(ax, results, title): what draws
    it, if that is not a curve.
    """

    column: str
    of: Callable | None = None
    best: Callable = min
    title: str = ""
    explanation: str = ""
    axis: str = ""
    unit: str = ""
    generated: bool = False
    unfit: tuple = ()
    panel: Callable | None = None

    def value(self, run):
        return self.of(run)

    def text(self, run):
        value = self.value(run)
        return DASH if value is None else number(value)

    def finding(self, results):
        """Return a title: the best and the worst of the models under the most load."""
        runs = [run for run in heaviest(results) if self.value(run) is not None]
        if not runs:
            return self.title
        worst = min if self.best is max else max
        good, bad = self.best(runs, key=self.value), worst(runs, key=self.value)
        ends = [good] if good is bad else [good, bad]
        said = (f"{run['model']} {self.text(run)}{self.unit}" for run in ends)
        return f"{self.title}: {', '.join(said)}"

    def draw(self, ax, results):
        slow = any(run["generator"]["bottleneck"] for run in sound(results))
        title = self.finding(results) + ("*" if self.generated and slow else "")
        (self.panel or self.curve)(ax, results, title)

    def curve(self, ax, results, title):
        charts.curves(ax, results, self.value, title, self.axis)


@dataclass(kw_only=True)
class Wait(Metric):
    """How long requests took, in ms: a percentile (share) of one kind of them (what).

    It may be a lower bound, and its axis is logarithmic.
    """

    what: str
    share: str
    axis: str = "ms, p99"
    generated: bool = True

    def value(self, run):
        found = run["latency"][self.what][self.share]
        return found and max(found["ms"], 1e-3)

    def text(self, run):
        return bounded(run, self.what, self.share)

    def is_bound(self, run):
        return not run["latency"][self.what][self.share]["exact"]

    def curve(self, ax, results, title):
        charts.curves(ax, results, self.value, title, self.axis, True, self.is_bound)


METRICS = {
    "came": Metric(column="came", of=lambda run: run["scoreboard"]["came"]),
    "fate": Metric(
        column="never served",
        of=never,
        title="Left waiting",
        explanation="What became of everybody who came, in the runs with the most load. Nobody "
        "is left out: the parts add up to all that came.",
        panel=charts.outcomes,
    ),
    "serving": Metric(
        column="served at once",
        of=lambda run: run["serving_mean"],
        best=max,
        title="Served at once",
        explanation="How many visitors were being served at each moment, from the first greeting "
        "until they left. A blocking server serves one; the others differ by nothing but noise "
        "until the machine is full.",
        unfit=("idlers", "chatterbox"),
        panel=charts.timelines,
    ),
    "first p50": Wait(column="first p50", what="first", share="p50"),
    "first": Wait(
        column="first p99",
        what="first",
        share="p99",
        title="First greeting p99",
        explanation="How long the slowest hundredth waited for the first greeting, from the "
        "start of connect. An arrow upwards: the end of the run cut off requests that had no "
        "answer, so the true value is higher.",
        unfit=("idlers",),
    ),
    "next": Wait(
        column="next p99",
        what="next",
        share="p99",
        title="Later greetings p99",
        explanation="The same for the later greetings: whoever is served at all is served quickly.",
        unfit=("idlers",),
    ),
    "rate": Metric(
        column="greetings/s",
        of=lambda run: run["greetings_per_second"],
        best=max,
        title="Greetings a second",
        explanation="Greetings answered in a second, over the whole run.",
        axis="greetings a second",
        generated=True,
        unfit=("idlers",),
    ),
    "threads": Metric(
        column="threads",
        of=lambda run: run["server"]["threads_most"],
        title="Threads",
        explanation="The most threads that the server had at once.",
        axis="threads",
    ),
    "cpu": Metric(
        column="CPU µs a greeting",
        of=lambda run: run["server"]["cpu_us_per_greeting"],
        title="CPU a greeting",
        explanation="CPU time of the server for each greeting, accepting and closing included.",
        axis="µs",
        unit=" µs",
        unfit=("idlers",),
    ),
    "memory": Metric(
        column="KiB a connection",
        of=per_connection,
        title="Memory a connection",
        explanation="By how much the server's resident memory grew, for each connection that it "
        "held at once; only where it held at least ten. The kernel's own memory is not in it.",
        axis="KiB",
        unit=" KiB",
    ),
}
COLUMNS = ("came", "fate", "serving", "first p50", "first", "threads")
MORE_COLUMNS = ("rate", "memory", "cpu")  # where the terminal is wide enough
RATIOS = ("rate", "first p50", "first", "memory", "cpu")
PICTURE = ("fate", "serving", "first", "rate", "threads", "cpu", "memory")  # six that fit
first_p99 = METRICS["first"].value  # for figures that others draw


def panels(results):
    """Return {name: (what to look for, panel(ax))} of the figures that this load has to show."""
    load = results["options"]["load"]
    return {
        name: (metric.explanation, partial(metric.draw, results=results))
        for name, metric in METRICS.items()
        if metric.explanation and load not in metric.unfit
    }


def asked(results):
    """Return one sentence that says what was asked of the servers, and of which machine."""
    options = results["options"]
    loop = (
        "Open loop: visitors come whether or not the server keeps up, and their times count from "
        "the moment they meant to come."
        if options["loop"] == "open"
        else "Closed loop: a user who waits sends nothing else."
    )
    names = ("wait", "compute", "heavy")
    extra = "".join(f", --{name} {options[name]:g}" for name in names if options.get(name))
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


def failures(results):
    """Return a line for each run in which visitors failed: how many, and the commonest reason."""
    lines = []
    for run in sound(results):
        if failed := run["scoreboard"]["failed"]:
            reason = max(run["errors"], key=run["errors"].get, default="no reason was given")
            what = f"{failed} of {run['scoreboard']['came']} visitors failed"
            what += ", and nobody was served" if all_failed(run["scoreboard"]) else ""
            lines.append(f"{run['model']}, {run['load']:g} {load_unit(results)}: {what}: {reason}")
    return lines


def table(results, wide):
    """Return the table of all the runs for the terminal."""
    names = COLUMNS + (MORE_COLUMNS if wide else ())
    shown, last = empty_table(asked(results), results, names), None
    for run in results["runs"]:
        if last not in (None, run["load"]):
            shown.add_section()
        last = run["load"]
        texts = ["failed"] if run["error"] else [cell(name, run) for name in names]
        shown.add_row(run["model"], number(run["load"]), *texts)
    return shown


def read(path):
    """Return old results from a file. Raises OSError, ValueError if it does not hold any."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file")
    try:
        old = json.loads(path.read_text())
        if "blocks" in old:
            raise ValueError("it is what blast has written")
        ratios(old, old)
        differences(old, old)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is not the results.json of a comparison ({what})") from error
    return old


def differences(results, old):
    """Return a line that says what else is not as it was with old results, "" if nothing."""

    def facts(of):
        programs = {run["model"]: run["program"] for run in sound(of)}
        others = {name: programs[name] for name in programs.keys() - models().keys()}
        return {"schema": of["schema"], **of["options"], **of["machine"], **others}

    now, then = facts(results), facts(old)
    said = [
        f"{name} {then[name]} (now {now[name]})"
        for name in then
        if name in now and now[name] != then[name]
    ]
    return f"What else is not as it was: {', '.join(said)}.\n" if said else ""


def ratios(results, old):
    """Return a table of these results over old ones, for the runs that both have."""
    title = f"These results over those of {old['date'][:16]}"
    before = {(run["model"], run["load"]): run for run in sound(old)}
    if not any((run["model"], run["load"]) in before for run in sound(results)):
        title += ": no run is in both"
    shown = empty_table(title, results, RATIOS)
    for run in sound(results):
        if then := before.get((run["model"], run["load"])):
            pairs = [(METRICS[name].value(run), METRICS[name].value(then)) for name in RATIOS]
            texts = [f"{now / past:.2f}" if now and past else DASH for now, past in pairs]
            shown.add_row(run["model"], number(run["load"]), *texts)
    return shown


def empty_table(title, results, names):
    """Return a table with a column for each of these metrics, and no rows."""
    shown = Table(
        title=title,
        title_justify="left",
        title_style="",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    shown.add_column("server", no_wrap=True)
    for heading in (load_unit(results), *(METRICS[name].column for name in names)):
        # With headings of two lines, seven numbers fit into 80 columns beside a model's name.
        shown.add_column(heading.replace(" ", "\n", 1), justify="right")
    return shown


def cell(name, run):
    """Return what the table shows of a run in one of its columns."""
    text = METRICS[name].text(run)
    if name == "fate" and never(run):
        return Text(text, style="bold red")
    if name == "rate" and run["generator"]["bottleneck"]:
        return text + "*"
    return text


def picture(results, path):
    """Draw the six figures that say most, on one sheet."""
    shown = panels(results)
    drawn = [shown[name][1] for name in PICTURE if name in shown][:6]
    most = heaviest(results)[0]["load"]
    title = f"The same load on each server: what it does with {most:g} {load_unit(results)}"
    stream = io.BytesIO()
    with plt.rc_context(NAMES):
        charts.sheet(drawn, title, asked(results) + starred(results)).savefig(stream, dpi=110)
    save(path, stream.getvalue())


def darken(path, dark):
    """Write the picture at path for a dark page, to dark."""
    stream = io.BytesIO()
    charts.darken(path, stream)
    save(dark, stream.getvalue())


def page(results, path):
    """Write the whole report as one file that needs nothing else; report.html.j2 is its form."""
    folder = FileSystemLoader(Path(__file__).parent)
    forms = Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = forms.get_template("report.html.j2").render(
        results=results,
        runs=sound(results),
        asked=asked(results) + starred(results),
        failures=failures(results),
        fates=FATES,
        figures=[(explanation, png(panel)) for explanation, panel in panels(results).values()],
    )
    save(path, text)


def png(panel):
    """Return a picture of one panel as text: a PNG in base64."""
    stream = io.BytesIO()
    with plt.rc_context(NAMES):
        charts.draw(10, 5, panel).savefig(stream, format="png", dpi=140)
    return base64.b64encode(stream.getvalue()).decode()
