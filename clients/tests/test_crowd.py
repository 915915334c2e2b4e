"""A crowd shows which client waits for which, and its numbers add up."""

import io
import itertools
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console

from clients.crowd import __main__ as command
from clients.crowd import simulation
from clients.crowd.simulation import ClientRecord, CrowdResult, Event, crowd
from clients.crowd.stats import intervals, summary
from clients.crowd.timeline import final_timeline, summary_table, timeline
from clients.system.processes import module_command
from conftest import cli

TOGETHER = ["02_threaded", "03_epoll"]


def moments(data, what):
    """Return for each client, in order, when this first happened to it; None if it never did."""
    return [
        next((at for at, event in client.events if event == what), None) for client in data.clients
    ]


def adds_up(data):
    """Return True if the summary and the intervals of data account for all clients and all time."""
    counts = summary(data)
    for client in filter(lambda client: client.events, data.clients):
        spans = intervals(client, data.seconds)
        assert [spans[0][1], spans[-1][2]] == [client.events[0].at, data.seconds]
        for (_, began, ended), (_, begins, _) in itertools.pairwise(spans):
            assert began <= ended == begins
        assert spans[-1][0] == "gone"
    assert counts.came == counts.left + counts.cut_off + counts.failed
    return counts.asked == counts.answered + counts.still_waiting + counts.lost


def result(clients, seconds=1.0, silent=None):
    """Return a CrowdResult. clients: (error, [[at, what], ...]) of each."""
    records = [
        ClientRecord(number, number == silent, error, [Event(*event) for event in events])
        for number, (error, events) in enumerate(clients, 1)
    ]
    return CrowdResult(seconds, records)


def test_on_01_each_is_served_when_the_one_before_has_left(serve):
    data = crowd(serve("01_blocking").address, 4, every=0.01, greetings=2, think=0.05)
    served = sorted(zip(moments(data, "answered"), moments(data, "left"), strict=True))
    assert all(left <= answered for (_, left), (answered, _) in itertools.pairwise(served))
    assert summary(data).answered == 8
    assert adds_up(data)


def test_on_01_a_silent_client_starves_all_that_come_after_it(serve):
    server = serve("01_blocking")
    data = crowd(server.address, 4, every=0.3, greetings=1, silent=1, seconds=1.5)
    silence = moments(data, "answered")[0]
    answers = [answer for answer in moments(data, "answered")[1:] if answer is not None]
    assert all(answer < silence for answer in answers)
    counts = summary(data)
    assert counts.cut_off == counts.unserved == counts.still_waiting >= 1
    assert adds_up(data)


@pytest.mark.parametrize("name", TOGETHER)
def test_a_silent_client_starves_no_other_where_clients_are_served_together(serve, name):
    data = crowd(serve(name).address, 5, every=0, greetings=2, think=0.01, silent=1)
    left = moments(data, "left")
    assert None not in left
    assert all(other < left[0] for other in left[1:])
    assert summary(data).answered == 1 + 4 * 2
    assert adds_up(data)


def test_a_client_that_has_no_connection_at_the_end_is_counted(serve):
    server = serve("01_blocking", "--backlog", 0)
    data = crowd(server.address, 4, every=0.1, greetings=1, silent=1, seconds=1)  # 1 is the first
    counts = summary(data)
    assert counts.never_connected >= 1
    assert counts.unserved >= counts.never_connected + counts.still_waiting
    assert adds_up(data)


def test_without_a_server_all_clients_fail():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    done = subprocess.run(
        module_command("clients.crowd", "--port", address[1], "--every", 0),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "5 of 5 clients came: 0 left, 0 cut off, 5 failed" in done.stdout
    assert done.stdout.count("start a server there first") == 1


def test_without_a_terminal_it_prints_only_the_summary(serve):
    options = ["--clients", 3, "--every", 0, "--think", 0, "--greetings", 2]
    port = serve("03_epoll").address[1]
    done = subprocess.run(
        module_command("clients.crowd", "--port", port, *options), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["6", "asked"],
        ["6", "answered"],
        ["0", "still", "waiting"],
        ["0", "unserved"],
    ]


def test_ctrl_c_cuts_all_clients_off_and_prints_the_summary(serve):
    server = serve("01_blocking")
    line = module_command(
        "clients.crowd", "--port", server.address[1], "--every", 0, "--think", 3600
    )
    program = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 20
    while "said" not in server.log() and time.monotonic() < deadline:
        time.sleep(0.01)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=20)
    assert (program.returncode, err) == (130, "")
    assert re.match(r"([1-5]) of 5 clients came: 0 left, \1 cut off, 0 failed", out)
    assert "still waiting" in out


def test_a_second_ctrl_c_neither_stops_the_cut_off_nor_hides_the_summary(
    serve, monkeypatch, capsys
):
    def interrupted(function):
        def call(*args):
            signal.raise_signal(signal.SIGINT)
            return function(*args)

        return call

    port = serve("01_blocking").address[1]
    monkeypatch.setattr(sys, "argv", ["crowd", "--port", str(port), "--think", "3600"])
    monkeypatch.setattr(simulation._Run, "so_far", interrupted(simulation._Run.so_far))
    monkeypatch.setattr(command, "summary_table", interrupted(summary_table))
    before = signal.getsignal(signal.SIGINT)
    try:
        assert command.main() == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "still waiting" in capsys.readouterr().out


def test_a_limit_of_descriptors_is_reported_before_the_first_client_comes():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wrapper = ["sh", "-c", 'ulimit -n 40; exec "$@"', "sh"]
        options = ("--port", listener.getsockname()[1], "--clients", 20, "--every", 0)
        done = cli("clients.crowd", *options, wrapper=wrapper)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("this needs 50 descriptors and may have 40: ")
        assert done.stderr.count("\n") == 1
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_limit_of_threads_is_named(monkeypatch, capsys):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(sys, "argv", ["crowd", "--clients", "100"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its handlers
    message = command.main()
    assert message.startswith("can't start new thread for each of 100 clients: raise the limit ")
    assert capsys.readouterr() == ("", "")


def test_an_answer_after_the_end_does_not_count(serve):
    """01 serves the first; when the crowd is cut off, the server turns to the next ones."""
    answered = []

    def interrupt(data):
        answered[:] = [at for at in moments(data, "answered") if at is not None]
        if answered and moments(data, "asked")[-1]:
            raise KeyboardInterrupt

    server = serve("01_blocking", "--backlog", 64)
    data = crowd(server.address, 50, every=0, think=3600, progress=interrupt)
    assert data.interrupted
    assert summary(data).answered == len(answered) == 1
    assert adds_up(data)


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("seconds", [0.05, 7.3, 29.9, 3599.0])
def test_the_timeline_fits_the_terminal(width, seconds):
    events = [[0.0, "connects"], [0.001, "connected"], [0.001, "asked"], [seconds / 3, "answered"]]
    data = result([(None, events)] * 1000, seconds, silent=2)
    console = Console(width=width, height=24, file=io.StringIO())
    console.print(timeline(data, width, 24))
    lines = console.file.getvalue().splitlines()
    assert len(lines) < 24
    assert all(len(line) <= width for line in lines)
    assert "and 981 more: 981 thinking" in console.file.getvalue()
    assert lines[0].split()[1].startswith("░")
    assert "…" not in console.file.getvalue()


@pytest.mark.parametrize(
    "options", [["--clients", "0"], ["--silent", "6"], ["--every", "nan"], ["--seconds", "0"]]
)
def test_bad_options_get_one_line(options, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["crowd", *options])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert "expected" in capsys.readouterr().err.splitlines()[-1]


def all_failed(errors):
    return result([(error, [[0.0, "connects"], [1.0, "failed"]]) for error in errors])


def test_many_failures_are_printed_in_few_lines_the_most_frequent_with_their_reasons():
    data = all_failed(["lost"] * 3 + ["closed"] * 2 + [f"client {n}: no" for n in range(35)])
    data.clients += result([("closed", [[1, "cut off"]])]).clients
    console = Console(width=80, file=io.StringIO())
    console.print(summary_table(data))
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "41 of 41 clients came: 0 left, 1 cut off, 40 failed; 1.0 s"
    assert lines[5:] == [
        "3 failed: lost",
        "2 failed: closed",
        "1 failed: client 0: no",
        "and 34 more failed",
    ]


def test_at_the_end_the_first_client_is_still_on_the_screen():
    data = all_failed([f"client {n} got a long answer " * 4 for n in range(100)])
    console = Console(width=80, height=24, file=io.StringIO())
    console.print(final_timeline(data, console), summary_table(data), sep="\n")
    lines = console.file.getvalue().splitlines()
    assert len(lines) < 24
    assert lines[0].split()[0] == "1"
    assert lines[-1] == "and 97 more failed"
