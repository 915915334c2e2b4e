"""The tracer: run a server program, unchanged, and stop it before each of its lines.

    python -m clients.trace.tracer --to SOCKET 01_blocking/server.py --port 3267

Each thread of the server has a channel, a connection to SOCKET (a Unix socket's path). Before a
line of the program's file is executed, when a function of it is called or left, and when a line has
raised something, the thread sends what it sees, a line of JSON (see Tracer.tell), and waits until
a line comes back: "go" lets it execute that one line, "look" makes it look at its sockets again.
Another connection carries orders for all: "walk" makes the threads stop, "run" lets them run (as
they do at first), "frames" is answered by {"frames": [...]} (see frames.py), and its
end ends the server.

All that is imported here is in the server's process, too: the standard library and no more.
"""

import argparse
import array
import dataclasses
import errno
import json
import os
import select
import signal
import socket
import stat
import sys
import threading
import time
import weakref

from clients.system import frames

if sys.platform != "win32":  # there it can be imported, and no more
    import fcntl

    READABLE, WRITABLE = select.POLLIN | select.POLLHUP | select.POLLERR, select.POLLOUT

HIGH = frames.FIRST_OWN_FD
READY = 12  # channels that are open from the beginning: later there may be no descriptor left
FIONREAD = 0x541B  # <asm-generic/ioctls.h>: bytes that can be read
SIOCOUTQNSD = 0x894B  # <linux/sockios.h>: bytes that TCP has not sent yet
PLAIN = (bool, int, float, type(None))
LONGEST = 32  # characters of a value
peers = weakref.WeakKeyDictionary()  # {socket: "host:port"}: after a reset the kernel forgets it


class Announced:
    """Standard output, that tells when the server has said that it listens."""

    def __init__(self, output, then):
        self._output, self._then = output, then

    def write(self, text):
        if text.startswith("listening on "):
            self._then()
        return self._output.write(text)

    def __getattr__(self, name):
        return getattr(self._output, name)


class Tracer:
    """What stops the threads of this process. program: the server's file."""

    def __init__(self, program, path, limit):
        self.program, self.path, self.limit = program, path, limit
        self.walking = False
        self.free = [self.channel() for _ in range(READY)]
        self.mine = {}  # {thread: its channel}
        self.calls = {}  # {thread's identifier: [[name, descriptor, outcome], ...]}
        self.lock = threading.Lock()

    def walk(self):
        self.walking = True

    def channel(self):
        """Return a new channel, out of the way of the server's descriptors."""
        return frames.connect(self.path)

    def obey(self, orders):
        """Follow the orders that come; when no more can come, end the server."""
        with orders.makefile() as lines:
            for line in lines:
                if line == "frames\n":
                    rows = frames.frames(self.program)
                    orders.sendall(json.dumps({"frames": rows}).encode() + b"\n")
                else:
                    self.walking = line == "walk\n"
        os.kill(os.getpid(), signal.SIGKILL)

    # What Python calls before each call, line, return and exception (sys.settrace)

    def enter(self, frame, event, value):
        """Decide about a function that is called: only those of the program are walked through."""
        code = frame.f_code
        if code.co_filename != self.program or code.co_name == "<lambda>":
            return None
        return self.at(frame, event, value)

    def at(self, frame, event, value):
        if self.walking:
            self.stop(frame, event, value)
        return self.at

    # ... and before and after each call of a function in C (sys.setprofile)

    def note(self, frame, event, function):
        """Note the calls by which a program asks the kernel for something, for the next stop."""
        if not self.walking or not event.startswith("c_"):
            return
        owner = getattr(function, "__self__", None)
        if isinstance(owner, (socket.socket, select.epoll)) or function is time.sleep:
            calls = self.calls.setdefault(threading.get_ident(), [])
            if event == "c_call":
                fd = owner.fileno() if hasattr(owner, "fileno") else None
                calls.append([function.__name__.lstrip("_"), fd, "called"])
            elif calls:
                calls[-1][2] = "returned" if event == "c_return" else "raised"

    def stop(self, frame, event, value):
        """Tell where this thread is, and wait until it may go on."""
        channel = self.my_channel()
        told = self.tell(frame, event, value)
        answer = b"look\n"
        while answer == b"look\n":
            told["sockets"] = sockets(self.limit)
            channel.sendall(json.dumps(told).encode() + b"\n")
            answer = channel.recv(16)
        if not answer:
            os.kill(os.getpid(), signal.SIGKILL)  # nobody is there any more

    def my_channel(self):
        thread = threading.current_thread()
        with self.lock:
            for old in [old for old in self.mine if not old.is_alive()]:
                self.free.append(self.mine.pop(old))
            if thread not in self.mine:
                self.mine[thread] = self.free.pop() if self.free else self.channel()
            return self.mine[thread]

    def tell(self, frame, event, value):
        """Return what is to be seen here, a dictionary for JSON.

        event: "line", "call", "return" or "exception". thread: the kernel's number of it; name:
        Python's. stack: [[function, line], ...] of the program's file, the innermost first.
        variables: {name: text} of the innermost; sizes: {name: how many bytes, for bytes}. value:
        what is returned or raised, as text. kept: {"host:port": bytes that an object with that
        connection keeps}. calls: [[name, descriptor, "returned" or "raised"], ...] since the last
        stop. stop() adds sockets: see sockets().
        """
        stack, caller = [], frame
        while caller:
            code = caller.f_code
            if code.co_filename == self.program and code.co_name != "<lambda>":
                stack.append([code.co_name, caller.f_lineno])
            caller = caller.f_back
        variables, sizes = told(frame.f_locals)
        clients = [one for many in frame.f_locals.values() for one in entries(many)]
        thread = threading.current_thread()
        return {
            "event": event,
            "thread": thread.native_id,
            "name": "main" if thread is threading.main_thread() else thread.name,
            "stack": stack,
            "variables": variables,
            "sizes": sizes,
            "value": text(value[1] if event == "exception" else value),
            "kept": {peer: size for one in clients for peer, size in kept(one)},
            "calls": self.calls.pop(thread.ident, []),
        }


def entries(value):
    """Return the objects in a variable: the values of a dictionary, or itself."""
    return value.values() if isinstance(value, dict) else [value]


def kept(value):
    """Yield ("host:port", how many bytes are kept for it) if an object has a connection in it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
        for sock in (part for part in parts if isinstance(part, socket.socket)):
            text_of_socket(sock)
            if peers.get(sock):
                yield peers[sock], sum(len(part) for part in parts if isinstance(part, bytes))


def told(variables):
    """Return {name: text} of variables, with the fields of an object beside it, and sizes.

    What a reader of a server does not look at, as an argument parser, is left out.
    """
    found, sizes = {}, {}
    for name, value in variables.items():
        shown = text(value)
        if shown is not None:
            found[name] = shown
        fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
        parts = {f"{name}.{field.name}": getattr(value, field.name) for field in fields}
        found |= {part: text(one) for part, one in parts.items()}
        both = {name: value, **parts}
        sizes |= {one: len(got) for one, got in both.items() if isinstance(got, bytes)}
    return found, sizes


def text(value):
    """Return a value as a reader would write it; None for what is not worth a place."""
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, (str, bytes)):
        if len(value) <= LONGEST:
            return repr(value)
        short, what = repr(value[:LONGEST]), "bytes" if isinstance(value, bytes) else "letters"
        return f"{short[:-1]}…{short[-1]} ({len(value):,} {what})"
    if isinstance(value, socket.socket):
        return text_of_socket(value)
    if isinstance(value, select.epoll):
        return "epoll, closed" if value.closed else f"epoll (descriptor {value.fileno()})"
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{text(key)}: {text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple, set)):
        return text_of_several(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = (getattr(value, field.name) for field in dataclasses.fields(value))
        count = sum(size for _, size in kept(value))
        rest = f", {count} bytes unsent" if count else ""
        return f"{type(value).__name__}({next(map(text, inner), '')}{rest})"
    return None


def text_of_socket(sock):
    if sock not in peers and sock.fileno() >= 0:
        peers[sock] = remote_address(sock.fileno())
    if sock.fileno() < 0:
        return "socket, closed"
    what = f"connection with {peers[sock]}" if peers[sock] else "listening socket"
    return f"{what} (descriptor {sock.fileno()})"


def remote_address(fd):
    """Return "host:port" of the other end of a socket of this process; None if it has none."""
    try:
        sock = socket.socket(fileno=fd)  # borrowed: it is the server's to close
    except OSError:  # no socket, as an epoll set is none, or closed meanwhile
        return None
    try:
        return "%s:%d" % sock.getpeername()[:2]
    except (OSError, TypeError):  # a listener; a socket of the Unix domain
        return None
    finally:
        sock.detach()


def text_of_several(values):
    if isinstance(values, tuple) and len(values) in (2, 4) and isinstance(values[0], str):
        return "%s:%s" % values[:2]  # an address
    inner = ", ".join(str(text(value)) for value in values)
    return f"({inner})" if isinstance(values, tuple) else f"[{inner}]"


def sockets(limit):
    """Return [[descriptor, "host:port" of the other end or None, unread, unsent, ready], ...].

    unread, unsent: bytes in the kernel's two buffers. ready: a text of "r" (a read would not wait)
    and "w" (a write would not), by a look that takes nothing away from the program's own. No
    descriptor is opened for it: there may be none left.
    """
    rows, poll = [], select.poll()
    for fd in range(3, limit):
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
        except OSError:
            continue
        poll.register(fd, select.POLLIN | select.POLLOUT)
        unread, unsent = waiting(fd, FIONREAD), waiting(fd, SIOCOUTQNSD)
        rows.append([fd, remote_address(fd), unread, unsent])
    ready = dict(poll.poll(0))
    for row in rows:
        mask = ready.get(row[0], 0)
        row.append("r" * bool(mask & READABLE) + "w" * bool(mask & WRITABLE))
    return rows


def waiting(fd, request):
    """Return how many bytes wait in a buffer (tcp(7)); 0 for a socket that has none."""
    number = array.array("i", [0])
    try:
        fcntl.ioctl(fd, request, number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTTY, errno.EBADF, errno.EOPNOTSUPP):
            raise
    return number[0]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", required=True, metavar="SOCKET", help="where to tell it")
    parser.add_argument("--limit", type=int, default=HIGH, help="descriptors to look at (200)")
    parser.add_argument("--walk", action="store_true", help="from the moment when it listens")
    parser.add_argument("program", help="the server's file")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="the server's own")
    args = parser.parse_args()
    tracer = Tracer(args.program, args.to, args.limit)
    orders = tracer.channel()
    threading.Thread(target=tracer.obey, args=(orders,), name="tracer", daemon=True).start()
    orders.sendall(b'{"orders": true}\n')
    if args.walk:
        sys.stdout = Announced(sys.stdout, tracer.walk)
    threading.settrace(tracer.enter)
    threading.setprofile(tracer.note)
    sys.settrace(tracer.enter)
    sys.setprofile(tracer.note)
    frames.run_program(args.program, args.options)


if __name__ == "__main__":
    main()
