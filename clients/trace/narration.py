"""What happened in a step, in one plain sentence, made from what was recorded of it.

Nothing here knows the three servers: it looks at the calls that were made, at the variables that
have changed, at the kernel's state before and after, and at the kind of statement on the line.
"""

import ast
import contextlib
import functools
import re

SLEEPS = {
    "accept": "accept() waits: the accept queue is empty, and the kernel lets the thread sleep.",
    "recvfrom": "recv() waits: {who} has said nothing more, and the kernel lets the thread sleep.",
    "sendto": "send() waits: there is no room in the kernel's buffers until {who} reads.",
    "epoll_wait": "epoll.poll() waits: none of its descriptors is ready, so the thread sleeps.",
    "clock_nanosleep": "time.sleep(): the thread sleeps, and does nothing else meanwhile.",
    "futex": "The thread waits for a lock that another one has.",
}
SLEEPS |= {"accept4": SLEEPS["accept"], "epoll_pwait": SLEEPS["epoll_wait"]}
LONGEST = 80  # characters of a line of the log


def sentence(step, before, lines):
    """Return what happened in a step. before: the step before it, or None; lines: the program's."""
    kind = step["kind"]
    if kind == "client":
        return of_clients(step, before)
    if kind == "time":
        return of_time(step, before)
    if kind == "sleep":
        words = SLEEPS.get(step["call"], "The thread sleeps in the system call {call}.")
        return words.format(who=who(step["fd"], step), call=step["call"])
    if kind == "end":
        return f"The thread of {step['thread']} has ended: its function has returned."
    if kind == "call":
        return of_call(step)
    return of_line(step, before, lines)


# What clients do


def of_clients(step, before):
    """Return what a client, or several, did, and where that now lies."""
    does, count = step["does"], step["said"] if step["does"] != "reads" else step["heard"]
    name = f"Client {step['who'][0]}"
    row = connection(step["who"][0], step)
    if does == "connects":
        return of_newcomers(step)
    if does == "says":
        return f"{name} says {step['words']}: {where(count, row)}"
    if does == "floods":
        if not count:
            return f"{name} wants to ask more, but the kernels take nothing more from it."
        return f"{name} asks as much as goes in, {count:,} bytes. Now {where(count, row)}"
    if does == "reads":
        rows = [] if before is None else before["kernel"]["connections"]
        had = next((one["buffers"][3] for one in rows if one["client"] == step["who"][0]), count)
        text = f"{name} reads {count:,} bytes out of its kernel's buffer"
        return f"{text}." if count <= had else f"{text}; {count - had:,} came meanwhile."
    if does == "reads no more":
        return f"{name} will read no answer from now on."
    if does == "leaves":
        return f"{name} leaves: its kernel sends FIN, which lies behind all that it has said."
    return f"{name} breaks off: its kernel sends a reset, and both ends forget what was under way."


def of_newcomers(step):
    """Return how it went for those who connect."""
    rows = [connection(number, step) for number in step["who"]]
    queued = [row for row in rows if row["queued"]]
    outside = [row for row in rows if row["theirs"] == "SYN-SENT"]
    if len(rows) == 1 and queued:
        return (
            f"Client {rows[0]['client']} connects: the two kernels shake hands, and the connection "
            "lies in the accept queue. The program knows nothing of it yet."
        )
    text = f"{len(rows)} clients connect: {len(queued)} connections lie in the accept queue"
    if len(rows) == 1:
        text = f"Client {rows[0]['client']} connects, but there is no room in the accept queue"
    if not outside:
        return text + "."
    names = ", ".join(str(row["client"]) for row in outside)
    return f"{text}; it is full. The SYN of {names} is thrown away: still SYN-SENT, they try again."


def of_time(step, before):
    """Return what a pause has brought: SYNs that were sent again, sleeps that have ended."""
    then = {row["client"]: row["theirs"] for row in before["kernel"]["connections"]}
    asked = [one for one in step["kernel"]["connections"] if then.get(one["client"]) == "SYN-SENT"]
    outside = [str(one["client"]) for one in asked if one["theirs"] == "SYN-SENT"]
    inside = [str(one["client"]) for one in asked if one["theirs"] != "SYN-SENT"]
    parts = []
    if inside:
        parts.append(f"the SYN of {', '.join(inside)} was sent again and found a place")
    if outside:
        parts.append(f"the SYN of {', '.join(outside)} was sent again and thrown away again")
    return f"Time passes: {'; '.join(parts) or 'who slept has slept enough'}."


def where(count, row):
    """Return where the bytes lie that a client has just sent."""
    unsent, unread = row["buffers"][:2]
    whose = (
        f"the buffer of descriptor {row['fd']}" if row["fd"] else "a buffer of the server's kernel"
    )
    if unsent:
        return f"{unread:,} wait in {whose}, {unsent:,} still in the client's own kernel."
    return f"{count:,} bytes lie in {whose}, unread."


# What the program does


def of_call(step):
    """Return that a function is entered, and with what."""
    shown = [
        f"{name} = {text}"
        for name, text in step["variables"].items()
        if name in ("chunk", "conn", "client")
    ]
    given = f" with {', '.join(shown)}" if shown else ""
    if begins(step):
        return f"The new thread of {step['thread']} begins: it calls {step['function']}(){given}."
    return f"{step['function']}() is called{given}."


def begins(step):
    """Say whether this call is the first thing that a thread does."""
    return step["thread"] != "main" and step["line"] == step["next"]


def of_line(step, before, lines):
    """Return what a line of the program has done: by its calls, else by what it is."""
    if before is None:
        return (
            f"The server listens: descriptor {step['kernel']['listener']} is its listening socket."
        )
    text = lines[step["line"] - 1].strip() if step["line"] <= len(lines) else ""
    parts = [part for call in step["calls"] if (part := of_kernel_call(call, step, before))]
    if parts:
        return " ".join(parts)
    if step["kind"] == "exception":
        return f"The line raises {step['value']}."
    if step["log"]:
        said = step["log"].strip().splitlines()[-1]
        short = said if len(said) <= LONGEST else said[:LONGEST] + "…"
        return f"It writes to the log: {short}"
    if step["kind"] == "return":
        if "return" not in text:
            return f"{step['function']}() ends."
        return f"{step['function']}() returns {step['value']}."
    if "Thread(" in text:
        return "A thread is made for this client; it begins when the kernel gives it a turn."
    return of_statement(step, lines)


def of_statement(step, lines):
    """Return what a statement has done that asked the kernel for nothing."""
    values = {name: step["variables"][name] for name in step["changed"]}
    parts = [name for name in values if "." in name]
    whole = {part.partition(".")[0] for part in parts}  # their fields say it
    news = [f"{name} is {values[name]}" for name in values if name not in whole]
    told = " and ".join(news[:3])
    node = statement_at("\n".join(lines), step["line"])
    if isinstance(node, (ast.If, ast.While)) and not told:
        holds = node.body[0].lineno == step["next"]
        return f"This {'holds' if holds else 'does not hold'}: on to line {step['next']}."
    if isinstance(node, ast.For):
        return f"The next one: {told}." if told else "That was the last one of this round."
    if isinstance(node, ast.ExceptHandler):
        return f"It is caught here: on to line {step['next']}."
    if isinstance(node, ast.With) and not told:
        return "From here on the connection will be closed, however the block is left."
    return f"Now {told}." if told else f"On to line {step['next']}, in {step['function']}()."


@functools.cache
def statement_at(text, line):
    """Return the statement that begins on a line of Python, a node of ast; None if none does."""
    found = None
    with contextlib.suppress(SyntaxError):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.stmt, ast.ExceptHandler)) and node.lineno == line:
                found = found or node
    return found


def of_kernel_call(call, step, before):
    """Return what a call to the kernel brought; "" for those that only look something up."""
    name, fd, outcome = call
    maker = CALLS.get(name)
    return maker(fd, outcome == "raised", step, before) if maker else ""


def accepted(fd, failed, step, before):
    if failed and "Blocking" in (step["value"] or ""):
        return "accept() finds the queue empty: it does not wait, it raises BlockingIOError."
    if failed:
        text = "A newcomer needs a descriptor, and none is left: who comes stays in the queue."
        if not before["kernel"]["queue"]:  # seen with strace: EMFILE, and nobody there
            text = "It takes a descriptor first, then looks at the queue: so it fails on an empty "
            text += "one, too."
        return f"accept() fails: {reason(step)}. {text if 'files' in reason(step) else ''}".strip()
    new = next((one for one in step["changed"] if "descriptor" in step["variables"][one]), None)
    found = re.search(r"client (\d+) \(descriptor (\d+)\)", step["variables"][new] if new else "")
    if not found:
        return "accept() takes a connection out of the accept queue."
    return (
        f"accept() takes client {found[1]} out of the accept queue and gives it "
        f"descriptor {found[2]}."
    )


def received(fd, failed, step, before):
    whose = who(fd, step, before)
    if failed and "Blocking" in (step["value"] or ""):
        return "recv() finds nothing to read: it does not wait, it raises BlockingIOError."
    if failed:
        return f"recv() tells that {whose} broke off: {reason(step)}."
    got = next((one for one in step["changed"] if one in step["sizes"]), None)
    if got is None:
        return f"recv() takes the next bytes of {whose} out of the kernel's buffer."
    text, size = step["variables"][got], step["sizes"][got]
    if not size:
        return f"recv() gives b'': {whose} will say no more (end of file)."
    return f"recv() gives {text}: {size:,} bytes go from the kernel's buffer to the program."


def sent(fd, failed, step, before):
    whose = who(fd, step, before)
    if failed and "Blocking" in (step["value"] or ""):
        return "send() finds no room in the kernel's buffer: it takes nothing, and does not wait."
    if failed:
        return f"send() fails: {reason(step)}."
    sizes, took = step["sizes"], step["variables"].get("sent", "")
    whole = sizes.get("reply")
    if took.isdigit() and whole and int(took) < whole:
        rest = whole - int(took)
        return f"send() takes {int(took):,} of {whole:,} bytes: no room for the other {rest:,}."
    count = f"{int(took):,}" if took.isdigit() else "all"
    return f"send() hands {count} bytes to the kernel, for {whose}."


def sent_all(fd, failed, step, before):
    if failed:
        return f"sendall() fails: {reason(step)}."
    return f"sendall() has handed the whole reply to the kernel, for {who(fd, step, before)}."


def polled(fd, failed, step, before):
    ready = [row for row in step["kernel"].get("epoll", ()) if row["ready"]]
    names = [f"{row['fd']} ({who(row['fd'], step)})" for row in ready]
    if not names:
        return "epoll.poll() comes back."
    return f"epoll.poll() comes back with what is ready: descriptor {', '.join(names)}."


def asked(fd, failed, step, before):
    """Return what the program now wants to hear of, from the epoll set before and after."""
    then = waits(before)
    news = [(one, want) for one, want in waits(step).items() if then.get(one) != want]
    texts = {
        "IN": "epoll is to tell when there is something to read from {}.",
        "OUT": "epoll is to tell when there is room to write to {}: the rest of a reply waits.",
        "": "epoll is not to tell of {} for now.",
        "INOUT": "epoll is to tell when {} can be read from, or written to.",
    }
    told = [texts[want].format(f"descriptor {one} ({who(one, step)})") for one, want in news]
    if (step["kernel"]["listener"], "") in news:
        told.append("Otherwise it would tell of the next newcomer again and again.")
    return " ".join(told) or "epoll is asked for what it is asked for already."


def closed(fd, failed, step, before):
    whose = who(fd, before)
    if fd is None or fd < 0:
        return ""
    rows = [row for row in step["kernel"]["connections"] if f"client {row['client']}" == whose]
    if rows and rows[0]["theirs"] in ("ESTABLISHED", "CLOSE-WAIT"):
        return f"close(): descriptor {fd} is free, and the kernel sends FIN to {whose}."
    return f"close(): descriptor {fd} is free, and the conversation with {whose} is over."


def slept(fd, failed, step, before):
    return "The sleep is over."


def unblocked(fd, failed, step, before):
    return f"From now on no call on descriptor {fd} waits: it raises BlockingIOError instead."


CALLS = {
    "accept": accepted,
    "recv": received,
    "recv_into": received,
    "send": sent,
    "sendall": sent_all,
    "poll": polled,
    "register": asked,
    "modify": asked,
    "unregister": asked,
    "close": closed,
    "sleep": slept,
    "setblocking": unblocked,
}


# Looking things up in the recording


def connection(number, step):
    return next(row for row in step["kernel"]["connections"] if row["client"] == number)


def who(fd, *steps):
    """Return whose a descriptor is: "client 2", or "the listening socket"."""
    for step in filter(None, steps):
        for row in step["kernel"]["connections"]:
            if fd is not None and row["fd"] == fd:
                return f"client {row['client']}"
        if fd is not None and fd == step["kernel"]["listener"]:
            return "the listening socket"
    for step in filter(None, steps):  # after a reset only the program still knows it
        named = re.search(rf"(client \d+) \(descriptor {fd}\)", str(step.get("variables")))
        if named:
            return named[1]
    return "somebody"


def waits(step):
    return {row["fd"]: row["waits"] for row in (step or {"kernel": {}})["kernel"].get("epoll", ())}


def reason(step):
    """Return what an exception says, without its number: "Connection reset by peer"."""
    return re.sub(r"^\w+: (\[Errno \d+\] )?", "", step["value"] or "")
