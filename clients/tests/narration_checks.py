"""Checks of a recording's sentences against what was recorded; they share no code with narration.

Each pattern is a kind of sentence, with a function that returns whether it is true of the event
(e), the event before it (b) and the program's lines.
"""

import re

CHECKS = []


def true_if(pattern):
    def add(function):
        CHECKS.append((re.compile(pattern + r"(?: |$)", re.DOTALL), function))
        return function

    return add


def false_sentences(events, lines):
    """Return [(number, rest of the sentence), ...] of those that are false, or of no known kind."""
    found = []
    for number, (before, event) in enumerate(zip([None, *events], events, strict=False), 1):
        text = "" if event["skipped"] else event["sentence"] or "(nothing)"
        while text:
            matches = ((pattern.match(text), check) for pattern, check in CHECKS)
            fits = [
                match for match, check in matches if match and check(match, event, before, lines)
            ]
            if not fits:
                found.append((number, text))
                break
            text = text[max(match.end() for match in fits) :]
    return found


def row(event, client):
    rows = event["kernel"]["connections"] if event else []
    return next((one for one in rows if one["client"] == int(client)), None)


def client(event, number):
    return next(one for one in event["clients"] if one["client"] == int(number))


def number(text):
    return int(text.replace(",", ""))


def size(text):
    """Return how many bytes a recorded text stands for."""
    long = re.search(r"\(([\d,]+) bytes\)$", text)
    return number(long[1]) if long else len(eval(text))


def to_server(event, who):
    """Return how many bytes of a client the server's program has received."""
    return size(client(event, who)["sent"]) - sum(row(event, who)["buffers"][:2])


def to_client(event, who):
    """Return how many bytes the server's kernel has taken for a client."""
    return size(client(event, who)["received"]) + sum(row(event, who)["buffers"][2:])


def thread(event):
    return next(one for one in event["threads"] if one["id"] == event["thread"])


def code(event, lines):
    return lines[event["line"] - 1].strip()


def goes_in(event, lines):
    """Return whether the next line is the first one of the block that the executed line opens."""
    after = [at for at in range(event["line"] + 1, len(lines) + 1) if lines[at - 1].strip()]
    inner = [at for at in after if indent(lines, at) > indent(lines, event["line"])]
    ends = [at for at in after if indent(lines, at) <= indent(lines, event["line"])] + [
        len(lines) + 1
    ]
    return event["next_line"] in inner and event["next_line"] < ends[0]


def indent(lines, at):
    return len(lines[at - 1]) - len(lines[at - 1].lstrip())


def events_of(event, fd):
    rows = event["kernel"]["epoll"] or ()
    return next((one["events"].split() for one in rows if one["fd"] == int(fd)), None)


def owner(event, fd):
    rows = [one for one in event["kernel"]["connections"] if one["fd"] == int(fd)]
    if rows:
        return f"client {rows[0]['client']}"
    return "the listening socket" if int(fd) == event["kernel"]["listener"] else None


# What clients do

CONNECTS = r"Client (\d+) connects: the kernels complete the handshake; the connection is in "


@true_if(CONNECTS + r"the accept queue, unknown to the program\.")
def _(m, e, b, lines):
    return row(e, m[1])["queued"] and row(e, m[1])["fd"] is None and row(b, m[1]) is None


MANY = r"(\d+) clients connect: (\d+) connections (are in|fill) the accept queue"


@true_if(MANY + r"(?:; the SYN of ([\d, ]+) is dropped)?\.")
def _(m, e, b, lines):
    out = [one["client"] for one in e["kernel"]["connections"] if one["client_state"] == "SYN-SENT"]
    dropped = [int(one) for one in (m[4] or "").split(", ") if one]
    full = (e["kernel"]["queue"] == e["kernel"]["limit"]) == (m[3] == "fill")
    counts = [len(e["actors"]), e["kernel"]["queue"]] == [int(m[1]), int(m[2])]
    return full and out == dropped and counts


WHERE = (
    r"([\d,]+) bytes? (?:is|are) in the receive buffer of (?:descriptor (\d+)|a connection "
    r"that is not accepted yet)\."
)
BOTH = r"([\d,]+) are in the server's receive buffer, ([\d,]+) in the client's send buffer\."


@true_if(r"Client (\d+) sends (b'.*?'): " + WHERE)
def _(m, e, b, lines):
    said = e["words"] == m[2] and client(e, m[1])["sent"].endswith(m[2][2:])
    one = row(e, m[1])
    return said and one["buffers"][:2] == [0, number(m[3])] and str(one["fd"]) == str(m[4])


@true_if(r"Client (\d+) sends what fits, ([\d,]+) bytes: " + BOTH)
def _(m, e, b, lines):
    more = size(client(e, m[1])["sent"]) - size(client(b, m[1])["sent"])
    return more == number(m[2]) and row(e, m[1])["buffers"][:2] == [number(m[4]), number(m[3])]


@true_if(r"Client (\d+) sends nothing: no buffer has room for more bytes\.")
def _(m, e, b, lines):
    return client(e, m[1])["sent"] == client(b, m[1])["sent"] and row(e, m[1])["buffers"][0] > 0


READS = r"Client (\d+) reads ([\d,]+) bytes from its receive buffer"


@true_if(READS + r"(?:, ([\d,]+) of which have arrived meanwhile)?\.")
def _(m, e, b, lines):
    more = size(client(e, m[1])["received"]) - size(client(b, m[1])["received"])
    return more == number(m[2]) == row(b, m[1])["buffers"][3] + number(m[3] or "0")


@true_if(r"Client (\d+) stops reading: what arrives stays in its receive buffer\.")
def _(m, e, b, lines):
    return e["does"] == "stops reading" and e["actors"] == [int(m[1])]


@true_if(r"Client (\d+) closes its connection: its kernel sends FIN, after all its bytes\.")
def _(m, e, b, lines):
    left = client(e, m[1])["left"] == "left"
    return left and row(e, m[1])["client_state"] in ("FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT")


RESETS = r"Client (\d+) resets its connection: its kernel sends RST"


@true_if(RESETS + r"(, and drops the bytes in its buffers)?\.")
def _(m, e, b, lines):
    is_reset = client(e, m[1])["left"] == "reset" and row(e, m[1])["client_state"] is None
    unsent, *_, unread = row(b, m[1])["buffers"]
    return is_reset and bool(m[2]) == (unsent + unread > 0)


@true_if(r"Time passes(?:: (.*?))?\.")
def _(m, e, b, lines):
    then = [
        one["client"] for one in b["kernel"]["connections"] if one["client_state"] == "SYN-SENT"
    ]
    now = [one for one in then if row(e, one)["client_state"] == "SYN-SENT"]
    come = ", ".join(str(one) for one in then if one not in now)
    parts = [f"the retransmitted SYN of {come} finds room in the accept queue"] if come else []
    parts += [f"{', '.join(map(str, now))} stays in SYN-SENT"] if now else []
    asleep = any(one["call"] == "clock_nanosleep" for one in b["threads"])
    parts += ["a thread has slept long enough"] if asleep else []
    return (m[1] or "") == "; ".join(parts)


@true_if(r"Meanwhile the SYN of ([\d, ]+) was retransmitted, and found room\.")
def _(m, e, b, lines):
    come = [int(one) for one in m[1].split(", ")]
    states = {(row(b, one)["client_state"], row(e, one)["client_state"]) for one in come}
    return states == {("SYN-SENT", "ESTABLISHED")}


# Calls to the kernel


@true_if(r"accept\(\) takes client (\d+) from the accept queue: descriptor (\d+)\.")
def _(m, e, b, lines):
    if "Meanwhile" in b["sentence"] + e["sentence"]:  # it came while another thread was stepped
        return row(e, m[1])["fd"] == int(m[2])
    fresh = int(m[2]) not in b["kernel"]["descriptors"]
    return row(b, m[1])["queued"] and row(e, m[1])["fd"] == int(m[2]) and fresh


@true_if(r"accept\(\) finds the accept queue empty, and raises BlockingIOError\.")
def _(m, e, b, lines):
    return e["kernel"]["queue"] == 0 and e["value"].startswith("BlockingIOError")


@true_if(r"accept\(\) fails: Too many open files\.")
def _(m, e, b, lines):
    return "[Errno 24]" in e["value"]


@true_if(r"It takes a descriptor before it looks at the queue, which is empty\.")
def _(m, e, b, lines):
    return b["kernel"]["queue"] == 0


@true_if(r"A new connection needs a descriptor, and none is left: it stays in the queue\.")
def _(m, e, b, lines):
    return e["kernel"]["queue"] > 0


@true_if(r"accept\(\) blocks: the accept queue is empty\.")
def _(m, e, b, lines):
    return e["kernel"]["queue"] == 0 and thread(e)["call"] in ("accept", "accept4")


RECEIVES = r"recv\(\) returns (b(['\"]).*?\2\S*(?: \([\d,]+ bytes\))?): ([\d,]+) bytes? moves? "


@true_if(RECEIVES + r"from the receive buffer to the program\.")
def _(m, e, b, lines):
    both = [one["client"] for one in e["kernel"]["connections"] if row(b, one["client"])]
    moved = [more for one in both if (more := to_server(e, one) - to_server(b, one))]
    return moved == [number(m[3])] == [size(m[1])] and code(e, lines).count("recv(") == 1


@true_if(r"recv\(\) returns b'': client (\d+) sends no more \(end of file\)\.")
def _(m, e, b, lines):
    return client(e, m[1])["left"] == "left" and sum(row(e, m[1])["buffers"][:2]) == 0


@true_if(r"recv\(\) blocks: client (\d+) has sent nothing more\.")
def _(m, e, b, lines):
    one = row(e, m[1])
    return thread(e)["fd"] == one["fd"] and not one["buffers"][1] and e["call"] == "recvfrom"


@true_if(r"recv\(\) finds nothing to read, and raises BlockingIOError\.")
def _(m, e, b, lines):
    return e["value"].startswith("BlockingIOError") and "recv(" in code(e, lines)


@true_if(r"recv\(\) raises ConnectionResetError: client (\d+) has reset the connection\.")
def _(m, e, b, lines):
    return client(e, m[1])["left"] == "reset" and e["value"].startswith("ConnectionResetError")


@true_if(r"send(?:all)?\(\) hands all ([\d,]+) bytes to the kernel, for client (\d+)\.")
def _(m, e, b, lines):
    sending = row(b, m[2])["in_program"] and thread(b | {"thread": e["thread"]})["call"] == "sendto"
    more = to_client(e, m[2]) - to_client(b, m[2])
    return more == number(m[1]) or (sending and more <= number(m[1]))


@true_if(
    r"send\(\) hands ([\d,]+) of ([\d,]+) bytes to the kernel: no room for the other ([\d,]+)\."
)
def _(m, e, b, lines):
    [who] = [one["client"] for one in e["kernel"]["connections"] if one["in_program"]]
    taken, given, rest = (number(m[at]) for at in (1, 2, 3))
    held = row(e, who)["in_program"]
    return to_client(e, who) - to_client(b, who) == taken and given - taken == rest == held


BLOCKS = r"sendall\(\) blocks: there is no room for ([\d,]+) of ([\d,]+) bytes "


@true_if(BLOCKS + r"until client (\d+) reads\.")
def _(m, e, b, lines):
    taken = to_client(e, m[3]) - to_client(b, m[3])
    held = row(e, m[3])["in_program"]
    return number(m[2]) - taken == number(m[1]) == held and thread(e)["call"] == "sendto"


@true_if(r"epoll\.poll\(\) reports ((?:descriptor \d+ \([^)]*\)(?:: [A-Z ]+)?(?:, )?)+)\.")
def _(m, e, b, lines):
    fds = re.findall(r"descriptor (\d+) \((.*?)\)", m[1])
    ready = {one["fd"] for one in b["kernel"]["epoll"] if one["ready"]}
    owners = all(owner(e, fd) in (who, None) for fd, who in fds)
    return {int(fd) for fd, _ in fds} == ready and owners


@true_if(r"epoll\.poll\(\) blocks: its ready list is empty\.")
def _(m, e, b, lines):
    idle = not any(one["ready"] for one in e["kernel"]["epoll"])
    return idle and thread(e)["call"] in ("epoll_wait", "epoll_pwait")


WATCHES = r"epoll (still )?watches descriptor (\d+) \((.*?)\) for "


@true_if(WATCHES + r"(new connections|bytes to read|room to write)\.")
def _(m, e, b, lines):
    wanted = ["OUT"] if m[4] == "room to write" else ["IN"]
    same = events_of(b, m[2]) == wanted
    listens = int(m[2]) == e["kernel"]["listener"]
    fits = events_of(e, m[2]) == wanted and (m[4] == "new connections") == listens
    return fits and same == bool(m[1]) and owner(e, m[2]) == m[3]


@true_if(r"epoll reports no event of descriptor (\d+) \((.*?)\) for now\.")
def _(m, e, b, lines):
    return events_of(e, m[1]) == [] and owner(e, m[1]) == m[2]


@true_if(r"close\(\): descriptor (\d+) is free(?:, and (.*?))?\.")
def _(m, e, b, lines):
    what = re.fullmatch(r"the kernel sends FIN to client (\d+)|the connection with client (\d+) is "
                        r"closed at both ends", m[2] or "")  # fmt: skip
    gone = int(m[1]) in b["kernel"]["descriptors"] and int(m[1]) not in e["kernel"]["descriptors"]
    if what is None:
        return gone and not m[2]
    if what[2]:
        return gone and client(e, what[2])["left"] == "left"
    return gone and row(e, what[1])["client_state"] == "CLOSE-WAIT"


@true_if(r"From now on no call on descriptor (\d+) blocks: BlockingIOError is raised\.")
def _(m, e, b, lines):
    return int(m[1]) in e["kernel"]["descriptors"] and "setblocking(False)" in code(e, lines)


@true_if(r"time\.sleep\(1\): the thread sleeps\.")
def _(m, e, b, lines):
    return thread(e)["call"] == "clock_nanosleep" and "time.sleep(1)" in code(e, lines)


@true_if(r"time\.sleep\(1\) is over\.")
def _(m, e, b, lines):
    return thread(e)["call"] is None and "time.sleep(1)" in code(e, lines)


# Lines


@true_if(r"The server listens: descriptor (\d+) is its listening socket\.")
def _(m, e, b, lines):
    return b is None and e["kernel"]["listener"] == int(m[1])


def has_arguments(text, event):
    parts = [f"{name} = {value}" for name, value in event["variables"].items()]
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, "")
    return not text.strip(", ") and len(text.split()) <= 20


@true_if(r"(\w+)\(\) is called(?: with (.*?))?\.(?=$| Meanwhile)")
def _(m, e, b, lines):
    name = f"def {m[1]}("
    return (
        e["kind"] == "call" and name in lines[e["next_line"] - 1] and has_arguments(m[2] or "", e)
    )


@true_if(r"The thread of client (\d+) begins: it calls (\w+)\(\) with (.*?)\.(?=$| Meanwhile)")
def _(m, e, b, lines):
    seen = thread(e)["name"] == f"client {m[1]}" and f"def {m[2]}(" in lines[e["next_line"] - 1]
    return seen and e["kind"] == "call" and has_arguments(m[3], e)


@true_if(r"The thread of client (\d+) has ended\.")
def _(m, e, b, lines):
    before, now = ([one["name"] for one in event["threads"]] for event in (b, e))
    return f"client {m[1]}" in before and f"client {m[1]}" not in now


@true_if(r"A new thread has started\.")
def _(m, e, b, lines):
    return {one["id"] for one in b["threads"]} < {one["id"] for one in e["threads"]}


@true_if(r"(\w+)\(\) returns(?: (.*?))?\.")
def _(m, e, b, lines):
    value = e["value"] if m[2] else "None"
    returns = code(e, lines).startswith("return") or not m[2]
    return e["kind"] == "return" and e["function"] == m[1] and (m[2] or "None") == value and returns


@true_if(r"It logs “(.*?)(?:…)?”\.")
def _(m, e, b, lines):
    return m[1] in e["log"] and "logging." in code(e, lines)


@true_if(r"The condition is (true|false): on to line (\d+)\.")
def _(m, e, b, lines):
    is_test = re.match(r"if |elif |while ", code(e, lines))
    return is_test and int(m[2]) == e["next_line"] and (m[1] == "true") == goes_in(e, lines)


@true_if(r"The loop is over: on to line (\d+)\.")
def _(m, e, b, lines):
    is_loop = code(e, lines).startswith("for ")
    return is_loop and int(m[1]) == e["next_line"] and not goes_in(e, lines)


@true_if(r"The loop takes the next one: (.*?)\.(?=$| Meanwhile)")
def _(m, e, b, lines):
    return code(e, lines).startswith("for ") and goes_in(e, lines)


@true_if(r"The exception is caught here: on to line (\d+)\.")
def _(m, e, b, lines):
    return (
        code(e, lines).startswith("except ") and goes_in(e, lines) and int(m[1]) == e["next_line"]
    )


@true_if(r"This handler is not for it: on to line (\d+)\.")
def _(m, e, b, lines):
    other = code(e, lines).startswith("except ") and not goes_in(e, lines)
    return other and int(m[1]) == e["next_line"]


@true_if(r"The connection will be closed when this block is left\.")
def _(m, e, b, lines):
    name = re.fullmatch(r"with (\w+):", code(e, lines))
    return name and e["variables"][name[1]].startswith("connection") and goes_in(e, lines)


def clients_in(text):
    return set(re.findall(r"client \d+", text))


@true_if(r"Now (.*?)\.(?=$| Meanwhile)")
def _(m, e, b, lines):
    parts = [f"{name} is {e['variables'][name]}" for name in e["changed"]]
    text = m[1]
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, "")
    for name in e["changed"]:
        now, seen = clients_in(e["variables"][name]), (b["variables"] or {}).get(name)
        same = b["function"] == e["function"] and seen is not None
        news = re.search(
            rf"(client \d+) is (no longer )?in {name}(, too)? \((\d+) \w+( all)?\)", text
        )
        if news:
            fits = (news[1] in now) == (not news[2]) == bool(news[3]) == bool(news[5])
            known = not same or clients_in(seen) ^ now == {news[1]}
            if fits and known and len(now) == int(news[4]):
                text = text.replace(news[0], "")
        if len(e["variables"][name]) > 80:
            text = text.replace(f"{name} has changed", "")
    return e["changed"] and not text.replace(" and ", "").strip()


@true_if(r"On to line (\d+), in (\w+)\(\)\.")
def _(m, e, b, lines):
    return int(m[1]) == e["next_line"] and e["function"] == m[2]
