"""A scenario is recorded as it happens: the program's steps, and the kernel's side of each."""

import asyncio
import copy
import dataclasses
import functools
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from xml.etree import ElementTree

import psutil
import pytest

from clients.client import Client
from clients.console import palette
from clients.system import processes
from clients.system.frames import FIRST_OWN_FD
from clients.system.sockets import unix_listener
from clients.tests.narration_checks import false_sentences
from clients.tests.steps_page import bundle_of, outdated
from clients.trace import animated_svg, bundle, tracer, values
from clients.trace.__main__ import main as trace_main
from clients.trace.__main__ import write
from clients.trace.interpret import TraceEvent, is_worth_seeing
from clients.trace.narration import sentence
from clients.trace.page import STEPS
from clients.trace.scenarios import SCENARIOS
from clients.trace.session import traced
from clients.trace.tracer import Snapshot
from conftest import skip_without

MODELS = {name: processes.models()[name] for name in palette.MODELS}  # a 04 of yours is none
SHOWN = bundle_of(STEPS.read_text())
# Each recording is made once, and read by many tests.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("recordings")]


def record(scenario, program):
    try:
        events, why = bundle.play(scenario, program)
    except processes.NamespaceDenied as error:
        skip_without("network namespaces", error)
    assert not why
    return events


@functools.cache
def steps(scenario, model):
    """Return a recording; skip the test where no network can be made."""
    return record(scenario, MODELS[model])


def with_call(events, name):
    """Return the events in which the program has made a call of the kernel."""
    return [one for one in events if any(call["name"] == name for call in one["calls"])]


def row(event, client):
    rows = event["kernel"]["connections"]
    return next(one for one in rows if one["client"] == client)


@pytest.mark.parametrize(("scenario", "name"), [("reset", "02_threaded"), ("reset", "03_epoll")])
def test_a_recording_is_the_same_each_time_it_is_made(scenario, name):
    assert record(scenario, MODELS[name]) == steps(scenario, name)


def test_the_kernel_accepts_before_the_program_does():
    found = steps("two", "01_blocking")
    connects = next(one for one in found if one["does"] == "connects")
    assert row(connects, 1)["server_state"] == "ESTABLISHED"
    assert row(connects, 1)["queued"]
    assert connects["kernel"]["queue"] == 1
    taken = next(one for one in with_call(found, "accept") if one["calls"][-1]["done"])
    assert taken["kernel"]["queue"] == 0
    assert row(taken, 1)["fd"] == taken["calls"][-1]["target"] == 4
    assert taken["variables"]["conn"] == "connection with client 1 (descriptor 4)"


def test_the_second_client_of_the_blocking_server_is_served_when_the_first_has_left():
    found = steps("two", "01_blocking")
    left = next(at for at, one in enumerate(found) if one["does"] == "leaves")
    assert row(found[left - 1], 2)["queued"]
    assert row(found[left - 1], 2)["buffers"] == [0, 3, 0, 0]
    assert found[-1]["clients"][1]["received"] == "b'Hello, bob'"


def test_each_client_of_the_threaded_server_has_a_thread_that_is_named_after_it():
    found = steps("reset", "02_threaded")
    names = {thread["name"] for one in found for thread in one["threads"]}
    assert names == {"main", "client 1", "client 2"}
    assert [one["name"] for one in with_call(found, "sendall")] == ["client 1", "client 2"]


def test_out_of_descriptors_the_loop_mutes_its_listener_until_a_client_leaves():
    found = steps("descriptors", "03_epoll")
    connects = next(at for at, one in enumerate(found) if one["actors"] == [3])
    assert row(found[connects], 3)["queued"]
    listener = [one["kernel"]["epoll"][0] for one in found[connects:]]
    assert {one["fd"] for one in listener} == {3}
    assert listener[0] == {"fd": 3, "events": "", "ready": False}
    assert "IN" in [one["events"] for one in listener]
    assert found[-1]["clients"][2]["received"] == "b'Hello, cy'"


def test_a_reply_that_does_not_fit_is_held_and_sent_when_there_is_room():
    found = steps("full", "03_epoll")
    masks = [
        {one["fd"]: one["events"] for one in event["kernel"]["epoll"] or ()} for event in found
    ]
    half = next(at for at, mask in enumerate(masks) if mask.get(5) == "OUT")
    rest = found[half]["variables"]["client.unsent"]
    assert f"({row(found[half], 1)['in_program']} bytes)" in rest
    assert sum(row(found[half], 1)["buffers"]) > 0
    assert "IN" in [mask.get(5) for mask in masks[half:]]
    assert found[-1]["clients"][0]["left"] == "left"
    received = sum(one["received"] for one in found if one["actors"] == [1])
    assert received > sum(one["sent"] for one in found if one["actors"] == [1])


def test_after_a_reset_the_sentence_still_names_the_client():
    found = steps("reset", "03_epoll")
    said = [one["sentence"] for one in found]
    assert "epoll.poll() reports descriptor 5 (client 1): IN ERR HUP." in said
    assert "recv() raises ConnectionResetError: client 1 has reset the connection." in said
    assert sum("This handler is not for it" in text for text in said) == 1


@pytest.mark.parametrize(("scenario", "name"), [("reset", "02_threaded"), ("reset", "03_epoll")])
def test_each_sentence_of_a_recording_is_true(scenario, name):
    lines = MODELS[name].read_text().splitlines()
    assert false_sentences(steps(scenario, name), lines) == []


@pytest.mark.parametrize("name", MODELS)
def test_each_sentence_of_the_committed_page_is_true(name):
    for scenario, found in SHOWN["recordings"].items():
        lines = SHOWN["programs"][name]["lines"]
        assert false_sentences(found[name], lines) == [], scenario


def test_no_step_of_the_committed_page_needs_more_than_twenty_words():
    said = [
        event["sentence"]
        for recording in SHOWN["recordings"].values()
        for events in recording.values()
        for event in events
    ]
    assert [text for text in said if len(text.split()) > 20] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("client 2 is in clients, too (2 in all)", "client 2 is no longer in clients (1 left)"),
        ("unknown to the program", "known to the program"),
        ("hands all 10 bytes", "hands all 9 bytes"),
        ("finds the accept queue empty", "finds the accept queue full"),
        ("descriptor 6 (client 2)", "descriptor 5 (client 1)"),
        ("The condition is false", "The condition is true"),
        ("The exception is caught here", "This handler is not for it"),
        ("handle() returns True.", "handle() returns False."),
        ("is closed at both ends", "is open"),
        ("its ready list is empty", "its ready list is full"),
        ("The loop is over", "The loop takes the next one"),
    ],
)
def test_a_false_sentence_is_found(old, new):
    found = SHOWN["recordings"]["two"]["03_epoll"]
    lines = SHOWN["programs"]["03_epoll"]["lines"]
    at = next(at for at, one in enumerate(found) if old in one["sentence"])
    wrong = found[at] | {"sentence": found[at]["sentence"].replace(old, new)}
    assert false_sentences([*found[:at], wrong, *found[at + 1 :]], lines)[0][0] == at + 1


def test_the_answer_of_a_scenario_is_what_was_recorded():
    ends = {
        name: {model[:2]: events[-1] for model, events in found.items()}
        for name, found in SHOWN["recordings"].items()
    }
    first = next(one for one in SHOWN["recordings"]["nine"]["03_epoll"] if one["action"] == 1)
    states = [one["client_state"] for one in first["kernel"]["connections"]]
    assert (first["kernel"]["queue"], states.count("SYN-SENT")) == (6, 3)
    assert "Six fill the queue" in SCENARIOS["nine"].answer
    assert "Three stay in SYN-SENT" in SCENARIOS["nine"].answer
    for name, client in (("two", 2), ("reset", 2), ("full", 2)):
        for event in ends[name].values():
            assert event["clients"][client - 1]["received"] == "b'Hello, bob'"
    assert ends["silent"]["01"]["clients"][2]["received"] == "b''"
    for model in ("02", "03"):
        assert ends["silent"][model]["clients"][2]["received"] == "b'Hello, cy'"
    for events in SHOWN["recordings"]["descriptors"].values():
        third = [one for one in events if one["action"] == 3][-1]
        assert row(third, 3)["queued"]


OTHER = '''"""A pool, a generator, a lock and poll(): none of them is in the three models."""
import argparse, queue, select, socket, threading, time

class Visit:
    __slots__ = ("s", "out")

    def __init__(self, s):
        self.s, self.out = s, bytearray()

    def pieces(self):
        select.select([self.s], [], [])
        while got := self.s.recv(1024):
            yield got

    def run(self):
        with mutex:
            seen.append(self)
        for piece in self.pieces():
            self.out += b"Hello, " + piece
            n = self.s.send(self.out)
            del self.out[:n]
        self.s.shutdown(socket.SHUT_WR)
        self.s.close()

def work():
    while True:
        s = jobs.get()
        try:
            Visit(s).run()
        except OSError:
            s.close()

def accept(listener):
    try:
        return listener.accept()[0]
    except KeyError:
        raise
    except BlockingIOError:
        return None

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--backlog", type=int)
options = parser.parse_args()
mutex, seen, jobs = threading.Lock(), [], queue.SimpleQueue()
listener = socket.create_server(("127.0.0.1", options.port), backlog=options.backlog)
listener.setblocking(False)
watch = select.poll()
watch.register(listener, select.POLLIN)
threading.Thread(target=work, daemon=True).start()
print("listening on %s:%d" % listener.getsockname(), flush=True)
while True:
    for fd, mask in watch.poll():
        while s := accept(listener):
            s.setblocking(True)
            jobs.put(s)
'''


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    program = tmp_path_factory.mktemp("other") / "other.py"
    program.write_text(OTHER)
    return record("reset", program)


@pytest.mark.parametrize(
    "words",
    [
        "poll() blocks: no descriptor that it watches is ready.",
        "poll() reports descriptor 3 (the listening socket).",
        "accept() of the program is called with listener = listening socket (descriptor 3).",
        "This handler is not for it: on to line 38.",
        "The exception is caught here: on to line 39.",
        "The thread is blocked in the system call",  # select(): its calls are not recorded
        "SimpleQueue.get() blocks: the queue is empty.",
        "Visit.pieces() starts with self = Visit(connection with client 1 (descriptor 4)).",
        "Visit.pieces() is suspended: it yields b'ann'.",
        "Visit.pieces() goes on where it was suspended.",
        "The block begins: on to line 17.",
        "The block is left: on to line 18.",
        "Now self.out is b'Hello, ann'.",
        "send() hands all 10 bytes to the kernel, for client 1.",
        "recv() raises ConnectionResetError: client 1 has reset the connection.",
        "The line raises ConnectionResetError: [Errno 104] Connection reset by peer.",
        "recv() blocks: client 1 has sent nothing more.",
    ],
)
def test_a_server_in_another_style_is_described_as_it_is(other, words):
    assert words in " ".join(one["sentence"] for one in other)


def test_a_function_of_the_program_is_not_taken_for_a_call_of_the_kernel(other):
    said = " ".join(one["sentence"] for one in other)
    assert "accept() returns" not in said.replace("accept() of the program", "")
    assert "the next bytes" not in said


def test_a_thread_of_a_pool_is_named_after_the_client_that_it_serves_now(other):
    idle = next(one for one in other if one["waits_in"] == ["SimpleQueue.get"])
    serving = next(one for one in other if one["function"] == "Visit.pieces")
    names = [{thread["name"] for thread in one["threads"]} for one in (idle, serving)]
    assert "client 1" not in names[0]
    assert "client 1" in names[1]


# One file is the loop of a server, the other what it calls
LOOP = """import argparse, socket

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--backlog", type=int)

def run(take, after):
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", options.port), backlog=options.backlog)
    print("listening on %s:%d" % listener.getsockname(), flush=True)
    while True:
        take(listener.accept()[0])
        after()
"""
ROOM = '''"""Two threads per client, an object that all share, the waits of queue and threading."""
import functools, loop, os, queue, threading

class Room:
    def __init__(self):
        self.total, self.conns = 0, []

def park(wait):
    wait()

def rest(number):
    pass

def wait_for_news():
    with news:
        news.wait()

def look_at_all(room):
    for conn in room.conns:
        conn.fileno()

def serve(room):
    count = 0

    def read(conn, words, buffer):
        nonlocal count
        name = "reader"
        while size := conn.recv_into(buffer):
            room.total += size
            words.put(bytes(buffer[:size]))
            look_at_all(room)
        words.put(b"")

    def write(conn, words):
        while room.conns and (got := words.get()):
            conn.sendall(b"Hello, " + got)
        os.close(conn.detach())
        words = None

    def take(conn):
        nonlocal count
        room.conns.append(conn)
        words = queue.Queue()
        threading.Thread(target=read, args=(conn, words, bytearray(1024))).start()
        threading.Thread(target=write, args=(conn, words)).start()
        count += 1
        if count == 1:
            for wait in waits:
                threading.Thread(target=park, args=(wait,), daemon=True).start()

    loop.run(take, lambda: rest(count))

news, gate, full = threading.Condition(), threading.Lock(), queue.Queue(1)
gate.acquire()
full.put(1)
waits = [threading.Event().wait, gate.acquire, functools.partial(full.put, 2), wait_for_news]
waits.append(threading.main_thread().join)
serve(Room())
'''


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    program = tmp_path_factory.mktemp("room") / "room.py"
    program.write_text(ROOM)
    program.with_name("loop.py").write_text(LOOP)
    return record("two", program)


def said_in(function, events):
    return [one["sentence"] for one in events if one["function"] == function]


def test_what_another_thread_has_changed_is_not_said_of_a_line(room):
    def of(function):
        return [one for one in room if one["function"] == function]

    assert {"Now room.total is 3.", "Now name is 'reader'."} <= set(said_in("read", room))
    assert any("room.total" in one["changed"] for one in room)
    for event in room:
        if "room.total" in event["changed"] and event["kind"] != "call":
            assert "room.total +=" in ROOM.splitlines()[event["line"] - 1]
    assert "Now got is b''." in said_in("write", room)
    assert not any("count" in one["changed"] for one in of("read") if one["kind"] != "call")


def test_a_thread_that_looks_at_all_connections_serves_its_own(room):
    [name] = {one["name"] for one in room if one["function"] == "look_at_all"}
    assert name == "client 2"


def test_a_variable_that_functions_share_is_what_it_is_without_the_tracer(room):
    assert [text for text in said_in("take", room) if "Now count" in text] == [
        "Now count is 1.",
        "Now count is 2.",
    ]


def test_a_thread_has_ended_and_another_one_of_the_same_client_has_not(room):
    ends = [one["sentence"] for one in room if one["kind"] == "end"]
    for client in (1, 2):
        wanted = [f"{article} thread of client {client} has ended." for article in ("A", "The")]
        assert [text for text in ends if f"client {client}" in text] == wanted


@pytest.mark.parametrize(
    "words",
    [
        "Queue.get() blocks: the queue is empty.",
        "Queue.put() blocks: the queue is full.",
        "The thread is blocked in Event.wait().",
        "The thread is blocked in Condition.wait().",
        "The thread is blocked in Thread.join().",
        "The thread is blocked in lock.acquire().",
        "recv_into() blocks: client 2 has sent nothing more.",
        "recv_into() returns 3: 3 bytes move from the receive buffer to the program.",
        "recv_into() returns 0: client 1 sends no more (end of file).",
        "Another file calls take() with conn = connection with client 2 (descriptor 5).",
        "The server listens: descriptor 3 is its listening socket.",
    ],
)
def test_a_server_of_many_threads_is_described_as_it_is(room, words):
    assert words in " ".join(one["sentence"] for one in room)


def test_a_call_by_a_lambda_that_another_file_calls_is_in_the_line_of_the_lambda(room):
    [lambda_line] = [at for at, text in enumerate(ROOM.splitlines(), 1) if "lambda" in text]
    calls = [one for one in room if one["function"] == "rest" and one["kind"] == "call"]
    assert {one["line"] for one in calls} == {lambda_line}
    assert calls[0]["sentence"].endswith("rest() is called with number = 1.")


def test_a_connection_that_is_closed_is_still_in_a_list(room):
    assert "no longer in" not in " ".join(one["sentence"] for one in room)


def test_a_thread_that_was_waiting_has_not_started(other):
    assert "A new thread has started." not in [one["sentence"] for one in other]


def test_nothing_is_recorded_for_a_line_at_which_nothing_happens():
    before = Snapshot("line", function="main", next_line=2)
    for line, is_shown in (("    pass", False), ("    try:", False), ("    f()", True)):
        event = TraceEvent("line", function="main", line=2, next_line=3)
        assert is_worth_seeing(event, before, ["def f():", line, "    g()"]) == is_shown
    event.changed = {"a": None}
    assert is_worth_seeing(event, before, ["def f():", "    pass", "    g()"])


def test_iterations_that_repeat_are_left_out_and_counted():
    made = {"kind": "line", "thread": 0, "calls": [], "action": 1, "changed": []}
    lines = [1, 2, 3] + [4, 5] * 6 + [9]
    found = bundle.folded([made | {"line": line} for line in lines])
    assert [one["line"] for one in found] == [1, 2, 3, 4, 5, 5, 4, 5, 9]
    assert [one.get("skipped", 0) for one in found] == [0] * 5 + [4] + [0] * 3


def test_each_action_of_each_scenario_is_in_the_recording_of_each_model():
    for name, scenario in SCENARIOS.items():
        assert SHOWN["scenarios"][name] == json.loads(json.dumps(dataclasses.asdict(scenario)))
        for model in MODELS:
            events = SHOWN["recordings"][name][model]
            for number, action in enumerate(scenario.actions, 1):
                first = next(one for one in events if one["action"] == number)
                acts = f"{first['actors'][0]} {first['does']}" if first["actors"] else action
                assert action.startswith(acts) or action == "1 to 9 connect"
                assert (first["kind"] == "time") == (action == "time passes")


def test_the_moving_picture_says_which_clients_are_served_and_is_still_where_it_must():
    for is_dark in (False, True):
        picture = animated_svg.draw(SHOWN, is_dark)
        root = ElementTree.fromstring(picture)
        assert len(picture) < 100_000
        assert not {"script", "image", "foreignObject"} & {one.tag[28:] for one in root.iter()}
        title = root.find("{http://www.w3.org/2000/svg}title").text
        assert "01_blocking: client 2 waits until client 1 leaves." in title
        assert "02_threaded: client 2 is served at once." in title
        assert "03_epoll: client 2 is served at once." in title
        assert "prefers-reduced-motion" in picture
        still = [one for one in root.iter() if "still" in one.get("class", "").split()]
        words = " ".join(text for one in still for text in one.itertext())
        assert words.count("received Hello, bob") == 2
        assert words.count("waits …") == 1


def test_the_committed_pictures_are_drawn_from_the_committed_recording():
    for file, is_dark in animated_svg.FRONT.items():
        assert file.read_text() == animated_svg.draw(SHOWN, is_dark)


# The session


def test_a_thread_goes_as_far_as_it_is_let_and_then_runs():
    with traced(MODELS["01_blocking"], pause=True) as session:
        session.settle()
        [thread] = session.stopped()
        assert thread.snapshot.function == "main"
        while thread.stopped:
            session.step(thread)
            session.settle()
        assert thread.call in ("accept", "accept4")
        session.run()
        with Client(*session.server.address) as client:
            assert client.greet(b"bob") == b"Hello, bob"


def test_the_servers_descriptors_are_what_they_are_without_the_tracer():
    with traced(MODELS["03_epoll"]) as session, Client(*session.server.address) as client:
        client.greet(b"bob")
        process = session.server.process
        held = [int(fd) for fd in os.listdir(f"/proc/{process.pid}/fd")]
        assert sorted(fd for fd in held if fd < FIRST_OWN_FD) == [0, 1, 2, 3, 4, 5]
        assert process.num_fds() - session.tracer_descriptors() == 6


def test_the_tracer_is_connected_before_the_program_begins(tmp_path):
    program = tmp_path / "counts.py"
    program.write_text("import os, socket\nprint(len(os.listdir('/proc/self/fd')) - 4)\n"
                       "print(socket.socket().fileno(), flush=True)\n")  # fmt: skip
    with unix_listener() as (listener, path):
        line = [*processes.module_command(tracer.__name__, path, "run"), program]
        with processes.spawn(line, cwd=processes.ROOT, stdout=subprocess.PIPE) as process:
            with listener.accept()[0]:
                out, _ = process.communicate()
    assert out.split() == [b"1", b"3"]


def test_a_server_ends_with_the_recorder_that_is_killed_in_the_middle_of_a_step():
    code = (
        "import time; from clients.trace.session import traced\n"
        "from clients.system import processes\n"
        "with traced(processes.find_server('03_epoll'), pause=True) as s:\n"
        "    s.settle(); print(s.server.process.pid, flush=True); time.sleep(60)"
    )
    line = [processes.sys.executable, "-c", code]
    with processes.spawn(line, cwd=processes.ROOT, stdout=subprocess.PIPE, text=True) as process:
        server = psutil.Process(int(process.stdout.readline()))
        os.kill(process.pid, signal.SIGKILL)
        process.stdout.close()
        deadline = time.monotonic() + 20
        while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.02)


# The command


FAILING = {
    "nobody": ("nobody", None, "no server nobody"),
    "ill": ("ill.py", "raise SystemExit('I am ill')", "I am ill"),
    "prefork": (
        processes.ROOT / "load_tests" / "alternatives" / "prefork.py",
        None,
        "prefork: starts other processes",
    ),
    "shell": ("server.sh", "echo listening on 127.0.0.1:3267", "is not a Python program"),
}


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Return a function that runs the command in this process; it returns status and errors."""

    def run_with(*words):
        monkeypatch.setattr("sys.argv", ["trace", *map(str, words)])
        monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its own
        return trace_main(), capsys.readouterr().err

    return run_with


@pytest.mark.parametrize(("name", "text", "why"), FAILING.values(), ids=FAILING)
def test_what_cannot_be_recorded_gets_one_line(tmp_path, name, text, why, run_here):
    program = tmp_path / name if text else name
    if text:
        program.write_text(text)
    status, said = run_here(program, "--scenario", "two", "--out", tmp_path / "page.html")
    if "network namespace is needed" in said or "unshare:" in said:
        pytest.skip(said)
    assert status == 2
    assert re.fullmatch(rf"(recording .*\n)?python -m clients.trace: .*{why}.*\n", said)
    assert not (tmp_path / "page.html").exists()


def test_without_unshare_it_says_so(tmp_path, monkeypatch, run_here):
    monkeypatch.setenv("PATH", "/nowhere")
    status, said = run_here("01_blocking", "--out", tmp_path / "page.html")
    assert status == 2
    assert "there is no program unshare" in said.splitlines()[-1]


def test_one_scenario_that_fails_leaves_the_others(tmp_path, run_here):
    program, page = tmp_path / "mine.py", tmp_path / "page.html"
    text = MODELS["01_blocking"].read_text()
    program.write_text(text.replace("conn.recv(1024):", "conn.recv(1024) or sys.exit('gone'):"))
    status, said = run_here(program, "--scenario", "two", "--scenario", "silent", "--out", page)
    if "network namespace is needed" in said or "unshare:" in said:
        skip_without("network namespaces", said)
    assert status == 2
    assert re.search(r"mine: the server ended with exit status 1\. .*gone\n$", said)
    assert list(bundle_of(page.read_text())["recordings"]) == ["silent"]


@pytest.fixture(scope="module")
def own_page(tmp_path_factory):
    """Return the page of one's own server and of another one with its name, and what was printed.

    Nobody reads the summary.
    """
    folder = tmp_path_factory.mktemp("trace")
    own, other = folder / "04_mine", folder / "friend" / "04_mine"
    for one in (own, other):
        one.mkdir(parents=True)
        (one / "server.py").write_text(MODELS["01_blocking"].read_text())
    line = processes.module_command("clients.trace", own, other, "--scenario", "two", "--out")
    options = {"cwd": processes.ROOT, "env": os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"}}
    read, write = os.pipe()
    os.close(read)
    page = folder / "page.html"
    with processes.spawn([*line, page], stdout=write, stderr=subprocess.PIPE, **options) as process:
        os.close(write)
        said = process.stderr.read().decode()
        process.stderr.close()
        status = process.wait()
    if "namespace" in said or "unshare" in said:
        skip_without("network namespaces", said)
    assert status == 0, said
    return own, page, said


def test_a_page_of_ones_own_server_and_of_another_one_with_its_name(own_page):
    own, page, _ = own_page
    shown = bundle_of(page.read_text(encoding="utf-8"))
    mine = f"{own.parent.name}/04_mine"
    assert list(shown["programs"]) == [mine, "friend/04_mine"]
    assert outdated(page.read_text(encoding="utf-8"), {mine: own / "server.py"}) == []
    assert all(events[-1]["action"] == 5 for events in shown["recordings"]["two"].values())


def test_a_page_that_cannot_be_written_stays_as_it_was(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("old")
    (tmp_path / ".page.html.part").mkdir()  # where the new one is written first
    with pytest.raises(OSError, match=f"cannot write {page}"):
        write(page, "new")
    assert page.read_text() == "old"


def test_a_summary_that_nobody_reads_loses_nothing(own_page):
    _, page, said = own_page
    assert said.count("\n") == 1  # that it is recording
    assert list(bundle_of(page.read_text(encoding="utf-8"))["recordings"]) == ["two"]


POWERLESS = """#!/bin/bash
exec {unshare} --user --map-root-user --net \\
    setpriv --bounding-set=-all --inh-caps=-all -- "${{@:4}}"
"""


@pytest.mark.usefixtures("own_page")  # or it is skipped: there is no namespace at all
def test_a_namespace_without_power_gets_one_line(tmp_path, monkeypatch, run_here):
    fake = tmp_path / "unshare"  # as on Ubuntu 24.04, where AppArmor takes the capabilities
    fake.write_text(POWERLESS.format(unshare=shutil.which("unshare")))
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    page = tmp_path / "page.html"
    status, said = run_here("01_blocking", "--scenario", "two", "--out", page)
    assert status == 2
    last = said.splitlines()[-1]
    assert last.startswith("python -m clients.trace: a network namespace is needed that can be")


def test_out_of_descriptors_the_queue_is_what_accept_has_left():
    shown = SHOWN["recordings"]["descriptors"]["03_epoll"]
    wanted = (
        "accept() fails: Too many open files. It takes a descriptor before it looks at the queue"
    )
    event = next(one for one in shown if one["sentence"].startswith(wanted))
    full = event | {"kernel": event["kernel"] | {"queue": 1}}  # an accept() before it took that one
    assert sentence(event, full, []).startswith(wanted)
    assert "it stays in the queue" in sentence(full, event, [])


def test_a_reset_drops_bytes_only_if_there_are_some():
    found = SHOWN["recordings"]["reset"]["01_blocking"]
    at = next(at for at, one in enumerate(found) if one["does"] == "resets")
    said = "Client 1 resets its connection: its kernel sends RST{}."
    assert sentence(found[at], found[at - 1], []) == said.format("")
    for which in (0, 3):  # its send buffer, its receive buffer
        before = copy.deepcopy(found[at - 1])
        row(before, 1)["buffers"][which] = 3
        dropped = said.format(", and drops the bytes in its buffers")
        assert sentence(found[at], before, []) == dropped


def test_a_poll_that_reports_nothing_says_so_of_what_it_watches():
    shown = SHOWN["recordings"]["two"]["03_epoll"]
    event, before = next((now, was) for was, now in itertools.pairwise(shown)
                         if now["sentence"].startswith("epoll.poll() reports"))  # fmt: skip
    calls = [call | {"events": []} for call in event["calls"][-1:]]
    said = sentence(event | {"calls": calls}, before, SHOWN["programs"]["03_epoll"]["lines"])
    assert "epoll.poll() reports nothing: no descriptor that it watches is ready." in said


def test_a_value_is_described_as_what_it_is():
    async def talk():
        await asyncio.sleep(0)

    task = talk()
    assert values.describe(task) == "coroutine talk()"
    task.close()
    assert values.describe(("read", 3)) == "('read', 3)"
    assert values.describe(("127.0.0.1", 3)) == "127.0.0.1:3"
    for one in (socket.socketpair()[0], socket.create_server(("127.0.0.1", 0))):
        kind = "socket" if one.family == socket.AF_UNIX else "listening socket"
        assert values.describe(one) == f"{kind} (descriptor {one.fileno()})"
        one.close()
