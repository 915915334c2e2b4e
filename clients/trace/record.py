"""Play a scenario to a server under the tracer, and print each step with the kernel's side as JSON.

bundle.py runs it in a network namespace of its own, where the kernel's buffers are small.
"""

import array
import collections
import contextlib
import itertools
import json
import re
import socket
import sys
import time
from pathlib import Path

import psutil

from clients.system import netns, procfs
from clients.system.processes import find_server
from clients.system.sampler import ThreadState
from clients.system.sockets import reset_on_close
from clients.trace import values
from clients.trace.interpret import ClientState, TraceEvent, is_worth_seeing
from clients.trace.kernel import FIRST_PORT, HOST, UNDER_WAY, KernelView
from clients.trace.scenarios import SCENARIOS, parse
from clients.trace.session import traced

CLIENT = re.compile(rf"{HOST}:{FIRST_PORT // 1000}0(\d\d)")  # its address
BUFFERS = "4096 4608 4608"  # bytes: the least that the kernel takes (tcp(7), tcp_wmem and tcp_rmem)
BACKLOG = 5
MTU = 1000  # bytes of a packet: with the usual 65,536 a reply goes into the buffer whole or not
MESSAGE = b"a" * 500  # what a client sends that floods
MOST = 6000  # events of a recording
RETRANSMITTED = 1.4  # seconds after which each SYN has been retransmitted
APART = 0.05  # seconds; the kernel's timers of a second go off in steps of 0.03
DELAYED = 0.26  # seconds: acknowledgements wait 0.04, a last small segment 0.2 (TCP_RTO_MIN)
SIOCOUTQNSD = 0x894B  # <linux/sockios.h>: bytes that TCP has not sent yet
FIONREAD = 0x541B  # <asm-generic/ioctls.h>: bytes that can be read
NOT_POSSIBLE = 3  # the exit status if this system does not allow a recording


class ScenarioClient:
    """One client of a scenario; it never blocks."""

    def __init__(self, number):
        self.number, self.port = number, FIRST_PORT + number
        self.sock, self.is_reading = socket.socket(), True
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((HOST, self.port))
        self.sock.setblocking(False)
        self.sent, self.received, self.left = b"", b"", ""

    def act(self, does, words, address):
        with contextlib.suppress(OSError):  # no room; the server has closed or reset it
            match does:
                case "connects":
                    self.sock.connect_ex(address)
                case "sends":
                    self.sent += words[: self.sock.send(words)]
                case "floods":
                    for _ in range(1000):
                        self.sent += MESSAGE[: self.sock.send(MESSAGE)]
                case "stops reading":
                    self.is_reading = False
                case "reads":
                    self.is_reading = True
                    while chunk := self.sock.recv(1 << 16):
                        self.received += chunk
                case "leaves":
                    self.left = "left"
                    self.sock.close()
                case "resets":
                    self.left = "reset"
                    reset_on_close(self.sock)
                    self.sock.close()
                case _:
                    raise ValueError(f"no client {does}")

    def state(self):
        sent, received = values.describe(self.sent), values.describe(self.received)
        return ClientState(self.number, sent, received, self.left)

    def buffers(self):
        """Return how many bytes are in its send buffer and in its receive buffer (tcp(7))."""
        import fcntl  # not at the top: Windows does not have it

        sizes = array.array("i", [0]), array.array("i", [0])
        with contextlib.suppress(OSError, ValueError):  # it is not connected; it has left
            for request, size in zip((SIOCOUTQNSD, FIONREAD), sizes, strict=True):
                fcntl.ioctl(self.sock, request, size)
        return [size[0] for size in sizes]


class Player:
    """Plays a scenario; events: what has been recorded."""

    def __init__(self, session, scenario):
        self.session, self.scenario, self.server = session, scenario, session.server
        self.lines = self.server.program.read_text(encoding="utf-8").splitlines()
        self.clients, self.events, self.action, self.logged = {}, [], 0, 0
        self.kernel, self.quiescent = KernelView(self.server, BACKLOG, self.clients), []
        self.report, self.current = session.report(), None
        self.ids = collections.defaultdict(itertools.count().__next__)  # {thread: its number here}
        self.names = {}  # {thread: what it is called}
        self.seen = {}  # {thread: the snapshot that was recorded last}

    def play(self):
        self.session.settle()
        self.until_blocked()
        if not self.events:  # the program waits in another file
            self.note(self.session.threads[self.server.process.pid])
        if self.scenario.room is not None:
            most = max(self.kernel.descriptors()) + 1 + self.scenario.room
            self.server.process.rlimit(psutil.RLIMIT_NOFILE, (most, most))
        for action in self.scenario.actions:
            self.action += 1
            if action == "time passes":
                self.wait()
            else:
                numbers, does, words = parse(action)
                new = set(numbers) - self.clients.keys()
                self.clients |= {number: ScenarioClient(number) for number in sorted(new)}
                while self.act(numbers, does, words) and does == "floods":
                    self.until_blocked()
            self.until_blocked()
            everyone = self.clients.values()
            while late := [one.number for one in everyone if one.is_reading and one.buffers()[1]]:
                self.act(late[:1], "reads")
                self.until_blocked()
            if self.server.process.children():
                raise RuntimeError("starts other processes, which cannot be recorded")

    def wait(self):
        """Let time pass: each dropped SYN is retransmitted, each sleep ends."""
        with self.recorded(TraceEvent("time")):
            deadline = time.monotonic() + RETRANSMITTED
            while self.has_syn_sent() and time.monotonic() < deadline:
                time.sleep(0.01)

    def act(self, numbers, does, words=b""):
        """Let clients act; return how many bytes they have sent."""
        clients = [self.clients[number] for number in numbers]
        sent, received = sum(len(one.sent) for one in clients), len(clients[0].received)
        event = TraceEvent("client", actors=numbers, does=does, words=values.describe(words))
        with self.recorded(event):
            for client in clients:
                client.act(does, words, self.server.address)
                if self.has_syn_sent():  # or the timers of the SYNs would go off in any order
                    time.sleep(APART)
            self.wait_until_quiescent()
            event.sent = sum(len(one.sent) for one in clients) - sent
            event.received = len(clients[0].received) - received
        return event.sent

    def has_syn_sent(self):
        return any(line.state == "SYN-SENT" for line in self.kernel.lines())

    @contextlib.contextmanager
    def recorded(self, event):
        """Record an event, which happens while the server's threads are stopped, and what it wakes.

        The state after the event is that before the threads go on; their events follow.
        """
        process, threads = self.server.process, self.states()
        process.suspend()
        try:
            while not procfs.all_stopped(process.pid):
                time.sleep(0.001)
            yield
            kernel = self.kernel.state(self.report)
        finally:
            process.resume()
        running = self.session.threads.values()
        while event.kind == "time" and any(one.call == "clock_nanosleep" for one in running):
            self.session.receive(0.01)
            self.session.look()
        self.session.settle()
        self.report = self.session.report()
        ready = set(self.report.ready)
        for thread in running:  # what poll() has returned was ready
            polls = [call.events for call in thread.calls if call.owner == "epoll" and call.events]
            ready |= {fd for fd, _ in polls[0]} if polls else set()
        for one in kernel.epoll or ():
            one.ready = one.fd in ready
        self.record(event, kernel, threads)
        self.note_others()

    def wait_until_quiescent(self):
        """Wait until the kernel has done its part: nothing is under way or unacknowledged."""
        same = since = None
        while (now := self.kernel.states()) != self.quiescent:
            if now != same:
                same, since = now, time.monotonic()
            under_way = any(unsent or state in UNDER_WAY for *_, state, unsent in now)
            if not under_way or time.monotonic() - since > DELAYED:
                self.quiescent = now
            time.sleep(0.01 if under_way else 0.001)

    def until_blocked(self):
        """Let one thread go on at a time, a line at a time, until all of them are blocked."""
        while stopped := self.ordered(self.session.stopped()):
            if len(self.events) > MOST:
                raise RuntimeError(f"more than {MOST} steps: the server does not come to rest")
            thread = next((one for one in stopped if one.id == self.current), stopped[0])
            if thread.id not in self.seen:
                self.note(thread)
            self.current = thread.id
            self.session.step(thread)
            self.session.settle()
            self.note(thread)
            self.note_others()

    def note_others(self):
        """Record what threads have done that were woken."""
        for thread in self.ordered(self.session.threads.values()):
            before = self.seen.get(thread.id)
            moved = thread.stopped and before and thread.snapshot is not before
            if moved or (not thread.stopped and any(call.done for call in thread.calls)):
                self.note(thread)

    def ordered(self, threads):
        """Return threads in their order: first the main one, then by their clients."""
        return sorted(threads, key=lambda one: ((name := self.name(one)) != "main", name))

    def name(self, thread):
        """Return what a thread is called: main, or by the client that it serves now."""
        found = CLIENT.fullmatch(thread.snapshot.remote or "")
        if found:
            self.names[thread.id] = f"client {int(found[1])}"
        elif thread.id not in self.names or not thread.stopped:  # it waits for its next client
            self.names[thread.id] = thread.snapshot.name
        return self.names[thread.id]

    def note(self, thread):
        """Record what a thread has done since it was recorded last."""
        if thread.id not in self.session.threads:
            self.record(TraceEvent("end", self.ids[thread.id], self.names[thread.id]))
            return
        self.wait_until_quiescent()
        self.report = self.session.report()
        event, before = TraceEvent(**vars(thread.snapshot)), self.seen.get(thread.id)
        event.thread, event.name = self.ids[thread.id], self.name(thread)
        event.call, event.fd, event.calls = thread.call, thread.fd, thread.taken()
        self.kernel.add(event.calls)
        if thread.begins and event.how == "callback":
            event.how = "begins"
        if thread.stopped:
            self.seen[thread.id] = thread.snapshot
        if not thread.stopped or is_worth_seeing(event, before, self.lines):
            self.record(event)

    def record(self, event, kernel=None, threads=None):
        event.action, running = self.action, self.session.threads.values()
        if kernel is None:  # or else the log is of the threads that were woken, whose events follow
            log = self.server.log()
            event.log, self.logged = log[self.logged :], len(log)
        event.starts = any(one.begins and one.id not in self.ids for one in running)
        event.threads = threads or self.states()
        event.kernel = kernel or self.kernel.state(self.report)
        event.clients = [one.state() for one in self.clients.values()]
        self.events.append(event)

    def states(self):
        found = []
        for one in self.ordered(self.session.threads.values()):
            here, names = one.snapshot, (self.ids[one.id], self.name(one))
            line = here.next_line or here.line
            found.append(ThreadState(*names, here.function, line, one.call, one.fd))
        return found


def record(scenario, program):
    """Play a scenario to a server; return its events in JSON, with clients named by number."""
    with traced(program, "--backlog", BACKLOG, pause=True, port=3267) as session:
        player = Player(session, scenario)
        try:
            player.play()
        except (OSError, psutil.Error, RuntimeError) as error:
            how = session.server.describe_exit()  # it waits for an end that is under way
            if how.startswith("still runs"):
                raise
            raise RuntimeError(f"the server {how}") from error
        events = json.dumps(player.events, default=vars)
        return CLIENT.sub(lambda found: f"client {int(found[1])}", events)


def set_up_network():
    """Enter a new network namespace in which buffers and packets are small."""
    netns.shrink_tcp_tables()
    netns.enter(None)
    netns.bring_up("lo", mtu=MTU)
    for name in ("tcp_wmem", "tcp_rmem"):
        Path("/proc/sys/net/ipv4", name).write_text(BUFFERS)


def main():
    scenario, program = sys.argv[1:]
    try:
        set_up_network()
    except OSError as error:
        print("a network namespace is needed that can be configured:", error, file=sys.stderr)
        sys.exit(NOT_POSSIBLE)
    try:
        print(record(SCENARIOS[scenario], find_server(program)))
    except (OSError, RuntimeError) as error:
        sys.exit(" ".join(str(error).split()))


if __name__ == "__main__":
    main()
