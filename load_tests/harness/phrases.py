"""The numbers of a comparison in words: for the table, the figures and the page."""

import textwrap

from clients.console.formatting import count, milliseconds, number

TEXTS = {  # name of a measure: its number as text, where that is not number()
    **dict.fromkeys(("p50", "tail"), milliseconds),
    "cpu": lambda value: f"{number(value)} µs",
    "memory": lambda value: f"{number(value)} KiB",
}


def text(name, amount):
    return TEXTS.get(name, number)(amount)


def shown(name, value):
    """Return a Value of a measure as text: "≥" marks a lower bound, "*" generator-limited."""
    if not value:
        return "-"
    return f"{'≥ ' if value.bound else ''}{text(name, value.amount)}{'*' if value.limited else ''}"


def quartiles(name, value):
    """Return the quartiles of a Value as text, without a unit if it is the median's as well."""
    texts = [text(name, one) for one in (value.low, value.amount, value.high)]
    (low, *_), _, (high, *_) = parts = [one.rpartition(" ") for one in texts]
    same_unit = low and len({unit for _, _, unit in parts}) == 1
    return f"{low}-{high}" if same_unit else f"{texts[0]}-{texts[2]}"


def bounded(percentile):
    """Return a Percentile as text, "≥" before it if it is a lower bound."""
    if not percentile:
        return "-"
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
    """Return what was asked of the servers, and of which machine."""
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
    source = count(config.processes, "Locust worker" if config.workers else "Locust process")
    repeats = "one run each" if config.repeats == 1 else f"median of {config.repeats} runs"
    return (
        f"{loop} Load: {config.load}, {config.seconds:g} s per run, {repeats}, seed {config.seed}, "
        f"--backlog {config.backlog}{extra}, {source}. {machine(results)}"
    )


def machine(results):
    """Return the day of a comparison and its machine, in one line."""
    what = results.machine
    cores = count(what.cores, "core")
    return f"{results.date[:10]}, Python {what.python}, Linux {what.kernel}, {cores}."


def limits(rows):
    """Return the sentence that explains the mark of generator-limited runs, "" without any."""
    health = [run.generator for row in rows for run in row.runs if run.generator.limited]
    if not health:
        return ""
    worst = max(health, key=lambda one: (one.lag_ms_p99, one.cpu_share))
    said = f"the load generator {worst.limited}, so the number is also its own"
    return f"* generator-limited: {said}."


def footnotes(summary):
    """Return the sentences that explain the marks of the table."""
    latencies = [run.latency["first_greeting"] for row in summary.rows for run in row.runs]
    bounds = {name for row in summary.rows for name, one in row.values.items() if one and one.bound}
    notes = [limits(summary.rows)]
    if bounds - {"cpu"}:
        notes.append("≥ lower bound: not all requests were answered.")
    if "cpu" in bounds:
        notes.append("≥ CPU: the CPU time of child processes is lost when they end.")
    if any(one.max and not one.p99 for one in latencies):
        notes.append("max of n: the longest of n first greetings, too few for p99 (n < 100).")
    return " ".join(filter(None, notes))


def failures(results):
    """Return a line for each worker that left a run, and for each run in which visitors failed."""
    lines = []
    for run in results.runs:
        name = f"{run.model}, {load_text(results.config, run.load)}"
        lines += [f"{name}: {text}" for text in run.generator.workers_left]
        if failed := run.outcomes.failed:
            reason = max(run.errors, key=run.errors.get, default="no reason was given")
            what = f"{failed} of {run.outcomes.visitors} visitors failed"
            what += ", and no visitor was served" if run.outcomes.all_failed else ""
            lines.append(f"{name}: {what}: {reason}")
    return lines


def joined(names):
    return " and ".join(", ".join(names).rsplit(", ", 1))


def finding(sentence, name, values, width=98):
    """Return a sentence with the numbers of {model: Value} in place of {}: of at most three."""
    known, groups = {model: value for model, value in values.items() if value}, []
    for model in sorted(known, key=lambda model: -known[model].amount):
        if groups and known[model].amount >= 0.9 * known[groups[-1][0]].amount:
            groups[-1].append(model)  # the difference is noise
        else:
            groups.append([model])
    parts = []
    for near in groups if len(groups) <= 3 else (groups[0], groups[-1]):
        texts = [text(name, known[model].amount) for model in near]
        several = "about " if len(set(texts)) > 1 else ""
        mark = "≥ " if any(known[model].bound for model in near) else several
        parts.append(f"{mark}{texts[-1]} with {joined(model for model in known if model in near)}")
    return textwrap.fill(sentence.format(", ".join(parts) or "unknown"), width)


def unserved(rows, width=98):
    """Return how many visitors of which server were unserved."""
    said = {}
    for row in rows:
        found = row.outcomes
        words = f"{found.unserved} of {found.visitors} visitors" if found.unserved else "none"
        said.setdefault(words, []).append(row.model)
    parts = [f"{words} with {joined(names)}" for words, names in said.items()]
    return textwrap.fill(f"Unserved: {', '.join(parts)}", width)
