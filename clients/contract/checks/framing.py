"""Every byte is greeted, in order."""

import socket

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from clients.client import LONGEST, PREFIX
from clients.contract.errors import Broken, claim
from clients.contract.probe_client import MEBIBYTE


@claim()
def each_message_is_greeted(server):
    with server.guest() as guest:
        for message in (b"bob", b"x", b"\0", b"Hello, ", "\u4f60\u597d".encode(), b"y" * LONGEST):
            guest.say(message)


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
        with server.guest() as guest:
            guest.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for data, wait_for_answer in pieces:
                guest.sendall(data)
                sent += data
                if wait_for_answer:
                    received += guest.read(len(sent) + len(PREFIX) - len(received))
            guest.half_close()
            received = guest.read_to_the_end(sent, received)
        explain(sent, received)

    try:
        talk()
    except Flaky as error:  # the same bytes, but cut elsewhere by the network this time
        raise Broken(f"answered wrongly, though not every time: {error}") from error


@claim("--quiet")
def a_slow_reader_gets_every_byte(server):
    with server.guest(receive_buffer=4096) as guest:
        sent = guest.flood(8 * MEBIBYTE)
        received = read_answers(guest, sent)
        server.calm("a slow reader has read all its answers, and is silent")
        guest.sendall(b"more")
        guest.half_close()
        explain(sent + b"more", guest.read_to_the_end(sent + b"more", received))


def read_answers(guest, sent):
    """Return the answers to sent, which does not hold "Hello, ", however recv() has cut it."""
    received = guest.read(len(sent))
    while (missing := len(sent) + len(PREFIX) * received.count(PREFIX) - len(received)) > 0:
        more = guest.read(missing)
        received += more
        if len(more) < missing:  # the stream has ended
            break
    return received


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


@claim()
def what_came_before_a_half_close_is_answered(server):
    for _ in range(10):  # now and then the server is faster than the half-close
        with server.guest() as guest:
            guest.sendall(b"last words")
            guest.half_close()
            guest.expect_greeting(b"last words")
            guest.expect_the_end()


@claim()
def it_closes_when_the_client_says_no_more(server):
    with server.guest() as guest:
        guest.half_close()
        guest.expect_the_end()
    server.visit()
