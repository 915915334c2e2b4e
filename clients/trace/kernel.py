"""The kernel's side of a recording: sockets, buffers, descriptors, interest lists."""

import collections
import os
import re
from pathlib import Path

from clients.system import procfs
from clients.system.frames import FIRST_OWN_FD
from clients.trace.calls import EVENTS
from clients.trace.interpret import Connection, Interest, KernelState

HOST = "127.0.0.1"
FIRST_PORT = 50000  # client 1 has port 50001, and so on: each recording has the same numbers
UNDER_WAY = {"FIN-WAIT-1", "LAST-ACK", "CLOSING"}  # until the other side's kernel has answered
ENDED = {"CLOSE-WAIT", "LAST-ACK", "CLOSING", "TIME-WAIT"}  # the other side's FIN has arrived
WANTED = sum(EVENTS[name] for name in ("IN", "OUT", "ONESHOT", "ET"))  # fdinfo adds ERR, HUP
EPOLL = "[eventpoll]"  # how /proc/PID/fd calls an epoll object


class KernelView:
    """Reads the kernel's side of one server and of the scenario's clients."""

    def __init__(self, server, backlog, clients):
        self.server, self.clients = server, clients
        self.limit = procfs.accept_queue_limit(backlog)
        self.handed = collections.Counter()  # {client: bytes that send() has handed to the kernel}
        self.rest = {}  # {client: bytes that its last send() did not}
        self.sending = {}  # {client: bytes of a sendall() that has not returned}

    def lines(self):
        return procfs.tcp_sockets(self.server.address[1], self.server.process.pid)

    def states(self):
        """Return of each socket what changes while the kernel does something; timers always do."""
        return [(line.local, line.remote, line.state, line.send_q) for line in self.lines()]

    def descriptors(self):
        """Return the server's own descriptors, without the tracer's."""
        held = os.listdir(f"/proc/{self.server.process.pid}/fd")
        return sorted(int(fd) for fd in held if int(fd) < FIRST_OWN_FD)

    def add(self, calls):
        """Count the bytes of calls of send(): what the kernel does not take the program holds."""
        for call in calls:
            if call.name in ("send", "sendall") and call.remote:
                client = int(call.remote.rpartition(":")[2]) - FIRST_PORT
                self.sending.pop(client, None)
                if not call.done:
                    self.sending[client] = int(call.given)
                    continue
                self.handed[client] += call.count or 0
                would_block = (call.error or "").startswith("BlockingIOError")
                taken = call.count if call.error is None else 0 if would_block else call.given
                self.rest[client] = int(call.given) - taken

    def state(self, report):
        """Return the KernelState; of what only the server knows, what is in a tracer's Report."""
        lines, held = self.lines(), procfs.socket_fds(self.server.process.pid)
        listeners = [line for line in lines if line.state == "LISTEN"]
        clients, buffered = self.clients.values(), report.buffered
        return KernelState(
            queue=sum(line.recv_q for line in listeners),
            limit=self.limit,
            listener=next((held.get(line.inode) for line in listeners), None),
            connections=[self.connection(one, lines, held, buffered) for one in clients],
            descriptors=self.descriptors(),
            epoll=self.interest_list(report.ready),
        )

    def connection(self, client, lines, held, buffered):
        number, (unsent, unread) = client.number, client.buffers()
        found, yours = Connection(number), [0, 0]
        for line in lines:
            if line.local[1] == client.port:
                found.client_state = line.state
            elif line.remote[1] == client.port:
                found.server_state, found.queued = line.state, line.in_accept_queue
                found.fd = held.get(line.inode)
                fins = line.state in ENDED, line.state in UNDER_WAY  # a FIN counts as one byte
                yours = [max(0, line.recv_q - fins[0]), max(0, line.send_q - fins[1])]
        found.buffers = [unsent, *yours, unread]
        if found.fd is not None and number in self.sending:
            taken = len(client.received) + sum(found.buffers[2:]) - self.handed[number]
            found.in_program = max(0, self.sending[number] - max(0, taken))
        elif found.fd is not None:
            found.in_program = buffered.get(f"{HOST}:{client.port}", self.rest.get(number, 0))
        return found

    def interest_list(self, ready):
        """Return what the server's epoll objects watch (proc(5), fdinfo), and what is ready."""
        folder = Path(f"/proc/{self.server.process.pid}")
        objects = [fd for fd in self.descriptors() if EPOLL in os.readlink(folder / f"fd/{fd}")]
        texts = [(folder / f"fdinfo/{fd}").read_text() for fd in objects]
        found = []
        for fd, mask in re.findall(r"tfd:\s*(\d+) events:\s*([0-9a-f]+)", "".join(texts)):
            wanted = int(mask, 16) & WANTED
            events = " ".join(name for name, bit in EVENTS.items() if wanted & bit)
            found.append(Interest(int(fd), events, int(fd) in ready))
        return sorted(found, key=lambda one: one.fd) if objects else None
