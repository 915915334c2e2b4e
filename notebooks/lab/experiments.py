"""Experiments that make TCP visible: tcp.py runs each in a network namespace of its own.

There this program is root, so it may read every packet and change the kernel's settings. Nothing
else on the machine changes. It is started often: what few experiments need is imported in them.
"""

import contextlib
import json
import os
import socket
import struct
import sys
import threading
import time

from clients.system import netns

from . import forgetting, packet_loss, queues
from .emulated_link import EmulatedLink, NotSupported, concurrently
from .observation import Lookup, Observation, TimeWait, to_json

NOT_SUPPORTED = 75  # exit status: this system does not allow it (EX_TEMPFAIL in sysexits.h)


def conversation(closer="client", pause=0.15, delay=0.05):
    """One connection from connect() to its end.

    closer: the end that closes first: "client", "server", "both" at once, or "reset", a client
    that resets. pause: seconds until the other end closes as well.
    """
    with EmulatedLink(delay) as link, link.listener() as listening:
        client, conn = link.greet(listening)
        ends = ("client", client), ("server", conn)
        first, second = ends[::-1] if closer == "server" else ends
        if closer == "reset":
            # On, 0 s: close() resets (socket(7)).
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ready = threading.Barrier(2)  # a thread takes milliseconds to start on a slow machine

        def lead():
            ready.wait()
            link.close(*first)

        def follow():
            ready.wait()
            if closer != "both":
                with contextlib.suppress(ConnectionResetError):
                    link.receive(*second)
                time.sleep(pause)
            link.close(*second)

        concurrently(lead, follow)
        while any(row.send_q for host in link.hosts.values() for row in host.sockets()):
            time.sleep(delay)  # a FIN has not been acknowledged
        time.sleep(4 * delay)  # until the last packet has arrived
        return link.observed(Observation)


def refused(delay=0.05):
    """A connect() to a port that has no listening socket."""
    with EmulatedLink(delay) as link, link.client.socket() as client:
        with contextlib.suppress(ConnectionRefusedError):
            link.connect(client)
        time.sleep(2 * delay)
        return link.observed(Observation)


def time_wait(seconds=63.0, delay=0.005):
    """The server closes first, and a new one tries to listen, with and without SO_REUSEADDR.

    It tries once per second, and more often near the end of TIME-WAIT.
    """
    with EmulatedLink(delay) as link:
        listening = link.listener()
        client, conn = link.greet(listening)
        link.close("server", conn)
        link.receive("client", client)
        link.close("client", client)
        listening.close()
        time.sleep(4 * delay)
        began, timers, errors = link.now(), [], {"without": [], "with": []}
        while link.now() < began + seconds:
            timers += [row.timer for row in link.server.sockets() if row.state == "TIME-WAIT"]
            for how, its in errors.items():
                its.append(try_to_listen(link, reuse=how == "with"))
            if errors["without"][-1] is None:
                break
            time.sleep(min(1, max(0.02, timers[-1])))
        time.sleep(0.1)  # the recorded states are a little behind
        return link.observed(TimeWait, timer=timers[0], errors=errors)


def try_to_listen(link, reuse):
    """Listen on the port again, as a restarted server does; return the error, or None."""
    try:
        link.listener(reuse=reuse).close()
    except OSError as error:
        return error.strerror
    return None


def forgotten_close(seconds=4.0, fin_timeout=2, delay=0.05):
    """The client closes, the server never does, and writes once more at the end.

    fin_timeout: seconds for net.ipv4.tcp_fin_timeout at the client; 60 is usual.
    """
    with EmulatedLink(delay) as link, link.listener() as listening:
        link.client.set("net.ipv4.tcp_fin_timeout", fin_timeout)
        client, conn = link.greet(listening)
        link.close("client", client)
        link.receive("server", conn)
        time.sleep(max(seconds, fin_timeout + 1))
        link.send("server", conn, b"still there?")
        time.sleep(4 * delay)
        with contextlib.suppress(OSError):
            link.send("server", conn, b"hello?")
        return link.observed(Observation)


def two_writes(nodelay, delay=0.02):
    """The client sends a frame with two calls, its length and then its message, and reads."""
    with EmulatedLink(delay) as link, link.listener() as listening:
        client, conn = link.greet(listening)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
        for _ in range(4):  # Linux delays its ACKs once it takes the program for one that answers
            client.send(b"bob")
            conn.send(conn.recv(1024))
            client.recv(1024)
        time.sleep(4 * delay)
        link.calls.clear()

        def client_program():
            link.send("client", client, b"\0\0\0\3")
            link.send("client", client, b"bob")
            link.receive("client", client)

        def server_program():
            received = b""
            while len(received) < 7:
                received += link.receive("server", conn)
            link.send("server", conn, b"\0\0\0\nHello, bob")

        concurrently(client_program, server_program)
        time.sleep(4 * delay)
        return link.observed(Observation)


def resolve(name, dns, hosts="", order="files dns"):
    """Look a name up where /etc/hosts is the text hosts, and dns is the DNS server's answer.

    dns: an IPv4 address. order: of the two, as in /etc/nsswitch.conf.
    """
    netns.bring_up("lo")
    replace("/etc/hosts", hosts + "\n")
    replace("/etc/nsswitch.conf", f"hosts: {order}\n")
    replace("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:5 attempts:2\n")
    queries = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        threading.Thread(target=answer_queries, args=[server, dns, queries], daemon=True).start()
        found = socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)
    return Lookup(addresses=["%s:%d" % one[-1] for one in found], queries=queries)


def replace(path, text):
    """Replace a system's file by one with this text, for this program alone."""
    import subprocess
    import tempfile

    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        os.chmod(file.name, 0o644)
        subprocess.run(["mount", "--bind", file.name, os.path.realpath(path)], check=True)


def answer_queries(server, address, queries):
    """Be a DNS server that answers each query with an address, and record it (RFC 1035, 4.1)."""
    with contextlib.suppress(OSError):  # the socket is closed at the end
        while True:
            query, remote = server.recvfrom(512)
            labels, rest = [], query[12:]  # behind the header: the name, its type and class
            while size := rest[0]:
                labels.append(rest[1 : 1 + size].decode())
                rest = rest[1 + size :]
            kind = int.from_bytes(rest[1:3])
            queries.append((".".join(labels), {1: "A", 28: "AAAA"}.get(kind, "another")))
            reply = query[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0)  # one question, one answer
            reply += query[12 : len(query) - len(rest) + 5]
            # 0xC00C: the name is that of the question; type A, class IN
            reply += struct.pack("!HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(address)
            server.sendto(reply, remote)


def run(name, options):
    return {**vars(queues), **vars(packet_loss), **vars(forgetting), **globals()}[name](**options)


def main():
    name, cases = sys.argv[1], json.loads(sys.argv[2])
    try:
        if len(cases) == 1:
            found = [run(name, cases[0])]
        else:  # a process for each case, with the modules that are imported here
            from concurrent.futures import ProcessPoolExecutor
            from multiprocessing import get_context

            with ProcessPoolExecutor(len(cases), get_context("fork")) as pool:
                found = list(pool.map(run, [name] * len(cases), cases))
        print(to_json(found))
    except NotSupported as error:
        print(error, file=sys.stderr)
        sys.exit(NOT_SUPPORTED)


if __name__ == "__main__":
    main()
