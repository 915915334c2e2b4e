"""The moving picture of the front page: one story at all servers side by side, as an animated SVG.

It moves by CSS alone, so that it plays where no script may run. Printed, or for readers who want no
motion, it is still: the moment in which one sees who is served.
"""

from html import escape
from pathlib import Path

from clients.console.palette import styles

WEB = Path(__file__).with_name("web")
FRONT = WEB / "front.svg", WEB / "front-dark.svg"  # for a light page, and for a dark one
STORY, STILL = "two", 3  # which is shown, and the action after which the still picture stands
LEAD, ACT, HOLD = 1.0, 3.6, 2.4  # seconds before the first action, for each, and after the last
BUSY = 0.75  # the share of an action in which something moves
WIDTH, HEIGHT, COLUMN, GAP = 960, 560, 312, 12
IDEAS = {
    "01_blocking": "one client at a time",
    "02_threaded": "a thread for each client",
    "03_epoll": "one thread, an event loop",
}
LIGHT = {"ground": "#ffffff", "box": "#f4f5f7", "line": "#c8ccd2", "ink": "#1c1e21"}
LIGHT |= {"dim": "#5f6670", "wait": "#b00020", "good": "#1a7f37", "black": "#000000"}
DARK = {"ground": "#0d1117", "box": "#161b22", "line": "#3d444d", "ink": "#e6edf3"}
DARK |= {"dim": "#9198a1", "wait": "#ff7b72", "good": "#3fb950", "black": "#ffffff"}
CSS = """
text{font:15px Verdana,'DejaVu Sans',sans-serif;fill:%(ink)s}
.code{font:13px 'DejaVu Sans Mono',Menlo,Consolas,monospace}
.dim{fill:%(dim)s}.wait{fill:%(wait)s}.good{fill:%(good)s}.b{font-weight:bold}.m{text-anchor:middle}
circle{fill:%(ink)s}
.f{visibility:hidden}.still{visibility:visible}
"""


class Film:
    """What collects the things that come and go. seconds: how long it is."""

    def __init__(self, seconds):
        self.seconds, self.things, self.times = seconds, [], {}

    def show(self, scenes, still):
        """Add what is at one place: scenes are (second, SVG), each until the next begins.

        still: the second of the still picture.
        """
        merged = [(at, svg) for (at, svg), before in zip(scenes, [None, *scenes], strict=False)
                  if not before or before[1] != svg]  # fmt: skip
        ends = [at for at, _ in merged[1:]] + [self.seconds]
        for (begin, svg), end in zip(merged, ends, strict=True):
            if len(merged) == 1:
                self.things.append(svg)
            elif svg:
                name = self.times.setdefault((begin, end), f"k{len(self.times)}")
                kind = "f still" if begin <= still < end else "f"
                self.things.append(f'<g class="{kind} {name}">{svg}</g>')

    def css(self):
        rules = []
        for (begin, end), name in self.times.items():
            first, last = (f"{100 * at / self.seconds:.2f}%" for at in (begin, end))
            hidden = "" if begin <= 0 else "0%{visibility:hidden}"
            rules.append(
                f"@keyframes {name}{{{hidden}{first}{{visibility:visible}}"
                f"{last},100%{{visibility:hidden}}}}.{name}{{animation:{name} {self.seconds}s "
                "infinite step-end}"
            )
        motion = "screen and (prefers-reduced-motion:no-preference)"
        return f"@media {motion}{{.still{{visibility:hidden}}{''.join(rules)}}}"


def draw(data, dark=False):
    """Return the picture of the story in a recording (see recording.record), the text of an SVG."""
    colours = DARK if dark else LIGHT
    acts, names = data["stories"][STORY]["acts"], list(data["recordings"][STORY])
    film = Film(LEAD + ACT * len(acts) + HOLD)
    still = LEAD + ACT * STILL - 0.1
    for column, (name, (colour, _)) in enumerate(styles(names).items()):
        colour = colours["black"] if colour == "#000000" else colour
        draw_model(film, data, name, column * (COLUMN + GAP), colour, still)
    draw_time(film, acts, still)
    words = (
        "Two clients come to three servers. The first is silent, the second says bob. "
        + " ".join(verdict(data, name) for name in names)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-4 0 {WIDTH + 8} {HEIGHT}" role="img">'
        f"<title>{escape(words)}</title><style>{CSS % colours}"
        f".box{{fill:{colours['box']};stroke:{colours['line']}}}"
        f".bar{{stroke:{colours['line']};stroke-width:4}}{film.css()}</style>"
        f'<rect x="-4" width="{WIDTH + 8}" height="{HEIGHT}" fill="{colours["ground"]}"/>'
        f"{''.join(film.things)}</svg>\n"
    )


def verdict(data, name):
    """Return when the second client was answered, from the recording: a sentence."""
    steps = data["recordings"][STORY][name]
    asked = next(step["act"] for step in steps if seen(data, step, 2)["said"] != "b''")
    told = next(step["act"] for step in steps if seen(data, step, 2)["heard"] != "b''")
    act = data["stories"][STORY]["acts"][told - 1]
    when = "is answered at once" if told == asked else f"waits until: {act}"
    return f"{name}: client 2 {when}."


def seen(data, step, client):
    """Return what a client has said and heard by a step."""
    nothing = {"said": "b''", "heard": "b''", "left": ""}
    return next((row for row in rows(data, step["clients"]) if row["client"] == client), nothing)


def rows(data, place):
    """Return the rows that stand at a place of the pool."""
    return [data["pool"][one] for one in data["pool"][place]]


def connections(data, step):
    return [data["pool"][one] for one in data["pool"][step["kernel"]]["connections"]]


def text(x, y, words, kind=""):
    return f'<text x="{x:.0f}" y="{y}" class="{kind}">{escape(words)}</text>'


def timed(steps, acts):
    """Return [(second, step), ...]: the steps of an action follow one another evenly."""
    frames = []
    for act in range(acts + 1):
        mine = [step for step in steps if step["act"] == act]
        begin = LEAD + ACT * (act - 1) if act else 0
        length = ACT * BUSY if act else 0
        frames += [(begin + length * n / len(mine), step) for n, step in enumerate(mine)]
    return frames


def draw_model(film, data, name, x, colour, still):
    """Draw one server: its threads, its accept queue, its two clients."""
    lines = data["programs"][name]["lines"]
    frames = timed(data["recordings"][STORY][name], len(data["stories"][STORY]["acts"]))
    film.things.append(
        f'<text x="{x + 6}" y="26" class="b" style="font-size:19px;fill:{colour}">{name}</text>'
        + text(x + 6, 47, IDEAS.get(name, ""), "dim")
        + f'<rect x="{x}" y="58" width="{COLUMN}" height="186" rx="6" class="box"/>'
        + text(x + 10, 78, "the program: where its threads stand", "dim")
        + f'<rect x="{x}" y="254" width="{COLUMN}" height="92" rx="6" class="box"/>'
        + text(x + 10, 275, "the kernel: accept queue", "dim")
        + "".join(
            f'<rect x="{x + 10 + 30 * n}" y="286" width="26" height="26" rx="4" class="box"/>'
            for n in range(6)
        )
        + text(x + 10, 334, "one place for each that waits", "dim")
    )
    for place in range(3):
        scenes = [(at, thread(data, step, lines, place, x, colour)) for at, step in frames]
        film.show(scenes, still)
    for client in (1, 2):
        film.show([(at, queued(data, step, client, x)) for at, step in frames], still)
        film.show([(at, guest(data, step, client, x)) for at, step in frames], still)
    film.show(answered(data, name, frames, x), still)


def thread(data, step, lines, place, x, colour):
    """Return where the thread of this row of the program's box stands."""
    threads = rows(data, step["threads"])
    if place >= len(threads):
        return ""
    row, y = threads[place], 104 + 50 * place
    runs = row["call"] is None
    call = {"accept4": "accept()", "recvfrom": "recv()", "sendto": "send()"}.get(row["call"])
    does = "runs" if runs else f"sleeps in {call or 'epoll.poll()'}"
    label = row["name"] if row["name"] == "main" else f"its thread for {row['name']}"
    code = lines[row["line"] - 1].split("  #")[0].strip()
    code = code if len(code) < 36 else code[:34] + "…"
    mark = (
        f'<rect x="{x + 8}" y="{y + 7}" width="{COLUMN - 16}" height="20" rx="3" fill="{colour}" '
    )
    ink = f' style="fill:{"#ffffff" if colour != "#ffffff" else "#000000"}"' if runs else ""
    return (
        text(x + 10, y, f"{label}: {does}", "" if runs else "dim")
        + f'{mark}opacity="{1 if runs else 0.15}"/>'
        + f'<text x="{x + 12}" y="{y + 22}" class="code"{ink}>{escape(code)}</text>'
    )


def connection(data, step, client):
    """Return the kernel's row of a client at a step, or None before it has come."""
    return next((row for row in connections(data, step) if row["client"] == client), None)


def disc(x, y, client, kind):
    """Return a client as a disc with its number."""
    return (
        f'<circle cx="{x:.0f}" cy="{y}" r="12" class="{kind}"/>'
        f'<text x="{x:.0f}" y="{y + 5}" class="m b" style="fill:#fff">{client}</text>'
    )


def queued(data, step, client, x):
    """Return the disc in the accept queue of a client that waits there."""
    waiting = [row["client"] for row in connections(data, step) if row["queued"]]
    if client not in waiting:
        return ""
    return disc(x + 23 + 30 * waiting.index(client), 299, client, "wait")


def guest(data, step, client, x):
    """Return a client below the kernel's box: where its connection is, what it said and heard."""
    row, told = connection(data, step, client), seen(data, step, client)
    middle = x + COLUMN * (client * 2 - 1) / 4
    if row is None:
        return ""
    waits = told["said"] != "b''" and told["heard"] == "b''"
    here = (
        "left" if told["left"] else "in the queue" if row["queued"] else f"descriptor {row['fd']}"
    )
    said, heard = (told[what][2:-1] for what in ("said", "heard"))
    kind = "dim" if told["left"] else "wait" if row["queued"] else "good"
    parts = [disc(middle, 374, client, kind), text(middle, 406, here, f"m {kind}")]
    parts.append(text(middle, 428, f"says {said}" if said else "silent", "m" if said else "m dim"))
    if heard or waits:
        answer = f"hears {heard}" if heard else "waits …"
        parts.append(text(middle, 450, answer, "m good b" if heard else "m wait b"))
    return "".join(parts)


def answered(data, name, frames, x):
    """Return the scenes of the verdict below a server: nothing, then when it answered."""
    words = verdict(data, name).partition(": ")[2].rstrip(".")
    asked, told = (
        next(at for at, step in frames if seen(data, step, 2)[what] != "b''")
        for what in ("said", "heard")
    )
    kind = "m b good" if words.endswith("at once") else "m b wait"
    waits = "" if "good" in kind else text(x + COLUMN / 2, 480, "client 2 waits", "m b wait")
    return [(0, ""), (asked, waits), (told, text(x + COLUMN / 2, 480, words, kind))]


def draw_time(film, acts, still):
    """Draw the time line: a mark for each action, the present one in large letters."""
    left, right, y = 60, WIDTH - 60, 512
    film.things.append(f'<line x1="{left}" y1="{y}" x2="{right}" y2="{y}" class="bar"/>')
    scenes = {n: [] for n in range(len(acts))}
    for now in range(len(acts) + 1):
        begin = LEAD + ACT * (now - 1) if now else 0
        for n, act in enumerate(acts):
            x = left + (right - left) * (n + 0.5) / len(acts)
            present, past = n + 1 == now, n + 1 < now
            kind = "m b" if present else "m dim"
            dot = f'<circle cx="{x:.0f}" cy="{y}" r="{9 if present else 5}" '
            dot += f'class="{"" if present or past else "dim"}"/>'
            scenes[n].append((begin, dot + text(x, 542, act, kind)))
    for one in scenes.values():
        film.show(one, still)
