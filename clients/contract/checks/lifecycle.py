"""The program itself: its first line, its options, its log, and its end."""

import contextlib
import errno
import os
import re
import signal
import socket
import subprocess
import time

import psutil

from clients.client import LONGEST
from clients.console.bounded_log import BoundedLog
from clients.contract.errors import NotApplicable, check, expect, expect_equal, last_exception
from clients.contract.probe_client import MEBIBYTE, ProbeClient
from clients.system.processes import LISTENING, command, spawn, tail
from clients.system.procfs import accept_queue_limit, socket_fds, tcp_sockets


@check(alone=True)  # a new server: it serves at once
def its_first_line_is_the_listening_address(server):
    line, port = server.output[0], server.address[1]
    what = f'the first line on standard output is {line!r:.200}, not "listening on ..."'
    expect(LISTENING.match(line.rstrip()), what)
    inodes = {inode for process in server.processes() for inode in socket_fds(process.pid)}
    listeners = {line.inode for line in tcp_sockets(port) if line.state == "LISTEN"}
    what = f"it reports that it listens on port {port}, but another program does"
    expect(inodes & listeners or not listeners, what)

    def seconds_to_serve(server):
        began = time.perf_counter()
        for _ in range(8):
            server.assert_serves_new_client()
        return time.perf_counter() - began

    seconds = server.fastest_of_three_starts(seconds_to_serve)
    expect_equal("all of standard output", [line], server.output)
    what = f"it served {seconds:.1f} s after its first line: print it when everything has started"
    expect(seconds < 1, what)


@check()
def its_defaults_are_127_0_0_1_port_3267_backlog_5(server):
    expect_equal("the host without --host", "127.0.0.1", server.address[0])
    # All of 127.0.0.0/8 is this machine; an address that no other test uses at this moment:
    address = "127.3.%d.%d" % divmod(server.address[1], 256), 3267
    try:
        socket.create_server(address).close()
    except OSError as error:
        raise NotApplicable(f"port 3267 is in use: {error}") from error
    with server.restart("--host", address[0], port=None) as default:
        expect_equal("the address without --port", address, default.address)
        assert_backlog(default, 5)


@check("--host", "localhost", "--backlog", "20")
def it_obeys_host_and_backlog(server):
    server.assert_serves_new_client()
    assert_backlog(server, 20)


def assert_backlog(server, backlog):
    """Expect that its accept queue holds as many connections as listen(2) promises."""
    with server.sigstopped(), contextlib.ExitStack() as stack:
        for _ in range(backlog + 5):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(server.address)
        limit = accept_queue_limit(backlog)
        what = f"{limit} connections in the accept queue"
        queues = server.wait_until(
            lambda: sum(found := server.accept_queues()) >= limit and found, what
        )
    if len(queues) > 1:
        raise NotApplicable("it listens with several sockets, and each has an accept queue")
    expect_equal(f"connections in the accept queue with a backlog of {backlog}", limit, queues[0])


@check()
def it_logs_connections_messages_and_byte_counts(server):
    concurrent, others = server.is_concurrent(), set()

    def assert_logged(part, port, what):
        """Expect a line with part, and no such line that names another client instead."""
        word = re.compile(rf"(?<![\w-]){part}\b")
        server.wait_until(lambda: word.search(server.log()), f"the log has {what}")
        for line in filter(word.search, server.log().splitlines()):
            numbers = set(re.findall(r"\d+", line))
            also = f"logged for another client: {what}: {line!r:.200}"
            expect(port in numbers or not numbers & others, also)

    # Text in no one encoding; and sums that are no port, no part of a time, and have over 16 bits.
    for letters, disconnect in (
        (b"seventeen letters", ProbeClient.close),
        (b"and half a farewell", ProbeClient.finish),
        (b"thirteen more", ProbeClient.reset),
    ):
        messages = [b"h\xe9llo", "\u4f60\u597d".encode(), letters, *[letters[:1] * LONGEST] * 69]
        with server.connect() as client, contextlib.ExitStack() as stack:
            port, size = str(client.getsockname()[1]), sum(map(len, messages))
            assert_logged(port, port, f"client {port}")  # before its first message
            if concurrent:
                another = stack.enter_context(server.connect())
                others.add(str(another.getsockname()[1]))
            for message in messages:
                client.request(message)
                if concurrent:
                    another.request(b"and I")
            what = f"{letters!r}, a message of client {port}"
            assert_logged(letters.decode(), port, what)
            disconnect(client)
            what = f"{size}, the sum of bytes of client {port}, after its {disconnect.__name__}()"
            assert_logged(pattern_of(size), port, what)
        others.add(port)


def pattern_of(size):
    """Return a pattern for a number whose thousands may be grouped."""
    return f"{size:,}".replace(",", "[,_' ]?")


@check()
def it_logs_a_reset_as_a_reset(server):
    def disconnecting(disconnect):
        client = server.connect()
        client.request(b"good-bye")
        port, begin = str(client.getsockname()[1]), len(server.log())
        disconnect(client)
        return lambda: [line for line in server.log()[begin:].splitlines() if port in line]

    def shape(lines):  # without the numbers
        return {re.sub(r"\d+", "#", line) for line in lines}

    usual = disconnecting(ProbeClient.close)
    server.wait_until(usual, "a line in the log about a client that has left")
    reset = disconnecting(ProbeClient.reset)
    server.wait_until(
        lambda: shape(reset()) - shape(usual()),
        "a line in the log for a reset that an ordinary close does not get",
    )


@check("--quiet")
def it_logs_nothing_with_quiet(server):
    server.assert_serves_new_client()
    server.connect().reset()
    server.assert_serves_new_client()
    expect_equal("the log with --quiet", "", server.log())


@check("--wait", "0.3")
def the_wait_option_only_sleeps(server):
    concurrent, before = server.is_concurrent(), server.cpu_seconds()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(3 if concurrent else 1)]
        for words in (b"first of %d", b"second of %d"):
            began = time.perf_counter()
            for number, client in enumerate(clients):
                client.sendall(words % number)
            for number, client in enumerate(clients):
                client.expect_greeting(words % number)
                waited = time.perf_counter() - began
                expect(waited >= 0.3, f"--wait 0.3: a reply after {waited:.3f} s")
                used = server.cpu_seconds() - before
                expect(used <= 0.2, f"--wait 0.3: used {used:.2f} s of CPU time, as if it computed")
    with server.connect() as client:
        port, message = str(client.getsockname()[1]), b"waits " * 170
        client.sendall(message)
        server.wait_until(lambda: "waits waits" in server.log(), "the log has a message")
        client.reset()  # its reply has not been sent
    size = len(message)
    line = re.compile(rf"\b{port}\b.*\b{pattern_of(size)}\b")
    what = f"{size}, the sum of bytes of client {port}, after a reset during --wait"
    server.wait_until(lambda: line.search(server.log()), f"the log has {what}")


@check("--compute", "0.05")
def the_compute_option_uses_cpu(server):
    assert_computes(server)
    with server.restart(*server.options, "--wait", "0.3") as waiting:
        seconds = assert_computes(waiting)
        expect(seconds >= 0.3, f"--wait 0.3 --compute 0.05: a reply after {seconds:.3f} s")


def assert_computes(server):
    """Expect 0.05 s of CPU time for each reply; return the seconds of the last ones.

    A server that serves two clients has two replies to compute at the same time.
    """
    with server.connect() as first, server.connect() as second:  # so that their processes live
        first.request(b"prepare")
        second.sendall(b"compute")
        clients = [first, second] if second.has_reply() else [first]
        for client in clients[1:]:
            client.expect_greeting(b"compute")
        for _ in range(2):
            before, began = server.cpu_seconds(), time.perf_counter()
            for client in clients:
                client.sendall(b"compute")
            for client in clients:
                client.expect_greeting(b"compute")
            seconds, used = time.perf_counter() - began, server.cpu_seconds() - before
            what = f"{used:.2f} s of CPU time for {len(clients)} replies at the same time"
            what = f"{' '.join(map(str, server.options))}: used only {what}"
            expect(used >= 0.04 * len(clients), what)
    return seconds


@check(alone=True)
def ctrl_c_ends_it(server):
    assert_ends(server, signal.SIGINT)


@check(alone=True)
def sigterm_ends_it(server):
    assert_ends(server, signal.SIGTERM)


@check("--wait", "3600", "--compute", "3600")
def a_signal_ends_it_during_a_request(server):
    assert_ends(server, signal.SIGTERM)


def assert_ends(server, signal_number):
    """Expect exit status 0 within a second of a signal, no traceback, and no process left."""

    def has_gone(server):
        with socket.socket() as sock:
            sock.settimeout(1)
            is_closed = sock.connect_ex(server.address) == errno.ECONNREFUSED
        return is_closed and not server.processes()

    def seconds_to_end(server):
        with (
            server.connect() as active,
            server.connect(),
            server.connect(small_buffers=True) as flooding,  # it never reads
        ):
            active.sendall(b"hello")
            active.has_reply(0.2)
            flooding.flood(8 * MEBIBYTE)
            began = time.perf_counter()
            status = end_by(server, signal_number)
            seconds = time.perf_counter() - began
            log, after = server.log(), f"after {signal_number.name}:"
            exception = last_exception(log)
            expect(not exception, f"{after} a traceback in the log: {exception}")
            expect(status == 0, f"{after} exit status {status}, the end of its log: {tail(log)}")
            what = f"{after} all its processes ended and its port closed"
            server.wait_until(lambda: has_gone(server), what)
        return seconds

    seconds = server.fastest_of_three_starts(seconds_to_end)
    expect(seconds < 1, f"it took {seconds:.1f} s to end after {signal_number.name}")


def end_by(server, signal_number):
    """Send a signal, wait until the server ends, and return its exit status."""
    server.process.send_signal(signal_number)
    what = f"the end of the server after {signal_number.name}"
    server.wait_until(lambda: server.process.poll() is not None, what)
    return server.process.returncode


@check()
def it_ends_while_its_log_is_not_read(server):
    read, write = os.pipe()
    with open(read), open(write), started(server, stderr=write) as (process, output):
        found = server.wait_until(lambda: LISTENING.search(output.text()), "its first line")
        host, port = found.groups()
        with socket.create_connection((host, int(port)), server.quiet_period) as client:
            with contextlib.suppress(OSError):  # a full pipe blocks it, and so the client
                for _ in range(200):
                    client.sendall(b"x" * 1024)
                    client.recv(2048)
            ours = os.open(f"/proc/self/fd/{write}", os.O_WRONLY | os.O_NONBLOCK)
            with open(ours, "wb", buffering=0) as pipe:
                while pipe.write(b"."):  # until it has no room for a single byte
                    pass
            process.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(server.timeout)
            what = "the exit status after SIGTERM, with a log that nobody reads (None: it runs)"
            expect_equal(what, 0, process.returncode)


@contextlib.contextmanager
def started(server, *options, **streams):
    """Start the program again; yield the process, and the output of each stream that is a pipe."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **streams}
    with spawn(command(server.program, "--port", 0, *options), **pipes) as process:
        yield process, *map(BoundedLog, filter(None, (process.stdout, process.stderr)))


@check(alone=True)
def it_can_restart_on_the_same_port_at_once(server):
    with server.connect() as client:
        client.request(b"hello")
        end_by(server, signal.SIGTERM)
        client.has_reply()  # end of file: the server closed first, and has the TIME-WAIT
    with server.restart(port=server.address[1]) as restarted:
        restarted.assert_serves_new_client()


@check()
def bad_options_get_one_clear_line(server):
    bad = {
        "--port": (server.address[1], 65536, -1, "x"),  # the first one is in use
        "--host": ("192.0.2.1", "no such host", ""),  # RFC 5737: no machine has this address
        "--backlog": ("many",),
        "--wait": (-0.1, 3600.5, "nan"),
        "--compute": (-0.1, 3600.5, "long"),
        "--nonsense": ("x",),
    }
    for option, values in bad.items():
        for value in values:
            assert_rejects(server, option, value)


def assert_rejects(server, option, value):
    """Expect that the program ends with one line on standard error and an exit status not 0."""
    server.check_deadline()
    with started(server, option, value, stderr=subprocess.PIPE) as (process, *outputs):
        what = f"{option} {value}: expected one line on standard error and an exit status not 0, "
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(server.timeout)
        expect(process.returncode is not None, f"{what}but it still runs")
        out, err = (output.text(last=1000) for output in outputs)
    correct = process.returncode and not out and re.fullmatch(r"\S.*\n", err)
    expect(correct, f"{what}got {process.returncode} and {out + err!r}")
