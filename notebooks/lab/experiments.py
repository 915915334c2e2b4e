"""Experiments that make TCP visible: tcp.py runs each in a network that is its own.

There this program is root of a network that no one else sees, so it may watch every packet and
change the kernel's settings, and the machine is not touched.
"""

import contextlib
import functools
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from clients.system.sockets import reset_on_close

from .cable import SYN, Lab, up

NO_NETWORK = 75  # exit status: no network of its own (EX_TEMPFAIL in sysexits.h)
PORT = 3267
EXPERIMENTS = {}


def experiment(function):
    EXPERIMENTS[function.__name__] = function
    return function


def observed(lab, **more):
    """Return what a lab has observed as plain data, with more beside it.

    packets: [{"sender", "at", "arrived" (seconds; None: lost), "port" (the client's), "flags"
    ("SYN ACK"), "seq" and "ack" (relative to the first of each direction, as Wireshark shows
    them), "length": bytes of data}, ...]; states: [{"at", "end", "port", "to", "state"}, ...];
    calls: [{"end", "call", "began", "ended", "answer"}, ...].
    """
    packets = [packet | {"packet": packet["packet"].hex()} for packet in lab.packets]
    return {"packets": packets, "states": lab.states, "calls": lab.calls, **more}


def listener(lab, backlog=5, reuse=True):
    """Return a listening socket on the server, as the three servers make theirs."""
    sock = lab.server.socket()
    if reuse:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((lab.server.address, PORT))
    sock.listen(backlog)
    return sock


def connect(lab, sock):
    with lab.noting("client", "connect()"):
        sock.connect((lab.server.address, PORT))


def accept(lab, listening):
    with lab.noting("server", "accept()"):
        return listening.accept()[0]


def receive(lab, end, sock):
    with lab.noting(end, "recv()") as answer:
        answer.append(repr(sock.recv(1024)))


def send(lab, end, sock, data):
    with lab.noting(end, f"send({data!r})"):
        sock.send(data)


def close(lab, end, sock, reset=False):
    if reset:
        reset_on_close(sock)
    with lab.noting(end, "close()"):
        sock.close()


def together(*functions):
    """Run functions at the same time, each in a thread; return what they return, or raise it."""
    with ThreadPoolExecutor(len(functions)) as threads:
        under_way = [threads.submit(function) for function in functions]
    return [done.result() for done in under_way]


def greet(lab, listening):
    """Let the client connect and be greeted; return both ends' sockets."""

    def speak():
        client = lab.client.socket()
        connect(lab, client)
        send(lab, "client", client, b"bob")
        receive(lab, "client", client)
        return client

    def serve():
        conn = accept(lab, listening)
        receive(lab, "server", conn)
        send(lab, "server", conn, b"Hello, bob")
        return conn

    client, conn = together(speak, serve)
    time.sleep(3 * lab.delay)  # the last acknowledgement is still under way
    return client, conn


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
    "attempts": [{"at", "reuse", "error"}, ...], one pair a second; "ended": when TIME-WAIT was
    over, None if it was not within so many seconds.
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
            time.sleep(1 if waiting else 0)
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
def accept_queue(backlog, arrivals, seconds, settings=None, accept_at=None, delay=0.005):
    """Clients connect to a server that does not accept.

    arrivals: when each of them comes, in seconds. settings: {name: number}, for both machines.
    accept_at: when the server takes one connection.
    Returns observed() and "clients": [{"port", "began", "connected" (None: never), "error"}, ...],
    "queue": the length of the accept queue at the end, "counted": how much the server's counters
    grew, "ends": {"client": {port: state}, "server": {port: state}} at the end.
    """
    with Lab(delay) as lab, contextlib.ExitStack() as stack:
        for name, value in (settings or {}).items():
            for machine in lab.machines.values():
                machine.set(name, value)
        listening = stack.enter_context(listener(lab, backlog))
        before, stop = lab.server.counters(), lab.now() + seconds

        def come(at):
            sock = stack.enter_context(lab.client.socket())
            return newcomer(lab, sock, at, stop)

        def take_one():
            if accept_at is not None:
                pause_until(lab, accept_at)
                stack.enter_context(accept(lab, listening))

        *clients, _ = together(*(functools.partial(come, at) for at in arrivals), take_one)
        return observed(
            lab,
            clients=sorted(clients, key=lambda client: client["began"]),
            queue=accept_queue_length(lab),
            counted=grown(before, lab.server.counters()),
            ends=ends(lab),
        )


def pause_until(lab, moment):
    time.sleep(max(0, moment - lab.now()))


def newcomer(lab, sock, at, stop):
    """Connect at a moment, and wait until another one for an error; return what came of it."""
    pause_until(lab, at)
    data = {"began": lab.now(), "connected": None, "error": None}
    try:
        sock.settimeout(max(0.01, stop - lab.now()))
        sock.connect((lab.server.address, PORT))
        data["connected"] = lab.now()
        sock.settimeout(max(0.01, stop - lab.now()))
        sock.recv(1024)
    except TimeoutError:
        pass
    except OSError as error:
        data["error"] = type(error).__name__
    return data | {"port": sock.getsockname()[1]}


def accept_queue_length(lab):
    return next(row["unread"] for row in lab.server.sockets() if row["state"] == "LISTEN")


def grown(before, after):
    """Return the counters that grew, and by how much."""
    return {name: after[name] - before[name] for name in after if after[name] > before[name]}


def ends(lab):
    """Return the state of each connection at each end: {end: {the client's port: state}}."""
    found = {}
    for end, machine in lab.machines.items():
        rows = [row for row in machine.sockets() if row["to"]]
        found[end] = {row["port"] if end == "client" else row["to"]: row["state"] for row in rows}
    return found


@experiment
def syn_queue(backlog, clients, max_syn_backlog=None, cookies=1, seconds=0.3, delay=0.005):
    """Handshakes that cannot finish, since the cable loses the clients' last part of each.

    max_syn_backlog, cookies: for net.ipv4.tcp_max_syn_backlog and tcp_syncookies at the server.
    Then the cable is mended, and each client that believes itself connected says "bob".
    Returns "half_open": connections in SYN-RECEIVED at the server before that, "believing":
    clients in ESTABLISHED before that, "queue": the accept queue afterwards, "counted": what the
    server counted, "limit": the setting that holds.
    """
    with Lab(delay, lambda sender, flags: sender == "client" and not flags & SYN) as lab:
        lab.server.set("net.ipv4.tcp_syncookies", cookies)
        if max_syn_backlog:
            lab.server.set("net.ipv4.tcp_max_syn_backlog", max_syn_backlog)
        with listener(lab, backlog), contextlib.ExitStack() as stack:
            before, crowd = lab.server.counters(), []
            for _ in range(clients):
                sock = stack.enter_context(lab.client.socket())
                sock.setblocking(False)
                sock.connect_ex((lab.server.address, PORT))
                crowd.append(sock)
                time.sleep(3 * delay)
            time.sleep(seconds)
            states = ends(lab)
            lab.loses = None
            for sock in crowd:
                with contextlib.suppress(OSError):
                    sock.send(b"bob")
            time.sleep(seconds)
            return {
                "clients": clients,
                "half_open": list(states["server"].values()).count("SYN-RECEIVED"),
                "believing": list(states["client"].values()).count("ESTABLISHED"),
                "queue": accept_queue_length(lab),
                "counted": grown(before, lab.server.counters()),
                "limit": lab.server.get("net.ipv4.tcp_max_syn_backlog"),
            }


@experiment
def resolve(name, hosts="", dns=None, order="files dns"):
    """Look a name up where /etc/hosts is the text hosts, and a DNS server knows {name: address}.

    order: who is asked first, as /etc/nsswitch.conf says it. Only an IPv4 address is asked for.
    Returns "addresses": what getaddrinfo() gives, [] if it fails, "error": why, and "queries": the
    questions that reached the DNS server, [[name, type], ...].
    """
    up("lo")
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
        sys.exit(NO_NETWORK)
    print(json.dumps(EXPERIMENTS[name](**options)))


if __name__ == "__main__":
    main()
