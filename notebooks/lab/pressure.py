"""Run the experiments of notebook 6, and draw what they found."""

import json
import sys
from functools import partial

import pandas

from clients.system.processes import NamespaceDenied, run_captured, run_in_netns
from load_tests.harness import charts, phrases, stats
from load_tests.harness.samples import Sample

from .tcp import NOTEBOOKS

explained = []  # why this machine's network is used, once that is known


def run(experiment, cases, together=False):
    """Return {name of a case: what an experiment of pressure_run.py found}, in an own network.

    cases: {name: {"server": "NAME OPTIONS", …}}. together: at the same time. Samples come with
    their "latency" and "moments" (stats.py). Where a system forbids a network namespace, this
    machine's network is used, and a line says so once. Raises RuntimeError if it fails.
    """
    options = {"cases": [*cases.values()], "together": together}
    if not cases:
        return {}
    try:
        done = start(run_in_netns, experiment, options, "--mount")
    except NamespaceDenied as error:
        if not explained:
            explained.append(error)
            print(f"not in a network of its own: {error}. Counters are the whole machine's.")
        done = start(run_captured, experiment, options)
    if done.returncode:
        raise RuntimeError(f"{experiment} failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    for one in found:
        if "samples" in one:
            samples = one["samples"] = [Sample(*sample) for sample in one["samples"]]
            one["latency"] = stats.latencies(samples)
            one["moments"] = stats.moments(samples, max(sample.ended for sample in samples))
    return dict(zip(cases, found, strict=True))


def start(way, experiment, options, *more):
    text = json.dumps(options | {"own_network": bool(more)})
    line = [sys.executable, "-m", "lab.pressure_run", experiment, text]
    return way(line, *more, cwd=NOTEBOOKS, timeout=600)


def bars(latencies, title):
    """Return a panel of a sheet: {name: a Percentile} as bars, a lower bound with an arrow."""
    values = {
        name: (stats.Value(one.ms, one.ms, one.ms, not one.exact), phrases.bounded(one))
        for name, one in latencies.items()
    }
    return partial(charts.bars, values=values, labels={"title": title, "xlabel": "ms"})


def over_time(series, shaded, labels):
    """Return a panel of a sheet: {name: column of per_interval()}; shaded: from when until when."""
    end, points = labels["xlim"][1], {}
    for name, column in series.items():
        rows = column.loc[:end].items()
        points[name] = [(at, None if pandas.isna(value) else value) for at, value in rows]

    def panel(ax):
        ax.axvspan(*shaded, color="#F3D9A4", lw=0)
        charts.timelines(ax, points, labels)

    return panel


def per_interval(moments, every=0.5):
    """Return a DataFrame of Moments: "goodput" per second and "seconds" (p50), by their middle."""
    rows = pandas.DataFrame(moments)
    groups = rows.groupby((rows["at"] + 1e-6) // every * every + every / 2)
    width = rows["at"].diff().median() * groups.size()
    return pandas.DataFrame(
        {"goodput": groups.greetings.sum() / width, "seconds": groups.p50_ms.median() / 1000}
    )
