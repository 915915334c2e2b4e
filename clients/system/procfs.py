"""The kernel's tables: TCP (/proc/net/tcp, /proc/net/netstat) and a process's threads.

Linux only; IPv4 only; root is not needed.
"""

import contextlib
import os
import platform
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

# The kernel's numbers (include/net/tcp_states.h) and the names of RFC 9293.
STATES = {
    "01": "ESTABLISHED",
    "02": "SYN-SENT",
    "03": "SYN-RECEIVED",
    "04": "FIN-WAIT-1",
    "05": "FIN-WAIT-2",
    "06": "TIME-WAIT",
    "07": "CLOSED",
    "08": "CLOSE-WAIT",
    "09": "LAST-ACK",
    "0A": "LISTEN",
    "0B": "CLOSING",
    "0C": "SYN-RECEIVED",
}

# The system calls in which servers sleep (arch/x86/entry/syscalls, asm-generic/unistd.h).
_NUMBERS = {
    "x86_64": "0 read 1 write 7 poll 23 select 35 nanosleep 42 connect 43 accept 44 sendto "
    "45 recvfrom 46 sendmsg 47 recvmsg 202 futex 230 clock_nanosleep 232 epoll_wait "
    "270 pselect6 271 ppoll 281 epoll_pwait 288 accept4",
    "aarch64": "22 epoll_pwait 63 read 64 write 72 pselect6 73 ppoll 98 futex 101 nanosleep "
    "115 clock_nanosleep 202 accept 203 connect 206 sendto 207 recvfrom 211 sendmsg 212 recvmsg "
    "242 accept4",
}
_words = _NUMBERS.get(platform.machine(), "").split()
_NAMES = dict(zip(map(int, _words[::2]), _words[1::2], strict=True))
_WITHOUT_FD = {"poll", "select", "nanosleep", "futex", "clock_nanosleep", "pselect6", "ppoll"}


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """One line of /proc/net/tcp (Documentation/networking/proc_net_tcp.rst)."""

    local: tuple[str, int]  # host, port
    remote: tuple[str, int]
    state: str  # one of STATES
    send_q: int  # bytes in the send buffer: the remote end has not acknowledged them
    recv_q: int  # bytes in the receive buffer; of a listener, the length of its accept queue
    timer: float | None  # seconds until it expires, such as that of TIME-WAIT; None: none runs
    inode: int  # 0 if no program has the socket, such as one before accept()

    @property
    def in_accept_queue(self):
        """Return True if the connection is complete and no program has accepted it yet."""
        return self.inode == 0 and self.state in ("ESTABLISHED", "CLOSE-WAIT")


def tcp_sockets(port, pid="self"):
    """Return a TcpSocket for each socket that has port at one of its two ends.

    pid: a process, whose network namespace is read.
    """
    wanted = f":{port:04X}"
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return [parse_tcp_line(line) for line in lines if wanted in line[:35]]


def parse_tcp_line(line):
    """Return the TcpSocket in a line of /proc/net/tcp, except the head."""
    _, local, remote, state, queues, timer, _, _, _, inode = line.split()[:10]
    send_q, recv_q = (int(number, 16) for number in queues.split(":"))
    kind, ticks = (int(number, 16) for number in timer.split(":"))
    left = ticks / os.sysconf("SC_CLK_TCK") if kind else None
    ends = _address(local), _address(remote)
    return TcpSocket(*ends, STATES[state], send_q, recv_q, left, int(inode))


def _address(text):
    """Return (host, port) from 8 hexadecimal digits in this machine's byte order, and 4 more."""
    host, port = text.split(":")
    return socket.inet_ntoa(struct.pack("=I", int(host, 16))), int(port, 16)


def socket_fds(pid):
    """Return {inode: descriptor} of the sockets that a process has open."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            found[int(target[8:-1])] = int(fd)
    return found


def remote_addresses(pid):
    """Return {descriptor: "host:port" of the other end} of a process's TCP connections."""
    found = {}
    with contextlib.suppress(OSError):  # the process has ended; no /proc on this system
        fds = socket_fds(pid)
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] != "0A" and int(fields[9]) in fds:
                found[fds[int(fields[9])]] = "%s:%d" % _address(fields[2])
    return found


@dataclass(frozen=True, slots=True)
class SystemCall:
    """The system call in which a thread sleeps."""

    name: str  # "syscall 61" for one that servers do not sleep in
    fd: int | None  # its first argument, if that is a descriptor


def parse_syscall(text):
    """Return the SystemCall in a text of /proc/PID/task/TID/syscall; None if the thread runs."""
    number, *arguments = text.split()
    if number in ("running", "-1"):  # -1: it sleeps, but in no system call
        return None
    name = _NAMES.get(int(number))
    fd = None if name is None or name in _WITHOUT_FD else int(arguments[0], 16) & 0xFFFFFFFF
    return SystemCall(name or f"syscall {number}", fd)


def syscalls(pid):
    """Return {thread's number: text for parse_syscall} of a process, as far as it is readable."""
    found = {}
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):  # the thread has ended
            found[int(task.name)] = (task / "syscall").read_text()
    return found


def thread_state(task):
    """Return the state of a thread, a letter (proc_pid_stat(5)); None if it has just ended.

    task: the thread's folder, /proc/PID/task/TID.
    """
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def zombies(parents):
    """Return the numbers of the zombies that are children of these processes (numbers)."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended
            fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            if fields[0] == b"Z" and int(fields[1]) in parents:
                found.append(int(name))
    return found


def all_stopped(pid):
    """Return True if SIGSTOP has stopped every thread of a process.

    psutil calls a process stopped when its main thread is; another thread may still accept then.
    """
    return all(thread_state(task) in ("T", None) for task in Path(f"/proc/{pid}/task").glob("*"))


def usable_cores(groups=Path("/proc/self/cgroup"), root=Path("/sys/fs/cgroup")):
    """Return how many cores this process may use, by its affinity and its CPU quota.

    Source: "cpu.max" in cgroup-v2.rst, "cpu.cfs_quota_us" (-1: none) in sched-bwc.rst.
    """
    found = [len(os.sched_getaffinity(0))]
    for line in groups.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        own = root / controllers / path[1:]
        for folder in (own, *own.parents):  # each limits those below it
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
            with contextlib.suppress(OSError, ValueError):  # there is no quota
                texts = [(folder / name).read_text() for name in names]
                quota, period = map(int, " ".join(texts).split())
                found.append(quota / period if quota > 0 else found[0])
    return min(found)


def accept_queue_limit(backlog):
    """Return how many connections an accept queue holds: min(backlog, somaxconn) + 1.

    Source: listen(2); the kernel compares with ">", so one more fits.
    """
    return min(backlog, int(Path("/proc/sys/net/core/somaxconn").read_text())) + 1


def tcp_counters(netstat):
    """Return TCP's counters, {name: number}, from the text of /proc/net/netstat.

    Their meaning: Documentation/networking/snmp_counter.rst.
    """
    lines = netstat.splitlines()
    names, numbers = (line.split()[1:] for line in lines if line.startswith("TcpExt:"))
    return dict(zip(names, map(int, numbers), strict=True))
