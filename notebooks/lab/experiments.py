"""Experiments that make TCP visible: tcp.py runs each in a network that is its own.

There this program is root of a network that no one else sees, so it may watch every packet and
change the kernel's settings, and the machine is not touched.
"""

import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

from clients.system import netns

from . import packet_loss, queues  # noqa: F401 (they add their experiments to EXPERIMENTS)
from .emulated_link import Lab
from .traced_calls import (
    EXPERIMENTS,
    accept,
    close,
    connect,
    experiment,
    greet,
    listener,
    observed,
    receive,
    send,
    together,
)

NOT_HERE = 75  # exit status: this system does not let it (EX_TEMPFAIL in sysexits.h)


@experiment
def conversation(closer="client", pause=0.15, delay=0.05):
    """One connection from connect() to its end: see observed().

    closer: who closes first: "client", "server", "both" at once, or "reset", a client that
    breaks off. pause: seconds that the other one takes until it closes as well.
    """
    with Lab(delay) as lab, listener(lab) as listening:
        client, conn = greet(lab, listening)
        first, second = ("client", client), ("server", conn)
        if closer == "server":
            first, second = second, first

        def follow():
            if closer != "both":
                with contextlib.suppress(ConnectionResetError):
                    receive(lab, *second)
                time.sleep(pause)
            close(lab, *second)

        together(lambda: close(lab, *first, reset=closer == "reset"), follow)
        time.sleep(6 * delay)  # until the last packet of the slowest end has come
        return observed(lab, closer=closer)


@experiment
def refused(delay=0.05):
    """A connect() to a port on which nobody listens: see observed()."""
    with Lab(delay) as lab, lab.client.socket() as client:
        with contextlib.suppress(ConnectionRefusedError):
            connect(lab, client)
        time.sleep(2 * delay)
        return observed(lab)


@experiment
def time_wait(seconds=63.0, delay=0.005):
    """The server closes first and starts again, with and without SO_REUSEADDR, while it waits.

    Returns observed() and "timer": [(at, seconds that the kernel will keep TIME-WAIT), ...],
    "attempts": [{"at", "reuse", "error"}, ...], one pair a second and more near the end; "ended":
    when TIME-WAIT was over, None if it was not within so many seconds.
    """
    with Lab(delay) as lab:
        listening = listener(lab)
        client, conn = greet(lab, listening)
        close(lab, "server", conn)
        receive(lab, "client", client)
        close(lab, "client", client)
        listening.close()
        time.sleep(4 * delay)
        began, timer, attempts, ended, free = lab.now(), [], [], None, False
        while lab.now() < began + seconds and not (ended and free):
            waiting = [row for row in lab.server.sockets() if row["state"] == "TIME-WAIT"]
            timer += [(lab.now(), row["timer"]) for row in waiting]
            if not waiting and ended is None:
                ended = lab.now()
            without, reusing = attempt(lab, reuse=False), attempt(lab, reuse=True)
            attempts += [without, reusing]
            free = without["error"] is None
            time.sleep(min(1, max(0.02, waiting[0]["timer"])) if waiting else 0)
        time.sleep(0.1)  # who notes the states sees the end a little later
        return observed(lab, timer=timer, attempts=attempts, ended=ended)


def attempt(lab, reuse):
    """Try to listen again, as a restarted server does."""
    failure = None
    try:
        listener(lab, reuse=reuse).close()
    except OSError as error:
        failure = error.strerror
    return {"at": lab.now(), "reuse": reuse, "error": failure}


@experiment
def two_listeners():
    """SO_REUSEADDR does not let two programs listen on one port: return the second's error."""
    with Lab() as lab, listener(lab):
        return {"error": attempt(lab, reuse=True)["error"]}


@experiment
def forgotten_close(seconds=4.0, fin_timeout=2, delay=0.05):
    """The client closes, the server never does, and writes once more in the end.

    fin_timeout: seconds for net.ipv4.tcp_fin_timeout at the client, 60 as a rule. Returns
    observed() and "left": the sockets that each end still has when those seconds are over.
    """
    with Lab(delay) as lab, listener(lab) as listening:
        lab.client.set("net.ipv4.tcp_fin_timeout", fin_timeout)
        client, conn = greet(lab, listening)
        close(lab, "client", client)
        receive(lab, "server", conn)
        time.sleep(max(seconds, fin_timeout + 1))
        left = {name: machine.sockets() for name, machine in lab.machines.items()}
        send(lab, "server", conn, b"still there?")
        time.sleep(4 * delay)
        with contextlib.suppress(OSError):
            send(lab, "server", conn, b"hello?")
        return observed(lab, left=left)


@experiment
def deferred(silence=1.0, delay=0.05):
    """A server with TCP_DEFER_ACCEPT stays in SYN-RECEIVED until the client speaks (tcp(7))."""
    with Lab(delay) as lab, listener(lab) as listening, lab.client.socket() as client:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)

        def speak():
            connect(lab, client)
            time.sleep(silence)
            send(lab, "client", client, b"bob")

        def serve():
            conn = accept(lab, listening)
            receive(lab, "server", conn)
            time.sleep(2 * delay)
            conn.close()

        together(speak, serve)
        return observed(lab)


@experiment
def early_data(delay=0.02):
    """A client connects and speaks before accept() is called.

    Returns observed() and "before" and "after": the server's sockets (see Machine.sockets) before
    and after accept(), and "heard": what a recv() that may not wait gets right after it.
    """
    with Lab(delay) as lab, listener(lab) as listening, lab.client.socket() as client:
        connect(lab, client)
        send(lab, "client", client, b"bob")
        time.sleep(4 * delay)
        before = lab.server.sockets()
        with accept(lab, listening) as conn:
            after = lab.server.sockets()
            heard = conn.recv(1024, socket.MSG_DONTWAIT).decode()
            return observed(lab, before=before, after=after, heard=heard)


@experiment
def resolve(name, hosts="", dns=None, order="files dns"):
    """Look a name up where /etc/hosts is the text hosts, and a DNS server knows {name: address}.

    order: who is asked first, as /etc/nsswitch.conf says it. Only an IPv4 address is asked for.
    Returns "addresses": what getaddrinfo() gives, [] if it fails, "error": why, and "queries": the
    questions that reached the DNS server, [[name, type], ...].
    """
    netns.bring_up("lo")
    replace("/etc/hosts", hosts + "\n")
    replace("/etc/nsswitch.conf", f"hosts: {order}\n")
    replace("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:5 attempts:2\n")
    importlib.import_module("scapy.layers.dns")  # before anybody asks: it takes a second
    queries, found, error = [], [], None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        known = dns or {}
        threading.Thread(target=answer_names, args=[server, known, queries], daemon=True).start()
        try:
            found = socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)
        except socket.gaierror as failure:
            error = failure.strerror
    return {
        "addresses": [f"{address}:{port}" for *_, (address, port) in found],
        "error": error,
        "queries": queries,
    }


def replace(path, text):
    """Put text in the place of a system's file, for this program alone."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        os.chmod(file.name, 0o644)
        subprocess.run(["mount", "--bind", file.name, os.path.realpath(path)], check=True)


def answer_names(server, known, queries):
    """Be a small DNS server (RFC 1035) for the names known, and note each question."""
    from scapy.layers.dns import DNS, DNSRR

    with contextlib.suppress(OSError):  # closed: nobody asks any more
        while True:
            packet, peer = server.recvfrom(512)
            asked = DNS(packet)
            question = asked.qd[0]
            name = question.qname.decode().rstrip(".")
            queries.append([name, {1: "A", 28: "AAAA"}.get(question.qtype, "another")])
            records = [DNSRR(rrname=asked.qd[0].qname, rdata=known[name])] if name in known else []
            code = 0 if records else 3  # 3: there is no such name
            reply = DNS(id=asked.id, qr=1, rd=1, ra=1, qd=asked.qd, an=records, rcode=code)
            server.sendto(bytes(reply), peer)


def main():
    name, options = sys.argv[1], json.loads(sys.argv[2])
    try:
        Lab().__enter__().__exit__()
    except OSError as error:
        print(f"no network namespace or no /dev/net/tun: {error}", file=sys.stderr)
        sys.exit(NOT_HERE)
    try:
        found = EXPERIMENTS[name](**options)
    except FileNotFoundError as error:
        if not str(error.filename).startswith("/proc/sys/"):
            raise
        print(f"this kernel has no {error.filename}", file=sys.stderr)
        sys.exit(NOT_HERE)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
