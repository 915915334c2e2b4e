"""Run the experiments of notebook 6, and draw what they found."""

import json
import sys
from functools import partial

from clients.system.processes import NamespaceDenied, run_captured, run_in_netns
from load_tests.harness import charts, phrases, stats
from load_tests.harness.samples import Sample

from .tcp import NOTEBOOKS

explained = []  # why this machine's network is used, once that is known


def run(experiment, cases, together=False):
    """Return {name of a case: what an experiment of pressure_run.py found}, in an own network.

    cases: {name: {"server": "NAME OPTIONS", …}}. together: at the same time. With samples come
    their "latency" (stats.py), and over time the "goodput" per second and the "p50" in seconds:
    [(seconds, number or None), …]. Where a system forbids a network namespace, this machine's
    network is used, and a line says so once. Raises RuntimeError if it fails.
    """
    if not cases:
        return {}
    options = json.dumps({"cases": [*cases.values()], "together": together})
    line = [sys.executable, "-m", "lab.pressure_run", experiment, options]
    limits = {"cwd": NOTEBOOKS, "timeout": 600}
    try:
        done = run_in_netns([*line, "own network"], "--mount", **limits)
    except NamespaceDenied as error:
        if not explained:
            explained.append(error)
            print(f"not in a network of its own: {error}. Counters are the whole machine's.")
        done = run_captured(line, **limits)
    if done.returncode:
        raise RuntimeError(f"{experiment} failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    for one in found:
        if "samples" in one:
            samples = one["samples"] = [Sample(*sample) for sample in one["samples"]]
            one["latency"], end = stats.latencies(samples), max(each.ended for each in samples)
            moments = stats.moments(samples, end, least=0.25)
            every = end / len(moments)
            rows = [(each.at + every / 2, each) for each in moments]
            one["goodput"] = [(at, each.greetings / every) for at, each in rows]
            one["p50"] = [(at, each.p50_ms and each.p50_ms / 1000) for at, each in rows]
    return dict(zip(cases, found, strict=True))


def bars(latencies, title, **labels):
    """Return a panel of a sheet: {name: a Percentile} as bars, a lower bound with an arrow."""
    values = {
        name: (stats.Value(one.ms, one.ms, one.ms, not one.exact), phrases.bounded(one))
        for name, one in latencies.items()
    }
    return partial(charts.bars, values=values, labels={"title": title, "xlabel": "ms", **labels})


def over_time(series, shaded, labels):
    """Return a panel of a sheet: {name: [(seconds, number or None), …]}; shaded: from, until."""
    most = max((each for points in series.values() for _, each in points if each), default=1)

    def panel(ax):
        ax.axvspan(*shaded, color="#F3D9A4", lw=0)
        charts.timelines(ax, series, labels | {"ylim": (0, 1.2 * most)})  # room for names

    return panel
