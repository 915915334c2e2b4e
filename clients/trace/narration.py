"""What has happened in a step, in one or two sentences, from what was recorded of it.

Nothing here depends on a program's names. It uses the calls and their results, the variables that
have changed, the kernel's state before and after, and the kind of statement. Where these do not
show what has happened, a sentence gives the next line only.
"""

import ast
import contextlib
import functools
import re

from clients.trace.calls import EVENTS

LONGEST = 80  # characters of a line of the log
BLOCKED = {
    "epoll_wait": "epoll.poll() blocks: its ready list is empty.",
    "poll": "poll() blocks: no descriptor that it watches is ready.",
    "select": "select() blocks: none of its descriptors is ready.",
}
BLOCKED |= {"epoll_pwait": BLOCKED["epoll_wait"], "ppoll": BLOCKED["poll"]}
BLOCKED |= {"pselect6": BLOCKED["select"]}


def sentence(event, before, lines):
    """Return what has happened in an event. before: the event before it, or None."""
    match event["kind"]:
        case "client":
            return of_clients(event, before)
        case "time":
            return of_time(event, before)
        case "sleep":
            text = of_sleep(event, before)
        case "end":
            text = f"{thread_name(event)} has ended."
        case "call":
            text = " ".join([*of_calls(event, before), of_call(event)])
        case _:
            text = of_line(event, before, lines)
    return text + of_retransmissions(event, before)


# What clients do


def of_clients(event, before):
    """Return what a client, or several, did, and where the bytes are now."""
    [number, *others], does = event["actors"], event["does"]
    name, row, was = f"Client {number}", connection(number, event), connection(number, before)
    if does == "connects":
        return of_connections(event)
    if others:
        return f"Clients {number} to {others[-1]}: {does.removesuffix('s')}."
    match does:
        case "sends" | "floods" if not event["sent"]:
            why = "no buffer has room for more bytes"
            if row["client_state"] == "SYN-SENT":
                why = "its connection is still in SYN-SENT"
            elif row["client_state"] != "ESTABLISHED":
                why = "the server has closed the connection"
            return f"{name} sends nothing: {why}."
        case "sends":
            return f"{name} sends {event['words']}: {where(row)}"
        case "floods":
            return f"{name} sends what the buffers take, {event['sent']:,} bytes. Now {where(row)}"
        case "reads":
            had, count = was["buffers"][3] if was else 0, event["received"]
            more = f", {count - had:,} of which have arrived meanwhile" if count > had else ""
            return f"{name} reads {count:,} bytes from its receive buffer{more}."
        case "stops reading":
            return f"{name} stops reading: what arrives stays in its receive buffer."
        case "leaves":
            if was is None or was["client_state"] not in ("ESTABLISHED", "CLOSE-WAIT"):
                return f"{name} leaves: it has no connection any more."
            if was["buffers"][3]:
                return f"{name} closes with unread bytes, so its kernel sends a reset (RST)."
            return f"{name} closes its connection: its kernel sends FIN, after all its bytes."
    return f"{name} resets its connection: its kernel sends RST, and bytes in flight are lost."


def of_connections(event):
    rows = [connection(number, event) for number in event["actors"]]
    queued = [row for row in rows if row["queued"]]
    dropped = [str(row["client"]) for row in rows if row["client_state"] == "SYN-SENT"]
    if len(rows) == 1 and queued:
        return (
            f"Client {rows[0]['client']} connects: the kernels complete the handshake, and the "
            "connection is in the accept queue. The program does not know of it yet."
        )
    text = f"{len(rows)} clients connect: {len(queued)} connections are in the accept queue."
    if len(rows) == 1:
        text = f"Client {rows[0]['client']} connects."
    if not dropped:
        return text
    return f"{text} It is full: the SYN of {', '.join(dropped)} is dropped, the state SYN-SENT."


def of_time(event, before):
    """Return what a pause has brought: SYNs that were retransmitted, sleeps that are over."""
    then = {row["client"]: row["client_state"] for row in before["kernel"]["connections"]}
    rows = event["kernel"]["connections"]
    asked = [row for row in rows if then.get(row["client"]) == "SYN-SENT"]
    outside = [str(row["client"]) for row in asked if row["client_state"] == "SYN-SENT"]
    inside = [str(row["client"]) for row in asked if row["client_state"] == "ESTABLISHED"]
    parts = []
    if inside:
        parts.append(f"the retransmitted SYN of {', '.join(inside)} finds room in the accept queue")
    if outside:
        parts.append(f"{', '.join(outside)} stays in SYN-SENT")
    if any(thread["call"] == "clock_nanosleep" for thread in before["threads"]):
        parts.append("a thread has slept long enough")
    return f"Time passes: {'; '.join(parts)}." if parts else "Time passes."


def of_retransmissions(event, before):
    """Return which clients have come in meanwhile, because their SYN was retransmitted."""
    then = {row["client"]: row["client_state"] for row in rows_of(before)}
    come = [
        str(row["client"])
        for row in rows_of(event)
        if then.get(row["client"]) == "SYN-SENT" and row["client_state"] == "ESTABLISHED"
    ]
    if not come:
        return ""
    return f" Meanwhile the SYN of {', '.join(come)} was retransmitted, and found room."


def where(row):
    """Return where the bytes are that a client has sent and the program has not read."""
    unsent, unread = row["buffers"][:2]
    of = f"descriptor {row['fd']}" if row["fd"] else "a connection that is not accepted yet"
    text = f"{bytes_(unread)} in the receive buffer of {of}"
    return f"{text}, {unsent:,} in the client's send buffer." if unsent else f"{text}."


# What the program does


def thread_name(event):
    name = event["name"]
    return f"The thread of {name}" if name.startswith("client ") else f"Thread {name}"


def function_name(event):
    """Return a function's name so that it is not taken for a call of the kernel."""
    name = event["function"]
    return f"{name}() of the program" if name.rpartition(".")[2] in CALLS else f"{name}()"


def of_sleep(event, before):
    """Return in which call a thread is blocked, and what it has done before."""
    pending = next((call for call in event["calls"] if not call["done"]), None)
    return " ".join([*of_calls(event, before), of_blocking(event, pending)])


def of_blocking(event, pending):
    call = event["call"]
    row = next((one for one in rows_of(event) if one["fd"] == event["fd"]), None)
    if call in ("accept", "accept4") and not event["kernel"]["queue"]:
        return "accept() blocks: the accept queue is empty."
    if call == "recvfrom" and row and not row["buffers"][1]:
        return f"recv() blocks: client {row['client']} has sent nothing more."
    if call == "sendto" and row and pending and pending["name"] == "sendall":
        rest = f"{row['in_program']:,} of {int(pending['given']):,} bytes"
        return f"sendall() blocks: there is no room for {rest} until client {row['client']} reads."
    if call == "sendto" and row:
        return f"send() blocks: there is no room until client {row['client']} reads."
    if call == "clock_nanosleep":
        given = f"{pending['given']:g}" if pending and pending["name"] == "sleep" else ""
        return f"time.sleep({given}): the thread sleeps."
    if call == "futex":
        name = event["waits_in"] or ""
        if name.endswith("Queue.get"):
            return f"{name}() blocks: the queue is empty."
        inside = f" in {name}()" if name else ""
        return f"The thread is blocked{inside} until another thread wakes it."
    return BLOCKED.get(call, f"The thread is blocked in the system call {call}.")


def of_call(event):
    """Return that a function is entered, and with which arguments."""
    function = function_name(event)
    if event["how"] == "resumed":
        return f"{function} goes on where it was suspended."
    shown = [
        f"{name} = {text}"
        for name, text in event["variables"].items()
        if "." not in name and len(text) <= LONGEST
    ]
    given = f" with {', '.join(shown[:3])}" if shown else ""
    match event["how"]:
        case "begins":
            return f"{thread_name(event)} begins: it calls {function}{given}."
        case "callback":
            return f"A library calls {function}{given}."
    return f"{function} is called{given}."


def of_line(event, before, lines):
    """Return what a line of the program has done: by its calls, else by what it is."""
    if before is None:
        fd = event["kernel"]["listener"]
        return f"The server listens: descriptor {fd} is its listening socket."
    parts = of_calls(event, before)
    if event["log"]:
        last = event["log"].strip().splitlines()[-1]
        parts.append(f"It logs “{last if len(last) <= LONGEST else last[:LONGEST] + '…'}”.")
    if event["kind"] == "exception" and not any(call["error"] for call in event["calls"]):
        parts.append(f"The line raises {event['value'].removesuffix(': ').removesuffix('.')}.")
    if event["kind"] == "return":
        parts.append(of_return(event))
    if not parts and len(event["threads"]) > len(before["threads"]):
        parts.append("A new thread has started.")
    return " ".join(parts) or of_statement(event, lines)


def of_return(event):
    function, value = function_name(event), event["value"]
    match event["how"]:
        case "suspended":
            what = "" if value in (None, "None") else f": it yields {value}"
            return f"{function} is suspended{what}."
        case "raised":
            return f"{function} is left by an exception."
    return f"{function} returns{'' if value in (None, 'None') else ' ' + value}."


def of_statement(event, lines):
    """Return what a statement has done that has called nothing of the kernel."""
    values = {name: event["variables"][name] for name in event["changed"]}
    parts = [name for name in values if "." in name]
    whole = {part.partition(".")[0] for part in parts}  # their fields say it
    news = " and ".join([f"{name} is {values[name]}" for name in values if name not in whole][:3])
    onward = f"on to line {event['next_line']}"
    node = statement_at("\n".join(lines), event["line"])
    inside = node is not None and is_in_body(node, event["next_line"])
    match node:
        case ast.If() | ast.While() if not news and not is_in(node.test, event["next_line"]):
            return f"The condition is {'true' if inside else 'false'}: {onward}."
        case ast.For() | ast.AsyncFor() if inside:
            return f"The loop takes the next one: {news or onward}."
        case ast.For() | ast.AsyncFor() if not is_in(node.iter, event["next_line"]):
            return f"The loop is over: {onward}."
        case ast.ExceptHandler():
            what = "The exception is caught here" if inside else "This handler is not for it"
            return f"{what}: {onward}."
        case ast.With() | ast.AsyncWith() if inside and not news:
            names = [ast.unparse(item.context_expr) for item in node.items]
            held = [event["variables"].get(name, "") for name in names]
            if any(text.startswith("connection with") for text in held):
                return "The connection will be closed when this block is left."
            return f"The block begins: {onward}."
        case ast.With() | ast.AsyncWith() if not inside and not news:
            return f"The block is left: {onward}."
    return f"Now {news}." if news else f"{onward.capitalize()}, in {event['function']}()."


def is_in(node, line):
    return node.lineno <= line <= node.end_lineno and node.lineno != node.end_lineno


def is_in_body(node, line):
    body = getattr(node, "body", None)
    return isinstance(body, list) and body[0].lineno <= line <= body[-1].end_lineno


@functools.cache
def statement_at(text, line):
    """Return the statement that begins on a line of Python, a node of ast; None if none does."""
    found = None
    with contextlib.suppress(SyntaxError):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.stmt, ast.ExceptHandler)) and node.lineno == line:
                found = found or node
    return found


def of_calls(event, before):
    """Return a sentence for each call that has returned or raised."""
    calls = [call for call in event["calls"] if call["done"]]
    if len(calls) > 1:  # a look at what is ready that has found nothing
        calls = [call for call in calls if call["events"] != []]
    return [text for call in calls if (text := of_kernel_call(call, event, before))]


def of_kernel_call(call, event, before):
    """Return what a call to the kernel has brought; "" if its name is not known here."""
    name, error = call["name"], call["error"]
    if error and error.startswith("BlockingIOError"):
        return WOULD_BLOCK.get(name, f"{name}() raises BlockingIOError.")
    maker = CALLS.get(name)
    if error and name != "accept":
        whose = f": {call['remote']} has reset the connection" if is_reset(call) else reason(call)
        return f"{name}() raises {error.partition(':')[0]}{whose}."
    return maker(call, event, before) if maker else ""


WOULD_BLOCK = {
    "accept": "accept() finds the accept queue empty, and raises BlockingIOError.",
    "recv": "recv() finds nothing to read, and raises BlockingIOError.",
    "recv_into": "recv_into() finds nothing to read, and raises BlockingIOError.",
    "send": "send() finds no room in the send buffer, and raises BlockingIOError.",
}


def is_reset(call):
    return call["error"].startswith("ConnectionResetError") and call["name"] != "accept"


def accepted(call, event, before):
    if call["error"]:
        text = ""
        if "[Errno 24]" in call["error"]:
            text = " A new connection needs a descriptor, and none is left: it stays in the queue."
            if not before["kernel"]["queue"]:  # seen with strace: EMFILE, and the queue is empty
                text = " It takes a descriptor before it looks at the queue, which is empty."
        return f"accept() fails{reason(call)}.{text}"
    client = next((row for row in rows_of(event) if row["fd"] == call["target"]), None)
    whose = f"client {client['client']}" if client else "a connection"
    return f"accept() takes {whose} from the accept queue: descriptor {call['target']}."


def received(call, event, before):
    if not call["count"]:
        return f"{call['name']}() returns b'': {whose(call)} sends no more (end of file)."
    size = bytes_(call["count"]).replace(" is", " moves").replace(" are", " move")
    return (
        f"{call['name']}() returns {call['text']}: {size} from the receive buffer to the program."
    )


def sent(call, event, before):
    given, count = int(call["given"]), call["count"]
    if count < given:
        return (
            f"{call['name']}() hands {count:,} of {given:,} bytes to the kernel: no room for the "
            f"other {given - count:,}."
        )
    return f"{call['name']}() hands all {given:,} bytes to the kernel, for {whose(call)}."


def polled(call, event, before):
    name = "epoll.poll" if call["owner"] == "epoll" else call["name"]
    names = [reported(fd, mask, event, before) for fd, mask in call["events"]]
    if not names:
        return f"{name}() returns: no descriptor is ready."
    return f"{name}() reports {', '.join(names)}."


def reported(fd, mask, event, before):
    """Return "descriptor 5 (client 1)", with the event mask if it is not the usual one."""
    events = [name for name, bit in EVENTS.items() if mask & bit]
    text = named_descriptor(fd, event, before)
    return text if events == ["IN"] else f"{text}: {' '.join(events)}"


def watched(call, event, before):
    """Return what an interest list now watches."""
    fd = call["target"]
    name = "epoll" if call["owner"] == "epoll" else "poll()"
    of = named_descriptor(fd, event, before)
    if call["name"] == "unregister":
        return f"{name} no longer watches {of}."
    mask, wanted = int(call["given"]), []
    if mask & EVENTS["IN"]:
        listens = fd == event["kernel"]["listener"]
        wanted.append("new connections" if listens else "bytes to read")
    if mask & EVENTS["OUT"]:
        wanted.append("room to write")
    how = ", edge-triggered" if mask & EVENTS["ET"] else ""
    how += ", for one report" if mask & EVENTS["ONESHOT"] else ""
    if not wanted:
        why = " It would report the waiting connections again and again."
        more = why if fd == event["kernel"]["listener"] and before["kernel"]["queue"] else ""
        return f"{name} reports no event of {of} for now.{more}"
    then = next((one for one in (kernel(before)["epoll"] or ()) if one["fd"] == fd), None)
    now = next((one for one in (kernel(event)["epoll"] or ()) if one["fd"] == fd), None)
    same = call["name"] == "modify" and then and now and then["events"] == now["events"]
    return f"{name} {'still ' if same else ''}watches {of} for {' and '.join(wanted)}{how}."


def closed(call, event, before):
    fd = call["fd"]
    if fd in event["kernel"]["descriptors"]:
        return ""  # another object still uses it
    then = next((row for row in rows_of(before) if row["fd"] == fd), None)
    if then is None:
        return f"close(): descriptor {fd} is free."
    client, state = f"client {then['client']}", then["client_state"]
    if then["buffers"][1]:
        what = f"unread bytes are dropped, and the kernel sends {client} a reset"
    elif state in ("ESTABLISHED", "CLOSE-WAIT"):
        what = f"the kernel sends FIN to {client}"
    else:
        what = f"the connection with {client} is closed at both ends"
    return f"close(): descriptor {fd} is free, and {what}."


def shut(call, event, before):
    return f"shutdown(): the kernel sends FIN to {whose(call)}." if call["given"] != "0" else ""


def slept(call, event, before):
    return f"time.sleep({call['given']:g}) is over."


def unblocked(call, event, before):
    if call["given"] != "False":
        return f"Calls on descriptor {call['fd']} block from now on."
    return f"From now on no call on descriptor {call['fd']} blocks: BlockingIOError is raised."


CALLS = {
    "accept": accepted,
    "recv": received,
    "recv_into": received,
    "send": sent,
    "sendall": sent,
    "poll": polled,
    "select": polled,
    "register": watched,
    "modify": watched,
    "unregister": watched,
    "close": closed,
    "shutdown": shut,
    "sleep": slept,
    "setblocking": unblocked,
}


# Looking things up in the recording


def kernel(event):
    return event["kernel"] if event else None


def rows_of(event):
    return event["kernel"]["connections"] if event else []


def connection(number, event):
    return next((row for row in rows_of(event) if row["client"] == number), None)


def owner(fd, *events):
    """Return whose a descriptor is: "client 2", "the listening socket", or what else it is."""
    for event in filter(None, events):
        for row in rows_of(event):
            if row["fd"] == fd:
                return f"client {row['client']}"
        if fd == event["kernel"]["listener"]:
            return "the listening socket"
    for event in filter(None, events):  # after a reset only the program still knows it
        if named := re.search(rf"(client \d+) \(descriptor {fd}\)", str(event["variables"])):
            return named[1]
    return ""


def named_descriptor(fd, *events):
    """Return "descriptor 5 (client 2)"."""
    whose = owner(fd, *events)
    return f"descriptor {fd} ({whose})" if whose else f"descriptor {fd}"


def whose(call):
    return call["remote"] or f"descriptor {call['fd']}"


def bytes_(count):
    return f"{count:,} byte{' is' if count == 1 else 's are'}"


def reason(call):
    """Return what an exception says, without its number: ": Too many open files"."""
    text = re.sub(r"^\w+: ?(\[Errno \d+\] )?", "", call["error"])
    return f": {text}" if text else ""
