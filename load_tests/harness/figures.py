"""What the figures of a comparison show: for each a title, an explanation, and its data."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from load_tests.harness import charts, phrases
from load_tests.harness.results import OUTCOMES

HATCHES = {"too_late": "....", "unserved_established": "////", "unserved_syn_sent": "xx"}
HATCHES |= {"gave_up": "\\\\\\\\", "not_started": "oo", "failed": "**"}
SERVED = ("finished", "in_session", "idle")
UNSERVED = ("unserved_established", "unserved_syn_sent")
NARROW = 31  # letters in a line of a title of the main picture, a third of the page


@dataclass(frozen=True)
class Figure:
    """A chart with its data."""

    title: str
    panel: Callable  # panel(ax) draws it
    explanation: str = ""

    def draw(self, ax, title=None):
        self.panel(ax)
        ax.set_title(title or self.title)


CURVES = {  # measure: (title, axis, explanation, and how charts.curves() draws it)
    "tail": (
        "First greeting, p99: {}",
        "ms until the first greeting, p99",
        "Tail latency: p99 of the first greeting, from the start of connect; below 100 samples "
        "the maximum. Both axes are logarithmic. An arrow: a lower bound.",
        {"log": True},
    ),
    "later_tail": (
        "Later greetings, p99: {}",
        "ms until a later greeting, p99",
        "The same for later greetings: a visitor that is served at all is served quickly.",
        {"log": True},
    ),
    "throughput": (
        "Throughput in greetings per second: {}",
        "greetings per second",
        "Greetings answered per second, over the whole run. Both axes are logarithmic: a line "
        "that rises as the dotted one does is in proportion to the load, a flat line has met a "
        "limit.",
        {"log": True, "slope": True},
    ),
    "goodput": (
        "Goodput in greetings per second: {}",
        "greetings per second",
        "Greetings per second to visitors that still waited. What the throughput is more than "
        "that was work for visitors that had given up.",
        {"log": True},
    ),
    "threads": (
        "Threads of the server: {}",
        "threads",
        "The most threads that the server had at a time. Both axes are logarithmic: a line that "
        "rises as the dotted one does has a thread per client.",
        {"log": True, "slope": True},
    ),
    "cpu": (
        "CPU time per greeting: {}",
        "µs of CPU time per greeting",
        "CPU time of the server per greeting, accepting and closing included.",
        {},
    ),
    "memory": (
        "Memory per connection: {}",
        "KiB of the server's memory",
        "Growth of the server's resident memory per connection, where it had at least ten at a "
        "time. The kernel's own memory is not in it.",
        {},
    ),
}
P50 = (  # title and axis of a bar chart
    "First greeting: half of the visitors wait longer than {}",
    "ms until the first greeting, p50",
)
OVER_TIME = {  # name: (title, axis, its number, from a Moment and its seconds)
    "in_service": ("Visitors in service: {}", "visitors", lambda one, _: one.in_service),
    "latency": ("p50 of the greetings", "ms", lambda one, _: one.p50_ms),
    "throughput": ("Throughput", "greetings per second", lambda one, s: one.greetings / s),
    "failures": ("Failed and timed-out requests", "per second", lambda one, s: one.failures / s),
}


def models_of(summary):
    return dict.fromkeys(run.model for run in summary.results.runs)


def curve(summary, name):
    """Return the Figure of a measure against the load."""
    sentence, axis, explanation, look = CURVES[name]
    lines = {model: [] for model in models_of(summary)}
    for row in summary.rows:
        if row.values[name]:
            lines[row.model].append((row.load, row.values[name]))
    config, unit = summary.results.config, phrases.load_unit(summary.results.config)
    labels = {"xlabel": f"{unit} ({config.loop} loop)", "ylabel": axis}
    words = f"dotted slope: twice the {unit}, twice the number" if "slope" in look else ""
    title = phrases.finding(sentence, name, summary.value(name))
    look = look | {"labels": labels, "slope": words}
    return Figure(title, partial(charts.curves, lines=lines, **look), explanation)


def bar(summary, name):
    """Return the Figure of a measure as a bar per model, for the most load."""
    sentence, axis = P50 if name == "p50" else CURVES[name][:2]
    values = dict.fromkeys(models_of(summary)) | summary.value(name)
    nothing = "fewer than 10 at a time" if name == "memory" else "none"
    texts = {
        model: (value, phrases.shown(name, value) if value else nothing)
        for model, value in values.items()
    }
    title = phrases.finding(sentence, name, values, NARROW)
    return Figure(title, partial(charts.bars, values=texts, labels={"xlabel": axis}))


def shares(summary, short=False):
    """Return the Figure of the outcomes; short: the two kinds of unserved visitors are one."""
    kinds = {name: (OUTCOMES[name]["label"], [name]) for name in HATCHES}
    if short:
        kinds["unserved_established"] = "unserved", UNSERVED
        del kinds["unserved_syn_sent"]
    served = "connected" if summary.results.config.load == "idle" else "greeted"
    boards = {row.model: asdict(row.outcomes) for row in summary.heaviest}
    parts = {
        label: (
            HATCHES.get(name, ""),
            {model: sum(board[one] for one in names) for model, board in boards.items()},
        )
        for name, (label, names) in ({"": (served, SERVED)} | kinds).items()
    }
    labels, columns = {"xlabel": "share of the visitors"}, 2 if short else 5
    title = phrases.unserved(summary.heaviest, NARROW if short else 98)
    explanation = (
        "The outcomes of all visitors, in the runs with the most load. The parts add up to all "
        "visitors."
    )
    panel = partial(charts.shares, parts=parts, labels=labels, columns=columns)
    return Figure(title, panel, explanation)


def over_time(summary, name):
    """Return the Figure of the first runs with the most load over time."""
    sentence, axis, of = OVER_TIME[name]
    series = {model: [] for model in models_of(summary)}
    for row in summary.heaviest:
        moments = row.runs[0].moments
        every = moments[1].at if len(moments) > 1 else row.runs[0].seconds
        series[row.model] = [(one.at, of(one, every)) for one in moments]
    loop = summary.results.config.loop
    labels = {"xlabel": f"seconds since the start of the load ({loop} loop)", "ylabel": axis}
    look = {"labels": labels, "log": name == "latency"}
    title = f"Over time: {sentence}"
    if name == "in_service":
        title = phrases.finding(sentence, name, summary.value(name))
    explanation = "A run with the most load over time. A gap: nothing was answered then."
    return Figure(title, partial(charts.timelines, series=series, **look), explanation)


def distribution(summary):
    """Return the Figure of the distribution of the first greetings."""
    curves_of = {model: ([], 0) for model in models_of(summary)}
    for row in summary.heaviest:
        longest = row.runs[0].latency["first_greeting"].max
        curves_of[row.model] = row.runs[0].distribution, longest.ms if longest else 0
    title = phrases.finding("First greetings, p50: {}", "p50", summary.value("p50"))
    explanation = (
        "The latency distribution of the first greetings, with the most load: which share was "
        "answered within which time. A curve that ends below 100 % goes on dotted: the rest was "
        "still unanswered."
    )
    labels = {"xlabel": "ms until the first greeting", "ylabel": "share answered"}
    panel = partial(charts.distributions, curves_of=curves_of, labels=labels)
    return Figure(title, panel, explanation)


def of_report(summary):
    """Return {name: Figure} of what this load has to show."""
    config, found = summary.results.config, {"outcomes": shares(summary)}
    if config.load != "idle":
        found["distribution"] = distribution(summary)
        failed = any(one.failures for row in summary.heaviest for one in row.runs[0].moments)
        names = [name for name in OVER_TIME if failed or name != "failures"]
        found |= {f"{name}_over_time": over_time(summary, name) for name in names}
    for name in CURVES:
        if (config.load != "idle" or name in ("threads", "memory")) and (
            config.timeout or name != "goodput"
        ):
            found[name] = curve(summary, name)
    return found


def of_picture(summary):
    """Return the Figures of the main picture: outcomes, what visitors feel, what it costs."""
    config, middle = summary.results.config, ["p50"]
    if config.timeout:
        middle = ["goodput"]
    elif config.load != "think-time":
        middle = ["throughput"] if config.load == "no-think-time" else []
    return [shares(summary, short=True), *(bar(summary, name) for name in [*middle, "memory"])]
