"""The scenarios that are played to each server: what each client does, in which order."""

import re
from dataclasses import dataclass

ACTION = re.compile(r"(\d+)(?: to (\d+))? (stops reading|\w+) ?(\w*)")


@dataclass(frozen=True)
class Scenario:
    """A sequence of actions, the question that it answers, and the answer."""

    title: str
    question: str
    answer: str
    # Of a client: connects, sends WORD, floods (sends until the buffers take nothing more), stops
    # reading, reads (or else as soon as the server is at rest), leaves, resets. "time passes" until
    # a sleep in the server is over and each dropped SYN has been retransmitted.
    actions: tuple[str, ...]
    room: int | None = None  # how many clients the limit of descriptors allows


def parse(action):
    """Return (numbers of the clients, what they do, what they send) of an action."""
    first, last, does, words = ACTION.fullmatch(action).groups()
    clients = range(int(first), int(last or first) + 1)
    return list(clients), does if len(clients) == 1 else f"{does}s", words.encode()


def scenario(title, question, answer, actions, room=None):
    return Scenario(title, question, answer, tuple(actions.split(", ")), room)


SCENARIOS = {
    "two": scenario(
        "Two clients",
        "The first is silent. Is the second one served?",
        "With one thread that blocks: only when the first has left. With a thread per connection, "
        "or with an event loop: at once.",
        "1 connects, 2 connects, 2 sends bob, 1 leaves, 2 leaves",
    ),
    "silent": scenario(
        "One falls silent",
        "One has sent its name and stays connected. What does it cost the others?",
        "With one thread that blocks, they are not served while it stays. With a thread per "
        "connection, or with an event loop, it costs them nothing.",
        "1 connects, 1 sends ann, 2 connects, 2 sends bob, 2 leaves, 3 connects, 3 sends cy",
    ),
    "full": scenario(
        "One never reads",
        "It sends and sends, and reads no answer. Where are the bytes?",
        "In the buffers of both kernels, and a part of one reply in the program. Others wait only "
        "where one thread blocks in send().",
        "1 connects, 1 stops reading, 1 floods, 2 connects, 2 sends bob, 1 reads, 1 leaves, "
        "2 leaves",
    ),
    "reset": scenario(
        "A reset in the middle",
        "One client resets its connection. Which line of the server notices?",
        "The recv() of this connection: it raises ConnectionResetError. The other client is served "
        "afterwards.",
        "1 connects, 2 connects, 1 sends ann, 1 resets, 2 sends bob, 2 leaves",
    ),
    "nine": scenario(
        "Nine connect at a backlog of 5",
        "All connect at the same moment. Which are in the accept queue, which still in SYN-SENT?",
        "Six fill the queue, backlog + 1. Three stay in SYN-SENT until accept() has made room and "
        "their SYN is retransmitted.",
        "1 to 9 connect, time passes, 1 sends ann, 1 leaves, time passes",
    ),
    "descriptors": scenario(
        "Out of descriptors",
        "There are descriptors for two clients, and three connect. What happens to the third?",
        "It stays in the accept queue until a client leaves. Where accept() is called before, it "
        "fails: too many open files.",
        "1 connects, 2 connects, 3 connects, 2 sends bob, 1 leaves, time passes, 3 sends cy",
        room=2,
    ),
}
