"""Show the results of a comparison: a table, a picture, and a page that opens offline.

METRICS says once what is measured of a run; columns, ratios and figures are made from it.
"""

import base64
import io
import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from clients.console.formatting import count, milliseconds, number
from clients.system.processes import models
from load_tests.harness import charts
from load_tests.harness.charts import heaviest, load_text, load_unit, sound
from load_tests.harness.files import save
from load_tests.harness.stats import FATES, all_failed, never_served

SCHEMA = 1  # of results.json
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


def waiting(run):
    """Return in words how many visitors a run left waiting."""
    return f"{never(run)} of {run['scoreboard']['came']} visitors" if never(run) else "nobody"


@dataclass(kw_only=True)
class Metric:
    """One number of a run, with all that its column and its figure need.

    column: its name in tables. of(run): the number, None where there is none. A figure has three
    texts: finding, a sentence with {} for the number, which becomes its title; explanation; and
    axis (its unit). unit: what follows the number in a title. say(run): the number in words. log:
    whether its axis is logarithmic. proportional: whether it grows as the load does, so that the
    figure shows that slope. generated: whether a load generator that is too slow spoils it. unfit:
    the loads of which it says nothing. panel(ax, results, title): what draws it, if that is not a
    curve.
    """

    column: str
    of: Callable | None = None
    finding: str = ""
    explanation: str = ""
    axis: str = ""
    unit: str = ""
    say: Callable | None = None
    log: bool = False
    proportional: bool = False
    generated: bool = False
    unfit: tuple = ()
    panel: Callable | None = None

    def value(self, run):
        return self.of(run)

    def text(self, run):
        value = self.value(run)
        return DASH if value is None else number(value)

    def said(self, run):
        return self.say(run) if self.say else number(self.value(run)) + self.unit

    def is_bound(self, run):
        """Say whether the number is a lower bound."""
        return False

    def title(self, results, width=98):
        """Return the finding: the most and the least under the most load, and with which models.

        Models within a tenth of them are named with them: that much is noise. width: of a line.
        """
        runs = [run for run in heaviest(results) if self.value(run) is not None]
        values = [self.value(run) for run in runs]
        parts = {}
        for end in (max, min) if runs else ():
            most = end(values)
            near = [run for run in runs if abs(self.value(run) - most) <= most / 10]
            about = "about " if len({self.said(run) for run in near}) > 1 else ""
            said = self.said(runs[values.index(most)])
            names = ", ".join(run["model"] for run in near)
            parts[names] = f"{about}{said} with {' and '.join(names.rsplit(', ', 1))}"
        title = self.finding.format(", ".join(parts.values()) or "unknown")
        return textwrap.fill(title, width)

    def draw(self, ax, results):
        title = self.title(results)
        if self.panel:
            self.panel(ax, results, title)
        else:
            charts.curves(ax, results, self, title)


@dataclass(kw_only=True)
class Wait(Metric):
    """How long requests took, in ms: a percentile (share) of one kind of them (what).

    It may be a lower bound, and its axis is logarithmic.
    """

    what: str
    share: str
    log: bool = True
    generated: bool = True

    def value(self, run):
        found = run["latency"][self.what][self.share]
        return found and max(found["ms"], 1e-3)

    def text(self, run):
        return bounded(run, self.what, self.share)

    def said(self, run):
        return milliseconds(self.value(run))

    def is_bound(self, run):
        return not run["latency"][self.what][self.share]["exact"]


METRICS = {
    "came": Metric(column="came", of=lambda run: run["scoreboard"]["came"]),
    "fate": Metric(
        column="never served",
        of=never,
        say=waiting,
        finding="Left waiting: {}",
        explanation="What became of everybody who came, in the runs with the most load. Nobody "
        "is left out: the parts add up to all that came.",
        panel=charts.outcomes,
    ),
    "serving": Metric(
        column="served together",
        of=lambda run: run["serving_mean"],
        finding="Visitors served at the same time: {}",
        explanation="How many visitors were being served at each moment, from the first greeting "
        "until they left. A blocking server serves one; the others differ by nothing but noise "
        "until the machine is full.",
        unfit=("idlers", "chatterbox"),
        panel=charts.timelines,
    ),
    "first p50": Wait(
        column="first p50",
        what="first",
        share="p50",
        finding="First greeting: half of the visitors wait at least {}",
        axis="ms until the first greeting",
    ),
    "first": Wait(
        column="first p99",
        what="first",
        share="p99",
        finding="First greeting: one visitor in a hundred waits at least {}",
        explanation="How long the slowest hundredth (p99) waited for the first greeting, from the "
        "start of connect. Both axes are logarithmic. An arrow upwards: the end of the run cut off "
        "requests that had no answer, so the true value is higher.",
        axis="ms until the first greeting, p99",
        unfit=("idlers",),
    ),
    "next": Wait(
        column="next p99",
        what="next",
        share="p99",
        finding="Later greetings: one in a hundred takes at least {}",
        explanation="The same for the later greetings: whoever is served at all is served quickly.",
        axis="ms until a later greeting, p99",
        unfit=("idlers",),
    ),
    "rate": Metric(
        column="greetings/s",
        of=lambda run: run["greetings_per_second"],
        finding="Greetings in a second: {}",
        explanation="Greetings answered in a second, over the whole run. Both axes are "
        "logarithmic: a line that rises as the dotted one does serves twice the load twice as "
        "often, and a flat line has met a limit.",
        axis="greetings a second",
        log=True,
        proportional=True,
        generated=True,
        unfit=("idlers",),
    ),
    "threads": Metric(
        column="threads",
        of=lambda run: run["server"]["threads_most"],
        finding="Threads of the server: {}",
        explanation="The most threads that the server had at the same time. Both axes are "
        "logarithmic: a line that rises as the dotted one does has a thread for each client, and "
        "a flat line as many for two hundred as for one.",
        axis="threads",
        log=True,
        proportional=True,
    ),
    "cpu": Metric(
        column="CPU µs a greeting",
        of=lambda run: run["server"]["cpu_us_per_greeting"],
        finding="CPU time for each greeting: {}",
        explanation="CPU time of the server for each greeting, accepting and closing included.",
        axis="µs of CPU time for one greeting",
        unit=" µs",
        unfit=("idlers",),
    ),
    "memory": Metric(
        column="KiB a connection",
        of=per_connection,
        finding="Memory for each client: {}",
        explanation="By how much the server's resident memory grew, for each connection that it "
        "held at the same time; only where it held at least ten. The kernel's own memory is not "
        "in it.",
        axis="KiB of the server's memory",
        unit=" KiB",
    ),
}
COLUMNS = ("came", "fate", "serving", "first p50", "first", "threads")
MORE_COLUMNS = ("rate", "memory", "cpu")  # where the terminal is wide enough
RATIOS = ("rate", "first p50", "first", "memory", "cpu")


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
        f"--backlog {options['backlog']}{extra}, {count(options['processes'], 'Locust process')}. "
        f"{machine(results)}"
    )


def machine(results):
    """Return the day of a comparison and its machine, in one line."""
    what = results["machine"]
    return (
        f"{results['date'][:10]}, Python {what['python']}, Linux {what['kernel']}, "
        f"{what['cores']} cores."
    )


def starred(results, runs):
    """Return the note that explains the star and the hollow mark, "" if none of runs has them."""
    slow = [run["generator"] for run in runs if run["generator"]["bottleneck"]]
    if not slow or results["options"]["load"] == "idlers":
        return ""
    busy, late = (max(one[name] for one in slow) for name in ("cpu_share", "lag_ms_p99"))
    how = f"it used {busy:.0%} of a core, and was late by {late:.0f} ms"
    return f" * Locust was too slow ({how}), so the number is also its own."


def failures(results):
    """Return a line for each run in which visitors failed: how many, and the commonest reason."""
    lines = []
    for run in sound(results):
        if failed := run["scoreboard"]["failed"]:
            reason = max(run["errors"], key=run["errors"].get, default="no reason was given")
            what = f"{failed} of {run['scoreboard']['came']} visitors failed"
            what += ", and nobody was served" if all_failed(run["scoreboard"]) else ""
            lines.append(f"{run['model']}, {load_text(results, run['load'])}: {what}: {reason}")
    return lines


def table(results, wide):
    """Return the table of all the runs for the terminal."""
    names = COLUMNS + (MORE_COLUMNS if wide else ())
    shown, last = empty_table(asked(results), results, names), None
    shown.caption = starred(results, sound(results)).strip() if wide else None
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
            raise ValueError("it is what bench has written")
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
        caption_style="",
        caption_justify="left",
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
    """Draw what matters most: who waits, how long, and what a client costs.

    It is seen 880 pixels wide, two of its own for each, and no letter is lower than 12 of those.
    """
    load, runs = results["options"]["load"], heaviest(results)
    names = ["fate", "memory"] if load == "idlers" else ["fate", "first p50", "memory"]
    panels = []
    for metric in (METRICS[name] for name in names):
        how = {"short": True} if metric.panel else {"metric": metric}
        how["title"] = metric.title(results, width=31)  # a third of the page
        panels.append(partial(metric.panel or charts.bars, results=results, **how))
    title = f"The same load for each server: {load_text(results, runs[0]['load'])}"
    note = asked(results) + starred(results, runs)
    stream = io.BytesIO()
    sheet = charts.sheet(panels, title, note, len(panels), (11, 4.3))
    for ax in sheet.axes[1:]:
        ax.set_yticklabels([])  # they stand at the left
    sheet.savefig(stream, dpi=160)
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
        asked=asked(results) + starred(results, sound(results)),
        failures=failures(results),
        fates=FATES,
        figures=[(explanation, png(panel)) for explanation, panel in panels(results).values()],
    )
    save(path, text)


def png(panel):
    """Return a picture of one panel as text: a PNG in base64."""
    stream = io.BytesIO()
    charts.draw(10, 5, panel).savefig(stream, format="png", dpi=140)
    return base64.b64encode(stream.getvalue()).decode()
