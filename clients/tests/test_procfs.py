"""The sockets that /proc/net/tcp lists are those that exist."""

import os
import socket

import pytest

from clients.system import procfs


def test_a_connection_waits_in_the_accept_queue_until_it_is_accepted():
    with socket.create_server(("127.0.0.1", 0), backlog=2) as listener:
        here = listener.getsockname()
        with socket.create_connection(here) as client:
            client.sendall(b"x" * 26)
            there, sockets = client.getsockname(), procfs.tcp_sockets(here[1])
            [waiting] = [one for one in sockets if one.state == "LISTEN"]
            [queued] = [one for one in sockets if one.remote == there]
            [ours] = [one for one in sockets if one.local == there]
            assert (waiting.local, waiting.recv_q) == (here, 1)
            assert (queued.inode, queued.recv_q, queued.send_q) == (0, 26, 0)
            assert (ours.remote, ours.state) == (here, "ESTABLISHED")
            conn, _ = listener.accept()
            with conn:
                [taken] = [one for one in procfs.tcp_sockets(here[1]) if one.remote == there]
                fds = procfs.socket_fds(os.getpid())
                assert fds[taken.inode] == conn.fileno()
                assert fds[ours.inode] == client.fileno()


def test_a_socket_that_the_kernel_lists_twice_is_one(monkeypatch):
    lines = [  # as read while other connections came and left
        f"{number}: 0100007F:B0D9 0100007F:EA66 06 00000000:00000000 03:0000045{number} 0 0 0 0 3"
        for number in (5, 6)
    ]
    monkeypatch.setattr(procfs, "_tcp_lines", lambda *_: lines)
    assert [one.state for one in procfs.tcp_sockets(0xEA66)] == ["TIME-WAIT"]


def test_the_limit_of_the_queue_is_the_number_that_fits():
    with socket.create_server(("127.0.0.1", 0), backlog=3) as listener:
        port = listener.getsockname()[1]
        clients = [socket.socket() for _ in range(procfs.accept_queue_limit(3) + 2)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        states = [line.state for line in procfs.tcp_sockets(port) if line.remote[1] == port]
        assert states.count("ESTABLISHED") == procfs.accept_queue_limit(3) == 4
        assert states.count("SYN-SENT") == 2
        for client in clients:
            client.close()


QUOTAS = {  # {a file below the root: its text}, and how many cores that gives of two
    "version 2": ({"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, "0::/a/b", 0.5),
    "version 2, none": ({"a/cpu.max": "max 100000"}, "0::/a", 2),
    "a container's root": ({"cpu.max": "150000 100000"}, "0::/", 1.5),
    "version 1": (
        {"cpu,cpuacct/a/cpu.cfs_quota_us": "25000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
        "5:cpuset:/\n4:cpu,cpuacct:/a\n0::/",
        0.25,
    ),
    "version 1, none": ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "9"}, "1:cpu:/", 2),
}


@pytest.mark.parametrize("kind", QUOTAS)
def test_a_cpu_quota_is_seen(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5})
    files, groups, cores = QUOTAS[kind]
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text + "\n")
    (tmp_path / "groups").write_text(groups + "\n")
    assert procfs.usable_cores(tmp_path / "groups", tmp_path / "root") == cores
