"""Measure how evenly the processes of prefork.py share connections, in each of its three ways.

.venv/bin/python -m load_tests.alternatives.balance --processes 4 --connections 1000

Connections come one after another, each when the one before has been accepted. Then the process
that has the most is stopped (SIGSTOP), all clients ask, and so do 100 new ones.
"""

import contextlib
import select
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from clients.console.argtypes import command_parser, number
from clients.system import processes, procfs

PREFORK = Path(__file__).with_name("prefork.py")
SHARES = ["inherit", "exclusive", "reuseport"]
NEW = 100


@dataclass(frozen=True)
class Balance:
    """What one way to share the port gave."""

    share: str
    accepted: list[int]  # connections of each process
    woken: int  # how many times a process woke; what exceeds the connections was in vain
    unserved: int  # clients of the stopped process that had no answer
    new_unserved: int  # of NEW clients


def measure(share, count, connections):
    """Return the Balance of count processes."""
    options = ("--quiet", "--backlog", 4096, "--share", share, "--processes", count)
    with processes.running_server(PREFORK, *options) as server, contextlib.ExitStack() as stack:
        workers = processes.process_tree(server.process)[1:]
        wait_until_blocked(workers)
        before, woken = [one.num_fds() for one in workers], sum(map(switches, workers))

        def connect():
            return stack.enter_context(socket.create_connection(server.address))

        clients = []
        for expected in range(sum(before) + 1, sum(before) + 1 + connections):
            clients.append(connect())
            while sum(one.num_fds() for one in workers) < expected:
                pass
            wait_until_blocked(workers)
        woken = sum(map(switches, workers)) - woken
        accepted = [one.num_fds() - its for one, its in zip(workers, before, strict=True)]
        stopped = workers[accepted.index(max(accepted))]
        stopped.suspend()
        while not procfs.all_stopped(stopped.pid):
            pass
        unserved = ask(clients, server)
        new_unserved = ask([connect() for _ in range(NEW)], server)
        return Balance(share, sorted(accepted), woken, unserved, new_unserved)


def wait_until_blocked(workers):
    """Wait until each process waits for an event, so that the next one wakes it."""
    for one in workers:
        call = None
        while not (call and call.name.startswith("epoll_")):
            [text] = procfs.syscalls(one.pid).values()
            call = procfs.parse_syscall(text)


def switches(process):
    return process.num_ctx_switches().voluntary


def ask(clients, server):
    """Let clients ask; return how many questions still wait when all others are answered."""
    answers, ports = select.poll(), {client.getsockname()[1] for client in clients}
    for client in clients:
        client.sendall(b"bob")
        answers.register(client, select.POLLIN)
    while True:
        answered = len(answers.poll(10))
        lines = procfs.tcp_sockets(server.address[1])
        waiting = sum(line.recv_q > 0 and line.remote[1] in ports for line in lines)
        if answered + waiting == len(clients):
            return waiting


def main():
    processes.require_linux()
    parser = command_parser(__doc__)
    parser.add_argument("--processes", type=number(int, 2, 100), default=4)
    parser.add_argument("--connections", type=number(int, 1, 10_000), default=1000)
    args = parser.parse_args()
    processes.raise_nofile_limit(args.connections + NEW + 100)
    print(f"{'--share':10} wake-ups per   unserved, one stopped:   connections")
    print(f"{'':10} connection     its clients, {NEW} new    of each process")
    for share in SHARES:
        one = measure(share, args.processes, args.connections)
        print(f"{share:10} {one.woken / args.connections:10.2f} ", end="")
        print(f"{one.unserved:15,} {one.new_unserved:8}       ", *one.accepted)


if __name__ == "__main__":
    sys.exit(main())
