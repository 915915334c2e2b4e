"""The statistics of a run, from its samples, and of repeated runs."""

import itertools
import math
import statistics
from collections import Counter
from dataclasses import asdict, dataclass

from load_tests.harness.results import LatencySummary, Moment, Outcomes, Percentile
from load_tests.harness.samples import GREETINGS, REQUESTS

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

    A censored request took longer than its sample says, nobody knows how much longer. So the
    percentile is at least the one with all censored requests answered at that moment, and at most
    the one with all of them answered last. It is exact if these two are the same; otherwise the
    first, which is certain, is returned as a lower bound.
    """
    if len(samples) < FEWEST.get(share, 1):
        return None
    rank = max(0, -(-len(samples) * share // 100) - 1)
    least = sorted(one.seconds for one in samples)[rank]
    answers = sorted(one.seconds for one in samples if not one.censored)
    exact = rank < len(answers) and answers[rank] - least <= SAME * answers[rank]
    return Percentile(1000 * (answers[rank] if exact else least), exact)


def latencies(samples):
    """Return {request: LatencySummary}."""
    found = {}
    for request in REQUESTS:
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
    if early := {"answered": "finished", "timed_out": "gave_up"}.get(seen["session"]):
        return early
    if seen["session"] == "not_started":
        return "not_started"
    if seen.get("first_greeting") == "answered":
        return "in_session"
    if seen["connect"] == "answered" and "first_greeting" not in seen:
        return "idle"
    if rows["session"].seconds < TOO_LATE:
        return "too_late"
    return "unserved_established" if seen["connect"] == "answered" else "unserved_syn_sent"


def moments(samples, end, least=0.1):
    """Return the Moments of a run that ended at end: a hundred, or fewer of least seconds."""
    every = max(least, end / 100)
    count = int(end / every) + 1
    answers, failures, changes = [[] for _ in range(count)], Counter(), Counter()
    served = {
        one.session: one.ended
        for one in samples
        if one.request == "first_greeting" and one.outcome == "answered"
    }
    for one in samples:
        place = int(one.ended / every)
        if one.request in GREETINGS and one.outcome == "answered":
            answers[place].append(1000 * one.seconds)
        failures[place] += one.outcome in ("failed", "timed_out") and one.request != "session"
        if one.request == "session" and one.session in served:
            changes[math.ceil(served[one.session] / every)] += 1
            changes[math.ceil(one.ended / every)] -= 1
    in_service = itertools.accumulate(changes[place] for place in range(count))
    return [
        Moment(round(place * every, 3), now, len(times), failures[place], *middle_and_most(times))
        for place, (now, times) in enumerate(zip(in_service, answers, strict=True))
    ]


def middle_and_most(times):
    return (statistics.median_low(times), max(times)) if times else (None, None)


def distribution(samples):
    """Return [[ms, share of the requests answered within ms], …] of first greetings.

    The unanswered ones are in no point, so the last share is below 1 if there are any.
    """
    timed = [one for one in samples if one.request == "first_greeting" and one.outcome != "failed"]
    answers = sorted(1000 * one.seconds for one in timed if not one.censored)
    ranks = range(len(answers))
    if len(answers) > POINTS:
        ranks = [round(n * (len(answers) - 1) / (POINTS - 1)) for n in range(POINTS)]
    return [[answers[rank], (rank + 1) / len(timed)] for rank in ranks]


def summary(samples):
    """Return the fields of a Run that its samples give."""
    latency = latencies(samples)
    visitors = [one for one in samples if one.request != "slow_request"]
    end = max(one.ended for one in visitors)
    seconds = end - min(one.began for one in visitors)
    greetings = sum(latency[request].answered for request in GREETINGS)
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
        "sessions_per_second": latency["session"].answered / seconds,
        "in_service_mean": statistics.fmean(one.in_service for one in series),
        "moments": series,
        "distribution": distribution(visitors),
    }


@dataclass(frozen=True)
class Value:
    """A number of repeated runs of one server under one load: median and quartiles."""

    amount: float
    low: float
    high: float
    bound: bool = False  # a lower bound
    limited: bool = False  # the load generator's speed is in it


def value(runs, measure, generated=False):
    """Return the Value of measure over repeated runs, None if a run has no such number.

    measure(run): a number, a Percentile or None. generated: whether a run that is
    generator-limited spoils it. The median of lower bounds is itself a lower bound.
    """
    found = [measure(run) for run in runs]
    if None in found:
        return None
    bound = any(isinstance(one, Percentile) and not one.exact for one in found)
    numbers = [one.ms if isinstance(one, Percentile) else one for one in found]
    low, middle, high = quartiles(numbers)
    limited = generated and any(run.generator.limited for run in runs)
    return Value(middle, low, high, bound, limited)


def groups(runs):
    """Return {(load, model): its repeated runs}, in the order of the runs."""
    found = {}
    for run in runs:
        found.setdefault((run.load, run.model), []).append(run)
    return found


def heaviest(runs):
    """Return {model: its runs with the most load}."""
    most = max(run.load for run in runs)
    return {model: these for (load, model), these in groups(runs).items() if load == most}


def add_up(runs):
    """Return the Outcomes of repeated runs together."""
    total = Counter()
    for run in runs:
        total.update(asdict(run.outcomes))
    return Outcomes(**total)


def sign_test(ratios):
    """Return the probability that chance alone puts so many ratios on one side of 1 (two-sided)."""
    above, below = sum(one > 1 for one in ratios), sum(one < 1 for one in ratios)
    tosses, most = above + below, max(above, below)
    ways = sum(math.comb(tosses, heads) for heads in range(most, tosses + 1))
    return min(1.0, 2 * ways / 2**tosses)


def verdict(ratios):
    """Return what the ratios of paired runs allow to say: "more", "less", or neither.

    A change must be one that chance makes in less than 1 of 100 cases, so it takes 8 pairs.
    """
    low, _, high = quartiles(ratios)
    if low > 0.85 and high < 1.15:
        return "no change seen"
    if sign_test(ratios) >= 0.01:
        return "unclear"
    return "more" if sum(one > 1 for one in ratios) > sum(one < 1 for one in ratios) else "less"
