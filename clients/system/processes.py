"""Find the server models, and start any server program as a student does: as a process.

with running_server(models()["03_epoll"]) as server:
    Client(*server.address).greet(b"bob")
"""

import contextlib
import itertools
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from clients.console.bounded_log import BoundedLog
from clients.console.printable import printable
from clients.system import procfs, reaper

ROOT = Path(__file__).resolve().parent.parent.parent
# A server must flush its first line itself: this variable would hide that it does not.
ENVIRONMENT = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
LISTENING = re.compile(r"^listening on (\S+):(\d+)$", re.MULTILINE)
PIPES = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
MARK = os.urandom(6).hex()  # in the environment of each process that we start: see reaper.py
_numbers = itertools.count()
_reaper_pipe = []  # our end of the pipe to the reaper, once it is started


def require_linux():
    """End the program with one line if this is not Linux: the first call of a command's main()."""
    if not sys.platform.startswith("linux"):
        sys.exit(
            "this needs Linux (epoll, /proc): open the repository in a container, on Windows in "
            "WSL 2 (README.md, macOS and Windows)"
        )


def models():
    """Return {name: path of the program} of the models, in order."""
    return {path.parent.name: path for path in sorted(ROOT.glob("[0-9][0-9]_*/server.py"))}


def find_server(name):
    """Return the path of a server program. name: a model's name, its folder, or a file.

    Raises LaunchError if there is no such program.
    """
    known = models()
    if name in known:
        return known[name]
    for path in (Path(name, "server.py"), Path(name)):
        if path.is_file():
            return path.resolve()
    raise LaunchError(
        f"no server {printable(name)}: name one of {', '.join(known)}, or a program's path"
    )


class LaunchError(RuntimeError):
    """A program cannot be started, or we may not have or see what we need. log: the program's."""

    def __init__(self, text, log=""):
        super().__init__(text)
        self.log = log


def raise_nofile_limit(wanted=0):
    """Raise the soft limit of descriptors of this process to its hard limit, and return that.

    wanted: descriptors. Raises LaunchError if the hard limit is lower.
    """
    try:
        import resource
    except ImportError:  # Windows: its sockets have no such limit
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if limit != resource.RLIM_INFINITY and wanted > limit:
        raise LaunchError(
            f"this needs {wanted} descriptors and may have {limit}: raise the limit "
            "(ulimit -Hn, /etc/security/limits.conf) or ask for fewer connections"
        )
    return limit


@dataclass
class Server:
    """A running server program."""

    program: Path
    address: tuple[str, int]  # host, port
    process: psutil.Popen
    _out: BoundedLog
    _log: BoundedLog

    @property
    def name(self):
        return server_name(self.program)

    @property
    def output(self):
        """The lines that it has written to standard output so far."""
        return self._out.text().splitlines(keepends=True)

    def log(self, last=None):
        """Return what it has written to standard error so far, or its last bytes: BoundedLog."""
        return self._log.text(last)

    def describe_exit(self, timeout=1.0):
        """Return how it has ended within timeout seconds, or "still runs", and its log's end."""
        with contextlib.suppress(psutil.TimeoutExpired):
            self.process.wait(timeout)
        status = self.process.poll()
        what = "still runs" if status is None else f"ended with exit status {status}"
        return f"{what}. The end of its log: {tail(self.log())}"


def running_tree(process):
    """Return those of a process and its descendants (reaper.process_tree) that have not ended."""
    found, mark = [process] if process.is_running() else [], getattr(process, "mark", "")
    for pid in reaper.process_tree(mark, _sessions(process)) - {process.pid}:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            found.append(psutil.Process(pid))
    return found


def process_tree(process):
    """Return running_tree(process). Raises psutil.NoSuchProcess if all have ended."""
    if found := running_tree(process):
        return found
    raise psutil.NoSuchProcess(process.pid)


def require_access(process):
    """Raise LaunchError if this user may not read what a process has open (proc_pid_fd(5))."""
    with contextlib.suppress(FileNotFoundError):  # it has ended, and that is reported
        try:
            procfs.socket_fds(process.pid)
        except PermissionError as error:
            text = "runs as another user: its sockets and threads are not shown"
            raise LaunchError(f"process {process.pid} {text}") from error


def _sessions(process):
    """Return the session of a process; the kernel does not reuse its number while it exists."""
    reused = psutil.pid_exists(process.pid) and not process.is_running()
    return set() if reused else {process.pid}


def sum_over_tree(process, measure):
    """Return the sum of measure(one) over a process and its descendants."""
    total = 0
    for one in process_tree(process):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            total += measure(one)
    return total


def cpu_seconds(process):
    """Return the CPU time of a process since its start.

    /proc/PID/stat counts in hundredths of a second, too coarse for a short run. The clock's number
    is that of clock_getcpuclockid(3) (posix-timers.h, CPUCLOCK_SCHED).
    """
    try:
        return time.clock_gettime(~process.pid << 3 | 2)
    except OSError as error:
        raise psutil.NoSuchProcess(process.pid) from error


def tail(text, lines=5):
    """Return the last lines of a program's output, made printable."""
    return "\n  ".join(map(printable, text.strip().splitlines()[-lines:])) or "(nothing)"


def server_name(program):
    """Return the name of a server program in tables and pictures."""
    return program.parent.name if program.name == "server.py" else program.stem


def distinct_names(programs, suffixes=()):
    """Return a name for each of these programs for tables, pictures and files, all different.

    Only a model has its folder's name alone; a copy of one is friend/03_epoll. suffixes: a text for
    each program, added to its name. Names that are still equal are numbered: "03_epoll (2)".
    """
    programs = [program.resolve() for program in programs]
    known = {program.resolve() for program in models().values()}

    def name(one, count):
        place = one.parent if one.name == "server.py" else one.with_suffix("")
        return "/".join(place.parts[-1 if one in known else -count :])

    def is_unique(one, count):
        others = known.union(programs) - {one}
        return name(one, count) not in {name(other, count) for other in others}

    names = []
    for one, suffix in zip(programs, suffixes or [""] * len(programs), strict=True):
        counts = (count for count in range(1, len(one.parts)) if is_unique(one, count))
        names.append(printable(name(one, next(counts, 1))) + suffix)
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def command(program, *options, wrapper=()):
    """Return the command line that runs a program; wrapper: words for Python that run it."""
    python = [sys.executable] if wrapper or Path(program).suffix == ".py" else []
    return [*python, *map(str, wrapper), str(program), *map(str, options)]


def module_command(module, *options):
    """Return the command line that runs a module of this repository, started in ROOT."""
    return [sys.executable, "-m", module, *map(str, options)]


def _reaper():
    """Return the pipe to the reaper, which is started with the first program or folder.

    It is a program of ours, because the kernel's PR_SET_PDEATHSIG is not enough: grandchildren do
    not have it, the end of a thread triggers it, and it deletes no folder.
    """
    if not _reaper_pipe:
        line = [sys.executable, "-I", "-S", reaper.__file__, MARK, tempfile.gettempdir()]
        # A session and an environment of its own: nothing that ends us ends it.
        apart = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/", "env": {}}
        theirs, ours = os.pipe()
        with open(theirs) as stdin:
            subprocess.run(line, stdin=stdin, start_new_session=True, **apart)
        _reaper_pipe.append(ours)
    return _reaper_pipe[0]


def _notify_reaper(sign, process):
    with contextlib.suppress(BrokenPipeError):  # another program has ended it
        os.write(_reaper(), b"%s%d\n" % (sign, process.pid))


def marked_environment(mark=f"{MARK} ", environment=os.environ):
    """Return an environment by which the reaper recognises a process and its descendants."""
    name = reaper.ENVIRONMENT_VARIABLE
    return {**environment, name: os.environ.get(name, "") + mark}


@contextlib.contextmanager
def temp_dir(prefix="greetings-"):
    """Yield the path of a temporary folder, which is deleted afterwards, however we end."""
    _reaper()
    with tempfile.TemporaryDirectory(prefix=f"{prefix}{MARK}-", ignore_cleanup_errors=True) as path:
        yield path


@contextlib.contextmanager
def spawn(line, grace=0.0, **options):
    """Start a program, yield its process (psutil.Popen), and end it and all its descendants.

    line: a command line. grace: seconds between SIGTERM and SIGKILL; 0 kills at once. options: for
    subprocess.Popen. Raises LaunchError if there is no such program.

    Every program of this repository is started here. It has a session of its own, so that Ctrl-C
    reaches us alone, and it ends with us, even after SIGKILL (see reaper.py).
    """
    mark = f"{MARK}.{next(_numbers)} "
    environment = marked_environment(mark, options.pop("env", os.environ))
    try:
        _reaper()
        process = psutil.Popen(line, start_new_session=True, env=environment, **options)
    except OSError as error:
        raise LaunchError(printable(f"cannot start {line[0]}: {error}")) from error
    process.mark = mark
    try:
        _notify_reaper(b"+", process)
        yield process
    finally:
        with contextlib.ExitStack() as stack:  # also after a second Ctrl-C
            stack.callback(_notify_reaper, b"-", process)
            # The tree before SIGTERM: a process that loses its parent is not found later.
            stack.callback(_end, process, running_tree(process))
            if grace and process.poll() is None:
                with contextlib.suppress(psutil.TimeoutExpired, psutil.AccessDenied):
                    process.terminate()
                    process.wait(grace)


def _end(process, tree):
    for one in tree:
        with contextlib.suppress(psutil.Error):  # psutil notices a number that was reused
            one.kill()
    if left := reaper.kill_tree(process.mark, _sessions(process)):
        print(f"these processes could not be ended: {sorted(left)}", file=sys.stderr)
    else:
        process.wait()


def run_captured(line, timeout=None, **options):
    """Run a program to its end; return a subprocess.CompletedProcess with its output as text.

    timeout: seconds until subprocess.TimeoutExpired is raised. options, errors: see spawn.
    """
    with spawn(line, **PIPES, text=True, errors="replace", **options) as process:
        out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(line, process.returncode, out, err)


class NamespaceDenied(RuntimeError):
    """This system does not allow a network namespace; the text is the reason."""


def run_in_netns(line, *more, **options):
    """Run a program to its end as root of a new network namespace (unshare(1)).

    more: further options of unshare, such as "--mount". options, result: see run_captured. Raises
    NamespaceDenied where this is not allowed.
    """
    ways = [["--user", "--map-root-user"], []]  # root may do it without a user namespace
    try:
        for way in ways if os.geteuid() == 0 else ways[:1]:
            done = run_captured(["unshare", *way, "--net", *more, *line], **options)
            if not done.stderr.startswith("unshare:"):
                return done
    except LaunchError as error:
        raise NamespaceDenied("there is no program unshare (it belongs to util-linux)") from error
    raise NamespaceDenied(done.stderr.strip().splitlines()[-1])


@contextlib.contextmanager
def running_server(program, *options, port=0, timeout=10.0, grace=5.0, wrapper=(), cwd=None):
    """Start a server program, yield a Server, and end all its processes.

    program: a path; a file that ends in .py is run by this Python. options: further command-line
    options. port: 0 takes a free one; None omits the option. timeout: seconds to wait for
    "listening on". grace: seconds between SIGTERM and SIGKILL at the end. wrapper: see command.
    cwd: its working directory.

    Raises LaunchError with the end of the program's log if it does not listen.
    """
    options = options if port is None else ("--port", port, *options)
    line = command(program, *options, wrapper=wrapper)
    with spawn(line, grace, **PIPES, env=ENVIRONMENT, cwd=cwd) as process:
        logs = BoundedLog(process.stdout), BoundedLog(process.stderr)
        server = Server(Path(program), None, process, *logs)
        try:
            server.address = _address(server, timeout)
            yield server
        finally:
            if size := sum(log.dropped() for log in logs):
                what = f"{size:,} bytes of its output were not kept"
                print(f"{server.name} wrote without end: {what}", file=sys.stderr)


def _address(server, timeout):
    """Return (host, port) from the line "listening on host:port" of the server's output."""
    deadline = time.monotonic() + timeout
    while True:
        written, ended, text = server._out.written, server._out.ended, server._out.text()
        if match := LISTENING.search(text if ended else text[: text.rfind("\n") + 1]):
            break
        if ended or time.monotonic() > deadline:
            line, end = " ".join(map(printable, server.process.args)), server.describe_exit()
            text = f'{line} did not print "listening on HOST:PORT" and {end}'
            raise LaunchError(text, server.log())
        server._out.wait(written, deadline - time.monotonic())
    host, port = match[1], int(match[2])
    with contextlib.suppress(OSError, UnicodeError):  # no client could connect to it
        socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
        if 0 < port < 65536:
            return host, port
    place = printable(f"{host}:{port}")
    why = ": that is IPv6, and these clients use IPv4 only" if ":" in host else ""
    raise LaunchError(f"it reports that it listens on {place}, where nobody can connect{why}")
