"""What notebook 3 watches: crowds of clients, and the threads of a server at one moment."""

import threading
import time
from collections import Counter
from dataclasses import dataclass

from clients.client import Client
from clients.console.formatting import count
from clients.crowd.simulation import CrowdResult, crowd
from clients.system import processes, procfs
from clients.system.sampler import thread_states
from clients.trace.session import traced

SAMPLING_INTERVAL = 0.02  # seconds between two readings of the kernel's list of sockets


@dataclass
class QueueSample:
    """A server's threads and accept queue at one moment of a crowd."""

    at: float  # seconds since the crowd's start
    threads: int
    queued: list[int]  # numbers of the clients in the accept queue


@dataclass
class WatchedCrowd(CrowdResult):
    """The result of a crowd, with what the kernel knew of the server meanwhile."""

    model: str = ""
    samples: tuple[QueueSample, ...] = ()


def watched_crowd(name, *settings, **options):
    """Send a crowd (see crowd.crowd) to a server; return a WatchedCrowd.

    settings: options of the server, such as "--wait", "0.5".
    """
    with processes.running_server(processes.find_server(name), "--quiet", *settings) as server:
        samples, over, began = [], threading.Event(), time.perf_counter()
        port = server.address[1]

        def sample():
            while not over.wait(SAMPLING_INTERVAL):
                lines = [line for line in procfs.tcp_sockets(port) if line.local[1] == port]
                # A set: the list changes while it is read, and then a line may come twice.
                queued = {line.remote[1] for line in lines if line.in_accept_queue}
                threads = server.process.num_threads()
                # Last, because the list takes a while: a client that has left it has left by now.
                at = time.perf_counter() - began
                samples.append(QueueSample(at, threads, queued))

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            result = crowd(server.address, **options)
        finally:
            over.set()
            thread.join()
    numbers = {client.port: client.number for client in result.clients}
    for one in samples:
        one.queued = sorted(numbers[port] for port in one.queued if port in numbers)
    return WatchedCrowd(**vars(result), model=name, samples=tuple(samples))


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
    rows, last = [], None
    for thread in sorted(states, key=lambda thread: thread.line):
        if thread.line != last:
            rows.append(f"{name}/server.py:{thread.line}  {source[thread.line - 1].strip()}")
        descriptor = "" if thread.fd is None else f", descriptor {thread.fd}"
        short_name = thread.name.split(" ")[0]
        rows.append(f"        <- {short_name:10} blocked in {thread.call}{descriptor}")
        last = thread.line
    return "\n".join(rows)


def summary(states):
    """Return how many threads a server has, and in which system calls they are blocked."""
    calls = Counter(thread.call for thread in states)
    blocked = ", ".join(f"{number} in {call}" for call, number in calls.items())
    return f"{count(len(states), 'thread')}: {blocked}"
