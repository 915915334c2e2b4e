"""Recordings of all scenarios with some servers, as plain data for the page and the picture."""

import itertools
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TypedDict

from clients.console.printable import docstring_summary, printable
from clients.system import processes
from clients.trace.narration import sentence
from clients.trace.record import NOT_POSSIBLE
from clients.trace.scenarios import SCENARIOS

FOR_SENTENCES = "remote", "alone", "starts", "arguments"  # these fields are not for the page
LOOP = re.compile(r"(.{2,39}?)\1{2,}", re.DOTALL)  # three iterations or more, of equal steps


class Bundle(TypedDict):
    scenarios: dict[str, dict]  # Scenarios as data
    programs: dict[str, dict]  # {name: {"sentence": of its docstring, "lines": its text}}
    recordings: dict[str, dict[str, list[dict]]]  # {scenario: {program: TraceEvents as data}}


def record(programs, scenarios=SCENARIOS):
    """Play scenarios to servers; return a Bundle, and {(scenario, program): why it failed}.

    programs: {name: path of the program}. A scenario that cannot be recorded with each server is
    left out. Raises NamespaceDenied if this system does not allow recordings.
    """
    pairs = list(itertools.product(scenarios, programs))
    with ThreadPoolExecutor(os.cpu_count()) as workers:  # on Ctrl-C map() cancels the rest
        found = workers.map(lambda pair: play(pair[0], programs[pair[1]]), pairs)
        played = dict(zip(pairs, found, strict=True))
    failed = {pair: why for pair, (_, why) in played.items() if why}
    complete = [one for one in scenarios if not any((one, name) in failed for name in programs)]
    bundle = Bundle(scenarios={}, programs={}, recordings={})
    for name, path in programs.items():
        text = path.read_text(encoding="utf-8")
        bundle["programs"][name] = {"sentence": docstring_summary(text), "lines": text.splitlines()}
    for one in complete:
        recordings = {name: folded(played[one, name][0]) for name in programs}
        bundle["scenarios"][one], bundle["recordings"][one] = asdict(scenarios[one]), recordings
    return bundle, failed


def play(scenario, program):
    """Return the TraceEvents of one scenario with one server, as plain data, and why it failed.

    Raises NamespaceDenied if this system does not allow recordings.
    """
    if program.suffix != ".py":
        return [], f"{printable(str(program))} is not a Python program (.py)"
    line = processes.module_command("clients.trace.record", scenario, program)
    done = processes.run_in_netns(line, cwd=processes.ROOT)
    why = processes.tail(done.stderr, 1)
    if done.returncode == NOT_POSSIBLE:
        raise processes.NamespaceDenied(why)
    if done.returncode:
        return [], why
    events, lines = json.loads(done.stdout), program.read_text(encoding="utf-8").splitlines()
    for before, event in zip([None, *events], events, strict=False):
        event["sentence"] = sentence(event, before, lines)
        event["changed"] = list(event["changed"])
    return [{key: event[key] for key in event if key not in FOR_SENTENCES} for event in events], ""


def folded(events):
    """Return events without the middle iterations of loops that repeat the same lines and calls.

    The first iteration and the last are shown.
    """
    shapes = [
        str([event[name] for name in ("kind", "thread", "line", "action")])
        + str([(call["name"], call["fd"], call["error"]) for call in event["calls"]])
        for event in events
    ]
    letters = {shape: chr(number) for number, shape in enumerate(dict.fromkeys(shapes))}
    found, at = [], 0
    for loop in LOOP.finditer("".join(letters[shape] for shape in shapes)):
        length, last = len(loop[1]), loop.end() - len(loop[1])
        found += events[at : loop.start() + length]
        skipped = len(loop[0]) // length - 2
        found.append(events[last - 1] | {"skipped": skipped, "changed": []})
        at = last
    return found + events[at:]
