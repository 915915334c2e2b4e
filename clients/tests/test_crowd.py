"""A crowd shows who waits for whom, and its numbers add up."""

import io
import itertools
import json
import re
import signal
import socket
import subprocess
import time

import pytest
from rich.console import Console

from clients.crowd import crowd, scoreboard
from clients.crowd.stats import intervals
from clients.crowd.timeline import at_the_end, picture, summary
from clients.system.processes import tool

TOGETHER = ["02_threaded", "03_epoll"]


def moments(data, what):
    """Return for each client, in order, when this first happened to it; None if it never did."""
    return [
        next((at for at, event in client["events"] if event == what), None)
        for client in data["clients"]
    ]


def adds_up(data):
    """Say whether the scoreboard and the intervals of data account for everybody and all time."""
    board = scoreboard(data)
    for client in filter(lambda client: client["events"], data["clients"]):
        spans = intervals(client, data["seconds"])
        assert [spans[0][1], spans[-1][2]] == [client["events"][0][0], data["seconds"]]
        for (_, began, ended), (_, begins, _) in itertools.pairwise(spans):
            assert began <= ended == begins
        assert spans[-1][0] == "gone"
    assert board["came"] == board["left"] + board["cut off"] + board["failed"]
    return board["asked"] == board["answered"] + board["still waiting"] + board["lost"]


def test_on_01_each_is_served_when_the_one_before_has_left(serve):
    data = crowd(serve("01_blocking").address, 4, every=0.01, greetings=2, think=0.05)
    served = sorted(zip(moments(data, "answered"), moments(data, "left"), strict=True))
    assert all(left <= answered for (_, left), (answered, _) in itertools.pairwise(served))
    assert scoreboard(data)["answered"] == 8
    assert adds_up(data)


def test_on_01_the_silent_one_starves_all_who_come_after_it(serve):
    server = serve("01_blocking")
    data = crowd(server.address, 4, every=0.3, greetings=1, silent=1, seconds=1.5)
    silence = moments(data, "answered")[0]
    answers = [answer for answer in moments(data, "answered")[1:] if answer is not None]
    assert all(answer < silence for answer in answers)
    board = scoreboard(data)
    assert board["cut off"] == board["never served"] == board["still waiting"] >= 1
    assert adds_up(data)


@pytest.mark.parametrize("name", TOGETHER)
def test_the_silent_one_starves_nobody_where_clients_are_served_together(serve, name):
    data = crowd(serve(name).address, 5, every=0, greetings=2, think=0.01, silent=1)
    left = moments(data, "left")
    assert None not in left
    assert all(other < left[0] for other in left[1:])
    assert scoreboard(data)["answered"] == 1 + 4 * 2
    assert adds_up(data)


def test_who_has_no_connection_at_the_end_is_counted(serve):
    server = serve("01_blocking", "--backlog", 0)
    data = crowd(server.address, 4, every=0.1, greetings=1, silent=1, seconds=1)  # 1 is the first
    board = scoreboard(data)
    assert board["never connected"] >= 1
    assert board["never served"] >= board["never connected"] + board["still waiting"]
    assert adds_up(data)


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    done = subprocess.run(
        tool("clients.crowd", "--port", address[1], "--every", 0), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "5 of 5 clients came: 0 left, 0 cut off, 5 failed" in done.stdout
    assert done.stdout.count("start a server there first") == 1


def test_without_a_terminal_it_prints_the_scoreboard_only_and_writes_the_log(serve, tmp_path):
    log = tmp_path / "crowd.json"
    options = ["--clients", 3, "--every", 0, "--think", 0, "--greetings", 2, "--json", log]
    port = serve("03_epoll").address[1]
    done = subprocess.run(
        tool("clients.crowd", "--port", port, *options), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["6", "asked"],
        ["6", "answered"],
        ["0", "still", "waiting"],
        ["0", "never", "served"],
    ]
    data = json.loads(log.read_text())
    assert data["options"]["clients"] == len(data["clients"]) == 3
    assert adds_up(data)


def test_ctrl_c_cuts_everybody_off_and_prints_the_scoreboard(serve):
    server = serve("01_blocking")
    line = tool("clients.crowd", "--port", server.address[1], "--every", 0, "--think", 3600)
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


def test_who_is_answered_only_after_the_end_does_not_count(serve):
    """01 serves the first; when the crowd is cut off, the server turns to the next ones."""
    answered = []

    def interrupt(data):
        answered[:] = [at for at in moments(data, "answered") if at is not None]
        if answered and moments(data, "asked")[-1]:
            raise KeyboardInterrupt

    server = serve("01_blocking", "--backlog", 64)
    data = crowd(server.address, 50, every=0, think=3600, look=interrupt)
    assert data["interrupted"]
    assert scoreboard(data)["answered"] == len(answered) == 1
    assert adds_up(data)


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("seconds", [0.05, 7.3, 29.9, 3599.0])
def test_the_picture_fits_the_terminal(width, seconds):
    events = [[0.0, "connects"], [0.001, "connected"], [0.001, "asked"], [seconds / 3, "answered"]]
    clients = [
        {"number": number, "silent": number == 2, "error": None, "events": events}
        for number in range(1, 1001)
    ]
    console = Console(width=width, height=24, file=io.StringIO())
    console.print(picture({"seconds": seconds, "clients": clients}, width, 24))
    lines = console.file.getvalue().splitlines()
    assert len(lines) < 24
    assert all(len(line) <= width for line in lines)
    assert "and 981 more: 981 thinking" in console.file.getvalue()
    assert lines[0].split()[1].startswith("░")
    assert "…" not in console.file.getvalue()


@pytest.mark.parametrize(
    "options", [["--clients", "0"], ["--silent", "6"], ["--every", "nan"], ["--seconds", "0"]]
)
def test_bad_options_get_one_line(options):
    done = subprocess.run(tool("clients.crowd", *options), capture_output=True, text=True)
    assert done.returncode == 2
    assert "take" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def told(errors):
    """Return the data of a crowd in which all failed, each with its error."""
    events = [[0.0, "connects"], [1.0, "failed"]]
    clients = [
        {"number": number, "silent": False, "error": error, "events": events}
        for number, error in enumerate(errors, 1)
    ]
    return {"seconds": 1.0, "clients": clients}


def test_many_failures_are_told_in_few_lines_the_commonest_with_their_words():
    data = told(["lost"] * 3 + ["closed"] * 2 + [f"client {n}: no" for n in range(35)])
    data["clients"].append({"silent": False, "error": "closed", "events": [[1, "cut off"]]})
    console = Console(width=80, file=io.StringIO())
    console.print(summary(data))
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "41 of 41 clients came: 0 left, 1 cut off, 40 failed; 1.0 s"
    assert lines[5:] == [
        "3 failed: lost",
        "2 failed: closed",
        "1 failed: client 0: no",
        "and 34 more failed",
    ]


def test_at_the_end_the_first_client_is_still_on_the_screen():
    data = told([f"client {n} was told something long " * 4 for n in range(100)])
    console = Console(width=80, height=24, file=io.StringIO())
    console.print(at_the_end(data, console), summary(data), sep="\n")
    lines = console.file.getvalue().splitlines()
    assert len(lines) < 24
    assert lines[0].split()[0] == "1"
    assert lines[-1] == "and 97 more failed"
