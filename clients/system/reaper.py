"""Wait until the program that started this one has ended, however that came; end what it left.

python3 clients/system/reaper.py MARK FOLDER       processes.py starts it, nobody else need

Standard input is a pipe whose other end the starter alone holds: the kernel closes it even after
SIGKILL. Until then the starter writes "+PID" for each program that it starts, and "-PID" when that
has ended. What is left is known by MARK: it stands in the environment of each process, which a
daemon inherits as well, and in the name of each temporary folder in FOLDER.
"""

import contextlib
import glob
import os
import shutil
import signal
import sys
import time

VARIABLE = "STARTED_BY"  # the marks of those who started a process, the outermost first
LONG = 10.0  # seconds after which what still lives cannot be ended


def process_tree(mark, leaders=()):
    """Return the numbers of the processes that live and belong to a mark or to a session.

    mark: text in their environment, or "". leaders: the first processes of sessions; whoever has a
    parent in the family belongs to it, too. It needs /proc (proc_pid_stat(5), proc_pid_environ(5)):
    empty without. What has another user, or a new session and no environment, and has lost its
    parent, is not found.
    """
    parents, found = {}, set()
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        try:
            state, parent, session = _stat(name)
            if state not in "ZX" and parent != 2:  # 2: the kernel's own threads
                parents[int(name)] = parent
                if session in leaders or (mark and mark.encode() in _read(name, "environ")):
                    found.add(int(name))
        except (OSError, ValueError):  # it has ended; it is no process; it is another user's
            continue
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _stat(name):
    state, parent, _, session, _ = _read(name, "stat").rpartition(b") ")[2].split(None, 4)
    return state.decode(), int(parent), int(session)


def _read(name, file):
    with open(f"/proc/{int(name)}/{file}", "rb", buffering=0) as source:
        return source.read()


def end(mark, leaders):
    """Kill a family, and return those who live in spite of that after a while."""
    for leader in leaders:
        _signal(os.killpg, leader)  # all that there is without /proc
    deadline = time.monotonic() + LONG
    while (left := process_tree(mark, leaders)) and time.monotonic() < deadline:
        for pid in left:
            _signal(os.kill, pid)
        time.sleep(0.005)  # SIGKILL takes a moment, and one may just have forked
    return left


def _signal(send, pid):
    with contextlib.suppress(OSError):  # it has ended, or it is another user's
        send(pid, signal.SIGKILL)


def main():
    mark, folder = sys.argv[1:]
    if os.fork():  # the other one is nobody's child: it is not ended with the starter's family
        os._exit(0)
    leaders = set()
    for line in sys.stdin.buffer:
        change = leaders.add if line.startswith(b"+") else leaders.discard
        change(int(line[1:]))
    end(mark, leaders)
    for left in glob.glob(os.path.join(glob.escape(folder), f"*{mark}*")):
        shutil.rmtree(left, ignore_errors=True)


if __name__ == "__main__":
    main()
