"""What Locust's users and processes record; it runs in those processes, on gevent."""

import math
import os
import socket
import time
from collections import Counter

import gevent

from clients.system.procfs import usable_cores
from load_tests.harness.results import Sample


class SampleLog:
    """The samples of one Locust process; the master's log takes those of its workers."""

    def __init__(self):
        self.samples: list[Sample] = []
        self.errors: Counter[str] = Counter()
        self.generators: dict[str, dict] = {}  # of each process: see watch_generator()
        self.locust: dict[str, list] = {}  # see results.LocustRow
        self.started = self.over = math.inf  # time.monotonic() of the load's start and end
        self.last_reports: dict[str, dict] = {}  # of each worker
        self.own_monitor = None

    def start(self, watch):
        """Begin a load; watch this process as well if it makes some of it."""
        self.started, self.over = time.monotonic(), math.inf
        self.own_monitor = gevent.spawn(self.watch_generator) if watch else None

    def end(self):
        self.over = time.monotonic()
        if self.own_monitor:
            self.own_monitor.kill(block=False)  # no user runs between the end and Locust's counts

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

    def report(self, waiting):
        """Return what a worker has recorded since its last report, as plain data.

        waiting: (session, request, time at which it began) of each request without an answer.
        """
        started, now = self.started, round(time.monotonic() - self.started, 6)
        content = {
            "samples": self.samples,
            "errors": self.errors,
            "generators": self.generators,
            "waiting": [(*it, round(at - started, 6), now, "unanswered") for *it, at in waiting],
            "at": now,
            "complete": self.over < math.inf,
        }
        self.samples, self.errors = [], Counter()
        return content

    def take(self, content, worker):
        """Add a report of a worker; its sessions get the worker's name."""
        self.add(worker, content["samples"])
        for name, generator in content["generators"].items():
            self.generators[f"{worker}/{name}"] = generator
        self.errors.update(content["errors"])
        self.last_reports[worker] = content

    def add(self, worker, samples):
        self.samples += [Sample(f"{worker}/{session}", *rest) for session, *rest in samples]

    def content(self):
        """Return all that was recorded, as plain data.

        A worker without a complete report has left. What it had reported as waiting is entered as
        unanswered at that moment: for how long it waited afterwards is not known.
        """
        left = []
        for worker, last in self.last_reports.items():
            if not last["complete"]:
                self.add(worker, last["waiting"])
                host, text = worker.rpartition("_")[0], "only what it had reported is counted"
                left.append(f"the worker on {host} left after {last['at']:.1f} s; {text}")
        names = ("samples", "errors", "generators", "locust", "started")
        return {name: getattr(self, name) for name in names} | {"left": left}

    def watch_generator(self, every=0.05):
        """Measure by how much sleep() oversleeps, and the CPU time of this process."""
        started, before = time.monotonic(), time.process_time()
        where = {"host": socket.gethostname(), "cores": usable_cores()}
        seen = self.generators[str(os.getpid())] = {"cpu": 0.0, "lag": [], **where}
        while True:
            due = time.monotonic() + every
            gevent.sleep(every)
            now = time.monotonic()
            seen["lag"].append(round(now - due, 6))
            seen["cpu"] = round((time.process_time() - before) / (now - started), 4)
