"""A client affects the others no more than the model itself makes it."""

import contextlib

import psutil

from clients.contract.errors import NotApplicable, check, expect
from clients.contract.probe_client import MEBIBYTE
from clients.system.processes import LaunchError, raise_nofile_limit
from clients.system.procfs import accept_queue_limit


@check("--quiet", "--backlog", "2048")
def a_reset_before_the_first_byte_ends_one_connection(server):
    reset_thousands(server, b"")


def reset_thousands(server, message):
    """Reset 2,000 connections after message, or more than a pool has threads to lose."""
    for batch in range(round(50 * server.load)):
        for _ in range(40 if batch else 1):
            client = server.connect()
            client.sendall(message)
            client.reset()
        server.assert_serves_new_client()


@check("--quiet", "--backlog", "2048")
def a_reset_after_the_first_byte_ends_one_connection(server):
    with server.connect() as bystander:
        bystander.request(b"I stay")
        for number in range(5):
            client = server.connect()
            client.sendall(b"I go")
            if number % 2:
                client.has_reply(0.1)  # the reset comes after the reply, or before
            client.reset()
        bystander.request(b"still here")
    reset_thousands(server, b"I go")


@check("--quiet")
def a_reset_during_a_reply_ends_one_connection(server):
    baseline = server.baseline_descriptors()
    client = server.connect(small_buffers=True)
    client.flood(16 * MEBIBYTE)
    client.reset()
    for _ in range(3):
        server.assert_serves_new_client()
    server.wait_for_descriptors(baseline)
    server.assert_no_busy_loop("the client has reset its connection")


@check()
def a_close_with_unread_replies_ends_one_connection(server):
    for _ in range(10):
        with server.connect() as client:
            # Three chunks: the client's kernel answers the first reply with a reset, and the next
            # send() fails (EPIPE).
            client.sendall(b"no need to answer " * 150)
    server.assert_serves_new_client()


@check("--quiet")
def a_client_that_never_reads_meets_backpressure(server):
    before = server.memory()
    with server.serving_others() as assert_serving, server.connect() as client:
        sent = client.flood(16 * MEBIBYTE)
        grown = server.memory() - before
        what = f"after {len(sent)} unread bytes, memory has grown by {grown} bytes"
        expect(grown <= 8 * MEBIBYTE, what)
        server.assert_no_busy_loop("a client does not read")
        assert_serving()


@check()
def an_idle_client_does_not_block_others(server):
    with server.serving_others() as assert_serving, server.connect(), server.connect():
        assert_serving()


@check()
def an_idle_client_stays_connected(server):
    with server.connect() as idle, server.connect() as silent:
        idle.request(b"then nothing for a while")
        server.assert_no_busy_loop("its clients are idle", periods=4)
        idle.request(b"still here")
        idle.close()
        silent.request(b"still here, too")


@check()
def a_slowloris_client_does_not_block_others(server):
    with server.serving_others() as assert_serving, server.connect() as client:
        for byte in b"drip":
            client.request(bytes([byte]))
            assert_serving()


@check("--quiet", "--compute", "0.0002")  # so that there is always more to receive
def a_flooding_client_does_not_starve_others(server):
    limit = 16 * MEBIBYTE  # of bytes, not seconds: on a busy machine all of this is slower
    with server.serving_others() as assert_serving, server.connect() as client:
        with client.flood_in_background(limit) as bytes_received:
            server.wait_until(lambda: bytes_received() > MEBIBYTE // 2, "replies to the flood")
            assert_serving()
            received = bytes_received()
            what = f"new clients waited until the flood had {received} bytes of replies"
            expect(received < limit, what)


@check("--quiet", "--backlog", "2048")
def simultaneous_clients_are_all_greeted(server):
    concurrent = server.is_concurrent()
    with contextlib.ExitStack() as stack:
        with server.sigstopped():  # so that all of them are in the accept queue
            clients = [stack.enter_context(server.connect()) for _ in range(8)]
            for number, client in enumerate(clients):
                client.sendall(b"client %d" % number)
        for number, client in enumerate(clients):
            client.expect_greeting(b"client %d" % number)
            if not concurrent:
                client.close()  # the server then accepts the next one


@check("--quiet", "--backlog", "2048")
def a_thousand_idle_connections_stay_open(server):
    count = 1050  # some of them get descriptors above 1,023, which select() does not take
    try:
        most = raise_nofile_limit(count + 100)
    except LaunchError as error:
        raise NotApplicable(str(error)) from error
    for process in server.processes():
        process.rlimit(psutil.RLIMIT_NOFILE, (most, most))
    baseline = server.baseline_descriptors()
    concurrent = server.is_concurrent()
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
            for client in idle[:: count // 10]:
                client.request(b"I wake up")
            server.assert_serves_new_client()
        server.assert_no_busy_loop(f"{count} clients are idle")
    server.wait_for_descriptors(baseline)
    server.assert_serves_new_client()
