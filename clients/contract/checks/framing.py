"""Every byte is greeted, in order, however the stream is cut: there is no framing."""

import contextlib
import socket
import time
from random import Random

from clients.client import LONGEST, PREFIX
from clients.contract.errors import ContractViolation, check, difference, expect
from clients.contract.probe_client import MEBIBYTE, noise


@check("--quiet")
def each_message_is_greeted(server):
    every_byte = bytes(range(256)) * 5
    with server.connect() as client:
        for message in (
            b"bob",
            b"x",
            b" bob\r\n",
            b"bob\n",
            b"Hello, ",
            "\u4f60\u597d, Hello, ".encode(),
        ):
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
                parts = [b"Hello,", b"H", random.randbytes(random.randint(1, 40))]
                data = b"".join(random.choices(parts, k=2)) * random.choice((1, 1, 20, 100))
                data = data.replace(b" ", b"-")  # the whole "Hello, " would be ambiguous
                client.sendall(data)
                sent += data
                if random.random() < 0.5:  # wait for a part of the replies
                    received += client.read(len(sent) + len(PREFIX) - len(received))
            client.half_close()
            assert_all_greeted(client, sent, received)


@check("--quiet")
def a_slow_reader_gets_every_byte(server):
    with server.connect(small_buffers=True) as client:
        sent = send_until_unread(server, client)
        client.half_close()  # it arrives while replies are unsent
        time.sleep(0.05)
        assert_all_greeted(client, sent)
    with server.connect(small_buffers=True) as client:
        sent, received = client.flood(8 * MEBIBYTE), bytearray()
        while client.has_reply() and (chunk := client.recv(65536)):
            received += chunk
        server.assert_no_busy_loop("a slow reader has read all its replies, and is idle")
        client.sendall(b"more")
        client.half_close()
        assert_all_greeted(client, sent + b"more", bytes(received))


def send_until_unread(server, client):
    """Send until the server has stopped reading, with its receive buffer not full; return that."""
    with server.sigstopped():  # it will read whole chunks
        start = len(client.flood(65536))
    for end in range(start, 2 * MEBIBYTE + 1, 32768):
        for part in (1 / 100, 1 / 20, 1 / 4):  # few looks: the kernel's table may be long
            time.sleep(part * server.quiet_period)
            if not server.has_unread(client):
                break
        else:
            break
        client.sendall(noise(end, end + 32768))
    return noise(0, end)


def assert_all_greeted(client, sent, received=b""):
    """Read to end of file, and expect that it greets all of sent.

    It is not known where recv() cut the stream, but sent does not contain "Hello, ", and neither
    does any place where one chunk ends and the next greeting begins.
    """
    longest = len(sent) * (len(PREFIX) + 1)  # each byte alone; one more, if the stream is endless
    before, *chunks = (received + client.read(longest + 1 - len(received))).split(PREFIX)
    if before or (rest := b"".join(chunks)) != sent:
        what = f"sent {len(sent)} bytes; in the replies, without each {PREFIX!r}: "
        raise ContractViolation(what + difference(sent, before or rest))
    wrong = [len(chunk) for chunk in chunks if not 0 < len(chunk) <= LONGEST]
    expect(not wrong, f"a chunk has 1 to {LONGEST} bytes; greeted were chunks of {wrong} bytes")


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
