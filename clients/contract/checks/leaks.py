"""No descriptor, thread, memory or CPU time is spent on clients that have left."""

from clients.contract.errors import check, expect
from clients.contract.probe_client import MEBIBYTE, ProbeClient, noise


@check("--quiet", "--backlog", "100")  # no other check has used memory that this one could use
def no_descriptor_thread_or_memory_leaks(server):
    baseline, batches, hello = server.baseline_descriptors(), 25, b"hello, then good-bye"

    def disconnect_in_each_way(_number=0):
        clients = [server.connect() for _ in range(20)]
        for number, client in enumerate(clients):
            disconnect = (ProbeClient.finish, ProbeClient.close, ProbeClient.reset)[number % 3]
            reads = number % 2 or disconnect is ProbeClient.finish
            client.sendall(hello if reads else noise(0, 3000))
            if reads:
                client.expect_greeting(hello)
            disconnect(client)
        server.wait_for_descriptors(baseline)

    disconnect_in_each_way()  # a thread pool may start now
    before, children = server.threads(), server.process.children
    most = len(children()) + 20  # a process that has ended is a child until its parent reads how
    grown = growth(server, batches, disconnect_in_each_way)
    server.wait_until(lambda: server.threads() <= before, f"{before} threads, as before")
    what = f"at most {most} child processes, ended ones too"
    server.wait_until(lambda: len(children()) <= most, what)
    connections = batches * 20
    expect(grown <= MEBIBYTE, f"after {connections} connections, memory has grown by {grown} bytes")


@check("--quiet")
def memory_does_not_grow_with_messages(server):
    count = round(2048 * server.load)
    with server.connect() as client:
        grown = growth(server, count, lambda number: client.request(b"%04d" % number * 256))
    expect(grown <= MEBIBYTE // 4, f"after {count:,} messages, memory has grown by {grown} bytes")


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
