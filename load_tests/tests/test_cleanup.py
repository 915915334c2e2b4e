"""Whatever a program has started ends with it, however it ended; its temporary folders, too."""

import contextlib
import os
import pty
import signal
import subprocess
import time

import psutil
import pytest

from clients.system.processes import ROOT, module_command
from conftest import wait_until

pytestmark = pytest.mark.slow

LONG = 30.0
PROGRAMS = {  # name: (module, words, a word on the command line of what it starts)
    "contract": ("clients.contract", ["03_epoll", "an_idle_server_uses_no_cpu"], "server.py"),
    "break_it": ("clients.break_it", ["03_epoll", "eof-ignored"], "mutant-"),
    "classroom": ("clients.classroom", ["01_blocking"], "trace.tracer"),
    "compare": ("load_tests.compare", ["03_epoll", "--users", 2, "--seconds", 60], "locustfile"),
    "web": ("load_tests.compare", ["--web", "03_epoll"], "--web-port"),
    "bench": ("load_tests.bench", ["03_epoll", "--rounds", 99, "--seconds", 9], "generator"),
    "execute": ("notebooks.execute", ["1_sockets"], "ipykernel"),  # it writes when all is done
}


foreign = set()  # processes that run for a while and are not ours: they are looked at once


def processes_of(place):
    """Return the processes, as {pid: command line}, that have place for temporary folders."""
    found = {}
    for process in set(psutil.process_iter()) - foreign:
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMPDIR") == str(place):
                if process.status() != "zombie":
                    found[process.pid] = " ".join(process.cmdline())
            elif time.time() - process.create_time() > 10:
                foreign.add(process)
    return found


@pytest.mark.parametrize(
    ("name", "number"),
    [(name, signal.SIGKILL) for name in PROGRAMS]
    + [("contract", signal.SIGHUP), ("contract", signal.SIGQUIT), ("compare", signal.SIGTERM)],
)
def test_what_it_has_started_ends_with_it(tmp_path, name, number):
    module, words, started = PROGRAMS[name]
    place = tmp_path / "temporary"
    place.mkdir()
    ours, its = pty.openpty()
    out = ["--out", tmp_path / "out"] if module == "load_tests.compare" else []
    with open(ours, "rb", buffering=0), open(its, "rb", buffering=0) as terminal:
        process = subprocess.Popen(
            module_command(module, *words, *out),
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(place)},  # what it has started has this, too
            stdin=terminal,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_until(
                lambda: any(started in line for line in processes_of(place).values()),
                lambda: processes_of(place),
            )
            process.send_signal(number)
            process.wait(LONG)
            wait_until(lambda: not processes_of(place), lambda: processes_of(place))
            wait_until(lambda: not list(place.iterdir()), lambda: list(place.iterdir()))
        finally:
            for pid in {process.pid, *processes_of(place)}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
