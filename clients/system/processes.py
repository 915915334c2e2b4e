"""Find the server models, and start any server program the way a student does: as a process.

with running(models()["03_epoll"]) as server:
    Client(*server.address).greet(b"bob")
"""

import contextlib
import itertools
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from clients.console.bounded_log import Output
from clients.console.printable import printable
from clients.system import reaper

ROOT = Path(__file__).resolve().parent.parent.parent
# A server has to flush its first line itself: with this variable it would not matter.
ENVIRONMENT = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
LISTENING = re.compile(r"^listening on (\S+):(\d+)$", re.MULTILINE)
MARK = secrets.token_hex(6)  # what this process starts is known by it: see reaper.py
_numbers = itertools.count()
_watch = []  # the end of the pipe to the watcher, when there is one


def require_linux():
    """End the program with one line if this is not Linux: the first call of a command's main()."""
    if not sys.platform.startswith("linux"):
        sys.exit(
            "this needs Linux (epoll, /proc): open the repository in a container, on Windows in "
            "WSL 2 (README.md, macOS and Windows)"
        )


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
        raise LaunchError(
            f"no server {printable(name)}: name one of {', '.join(known)}, or a program's path"
        )
    return path.resolve()


class LaunchError(RuntimeError):
    """A server program was not found, ended at once, or never said that it listens."""

    log = ""  # what the program wrote to standard error


def raise_nofile_limit(wanted=0):
    """Let this process and its children open as many descriptors as they may; return how many.

    Raises LaunchError if that is fewer than wanted.
    """
    import resource  # not at the top: Windows does not have it

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
    """A running server: its program, its address (host, port) and its process."""

    program: Path
    address: tuple[str, int]
    process: psutil.Popen
    _out: Output
    _log: Output

    @property
    def name(self):
        """The folder's name for a model, the file's for any other program."""
        return name_of(self.program)

    @property
    def said(self):
        """The lines that it has written to standard output so far, the latest last."""
        return self._out.text().splitlines(keepends=True)

    def log(self, last=None):
        """Return what the server has written to standard error so far, or its last bytes only.

        Of endless output only the beginning and the end are kept, and a line says so.
        """
        return self._log.text(last)

    def dropped(self):
        """Return how many bytes of its output were not kept."""
        return self._out.dropped() + self._log.dropped()

    def end(self, seconds=1.0):
        """Say whether it has ended, or will within so many seconds, with what status and words.

        "still runs. Its last words: ..." or "ended with exit status 1. Its last words: ...".
        """
        with contextlib.suppress(psutil.TimeoutExpired):
            self.process.wait(seconds)
        status = self.process.poll()
        what = "still runs" if status is None else f"ended with exit status {status}"
        return f"{what}. Its last words: {tail(self.log())}"


def process_tree(process):
    """Return a process, and all that it has started in its turn.

    If started() has started it, a daemon is among them: see watcher.family. Raises
    psutil.NoSuchProcess if all have ended.
    """
    found = []
    mark = getattr(process, "mark", "")
    for pid in reaper.process_tree(mark, _leaders(process)) - {process.pid}:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            found.append(psutil.Process(pid))
    if process.is_running():
        return [process, *found]
    if not found:
        raise psutil.NoSuchProcess(process.pid)
    return found


def _leaders(process):
    """Return the session of a process: the kernel does not use its number again while it lasts."""
    reused = psutil.pid_exists(process.pid) and not process.is_running()
    return set() if reused else {process.pid}


def sum_over_tree(process, measure):
    """Return the sum of measure(one) over a process and all that it has started."""
    numbers = []
    for one in process_tree(process):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            numbers.append(measure(one))
    return sum(numbers)


def tail(text, lines=5):
    """Return the last lines of what a program wrote, printable, each on a line of its own."""
    return "\n  ".join(map(printable, text.strip().splitlines()[-lines:])) or "(nothing)"


def name_of(program):
    """Return the name by which tables and pictures call a server program."""
    return program.parent.name if program.name == "server.py" else program.stem


def names_of(programs):
    """Return what these programs are called in tables, pictures and files.

    A model has its folder's name, and nobody else has that: a friend's copy is friend/03_epoll.
    """
    programs = [program.resolve() for program in programs]
    known = {program.resolve() for program in models().values()}
    parts = {
        one: (one.parent if one.name == "server.py" else one.with_suffix("")).parts
        for one in known.union(programs)
    }

    def called(one, count):
        return "/".join(parts[one][-1 if one in known else -count :])

    def distinct(one):
        others = parts.keys() - {one}
        for count in range(1, len(parts[one])):
            if called(one, count) not in (called(other, count) for other in others):
                return called(one, count)
        return called(one, 1)

    return [printable(distinct(one)) for one in programs]


def command(program, *options, through=()):
    """Return the command line, a list of strings, that runs program with these options.

    through: a Python program and its options, which run the program in their turn.
    """
    python = [sys.executable] if through or Path(program).suffix == ".py" else []
    return [*python, *map(str, through), str(program), *map(str, options)]


def tool(module, *options):
    """Return the command line that runs a module of this repository, to be started in ROOT."""
    return [sys.executable, "-m", module, *map(str, options)]


def _watched():
    """Return where the watcher reads; it is started with the first program that it watches.

    A watcher of its own, because nothing else works for all: the kernel's PR_SET_PDEATHSIG is
    forgotten by grandchildren, goes off when a thread ends, and deletes no folder.
    """
    if not _watch:
        line = [sys.executable, "-I", "-S", reaper.__file__, MARK, tempfile.gettempdir()]
        there, here = os.pipe()
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
        try:  # no terminal's signal, and no mark of another starter, may end it
            subprocess.run(line, stdin=there, start_new_session=True, env={}, **silent)
        finally:
            os.close(there)
        _watch.append(here)
    return _watch[0]


def _tell_watcher(sign, process):
    with contextlib.suppress(BrokenPipeError):  # somebody has ended it
        os.write(_watched(), b"%s%d\n" % (sign, process.pid))


def marked(mark=f"{MARK} ", environment=os.environ):
    """Return an environment by which the watcher knows a process and all that it starts."""
    return {**environment, reaper.VARIABLE: os.environ.get(reaper.VARIABLE, "") + mark}


@contextlib.contextmanager
def temp_dir(prefix="greetings-"):
    """Yield the path of a temporary folder, which is deleted afterwards, however we end."""
    _watched()
    with tempfile.TemporaryDirectory(prefix=f"{prefix}{MARK}-", ignore_cleanup_errors=True) as path:
        yield path


@contextlib.contextmanager
def spawn(line, grace=0.0, **streams):
    """Start a program, yield its process (psutil.Popen), and end it and all that it has started.

    line: a command line. grace: seconds between SIGTERM and SIGKILL at the end; 0 kills at once.
    streams: more for subprocess.Popen. Raises LaunchError if there is no such program.

    Every program that this repository starts is started here. Its session is its own, so that
    Ctrl-C is for us alone, and whatever it has started in its turn, daemons too, ends with it. It
    ends with us, however we end: by SIGKILL, too (see reaper.py).
    """
    mark = f"{MARK}.{next(_numbers)} "
    environment = marked(mark, streams.pop("env", os.environ))
    try:
        _watched()
        process = psutil.Popen(line, start_new_session=True, env=environment, **streams)
    except OSError as error:
        raise LaunchError(printable(f"cannot start {line[0]}: {error}")) from error
    process.mark = mark
    try:
        _tell_watcher(b"+", process)
        yield process
    finally:
        with contextlib.ExitStack() as stack:  # on a second Ctrl-C, too
            stack.callback(_tell_watcher, b"-", process)
            stack.callback(_end, process, _known(process))
            if grace and process.poll() is None:
                process.terminate()
                with contextlib.suppress(psutil.TimeoutExpired):
                    process.wait(grace)


def _known(process):
    """Return the family: who has lost its parent might not be found again."""
    try:
        return process_tree(process)
    except psutil.NoSuchProcess:
        return []


def _end(process, known):
    for one in known:
        with contextlib.suppress(psutil.NoSuchProcess):  # nor is a number taken for another's
            one.kill()
    if left := reaper.end(process.mark, _leaders(process)):
        print(f"these processes could not be ended: {sorted(left)}", file=sys.stderr)
    else:
        process.wait()


def run_captured(line, timeout=None, **streams):
    """Run a program to its end; return what subprocess.run does, with its output as text.

    Raises LaunchError if there is no such program, subprocess.TimeoutExpired after so many seconds.
    """
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with spawn(line, **pipes, text=True, errors="replace", **streams) as process:
        out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(line, process.returncode, out, err)


class Forbidden(RuntimeError):
    """This system does not let a program have a network of its own; says why."""


def run_in_netns(line, *more, **how):
    """Run a program to its end, root of a network of its own (unshare(1)); see ask().

    more: further options of unshare, as "--mount". Raises Forbidden where that is not allowed.
    """
    asking = ["unshare", "--user", "--map-root-user", "--net", *more]
    try:
        if os.geteuid() == 0 and run_captured([*asking, "true"]).returncode:
            asking = ["unshare", "--net", *more]  # root may have it without a user namespace
        done = run_captured([*asking, *line], **how)
    except LaunchError as error:
        raise Forbidden("there is no program unshare (it belongs to util-linux)") from error
    words = done.stderr.strip()
    if words.startswith("unshare:"):
        raise Forbidden(words.splitlines()[-1])
    return done


@contextlib.contextmanager
def running_server(program, *options, port=0, patience=10.0, grace=5.0, through=()):
    """Start a server program, yield a Server, and leave nothing behind.

    program: a path; a file that ends in .py is run by this Python. options: more command-line
    options. port: 0 takes a free one; None leaves out the option. patience: seconds to wait for
    "listening on". grace: seconds between SIGTERM and SIGKILL at the end. through: see command.

    Raises LaunchError with the program's last words if it does not come to listen.
    """
    options = options if port is None else ("--port", port, *options)
    line = command(program, *options, through=through)
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with spawn(line, grace, **streams, env=ENVIRONMENT) as process:
        server = Server(
            Path(program), None, process, Output(process.stdout), Output(process.stderr)
        )
        try:
            server.address = _address(server, patience)
            yield server
        finally:
            if size := server.dropped():
                text = (
                    f"{server.name} wrote without end: {size:,} bytes of its output were not kept"
                )
                print(text, file=sys.stderr)


def _address(server, patience):
    """Return (host, port) from the line "listening on host:port" on the server's output."""
    deadline = time.monotonic() + patience
    while True:
        ended = server._out.ended
        text = server._out.text()
        if match := LISTENING.search(text if ended else text[: text.rfind("\n") + 1]):
            return _possible(match[1], int(match[2]))
        if ended or time.monotonic() > deadline:
            break
        time.sleep(0.002)
    line = " ".join(map(printable, server.process.args))
    error = LaunchError(f'{line} did not say "listening on HOST:PORT" and {server.end()}')
    error.log = server.log()
    raise error


def _possible(host, port):
    """Return (host, port); raises LaunchError if nobody can connect to it."""
    try:
        socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
        if 0 < port < 65536:
            return host, port
    except (OSError, UnicodeError):
        pass
    place = printable(f"{host}:{port}")
    why = ": that is IPv6, and what asks here speaks IPv4 only" if ":" in host else ""
    raise LaunchError(f"it says that it listens on {place}, where nobody can connect{why}")
