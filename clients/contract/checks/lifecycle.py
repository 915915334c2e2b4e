"""The program itself: its first line, its options, its log, and its end."""

import contextlib
import re
import shlex
import signal
import socket
import subprocess
import time

import psutil

from clients.console.bounded_log import Output
from clients.contract.errors import Broken, NotApplicable, claim, expect
from clients.contract.probe_client import Guest
from clients.system.processes import LISTENING, command, spawn, tail
from clients.system.procfs import descriptors, tcp


@claim()
def its_first_line_says_where_it_listens(server):
    line = server.said[0]
    if not LISTENING.match(line.rstrip()):
        raise Broken(f'the first line on standard output is {line!r:.200}, not "listening on ..."')
    port, held = server.address[1], set()
    for process in server.processes():
        held |= set(descriptors(process.pid))
    listeners = [line.inode for line in tcp(port) if line.state == "LISTEN"]
    if listeners and not held.intersection(listeners):
        raise Broken(f"it says that it listens on port {port}, but another program does")


@claim()
def its_defaults_are_127_0_0_1_port_3267_and_backlog_5(server):
    expect("the host without --host", "127.0.0.1", server.address[0])
    # All of 127.0.0.0/8 is this machine; an address that no other test uses at this moment:
    address = "127.3.%d.%d" % divmod(server.address[1], 256), 3267
    try:
        socket.create_server(address).close()
    except OSError as error:
        raise NotApplicable(f"port 3267 is in use: {error}") from error
    with server.again("--host", address[0], port=None) as default:
        expect("the address without --port", address, default.address)
        with default.frozen(), contextlib.ExitStack() as stack:
            for _ in range(10):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(address)
            default.eventually(lambda: sum(accept_queues(address)) > 5, "6 in the accept queue")
            queues = accept_queues(address)
    if len(queues) > 1:
        raise NotApplicable("it listens with several sockets, and each has an accept queue")
    expect("clients in the accept queue without --backlog, when 10 come", 6, queues[0])


def accept_queues(address):
    """Return how many connections wait in the accept queue of each listener at address."""
    listeners = [line for line in tcp(address[1]) if line.state == "LISTEN"]
    return [line.unread for line in listeners if line.local == address]


@claim()
def it_logs_who_came_what_was_said_and_who_left(server):
    def tells(part):
        word = re.compile(rf"(?<![\w-]){part}\b")
        server.eventually(lambda: word.search(server.log()), f"{part} in the log")

    with server.guest() as guest:
        tells(guest.getsockname()[1])  # before it has said a word
        for _ in range(3):
            guest.say(b"seventeen letters")
        tells("seventeen letters")
    tells(51)


@claim()
def it_logs_a_reset_as_what_it_is(server):
    def leaving(leave):
        guest = server.guest()
        guest.say(b"good-bye")
        port, begin = str(guest.getsockname()[1]), len(server.log())
        leave(guest)
        return lambda: [line for line in server.log()[begin:].splitlines() if port in line]

    def shape(lines):  # whatever the numbers are
        return {re.sub(r"\d+", "#", line) for line in lines}

    usual = leaving(Guest.close)
    server.eventually(usual, "a line in the log about a client that has left")
    broken_off = leaving(Guest.reset)
    server.eventually(
        lambda: shape(broken_off()) - shape(usual()),
        "a line in the log that tells a reset of a client from its ordinary end",
    )


@claim("--quiet")
def when_quiet_it_logs_nothing(server):
    server.visit()
    server.guest().reset()
    server.visit()
    expect("the log with --quiet", "", server.log())


@claim("--wait", "0.3")
def it_can_wait(server):
    before, began = server.spent(), time.perf_counter()
    server.visit()
    if (waited := time.perf_counter() - began) < 0.3:
        raise Broken(f"--wait 0.3: answered after {waited:.3f} s")
    if (used := server.spent() - before) > 0.2:
        raise Broken(f"--wait 0.3: used {used:.2f} s of CPU time, as if it computed")


@claim("--compute", "0.3")
def it_can_compute(server):
    before = server.spent()
    with server.guest() as guest:  # while it is there, so is the process that serves it
        guest.say(b"please compute")
        used = server.spent() - before
    if used < 0.28:
        raise Broken(f"--compute 0.3: used only {used:.2f} s of CPU time")


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
    """Expect exit status 0 and no traceback on a signal, with clients connected."""
    with server.guest() as speaker, server.guest():
        speaker.sendall(b"hello")
        speaker.is_answered(0.2)
        status = ended_by(server, number)
    wrong = [f"exit status {status} instead of 0"] if status else []
    if "Traceback" in server.log():
        wrong.append("a traceback in the log")
    if wrong:
        words = f"Its last words: {tail(server.log())}"
        raise Broken(f"after {number.name}: {', '.join(wrong)}. {words}")
    server.eventually(
        lambda: is_silent(server.address),
        f"silence on its port: it ended after {number.name}, and a child of it goes on serving",
    )


def ended_by(server, number):
    """Send a signal and return the exit status of the server, which has to end of it."""
    server.process.send_signal(number)
    try:
        return server.process.wait(server.patience)
    except psutil.TimeoutExpired:
        raise Broken(f"still runs {server.patience:g} s after {number.name}") from None


def is_silent(address):
    """Say whether nobody listens at address."""
    try:
        socket.create_connection(address, 1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


@claim()
def it_can_start_again_on_the_same_port_at_once(server):
    with server.guest() as guest:
        guest.say(b"hello")
        ended_by(server, signal.SIGTERM)
        guest.expect_the_end()  # the server closed first, so TIME_WAIT is on its side
    with server.again(port=server.address[1]) as again:
        again.visit()


@claim()
def bad_options_get_one_clear_line(server):
    for options in (
        ("--port", server.address[1]),  # in use
        ("--port", 65536),
        ("--port", "x"),
        ("--host", "192.0.2.1"),  # RFC 5737: no machine has this address
        ("--host", "no such host"),
        ("--host", ""),  # it would let in everybody, on every interface
        ("--backlog", "many"),
        ("--wait", -0.1),
        ("--wait", 3600.5),
        ("--wait", "nan"),
        ("--compute", -0.1),
        ("--compute", 3600.5),
        ("--compute", "long"),
        ("--nonsense",),
    ):
        refuses(server, "--port", 0, *options)


def refuses(server, *options):
    """Expect that the program with these options ends at once, with one line on standard error."""
    server.in_time()
    line = command(server.program, *options)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with spawn(line, **pipes) as process:
        outputs = Output(process.stdout), Output(process.stderr)
        try:
            process.wait(server.patience)
        except psutil.TimeoutExpired:
            raise Broken(
                f"{shlex.join(line)}: expected one line and the end, but it still runs"
            ) from None
        out, err = (output.text(last=1000) for output in outputs)
    if process.returncode == 0 or out or not re.fullmatch(r"\S.*\n", err):
        raise Broken(
            f"{shlex.join(line)}: expected one line on standard error and an exit status that is "
            f"not 0, got {process.returncode} and {out + err!r}"
        )
