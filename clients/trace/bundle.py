"""Recordings of all scenarios with some servers, as plain data for the page and the picture."""

import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TypedDict

from clients.console.printable import docstring_summary, printable
from clients.system import processes
from clients.trace.differences import differences
from clients.trace.narration import sentence
from clients.trace.record import NOT_POSSIBLE
from clients.trace.scenarios import SCENARIOS

SCHEMA = 3
FOR_SENTENCES = (
    "was",
    "remote",
    "alone",
    "starts",
    "arguments",
)  # only they need these fields of an event
SHOWN = 2  # iterations of a loop that are shown if more do the same: the first and the last
LONGEST = 40  # steps of an iteration, at most


class Program(TypedDict):
    sentence: str  # of its docstring
    lines: list[str]


class Bundle(TypedDict):
    schema: int
    scenarios: dict[str, dict]  # Scenarios as data
    programs: dict[str, Program]
    recordings: dict[str, dict[str, list[dict]]]  # {scenario: {program: TraceEvents as data}}
    differences: dict[str, list[str]]  # {scenario: a sentence for its start and each action}


def record(programs, scenarios=SCENARIOS):
    """Play scenarios to servers; return a Bundle, and {(scenario, program): why it failed}.

    programs: {name: path of the program}. A scenario that cannot be recorded with each server is
    left out. Raises NamespaceDenied if this system does not allow recordings.
    """
    pairs = itertools.product(scenarios, programs)
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        played = {pair: workers.submit(play, pair[0], programs[pair[1]]) for pair in pairs}
        try:
            errors = {pair: future.exception() for pair, future in played.items()}
        except BaseException:  # Ctrl-C, too: what has not begun need not
            workers.shutdown(cancel_futures=True)
            raise
    failed = {pair: str(error) for pair, error in errors.items() if error}
    for error in filter(None, errors.values()):
        if not isinstance(error, RuntimeError) or isinstance(error, processes.NamespaceDenied):
            raise error
    described = {}
    for name, path in programs.items():
        text = path.read_text(encoding="utf-8")
        described[name] = Program(sentence=docstring_summary(text), lines=text.splitlines())
    complete = [one for one in scenarios if one not in {scenario for scenario, _ in failed}]
    recordings = {
        scenario: {
            name: folded(narrated(played[scenario, name].result(), program["lines"]))
            for name, program in described.items()
        }
        for scenario in complete
    }
    return Bundle(
        schema=SCHEMA,
        scenarios={scenario: asdict(scenarios[scenario]) for scenario in complete},
        programs=described,
        recordings=recordings,
        differences={
            scenario: differences(found, scenarios[scenario].actions)
            for scenario, found in recordings.items()
        },
    ), failed


def play(scenario, program):
    """Return the TraceEvents of one scenario with one server, as plain data.

    Raises NamespaceDenied if this system does not allow it, RuntimeError if it cannot be recorded.
    """
    if program.suffix != ".py":
        raise RuntimeError(f"{printable(str(program))} is not a Python program (.py)")
    line = processes.module_command("clients.trace.record", scenario, program)
    done = processes.run_in_netns(line, cwd=processes.ROOT)
    if done.returncode == 0:
        return json.loads(done.stdout)
    why = processes.tail(done.stderr, 1)
    raise processes.NamespaceDenied(why) if done.returncode == NOT_POSSIBLE else RuntimeError(why)


def narrated(events, lines):
    pairs = zip([None, *events], events, strict=False)
    found = [event | {"sentence": sentence(event, before, lines)} for before, event in pairs]
    for event, name in itertools.product(found, FOR_SENTENCES):
        del event[name]
    return found


def folded(events):
    """Return events without the middle iterations of loops that repeat the same lines and calls."""
    shapes = [
        [event[name] for name in ("kind", "thread", "line", "action")]
        + [(call["name"], call["fd"], call["error"]) for call in event["calls"]]
        for event in events
    ]
    found, at = [], 0
    while at < len(events):
        length, times = repeats(shapes, at)
        last = at + (times - 1) * length
        found += events[at : at + length]
        if times > SHOWN:
            found.append(events[last - 1] | {"skipped": times - SHOWN, "changed": []})
            found += events[last : last + length]
        at = last + length
    return found


def repeats(shapes, at):
    """Return (steps of the iteration that begins here, how many times it is repeated)."""
    for length in range(2, LONGEST):
        times, first = 1, shapes[at : at + length]
        while shapes[at + times * length : at + (times + 1) * length] == first:
            times += 1
        if times > SHOWN:
            return length, times
    return 1, 1
