"""Record the calls by which a program uses the kernel: what it passes, what it receives or raises.

install() replaces socket's methods, epoll(), poll() and time.sleep() by functions that keep a
TracedCall and call the original. Imported in the server's process: the standard library only.
"""

import collections
import contextlib
import functools
import select
import selectors
import socket
import sys
import threading
import time
import weakref
from dataclasses import dataclass

from clients.system.frames import FIRST_OWN_FD
from clients.trace.values import describe, remote_of

MOST = 1000  # calls of a thread that are kept: it may never stop
# <linux/eventpoll.h>; other systems do not have the names
EVENTS = {"IN": 1, "PRI": 2, "OUT": 4, "ERR": 8, "HUP": 16, "RDHUP": 8192, "ONESHOT": 1 << 30}
EVENTS["ET"] = 1 << 31
USUAL = 7  # the event mask if register() is not given one
ONCE = EVENTS["ONESHOT"] | EVENTS["ET"]  # an event of these is reported by one poll() only
METHODS = ["_accept", "recv", "recv_into", "send", "sendall", "setblocking", "close"]
GIVEN = {name: lambda data: memoryview(data).nbytes for name in ("send", "sendall")}
GIVEN["setblocking"] = str
transports = weakref.WeakKeyDictionary()  # {asyncio's transport: its socket}
interest_lists = weakref.WeakSet()  # every Epoll of the program
acceptors = set()  # the kernel's numbers of threads that have accepted a connection
_calls = {}  # {thread's identifier: its calls since the last take()}


@dataclass
class TracedCall:
    """One call; the fields that its kind does not have are None."""

    name: str  # "accept", "recv", "poll", "register", ...
    owner: str  # "socket", "epoll", "poll" or "time"
    fd: int | None = None  # the socket's or the interest list's
    remote: str | None = None  # "host:port" of the socket's other end
    given: float | str | None = None  # bytes to send, mask, seconds, True or False
    target: int | None = None  # the descriptor that is accepted, registered, unregistered
    count: int | None = None  # bytes received, or taken by the kernel
    text: str | None = None  # what was received, as a reader would write it
    events: list[list[int]] | None = None  # [descriptor, event mask], as poll() returns them
    error: str | None = None  # the exception that it raised: "BlockingIOError: ..."
    done: bool = False  # it has returned or raised


def take(thread):
    """Return the calls of a thread, by its identifier, since the last time; each done one once."""
    found = list(_calls.pop(thread, ()))
    if found and not found[-1].done:
        _calls[thread] = collections.deque(found[-1:], maxlen=MOST)
    return found


@contextlib.contextmanager
def recorded(name, owner, fd=None, **more):
    """Yield the TracedCall of what is done inside, to be completed with its result."""
    call = TracedCall(name, owner, fd, **more)
    _calls.setdefault(threading.get_ident(), collections.deque(maxlen=MOST)).append(call)
    try:
        yield call
    except BaseException as error:
        call.error = f"{type(error).__name__}: {error}"
        raise
    finally:
        call.done = True


def _socket_method(name):
    real = getattr(socket.socket, name)

    def method(sock, *args, **options):
        fd = sock.fileno()
        if not 0 <= fd < FIRST_OWN_FD:
            return real(sock, *args, **options)
        caller = sys._getframe(1).f_locals.get("self")
        if hasattr(caller, "get_write_buffer_size"):
            transports[caller] = sock
        first = next(iter((*args, *options.values())), None)
        given = GIVEN[name](first) if name in GIVEN else None
        with recorded(name.lstrip("_"), "socket", fd, remote=remote_of(sock), given=given) as call:
            result = real(sock, *args, **options)
            match name:
                case "_accept":
                    call.target = result[0]
                    acceptors.add(threading.get_native_id())
                case "send" | "sendall":
                    call.count = given if result is None else result
                case "recv" | "recv_into":
                    got = result if name == "recv" else bytes(memoryview(first)[:result])
                    call.count, call.text = len(got), describe(got)
        return result

    method.__name__ = name
    return method


class Poll:
    """A poll object of the program, or its epoll object."""

    owner, _fd = "poll", None

    def __init__(self, real):
        self._real = real

    def __getattr__(self, name):
        if name in ("register", "modify", "unregister"):
            return functools.partial(self._change, name)
        return getattr(self._real, name)

    def _change(self, name, fd, *mask, **named):
        mask = (*mask, *named.values()) or ((USUAL,) if name == "register" else ())
        number = fd if isinstance(fd, int) else fd.fileno()
        with recorded(name, self.owner, self._fd, target=number, given=next(iter(mask), None)):
            getattr(self._real, name)(fd, *mask)
        return number, mask

    def poll(self, timeout=None, *maxevents):
        with recorded("poll", self.owner, self._fd, given=timeout) as call:
            found = self._real.poll(timeout, *maxevents)
            call.events = [list(pair) for pair in found]
        return found


class Epoll(Poll):
    """An epoll object of the program, and a second one with the same interest list.

    The second object reports the ready list, which the kernel does not show, and takes no event
    away; events that are reported once are kept until the program's poll() has reported them too.
    """

    owner = "epoll"

    def __init__(self, *args, **options):
        import fcntl  # not at the top: Windows does not have it

        super().__init__(_epoll(*args, **options))
        self._twin, self._once = None, {}
        with contextlib.suppress(OSError), contextlib.closing(_epoll()) as low:  # no descriptor
            high = fcntl.fcntl(low.fileno(), fcntl.F_DUPFD_CLOEXEC, FIRST_OWN_FD)
            self._twin = _epoll.fromfd(high)
        interest_lists.add(self)

    @property
    def _fd(self):
        return self._real.fileno()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self._twin:
            self._twin.close()
        with recorded("close", "epoll", self._fd):
            self._real.close()

    def _change(self, name, fd, *mask, **named):
        number, mask = super()._change(name, fd, *mask, **named)
        self._once.pop(number, None)
        with contextlib.suppress(OSError, AttributeError):  # AttributeError: there is no twin
            getattr(self._twin, name)(fd, *mask)
        if mask and mask[0] & ONCE:
            self._once[number] = False

    def poll(self, *args, **options):
        found = super().poll(*args, **options)
        self.ready()
        self._once |= {fd: False for fd, _ in found if fd in self._once}
        return found

    def ready(self):
        if not self._twin or self._twin.closed or self._real.closed:
            return []
        now = [fd for fd, _ in self._twin.poll(0)]
        self._once |= {fd: True for fd in now if fd in self._once}
        return sorted({*now, *(fd for fd, waits in self._once.items() if waits)})


def _sleep(seconds):
    with recorded("sleep", "time", given=seconds):
        _real_sleep(seconds)


def install():
    """Record all calls from now on."""
    global _epoll, _real_sleep
    _epoll, _real_sleep, real_poll = select.epoll, time.sleep, select.poll
    for name in METHODS:
        setattr(socket.socket, name, _socket_method(name))
    select.epoll, select.poll, time.sleep = Epoll, lambda: Poll(real_poll()), _sleep
    selectors.EpollSelector._selector_cls = Epoll
    selectors.PollSelector._selector_cls = staticmethod(select.poll)  # no method: it takes no self
