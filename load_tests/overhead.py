"""What the harness itself costs: its greetings a second beside the requests of FastHttpUser.

.venv/bin/python -m load_tests.overhead --rounds 3

Both are Locust users without thinking, one process, against an event loop on the other core: our
Chatterbox against 03_epoll, Locust's own FastHttpUser against a keep-alive HTTP server made of
03_epoll's loop. They take turns, and the table shows every round.
"""

import argparse
import json
import os
import signal
import statistics
import sys
from pathlib import Path

from rich.table import Table

from clients.console.argtypes import number
from clients.system.processes import (
    LaunchError,
    models,
    raise_nofile_limit,
    running_server,
    temp_dir,
)
from load_tests.harness.files import CannotWrite, Screen, lines, make_sure
from load_tests.harness.runs import LOCUSTFILE, RunError, locust

DESCRIPTORS = 100  # what a process needs besides its connections
# Every request of FastHttpUser fits into one recv(1024), and this answers it.
ANSWER = 'b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nHello"'
FAST_HTTP = """
from locust import FastHttpUser, constant, task
class Fast(FastHttpUser):
    wait_time = constant(0)
    @task
    def get(self):
        self.client.get("/")
"""


def options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=number(int, 1, 10_000), default=100)
    parser.add_argument("--seconds", type=number(int, 1, 3600), default=5)
    parser.add_argument("--rounds", type=number(int, 1, 1000), default=3)
    return parser.parse_args()


def main():
    args, rates = options(), {"Chatterbox": [], "FastHttpUser": []}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the children, too
    try:
        make_sure(None)
        raise_nofile_limit(args.users + DESCRIPTORS)
        measure(rates, args)
        show(rates, args)
    except (LaunchError, CannotWrite, RunError) as error:
        return lines(str(error))
    except KeyboardInterrupt:
        return "interrupted"
    return 0


def measure(rates, args):
    """Let both take turns, and add what each round gave to rates."""
    epoll = models()["03_epoll"]
    with temp_dir() as place:
        http, fast = Path(place, "http_server.py"), Path(place, "fast.py")
        http.write_text(epoll.read_text().replace('b"Hello, " + chunk', ANSWER))
        fast.write_text(FAST_HTTP)
        for _ in range(args.rounds):
            rates["Chatterbox"].append(rate(epoll, "tcp", LOCUSTFILE, "Chatterbox", args))
            rates["FastHttpUser"].append(rate(http, "http", fast, "Fast", args))


def rate(program, scheme, locustfile, user, args):
    """Return the answers a second that one Locust process got from program."""
    cores = sorted(os.sched_getaffinity(0))
    with temp_dir() as place:
        result = Path(place, "result")  # Locust adds .json
        with running_server(program, "--quiet", "--backlog", 1024) as server:
            server.process.cpu_affinity(cores[:1])
            host, port = server.address
            options = ["-f", locustfile, "--headless", "-u", args.users, "-r", args.users]
            options += ["-t", f"{args.seconds}s", "--json-file", result]
            options += ["--host", f"{scheme}://{host}:{port}", user]
            locust(*options, timeout=args.seconds + 60, core=cores[-1])
        try:
            rows = json.loads(result.with_suffix(".json").read_text())
            busiest = max(rows, key=lambda row: row["num_requests"])
        except (OSError, ValueError) as error:
            raise RunError(f"Locust gave no numbers for {user}") from error
    return busiest["num_requests"] / (busiest["last_request_timestamp"] - busiest["start_time"])


def show(rates, args):
    title = f"answers a second, one Locust process, {args.users} users without thinking"
    table = Table(title=title, title_justify="left")
    table.add_column("user class")
    for count in range(args.rounds):
        table.add_column(f"round {count + 1}", justify="right")
    table.add_column("median", justify="right")
    for name, found in rates.items():
        texts = [f"{one:,.0f}" for one in [*found, statistics.median(found)]]
        table.add_row(name, *texts)
    Screen().print(table)


if __name__ == "__main__":
    sys.exit(main())
