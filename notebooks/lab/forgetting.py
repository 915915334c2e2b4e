"""Experiments on what is remembered too long or not long enough: TIME-WAIT, and a NAT's table."""

import errno
import socket
import time

from .emulated_link import EmulatedLink, concurrently
from .observation import NatForgets, PortUse

PORTS = range(50000, 50008)  # that the client may use


def port_use(closer, reuse=2, delay=0.002):
    """The client connects from few ports, at most thrice from each, and once more 1.2 s later.

    closer: the end that closes each connection first. reuse: the client's net.ipv4.tcp_tw_reuse.
    """
    with EmulatedLink(delay) as link, link.listener() as listening:
        link.client.set("net.ipv4.ip_local_port_range", f"{PORTS[0]} {PORTS[-1]}")
        link.client.set("net.ipv4.tcp_tw_reuse", reuse)

        def connect():
            """Connect and close; return None, or the error."""
            with link.client.socket() as client:
                try:
                    client.connect((link.server.address, listening.getsockname()[1]))
                except OSError as error:
                    return errno.errorcode[error.errno] + f": {error.strerror}"
                with listening.accept()[0] as conn:
                    first, second = (client, conn) if closer == "client" else (conn, client)
                    first.close()
                    second.recv(1)
            return None

        count, error = 0, None
        while count < 3 * len(PORTS) and not (error := connect()):
            count += 1
        time.sleep(1.2)  # meanwhile the last packets arrive
        states = {end: [row.state for row in host.sockets()] for end, host in link.hosts.items()}
        waiting = {end: found.count("TIME-WAIT") for end, found in states.items()}
        return PortUse(count=count, error=error, time_wait=waiting, later=connect())


def nat_forgets(keepalive, forgets=1.5, delay=0.005):
    """A NAT between the ends drops the packets of a connection that was idle too long.

    keepalive: seconds of silence after which the client's kernel probes; None: it does not.
    forgets: seconds after which the NAT forgets. The server sends news after twice as long.
    """
    with EmulatedLink(delay) as link, link.listener() as listening:
        client, conn = link.greet(listening)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, keepalive is not None)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
            client.setsockopt(socket.IPPROTO_TCP, option, keepalive or 1)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 1)
        last = link.now()

        def loses(packet):
            nonlocal last
            if packet.sent - last <= forgets:  # once later, always: no packet brings the entry back
                last = packet.sent
            return last != packet.sent

        link.loses, began = loses, last

        def wait(sock):
            """Return what recv() returned or raised, and when."""
            sock.settimeout(3.5 * forgets - (link.now() - began))
            try:
                said = repr(sock.recv(1024))
            except OSError as error:  # without a number: settimeout()
                said = error.strerror if error.errno else "nothing"
            return said, link.now() - began

        def server_program():
            time.sleep(2 * forgets)
            conn.send(b"news")
            return wait(conn)

        with client, conn:
            one, other = concurrently(lambda: wait(client), server_program)
            lost = sum(packet.lost for packet in link.packets)
            return NatForgets(client=one, server=other, lost=lost)
