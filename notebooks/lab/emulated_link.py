"""Two machines and a cable between them, inside one Linux: nothing leaves it, nothing is forged.

Two network namespaces stand for two machines, "client" and "server". Each has a TCP of its own in
the kernel, with its own settings, counters and sockets. A TUN device at each end hands its packets
to this program (Documentation/networking/tuntap.rst), and a thread here is the cable: it carries
each packet across, takes as long as a long cable takes, and notes when the packet left and when it
arrived. A real network loses packets as well; so can this one.

It needs to be root of its own network, as after: unshare --user --map-root-user --net
"""

import contextlib
import heapq
import os
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from clients.system import netns, procfs

ADDRESS = {"client": "10.0.0.1", "server": "10.0.0.2"}
OTHER = {"client": "server", "server": "client"}
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # <linux/if_tun.h>
FIN, SYN = 0x01, 0x02  # flags of the TCP header
MINE = "/proc/thread-self/ns/net"  # the network namespace of the calling thread
LOOK = 0.002  # seconds between two looks at the states of the sockets
REST = 0.05  # seconds that the cable rests at most before it looks whether all is over


@contextlib.contextmanager
def inside(namespace=None):
    """Let the calling thread act in a network namespace, a new one if none is named."""
    before = os.open(MINE, os.O_RDONLY)
    try:
        netns.enter(namespace)
        yield
    finally:
        netns.enter(before)
        os.close(before)


class Kept:
    """A file of /proc that stays open, and with it the namespace in which it was opened."""

    def __init__(self, path):
        self._file = open(path)  # noqa: SIM115
        self._lock = threading.Lock()  # between seek and read, the file is one thread's

    def read(self):
        """Return what the kernel says now; any thread may ask."""
        with self._lock:
            self._file.seek(0)
            return self._file.read()

    def close(self):
        self._file.close()


class Machine:
    """One end: its network namespace, its device, and its list of TCP sockets."""

    def __init__(self, name):
        import fcntl  # not at the top: Windows does not have it

        self.name, self.address = name, ADDRESS[name]
        netns.small_tables()
        with inside():
            self.namespace = os.open(MINE, os.O_RDONLY)
            self.tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(self.tun, TUNSETIFF, struct.pack("16sH22x", b"cable", IFF_TUN | IFF_NO_PI))
            netns.up("cable", self.address)
            self._sockets = Kept("/proc/thread-self/net/tcp")
            self._counters = Kept("/proc/thread-self/net/netstat")

    def socket(self):
        """Return a new TCP socket that belongs to this machine, whoever uses it."""
        with inside(self.namespace):
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM)

    def set(self, name, value):
        """Set one of this machine's settings: set("net.ipv4.tcp_syncookies", 0)."""
        with inside(self.namespace):
            Path("/proc/sys", name.replace(".", "/")).write_text(str(value))

    def get(self, name):
        """Return one of this machine's settings, a number; None where the kernel has no such."""
        with inside(self.namespace), contextlib.suppress(FileNotFoundError):
            return int(Path("/proc/sys", name.replace(".", "/")).read_text())

    def sockets(self):
        """Return the machine's TCP sockets as the kernel lists them in /proc/net/tcp.

        [{"port": its own, "to": the other's (0 for a listener), "state", "unread" and "unsent":
        bytes (for a listener "unread" counts the connections in its accept queue), "timer": the
        seconds until a running timer goes off, or None}, ...].
        """
        lines = [procfs.parsed(line) for line in self._sockets.read().splitlines()[1:]]
        return [
            {
                "port": line.local[1],
                "to": line.remote[1],
                "state": line.state,
                "unsent": line.unsent,
                "unread": line.unread,
                "timer": line.timer,
            }
            for line in lines
        ]

    def counters(self):
        """Return the TCP counters of this machine: {name: number}."""
        return procfs.counters(self._counters.read())

    def close(self):
        for file in (self._sockets, self._counters):
            file.close()
        os.close(self.tun)
        os.close(self.namespace)


@dataclass(frozen=True)
class Header:
    """What the cable may look at to decide whether it loses a packet.

    port: the client's. flags: as in the TCP header. size: bytes of data.
    """

    sender: str
    port: int
    flags: int
    size: int


def header(sender, packet):
    """Return the Header of an IPv4 packet that carries TCP (RFC 791 and 9293)."""
    begin = (packet[0] & 15) * 4
    ports = struct.unpack_from("!HH", packet, begin)
    size = len(packet) - begin - (packet[begin + 12] >> 4) * 4
    return Header(sender, ports[sender == "server"], packet[begin + 13], size)


class Lab:
    """Two machines, the cable between them, and what was observed; times are seconds since 0.

    delay: seconds that a packet takes from one end to the other. loses(Header): says whether the
    cable loses this packet; it may be changed at any time.
    """

    def __init__(self, delay=0.05, loses=None):
        self.delay, self.loses = delay, loses
        self.packets, self.states, self.calls = [], [], []
        self.machines = {name: Machine(name) for name in ADDRESS}
        self.client, self.server = self.machines.values()
        self.start = time.monotonic()
        self._known, self._looking = {}, threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=run) for run in (self._carry, self._observe)]

    def now(self):
        return time.monotonic() - self.start

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info):
        self._over.set()
        for thread in self._threads:
            thread.join()
        for machine in self.machines.values():
            machine.close()

    @contextlib.contextmanager
    def noting(self, end, what):
        """Note when a call began and when it came back, and with what: a list to fill."""
        note = {"end": end, "call": what, "began": self.now()}
        self.calls.append(note)
        answer = []
        try:
            yield answer
        except OSError as error:
            answer.append(type(error).__name__)
            raise
        finally:
            note |= {"ended": self.now(), "answer": answer[0] if answer else None}

    def _carry(self):
        """Be the cable, until the lab is over."""
        tuns = {machine.tun: name for name, machine in self.machines.items()}
        poll = select.poll()
        for tun in tuns:
            poll.register(tun, select.POLLIN)
        under_way = []  # a heap of (when it arrives, its number, where, the packet)
        while not self._over.is_set():
            wait, moved = under_way[0][0] - self.now() if under_way else REST, False
            for tun, _ in poll.poll(max(0, min(wait, REST)) * 1000):
                sender, packet = tuns[tun], os.read(tun, 65536)
                if packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_TCP:  # IPv6 greets routers
                    self._take(under_way, sender, packet)
                    moved = True
            while under_way and under_way[0][0] <= self.now():
                _, number, receiver, packet = heapq.heappop(under_way)
                self.packets[number]["arrived"] = self.now()
                os.write(self.machines[receiver].tun, packet)
                moved = True
            if moved:  # at once: most states change with a packet
                self._look()

    def _take(self, under_way, sender, packet):
        """Note a packet that one end has sent, and send it on its way unless it gets lost."""
        at, number = self.now(), len(self.packets)
        lost = bool(self.loses and self.loses(header(sender, packet)))
        note = {"sender": sender, "at": at, "arrived": None, "lost": lost, "packet": packet}
        self.packets.append(note)
        if not lost:
            heapq.heappush(under_way, (at + self.delay, number, OTHER[sender], packet))

    def _observe(self):
        """Look at the states until the lab is over, for some change without a packet."""
        while not self._over.wait(LOOK):
            self._look()

    def _look(self):
        """Note each change of state of each connection at both ends."""
        with self._looking:
            for end, machine in self.machines.items():
                rows = [row for row in machine.sockets() if row["to"]]
                seen = {(end, row["port"], row["to"]): row["state"] for row in rows}
                gone = [key for key in self._known if key[0] == end and key not in seen]
                for key, state in [*seen.items(), *((key, "CLOSED") for key in gone)]:
                    if self._known.get(key) != state:
                        self._known[key] = state
                        change = {"end": end, "port": key[1], "to": key[2], "state": state}
                        self.states.append({"at": self.now(), **change})
                for key in gone:
                    del self._known[key]
