"""Experiments on the two queues of a listening socket."""

import contextlib
import itertools
import select
import socket
import time
from collections import Counter

from .emulated_link import PORT, EmulatedLink
from .observation import AcceptQueue, Client, SynQueue

HANDSHAKE_TIMEOUT = 1.0  # seconds for which a handshake may keep the next client waiting


def accept_queue(backlog, arrivals, seconds, settings=None, accept_at=None, delay=0.005):
    """Clients connect to a server that does not accept.

    arrivals: when each client connects, in seconds. settings: {name: number}, for both hosts.
    accept_at: when the server accepts one connection, after all have come.
    """
    with EmulatedLink(delay) as link, contextlib.ExitStack() as stack:
        for name, value in (settings or {}).items():
            for host in link.hosts.values():
                host.set(name, value)
        listening = stack.enter_context(link.listener(backlog))
        before, poll, clients = Counter(link.server.counters()), select.poll(), {}
        for at, together in itertools.groupby(sorted(arrivals)):
            watch(link, poll, clients, at)
            while not settled(link, clients):
                watch(link, poll, clients, link.now() + 0.005)
            for _ in together:
                sock = stack.enter_context(link.client.socket())
                sock.bind((link.client.address, 0))  # the port is known before connect()
                sock.setblocking(False)
                client = Client(sock.getsockname()[1], link.now(), None, None)
                clients[sock.fileno()] = sock, client
                with contextlib.suppress(BlockingIOError):  # the handshake takes a while
                    sock.connect((link.server.address, PORT))
                poll.register(sock, select.POLLOUT)
        if accept_at is not None:
            watch(link, poll, clients, accept_at)
            stack.enter_context(link.accept(listening))
        watch(link, poll, clients, seconds)
        return link.observed(
            AcceptQueue,
            clients=[client for _, client in clients.values()],
            queue=accept_queue_length(link),
            counters=Counter(link.server.counters()) - before,  # those that grew
            watched=seconds,
        )


def watch(link, poll, clients, until):
    """Note in each Client, until then, when it is connected, and its error; a reset comes later."""
    while (left := until - link.now()) > 0:
        for fd, event in poll.poll(1000 * left):
            sock, client = clients[fd]
            if event & select.POLLERR:
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                client.error = type(OSError(number, "")).__name__
                poll.unregister(fd)
            else:
                client.connected = link.now()
                poll.modify(fd, 0)  # an error is reported nevertheless


def settled(link, clients):
    """Return whether no handshake is on its way: on a busy machine one may take long.

    HANDSHAKE_TIMEOUT is for one that the server does not finish, because its queue is full.
    """
    syns = {p.port for p in link.packets if p.flags == "SYN" and p.arrived}
    opening = any(row.state == "SYN-RECEIVED" for row in link.server.sockets())
    last = max((client.began for _, client in clients.values()), default=0)
    return (len(syns) == len(clients) and not opening) or link.now() > last + HANDSHAKE_TIMEOUT


def accept_queue_length(link):
    return next(row.recv_q for row in link.server.sockets() if row.state == "LISTEN")


def syn_queue(backlog, clients, max_syn_backlog=None, cookies=1, seconds=0.3, delay=0.005):
    """Handshakes that do not finish, because the link loses the clients' last packet of each.

    max_syn_backlog, cookies: for net.ipv4.tcp_max_syn_backlog and tcp_syncookies at the server.
    Later the link loses nothing any more, and each client that is connected sends "bob".
    """
    with EmulatedLink(
        delay, lambda packet: packet.sender == "client" and "SYN" not in packet.flags
    ) as link:
        link.server.set("net.ipv4.tcp_syncookies", cookies)
        if max_syn_backlog:
            link.server.set("net.ipv4.tcp_max_syn_backlog", max_syn_backlog)
        with link.listener(backlog), contextlib.ExitStack() as stack:
            before, socks = Counter(link.server.counters()), []
            for _ in range(clients):
                sock = stack.enter_context(link.client.socket())
                sock.setblocking(False)
                sock.connect_ex((link.server.address, PORT))
                socks.append(sock)
                time.sleep(3 * delay)
            time.sleep(seconds)
            unfinished = sum(row.state == "SYN-RECEIVED" for row in link.server.sockets())
            established = sum(row.state == "ESTABLISHED" for row in link.client.sockets())
            link.loses = None
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.send(b"bob")
            time.sleep(0.15)  # less than the 0.2 s after which a client retransmits
            return SynQueue(
                clients=clients,
                unfinished=unfinished,
                established=established,
                queue=accept_queue_length(link),
                counters=Counter(link.server.counters()) - before,  # those that grew
                limit=int(link.server.read("sys/net/ipv4/tcp_max_syn_backlog")),
            )
