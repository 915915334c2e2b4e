"""What is read of a server from outside is what is there."""

import socket
import time

from clients.client import Client
from clients.system.procfs import accept_queue_limit
from load_tests.harness import monitor
from load_tests.harness.monitor import reading, sockets, watching


def test_the_accept_queue_and_the_states_of_the_clients():
    with socket.create_server(("127.0.0.1", 0), backlog=2) as listener:
        port = listener.getsockname()[1]
        assert seen(port) == {"accept_queue": 0, "clients": {}}
        queued = [Client("127.0.0.1", port) for _ in range(accept_queue_limit(2))]
        assert seen(port) == {"accept_queue": 3, "clients": {"ESTABLISHED": 3}}
        with socket.socket() as late:
            late.setblocking(False)
            late.connect_ex(("127.0.0.1", port))
            assert sockets(port)["clients"]["SYN-SENT"] == 1
            conn, _ = listener.accept()
            assert sockets(port)["accept_queue"] == 2
            conn.close()
        for client in queued:
            client.close()


def seen(port):
    """Return sockets(port) without the TIME-WAIT of an earlier test that had the same port."""
    found = sockets(port)
    found["clients"].pop("TIME-WAIT", None)
    return found


def test_a_reading_of_a_threaded_server(serve):
    server = serve("02_threaded")
    empty = reading(server.process, server.address[1])
    with Client(*server.address) as one, Client(*server.address) as two:
        for client in (one, two):
            for _ in range(100):
                client.greet(b"hello")
        busy = reading(server.process, server.address[1])
    assert (empty["threads"], busy["threads"]) == (1, 3)
    assert busy["descriptors"] == empty["descriptors"] + 2
    assert busy["clients"] == {"ESTABLISHED": 2}
    assert busy["cpu"] > empty["cpu"] > 0
    assert busy["switches"] >= empty["switches"] + 100
    assert 2**20 < empty["rss"] < empty["vms"]


def test_the_cpu_clock_agrees_with_psutil(serve):
    server = serve("01_blocking", "--compute", 0.5)
    with Client(*server.address) as client:
        client.greet(b"work")
    times = server.process.cpu_times()
    assert abs(monitor.cpu_seconds(server.process) - times.user - times.system) < 0.1


def test_drops_are_counted():
    before = monitor.drops()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        with Client(*listener.getsockname()), socket.socket() as dropped:
            dropped.setblocking(False)
            dropped.connect_ex(listener.getsockname())
            time.sleep(0.05)
    after = monitor.drops()
    assert after["ListenOverflows"] > before["ListenOverflows"]
    assert after["ListenDrops"] > before["ListenDrops"]


def test_watching_reads_at_the_start_and_at_the_end(serve):
    server = serve("03_epoll")
    with watching(server.process, server.address[1], every=60) as readings:
        with Client(*server.address) as client:
            client.greet(b"hello")
            while not readings:
                time.sleep(0.005)
    assert len(readings) == 2
    assert readings[1]["at"] > readings[0]["at"]


def test_watching_survives_the_end_of_the_server(serve):
    server = serve("03_epoll")
    with watching(server.process, server.address[1], every=0.01) as readings:
        while not readings:
            time.sleep(0.005)
        server.process.kill()
        server.process.wait()
        time.sleep(0.05)
    assert readings
