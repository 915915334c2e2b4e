"""Inside the server's process: run its program, unchanged, and report where its threads are.

All that is imported here is in the server's process too: the standard library and no more.
"""

import os
import runpy
import socket
import sys
import threading

FIRST_OWN_FD = 200  # our channels have this descriptor or a higher one; a server's begin at 3


def frames(program):
    """Return where each thread of this process is, except the calling one: ThreadState's fields.

    A thread whose stack has no function of the program has None for function and line.
    """
    me, main = threading.get_ident(), threading.main_thread()
    threads, innermost = threading.enumerate(), sys._current_frames()
    rows = []
    for thread in threads:
        if thread.ident == me or thread.ident not in innermost:
            continue
        frame = innermost[thread.ident]
        while frame and frame.f_code.co_filename != program:
            frame = frame.f_back
        rows.append(
            {
                "id": thread.native_id,
                "name": "main" if thread is main else thread.name,
                "function": frame and frame.f_code.co_name,
                "line": frame and frame.f_lineno,
            }
        )
    return rows


def connect(path):
    """Return a socket that is connected to path, with a descriptor that no server would get."""
    import fcntl  # not at the top: Windows does not have it

    low = socket.socket(socket.AF_UNIX)
    try:
        low.connect(path)
        return socket.socket(fileno=fcntl.fcntl(low.fileno(), fcntl.F_DUPFD_CLOEXEC, FIRST_OWN_FD))
    finally:
        os.close(low.detach())  # and not close(), which the tracer may record


def run_program(program, options):
    """Run a file as `python program options` does: as __main__, its folder first in sys.path."""

    def print_exception(kind, error, traceback):
        while traceback and traceback.tb_frame.f_code.co_filename != program:
            traceback = traceback.tb_next
        sys.__excepthook__(kind, error.with_traceback(traceback), traceback)

    sys.argv = [program, *options]
    sys.path[0] = os.path.dirname(os.path.realpath(program))
    sys.excepthook = print_exception  # without the frames of this file
    runpy.run_path(program, run_name="__main__")
