"""The experiments of notebook 6: pressure.run() runs each in a process and a network of its own.

A case is {"server": "NAME OPTIONS", ...}: the server has one core, this load generator another.
Most visitors connect, ask once, and leave. Times are in seconds.
"""

import asyncio
import contextlib
import errno
import itertools
import json
import os
import random
import re
import select
import shlex
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from clients.client import Client
from clients.system import netns, processes, procfs
from clients.system.processes import find_server
from load_tests.harness import slow_requests
from load_tests.harness.monitor import pin, tree_cpu_seconds

NOTEBOOKS = Path(__file__).resolve().parent.parent
CORES = sorted(getattr(os, "sched_getaffinity", lambda _: ())(0))  # only Linux has it
SAMPLING_INTERVAL = 0.02  # between two readings of the kernel's list of sockets
MESSAGE, ANSWER = b"bob", b"Hello, bob"


@contextlib.contextmanager
def started(server, edits=(), slow=False, log="--quiet"):
    """Start a server on a core of its own; edits: (old, new) texts of its program. Yield it.

    slow: only messages that begin with "slow" wait and compute. log: "" to log them all. In the
    options {place} is a folder.
    """
    name, *more = shlex.split(server)
    wrapper = (slow_requests.__file__, sys.getswitchinterval()) if slow else ()
    with processes.temp_dir() as place:
        program = find_server(name)
        if edits:
            text = program.read_text()
            for old, new in edits:
                if old not in text:
                    raise ValueError(f"{name} has no {old!r}")
                text = text.replace(old, new)
            program = Path(place, "server.py")
            program.write_text(text)
        options = [log] * bool(log) + ["--backlog", 4096]
        options += [word.format(place=place) for word in more]
        with processes.running_server(program, *options, wrapper=wrapper) as running:
            pin(running.process, CORES[:1])
            yield running


def flood(address, seconds):
    """Send as fast as a server reads, and read all of it; return the bytes received per second."""
    received, until = 0, time.perf_counter() + seconds
    with Client(*address) as client:
        client.socket.setblocking(False)
        while time.perf_counter() < until:
            select.select([client.socket], [client.socket], [], 0.1)
            with contextlib.suppress(BlockingIOError):
                received += len(client.socket.recv(1 << 16))
            with contextlib.suppress(BlockingIOError):
                client.socket.send(b"x" * 1024)
    return received / seconds


def connection_stream(address, seconds, rate):
    """Let clients connect and leave at once, up to rate per second; return how many per second."""
    count, began = 0, time.perf_counter()
    while (now := time.perf_counter() - began) < seconds:
        if count > rate * now:
            time.sleep(0.001)
            continue
        with new_socket() as sock:
            sock.connect_ex(tuple(address))
        count += 1
    return count / seconds


def drip(address, pause):
    """Send a byte, again and again, until the server ends that."""
    with socket.create_connection(address) as sock, contextlib.suppress(OSError):
        for _ in range(1000):
            sock.send(b"x")
            time.sleep(pause)


def slow_request(address):
    """Ask for a slow greeting; return how long it took."""
    time.sleep(0.2)
    began = time.perf_counter()
    with Client(*address) as client:
        client.greet(b"slow")
    return time.perf_counter() - began


NEIGHBOURS = {one.__name__: one for one in (flood, connection_stream, drip, slow_request)}


def new_socket():
    return socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


async def ask(sock, address):
    """Connect, send a message and return the answer, b"" if the server closed instead."""
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, address)
    await loop.sock_sendall(sock, MESSAGE)
    return await loop.sock_recv(sock, 1024)


class Load:
    """The samples of a run, and its tasks, which end with it."""

    def __init__(self):
        self.start, self.samples, self.tasks = time.perf_counter(), [], set()

    def now(self):
        return time.perf_counter() - self.start

    def spawn(self, coroutine):
        self.tasks.add(task := asyncio.create_task(coroutine))
        task.add_done_callback(self.tasks.discard)

    def note(self, number, request, began, outcome):
        self.samples.append([str(number), request, began, self.now(), outcome])

    async def until(self, at):  # asyncio's own timers are up to a millisecond late
        await asyncio.sleep(max(0, at - self.now() - 0.0015))
        while self.now() < at:
            await asyncio.sleep(0)

    async def end(self):
        """Cancel what still waits: it is unanswered."""
        for task in (left := [*self.tasks]):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def open_loop(server, phases, timeout=None, retries=0):
    """Let visitors come at random moments (Poisson) in phases [(seconds, per second), …].

    timeout: seconds after which they give up; None: never. retries: further attempts, which begin
    one timeout apart. Return {"samples", "in_system": how many visitors at each reading, "busy":
    seconds of the server's CPU}. A first greeting is an attempt, a session all of a visitor's.
    """
    draw, load, counts, due, end = random.Random(1), Load(), [], 0.0, 0.0
    cpu = tree_cpu_seconds(server.process)
    load.spawn(count_visitors(server.address[1], counts))
    for seconds, rate in phases:
        due, end = end, end + seconds
        while rate and (due := due + draw.expovariate(rate)) < end:
            await load.until(due)
            load.spawn(visit(server.address, load, due, timeout, retries))
        await load.until(end)
    await load.end()
    busy = tree_cpu_seconds(server.process) - cpu
    return {"samples": load.samples, "in_system": counts, "busy": busy}


async def visit(address, load, due, timeout, retries):
    """Connect, ask, read the answer, and leave; try again after a timeout or another answer."""
    outcome = "unanswered"
    try:
        for attempt in range(retries + 1):
            began = due + attempt * (timeout or 0)
            await asyncio.sleep(max(0, began - load.now()))
            sock, outcome = new_socket(), "unanswered"
            try:
                async with asyncio.timeout(timeout):
                    outcome = "answered" if await ask(sock, address) == ANSWER else "failed"
            except TimeoutError:
                outcome = "timed_out"
            except OSError:
                outcome = "failed"
            finally:
                load.note(due, "first_greeting", began, outcome)
                if outcome != "timed_out":
                    sock.close()
            if outcome == "answered":
                return
            if outcome == "timed_out":
                load.spawn(wait_abandoned(sock, load, due, began))
    finally:
        load.note(due, "session", due, outcome)


async def wait_abandoned(sock, load, number, began):
    """Leave with a FIN, as close() does; note the answer that comes for nothing."""
    with sock, contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        if await asyncio.get_running_loop().sock_recv(sock, 1024) == ANSWER:
            load.note(number, "abandoned_greeting", began, "answered")


async def count_visitors(port, counts):
    """Add how many visitors are in the system: client ends that are ESTABLISHED."""
    while True:
        ends = [one for one in procfs.tcp_sockets(port) if one.remote[1] == port]
        counts.append(sum(one.state == "ESTABLISHED" for one in ends))
        await asyncio.sleep(SAMPLING_INTERVAL)


async def connected(server, seconds, clients, pause):
    """Let clients that stay ask again, a pause (its mean) after each answer; return {"samples"}."""
    load, draw, loop = Load(), random.Random(1), asyncio.get_running_loop()

    async def client(number):
        with new_socket() as sock:
            await loop.sock_connect(sock, server.address)
            while load.now() < seconds:
                await asyncio.sleep(draw.expovariate(1 / pause))
                began, outcome = load.now(), "unanswered"
                try:
                    await loop.sock_sendall(sock, MESSAGE)
                    await loop.sock_recv(sock, 1024)
                    outcome = "answered"
                finally:
                    load.note(number, "later_greeting", began, outcome)

    for number in range(clients):
        load.spawn(client(number))
    await asyncio.sleep(seconds + 0.5)  # for the last answers
    await load.end()
    return {"samples": load.samples}


async def storm(server, count, stay, limit):
    """Close count connections at once, and let all come back; return {"times", "counters"}.

    times: when each had its greeting. stay: they stay then, and did before. limit: of the time.
    """
    clients, epoll, times = [], select.epoll(), []
    for _ in range(count if stay else 0):
        clients.append(Client(*server.address))
        clients[-1].greet(MESSAGE)
    counters = Path("/proc/self/net/netstat")
    before = procfs.tcp_counters(counters.read_text())
    for client in clients:
        client.close()
    clients, start = {}, time.perf_counter()
    for _ in range(count):
        sock = new_socket()
        if (error := sock.connect_ex(server.address)) not in (0, errno.EINPROGRESS):
            raise OSError(error, os.strerror(error))
        clients[sock.fileno()] = sock
        epoll.register(sock, select.EPOLLOUT)
    while len(times) < count and (left := start + limit - time.perf_counter()) > 0:
        for fd, event in epoll.poll(left):
            sock, answer = clients[fd], b""
            with contextlib.suppress(ConnectionError):
                if event == select.EPOLLOUT:
                    sock.send(MESSAGE)
                    epoll.modify(sock, select.EPOLLIN)
                    continue
                answer = sock.recv(1024)
                times.append(time.perf_counter() - start)
            if answer and stay:
                epoll.modify(sock, 0)
            else:
                clients.pop(fd).close()
    after = procfs.tcp_counters(counters.read_text())
    return {"times": times, "counters": {name: after[name] - before[name] for name in after}}


async def restart(server, visits, clients, new_first=False):
    """Restart a server under load: SIGTERM when it has answered visits, the end after as many more.

    new_first: the new server is started before the old one ends. Return {"seen": {what a client
    saw: how often}, "pause": longest time without an answer, "table": [[state of a connection at
    SIGTERM, what its client saw, how many], …], "logged": visits that the servers have logged}.
    """
    loop, half, over = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    seen, last, answers, port = Counter(), {}, [time.perf_counter()], server.address[1]
    states, own_options = {}, server.process.args[server.process.args.index("--port") + 2 :]

    async def client():
        while not over.is_set():
            with new_socket() as sock:
                sock.bind(("127.0.0.1", 0))
                own, what = sock.getsockname()[1], "reset before it asked"
                try:
                    await loop.sock_connect(sock, server.address)
                    what = "reset"
                    await loop.sock_sendall(sock, MESSAGE)
                    answer = await loop.sock_recv(sock, 1024)
                    what = "answered" if answer else "closed, no answer"
                except ConnectionRefusedError:
                    what = "refused"
                    await asyncio.sleep(0.005)
                except OSError:
                    pass  # a reset
            seen[what] += 1
            last.setdefault(own, what)
            if what == "answered":
                answers.append(time.perf_counter())
            if len(answers) > visits:
                half.set()
            if len(answers) > 2 * visits:
                over.set()

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    await half.wait()
    with contextlib.ExitStack() as stack:

        def start():
            new = processes.running_server(server.program, *own_options, port=port)
            new = stack.enter_context(new)
            pin(new.process, CORES[:1])
            return new

        if new_first:
            new = await asyncio.to_thread(start)
        else:
            server.process.suspend()
            while not procfs.all_stopped(server.process.pid):
                pass
            ends = [one for one in procfs.tcp_sockets(port) if one.local[1] == port]
            states = {one.remote[1]: state(one) for one in ends}
            last.clear()
        server.process.terminate()
        server.process.resume()
        await asyncio.to_thread(server.process.wait, 30)
        new = new if new_first else await asyncio.to_thread(start)
        await over.wait()
        await asyncio.wait(tasks, timeout=2)
        await asyncio.sleep(0.2)  # for the last lines of the log
        logs = server.log() + new.log()
    sizes = map(int, re.findall(r"left, (\d+) bytes received", logs))
    table = Counter((states[own], what) for own, what in last.items() if states.get(own))
    return {
        "seen": seen,
        "pause": max(later - at for at, later in itertools.pairwise(answers)),
        "table": [[*key, number] for key, number in table.items()],
        "logged": sum(sizes) // len(MESSAGE),
    }


def state(one):
    """Return the state of a server's connection in words, "" if it is none."""
    if one.state != "ESTABLISHED":
        return ""
    if one.in_accept_queue:
        return "in the accept queue"
    return "accepted, unread data" if one.recv_q else "accepted, nothing unread"


async def measure(experiment, case, barrier):
    """Return what an experiment found out about the server of a case, which begins with others."""
    next_to = case.pop("next_to", None)
    given = {name: case.pop(name) for name in {"server", "edits", "slow", "log"} & case.keys()}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(started(**given))
        if next_to:
            name, *options = next_to
            line = [sys.executable, "-m", "lab.pressure_run", name]
            line.append(json.dumps([server.address, *options]))
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": NOTEBOOKS}
            process = stack.enter_context(processes.spawn(line, **pipes))
            process.stdout.readline()  # it is ready
        await barrier.wait()
        if next_to:
            process.stdin.close()  # it begins
        found = await globals()[experiment](server, **case)
        if next_to and name != "drip":
            found["next_to"] = json.loads(process.stdout.read())
        return found


async def main(experiment, cases, together):
    """Return what an experiment found out about each case, one after another or together."""
    if together:
        barrier = asyncio.Barrier(len(cases))
        return await asyncio.gather(*(measure(experiment, case, barrier) for case in cases))
    return [await measure(experiment, case, asyncio.Barrier(1)) for case in cases]


if __name__ == "__main__":
    name, options = sys.argv[1], json.loads(sys.argv[2])
    os.sched_setaffinity(0, CORES[-1:])
    processes.raise_nofile_limit()  # of the servers as well
    if name in NEIGHBOURS:
        os.nice(10)
        print(flush=True)
        sys.stdin.read()
        print(json.dumps(NEIGHBOURS[name](*options)))
    else:
        if options.pop("own_network"):
            netns.bring_up("lo")
            # No TIME-WAIT: ports do not run out, and the list of sockets stays short.
            Path("/proc/sys/net/ipv4/tcp_max_tw_buckets").write_text("0")
            if any("slow" in case for case in options["cases"]):  # one of them may look a name up
                from .experiments import replace  # takes a third of a second

                replace("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
                silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                silent.bind(("127.0.0.1", 53))  # a DNS server that never answers
        print(json.dumps(asyncio.run(main(name, **options))))
