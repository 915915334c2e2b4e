"""Restarts, load shedding and chat: what their alternatives do."""

import contextlib
import errno
import re
import select
import socket
import sys
import threading
import time
from collections import Counter

import pytest

from clients.client import Client
from clients.contract.server_under_test import ServerUnderTest
from clients.system import processes, procfs
from clients.system.processes import running_server
from clients.system.sockets import reset_on_close
from conftest import DEADLINE, cli, skip_without, wait_until

pytestmark = pytest.mark.slow

FOLDER = processes.ROOT / "load_tests" / "alternatives"


def run(name, *options, **more):
    return running_server(FOLDER / f"{name}.py", *options, **more)


def connect(server):
    return Client(*server.address, timeout=DEADLINE)


def accept_queue(server):
    lines = procfs.tcp_sockets(server.address[1])
    return sum(line.recv_q for line in lines if line.state == "LISTEN")


def read_all(client):
    """Return what comes until end of file, also if that is a reset."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := client.socket.recv(65536):
            received += chunk
    return received


@pytest.mark.parametrize(("name", "lost"), [("graceful", 0), ("selectors_loop", 2)])
def test_only_a_graceful_shutdown_answers_what_was_asked_before(name, lost):
    with run(name, "--wait", 0.5) as server, connect(server) as first:
        first.socket.sendall(b"bob")
        wait_until(lambda: "said b'bob'" in server.log())  # it waits: accept() comes later
        with connect(server) as second:
            second.socket.sendall(b"ann")
            wait_until(lambda: accept_queue(server) == 1)
            server.process.terminate()
            answers = read_all(first), read_all(second)
        assert server.process.wait(DEADLINE) == 0
    assert answers == ((b"", b"") if lost else (b"Hello, bob", b"Hello, ann"))


def test_a_graceful_shutdown_serves_until_a_client_is_idle_and_accepts_no_other():
    with run("graceful", "--idle", 0.3, "--deadline", 3600) as server:
        with connect(server) as busy, connect(server) as idle:
            busy.greet(b"before")
            idle.greet(b"before")
            server.process.terminate()
            wait_until(lambda: busy.greet(b"go on") and "left, 6 bytes" in server.log())
            assert read_all(idle) == b""
            with pytest.raises(ConnectionError, match="refused"):
                connect(server)
            assert busy.greet(b"still served") == b"Hello, still served"
            assert server.process.wait(DEADLINE) == 0
            assert read_all(busy) == b""
        assert server.log().endswith("all connections are closed\n")


def test_a_graceful_shutdown_has_a_deadline_even_during_a_request():
    with run("graceful", "--wait", 3600, "--deadline", 1) as server, connect(server) as client:
        client.socket.sendall(b"bob")
        wait_until(lambda: "said b'bob'" in server.log())
        server.process.terminate()
        assert server.process.wait(DEADLINE) == 0


def test_while_a_graceful_shutdown_waits_for_a_client_it_uses_no_cpu():
    def is_refused():
        with socket.socket() as other:
            return other.connect_ex(server.address) == errno.ECONNREFUSED

    with run("graceful", "--idle", 3600, "--deadline", 3600) as server, connect(server) as client:
        client.greet(b"before")
        server.process.terminate()
        wait_until(is_refused)
        ServerUnderTest(server).assert_no_busy_loop("its last client is idle")
        assert client.greet(b"still served") == b"Hello, still served"
        server.process.kill()  # it would go on for an hour


def visit(address, outcomes, over):
    """Visit the server until it is over: connect, greet five times, leave; count the outcomes."""
    while not over.is_set():
        try:
            with Client(*address, timeout=DEADLINE) as client:
                for number in range(5):
                    client.greet(b"greeting %d" % number)
                    outcomes["answered"] += 1
                    time.sleep(0.002)
        except OSError as error:
            outcomes[f"{error}"] += 1


def test_a_handover_under_load_loses_no_answer_and_refuses_no_client(tmp_path):
    options = ("--quiet", "--control", tmp_path / "control", "--backlog", 128)
    outcomes, over = [Counter() for _ in range(4)], threading.Event()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(run("handover", *options))
        address = server.address
        visits = [threading.Thread(target=visit, args=(address, one, over)) for one in outcomes]
        for thread in visits:
            thread.start()
        try:
            for _ in range(3):
                old, before = server, sum(outcomes, Counter()).total()
                server = stack.enter_context(run("handover", *options, port=address[1]))
                assert old.process.wait(DEADLINE) == 0
                wait_until(lambda before=before: sum(outcomes, Counter()).total() > before + 100)
        finally:
            over.set()
            for thread in visits:
                thread.join()
    assert set(sum(outcomes, Counter())) == {"answered"}


def test_a_server_goes_on_if_the_new_one_ends_before_it_is_ready(tmp_path):
    path = tmp_path / "control"
    with run("handover", "--control", path) as server:
        with socket.socket(socket.AF_UNIX) as new:
            new.connect(str(path))
            _, [fd], *_ = socket.recv_fds(new, 1, 1)
        socket.socket(fileno=fd).close()
        with connect(server) as client:
            assert client.greet(b"bob") == b"Hello, bob"
    with run("handover", "--control", path) as server, connect(server) as client:  # a stale path
        assert client.greet(b"bob") == b"Hello, bob"


# Connections in the accept queue of one of two SO_REUSEPORT listeners, whose server then ends.
MIGRATION = """
import sys
from pathlib import Path
from clients.system import netns
from load_tests.tests import test_under_pressure as tests
netns.bring_up("lo")
for migrate in "01":
    Path("/proc/sys/net/ipv4/tcp_migrate_req").write_text(migrate)
    print(tests.answers_after_the_old_server_ends())
"""


def answers_after_the_old_server_ends():
    options = ("--reuse-port", "--quiet", "--backlog", 100)
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(run("graceful", *options))
        old.process.suspend()
        clients = [stack.enter_context(connect(old)) for _ in range(50)]
        for client in clients:
            client.socket.sendall(b"bob")
        stack.enter_context(run("graceful", *options, port=old.address[1]))
        old.process.kill()
        return sum(read_answer(client) == b"Hello, bob" for client in clients)


def read_answer(client):
    try:
        return client.socket.recv(100)
    except ConnectionResetError:
        return b""


def test_with_reuseport_the_accept_queue_is_lost_unless_the_kernel_migrates_it():
    line = [sys.executable, "-c", MIGRATION]
    try:
        done = processes.run_in_netns(line, timeout=DEADLINE, cwd=processes.ROOT)
    except processes.NamespaceDenied as error:
        skip_without("network namespaces", error)
    if "Operation not permitted" in done.stderr:  # it was made, and has no power
        skip_without("network namespaces", done.stderr)
    assert (done.stdout, done.stderr) == ("0\n50\n", "")


def test_a_bound_on_clients_sheds_the_others_until_one_leaves():
    with run("shedding", "--clients", 1) as server, connect(server) as second:
        with connect(server) as first:
            first.socket.sendall(b"ann")
            assert first.socket.recv(100) == b"Hello, ann"
            second.socket.sendall(b"bob")
            assert second.socket.recv(100) == b"Sorry, bob"
        wait_until(lambda: "left, 3 bytes" in server.log())
        second.socket.sendall(b"bob")
        assert second.socket.recv(100) == b"Hello, bob"


def test_what_waited_too_long_is_not_computed_even_if_it_waited_in_the_accept_queue():
    with run("shedding", "--wait", 0.5, "--max-age", 0.2) as server, connect(server) as first:
        first.socket.sendall(b"bob")
        wait_until(lambda: "said b'bob'" in server.log())
        with connect(server) as second:
            second.socket.sendall(b"ann")
            assert first.socket.recv(100) == b"Hello, bob"
            assert second.socket.recv(100) == b"Sorry, ann"
            second.socket.sendall(b"ann")
            assert second.socket.recv(100) == b"Hello, ann"


# Chat: a line that a client sends goes to all clients, in the same order.

CHATS = pytest.mark.parametrize("name", ["chat_threads", "chat_loop"])


@contextlib.contextmanager
def chat(name, count, *options):
    """Yield a chat server and its clients, all of which it has accepted."""
    with run(name, *options, "--backlog", 100) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(count)]
        wait_until(lambda: server.log().count("connected") == count)
        yield server, clients


def read_lines(client, count):
    received = b""
    while received.count(b"\n") < count:
        chunk = client.socket.recv(65536)
        assert chunk, received[-100:]
        received += chunk
    return received


@CHATS
def test_every_line_goes_to_all_clients_in_the_same_order(name):
    with chat(name, 10) as (_, clients):
        for number in range(20):
            for client in clients:
                client.socket.sendall(b"line %d\n" % number)
        received = [read_lines(client, 200) for client in clients]
    assert sorted(received[0].splitlines()) == sorted(
        b"line %d" % number for number in range(20) for _ in range(10)
    )
    assert set(received) == {received[0]}


@CHATS
def test_a_line_in_pieces_goes_to_all_when_it_is_complete(name):
    options = () if name == "chat_threads" else ("--queue", 0)  # the kernel takes these at once
    with chat(name, 2, *options) as (_, (one, other)):
        one.socket.sendall(b"hel")
        other.socket.sendall(b"first\n")
        assert read_lines(one, 1) == b"first\n"
        one.socket.sendall(b"lo\n" + b"x" * 1023 + b"\n" + b"not complete")
        one.socket.shutdown(socket.SHUT_WR)
        assert read_lines(other, 3) == b"first\nhello\n" + b"x" * 1023 + b"\n"


@CHATS
def test_a_line_of_more_than_1024_bytes_ends_the_connection_and_a_reset_only_its_own(name):
    with chat(name, 3) as (server, (long, reset, other)):
        long.socket.sendall(b"x" * 1024)
        assert read_all(long) == b""
        reset_on_close(reset.socket)
        reset.close()
        wait_until(lambda: server.log().count(" left") == 2, server.log)
        other.socket.sendall(b"alone\n")
        assert read_lines(other, 1) == b"alone\n"


@CHATS
def test_a_client_that_does_not_read_is_dropped_and_the_others_get_every_line(name):
    options = ("--send-timeout", 1.25) if name == "chat_threads" else ("--queue", 65536)
    with chat(name, 3, *options) as (server, (_, one, other)):
        for number in range(1, 10_000):
            one.socket.sendall(b"%01000d\n" % number)
            assert read_lines(one, 1) == read_lines(other, 1) == b"%01000d\n" % number
            if "dropped" in server.log(1000):
                break
        assert "dropped" in server.log()
        wait_until(lambda: " left" in server.log())
        one.socket.sendall(b"goodbye\n")
        assert read_lines(other, 1) == b"goodbye\n"


def test_a_client_that_reads_late_gets_every_line_and_stays():
    with (
        run("chat_loop", "--queue", 10**6) as server,
        connect(server) as one,
        socket.socket() as late,
    ):
        late.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        late.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # a small send buffer, too
        late.settimeout(DEADLINE)
        late.connect(server.address)
        wait_until(lambda: server.log().count("connected") == 2)
        line, sent, received = b"x" * 999 + b"\n", 0, bytearray()

        def in_kernel():
            ends = {late.getsockname(), late.getpeername()}
            sockets = procfs.tcp_sockets(server.address[1])
            return sum(s.send_q + s.recv_q for s in sockets if {s.local, s.remote} == ends)

        while sent - in_kernel() < 600_000:  # what is in the server's queue
            for _ in range(100):
                one.socket.sendall(line)
                assert read_lines(one, 1) == line
            sent += 100 * len(line)
        while len(received) < sent and (chunk := late.recv(65536)):
            received += chunk
        assert received == line * (sent // len(line))
        late.sendall(b"bob\n")
        assert read_lines(one, 1) == b"bob\n"
        late.close()
        wait_until(lambda: "left, 4 bytes received" in server.log(), server.log)


def test_a_client_that_does_not_read_blocks_all_threads_without_a_limit():
    def calls(server):
        texts = procfs.syscalls(server.process.pid).values()
        return Counter(call.name for call in map(procfs.parse_syscall, texts) if call)

    with chat("chat_threads", 3) as (server, (silent, one, other)):
        one.socket.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while True:
                one.socket.sendall(b"x" * 1000 + b"\n")
                read_lines(one, 1)
                read_lines(other, 1)
        other.socket.sendall(b"does anybody hear me?\n")
        # One sends to the silent one with the lock, another waits for the lock, the third reads.
        expected = {"sendto": 1, "futex": 1, "recvfrom": 1, "poll": 1}
        wait_until(lambda: calls(server) == expected, lambda: f"{calls(server)}")
        text = b""
        while not text.endswith(b"me?\n"):  # as soon as it reads, all go on
            text = text[-10:] + silent.socket.recv(65536)
        assert read_lines(other, 2).endswith(b"x\ndoes anybody hear me?\n")


def share_a_port(share):
    """Return what 90 connections to three processes give, one after another.

    That is the connections of each process, and how many times a process woke. Then the process
    with the most is stopped, and all clients ask, and 100 new ones: how many of both are unserved.
    """
    options = ("--quiet", "--backlog", 4096, "--share", share, "--processes", 3)
    with run("prefork", *options) as server, contextlib.ExitStack() as stack:
        workers = processes.process_tree(server.process)[1:]

        def connect():
            return stack.enter_context(socket.create_connection(server.address))

        def descriptors():
            return [one.num_fds() for one in workers]

        def wakeups():  # when each process waits for an event, so that the next one wakes it
            wait_until(lambda: all(map(is_blocked, workers)))
            return sum(one.num_ctx_switches().voluntary for one in workers)

        def count_unserved(clients):
            for client in clients:
                client.sendall(b"bob")
            wait_until(lambda: all(is_blocked(one) for one in workers if one != stopped))
            return sum(not select.select([client], [], [], 0)[0] for client in clients)

        woken, before, clients = wakeups(), descriptors(), []
        for _ in range(90):
            clients.append(connect())
            wait_until(lambda: sum(descriptors()) == sum(before) + len(clients))
            now = wakeups()
        accepted = [all_open - its for all_open, its in zip(descriptors(), before, strict=True)]
        stopped = workers[accepted.index(max(accepted))]
        stopped.suspend()
        wait_until(lambda: procfs.all_stopped(stopped.pid))
        unserved = count_unserved(clients)
        return (
            sorted(accepted),
            now - woken,
            unserved,
            count_unserved([connect() for _ in range(100)]),
        )


def is_blocked(process):
    """Return True if a process waits for an event."""
    [text] = procfs.syscalls(process.pid).values()
    call = procfs.parse_syscall(text)
    return call is not None and call.name.startswith("epoll_")


@pytest.mark.parametrize("share", ["inherit", "exclusive", "reuseport"])
def test_three_ways_to_share_a_port_differ_as_the_page_says(share):
    accepted, woken, unserved, new_unserved = share_a_port(share)
    assert (len(accepted), sum(accepted)) == (3, 90)
    assert unserved == max(accepted)  # a connection stays with its process
    if share == "inherit":
        assert woken >= 3 * 90  # each connection wakes all
    else:
        assert 90 <= woken < 3 * 90
    if share == "reuseport":
        assert accepted[0] > 10
        assert 0 < new_unserved < 100
    else:
        assert new_unserved == 0


def test_many_idle_connections_are_measured_and_the_limits_named_in_order():
    done = cli("load_tests.million", "--connections", 300)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "300 idle connections in" in done.stdout
    assert len(re.findall(r"GiB +-?[\d.]+ KiB each$", done.stdout, re.MULTILINE)) in (
        3,
        4,
    )  # 4: as root
    assert int(re.search(r"TCP: inuse (\d+)", done.stdout)[1]) >= 600  # both ends
    met = [
        int(found.replace(",", ""))
        for found in re.findall(r"^ +([\d,]+): ", done.stdout, re.MULTILINE)
    ]
    assert len(met) >= 5
    assert met == sorted(met)


def test_without_memory_no_connection_is_made():
    done = cli("load_tests.million", "--connections", 300, "--reserve", 1000)
    assert (done.returncode, done.stderr) == (1, "less than 1000.0 GiB of memory are available\n")
