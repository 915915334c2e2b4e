"""The experiments of notebook 6: pressure.run() runs each in a process and a network of its own.

A case is {"server": "NAME OPTIONS", ...}: the server has one core, this load generator another.
Most visitors connect, ask once, and leave. Times are in seconds.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import select
import shlex
import socket
import sys
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

from clients.client import Client
from clients.system import netns, processes, procfs
from load_tests.harness import slow_requests
from load_tests.harness.monitor import pin, tree_cpu_seconds

CORES = sorted(getattr(os, "sched_getaffinity", lambda _: ())(0))  # only Linux has it
MESSAGE, ANSWER = b"bob", b"Hello, bob"
NON_BLOCKING = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
NETSTAT = Path("/proc/self/net/netstat")


@contextlib.contextmanager
def started(server, edits, slow, log):
    """Start a server on a core of its own; edits: (old, new) texts of its program. Yield it.

    slow: only messages that begin with "slow" wait and compute. log: "" to log them all. In the
    options {place} is a folder.
    """
    wrapper = (slow_requests.__file__, sys.getswitchinterval()) if slow else ()
    with processes.temp_dir() as place:
        name, *options = shlex.split(f"{server.format(place=place)} {log}")
        program = processes.find_server(name)
        for number, (old, new) in enumerate(edits):
            if old not in (text := program.read_text()):
                raise ValueError(f"{name} has no {old!r}")
            program = Path(place, f"edited_{number}.py")
            program.write_text(text.replace(old, new))
        starting = processes.running_server(program, "--backlog", 4096, *options, wrapper=wrapper)
        with starting as running:
            pin(running.process, CORES[:1])
            yield running


def flood(address, seconds):
    """Send as fast as a server reads, and read all of it."""
    until = time.perf_counter() + seconds
    with socket.create_connection(address) as sock:
        while time.perf_counter() < until:
            readable, writable, _ = select.select([sock], [sock], [], 0.1)
            if readable:
                sock.recv(1 << 16)
            if writable:  # and so there is room for as much
                sock.send(b"x" * 1024)


def connection_stream(address, seconds, rate):
    """Let clients connect and leave at once, up to rate per second; return how many per second."""
    count, began = 0, time.perf_counter()
    while (now := time.perf_counter() - began) < seconds:
        if count > rate * now:
            time.sleep(count / rate - now)
        with socket.socket(type=NON_BLOCKING) as sock:
            sock.connect_ex(tuple(address))
        count += 1
    return count / seconds


def drip(address, pause):
    """Send a byte after each pause, as long as the server allows that."""
    with socket.create_connection(address) as sock, contextlib.suppress(OSError):
        while True:
            sock.send(b"x")
            time.sleep(pause)


def slow_request(address):
    """Ask for a slow greeting; return how long it took."""
    began = time.perf_counter()
    with Client(*address) as client:
        client.greet(b"slow")
    return time.perf_counter() - began


async def ask(sock):
    """Send a message and return the answer, b"" if the server closed instead."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, MESSAGE)
    return await loop.sock_recv(sock, 1024)


class Load:
    """The samples of a run, and its tasks, which end with it."""

    def __init__(self):
        self.start, self.samples, self.tasks = time.perf_counter(), [], []

    def now(self):
        return time.perf_counter() - self.start

    def spawn(self, coroutine):
        self.tasks.append(asyncio.create_task(coroutine))

    def note(self, number, request, began, outcome):
        self.samples.append([str(number), request, began, self.now(), outcome])

    async def until(self, at):  # asyncio's own timers are up to a millisecond late
        await asyncio.sleep(max(0, at - self.now() - 0.0015))
        while self.now() < at:
            await asyncio.sleep(0)

    async def end(self):
        """Cancel what still waits: it is unanswered."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def open_loop(server, phases, **impatience):
    """Let visitors come at random moments (Poisson) in phases [(seconds, per second), …].

    impatience: of visit(). Return {"samples", "in_system": connected visitors, many times}.
    """
    draw, load, counts, due, end = random.Random(1), Load(), [], 0.0, 0.0
    port = server.address[1]

    async def count_visitors():  # their ends of the connections
        while True:
            ends = [one for one in procfs.tcp_sockets(port) if one.remote[1] == port]
            counts.append(sum(one.state == "ESTABLISHED" for one in ends))
            await asyncio.sleep(0.02)

    load.spawn(count_visitors())
    for seconds, rate in phases:
        due, end = end, end + seconds
        while rate and (due := due + draw.expovariate(rate)) < end:
            await load.until(due)
            load.spawn(visit(server.address, load, due, **impatience))
        await load.until(end)
    await load.end()
    return {"samples": load.samples, "in_system": counts}


async def visit(address, load, due, timeout=None, retries=0, backoff=0):
    """Connect, ask, read the answer, and leave; try again after a timeout or another answer.

    timeout: seconds after which it gives up; None: never. backoff: the longest of the first pause,
    a random one; doubled after each attempt. A first greeting is an attempt, a session all of them.
    """
    outcome, began, pauses = "unanswered", due, random.Random(due)
    try:
        for attempt in range(retries + 1):
            await asyncio.sleep(max(0, began - load.now()))
            sock, outcome = socket.socket(type=NON_BLOCKING), "unanswered"
            try:
                async with asyncio.timeout(timeout):
                    await asyncio.get_running_loop().sock_connect(sock, address)
                    outcome = "answered" if await ask(sock) == ANSWER else "failed"
            except OSError as error:
                outcome = "timed_out" if isinstance(error, TimeoutError) else "failed"
            finally:
                load.note(due, "first_greeting", began, outcome)
                if outcome == "timed_out":
                    load.spawn(wait_abandoned(sock, load, due, began))
                else:
                    sock.close()
            if outcome == "answered":
                return
            began += (timeout or 0) + pauses.uniform(0, backoff * 2**attempt)
    finally:
        load.note(due, "session", due, outcome)


async def wait_abandoned(sock, load, number, began):
    """Leave with a FIN, as close() does; note the answer that comes for nothing."""
    with sock, contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        if await asyncio.get_running_loop().sock_recv(sock, 1024) == ANSWER:
            load.note(number, "abandoned_greeting", began, "answered")


async def connected(server, seconds, clients, pause):
    """Let clients that stay ask again, a pause (its mean) after each answer; return {"samples"}."""
    load, draw = Load(), random.Random(1)

    async def client(number):
        with socket.socket(type=NON_BLOCKING) as sock:
            await asyncio.get_running_loop().sock_connect(sock, server.address)
            while load.now() < seconds:
                await asyncio.sleep(draw.expovariate(1 / pause))
                began, outcome = load.now(), "unanswered"
                try:
                    await ask(sock)
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
    clients, epoll, times = {}, select.epoll(), []
    with contextlib.ExitStack() as before:  # its end closes them
        for _ in range(count if stay else 0):
            before.enter_context(Client(*server.address)).greet(MESSAGE)
        counters = procfs.tcp_counters(NETSTAT.read_text())
    start = time.perf_counter()
    for _ in range(count):
        sock = socket.socket(type=NON_BLOCKING)
        sock.connect_ex(server.address)  # an error is seen below
        clients[sock.fileno()] = sock
        epoll.register(sock, select.EPOLLOUT)
    while len(times) < count and (left := start + limit - time.perf_counter()) > 0:
        for fd, event in epoll.poll(left):
            with contextlib.suppress(ConnectionError):
                if event == select.EPOLLOUT:
                    clients[fd].send(MESSAGE)
                elif clients[fd].recv(1024):
                    times.append(time.perf_counter() - start)
                if event == select.EPOLLOUT or stay:
                    epoll.modify(fd, select.EPOLLIN if event == select.EPOLLOUT else 0)
                    continue
            clients.pop(fd).close()
    after = procfs.tcp_counters(NETSTAT.read_text())
    return {"times": times, "counters": {name: after[name] - counters[name] for name in after}}


async def chat(server, clients, lines, silent, limit=3.0):
    """Let one client of a chat send lines, each when all have the one before; return what it cost.

    silent: one more client does not read. limit: of the seconds for a line; then that is the last.
    Return {"seconds": of each line, until all have it, "delivered": how many messages, "busy":
    seconds of the server's CPU, "rss": bytes}.
    """
    line, epoll, seconds = b"x" * 1000 + b"\n", select.epoll(), []
    with contextlib.ExitStack() as stack:
        if silent:
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # and so small buffers
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(server.address)
        for _ in range(clients):
            sock = stack.enter_context(Client(*server.address)).socket
            epoll.register(sock, select.EPOLLIN)
        while server.log().count(" connected") < clients + silent:
            await asyncio.sleep(0.01)
        cpu = tree_cpu_seconds(server.process)
        while len(seconds) < lines and max(seconds, default=0) < limit:
            began, missing = time.perf_counter(), clients * len(line)
            sock.sendall(line)
            while missing and (left := began + limit - time.perf_counter()) > 0:
                for fd, _ in epoll.poll(left):
                    missing -= len(os.read(fd, len(line)))
            seconds.append(time.perf_counter() - began)
        busy, rss = tree_cpu_seconds(server.process) - cpu, server.process.memory_info().rss
    delivered = clients * len(seconds) - -(-missing // len(line))
    return {"seconds": seconds, "delivered": delivered, "busy": busy, "rss": rss}


async def restart(server, visits, clients, new_first=False):
    """Restart a server under load: SIGTERM when it has answered visits, the end after as many more.

    new_first: the new server is started before the old one ends. Return {"seen": {what a client
    saw: how often}, "pause": longest time without an answer, "table": [[[place of a connection
    at SIGTERM, what its client saw], how many], …], "logged": visits that the servers have logged}.
    """
    seen, last, answers, port = Counter(), {}, [time.perf_counter()], server.address[1]
    states, own_options = {}, server.process.args[server.process.args.index("--port") + 2 :]

    async def client():
        while len(answers) <= 2 * visits:
            with socket.socket(type=NON_BLOCKING) as sock:
                sock.bind(("127.0.0.1", 0))
                own, what = sock.getsockname()[1], "reset before it asked"
                if own == port:  # while nobody listens there, it would connect to itself
                    continue
                try:
                    await asyncio.get_running_loop().sock_connect(sock, server.address)
                    what = "reset"
                    what = "answered" if await ask(sock) == ANSWER else "closed, no answer"
                except ConnectionRefusedError:
                    what = "refused"
                    await asyncio.sleep(0.005)
                except OSError:
                    pass  # a reset
            seen[what] += 1
            last.setdefault(own, what)
            if what == "answered":
                answers.append(time.perf_counter())

    async def start():
        starting = processes.running_server(server.program, *own_options, port=port)
        new = await asyncio.to_thread(stack.enter_context, starting)
        pin(new.process, CORES[:1])
        return new

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    while len(answers) <= visits:
        await asyncio.sleep(0.001)
    with contextlib.ExitStack() as stack:
        new = await start() if new_first else None
        if not new:
            server.process.suspend()
            while not procfs.all_stopped(server.process.pid):
                pass
            ends = [one for one in procfs.tcp_sockets(port) if one.local[1] == port]
            states = {one.remote[1]: place(one) for one in ends if one.state == "ESTABLISHED"}
            last.clear()
        server.process.terminate()
        server.process.resume()
        await asyncio.to_thread(server.process.wait, 30)
        new = new or await start()
        await asyncio.wait_for(asyncio.gather(*tasks), 300)
        await asyncio.sleep(0.2)  # for the last lines of the log
        sizes = map(int, re.findall(r"left, (\d+) bytes received", server.log() + new.log()))
    table = Counter((states[own], what) for own, what in last.items() if own in states)
    return {
        "seen": seen,
        "pause": max(later - at for at, later in itertools.pairwise(answers)),
        "table": [*table.items()],
        "logged": sum(sizes) // len(MESSAGE),
    }


def place(one):
    if one.in_accept_queue:
        return "in the accept queue"
    return "accepted, unread data" if one.recv_q else "accepted, nothing unread"


async def measure(name, begin, server, edits=(), slow=False, log="--quiet", next_to=None, **more):
    """Return what an experiment found out about a server. begin: a barrier, for others' begins."""
    with contextlib.ExitStack() as stack:
        if next_to:  # in a process of its own, which is there before the server
            other = stack.enter_context(get_context("spawn").Pool(1, os.nice, (10,)))
            other.apply(os.getpid)
        running = stack.enter_context(started(server, edits, slow, log))
        await begin.wait()
        if next_to:
            neighbour = other.apply_async(globals()[next_to[0]], (running.address, *next_to[1:]))
            port = running.address[1]  # the neighbour is to connect first
            while not (neighbour.ready() or any(one.remote[1] for one in procfs.tcp_sockets(port))):
                await asyncio.sleep(0.001)
        found = await globals()[name](running, **more)
        if next_to and next_to[0] != "drip":
            found["next_to"] = await asyncio.to_thread(neighbour.get)
        return found


async def main(name, cases, together):
    """Return what an experiment found out about each case, one after another or together."""
    begin = asyncio.Barrier(len(cases) if together else 1)
    found = [measure(name, begin, **case) for case in cases]
    return await asyncio.gather(*found) if together else [await one for one in found]


if __name__ == "__main__":
    arguments, *own_network = sys.argv[1:]
    os.sched_setaffinity(0, CORES[-1:])
    processes.raise_nofile_limit()  # of the servers as well
    if own_network:
        netns.bring_up("lo")
        # No TIME-WAIT: ports do not run out, and the list of sockets stays short.
        Path("/proc/sys/net/ipv4/tcp_max_tw_buckets").write_text("0")
        if '"slow"' in arguments:  # one of them may look a name up
            from .experiments import replace  # takes a third of a second

            replace("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
            silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            silent.bind(("127.0.0.1", 53))  # a DNS server that never answers
    print(json.dumps(asyncio.run(main(*json.loads(arguments)))))
