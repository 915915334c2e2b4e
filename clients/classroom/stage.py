"""A server on the stage: it runs under the observer, and is seen from inside and from outside."""

import contextlib
import re

import psutil

from clients.system import kernel
from clients.system.observer import observe

SAID = re.compile(r"^(\S+:\d+) said (.*)$", re.MULTILINE)
LATEST = 1 << 16  # bytes of the log in which to look for who said what
QUEUED = {"ESTABLISHED", "CLOSE-WAIT"}  # what a connection can be before accept() takes it


class Stage:
    """One server program that runs; look() tells what there is to see of it."""

    def __init__(self, program, *options):
        self.program, self.options = program, options
        self.lines = program.read_text().splitlines()
        self.anchors = set()  # the lines on which a thread has slept
        self.said = {}  # {"host:port": what the server's log says that it said}
        self._stack = contextlib.ExitStack()

    def open(self):
        """Start the server; raises launch.LaunchError."""
        self.observed = self._stack.enter_context(observe(self.program, *self.options))
        self.server = self.observed.server

    def close(self):
        """End the server; may be called twice, and before open()."""
        self._stack.close()

    def look(self):
        """Return what can be seen at this moment, or the server's last words if it has ended.

        {"ended": None or text, "threads": as Observed.sample() gives them, "queue": length of
        the accept queue, "connections": [row, ...], "time_wait": how many, "cost": {...}}. A row
        is {"client": "host:port", "fd": the server's descriptor, or None, "queued": whether it
        waits for accept(), "theirs": state of the client's end if that is on this machine, "ours":
        of the server's end, "unread", "unsent": bytes in the server's buffers}; a state is None
        where there is no such socket.
        """
        process = self.server.process
        try:
            if process.poll() is not None:
                raise psutil.NoSuchProcess(process.pid)
            held, lines = kernel.descriptors(process.pid), kernel.tcp(self.server.address[1])
            cost = {"descriptors": process.num_fds(), "rss": process.memory_info().rss}
        except (psutil.Error, OSError):
            words = self.server.log(2000).strip().splitlines()[-12:]
            return {"ended": f"exit status {process.poll()}\n" + "\n".join(words)}
        threads = (self.observed.sample() or {"threads": []})["threads"]
        self.anchors |= {t["line"] for t in threads if t["line"] and t["fd"] is not None}
        self.said |= dict(SAID.findall(self.server.log(LATEST)))
        return {
            "ended": None,
            "threads": threads,
            "queue": sum(line.unread for line in lines if line.state == "LISTEN"),
            "connections": connections(lines, self.server.address[1], held),
            "time_wait": sum(line.state == "TIME-WAIT" for line in lines),
            "cost": {"threads": len(threads), **cost},
        }


def connections(lines, port, held):
    """Return the rows of look(), a row a client; held: {inode: the server's descriptor}."""
    rows = {}
    for line in lines:
        if line.state in ("LISTEN", "TIME-WAIT"):
            continue
        ours = line.local[1] == port
        client = "%s:%d" % (line.remote if ours else line.local)
        row = rows.setdefault(client, {"client": client, "theirs": None, "ours": None, "fd": None})
        row |= {"queued": False, "unread": 0, "unsent": 0} if len(row) == 4 else {}
        if ours:
            row |= {"ours": line.state, "unread": line.unread, "unsent": line.unsent}
            row |= {"fd": held.get(line.inode)}
            row |= {"queued": line.inode == 0 and line.state in QUEUED}
        else:
            row["theirs"] = line.state
    return list(rows.values())
