"""Run the experiments on TCP, each in a network namespace of its own that ends with it.

    from lab.tcp import run
    run("conversation", closer="client")     # an Observation: packets, states, calls

run() starts experiments.py inside `unshare --user --map-root-user --net --mount`. Where a system
forbids that, it prints so once and returns what the same experiment gave on another machine
(recorded.json).
"""

import datetime
import functools
import json
import os
import platform
import sys
from pathlib import Path

from clients.system.processes import NamespaceDenied, run_in_netns

from .experiments import NOT_SUPPORTED
from .observation import from_json, to_json

RECORDED = Path(__file__).with_name("recorded.json")
NOTEBOOKS = Path(__file__).resolve().parent.parent


def run(experiment, **options):
    """Run an experiment in a network of its own and return its Observation: see compare()."""
    return compare(experiment, {"": options})[""]


def compare(experiment, cases):
    """Run an experiment once per case, {name: options}, all at once; return {name: Observation}.

    Raises RuntimeError with the end of the experiment's log if it fails.
    """
    try:
        found = live(experiment, cases.values())
        if os.environ.get("TCPLAB") == "record":
            record(experiment, cases.values(), found)
    except NamespaceDenied as error:
        explain(str(error))
        found = [recorded(experiment, options) for options in cases.values()]
    return dict(zip(cases, found, strict=True))


def live(experiment, cases):
    """Return the Observations of the cases, run in a new network namespace.

    Raises NamespaceDenied if that is not allowed.
    """
    if os.environ.get("TCPLAB") == "recorded":
        raise NamespaceDenied("TCPLAB=recorded was asked for")
    program = [sys.executable, "-m", "lab.experiments", experiment, json.dumps([*cases])]
    limit = max(options.get("seconds", 0) for options in cases) + 60
    done = run_in_netns(program, "--mount", cwd=NOTEBOOKS, timeout=limit)
    log = done.stderr.strip()
    if done.returncode == NOT_SUPPORTED:
        raise NamespaceDenied(log.splitlines()[-1])
    if done.returncode:
        raise RuntimeError(f"{experiment} failed: {log}")
    found = from_json(done.stdout)
    for data in found:
        data.when = f"{datetime.date.today()}, Linux {platform.release()}"
        data.source = f"observed live, {data.when}"
    return found


@functools.cache  # once per reason
def explain(reason):
    """Print why the data are recorded ones."""
    print(
        f"not observed live here: {reason}. The pictures show recorded data and say so. Where only "
        "a network of one's own is forbidden, start Jupyter with sudo, or on a Linux that allows "
        "user namespaces."
    )


def key(experiment, options):
    """Return the name under which an experiment is recorded; its length is no part of it."""
    named = {name: value for name, value in options.items() if name != "seconds"}
    return f"{experiment} {json.dumps(named, sort_keys=True)}"


def recorded(experiment, options):
    data = from_json(RECORDED.read_text())[key(experiment, options)]
    data.source = f"recorded {data.when}"
    return data


def shortened(text):
    """Return the plain data of a JSON text with five decimals: times to 1/100 of a millisecond."""
    return json.loads(text, parse_float=lambda digits: round(float(digits), 5))


def record(experiment, cases, found):
    """Add to the recorded data."""
    known = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    for options, data in zip(cases, found, strict=True):
        known[key(experiment, options)] = shortened(to_json(data))
    lines = [f"{json.dumps(name)}: {json.dumps(known[name])}" for name in sorted(known)]
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
