"""A client affects the others no more than the model itself makes it."""

import contextlib
import time

import psutil

from clients.contract.errors import NotApplicable, check, expect
from clients.contract.probe_client import MEBIBYTE
from clients.system.processes import LaunchError, raise_nofile_limit
from clients.system.procfs import accept_queue_limit


@check("--quiet", "--backlog", "2048")
def a_reset_ends_one_connection(server):
    for message in b"", b"I go":
        for batch in range(round(50 * server.load)):  # more than a pool has threads to lose
            for _ in range(40 if batch else 1):
                client = server.connect()
                client.sendall(message)
                client.reset()
            server.assert_serves_new_client()


@check("--quiet")
def a_client_that_never_reads_meets_backpressure(server):
    baseline, before = server.baseline_descriptors(), server.memory()
    with server.serving_others() as assert_serving, server.connect() as client:
        assert_backpressure(server, client, before)
        server.assert_no_busy_loop("a client does not read")
        assert_serving()
        client.reset()
    server.wait_for_descriptors(baseline)
    server.assert_no_busy_loop("the client has reset its connection")


def assert_backpressure(server, client, before):
    """Flood, and expect that the server's memory grows by less. before: its memory, in bytes."""
    sent = client.flood(16 * MEBIBYTE)
    grown = server.memory() - before
    what = f"after {len(sent)} unread bytes, memory has grown by {grown} bytes"
    expect(grown <= 8 * MEBIBYTE, what)


@check("--wait", "3600", "--compute", "3600")
def clients_that_wait_cost_no_cpu_or_memory(server):
    before = server.memory()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(3)]
        for client in clients:
            client.sendall(b"one word")
            client.has_reply(0.1)  # it has been received
        assert_backpressure(server, clients[0], before)
        clients[1].half_close()
        clients[2].reset()
        server.assert_no_busy_loop("all its clients wait")


@check("--quiet")
def a_half_close_without_reading_does_not_block_others(server):
    def seconds_to_serve(server):
        with server.serving_others() as assert_serving, contextlib.ExitStack() as stack:
            began = time.perf_counter()
            for kib in (2, 4, 8, 16, 32, 64):  # some fill the client's buffer, and not the server's
                client = stack.enter_context(server.connect(small_buffers=True))
                client.flood(kib * 1024)
                client.half_close()
                assert_serving()
            return time.perf_counter() - began

    seconds = server.fastest_of_three_starts(seconds_to_serve)
    expect(seconds < 1, f"others waited {seconds:.1f} s for clients that half-closed")


@check()
def an_idle_client_does_not_block_others(server):
    with server.serving_others() as assert_serving, server.connect() as slow, server.connect():
        for byte in b"drip":  # slowloris
            slow.request(bytes([byte]))
            assert_serving()


@check("--wait", "0")  # a server of its own: the others run meanwhile
def an_idle_client_stays_connected(server):
    with server.connect() as idle, server.connect() as silent, server.connect() as half_closed:
        idle.request(b"then nothing for a while")
        half_closed.half_close()  # it sends no more, and stays connected
        server.assert_no_busy_loop("its clients are idle", long=True)
        idle.request(b"still here")
        idle.close()
        silent.request(b"still here, too")
        silent.close()
        half_closed.expect_eof()


@check("--quiet", "--compute", "0.0001")  # so that there is always more to receive
def a_flooding_client_does_not_starve_others(server):
    concurrent, received = server.is_concurrent(), 0
    limit = min(16, 4 * server.timeout) * MEBIBYTE  # not of seconds: a busy machine is slower
    with server.connect() as client:
        client.sendall(bytes(MEBIBYTE // 4))  # as much is always on the way
        for part in range(1, 5):
            with server.connect() as new:
                new.sendall(b"let me in")
                while received < part * MEBIBYTE // 4 or (concurrent and not new.has_reply(0)):
                    server.check_deadline()
                    what = f"new clients waited until the flood had {received} bytes of replies"
                    expect(received < limit, what)
                    chunk = client.recv(65536)
                    client.sendall(bytes(len(chunk)))
                    received += len(chunk)


@check("--quiet", "--backlog", "2048")
def a_thousand_idle_connections_stay_open(server):
    count = 1050  # some of them get descriptors above 1,023, which select() does not take
    try:
        most = raise_nofile_limit(count + 100)
    except LaunchError as error:
        raise NotApplicable(str(error)) from error
    for process in server.processes():
        process.rlimit(psutil.RLIMIT_NOFILE, (most, most))
    baseline, concurrent = server.baseline_descriptors(), server.is_concurrent()
    if not concurrent and (limit := accept_queue_limit(2048)) < count:
        raise NotApplicable(f"net.core.somaxconn limits the accept queue to {limit} connections")
    with contextlib.ExitStack() as stack:
        idle = []
        for _ in range(count):
            idle.append(stack.enter_context(server.connect()))
            if concurrent and len(idle) % 64 == 0:  # somaxconn may limit the accept queue
                idle[-1].request(b"I am behind the others in the queue")
        if concurrent:
            what = f"{baseline + count} descriptors"
            server.wait_until(lambda: server.descriptors() >= baseline + count, what)
            for number, client in enumerate(idle):
                client.sendall(b"I am number %d" % number)
            for number, client in enumerate(idle):
                client.expect_greeting(b"I am number %d" % number)
            server.assert_serves_new_client()
        server.assert_no_busy_loop(f"{count} clients are idle")
    server.wait_for_descriptors(baseline)
    server.assert_serves_new_client()
