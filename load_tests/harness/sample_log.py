"""What Locust's users and processes record; it runs in those processes, on gevent."""

import math
import os
import time
from collections import Counter

import gevent

from load_tests.harness.samples import Sample


class SampleLog:
    """The samples of one Locust process; the master's log takes those of its workers."""

    def __init__(self):
        self.samples: list[Sample] = []
        self.errors: Counter[str] = Counter()
        self.generators: dict[str, dict] = {}  # process: {"cpu": share of a core, "lag": [s, …]}
        self.locust: dict[str, list] = {}  # see results.LocustRow
        self.started = self.over = math.inf  # time.monotonic() of the load's start and end
        self.own_monitor = None

    def note(self, session, request, began, ended, outcome):
        """Add a request, with times of time.monotonic(), if it began before the load ended."""
        # Locust needs a while to stop all users. What they do then is not part of the load.
        if began >= self.over:
            return
        if ended > self.over:
            ended, outcome = self.over, "unanswered"
        # Rounded as they are stored: what is computed from the stored samples is the same.
        times = round(began - self.started, 6), round(ended - self.started, 6)
        self.samples.append(Sample(session, request, *times, outcome))

    def drain(self):
        """Return the content as plain data, and forget the samples and errors."""
        names = ("samples", "errors", "generators", "locust", "started")
        content = {name: getattr(self, name) for name in names}
        self.samples, self.errors = [], Counter()
        return content

    def take(self, content, worker):
        """Add what a worker has drained; its sessions get the worker's name."""
        for session, *rest in content["samples"]:
            self.samples.append(Sample(f"{worker}/{session}", *rest))
        for name, generator in content["generators"].items():
            self.generators[f"{worker}/{name}"] = generator
        self.errors.update(content["errors"])

    def start_watching(self):
        self.own_monitor = gevent.spawn(self.watch_generator)

    def stop_watching(self):
        if self.own_monitor:
            self.own_monitor.kill()

    def watch_generator(self, every=0.05):
        """Measure by how much sleep() oversleeps, and the CPU time of this process."""
        started, before = time.monotonic(), time.process_time()
        seen = self.generators[str(os.getpid())] = {"cpu": 0.0, "lag": []}
        while True:
            due = time.monotonic() + every
            gevent.sleep(every)
            now = time.monotonic()
            seen["lag"].append(round(now - due, 6))
            seen["cpu"] = round((time.process_time() - before) / (now - started), 4)
