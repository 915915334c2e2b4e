"""What notebook 3 watches: crowds of clients, and the threads of a server at one moment."""

import threading
import time
from collections import Counter
from dataclasses import dataclass

from clients.client import Client
from clients.crowd import crowd
from clients.crowd.simulation import CrowdResult
from clients.system import processes, procfs
from clients.system.sampler import sampled_server

LOOK = 0.02  # seconds between two looks at the kernel's table


@dataclass
class Look:
    """What the kernel knows of a server at one moment of a crowd."""

    at: float  # seconds since the crowd's start
    threads: int
    queued: list[int]  # numbers of the clients in the accept queue


@dataclass
class WatchedCrowd(CrowdResult):
    """The result of a crowd, with what the kernel knew of the server meanwhile."""

    model: str = ""
    looks: tuple[Look, ...] = ()


def watched_crowd(name, *settings, **options):
    """Send a crowd (see crowd.crowd) to a server; return a WatchedCrowd.

    settings: options of the server, as "--wait", "0.5".
    """
    with processes.running_server(processes.find_server(name), "--quiet", *settings) as server:
        looks, over, began = [], threading.Event(), time.perf_counter()
        port = server.address[1]

        def look():
            while not over.wait(LOOK):
                lines = [line for line in procfs.tcp_sockets(port) if line.local[1] == port]
                # A set: the list changes while it is read, and then a line may come twice.
                queued = {line.remote[1] for line in lines if line.in_accept_queue}
                threads = server.process.num_threads()
                # Last, since the list takes a while: who is not in it any more has left it by now.
                at = time.perf_counter() - began
                looks.append(Look(at, threads, queued))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            result = crowd(server.address, **options)
        finally:
            over.set()
            thread.join()
    numbers = {client.port: client.number for client in result.clients}
    for one in looks:
        one.queued = sorted(numbers[port] for port in one.queued if port in numbers)
    return WatchedCrowd(**vars(result), model=name, looks=tuple(looks))


def threads_of(name, clients):
    """Return a ThreadState for each thread of a server to which clients have connected.

    They are greeted in turn, until one of them gets no answer.
    """
    with sampled_server(processes.find_server(name), "--quiet") as sampler:
        lines = [Client(*sampler.server.address, timeout=0.3) for _ in range(clients)]
        for line in lines:
            try:
                line.greet(b"bob")
            except TimeoutError:
                break  # this one waits, and so would all behind it
        time.sleep(0.1)  # until the threads sleep again
        states = sampler.sample()
        for line in lines:
            line.close()
    return states


def marked(name, states):
    """Return the lines of a server on which threads are, each with its thread and system call."""
    source = processes.find_server(name).read_text().splitlines()
    rows, last = [], None
    for thread in sorted(states, key=lambda thread: thread.line):
        if thread.line != last:
            rows.append(f"{name}/server.py:{thread.line}  {source[thread.line - 1].strip()}")
        descriptor = "" if thread.fd is None else f", descriptor {thread.fd}"
        name_in_log = thread.name.split(" ")[0]
        rows.append(f"        <- {name_in_log:10} sleeps in {thread.call}{descriptor}")
        last = thread.line
    return "\n".join(rows)


def summary(states):
    """Return how many threads a server has, and in which system calls they sleep."""
    calls = Counter(thread.call for thread in states)
    sleeping = ", ".join(f"{number} in {call}" for call, number in calls.items())
    return f"{len(states)} thread{'s' if len(states) > 1 else ''}: {sleeping}"
