"""The load: visitors who come, greet, think and leave, as users of Locust.

locust -f load_tests/locustfile.py --class-picker --host tcp://127.0.0.1:3267
"""

import contextlib
import gc
import itertools
import json
import random
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import gevent
import gevent.pool
import gevent.resolver.blocking
import locust.runners
import locust.stats
import psutil
from gevent import GreenletExit
from locust import User, constant, events, task

from clients.client import Client
from load_tests.measuring import live

GREETINGS = 5  # of one visit
MOST_AT_ONCE = 10_000  # visitors of the open loop whom one process carries
UNANSWERED_AFTER = 0.5  # seconds: a request cut off sooner is no failure in Locust's own tables
ROWS = {  # Locust sorts its tables by name, and these tell the story in order
    "connect": "1 connect",
    "first": "2 first greeting, from the start of connect",
    "next": "3 later greetings",
    "visit": "4 whole visit",
}

# Locust rounds to whole milliseconds, and on the loopback that is 0.
locust.stats.bucket_response_time = lambda ms: round(ms, 2 if ms < 100 else 0)
locust.runners.WORKER_REPORT_INTERVAL = 1.0
gc.freeze()  # and seldom look through samples, which hold nothing that could be a cycle
gc.set_threshold(100_000, 100, 1000)
# A name is looked up in a pool of threads otherwise, also where it is a number: 20 ms at first.
gevent.get_hub().resolver = gevent.resolver.blocking.Resolver()


class Journal:
    """What happened: a row for each request, and how the generator itself fared.

    samples: tuples (visitor, what, began, ended, outcome); what is a key of ROWS; began and
    ended are seconds since the epoch, from perf_counter; outcome is "answered", "unanswered"
    (cut off by the end of the run) or "failed". generators: {process: {"cpu": the share of
    one core, "lag": the seconds by which each sleep was too long}}. errors: {text: how often}.
    """

    def __init__(self):
        self.samples, self.generators, self.errors = [], {}, Counter()
        self.epoch = time.time() - time.perf_counter()
        self.over = False

    def note(self, visitor, what, began, ended, outcome):
        if self.over:  # users are stopped one by one, and the place of one may serve the next
            outcome = "unanswered"
        self.samples.append((visitor, what, self.epoch + began, self.epoch + ended, outcome))

    def drain(self):
        """Return the content as plain data, and forget the samples and errors."""
        content = {"samples": self.samples, "generators": self.generators, "errors": self.errors}
        self.samples, self.errors = [], Counter()
        return content

    def take(self, content, worker):
        """Add what worker has drained; its visitors get its name."""
        for sample in content["samples"]:
            self.samples.append((f"{worker}/{sample[0]}", *sample[1:]))
        for name, generator in content["generators"].items():
            self.generators[f"{worker}/{name}"] = generator
        self.errors.update(content["errors"])

    def watch_generator(self, every=0.05):
        """Measure by how much sleep() oversleeps, and the CPU time of this process."""
        me = psutil.Process()
        started, before = time.perf_counter(), time.process_time()
        seen = self.generators[str(me.pid)] = {"cpu": 0.0, "lag": []}
        while True:
            due = time.perf_counter() + every
            gevent.sleep(every)
            now = time.perf_counter()
            seen["lag"].append(round(now - due, 6))
            seen["cpu"] = round((time.process_time() - before) / (now - started), 4)


journal = Journal()
numbers = itertools.count(1)


class Guest(User):
    """A user whose requests are noted in Locust's tables and, exactly, in the journal.

    Its clients have no time limit: whoever is not answered waits until the run ends, and is
    then counted as unanswered.
    """

    abstract = True
    host = "tcp://127.0.0.1:3267"

    def __init__(self, environment):
        super().__init__(environment)
        url = urlsplit(self.host if "//" in self.host else f"tcp://{self.host}")
        self.address = url.hostname, url.port or 3267

    def on_start(self):
        """Come at a moment of one's own: two hundred at once are a flood, not a crowd."""
        seconds = self.environment.parsed_options.seconds or 5
        gevent.sleep(random.uniform(0, min(1.3, seconds / 4)))  # a visit and a pause take 1.3 s

    @contextlib.contextmanager
    def timed(self, visitor, what, began=None):
        """Note how long the body took since began, and how it ended."""
        began = time.perf_counter() if began is None else began
        outcome, error = "answered", None
        try:
            yield
        except GreenletExit:  # the run ends, and this request has no answer
            outcome = "unanswered"
            raise
        except (OSError, ValueError) as failure:
            outcome, error = "failed", failure
            journal.errors[f"{ROWS[what]}: {failure}"] += what != "visit"
            raise
        finally:
            ended = time.perf_counter()
            journal.note(visitor, what, began, ended, outcome)
            if outcome == "unanswered":
                error = Unanswered(f"no answer to: {ROWS[what]}")
            if outcome != "unanswered" or (what != "visit" and ended - began > UNANSWERED_AFTER):
                self.report(what, ended - began, error)

    def report(self, what, seconds, error=None):
        """Enter a request in Locust's own tables."""
        self.environment.events.request.fire(
            request_type="TCP",
            name=ROWS[what],
            response_time=seconds * 1000,
            response_length=0,
            exception=error,
            context={},
        )

    @contextlib.contextmanager
    def connected(self, visitor, began=None):
        """Connect, and note a whole visit when the body has ended; yield the client."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.timed(visitor, "visit", began))
            with self.timed(visitor, "connect", began):
                client = stack.enter_context(Client(*self.address, timeout=None))
            yield client


class Unanswered(Exception):
    """The run ended before the server answered."""


class Visiting(Guest):
    """A visit: connect, five greetings with thinking between them, leave."""

    abstract = True

    def visit(self, began=None):
        """Make one visit; began is the moment (perf_counter) from which it is to be timed."""
        visitor = next(numbers)
        began = time.perf_counter() if began is None else began
        with contextlib.suppress(OSError, ValueError):  # noted as failed
            self._visit(visitor, began)

    def _visit(self, visitor, began):
        with contextlib.ExitStack() as stack:
            with self.timed(visitor, "first", began):
                client = stack.enter_context(self.connected(visitor, began))
                client.greet(b"visitor %d, greeting 1" % visitor)
            for number in range(2, GREETINGS + 1):
                gevent.sleep(random.uniform(0.1, 0.3))  # thinking
                with self.timed(visitor, "next"):
                    client.greet(b"visitor %d, greeting %d" % (visitor, number))


class Visitors(Visiting):
    """Closed loop: a user makes a visit, pauses, and comes again; nobody comes for the stuck."""

    def wait_time(self):
        return random.expovariate(2)  # 0.5 s on average

    @task
    def come(self):
        self.visit()


class Arrivals(Visiting):
    """Open loop: visitors come at --arrivals a second (Poisson), however slow the answers are.

    Their times are counted from the moment at which they meant to come.
    """

    fixed_count = 1

    def on_start(self):
        """Do not wait: the visitors come at random moments anyhow."""

    @task
    def keep_coming(self):
        rate = self.environment.parsed_options.arrivals / workers(self.environment)
        crowd = gevent.pool.Pool(MOST_AT_ONCE)
        due = time.perf_counter()
        try:
            while True:
                due += random.expovariate(rate)
                gevent.sleep(max(0.0, due - time.perf_counter()))
                crowd.spawn(self.visit, due)
        finally:
            crowd.kill()


class Chatterbox(Guest):
    """Closed loop without thinking: one visit for the whole run, greeting after greeting."""

    wait_time = constant(0)

    @task
    def chat(self):
        visitor = next(numbers)
        with contextlib.suppress(OSError, ValueError):
            with contextlib.ExitStack() as stack:
                with self.timed(visitor, "first"):
                    client = stack.enter_context(self.connected(visitor))
                    client.greet(b"chatterbox %d" % visitor)
                self.go_on(client, visitor, b"chatterbox %d, again" % visitor)

    def go_on(self, client, visitor, message):
        """Greet for ever: as timed() does, in a form light enough for 40,000 a second."""
        clock, note, greet, report = time.perf_counter, journal.note, client.greet, self.report
        while True:
            began = clock()
            try:
                greet(message)
            except BaseException:
                with self.timed(visitor, "next", began):
                    raise
            ended = clock()
            note(visitor, "next", began, ended, "answered")
            report("next", ended - began)


class Idlers(Guest):
    """They connect and say nothing, holding their places until the run ends."""

    @task
    def hold(self):
        with contextlib.suppress(OSError, ValueError), self.connected(next(numbers)):
            gevent.sleep(1e6)


def workers(environment):
    """Return the number of Locust processes that make load."""
    return getattr(environment.parsed_options, "workers_in_all", None) or 1


@events.init_command_line_parser.add_listener
def add_options(parser):
    parser.add_argument(
        "--arrivals", type=float, default=10.0, help="Arrivals: visitors a second, in all"
    )
    parser.add_argument(
        "--workers-in-all", type=int, default=1, help="Arrivals: processes that share the rate"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.0,
        include_in_web_ui=False,
        help="end after so many seconds of load, to the millisecond; 0 leaves that to --run-time",
    )
    parser.add_argument(
        "--server-pid",
        type=int,
        default=0,
        include_in_web_ui=False,
        help="show this process, the server under test, in a tab of the page",
    )
    parser.add_argument(
        "--journal",
        default="",
        include_in_web_ui=False,
        help="write every sample to this JSON file at the end",
    )


@events.init.add_listener
def choose(environment, **_):
    """Without a class named or picked, send visitors; show the server that --server-pid names."""
    options = environment.parsed_options
    if not options.user_classes and not options.class_picker:
        environment.user_classes = [Visitors]
    if environment.web_ui and options.server_pid:
        live.add_tab(environment, options.server_pid)


@events.test_start.add_listener
def start_watching(environment, **_):
    journal.over = False
    seconds = environment.parsed_options.seconds
    if seconds and not isinstance(environment.runner, locust.runners.WorkerRunner):
        gevent.spawn_later(seconds, environment.runner.quit)
    if not isinstance(environment.runner, locust.runners.MasterRunner):
        journal.watcher = gevent.spawn(journal.watch_generator)


@events.test_stopping.add_listener
def end(**_):
    journal.over = True


@events.test_stop.add_listener
def stop_watching(environment, **_):
    gevent.kill(getattr(journal, "watcher", None) or gevent.Greenlet())


@events.report_to_master.add_listener
def hand_over(client_id, data):
    data["journal"] = journal.drain()


@events.worker_report.add_listener
def take_over(client_id, data):
    if "journal" in data:
        journal.take(data.pop("journal"), client_id)


@events.quitting.add_listener
def save(environment, **_):
    """Write the journal where all of it has come together."""
    path = environment.parsed_options.journal
    if path and not isinstance(environment.runner, locust.runners.WorkerRunner):
        Path(path).write_text(json.dumps(journal.drain()))
