"""The results of a comparison as a table, a picture, and a page that opens offline."""

import base64
import io
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from clients.console.formatting import count, milliseconds, number
from clients.system.processes import models
from load_tests.harness import charts, stats
from load_tests.harness.files import save
from load_tests.harness.results import OUTCOMES

DASH = "-"
MOST = 10  # connections at a time that memory per connection needs at least
HATCHES = {"too_late": "....", "unserved_established": "////", "unserved_syn_sent": "xx"}
HATCHES |= {"gave_up": "\\\\\\\\", "not_started": "oo", "failed": "**"}
SERVED = ("finished", "in_session", "idle")
UNSERVED = ("unserved_established", "unserved_syn_sent")


@dataclass(frozen=True)
class Measure:
    """A number of a run, and how it is written."""

    of: Callable  # of(run): a number, a Percentile, or None
    text: Callable = number  # text(number)
    generated: bool = False  # whether a load generator that is too slow spoils it

    def value(self, runs):
        return stats.value(runs, self.of, self.generated)

    def shown(self, value):
        """Return a Value as text: "≥" marks a lower bound, "*" generator-limited."""
        if not value:
            return DASH
        mark = "*" if value.limited else ""
        return f"{'≥ ' if value.bound else ''}{self.text(value.amount)}{mark}"


def first(share):
    return lambda run: getattr(run.latency["first_greeting"], share)


def tail(request):
    """Return a measure's function: p99 of a request, the maximum below 100 samples."""
    return lambda run: run.latency[request].p99 or run.latency[request].max


def per_connection(run):
    """Return KiB per connection, None where too few were open at a time."""
    enough = run.usage.connections_peak >= MOST
    return max(run.usage.rss_per_connection, 0) / 1024 if enough else None


VISITORS = Measure(lambda run: run.outcomes.visitors)
UNSERVED_VISITORS = Measure(lambda run: run.outcomes.unserved)
IN_SERVICE = Measure(lambda run: run.in_service_mean)
P50 = Measure(first("p50"), milliseconds, generated=True)
TAIL = Measure(tail("first_greeting"), milliseconds, generated=True)
LATER_TAIL = Measure(tail("later_greeting"), milliseconds, generated=True)
THROUGHPUT = Measure(lambda run: run.throughput, generated=True)
GOODPUT = Measure(lambda run: run.goodput, generated=True)
THREADS = Measure(lambda run: run.usage.threads_peak)
CPU = Measure(lambda run: run.usage.cpu_us_per_greeting, lambda value: f"{number(value)} µs")
MEMORY = Measure(per_connection, lambda value: f"{number(value)} KiB")

COLUMNS = {
    "visitors": VISITORS,
    "unserved": UNSERVED_VISITORS,
    "greetings per s": THROUGHPUT,
    "latency p50": P50,
    "latency p99": TAIL,
    "threads": THREADS,
}
MORE_COLUMNS = {"in service": IN_SERVICE, "memory/ connection": MEMORY, "CPU/ greeting": CPU}
IMPATIENT_COLUMNS = {"goodput per s": GOODPUT}
RATIOS = {
    name: (COLUMNS | MORE_COLUMNS)[name]
    for name in (
        "greetings per s",
        "latency p50",
        "latency p99",
        "memory/ connection",
        "CPU/ greeting",
    )
}


def bounded(percentile):
    """Return a Percentile as text, "≥" before it if it is a lower bound."""
    if not percentile:
        return DASH
    return f"{'' if percentile.exact else '≥ '}{milliseconds(percentile.ms)}"


def load_unit(config):
    """Return what the load of a comparison is counted in."""
    return "arrivals per second" if config.loop == "open" else "users"


def load_text(config, load):
    """Return a load with its unit: "1 user", "200 users", "0.5 arrivals per second"."""
    unit = load_unit(config)
    if load == 1:
        unit = unit.replace("users", "user").replace("arrivals", "arrival")
    return f"{load:g} {unit}"


def asked(results):
    """Return in words what was asked of the servers, and of which machine."""
    config = results.config
    loop = (
        "Open loop: visitors arrive whether or not the server keeps up, and their times count from "
        "the moment they are due."
        if config.loop == "open"
        else "Closed loop: a user sends nothing while it waits for an answer."
    )
    names = ("wait", "compute", "slow_requests", "timeout", "retries")
    given = [(name.replace("_", "-"), getattr(config, name)) for name in names]
    extra = "".join(f", --{name} {value:g}" for name, value in given if value)
    repeats = f", median of {count(config.repeats, 'run')}" if config.repeats > 1 else ""
    return (
        f"{loop} Load: {config.load}, {config.seconds:g} s per run{repeats}, seed {config.seed}, "
        f"--backlog {config.backlog}{extra}, {count(config.processes, 'Locust process')}. "
        f"{machine(results)}"
    )


def machine(results):
    """Return the day of a comparison and its machine, in one line."""
    what = results.machine
    return (
        f"{results.date[:10]}, Python {what.python}, Linux {what.kernel}, "
        f"{count(what.cores, 'core')}."
    )


def footnotes(results, runs):
    """Return the sentences that explain the marks in the numbers of runs, "" if there are none."""
    notes = []
    limited = [run.generator.limited for run in runs if run.generator.limited]
    if limited and results.config.load != "idle":
        worst = max(limited, key=len)
        notes.append(f"* generator-limited: Locust {worst}; the number includes that.")
    if any(not one.exact for run in runs if (one := run.latency["first_greeting"].max)):
        notes.append("≥ lower bound: not all requests were answered.")
    few = [run for run in runs if run.latency["first_greeting"].max]
    few = [run for run in few if not run.latency["first_greeting"].p99]
    if few:
        notes.append("max: the longest of n first greetings, where n < 100 gives no p99.")
    return " ".join(notes)


def failures(results):
    """Return a line for each run in which visitors failed: how many, and the commonest reason."""
    lines = []
    for run in results.runs:
        if failed := run.outcomes.failed:
            reason = max(run.errors, key=run.errors.get, default="no reason was given")
            what = f"{failed} of {run.outcomes.visitors} visitors failed"
            what += ", and no visitor was served" if run.outcomes.all_failed else ""
            load = load_text(results.config, run.load)
            lines.append(f"{run.model}, {load}: {what}: {reason}")
    return lines


def table(results, wide):
    """Return the table of all the runs for the terminal; repeats share a row."""
    columns = COLUMNS | (IMPATIENT_COLUMNS if results.config.timeout else {})
    columns |= MORE_COLUMNS if wide else {}
    shown, last = empty_table(asked(results), results.config, columns), None
    shown.caption = footnotes(results, results.runs)
    found = stats.groups(results.runs)
    failed = stats.groups(results.failed_runs)
    for load, model in sorted(found | failed, key=lambda key: key[0]):
        if last not in (None, load):
            shown.add_section()
        last = load
        runs = found.get((load, model), [])
        texts = [cell(one, runs) for one in columns.values()] if runs else ["failed"]
        shown.add_row(model, number(load), *texts)
    return shown


def cell(measure, runs):
    """Return what the table shows of repeated runs: the median, and below it the quartiles."""
    value = measure.value(runs)
    text = measure.shown(value)
    if measure is TAIL and runs[0].latency["first_greeting"].p99 is None and value:
        text += f"\nmax of {runs[0].latency['first_greeting'].asked}"
    if value and len(runs) > 1 and measure is not VISITORS:
        text += f"\n{measure.text(value.low)}-{measure.text(value.high)}"
    return Text(text, style="bold red" if measure is UNSERVED_VISITORS and value.amount else "")


def empty_table(title, config, columns):
    """Return a table with these columns, and no rows."""
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
    for heading in (load_unit(config), *columns):
        # With headings of two lines, all numbers fit into 80 columns next to a model's name.
        shown.add_column(heading.replace(" ", "\n", 1), justify="right")
    return shown


def differences(results, old):
    """Return a line that says what else differs from old results, "" if nothing does."""

    def facts(of):
        programs = {run.model: run.program for run in of.runs}
        others = {name: programs[name] for name in programs.keys() - models().keys()}
        return {**asdict(of.config), **asdict(of.machine), **others}

    now, then = facts(results), facts(old)
    said = [
        f"{name} {then[name]} (now {now[name]})"
        for name in then
        if name in now and now[name] != then[name]
    ]
    return f"What else differs: {', '.join(said)}.\n" if said else ""


def ratios(results, old):
    """Return a table of these results relative to old ones, for the runs that both have.

    Run n is divided by the old run n: both had the same arrivals and think times.
    """
    title = f"These results relative to those of {old.date[:16]} (1.00), quartiles, verdict"
    now, then = stats.groups(results.runs), stats.groups(old.runs)
    if not now.keys() & then.keys():
        title += ": no run is in both"
    shown = empty_table(title, results.config, RATIOS)
    for key in now.keys() & then.keys():
        texts = [ratio(one, now[key], then[key]) for one in RATIOS.values()]
        shown.add_row(key[1], number(key[0]), *texts)
    return shown


def ratio(measure, runs, old):
    """Return the ratio of two lists of repeated runs as text, with quartiles and a verdict."""
    pairs = [
        (measure.value([one]), measure.value([other]))
        for one, other in zip(runs, old, strict=False)
    ]
    if len(pairs) < 2 or any(not v or v.bound or not v.amount for pair in pairs for v in pair):
        return DASH  # a ratio of lower bounds, or without a spread, says nothing
    found = [one.amount / other.amount for one, other in pairs]
    low, middle, high = stats.quartiles(found)
    return f"{middle:.2f}\n{low:.2f}-{high:.2f}\n{stats.verdict(found)}"


def finding(sentence, measure, values, width=98):
    """Return a sentence with the most and the least of values {model: Value} in place of {}.

    Models within a tenth of them are named with them: that much is noise. width: of a line.
    """
    known, parts = {model: value for model, value in values.items() if value}, {}
    for end in (max, min) if known else ():
        most = end(known.values(), key=lambda value: value.amount)
        noise = most.amount / 10
        near = [one for one in known if abs(known[one].amount - most.amount) <= noise]
        texts = {measure.text(known[model].amount) for model in near}
        about = "about " if len(texts) > 1 else ""
        names = ", ".join(near)
        said = f"{about}{measure.text(most.amount)} with {' and '.join(names.rsplit(', ', 1))}"
        parts[names] = said
    return textwrap.fill(sentence.format(", ".join(parts.values()) or "unknown"), width)


def unserved_finding(results, width=98):
    """Return the title of the outcomes: how many visitors of which server were unserved."""
    said = {}
    for model, runs in stats.heaviest(results.runs).items():
        board = stats.add_up(runs)
        words = f"{board.unserved} of {board.visitors} visitors" if board.unserved else "none"
        said.setdefault(words, []).append(model)
    parts = [f"{words} with {' and '.join(names)}" for words, names in said.items()]
    return textwrap.fill(f"Unserved: {', '.join(parts)}", width)


def all_models(results):
    return dict.fromkeys(run.model for run in results.runs)


def of_heaviest(results, make):
    """Return {model: make(its runs with the most load)}, None for a model that has none."""
    most = stats.heaviest(results.runs)
    return {model: make(most[model]) if model in most else None for model in all_models(results)}


@dataclass(frozen=True)
class Figure:
    """A chart of the report."""

    title: str
    explanation: str
    panel: Callable  # panel(ax, labels=…) draws it

    def draw(self, ax, title=None):
        self.panel(ax)
        ax.set_title(title or self.title)


def curve(results, measure, sentence, axis, explanation, log=False, slope=False):
    """Return the Figure of a measure against the load."""
    lines = {model: [] for model in all_models(results)}
    for (load, model), runs in stats.groups(results.runs).items():
        if value := measure.value(runs):
            lines[model].append((load, value))
    unit = load_unit(results.config)
    labels = {"xlabel": f"{unit} ({results.config.loop} loop)", "ylabel": axis}
    title = finding(sentence, measure, of_heaviest(results, measure.value))
    words = f"dotted slope: twice the {unit}, twice the number" if slope else ""
    panel = partial(charts.curves, lines=lines, labels=labels, log=log, slope=words)
    return Figure(title, explanation, panel)


def bar(results, measure, sentence, axis, none="too few to tell", width=31):
    """Return the Figure of a measure as a bar per model, for the most load."""
    values = of_heaviest(results, lambda runs: measure.value(runs))
    texts = {
        model: (value, measure.shown(value) if value else none) for model, value in values.items()
    }
    title = finding(sentence, measure, values, width)
    return Figure(title, "", partial(charts.bars, values=texts, labels={"xlabel": axis}))


def shares(results, short=False, width=98):
    """Return the Figure of the outcomes; short: the two kinds of unserved visitors are one."""
    boards = of_heaviest(results, lambda runs: asdict(stats.add_up(runs)))
    boards = {model: board for model, board in boards.items() if board}
    kinds = {name: (OUTCOMES[name][0], [name]) for name in OUTCOMES if name not in SERVED}
    if short:
        kinds = {"unserved_established": ("unserved", UNSERVED)} | {
            name: kind for name, kind in kinds.items() if name not in UNSERVED
        }
    served = "connected" if results.config.load == "idle" else "greeted"
    parts = {"": (served, SERVED)} | kinds
    data = {
        label: (
            HATCHES.get(name, ""),
            {model: sum(board[one] for one in names) for model, board in boards.items()},
        )
        for name, (label, names) in parts.items()
    }
    labels = {"xlabel": "share of the visitors"}
    columns = 2 if short else 5
    panel = partial(charts.shares, parts=data, labels=labels, columns=columns)
    explanation = (
        "The outcomes of all visitors, in the runs with the most load. The parts add up to all "
        "visitors."
    )
    return Figure(unserved_finding(results, width), explanation, panel)


def over_time(results, field, title, axis, explanation, log=False):
    """Return the Figure of a field of Moment in the first run with the most load."""
    series = of_heaviest(
        results, lambda runs: [(one.at, getattr(one, field)) for one in runs[0].moments]
    )
    series = {model: points or [] for model, points in series.items()}
    labels = {
        "xlabel": f"seconds since the start of the load ({results.config.loop} loop)",
        "ylabel": axis,
    }
    return Figure(
        title, explanation, partial(charts.timelines, series=series, labels=labels, log=log)
    )


def distribution(results):
    """Return the Figure of the distribution of the first greetings."""

    def points(runs):
        longest = runs[0].latency["first_greeting"].max
        return runs[0].distribution, longest.ms if longest else 0

    curves_of = {model: found or ([], 0) for model, found in of_heaviest(results, points).items()}
    sentence = "First greetings: p50 {}"
    title = finding(sentence, P50, of_heaviest(results, P50.value))
    explanation = (
        "The latency distribution of the first greetings, with the most load: which share was "
        "answered within which time. A curve that ends below 100 % goes on dotted: the rest was "
        "still unanswered."
    )
    labels = {"xlabel": "ms until the first greeting", "ylabel": "share answered"}
    return Figure(
        title, explanation, partial(charts.distributions, curves_of=curves_of, labels=labels)
    )


def figures(results):
    """Return {name: Figure} of what this load has to show."""
    load = results.config.load
    found = {"outcomes": shares(results)}
    if load == "think-time":
        found["in_service"] = over_time(
            results,
            "in_service",
            finding("Visitors in service at the same time: {}", IN_SERVICE,
                    of_heaviest(results, IN_SERVICE.value)),
            "visitors",
            "Visitors in service at each moment, from the first greeting until they leave. A "
            "blocking server serves one at a time.",
        )  # fmt: skip
    if load != "idle":
        found |= latency_figures(results)
    found["threads"] = curve(
        results, THREADS, "Threads of the server: {}", "threads",
        "The most threads that the server had at a time. Both axes are logarithmic: a line that "
        "rises as the dotted one does has a thread per client.", log=True, slope=True,
    )  # fmt: skip
    if load != "idle":
        found["cpu"] = curve(
            results, CPU, "CPU time per greeting: {}", "µs of CPU time per greeting",
            "CPU time of the server per greeting, accepting and closing included.",
        )  # fmt: skip
    found["memory"] = curve(
        results, MEMORY, "Memory per connection: {}", "KiB of the server's memory",
        "Growth of the server's resident memory per connection, where it had at least ten at a "
        "time. The kernel's own memory is not in it.",
    )  # fmt: skip
    return found


def latency_figures(results):
    """Return {name: Figure} of latency and throughput."""
    found = {"distribution": distribution(results)}
    found["first"] = curve(
        results, TAIL, "First greeting, p99: {}", "ms until the first greeting, p99",
        "Tail latency: p99 of the first greeting, from the start of connect; below 100 samples "
        "the maximum. Both axes are logarithmic. An arrow: a lower bound.", log=True,
    )  # fmt: skip
    found["later"] = curve(
        results, LATER_TAIL, "Later greetings, p99: {}", "ms until a later greeting, p99",
        "The same for later greetings: a visitor that is served at all is served quickly.",
        log=True,
    )  # fmt: skip
    found["throughput"] = curve(
        results, THROUGHPUT, "Throughput in greetings per second: {}", "greetings per second",
        "Greetings answered per second, over the whole run. Both axes are logarithmic: a line "
        "that rises as the dotted one does is in proportion to the load, a flat line has met a "
        "limit.", log=True, slope=True,
    )  # fmt: skip
    if results.config.timeout:
        found["goodput"] = curve(
            results, GOODPUT, "Goodput in greetings per second: {}", "greetings per second",
            "Goodput: greetings per second to visitors that still waited. What the throughput is "
            "more than that was work for visitors that had given up.", log=True,
        )  # fmt: skip
    for field, axis, log in (
        ("p50_ms", "ms, p50 of the greetings", True),
        ("greetings", "greetings per interval", False),
        ("failures", "failed or timed-out requests", False),
    ):
        found[f"{field}_over_time"] = over_time(
            results, field, f"Over time: {axis}", axis,
            "A run with the most load, over time. A gap: nothing was answered then.", log,
        )  # fmt: skip
    return found


def picture_figures(results):
    """Return the Figures of the main picture: outcomes, what visitors feel, what it costs."""
    width, config = 31, results.config
    found = [shares(results, short=True, width=width)]
    if config.timeout:
        found.append(bar(results, GOODPUT, "Goodput: {}", "greetings per second"))
    elif config.load == "no-think-time":
        found.append(bar(results, THROUGHPUT, "Throughput: {}", "greetings per second"))
    elif config.load != "idle":
        sentence = "First greeting: half of the visitors wait at least {}"
        found.append(bar(results, P50, sentence, "ms until the first greeting, p50"))
    sentence = "Memory per connection: {}"
    found.append(bar(results, MEMORY, sentence, "KiB of the server's memory"))
    return found


def picture(results, path):
    """Draw what matters most: outcomes, latency or throughput, and what a connection costs.

    It is seen 880 pixels wide, two of its own for each, and no letter is lower than 12 of those.
    """
    runs = [run for runs in stats.heaviest(results.runs).values() for run in runs]
    found = picture_figures(results)
    title = f"The same load for each server: {load_text(results.config, runs[0].load)}"
    note = f"{asked(results)} {footnotes(results, runs)}"
    stream = io.BytesIO()
    sheet = charts.sheet([one.draw for one in found], title, note, len(found), (11, 4.3))
    for ax in sheet.axes[1:]:
        ax.set_yticklabels([])  # they are at the left
    sheet.savefig(stream, dpi=160)
    save(path, stream.getvalue())


def darken(path, dark):
    """Write the picture at path for a dark page, to dark."""
    stream = io.BytesIO()
    charts.darken(path, stream)
    save(dark, stream.getvalue())


def page(results, path):
    """Write the whole report as one file that needs no other; report.html.j2 is its template."""
    folder = FileSystemLoader(Path(__file__).parent)
    forms = Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = forms.get_template("report.html.j2").render(
        results=results,
        asked=asked(results),
        footnotes=footnotes(results, results.runs),
        failures=failures(results),
        outcomes=OUTCOMES,
        figures=[(one.explanation, png(one.draw)) for one in figures(results).values()],
    )
    save(path, text)


def png(panel):
    """Return a picture of one panel as text: a PNG in base64."""
    stream = io.BytesIO()
    charts.draw(10, 5, panel).savefig(stream, format="png", dpi=140)
    return base64.b64encode(stream.getvalue()).decode()
