"""What the two ends of a connection do in an experiment: each call is noted, with its times."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

from clients.system.sockets import reset_on_close

PORT = 3267
EXPERIMENTS = {}  # by name, in this module since a program that runs exists twice when imported


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
    packets = [
        packet | {"packet": packet["packet"].hex()}
        for packet in lab.packets
        if packet["arrived"] or packet["lost"]  # or else it is still under way
    ]
    return {
        "packets": packets,
        "states": list(lab.states),
        "calls": lab.calls,
        **more,
    }


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
        data = sock.recv(1024)
        answer.append(repr(data))
        return data


def send(lab, end, sock, data):
    with lab.noting(end, f"send({data!r})"):
        sock.send(data)


def close(lab, end, sock, reset=False):
    if reset:
        reset_on_close(sock)
    with lab.noting(end, "close(), SO_LINGER 0" if reset else "close()"):
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
