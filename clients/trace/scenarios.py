"""The scenarios that are played to each server: what each client does, in which order."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Action:
    """One action of the named clients, one after the other while the server is paused."""

    clients: tuple[int, ...]
    # "connects", "sends", "floods" (sends until the buffers take nothing more), "stops reading",
    # "reads", "leaves", "resets". Of no client, "waits": until a sleep in the server is over and
    # each dropped SYN has been retransmitted. A client that does not stop reading reads as soon as
    # the server is at rest.
    does: str
    words: bytes = b""  # what is sent


@dataclass(frozen=True)
class Scenario:
    """A sequence of actions, and the question that it answers."""

    title: str
    question: str
    actions: tuple[Action, ...]
    room: int | None = None  # how many clients the limit of descriptors allows


def one(client, does, words=b""):
    return Action((client,), does, words)


SCENARIOS = {
    "two": Scenario(
        "Two clients",
        "The first is silent. Is the second one served?",
        (
            one(1, "connects"),
            one(2, "connects"),
            one(2, "sends", b"bob"),
            one(1, "leaves"),
            one(2, "leaves"),
        ),
    ),
    "silent": Scenario(
        "One falls silent",
        "One has sent its name and stays connected. What does it cost the others?",
        (
            one(1, "connects"),
            one(1, "sends", b"ann"),
            one(2, "connects"),
            one(2, "sends", b"bob"),
            one(2, "leaves"),
            one(3, "connects"),
            one(3, "sends", b"cy"),
        ),
    ),
    "full": Scenario(
        "One never reads",
        "It sends and sends, and reads no answer. Where are the bytes?",
        (
            one(1, "connects"),
            one(1, "stops reading"),
            one(1, "floods"),
            one(2, "connects"),
            one(2, "sends", b"bob"),
            one(1, "reads"),
            one(1, "leaves"),
            one(2, "leaves"),
        ),
    ),
    "reset": Scenario(
        "A reset in the middle",
        "One client resets its connection. Which line of the server notices?",
        (
            one(1, "connects"),
            one(2, "connects"),
            one(1, "sends", b"ann"),
            one(1, "resets"),
            one(2, "sends", b"bob"),
            one(2, "leaves"),
        ),
    ),
    "nine": Scenario(
        "Nine connect at a backlog of 5",
        "All connect at the same moment. Which are in the accept queue, which still in SYN-SENT?",
        (
            Action(tuple(range(1, 10)), "connects"),
            Action((), "waits"),
            one(1, "sends", b"ann"),
            one(1, "leaves"),
            Action((), "waits"),
        ),
    ),
    "descriptors": Scenario(
        "Out of descriptors",
        "There are descriptors for two clients, and three connect. What happens to the third?",
        (
            one(1, "connects"),
            one(2, "connects"),
            one(3, "connects"),
            one(2, "sends", b"bob"),
            one(1, "leaves"),
            Action((), "waits"),
            one(3, "sends", b"cy"),
        ),
        room=2,
    ),
}
