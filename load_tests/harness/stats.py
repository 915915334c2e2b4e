"""The statistics of a run, from its samples, and of repeated runs."""

import itertools
import math
import statistics
from collections import Counter
from dataclasses import asdict, dataclass

from load_tests.harness import results
from load_tests.harness.results import LatencySummary, Moment, Outcomes, Percentile

TOO_LATE = 0.5  # seconds: a visitor that comes later than that before the end is not unserved
SAME = 0.01  # a percentile whose bounds differ by this part or less counts as exact
FEWEST = {90: 10, 99: 100}  # samples that a percentile needs
POINTS = 200  # of a stored distribution


def nearest_rank(ordered, share):
    """Return a percentile of ordered numbers: the least that share % of them do not exceed."""
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


def quartiles(values):
    """Return the lower quartile, the median and the upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    return tuple(statistics.quantiles(values, method="inclusive"))


def percentile(samples, share):
    """Return a Percentile (share: 0 to 100) of the latencies of samples, None if there are few.

    A censored request took longer than its sample says. So the percentile is at least the one with
    all of them answered at that moment, and at most the one with all of them answered last. It is
    exact if these two are the same; otherwise the first, which is certain, is its lower bound.
    """
    if len(samples) < FEWEST.get(share, 1):
        return None
    least = nearest_rank(sorted(one.seconds for one in samples), share)
    longest = sorted(math.inf if one.censored else one.seconds for one in samples)
    most = nearest_rank(longest, share)
    exact = most < math.inf and most - least <= SAME * most
    return Percentile(1000 * (most if exact else least), exact)


def latencies(samples):
    """Return {request: LatencySummary}."""
    found = {}
    for request in results.REQUESTS:
        these = [one for one in samples if one.request == request]
        timed = [one for one in these if one.outcome != "failed"]
        answered = sum(one.outcome == "answered" for one in timed)
        counts = len(these), answered, len(timed) - answered, len(these) - len(timed)
        shares = (percentile(timed, share) for share in (50, 90, 99, 100))
        found[request] = LatencySummary(*counts, *shares)
    return found


def outcomes(samples):
    """Return the Outcomes of all visitors."""
    sessions = {}
    for sample in samples:
        rows = sessions.setdefault(sample.session, {})
        if sample.request not in rows or rows[sample.request].outcome != "failed":
            rows[sample.request] = sample  # the last one, or the failed one
    return Outcomes(**Counter(outcome(rows) for rows in sessions.values() if "session" in rows))


def outcome(rows):
    """Return the outcome of one visitor from its last samples {request: Sample}."""
    seen = {request: sample.outcome for request, sample in rows.items()}
    if "failed" in seen.values():
        return "failed"
    ends = {"answered": "finished", "timed_out": "gave_up", "not_started": "not_started"}
    if seen["session"] in ends:
        return ends[seen["session"]]
    if seen.get("first_greeting") == "answered":
        return "in_session"
    if rows["session"].seconds < TOO_LATE:
        return "too_late"
    return "unserved_established" if seen["connect"] == "answered" else "unserved_syn_sent"


def moments(samples, end, least=0.1):
    """Return the Moments of a run that ended at end: a hundred, or fewer of least seconds."""
    count = max(1, round(end / max(least, end / 100)))
    every = end / count
    answers, failures, changes = [[] for _ in range(count)], Counter(), Counter()
    first = [one for one in samples if one.request == "first_greeting"]
    served = {one.session: one.ended for one in first if one.outcome == "answered"}
    for one in samples:
        place = min(int(one.ended / every), count - 1)
        if one.request in results.GREETINGS and one.outcome == "answered":
            answers[place].append(1000 * one.seconds)
        failures[place] += one.outcome in ("failed", "timed_out") and one.request != "session"
        if one.request == "session" and one.session in served:
            changes[math.ceil(served[one.session] / every)] += 1
            changes[math.ceil(one.ended / every)] -= 1
    in_service = itertools.accumulate(changes[place] for place in range(count))
    middles = [statistics.median_low(times) if times else None for times in answers]
    return [
        Moment(round(n * every, 6), now, len(times), failures[n], middle)
        for n, (now, times, middle) in enumerate(zip(in_service, answers, middles, strict=True))
    ]


def distribution(samples):
    """Return [[ms, share of first greetings answered within ms], …], the last share 1 or less."""
    timed = [one for one in samples if one.request == "first_greeting" and one.outcome != "failed"]
    answers = sorted(1000 * one.seconds for one in timed if not one.censored)
    last, count = len(answers) - 1, min(len(answers), POINTS)
    ranks = (round(n * last / max(1, count - 1)) for n in range(count))
    return [[answers[rank], (rank + 1) / len(timed)] for rank in ranks]


def summary(samples):
    """Return the fields of a Run that its samples give."""
    latency = latencies(samples)
    visitors = [one for one in samples if one.request != "slow_request"]
    end = max(one.ended for one in visitors)
    seconds = end - min(one.began for one in visitors)
    greetings = sum(latency[request].answered for request in results.GREETINGS)
    abandoned = latency["abandoned_greeting"].answered
    series = moments(visitors, end)
    return {
        "seconds": seconds,
        "outcomes": outcomes(visitors),
        "latency": latency,
        "greetings": greetings,
        "abandoned": abandoned,
        "goodput": greetings / seconds,
        "throughput": (greetings + abandoned) / seconds,
        "in_service_mean": statistics.fmean(one.in_service for one in series),
        "moments": series,
        "distribution": distribution(visitors),
    }


MEASURES = {  # name: its number of a run, a Percentile, or None
    "visitors": lambda run: run.outcomes.visitors,
    "unserved": lambda run: run.outcomes.unserved,
    "in_service": lambda run: run.in_service_mean,
    "p50": lambda run: run.latency["first_greeting"].p50,
    "tail": lambda run: run.latency["first_greeting"].p99 or run.latency["first_greeting"].max,
    "throughput": lambda run: run.throughput,
    "goodput": lambda run: run.goodput,
    "threads": lambda run: run.usage.threads_peak,
    "cpu": lambda run: run.usage.cpu_us_per_greeting,
    "memory": lambda run: run.usage.rss_per_connection and run.usage.rss_per_connection / 1024,
}
GENERATED = ("p50", "tail", "throughput", "goodput")  # spoilt by a slow generator


@dataclass(frozen=True)
class Value:
    """A number of repeated runs of one server under one load: median and quartiles."""

    low: float
    amount: float
    high: float
    bound: bool = False  # a lower bound
    limited: bool = False  # the load generator's speed is in it


@dataclass(frozen=True)
class Row:
    """One server under one load: its repeated runs together."""

    model: str
    load: float
    runs: list[results.Run]
    outcomes: Outcomes
    values: dict[str, Value | None]  # by the names of MEASURES


@dataclass(frozen=True)
class Summary:
    """A comparison with its repeated runs put together."""

    results: results.Comparison
    rows: list[Row]
    heaviest: list[Row]  # those with the most load

    def value(self, name):
        """Return {model: its Value with the most load}."""
        return {row.model: row.values[name] for row in self.heaviest}


def summarise(results):
    """Return the Summary of a Comparison."""
    groups = {}
    for run in results.runs:
        groups.setdefault((run.load, run.model), []).append(run)
    rows, most = [], max((run.load for run in results.runs), default=0)
    for (load, model), runs in groups.items():
        total = Outcomes(**sum((Counter(asdict(run.outcomes)) for run in runs), Counter()))
        rows.append(Row(model, load, runs, total, {name: value(runs, name) for name in MEASURES}))
    return Summary(results, rows, [one for one in rows if one.load == most])


def value(runs, name):
    """Return the Value of a measure over repeated runs, None if a run has no such number."""
    found = [MEASURES[name](run) for run in runs]
    if None in found:
        return None
    # The median of lower bounds is itself a lower bound.
    bound = any(isinstance(one, Percentile) and not one.exact for one in found)
    bound |= name == "cpu" and any(run.usage.cpu_incomplete for run in runs)
    numbers = [one.ms if isinstance(one, Percentile) else one for one in found]
    limited = name in GENERATED and any(run.generator.limited for run in runs)
    return Value(*quartiles(numbers), bound, limited)
