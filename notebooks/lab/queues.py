"""Experiments on the two queues of a listening socket."""

import contextlib
import itertools
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from .emulated_link import PORT, EmulatedLink
from .observation import AcceptQueue, Client, SynQueue

HANDSHAKE_TIMEOUT = 1.0  # seconds for which a handshake may keep the next client waiting


def accept_queue(backlog, arrivals, seconds, settings=None, accept_at=None, delay=0.005):
    """Clients connect to a server that does not accept.

    arrivals: when each client connects, in seconds. settings: {name: number}, for both hosts.
    accept_at: when the server accepts one connection.
    """
    with EmulatedLink(delay) as link, contextlib.ExitStack() as stack:
        for name, value in (settings or {}).items():
            for host in link.hosts.values():
                host.set(name, value)
        listening = stack.enter_context(link.listener(backlog))
        before, clients, started = Counter(link.server.counters()), [], []
        link.start_clock()
        with ThreadPoolExecutor(len(arrivals) + 1) as threads:
            if accept_at is not None:
                accept = threads.submit(lambda: wait(link, accept_at) or link.accept(listening))
                started.append(accept)
            for at, together in itertools.groupby(sorted(arrivals)):
                wait(link, at)
                while not settled(link, clients):
                    time.sleep(0.002)
                for _ in together:
                    sock = stack.enter_context(link.client.socket())
                    sock.bind((link.client.address, 0))  # the port is known before connect()
                    clients.append(Client(sock.getsockname()[1], link.now(), None, None))
                    program = client_program, link, sock, clients[-1], seconds
                    started.append(threads.submit(*program))
        wait(link, seconds)
        for one in started:
            if conn := one.result():
                stack.enter_context(conn)
        return link.observed(
            AcceptQueue,
            clients=clients,
            queue=accept_queue_length(link),
            counters=Counter(link.server.counters()) - before,  # those that grew
            final=states_of(link),
            watched=seconds,
        )


def wait(link, at):
    time.sleep(max(0, at - link.now()))


def settled(link, clients):
    """Return whether no handshake is on its way: on a busy machine one may take long.

    HANDSHAKE_TIMEOUT is for one that the server does not finish, because its queue is full.
    """
    syns = {p.port for p in link.packets if p.flags == "SYN" and p.arrived}
    opening = any(row.state == "SYN-RECEIVED" for row in link.server.sockets())
    last = max((client.began for client in clients), default=0)
    return (len(syns) == len(clients) and not opening) or link.now() > last + HANDSHAKE_TIMEOUT


def client_program(link, sock, client, seconds):
    """Connect, and note in a Client when that was, or the error; a reset can come later."""
    sock.settimeout(max(HANDSHAKE_TIMEOUT, seconds - link.now()))
    try:
        sock.connect((link.server.address, PORT))
        client.connected = link.now()
        sock.settimeout(max(0.001, seconds - link.now()))
        sock.recv(1)
    except OSError as error:
        if error.errno:  # or else the experiment is over
            client.error = type(error).__name__


def accept_queue_length(link):
    return next(row.recv_q for row in link.server.sockets() if row.state == "LISTEN")


def states_of(link):
    """Return the state of each connection at each end: {end: {the client's port: state}}."""
    return {
        "client": {str(row.local[1]): row.state for row in link.client.sockets()},
        "server": {str(row.remote[1]): row.state for row in link.server.sockets() if row.remote[1]},
    }


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
            states = states_of(link)
            link.loses = None
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.send(b"bob")
            time.sleep(0.15)  # less than the 0.2 s after which a client retransmits
            return SynQueue(
                clients=clients,
                unfinished=list(states["server"].values()).count("SYN-RECEIVED"),
                established=list(states["client"].values()).count("ESTABLISHED"),
                queue=accept_queue_length(link),
                counters=Counter(link.server.counters()) - before,  # those that grew
                limit=int(link.server.read("sys/net/ipv4/tcp_max_syn_backlog")),
            )
