"""What is read of a server from outside is what is there."""

import itertools
import socket
import time

import pytest

from clients.client import Client
from clients.system.procfs import accept_queue_limit
from conftest import wait_until
from load_tests.harness import monitor
from load_tests.harness.evaluation import health
from load_tests.harness.monitor import reading, sockets, watching


def test_the_accept_queue_and_the_states_of_the_clients():
    with socket.create_server(("127.0.0.1", 0), backlog=2) as listener:
        port = listener.getsockname()[1]
        assert seen(port) == (0, {})
        queued = [Client("127.0.0.1", port) for _ in range(accept_queue_limit(2))]
        assert seen(port) == (3, {"ESTABLISHED": 3})
        with socket.socket() as late:
            late.setblocking(False)
            late.connect_ex(("127.0.0.1", port))
            assert sockets(port)[1]["SYN-SENT"] == 1
            conn, _ = listener.accept()
            assert sockets(port)[0] == 2
            conn.close()
        for client in queued:
            client.close()


def seen(port):
    """Return sockets(port) without TIME-WAIT."""
    queue, clients = sockets(port)
    return queue, without_time_wait(clients)


def without_time_wait(clients):
    """Leave out the clients of an earlier test: the kernel gives its port to the next server."""
    return {state: count for state, count in clients.items() if state != "TIME-WAIT"}


def test_a_reading_of_a_threaded_server(serve):
    server = serve("02_threaded")
    empty = reading(server.process, server.address[1])
    with Client(*server.address) as one, Client(*server.address) as two:
        for client in (one, two):
            for _ in range(100):
                client.greet(b"hello")
        busy = reading(server.process, server.address[1])
    assert (empty.threads, busy.threads) == (1, 3)
    assert busy.descriptors == empty.descriptors + 2
    assert without_time_wait(busy.clients) == {"ESTABLISHED": 2}
    assert busy.cpu > empty.cpu > 0
    assert busy.switches >= empty.switches + 100
    assert 2**20 < empty.rss < empty.vms


def test_the_cpu_clock_agrees_with_psutil(serve):
    server = serve("01_blocking", "--compute", 0.2)
    with Client(*server.address) as client:
        client.greet(b"work")
    times = server.process.cpu_times()
    assert abs(monitor.cpu_seconds(server.process) - times.user - times.system) < 0.04


def test_drops_are_counted():
    before = monitor.drops()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        with Client(*listener.getsockname()), socket.socket() as dropped:
            dropped.setblocking(False)
            dropped.connect_ex(listener.getsockname())
            wait_until(lambda: monitor.drops() > before)


def test_watching_reads_at_the_start_and_at_the_end(serve):
    server = serve("03_epoll")
    with watching(server.process, server.address[1], every=60) as readings:
        with Client(*server.address) as client:
            client.greet(b"hello")
            wait_until(lambda: readings)
    assert len(readings) == 2
    assert readings[0].at < readings[1].at <= time.monotonic()


def test_watching_goes_on_after_the_end_of_the_server(serve, monkeypatch):
    """pytest makes an error that ends the thread a failure of this test."""
    server, calls = serve("03_epoll"), itertools.count()

    def counted(*arguments):
        monitor.last_call = next(calls)
        return reading(*arguments)

    monkeypatch.setattr(monitor, "last_call", 0, raising=False)
    monkeypatch.setattr(monitor, "reading", counted)
    with watching(server.process, server.address[1], every=0.01) as readings:
        wait_until(lambda: readings)
        server.process.kill()
        server.process.wait()
        before = monitor.last_call
        wait_until(lambda: monitor.last_call >= before + 3)
        known = len(readings)
    assert len(readings) == known  # there is nothing to read any more


HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("cores", "cpu", "host", "words"),
    [
        (2, 0.4, HERE, ""),
        (2, 0.85, HERE, "used 85% of a core on average"),
        (0.5, 0.2, HERE, "shared 0.5 cores with the server"),
        (0.5, 0.2, "elsewhere", ""),
        (0.5, 0.45, "elsewhere", "used 90% of 0.5 cores on average"),
        (1, 0.1, HERE, ""),
    ],
)
def test_a_generator_that_shares_a_core_with_the_server_is_a_limit(cores, cpu, host, words):
    process = {"cpu": cpu, "lag": [0.001], "cores": cores, "host": host}
    log = {"generators": {"1": process}, "left": []}
    assert health(log, 0, server_share=0.3, cores=cores).limited == words
