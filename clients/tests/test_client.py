"""The client: its greetings, the messages that it refuses, and the errors that it reports."""

import errno
import os
import pty
import signal
import socket
import subprocess
import threading
from pathlib import Path

import psutil
import pytest

from clients import client
from clients.client import Client
from clients.system.processes import command
from conftest import cli, wait_until

PROGRAM = Path(client.__file__)


@pytest.fixture
def replying():
    """Return a function: replying(b"...") is the address of a server that sends this reply."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def start(reply):
            def serve():
                conn, _ = listener.accept()
                with conn:
                    conn.recv(2048)
                    conn.sendall(reply)

            threading.Thread(target=serve, daemon=True).start()
            return listener.getsockname()

        yield start


def test_it_greets_and_ends_the_connection(model, serve):
    server = serve(model[0])
    with Client(*server.address) as one:
        assert one.greet(b"bob") == b"Hello, bob"
        assert one.greet(b"y" * 1024) == b"Hello, " + b"y" * 1024
    with pytest.raises(ConnectionError, match="lost"):
        one.greet(b"after the end")


@pytest.mark.parametrize("message", [b"", b"z" * 1025])
def test_it_refuses_what_one_recv_does_not_hold(serve, message):
    with Client(*serve("01_blocking").address) as one:
        with pytest.raises(ValueError, match="1 to 1024 bytes"):
            one.greet(message)
        assert one.greet(b"still usable") == b"Hello, still usable"


@pytest.fixture
def refusing():
    """The address of a port that is taken, and on which no server listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()


def test_no_server_listens(refusing):
    with pytest.raises(ConnectionError, match="start a server there first"):
        Client(*refusing)


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EADDRNOTAVAIL, "no local port is free"),
        (errno.EMFILE, "it may have no more descriptors"),
        (errno.ENETUNREACH, "Network is unreachable$"),
        (errno.EHOSTUNREACH, "No route to host$"),
    ],
)
def test_another_error_is_not_taken_for_a_missing_server(monkeypatch, number, hint):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "create_connection", fail)
    with pytest.raises(ConnectionError, match=hint) as caught:
        Client()
    assert "start a server" not in str(caught.value)


def test_a_connection_to_itself_is_refused(monkeypatch):
    """In the range of the clients' ports, a port without a server may become the client's own."""
    made = []

    def connect_to_itself(*_):
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        made.append(sock)
        return sock

    monkeypatch.setattr(socket, "create_connection", connect_to_itself)
    with pytest.raises(ConnectionError, match="connected to itself; start a server there first"):
        Client()
    assert made[0].fileno() == -1


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_no_such_port(port):
    with pytest.raises(ValueError, match="1 to 65535"):
        Client("127.0.0.1", port)


def test_an_ipv6_address_is_refused():
    with pytest.raises(ValueError, match="IPv4"):
        Client("::1")


def test_no_such_host():
    with pytest.raises(ValueError, match="no host"):
        Client("no such host")


def test_a_wrong_reply_is_an_error(replying):
    with Client(*replying(b"Good day, bob")) as one:
        with pytest.raises(ConnectionError, match="not a greeting server"):
            one.greet(b"bob")


def test_a_truncated_reply_is_an_error(replying):
    with Client(*replying(b"Hello, b")) as one:
        with pytest.raises(ConnectionError, match="closed the connection"):
            one.greet(b"bob")


def test_after_a_timeout_the_connection_is_closed():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with Client(*silent.getsockname(), timeout=0.1) as one:
            with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
                one.greet(b"anybody there?")
            assert one.socket.fileno() == -1


def test_a_full_accept_queue_times_out():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        with Client(*address), pytest.raises(TimeoutError, match="accept queue"):
            Client(*address, timeout=0.1)  # listen(0) holds one, and that one is taken


def test_one_message(serve):
    port = serve("01_blocking").address[1]
    done = cli("clients.client", "--port", port, "--message", "bob")
    assert (done.stdout, done.stderr, done.returncode) == ("Hello, bob\n", "", 0)


def test_piped_lines_give_greetings_and_nothing_else(serve):
    port = serve("02_threaded").address[1]
    done = cli("clients.client", "--port", port, input="ann\nbob\r\n你好")
    assert (done.stdout, done.stderr) == ("Hello, ann\nHello, bob\nHello, 你好\n", "")
    done = cli("clients.client", "--port", port, input="\nann\n")
    assert (done.stdout, done.returncode) == ("Hello, ann\n", 1)
    assert done.stderr.count("\n") == 1


def test_a_clear_line_when_no_server_listens(refusing):
    done = cli("clients.client", "--port", refusing[1])
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "start a server there first" in done.stderr


@pytest.mark.parametrize("leave", ["Ctrl-D", "Ctrl-C"])
def test_the_prompt(serve, leave):
    port = serve("03_epoll").address[1]
    ours, terminal = pty.openpty()
    program = subprocess.Popen(
        command(PROGRAM, "--port", port),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        assert b"connected to" in read_until(ours, b"say something: ")
        os.write(ours, b"bob\n")
        assert b"Hello, bob" in read_until(ours, b"say something: ")
        if leave == "Ctrl-D":
            os.write(ours, b"\x04")
        else:
            process = psutil.Process(program.pid)  # before read(), a signal would wait for a key
            wait_until(lambda: process.status() == psutil.STATUS_SLEEPING, "blocked in read()")
            program.send_signal(signal.SIGINT)
        assert program.wait(20) == 0
        assert b"Traceback" not in read_until(ours, None)
    finally:
        program.kill()
        program.wait()
        os.close(ours)


def read_until(terminal, end):
    """Return the terminal's text up to end; up to the program's end if that is None."""
    text = b""
    while end is None or not text.endswith(end):
        try:
            text += os.read(terminal, 1024)
        except OSError:  # EIO: the program has closed its side
            assert end is None, text
            return text
    return text
