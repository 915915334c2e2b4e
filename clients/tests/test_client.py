"""The client: what it gives, what it refuses, and what it tells the user."""

import os
import pty
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest

from clients import client
from clients.client import Client
from clients.system.processes import command

PROGRAM = Path(client.__file__)


@pytest.fixture
def answering():
    """Return a starter: answering(b"...") is the address of a server that gives this answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def start(answer):
            def serve():
                conn, _ = listener.accept()
                with conn:
                    conn.recv(2048)
                    conn.sendall(answer)

            threading.Thread(target=serve, daemon=True).start()
            return listener.getsockname()

        yield start


def talk(*options, piped=None):
    """Run the client program; return what subprocess.run returns."""
    return subprocess.run(
        command(PROGRAM, *options), input=piped, capture_output=True, text=True, timeout=60
    )


def test_it_greets_and_ends_the_connection(model, serve):
    server = serve(model[0])
    with Client(*server.address) as guest:
        assert guest.greet(b"bob") == b"Hello, bob"
        assert guest.greet(b"y" * 1024) == b"Hello, " + b"y" * 1024
    with pytest.raises(ConnectionError, match="lost"):
        guest.greet(b"after the end")


@pytest.mark.parametrize("message", [b"", b"z" * 1025])
def test_it_refuses_what_one_recv_does_not_hold(serve, message):
    with Client(*serve("01_blocking").address) as guest:
        with pytest.raises(ValueError, match="1 to 1024 bytes"):
            guest.greet(message)
        assert guest.greet(b"still usable") == b"Hello, still usable"


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with pytest.raises(ConnectionError, match="start a server there first"):
        Client(*address)


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


def test_a_wrong_answer_is_an_error(answering):
    with Client(*answering(b"Good day, bob")) as guest:
        with pytest.raises(ConnectionError, match="no greeting server"):
            guest.greet(b"bob")


def test_an_answer_cut_short_is_an_error(answering):
    with Client(*answering(b"Hello, b")) as guest:
        with pytest.raises(ConnectionError, match="closed the connection"):
            guest.greet(b"bob")


def test_after_a_timeout_the_connection_is_closed():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with Client(*silent.getsockname(), timeout=0.1) as guest:
            with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
                guest.greet(b"anybody there?")
            assert guest.socket.fileno() == -1


def test_a_full_accept_queue_times_out():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        with Client(*address), pytest.raises(TimeoutError, match="accept queue"):
            Client(*address, timeout=0.1)  # listen(0) holds one, and that one is taken


def test_one_message(serve):
    port = serve("01_blocking").address[1]
    done = talk("--port", port, "--message", "bob")
    assert (done.stdout, done.stderr, done.returncode) == ("Hello, bob\n", "", 0)


def test_piped_lines_give_answers_and_nothing_else(serve):
    port = serve("02_threaded").address[1]
    done = talk("--port", port, piped="ann\nbob\r\n你好")
    assert (done.stdout, done.stderr) == ("Hello, ann\nHello, bob\nHello, 你好\n", "")
    done = talk("--port", port, piped="\nann\n")
    assert (done.stdout, done.returncode) == ("Hello, ann\n", 1)
    assert done.stderr.count("\n") == 1


def test_a_clear_line_when_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = talk("--port", port)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "start a server there first" in done.stderr


@pytest.mark.parametrize("leave", ["Ctrl-D", "Ctrl-C"])
def test_the_prompt(serve, leave):
    port = serve("03_epoll").address[1]
    teacher, terminal = pty.openpty()
    program = subprocess.Popen(
        command(PROGRAM, "--port", port),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        assert b"connected to" in read_until(teacher, b"say something: ")
        os.write(teacher, b"bob\n")
        assert b"Hello, bob" in read_until(teacher, b"say something: ")
        if leave == "Ctrl-D":
            os.write(teacher, b"\x04")
        else:
            while psutil.Process(program.pid).status() != psutil.STATUS_SLEEPING:
                time.sleep(0.005)  # a signal between the prompt and read() would wait for a key
            program.send_signal(signal.SIGINT)
        assert program.wait(20) == 0
        assert b"Traceback" not in read_until(teacher, None)
    finally:
        program.kill()
        program.wait()
        os.close(teacher)


def read_until(terminal, end):
    """Return what stands on the terminal up to end; up to the program's end if that is None."""
    text = b""
    while end is None or not text.endswith(end):
        try:
            text += os.read(terminal, 1024)
        except OSError:  # EIO: the program has closed its side
            assert end is None, text
            return text
    return text
