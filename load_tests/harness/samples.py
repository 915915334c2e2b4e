"""The samples of a run, one per request: from a user of Locust to samples.csv.gz."""

from typing import NamedTuple

REQUESTS = {
    "connect": "until connect() returns",
    "first_greeting": "from the start of connect() to the first answer",
    "later_greeting": "from a question to its answer",
    "session": "from the start of connect() until the visitor leaves",
    "slow_request": "a greeting of a user of --slow-requests",
    "abandoned_greeting": "a greeting for a visitor that had given up",
}
GREETINGS = ("first_greeting", "later_greeting")


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
