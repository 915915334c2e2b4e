"""From the samples of a run to its numbers. Nobody is left out of them.

A sample is [visitor, what, began, ended, outcome], as locustfile.py notes it. A request that
the end of the run cut off was not answered; how long it waited until then is the least that
its answer would have taken. It counts in every percentile: the statistics call it censored.
"""

import statistics

JUST_CAME = 0.5  # seconds: who came later than that before the end was not left waiting


def nearest_rank(ordered, share):
    """Return a percentile of numbers in order: the least that share % of them do not exceed."""
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


def spread(values):
    """Return the lower quartile, the median and the upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    return tuple(statistics.quantiles(values, method="inclusive"))


def percentile(samples, share):
    """Return {"ms": milliseconds, "exact": bool}: a percentile of how long the samples took.

    share: 0 to 100. This is Kaplan and Meier's estimate (1958): a request that was cut off
    after t seconds counts among those that take longer than t, and says no more. With none
    cut off it is the nearest-rank percentile. Where exact is False so many had no answer that
    the percentile lies beyond the longest wait: that is then given, to be written with "≥".
    None if there are no samples.
    """
    if not samples:
        return None
    # At the same moment, answers come before cuts: who was cut off then waited longer.
    waits = sorted(
        (ended - began, outcome != "answered") for _, _, began, ended, outcome in samples
    )
    unanswered, rest = 1.0, 1 - share / 100 + 1e-9
    for place, (wait, cut_off) in enumerate(waits):
        if not cut_off:
            unanswered *= 1 - 1 / (len(waits) - place)
            if unanswered <= rest:
                return {"ms": wait * 1000, "exact": True}
    return {"ms": waits[-1][0] * 1000, "exact": False}


def latency(samples):
    """Return {what: {"asked", "answered", "unanswered", "failed", "p50", "p90", "p99", "max"}}."""
    rows = {}
    for what in ("connect", "first", "next", "visit", "heavy"):
        these = [sample for sample in samples if sample[1] == what]
        outcomes = [sample[4] for sample in these]
        timed = [sample for sample in these if sample[4] != "failed"]
        rows[what] = {
            "asked": len(these),
            "answered": outcomes.count("answered"),
            "unanswered": outcomes.count("unanswered"),
            "failed": outcomes.count("failed"),
            **{f"p{share}": percentile(timed, share) for share in (50, 90, 99)},
            "max": percentile(timed, 100),
        }
    return rows


def fate(rows):
    """Return what became of one visitor, from its rows {what: (began, ended, outcome)}."""
    outcome = {what: row[2] for what, row in rows.items()}
    began, ended, _ = rows["visit"]
    if "failed" in outcome.values():
        return "failed"
    if outcome["visit"] == "answered":
        return "finished"
    if outcome.get("first") == "answered":
        return "still served"
    if outcome["connect"] == "answered" and "first" not in outcome:
        return "idle"  # it wants no greeting
    if ended - began < JUST_CAME:
        return "just came"
    return "never greeted" if outcome["connect"] == "answered" else "never connected"


FATES = {
    "finished": "came, was greeted each time, and left",
    "still served": "had been greeted when the run ended",
    "idle": "connected, and asked for nothing",
    "just came": f"came less than {JUST_CAME} s before the end",
    "never greeted": "connected, but never answered: it waited in the accept queue, or believed so",
    "never connected": "still in SYN-SENT: the accept queue was full",
    "failed": "got an error or a wrong answer",
}


def scoreboard(samples):
    """Return {"came": n, fate: how many, ...}; the fates add up to the visitors that came."""
    visitors = {}
    for visitor, what, began, ended, outcome in samples:
        failed = visitors.setdefault(visitor, {}).get(what, ("", "", ""))[2] == "failed"
        visitors[visitor][what] = (began, ended, "failed" if failed else outcome)
    fates = [fate(rows) for rows in visitors.values()]
    return {"came": len(fates), **{name: fates.count(name) for name in FATES}}


def never_served(board):
    """Return how many visitors of a scoreboard the server left waiting for all of their time."""
    return board["never greeted"] + board["never connected"]


def all_failed(board):
    """Return whether there were visitors, and nobody of a scoreboard got more than an error."""
    served = board["finished"] + board["still served"] + board["idle"]
    return board["failed"] > 0 and not served


def serving(samples, every=0.1):
    """Return [[seconds since the start, visitors being served], ...].

    A visitor counts as served from its first greeting until it leaves; thinking is included.
    """
    began = min(sample[2] for sample in samples)
    ended = max(sample[3] for sample in samples)
    greeted = {
        visitor: at
        for visitor, what, _, at, outcome in samples
        if what == "first" and outcome == "answered"
    }
    spans = [
        (greeted[visitor], at)
        for visitor, what, _, at, _ in samples
        if what == "visit" and visitor in greeted
    ]
    moments = [began + every * number for number in range(int((ended - began) / every) + 1)]
    return [
        [round(moment - began, 3), sum(start <= moment < end for start, end in spans)]
        for moment in moments
    ]


def summary(samples):
    """Return all the numbers of a run that its samples give; see README.md, "results.json"."""
    rows = latency(samples)
    samples = [sample for sample in samples if sample[1] != "heavy"]  # they are no visitors
    seconds = max(sample[3] for sample in samples) - min(sample[2] for sample in samples)
    greetings = rows["first"]["answered"] + rows["next"]["answered"]
    moments = serving(samples)
    return {
        "seconds": seconds,
        "scoreboard": scoreboard(samples),
        "latency": rows,
        "greetings": greetings,
        "greetings_per_second": greetings / seconds,
        "visits_per_second": rows["visit"]["answered"] / seconds,
        "serving": moments,
        "serving_mean": sum(number for _, number in moments) / len(moments),
    }
