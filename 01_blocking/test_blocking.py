"""The blocking model: one client at a time; the others wait in the accept queue."""

import select
import socket

from clients.client import Client
from conftest import DEADLINE


def test_second_client_connects_at_once_but_waits_for_the_first(serve):
    server = serve("01_blocking")
    first = Client(*server.address)
    first.greet(b"I am served")
    with Client(*server.address) as second:  # the kernel completes the handshake by itself
        second.socket.sendall(b"and I?")
        readable, _, _ = select.select([second.socket], [], [], 0.5)
        assert not readable
        assert "and I?" not in server.log()
        first.close()
        assert second.socket.recv(1024) == b"Hello, and I?"


def test_clients_are_served_in_the_order_of_their_connections(serve):
    server = serve("01_blocking")
    clients = [Client(*server.address, DEADLINE) for _ in range(5)]
    for number, client in enumerate(clients):
        client.socket.sendall(b"%d" % number)
    for client in clients:
        client.socket.shutdown(socket.SHUT_WR)
    for client in clients:
        assert client.socket.recv(1024)
        client.close()
    messages = [line.split()[-1] for line in server.log().splitlines() if " said " in line]
    assert messages == ["b'0'", "b'1'", "b'2'", "b'3'", "b'4'"]


def test_one_thread_however_many_clients(serve):
    server = serve("01_blocking")
    with Client(*server.address) as first:
        first.greet(b"hello")
        others = [socket.create_connection(server.address) for _ in range(5)]
        assert server.process.num_threads() == 1
        for sock in others:
            sock.close()
