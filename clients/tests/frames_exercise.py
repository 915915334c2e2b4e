"""A message of any length gets one greeting, however it was cut."""

import struct

import pytest

from clients.contract.server_under_test import ServerUnderTest


@pytest.fixture
def server(serve):
    return ServerUnderTest(serve("my_frames"), timeout=5)


def frame(message):
    return struct.pack("!I", len(message)) + message


def expect_greeting(client, message):
    expected = frame(b"Hello, " + message)
    assert client.read(len(expected)) == expected


def test_a_long_message_gets_one_greeting_however_it_was_cut(server):
    message = b"bob " * 750
    sent = frame(message)
    with server.connect() as client:
        for size in (1, 3, 1024, len(sent)):
            for at in range(0, len(sent), size):
                client.sendall(sent[at : at + size])
            expect_greeting(client, message)


def test_the_shortest_and_the_longest_message_are_greeted(server):
    with server.connect() as client:
        for message in (b"x", b"x" * 65_536):
            client.sendall(frame(message))
            expect_greeting(client, message)


def test_two_frames_in_one_piece_get_two_greetings(server):
    with server.connect() as client:
        client.sendall(frame(b"ann") + frame(b"bob"))
        expect_greeting(client, b"ann")
        expect_greeting(client, b"bob")


def test_a_wrong_length_ends_one_connection(server):
    for length in (b"\0\0\0\0", b"\0\1\0\1", b"\xff\xff\xff\xff"):  # 0, 65,537 and 4,294,967,295
        with server.connect() as ann, server.connect() as client:
            client.sendall(length)
            client.expect_eof()
            ann.sendall(frame(b"ann"))
            expect_greeting(ann, b"ann")


def test_a_half_close_inside_a_frame_gets_no_reply(server):
    for size in (2, 6):  # in the length, in the message
        with server.connect() as client:
            client.sendall(frame(b"bob")[:size])
            client.half_close()
            client.expect_eof()
