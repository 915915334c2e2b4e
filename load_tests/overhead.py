"""What the harness itself costs: its greetings a second beside the requests of FastHttpUser.

.venv/bin/python -m load_tests.overhead --rounds 3

Both are Locust users without thinking, one process, against an event loop on the other core: our
Chatterbox against 03_epoll, Locust's own FastHttpUser against a keep-alive HTTP server made of
03_epoll's loop. They take turns, and the table shows every round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from clients.system.launch import ROOT, models, running

HERE = Path(__file__).resolve().parent

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


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    epoll = models()["03_epoll"]
    with tempfile.TemporaryDirectory() as folder:
        http = Path(folder, "http_server.py")
        http.write_text(epoll.read_text().replace('b"Hello, " + chunk', ANSWER))
        fast = Path(folder, "fast.py")
        fast.write_text(FAST_HTTP)
        rates = {"Chatterbox": [], "FastHttpUser": []}
        for _ in range(args.rounds):
            rates["Chatterbox"].append(
                rate(epoll, "tcp", [HERE / "locustfile.py", "Chatterbox"], args, folder)
            )
            rates["FastHttpUser"].append(rate(http, "http", [fast, "Fast"], args, folder))
    show(rates, args)


def rate(program, scheme, what, args, folder):
    """Return the answers a second that one Locust process got from program."""
    cores = sorted(os.sched_getaffinity(0))
    locustfile, user = what
    result = Path(folder, "result")  # Locust adds .json
    with running(program, "--quiet", "--backlog", 1024) as server:
        server.process.cpu_affinity(cores[:1])
        host, port = server.address
        command = [sys.executable, "-m", "locust", "-f", locustfile, "--headless"]
        command += ["-u", args.users, "-r", args.users, "-t", f"{args.seconds}s"]
        command += ["--host", f"{scheme}://{host}:{port}", "--json-file", result, user]
        subprocess.run(
            list(map(str, command)),
            cwd=ROOT,
            check=False,  # requests cut off by the end make it 1
            timeout=args.seconds + 60,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, cores[-1:]),
        )
    rows = json.loads(result.with_suffix(".json").read_text())
    busiest = max(rows, key=lambda row: row["num_requests"])
    return busiest["num_requests"] / (busiest["last_request_timestamp"] - busiest["start_time"])


def show(rates, args):
    title = f"answers a second, one Locust process, {args.users} users without thinking"
    table = Table(title=title, title_justify="left")
    table.add_column("user class")
    for number in range(args.rounds):
        table.add_column(f"round {number + 1}", justify="right")
    table.add_column("median", justify="right")
    for name, found in rates.items():
        texts = [f"{one:,.0f}" for one in [*found, statistics.median(found)]]
        table.add_row(name, *texts)
    Console().print(table)


if __name__ == "__main__":
    main()
