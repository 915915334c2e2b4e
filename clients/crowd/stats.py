"""What the data of a crowd says: in which state each client was when, and the scoreboard."""

from clients.crowd.simulation import ENDS

AFTER = {  # what happened: the state that it began
    "connects": "connecting",
    "connected": "waiting",
    "asked": "waiting",
    "answered": "thinking",
}


def intervals(client, until):
    """Return [(state, began, ended), ...] of one client of the data, without gaps.

    state: "connecting", "waiting", "thinking", "silent" or "gone"; until: seconds at which a
    picture ends, for the state in which the client is then.
    """
    after = AFTER | {"answered": "silent"} if client["silent"] else AFTER
    ends = [*client["events"][1:], (until, None)]
    return [
        (after.get(what, "gone"), began, ended)
        for (began, what), (ended, _) in zip(client["events"], ends, strict=False)
    ]


def state(client, until):
    """Return the state of a client, or how it ended, and since how many seconds that is so."""
    if not client["events"]:
        return "to come", 0.0
    name, began, _ = intervals(client, until)[-1]
    return client["events"][-1][1] if name == "gone" else name, until - began


def scoreboard(data):
    """Return the counts of a crowd, which add up.

    came = left + cut off + failed; asked = answered + still waiting + lost: questions whose
    connection failed; never served: clients without one answer.
    """
    events = [[what for _, what in client["events"]] for client in data["clients"]]
    lives = [steps for steps in events if steps]
    unanswered = [steps[-1] for steps in lives if steps[-2:-1] == ["asked"]]
    return {
        "came": len(lives),
        **{end: sum(steps[-1] == end for steps in lives) for end in ENDS},
        "asked": sum(steps.count("asked") for steps in lives),
        "answered": sum(steps.count("answered") for steps in lives),
        "still waiting": unanswered.count("cut off"),
        "lost": unanswered.count("failed"),
        "never connected": sum("connected" not in steps for steps in lives),
        "never served": sum("answered" not in steps for steps in lives),
    }
