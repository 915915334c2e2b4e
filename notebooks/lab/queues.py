"""Experiments on the two queues of a listening socket."""

import contextlib
import functools
import threading
import time

from .emulated_link import PORT, EmulatedLink, concurrently
from .observation import AcceptQueue, Client, SynQueue


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
        before = link.server.counters()
        # A busy machine takes its time to start threads: all moments are counted from here on.
        ready = threading.Barrier(len(arrivals) + 1, link.start_clock)

        def client_program(at):
            sock = stack.enter_context(link.client.socket())
            ready.wait()
            return connect_and_wait(link, sock, at, seconds)

        def server_program():
            ready.wait()
            if accept_at is not None:
                sleep_until(link, accept_at)
                stack.enter_context(link.accept(listening))

        programs = (functools.partial(client_program, at) for at in arrivals)
        *clients, _ = concurrently(*programs, server_program)
        return link.observed(
            AcceptQueue,
            clients=sorted(clients, key=lambda client: client.began),
            queue=accept_queue_length(link),
            counters=increase(before, link.server.counters()),
            final=states_of(link),
            watched=seconds,
        )


def sleep_until(link, moment):
    time.sleep(max(0, moment - link.now()))


def connect_and_wait(link, sock, at, stop):
    """Connect at a moment, and wait until another one for an error; return the Client."""
    sleep_until(link, at)
    began, connected, error = link.now(), None, None
    try:
        sock.settimeout(max(0.01, stop - link.now()))
        sock.connect((link.server.address, PORT))
        connected = link.now()
        sock.settimeout(max(0.01, stop - link.now()))
        sock.recv(1024)
    except TimeoutError:
        pass
    except OSError as failure:
        error = type(failure).__name__
    return Client(sock.getsockname()[1], began, connected, error)


def accept_queue_length(link):
    return next(row.recv_q for row in link.server.sockets() if row.state == "LISTEN")


def increase(before, after):
    """Return the counters that grew, and by how much."""
    return {name: after[name] - before[name] for name in after if after[name] > before[name]}


def states_of(link):
    """Return the state of each connection at each end: {end: {the client's port: state}}."""
    client, server = (host.connections() for host in link.hosts.values())
    return {
        "client": {str(row.local[1]): row.state for row in client},
        "server": {str(row.remote[1]): row.state for row in server},
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
            before, socks = link.server.counters(), []
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
                half_open=list(states["server"].values()).count("SYN-RECEIVED"),
                established=list(states["client"].values()).count("ESTABLISHED"),
                queue=accept_queue_length(link),
                counters=increase(before, link.server.counters()),
                limit=int(link.server.read("sys/net/ipv4/tcp_max_syn_backlog")),
            )
