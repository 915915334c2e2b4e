"""No descriptor, thread, memory or CPU time is spent on clients that have left."""

from clients.contract.errors import check, expect
from clients.contract.probe_client import MEBIBYTE, ProbeClient, noise


@check("--quiet", "--backlog", "100")  # no other check has used memory that this one could use
def no_descriptor_thread_or_memory_leaks(server):
    baseline, hello = server.baseline_descriptors(), b"hello, then good-bye"

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

    disconnect_in_each_way()
    children = server.process.children
    most = len(children()) + 20  # a process that has ended is a child until its parent reads how
    assert_no_growth(server, 25, disconnect_in_each_way, MEBIBYTE, "500 connections")
    what = f"at most {most} child processes, ended ones too"
    server.wait_until(lambda: len(children()) <= most, what)


@check("--quiet")
def memory_does_not_grow_with_messages(server):
    count = round(2048 * server.load)
    with server.connect() as client:

        def ask(number):
            client.request(b"%04d" % number * 256)

        assert_no_growth(server, count, ask, MEBIBYTE // 4, f"{count:,} messages")


def assert_no_growth(server, times, use, limit, what):
    """Expect that times calls of use(number) make the server grow by limit bytes and 4 threads.

    What is allocated once, as a thread pool, may make it grow by more, but not three times.
    """
    for number in range(times // 5):  # it has then allocated most of what it always needs
        use(number)
    least = least_threads = float("inf")
    for _ in range(3):
        memory, threads = server.memory(), server.threads()
        for number in range(times):
            use(number)
        least = min(least, server.memory() - memory)
        least_threads = min(least_threads, server.threads() - threads)
        if least <= limit and least_threads <= 4:
            return
    grown = f"each time by at least {least} bytes and {least_threads} threads"
    expect(False, f"three times {what} made it grow, {grown}")


@check()
def an_idle_server_uses_no_cpu(server):
    server.assert_no_busy_loop("no client is connected")
