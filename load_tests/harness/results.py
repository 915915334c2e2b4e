"""The results of a comparison: what results.json and samples.csv.gz contain, field by field."""

from dataclasses import asdict, dataclass, field, fields
from typing import NamedTuple

SCHEMA = 4  # of results.json: it changes whenever a field does
USER_CLASSES = {"think-time": "ClosedLoopUser", "no-think-time": "NoThinkTimeUser"}

REQUESTS = {
    "connect": "until connect() returns",
    "first_greeting": "from the start of connect() to the first answer",
    "later_greeting": "from a question to its answer",
    "session": "from the start of connect() until the visitor leaves",
    "slow_request": "a greeting of a user of --slow-requests",
    "abandoned_greeting": "a greeting for a visitor that had given up",
}
GREETINGS = ("first_greeting", "later_greeting")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What all runs of a comparison have in common."""

    load: str  # a key of USER_CLASSES
    loop: str  # "closed", or "open"
    seconds: float  # length of a run
    repeats: int  # runs for each server and load
    seed: int  # of arrivals and think times; repeat n uses seed + n
    backlog: int
    wait: float  # seconds that each greeting waits
    compute: float  # seconds that each greeting computes
    slow_requests: int  # users whose greetings alone wait and compute; 0: all do
    switch_interval: float  # of the server, with slow_requests
    timeout: float  # seconds after which a visitor gives up; 0: never
    retries: int  # further attempts after the first timeout
    processes: int  # Locust processes
    workers: int  # those of them that joined, on other machines; 0: all are on this one


@dataclass(frozen=True)
class Machine:
    """What a reader needs to know of the machine."""

    cores: float  # usable ones: fewer under a CPU quota
    kernel: str
    python: str


@dataclass(frozen=True)
class Percentile:
    """A percentile of latencies."""

    ms: float
    exact: bool  # False: a lower bound, shown with "≥" and an arrow


@dataclass(frozen=True)
class LatencySummary:
    """The latencies of one kind of request."""

    asked: int
    answered: int
    unanswered: int  # right-censored: by the end of the run, or by a visitor that gave up
    failed: int  # in no percentile
    p50: Percentile | None
    p90: Percentile | None  # None below 10 samples
    p99: Percentile | None  # None below 100 samples
    max: Percentile | None


def outcome(label, meaning):
    return field(default=0, metadata={"label": label, "meaning": meaning})


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """How many visitors had which outcome."""

    finished: int = outcome("finished", "every greeting was answered, and the visitor left")
    in_session: int = outcome("in session", "greeted at least once when the run ended")
    too_late: int = outcome("too late", "came less than 0.5 s before the end, not greeted yet")
    unserved_established: int = outcome(
        "unserved (ESTABLISHED)", "connected, never greeted: in the accept queue, or half-open"
    )
    unserved_syn_sent: int = outcome(
        "unserved (SYN-SENT)", "connect() had no answer: the accept queue was full"
    )
    gave_up: int = outcome("gave up", "left after --timeout, and after its --retries")
    not_started: int = outcome("not started", "due, but the load generator had no place for it")
    failed: int = outcome("failed", "got an error or a wrong answer")

    @property
    def visitors(self):
        return sum(asdict(self).values())

    @property
    def unserved(self):
        return self.unserved_established + self.unserved_syn_sent

    @property
    def served(self):
        return self.finished + self.in_session

    @property
    def all_failed(self):
        """True if visitors failed, and no visitor was served."""
        return self.failed > 0 and not self.served


OUTCOMES = {one.name: one.metadata for one in fields(Outcomes)}  # label and meaning


@dataclass(frozen=True)
class Moment:
    """A short interval of a run."""

    at: float  # its begin, in seconds since the start of the load
    in_service: int  # visitors between their first greeting and their end, at its begin
    greetings: int  # answered during it
    failures: int  # requests that failed or timed out during it
    p50_ms: float | None  # latency of its greetings


@dataclass(frozen=True)
class Reading:
    """What a server uses at one moment, with all processes that it has started."""

    at: float  # time.monotonic()
    rss: int  # bytes
    vms: int  # bytes
    threads: int
    descriptors: int
    cpu: float  # seconds since the process started
    switches: int  # context switches of the threads that exist now
    accept_queue: int  # connections that accept() has not taken
    clients: dict[str, int]  # TCP state: how many sockets of clients on this machine
    listen_drops: int  # ListenDrops of the network namespace


@dataclass(frozen=True)
class ServerUsage:
    """What a server used during a run."""

    cpu_us_per_greeting: float | None
    cpu_share: float  # of one core
    cpu_incomplete: bool  # CPU time of its child processes is lost: a lower bound
    rss_peak: int  # bytes
    rss_per_connection: float | None  # bytes; None where fewer than ten were open at a time
    connections_peak: int
    threads_peak: int
    accept_queue_peak: int
    accept_queue_limit: int
    syn_sent_peak: int
    listen_drops: int
    readings: list[Reading]


@dataclass(frozen=True)
class GeneratorHealth:
    """How the load generator kept up."""

    cpu_share: float  # of the busiest Locust process, of one core
    lag_ms_p99: float  # by which its sleeps were too long
    limited: str  # why the run is generator-limited, in words; "" if it is not
    workers_left: list[str] = field(default_factory=list)  # during the run, in words


@dataclass(frozen=True)
class LocustRow:
    """A row of Locust's own table when the load ended, before censored requests are added."""

    requests: int
    failures: int
    median_ms: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """One server under one load."""

    model: str
    program: str
    load: float  # users, or arrivals per second
    repeat: int  # from 0
    seconds: float  # from the first request to the last answer or the end
    outcomes: Outcomes
    latency: dict[str, LatencySummary]  # by request, see REQUESTS
    greetings: int  # answered to visitors that still waited
    abandoned: int  # greetings answered to visitors that had given up
    goodput: float  # greetings per second
    throughput: float  # greetings and abandoned greetings per second
    in_service_mean: float
    moments: list[Moment]
    distribution: list[list[float]]  # of first greetings: [ms, share answered within ms], …
    usage: ServerUsage
    generator: GeneratorHealth
    errors: dict[str, int]  # reason: how often
    locust_report: str  # file name
    locust_counted: dict[str, LocustRow]


@dataclass(frozen=True)
class FailedRun:
    """A run without numbers."""

    model: str
    program: str
    load: float
    repeat: int
    error: str


@dataclass(kw_only=True)
class Comparison:
    """All of results.json."""

    schema: int = SCHEMA
    date: str
    machine: Machine
    config: RunConfig
    interrupted: bool = False
    runs: list[Run] = field(default_factory=list)
    failed_runs: list[FailedRun] = field(default_factory=list)


class Sample(NamedTuple):
    """One request, as its user saw it."""

    session: str  # a visitor's number, after the name of the Locust process if there are several
    request: str  # a key of REQUESTS
    began: float  # seconds since the start of the load; in the open loop when it was due
    ended: float  # seconds since the start of the load: answer, error, giving up, end of the load
    outcome: str  # answered, failed, or censored: unanswered, timed_out, not_started

    @property
    def seconds(self):
        return self.ended - self.began

    @property
    def censored(self):
        return self.outcome not in ("answered", "failed")


COLUMNS = ("model", "load", "repeat", *Sample._fields)  # of samples.csv.gz


def row(run, sample):
    """Return a row of samples.csv.gz; times have microseconds."""
    times = {"began": f"{sample.began:.6f}", "ended": f"{sample.ended:.6f}"}
    return [run.model, f"{run.load:g}", run.repeat, *sample._replace(**times)]
