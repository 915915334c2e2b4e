"""Two hosts and an emulated link between them, inside one Linux: nothing leaves it.

Each host is a network namespace, "client" or "server", with a TCP of its own in the kernel: its
settings, counters and sockets. A TUN device at each end hands its packets to this program
(Documentation/networking/tuntap.rst). A thread here is the link: it delivers each packet after a
delay, or loses it, and records when packets were sent and arrived, and the states of the sockets.

It must be root of its own network, as after: unshare --user --map-root-user --net
"""

import contextlib
import heapq
import os
import select
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clients.system import netns, procfs

from .observation import Call, Packet, StateChange

PORT = 3267
ADDRESS = {"client": "10.0.0.1", "server": "10.0.0.2"}
OTHER_END = {"client": "server", "server": "client"}
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # <linux/if_tun.h>
FLAGS = {"FIN": 0x01, "SYN": 0x02, "RST": 0x04, "PSH": 0x08, "ACK": 0x10}  # RFC 9293, 3.1
OWN_NAMESPACE = "/proc/thread-self/ns/net"
POLL_INTERVAL = 0.005  # seconds between two readings of states; up to ten times as long in silence


@contextlib.contextmanager
def in_namespace(namespace=None):
    """Let the calling thread act in a network namespace, a new one if none is named."""
    before = os.open(OWN_NAMESPACE, os.O_RDONLY)
    try:
        netns.enter(namespace)
        yield
    finally:
        netns.enter(before)
        os.close(before)


class NotSupported(RuntimeError):
    """This system does not allow the experiment, and why."""


class Host:
    """One end: its network namespace, its device, and its list of TCP sockets."""

    def __init__(self, name):
        import fcntl  # not at the top: Windows does not have it

        self.address = ADDRESS[name]
        netns.shrink_tcp_tables()
        with in_namespace():
            self.namespace = os.open(OWN_NAMESPACE, os.O_RDONLY)
            self.tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(self.tun, TUNSETIFF, struct.pack("16sH22x", b"link", IFF_TUN | IFF_NO_PI))
            netns.bring_up("link", self.address)
            table = os.open("/proc/thread-self/net/tcp", os.O_RDONLY)
        self.table = os.fdopen(table)  # the sockets of this host, whichever thread reads it

    def socket(self):
        """Return a new TCP socket that belongs to this host, in whichever thread it is used."""
        with in_namespace(self.namespace):
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM)

    def set(self, name, value):
        """Set one of this host's settings: set("net.ipv4.tcp_syncookies", 0)."""
        path = Path("/proc/sys", name.replace(".", "/"))
        with in_namespace(self.namespace):
            if not path.exists():
                raise NotSupported(f"this kernel has no {path}")
            path.write_text(str(value))

    def read(self, path):
        """Return the text of a file of /proc, as it is for this host."""
        with in_namespace(self.namespace):
            return Path("/proc", path).read_text()

    def sockets(self):
        """Return a TcpSocket for each TCP socket of this host."""
        return parsed(self.read("thread-self/net/tcp"))

    def counters(self):
        """Return the TCP counters of this host: {name: number}."""
        return procfs.tcp_counters(self.read("thread-self/net/netstat"))

    def close(self):
        self.table.close()
        os.close(self.tun)
        os.close(self.namespace)


class EmulatedLink:
    """Two hosts, the link between them, and what was observed of them.

    delay: seconds that a packet takes from one end to the other. loses(Packet): returns whether
    the link loses this packet; it may be replaced at any time.
    """

    def __init__(self, delay=0.05, loses=None):
        self.delay, self.loses = delay, loses
        self.packets, self.states, self.calls = [], [], []
        try:
            self.hosts = {name: Host(name) for name in ADDRESS}
        except OSError as error:
            raise NotSupported(f"no network namespace or no /dev/net/tun: {error}") from error
        self.client, self.server = self.hosts.values()
        self._start = time.monotonic()
        self._first_seq = {}  # {(sender, the client's port): the first sequence number}
        self._tables = dict.fromkeys(ADDRESS)  # what the kernel's lists of sockets were last
        self._known = {name: {} for name in ADDRESS}  # {end: {(port, remote port): state}}
        self._over, self._thread = threading.Event(), threading.Thread(target=self._carry)

    def now(self):
        return time.monotonic() - self._start

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._over.set()
        self._thread.join()
        for host in self.hosts.values():
            host.close()

    def observed(self, kind, **more):
        """Return an Observation of this kind: all that was observed so far, and more."""
        packets = [packet for packet in self.packets if packet.lost or packet.arrived]
        return kind(packets=packets, states=[*self.states], calls=self.calls, **more)

    def listener(self, backlog=5, reuse=True):
        """Return a listening socket of the server, with the options of the three servers."""
        sock = self.server.socket()
        if reuse:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self.server.address, PORT))
        sock.listen(backlog)
        return sock

    @contextlib.contextmanager
    def traced(self, end, name):
        """Record when a system call begins and returns; the with block sets the Call's result."""
        call = Call(end, name, self.now())
        self.calls.append(call)
        try:
            yield call
        except OSError as error:
            call.result = type(error).__name__
            raise
        finally:
            call.ended = self.now()

    def connect(self, sock):
        with self.traced("client", "connect()"):
            sock.connect((self.server.address, PORT))

    def accept(self, listening):
        with self.traced("server", "accept()"):
            return listening.accept()[0]

    def receive(self, end, sock):
        with self.traced(end, "recv()") as call:
            data = sock.recv(1024)
            call.result = repr(data)
            return data

    def send(self, end, sock, data):
        with self.traced(end, f"send({data!r})"):
            sock.send(data)

    def close(self, end, sock):
        with self.traced(end, "close()"):
            sock.close()

    def greet(self, listening):
        """Let the client connect and be greeted; return both ends' sockets."""

        def client_program():
            client = self.client.socket()
            self.connect(client)
            self.send("client", client, b"bob")
            self.receive("client", client)
            return client

        def server_program():
            conn = self.accept(listening)
            self.receive("server", conn)
            self.send("server", conn, b"Hello, bob")
            return conn

        client, conn = concurrently(client_program, server_program)
        time.sleep(3 * self.delay)  # the last ACK is still on its way, on a busy machine longer
        while any(row.send_q for row in self.server.sockets()):
            time.sleep(self.delay)
        return client, conn

    def _carry(self):
        """Deliver packets, and record the states, until the experiment is over."""
        tuns = {host.tun: name for name, host in self.hosts.items()}
        in_flight, last = [], 0.0  # a heap of (arrival, number, bytes); time of the last packet
        while not self._over.is_set():
            wait = min(max(POLL_INTERVAL, self.now() - last), 10 * POLL_INTERVAL)
            wait = min(wait, max(0, in_flight[0][0] - self.now())) if in_flight else wait
            for tun in select.select(tuns, [], [], wait)[0]:
                sender, data, last = tuns[tun], os.read(tun, 65536), self.now()
                if data[0] >> 4 == 4 and data[9] == socket.IPPROTO_TCP:  # not IPv6's solicitations
                    packet, number = self._packet(sender, data), len(self.packets)
                    packet.lost = bool(self.loses and self.loses(packet))
                    self.packets.append(packet)
                    if not packet.lost:
                        heapq.heappush(in_flight, (packet.sent + self.delay, number, data))
            while in_flight and in_flight[0][0] <= self.now():
                _, number, data = heapq.heappop(in_flight)
                packet, last = self.packets[number], self.now()
                os.write(self.hosts[OTHER_END[packet.sender]].tun, data)
                packet.arrived = last  # set only now: the kernel has done what the packet asks for
            self._record_states()  # most change with a packet, some without

    def _packet(self, sender, data):
        """Return the Packet of the bytes of an IPv4 packet that carries TCP (RFC 791, RFC 9293)."""
        begin = (data[0] & 15) * 4
        source, destination, seq, ack, offset, bits = struct.unpack_from("!HHIIBB", data, begin)
        port = source if sender == "client" else destination
        first = self._first_seq.setdefault((sender, port), seq)
        first_ack = self._first_seq.get((OTHER_END[sender], port), ack)
        flags = "-".join(name for name, bit in FLAGS.items() if bits & bit)
        length = len(data) - begin - (offset >> 4) * 4
        relative = (ack - first_ack) % 2**32 if bits & FLAGS["ACK"] else None
        seq = (seq - first) % 2**32
        return Packet(sender, self.now(), None, False, port, flags, seq, relative, length)

    def _record_states(self):
        """Record each change of state of each connection at both ends."""
        for end, host in self.hosts.items():
            host.table.seek(0)
            table = host.table.read()
            if table != self._tables[end]:
                before, rows = self._known[end], parsed(table)
                now = dict.fromkeys(before, "CLOSED")  # unless the kernel's list still has it
                now |= {(row.local[1], row.remote[1]): row.state for row in rows if row.remote[1]}
                changed = [ports for ports, state in now.items() if before.get(ports) != state]
                self.states += [StateChange(self.now(), end, *one, now[one]) for one in changed]
                self._tables[end], self._known[end] = table, now


def parsed(table):
    """Return a TcpSocket for each line of a text of /proc/net/tcp."""
    return [procfs.parse_tcp_line(line) for line in table.splitlines()[1:]]


def concurrently(*functions):
    """Run functions at the same time, each in a thread; return their results, or raise."""
    with ThreadPoolExecutor(len(functions)) as threads:
        futures = [threads.submit(function) for function in functions]
    return [future.result() for future in futures]
