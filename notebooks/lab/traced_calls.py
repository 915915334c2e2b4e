"""What the two programs of an experiment do: each system call is recorded, with its times."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

from clients.system.sockets import reset_on_close

PORT = 3267
EXPERIMENTS = {}  # {name: function}; here, because a program that runs exists twice when imported


def experiment(function):
    EXPERIMENTS[function.__name__] = function
    return function


def listener(link, backlog=5, reuse=True):
    """Return a listening socket of the server, with the options of the three servers."""
    sock = link.server.socket()
    if reuse:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((link.server.address, PORT))
    sock.listen(backlog)
    return sock


def connect(link, sock):
    with link.traced("client", "connect()"):
        sock.connect((link.server.address, PORT))


def accept(link, listening):
    with link.traced("server", "accept()"):
        return listening.accept()[0]


def receive(link, end, sock):
    with link.traced(end, "recv()") as call:
        data = sock.recv(1024)
        call.result = repr(data)
        return data


def send(link, end, sock, data):
    with link.traced(end, f"send({data!r})"):
        sock.send(data)


def close(link, end, sock, reset=False):
    if reset:
        reset_on_close(sock)
    with link.traced(end, "close(), SO_LINGER 0" if reset else "close()"):
        sock.close()


def concurrently(*functions):
    """Run functions at the same time, each in a thread; return their results, or raise."""
    with ThreadPoolExecutor(len(functions)) as threads:
        futures = [threads.submit(function) for function in functions]
    return [future.result() for future in futures]


def greet(link, listening):
    """Let the client connect and be greeted; return both ends' sockets."""

    def client_program():
        client = link.client.socket()
        connect(link, client)
        send(link, "client", client, b"bob")
        receive(link, "client", client)
        return client

    def server_program():
        conn = accept(link, listening)
        receive(link, "server", conn)
        send(link, "server", conn, b"Hello, bob")
        return conn

    client, conn = concurrently(client_program, server_program)
    time.sleep(3 * link.delay)  # the last acknowledgement is still on its way
    return client, conn
