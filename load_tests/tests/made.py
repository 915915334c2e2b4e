"""Runs and comparisons made of chosen samples, without a server: for tests of what is shown."""

import json
from dataclasses import is_dataclass

from load_tests.harness import results, stats
from load_tests.harness.results import Sample

CONFIG = {
    "load": "think-time",
    "loop": "closed",
    "seconds": 5.0,
    "repeats": 1,
    "seed": 1,
    "backlog": 5,
    "wait": 0.0,
    "compute": 0.0,
    "slow_requests": 0,
    "switch_interval": 0.005,
    "timeout": 0.0,
    "retries": 0,
    "processes": 1,
    "workers": 0,
}
MACHINE = results.Machine(2, "6.1", "3.11")


def read(path):
    """Return the Comparison that a results.json contains: each dataclass has fields of its own."""
    types = filter(is_dataclass, vars(results).values())
    kinds = {frozenset(one.__dataclass_fields__): one for one in types}

    def typed(row):
        return kinds.get(frozenset(row), dict)(**row)

    return json.loads(path.read_text(), object_hook=typed)


def sessions(seconds, outcome="answered", count=1):
    """Return the samples of visitors whose first greeting took this long, from 0 on."""
    end = "answered" if outcome == "answered" else "unanswered"
    return [
        Sample(str(number), request, 0.0, seconds, how)
        for number in range(count)
        for request, how in (("connect", "answered"), ("first_greeting", outcome), ("session", end))
    ]


def run(model, samples, load=7, repeat=0, limited="", **usage):
    """Return the Run that these samples give; usage: fields of ServerUsage."""
    names = results.ServerUsage.__dataclass_fields__
    usage = dict.fromkeys(names, 1) | {"cpu_incomplete": False, "readings": []} | usage
    return results.Run(
        model=model,
        program=f"/{model}.py",
        load=load,
        repeat=repeat,
        usage=results.ServerUsage(**usage),
        generator=results.GeneratorHealth(0.02, 71.0, limited),
        errors={},
        locust_report="locust.html",
        locust_counted={},
        **stats.summary(samples),
    )


def comparison(*runs, **config):
    """Return a Comparison of these runs; config: changes to CONFIG."""
    return results.Comparison(
        date="2026-11-28T12:00:00",
        machine=MACHINE,
        config=results.RunConfig(**CONFIG | config),
        runs=list(runs),
    )
