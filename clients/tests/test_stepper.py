"""The server goes line by line, as the teacher lets it."""

import pytest

from clients.classroom import stepper
from clients.tests.in_the_classroom import play, shows

pytestmark = pytest.mark.slow


def before(function, line=None):
    """Return a condition: a thread of the server is stopped before a line of this function."""
    return lambda app: any(
        one.function == function
        and one.call == stepper.BEFORE % one.line
        and line in (None, one.line)
        for one in app.monitor.threads
    )


def current(app):
    return app.monitor.stepper.current


def sleeps(function):
    return lambda app: any(
        one.function == function and one.fd is not None for one in app.monitor.threads
    )


def test_a_new_connection_is_accepted_only_when_the_server_is_let_go_on():
    play(
        "03_epoll",
        *("w", "a", before("serve", 24), shows("main: about to run line 24")),
        lambda app: app.monitor.queue == 1,
        *("space", "space", "space", before("accept_all"), lambda app: app.monitor.queue == 1),
        *("c", lambda app: app.monitor.queue == 0, shows("conn = client 1")),
        *("w", sleeps("serve"), "w", "s", before("serve", 24), "c", shows("chunk = b'hi 1'")),
    )


def test_the_thread_of_the_chosen_client_runs():
    play(
        "02_threaded",
        *("a", "a", lambda app: len(app.monitor.threads) == 3, sleeps("serve"), "w"),
        *("1", "s", "2", "s", before("handle")),
        lambda app: len(app.monitor.stepper.session.stopped()) == 2,
        "c",
        lambda app: (
            app.monitor.stepper.current == app.monitor.stepper.next(app.roster.scripted[2].name).id
        ),
        *("w", lambda app: all(client.received for client in app.roster.scripted.values())),
    )


def test_a_notice_says_that_all_threads_sleep_and_the_next_model_runs_freely():
    play(
        "03_epoll",
        *("w", sleeps("serve"), "space", shows("each thread sleeps in a call")),
        *("a", before("serve"), "n"),
        lambda app: app.monitor and app.monitor.stepper and not app.monitor.stepper.session.paused,
    )
