"""The screen, the keys and the cast: what a teacher sees, and what each key does."""

import ast
import asyncio
import signal
import textwrap
import time

import psutil
from rich.text import Text
from textual.app import App
from textual.binding import Binding
from textual.containers import Container
from textual.widgets import Digits, Static

from clients.classroom import panels
from clients.classroom.puppets import MOST, Puppet
from clients.classroom.stage import Stage
from clients.system import kernel
from clients.system.launch import LaunchError, name_of

EVERY = 0.2  # seconds between two looks
NOTE = 4.0  # seconds for which a note to the teacher stays
COLOURS = {"01_blocking": "#D55E00", "02_threaded": "#000000", "03_epoll": "#0072B2"}
ANOTHER = "#009E73"  # a student's own model: the next colour of the palette
KEYS = "a add,f fifty,↑ ↓ 1-9 choose,s speak,r stop/start reading,l leave,x reset,p pause"
KEYS = f"{KEYS},n next model,q quit".replace(" ", "\N{NO-BREAK SPACE}").replace(",", "  ")


class Classroom(App):
    """The screen, the keys, and the cast: puppets by their numbers, in the order they came."""

    CSS = """
    #head, #cost { height: 1; }
    #head { color: white; text-style: bold; }
    #keys { height: auto; background: $surface; }
    #invitation { display: none; height: auto; }
    #body { layout: grid; grid-size: 2 2; grid-gutter: 0 1; }
    #body Static { border-top: solid $primary; height: 100%; }
    .-narrow #source { column-span: 2; }
    .-wide #source { row-span: 2; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = [
        ("a", "add(1)"),
        ("f", "add(50)"),
        ("up", "choose(-1)"),
        ("down", "choose(1)"),
        *((str(number), f"choose_number({number})") for number in range(1, 10)),
        ("s", "speak"),
        ("r", "stop_reading"),
        ("l", "go('leave')"),
        ("x", "go('reset')"),
        ("p", "pause"),
        ("n", "next_model"),
        Binding("q,ctrl+c", "quit", priority=True),
    ]

    def __init__(self, programs, host, options):
        super().__init__()
        self.programs, self.host, self.options = programs, host, options
        self.stage, self.view, self.cast, self.guests = None, None, {}, {}
        self.chosen, self.came, self.paused = None, 0, False
        self.failure, self.said = "", ("", 0.0)

    def compose(self):
        yield Static(id="head")
        yield Container(Digits(id="large"), Static(id="how"), id="invitation")
        with Container(id="body"):
            yield Static(id="source")
            yield Static(id="kernel")
            yield Static(id="clients")
        yield Static(id="cost")
        yield Static(id="keys")

    def on_mount(self):
        self.theme = "textual-light"  # for the projector, and for a model whose colour is black
        for number in (signal.SIGHUP, signal.SIGTERM):  # a closed terminal; kill
            asyncio.get_running_loop().add_signal_handler(number, self.exit)

    def on_ready(self):
        """Begin when the panels are there to be written on."""
        self.run_worker(self.enter(self.programs[0]), exclusive=True)
        self.set_interval(EVERY, self.tick)

    async def enter(self, program):
        """Bring this program on the stage, with the cast that is there."""
        before, self.stage, self.view = self.stage, None, None
        if before:
            await asyncio.to_thread(before.close)
        stage, self.failure = Stage(program, *self.options), ""
        self.query_one("#head").styles.background = COLOURS.get(name_of(program), ANOTHER)
        try:
            await asyncio.to_thread(stage.open)
        except LaunchError as error:
            self.failure = str(error)
        except asyncio.CancelledError:  # the teacher has quit meanwhile
            stage.close()
            raise
        self.stage, self.guests = stage, {}
        if not self.failure:
            self.recast(list(self.cast.values()))
            self.invite()

    def recast(self, cast):
        """Let the same clients come in the same order, and do again what they did."""
        self.cast = {}
        for old in cast:
            old.leave()
            puppet = self.cast[old.number] = Puppet(old.number, self.address())
            if old.times:
                puppet.speak()
            if not old.reading:
                puppet.stop_reading()

    def address(self):
        """Return where the puppets connect to: this machine, whatever the server's host is."""
        host, port = self.stage.server.address
        return ("127.0.0.1" if host == "0.0.0.0" else host), port

    def invite(self):
        """Show in large letters where the students' programs find the server, if they may."""
        if self.host == "127.0.0.1":
            return
        host, port = reachable(self.host), self.stage.server.address[1]
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
        if self.stage and not self.failure:
            self.view = self.stage.look()
            self.meet_guests()
            self.view.get("connections", []).sort(key=self.place)
        self.draw()

    def meet_guests(self):
        """Give each client that came by itself a name."""
        ours = {puppet.name for puppet in self.cast.values()}
        for row in self.view.get("connections", []):
            if row["client"] not in ours and row["ours"]:
                self.guests.setdefault(
                    row["client"], (f"g{len(self.guests) + 1}", time.monotonic())
                )

    def called(self, address):
        """Return what the client with this "host:port" is called on the screen."""
        for puppet in self.cast.values():
            if puppet.name == address:
                return f"client {puppet.number}"
        return self.guests.get(address, (address,))[0]

    def place(self, row):
        """Return by what the connections are sorted: the cast first, each in the order it came."""
        name = self.called(row["client"])
        return name[0] == "g", int("".join(filter(str.isdigit, name)))

    def draw(self):
        """Write every panel anew; Textual sends to the terminal only what has changed."""
        ended = self.failure or (self.view or {}).get("ended")
        self.draw_head(ended)
        if ended:
            words = ended.splitlines()
            self.fill("source", "the server has ended", lambda *at: panels.last(words, *at))
            self.fill("kernel", "the kernel's side", lambda *at: [])
        elif self.view:
            self.draw_server()
        note = self.said[0] if time.monotonic() < self.said[1] else "the clients"
        self.fill("clients", note, self.client_rows)

    def draw_head(self, ended):
        """Write which model it is, where it listens, and what it costs."""
        stage, width = self.stage, self.size.width
        self.query_one("#keys").update(textwrap.fill(KEYS, width))
        if not stage:
            self.query_one("#head").update(" the server starts …")
            return
        where = "%s:%d" % stage.server.address if not self.failure else ""
        state = "PAUSED" if self.paused else "ENDED" if ended else where
        title = f" {name_of(stage.program)}: {first_sentence(stage.program)}"
        title = panels.fit(title, width - len(state) - 2)
        self.query_one("#head").update(Text(f"{title:<{width - len(state) - 2}} {state}"))
        if not ended and self.view:
            cost = self.view["cost"]
            text = (
                f" cost: threads {cost['threads']}, descriptors {cost['descriptors']}, "
                f"resident {cost['rss'] / 2**20:.1f} MiB with the observer"
            )
            self.query_one("#cost").update(panels.fit(text, width))

    def draw_server(self):
        """Write the program with its threads, and the kernel's side."""
        view, stage = self.view, self.stage
        self.fill(
            "source",
            f"{stage.program.parent.name}/{stage.program.name}",
            lambda width, height: panels.source(
                view["threads"], stage.lines, stage.anchors, self.called, width, height
            ),
        )
        limit = kernel.queue_limit(backlog(self.options))
        self.fill(
            "kernel",
            "the kernel's side",
            lambda width, height: panels.kernel_side(view, limit, self.called, width, height),
        )

    def client_rows(self, width, height):
        """Return the rows of the clients' panel."""
        rows = {row["client"]: row for row in (self.view or {}).get("connections", [])}
        guests = [
            panels.guest(who, at, rows[at], self.stage.said.get(at), time.monotonic() - since)
            for at, (who, since) in self.guests.items()
            if at in rows
        ]
        cast = list(self.cast.values())
        return panels.clients(cast, guests, self.chosen, width, height)

    def fill(self, panel, title, rows):
        """Write rows(width, height) on a panel."""
        widget = self.query_one(f"#{panel}")
        widget.border_title = title
        width, height = widget.content_size
        colour = COLOURS.get(name_of(self.stage.program), ANOTHER) if self.stage else ANOTHER
        text = Text(no_wrap=True)
        for line, style in rows(width, height)[:height]:
            text.append(f"{line}\n", f"bold white on {colour}" if style == "mark" else style)
        widget.update(text)

    def tell(self, note):
        """Tell the teacher something for a moment."""
        self.said = (note, time.monotonic() + NOTE)

    def puppet(self):
        """Return the chosen puppet; None, and a note, if there is none."""
        if self.chosen not in self.cast:
            self.tell("choose a client first: ↑ ↓, or its number")
        return self.cast.get(self.chosen)

    def action_add(self, count):
        if not self.view or self.view["ended"]:
            self.tell("there is no server yet, or no more")
            return
        count = min(count, MOST - len(self.cast))
        for _ in range(count):
            self.came += 1
            self.cast[self.came] = Puppet(self.came, self.address())
        if count:
            self.chosen = self.came
        else:
            self.tell(f"{MOST} clients are enough")

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
        if self.stage:
            self.stage.close()


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


def first_sentence(program):
    """Return the first line of the program's docstring, which says the model in one sentence."""
    doc = ast.get_docstring(ast.parse(program.read_text())) or ""
    return doc.partition("\n")[0]


def backlog(options):
    """Return the backlog that a server gets with these options."""
    return int(options[options.index("--backlog") + 1])
