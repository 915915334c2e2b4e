"""One run: a server, Locust that loads it, and a monitor; what they record is a Recorded."""

import contextlib
import json
import platform
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import psutil

from clients.client import Client
from clients.system.processes import ROOT, module_command, running_server, spawn, tail, temp_dir
from clients.system.procfs import accept_queue_limit, usable_cores
from load_tests.harness.monitor import loses_child_cpu, watching
from load_tests.harness.results import USER_CLASSES, Machine, Reading, Sample

LOCUSTFILE = Path("load_tests", "locustfile.py")  # in ROOT: Locust would split its path at commas
SLOW_REQUESTS = Path(__file__).with_name("slow_requests.py")
WORKERS_START = 30  # seconds that all workers may take to come to a run
VISITORS = 20  # that warm a server
WARM_UP = 1.0  # seconds of that: a server with slow greetings gets fewer visitors
SLACK = 60  # seconds after which a Locust that should have ended is killed


class RunError(RuntimeError):
    """A run that gave no numbers, and why."""


@dataclass(frozen=True)
class Recorded:
    """What was recorded of one run."""

    report: str  # file name of Locust's report
    samples: list[Sample]
    log: dict  # the rest of SampleLog.content()
    readings: list[Reading]
    cpu_incomplete: bool
    accept_queue_limit: int
    cores: float


def record(config, out, address, *, model, program, load, repeat):
    """Run a server under a load; return the Recorded. Raises LaunchError or RunError.

    out: the folder of Locust's report. address: this machine's, for the workers on others.
    """
    report = f"locust-{model}-{load:g}{f'-{repeat + 1}' if repeat else ''}.html"
    (out / report).parent.mkdir(exist_ok=True, parents=True)  # friend/03_epoll
    wrapper = (SLOW_REQUESTS, config.switch_interval) if config.slow_requests else ()
    where = ("--host", address) if config.workers else ()
    with running_server(program, *where, *server_options(config), wrapper=wrapper) as server:
        warm(server.address)
        with watching(server.process, server.address[1]) as readings:
            options = load_options(config, load, repeat, address)
            log = make_load(server.address, options, config.seconds, out / report)
        if server.process.poll() is not None:
            raise RunError(f"it {server.describe_exit()}")
        incomplete = loses_child_cpu(server.process)
    samples = [Sample(*one) for one in log["samples"]]
    limit, cores = accept_queue_limit(config.backlog), usable_cores()
    return Recorded(report, samples, log, readings, incomplete, limit, cores)


def warm(address):
    """Send visitors to a server one after the other; each connects, is greeted, and leaves.

    A program that has not served a client yet is not what its users meet. The worst case is
    asyncio: see BENCH.md, "A number that was true and meant nothing".
    """
    until = time.monotonic() + WARM_UP
    with contextlib.suppress(OSError, ValueError):  # not served: the measurement will show it
        for _ in range(VISITORS):
            with Client(*address) as client:
                client.greet(b"warm")
                client.socket.shutdown(socket.SHUT_WR)
                client.socket.recv(1024)  # the end: the server has closed
            if time.monotonic() > until:
                break


def server_options(config):
    """Return the options with which every server is started."""
    slow = "--wait", config.wait, "--compute", config.compute
    return ["--quiet", "--backlog", config.backlog, *slow]


def load_options(config, load, repeat, address):
    """Return Locust's options for a run. address: see record()."""
    slow, count = config.slow_requests, config.processes
    words = ["OpenLoopUser" if config.loop == "open" else USER_CLASSES[config.load]]
    users = (count if config.loop == "open" else load) + slow
    options = {"-u": users, "-r": users, "--seed": config.seed + repeat, "--arrivals": load}
    options |= {"--seconds": config.seconds, "--slow-requests": max(slow, 1)}
    options |= {"--timeout": config.timeout, "--retries": config.retries}
    if config.workers:
        words.append("--master")
        options |= {"--master-bind-host": address, "--expect-workers-max-wait": WORKERS_START}
    elif count > 1:
        port = free_port()  # 5557 may be another run's master
        options |= {"--processes": count, "--master-bind-port": port, "--master-port": port}
    options |= {"--expect-workers": count, "--worker-count": count}
    return [*words, *["SlowRequestUser"] * bool(slow), *chain(*options.items())]


def make_load(address, options, seconds, page):
    """Let Locust load a server and write its report to page; return the content of its log."""
    with temp_dir() as place:
        sample_log, output = Path(place, "samples.json"), Path(place, "output")
        report = Path(place, "report.html")  # in the name of a report Locust replaces {u} and more
        options = ["-f", LOCUSTFILE, "--headless", "--only-summary", *options]
        options += ["--host", "tcp://%s:%d" % address, "--loglevel", "WARNING"]
        options += ["--sample-log", sample_log, "--html", report, "--exit-code-on-error", 0]
        with open(output, "wb") as file:
            locust(*options, output=file, timeout=seconds + SLACK)
        with contextlib.suppress(OSError):  # no report, or no room for it: the numbers are here
            shutil.move(report, page)
        words = f"Locust's last words: {tail(output.read_text(errors='replace'))}"
        try:
            content = json.loads(sample_log.read_text())
        except (OSError, ValueError):
            raise RunError(f"Locust gave no numbers. {words}") from None
    if not content["samples"]:
        raise RunError(f"there was no visitor. {words}")
    return content


def free_port(wanted=0):
    """Return a free port of 127.0.0.1: the wanted one if it is free."""
    try:
        with socket.create_server(("127.0.0.1", wanted)) as free:
            return free.getsockname()[1]
    except OSError:
        return free_port()


def locust(*options, output=subprocess.DEVNULL, timeout=None):
    """Run Locust, for timeout seconds at most, end all its processes; return its exit status."""
    # From ROOT, Locust finds the rest of the repository.
    how = {"cwd": ROOT, "stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
    with spawn(module_command("load_tests.harness.start_locust", *options), **how) as process:
        with contextlib.suppress(psutil.TimeoutExpired):  # what it printed is reported
            return process.wait(timeout)
    return None


def join(address, report):
    """Be a Locust worker for each run of the comparison at address; report(line) shows a line."""
    options = "--worker", "--master-host", address, "--exit-code-on-error", 0
    report(f"Makes load for the comparison at {address}. Ctrl-C ends this.")
    while not (status := locust("-f", LOCUSTFILE, *options)):
        report("A run has ended.")
    return f"is there a comparison at {address}? Locust's worker ended with status {status}"


def machine():
    """Return the Machine that this program runs on."""
    return Machine(usable_cores(), platform.release(), platform.python_version())
