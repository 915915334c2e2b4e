"""Every byte is greeted, in order, however the stream is cut: there is no framing."""

import contextlib
import socket
import time
from random import Random

from clients.client import LONGEST, PREFIX
from clients.contract.errors import ContractViolation, check
from clients.contract.probe_client import MEBIBYTE, numbers


@check("--quiet")
def each_message_is_greeted(server):
    every_byte = bytes(range(256)) * 5
    with server.connect() as client:
        for message in (b"bob", b"x", b" bob\r\n", b"bob\n", b"Hello, ", "\u4f60\u597d".encode()):
            client.request(message)
        for value in range(256):
            client.request(bytes([value]))
        for size in range(2, LONGEST + 1):  # each value is the first byte, and the last, of some
            start = (2 * size + size // 256) % 256
            client.request(every_byte[start : start + size])


@check("--quiet")
def any_byte_stream_is_greeted_in_order(server):
    random = Random(0)  # the same bytes in each run
    for _ in range(60):
        sent, received = b"", b""
        with server.connect() as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(random.randint(0, 6)):
                parts = [PREFIX, PREFIX[:1], random.randbytes(random.randint(1, 40))]
                data = b"".join(random.choices(parts, k=2)) * random.choice((1, 1, 20, 100))
                client.sendall(data)
                sent += data
                if random.random() < 0.5:  # wait for a part of the replies
                    received += client.read(len(sent) + len(PREFIX) - len(received))
            client.half_close()
            assert_greeted(sent, client.read_to_eof(sent, received))


@check("--quiet")
def a_slow_reader_gets_every_byte(server):
    with server.connect(receive_buffer=4096) as client:
        sent = send_until_unread(server, client)
        client.half_close()  # it arrives while replies are unsent
        time.sleep(0.05)
        assert_greeted(sent, client.read_to_eof(sent))
    with server.connect(receive_buffer=4096) as client:
        sent = client.flood(8 * MEBIBYTE)
        received = read_replies(client, sent)
        server.assert_no_busy_loop("a slow reader has read all its replies, and is idle")
        client.sendall(b"more")
        client.half_close()
        assert_greeted(sent + b"more", client.read_to_eof(sent + b"more", received))


def send_until_unread(server, client):
    """Send until the server has stopped reading, with its receive buffer not full; return that."""
    sent, deadline = b"", float("inf")
    while len(sent) < 8 * MEBIBYTE and time.monotonic() < deadline:
        if not server.has_unread(client):
            start = len(sent) % MEBIBYTE
            client.sendall(piece := numbers()[start : start + 32768])
            sent += piece
            deadline = time.monotonic() + server.quiet_period / 4
        time.sleep(0.005)  # the kernel's table may be long: has_unread() is not for free
    return sent


def read_replies(client, sent):
    """Return the replies to sent, which does not contain "Hello, ", however recv() cut it."""
    received, more = b"", True
    while more:  # until the stream ends, or all has come
        size = len(sent) + len(PREFIX) * max(1, received.count(PREFIX))
        more = client.read(size - len(received))
        received += more
    return received


def assert_greeted(sent, received):
    """Raise ContractViolation unless received greets sent, in chunks of 1 to 1,024 bytes.

    It is not known where recv() cut the stream, and sent may itself contain "Hello, ": each place
    where the next greeting could begin is tried.
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
    used, at = max(seen, default=(0, 0))
    found = received[at : at + 30] or "the end of the stream"
    raise ContractViolation(
        f"sent {len(sent)} bytes, received {len(received)}. The first {used} were greeted; then "
        f"came {found!r}, and {sent[used : used + 20]!r} was to be greeted"
    )


@check("--quiet", "--wait", "0.1")
def data_before_a_half_close_is_answered(server):
    for delay in (0, 0.03):  # before the server has read the data, and while it waits
        with server.connect() as client:
            client.request(b"first words")
            with contextlib.nullcontext() if delay else server.sigstopped():
                client.sendall(b"last words")
                time.sleep(delay)
                client.half_close()
            client.expect_greeting(b"last words")
            client.expect_eof()
    with server.sigstopped():
        client = server.connect()
        client.sendall(b"all my words")
        client.half_close()
    with client:
        client.expect_greeting(b"all my words")
        client.expect_eof()


@check()
def it_closes_after_a_half_close(server):
    with server.connect() as client:
        client.half_close()
        client.expect_eof()
    server.assert_serves_new_client()
