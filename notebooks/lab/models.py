"""What notebook 3 watches: crowds of clients, and the threads of a server at one moment."""

import time
from collections import Counter
from dataclasses import dataclass, field

from clients.client import Client
from clients.console.formatting import count
from clients.crowd.simulation import CrowdResult, crowd
from clients.system import processes
from clients.system.sampler import thread_states
from clients.trace.session import traced
from load_tests.harness.monitor import watching
from load_tests.harness.results import Reading


@dataclass
class WatchedCrowd(CrowdResult):
    """The result of a crowd, with what the kernel knew of the server meanwhile."""

    readings: list[Reading] = field(default_factory=list)


def watched_crowd(name, *settings, **options):
    """Send a crowd (see simulation.py) to a server; return a WatchedCrowd.

    settings: options of the server, such as "--wait", "0.5".
    """
    with processes.running_server(processes.find_server(name), "--quiet", *settings) as server:
        with watching(server.process, server.address[1], every=0.1) as readings:
            result = crowd(server.address, **options)
    return WatchedCrowd(**vars(result), readings=readings)


def threads_of(name, clients):
    """Return a ThreadState for each thread of a server to which clients have connected.

    They are greeted in turn, until one of them gets no answer.
    """
    program = processes.find_server(name)
    with traced(program, "--quiet") as session:
        connections = [Client(*session.server.address, timeout=0.3) for _ in range(clients)]
        for client in connections:
            try:
                client.greet(b"bob")
            except TimeoutError:
                break  # this client waits, and so would all after it
        time.sleep(0.1)  # until the threads sleep again
        states = thread_states(session.server.process.pid, session.frames)
        for client in connections:
            client.close()
    return states


def annotated_lines(name, states):
    """Return the lines of a server on which threads are, each with its thread and system call."""
    source = processes.find_server(name).read_text().splitlines()
    rows = []
    for line in sorted({thread.line for thread in states}):
        rows.append(f"{name}/server.py:{line}  {source[line - 1].strip()}")
        for thread in (one for one in states if one.line == line):
            where = "" if thread.fd is None else f", descriptor {thread.fd}"
            rows.append(f"        <- {thread.name.split()[0]:10} blocked in {thread.call}{where}")
    return "\n".join(rows)


def summary(states):
    """Return how many threads a server has, and in which system calls they are blocked."""
    calls = Counter(thread.call for thread in states)
    blocked = ", ".join(f"{number} in {call}" for call, number in calls.items())
    return f"{count(len(states), 'thread')}: {blocked}"
