"""The scenarios that are played to each server: what each client does, in which order."""

import re
from dataclasses import dataclass

ACTION = re.compile(r"(\d+)(?: to (\d+))? (stops reading|\w+) ?(\w*)")


@dataclass(frozen=True)
class Scenario:
    """A sequence of actions, and the question that it answers."""

    title: str
    question: str
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


def scenario(title, question, actions, room=None):
    return Scenario(title, question, tuple(actions.split(", ")), room)


SCENARIOS = {
    "two": scenario(
        "Two clients",
        "The first is silent. Is the second one served?",
        "1 connects, 2 connects, 2 sends bob, 1 leaves, 2 leaves",
    ),
    "silent": scenario(
        "One falls silent",
        "One has sent its name and stays connected. What does it cost the others?",
        "1 connects, 1 sends ann, 2 connects, 2 sends bob, 2 leaves, 3 connects, 3 sends cy",
    ),
    "full": scenario(
        "One never reads",
        "It sends and sends, and reads no answer. Where are the bytes?",
        "1 connects, 1 stops reading, 1 floods, 2 connects, 2 sends bob, 1 reads, 1 leaves, "
        "2 leaves",
    ),
    "reset": scenario(
        "A reset in the middle",
        "One client resets its connection. Which line of the server notices?",
        "1 connects, 2 connects, 1 sends ann, 1 resets, 2 sends bob, 2 leaves",
    ),
    "nine": scenario(
        "Nine connect at a backlog of 5",
        "All connect at the same moment. Which are in the accept queue, which still in SYN-SENT?",
        "1 to 9 connect, time passes, 1 sends ann, 1 leaves, time passes",
    ),
    "descriptors": scenario(
        "Out of descriptors",
        "There are descriptors for two clients, and three connect. What happens to the third?",
        "1 connects, 2 connects, 3 connects, 2 sends bob, 1 leaves, time passes, 3 sends cy",
        room=2,
    ),
}
