"""The screen and the keys: what a teacher sees, and what each key does."""

import asyncio
import os
import re
import signal
import textwrap
import threading

from rich.cells import cell_len
from rich.text import Text
from textual.app import App
from textual.binding import Binding
from textual.containers import Container, Horizontal
from textual.content import Content
from textual.widgets import Static

from clients.classroom import panels
from clients.classroom.roster import Roster
from clients.classroom.scripted_clients import MOST
from clients.classroom.server_monitor import ServerMonitor, own_addresses
from clients.classroom.stepper import MOST_LINES
from clients.console.palette import styles, text_on
from clients.console.printable import printable
from clients.system.processes import server_name

INTERVAL = 0.2  # seconds between two updates of the screen
GRACE = 5.0  # seconds until this process ends after a signal, at most
NOTICE = 4.0  # seconds for which a notice to the teacher stays


class Classroom(App):
    """programs: the servers' paths, the first to begin with. options: see ServerMonitor."""

    CSS = """
    Static { text-wrap: nowrap; text-overflow: ellipsis; }
    #head { height: 1; text-style: bold; }
    #title { width: 1fr; }
    #where { width: auto; padding: 0 1; }
    #title, #cost { height: 1; padding: 0 0 0 1; }
    #keys { height: auto; background: $surface; }
    ToastRack { margin-bottom: 4; }
    Toast { width: auto; max-width: 100%; padding: 0 1; }
    #address { display: none; height: auto; }
    #how { height: auto; text-wrap: wrap; }
    #body { layout: grid; grid-size: 2 2; grid-gutter: 0 1; }
    #body Static { border-top: solid $primary; border-title-color: $text; height: 100%; }
    .-narrow #source { column-span: 2; }
    .-wide #source { row-span: 2; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
    TITLE, ENABLE_COMMAND_PALETTE = "clients.classroom", False
    BINDINGS = [
        Binding("a,A", "add(1)", "add", key_display="a"),
        Binding("f,F", "add(50)", "fifty", key_display="f"),
        Binding("up", "choose(-1)", "choose", key_display="↑ ↓ 1-9"),
        Binding("down", "choose(1)", show=False),
        *(Binding(str(n), f"choose_number({n})", show=False) for n in range(1, 10)),
        Binding("pageup", "scroll(-1)", show=False),
        Binding("pagedown", "scroll(1)", "scroll", key_display="PgUp PgDn"),
        Binding("s,S", "send", "send", key_display="s"),
        Binding("r,R", "toggle_reading", "stop/start reading", key_display="r"),
        Binding("l,L", "leave(False)", "leave", key_display="l"),
        Binding("x,X", "leave(True)", "reset", key_display="x"),
        Binding("w,W", "step", "line by line/run", key_display="w"),
        Binding("space", "advance(1)", "a line"),
        Binding("c,C", f"advance({MOST_LINES})", "to a call", key_display="c"),
        Binding("n,N", "start(1)", "next model", key_display="n"),
        Binding("b,B", "start(0)", "begin again", key_display="b"),
        Binding("e,E", "empty", "empty", key_display="e"),
        Binding("k,K", "screenshot(None, '.')", "picture", key_display="k"),
        Binding("q,Q,ctrl+c", "quit", "quit", key_display="q", priority=True),
    ]

    def __init__(self, programs, options):
        super().__init__()
        self.programs, self.options = programs, options
        self.styles_of = styles([server_name(program) for program in programs])
        self.monitor, self.monitors = None, set()
        self.roster, self.rows = Roster(), []  # ClientRows
        self.written = {}  # {id of a panel: what it shows}

    def compose(self):
        with Horizontal(id="head"):
            yield Static(id="title", markup=False)
            yield Static(id="where")
        with Container(id="address"):
            yield Static(id="warning")
            yield Static(id="how")
        with Container(id="body"):
            for panel in ("source", "kernel", "clients"):
                yield Static(id=panel)
        yield Static(id="cost")
        yield Static(id="keys")

    def on_mount(self):
        self.theme = "textual-light"  # for the projector, and for a model whose colour is black
        for number in (signal.SIGHUP, signal.SIGTERM):  # a closed terminal; kill
            signal.signal(number, self.end_soon)  # asyncio's handlers wait where its loop waits

    def end_soon(self, *_):
        """End after a signal, also if a terminal that takes no more output blocks the drawing.

        Then this process just stops, and the reaper ends the servers.
        """
        asyncio.get_running_loop().call_soon_threadsafe(self.exit)
        last = threading.Timer(GRACE, os._exit, [1])
        last.daemon = True  # it delays no exit
        last.start()

    def on_unmount(self):
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)

    def on_ready(self):
        self.start(self.programs[0])
        self.set_interval(INTERVAL, self.tick)

    # The server and its clients

    def start(self, program):
        self.run_worker(self.switch_server(program), exclusive=True)

    async def switch_server(self, program):
        """Start this program in place of the one before; the same clients connect to it."""
        self.monitor = None
        for old in list(self.monitors):
            await asyncio.to_thread(old.close)
            self.monitors.discard(old)
        monitor = ServerMonitor(program, self.options)
        self.monitors.add(monitor)
        await asyncio.to_thread(monitor.open)
        self.monitor = monitor
        if not monitor.ended:
            host, port = monitor.server.address
            self.roster.reconnect(("127.0.0.1" if monitor.host == "0.0.0.0" else host, port))
            self.show_address()

    def show_address(self):
        """Show where programs of others find the server, if they can."""
        host, port = self.monitor.host, self.monitor.port
        self.query_one("#address").display = not host.startswith("127.")
        if host == "0.0.0.0":
            host = min(own_addresses(), key=lambda one: one.startswith("127."))
        warning = f"ANYONE ON THIS NETWORK CAN CONNECT: {host}:{port}"
        self.query_one("#warning").update(Text(warning, style=panels.BAD))
        client = f"python3 clients/client.py --host {host} --port {port}"
        self.query_one("#how").update(f"nc {host} {port}   or   {client}")

    def tick(self):
        """Move the clients, read how the server is, and draw."""
        if self.query_one_optional("#keys") is None:  # the screen is being taken down
            return
        for client in list(self.roster.scripted.values()):
            client.move()
        if monitor := self.monitor:
            if not monitor.ended:
                monitor.refresh()
            self.rows = self.roster.rows(monitor.connections, monitor.said)
        self.draw()

    # What is drawn

    def draw(self):
        self.write("keys", Content(legend(self.BINDINGS, self.size.width)))
        monitor, chosen = self.monitor, self.roster.chosen
        if not monitor:
            self.write("title", Content("the server starts …"))
            self.write("where", Content(""))
            return
        self.draw_head()
        width, height = self.room("source")
        if monitor.ended:
            title, rows = "the server has ended", panels.failure(monitor, width, height)
        else:
            title = f"{monitor.program.parent.name}/{monitor.program.name}"
            rows = panels.source(monitor, self.roster.names, height)
        self.fill("source", title, rows)
        width, height = self.room("kernel")
        rows = panels.queue(monitor, self.rows, width)
        room = height - len(rows)
        shown = self.roster.visible(self.rows, min(room - 2, self.room("clients")[1]))
        connected = [row for row in shown if row.connection]
        left_out = sum(row.connection is not None for row in self.rows) - len(connected)
        rows += panels.connections(connected, left_out, chosen, width, room, monitor.time_wait)
        self.fill("kernel", "the kernel's side", [] if monitor.ended else rows)
        rows = panels.clients(shown, self.rows, chosen, self.room("clients")[1])
        self.fill("clients", "the clients", rows)

    def draw_head(self):
        """Write which model it is, where it listens, and what it costs."""
        monitor, (colour, _) = self.monitor, self.styles_of[self.monitor.name]
        for part in map(self.query_one, ("#head", "#title", "#where")):
            part.styles.background, part.styles.color = colour, text_on(colour)
        where = "ENDED" if monitor.ended else "%s:%d" % monitor.server.address
        if not monitor.ended and monitor.stepper.session.paused:
            where = "LINE BY LINE"
        self.write("where", Content(where))
        title, width = f"{monitor.name}: {monitor.sentence}", self.size.width - len(where) - 4
        if cell_len(title) > width:
            title = f"{monitor.name}: {monitor.sentence.partition(':')[0]}"
        self.write("title", Content(printable(title)))
        used = monitor.used
        family = f"processes {used['processes']}, " if used["processes"] > 1 else ""
        numbers = f"{family}threads {used['threads']}, descriptors {used['descriptors']}"
        cost = f"cost: {numbers}, resident {used['resident'] / 2**20:.1f} MiB with the tracer"
        self.write("cost", Content("" if monitor.ended else cost))

    def room(self, panel):
        """Return the (columns, rows) of a panel."""
        return self.query_one(f"#{panel}").content_size

    def fill(self, panel, title, rows):
        self.write(panel, self.text(rows), Content(printable(title)))

    def write(self, panel, content, title=None):
        """Write on a panel, unless it shows that already: to lay out and draw costs CPU."""
        if self.written.get(panel) != (content, title):
            self.written[panel], one = (content, title), self.query_one(f"#{panel}")
            one.border_title = title
            one.update(content, layout=panel in ("where", "keys"))

    def text(self, rows):
        """Return rows of (text, style) as a Text."""
        (colour, _), text = self.styles_of[self.monitor.name], Text()
        own = f"bold {text_on(colour)} on {colour}"
        for row in rows:
            for part, style in row:
                text.append(printable(part), own if style == panels.MODEL else style)
            text.append("\n")
        return text

    def notice(self, text):
        """Show the teacher a text for a moment, in place of the one before."""
        self.clear_notifications()
        self.notify(text, timeout=NOTICE)

    # The keys

    def chosen(self):
        """Return the chosen client; None, and a notice, if there is none that keys control."""
        client, label = self.roster.chosen_client(), self.roster.chosen
        if label and not client:
            self.notice(f"{label} is an external client: only its own program controls it")
        elif not client:
            self.notice("choose a client first: ↑ ↓, or its number")
        return client

    def action_add(self, count):
        if not self.monitor or self.monitor.ended:
            self.notice("no server is running")
            return
        if len(self.roster.scripted) == MOST:
            self.notice(f"{MOST} clients are enough")
        elif count > self.monitor.limit:  # or it would look as if the model could not serve them
            limit = self.monitor.limit
            self.notice(f"{count} at once; the accept queue holds {limit}: --backlog 64")
        self.roster.add(count)

    def action_choose(self, step):
        self.roster.choose_next(step)

    def action_choose_number(self, number):
        if number in self.roster.scripted:
            self.roster.choose(f"client {number}")

    def action_scroll(self, direction):
        page = max(1, min(self.room("kernel")[1] - 5, self.room("clients")[1] - 2))
        self.roster.offset = max(0, self.roster.offset + direction * page)

    def action_send(self):
        client = self.chosen()
        if client and not client.send():
            self.notice(f"{client.label} is {client.state}: one message at a time")

    def action_toggle_reading(self):
        if client := self.chosen():
            client.toggle_reading()

    def action_leave(self, reset):
        if client := self.chosen():
            self.action_choose(-1 if client.number == max(self.roster.scripted) else 1)
            del self.roster.scripted[client.number]
            client.leave(reset)

    def action_empty(self):
        self.roster.empty()

    def action_step(self):
        if self.monitor and not self.monitor.ended:
            self.monitor.stepper.toggle()

    def action_advance(self, lines):
        """Let the thread of the chosen client run, or else another one that is stopped."""
        stepper = self.monitor and not self.monitor.ended and self.monitor.stepper
        if not stepper or not stepper.session.paused:
            self.notice("w first: then the server goes line by line")
        elif not stepper.advance(self.roster.chosen_name(), lines):
            self.notice("each thread sleeps in a call: let a client do something")

    def action_start(self, step):
        """Start the model that is step places further on; the same clients connect to it."""
        if self.monitor:
            place = self.programs.index(self.monitor.program) + step
            self.start(self.programs[place % len(self.programs)])

    def export_screenshot(self, **options):
        """Return the screen as SVG that names no remote fonts."""
        return re.sub(r"@font-face \{.*?\}", "", super().export_screenshot(**options), flags=re.S)

    def end(self):
        self.roster.empty()
        for monitor in self.monitors:  # one may have been about to open
            monitor.close()


def legend(bindings, width):
    """Return what each key does, in lines of at most width columns; none ends within a phrase."""
    phrases = [f"{one.key_display or one.key} {one.description}" for one in bindings if one.show]
    return textwrap.fill("  ".join(it.replace(" ", "\N{NO-BREAK SPACE}") for it in phrases), width)
