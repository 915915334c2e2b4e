"""Run a server under the observer, and read what it sees; xray.py is the half inside the server."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from clients import xray
from clients.system.processes import Server, running_server, temp_dir


@contextlib.contextmanager
def observe(program, *options):
    """Start a server program under the observer and yield an Observed, as running_server does."""
    with temp_dir() as place:
        file = Path(place, "sample.json")
        with running_server(program, *options, through=(xray.__file__, "--to", file)) as server:
            yield Observed(server, file)


@dataclass
class Observed:
    """A server that runs under the observer: server is what processes.running_server gives."""

    server: Server
    _file: Path

    def sample(self):
        """Return the latest sample: where each thread of the server was a moment ago.

        {"at": seconds since the epoch, "kernel": whether the system calls could be read,
        "threads": [{"name": "main" or Python's, "id": the kernel's, "function", "line": where it
        stands in the program's file, both None if nowhere, "call": the system call in which it
        sleeps (futex: it waits for a lock, as for the interpreter's own), "running" if it does not
        sleep, None if that cannot be known, "fd": the descriptor that the call is about,
        "peer": "host:port" of that socket's other end, or None}, ...]}; None before the first look.
        """
        try:
            return json.loads(self._file.read_text())
        except FileNotFoundError:
            return None
