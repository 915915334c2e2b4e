"""Recordings of all stories with some servers, as plain data for the page and for the pictures.

record() plays each story in a network of its own; what it returns is what helpers.py shows.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor

from clients.console.printable import docstring_summary
from clients.system import processes
from clients.trace.narration import sentence
from clients.trace.scenarios import STORIES

ROUNDS = 2  # rounds of a loop that are shown when it goes on in the same way: first and last
LONGEST = 40  # steps of a round, at most


def record(programs, stories=STORIES):
    """Play stories to servers and return all that the page shows, plain data.

    programs: {name: path of the program}. Raises Forbidden where no network can be made, and
    RuntimeError with the last words of a recorder that failed.

    {"stories": {key: {"title", "question", "acts": [text, ...]}},
     "programs": {name: {"sentence": of its docstring, "lines": its text}},
     "recordings": {story: {program: [step, ...]}}, "pool": [values]}

    A step is what recorder.moment() describes, with "sentence", what happened in one sentence, and
    "rounds", for a step that stands for so many rounds of a loop left out. "act" is the number of
    the story's action to which it belongs, from 1; 0 before the first. Its "threads", "variables",
    "kernel" and "clients" are places in the pool, where each value stands once; so are, in the
    pool, the rows of "threads", of "clients", and of a kernel's "connections" and "epoll".
    """
    pool, places = [], {}

    def place(value):
        key = json.dumps(value, sort_keys=True)
        if key not in places:
            places[key] = len(pool)
            pool.append(value)
        return places[key]

    wanted = [(story, name) for story in stories for name in programs]
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        moments = workers.map(lambda pair: play(pair[0], programs[pair[1]]), wanted)
        try:
            moments = list(moments)
        except BaseException:  # Ctrl-C, too: what has not begun need not
            workers.shutdown(cancel_futures=True)
            raise
    recordings = {story: {} for story in stories}
    for (story, name), found in zip(wanted, moments, strict=True):
        lines = programs[name].read_text().splitlines()
        told = [
            step | {"sentence": sentence(step, before, lines)}
            for before, step in zip([None, *found], found, strict=False)
        ]
        recordings[story][name] = [packed(step, place) for step in folded(told)]
    return {
        "stories": {key: about(stories[key]) for key in stories},
        "programs": {name: described(path) for name, path in programs.items()},
        "recordings": recordings,
        "pool": pool,
    }


def about(story):
    acts = [act_text(act) for act in story.acts]
    return {"title": story.title, "question": story.question, "acts": acts}


def act_text(act):
    """Return an action as a mark of the time line: "2 says bob"."""
    if not act.clients:
        return "time passes"
    if len(act.clients) > 1:
        return f"{act.clients[0]} to {act.clients[-1]} {act.does.removesuffix('s')}"
    return f"{act.clients[0]} {act.does} {act.words.decode()}".strip()


def described(path):
    text = path.read_text()
    return {"sentence": docstring_summary(text), "lines": text.splitlines()}


def packed(step, place):
    """Return a step without what is empty, its larger values in the pool."""
    left_out = {"calls", "sizes", "log", "said", "heard", "words", "value", "fd", "call"}
    kept = {name: value for name, value in step.items() if name not in left_out}
    kernel = dict(kept["kernel"])
    for rows in (kept, kernel):
        for name in ("threads", "clients", "connections", "epoll"):
            if name in rows:
                rows[name] = [place(row) for row in rows[name]]
    kept["kernel"] = kernel
    for name in ("threads", "variables", "kernel", "clients"):
        if name in kept:
            kept[name] = place(kept[name])
    return {name: value for name, value in kept.items() if value not in ([], "", None)}


def folded(steps):
    """Return steps without the middle rounds of loops that do the same again and again."""
    shapes = [
        (step["kind"], step.get("thread"), step.get("line"), str(step.get("calls")), step["act"])
        for step in steps
    ]
    found, at = [], 0
    while at < len(steps):
        length, times = repeats(shapes, at)
        if times > ROUNDS:
            last = at + (times - 1) * length
            found += steps[at : at + length]
            found.append(steps[last - 1] | {"rounds": times - ROUNDS, "changed": []})
            found += steps[last : last + length]
            at = last + length
        else:
            found.append(steps[at])
            at += 1
    return found


def repeats(shapes, at):
    """Return (steps of the round that begins here, how many times it comes one after another)."""
    for length in range(2, LONGEST):
        times = 1
        first = shapes[at : at + length]
        while shapes[at + times * length : at + (times + 1) * length] == first:
            times += 1
        if times > ROUNDS:
            return length, times
    return 1, 1


def play(story, program):
    """Return the steps of one story with one server; raises Forbidden, RuntimeError."""
    line = processes.module_command("clients.trace.record", story, program)
    done = processes.run_in_netns(line, cwd=processes.ROOT)
    if done.returncode:
        raise RuntimeError(f"{program} could not be recorded: {processes.tail(done.stderr)}")
    return json.loads(done.stdout)
