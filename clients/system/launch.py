"""Find the server models, and start any server program the way a student does: as a process.

with running(models()["03_epoll"]) as server:
    Client(*server.address).greet(b"bob")
"""

import contextlib
import os
import queue
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from clients.system.text import printable

ROOT = Path(__file__).resolve().parent.parent.parent
# A server has to flush its first line itself: with this variable it would not matter.
ENVIRONMENT = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
LISTENING = re.compile(r"listening on (\S+):(\d+)$")


def models():
    """Return the program of each model, in order: {"01_blocking": Path("…/server.py"), …}."""
    return {path.parent.name: path for path in sorted(ROOT.glob("[0-9][0-9]_*/server.py"))}


def find(name):
    """Return the path of the server program that name means: a model, its folder, or a file.

    Raises LaunchError if there is none.
    """
    known = models()
    if name in known:
        return known[name]
    path = Path(name)
    if (path / "server.py").is_file():
        path /= "server.py"
    if not path.is_file():
        raise LaunchError(f"no server {name}: name one of {', '.join(known)}, or a program's path")
    return path.resolve()


class LaunchError(RuntimeError):
    """A server program was not found, ended at once, or never said that it listens."""


def make_room(wanted=0):
    """Let this process and its children open as many descriptors as they may; return how many.

    Raises LaunchError if that is fewer than wanted.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most != resource.RLIM_INFINITY and wanted > most:
        raise LaunchError(
            f"this needs {wanted} descriptors and may have {most}: raise the limit "
            "(ulimit -Hn, /etc/security/limits.conf) or ask for fewer connections"
        )
    return most


@dataclass
class Server:
    """A running server: its program, its address (host, port) and its process.

    said: the lines that it has written to standard output so far, the latest last.
    """

    program: Path
    address: tuple[str, int]
    process: psutil.Popen
    said: list[str]
    _log: IO[str]

    @property
    def name(self):
        """The folder's name for a model, the file's for any other program."""
        return name_of(self.program)

    def log(self, last=None):
        """Return what the server has written to standard error so far, or its last bytes only."""
        size = os.fstat(self._log.fileno()).st_size
        begin = 0 if last is None else max(0, size - last)
        return os.pread(self._log.fileno(), size - begin, begin).decode(errors="replace")

    def end(self, seconds=1.0):
        """Say whether it has ended, or will within so many seconds, with what status and words.

        "still runs. Its last words: ..." or "ended with exit status 1. Its last words: ...".
        """
        with contextlib.suppress(psutil.TimeoutExpired):
            self.process.wait(seconds)
        status = self.process.poll()
        what = "still runs" if status is None else f"ended with exit status {status}"
        return f"{what}. Its last words: {last_words(self.log())}"


def family(process):
    """Return a process and all that it has started, those whose parent has ended among them.

    process: psutil.Process, the leader of its session, as everything is that started() starts.
    (A program that has made a session of its own, a daemon, is found only below its parent.)
    """
    found = {one.pid: one for one in (process, *process.children(recursive=True))}
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if pid not in found and os.getsid(pid) == process.pid:
                found[pid] = psutil.Process(pid)
    return list(found.values())


def total(process, measure):
    """Return the sum of measure(one) over a process and all that it has started."""
    numbers = []
    for one in family(process):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            numbers.append(measure(one))
    return sum(numbers)


def last_words(text, lines=5):
    """Return the last lines of what a program wrote, printable, each on a line of its own."""
    return "\n  ".join(map(printable, text.strip().splitlines()[-lines:])) or "(nothing)"


def name_of(program):
    """Return the name by which tables and pictures call a server program."""
    return program.parent.name if program.name == "server.py" else program.stem


def command(program, *options, through=()):
    """Return the command line, a list of strings, that runs program with these options.

    through: a Python program and its options, which run the program in their turn.
    """
    python = [sys.executable] if through or Path(program).suffix == ".py" else []
    return [*python, *map(str, through), str(program), *map(str, options)]


def tool(module, *options):
    """Return the command line that runs a module of this repository, to be started in ROOT."""
    return [sys.executable, "-m", module, *map(str, options)]


@contextlib.contextmanager
def started(line, grace=0.0, **streams):
    """Start a program, yield its process (psutil.Popen), and end it and all of its group.

    line: a command line. grace: seconds between SIGTERM and SIGKILL at the end; 0 kills at once.
    streams: more for subprocess.Popen. Raises LaunchError if there is no such program.

    Every program that this repository starts is started here. Its process group is its own, so
    that Ctrl-C is for us alone, and whatever it has started in its turn ends with it.
    """
    try:
        process = psutil.Popen(line, start_new_session=True, **streams)
    except OSError as error:
        raise LaunchError(f"cannot start {line[0]}: {error}") from error
    try:
        yield process
    finally:
        with contextlib.ExitStack() as stack:  # on a second Ctrl-C, too
            stack.callback(process.wait)
            stack.callback(_kill_group, process.pid)
            if grace and process.poll() is None:
                process.terminate()
                with contextlib.suppress(psutil.TimeoutExpired):
                    process.wait(grace)


def _kill_group(pid):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


@contextlib.contextmanager
def running(program, *options, port=0, patience=10.0, grace=5.0, through=()):
    """Start a server program, yield a Server, and leave nothing behind.

    program: a path; a file that ends in .py is run by this Python. options: more command-line
    options. port: 0 takes a free one; None leaves out the option. patience: seconds to wait for
    "listening on". grace: seconds between SIGTERM and SIGKILL at the end. through: see command.

    Raises LaunchError with the program's last words if it does not come to listen.
    """
    options = options if port is None else ("--port", port, *options)
    line = command(program, *options, through=through)
    # A file never fills up, as a pipe that nobody reads does: the server would block on it.
    with tempfile.TemporaryFile("a+", errors="replace") as log:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": log}
        streams |= {"text": True, "errors": "replace", "env": ENVIRONMENT}
        with started(line, grace, **streams) as process:
            server = Server(Path(program), None, process, [], log)
            server.address = _address(server, patience)
            yield server


def _address(server, patience):
    """Return (host, port) from the line "listening on host:port" on the server's output.

    All lines there are appended to server.said, until the process ends.
    """
    found = queue.Queue()

    def read_all():  # to the very end: a server that prints much must not block
        with server.process.stdout:
            for line in server.process.stdout:
                server.said.append(line)
                if match := LISTENING.match(line.rstrip()):
                    found.put((match[1], int(match[2])))
        found.put(None)

    threading.Thread(target=read_all, daemon=True).start()
    with contextlib.suppress(queue.Empty):
        if address := found.get(timeout=patience):
            return address
    line = " ".join(server.process.args)
    raise LaunchError(f'{line} did not say "listening on HOST:PORT" and {server.end()}')
