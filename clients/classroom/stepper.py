"""Line by line: the server on the stage goes on only as far as the teacher lets it."""

import contextlib
import re
from dataclasses import replace

from clients.trace.narration import CALLS

MOST = 2000  # lines that it may take to come to a call of the kernel
PATIENCE = 2.0  # seconds that a line may take, to be seen as one that sleeps or computes
KERNEL = set(CALLS)  # what counts as a call: accept, recv, poll, …
STOPS = "about to run line %d"


class Walk:
    """Lets the threads of a traced server go. on: whether they stop before each line."""

    def __init__(self, tracee):
        self.tracee, self.on, self.current = tracee, False, None

    def turn(self, on):
        """Let the threads stop before each line from now on, or run."""
        self.on, self.current = on, None
        self.tracee.walk() if on else self.tracee.run()

    def look(self, rows):
        """Return the sampler's rows, with those threads that stand before a line as they stand."""
        self.tracee.listen()
        stopped = (
            {thread.number: thread.told for thread in self.tracee.stopped()} if self.on else {}
        )
        return [standing(row, stopped[row.id]) if row.id in stopped else row for row in rows]

    def next(self, peer=None):
        """Return the thread that goes next: the one that serves peer ("host:port"), if it stands.

        Else it is the one that went last, or any that stands; None if none does.
        """
        self.tracee.listen()
        stopped = self.tracee.stopped()
        serving = [one for one in stopped if f"connection with {peer} " in shown(one.told)]
        last = [one for one in stopped if one.number == self.current]
        return (serving + last + stopped + [None])[0]

    def line(self, peer=None):
        """Let the next thread execute one line; return that thread, or None if none stands."""
        thread = self.next(peer)
        if thread:
            self.go(thread)
        return thread

    def call(self, peer=None):
        """Let the next thread go on until it has made a call to the kernel, or sleeps in one."""
        thread = self.next(peer)
        for _ in range(MOST):
            if not thread or not thread.stopped or self.go(thread) & KERNEL:
                break
        return thread

    def go(self, thread):
        """Let a thread go on to its next line; return the names of the calls that it has made.

        The tracer stops it also where a function is entered or left: there is nothing to see.
        """
        self.current, made = thread.number, set()
        while True:
            self.tracee.go(thread)
            self.settle()
            made |= {name for name, *_ in thread.told["calls"]} if thread.stopped else set()
            if not thread.stopped or thread.told["event"] == "line":
                return made

    def settle(self):
        """Wait until the thread stands again or sleeps, but not long: the screen stands still."""
        with contextlib.suppress(TimeoutError):
            self.tracee.settle(PATIENCE)

    def variables(self, line):
        """Return ["name = value", ...] of what is named on the line before which it stands."""
        thread = self.next()
        if not (self.on and thread):
            return None, []
        number = thread.told["stack"][0][1]
        words = set(re.findall(r"[\w.]+", line(number)))
        named = words | {word.rpartition(".")[0] for word in words}
        found = thread.told["variables"]
        return number, [f"{name} = {found[name]}" for name in found if name in named]


def standing(row, told):
    function, line = told["stack"][0]
    call = STOPS % line
    return replace(row, function=function, line=line, call=call, fd=None, remote=None)


def shown(told):
    return " ".join(told["variables"].values()) + " "
