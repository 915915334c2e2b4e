"""What the figures of a comparison show: each is a panel, a function that draws on an Axes."""

from functools import partial

from load_tests.harness import charts, phrases
from load_tests.harness.results import OUTCOMES

HATCHES = {  # of the outcomes; those of visitors that were served are drawn full
    "served": "",
    "too_late": "....",
    "unserved": "////",
    "unserved_established": "////",
    "unserved_syn_sent": "xx",
    "gave_up": "\\\\\\\\",
    "not_started": "oo",
    "failed": "**",
}
NARROW = 31  # letters in a line of a title of the main picture, a third of the page
MEASURES = {  # measure: title and axis of its figure
    "p50": ("First greeting, median: {}", "ms until the first greeting, p50"),
    "tail": ("First greeting, p99: {}", "ms until the first greeting, p99"),
    "throughput": ("Throughput in greetings per second: {}", "greetings per second"),
    "goodput": ("Goodput in greetings per second: {}", "greetings per second"),
    "threads": ("Threads of the server: {}", "threads"),
    "cpu": ("CPU time per greeting: {}", "µs of CPU time per greeting"),
    "memory": ("Memory per connection: {}", "KiB of the server's memory"),
}
LINEAR = ("cpu", "memory")  # the others have a logarithmic vertical axis
OVER_TIME = {  # name: (title, axis, its number, from a Moment and its seconds)
    "in_service": ("Visitors in service: {}", "visitors", lambda one, _: one.in_service),
    "latency": ("p50 of the greetings", "ms", lambda one, _: one.p50_ms),
    "throughput": ("Throughput", "greetings per second", lambda one, s: one.greetings / s),
    "failures": ("Failed and timed-out requests", "per second", lambda one, s: one.failures / s),
}


def curve(summary, name):
    """Return the panel of a measure against the load."""
    sentence, axis = MEASURES[name]
    lines = {run.model: [] for run in summary.results.runs}
    for row in summary.rows:
        if row.values[name]:
            lines[row.model].append((row.load, row.values[name]))
    config, title = summary.results.config, phrases.finding(sentence, name, summary.value(name))
    across = f"{phrases.load_unit(config)} ({config.loop} loop)"
    labels = {"title": title, "xlabel": across, "ylabel": axis}
    return partial(charts.curves, lines=lines, labels=labels, log="x" if name in LINEAR else "xy")


def bar(summary, name):
    """Return the panel of a measure as a bar per model, for the most load."""
    (sentence, axis), values = MEASURES[name], summary.value(name)
    nothing = "not measured:\nfewer than 10 connections" if name == "memory" else "none"
    texts = {
        model: (value, phrases.shown(name, value) if value else nothing)
        for model, value in values.items()
    }
    labels = {"title": phrases.finding(sentence, name, values, NARROW), "xlabel": axis}
    return partial(charts.bars, values=texts, labels=labels)


def shares(summary, short=False):
    """Return the panel of the outcomes; short: the two kinds of unserved visitors are one."""
    hidden = ("unserved_established", "unserved_syn_sent") if short else ("unserved",)
    words = {"served": "greeted", "unserved": "unserved"}
    words |= {name: one["label"] for name, one in OUTCOMES.items()}
    parts = {
        words[name]: (hatch, {row.model: getattr(row.outcomes, name) for row in summary.heaviest})
        for name, hatch in HATCHES.items()
        if name not in hidden
    }
    title = phrases.unserved(summary.heaviest, NARROW if short else 98)
    labels = {"title": title, "xlabel": "share of the visitors"}
    return partial(charts.shares, parts=parts, labels=labels, columns=2 if short else 5)


def over_time(summary, name):
    """Return the panel of the first runs with the most load over time."""
    sentence, axis, of = OVER_TIME[name]
    series = {run.model: [] for run in summary.results.runs}
    for row in summary.heaviest:
        moments = row.runs[0].moments
        every = moments[1].at if len(moments) > 1 else row.runs[0].seconds
        series[row.model] = [(one.at, of(one, every)) for one in moments]
    title = f"Over time: {sentence}"
    if name == "in_service":
        title = phrases.finding(sentence, name, summary.value(name))
    across = f"seconds since the start of the load ({summary.results.config.loop} loop)"
    labels = {"title": title, "xlabel": across, "ylabel": axis}
    return partial(charts.timelines, series=series, labels=labels, log=name == "latency")


def distribution(summary):
    """Return the panel of the distribution of the first greetings."""
    curves_of = {run.model: ([], 0) for run in summary.results.runs}
    for row in summary.heaviest:
        longest = row.runs[0].latency["first_greeting"].max
        curves_of[row.model] = row.runs[0].distribution, longest.ms if longest else 0
    title = phrases.finding("First greetings, p50: {}", "p50", summary.value("p50"))
    labels = {"title": title, "xlabel": "ms until the first greeting", "ylabel": "share answered"}
    return partial(charts.distributions, curves_of=curves_of, labels=labels)


def of_report(summary):
    """Return {name: panel} of what this load has to show."""
    hidden = {"p50"} if summary.results.config.timeout else {"p50", "goodput"}
    if not any(one.failures for row in summary.heaviest for one in row.runs[0].moments):
        hidden.add("failures")
    found = {"outcomes": shares(summary), "distribution": distribution(summary)}
    found |= {
        f"{name}_over_time": over_time(summary, name) for name in OVER_TIME if name not in hidden
    }
    return found | {name: curve(summary, name) for name in MEASURES if name not in hidden}


def of_picture(summary):
    """Return the panels of the main picture: outcomes, what visitors feel, what it costs."""
    config, middle = summary.results.config, "p50"
    if config.timeout or config.load == "no-think-time":
        middle = "goodput" if config.timeout else "throughput"
    return [shares(summary, short=True), bar(summary, middle), bar(summary, "memory")]
