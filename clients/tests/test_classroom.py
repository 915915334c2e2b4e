"""The classroom shows what is: scenes played by the keys, and what the program has read then."""

import asyncio
import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import time

import psutil
import pytest
from rich.cells import cell_len

from clients.classroom import panels
from clients.classroom.app import Classroom
from clients.classroom.scripted_clients import Puppet
from clients.classroom.server_monitor import Connection, Stage
from clients.system import processes

PATIENCE = 20.0


def play(model, scene, *keys, shows=(), size=(140, 40), backlog=64, programs=None):
    """Press the keys in the classroom of a model; wait until scene(app) holds and shows is shown.

    Return the rows of the screen.
    """
    programs = programs or [processes.find(model)]
    options = {"host": "127.0.0.1", "port": 0, "backlog": backlog}

    async def run():
        app = Classroom(programs, options)
        try:
            async with app.run_test(size=size, notifications=True) as pilot:
                await until(pilot, lambda app: app.stage and (app.stage.threads or app.stage.plain))
                for key in keys:
                    await pilot.press(key)
                await until(pilot, scene)
                await until(
                    pilot, lambda app: all(text in "\n".join(screen(app)) for text in shows)
                )
                return screen(app)
        finally:
            app.end()

    async def until(pilot, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition(pilot.app):
            assert time.monotonic() < deadline, "\n".join(
                [str(vars(pilot.app.stage)), *screen(pilot.app)]
            )
            await pilot.pause(0.02)

    return asyncio.run(run())


def screen(app):
    """Return the rows of the screen."""
    return [
        strip.text.replace("\N{NO-BREAK SPACE}", " ").rstrip()
        for strip in app.screen._compositor.render_strips()
    ]


def standing(app):
    """Return (function, system call) of each thread."""
    return [(thread.function, thread.call) for thread in app.stage.threads]


def doing(app):
    return [puppet.doing for puppet in app.cast.values()]


def queued(app):
    """Return the numbers of the clients in the accept queue."""
    return [int(panels.short(row, app.names)) for row in app.stage.connections if row.queued]


def test_on_01_the_second_client_is_in_the_accept_queue_while_main_stands_in_recv():
    play(
        "01_blocking",
        lambda app: (
            standing(app) == [("handle", "recvfrom")]
            and queued(app) == [2]
            and app.stage.queue == 1
            and doing(app) == ["silent", "waiting"]
        ),
        *"aas",
        shows=["main: recvfrom(fd ", "), waiting for client 1", "accept queue", "1 of 65"],
    )


def test_on_01_the_second_is_served_when_the_first_leaves():
    play("01_blocking", lambda app: doing(app) == ["greeted"] and not queued(app), *"aas1l")


def test_on_01_the_queue_fills_and_more_stay_in_syn_sent():
    play(
        "01_blocking",
        lambda app: (
            queued(app) == [2, 3]
            and [row.theirs for row in app.stage.connections].count("SYN-SENT") == 1
        ),
        *"aaaa",
        backlog=1,
    )


def test_on_02_fifty_clients_are_fifty_threads_in_recv():
    play(
        "02_threaded",
        lambda app: (
            standing(app).count(("handle", "recvfrom")) == 50
            and ("serve", "accept4") in standing(app)
            and len(app.stage.threads) == 51
        ),
        "f",
        shows=["50 threads: recvfrom, each for its own client"],
    )


def test_on_03_fifty_clients_are_one_thread_in_epoll_wait():
    play(
        "03_epoll",
        lambda app: (
            standing(app) == [("serve", "epoll_wait")]
            and sum(row.fd is not None for row in app.stage.connections) == 50
        ),
        "f",
    )


@pytest.mark.parametrize(
    ("name", "call"),
    [("01_blocking", "sendto"), ("02_threaded", "sendto"), ("03_epoll", "epoll_wait")],
)
def test_a_client_that_never_reads(name, call):
    play(
        name,
        lambda app: (
            call in [each for _, each in standing(app)]
            and doing(app) == ["not reading"]
            and app.stage.connections[0].unsent > 100_000
            and app.stage.connections[0].unread > 0
        ),
        *"ar",
    )


def test_leave_and_reset():
    play(
        "03_epoll",
        lambda app: (
            list(app.cast) == [1] and app.stage.time_wait >= 1 and len(app.stage.connections) == 1
        ),
        *"aaa2x3l",
    )


def test_the_next_model_gets_the_same_cast():
    programs = [processes.find("01_blocking"), processes.find("02_threaded")]
    play(
        "01_blocking",
        lambda app: (
            app.stage
            and len(standing(app)) == 3
            and doing(app) == ["silent", "greeted"]
            and list(app.cast) == [1, 2]
        ),
        *"aasn",
        programs=programs,
    )


def test_a_server_that_crashes_is_shown_with_its_last_words(tmp_path):
    program = tmp_path / "server.py"
    source = processes.find("01_blocking").read_text()
    program.write_text(source.replace("conn.sendall(greet(chunk))", "raise ValueError('\\x1b[2J')"))
    words = ["the server has ended", "ValueError"]
    options = {"shows": words, "size": (80, 24), "programs": [program]}
    shown = play(None, lambda app: app.stage.ended, *"as", **options)
    assert "\x1b" not in "".join(shown)


def test_what_a_guest_says_is_shown_safely():
    guests = []

    def scene(app):
        if not guests:
            guests.append(socket.create_connection(app.address()))
            guests[0].sendall(b"\x1b[31mred" + b"x" * 500)
        return app.guests and app.stage.said

    shown = play("03_epoll", scene, "a", shows=["g1 127.0.0.1:", "said b"])
    shown_row = [row for row in shown if "g1 127.0.0.1:" in row]
    assert "said b'\\x1b[31mred" in shown_row[0]
    assert shown_row[0].endswith("…")
    guests[0].close()


@pytest.mark.parametrize("size", [(80, 24), (140, 40), (200, 60)])
def test_nothing_is_cut_without_a_sign(size):
    shows = [
        "main: accept4(fd 3)",
        "50 threads: recvfrom",
        "50 in all: 50 silent",
        "▸ 50",
        "q quit",
    ]
    shown = play(
        "02_threaded", lambda app: len(standing(app)) == 51, "f", shows=[*shows, "more"], size=size
    )
    assert all(cell_len(row) <= size[0] for row in shown)
    assert "q quit" in shown[-1]


def test_a_program_that_is_not_pythons_shows_the_kernels_side(tmp_path):
    program = tmp_path / "server"
    program.write_text(
        f'#!/bin/sh\nexec {processes.find("01_blocking")} "$@"\n'.replace(
            "exec ", f"exec {sys.executable} "
        )
    )
    program.chmod(0o755)
    rows = play("", lambda app: len(app.stage.connections) == 2, *"aaws", programs=[program],
                shows=["no Python program:", "cannot go line by line", "1 of 65"])  # fmt: skip
    assert any("threads 1," in row for row in rows)
    file = tmp_path / "scene.svg"
    done = subprocess.run(
        processes.tool("clients.classroom", "03_epoll", "--screenshot", file, "--host", "::1"),
        cwd=processes.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr.count("IPv4")) == (2, 1)
    program.write_text("#!/bin/sh\nexit 3\n")
    done = subprocess.run(
        processes.tool("clients.classroom", program, "--screenshot", file),
        cwd=processes.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "exit status 3" in done.stderr
    assert "Traceback" not in done.stderr


def test_screenshot(tmp_path):
    file = tmp_path / "scene.svg"
    done = subprocess.run(
        processes.tool("clients.classroom", "--screenshot", file),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "recvfrom(fd&#160;" in file.read_text()


def test_a_client_that_believes_more_than_the_server_knows_is_named():
    rows = [
        Connection("8", theirs="ESTABLISHED", ours="SYN-RECEIVED"),
        Connection("9", theirs="ESTABLISHED"),
    ]
    stage = Stage(processes.find("01_blocking"), {"backlog": 5})
    stage.connections = rows
    shown = [text for text, _ in panels.kernel_side(stage, {}, 70, 20)]
    assert "ACK dropped, still SYN-RECEIVED: 8" in shown
    assert "the server has no socket for: 9" in shown


def test_the_clients_panel_tells_who_has_no_socket_at_the_server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cast = [Puppet(number, listener.getsockname()) for number in (1, 2, 3)]
        shown = [text for text, _ in panels.clients(cast, [], 1, 9, {cast[1].name})]
        [tally, *_] = [text for text, _ in panels.clients(cast * 2, [], 1, 4, {cast[1].name})]
        for puppet in cast:
            puppet.leave()
    assert ["no server socket" in row for row in shown] == [False, True, False]
    assert "no server socket" in tally


def test_last_words_are_wrapped_and_not_cut():
    words = "a server that has " + "much to say " * 9 + "to the very end"
    shown = [text for text, _ in panels.last(f"{words}\nand\ttwice", 40, 12)]
    assert " ".join(shown) == words + " and·twice"
    assert max(map(cell_len, shown)) <= 40


def test_chinese_text_takes_two_columns_a_character(tmp_path):
    long = "你好" * 60
    shown = [text for text, _ in panels.last(long, 41, 12)]
    assert "".join(shown) == long
    assert {cell_len(text) for text in shown[:-1]} == {40}
    assert panels.some("在队列 ", ["你好", "你好"], 14) == "在队列 2 of them"
    program = tmp_path / "server.py"
    source = processes.find("03_epoll").read_text().partition("\n")[2]
    program.write_text(
        f'"""{long}\n{source.replace("import select", f"import select  # {long}", 1)}'
    )
    options = {"shows": ["…"], "size": (80, 24), "programs": [program]}
    shown = play(None, lambda app: standing(app) == [("serve", "epoll_wait")], "a", **options)
    assert all(cell_len(row) <= 80 for row in shown)
    assert "你好" in shown[0]
    assert "…" in shown[0]
    assert "127.0.0.1:" in shown[0]


def test_a_client_that_has_left_keeps_its_name_as_long_as_the_server_has_its_connection():
    shown = play(
        "01_blocking",
        lambda app: [row.ours for row in app.stage.connections] == ["ESTABLISHED", "CLOSE-WAIT"],
        *"aal",
        shows=["in it: 2"],
    )
    assert "g1" not in "".join(shown)


def test_the_teacher_is_told_why_a_key_does_nothing():
    play("01_blocking", lambda app: True, "s", shows=["choose a client first"])
    play("01_blocking", lambda app: True, *"aass", shows=["one message at a time"])


def test_the_teacher_is_told_that_fifty_at_once_find_no_room():
    told = ["50 at once; the accept queue holds 6: --backlog 64"]
    play("03_epoll", lambda app: len(app.cast) == 50, "f", shows=told, size=(80, 24), backlog=5)


@contextlib.contextmanager
def on_a_terminal():
    """Run the classroom there; yield it, both ends of the terminal, and the server's process."""
    teacher, terminal = pty.openpty()
    program = subprocess.Popen(
        processes.tool("clients.classroom", "01_blocking"),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    try:
        seen = b""
        while b"accept4" not in seen:
            seen += os.read(teacher, 65536)
        [server] = psutil.Process(program.pid).children()
        yield program, teacher, terminal, server
    finally:
        program.kill()
        program.wait()
        os.close(teacher)


@pytest.mark.parametrize("how", ["q", "\x03", signal.SIGHUP, signal.SIGTERM])
def test_leaving_leaves_no_process_behind(how):
    with on_a_terminal() as (program, teacher, terminal, server):
        os.close(terminal)
        if isinstance(how, str):
            os.write(teacher, how.encode())
        else:
            program.send_signal(how)
        drain(teacher)
        assert program.wait(PATIENCE) == 0
        assert not server.is_running()


def test_a_terminal_that_takes_nothing_more_keeps_nobody_alive():
    """So does one that is gone: the program's writes wait for ever then, and it with them."""
    with on_a_terminal() as (program, _teacher, terminal, server):
        termios.tcflow(terminal, termios.TCOOFF)
        program.send_signal(signal.SIGTERM)
        assert program.wait(PATIENCE) == 1
        server.wait(PATIENCE)  # psutil's; the watcher has ended it
        os.close(terminal)


def drain(terminal):
    """Read to the end, so that the program never waits for a reader."""
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:  # EIO: the program has closed its side
        return


def test_it_says_so_where_there_is_no_terminal():
    done = subprocess.run(
        processes.tool("clients.classroom"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr.splitlines()[-1]
