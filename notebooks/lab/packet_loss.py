"""Experiments on a link that loses packets: one with data, the last ACK of a close, and all."""

import socket
import time

from .emulated_link import EmulatedLink, concurrently
from .observation import Observation, Vanished


def lose_first(link, wanted):
    """Let a link lose the first packet for which wanted(Packet) is true, and no other."""
    link.loses = lambda packet: wanted(packet) and not any(one.lost for one in link.packets)


def lost_packet(what, messages, pause=0.08, delay=0.05):
    """The client sends messages, and the link loses one packet.

    what: "data", the first message, or "ACK", the server's first answer to one. pause: seconds
    before each message.
    """

    def wanted(packet):
        if what == "data":
            return packet.length > 0
        return packet.sender == "server" and "SYN" not in packet.flags

    with EmulatedLink(delay) as link, link.listener() as listening, link.client.socket() as client:
        lose_first(link, wanted)
        # Otherwise the kernel delays a short message until the one before is acknowledged (Nagle).
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def client_program():
            link.connect(client)
            for message in messages:
                time.sleep(pause)
                link.send("client", client, message.encode())

        def server_program():
            conn, missing = link.accept(listening), len("".join(messages))
            while missing:
                missing -= len(link.receive("server", conn))
            return conn

        with concurrently(client_program, server_program)[1]:
            time.sleep(6 * delay)
            return link.observed(Observation)


def lost_last_ack(time_wait=True, delay=0.05):
    """The client closes first, and the last ACK of the close gets lost.

    time_wait: whether the client's kernel may keep connections in TIME-WAIT, as it should.
    """
    closed = set()  # the ends that have sent their FIN

    def is_last(packet):
        if "FIN" in packet.flags:
            closed.add(packet.sender)
        return packet.sender == "client" and "server" in closed

    with EmulatedLink(delay) as link, link.listener() as listening:
        lose_first(link, is_last)
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
SETTINGS = ("tcp_keepalive_time", "tcp_keepalive_intvl", "tcp_keepalive_probes", "tcp_retries2")


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
        rows = link.server.connections()
        settings = {name: int(link.server.read(f"sys/net/ipv4/{name}")) for name in SETTINGS}
        found = {"noticed": noticed, "error": error, "watched": seconds, "settings": settings}
        found["timer_runs"] = bool(rows and rows[0].timer is not None)
        found["state"] = rows[0].state if rows else "CLOSED"
        with client, conn:
            return Vanished(**found, sent=len(link.packets) - packets)
