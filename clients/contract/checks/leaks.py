"""No descriptor, thread, memory or CPU time is spent on clients that have left."""

from clients.contract.errors import check, expect
from clients.contract.probe_client import MEBIBYTE, ProbeClient


@check("--quiet", "--backlog", "2048")
def no_descriptor_or_thread_leaks(server):
    baseline = server.baseline_descriptors()
    hello = b"hello, then good-bye"

    def disconnect_in_each_way():
        for disconnect in (ProbeClient.close, half_close_and_read, ProbeClient.reset):
            clients = [server.connect() for _ in range(20)]
            for client in clients:
                client.sendall(hello)
            for client in clients:
                disconnect(client)
        server.wait_for_descriptors(baseline)

    def half_close_and_read(client):
        with client:
            client.half_close()
            client.expect_greeting(hello)
            client.expect_eof()

    disconnect_in_each_way()  # a thread pool may start now
    before = server.threads()
    disconnect_in_each_way()
    server.wait_until(lambda: server.threads() <= before, f"{before} threads, as before")


@check("--quiet")
def memory_does_not_grow_with_messages(server):
    count = round(2048 * server.load)
    with server.connect() as client:
        grown = growth(server, count, lambda number: client.request(b"%04d" % number * 256))
    expect(grown <= MEBIBYTE // 4, f"after {count:,} messages, memory has grown by {grown} bytes")


@check("--quiet")
def memory_does_not_grow_with_connections(server):
    def visit(number):
        client = server.connect()
        client.request(b"hello, then good-bye")
        client.close() if number % 2 else client.reset()

    grown = growth(server, 500, visit)
    expect(grown <= MEBIBYTE, f"after 500 connections, memory has grown by {grown} bytes")


def growth(server, count, use):
    """Return by how many bytes count calls of use(number) make the memory of the server grow."""
    for number in range(-count // 5, count):
        if number == 0:  # it has allocated what it always needs
            before = server.memory()
        use(abs(number))
    return server.memory() - before


@check()
def an_idle_server_uses_no_cpu(server):
    server.assert_no_busy_loop("no client is connected")
    with server.connect() as silent, server.connect() as speaker:
        silent.request(b"I was first")
        speaker.half_close()  # it sends no more, and stays connected
        server.assert_no_busy_loop("its clients are idle")
