"""What notebook 2 shows: TCP behaves here as the textbook and the kernel's documents say."""

import dataclasses
import json
import re
import socket
import sys
from pathlib import Path

import pytest
from lab import emulated_link, tcp
from lab.observation import Call, Observation, Packet, from_json
from lab.packet_loss import GUARDS

from clients.system import procfs
from clients.system.processes import run_in_netns
from conftest import skip_without

# The experiments below run once for all tests, in the worker that has imported what draws.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("labs")]


def system_files():
    files = [Path("/proc/sys/net/core/somaxconn"), Path("/etc/hosts"), Path("/etc/resolv.conf")]
    return [path.read_bytes() for path in files if path.exists()]


BEFORE = system_files()


@pytest.fixture(scope="module", autouse=True)
def refused():
    try:
        return tcp.live("refused", [{}])[0]
    except tcp.NamespaceDenied as reason:
        skip_without("network namespaces", reason)


@pytest.fixture(scope="module")
def sequence():
    from lab import sequence

    return sequence


def flags(data):
    return [(packet.sender, packet.flags) for packet in data.packets]


def states(data, end, port=None):
    from lab import sequence

    return [state for state, _, _ in sequence.state_intervals(data, end, port)]


@pytest.fixture(scope="module")
def conversations():
    cases = {end: {"closer": end} for end in ("server", "both", "reset")}
    return tcp.compare("conversation", cases | {"client": {"closer": "client", "pause": 0.5}})


@pytest.fixture(scope="module")
def life(conversations):
    return conversations["client"]


@pytest.fixture(scope="module")
def forgotten():
    return tcp.run("forgotten_close", seconds=2, fin_timeout=1)


@pytest.fixture(scope="module")
def accept_queues():
    cases = {
        backlog: {"backlog": backlog, "seconds": 1.5, "arrivals": [0.05 * i for i in range(count)]}
        for backlog, count in ((0, 3), (1, 4), (5, 8))
    }
    full = {"backlog": 1, "arrivals": [0, 0.5, 0.5], "seconds": 1.5, "delay": 0.1}
    cases["reset"] = full | {"settings": {"net.ipv4.tcp_abort_on_overflow": 1}}
    somaxconn = {"net.core.somaxconn": 2}
    cases["somaxconn"] = {"backlog": 50, "arrivals": [0.05 * i for i in range(6)], "seconds": 0.6}
    cases["somaxconn"]["settings"] = somaxconn
    cases["two"] = {"backlog": 1, "arrivals": [0, 0.2], "seconds": 0.4}
    cases["silent"] = {"backlog": 1, "arrivals": [0, 0.3, 0.3], "seconds": 0.9, "delay": 0.05}
    far_apart = [0, 0.1, 0.5]  # and so are the retransmissions a second later
    cases["accept"] = {"backlog": 0, "arrivals": far_apart, "seconds": 1.7, "accept_at": 0.6}
    return tcp.compare("accept_queue", cases)


def test_three_packets_open_a_connection_and_four_close_it(life):
    assert flags(life)[:3] == [("client", "SYN"), ("server", "SYN-ACK"), ("client", "ACK")]
    assert flags(life)[-4:] == [
        ("client", "FIN-ACK"),
        ("server", "ACK"),
        ("server", "FIN-ACK"),
        ("client", "ACK"),
    ]


def test_an_acknowledgement_names_the_next_byte_of_the_other_side(life):
    sent = {"client": 0, "server": 0}
    for packet in life.packets:
        if packet.ack is not None:
            assert packet.ack == sent[emulated_link.OTHER_END[packet.sender]]
        assert packet.seq == sent[packet.sender]
        numbered = sum(flag in packet.flags for flag in ("SYN", "FIN"))
        sent[packet.sender] += packet.length + numbered


def test_both_ends_pass_through_their_states_in_order(life):
    assert states(life, "client") == [
        "SYN-SENT",
        "ESTABLISHED",
        "FIN-WAIT-1",
        "FIN-WAIT-2",
        "TIME-WAIT",
    ]
    assert states(life, "server") == [
        "SYN-RECEIVED",
        "ESTABLISHED",
        "CLOSE-WAIT",
        "LAST-ACK",
        "CLOSED",
    ]


def test_a_state_is_noted_with_the_packet_that_changes_it(life):
    """Without polling, too: no colour of a sequence diagram begins late."""
    lines = (
        "from lab import emulated_link, experiments",
        "emulated_link.POLL_INTERVAL = 1",  # longer than the longest time without a packet
        "experiments.main()",
    )
    program = [sys.executable, "-c", "\n".join(lines), "conversation", "[{}]"]
    done = run_in_netns(program, "--mount", cwd=tcp.NOTEBOOKS, timeout=60)
    assert done.returncode == 0, done.stderr
    [data] = from_json(done.stdout)
    for end in ("client", "server"):
        assert states(data, end) == states(life, end)


def test_connect_returns_before_accept_does(life):
    done = {call.name: call.ended for call in life.calls}
    assert done["connect()"] < done["accept()"]


def test_the_end_that_closes_first_is_in_time_wait(conversations):
    data = conversations["server"]
    assert states(data, "server")[-1] == "TIME-WAIT"
    assert states(data, "client")[-1] == "CLOSED"


def test_two_fins_that_cross_lead_through_closing(conversations):
    data = conversations["both"]
    for end in ("client", "server"):
        assert states(data, end)[-3:] == ["FIN-WAIT-1", "CLOSING", "TIME-WAIT"]


def test_a_reset_ends_both_ends_with_one_packet(conversations):
    data = conversations["reset"]
    assert [flag for _, flag in flags(data) if "RST" in flag] == ["RST-ACK"]
    assert flags(data)[-1] == ("client", "RST-ACK")
    assert states(data, "client")[-1] == states(data, "server")[-1] == "CLOSED"
    assert "TIME-WAIT" not in states(data, "client")
    assert ("recv()", "ConnectionResetError") in {(call.name, call.result) for call in data.calls}


def test_a_port_without_a_listening_socket_refuses(refused):
    assert flags(refused) == [("client", "SYN"), ("server", "RST-ACK")]
    assert refused.calls[0].result == "ConnectionRefusedError"


@pytest.fixture(scope="module")
def last_acks():
    return tcp.compare("lost_last_ack", {"TIME-WAIT": {}, "none": {"time_wait": False}})


def test_time_wait_answers_a_retransmitted_fin(last_acks):
    data = last_acks["TIME-WAIT"]
    assert flags(data)[-2:] == [("server", "FIN-ACK"), ("client", "ACK")]
    assert flags(data).count(("server", "FIN-ACK")) == 2
    assert [p.flags for p in data.packets if not p.arrived] == ["ACK"]
    assert states(data, "client")[-1] == "TIME-WAIT"
    assert states(data, "server")[-2:] == ["LAST-ACK", "CLOSED"]


def test_without_time_wait_that_fin_is_answered_by_a_reset(last_acks):
    data = last_acks["none"]
    assert flags(data)[-2:] == [("server", "FIN-ACK"), ("client", "RST")]
    assert "TIME-WAIT" not in states(data, "client")


def test_only_a_guarded_server_notices_that_a_client_has_vanished():
    cases = {guard: {"guard": guard, "seconds": 8} for guard in GUARDS}
    found = tcp.compare("guarded_server", cases)
    errors = {guard: data.error for guard, data in found.items()}
    assert errors == {
        "recv()": None,
        "recv(), keepalive": "TimeoutError: [Errno 110] Connection timed out",
        "recv(), deadline": "TimeoutError: timed out",
        "send()": None,
        "send(), user timeout": "TimeoutError: [Errno 110] Connection timed out",
    }
    waiting, sending = found["recv()"], found["send()"]
    assert (waiting.state, waiting.sent, waiting.timer_runs) == ("ESTABLISHED", 0, False)
    assert sending.state == "ESTABLISHED"
    assert sending.timer_runs
    assert sending.sent > 2


@pytest.mark.parametrize("backlog", [0, 1, 5])
def test_an_accept_queue_holds_one_more_than_the_backlog(accept_queues, backlog):
    data = accept_queues[backlog]
    connected = [client.connected is not None for client in data.clients]
    assert connected == [True] * (backlog + 1) + [False] * 2
    assert data.queue == backlog + 1
    last = [states(data, "client", client.port)[-1] for client in data.clients]
    assert last.count("SYN-SENT") == 2
    dropped = [p for p in data.packets if p.flags == "SYN"][backlog + 1 :]
    assert data.counters["ListenDrops"] == len(dropped) >= 2


def test_listen_drops_counts_dropped_acknowledgements_as_well(sequence, accept_queues):
    data = accept_queues["silent"]
    sent = [flag for sender, flag in flags(data) if sender == "client"]
    assert sent.count("SYN") == flags(data).count(("server", "SYN-ACK")) == 3
    assert data.counters["ListenDrops"] == 1
    ports = [client.port for client in data.clients]
    port = next(one for one in ports if "ESTABLISHED" not in states(data, "server", one))
    words = drawn(sequence.sequence_diagram(data, "title", port=port))
    assert "dropped" in words
    assert "being opened" in words


def drawn(figure):
    """Return all that is written in a picture."""
    from matplotlib.text import Text

    return " ".join(text.get_text() for text in figure.findobj(Text))


def test_somaxconn_limits_every_backlog(accept_queues):
    assert accept_queues["somaxconn"].queue == 3


def test_a_full_accept_queue_can_answer_with_a_reset(accept_queues):
    data = accept_queues["reset"]
    assert "ConnectionResetError" in [client.error for client in data.clients]
    assert data.queue == 2


def test_data_comes_before_accept():
    def queues():
        rows = [row for row in procfs.tcp_sockets(port) if row.local[1] == port]
        return {row.state: row.recv_q for row in rows}

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.send(b"bob")
            assert queues() == {"LISTEN": 1, "ESTABLISHED": 3}
            with listener.accept()[0] as conn:
                assert queues() == {"LISTEN": 0, "ESTABLISHED": 3}
                assert conn.recv(1024, socket.MSG_DONTWAIT) == b"bob"


def test_a_forgotten_close_leaves_close_wait_behind(forgotten):
    *_, first, second = forgotten.calls  # both write
    before = {row.end: row.state for row in forgotten.states if row.at < first.began}
    assert before == {"server": "CLOSE-WAIT", "client": "CLOSED"}
    assert second.result == "BrokenPipeError"


def test_time_wait_keeps_the_port_from_all_but_so_reuseaddr():
    data = tcp.run("time_wait", seconds=1)
    assert 55 < data.timer <= 60
    assert {how: {*its} for how, its in data.errors.items()} == {
        "without": {"Address already in use"},
        "with": {None},
    }


@pytest.fixture(scope="module")
def two_writes():
    return tcp.compare(
        "two_writes", {name: {"nodelay": name == "nodelay"} for name in ("", "nodelay")}
    )


def test_the_second_of_two_small_writes_waits_for_an_acknowledgement(two_writes):
    """Of the client's last two segments, one leaves before the other has been acknowledged."""
    for name, data in two_writes.items():
        sent = {}  # by their numbers: on a busy machine a segment may be sent again
        for packet in data.packets:
            if packet.sender == "client" and packet.length:
                sent.setdefault(packet.seq, packet)
        first, second = [*sent.values()][-2:]
        assert (first.length, second.length) == (4, 3)
        acks = [p for p in data.packets if p.sender == "server" and p.ack == second.seq]
        came_before = [p for p in acks if p.arrived and p.arrived <= second.sent]
        assert bool(came_before) == (name == "")


def test_a_client_that_closes_first_runs_out_of_ports_and_no_other_does():
    cases = {"client": {"closer": "client"}, "server": {"closer": "server"}}
    cases["reuse"] = {"closer": "client", "reuse": 1}
    found = tcp.compare("port_use", cases)
    none_left = "EADDRNOTAVAIL: Cannot assign requested address"
    client, server, reuse = found.values()
    assert (client.count, client.error, client.later) == (8, none_left, none_left)
    assert client.time_wait == {"client": 8, "server": 0}
    assert (server.count, server.error, server.time_wait["client"]) == (24, None, 0)
    assert reuse.error in (none_left, None)  # none, where eight connections take over a second
    assert reuse.later is None


def test_of_a_nat_that_forgets_only_an_end_that_probes_learns():
    cases = {str(seconds): {"keepalive": seconds} for seconds in (None, 2, 1)}
    found = tcp.compare("nat_forgets", cases)
    said = {name: (data.client[0], data.server[0]) for name, data in found.items()}
    assert said == {
        "None": ("nothing", "nothing"),
        "2": ("Connection timed out", "nothing"),
        "1": ("b'news'", "nothing"),
    }
    assert found["1"].lost == 0


def test_the_backlog_limits_the_syn_queue_and_then_come_cookies():
    cases = {
        "cookies": {"backlog": 5, "clients": 9},
        "no cookies": {"backlog": 5, "clients": 9, "cookies": 0, "max_syn_backlog": 1024},
        "max_syn_backlog": {"backlog": 99, "clients": 9, "cookies": 0, "max_syn_backlog": 8},
    }
    found = tcp.compare("syn_queue", cases)
    queued = found["cookies"].unfinished
    assert queued in (5, 6)  # 5 without the kernel commit 3479c7549fb1
    assert found["cookies"].established == 9
    assert found["cookies"].counters["SyncookiesSent"] == 9 - queued
    assert (found["no cookies"].unfinished, found["no cookies"].established) == (queued, queued)
    assert found["max_syn_backlog"].unfinished == 7  # three quarters of 8, and one more


@pytest.fixture(scope="module")
def lookups():
    hosts = {"hosts": "127.0.0.5 example.com"}
    cases = {"hosts": hosts, "dns": {}, "dns first": hosts | {"order": "dns files"}}
    return {
        name: tcp.run("resolve", name="example.com", dns="127.0.0.7", **options)
        for name, options in cases.items()
    }


def test_the_hosts_file_is_asked_before_dns(lookups):
    found = {name: (data.addresses, data.queries) for name, data in lookups.items()}
    from_dns = ["127.0.0.7:80"], [["example.com", "A"]]
    assert found == {"hosts": (["127.0.0.5:80"], []), "dns": from_dns, "dns first": from_dns}


@pytest.mark.usefixtures("accept_queues", "lookups")
def test_the_machine_is_left_as_it_was():
    assert system_files() == BEFORE


def test_an_experiment_that_fails_says_why():
    with pytest.raises(RuntimeError, match="no_such"):
        tcp.run("no_such")


REFUSAL = "unshare: write failed /proc/self/uid_map: Operation not permitted"


def test_where_user_namespaces_are_forbidden_recorded_data_take_over(monkeypatch, tmp_path, capsys):
    (tmp_path / "unshare").write_text(f"#!/bin/sh\necho '{REFUSAL}' >&2\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    tcp.explain.cache_clear()
    for _ in range(2):
        data = tcp.run("conversation", closer="client")
        assert re.match(r"recorded \d{4}-\d\d-\d\d, Linux", data.source)
    said = capsys.readouterr().out
    assert said.count("Operation not permitted") == said.count("sudo") == 1  # once, not twice
    assert flags(data)[:3] == [("client", "SYN"), ("server", "SYN-ACK"), ("client", "ACK")]


def test_where_the_kernel_lacks_a_setting_recorded_data_take_over():
    options = {"backlog": 0, "arrivals": [], "seconds": 0.1}
    with pytest.raises(tcp.NamespaceDenied, match="this kernel has no /proc/sys/net/ipv4/no_such"):
        tcp.live("accept_queue", [options | {"settings": {"net.ipv4.no_such": 1}}])


def test_a_run_can_be_recorded_and_replayed(monkeypatch, tmp_path):
    monkeypatch.setattr(tcp, "RECORDED", tmp_path / "recorded.json")
    monkeypatch.setenv("TCPLAB", "record")
    live = tcp.run("refused")
    monkeypatch.setenv("TCPLAB", "recorded")
    replayed = tcp.run("refused")
    assert flags(replayed) == flags(live)
    assert live.source.startswith("observed live")
    assert replayed.source == f"recorded {live.when}"
    assert list(json.loads(tcp.RECORDED.read_text())) == ["refused {}"]


def test_a_sequence_diagram_has_a_label_for_each_packet_and_state(sequence, life):
    figure = sequence.sequence_diagram(life, "title")
    words = drawn(figure)
    for packet in life.packets:
        assert packet.flags in words
    for state in [*states(life, "client"), *states(life, "server")]:
        assert state in words
    assert "observed live" in words
    assert figure.axes[0].get_legend().get_texts()[1].get_text() == "ESTABLISHED"
    numbers = [int(word) for word in words.replace(",", "").split() if word.isdigit()]
    apart = 1000 * 2 * sequence.SHORT  # moments that are closer have one label, the first one's
    for packet in life.packets:
        assert any(-1 < packet.arrived * 1000 - shown < apart + 1 for shown in numbers)


def written(figure):
    """Return {text: its box on the page, in inches} of all texts in a sequence diagram."""
    figure.draw_without_rendering()
    inches = figure.dpi_scale_trans.inverted()
    texts = figure.axes[0].texts
    return {text.get_text(): text.get_window_extent().transformed(inches) for text in texts}


def test_names_of_states_that_follow_closely_do_not_overlap(sequence, life):
    began = next(row.at for row in life.states if row.state == "FIN-WAIT-1")
    boxes = written(sequence.sequence_diagram(life, "title", since=began - 0.005))
    assert not boxes["ESTABLISHED"].overlaps(boxes["FIN-WAIT-1"])


def test_a_state_that_is_over_at_once_shares_its_label_with_the_next(sequence, life):
    at = next(row.at for row in life.states if row.state == "CLOSE-WAIT")
    states = [
        dataclasses.replace(row, at=at) if row.state == "LAST-ACK" else row for row in life.states
    ]
    figure = sequence.sequence_diagram(dataclasses.replace(life, states=states), "title")
    assert "CLOSE-WAIT,\nLAST-ACK" in written(figure)


def test_two_packets_that_cross_keep_their_labels_apart(sequence, conversations):
    boxes = written(sequence.sequence_diagram(conversations["both"], "title", since=0.3))
    first, second = (box for text, box in boxes.items() if text.startswith("FIN-ACK"))
    assert not first.overlaps(second)


@pytest.mark.parametrize("skew", range(0, 50, 5))
def test_labels_are_apart_wherever_two_packets_cross(sequence, skew):
    packets = [
        Packet(end, at, at + 0.05, False, 50001, "FIN-ACK", seq, ack, 0)
        for end, at, seq, ack in (("client", 0.4, 4, 11), ("server", 0.4 + skew / 1000, 11, 4))
    ]
    boxes = written(sequence.sequence_diagram(Observation(packets=packets), "title"))
    first, second = (box for text, box in boxes.items() if text.startswith("FIN-ACK"))
    assert not first.overlaps(second)
    assert skew > 15 or first.x1 < second.x0  # near the middle, at different ends


def test_an_event_without_a_packet_has_a_time_and_a_long_wait_has_two_parts(sequence, forgotten):
    closed = next(row.at for row in forgotten.states if row.state == "CLOSED")
    words = drawn(sequence.sequence_diagram(forgotten, "title", since=0.3))
    for at in (closed, forgotten.calls[-1].began):  # the last is a send() that fails at once
        assert f" {round(at * 1000):,} " in words
    assert words.count(" ms left out") >= 2
    # The legend has the colours that are there.
    assert "being closed" in words
    assert "TIME-WAIT" not in words


def test_calls_without_room_are_below_each_other(sequence):
    packets = [Packet("client", at, at + 0.05, False, 50001, "ACK", 1, 1, 0) for at in (0.4, 0.5)]
    calls = [Call("client", f"send({n})", at, at, "") for n, at in enumerate((0.4, 0.407, 0.412))]
    boxes = written(sequence.sequence_diagram(Observation(packets=packets, calls=calls), "title"))
    first, second, third = (boxes[f"send({n})"] for n in range(3))
    assert not first.overlaps(second)
    assert not second.overlaps(third)
    assert first.y0 > second.y0 > third.y0


def test_a_client_of_many_shows_its_own_connect(sequence, accept_queues):
    data = accept_queues["two"]
    second = data.clients[1]
    assert "connect() returns" in drawn(sequence.sequence_diagram(data, "title", port=second.port))


def test_of_many_connections_none_is_drawn_until_one_is_named(sequence, accept_queues):
    data = accept_queues["two"]
    ports = ".*".join(str(port) for port in sorted(client.port for client in data.clients))
    with pytest.raises(ValueError, match=ports):
        sequence.sequence_diagram(data, "title")
    for end in ("client", "server"):
        with pytest.raises(ValueError, match=ports):
            sequence.state_intervals(data, end)


def test_a_client_outside_the_queue_waits_for_its_own_retransmission(accept_queues):
    data = accept_queues["accept"]
    first, *outside = data.clients
    [accept] = data.calls
    assert first.connected < accept.ended
    assert any(client.connected is None for client in outside)  # there was room for one
    for client in outside:
        syns = [p.sent for p in data.packets if p.port == client.port and p.flags == "SYN"]
        assert syns[0] < accept.ended
        assert client.connected is None or accept.ended < syns[-1] < client.connected


def test_time_in_a_sequence_diagram_is_cut_only_in_long_pauses(sequence):
    scale = sequence.TimeScale([0.0, 0.1, 5.0, 5.1], longest=0.2)
    assert scale(0.1) - scale(0.0) == pytest.approx(0.1)
    assert scale(5.1) - scale(5.0) == pytest.approx(0.1)
    assert scale(0.1) < scale(2.0) < scale(5.0) < scale(0.1) + 0.2
    assert [gap for _, _, gap in scale.cuts] == [pytest.approx(4.9)]


def test_a_state_lasts_until_the_next_one(sequence, life):
    times = {change.state: change.at for change in life.states if change.end == "client"}
    found = {
        state: (began, ended) for state, began, ended in sequence.state_intervals(life, "client")
    }
    assert found["SYN-SENT"] == (times["SYN-SENT"], times["ESTABLISHED"])
    assert found["TIME-WAIT"] == (times["TIME-WAIT"], None)
