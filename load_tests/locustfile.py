"""The load: visitors that connect, greet, think and leave, as users of Locust.

locust --config load_tests/locust.conf --web-host 127.0.0.1 --host tcp://127.0.0.1:3267
"""

import contextlib
import functools
import gc
import itertools
import json
import math
import random
import socket
import sys
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
from locust import User, constant, events, tag, task
from locust.runners import MasterRunner, WorkerRunner

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

# Locust rounds to whole milliseconds, and on the loopback that is 0.
locust.stats.bucket_response_time = lambda ms: round(ms, 2 if ms < 100 else 0)
locust.runners.WORKER_REPORT_INTERVAL = 1.0
locust.runners.HEARTBEAT_DEAD_INTERNAL = -math.inf  # users of a worker that left start nowhere else
locust.stats.HISTORY_STATS_INTERVAL_SEC = 1  # seconds between two points of its charts
gc.freeze()  # and rarely search the samples, which hold nothing that could be a cycle
gc.set_threshold(100_000, 100, 1000)
# A name is looked up in a thread pool otherwise, even where it is a number: 20 ms at first.
gevent.get_hub().resolver = gevent.resolver.blocking.Resolver()


log = SampleLog()
session_numbers = itertools.count(1)
present = set()  # the Sessions that have begun and not ended
user_numbers = itertools.count()


class Unanswered(Exception):
    """The server had not answered when the run ended."""


class GaveUp(Exception):
    """The server did not answer within --timeout."""


class GreetingUser(User):
    """A user whose requests are entered in Locust's tables and, exactly, in the sample log.

    Without --timeout its requests wait until the run ends, and are then entered as unanswered.
    """

    abstract = True
    host = "tcp://127.0.0.1:3267"

    def __init__(self, environment):
        super().__init__(environment)
        host = self.host.split()[0]  # the page adds in words what load it is
        url = urlsplit(host if "//" in host else f"tcp://{host}")
        self.address = url.hostname, url.port or 3267
        self.options, self.number = environment.parsed_options, next(user_numbers)
        self.sessions = itertools.count()

    def draw(self, *what):
        """Return a random generator that gives the same numbers in each run with this --seed."""
        parts = self.options.seed, self.environment.runner.worker_index, self.number, *what
        return random.Random("/".join(map(str, parts)))

    def on_start(self):
        """Start at a random moment: users that start at once would stay in step."""
        seconds = self.options.seconds or 5
        gevent.sleep(self.draw("start").uniform(0, min(1.3, seconds / 4)))

    def run_session(self, draw, began=None):
        """Connect, greet five times with think times between, and leave; see session()."""
        with self.session(began) as session:
            session.enter(b"visitor")
            for number in range(2, GREETINGS + 1):
                gevent.sleep(draw.uniform(0.1, 0.3))  # think time
                session.greet("later_greeting", b"visitor %s, greeting %d" % (session.tag, number))

    @contextlib.contextmanager
    def session(self, began=None, requests=WHOLE):
        """Yield a Session timed from began on, or now; enter its unanswered requests at its end."""
        session = Session(self, time.monotonic() if began is None else began, requests)
        present.add(session)
        try:
            yield session
            session.answered("session", session.bytes_received)
        except GreenletExit:
            session.end("unanswered")
            raise
        except GaveUp:
            session.end("timed_out")
        except (OSError, ValueError) as error:
            session.end("failed", error)
        finally:
            present.discard(session)
            if session.client:
                session.client.close()

    def report(self, request, seconds, error=None, length=0):
        """Enter a request in Locust's own tables. length: bytes of the answer."""
        if request == "session":  # not in the row Aggregated, which has all of its requests
            row = self.environment.stats.get(ROWS[request], "TCP")
            row.log(seconds * 1000, length)
            if error:
                row.log_error(error)
            return
        self.environment.events.request.fire(
            request_type="TCP",
            name=ROWS[request],
            response_time=seconds * 1000,
            response_length=length,
            exception=error,
            context={},
        )


class QuickSocket(gevent.socket.socket):
    """gevent's own sendall() reads the buffer's size each time: a tenth of a greeting's cost."""

    def sendall(self, data):
        while data:
            data = data[self.send(data) :]


class Session:
    """One visitor: its connection, and since when each of its open requests waits."""

    def __init__(self, user, began, requests):
        self.user, self.open, self.client = user, dict.fromkeys(requests, began), None
        self.name, self.bytes_received = str(next(session_numbers)), 0
        self.tag = self.name.encode()

    def enter(self, greeting):
        """Connect and get the first greeting; try again after a timeout, --retries times."""
        for left in reversed(range(self.user.options.retries + 1)):
            try:
                with self.time_limit():
                    self.connect()
                    self.exchange("first_greeting", greeting + b" " + self.tag)
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
        seconds = self.user.options.timeout
        return gevent.Timeout(seconds, GaveUp) if seconds else contextlib.nullcontext()

    def connect(self):
        self.client = Client(*self.user.address, timeout=None)
        self.client.socket = QuickSocket(fileno=self.client.socket.detach())
        if "connect" in self.open:
            self.answered("connect")

    def greet(self, request, message):
        """Exchange one greeting, within --timeout."""
        with self.time_limit():
            self.exchange(request, message)

    def exchange(self, request, message):
        self.open.setdefault(request, time.monotonic())
        reply = self.client.greet(message)
        self.bytes_received += len(reply)
        self.answered(request, len(reply))

    def answered(self, request, length=0):
        began, ended = self.open.pop(request), time.monotonic()
        log.note(self.name, request, began, ended, "answered")
        self.user.report(request, ended - began, length=length)

    def end(self, outcome, error=None):
        """Enter all open requests with this outcome: unanswered, timed_out or failed."""
        ended = time.monotonic()
        for request, began in self.open.items():
            log.note(self.name, request, began, ended, outcome)
            if request == "session" and outcome != "failed":
                continue
            if outcome != "unanswered" or ended - began > UNANSWERED_AFTER:
                kind = GaveUp if outcome == "timed_out" else Unanswered
                reason = error or kind(f"no answer to: {ROWS[request]}")
                self.user.report(request, ended - began, reason)
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


class ClosedLoopUser(GreetingUser):
    """Closed loop with think time: after a session and a pause, a user starts the next session."""

    def wait_time(self):
        return self.current.expovariate(2)  # 0.5 s on average

    @tag("think-time")
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

    @tag("open-loop")
    @task
    def send_visitors(self):
        schedule, pool = self.schedule(), gevent.pool.Pool(MOST_AT_ONCE)
        self.waiting = {}  # number: when it is due; of visitors that have not begun
        try:
            for number, due in schedule:
                self.waiting[number] = due
                gevent.sleep(max(0.0, due - time.monotonic()))
                pool.spawn(self.begin, number)  # waits for a free place
        finally:
            pool.kill()
            self.enter_not_started(schedule)

    def begin(self, number):
        self.run_session(self.draw("session", number), self.waiting.pop(number))

    def schedule(self):
        """Yield the number of each visitor and when it is due."""
        draw, due = self.draw("arrivals"), log.started
        rate = self.options.arrivals / (self.options.worker_count or 1)
        for visitor in itertools.count():
            due += draw.expovariate(rate)
            yield visitor, due

    def enter_not_started(self, schedule):
        """Enter the visitors that were due before the load ended, and were not started."""
        end = min(log.over, time.monotonic())
        rest = itertools.takewhile(lambda one: one[1] < end, schedule)
        for visitor, due in itertools.chain(self.waiting.items(), rest):
            for request in WHOLE if due < end else ():
                log.note(f"not started {visitor}", request, due, end, "not_started")
                if end - due > UNANSWERED_AFTER and request != "session":
                    self.report(request, end - due, Unanswered(f"no answer to: {ROWS[request]}"))


class NoThinkTimeUser(GreetingUser):
    """Closed loop without think time: one session for the whole run, greeting after greeting."""

    wait_time = constant(0)

    @tag("no-think-time")
    @task
    def greet_on(self):
        with self.session() as session:
            session.enter(b"no think time")
            while True:
                session.greet("later_greeting", b"no think time %s, again" % session.tag)


class SlowRequestUser(GreetingUser):
    """Next to the others: these greetings alone are slow. It does not count as a visitor."""

    fixed_count = 1

    @tag("slow-requests")
    @task
    def greet_slowly(self):
        with self.session(requests=()) as session:
            session.connect()
            while True:
                session.exchange("slow_request", b"slow %s" % session.tag)


class IdleUser(GreetingUser):
    """A client that connects and sends nothing until the run ends."""

    @tag("idle")
    @task
    def hold(self):
        with self.session(requests=("connect", "session")) as session:
            session.connect()
            gevent.sleep(1e6)


@events.init_command_line_parser.add_listener
def add_options(parser):
    add, hidden = parser.add_argument, {"include_in_web_ui": False}
    rate, length = number(float, 0.01, 20_000), number(float, 0, 86_400)
    count = number(int, 1, 1000)
    add("--arrivals", type=rate, default=10.0, help="OpenLoopUser: visitors per second, in all")
    add("--slow-requests", type=count, default=1, help="SlowRequestUser: number of users")
    add("--timeout", type=length, default=0.0, help="seconds until a visitor gives up; 0: never")
    add("--retries", type=number(int, 0, 100), default=0, help="attempts after the first timeout")
    add("--seed", type=number(int, 0, 10**9), default=1, help="of arrivals and think times")
    add("--worker-count", type=count, default=1, help="OpenLoopUser: workers that share the rate")
    words = "end after this many seconds of load, to the millisecond; 0 leaves that to --run-time"
    add("--seconds", type=length, default=0.0, help=words, **hidden)
    words = "show this process, the server under test, in a tab of the page"
    add("--server-pid", type=int, default=0, help=words, **hidden)
    words = "write every sample to this JSON file at the end"
    add("--sample-log", default="", help=words, **hidden)
    # Both are open to every machine otherwise. Another address must be named.
    parser.set_defaults(web_host="127.0.0.1", master_bind_host="127.0.0.1")


@events.init.add_listener
def choose(environment, runner, **_):
    """Choose ClosedLoopUser if nothing else is; show the server that --server-pid names."""
    options, page = environment.parsed_options, environment.web_ui
    if isinstance(runner, WorkerRunner):  # the master chooses
        return
    SlowRequestUser.fixed_count = options.slow_requests
    OpenLoopUser.fixed_count = options.worker_count
    is_picked = options.class_picker and not options.headless and not options.autostart
    if options.tags or options.exclude_tags:
        environment.user_classes = with_tags(environment.user_classes, options)
    elif not options.user_classes and not is_picked:
        environment.user_classes = [ClosedLoopUser]
    if page:
        locust_tab.describe_classes(page, "ClosedLoopUser")
    if page and options.server_pid:
        locust_tab.add_tab(environment, options.server_pid, waiting)
    if options.seconds:
        events.spawning_complete.add_listener(lambda **_: end_later(runner, options.seconds))


def with_tags(classes, options):
    """Return the user classes that --tags and --exclude-tags leave; exits if there is none."""
    tags = {
        one: {name for each in one.tasks for name in getattr(each, "locust_tag_set", ())}
        for one in classes
    }
    known, unwanted = set().union(*tags.values()), set(options.exclude_tags or ())
    wanted = set(options.tags or known) - unwanted
    if not known & wanted:
        names = ", ".join(sorted(known))
        sys.exit(f"--tags and --exclude-tags leave no user class: there are {names}")
    return [one for one in classes if tags[one] & wanted]


def waiting():
    """Return for how many seconds each open request has waited, the longest first."""
    now = time.monotonic()
    waits = [[now - at for name, at in one.open.items() if name != "session"] for one in present]
    return sorted(map(max, filter(None, waits)), reverse=True)


@events.test_start.add_listener
def start(environment, **_):
    global user_numbers
    user_numbers = itertools.count()
    log.start(watch=not isinstance(environment.runner, MasterRunner))


@functools.cache  # once, and not again when a worker comes or goes
def end_later(runner, seconds):
    """Let the load end this many seconds after all users have been started."""
    gevent.spawn_later(seconds, finish, runner)


def finish(runner):
    """End the run: quit() alone waits only half a second for the workers' last reports."""
    runner.stop()
    runner.quit()


@events.test_stopping.add_listener
def end(environment, **_):
    """Keep Locust's own counts: from here on, censored requests are entered as well."""
    log.over = time.monotonic()
    counted = [*environment.stats.entries.values(), environment.stats.total]
    log.locust = {
        row.name: [row.num_requests, row.num_failures, row.median_response_time] for row in counted
    }


events.test_stop.add_listener(lambda **_: log.stop())


@events.report_to_master.add_listener
def hand_over(client_id, data):
    waits = [(one.name, request, at) for one in present for request, at in one.open.items()]
    data["sample_log"] = log.report(waits)


@events.worker_report.add_listener
def take_over(client_id, data):
    if "sample_log" in data:
        log.take(data.pop("sample_log"), client_id)


@events.quitting.add_listener
def save(environment, **_):
    """Write the sample log where all of it has come together."""
    path = environment.parsed_options.sample_log
    if path and not isinstance(environment.runner, WorkerRunner):
        Path(path).write_text(json.dumps(log.content()))
