"""What makes 02 the threaded model: a thread for each client, which ends with it."""

import time

from clients.client import Client

PATIENCE = 20.0


def test_an_idle_client_blocks_nobody(serve):
    server = serve("02_threaded")
    with Client(*server.address) as idle:
        for name in (b"ann", b"bob"):
            with Client(*server.address) as client:
                assert client.greet(name) == b"Hello, " + name
        assert idle.greet(b"I woke up") == b"Hello, I woke up"


def test_one_thread_a_client_and_it_ends_with_it(serve):
    server = serve("02_threaded", "--backlog", 50)
    clients = [Client(*server.address, PATIENCE) for _ in range(50)]
    for client in clients:
        client.greet(b"hello")
    assert server.process.num_threads() == 1 + 50
    for client in clients[:20]:
        client.close()
    wait_for(server, 1 + 30)
    for client in clients[20:]:
        client.close()
    wait_for(server, 1)


def wait_for(server, threads):
    deadline = time.monotonic() + PATIENCE
    while server.process.num_threads() != threads:
        assert time.monotonic() < deadline, f"{server.process.num_threads()} threads"
        time.sleep(0.005)


def test_threads_wait_at_the_same_time(serve):
    server = serve("02_threaded", "--wait", 1, "--backlog", 10)
    clients = [Client(*server.address, PATIENCE) for _ in range(10)]
    began = time.perf_counter()
    for client in clients:
        client.socket.sendall(b"hello")
    assert [client.socket.recv(1024) for client in clients] == [b"Hello, hello"] * 10
    # One after the other would take 10 s at the least; together they take little over 1 s.
    assert time.perf_counter() - began < 10
