"""The load: visitors who come, greet, think and leave, as users of Locust.

locust --config load_tests/locust.conf --web-host 127.0.0.1 --host tcp://127.0.0.1:3267
"""

import contextlib
import gc
import itertools
import json
import math
import random
import time
from pathlib import Path
from urllib.parse import urlsplit

import gevent
import gevent.pool
import gevent.resolver.blocking
import gevent.socket
import locust.runners
import locust.stats
from gevent import GreenletExit
from locust import User, constant, events, task

from clients.client import Client
from clients.console.argtypes import number
from load_tests.harness import locust_tab
from load_tests.harness.sample_log import Journal

GREETINGS = 5  # of one visit
MOST_AT_ONCE = 10_000  # visitors of the open loop whom one process carries
UNANSWERED_AFTER = 0.5  # seconds: a request cut off sooner is no failure in Locust's own tables
ROWS = {  # Locust sorts its tables by name, and these tell the story in order
    "connect": "1 connect",
    "first": "2 first greeting, from the start of connect",
    "next": "3 later greetings",
    "visit": "4 whole visit",
    "heavy": "5 heavy greeting",
}

# Locust rounds to whole milliseconds, and on the loopback that is 0.
locust.stats.bucket_response_time = lambda ms: round(ms, 2 if ms < 100 else 0)
locust.runners.WORKER_REPORT_INTERVAL = 1.0
gc.freeze()  # and seldom look through samples, which hold nothing that could be a cycle
gc.set_threshold(100_000, 100, 1000)
# A name is looked up in a pool of threads otherwise, also where it is a number: 20 ms at first.
gevent.get_hub().resolver = gevent.resolver.blocking.Resolver()


journal = Journal()
numbers = itertools.count(1)


class Unanswered(Exception):
    """The run ended before the server answered."""


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

    def visit(self, began=None):
        """Connect, greet five times with thinking between, and leave; began: see visiting()."""
        with self.visiting(began) as visit:
            visit.connect()
            visit.greet("first", b"visitor %d, greeting 1" % visit.number)
            for number in range(2, GREETINGS + 1):
                gevent.sleep(random.uniform(0.1, 0.3))  # thinking
                visit.greet("next", b"visitor %d, greeting %d" % (visit.number, number))

    @contextlib.contextmanager
    def visiting(self, began=None, wants=("connect", "first", "visit")):
        """Yield a Visit, and note in the end what of it was not answered; a failure ends it.

        began: the moment (perf_counter) from which it is timed, now if None. wants: the requests
        whose wait begins then.
        """
        began = time.perf_counter() if began is None else began
        visit = Visit(self, dict.fromkeys(wants, began))
        try:
            yield visit
            visit.answered("visit")
        except GreenletExit:
            visit.cut_off()
            raise
        except (OSError, ValueError) as error:
            visit.failed(error)
        finally:
            if visit.client:
                visit.client.close()

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


class QuickSocket(gevent.socket.socket):
    """gevent's own sendall() asks for the buffer's size each time: a tenth of a greeting's cost."""

    def sendall(self, data):
        while data:
            data = data[self.send(data) :]


class Visit:
    """What one visitor asks, and its notes. asked: {a request without an answer: since when}."""

    def __init__(self, guest, asked):
        self.guest, self.asked, self.number = guest, asked, next(numbers)
        self.client = None

    def connect(self):
        self.client = Client(*self.guest.address, timeout=None)
        self.client.socket = QuickSocket(fileno=self.client.socket.detach())
        if "connect" in self.asked:
            self.answered("connect")

    def greet(self, what, message):
        """Send message and wait for its greeting; the "first" has been asked for from the start."""
        self.asked.setdefault(what, time.perf_counter())
        self.client.greet(message)
        self.answered(what)

    def answered(self, what):
        began, ended = self.asked.pop(what), time.perf_counter()
        journal.note(self.number, what, began, ended, "answered")
        self.guest.report(what, ended - began)

    def failed(self, error):
        """Note that an error ended this visit, and the requests that it left open."""
        ended = time.perf_counter()
        for what, began in self.asked.items():
            journal.note(self.number, what, began, ended, "failed")
            self.guest.report(what, ended - began, error)
            if what != "visit":
                journal.errors[f"{ROWS[what]}: {error}"] += 1

    def cut_off(self):
        """Note that the run ended before the answers came."""
        ended = time.perf_counter()
        for what, began in self.asked.items():
            journal.note(self.number, what, began, ended, "unanswered")
            if what != "visit" and ended - began > UNANSWERED_AFTER:
                self.guest.report(what, ended - began, Unanswered(f"no answer to: {ROWS[what]}"))


class Visitors(Guest):
    """Closed loop: a user makes a visit, pauses, and comes again; nobody comes for the stuck."""

    def wait_time(self):
        return random.expovariate(2)  # 0.5 s on average

    @task
    def come(self):
        self.visit()


class Arrivals(Guest):
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
        with self.visiting() as visit:
            visit.connect()
            visit.greet("first", b"chatterbox %d" % visit.number)
            while True:
                visit.greet("next", b"chatterbox %d, again" % visit.number)


class Heavy(Guest):
    """Beside the others: their greetings are the slow ones, and the others' are not.

    What they ask is noted, but they count as no visitors.
    """

    fixed_count = 1

    @task
    def keep_asking(self):
        with self.visiting(wants=()) as visit:
            visit.connect()
            while True:
                visit.greet("heavy", b"heavy %d" % visit.number)


class Idlers(Guest):
    """They connect and say nothing, holding their places until the run ends."""

    @task
    def hold(self):
        with self.visiting(wants=("connect", "visit")) as visit:
            visit.connect()
            gevent.sleep(1e6)


def workers(environment):
    """Return the number of Locust processes that make load."""
    return getattr(environment.parsed_options, "workers_in_all", None) or 1


@events.init_command_line_parser.add_listener
def add_options(parser):
    add, hidden = parser.add_argument, {"include_in_web_ui": False}
    rate, count, length = (
        number(float, 0.01, 20_000),
        number(int, 1, 1000),
        number(float, 0, 86_400),
    )
    add("--arrivals", type=rate, default=10.0, help="Arrivals: visitors a second, in all")
    add("--heavy", type=count, default=1, help="Heavy: how many users are heavy")
    add("--workers-in-all", type=count, default=1, help="Arrivals: processes that share the rate")
    words = "end after so many seconds of load, to the millisecond; 0 leaves that to --run-time"
    add("--seconds", type=length, default=0.0, help=words, **hidden)
    words = "show this process, the server under test, in a tab of the page"
    add("--server-pid", type=int, default=0, help=words, **hidden)
    add("--journal", default="", help="write every sample to this JSON file at the end", **hidden)
    # Both are open to every machine otherwise. Who wants that must name the address.
    parser.set_defaults(web_host="127.0.0.1", master_bind_host="127.0.0.1")


@events.init.add_listener
def choose(environment, **_):
    """Without a class named or picked, send visitors; show the server that --server-pid names."""
    options = environment.parsed_options
    Heavy.fixed_count = options.heavy
    if not options.user_classes and not options.class_picker:
        environment.user_classes = [Visitors]
    if environment.web_ui:
        locust_tab.choose(environment.web_ui, "Visitors")
    if environment.web_ui and options.server_pid:
        locust_tab.add_tab(environment, options.server_pid)


@events.test_start.add_listener
def start_watching(environment, **_):
    journal.over = math.inf
    seconds = environment.parsed_options.seconds
    if seconds and not isinstance(environment.runner, locust.runners.WorkerRunner):
        gevent.spawn_later(seconds, finish, environment.runner)
    if not isinstance(environment.runner, locust.runners.MasterRunner):
        journal.start_watching()


def finish(runner):
    """End the run: quit() alone waits half a second for the workers' last reports, and no more."""
    runner.stop()
    runner.quit()


@events.test_stopping.add_listener
def end(environment, **_):
    """Keep what Locust has counted so far: from here on, what is cut off is entered as well."""
    journal.over = time.perf_counter()
    counted = [*environment.stats.entries.values(), environment.stats.total]
    journal.locust = {
        row.name: [row.num_requests, row.num_failures, row.median_response_time] for row in counted
    }


@events.test_stop.add_listener
def stop_watching(**_):
    journal.stop_watching()


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
