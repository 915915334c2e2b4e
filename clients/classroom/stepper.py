"""The stepper: the server runs only as far as the teacher lets it, line by line."""

import contextlib
import re

from clients.system.sampler import ThreadState, thread_states

MOST_LINES = 2000  # until a call that the tracer records, at most
TIMEOUT = 2.0  # seconds that a line may take; after that its thread counts as running
REPORT = 0.1  # seconds that the server's Python may take to report its frames: the screen waits
BEFORE = "about to run line %d"


class Stepper:
    """Lets the threads of a traced server run, or stops them before each line."""

    def __init__(self, session):
        self.session, self.current, self.longest = session, None, REPORT

    def toggle(self):
        """Let the threads stop before each line from now on, or run."""
        self.current = None
        self.session.run() if self.session.paused else self.session.pause()

    def sample(self, remotes):
        """Return a ThreadState for each thread, with the call BEFORE if it is stopped.

        remotes: {descriptor: "host:port"}. Raises TimeoutError if Python reports no frames.
        """
        pid = self.session.server.process.pid
        seconds, self.longest = self.longest, 4 * REPORT  # after a failure: answers come late
        rows = thread_states(pid, lambda: self.session.frames(seconds), lambda _: remotes)
        self.longest = REPORT
        stopped = {one.id: one.snapshot for one in self.session.stopped()}
        for at, row in enumerate(rows):
            if row.id in stopped:
                function, line = stopped[row.id].function, stopped[row.id].next_line
                rows[at] = ThreadState(row.id, row.name, function, line, BEFORE % line)
        return rows

    def next(self, client=None):
        """Return the thread that runs next, or None if none is stopped.

        It is the one with the connection of client ("host:port"), the one that ran last, or any.
        """
        self.session.receive()
        stopped = self.session.stopped()
        named = f"connection with {client} ("  # and its descriptor
        serving = [one for one in stopped if named in str(one.snapshot.variables)]
        last = [one for one in stopped if one.id == self.current]
        return (serving + last + stopped + [None])[0]

    def advance(self, client, lines):
        """Let the next thread run this many lines, or until a recorded call returns or blocks.

        Returns that thread, or None if none is stopped.
        """
        if thread := self.next(client):
            self.current = thread.id
            thread.taken()  # that call had returned before the thread stopped here
        while thread and thread.stopped and lines:
            self.session.step(thread)
            with contextlib.suppress(TimeoutError):
                self.session.settle(TIMEOUT)
            if thread.snapshot.kind == "line":  # or else a function is entered or left
                lines = 0 if thread.calls else lines - 1
        return thread

    def variables(self, source):
        """Return a line's number, and ["name = value", ...] of what is named on it.

        The line is the one before which the next thread is stopped. source: the program's lines.
        """
        thread = self.next()
        if not thread:
            return None, []
        number = thread.snapshot.next_line
        words = set(re.findall(r"[\w.]+", source[number - 1]))
        named = words | {word.rpartition(".")[0] for word in words}
        found = thread.snapshot.variables
        return number, [f"{name} = {found[name]}" for name in found if name in named]
