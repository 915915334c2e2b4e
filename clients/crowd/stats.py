"""Computes from a CrowdResult: the states of each client, and the summary."""

import itertools
from dataclasses import dataclass

from clients.crowd.simulation import ENDS

AFTER = {  # an event: the state that it begins
    "connects": "connecting",
    "connected": "waiting",
    "asked": "waiting",
    "answered": "thinking",
}


@dataclass(frozen=True)
class Summary:
    """came = left + cut_off + failed; asked = answered + still_waiting + lost."""

    came: int
    left: int
    cut_off: int
    failed: int
    asked: int
    answered: int
    still_waiting: int  # for an answer when they were cut off
    lost: int  # questions of which the connection failed
    never_connected: int
    unserved: int  # clients without one answer


def intervals(client, until):
    """Return [(state, began, ended), ...] of a ClientRecord, without gaps; the last ends at until.

    state: a value of AFTER, "silent" or "gone".
    """
    after = AFTER | {"answered": "silent"} if client.silent else AFTER
    events = itertools.pairwise([*client.events, (until, None)])
    return [(after.get(what, "gone"), began, ended) for (began, what), (ended, _) in events]


def state(client, until):
    """Return the state of a client, or how it ended, and for how many seconds it has been so."""
    if not client.events:
        return "to come", 0.0
    name, began, _ = intervals(client, until)[-1]
    return client.events[-1].what if name == "gone" else name, until - began


def summary(result):
    events = [[event.what for event in client.events] for client in result.clients]
    came = [whats for whats in events if whats]
    ends = [whats[-1] for whats in came]
    unanswered = [whats[-1] for whats in came if whats[-2:-1] == ["asked"]]
    return Summary(
        len(came),
        *map(ends.count, ENDS),
        asked=sum(whats.count("asked") for whats in came),
        answered=sum(whats.count("answered") for whats in came),
        still_waiting=unanswered.count("cut off"),
        lost=unanswered.count("failed"),
        never_connected=sum("connected" not in whats for whats in came),
        unserved=sum("answered" not in whats for whats in came),
    )
