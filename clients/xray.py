"""The observer: run a server program, unchanged, and tell on which line each thread stands.

.venv/bin/python -m clients.xray 01_blocking/server.py --port 3267

A thread beside the server's own looks up to ten times a second where the others are: the line of
Python, from sys._current_frames(), and the system call in which the kernel lets them sleep, from
/proc/self/task/TID/syscall (proc(5); root is not needed for one's own process). Each look is one
line of JSON: on standard error when something has changed, or always the latest in --to FILE.

All that it imports is in the server's process, too; so it needs the standard library and no more.
"""

import argparse
import contextlib
import json
import platform
import socket
import sys
import threading
import time
import types
from pathlib import Path

EVERY = 0.1  # seconds between two looks
SHARE = 0.05  # of a core, at most: a look that costs more is followed by a longer pause
TASKS = Path("/proc/self/task")
NUMBERS = {  # the calls in which servers sleep (arch/x86/entry/syscalls, asm-generic/unistd.h)
    "x86_64": "0 read 1 write 7 poll 23 select 35 nanosleep 42 connect 43 accept 44 sendto "
    "45 recvfrom 46 sendmsg 47 recvmsg 202 futex 230 clock_nanosleep 232 epoll_wait "
    "270 pselect6 271 ppoll 281 epoll_pwait 288 accept4",
    "aarch64": "22 epoll_pwait 63 read 64 write 72 pselect6 73 ppoll 98 futex 101 nanosleep "
    "115 clock_nanosleep 202 accept 203 connect 206 sendto 207 recvfrom 211 sendmsg 212 recvmsg "
    "242 accept4",
}
_words = NUMBERS.get(platform.machine(), "").split()
CALLS = dict(zip(map(int, _words[::2]), _words[1::2], strict=True))
ON_A_DESCRIPTOR = {"read", "write", "connect", "accept", "accept4", "epoll_wait", "epoll_pwait"}
ON_A_DESCRIPTOR |= {"sendto", "recvfrom", "sendmsg", "recvmsg"}  # their first argument is one


def look(program):
    """Return where each thread of this process is, but for the one that asks: see sample()."""
    me, main = threading.get_ident(), threading.main_thread()
    threads, frames = threading.enumerate(), sys._current_frames()
    rows = []
    for thread in threads:
        if thread.ident != me and thread.ident in frames:
            name = "main" if thread is main else thread.name
            place = where(frames[thread.ident], program)
            rows.append({"name": name, "id": thread.native_id, **place, **call(thread.native_id)})
    return {"at": time.time(), "kernel": TASKS.is_dir(), "threads": rows}


def where(frame, program):
    """Return the function and the line of the innermost frame that lies in the program's file."""
    while frame and frame.f_code.co_filename != program:
        frame = frame.f_back
    if frame is None:
        return {"function": None, "line": None}
    return {"function": frame.f_code.co_name, "line": frame.f_lineno}


def call(thread):
    """Return the system call in which a thread of this process sleeps, and on which socket."""
    found = {"call": None, "fd": None, "peer": None}
    try:
        number, *arguments = (TASKS / str(thread) / "syscall").read_text().split()
    except OSError:  # no /proc here, no descriptor left to open it with, or the thread has ended
        return found
    if number in ("running", "-1"):  # -1: it sleeps, but in no system call
        return found | {"call": "running"}
    found["call"] = CALLS.get(int(number), f"syscall {number}")
    if found["call"] in ON_A_DESCRIPTOR:
        found["fd"] = int(arguments[0], 16) & 0xFFFFFFFF
        found["peer"] = peer(found["fd"])
    return found


def peer(fd):
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


def watch(program, publish):
    """Look for ever and publish each look, up to ten times a second."""
    while True:
        began = time.thread_time()
        with contextlib.suppress(OSError):  # what the server runs out of must not end the looks
            publish(look(program))
        time.sleep(max(EVERY, (time.thread_time() - began) / SHARE))


def to_file(file):
    """Return what replaces file by the sample: a reader finds it whole, or the one before."""

    def publish(sample):
        part = file.with_suffix(".part")
        part.write_text(json.dumps(sample) + "\n")
        part.replace(file)

    return publish


def to_standard_error():
    """Return what prints a sample when the threads are not where they were."""
    last = None

    def publish(sample):
        nonlocal last
        if sample["threads"] != last:
            last = sample["threads"]
            sys.stderr.write(json.dumps(sample) + "\n")  # at once: the server writes there, too

    return publish


def run(program):
    """Run the program's file as Python itself would: as __main__, its folder first in the path."""
    main = types.ModuleType("__main__")
    main.__file__ = program
    sys.modules["__main__"] = main
    sys.path[0] = str(Path(program).resolve().parent)
    exec(compile(Path(program).read_bytes(), program, "exec"), main.__dict__)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", type=Path, metavar="FILE", help="keep the latest look in it")
    parser.add_argument("program", help="the server's file")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="the server's own")
    args = parser.parse_args()
    if not Path(args.program).is_file():
        parser.error(f"there is no file {args.program}")
    if not TASKS.is_dir():
        print("no /proc here: lines of Python only, no system calls", file=sys.stderr)
    sys.argv = [args.program, *args.options]
    publish = to_file(args.to) if args.to else to_standard_error()
    threading.Thread(target=watch, args=(args.program, publish), daemon=True).start()
    run(args.program)


if __name__ == "__main__":
    main()
