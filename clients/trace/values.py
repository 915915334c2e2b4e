"""Write the values of a program's variables as a reader would, in the server's process."""

import collections
import re
import select
import socket
import types
import weakref

LONGEST = 32  # characters of a text, or bytes
MOST = 20  # members of a list or a dictionary
DEEPEST = 3  # lists in lists
ADDRESS = re.compile(r"[\d.]+$|[\da-f:]+(%\w+)?$")  # of IPv4, of IPv6
_remotes = weakref.WeakKeyDictionary()  # {socket: "host:port"}: after a reset the kernel forgets it


def remote_of(sock):
    """Return "host:port" of the other end of a socket; None if it has none."""
    if sock not in _remotes and sock.fileno() >= 0:
        try:
            _remotes[sock] = "%s:%d" % sock.getpeername()[:2]
        except (OSError, TypeError):  # a listener; a socket of the Unix domain
            return None
    return _remotes.get(sock)


def variables_of(frame):
    """Return {name: text} of a function's variables, with the fields of its objects next to them.

    A value of a kind that only a library knows, such as an argument parser, is left out.
    """
    found = {}
    for name, value in frame.f_locals.items():
        found[name] = value
        found |= {f"{name}.{field}": inner for field, inner in fields_of(value).items()}
    return {name: text for name in found if (text := describe(found[name])) is not None}


def fields_of(value):
    """Return {name: value} of the attributes of an object whose class the program defines."""
    kind = type(value)
    if kind.__module__ != "__main__":
        return {}
    slots = [name for one in kind.__mro__ for name in getattr(one, "__slots__", ())]
    found = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return found | getattr(value, "__dict__", {})


def describe(value, depth=0):
    """Return a value as a reader would write it; None for what only a library knows."""
    match value:
        case bool() | int() | float() | None:
            return repr(value)
        case str():
            return shortened(value, "characters")
        case bytes() | bytearray() | memoryview():
            return shortened(bytes(value), "bytes")
        case BaseException():
            return f"{type(value).__name__}: {value}"
        case select.epoll():
            return "epoll, closed" if value.closed else f"epoll (descriptor {value.fileno()})"
        case types.GeneratorType() | types.CoroutineType():
            return f"{type(value).__name__} {value.__qualname__.rpartition('.')[2]}()"
        case dict() | list() | tuple() | set() | frozenset() | collections.deque():
            return describe_members(value, depth + 1)
    if is_socket(value):
        return describe_socket(value)
    if type(value).__module__ == "__main__" and not isinstance(value, type):
        sockets = [one for one in fields_of(value).values() if is_socket(one)]
        inside = describe_socket(sockets[0]) if sockets else ""
        return f"{type(value).__name__}({inside})"
    return None


def is_socket(value):
    return hasattr(type(value), "getpeername")  # also one of asyncio or trio


def shortened(value, unit):
    if len(value) <= LONGEST:
        return repr(value)
    short = repr(value[:LONGEST])
    return f"{short[:-1]}…{short[-1]} ({len(value):,} {unit})"


def describe_socket(sock):
    if sock.fileno() < 0:
        return "socket, closed"
    remote = remote_of(sock)
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    what = f"connection with {remote}" if remote else "listening socket" if listens else "socket"
    return f"{what} (descriptor {sock.fileno()})"


def describe_members(values, depth):
    """Return the members of a list, a dictionary or the like; a type's name for an unknown one."""
    match values:
        case (str(host), int(port)) | (str(host), int(port), int(), int()) if ADDRESS.match(host):
            return f"{host}:{port}"
        case set() | frozenset() if not values:
            return "set()"
    if depth > DEEPEST:
        return f"{len(values):,} members"
    pairs = values.items() if isinstance(values, dict) else zip(values, strict=True)
    texts = [
        ": ".join(describe(one, depth) or f"<{type(one).__name__}>" for one in pair)
        for pair in list(pairs)[:MOST]  # copied at once: another thread may change it
    ]
    texts += [f"… ({len(values):,} in all)"] * (len(values) > MOST)
    first, last = {dict: "{}", set: "{}", frozenset: "{}", tuple: "()"}.get(type(values), "[]")
    return first + ", ".join(texts) + last
