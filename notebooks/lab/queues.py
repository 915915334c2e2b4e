"""Experiments on the two queues of a listening socket."""

import contextlib
import select
import socket
import time

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
        before = link.server.counters()
        clients, poll = {}, select.poll()  # {descriptor: (socket, its Client)}
        due, last = sorted(arrivals), None
        link.start_clock()
        while (now := link.now()) < seconds or due or not settled(link, clients):
            if due and due[0] <= now and (due[0] == last or settled(link, clients)):
                last = due.pop(0)
                sock = stack.enter_context(link.client.socket())
                sock.setblocking(False)
                sock.connect_ex((link.server.address, PORT))
                clients[sock.fileno()] = sock, Client(sock.getsockname()[1], now, None, None)
                poll.register(sock, select.POLLOUT)
            elif accept_at is not None and accept_at <= now:
                stack.enter_context(link.accept(listening))
                accept_at = None
            else:
                soon = min(0.002 if due or accept_at else 0.1, max(0, seconds - now))
                for fd, _ in poll.poll(1000 * soon):
                    watch(poll, *clients[fd], link.now())
        for fd, _ in poll.poll(0):
            watch(poll, *clients[fd], link.now())
        return link.observed(
            AcceptQueue,
            clients=[client for _, client in clients.values()],
            queue=accept_queue_length(link),
            counters=increase(before, link.server.counters()),
            final=states_of(link),
            watched=seconds,
        )


def settled(link, clients):
    """Return whether no handshake is on its way: on a busy machine one may take long.

    HANDSHAKE_TIMEOUT is for one that the server does not finish, because its queue is full.
    """
    syns = {p.port for p in link.packets if p.flags == "SYN" and p.arrived}
    opening = any(row.state == "SYN-RECEIVED" for row in link.server.sockets())
    last = max((client.began for _, client in clients.values()), default=0)
    return (len(syns) == len(clients) and not opening) or link.now() > last + HANDSHAKE_TIMEOUT


def watch(poll, sock, client, now):
    """Note in a Client that it is connected, or its error."""
    if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        client.error = type(OSError(error, "")).__name__
        poll.unregister(sock)
    elif client.connected is None:
        client.connected = now
        poll.modify(sock, select.POLLIN)


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
