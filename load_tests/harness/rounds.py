"""What the benchmark measures, for the table and the JSON file."""

import json
from dataclasses import asdict, dataclass, field

SCHEMA = 3  # of the JSON file: it changes whenever a key does


@dataclass(frozen=True, slots=True)
class Round:
    """One server's round: all of its generators together. Times are in seconds."""

    answered: int  # requests
    seconds: float  # of the slowest generator
    throughput: float  # requests per second
    p50: float  # latencies
    p99: float
    max: float
    cpu: float  # CPU time of the server per request
    busy: float  # share of one core that the server used
    generator_busy: float  # share of its core that the busiest generator used


@dataclass(frozen=True, slots=True)
class IdleCost:
    """What one idle connection costs."""

    resident: float  # KiB in the server's processes
    kernel: float  # KiB in the kernel of this machine, for both ends of the connection
    connect: float  # seconds until it has been greeted once


@dataclass(slots=True)
class Measured:
    """What one server did with one number of connections."""

    connections: int
    server: str  # its name in the tables
    idle: int  # connections that were open besides, and silent
    cost_of_idle: IdleCost | None = None
    cpu_is_lower_bound: bool = False  # CPU time of its child processes is lost when they end
    rounds: list[Round] = field(default_factory=list)


def to_json(load, measured):
    """Return the text of the JSON file. load: what each request was, "greet" or "visit"."""
    content = {"schema": SCHEMA, "load": load, "measured": [asdict(one) for one in measured]}
    return json.dumps(content, indent=1)
