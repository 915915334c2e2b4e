"""The moving picture of the front page: one scenario at all servers side by side, as an SVG.

It moves by CSS alone, so that it plays where no script may run. It begins at the moment that shows
which clients are served. Printed, or without motion, it stays there. web/front.svg.j2 draws it.
"""

import itertools
from pathlib import Path

from clients.console.palette import styles, text_on
from clients.trace.page import ON_DARK, render

WEB = Path(__file__).with_name("web")
FRONT = {WEB / "front.svg": False, WEB / "front-dark.svg": True}  # for a light page, a dark one
SCENARIO, STILL = "two", 3  # which is shown, and the action whose result begins the picture
LEAD, ACTION, HOLD = 1.0, 3.6, 2.4  # seconds before the first action, for each, and of a result
PYTHON_NAMES = {"accept4": "accept", "recvfrom": "recv", "epoll_wait": "epoll.poll"}
BUSY = 0.75  # the share of an action in which something moves


def draw(bundle, is_dark=False):
    """Return the picture of the scenario in a Bundle, the text of an SVG."""
    actions = bundle["scenarios"][SCENARIO]["actions"]
    times = [LEAD + ACTION * n + HOLD * (n >= STILL) for n in range(len(actions) + 1)]
    times = [0.0, *times[:-1], times[-1] + HOLD]  # at which each action begins, and the end
    columns = []
    for name, (colour, _) in styles(bundle["programs"]).items():
        events, program = bundle["recordings"][SCENARIO][name], bundle["programs"][name]
        frames = [(at, frame(one, program["lines"])) for at, one in timed(events, times)]
        parts = [[(at, {part: one[part]}) for at, one in frames] for part in frames[0][1]]
        paper = ON_DARK.get(colour, colour) if is_dark else colour
        column = {"name": name, "paper": paper, "ink": text_on(paper)}
        column["scenes"] = [one for part in parts for one in scenes(part, times[-1])]
        columns.append(column | {"verdict": verdict(events, actions, times)})
    return render(
        "front.svg.j2",
        columns=columns,
        actions=actions,
        timeline=list(itertools.pairwise(times)),
        is_dark=is_dark,
        total=times[-1],
        still=times[STILL] + ACTION * BUSY,
    )


def timed(events, times):
    """Return [(second, event), ...]: the events of an action follow one another evenly."""
    found = []
    for action, begin in enumerate(times[:-1]):
        mine = [event for event in events if event["action"] == action]
        length = ACTION * BUSY if action else 0
        found += [(begin + length * n / len(mine), event) for n, event in enumerate(mine)]
    return found


def frame(event, lines):
    """Return what one event shows of a server: its threads and its two clients."""
    threads = []
    for thread in event["threads"]:
        code = lines[thread["line"] - 1].split("  #")[0].strip()
        name = thread["name"] if thread["name"] == "main" else f"thread of {thread['name']}"
        call = PYTHON_NAMES.get(thread["call"], thread["call"])
        text = f"{name}: {f'blocked in {call}()' if call else 'running'}"
        code = code if len(code) < 36 else code[:34] + "…"
        threads.append({"text": text, "runs": not thread["call"], "code": code})
    rows = event["kernel"]["connections"]
    queue = [row["client"] for row in rows if row["queued"]]
    found = {"first": threads[:1], "others": threads[1:3], "queue": queue}
    found |= {"client 1": [], "client 2": []}
    for row, client in zip(rows, event["clients"], strict=True):
        place = "in the queue" if row["queued"] else f"descriptor {row['fd']}"
        kind = "dim" if client["left"] else "wait" if row["queued"] else "good"
        card = {"number": row["client"], "place": client["left"] or place, "kind": kind}
        card |= {name: client[name][2:-1] for name in ("sent", "received")}
        found[f"client {row['client']}"] = [card]
    return found


def scenes(frames, total):
    """Return [(begin, end, frame), ...] in seconds, without repetitions."""
    runs = [(next(run)[0], one) for one, run in itertools.groupby(frames, lambda pair: pair[1])]
    ends = [begin for begin, _ in runs[1:]] + [total]
    found = zip(runs, ends, strict=True)
    return [(begin, end, one) for (begin, one), end in found if any(one.values())]


def verdict(events, actions, times):
    """Return when the second client is served: the seconds from its message to then, and a text."""
    asked, answered = (
        next(event for event in events if any(one[what] != "b''" for one in event["clients"][1:]))
        for what in ("sent", "received")
    )
    seconds = {id(event): at for at, event in timed(events, times)}
    at_once = asked["action"] == answered["action"]
    after = f"waits until client {actions[answered['action'] - 1]}"  # "1 leaves"
    text = "is served at once" if at_once else after
    found = {"asked": seconds[id(asked)], "answered": seconds[id(answered)]}
    return found | {"at_once": at_once, "text": f"client 2 {text}"}
