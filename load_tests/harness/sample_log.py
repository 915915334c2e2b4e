"""What Locust's users note: a row for each request, and how the generator itself fared.

This runs in Locust's processes, on gevent; stats.py makes numbers of it afterwards.
"""

import math
import os
import time
from collections import Counter

import gevent


class Journal:
    """The samples of one Locust process; the master's takes those of its workers.

    samples: tuples (visitor, what, began, ended, outcome); what is "connect", "first", "next",
    "visit" or "heavy"; began and ended are seconds since the epoch, from perf_counter; outcome is
    "answered", "unanswered" (cut off by the end of the run) or "failed". generators: {process:
    {"cpu": the share of one core, "lag": the seconds by which each sleep was too long}}.
    errors: {text: how often}. locust: {row: [requests, failures, median in ms]}, Locust's own
    table as the load ended, before what was cut off is entered as a failure.
    """

    def __init__(self):
        self.samples, self.generators, self.errors, self.locust = [], {}, Counter(), {}
        self.epoch = time.time() - time.perf_counter()
        self.over = math.inf  # the moment (perf_counter) at which the load ended
        self.watcher = None

    def note(self, visitor, what, began, ended, outcome):
        # Locust needs a while to stop all users. What comes then is no load, and waits for Locust.
        if began >= self.over:
            return
        if ended > self.over:
            ended, outcome = self.over, "unanswered"
        self.samples.append((visitor, what, self.epoch + began, self.epoch + ended, outcome))

    def drain(self):
        """Return the content as plain data, and forget the samples and errors."""
        content = {"samples": self.samples, "generators": self.generators, "errors": self.errors}
        content["locust"] = self.locust
        self.samples, self.errors = [], Counter()
        return content

    def take(self, content, worker):
        """Add what worker has drained; its visitors get its name."""
        for visitor, *sample in content["samples"]:
            self.samples.append((f"{worker}/{visitor}", *sample))
        for name, generator in content["generators"].items():
            self.generators[f"{worker}/{name}"] = generator
        self.errors.update(content["errors"])

    def start_watching(self):
        self.watcher = gevent.spawn(self.watch_generator)

    def stop_watching(self):
        if self.watcher:
            self.watcher.kill()

    def watch_generator(self, every=0.05):
        """Measure by how much sleep() oversleeps, and the CPU time of this process."""
        started, before = time.perf_counter(), time.process_time()
        seen = self.generators[str(os.getpid())] = {"cpu": 0.0, "lag": []}
        while True:
            due = time.perf_counter() + every
            gevent.sleep(every)
            now = time.perf_counter()
            seen["lag"].append(round(now - due, 6))
            seen["cpu"] = round((time.process_time() - before) / (now - started), 4)
