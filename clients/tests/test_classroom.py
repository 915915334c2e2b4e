"""The classroom shows what is: scripts of keys, and what has to be seen then."""

import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
from types import SimpleNamespace

import psutil
import pytest
from rich.cells import cell_len

from clients.classroom import panels, scripted_clients
from clients.classroom.__main__ import main
from clients.classroom.roster import ClientRow, Roster
from clients.classroom.server_monitor import Connection, ServerMonitor
from clients.console import palette
from clients.system import processes, procfs
from clients.tests.in_the_classroom import play, screen, shows, styles
from conftest import DEADLINE

pytestmark = pytest.mark.slow


def threads(app):
    """Return (function, system call) of each thread."""
    return [(thread.function, thread.call) for thread in app.monitor.threads]


def states(app):
    return [client.state for client in app.roster.scripted.values()]


def queued(app):
    """Return the numbers of the clients in the accept queue."""
    queue = [row.label for row in app.rows if row.connection and row.connection.queued]
    return [int(panels.short(label)) for label in queue]


def labels(app, panel):
    """Return the labels of the clients that have a row on a panel, in order."""
    rows = app.query_one(f"#{panel}").content.plain.splitlines()
    if panel == "kernel":
        rows = rows[1 + next(at for at, row in enumerate(rows) if "Recv-Q" in row) :]
    elif rows and " in all: " in rows[0]:
        del rows[0]
    first = [row.removeprefix("▸").split(maxsplit=1)[0] for row in rows if row.strip()]
    return [one for one in first if one.removeprefix("g").isdigit()]


def order(*first):
    """Return a condition: both panels show the same clients, and these first."""

    def condition(app):
        kernel, clients = labels(app, "kernel"), labels(app, "clients")
        count = min(len(kernel), len(clients))
        return clients[:count] == kernel[:count] and tuple(kernel[: len(first)]) == first

    return condition


def test_on_01_the_second_client_waits_in_the_accept_queue_until_the_first_leaves():
    shown = play(
        "01_blocking",
        *"aas",
        lambda app: threads(app) == [("handle", "recvfrom")],
        lambda app: queued(app) == [2] and app.monitor.queue == 1,
        lambda app: states(app) == ["silent", "waiting"],
        shows("main: recvfrom(4) ← client 1", "accept queue", "1 of 65", "in it: 2"),
        lambda app: styles(app, "kernel", "      4") == {panels.WAITING},
        lambda app: styles(app, "kernel", "      0") == {"dim"},
        *("1", "l", lambda app: states(app) == ["greeted"] and not queued(app)),
        *("a", "l"),  # client 3 has left: it keeps its label as long as the server has its socket
        lambda app: (
            [row.connection.server_state for row in app.rows] == ["ESTABLISHED", "CLOSE-WAIT"]
        ),
        shows("in it: 3"),
    )
    assert "g1" not in "".join(shown)


def test_a_thread_that_sleeps_in_no_socket_is_not_shown_with_a_client():
    play(
        "01_blocking",
        *("a", "a", "1", "s", lambda app: queued(app) == [2]),
        lambda app: threads(app) == [("greeting", "clock_nanosleep")],
        lambda app: app.monitor.threads[0].remote is None,
        wait=60,
    )


FAMILY = """
    import os
    for _ in range(2):
        if not os.fork():
            break
    else:
        signal.pause()
"""


def test_of_a_server_of_several_processes_all_are_shown(tmp_path):
    program = tmp_path / "server.py"
    text = processes.find_server("01_blocking").read_text()
    before = "    serve(listener, lambda"
    program.write_text(text.replace(before, FAMILY + before))
    play(
        program,
        *("a", "a", shows("processes 3, threads 3", "main: pause", "0 of 65")),
        lambda app: sorted(row.fd for row in app.monitor.connections) == [4, 4],
        lambda app: states(app) == ["silent", "silent"],
    )


def test_on_01_the_queue_fills_and_more_clients_stay_in_syn_sent():
    play(
        "01_blocking",
        *"aaaa",
        lambda app: (
            queued(app) == [2, 3]
            and [row.client_state for row in app.monitor.connections].count("SYN-SENT") == 1
        ),
        *"aaaaaaaaa",  # at 80 columns not all of them fit: those in SYN-SENT have to be seen
        shows("SYN-SENT: 4, 5, 6, 7", "▸13  SYN-SENT", " 4   SYN-SENT", "▸ 13 connecting"),
        shows("13 in all: 3 silent, 10 connecting"),
        order("13", "4", "5"),
        backlog=1,
        size=(80, 24),
    )


def test_fifty_clients_are_fifty_threads_on_02_and_one_on_03_and_nothing_is_cut_without_a_sign():
    def fits(app):
        rows, (columns, _) = screen(app), app.size
        return (
            all(cell_len(row) <= columns for row in rows)
            and "q quit" in rows[-1]
            and "…" not in rows[0]
            and any("Recv-Q Send-Q" in row for row in rows)
        )

    seen = [
        shows("main: accept4(3)", "50 threads: recvfrom, each for its own client"),
        shows("50 in all: 50 silent", "▸ 50", "more (PgUp PgDn)", "02_threaded: Threaded server"),
        fits,
    ]
    play(
        "02_threaded",
        "f",
        lambda app: threads(app).count(("handle", "recvfrom")) == 50,
        lambda app: ("serve", "accept4") in threads(app) and len(app.monitor.threads) == 51,
        *(*seen, (110, 36), *seen, (140, 40), *seen, (200, 60), *seen, "n"),
        lambda app: app.monitor and threads(app) == [("serve", "epoll_wait")],
        lambda app: sum(row.fd is not None for row in app.monitor.connections) == 50,
        *((140, 40), "7", order("7", "1", "2"), "pagedown"),
        lambda app: order("7")(app) and int(labels(app, "kernel")[1]) > 8,
        *("pageup", order("7", "1", "2"), "down", order("8", "1", "2")),
        programs=[processes.find_server("02_threaded"), processes.find_server("03_epoll")],
        size=(80, 24),
    )


def test_a_client_that_never_reads(monkeypatch):
    def small():  # with small segments the kernel holds 100 KB of greetings, and not 4 MB
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        return one

    monkeypatch.setattr(scripted_clients, "socket", SimpleNamespace(socket=small))

    def blocked_in(call):
        """Return a condition: both buffers hold bytes, and the same ones as at the last update.

        How many is the kernel's choice: it lets a send buffer grow, or not.
        """
        last = None

        def condition(app):
            nonlocal last
            before, last = last, app.monitor and app.monitor.connections[:]
            return (
                last
                and before == last
                and call in [each for _, each in threads(app)]
                and states(app) == ["not reading"]
                and min(last[0].recv_q, last[0].send_q) > 0
            )

        return condition

    play(
        None,
        *("a", "r", blocked_in("sendto"), "n", blocked_in("sendto"), "n", blocked_in("epoll_wait")),
        programs=[processes.find_server(name) for name in palette.MODELS],
    )


def test_leave_reset_and_empty_also_with_caps_lock():
    play(
        "03_epoll",
        *"aaa2X3L",
        lambda app: (
            list(app.roster.scripted) == [1]
            and app.monitor.time_wait >= 1
            and len(app.monitor.connections) == 1
        ),
        *"AE",
        lambda app: not app.roster.scripted and not app.monitor.connections,
        *("a", lambda app: list(app.roster.scripted) == [1]),
    )


def test_the_next_model_and_the_same_one_again_get_the_same_clients(tmp_path):
    program = tmp_path / "server.py"
    program.write_text(processes.find_server("02_threaded").read_text())

    def served(app):
        return (
            app.monitor
            and len(threads(app)) == 3
            and states(app) == ["silent", "greeted"]
            and list(app.roster.scripted) == [1, 2]
        )

    def edit(_app):
        text = program.read_text()
        program.write_text(text.replace('"""Threaded server', '"""Edited server'))
        return True

    def has_its_colour(app):
        parts = [app.query_one(f"#{part}").styles for part in ("head", "title", "where")]
        return len({(str(one.background), str(one.color)) for one in parts}) == 1

    play(
        "01_blocking",
        *"aasn",
        served,
        has_its_colour,
        *(edit, "b", lambda app: app.monitor and "Edited" in app.monitor.sentence, served),
        lambda app: len(app.monitors) == 1,
        programs=[processes.find_server("01_blocking"), program],
    )


def test_a_server_that_crashes_is_shown_with_its_reason_and_the_line_where_it_failed(tmp_path):
    program = tmp_path / "server.py"
    source = processes.find_server("01_blocking").read_text()
    crash = "raise ValueError('\\x1b[2J')"
    program.write_text(source.replace("conn.sendall(greet(chunk))", crash))
    ended = []
    shown = play(
        program,
        *"as",
        shows("the server has ended", crash),
        lambda app: ended.append("".join(app.monitor.ended)) or True,
        size=(80, 24),
    )
    assert "exit status 1" in ended[0]
    assert "tracer.py" not in ended[0]
    assert "\x1b" not in "".join(shown)
    first = next(at for at, row in enumerate(shown) if "the server has ended" in row) + 1
    assert shown[first].startswith("ValueError: ")
    assert shown[first + 3].startswith("   ▶ ValueError: ")


def test_a_server_that_never_listens_gives_its_reason_before_its_command(tmp_path):
    program = tmp_path / "server.py"
    program.write_text("print('no')\n\nimport nosuchmodule\n")
    shown = "\n".join(play(program, shows("the server has ended")))
    reason, command = shown.index("ModuleNotFoundError"), shown.index('"listening')
    assert reason < shown.index("   3 import nosuchmodule") < command
    assert "frames.py" not in shown


def test_external_clients_are_shown_safely_can_be_chosen_and_are_counted():
    words, sockets = b"\x1b[31mred" + b"x" * 120, []

    def connect(count):
        def condition(app):
            for _ in range(count):
                sockets.append(socket.create_connection(app.monitor.server.address))
                sockets[-1].sendall(words)
            return True

        return condition

    shown = play(
        "03_epoll",
        *("a", connect(1), shows("g1 connected", r"said b'\x1b[31mred"), "down"),
        *("s", shows("g1 is an external client"), shows("▸ g1"), "1", "e"),
        *(connect(11), shows("12 in all: 12 connected", "… and "), order("g1", "g2")),
        size=(140, 24),
    )
    assert "\x1b" not in "".join(shown)
    for one in sockets:
        one.close()


def test_each_text_has_enough_contrast():
    for colour, _ in [*palette.MODELS.values(), *palette.OTHER_STYLES]:
        assert palette.contrast(colour, palette.text_on(colour)) >= 4.5
    for style in (panels.BAD, panels.WAITING):
        assert palette.contrast(style.removeprefix("bold "), "#E0E0E0") >= 4.5


def test_the_address_and_a_warning_are_shown_only_where_others_can_connect():
    before = []

    def on(host):
        def change(app):
            app.options["host"] = host
            before.append(app.monitor)
            return True

        def changed(app):
            return app.monitor not in (None, before[-1]) and states(app) == ["silent"]

        return [change, "b", changed]

    def warned(app):
        rows = "\n".join(screen(app))
        return "ANYONE ON THIS NETWORK CAN CONNECT" in rows and "--port" in rows

    def unwarned(app):
        return "CONNECT" not in "\n".join(screen(app)) and not warned(app)

    shown = play(
        "01_blocking",
        *("a", unwarned, *on("0"), warned, *on("localhost"), unwarned),
        *(*on("127.0.0.2"), unwarned, *on("0.0.0.0"), warned),
        size=(80, 24),
    )
    assert "nc 0" not in "".join(shown)


def test_sockets_of_other_programs_with_the_same_port_number_are_not_the_servers():
    def condition(app):
        return app.monitor and app.monitor.time_wait == 0 and len(app.monitor.connections) == 1

    def elsewhere(app):
        """Make connections in TIME-WAIT and ESTABLISHED to the same port of another host."""
        address = ("127.0.0.3", app.monitor.port)
        with socket.create_server(address) as listener:
            for _ in range(2):
                kept.append(socket.create_connection(address))
                kept.append(listener.accept()[0])
        for one in kept[:2]:
            one.close()
        others = [
            one
            for one in procfs.tcp_sockets(app.monitor.port)
            if address in (one.local, one.remote)
        ]
        return {"TIME-WAIT", "ESTABLISHED"} <= {one.state for one in others}

    kept = []
    play("03_epoll", *("a", condition, elsewhere, "s"), shows("greeted"), condition)
    for one in kept:
        one.close()


def test_a_key_keeps_a_picture_of_the_screen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    play("01_blocking", "a", shows("recvfrom(4)"), "k", shows("Saved screenshot"))
    [file] = tmp_path.glob("clients_classroom_*.svg")
    text = file.read_text().replace("&#160;", " ")
    assert "recvfrom(4)" in text
    assert "@font-face" not in text


def test_half_open_connections_are_named():
    rows = [
        ClientRow("client 8", "silent", 0, "", Connection("", "ESTABLISHED", "SYN-RECEIVED")),
        ClientRow("client 9", "silent", 0, "", Connection("", "ESTABLISHED")),
    ]
    monitor = ServerMonitor(processes.find_server("01_blocking"), {"backlog": 5})
    shown = ["".join(text for text, _ in row) for row in panels.queue(monitor, rows, 70)]
    assert "ACK dropped, still SYN-RECEIVED: 8" in shown
    assert "the server has no socket for: 9" in shown


def test_the_panel_of_clients_names_those_without_a_socket_at_the_server():
    roster = Roster()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        roster.address = listener.getsockname()
        roster.add(3)
        name = roster.scripted[2].name
        rows = roster.rows([Connection(name, client_state="ESTABLISHED")], {})
        roster.empty()

    def shown(rows, height):
        found = panels.clients(rows, rows, "client 1", height)
        return ["".join(text for text, _ in row) for row in found]

    assert ["no server socket" in row for row in shown(rows, 9)] == [False, True, False]
    assert "no server socket" in shown(rows * 2, 4)[0]


def test_an_external_client_never_gets_the_label_of_another_one():
    def labels(*clients):
        present = [Connection(one, server_state="ESTABLISHED", fd=4) for one in clients]
        return [row.label for row in roster.rows(present, {})]

    roster = Roster()
    assert labels("a", "b") == ["g1", "g2"]
    assert labels("b", "c") == ["g2", "g3"]


def test_last_lines_are_wrapped_and_not_cut():
    words = "a server that has " + "much to say " * 9 + "to the very end"
    shown = [row[0][0] for row in panels.last_lines(f"{words}\nand\ttwice", 40, 12)]
    assert " ".join(shown) == words + " and·twice"
    assert max(map(cell_len, shown)) <= 40


def test_chinese_text_takes_two_columns_a_character(tmp_path):
    long = "你好" * 60
    shown = [row[0][0] for row in panels.last_lines(long, 41, 12)]
    assert "".join(shown) == long
    assert {cell_len(text) for text in shown[:-1]} == {40}
    assert panels.some(["你好", "你好"], 14, "在队列 ") == "2 of them"
    program = tmp_path / "server.py"
    source = processes.find_server("03_epoll").read_text().partition("\n")[2]
    program.write_text(
        f'"""{long}\n{source.replace("import select", f"import select  # {long}", 1)}'
    )
    shown = play(
        program,
        "a",
        lambda app: threads(app) == [("serve", "epoll_wait")],
        shows("…"),
        size=(80, 24),
    )
    assert all(cell_len(row) <= 80 for row in shown)
    assert "你好" in shown[0]
    assert "…" in shown[0]
    assert "127.0.0.1:" in shown[0]


def test_a_notice_says_why_a_key_does_nothing():
    play(
        "01_blocking",
        *("s", shows("choose a client first")),
        *("a", "a", "s", "s", shows("one message at a time")),
        *("f", shows("50 at once; the accept queue holds 6: --backlog 64")),
        lambda app: len(app.roster.scripted) == 52,
        size=(80, 24),
        backlog=5,
    )


@contextlib.contextmanager
def on_a_terminal():
    """Run the classroom there; yield it, both ends of the terminal, and the server's process."""
    teacher, terminal = pty.openpty()
    program = subprocess.Popen(
        processes.module_command("clients.classroom", "01_blocking"),
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
        assert program.wait(DEADLINE) == 0
        assert not server.is_running()


def test_a_terminal_that_takes_no_more_output_keeps_no_process_alive():
    """Nor does one that is gone: the program's writes block forever then, and it with them."""
    with on_a_terminal() as (program, _teacher, terminal, server):
        termios.tcflow(terminal, termios.TCOOFF)
        program.send_signal(signal.SIGTERM)
        assert program.wait(DEADLINE) == 1
        server.wait(DEADLINE)  # psutil's; the reaper has ended it
        os.close(terminal)


def drain(terminal):
    """Read to the end, so that the program never blocks in a write."""
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:  # EIO: the program has closed its side
        return


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "needs a terminal"),
        (["--host", "::1"], "IPv4"),
        (["clients/TEACHING.md"], "ends in .py"),
    ],
)
def test_what_it_cannot_do_gets_one_line(options, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["classroom", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
