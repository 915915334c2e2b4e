"""The kernel's tables: TCP (/proc/net/tcp, /proc/net/netstat) and a process's threads.

Linux only; IPv4 only; root is not needed.
"""

import contextlib
import os
import platform
import re
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from clients.system.reaper import stat

OWN_CGROUPS, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")

# The names of RFC 9293, in the order of the kernel's numbers (include/net/tcp_states.h).
_STATES = (
    "ESTABLISHED SYN-SENT SYN-RECEIVED FIN-WAIT-1 FIN-WAIT-2 TIME-WAIT CLOSED CLOSE-WAIT LAST-ACK "
    "LISTEN CLOSING SYN-RECEIVED"
)
STATES = dict(enumerate(_STATES.split(), 1))

# The system calls in which servers sleep (arch/x86/entry/syscalls, asm-generic/unistd.h).
_NUMBERS = {
    "x86_64": "0 read 1 write 7 poll 23 select 34 pause 35 nanosleep 42 connect 43 accept "
    "44 sendto 45 recvfrom 46 sendmsg 47 recvmsg 61 wait4 202 futex 230 clock_nanosleep "
    "232 epoll_wait 270 pselect6 271 ppoll 281 epoll_pwait 288 accept4",
    "aarch64": "22 epoll_pwait 63 read 64 write 72 pselect6 73 ppoll 98 futex 101 nanosleep "
    "115 clock_nanosleep 202 accept 203 connect 206 sendto 207 recvfrom 211 sendmsg 212 recvmsg "
    "242 accept4 260 wait4",
}
_words = _NUMBERS.get(platform.machine(), "").split()
_NAMES = dict(zip(map(int, _words[::2]), _words[1::2], strict=True))
_WITHOUT_FD = {"poll", "select", "pselect6", "ppoll"}
_WITHOUT_FD |= {"pause", "nanosleep", "clock_nanosleep", "wait4", "futex"}


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
    found = map(parse_tcp_line, _tcp_lines(pid, f":{port:04X}"))
    # While the table changes, the kernel may list a socket twice.
    return list({(one.local, one.remote, one.inode): one for one in found}.values())


def _tcp_lines(pid, ends=""):
    """Return the lines of /proc/net/tcp, except the head, of which the ends contain this text."""
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return [line for line in lines if ends in line[:35]]


def parse_tcp_line(line):
    """Return the TcpSocket in a line of /proc/net/tcp, except the head."""
    _, local, remote, state, queues, timer, _, _, _, inode = line.split()[:10]
    send_q, recv_q = (int(number, 16) for number in queues.split(":"))
    kind, ticks = (int(number, 16) for number in timer.split(":"))
    left = ticks / os.sysconf("SC_CLK_TCK") if kind else None
    ends = _address(local), _address(remote)
    return TcpSocket(*ends, STATES[int(state, 16)], send_q, recv_q, left, int(inode))


def _address(text):
    """Return (host, port) from 8 hexadecimal digits in this machine's byte order, and 4 more."""
    host, port = text.split(":")
    return socket.inet_ntoa(struct.pack("=I", int(host, 16))), int(port, 16)


def socket_fds(pid):
    """Return {inode: descriptor} of the sockets that a process has open.

    Raises PermissionError for a process of another user, or of a set-user-ID program.
    """
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            kind, _, inode = os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")
            if kind == "socket":
                found[int(inode[1:-1])] = int(fd)
    return found


def remote_addresses(pid):
    """Return {descriptor: "host:port" of the other end} of a process's TCP connections."""
    found = {}
    with contextlib.suppress(OSError):  # the process has ended; no /proc on this system
        fds = socket_fds(pid)
        own = [line for line in _tcp_lines(pid) if int(line.split()[9]) in fds]  # of thousands
        for one in map(parse_tcp_line, own):
            if one.state != "LISTEN":
                found[fds[one.inode]] = "%s:%d" % one.remote
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
    with contextlib.suppress(OSError):
        return stat(task)[0].decode()
    return None


def switches(pid, only_voluntary=False):
    """Return the context switches of a process's present threads (proc_pid_status(5)).

    A voluntary one: the thread has been blocked.
    """
    count, name = 0, "\nvoluntary" if only_voluntary else "voluntary"  # also in "nonvoluntary"
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):  # the thread has ended
            count += sum(map(int, re.findall(rf"{name}_ctxt_switches:\s(\d+)", status.read_text())))
    return count


def zombies(parents):
    """Return the numbers of the zombies that are children of these processes (numbers)."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended
            state, parent = stat(f"/proc/{name}")[:2]
            if state == b"Z" and int(parent) in parents:
                found.append(int(name))
    return found


def all_stopped(pid):
    """Return True if SIGSTOP has stopped every thread of a process.

    psutil calls a process stopped when its main thread is; another thread may still accept then.
    """
    return all(thread_state(task) in ("T", None) for task in Path(f"/proc/{pid}/task").glob("*"))


def usable_cores(groups=OWN_CGROUPS, root=CGROUPS):
    """Return how many cores this process may use, by its affinity and its CPU quota.

    Source: "cpu.max" in cgroup-v2.rst, "cpu.cfs_quota_us" (-1: none) in sched-bwc.rst.
    """
    found = [len(os.sched_getaffinity(0))]
    for folder in cgroups("cpu", groups, root):
        for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
            with contextlib.suppress(OSError, ValueError):  # there is no quota
                texts = [(folder / name).read_text() for name in names]
                quota, period = map(int, " ".join(texts).split())
                found.append(quota / period if quota > 0 else found[0])
    return min(found)


def cgroups(controller, groups, root):
    """Yield the folders of the cgroups that limit this process: its own, and those above it."""
    for line in groups.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):  # version 2, or 1
            own = root / controllers / path[1:]
            yield from (own, *own.parents)


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
