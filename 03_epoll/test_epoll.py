"""The event loop: one thread serves many clients and never waits for a single one."""

import contextlib
import runpy
import select
import socket
import subprocess
import sys
import time

from clients.client import Client
from clients.contract.server_under_test import ServerUnderTest
from clients.system import processes
from conftest import DEADLINE

MEBIBYTE = 2**20


def test_many_clients_one_thread(serve):
    server = serve("03_epoll", "--backlog", 50)
    clients = [Client(*server.address, DEADLINE) for _ in range(50)]
    for number, client in enumerate(clients):
        assert client.greet(b"%d" % number) == b"Hello, %d" % number
    assert server.process.num_threads() == 1


def test_an_idle_client_blocks_nobody(serve):
    server = serve("03_epoll")
    with Client(*server.address) as idle:
        for name in (b"ann", b"bob"):
            with Client(*server.address) as client:
                assert client.greet(name) == b"Hello, " + name
        assert idle.greet(b"I woke up") == b"Hello, I woke up"


def test_one_slow_greeting_stalls_all_clients(serve):
    server = serve("03_epoll", "--wait", 0.3)
    clients = [Client(*server.address, DEADLINE) for _ in range(4)]
    began = time.perf_counter()
    for client in clients:
        client.socket.sendall(b"hello")
    for client in clients:
        assert client.socket.recv(1024) == b"Hello, hello"
    assert time.perf_counter() - began >= 4 * 0.3


def test_the_whole_accept_queue_is_accepted_before_the_first_greeting(serve):
    # One connection per loop iteration would be enough, except when greetings are slow.
    server = ServerUnderTest(serve("03_epoll", "--wait", 0.3))
    with contextlib.ExitStack() as stack:
        with server.sigstopped():
            clients = [stack.enter_context(server.connect()) for _ in range(5)]
            clients[0].sendall(b"bob")
        clients[0].expect_greeting(b"bob")
        assert server.log().count("connected") == 5


def test_while_a_reply_is_unsent_nothing_is_read(serve):
    server = serve("03_epoll", "--quiet")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(server.address)
        slow.settimeout(0.5)
        sent = 0
        try:
            while sent < 64 * MEBIBYTE:
                sent += slow.send(b"x" * 65536)
        except TimeoutError:  # the server reads no more: it waits to write
            pass
        assert 0 < sent < 64 * MEBIBYTE
        with Client(*server.address) as other:
            assert other.greet(b"bob") == b"Hello, bob"
        slow.settimeout(DEADLINE)
        slow.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: slow.recv(MEBIBYTE), b""))
    # The prefix contains no 'x', so what is left are the prefixes.
    assert received.count(b"x") == sent
    assert received.replace(b"x", b"") == b"Hello, " * received.count(b"Hello, ")


def test_a_reply_for_which_there_is_no_room_is_kept_whole():
    # Between a message and its greeting the send buffer is rarely just full; here it is.
    module = runpy.run_path(str(processes.find_server("03_epoll")))

    def greet(chunk):
        return module["greeting"](chunk, 0, 0)

    ours, theirs = socket.socketpair()
    with ours, theirs, select.epoll() as epoll:
        ours.setblocking(False)
        epoll.register(ours, select.EPOLLIN)
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += ours.send(b"x")
        theirs.sendall(b"bob")
        client = module["Client"](ours, ("127.0.0.1", 1))
        assert module["handle"](client, greet, epoll)
        assert client.unsent == b"Hello, bob"
        assert epoll.poll(0) == []
        assert theirs.recv(filled, socket.MSG_WAITALL) == b"x" * filled
        assert epoll.poll(0) == [(ours.fileno(), select.EPOLLOUT)]
        assert module["handle"](client, greet, epoll)
        assert theirs.recv(1024) == b"Hello, bob"
        assert epoll.poll(0) == []


def test_without_epoll_it_reports_what_to_do():
    program = processes.find_server("03_epoll")
    script = (
        "import runpy, select, sys; del select.epoll; sys.argv = ['server.py'];"
        f"runpy.run_path({str(program)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "02_threaded" in done.stderr
