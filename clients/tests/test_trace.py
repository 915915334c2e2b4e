"""A story is recorded as it happens: the program's steps, and the kernel's side of each."""

import os
import re
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
from clients.trace import animated_svg, bundle, tracer
from clients.trace.narration import sentence
from clients.trace.page import data_of, outdated
from clients.trace.scenarios import STORIES
from clients.trace.session import traced

MODELS = {name: processes.models()[name] for name in palette.MODELS}  # a 04 of yours is none


def steps(story, model):
    """Return the steps of a story, or skip the test where no network can be made."""
    try:
        return bundle.play(story, MODELS[model])
    except processes.NamespaceDenied as error:
        pytest.skip(str(error))


def called(found, name):
    """Return the steps in which the program made a call of the kernel."""
    return [step for step in found if name in [call[0] for call in step.get("calls", ())]]


def row(step, client):
    rows = step["kernel"]["connections"]
    return next(one for one in rows if one["client"] == client)


@pytest.mark.parametrize(("story", "name"), [("reset", "02_threaded"), ("descriptors", "03_epoll")])
def test_a_recording_is_the_same_each_time_it_is_made(story, name):
    assert steps(story, name) == steps(story, name)


def test_the_kernel_accepts_before_the_program_does():
    found = steps("two", "01_blocking")
    comes = next(step for step in found if step.get("does") == "connects")
    assert row(comes, 1)["ours"] == "ESTABLISHED"
    assert row(comes, 1)["queued"]
    assert comes["kernel"]["queue"] == 1
    taken = called(found, "accept")[0]
    assert taken["kernel"]["queue"] == 0
    assert row(taken, 1)["fd"] == 4
    assert taken["variables"]["conn"] == "connection with client 1 (descriptor 4)"


def test_the_second_client_of_the_blocking_server_is_served_when_the_first_has_left():
    found = steps("two", "01_blocking")
    left = next(at for at, step in enumerate(found) if step.get("does") == "leaves")
    assert row(found[left - 1], 2)["queued"]
    assert found[left - 1]["kernel"]["connections"][1]["buffers"] == [0, 3, 0, 0]
    assert found[-1]["clients"][1]["heard"] == "b'Hello, bob'"


def test_each_client_of_the_threaded_server_has_a_thread_that_is_named_after_it():
    found = steps("two", "02_threaded")
    names = {thread["name"] for step in found for thread in step["threads"]}
    assert names == {"main", "client 1", "client 2"}
    assert [step["thread"] for step in called(found, "sendall")] == ["client 2"]


def test_out_of_descriptors_the_loop_mutes_its_listener_until_somebody_leaves():
    found = steps("descriptors", "03_epoll")
    comes = next(at for at, step in enumerate(found) if step.get("who") == [3])
    assert row(found[comes], 3)["queued"]
    listener = [step["kernel"]["epoll"][0] for step in found[comes:]]
    assert {one["fd"] for one in listener} == {3}
    assert listener[0] == {"fd": 3, "waits": "", "ready": False}
    assert "IN" in [one["waits"] for one in listener]
    assert found[-1]["clients"][2]["heard"] == "b'Hello, cy'"


def test_a_reply_that_does_not_fit_is_kept_and_finished_when_there_is_room():
    found = steps("full", "03_epoll")
    wants = [{one["fd"]: one["waits"] for one in step["kernel"].get("epoll", ())} for step in found]
    half = next(at for at, want in enumerate(wants) if want.get(5) == "OUT")
    assert found[half]["variables"]["client.unsent"] != "b''"
    assert sum(row(found[half], 1)["buffers"]) > 0
    assert "IN" in [want.get(5) for want in wants[half:]]
    ends = found[-1]["clients"][0]
    assert ends["left"] == "left"
    reads = [step for step in found if step.get("does") == "reads" and step["who"] == [1]]
    floods = [step for step in found if step.get("does") == "floods"]
    assert sum(step["heard"] for step in reads) > sum(step["said"] for step in floods)


def test_what_happened_is_said_in_a_sentence():
    found = steps("two", "03_epoll")
    lines = MODELS["03_epoll"].read_text().splitlines()
    pairs = zip([None, *found], found, strict=False)
    told = [sentence(step, before, lines) for before, step in pairs]
    assert all(told)
    assert any(text.startswith("recv() gives b'bob': 3 bytes") for text in told)
    assert "accept() takes client 1 out of the accept queue and gives it descriptor 5." in told
    assert "epoll is to tell when there is something to read from descriptor 5 (client 1)." in told
    assert any("Client 2 says b'bob': 3 bytes lie in the buffer" in text for text in told)


def test_out_of_descriptors_the_sentences_say_why_nobody_need_be_there():
    found = steps("descriptors", "03_epoll")
    lines = MODELS["03_epoll"].read_text().splitlines()
    pairs = zip([None, *found], found, strict=False)
    told = [sentence(step, before, lines) for before, step in pairs]
    failed = next(at for at, text in enumerate(told) if text.startswith("accept() fails"))
    assert found[failed]["kernel"]["queue"] == 0
    assert "so it fails on an empty one, too" in told[failed]
    assert any("the next newcomer again and again" in text for text in told)
    full = found[failed - 1] | {"kernel": found[failed - 1]["kernel"] | {"queue": 1}}
    assert "who comes stays in the queue" in sentence(found[failed], full, lines)


def test_after_a_reset_the_sentence_still_knows_whose_connection_it_was():
    found = steps("reset", "01_blocking")
    [broken] = [step for step in found if step["kind"] == "exception"]
    told = sentence(
        broken, found[found.index(broken) - 1], MODELS["01_blocking"].read_text().splitlines()
    )
    assert told == "recv() tells that client 1 broke off: Connection reset by peer."


def test_rounds_that_repeat_are_left_out_and_counted():
    made = {"kind": "line", "thread": "main", "calls": [], "act": 1, "changed": []}
    lines = [1, 2, 3] + [4, 5] * 6 + [9]
    found = bundle.folded([made | {"line": line} for line in lines])
    assert [step["line"] for step in found] == [1, 2, 3, 4, 5, 5, 4, 5, 9]
    assert [step.get("rounds") for step in found] == [None] * 5 + [4] + [None] * 3


def test_every_story_is_for_every_model():
    assert {act.does for story in STORIES.values() for act in story.acts} <= {
        "connects", "says", "floods", "reads", "reads no more", "leaves", "resets", "waits",
    }  # fmt: skip


def test_the_moving_picture_says_who_is_served_and_stands_still_where_it_must():
    try:
        data = bundle.record(MODELS, {"two": STORIES["two"]})
    except processes.NamespaceDenied as error:
        pytest.skip(str(error))
    for dark in (False, True):
        picture = animated_svg.draw(data, dark)
        root = ElementTree.fromstring(picture)
        assert len(picture) < 300_000
        assert not {"script", "image", "foreignObject"} & {one.tag[28:] for one in root.iter()}
        title = root.find("{http://www.w3.org/2000/svg}title").text
        assert "01_blocking: client 2 waits until: 1 leaves." in title
        assert "02_threaded: client 2 is answered at once." in title
        assert "03_epoll: client 2 is answered at once." in title
        assert "prefers-reduced-motion" in picture
        still = [one for one in root.iter() if "still" in one.get("class", "").split()]
        words = " ".join(text for one in still for text in one.itertext())
        assert words.count("hears Hello, bob") == 2
        assert words.count("waits …") == 1


# The tracer


def test_a_thread_goes_as_far_as_it_is_let_and_then_runs():
    with traced(MODELS["01_blocking"], walk=True) as tracee:
        tracee.settle()
        [thread] = tracee.stopped()
        assert thread.told["stack"][0][0] == "main"
        while thread.stopped:
            tracee.go(thread)
            tracee.settle()
        assert thread.call in ("accept", "accept4")
        tracee.run()
        with Client(*tracee.server.address) as client:
            assert client.greet(b"bob") == b"Hello, bob"


def test_the_servers_descriptors_are_what_they_are_without_the_tracer():
    with traced(MODELS["02_threaded"]) as tracee, Client(*tracee.server.address) as client:
        client.greet(b"bob")
        held = os.listdir(f"/proc/{tracee.server.process.pid}/fd")
        assert sorted(int(fd) for fd in held if int(fd) < tracer.HIGH) == [0, 1, 2, 3, 4]
        assert tracee.channels() == len([fd for fd in held if int(fd) >= tracer.HIGH])


def test_a_server_ends_with_the_recorder_that_is_killed_in_the_middle_of_a_step():
    code = (
        "import time; from clients.trace.session import traced\n"
        "from clients.system import processes\n"
        "with traced(processes.find_server('03_epoll'), walk=True) as t:\n"
        "    t.settle(); print(t.server.process.pid, flush=True); time.sleep(60)"
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


def run(*words, **more):
    return processes.run_captured(
        processes.module_command("clients.trace", *words), timeout=300, cwd=processes.ROOT, **more
    )


def test_what_cannot_be_recorded_gets_one_line(tmp_path):
    ill = tmp_path / "ill.py"
    ill.write_text("raise SystemExit('I am ill')")
    for words, why in ((["nobody"], "no server nobody"), ([ill], "I am ill")):
        done = run(*words, "--out", tmp_path / "page.html")
        if "unshare" in done.stderr:
            pytest.skip(done.stderr)
        assert done.returncode == 2
        assert re.fullmatch(rf"(recording .*\n)?python -m clients.trace: .*{why}.*\n", done.stderr)
        assert not (tmp_path / "page.html").exists()


def test_without_unshare_it_says_so(tmp_path):
    done = run("01_blocking", "--out", tmp_path / "page.html", env={"PATH": "/nowhere"})
    assert done.returncode == 2
    assert "there is no program unshare" in done.stderr.splitlines()[-1]


def test_a_page_of_ones_own_server_and_of_another_one_with_its_name(tmp_path):
    own, other = tmp_path / "04_mine", tmp_path / "friend" / "04_mine"
    for one in (own, other):
        one.mkdir(parents=True)
        (one / "server.py").write_text(MODELS["01_blocking"].read_text())
    page = tmp_path / "page.html"
    done = run(own, other, "--out", page)
    if "unshare" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    shown = data_of(page.read_text())
    mine = f"{tmp_path.name}/04_mine"
    assert list(shown["programs"]) == [mine, "friend/04_mine"]
    assert outdated(page.read_text(), {mine: own / "server.py"}) == []
    assert all(walk[-1]["act"] == 5 for walk in shown["recordings"]["two"].values())


def test_asking_for_the_remote_address_leaves_the_socket_to_its_owner():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert tracer.remote_address(ours.fileno()) is None
        ours.sendall(b"still open")
        assert theirs.recv(1024) == b"still open"
