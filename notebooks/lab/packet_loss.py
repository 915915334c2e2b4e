"""Experiments on a cable that loses packets: one with data, the last of a close, and all."""

import contextlib
import socket
import time

import psutil

from clients.system import processes

from .emulated_link import FIN, SYN, Lab, header, inside
from .traced_calls import (
    PORT,
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


def only_first(wanted):
    """Return a rule for a Lab: of the packets for which wanted(Header) is true, lose the first."""
    lost = []

    def loses(packet):
        if lost or not wanted(packet):
            return False
        lost.append(packet)
        return True

    return loses


@experiment
def lost_packet(what, messages, pause=0.08, delay=0.05):
    """The client sends messages, and the cable loses one packet: see observed().

    what: "data", the first message, or "ACK", the server's first answer to one. pause: seconds
    before each message.
    """

    def wanted(packet):
        if what == "data":
            return packet.size > 0
        return packet.sender == "server" and not packet.flags & SYN

    with (
        Lab(delay, only_first(wanted)) as lab,
        listener(lab) as listening,
        lab.client.socket() as client,
    ):
        # Without this the kernel keeps short messages back while one is on its way (Nagle).
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def speak():
            connect(lab, client)
            for message in messages:
                time.sleep(pause)
                send(lab, "client", client, message.encode())

        def listen():
            conn, missing = accept(lab, listening), len("".join(messages))
            while missing:
                missing -= len(receive(lab, "server", conn))
            return conn

        with together(speak, listen)[1]:
            time.sleep(6 * delay)
            return observed(lab)


@experiment
def lost_last_ack(time_wait=True, delay=0.05):
    """The client closes first, and the last ACK of the close gets lost: see observed().

    time_wait: whether the client's kernel may keep connections in TIME-WAIT, as it should.
    """
    closed = set()  # the ends that have sent their FIN

    def is_last(packet):
        if packet.flags & FIN:
            closed.add(packet.sender)
        return packet.sender == "client" and "server" in closed

    with Lab(delay, only_first(is_last)) as lab, listener(lab) as listening:
        if not time_wait:
            lab.client.set("net.ipv4.tcp_max_tw_buckets", 0)
            # Above 60 s, a FIN-WAIT-2 is not kept as a kind of TIME-WAIT.
            lab.client.set("net.ipv4.tcp_fin_timeout", 61)
        client, conn = greet(lab, listening)

        def follow():
            receive(lab, "server", conn)
            close(lab, "server", conn)

        together(lambda: close(lab, "client", client), follow)
        time.sleep(16 * delay)
        return observed(lab)


# What a server can do about a client that says nothing: {name: socket options of TCP}.
GUARDS = {
    "recv()": {},
    "recv(), keepalive": {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 2},
    "recv(), deadline": {},
    "send()": {},
    "send(), user timeout": {"TCP_USER_TIMEOUT": 2000},
}
SETTINGS = ("tcp_keepalive_time", "tcp_keepalive_intvl", "tcp_keepalive_probes", "tcp_retries2")


@experiment
def vanished(guard, seconds, deadline=2.0, delay=0.005):
    """A client is greeted and vanishes: the cable carries nothing any more, and nobody is told.

    guard: what the server does, one of GUARDS: it waits in recv(), in two of them after a send().
    Returns "heard": how many seconds later its program learned of it (None: not within seconds),
    "error": as what, "sent": the packets that its kernel sent meanwhile, "state": the connection's
    state at the end, "counting": whether a timer of the kernel ran for it then, "settings": what
    the kernel does where a program has said nothing, "watched": seconds.
    """
    with Lab(delay) as lab, listener(lab) as listening:
        client, conn = greet(lab, listening)
        for name, value in GUARDS[guard].items():
            conn.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, guard.endswith("keepalive"))
        lab.loses, began, packets = (lambda packet: True), lab.now(), len(lab.packets)
        if guard.startswith("send"):
            send(lab, "server", conn, b"Hello again")
        conn.settimeout(deadline if guard.endswith("deadline") else seconds)
        heard = error = None
        try:
            receive(lab, "server", conn)
        except OSError as failure:
            if failure.errno or guard.endswith("deadline"):  # or else seconds are over
                heard, error = lab.now() - began, f"{type(failure).__name__}: {failure}"
        time.sleep(4 * delay)  # a kernel that gives up may still send a reset
        rows = [row for row in lab.server.sockets() if row["to"]]
        found = {
            "heard": heard,
            "error": error,
            "watched": seconds,
            "sent": len(lab.packets) - packets,
            "state": rows[0]["state"] if rows else "CLOSED",
            "counting": bool(rows and rows[0]["timer"] is not None),
            "settings": {name: lab.server.get(f"net.ipv4.{name}") for name in SETTINGS},
        }
        conn.close()
        client.close()
        return found


def ask(lab, client, name, patience):
    """Connect, say a name, and return what came back within some seconds; None if nothing did."""
    client.settimeout(patience)
    client.connect((lab.server.address, PORT))
    client.sendall(name)
    try:
        return client.recv(1024).decode()
    except TimeoutError:
        return None


def is_for(port, packet):
    """Say whether a packet that a Lab has noted goes from the server to a client's port."""
    return packet["sender"] == "server" and header("server", packet["packet"]).port == port


@experiment
def left_alone(model, seconds, delay=0.005):
    """A model's server greets a client that vanishes then; another one comes after it.

    Returns "watched": seconds, "state": the first connection's at the server after them,
    "counting": whether a timer of the kernel runs for it, "sent": packets that the server sent to
    it meanwhile, "threads": of the server, "second": what the other client heard, or None.
    """
    gone = set()  # the client's ports for which the cable is cut
    with Lab(delay, lambda packet: packet.port in gone) as lab, contextlib.ExitStack() as stack:
        with inside(lab.server.namespace):
            options = ("--host", lab.server.address, "--quiet")
            program = processes.running_server(processes.find_server(model), *options, port=PORT)
            server = stack.enter_context(program)
        first, second = (stack.enter_context(lab.client.socket()) for _ in range(2))
        ask(lab, first, b"bob", seconds)
        time.sleep(4 * delay)  # the last acknowledgement is still under way
        port, began = first.getsockname()[1], lab.now()
        gone.add(port)
        heard = ask(lab, second, b"ann", seconds)
        time.sleep(max(0, began + seconds - lab.now()))
        row = next(row for row in lab.server.sockets() if row["to"] == port)
        return {
            "watched": seconds,
            "state": row["state"],
            "counting": row["timer"] is not None,
            "sent": sum(is_for(port, packet) for packet in lab.packets if packet["at"] > began),
            "threads": psutil.Process(server.process.pid).num_threads(),
            "second": heard,
        }
