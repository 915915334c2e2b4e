"""The comparison, end to end: what it measures, and what it does when things go wrong."""

import gzip
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from math import ceil
from pathlib import Path

import pytest
from PIL import Image

from clients.system.processes import models
from conftest import cli
from load_tests import compare
from load_tests.harness import results
from load_tests.harness.results import OUTCOMES
from load_tests.tests.made import read

pytestmark = pytest.mark.slow

LISTEN = """
import argparse, os, socket, sys, threading
parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
listener = socket.create_server(("127.0.0.1", parser.parse_known_args()[0].port))
print("listening on 127.0.0.1:%d" % listener.getsockname()[1], flush=True)
count = 0
def handle(conn):
    global count
    while chunk := conn.recv(1024):
        conn.sendall({answer} + chunk)
        count += 1
        if count == {last}:
            print("I am so tired", file=sys.stderr, flush=True)
            os._exit(3)
while True:
    threading.Thread(target=handle, args=listener.accept()[:1], daemon=True).start()
"""

COUNTED = """
import os, pathlib, resource, runpy
leave = os._exit
def count(status):
    used = resource.getrusage(resource.RUSAGE_SELF)
    [line] = [one for one in open("/proc/self/status") if one.startswith("VmHWM")]
    numbers = used.ru_utime + used.ru_stime, line.split()[1], used.ru_nvcsw + used.ru_nivcsw
    pathlib.Path(__file__).with_suffix(".txt").write_text("%f %s %d" % numbers)
    leave(status)
os._exit = count
runpy.run_path("{program}", run_name="__main__")
"""
SOMAXCONN = Path("/proc/sys/net/core/somaxconn")


POOR = os.environ | {
    "PYTHONIOENCODING": "ascii",
    "COLUMNS": "10",
}  # a terminal without letters and room


def start(*options, out, pictures=False, **more):
    no_pictures = [] if pictures else ["--no-pictures"]
    return cli("load_tests.compare", "--out", out, *options, *no_pictures, **more)


def runs_of(out):
    """Return the runs {(model, load): Run} of a comparison."""
    return {(run.model, run.load): run for run in read(out / "results.json").runs}


def frame_of(out):
    import pandas  # not at the top: one worker runs all that needs it

    frame = pandas.read_csv(out / "samples.csv.gz", dtype={"session": str})
    return frame.assign(ms=1000 * (frame.ended - frame.began))


SECONDS = 1.2
IMPATIENT = ["01_blocking", "03_epoll", "--arrivals", 40, "--seconds", 2, "--repeat", 2]
IMPATIENT += ["--timeout", 0.4, "--retries", 1]
one_comparison = pytest.mark.xdist_group("one_comparison")  # serves all tests that ask for it


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """One quick comparison of all models; most tests look at what it made."""
    out = tmp_path_factory.mktemp("compared")
    done = start("--users", "2,12", "--seconds", SECONDS, out=out, pictures=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


@pytest.fixture(scope="session")
def impatient(tmp_path_factory):
    """Visitors that give up, in an open loop; 03_epoll greets all of them."""
    out = tmp_path_factory.mktemp("impatient")
    done = start(*IMPATIENT, out=out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


@pytest.fixture(scope="session")
def bad(tmp_path_factory):
    """Servers with faults, and one that itself counts what it uses."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "ill.py").write_text("raise SystemExit('I am ill')")
    for name, answer, last in (("wrong", "Hallo, ", 0), ("crash", "Hello, ", 10)):
        text = LISTEN.replace("{answer}", f'b"{answer}"').replace("{last}", str(last))
        (folder / f"{name}.py").write_text(text)
    (folder / "counted.py").write_text(COUNTED.replace("{program}", str(models()["03_epoll"])))
    programs = [folder / f"{name}.py" for name in ("wrong", "crash", "ill", "counted")]
    return folder / "out", start(*programs, "--users", 3, "--seconds", 2, out=folder / "out")


@one_comparison
def test_all_models_are_measured_with_all_loads(compared):
    out, text = compared
    assert set(runs_of(out)) == {(name, load) for name in models() for load in (2, 12)}
    for name in models():
        assert text.count(name) >= 2
    assert "Closed loop: a user sends nothing while it waits" in " ".join(text.split())


@one_comparison
def test_blocking_starves_all_but_one_and_the_others_none(compared):
    runs = runs_of(compared[0])
    assert runs["01_blocking", 12].outcomes.unserved >= 8
    assert max(one.in_service for one in runs["01_blocking", 12].moments) == 1
    assert runs["01_blocking", 12].latency["first_greeting"].p90.exact is False
    for name in ("02_threaded", "03_epoll"):
        assert max(one.in_service for one in runs[name, 12].moments) > 1
        outcomes = runs[name, 12].outcomes
        assert outcomes.failed == outcomes.unserved_established == 0
        # On a busy machine the accept queue may be full: the SYN comes again after this run.
        assert outcomes.unserved_syn_sent == 0 or runs[name, 12].usage.listen_drops


@one_comparison
def test_the_server_was_watched(compared):
    runs = runs_of(compared[0])
    assert runs["01_blocking", 12].usage.threads_peak == 1
    assert runs["02_threaded", 12].usage.threads_peak > 2
    assert runs["03_epoll", 12].usage.threads_peak == 1
    for run in runs.values():
        assert run.usage.cpu_us_per_greeting > 0
        assert run.usage.rss_peak > 2**20
        assert run.generator.cpu_share > 0
        first, last = run.usage.readings[0].at, run.usage.readings[-1].at
        assert first < 0.1 < SECONDS - 0.1 < last < 60  # seconds since the start of the load


# What the samples cannot give: measured meanwhile, and compared here with a second source.
OTHER_SOURCES = {
    r"usage\.readings\..*": "the server from outside: test_the_server_itself_counted_the_same",
    r"usage\.cpu_incomplete": "test_failures.py: a server that loses the time of its children",
    r"errors\..*": "the reasons of failures, whose number the samples give: see the test",
    r"generator\.(cpu_share|lag_ms_p99)": "test_a_full_generator_says_so_and_leaves_no_visitor_out",
}
LOCUST_ROWS = {
    "connect": "1 connect",
    "first_greeting": "2 first greeting, from the start of connect",
    "later_greeting": "3 later greetings",
    "session": "4 whole session",
}
GREETED = ["first_greeting", "later_greeting"]


def flat(data, path=""):
    """Return {"path.to.a.number": number} of nested dicts and lists."""
    if not isinstance(data, dict | list):
        return {path[1:]: data}
    items = data.items() if isinstance(data, dict) else enumerate(data)
    return {key: one for name, its in items for key, one in flat(its, f"{path}.{name}").items()}


def percentile_of(rows, share):
    """Return a percentile by the least and the most that the censored rows allow."""
    rows = rows[rows.outcome != "failed"]
    if len(rows) < {90: 10, 99: 100}.get(share, 1):
        return None
    rank = ceil(len(rows) * share / 100) - 1
    least = rows.ms.sort_values().iloc[rank]
    most = rows.ms.where(rows.outcome == "answered", float("inf")).sort_values().iloc[rank]
    exact = bool(most < float("inf") and most - least <= 0.01 * most)
    return {"ms": most if exact else least, "exact": exact}


def latency_of(rows):
    answered, failed = ((rows.outcome == one).sum() for one in ("answered", "failed"))
    counts = {"asked": len(rows), "answered": answered, "failed": failed}
    shares = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    percentiles = {name: percentile_of(rows, share) for name, share in shares.items()}
    return counts | {"unanswered": len(rows) - answered - failed} | percentiles


def outcomes_of(rows):
    """Return the outcome of each visitor."""
    last = rows.drop_duplicates(["session", "request"], keep="last")
    last = last.pivot(index="session", columns="request", values="outcome").fillna("none")
    failed = rows.session[rows.outcome == "failed"].unique()
    brief = rows.session[(rows.request == "session") & (rows.ms < 500)].unique()
    ends = {"answered": "finished", "timed_out": "gave_up", "not_started": "not_started"}

    def outcome(one):
        if one.name in failed:
            return "failed"
        if one.session in ends:
            return ends[one.session]
        if one.first_greeting == "answered":
            return "in_session"
        if one.name in brief:
            return "too_late"
        return "unserved_established" if one.connect == "answered" else "unserved_syn_sent"

    return list(last.apply(outcome, axis=1))


def moments_of(rows, count):
    """Return the moments of a run that is divided into this many."""
    every = float(rows.ended.max()) / count
    rows = rows.assign(place=(rows.ended // every).clip(upper=count - 1))
    greeted = rows[rows.request.isin(GREETED) & (rows.outcome == "answered")].groupby("place").ms
    bad = rows[rows.outcome.isin(["failed", "timed_out"]) & (rows.request != "session")]
    first = rows[(rows.request == "first_greeting") & (rows.outcome == "answered")]
    first, ends = (
        one.set_index("session").ended for one in (first, rows[rows.request == "session"])
    )
    ends = ends[first.index]
    return [
        {
            "at": round(number * every, 6),
            "in_service": ((first <= number * every) & (ends > number * every)).sum(),
            "greetings": greeted.count().get(number, 0),
            "failures": (bad.place == number).sum(),
            "p50_ms": greeted.quantile(interpolation="lower").get(number),
        }
        for number in range(count)
    ]


def distribution_of(rows):
    """Return at most 200 steps of the distribution of the first greetings."""
    rows = rows[(rows.request == "first_greeting") & (rows.outcome != "failed")]
    steps = rows[rows.outcome == "answered"].ms.sort_values(ignore_index=True).to_frame()
    steps["share"] = (steps.index + 1) / len(rows)
    count = min(len(steps), 200)
    return [
        steps.iloc[round(n * (len(steps) - 1) / max(1, count - 1))].tolist() for n in range(count)
    ]


def usage_of(readings, greetings, seconds, backlog):
    """Return what a server used, from a DataFrame of its readings."""
    first, last, most = readings.iloc[0], readings.iloc[-1], readings.max(numeric_only=True)
    connections = most.descriptors - first.descriptors
    per_connection = max(most.rss - first.rss, 0) / connections if connections >= 10 else None
    cpu = last.cpu - first.cpu
    return {
        "cpu_us_per_greeting": cpu * 1e6 / greetings if greetings else None,
        "cpu_share": cpu / seconds,
        "rss_peak": most.rss,
        "rss_per_connection": per_connection,
        "connections_peak": connections,
        "threads_peak": most.threads,
        "accept_queue_peak": most.accept_queue,
        "accept_queue_limit": min(backlog, int(SOMAXCONN.read_text())) + 1,
        "syn_sent_peak": max(one.get("SYN-SENT", 0) for one in readings.clients),
        "listen_drops": last.listen_drops - first.listen_drops,
    }


def locust_of(rows):
    """Return what Locust's own table must have counted when the load ended."""
    rows = rows[rows.outcome.isin(["answered", "failed", "timed_out"])]
    rows = rows[(rows.request != "session") | (rows.outcome != "timed_out")]
    tables = {name: rows[rows.request == request] for request, name in LOCUST_ROWS.items()}
    tables["Aggregated"] = rows[~rows.request.isin(["session", "abandoned_greeting"])]
    return {
        name: {
            "requests": len(its),
            "failures": (its.outcome != "answered").sum(),
            # It rounds to hundredths of a millisecond, and from 100 ms on to whole ones.
            "median_ms": pytest.approx(its.ms.quantile(interpolation="higher"), rel=5e-3, abs=6e-3),
        }
        for name, its in tables.items()
        if len(its)
    }


def numbers_of(rows, run, config):
    """Return all numbers of a run but OTHER_SOURCES, from its samples and the server's readings."""
    from pandas import DataFrame

    seconds = rows.ended.max() - rows.began.min()
    latency = {name: latency_of(rows[rows.request == name]) for name in results.REQUESTS}
    greetings, abandoned = (
        sum(latency[name]["answered"] for name in names)
        for names in (GREETED, ["abandoned_greeting"])
    )
    outcomes = outcomes_of(rows)
    moments = moments_of(rows, len(run.moments))
    return {
        "load": rows.load.iloc[0],
        "repeat": rows.repeat.iloc[0],
        "seconds": seconds,
        "outcomes": {name: outcomes.count(name) for name in OUTCOMES},
        "latency": latency,
        "greetings": greetings,
        "abandoned": abandoned,
        "goodput": greetings / seconds,
        "throughput": (greetings + abandoned) / seconds,
        "in_service_mean": sum(one["in_service"] for one in moments) / len(moments),
        "moments": moments,
        "distribution": distribution_of(rows),
        "usage": usage_of(DataFrame(run.usage.readings), greetings, seconds, config.backlog),
        "locust_counted": locust_of(rows),
    }


@one_comparison
@pytest.mark.parametrize("which", ["compared", "impatient", "bad"])
def test_every_number_follows_from_the_samples(which, request):
    """The test fails if there is a new number that it does not know."""
    out, _ = request.getfixturevalue(which)
    frame, found = frame_of(out), read(out / "results.json")
    for run in found.runs:
        key = (frame.model == run.model) & (frame.load == run.load) & (frame.repeat == run.repeat)
        rows, reasons = frame[key], Counter()
        numbers = {name: one for name, one in flat(asdict(run)).items() if not isinstance(one, str)}
        expected = flat(numbers_of(rows, run, found.config))
        other = {name for name in numbers if re.fullmatch("|".join(OTHER_SOURCES), name)}
        assert numbers.keys() - other == expected.keys()
        assert {name: numbers[name] for name in expected} == pytest.approx(expected, rel=1e-9)
        for reason, count in run.errors.items():
            reasons[reason.split(":")[0]] += count
        for request, name in LOCUST_ROWS.items():  # what failed while Locust stopped the users too
            failed = ((rows.request == request) & (rows.outcome == "failed")).sum()
            assert failed <= reasons[name] <= failed + run.load or request == "session"
        seen, few = run.generator, found.machine.cores < 2
        late = seen.cpu_share > 0.8 or seen.lag_ms_p99 > 50 or run.outcomes.not_started > 0
        assert bool(seen.limited) == late or few


@one_comparison
def test_the_other_numbers_are_those_of_the_command_line_and_the_machine(impatient):
    found = read(impatient[0] / "results.json")
    assert found.config == compare.options([*map(str, IMPATIENT)]).config
    numbers = {name for name, one in flat(asdict(found)).items() if not isinstance(one, str)}
    rest = {name for name in numbers if not re.match(r"runs|config", name)}
    assert rest == {"schema", "interrupted", "machine.cores"}
    assert 0 < found.machine.cores <= len(os.sched_getaffinity(0))


@one_comparison
def test_the_server_itself_counted_the_same(bad):
    out, _ = bad
    cpu, memory, switches = map(float, (out.parent / "counted.txt").read_text().split())
    usage = runs_of(out)["counted", 3].usage
    last = usage.readings[-1]
    assert 0 <= cpu - last.cpu < 0.1  # it goes on until it has written its numbers
    assert 0 <= switches - last.switches < 100
    assert usage.rss_peak == pytest.approx(memory * 1024, rel=0.05)


@one_comparison
def test_samples_have_microseconds(compared):
    frame = frame_of(compared[0])
    assert tuple(frame.columns[:-1]) == results.COLUMNS
    assert any(round(1e6 * one) % 10 for one in frame.ended)
    assert (frame.began <= frame.ended).all()
    assert frame.began.min() >= 0  # seconds since the start of the load


@one_comparison
def test_a_picture_and_a_page_that_needs_nothing_else(compared):
    out, _ = compared
    light, dark = (Image.open(out / f"comparison{name}.png") for name in ("", "-dark"))
    assert light.size == dark.size
    assert light.getpixel((0, 0))[:3] == (255, 255, 255)
    assert sum(dark.getpixel((0, 0))[:3]) < 0.1 * 3 * 255
    page = (out / "report.html").read_text()
    assert not re.search(r"(src|href)=['\"]?https?://", page)
    for link in re.findall(r"href='([^']+)'", page):
        assert (out / link).is_file()
    assert page.count("data:image/png") >= 6
    assert "Closed loop" in page


@one_comparison
def test_each_server_gets_the_same_arrivals_and_each_repeat_its_own(impatient):
    frame = frame_of(impatient[0])
    first = frame[(frame.request == "session")]
    first = first[first.began < 2]  # a longer run has some more
    due = {key: sorted(rows.began) for key, rows in first.groupby(["model", "repeat"])}
    for repeat in (0, 1):
        mine, other = (due[name, repeat] for name in ("01_blocking", "03_epoll"))
        assert min(len(mine), len(other)) > 30
        assert all(abs(a - b) < 2e-6 for a, b in zip(mine, other, strict=True))
    assert due["03_epoll", 0][:5] != due["03_epoll", 1][:5]
    # Poisson: 80 in 2 s; 40 more or less is more than four standard deviations.
    assert len(due["03_epoll", 0]) == pytest.approx(80, abs=40)


@one_comparison
def test_visitors_that_give_up_cost_a_server_work(impatient):
    out, text = impatient
    blocking, epoll = (
        next(run for run in read(out / "results.json").runs if run.model == name)
        for name in ("01_blocking", "03_epoll")
    )
    assert blocking.outcomes.gave_up > 10
    assert blocking.abandoned > 0
    assert blocking.throughput > blocking.goodput
    assert epoll.throughput == epoll.goodput
    assert epoll.outcomes.gave_up == epoll.outcomes.unserved == 0
    said = " ".join(text.split())
    assert "Open loop: visitors arrive whether or not the server keeps up" in said
    assert "--timeout 0.4" in said
    assert "goodput" in said
    assert re.search(r"\d+-\d+", text.split("03_epoll")[-1])  # quartiles


SMALL = """
import os, pathlib, time
import gevent
import load_tests.locustfile as file
from load_tests.locustfile import *
file.MOST_AT_ONCE = 50

def stall():
    until = time.monotonic() + 0.15
    while time.monotonic() < until:
        pass

@events.test_start.add_listener
def begin(**_):
    global began, before
    gevent.spawn_later(0.2, stall)
    began, before = time.monotonic(), sum(os.times()[:2])

@events.test_stopping.add_listener
def stopping(**_):
    share = (sum(os.times()[:2]) - before) / (time.monotonic() - began)
    pathlib.Path(__file__).with_suffix(".txt").write_text(str(share))
"""


def test_a_full_generator_says_so_and_leaves_no_visitor_out(tmp_path):
    options = ["--arrivals", 1000, "--seconds", 0.5, "--wait", 0.05]
    locustfile = tmp_path / "small.py"
    locustfile.write_text(SMALL)
    code = f"import pathlib, runpy, sys; from load_tests.harness import runs; del sys.argv[0];\
             runs.LOCUSTFILE = pathlib.Path({str(locustfile)!r});\
             runpy.run_module('load_tests.compare', run_name='__main__')"
    line = [sys.executable, "-c", code, "x", "03_epoll", "--no-pictures", *map(str, options)]
    line += ["--out", tmp_path]
    done = subprocess.run(line, capture_output=True, text=True, cwd=compare.HERE.parent)
    assert done.returncode == 0, done.stderr
    run = runs_of(tmp_path)["03_epoll", 1000]
    # Poisson: 500 on average, its standard deviation is 22.
    assert 400 < run.outcomes.visitors < 600 + 1000 * (run.seconds - 0.5)
    assert run.outcomes.not_started > 250
    assert "could not start" in run.generator.limited
    assert "generator-limited: the load generator" in " ".join(done.stdout.split())
    assert re.search(r"03_epoll .*\*", done.stdout)
    assert run.latency["first_greeting"].asked == run.outcomes.visitors
    # The load generator itself counted the same CPU time, and it stalled for 150 ms.
    share = float(locustfile.with_suffix(".txt").read_text())
    assert run.generator.cpu_share == pytest.approx(share, abs=0.2)
    assert run.generator.lag_ms_p99 >= 95


def test_load_without_think_time_and_a_slow_client_that_is_no_visitor(tmp_path):
    options = ["--users", 5, "--seconds", 0.5, "--slow-requests", 1, "--compute", 0.05]
    done = start("02_threaded", *options, "--load", "no-think-time", out=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    run = runs_of(tmp_path)["02_threaded", 5]
    assert run.outcomes.in_session == run.outcomes.visitors == 5
    assert run.latency["session"].asked == run.outcomes.visitors
    assert run.greetings > 100
    assert run.latency["slow_request"].answered > 0
    assert run.latency["slow_request"].p50.ms >= 50


NAMESAKES = "01_blocking", "friend/01_blocking"


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Two Locust processes share the visitors of an open loop.

    01_blocking is compared with a friend's server of that name, which has an event loop, on a
    terminal without "≥".
    """
    folder = tmp_path_factory.mktemp("shared")
    friend = folder / "friend" / "01_blocking" / "server.py"
    friend.parent.mkdir(parents=True)
    friend.write_text(models()["03_epoll"].read_text())
    options = ["--arrivals", 20, "--seconds", 1, "--processes", 2]
    done = start("01_blocking", friend.parent, *options, out=folder / "out", env=POOR)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out", done.stdout


@one_comparison
def test_two_servers_of_one_name_have_different_names(shared):
    out, text = shared
    runs = read(out / "results.json").runs
    assert [run.model for run in runs] == [*NAMESAKES]
    programs = models()["01_blocking"], out.parent / "friend" / "01_blocking" / "server.py"
    assert [run.program for run in runs] == [*map(str, programs)]
    assert re.search(r"^[ |]*friend/01_blocking ", text, re.MULTILINE)
    pages = {run.locust_report for run in runs}
    assert len(pages) == 2
    assert all((out / page).is_file() for page in pages)
    with gzip.open(out / "samples.csv.gz", "rt") as file:
        assert {line.split(",")[0] for line in file} == {"model", *NAMESAKES}


@one_comparison
def test_a_terminal_without_letters_and_without_room(shared):
    options = "--connections", 1, "--rounds", 1, "--seconds", 0.1
    done = cli("load_tests.bench", "01_blocking", *options, env=POOR)
    assert done.returncode == 0, done.stderr
    for text in (shared[1], done.stdout):
        assert re.search(r"01_\w+ +\|? *[0-9]", text)  # and not "01_…"
    assert ">= " in shared[1]


@one_comparison
def test_two_workers_lose_no_visitor(shared):
    out, _ = shared
    frame = frame_of(out)
    for (name, _), run in runs_of(out).items():
        sessions = frame[(frame.model == name) & (frame.request == "session")].session
        assert sessions.str.split("/").str[0].nunique() == 2
        assert run.outcomes.visitors == sessions.nunique() >= 6
        assert run.latency["session"].asked == run.outcomes.visitors


@one_comparison
def test_two_workers_give_each_server_the_same_arrivals(shared):
    frame = frame_of(shared[0])
    # Each worker's load is as long.
    frame = frame[(frame.request == "session") & (frame.began < 1)]
    frame = frame.assign(worker=frame.session.str.split("/").str[0])
    due = {name: [] for name in NAMESAKES}
    for (name, _), rows in frame.groupby(["model", "worker"]):
        due[name].append(sorted(rows.began))
    for mine, other in zip(*map(sorted, due.values()), strict=True):  # one pair for each worker
        assert len(mine) > 1
        assert mine == pytest.approx(other, abs=2e-6)
    assert len(due["01_blocking"]) == 2


@one_comparison
def test_bad_servers_are_reported_and_the_others_still_run(bad):
    out, done = bad
    assert done.returncode == 1
    runs = runs_of(out)
    text = " ".join(done.stdout.split())
    assert "Hallo" in text
    assert runs["wrong", 3].outcomes.failed > 0
    assert runs["wrong", 3].outcomes.finished == runs["wrong", 3].greetings == 0
    failed = {run.model: run.error for run in read(out / "results.json").failed_runs}
    assert "status 3" in failed["crash"]
    assert "I am so tired" in failed["crash"]
    assert "I am ill" in failed["ill"]
    assert runs["counted", 3].outcomes.finished > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["no_such_server"], "no server no_such_server"),
        (["--users", "0"], "whole numbers from 1 to 20000"),
        (["--users", "many"], "whole numbers from 1 to 20000"),
        (["--seconds", "0.1"], "a number from 0.5"),
        (["--arrivals", "5", "--load", "no-think-time"], "leave out --load"),
        (["--slow-requests", "1"], "--slow-requests needs --compute or --wait"),
        (["--retries", "1"], "--retries needs --timeout"),
        (["--users", "2", "--processes", "3"], "--processes"),
    ],
)
def test_bad_options(options, words, capsys):
    with pytest.raises(SystemExit) as end:
        compare.options(options)
    assert end.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_too_few_descriptors(tmp_path):
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256));"
    code = f"{limit} del sys.argv[0]; runpy.run_module('load_tests.compare', run_name='__main__')"
    line = [sys.executable, "-c", code, "x", "03_epoll", "--users", "1000", "--out", tmp_path]
    done = subprocess.run(line, capture_output=True, text=True, cwd=compare.HERE.parent)
    assert done.returncode == 1
    assert "ulimit" in done.stderr
    args = compare.options(["--arrivals", "2000"])
    assert compare.descriptors(args.config, args.loads) >= 2000
