"""What /proc/net/tcp tells is what is there."""

import os
import socket

from clients.system import procfs


def test_a_connection_waits_in_the_accept_queue_until_it_is_accepted():
    with socket.create_server(("127.0.0.1", 0), backlog=2) as listener:
        here = listener.getsockname()
        with socket.create_connection(here) as client:
            client.sendall(b"x" * 26)
            [waiting] = [line for line in procfs.tcp(here[1]) if line.state == "LISTEN"]
            [queued] = [line for line in procfs.tcp(here[1]) if line.remote == client.getsockname()]
            [ours] = [line for line in procfs.tcp(here[1]) if line.local == client.getsockname()]
            assert (waiting.local, waiting.unread) == (here, 1)
            assert (queued.inode, queued.unread, queued.unsent) == (0, 26, 0)
            assert (ours.remote, ours.state) == (here, "ESTABLISHED")
            conn, _ = listener.accept()
            with conn:
                [taken] = [line for line in procfs.tcp(here[1]) if line.remote == ours.local]
                held = procfs.descriptors(os.getpid())
                assert held[taken.inode] == conn.fileno()
                assert held[ours.inode] == client.fileno()


def test_the_limit_of_the_queue_is_the_number_that_fits():
    with socket.create_server(("127.0.0.1", 0), backlog=3) as listener:
        port = listener.getsockname()[1]
        clients = [socket.socket() for _ in range(procfs.queue_limit(3) + 2)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        states = [line.state for line in procfs.tcp(port) if line.remote[1] == port]
        assert states.count("ESTABLISHED") == procfs.queue_limit(3) == 4
        assert states.count("SYN-SENT") == 2
        for client in clients:
            client.close()
