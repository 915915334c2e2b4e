"""Play a story to a server under the tracer and record each step, with the kernel's side.

It prints a recording as JSON. bundle.py runs it in a network of its own, where the kernel's
buffers are small: there a client that does not read has filled them after some steps.
"""

import contextlib
import json
import os
import re
import select
import socket
import sys
import time
from pathlib import Path

import psutil

from clients.system import netns, procfs
from clients.system.processes import find_server
from clients.system.sockets import reset_on_close
from clients.trace import tracer
from clients.trace.scenarios import STORIES
from clients.trace.session import traced

HOST = "127.0.0.1"
FIRST = 50000  # client 1 has port 50001, and so on, so that each recording has the same numbers
BUFFERS = "4096 4608 4608"  # bytes: the least that the kernel takes (tcp(7), tcp_wmem and tcp_rmem)
CLIENT = re.compile(rf"{HOST}:{FIRST // 1000}0(\d\d)")  # its address
BACKLOG = 5
MTU = 1000  # bytes of a packet: with the usual 65,536 a reply goes into the buffer whole or not
BITE = b"a" * 500  # what a client asks that floods
MOST = 1500  # moments of a recording
AGAIN = 1.4  # seconds after which each SYN has been sent again
APART = 0.05  # seconds; the kernel's timers of a second go off in steps of 0.03
DELAYED = 0.26  # seconds: acknowledgements wait 0.04, a last small segment 0.2 (TCP_RTO_MIN)
UNDER_WAY = {"FIN-WAIT-1", "LAST-ACK", "CLOSING"}  # until the other side's kernel has answered
EPOLL = "[eventpoll]"  # how /proc/PID/fd calls an epoll set
ENDED = {"CLOSE-WAIT", "LAST-ACK", "CLOSING", "TIME-WAIT"}  # the other side's FIN has come
QUIET = re.compile(r"\s*(try:|else:|pass|while True:)\s*(#.*)?$")  # lines at which nothing happens


class Guest:
    """One client of a story: it never waits. heard, said: bytes so far."""

    def __init__(self, number):
        self.number, self.port = number, FIRST + number
        self.sock, self.reading = socket.socket(), True
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((HOST, self.port))
        self.sock.setblocking(False)
        self.said, self.heard, self.left = b"", b"", ""

    def connects(self, address, _):
        self.sock.connect_ex(address)

    def says(self, _, words):
        self.said += words[: self.sock.send(words)]

    def floods(self, _, __):
        with contextlib.suppress(BlockingIOError):
            for _ in range(1000):
                self.said += BITE[: self.sock.send(BITE)]

    def reads_no_more(self, _, __):
        self.reading = False

    def reads(self, _, __):
        self.reading = True
        with contextlib.suppress(BlockingIOError):
            while chunk := self.sock.recv(1 << 16):
                self.heard += chunk

    def leaves(self, _, __):
        self.sock.close()
        self.left = "left"

    def resets(self, _, __):
        reset_on_close(self.sock)
        self.sock.close()
        self.left = "broke off"

    def buffers(self):
        """Return how many bytes wait in its kernel's buffers: unsent, unread."""
        requests = () if self.left else (tracer.SIOCOUTQNSD, tracer.FIONREAD)
        return [tracer.waiting(self.sock, request) for request in requests]


class Recorder:
    """What plays the story; moments: what has been recorded, see moment()."""

    def __init__(self, tracee, story):
        self.tracee, self.story, self.server = tracee, story, tracee.server
        self.text = self.server.program.read_text().splitlines()
        self.limit = procfs.accept_queue_limit(BACKLOG)
        self.guests, self.moments, self.number = {}, [], 0
        self.names = {}  # {thread: how it is called}
        self.frames = {}  # {thread: the variables of each of its functions, the outermost first}
        self.current, self.logged, self.rests = None, 0, []
        self.kept = {}  # {"host:port": bytes}, as told last

    def play(self):
        self.tracee.settle()
        self.until_rest()
        if self.story.room is not None:
            process, held = self.server.process, self.descriptors()
            process.rlimit(psutil.RLIMIT_NOFILE, (max(held) + 1 + self.story.room,) * 2)
        for act in self.story.acts:
            self.number += 1
            self.act(act)
            self.until_rest()
            self.let_them_read()

    def let_them_read(self):
        """Let each client that reads take what is there, until all is quiet."""
        while hungry := [
            guest
            for guest in self.guests.values()
            if guest.reading and not guest.left and guest.buffers()[1]
        ]:
            self.perform([hungry[0].number], "reads")
            self.until_rest()

    def act(self, act):
        if act.does == "waits":
            self.wait()
            return
        for number in act.clients:
            if number not in self.guests:
                self.guests[number] = Guest(number)
        while self.perform(act.clients, act.does, act.words) and act.does == "floods":
            self.until_rest()

    def wait(self):
        """Let time pass: each SYN that was thrown away is sent again, each sleep ends."""
        with self.standing():
            deadline = time.monotonic() + AGAIN
            while self.knocking() and time.monotonic() < deadline:
                time.sleep(0.01)
            seen = self.kernel()
        while self.naps():
            self.tracee.listen(0.01)
            self.tracee.asleep()
        self.woken(seen, {"kind": "time"})

    def naps(self):
        return any(thread.call == "clock_nanosleep" for thread in self.tracee.threads.values())

    def knocking(self):
        return any(line.state == "SYN-SENT" for line in self.lines())

    @contextlib.contextmanager
    def standing(self):
        """Keep all threads of the server where they are; its kernel goes on."""
        process = self.server.process
        process.suspend()
        try:
            while not procfs.all_stopped(process.pid):
                time.sleep(0.001)
            yield
        finally:
            process.resume()

    def perform(self, numbers, does, words=b""):
        """Let clients do something while the server stands still, and record what that wakes."""
        guests = [self.guests[number] for number in numbers]
        said, heard = (sum(len(getattr(one, what)) for one in guests) for what in ("said", "heard"))
        with self.standing():
            for guest in guests:
                getattr(guest, does.replace(" ", "_"))(self.server.address, words)
                if self.knocking():  # or the timers of their SYNs would go off in any order
                    time.sleep(APART)
            self.calm()
            seen = self.kernel()
        act = {"kind": "client", "who": list(numbers), "does": does, "words": tracer.text(words)}
        act["said"] = sum(len(one.said) for one in guests) - said
        act["heard"] = sum(len(one.heard) for one in guests) - heard
        self.woken(seen, act)
        return act["said"]

    def woken(self, seen, act):
        """Record an action, and a step for each thread that it has woken. seen: see kernel()."""
        threads = self.tracee.threads
        before = {number: one.told for number, one in threads.items() if not one.stopped}
        where = self.places()
        self.tracee.settle()
        woken = [thread for thread in self.ordered() if thread.number in before]
        if woken and "epoll" in seen:  # epoll_wait() takes nothing away from a socket
            seen["epoll"] = self.epoll(woken[0].told, seen)
        self.moment(act, seen, where)
        for thread in woken:
            self.note(thread, before[thread.number])

    def calm(self):
        """Wait until the kernel has done its part: nothing is under way or unacknowledged."""
        same = since = None
        while (now := self.states()) != self.rests:
            if now != same:
                same, since = now, time.monotonic()
            under_way = any(unsent or state in UNDER_WAY for *_, state, unsent in now)
            if not under_way or time.monotonic() - since > DELAYED:
                self.rests = now
            time.sleep(0.001)

    def until_rest(self):
        """Let one thread go on at a time, a line at a time, until all of them sleep."""
        while stopped := self.ordered():
            if len(self.moments) > MOST:
                raise RuntimeError(f"more than {MOST} steps: does the server come to rest?")
            same = [thread for thread in stopped if thread.number == self.current]
            thread = (same or stopped)[0]
            if thread.number not in self.frames:
                self.note(thread, None)
            self.current, before = thread.number, thread.told
            self.tracee.go(thread)
            self.tracee.settle()
            self.note(thread, before)

    def ordered(self):
        """Return the threads that are stopped: first the main one, then by their clients."""
        return self.sorted(self.tracee.stopped())

    def sorted(self, threads):
        names = {thread.number: self.name(thread.number) for thread in threads}
        return sorted(threads, key=lambda one: (names[one.number] != "main", names[one.number]))

    def name(self, number):
        """Return how a thread is called: main, or by the client whose connection it has."""
        told = self.tracee.threads[number].told
        if number not in self.names:
            connection = CLIENT.search(" ".join(told["variables"].values()))
            alone = told["name"] == "main" or not connection
            self.names[number] = told["name"] if alone else f"client {int(connection[1])}"
        return self.names[number]

    # From what is told to what is recorded

    def note(self, thread, before):
        """Record what a thread has done since it stood at before; None: it has just begun."""
        if thread.number not in self.tracee.threads:  # it has ended
            self.frames.pop(thread.number, None)
            return self.moment({"kind": "end", "thread": self.names[thread.number]})
        name = self.name(thread.number)
        if not thread.stopped:
            line = goes_on(before)[1]
            step = {"kind": "sleep", "thread": name, "line": line, "call": thread.call}
            return self.moment(step | {"fd": thread.fd})
        if self.states() != self.rests:
            self.calm()
            self.tracee.look_again(thread)
        told = thread.told
        self.kept |= told["kept"]
        frames = self.frames.setdefault(thread.number, [])
        depth = len(told["stack"])
        del frames[depth:]
        known = frames[depth - 1] if len(frames) == depth and told["event"] != "call" else {}
        frames[depth - 1 :] = [told["variables"]]
        step = {"kind": told["event"], "thread": name, "function": told["stack"][0][0]}
        if before and before["event"] == "return":  # what it has changed was seen to change
            known = known | before["variables"]
        news = {one for one, text in told["variables"].items() if known.get(one) != text}
        step["changed"] = [one for one in told["variables"] if one in news and before]
        step |= {one: told[one] for one in ("variables", "sizes", "value", "calls")}
        step["next"] = told["stack"][0][1]
        step["line"] = self.executed(told, before)
        if self.matters(step, before):
            return self.moment(step, told=told)
        return None

    def executed(self, told, before):
        """Return the number of the line that a thread has executed."""
        if before is None or told["event"] == "call":
            caller = told["event"] == "call" and len(told["stack"]) > 1
            return told["stack"][1 if caller else 0][1]
        return goes_on(before)[1]

    def matters(self, step, before):
        """Say whether something has happened at all that a reader would want to see."""
        if before and (before["event"] in ("call", "exception")) and not step["calls"]:
            return step["kind"] == "call" or (
                step["kind"] == "return" and before["event"] == "call"
            )
        if step["kind"] == "exception" and step["value"].startswith("StopIteration"):
            return False  # so a coroutine hands over its result
        text = self.text[step["line"] - 1]
        idle = step["kind"] == "line" and not step["calls"] and not step["changed"]
        return not (idle and QUIET.match(text))

    def moment(self, step, seen=None, threads=None, told=None):
        """Record a moment: a step, or a client's action, and how all stands after it.

        step["kind"]: "line", "call", "return", "exception" (as the tracer tells them), "sleep",
        "end" (of a thread), "client" or "time". More of it: see note() and perform().
        """
        log = self.server.log()
        state = {"threads": threads or self.places(), "kernel": seen or self.kernel(told)}
        state["clients"] = [self.story_of(guest) for guest in self.guests.values()]
        self.moments.append({"act": self.number} | step | {"log": log[self.logged :]} | state)
        self.logged = len(log)

    def places(self):
        """Return where each thread of the program is."""
        rows = []
        for thread in self.sorted(self.tracee.threads.values()):
            told = thread.told
            function, line = told["stack"][0] if thread.stopped else goes_on(told)
            row = {"name": self.name(thread.number), "function": function, "line": line}
            asleep = {} if thread.stopped else {"call": thread.call, "fd": thread.fd}
            rows.append(row | {"call": None, "fd": None} | asleep)
        return rows

    def story_of(self, guest):
        said, heard = tracer.text(guest.said), tracer.text(guest.heard)
        return {"client": guest.number, "said": said, "heard": heard, "left": guest.left}

    # The kernel's side

    def lines(self):
        return procfs.tcp_sockets(self.server.address[1], self.server.process.pid)

    def states(self):
        """Return what changes while the kernel does something; its timers always do."""
        return [(line.local, line.remote, line.state, line.send_q) for line in self.lines()]

    def descriptors(self):
        """Return the server's own descriptors, without the tracer's."""
        held = os.listdir(f"/proc/{self.server.process.pid}/fd")
        return sorted(int(fd) for fd in held if int(fd) < tracer.HIGH)

    def kernel(self, told=None):
        """Return the kernel's side; told: what a thread says from inside at this very moment.

        queue, limit: connections in the accept queue, and how many it holds. listener: the
        listening socket's descriptor. connections: of each client the state of both ends (None
        where there is no such socket), the server's descriptor, whether it is queued, four buffers
        in bytes (the client's unsent, the server's unread, the server's unsent, the client's
        unread), and what the program itself has kept to send. descriptors: the server's. epoll:
        [{"fd", "waits": "IN", "OUT" or "", "ready"}], if the server has an epoll set.
        """
        lines = self.lines()
        held = procfs.socket_fds(self.server.process.pid)
        listeners = [line for line in lines if line.state == "LISTEN"]
        found = {
            "queue": sum(line.recv_q for line in listeners),
            "listener": next((held.get(line.inode) for line in listeners), None),
            "limit": self.limit,
            "connections": [self.connection(one, lines, held) for one in self.guests.values()],
            "descriptors": self.descriptors(),
        }
        sets = self.epoll(told, found)
        return found if sets is None else found | {"epoll": sets}

    def connection(self, guest, lines, held):
        theirs = [line for line in lines if line.local[1] == guest.port]
        ours = [line for line in lines if line.remote[1] == guest.port]
        row = {"client": guest.number, "theirs": None, "ours": None, "fd": None, "queued": False}
        mine, yours = guest.buffers() or [0, 0], [0, 0]
        if theirs:
            row["theirs"] = theirs[0].state
        if ours:
            line = ours[0]
            row |= {"ours": line.state, "fd": held.get(line.inode)}
            row["queued"] = line.in_accept_queue
            yours = [line.recv_q - (line.state in ENDED), line.send_q - (line.state in UNDER_WAY)]
        row["kept"] = self.kept.get(f"{HOST}:{guest.port}", 0)
        row["buffers"] = [mine[0], *(max(0, number) for number in yours), mine[1]]
        return row

    def epoll(self, told, seen):
        """Return what the server's epoll set waits for (proc(5), fdinfo), and what is ready.

        told: what a thread says from inside, or None: then it sleeps, and there is something to
        read where the rest of the kernel's side, seen, says so.
        """
        folder, found = Path(f"/proc/{self.server.process.pid}"), []
        sets = [fd for fd in self.descriptors() if EPOLL in os.readlink(folder / "fd" / str(fd))]
        if not sets:
            return None
        rows = seen["connections"]
        ready = {one["fd"]: "r" for one in rows if one["buffers"][1] or one["ours"] in ENDED}
        ready |= {seen["listener"]: "r" * (seen["queue"] > 0)}
        if told:
            ready = {fd: text for fd, _, _, _, text in told["sockets"]}
        lines = (folder / "fdinfo" / str(sets[0])).read_text()
        for fd, mask in re.findall(r"tfd:\s*(\d+) events:\s*([0-9a-f]+)", lines):
            wanted, is_ready = int(mask, 16), ready.get(int(fd), "")
            waits = "IN" * bool(wanted & select.EPOLLIN) + "OUT" * bool(wanted & select.EPOLLOUT)
            is_ready = ("IN" in waits and "r" in is_ready) or ("OUT" in waits and "w" in is_ready)
            found.append({"fd": int(fd), "waits": waits, "ready": is_ready})
        return sorted(found, key=lambda row: row["fd"])


def goes_on(told):
    """Return the [function, line] from which a thread goes on: one that it has left is over."""
    left = told["event"] == "return" and len(told["stack"]) > 1
    return told["stack"][1 if left else 0]


def named(moments):
    """Return a recording in which each client is called by its number."""
    text = CLIENT.sub(lambda found: f"client {int(found[1])}", json.dumps(moments))
    return json.loads(text)


def record(story, program):
    """Play one story to one server; return the moments, see Recorder.moment()."""
    netns.shrink_tcp_tables()
    netns.enter(None)
    netns.bring_up("lo", mtu=MTU)
    for name in ("tcp_wmem", "tcp_rmem"):
        Path("/proc/sys/net/ipv4", name).write_text(BUFFERS)
    with traced(program, "--backlog", BACKLOG, walk=True, port=3267) as tracee:
        recorder = Recorder(tracee, story)
        recorder.play()
        return named(recorder.moments)


def main():
    story, program = sys.argv[1:]
    print(json.dumps(record(STORIES[story], find_server(program))))


if __name__ == "__main__":
    main()
