"""What the processes of a server use. Some models fork, so all of its processes count."""

import contextlib

import psutil


def processes(server):
    """Return the server's process and all that it has started."""
    return [server.process, *server.process.children(recursive=True)]


def total(server, measure):
    """Return the sum of measure(process) over all processes of server."""
    numbers = []
    for process in processes(server):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            numbers.append(measure(process))
    return sum(numbers)


def spent(server):
    """Return the seconds of CPU time that server has used (to 0.01 s)."""
    return total(server, lambda process: sum(process.cpu_times()[:2]))


def descriptors(server):
    """Return how many descriptors server has open."""
    return total(server, psutil.Process.num_fds)


def threads(server):
    """Return how many threads server has."""
    return total(server, psutil.Process.num_threads)


def memory(server):
    """Return the bytes of memory that server has for itself, without what processes share."""
    return total(server, lambda process: process.memory_full_info().uss)
