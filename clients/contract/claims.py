"""What every greeting server owes its clients, one claim a function.

A claim takes a running server (launch.Server) and raises Broken when the server does not
keep it, with what was sent, expected and received. It raises NotApplicable, with the reason,
where the claim has no meaning for this server or cannot be tried on this machine.

The address and the process are all that a claim uses, so it holds for any program in any
language. It waits for what must happen (PATIENCE), never for a set time, and never longer
than it must: a busy machine makes it slow, not wrong. Some claims watch for a set time that
something does *not* happen; there a busy machine can only hide a fault, never invent one.
"""

import contextlib
import os
import re
import resource
import select
import shlex
import signal
import socket
import subprocess
import time

import psutil
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from clients.client import LONGEST, PREFIX, Client
from clients.system.kernel import tcp
from clients.system.launch import LISTENING, LaunchError, command, make_room, running, started
from clients.system.sockets import reset_on_close

PATIENCE = 20.0  # seconds within which what must happen has to happen
A_WHILE = 1.0  # seconds for which something must not happen
MEBIBYTE = 2**20

CLAIMS = []


class Broken(AssertionError):
    """The server did not keep a claim."""


class NotApplicable(Exception):
    """The claim has no meaning for this server, or cannot be tried on this machine."""


def claim(*options):
    """Register a claim; its server is to be started with these options."""

    def register(function):
        function.options = options
        CLAIMS.append(function)
        return function

    return register


def hold(program, function, *options):
    """Start program as the claim wants it, with more options if any, and hold it to the claim."""
    limits = {"patience": PATIENCE, "grace": PATIENCE / 4}
    try:
        with running(program, *function.options, *options, **limits) as server:
            function(server)
    except LaunchError as error:
        raise Broken(str(error)) from error
    except OSError as error:  # the claim expects every connection to succeed
        raise Broken(f"a connection failed: {error}") from error
    except psutil.Error as error:
        raise Broken(f"the server has ended: {error}") from error


# Tools of the claims


def connect(server):
    """Return a plain socket, connected to server."""
    return socket.create_connection(server.address, PATIENCE)


def reset(sock):
    """Close sock with a reset (RST) instead of the four steps of a normal close."""
    reset_on_close(sock)
    sock.close()


def read(sock, size):
    """Return the next size bytes from sock, or fewer where the stream ends before."""
    received = bytearray()
    while len(received) < size:
        try:
            chunk = sock.recv(min(65536, size - len(received)))
        except OSError as error:
            got = f"{len(received)} ({bytes(received)!r:.100})"
            raise Broken(f"expected the end or {size} bytes, received {got}: {error}") from error
        if not chunk:
            break
        received += chunk
    return bytes(received)


def read_all(sock, sent, received=b""):
    """Return received and all that follows until the stream ends, in answer to sent.

    An answer is at most eight times as long as what was sent, with each byte greeted alone; no
    more than one byte beyond that is read from a server that does not end.
    """
    return received + read(sock, len(sent) * (len(PREFIX) + 1) + 1 - len(received))


def read_answers(sock, sent):
    """Return the answers to sent, which does not hold "Hello, ", however recv() has cut it."""
    received = read(sock, len(sent))
    while (missing := len(sent) + len(PREFIX) * received.count(PREFIX) - len(received)) > 0:
        more = read(sock, missing)
        received += more
        if len(more) < missing:  # the stream has ended
            break
    return received


def expect_the_end(sock):
    """Expect that the server closes its side of sock, and says nothing before."""
    try:
        received = sock.recv(1)
    except OSError as error:
        raise Broken(f"expected the server to close the connection: {error}") from error
    expect(b"", b"", received)


def expect(sent, expected, received):
    """Raise Broken unless the server answered what it should."""
    if received != expected:
        raise Broken(f"sent {sent!r:.200}, expected {expected!r:.200}, received {received!r:.200}")


def say(sock, message):
    """Send message over sock and expect the greeting."""
    try:
        sock.sendall(message)
    except OSError as error:
        raise Broken(f"sending {message!r:.200}: {error}") from error
    expect(message, PREFIX + message, read(sock, len(PREFIX + message)))


def visit(server, message=b"next, please"):
    """Expect that a new client is greeted."""
    try:
        with Client(*server.address, PATIENCE) as client:
            client.greet(message)
    except (OSError, ValueError) as error:
        raise Broken(f"a new client was not served: {error}") from error


def welcomes(server):
    """Say whether server greets a new client."""
    try:
        visit(server)
    except Broken:
        return False
    return True


def eventually(condition, what):
    """Wait until condition() holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise Broken(f"not within {PATIENCE} s: {what}")
        time.sleep(0.005)


def answered(sock, seconds=A_WHILE):
    """Say whether there is something to read from sock within so many seconds."""
    return bool(select.select([sock], [], [], seconds)[0])


def serves_together(server):
    """Say whether server greets a second client while the first one is still there."""
    with connect(server) as first, connect(server) as second:
        say(first, b"first")
        second.sendall(b"second")
        return answered(second)


def others_are_served(server, together):
    """Expect that newcomers are greeted while somebody else is there, if the model can do that."""
    for _ in range(3 if together else 0):
        visit(server)


def explain(sent, received):
    """Raise Broken unless received is sent, cut into chunks of 1 to 1,024 bytes, each greeted.

    Where the server's recv() cut the stream is not known, and sent may itself hold "Hello, ",
    so every place where the next greeting could begin is tried.
    """
    todo, seen = [(0, 0)], set()
    while todo:
        used, at = todo.pop()
        if (used, at) == (len(sent), len(received)):
            return
        if (used, at) in seen or not received.startswith(PREFIX, at):
            continue
        seen.add((used, at))
        start = end = at + len(PREFIX)
        while end < len(received):
            end = received.find(PREFIX, end + 1)
            end = len(received) if end < 0 else end
            size = end - start
            if size > LONGEST or received[start:end] != sent[used : used + size]:
                break
            todo.append((used + size, end))
    raise Broken(
        f"sent {len(sent)} bytes ({sent!r:.100}), received {len(received)} ({received!r:.100}), "
        "which are not the greetings of all its pieces in order"
    )


def flood(sock, most):
    """Send up to most bytes and read nothing; stop when nothing could be sent for A_WHILE."""
    numbers = b"".join(b"%07d " % number for number in range(MEBIBYTE // 8))
    sent = 0
    while sent < most and select.select([], [sock], [], A_WHILE)[1]:
        # MSG_DONTWAIT: send() would wait until there is room for all of it
        at = sent % MEBIBYTE
        sent += sock.send(numbers[at : min(len(numbers), at + most - sent)], socket.MSG_DONTWAIT)
    return (numbers * (1 + sent // MEBIBYTE))[:sent]


def processes(server):
    """Return the server's process and all that it has started: some models fork."""
    return [server.process, *server.process.children(recursive=True)]


def total(server, measure):
    """Return the sum of measure(process) over all processes of server."""
    numbers = []
    for process in processes(server):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            numbers.append(measure(process))
    return sum(numbers)


def spent(server):
    """Return the seconds of CPU time that server has used (to 0.01 s)."""
    return total(server, lambda process: sum(process.cpu_times()[:2]))


def descriptors(server):
    """Return how many descriptors server has open."""
    return total(server, psutil.Process.num_fds)


def threads(server):
    """Return how many threads server has."""
    return total(server, psutil.Process.num_threads)


def memory(server):
    """Return the bytes of memory that server has for itself, without what processes share."""
    return total(server, lambda process: process.memory_full_info().uss)


def calm(server, what):
    """Expect that server uses next to no CPU time for A_WHILE."""
    before = spent(server)
    time.sleep(A_WHILE)
    used = spent(server) - before
    if used > A_WHILE / 10:
        raise Broken(f"{used:.2f} s of CPU time in {A_WHILE} s although {what}")


def descriptors_at_rest(server):
    """Return how many descriptors server has open when no client is there."""
    with connect(server) as sock:
        say(sock, b"you have opened all that you need for yourself")
        return descriptors(server) - 1


def lowest_free_descriptor(process):
    """Return the number that the next file of process would get."""
    held = {int(fd) for fd in os.listdir(f"/proc/{process.pid}/fd")}
    return min({*range(len(held) + 1)} - held)


def settle(server, most):
    """Wait until server is back at so many open descriptors."""
    eventually(lambda: descriptors(server) <= most, f"back at {most} open descriptors")


@contextlib.contextmanager
def frozen(server):
    """Stop server for as long as the block lasts: its kernel goes on, and it accepts nobody."""
    stopped = processes(server)
    try:
        for process in stopped:
            process.suspend()
        eventually(
            lambda: all(process.status() == psutil.STATUS_STOPPED for process in stopped),
            "a server stopped by SIGSTOP",
        )
        yield
    finally:
        for process in stopped:
            process.resume()


def accept_queues(address):
    """Return how many connections wait in the accept queue of each listener at address."""
    listeners = [line for line in tcp(address[1]) if line.state == "LISTEN"]
    return [line.unread for line in listeners if line.local == address]


# Every byte is greeted, in order


@claim()
def each_message_is_greeted(server):
    with connect(server) as sock:
        for message in (b"bob", b"x", b"\0", b"Hello, ", "\u4f60\u597d".encode(), b"y" * LONGEST):
            say(sock, message)


@claim("--quiet")
def any_bytes_cut_anyhow_come_back_whole_and_in_order(server):
    short = st.binary(min_size=1, max_size=40)
    long = st.builds(bytes.__mul__, short, st.integers(20, 100))
    pieces = st.lists(st.tuples(short | long, st.booleans()), max_size=6)

    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @example([(bytes(range(256)) * 8, True), (b"Hello, " * 200, False)])
    @given(pieces)
    def talk(pieces):
        sent, received = b"", b""
        with connect(server) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for data, wait_for_answer in pieces:
                sock.sendall(data)
                sent += data
                if wait_for_answer:
                    received += read(sock, len(sent) + len(PREFIX) - len(received))
            sock.shutdown(socket.SHUT_WR)
            received = read_all(sock, sent, received)
        explain(sent, received)

    try:
        talk()
    except Flaky as error:  # the same bytes, but cut elsewhere by the network this time
        raise Broken(f"answered wrongly, though not every time: {error}") from error


@claim("--quiet")
def a_slow_reader_gets_every_byte(server):
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(PATIENCE)
        sock.connect(server.address)
        sent = flood(sock, 8 * MEBIBYTE)
        received = read_answers(sock, sent)
        calm(server, "a slow reader has read all its answers, and is silent")
        sock.sendall(b"more")
        sock.shutdown(socket.SHUT_WR)
        explain(sent + b"more", read_all(sock, sent + b"more", received))


@claim()
def what_came_before_a_half_close_is_answered(server):
    for _ in range(10):  # now and then the server is faster than the half-close
        with connect(server) as sock:
            sock.sendall(b"last words")
            sock.shutdown(socket.SHUT_WR)
            expect(b"last words", PREFIX + b"last words", read_all(sock, b"last words"))


@claim()
def it_closes_when_the_client_says_no_more(server):
    with connect(server) as sock:
        sock.shutdown(socket.SHUT_WR)
        expect_the_end(sock)
    visit(server)


# No client costs the others more than the model itself does


@claim()
def a_reset_before_the_first_byte_ends_one_connection(server):
    together = serves_together(server)
    for _ in range(10):
        reset(connect(server))
        others_are_served(server, together)
    visit(server)


@claim()
def a_reset_after_the_first_byte_ends_one_connection(server):
    with contextlib.ExitStack() as stack:
        bystander = stack.enter_context(connect(server))
        say(bystander, b"I stay")
        for number in range(5):
            sock = connect(server)
            sock.sendall(b"I go")
            if number % 2:
                answered(sock, 0.1)  # the reset comes after the answer, or before
            reset(sock)
        say(bystander, b"still here")
    visit(server)


@claim("--quiet")
def a_reset_in_the_middle_of_an_answer_ends_one_connection(server):
    at_rest = descriptors_at_rest(server)
    together = serves_together(server)
    sock = connect(server)
    flood(sock, 64 * MEBIBYTE)
    reset(sock)
    others_are_served(server, together)
    settle(server, at_rest)
    calm(server, "the client has broken off")


@claim()
def a_client_that_leaves_with_answers_unread_ends_one_connection(server):
    for _ in range(10):
        with connect(server) as sock:
            # Three chunks: the answer to the first makes the client's kernel send a reset, and
            # the next answer meets it (EPIPE).
            sock.sendall(b"no need to answer " * 150)
    visit(server)


@claim("--quiet")
def a_client_that_never_reads_costs_no_memory_and_no_service(server):
    together = serves_together(server)
    before = memory(server)
    with connect(server) as sock:
        sent = flood(sock, 64 * MEBIBYTE)
        grown = memory(server) - before
        if grown > 8 * MEBIBYTE:
            raise Broken(f"sent {len(sent)} bytes and read nothing: memory grew by {grown} bytes")
        calm(server, "a client does not read")
        others_are_served(server, together)
    visit(server)


@claim()
def a_client_that_never_speaks_costs_no_service(server):
    together = serves_together(server)
    with connect(server), connect(server):
        others_are_served(server, together)
    visit(server)


@claim()
def a_client_that_drips_costs_no_service(server):
    together = serves_together(server)
    with connect(server) as sock:
        for byte in b"drip":
            say(sock, bytes([byte]))
            others_are_served(server, together)
    visit(server)


@claim("--quiet", "--backlog", "1024")
def a_thousand_idle_clients_are_kept(server):
    crowd = 1000
    try:
        most = make_room(crowd + 100)
    except LaunchError as error:
        raise NotApplicable(str(error)) from error
    for process in processes(server):
        process.rlimit(psutil.RLIMIT_NOFILE, (most, most))
    before = descriptors_at_rest(server)
    together = serves_together(server)
    with contextlib.ExitStack() as stack:
        idlers = [stack.enter_context(connect(server)) for _ in range(crowd)]
        if together:
            expected = before + crowd
            eventually(lambda: descriptors(server) >= expected, f"{expected} descriptors")
            for idler in idlers[:: crowd // 10]:
                say(idler, b"I wake up")
        others_are_served(server, together)
        calm(server, f"{crowd} clients are idle")
    settle(server, before)
    visit(server)


# Nothing is left behind


@claim("--quiet", "--backlog", "100")
def no_descriptor_and_no_thread_is_left_behind(server):
    at_rest = descriptors_at_rest(server)
    hello = b"hello, then good-bye"

    def leave_in_every_way():
        for leave in (socket.socket.close, half_close, reset):
            guests = [connect(server) for _ in range(20)]
            for guest in guests:
                guest.sendall(hello)
            for guest in guests:
                leave(guest)
        settle(server, at_rest)

    def half_close(sock):
        with sock:
            sock.shutdown(socket.SHUT_WR)
            read_all(sock, hello)

    leave_in_every_way()  # a pool may start its threads now and keep them
    before = threads(server)
    leave_in_every_way()
    eventually(lambda: threads(server) <= before, f"{before} threads, as before")


@claim("--quiet")
def what_was_answered_is_forgotten(server):
    with connect(server) as sock:
        for number in range(4096):
            if number == 100:  # by now it has what it needs in any case
                before = memory(server)
            say(sock, b"%04d" % number * (LONGEST // 4))
        grown = memory(server) - before
    if grown > 2 * MEBIBYTE:
        raise Broken(f"4 MiB were said, greeted and read: memory grew by {grown} bytes")


@claim()
def an_idle_server_uses_no_cpu(server):
    calm(server, "nobody is there")
    with connect(server) as silent, connect(server) as speaker:
        silent.sendall(b"I was first")
        expect(b"I was first", PREFIX + b"I was first", read(silent, 18))
        speaker.shutdown(socket.SHUT_WR)  # it says no more, but does not leave
        calm(server, "its clients are silent")


# Where the machine ends


@claim("--quiet", "--backlog", "50")
def out_of_descriptors_it_serves_on(server):
    if not serves_together(server):
        raise NotApplicable("it serves one client at a time, and needs one descriptor for it")
    for process in processes(server):
        highest = max(int(fd) for fd in os.listdir(f"/proc/{process.pid}/fd"))
        process.rlimit(psutil.RLIMIT_NOFILE, (highest + 6, 4096))
    overcrowd(server)


@claim("--quiet")
def without_a_descriptor_for_the_first_it_waits(server):
    settle(server, descriptors_at_rest(server))
    lowest = {process: lowest_free_descriptor(process) for process in processes(server)}
    limits = {process: process.rlimit(psutil.RLIMIT_NOFILE) for process in lowest}
    with connect(server) as sock:
        say(sock, b"now you do not sleep in accept(), which has a descriptor in hand")
        for process, first_free in lowest.items():
            process.rlimit(psutil.RLIMIT_NOFILE, (first_free, limits[process][1]))
    with connect(server) as sock:
        sock.sendall(b"let me in")
        eventually(server.log, "a warning in the log: nobody can be accepted")
        calm(server, "it has no descriptor for the newcomer")
        for process, limit in limits.items():
            process.rlimit(psutil.RLIMIT_NOFILE, limit)
        expect(b"let me in", PREFIX + b"let me in", read(sock, len(PREFIX + b"let me in")))


@claim("--quiet", "--backlog", "50")
def out_of_threads_it_serves_on(server):
    idle = threads(server)
    with connect(server) as sock:
        say(sock, b"how many threads do I cost?")
        if threads(server) == idle:
            raise NotApplicable("it starts no thread for a client")
    # Each thread reserves address space for its stack (8 MiB, ulimit -s), so a limit on
    # address space is a limit on threads that needs no root and hits this process alone.
    for process in processes(server):
        space = process.memory_info().vms + 60 * MEBIBYTE
        process.rlimit(psutil.RLIMIT_AS, (space, resource.RLIM_INFINITY))
    overcrowd(server)


def overcrowd(server):
    """Send more clients than server has room for, and expect that it copes."""
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(connect(server)) for _ in range(20)]
        for sock in crowd:
            with contextlib.suppress(OSError):  # turned away
                sock.sendall(b"me!")
        eventually(lambda: answered(crowd[0], 0), "an answer to the first of 20 clients")
        calm(server, "the newcomers can only wait")
        served = [sock for sock in crowd if greeted(sock)]
        if len(served) == len(crowd):
            raise NotApplicable("its limits could not be reached")
        if not server.log():
            raise Broken("newcomers were not served, and no warning was logged")
        for sock in served:
            say(sock, b"still here?")
        give_way(crowd, served)
    # The last ones may still hold their places for a moment.
    eventually(lambda: welcomes(server), "service for a new client after all have left")


def give_way(waiting, leaving):
    """Let one after the other leave, and expect that those who wait are then attended to."""
    while waiting:
        for sock in leaving:
            sock.close()
            waiting.remove(sock)
        eventually(
            lambda: not waiting or any(answered(sock, 0) for sock in waiting),
            f"service for one of {len(waiting)} who waited until others left",
        )
        leaving = [sock for sock in waiting if answered(sock, 0)]


def greeted(sock):
    """Say whether sock was greeted, and not turned away or left waiting."""
    try:
        return answered(sock, 0) and sock.recv(len(PREFIX + b"me!")) == PREFIX + b"me!"
    except ConnectionError:
        return False


# The program itself


@claim()
def its_first_line_says_where_it_listens(server):
    line = server.said[0]
    if not LISTENING.match(line.rstrip()):
        raise Broken(f'the first line on standard output is {line!r}, not "listening on ..."')


@claim()
def its_defaults_are_127_0_0_1_port_3267_and_backlog_5(server):
    expect(b"no --host", "127.0.0.1", server.address[0])
    # All of 127.0.0.0/8 is this machine; an address that no other test uses at this moment:
    address = "127.3.%d.%d" % divmod(server.address[1], 256), 3267
    try:
        socket.create_server(address).close()
    except OSError as error:
        raise NotApplicable(f"port 3267 is in use: {error}") from error
    try:
        with running(server.program, "--host", address[0], port=None) as default:
            expect(b"no --port", address, default.address)
            with frozen(default), contextlib.ExitStack() as stack:
                for _ in range(10):
                    sock = stack.enter_context(socket.socket())
                    sock.setblocking(False)
                    sock.connect_ex(address)
                eventually(lambda: sum(accept_queues(address)) > 5, "6 in the accept queue")
                queues = accept_queues(address)
    except LaunchError as error:
        raise Broken(str(error)) from error
    if len(queues) > 1:
        raise NotApplicable("it listens with several sockets, and each has an accept queue")
    expect(b"no --backlog, 10 clients", 6, queues[0])


@claim()
def it_logs_who_came_what_was_said_and_who_left(server):
    def tells(part):
        word = re.compile(rf"(?<![\w-]){part}\b")
        eventually(lambda: word.search(server.log()), f"{part} in the log")

    with connect(server) as sock:
        tells(sock.getsockname()[1])  # before it has said a word
        for _ in range(3):
            say(sock, b"seventeen letters")
        tells("seventeen letters")
    tells(51)


@claim("--quiet")
def when_quiet_it_logs_nothing(server):
    visit(server)
    reset(connect(server))
    visit(server)
    expect(b"--quiet", "", server.log())


@claim("--wait", "0.3")
def it_can_wait(server):
    before, started = spent(server), time.perf_counter()
    visit(server)
    if (waited := time.perf_counter() - started) < 0.3:
        raise Broken(f"--wait 0.3: answered after {waited} s")
    if (used := spent(server) - before) > 0.2:
        raise Broken(f"--wait 0.3: used {used} s of CPU time, as if it computed")


@claim("--compute", "0.3")
def it_can_compute(server):
    before = spent(server)
    with connect(server) as sock:  # while it is there, so is the process that serves it
        say(sock, b"please compute")
        used = spent(server) - before
    if used < 0.28:
        raise Broken(f"--compute 0.3: used only {used} s of CPU time")


@claim()
def ctrl_c_ends_it(server):
    ends(server, signal.SIGINT)


@claim()
def sigterm_ends_it(server):
    ends(server, signal.SIGTERM)


@claim("--wait", "3600", "--compute", "3600")
def a_signal_ends_it_in_the_middle_of_its_work(server):
    ends(server, signal.SIGTERM)


def ends(server, number):
    """Expect exit status 0 and no traceback on signal number, with clients connected."""
    with connect(server) as speaker, connect(server):
        speaker.sendall(b"hello")
        answered(speaker, 0.2)
        server.process.send_signal(number)
        try:
            status = server.process.wait(PATIENCE)
        except psutil.TimeoutExpired:
            raise Broken(f"still runs {PATIENCE} s after signal {number}") from None
    if status != 0 or "Traceback" in server.log():
        raise Broken(f"exit status {status} after signal {number}; log: {server.log()[-500:]}")


@claim()
def it_can_start_again_on_the_same_port_at_once(server):
    with connect(server) as sock:
        say(sock, b"hello")
        server.process.terminate()
        server.process.wait(PATIENCE)
        expect_the_end(sock)  # the server closed first, so TIME_WAIT is on its side
    try:
        with running(server.program, port=server.address[1]) as again:
            visit(again)
    except LaunchError as error:
        raise Broken(str(error)) from error


@claim()
def bad_options_get_one_clear_line(server):
    for options in (
        ("--port", server.address[1]),  # in use
        ("--port", 65536),
        ("--port", "x"),
        ("--host", "192.0.2.1"),  # RFC 5737: no machine has this address
        ("--host", "no such host"),
        ("--backlog", "many"),
        ("--wait", -0.1),
        ("--wait", 3600.5),
        ("--wait", "nan"),
        ("--compute", -0.1),
        ("--compute", 3600.5),
        ("--compute", "long"),
        ("--nonsense",),
    ):
        refuses(server.program, "--port", 0, *options)


def refuses(program, *options):
    """Expect that program ends at once, with one line on standard error."""
    line = command(program, *options)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(line, **pipes, text=True, errors="replace") as process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise Broken(
                f"{shlex.join(line)}: expected one line and the end, but it still runs"
            ) from None
    if process.returncode == 0 or out or not re.fullmatch(r"\S.*\n", err):
        raise Broken(
            f"{shlex.join(line)}: expected one line on standard error and an exit status that is "
            f"not 0, got {process.returncode} and {out + err!r}"
        )
