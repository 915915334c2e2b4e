"""The screen, the keys and the cast: what a teacher sees, and what each key does."""

import asyncio
import os
import signal
import textwrap
import threading
import time

import psutil
from rich.text import Text
from textual.app import App
from textual.binding import Binding
from textual.containers import Container, Horizontal
from textual.content import Content
from textual.widgets import Digits, Static

from clients.classroom import panels
from clients.classroom.scripted_clients import MOST, Puppet
from clients.classroom.server_monitor import Stage
from clients.console.palette import looks
from clients.console.printable import printable
from clients.system.processes import name_of

EVERY = 0.2  # seconds between two looks
GRACE = 5.0  # seconds that it may take to end after a signal
NOTE = 4.0  # seconds for which a note to the teacher stays
SLEEPS = "each thread sleeps in a call: let a client do something"


class Classroom(App):
    """The screen, the keys, and the cast: puppets by their numbers, in the order they came.

    programs: the paths of the servers, the first to begin with. options: those of their command
    line, {"host": "127.0.0.1", "port": 0, "backlog": 5, ...}.
    """

    CSS = """
    Static { text-wrap: nowrap; text-overflow: ellipsis; }
    #head { height: 1; color: white; text-style: bold; }
    #title { width: 1fr; }
    #where { width: auto; padding: 0 1; }
    #title, #cost { height: 1; padding: 0 0 0 1; }
    #keys { height: auto; background: $surface; }
    ToastRack { margin-bottom: 3; }
    Toast { width: auto; max-width: 100%; padding: 0 1; }
    #invitation { display: none; height: auto; }
    #body { layout: grid; grid-size: 2 2; grid-gutter: 0 1; }
    #body Static { border-top: solid $primary; height: 100%; }
    .-narrow #source { column-span: 2; }
    .-wide #source { row-span: 2; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = [
        Binding("a", "add(1)", "add"),
        Binding("f", "add(50)", "fifty"),
        Binding("up", "choose(-1)", "choose", key_display="↑ ↓ 1-9"),
        Binding("down", "choose(1)", show=False),
        *(Binding(str(n), f"choose_number({n})", show=False) for n in range(1, 10)),
        Binding("s", "speak", "speak"),
        Binding("r", "stop_reading", "stop/start reading"),
        Binding("l", "go('leave')", "leave"),
        Binding("x", "go('reset')", "reset"),
        Binding("w", "walk", "line by line/run"),
        Binding("space", "line", "a line"),
        Binding("c", "call", "to a call"),
        Binding("p", "pause", "pause"),
        Binding("n", "next_model", "next model"),
        Binding("q,ctrl+c", "quit", "quit", key_display="q", priority=True),
    ]

    def __init__(self, programs, options):
        super().__init__()
        self.programs, self.options = programs, options
        self.looks = looks([name_of(program) for program in programs])
        self.stage, self.stages, self.paused, self.told = None, [], False, ""
        self.cast, self.came, self.chosen = {}, 0, None
        # {"host:port": what that client is called}, in the order they came; those of them that
        # nobody here conducts came at {"host:port": time.monotonic()}.
        self.names, self.guests = {}, {}

    def compose(self):
        with Horizontal(id="head"):
            yield Static(id="title", markup=False)
            yield Static(id="where")
        with Container(id="invitation"):
            yield Digits(id="large")
            yield Static(id="how")
        with Container(id="body"):
            yield Static(id="source")
            yield Static(id="kernel")
            yield Static(id="clients")
        yield Static(id="cost")
        yield Static(id="keys")

    def on_mount(self):
        self.theme = "textual-light"  # for the projector, and for a model whose colour is black
        for number in (signal.SIGHUP, signal.SIGTERM):  # a closed terminal; kill
            signal.signal(number, self.leave)  # asyncio's handlers wait where its loop waits

    def leave(self, *_):
        """End after a signal, also where a terminal that takes nothing more holds the drawing up.

        Then this process just stops, and the watcher ends the servers.
        """
        asyncio.get_running_loop().call_soon_threadsafe(self.exit)
        last = threading.Timer(GRACE, os._exit, [1])
        last.daemon = True  # it waits for nobody
        last.start()

    def on_unmount(self):
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)

    def on_ready(self):
        """Begin when the panels are there to be written on."""
        self.run_worker(self.enter(self.programs[0]), exclusive=True)
        self.set_interval(EVERY, self.tick)

    async def enter(self, program):
        """Bring this program on the stage, with the cast that is there."""
        before, self.stage = self.stage, None
        if before:
            await asyncio.to_thread(before.close)
        stage = Stage(program, self.options)
        self.stages.append(stage)
        self.query_one("#head").styles.background = self.looks[stage.name][0]
        await asyncio.to_thread(stage.open)
        self.stage = stage
        if not stage.ended:
            self.recast()
            self.invite()

    def recast(self):
        """Let the same clients come in the same order, and do again what they did."""
        cast, self.cast, self.names, self.guests = self.cast, {}, {}, {}
        for old in cast.values():
            old.leave()
            puppet = self.engage(old.number)
            if old.times:
                puppet.speak()
            if not old.reading:
                puppet.stop_reading()

    def engage(self, number):
        """Let a puppet with this number come."""
        puppet = self.cast[number] = Puppet(number, self.address())
        self.names[puppet.name] = f"client {number}"
        return puppet

    def address(self):
        """Return where the puppets connect to: this machine, whatever the server's host is."""
        host, port = self.stage.server.address
        return ("127.0.0.1" if host == "0.0.0.0" else host), port

    def invite(self):
        """Show in large letters where the students' programs find the server, if they may."""
        if self.options["host"] == "127.0.0.1":
            return
        host, port = reachable(self.options["host"]), self.stage.server.address[1]
        self.query_one("#invitation").styles.display = "block"
        self.query_one("#large").update(f"{host}:{port}")
        self.query_one("#how").update(
            f"nc {host} {port}   or   python3 clients/client.py --host {host} --port {port}   "
            "ANYONE ON THIS NETWORK CAN CONNECT"
        )

    def tick(self):
        """Let the puppets move, look, and draw."""
        if not self.query("#keys"):  # the screen is being taken down
            return
        for puppet in list(self.cast.values()):
            puppet.move()
        if self.paused:
            return
        if self.stage and not self.stage.ended:
            self.stage.look()
            self.meet_guests()
            if self.told == SLEEPS and self.stage.walk.tracee.stopped():  # it is no longer true
                self.clear_notifications()
                self.told = ""
        self.draw()

    def meet_guests(self):
        """Give each client that came by itself a name, and sort the connections: the cast first."""
        for row in self.stage.connections:
            if row.ours and row.client not in self.names:
                self.guests[row.client] = time.monotonic()
                self.names[row.client] = f"g{len(self.guests)}"
        came = {client: place for place, client in enumerate(self.names)}
        self.stage.connections.sort(
            key=lambda row: (row.client in self.guests, came.get(row.client, len(came)))
        )

    def draw(self):
        """Write every panel anew; Textual sends to the terminal only what has changed."""
        self.query_one("#keys").update(legend(self.BINDINGS, self.size.width))
        stage, names = self.stage, self.names
        if not stage:
            self.query_one("#title").update("the server starts …")
            self.query_one("#where").update("")
            return
        self.draw_frame()
        width, height = self.room("source")
        if stage.ended:
            rows = panels.last(stage.ended, width, height)
            self.fill("source", "the server has ended", rows)
            self.fill("kernel", "the kernel's side", [])
        else:
            title = f"{stage.program.parent.name}/{stage.program.name}"
            self.fill("source", title, panels.source(stage, names, height))
            rows = panels.kernel_side(stage, names, *self.room("kernel"))
            self.fill("kernel", "the kernel's side", rows)
        _, height = self.room("clients")
        believe = (panels.LOST, panels.HALF_OPEN)
        lost = {row.client for row in stage.connections if row.states in believe}
        cast = list(self.cast.values())
        rows = panels.clients(cast, self.guest_rows(), self.chosen, height, lost)
        self.fill("clients", "the clients", rows)

    def draw_frame(self):
        """Write which model it is, where it listens, and what it costs."""
        stage, title, where, cost = self.stage, *map(self.query_one, ("#title", "#where", "#cost"))
        title.update(printable(f"{stage.name}: {stage.sentence}"))
        walking = stage.walk and stage.walk.on
        if self.paused or stage.ended or walking:
            where.update("PAUSED" if self.paused else "ENDED" if stage.ended else "LINE BY LINE")
        else:
            where.update(Content("%s:%d" % stage.server.address))
        if not stage.ended:
            tracer = "" if stage.plain else " with the tracer"
            log = f"; {stage.dropped:,} bytes of its log not kept" if stage.dropped else ""
            cost.update(
                f"cost: threads {stage.thread_count}, descriptors {stage.descriptors}, "
                f"resident {stage.resident / 2**20:.1f} MiB{tracer}{log}"
            )

    def guest_rows(self):
        """Return the rows of the clients that came by themselves and are still there."""
        now, rows = time.monotonic(), {row.client: row for row in self.stage.connections}
        return [
            panels.guest_row(rows[at], self.names[at], self.stage.said.get(at), now - since)
            for at, since in self.guests.items()
            if at in rows
        ]

    def room(self, panel):
        """Return the (columns, rows) of a panel."""
        return self.query_one(f"#{panel}").content_size

    def fill(self, panel, title, rows):
        """Write rows on a panel: [(text, style), ...]."""
        widget, text = self.query_one(f"#{panel}"), Text()
        for line, style in rows:
            if style == "mark":
                style = f"bold white on {self.looks[self.stage.name][0]}"
            text.append(f"{printable(line)}\n", style)
        widget.border_title = Content(printable(title))
        widget.update(text)

    def tell(self, note):
        """Tell the teacher something for a moment, in place of what was told before."""
        self.clear_notifications()
        self.notify(note, timeout=NOTE)
        self.told = note

    def puppet(self):
        """Return the chosen puppet; None, and a note, if there is none."""
        if self.chosen not in self.cast:
            self.tell("choose a client first: ↑ ↓, or its number")
        return self.cast.get(self.chosen)

    def action_add(self, count):
        if not self.stage or self.stage.ended:
            self.tell("there is no server yet, or no more")
            return
        if len(self.cast) == MOST:
            self.tell(f"{MOST} clients are enough")
        elif count > self.stage.limit:  # or it would look as if this model could not carry them
            self.tell(f"{count} at once; the accept queue holds {self.stage.limit}: --backlog 64")
        for _ in range(min(count, MOST - len(self.cast))):
            self.came += 1
            self.chosen = self.engage(self.came).number

    def action_choose(self, step):
        if numbers := list(self.cast):
            place = numbers.index(self.chosen) + step if self.chosen in numbers else 0
            self.chosen = numbers[max(0, min(place, len(numbers) - 1))]

    def action_choose_number(self, number):
        if number in self.cast:
            self.chosen = number

    def action_speak(self):
        puppet = self.puppet()
        if puppet and not puppet.speak():
            self.tell(f"client {puppet.number} is {puppet.doing}: one message at a time")

    def action_stop_reading(self):
        if puppet := self.puppet():
            puppet.stop_reading()

    def action_go(self, how):
        if puppet := self.puppet():
            self.action_choose(-1 if puppet.number == max(self.cast) else 1)
            getattr(self.cast.pop(puppet.number), how)()

    def action_walk(self):
        if self.stage and self.stage.plain:
            self.tell("it is no Python program: it cannot go line by line")
        elif self.stage and not self.stage.ended:
            self.stage.walk.turn(not self.stage.walk.on)

    def action_line(self):
        self.go_on("line")

    def action_call(self):
        self.go_on("call")

    def go_on(self, how):
        """Let a thread of the server go on: the one that serves the chosen client, or the next."""
        if not (self.stage and not self.stage.ended and self.stage.walk and self.stage.walk.on):
            self.tell("w first: then the server goes line by line")
            return
        peer = self.cast[self.chosen].name if self.chosen in self.cast else None
        if not getattr(self.stage.walk, how)(peer):
            self.tell(SLEEPS)

    def action_pause(self):
        self.paused = not self.paused
        self.draw()

    def action_next_model(self):
        if self.stage:
            place = self.programs.index(self.stage.program) + 1
            self.run_worker(self.enter(self.programs[place % len(self.programs)]), exclusive=True)

    def end(self):
        """Let everybody go and end the server."""
        for puppet in self.cast.values():
            puppet.leave()
        for stage in self.stages:  # one may have been about to open
            stage.close()


def legend(bindings, width):
    """Return what each key does, in lines of at most so many columns; none ends within a phrase."""
    phrases = [f"{one.key_display or one.key} {one.description}" for one in bindings if one.show]
    whole = [phrase.replace(" ", "\N{NO-BREAK SPACE}") for phrase in phrases]
    return textwrap.fill("  ".join(whole), width)


def reachable(host):
    """Return the address by which other machines reach this one, if host means all of them."""
    if host != "0.0.0.0":
        return host
    addresses = [
        one.address
        for many in psutil.net_if_addrs().values()
        for one in many
        if one.family.name == "AF_INET"
    ]
    return next((address for address in addresses if not address.startswith("127.")), host)
