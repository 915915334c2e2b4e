"""The server on the stage goes line by line, as the teacher lets it."""

import asyncio
import time

from clients.classroom import stepper
from clients.classroom.app import SLEEPS, Classroom
from clients.system import processes

PATIENCE = 20.0


def walked(model, *script):
    """Play a script in the classroom: keys to press, and functions of the app to wait for."""

    async def run():
        app = Classroom([processes.find(model)], {"host": "127.0.0.1", "port": 0, "backlog": 64})
        try:
            async with app.run_test(size=(140, 40), notifications=True) as pilot:
                for part in (lambda app: app.stage and app.stage.threads, *script):
                    if isinstance(part, str):
                        await pilot.press(part)
                        continue
                    deadline = time.monotonic() + PATIENCE
                    while not part(app):
                        assert time.monotonic() < deadline, vars(app.stage)
                        await pilot.pause(0.02)
        finally:
            app.end()

    asyncio.run(run())


def stands(function, line=None):
    """Return what says whether a thread of the server stands before a line of this function."""

    def condition(app):
        rows = [row for row in app.stage.threads if row.function == function]
        return any(
            row.call == stepper.STOPS % row.line and line in (None, row.line) for row in rows
        )

    return condition


def asleep(function):
    return lambda app: any(
        row.function == function and row.fd is not None for row in app.stage.threads
    )


def runs(app):
    return app.stage and app.stage.walk and not app.stage.walk.on


def shows(panel, text):
    return lambda app: text in app.query_one(panel).content.plain


def test_a_newcomer_is_accepted_only_when_the_server_is_let_go_on():
    walked(
        "03_epoll",
        *("w", "a", stands("serve"), lambda app: app.stage.queue == 1),
        *("space", "space", stands("accept_all"), lambda app: app.stage.queue == 1),
        *("c", lambda app: app.stage.queue == 0, shows("#source", "conn = client 1")),
        *("w", asleep("serve")),
    )


def test_the_thread_of_the_chosen_client_goes():
    walked(
        "02_threaded",
        *("a", "a", lambda app: len(app.stage.threads) == 3, asleep("serve"), "w"),
        *(
            "1",
            "s",
            "2",
            "s",
            stands("handle"),
            lambda app: len(app.stage.walk.tracee.stopped()) == 2,
        ),
        "c",
        lambda app: app.stage.walk.current == app.stage.walk.next(app.cast[2].name).number,
        *("w", lambda app: all(puppet.told for puppet in app.cast.values())),
    )


def test_the_next_model_runs_freely():
    walked("01_blocking", "w", "a", stands("serve"), "n", runs)


def test_a_note_that_all_sleep_goes_when_one_stands():
    walked(
        "03_epoll",
        *("w", asleep("serve"), "space", lambda app: app.told == SLEEPS),
        lambda app: len(app._notifications) == 1,
        *("a", stands("serve"), lambda app: len(app._notifications) == 0),
    )


def test_the_mark_says_which_line_has_not_yet_run():
    walked(
        "03_epoll", "w", "a", stands("serve", 23), shows("#source", "main: about to run line 23")
    )
