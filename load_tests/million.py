"""Hold very many idle connections, both ends on this machine, and measure what they cost.

.venv/bin/python -m load_tests.million --connections 1000000

The server is prefork.py with a listening socket for each process, as many processes as their limit
of descriptors asks for. The clients have many source addresses, 127.0.x.y. A million takes 12 GB of
memory and some minutes; no more connections are made when less than --reserve GiB are available.
"""

import contextlib
import math
import os
import sys
import time
from pathlib import Path

import psutil
from rich.progress import track

from clients.console.argtypes import command_parser, number
from clients.console.formatting import count
from clients.system import processes
from load_tests import bench
from load_tests.harness.files import Screen
from load_tests.harness.monitor import kernel_memory

PREFORK = processes.ROOT / "load_tests" / "alternatives" / "prefork.py"
STEPS, BUSY, ROUND = 20, 10, 0.5  # ROUND: seconds
MOST = 20_000  # connections of one process
EVEN = 0.95  # a process gets this share of what it may hold: a hash does not spread evenly
SERVER_ONLY = ("eventpoll", "ep_head")  # kernel objects that the clients' end does not have
KIB, GIB = 2**10, 2**30
SCREEN = Screen()
out = SCREEN.print


def setting(name):
    """Return the numbers of one of the kernel's settings: sysctl(8)."""
    return map(int, Path("/proc/sys", *name.split(".")).read_text().split())


def connect(idle, args):
    """Open idle connections in steps; return their number, lower if memory is short."""
    made = 0
    quiet = {"console": SCREEN, "disable": not SCREEN.is_terminal}
    for step in track(range(1, STEPS + 1), "connecting", **quiet):
        if psutil.virtual_memory().available < args.reserve * GIB:
            text = f"less than {args.reserve} GiB of memory are available"
            if not made:
                raise bench.BenchError(text)
            out(f"{text}: no more connections")
            return made
        more = args.connections * step // STEPS - made
        idle.share("hold", more, True)
        made += more
    return made


def memory(trees):
    """Return bytes: of each list of processes (PSS: what is shared is counted once), the kernel."""
    return [sum(one.memory_full_info().pss for one in tree) for tree in trees] + [kernel_memory()]


def kernel_objects():
    """Return {name: bytes} of the kernel's objects (slabinfo(5)); empty unless we are root."""
    with contextlib.suppress(PermissionError):
        rows = map(str.split, Path("/proc/slabinfo").read_text().splitlines()[2:])
        return {name: int(active) * int(size) for name, active, _, size, *_ in rows}
    return {}


def one_end(before, after, total):
    """Return how many of the kernel's bytes the server's end takes; None if that is not known."""
    grown = {name: size - before.get(name, 0) for name, size in after.items()}
    epoll = sum(size for name, size in grown.items() if name.startswith(SERVER_ONLY))
    return (total - epoll) / 2 + epoll if grown else None


def limits(held, per_connection, available):
    """Return (connections, name, what it limits) of each limit, in the order they are met."""
    low, high = setting("net.ipv4.ip_local_port_range")
    names = "fs.nr_open", "fs.file-max", "kernel.pid_max"
    nr_open, files, pids = (number for name in names for number in setting(name))
    found = [
        (high - low + 1, "net.ipv4.ip_local_port_range", "from one source address"),
        (processes.raise_nofile_limit(), "RLIMIT_NOFILE (ulimit -n)", "of one process"),
        (nr_open, names[0], "of one process, however that is raised"),
        (files // 2, names[1], "two open files each"),
        (pids // 2 * held, names[2], f"{held:,} of a process, at both ends"),
    ]
    if per_connection > 0:  # with few connections it is less than what other programs free
        each = f"{per_connection / KIB:.1f} KiB each"
        found.append((int(available / per_connection), "memory", each))
    return sorted(found)


def measure(args, stack):
    """Hold the connections, and print what is measured."""
    held = min(processes.raise_nofile_limit() - bench.DESCRIPTORS, MOST)
    counts = [math.ceil(args.connections / held / EVEN), math.ceil(args.connections / held)]
    options = ("--quiet", "--backlog", bench.BACKLOG, "--share", "reuseport")
    running = processes.running_server(PREFORK, *options, "--processes", counts[0])
    server = stack.enter_context(running)
    cores = sorted(os.sched_getaffinity(0))
    busy, *others = generators = [
        stack.enter_context(bench.generating(cores[one % len(cores)], server.address, one))
        for one in range(counts[1] + 1)
    ]
    busy = bench.Target("prefork", server, [busy])
    busy.share("hold", BUSY)
    idle = bench.Target("prefork", server, others)
    idle.share("hold", len(others), True)
    trees = processes.process_tree(server.process), generators
    out(f"{count(counts[0], 'process')} of the server, {len(others)} with its clients")

    alone, available = busy.round("greet", BUSY, ROUND), psutil.virtual_memory().available
    before, objects, began = memory(trees), kernel_objects(), time.perf_counter()
    made = connect(idle, args)
    seconds = time.perf_counter() - began
    costs = [after - its for after, its in zip(memory(trees), before, strict=True)]
    end = one_end(objects, kernel_objects(), costs[2])
    among = busy.round("greet", BUSY, ROUND)
    out(f"{made:,} idle connections in {seconds:.0f} s, {made / seconds:,.0f} per second")
    names = "server's processes", "clients' processes", "kernel, both ends", "  server's end of it"
    for name, cost in zip(names, [*costs, *filter(None, [end])], strict=False):
        out(f"  {name:20} {cost / GIB:7.2f} GiB {cost / made / KIB:7.2f} KiB each")
    for title, one in ("without", alone), ("among", among):
        text = f"p50 {1e6 * one.p50:.0f} µs, p99 {1e6 * one.p99:.0f} µs"
        out(f"{BUSY} busy connections {title} them: {text}, {one.throughput:,.0f} greetings/s")
    out(*Path("/proc/net/sockstat").read_text().splitlines()[1:2])

    began = time.perf_counter()
    for one in generators:
        one.stdin.close()  # it ends, and the kernel closes all that it holds
    for one in generators:
        one.wait()
    clients = time.perf_counter() - began
    server.process.terminate()
    psutil.wait_procs(trees[0])
    out(f"ended in {time.perf_counter() - began:.0f} s (the clients in {clients:.0f} s)")
    out("limits of connections, in the order in which they are met:")
    for most, name, what in limits(held, sum(costs) / made, available):
        out(f"{most:>13,}: {name}, {what}")


def main():
    processes.require_linux()
    parser = command_parser(__doc__)
    parser.add_argument("--connections", type=number(int, 100, 10_000_000), default=1_000_000)
    parser.add_argument("--reserve", type=number(float, 0, 1000), default=2, metavar="GiB")
    args = parser.parse_args()
    try:
        with contextlib.ExitStack() as stack:
            measure(args, stack)
    except KeyboardInterrupt:
        return "interrupted"
    except (bench.BenchError, processes.LaunchError, psutil.Error) as error:
        return f"{error}"


if __name__ == "__main__":
    sys.exit(main())
