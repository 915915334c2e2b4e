"""At the limits of the machine: no descriptor is free, or no thread can be started."""

import contextlib
import os
import time

import psutil

from clients.client import PREFIX
from clients.contract.errors import (
    ContractViolation,
    NotApplicable,
    check,
    expect,
    last_exception,
)
from clients.contract.probe_client import MEBIBYTE


@check("--quiet", "--backlog", "50", alone=True)
def out_of_descriptors_it_keeps_serving(server):
    if not server.is_concurrent():
        raise NotApplicable("it serves one client at a time, and needs one descriptor for it")
    for process in server.processes():
        limit(process, psutil.RLIMIT_NOFILE, max(open_files(process)) + 6)
    connect_too_many(server)


@check("--quiet", alone=True)
def without_a_free_descriptor_it_retries(server):
    server.wait_for_descriptors(server.baseline_descriptors())
    before = {process: process.rlimit(psutil.RLIMIT_NOFILE)[0] for process in server.processes()}
    lowest = {process: min({*range(10_000)} - open_files(process)) for process in before}
    with server.connect() as client:
        client.request(b"accept() has reserved a descriptor: use it up")
        for process, first_free in lowest.items():
            limit(process, psutil.RLIMIT_NOFILE, first_free)
    with server.connect() as client:
        client.sendall(b"let me in")
        server.wait_until(server.log, "a warning in the log: it cannot accept")
        server.assert_no_busy_loop("it has no descriptor for a new connection")
        for process, soft in before.items():
            limit(process, psutil.RLIMIT_NOFILE, soft)
        client.expect_greeting(b"let me in")
    failed = "--- Logging error ---" in server.log()  # what Python's logging prints then
    expect(not failed, f"its warning could not be formatted: {last_exception(server.log())}")


def limit(process, resource_number, value):
    """Set a soft limit of process, at most its hard limit, which only root may raise."""
    hard = process.rlimit(resource_number)[1]
    soft = value if hard == psutil.RLIM_INFINITY else min(value, hard)
    process.rlimit(resource_number, (soft, hard))


def open_files(process):
    """Return the open descriptors of a process."""
    return {int(fd) for fd in os.listdir(f"/proc/{process.pid}/fd")}


@check("--quiet", "--backlog", "50", alone=True)
def out_of_threads_it_keeps_serving(server):
    idle = server.threads()
    with server.connect() as client:
        client.request(b"how many threads do I cost?")
        threads = server.threads()
        client.request(b"and keep this connection, or the count is wrong")
        if threads == idle:
            raise NotApplicable("it starts no thread for a client")
    # Each thread reserves virtual address space for its stack (8 MiB, ulimit -s), so a limit on it
    # limits the threads of this process alone, and needs no root.
    for process in server.processes():
        limit(process, psutil.RLIMIT_AS, process.memory_info().vms + 60 * MEBIBYTE)
    connect_too_many(server)


def connect_too_many(server):
    """Connect more clients than the server has room for, and expect that it keeps serving."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(20)]
        for client in clients:
            with contextlib.suppress(OSError):  # rejected
                client.sendall(b"me!")
        server.wait_until(lambda: clients[0].has_reply(0), "a reply to the first of 20 clients")
        server.assert_no_busy_loop("the unserved clients can only wait")
        served = [client for client in clients if is_greeted(client)]
        if len(served) == len(clients):
            raise NotApplicable("its limits could not be reached")
        expect(server.log(), "clients were unserved, and no warning was logged")
        for client in served:
            client.request(b"still here?")
        began, wanted = time.monotonic(), round(2 * server.timeout)
        for number in range(wanted if served else 0):
            served[0].request(b"and are you still quick?")
            what = f"{wanted} replies to a served client took over {server.timeout:g} s"
            expect(time.monotonic() - began < server.timeout, f"{what}: {number + 1} came")
        while clients:  # those that are served leave, until all have been served or rejected
            for client in served:
                client.close()
                clients.remove(client)
            what = f"service for one of {len(clients)} waiting clients after others left"
            server.wait_until(
                lambda: not clients or any(client.has_reply(0) for client in clients), what
            )
            served = [client for client in clients if client.has_reply(0)]

    def is_serving():
        with contextlib.suppress(ContractViolation):
            server.assert_serves_new_client()
            return True

    # The server may need a moment to close the last connections.
    server.wait_until(is_serving, "service for a new client after all have left")


def is_greeted(client):
    """Return True if a client was greeted, neither rejected nor unserved."""
    with contextlib.suppress(ConnectionError):
        return client.has_reply(0) and client.recv(len(PREFIX + b"me!")) == PREFIX + b"me!"
