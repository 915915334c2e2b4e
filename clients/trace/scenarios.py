"""The stories that are played to each server: who does what, in which order. They are data.

A client comes ("connects"), speaks, may stop reading ("reads no more"), reads at last, leaves, or
breaks off with a reset. What a client does not refuse to read it reads as soon as the server is at
rest; that need not be said.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Act:
    """One action: of the clients named, one after the other while the server stands still.

    does: "connects", "says", "floods" (asks until nothing more goes into the buffers), "reads no
    more", "reads", "leaves", "resets", or, of nobody, "waits": until a sleep in the server is over
    and each SYN that was thrown away has been sent again. words: what is said.
    """

    clients: tuple[int, ...]
    does: str
    words: bytes = b""


@dataclass(frozen=True)
class Story:
    """title, question: for a reader. room: how many clients the descriptors allow, or None."""

    title: str
    question: str
    acts: tuple[Act, ...]
    room: int | None = None


def one(client, does, words=b""):
    return Act((client,), does, words)


STORIES = {
    "two": Story(
        "Two clients",
        "The first is silent. Is the second one served?",
        (
            one(1, "connects"),
            one(2, "connects"),
            one(2, "says", b"bob"),
            one(1, "leaves"),
            one(2, "leaves"),
        ),
    ),
    "silent": Story(
        "One falls silent",
        "One has said hello and stays. What does it cost the others?",
        (
            one(1, "connects"),
            one(1, "says", b"ann"),
            one(2, "connects"),
            one(2, "says", b"bob"),
            one(2, "leaves"),
            one(3, "connects"),
            one(3, "says", b"cy"),
        ),
    ),
    "full": Story(
        "One never reads",
        "It asks and asks, and reads no answer. Who holds which bytes?",
        (
            one(1, "connects"),
            one(1, "reads no more"),
            one(1, "floods"),
            one(2, "connects"),
            one(2, "says", b"bob"),
            one(1, "reads"),
            one(1, "leaves"),
            one(2, "leaves"),
        ),
    ),
    "reset": Story(
        "A reset in the middle",
        "One client breaks off. Who notices, and at which line?",
        (
            one(1, "connects"),
            one(2, "connects"),
            one(1, "says", b"ann"),
            one(1, "resets"),
            one(2, "says", b"bob"),
            one(2, "leaves"),
        ),
    ),
    "nine": Story(
        "Nine come at a backlog of 5",
        "All connect at the same moment. Who is in the queue, and who is not even there?",
        (
            Act(tuple(range(1, 10)), "connects"),
            Act((), "waits"),
            one(1, "says", b"ann"),
            one(1, "leaves"),
            Act((), "waits"),
        ),
    ),
    "descriptors": Story(
        "Out of descriptors",
        "There is room for two clients, and three come. What becomes of the third?",
        (
            one(1, "connects"),
            one(2, "connects"),
            one(3, "connects"),
            one(2, "says", b"bob"),
            one(1, "leaves"),
            Act((), "waits"),
            one(3, "says", b"cy"),
        ),
        room=2,
    ),
}
