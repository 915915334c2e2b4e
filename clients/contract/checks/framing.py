"""Every byte is greeted, in order, however the stream is cut: there is no framing."""

import contextlib
import itertools
import time
from random import Random

from clients.client import LONGEST, PREFIX
from clients.contract.errors import ContractViolation, check, difference, expect
from clients.contract.probe_client import MEBIBYTE, ProbeClient, noise

WORDS = (  # that other programs drop when repeated, format, decode, or take for commands
    *b"bob x x %s %d {} quit exit bye stop close shutdown help ping null None".split(),
    *(b"Hello, ", "\u4f60\u597d".encode(), b"GET / HTTP/1.1\r\n\r", b"\xff\xfb\x01\xff\xff"),
)


@check("--quiet")
def each_message_is_greeted(server):
    every_byte = bytes(range(256)) * 5
    with server.connect() as client:
        for form in b"%b", b"%b\n", b" %b\r\n":
            for word in WORDS:
                client.request(form % word)
        for value in range(256):
            client.request(bytes([value]))
        for size in range(2, LONGEST + 1):  # each value is the first byte, and the last, of some
            start = (2 * size + size // 256) % 256
            client.request(every_byte[start : start + size])


@check("--quiet", "--backlog", "2048")
def any_byte_stream_is_greeted_in_order(server):
    converse(server, 32)


@check("--quiet", "--backlog", "2048", "--wait", "0.005", "--compute", "0.0002")
def any_byte_stream_is_greeted_with_wait_and_compute(server):
    converse(server, 4)


def converse(server, rounds):
    """Expect what is owed to clients that send, half-close, reset and close at random."""
    random, starts = Random(0), itertools.count(0, 99_991)  # the same in each run
    baseline, clients = server.baseline_descriptors(), []
    together = server.served_together(32)
    for number in range(max(2, round(rounds * server.load * min(4, 32 / together)))):
        # Every other time it is stopped meanwhile, and then finds all events at once.
        with server.sigstopped() if number % 2 else contextlib.nullcontext():
            clients += [server.connect() for _ in range(together - len(clients))]
            sent = dict.fromkeys(clients, b"")
            for _ in range(3):
                for client, start in zip(clients, starts, strict=False):  # each has its own bytes
                    part = noise(start, start + random.choice((0, 1, 2, 50, 1000, 1024, 3000)))
                    client.sendall(part)
                    sent[client] += part
            ends = {client: random.choice(ENDS) for client in clients}
            for client, end in ends.items():
                end and end(client)
        for client, end in ends.items():
            if end in (ProbeClient.half_close, None):
                assert_all_greeted(client, sent[client], ended=end is not None)
            if end:
                client.close()
        clients = [client for client in clients if not ends[client]]
    for client in clients:
        client.close()
    server.wait_for_descriptors(baseline)
    server.assert_no_busy_loop("all clients have left")


ENDS = [None, None, None, ProbeClient.half_close, ProbeClient.reset, ProbeClient.close]


@check("--quiet", "--wait", "0")  # a server of its own: the others run meanwhile
def a_slow_reader_gets_every_byte(server):
    with server.connect(small_buffers=True) as client:
        with server.connect(small_buffers=True) as another:
            sent = send_until_unread(server, client)
            client.half_close()  # it arrives while replies are unsent
            flood, received = another.flood(2 * MEBIBYTE), bytearray()
            server.assert_no_busy_loop("its clients do not read", long=True)
            assert_all_greeted(client, sent)
            client.close()
            while another.has_reply() and (chunk := another.recv(65536)):
                received += chunk
            server.assert_no_busy_loop("a slow reader has read all its replies, and is idle")
            another.sendall(b"more")
            another.half_close()
            assert_all_greeted(another, flood + b"more", received)


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


def assert_all_greeted(client, sent, received=b"", ended=True):
    """Read to end of file if ended, else until all of sent is greeted; expect that all is.

    It is not known where recv() cut the stream, but sent does not contain "Hello, ", and neither
    does any place where one chunk ends and the next greeting begins.
    """
    longest = len(sent) * (len(PREFIX) + 1)  # each byte alone; one more, if the stream is endless
    if ended:
        received += client.read(longest + 1 - len(received))
    while not ended and received.replace(PREFIX, b"") != sent and len(received) <= longest:
        if not (more := client.has_reply(client.gettimeout()) and client.recv(65536)):
            break
        received += more
    before, *chunks = received.split(PREFIX)
    if before or (rest := b"".join(chunks)) != sent:
        what = f"sent {len(sent)} bytes; in the replies, without each {PREFIX!r}: "
        raise ContractViolation(what + difference(sent, before or rest))
    wrong = [len(chunk) for chunk in chunks if not 0 < len(chunk) <= LONGEST]
    expect(not wrong, f"a chunk has 1 to {LONGEST} bytes; greeted were chunks of {wrong} bytes")


@check()
def it_closes_after_a_half_close(server):
    with server.connect() as client:
        client.half_close()
        client.expect_eof()
    server.assert_serves_new_client()
