"""The threaded model: each client has a thread, which ends with its connection."""

import time

from clients.client import Client
from conftest import DEADLINE, wait_until


def test_an_idle_client_blocks_nobody(serve):
    server = serve("02_threaded")
    with Client(*server.address) as idle:
        for name in (b"ann", b"bob"):
            with Client(*server.address) as client:
                assert client.greet(name) == b"Hello, " + name
        assert idle.greet(b"I woke up") == b"Hello, I woke up"


def test_each_client_has_a_thread_that_ends_with_it(serve):
    server = serve("02_threaded", "--backlog", 50)
    clients = [Client(*server.address, DEADLINE) for _ in range(50)]
    for client in clients:
        client.greet(b"hello")
    assert server.process.num_threads() == 1 + 50
    for client in clients[:20]:
        client.close()
    wait_until(lambda: server.process.num_threads() == 1 + 30, "30 threads of clients")
    for client in clients[20:]:
        client.close()
    wait_until(lambda: server.process.num_threads() == 1, "no thread of a client")


def test_greetings_wait_concurrently(serve):
    server = serve("02_threaded", "--wait", 1, "--backlog", 10)
    clients = [Client(*server.address, DEADLINE) for _ in range(10)]
    began = time.perf_counter()
    for client in clients:
        client.socket.sendall(b"hello")
    assert [client.socket.recv(1024) for client in clients] == [b"Hello, hello"] * 10
    # One after the other they would take at least 10 s; together they take little over 1 s.
    assert time.perf_counter() - began < 10
