"""Run the experiments of notebook 6, and draw what they found."""

import json
import sys
from functools import partial

from clients.system.processes import NamespaceDenied, run_captured, run_in_netns
from load_tests.harness import charts, phrases, stats
from load_tests.harness.results import Sample

from .tcp import NOTEBOOKS

explained = []  # why this machine's network is used, once that is known


def run(experiment, cases, together=False):
    """Return {name of a case: what an experiment of pressure_run.py found}, in an own network.

    cases: {name: {"server": "NAME OPTIONS", …}}. together: at the same time. With samples come
    their "latency" (stats.py), "goodput" per second and "p50" in ms: [(seconds, number or None),
    …]. Where a system forbids a network namespace, this machine's network is used, and a line says
    so once. Raises RuntimeError if it fails.
    """
    arguments = json.dumps([experiment, [*cases.values()], together])
    line = [sys.executable, "-m", "lab.pressure_run", arguments]
    try:
        done = run_in_netns([*line, "own network"], "--mount", cwd=NOTEBOOKS, timeout=600)
    except NamespaceDenied as error:
        if not explained:
            explained.append(error)
            print(f"not in a network of its own: {error}. Counters are the whole machine's.")
        done = run_captured(line, cwd=NOTEBOOKS, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{experiment} failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    for one in found:
        if "samples" in one:
            samples = one["samples"] = [Sample(*sample) for sample in one["samples"]]
            one["latency"], end = stats.latencies(samples), max(each.ended for each in samples)
            moments = stats.moments(samples, end, least=0.25)
            every = end / len(moments)
            one["goodput"] = [(each.at + every / 2, each.greetings / every) for each in moments]
            one["p50"] = [(each.at + every / 2, each.p50_ms) for each in moments]
    return dict(zip(cases, found, strict=True))


def bars(latencies, title, **labels):
    """Return a panel of a sheet: {name: a Percentile} as bars, a lower bound with an arrow."""
    values = {
        name: (stats.Value(one.ms, one.ms, one.ms, not one.exact), phrases.bounded(one))
        for name, one in latencies.items()
    }
    return partial(charts.bars, values=values, labels={"title": title, "xlabel": "ms", **labels})


def over_time(series, shaded, labels, dotted=()):
    """Return a panel of a sheet: {name: [(seconds, number or None), …]}; shaded: from, until.

    dotted: a number that the series may reach after that.
    """
    end = labels["xlim"][1]
    series = {name: [one for one in its if one[0] <= end] for name, its in series.items()}
    most = max((number or 0 for its in series.values() for _, number in its), default=0) or 1

    def panel(ax):
        ax.axvspan(*shaded, color="#F3D9A4", lw=0)
        ax.hlines(dotted, shaded[1], end, color="black", linestyle=":")
        charts.timelines(ax, series, labels | {"ylim": (0, 1.2 * most)})  # room for names

    return panel
