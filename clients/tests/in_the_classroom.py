"""Play a script in the classroom: keys to press, and what has to be seen then."""

import asyncio
import time

from clients.classroom.app import Classroom
from clients.system import processes
from conftest import DEADLINE


class Watched(Classroom):
    """Reports each update: between two of them nothing that a script waits for changes."""

    def __init__(self, *args):
        super().__init__(*args)
        self.ticked = asyncio.Event()

    def tick(self):
        super().tick()
        self.ticked.set()


def play(model, *script, size=(140, 40), **options):
    """Play a script in the classroom of a model, or of a program's path; return the screen's rows.

    script: keys; (columns, rows) of the screen from here on; and functions of the app that have to
    return something true before the script goes on. options: the server's, and the programs.
    """
    programs = options.pop("programs", None) or [processes.find_server(str(model))]
    options = {"host": "127.0.0.1", "port": 0, "backlog": 64} | options

    async def run():
        app = Watched(programs, options)
        try:
            async with app.run_test(size=size, notifications=True) as pilot:
                for part in (is_started, *script):
                    if isinstance(part, str):
                        await pilot.press(part)
                        continue
                    if isinstance(part, tuple):
                        await pilot.resize_terminal(*part)
                        continue
                    deadline = time.monotonic() + DEADLINE
                    while not part(app):
                        assert time.monotonic() < deadline, report(app, part)
                        app.ticked.clear()
                        await asyncio.wait_for(app.ticked.wait(), DEADLINE)
                        await pilot.pause()  # until it is drawn
                return screen(app)
        finally:
            app.end()

    return asyncio.run(run())


def is_started(app):
    """Return True if there is something to be seen: threads, or that the server has ended."""
    monitor = app.monitor
    return monitor and (monitor.threads or monitor.ended)


def report(app, part):
    return "\n".join([f"not seen: {part}", str(vars(app.monitor)), *screen(app)])


def screen(app):
    """Return the rows of the screen."""
    return [
        strip.text.replace("\N{NO-BREAK SPACE}", " ").rstrip()
        for strip in app.screen._compositor.render_strips()
    ]


def shows(*texts):
    """Return a condition: all the texts are on the screen."""

    def condition(app):
        rows = "\n".join(screen(app))
        return all(text in rows for text in texts)

    return condition


def styles(app, panel, text):
    """Return the styles of the cells of a panel that contain a text."""
    shown = app.query_one(f"#{panel}").content
    cells = [(shown.plain[span.start : span.end], str(span.style)) for span in shown.spans]
    return {style for cell, style in cells if text in cell}
