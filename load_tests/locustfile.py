"""The load: visitors that connect, greet, think and leave, as users of Locust.

locust --config load_tests/locust.conf --web-host 127.0.0.1 --host tcp://127.0.0.1:3267
"""

import contextlib
import functools
import gc
import itertools
import json
import math
import os
import random
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import gevent
import gevent.pool
import gevent.resolver.blocking
import locust.stats
from locust import User, constant, events, runners, task

from clients.client import Client
from clients.console.argtypes import number
from load_tests.harness import locust_tab
from load_tests.harness.sample_log import SampleLog

GREETINGS = 5  # in a session
MOST_AT_ONCE = 10_000  # visitors of the open loop that one process carries
UNANSWERED_AFTER = 0.5  # seconds: a request censored sooner is no failure in Locust's own tables
ROWS = {  # Locust sorts its tables by name: the numbers keep the order of a session
    "connect": "1 connect",
    "first_greeting": "2 first greeting, from the start of connect",
    "later_greeting": "3 later greetings",
    "session": "4 whole session",
    "slow_request": "5 slow request",
}
WHOLE = ("connect", "first_greeting", "session")  # the requests that begin with a visitor

log = SampleLog()
present = set()  # the Sessions that have begun and not ended
session_numbers = itertools.count(1)
user_numbers = itertools.count()


class GaveUp(Exception):
    """The server did not answer within --timeout."""


class GreetingUser(User):
    """A user whose requests are entered in Locust's tables and, exactly, in the sample log."""

    abstract = True
    host = "tcp://127.0.0.1:3267"

    def __init__(self, environment):
        super().__init__(environment)
        url = urlsplit(self.host if "//" in self.host else f"tcp://{self.host}")
        self.address = url.hostname, url.port or 3267
        self.options, self.number = environment.parsed_options, next(user_numbers)
        self.sessions = itertools.count()

    def draw(self, *what):
        """Return a random generator that gives the same numbers in each run with this --seed."""
        parts = self.options.seed, self.environment.runner.worker_index, self.number, *what
        return random.Random("/".join(map(str, parts)))

    def on_start(self):
        """Start at a random moment: users that start at once would stay in step."""
        gevent.sleep(self.draw("start").uniform(0, min(1.3, (self.options.seconds or 5) / 4)))

    def run_session(self, draw, began=None):
        """Connect, greet five times with think times between, and leave."""
        with session_of(self, began) as session:
            session.enter("visitor")
            for number in range(2, GREETINGS + 1):
                gevent.sleep(draw.uniform(0.1, 0.3))  # think time
                with session.time_limit():
                    session.exchange("later_greeting", f"visitor {session.name}, greeting {number}")

    def note(self, session, request, began, ended, outcome, length=0, error=None):
        """Enter a request in the sample log and in Locust's tables. length: bytes of the answer."""
        log.note(session, request, began, ended, outcome)
        name, seconds = ROWS[request], ended - began
        if outcome not in ("answered", "failed"):
            if request == "session" or (outcome != "timed_out" and seconds <= UNANSWERED_AFTER):
                return
            error = TimeoutError(f"no answer to: {name}")
        if request != "session":
            what = {"request_type": "TCP", "name": name, "exception": error, "context": {}}
            times = {"response_time": 1000 * seconds, "response_length": length}
            self.environment.events.request.fire(**what, **times)
            return
        row = self.environment.stats.get(name, "TCP")  # of sessions; not in the row Aggregated
        row.log(1000 * seconds, length)
        if error:
            row.log_error(error)


class ClosedLoopUser(GreetingUser):
    """Closed loop with think time: after a session and a pause, a user starts the next session."""

    def wait_time(self):
        return self.current.expovariate(2)  # 0.5 s on average

    @task
    def one_session(self):
        self.current = self.draw("session", next(self.sessions))
        self.run_session(self.current)


class OpenLoopUser(GreetingUser):
    """Open loop: --arrivals visitors per second (Poisson), however slow the answers are.

    Their times are counted from the moment at which they are due.
    """

    fixed_count = 1

    def on_start(self):
        """Do not wait: the arrivals are random."""

    @task
    def send_visitors(self):
        self.started, pool = set(), gevent.pool.Pool(MOST_AT_ONCE)
        try:
            for visitor, due in self.schedule():
                gevent.sleep(max(0.0, due - time.monotonic()))
                pool.spawn(self.start_visitor, visitor, due)  # waits for a free place
        finally:
            pool.kill()
            self.note_not_started(min(log.over, time.monotonic()))

    def start_visitor(self, visitor, due):
        self.started.add(visitor)
        self.run_session(self.draw("session", visitor), due)

    def schedule(self):
        """Yield the number of each visitor and when it is due; each time the same."""
        draw, due = self.draw("arrivals"), log.started
        rate = self.options.arrivals / self.options.worker_count
        for visitor in itertools.count():
            due += draw.expovariate(rate)
            yield visitor, due

    def note_not_started(self, end):
        """Enter the visitors that were due before the load ended, and were not started."""
        for visitor, due in itertools.takewhile(lambda one: one[1] < end, self.schedule()):
            for request in WHOLE if visitor not in self.started else ():
                self.note(f"not started {visitor}", request, due, end, "not_started")


class NoThinkTimeUser(GreetingUser):
    """Closed loop without think time: one session for the whole run, greeting after greeting."""

    wait_time = constant(0)

    @task
    def greet_on(self):
        with session_of(self) as session:
            session.enter("no think time")
            while True:
                with session.time_limit():
                    session.exchange("later_greeting", f"no think time {session.name}, again")


class SlowRequestUser(GreetingUser):
    """Next to the others: these greetings alone are slow. It does not count as a visitor."""

    fixed_count = 1

    @task
    def greet_slowly(self):
        with session_of(self, requests=()) as session:
            session.connect()
            while True:
                session.exchange("slow_request", f"slow {session.name}")


@contextlib.contextmanager
def session_of(user, began=None, requests=WHOLE):
    """Yield a Session; at its end, its open requests are unanswered, timed out or failed."""
    session = Session(user, began, requests)
    present.add(session)
    try:
        yield session
        session.answered("session", session.bytes_received)
    except GaveUp:
        session.end("timed_out")
    except (OSError, ValueError) as error:
        session.end("failed", error)
    except gevent.GreenletExit:
        session.end("unanswered")  # the load is over
        raise
    finally:
        present.discard(session)
        if session.client:
            session.client.close()


class Session:
    """One visitor: its connection, and since when each of its open requests waits."""

    def __init__(self, user, began, requests):
        self.user, self.client, self.bytes_received = user, None, 0
        self.open = dict.fromkeys(requests, time.monotonic() if began is None else began)
        self.name = str(next(session_numbers))

    def enter(self, greeting):
        """Connect and get the first greeting; try again after a timeout, --retries times."""
        for left in reversed(range(self.user.options.retries + 1)):
            try:
                with self.time_limit():
                    self.connect()
                    self.exchange("first_greeting", f"{greeting} {self.name}")
                    return
            except GaveUp:
                if not left:
                    raise
                began = self.open.pop("session")
                self.end("timed_out")
                now = time.monotonic()
                self.open = {"connect": now, "first_greeting": now, "session": began}

    def time_limit(self):
        """Return a context manager that raises GaveUp after --timeout."""
        return gevent.Timeout(self.user.options.timeout or None, GaveUp)  # None: never

    def connect(self):
        self.client = Client(*self.user.address, timeout=None)
        if "connect" in self.open:
            self.answered("connect")

    def exchange(self, request, message):
        self.open.setdefault(request, time.monotonic())
        reply = self.client.greet(message.encode())
        self.bytes_received += len(reply)
        self.answered(request, len(reply))

    def answered(self, request, length=0):
        began, ended = self.open.pop(request), time.monotonic()
        self.user.note(self.name, request, began, ended, "answered", length)

    def end(self, outcome, error=None):
        """Enter all open requests with this outcome: unanswered, timed_out or failed."""
        ended = time.monotonic()
        for request, began in self.open.items():
            self.user.note(self.name, request, began, ended, outcome, error=error)
            if error and request != "session":
                log.errors[f"{ROWS[request]}: {error}"] += 1
        if outcome == "timed_out" and self.client:
            gevent.spawn(self.wait_abandoned, self.client, *self.open.values())
            self.client = None

    def wait_abandoned(self, client, began, *_):
        """Close our half of a connection; enter the greeting that the server sends for nothing."""
        with client, contextlib.suppress(OSError):
            client.socket.shutdown(socket.SHUT_WR)  # the server gets the same FIN as from close()
            if client.socket.recv(1024) and (now := time.monotonic()) < log.over:
                log.note(self.name, "abandoned_greeting", began, now, "answered")


# Locust rounds to whole milliseconds, and on the loopback that is 0.
locust.stats.bucket_response_time = lambda ms: round(ms, 2 if ms < 100 else 0)
locust.stats.HISTORY_STATS_INTERVAL_SEC = 1  # seconds between two points of its charts
runners.WORKER_REPORT_INTERVAL = 1.0
runners.MASTER_HEARTBEAT_TIMEOUT = 10  # seconds: workers end when their master was killed
runners.HEARTBEAT_DEAD_INTERNAL = -math.inf  # the users of a worker that left start nowhere else
# All users exist when all workers have reported theirs: seconds that it waits for them at most.
os.environ["LOCUST_WAIT_FOR_WORKERS_REPORT_AFTER_RAMP_UP"] = "30"
gc.freeze()  # and rarely search the samples, which hold nothing that could be a cycle
gc.set_threshold(100_000, 100, 1000)
# A name is looked up in a thread pool otherwise, even where it is a number: 20 ms at first.
gevent.get_hub().resolver = gevent.resolver.blocking.Resolver()


@events.init_command_line_parser.add_listener
def add_options(parser):
    add, count, length = parser.add_argument, number(int, 1, 1000), number(float, 0, 86_400)
    rate, words = number(float, 0.01, 20_000), "OpenLoopUser: visitors per second, in all"
    add("--arrivals", type=rate, default=10.0, help=words)
    add("--slow-requests", type=count, default=1, help="SlowRequestUser: number of users")
    add("--timeout", type=length, default=0.0, help="seconds until a visitor gives up; 0: never")
    add("--retries", type=number(int, 0, 100), default=0, help="attempts after the first timeout")
    add("--seed", type=number(int, 0, 10**9), default=1, help="of arrivals and think times")
    add("--worker-count", type=count, default=1, help="OpenLoopUser: workers that share the rate")
    add = functools.partial(add, include_in_web_ui=False)
    words = "end after this many seconds of load, to the millisecond; 0 leaves that to --run-time"
    add("--seconds", type=length, default=0.0, help=words)
    add("--server-pid", type=int, default=0, help="process of the server, for a tab of the page")
    add("--sample-log", default="", help="write every sample to this JSON file at the end")
    # Both are open to every machine otherwise. Another address must be named.
    parser.set_defaults(web_host="127.0.0.1", master_bind_host="127.0.0.1")


@events.init.add_listener
def choose(environment, runner, **_):
    """Choose ClosedLoopUser if nothing else is; show the server that --server-pid names."""
    options = environment.parsed_options
    if isinstance(runner, runners.WorkerRunner):  # the master chooses
        return
    if options.tags or options.exclude_tags:
        sys.exit("no user class has tags: name the classes instead")
    is_picked = options.class_picker and not options.headless and not options.autostart
    if not options.user_classes and not is_picked:
        environment.user_classes = [ClosedLoopUser]
    if environment.web_ui:
        locust_tab.describe(environment, "ClosedLoopUser", options.server_pid, open_requests)
    if options.seconds:
        events.spawning_complete.add_listener(lambda **_: end_later(runner, options.seconds))


def open_requests():
    """Return (session, request, time at which it began) of each request without an answer."""
    return [(one.name, request, at) for one in present for request, at in one.open.items()]


@functools.cache  # once, and not again when a worker comes or goes
def end_later(runner, seconds):
    """Let the load end this many seconds after all users have been started."""

    def finish():
        runner.stop()  # quit() alone waits only half a second for the workers' last reports
        runner.quit()

    gevent.spawn_later(seconds, finish)


@events.test_start.add_listener
def start(environment, **_):
    global user_numbers
    user_numbers = itertools.count()
    options = environment.parsed_options  # the page may have changed them
    SlowRequestUser.fixed_count = options.slow_requests
    OpenLoopUser.fixed_count = options.worker_count
    log.start(watch=not isinstance(environment.runner, runners.MasterRunner))


@events.test_stopping.add_listener
def end(environment, **_):
    """Keep Locust's own counts: from here on, censored requests are entered as well."""
    log.end()
    counted = [*environment.stats.entries.values(), environment.stats.total]
    log.locust = {
        row.name: [row.num_requests, row.num_failures, row.median_response_time] for row in counted
    }


@events.report_to_master.add_listener
def report(data, **_):
    data["sample_log"] = log.report(open_requests())


@events.worker_report.add_listener
def take(data, client_id):
    log.take(data.pop("sample_log"), client_id)


@events.quitting.add_listener
def save(environment, **_):
    """Write the sample log where all of it has come together."""
    path = environment.parsed_options.sample_log
    if path and not isinstance(environment.runner, runners.WorkerRunner):
        Path(path).write_text(json.dumps(log.content()))
