"""Every model is held to every claim of the contract."""

import contract
import launch
import pytest


@pytest.mark.parametrize("claim", contract.CLAIMS, ids=lambda claim: claim.__name__)
def test_claim(model, claim):
    _, program = model
    try:
        contract.hold(program, claim)
    except contract.NotApplicable as reason:
        pytest.skip(str(reason))


# A check that cannot fail proves nothing: each claim, a model, and the change that breaks it.
ON_RESET = ("except OSError as error:  # a reset", "except BlockingIOError as error:  #")
FAULTS = {
    "each_message_is_greeted": ("01_blocking", ('b"Hello, " + chunk', 'b"Hello, " + chunk[:99]')),
    "any_bytes_cut_anyhow_come_back_whole_and_in_order": (
        "03_epoll",
        ("data = greet(chunk)", "data = greet(chunk[:1023])"),
    ),
    "a_slow_reader_gets_every_byte": ("03_epoll", ("unsent = data[sent:]", 'unsent = b""')),
    "what_came_before_a_half_close_is_answered": (
        "03_epoll",
        ("epoll.register(conn, select.EPOLLIN)", "epoll.register(conn, 0x2001)"),
        ("is None:", "is None or (_ & 0x2000 and not clients.pop(fd).conn.close()):"),
    ),
    "it_closes_when_the_client_says_no_more": (
        "03_epoll",
        (
            "client.heard)\n                return False",
            "client.heard)\n                return True",
        ),
    ),
    "a_reset_before_the_first_byte_ends_one_connection": ("01_blocking", ON_RESET),
    "a_reset_after_the_first_byte_ends_one_connection": ("03_epoll", ON_RESET),
    "a_reset_in_the_middle_of_an_answer_ends_one_connection": ("03_epoll", ON_RESET),
    "a_client_that_leaves_with_answers_unread_ends_one_connection": ("01_blocking", ON_RESET),
    "a_client_that_never_reads_costs_no_memory_and_no_service": (
        "03_epoll",
        ("if not data:", "if True:"),
        ("data = greet(chunk)", "data += greet(chunk)"),
        ("select.EPOLLOUT if", "select.EPOLLIN if"),
    ),
    "a_client_that_never_speaks_costs_no_service": (
        "03_epoll",
        ("conn.setblocking(False)", "conn.recv(1, socket.MSG_PEEK), conn.setblocking(False)"),
    ),
    "a_client_that_drips_costs_no_service": (
        "03_epoll",
        ("chunk = conn.recv(1024)", "chunk = conn.settimeout(9) or conn.recv(4, 256)"),
    ),
    "a_thousand_idle_clients_are_kept": (
        "03_epoll",
        ("] = Client(conn, peer)", "] = Client(conn, peer)\n        len(clients) > 500 and 1 / 0"),
    ),
    "no_descriptor_and_no_thread_is_left_behind": (
        "03_epoll",
        ("client.conn.close()", "epoll.unregister(client.conn.detach())"),
    ),
    "an_idle_server_uses_no_cpu": ("03_epoll", ("epoll.poll()", "epoll.poll(0)")),
    "out_of_descriptors_it_serves_on": ("03_epoll", ("epoll.unregister(listener)", "pass")),
    "out_of_threads_it_serves_on": ("02_threaded", ("except RuntimeError", "except ValueError")),
    "its_first_line_says_where_it_listens": ("01_blocking", ('print("', 'print("hi\\n')),
    "it_logs_who_came_what_was_said_and_who_left": (
        "02_threaded",
        ('logging.info("%s:%d left', 'logging.debug("%s:%d left'),
    ),
    "when_quiet_it_logs_nothing": ("01_blocking", ('"WARNING" if args.quiet else', "")),
    "it_can_wait": ("03_epoll", ("time.sleep(wait)", "pass")),
    "it_can_compute": ("02_threaded", ("time.thread_time() < done", "False")),
    "ctrl_c_ends_it": ("02_threaded", ("except KeyboardInterrupt", "except SystemExit")),
    "sigterm_ends_it": ("01_blocking", ("signal.default_int_handler", "signal.SIG_DFL")),
    "a_signal_ends_it_in_the_middle_of_its_work": (
        "03_epoll",
        ("signal.default_int_handler", "lambda *_: None"),
    ),
    "it_can_start_again_on_the_same_port_at_once": (
        "01_blocking",
        (
            "listener = socket.create_server((args.host, args.port), backlog=args.backlog)",
            "listener = socket.socket(); listener.bind((args.host, args.port)); listener.listen()",
        ),
    ),
    "bad_options_get_one_clear_line": ("03_epoll", ("usage=argparse.SUPPRESS", "")),
}


def test_each_claim_has_its_fault():
    assert [claim.__name__ for claim in contract.CLAIMS] == list(FAULTS)


@pytest.mark.parametrize("name", FAULTS)
def test_claim_fails_on_a_server_broken_for_it(name, tmp_path, monkeypatch):
    monkeypatch.setattr(contract, "PATIENCE", 2.0)  # what never comes need not be waited for
    model, *changes = FAULTS[name]
    source = launch.find(model).read_text()
    for line, broken in changes:
        assert line in source
        source = source.replace(line, broken, 1)
    (tmp_path / "server.py").write_text(source)
    with pytest.raises(contract.Broken):
        contract.hold(tmp_path / "server.py", getattr(contract, name))
