"""What notebooks 1 and 3 to 5 rest on: their measurements are right, and their statements hold."""

import contextlib
import itertools
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from lab import epoll, helpers, models

from clients.crowd.simulation import ClientRecord, Event
from clients.system import processes, procfs

# What draws, and what loads pandas, is imported by the one worker that runs these tests.
pytestmark = pytest.mark.xdist_group("labs")

EVENTS = {  # what happens: the event, what recv() returns
    "the client sends bob": ("EPOLLIN", "b'bob'"),
    "the client closes its sending half": ("EPOLLIN EPOLLRDHUP", "b''"),
    "the client closes": ("EPOLLIN EPOLLRDHUP", "b''"),
    "the client sends bob and closes": ("EPOLLIN EPOLLRDHUP", "b'bob'"),
    "the client resets": ("EPOLLIN EPOLLRDHUP EPOLLERR EPOLLHUP", "ConnectionResetError"),
    "both sides close their sending halves": ("EPOLLIN EPOLLRDHUP EPOLLHUP", "b''"),
}


@pytest.fixture(autouse=True)
def end():
    yield
    helpers.end()


@pytest.fixture(scope="session")
def figures():
    from lab import figures

    return figures


@pytest.fixture(scope="session")
def gil():
    from lab import gil

    return gil


@pytest.fixture(scope="session")
def load():
    from lab import load

    return load


def test_a_close_is_a_readable_end_of_file_and_no_hang_up():
    assert {what: (event, received) for what, event, received in epoll.table()} == EVENTS


def test_a_full_send_buffer_gives_no_event_until_the_client_reads():
    pair = epoll.Watched(epoll.select.EPOLLOUT)
    assert pair.event() == "EPOLLOUT"
    size = epoll.fill(pair)
    assert pair.event(0.1) == "nothing"
    assert len(pair.client.recv(size, socket.MSG_WAITALL)) == size
    assert pair.event() == "EPOLLOUT"


@pytest.mark.parametrize(("flag", "again"), [(0, "EPOLLIN"), (epoll.select.EPOLLET, "nothing")])
def test_only_level_triggered_events_are_reported_again(flag, again):
    pair = epoll.Watched(epoll.select.EPOLLIN | flag)
    pair.client.send(b"bobann")
    assert (pair.event(), pair.received(3), pair.event(0.1)) == ("EPOLLIN", "b'bob'", again)


def test_the_interest_list_is_read_from_the_kernel():
    pair = epoll.Watched(epoll.select.EPOLLIN)
    assert epoll.interest(pair.conn) == "EPOLLIN"
    pair.epoll.modify(pair.conn, epoll.select.EPOLLIN | epoll.select.EPOLLOUT)
    assert epoll.interest(pair.conn) == "EPOLLIN EPOLLOUT"
    pair.epoll.modify(pair.conn, 0)
    assert epoll.interest(pair.conn) == "nothing"
    assert epoll.interest(pair.client) == "nothing"


def test_a_few_replies_fill_small_buffers_and_the_client_can_empty_them():
    here, there = helpers.connection(small=True)
    there.setblocking(False)
    taken = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            taken += there.send(bytes(1031))
    assert 1031 < taken < 20 * 1031
    here.settimeout(10)
    while taken:
        taken -= len(here.recv(taken))
    assert there.send(bytes(1031)) == 1031
    helpers.end()


def test_select_cannot_watch_a_descriptor_above_1023():
    if processes.raise_nofile_limit() < 1200:
        pytest.skip("this machine allows fewer than 1,200 descriptors")
    assert epoll.wake_up("poll", 1100, times=1) > 0
    assert epoll.wake_up("epoll", 1100, times=1) > 0
    with pytest.raises(ValueError, match="out of range"):
        epoll.wake_up("select", 1100, times=1)


def test_a_blocking_server_makes_a_staircase_of_a_crowd():
    data = models.watched_crowd("01_blocking", clients=3, every=0.1, greetings=2, think=2)
    firsts = [
        next(at for at, what in client.events if what == "answered") for client in data.clients
    ]
    lasts = [client.events[-1].at for client in data.clients]
    assert firsts[0] < lasts[0] <= firsts[1] < lasts[1] <= firsts[2]
    assert max(one.accept_queue for one in data.readings) == 2
    assert {one.threads for one in data.readings} == {1}


def test_threads_are_as_many_as_the_clients_that_are_served():
    data = models.watched_crowd("02_threaded", clients=3, every=0.1, greetings=2, think=2)
    assert max(one.threads for one in data.readings) == 4
    # Where the machine is busy a client can be seen in the queue for a moment.
    assert sum(one.accept_queue > 0 for one in data.readings) < len(data.readings) / 2


def test_a_crowd_can_use_a_server_with_options():
    data = models.watched_crowd("03_epoll", "--wait", "0.3", clients=2, every=0, greetings=1)
    assert data.seconds >= 2 * 0.3


def test_each_thread_is_found_on_its_line(load):
    lines = models.annotated_lines("02_threaded", models.threads_of("02_threaded", clients=2))
    assert "listener.accept()\n        <- main " in lines
    assert lines.count("blocked in recvfrom") == 2
    assert models.summary(models.threads_of("03_epoll", 2)) == "1 thread: 1 in epoll_wait"
    name = load.alternative("socketserver_threads")  # it has a selector of poll()
    assert models.summary(models.threads_of(name, 1)).startswith("2 threads")


def test_what_connections_cost_is_counted_for_those_that_were_greeted(load):
    found = load.costs("02_threaded", [0, 20])
    more = found.loc[20] - found.loc[0]
    assert (more.threads, more.descriptors) == (20, 20)
    assert more["resident memory"] > 0
    assert more["virtual memory"] > 0
    assert more.cpu > 0


def measured(**fields):
    """Return a Measured server. fields: one with its values in all rounds."""
    from load_tests.bench import Measured  # not at the top: rich and psutil come with it

    [(what, values)] = fields.items()
    return Measured(10, "server", 0, rounds=[SimpleNamespace(**{what: value}) for value in values])


def test_a_ratio_is_of_rounds_side_by_side(load):
    assert load.ratio(measured(cpu=[2, 6, 9]), measured(cpu=[1, 2, 3]), "cpu") == (
        "3.00 (2.50 to 3.00)"
    )


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ([0.9, 1.0, 1.1], "within 15 %"),
        ([0.5, 1.0, 2.7], "unclear"),
        ([1.3, 1.4, 1.5], "unclear"),
        ([1.3] * 7, "unclear"),
        ([1.3] * 8, "longer"),
        ([0.5] * 8, "shorter"),
        ([2.0] * 8 + [0.5] * 3, "unclear"),
        ([1.3] * 12 + [0.7] * 3, "unclear"),
        ([1.3] * 13 + [0.7] * 2, "longer"),
        ([0.7] * 13 + [1.3] * 2, "shorter"),
        ([1.3] * 8 + [1.0] * 3, "longer"),
    ],
)
def test_a_change_is_what_chance_hardly_makes(load, times, words):
    one, other = measured(p99=times), measured(p99=[1] * len(times))
    assert load.verdict(one, other, "p99") == words


def test_a_tool_that_counts_answers_reports_no_failure_where_visitors_are_unserved(load):
    found, frame = load.compare_with_samples("01_blocking", users=[8], seconds=1)
    [run] = found.runs
    assert run.outcomes.unserved >= 4
    assert run.locust_counted["Aggregated"].requests > 0
    assert {row.failures for row in run.locust_counted.values()} == {0}
    assert (frame.request == "first_greeting").sum() == run.outcomes.visitors


def test_a_closed_loop_hardly_asks_while_the_server_stalls(load):
    found = load.stalled(seconds=2, begins=0.3, lasts=0.35, users=2)
    during = {
        loop: [one for one in greetings if found.began < one.began < found.ended]
        for loop, greetings in found.greetings.items()
    }
    assert len(during["closed loop"]) <= 2
    assert len(during["open loop"]) >= 6
    assert min(one.ended for one in during["open loop"]) > found.ended


def test_a_load_test_that_fails_says_why(load):
    with pytest.raises(RuntimeError, match="no server 99_none"):
        load.compare("99_none")


def test_the_source_that_is_shown_is_the_file_s(capsys):
    helpers.source("03_epoll", "serve")
    assert capsys.readouterr().out.rstrip("\n") in processes.find_server("03_epoll").read_text()
    helpers.source("03_epoll", "Client")
    assert capsys.readouterr().out.startswith("@dataclass(slots=True)\nclass Client:\n")


def test_a_server_of_a_notebook_ends_with_it():
    server = helpers.start("01_blocking")
    assert server.process.is_running()
    helpers.end()
    assert not server.process.is_running()


def test_the_kernel_s_line_of_a_socket_is_below_the_names_of_its_columns():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        inode = os.fstat(listening.fileno()).st_ino
        head, *lines = Path("/proc/net/tcp").read_text().splitlines()
        [line] = [line for line in lines if line.split()[9] == str(inode)]
    assert line[head.index("inode") :].split()[0] == str(inode)
    assert line[head.index("tx_queue") :].split()[0] == "00000000:00000000"


def test_a_hasty_client_is_answered_in_one_of_two_ways():
    server = helpers.start("01_blocking", "--quiet")
    outcomes = helpers.hasty_client(server, [b"ann", b"bob"], times=5, pause=0.001)
    helpers.end()
    assert outcomes.total() == 5
    assert set(outcomes) <= {"Hello, annbob", "Hello, annHello, bob"}


def watched(events, silent=None, **reading):
    """Return the WatchedCrowd of a second. events: a list per client."""
    clients = [
        ClientRecord(number, number == silent, events=[Event(*one) for one in steps])
        for number, steps in enumerate(events, 1)
    ]
    readings = [SimpleNamespace(**reading)]
    return models.WatchedCrowd(1.0, clients, readings=readings)


def test_a_model_of_a_student_s_own_is_drawn_next_to_the_others(figures):
    steps = [[0.0, "connects"], [0.0, "connected"], [0.1, "answered"], [1, "left"]]
    away = [[0.0, "connects"], [1.0, "cut off"]]
    data = watched([steps, away], silent=1, threads=3, accept_queue=0)
    figure = figures.crowds({"03_epoll": data, "04_mine": data}, "title")
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    words = "at most 3 threads, and 0 in the accept queue"
    assert titles == [f"03_epoll: {words}", f"04_mine: {words}"]
    words = [text.get_text().strip() for ax in figure.axes for text in ax.texts]
    assert sorted(words) == sorted(2 * ["not connected", "cut off", "leaves last"])


def test_a_client_is_dotted_until_its_first_answer_and_shaded_from_then_on(figures):
    steps = [[0.1, "connects"], [0.2, "connected"], [0.6, "answered"], [1, "left"]]
    data = watched([steps], threads=1, accept_queue=1)
    [ax] = figures.crowds({"01_blocking": data}, "title").axes
    assert [*ax.lines[0].get_xdata()] == [0.2, 0.6]
    [bar] = ax.patches
    assert (bar.get_x(), bar.get_x() + bar.get_width()) == (0.6, 1)


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("running\n", "RUNS"),
        ("-1 0x7ffd 0x7f\n", "RUNS"),
        ("202 0x55 0x89 0x0\n", "WAITS"),
        ("230 0x1 0x0 0x7f\n", "BLOCKED"),
    ],
)
def test_the_state_of_a_thread_is_read_from_the_kernel(gil, line, state, monkeypatch):
    monkeypatch.setattr(procfs, "_NAMES", {202: "futex", 230: "clock_nanosleep"})
    assert gil.state(line) == getattr(gil, state)


def test_cpu_bound_threads_run_or_wait_for_the_gil(gil):
    found = gil.gil_timeline(processes.find_server("02_threaded"), seconds=0.1)
    assert len(found) == 3  # main is blocked in accept()
    states = {what for spans in found.values() for what, _, _ in spans}
    assert gil.RUNS in states
    assert states <= {gil.RUNS, gil.WAITS}


def test_the_recorded_free_threaded_run_is_complete(gil, monkeypatch):
    monkeypatch.setattr(gil, "FREE_THREADED", ())  # as if there was none
    data, source = gil.free_threaded()
    assert source == f"recorded {data.when}"
    servers, builds = [*processes.models(), "loop_per_thread"], {one.build for one in data.models}
    assert builds == {"with GIL", "without GIL"}
    found = [(one.server, one.compute, one.build) for one in data.models]
    assert sorted(found) == sorted(itertools.product(servers, (0, 0.005), builds))
    for spans in data.timeline.values():
        assert [what for what, _, _ in spans] == [gil.RUNS]


def test_every_model_is_measured_in_every_build(gil, load, monkeypatch):
    def asks_for(program):
        return "PYTHON_GIL=0" in Path(program).read_text()

    def compare(program, **config):
        asked.append((asks_for(program), config["users"], config["compute"]))
        usage = SimpleNamespace(cpu_us_per_greeting=5.0, rss_peak=2**20)
        return SimpleNamespace(runs=[SimpleNamespace(throughput=1000.0, usage=usage)])

    def bench(*programs, **options):
        asked.append((*map(asks_for, programs), options["load"]))
        rounds = [SimpleNamespace(throughput=rate, cpu=1e-5) for rate in (90, 100, 110)]
        return [SimpleNamespace(rounds=rounds) for _ in programs]

    asked = []
    monkeypatch.setattr(load, "compare", compare)
    monkeypatch.setattr(load, "bench", bench)
    builds = {"ordinary": (sys.executable, None), "without GIL": (sys.executable, 0)}
    found = gil.measure_models(builds)
    servers = [*processes.models(), "loop_per_thread"]
    work = [(False, [20], 0.005), (True, [20], 0.005), (False, True, "visit")]
    assert asked == work * len(servers)
    assert [one.server for one in found] == [name for name in servers for _ in range(4)]
    assert [one.throughput for one in found] == [1000.0, 1000.0, 100, 100] * len(servers)
    assert {one.build for one in found} == set(builds)
