"""Where the machine ends: no descriptor is left, or no thread can be started."""

import contextlib
import os

import psutil

from clients.client import PREFIX
from clients.contract.errors import Broken, NotApplicable, claim
from clients.contract.probe_client import MEBIBYTE


@claim("--quiet", "--backlog", "50")
def out_of_descriptors_it_serves_on(server):
    if not server.serves_together():
        raise NotApplicable("it serves one client at a time, and needs one descriptor for it")
    for process in server.processes():
        limit(process, psutil.RLIMIT_NOFILE, max(open_files(process)) + 6)
    overcrowd(server)


@claim("--quiet")
def without_a_descriptor_for_the_first_it_waits(server):
    server.settle(server.descriptors_at_rest())
    lowest = {process: lowest_free_descriptor(process) for process in server.processes()}
    before = {process: process.rlimit(psutil.RLIMIT_NOFILE)[0] for process in lowest}
    with server.guest() as guest:
        guest.say(b"now you do not sleep in accept(), which has a descriptor in hand")
        for process, first_free in lowest.items():
            limit(process, psutil.RLIMIT_NOFILE, first_free)
    with server.guest() as guest:
        guest.sendall(b"let me in")
        server.eventually(server.log, "a warning in the log: nobody can be accepted")
        server.calm("it has no descriptor for the newcomer")
        for process, most in before.items():
            limit(process, psutil.RLIMIT_NOFILE, most)
        guest.expect_greeting(b"let me in")


def limit(process, what, most):
    """Set a soft limit of process; the hard one bounds it, and stays: root alone may raise it."""
    hard = process.rlimit(what)[1]
    process.rlimit(what, (most if hard == psutil.RLIM_INFINITY else min(most, hard), hard))


def open_files(process):
    """Return the numbers of the descriptors that a process has open."""
    return {int(fd) for fd in os.listdir(f"/proc/{process.pid}/fd")}


def lowest_free_descriptor(process):
    """Return the number that the next file of process would get."""
    held = open_files(process)
    return min({*range(len(held) + 1)} - held)


@claim("--quiet", "--backlog", "50")
def out_of_threads_it_serves_on(server):
    idle = server.threads()
    with server.guest() as guest:
        guest.say(b"how many threads do I cost?")
        if server.threads() == idle:
            raise NotApplicable("it starts no thread for a client")
    # Each thread reserves address space for its stack (8 MiB, ulimit -s), so a limit on
    # address space is a limit on threads that needs no root and hits this process alone.
    for process in server.processes():
        limit(process, psutil.RLIMIT_AS, process.memory_info().vms + 60 * MEBIBYTE)
    overcrowd(server)


def overcrowd(server):
    """Send more clients than server has room for, and expect that it copes."""
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(server.guest()) for _ in range(20)]
        for guest in crowd:
            with contextlib.suppress(OSError):  # turned away
                guest.sendall(b"me!")
        server.eventually(lambda: crowd[0].is_answered(0), "an answer to the first of 20 clients")
        server.calm("the newcomers can only wait")
        served = [guest for guest in crowd if is_greeted(guest)]
        if len(served) == len(crowd):
            raise NotApplicable("its limits could not be reached")
        if not server.log():
            raise Broken("newcomers were not served, and no warning was logged")
        for guest in served:
            guest.say(b"still here?")
        give_way(server, crowd, served)
    # The last ones may still hold their places for a moment.
    server.eventually(lambda: welcomes(server), "service for a new client after all have left")


def welcomes(server):
    """Say whether a new client is greeted."""
    try:
        server.visit()
    except Broken:
        return False
    return True


def is_greeted(guest):
    """Say whether a guest was greeted, and not turned away or left waiting."""
    try:
        return guest.is_answered(0) and guest.recv(len(PREFIX + b"me!")) == PREFIX + b"me!"
    except ConnectionError:
        return False


def give_way(server, waiting, leaving):
    """Let one after the other leave, and expect that those who wait are then attended to."""
    while waiting:
        for guest in leaving:
            guest.close()
            waiting.remove(guest)
        server.eventually(
            lambda: not waiting or any(guest.is_answered(0) for guest in waiting),
            f"service for one of {len(waiting)} who waited until others left",
        )
        leaving = [guest for guest in waiting if guest.is_answered(0)]
