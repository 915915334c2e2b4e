"""Wait until the program that started this one has ended, in any way; end the processes it left.

python3 clients/system/reaper.py MARK FOLDER       started by processes.py only

Standard input is a pipe whose other end only that program has: the kernel closes it even after
SIGKILL. Before, the program writes "+PID" for each process that it starts, and "-PID" when that
has ended. Processes that are left are known by MARK in their environment, which daemons inherit;
temporary folders in FOLDER are known by MARK in their name.
"""

import contextlib
import os
import signal
import sys
import time

ENVIRONMENT_VARIABLE = "STARTED_BY"  # the marks of the programs above a process, outermost first
TIMEOUT = 10.0  # seconds without progress after which a process counts as one that cannot be ended


def process_tree(mark, sessions=()):
    """Return the numbers of the running processes of a mark or of sessions, and of their children.

    mark: text in their environment, or "". Without /proc the set is empty (proc_pid_stat(5),
    proc_pid_environ(5)). Not found are processes of another user, and those that have lost their
    parent and have a new session and an empty environment.
    """
    parents, found = {}, set()
    entries = os.scandir("/proc") if os.path.isdir("/proc/self") else ()
    folders = {(one.name, one.inode()) for one in entries if one.name.isdigit()}
    _older.intersection_update(folders)
    for name, inode in folders - _older if mark else folders:
        with contextlib.suppress(OSError):  # it has ended, or it is another user's
            state, parent, _, session, *fields = stat(f"/proc/{name}")
            if mark and int(fields[15]) < STARTED:
                _older.add((name, inode))
            elif state not in b"ZX":
                parents[int(name)] = int(parent)
                is_ours = int(session) in sessions
                if is_ours or (mark and mark.encode() in _read(f"/proc/{name}/environ")):
                    found.add(int(name))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def stat(folder):
    """Return the state, parent, group, session, ... of a process or thread (proc_pid_stat(5))."""
    return _read(f"{folder}/stat").rpartition(b")")[2].split(None, 20)


def _read(path):
    fd = os.open(path, os.O_RDONLY)  # a file object needs twice as many system calls
    try:
        return b"".join(iter(lambda: os.read(fd, 1 << 16), b""))
    finally:
        os.close(fd)


# In the kernel's ticks: what has our mark has started after us, and so has its session.
STARTED = int(stat("/proc/self")[19]) if os.path.isdir("/proc/self") else 0
_older = set()  # the others, which are read once: a reused number has a folder with a new inode


def kill_tree(mark, sessions):
    """Kill a process tree; return the numbers of the processes that run in spite of that.

    A process that holds thousands of connections takes seconds to end: they are waited for.
    """
    for session in sessions:
        _signal(os.killpg, session)  # without /proc this is all that can be done
    used = deadline = None
    while left := process_tree(mark, sessions):
        if used != (used := _exit_ticks(left)):
            deadline = time.monotonic() + TIMEOUT
        elif time.monotonic() > deadline:
            break
        for pid in left:
            _signal(os.kill, pid)
        time.sleep(0.005)  # SIGKILL takes a moment, and one may just have forked
    return left


def _exit_ticks(pids):
    """Return the CPU time that processes have used which are ending (PF_EXITING, proc_pid_stat(5)).

    It grows while the kernel closes what they had open.
    """
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            fields = stat(f"/proc/{pid}")
            ticks += (int(fields[11]) + int(fields[12])) * (int(fields[6]) & 4 != 0)
    return ticks


def _signal(send, pid):
    with contextlib.suppress(OSError):  # it has ended, or it is another user's
        send(pid, signal.SIGKILL)


def main():
    mark, folder = sys.argv[1:]
    if os.fork():  # the child loses its parent: it does not end with the starter's process tree
        os._exit(0)
    sessions = set()
    for line in sys.stdin.buffer:
        change = sessions.add if line.startswith(b"+") else sessions.discard
        change(int(line[1:]))
    kill_tree(mark, sessions)
    for left in [name for name in os.listdir(folder) if mark in name]:
        import shutil  # not at the top: that takes longer than all else here, mostly for nothing

        shutil.rmtree(os.path.join(folder, left), ignore_errors=True)


if __name__ == "__main__":
    main()
