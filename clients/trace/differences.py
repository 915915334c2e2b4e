"""What differs among the servers after each action of a scenario, from their recordings alone."""

from clients.trace.interpret import called
from clients.trace.scenarios import parse

WORDS = 20  # of a sentence, at most
# What a server has done for a client ({}), in the order in which a sentence says it
EARLIER, ANSWERED, CLOSED = "answered {} before", "answered {}", "closed the connection of {}"
ACCEPTED, HOLDS = "accepted {}", "bytes for {} that the kernel does not take"
UNREAD, OPEN = "not read all words of {}", "not closed the connection of {}"
QUEUED, DROPPED = "not accepted {}", "dropped the SYN of {}"
ORDER = [EARLIER, ANSWERED, CLOSED, ACCEPTED, HOLDS, UNREAD, OPEN, QUEUED, DROPPED]


def differences(recordings, actions):
    """Return a sentence for the start and for each action; [] if there is one server only.

    recordings: {program: TraceEvents as data}. actions: the Scenario's.
    """
    numbers = [name.partition("_")[0] for name in recordings]
    is_clear = len(set(numbers)) == len(numbers) and all(map(str.isdigit, numbers))
    names = numbers if is_clear else list(recordings)  # "01" for 01_blocking
    acting = [[] if action == "time passes" else parse(action)[0] for action in actions]
    ends = [  # of each action, the last event of each server until then
        [[one for one in events if one["action"] <= action][-1] for events in recordings.values()]
        for action in range(len(actions) + 1)
    ]
    steps = zip([ends[0], *ends], ends, [[], *acting], strict=False)
    return [difference(names, *step) for step in steps] if len(names) > 1 else []


def difference(names, was, now, acting):
    """Return what differs after an action. was, now: an event of each server before and after."""
    clients = [one["client"] for one in now[0]["clients"]]
    done = {one: [done_for(one, *pair) for pair in zip(was, now, strict=True)] for one in clients}
    differing = [one for one in clients if len(set(done[one])) > 1]
    if not differing:
        return alike(names, now, done, acting)
    first = next((one for one in acting if one in differing), differing[0])
    same = [one for one in differing if done[one] == done[first]]
    them, whose = ("it", "its") if len(same) == 1 else ("them", "their")
    kinds, short, whole = [what for what in ORDER if what in done[first]], [], []
    for what in kinds:
        servers = [at for at, one in enumerate(done[first]) if one == what]
        text = what.format(them if short else clients_named(same))
        if what == EARLIER and ANSWERED not in kinds:
            text = text.removesuffix(" before")
        if what == ANSWERED and EARLIER in kinds:
            text += " only now"
        has = "have" if len(servers) > 1 else "has"
        short.append(f"{joined([names[at] for at in servers])} {has} {text}")
        why = reason([now[at] for at in servers], same, whose) if what == QUEUED else ""
        whole.append(short[-1] + why)
    texts = ["; ".join(parts) + "." for parts in (whole, short, short[:1])]
    return next((text for text in texts if len(text.split()) <= WORDS), "")


def done_for(client, was, now):
    """Return what a server has done for a client, one of ORDER."""
    [row] = [one for one in now["kernel"]["connections"] if one["client"] == client]
    [state] = [one for one in now["clients"] if one["client"] == client]
    before = [one["received"] for one in was["clients"] if one["client"] == client]
    if row["queued"]:
        return QUEUED
    if row["client_state"] == "SYN-SENT":
        return DROPPED
    if state["left"]:
        return CLOSED if row["fd"] is None else OPEN
    if row["in_program"] or row["buffers"][1]:
        return HOLDS if row["in_program"] else UNREAD
    if state["received"] == "b''":
        return ACCEPTED
    return EARLIER if before == [state["received"]] else ANSWERED


def reason(events, clients, whose):
    """Return where the clients' words are, or why they are not accepted; "" if it is not known."""
    rows = [row for one in events for row in one["kernel"]["connections"]]
    if all(row["buffers"][1] for row in rows if row["client"] in clients):
        return f": {whose} words are in the kernel's receive buffer"
    [thread, *more] = [thread for one in events for thread in one["threads"]]
    served = [row["client"] for row in rows if row["fd"] == thread["fd"] is not None]
    return f", blocked in {called(thread)} for client {served[0]}" if served and not more else ""


def alike(names, events, done, acting):
    """Return what all servers have done, and where their threads are blocked."""
    places = {}
    for name, event in zip(names, events, strict=True):
        found = dict.fromkeys(called(one) for one in event["threads"] if one["call"])
        places.setdefault(joined(found), []).append(name)
    [(place, first), *others] = places.items()
    text = f"{joined(first)} {'are' if len(first) > 1 else 'is'} blocked in {place}"
    text = ", ".join([text, *(f"{joined(group)} in {place}" for place, group in others)])
    if same := [one for one in acting if done[one] == done[acting[0]]]:
        what = done[same[0]][0].removesuffix(" before").format(clients_named(same))
        longer = f"All have {what}. {text}"
        text = longer if len(longer.split()) <= WORDS else text
    return f"{text}."


def clients_named(numbers):
    """Return "client 2", "clients 2 and 5" or "clients 2 to 6"."""
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"clients {numbers[0]} to {numbers[-1]}"
    return f"client{'s' * (len(numbers) > 1)} {joined(map(str, numbers))}"


def joined(names):
    *names, last = names
    return f"{', '.join(names)} and {last}" if names else last
