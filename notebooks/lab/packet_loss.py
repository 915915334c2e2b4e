"""Experiments on a link that loses packets: the last ACK of a close, and all."""

import socket
import time

from .emulated_link import EmulatedLink, concurrently
from .observation import Observation, Vanished


def lost_last_ack(time_wait=True, delay=0.05):
    """The client closes first, and the last ACK of the close gets lost.

    time_wait: whether the client's kernel may keep connections in TIME-WAIT, as it should.
    """
    with EmulatedLink(delay) as link, link.listener() as listening:

        def is_last(packet):
            """Return True for the first packet of the client after both have sent their FIN."""
            closed = {one.sender for one in [*link.packets, packet] if "FIN" in one.flags}
            lost = any(one.lost for one in link.packets)
            return packet.sender == "client" and "server" in closed and not lost

        link.loses = is_last
        if not time_wait:
            link.client.set("net.ipv4.tcp_max_tw_buckets", 0)
            # Above 60 s, a FIN-WAIT-2 is not kept as a kind of TIME-WAIT.
            link.client.set("net.ipv4.tcp_fin_timeout", 61)
        client, conn = link.greet(listening)

        def server_program():
            link.receive("server", conn)
            link.close("server", conn)

        concurrently(lambda: link.close("client", client), server_program)
        time.sleep(16 * delay)
        return link.observed(Observation)


# What a server can do about a client that sends nothing: {name: socket options of TCP}.
GUARDS = {
    "recv()": {},
    "recv(), keepalive": {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 2},
    "recv(), deadline": {},
    "send()": {},
    "send(), user timeout": {"TCP_USER_TIMEOUT": 2000},
}


def guarded_server(guard, seconds, deadline=2.0, delay=0.005):
    """A client is greeted and vanishes: the link loses every packet from then on.

    guard: what the server does, one of GUARDS. It calls recv(), in two of them after a send().
    """
    with EmulatedLink(delay) as link, link.listener() as listening:
        client, conn = link.greet(listening)
        for name, value in GUARDS[guard].items():
            conn.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, guard.endswith("keepalive"))
        link.loses, began, packets = (lambda packet: True), link.now(), len(link.packets)
        if guard.startswith("send"):
            link.send("server", conn, b"Hello again")
        conn.settimeout(deadline if guard.endswith("deadline") else seconds)
        noticed = error = None
        try:
            link.receive("server", conn)
        except OSError as failure:
            if failure.errno or guard.endswith("deadline"):  # or else the seconds are over
                noticed, error = link.now() - began, f"{type(failure).__name__}: {failure}"
        time.sleep(4 * delay)  # a kernel that gives up may still send a reset
        rows = [row for row in link.server.sockets() if row.state != "LISTEN"]
        found = {"noticed": noticed, "error": error, "watched": seconds}
        found["timer_runs"] = bool(rows and rows[0].timer is not None)
        found["state"] = rows[0].state if rows else "CLOSED"
        with client, conn:
            return Vanished(**found, sent=len(link.packets) - packets)
