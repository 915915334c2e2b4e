"""What has happened in a step, in one or two short sentences, from what was recorded of it.

Nothing here depends on a program's names. Where the calls, the variables, the kernel's state and
the kind of statement do not show what has happened, a sentence gives the next line only.
"""

import ast
import functools
import re

from clients.trace.calls import EVENTS, METHODS

LONGEST = 80  # characters of a line of the log, of a variable
WORDS = 20  # of a sentence about variables, at most
# Calls of the kernel that a sentence names; a function of the program may have the same name
CALLS = {name.lstrip("_") for name in METHODS}
CALLS |= {"poll", "register", "modify", "unregister", "sleep"}
UNSENT = {  # why a client sends nothing, by its connection's state
    "ESTABLISHED": "no buffer has room for more bytes",
    "SYN-SENT": "its connection is still in SYN-SENT",
}
# What a call finds that would block
EMPTY = {"accept": "the accept queue empty", "send": "no room in the send buffer"}
EMPTY |= dict.fromkeys(("recv", "recv_into"), "nothing to read")
STATEMENT = ast.stmt, ast.ExceptHandler
# What a statement has done if the next line is outside its block, and if it is inside
STATEMENTS = {
    "If": ("The condition is false", "The condition is true"),
    "While": ("The condition is false", "The condition is true"),
    "For": ("The loop is over", "The loop takes the next one"),
    "With": ("The block is left", "The block begins"),
    "ExceptHandler": ("This handler is not for it", "The exception is caught here"),
}


def sentence(event, before, lines):
    """Return what has happened in an event. before: the event before it, or None."""
    if before is None:
        fd = event["kernel"]["listener"]
        return f"The server listens: descriptor {fd} is its listening socket."
    match event["kind"]:
        case "client":
            return of_clients(event, before)
        case "time":
            return of_time(event, before)
        case "end":
            parts = [f"{thread_name(event)} has ended."]
        case "sleep":
            parts = [*of_calls(event, before), of_blocking(event)]
        case "call":
            parts = [*of_calls(event, before), of_call(event)]
        case _:
            parts = of_line(event, before) or [of_statement(event, lines)]
    if come := syn_sent(event, before, "ESTABLISHED"):
        parts.append(f"Meanwhile the SYN of {come} was retransmitted, and found room.")
    return " ".join(parts)


def of_clients(event, before):
    """Return what a client, or several, did, and where the bytes are now."""
    [number, *others], does = event["actors"], event["does"]
    row, was = (row_with("client", number, one) for one in (event, before))
    name, state = f"Client {number}", (was or row)["client_state"]
    match does:
        case "connects":
            return of_connections(event)
        case _ if others:
            return f"Clients {number} to {others[-1]}: {does}."
        case "sends" | "floods" if not event["sent"]:
            why = UNSENT.get(state, "the server has closed the connection")
            return f"{name} sends nothing: {why}."
        case "sends":
            return f"{name} sends {event['words']}: {where(row)}"
        case "floods":
            return f"{name} sends what fits, {event['sent']:,} bytes: {where(row)}"
        case "reads":
            had, count = was["buffers"][3], event["received"]
            more = f", {count - had:,} of which have arrived meanwhile" if count > had else ""
            return f"{name} reads {count:,} bytes from its receive buffer{more}."
        case "stops reading":
            return f"{name} stops reading: what arrives stays in its receive buffer."
        case "leaves" if state not in ("ESTABLISHED", "CLOSE-WAIT"):
            return f"{name} leaves: it has no connection."
        case "leaves" if was["buffers"][3]:
            return f"{name} closes with unread bytes, so its kernel sends a reset (RST)."
        case "leaves":
            return f"{name} closes its connection: its kernel sends FIN, after all its bytes."
    dropped = ", and drops the bytes in its buffers" * bool(was["buffers"][0] or was["buffers"][3])
    return f"{name} resets its connection: its kernel sends RST{dropped}."


def of_connections(event):
    rows = [row_with("client", number, event) for number in event["actors"]]
    queued = sum(row["queued"] for row in rows)
    dropped = ", ".join(str(row["client"]) for row in rows if row["client_state"] == "SYN-SENT")
    text = f"Client {rows[0]['client']} connects"
    if len(rows) > 1:
        where = "fill the accept queue" if dropped else "are in the accept queue"
        text = f"{len(rows)} clients connect: {queued} connections {where}"
    elif queued:
        text += ": the kernels complete the handshake; the connection is in the accept queue, "
        text += "unknown to the program"
    return f"{text}; the SYN of {dropped} is dropped." if dropped else f"{text}."


def of_time(event, before):
    """Return what a pause has brought: SYNs that were retransmitted, sleeps that are over."""
    outside, inside = syn_sent(event, before, "SYN-SENT"), syn_sent(event, before, "ESTABLISHED")
    asleep = any(thread["call"] == "clock_nanosleep" for thread in before["threads"])
    parts = [f"the retransmitted SYN of {inside} finds room in the accept queue"] * bool(inside)
    parts += [f"{outside} stays in SYN-SENT"] * bool(outside)
    parts += ["a thread has slept long enough"] * asleep
    return f"Time passes: {'; '.join(parts)}." if parts else "Time passes."


def syn_sent(event, before, state):
    """Return the clients, "7, 8", that were in SYN-SENT and are in a state now."""
    then = {
        row["client"]
        for row in before["kernel"]["connections"]
        if row["client_state"] == "SYN-SENT"
    }
    rows = [row for row in event["kernel"]["connections"] if row["client_state"] == state]
    return ", ".join(str(row["client"]) for row in rows if row["client"] in then)


def where(row):
    """Return where the bytes are that a client has sent and the program has not read."""
    unsent, unread = row["buffers"][:2]
    if row["server_state"] is None:
        return "the server has closed the connection, and does not get them."
    if unsent:
        theirs = f"{unsent:,} in the client's send buffer"
        return f"{unread:,} are in the server's receive buffer, {theirs}."
    of = f"descriptor {row['fd']}" if row["fd"] else "a connection that is not accepted yet"
    return f"{unread:,} byte{' is' if unread == 1 else 's are'} in the receive buffer of {of}."


def thread_name(event):
    name = event["name"]
    others = [one["name"] for one in event["threads"] if one["id"] != event["thread"]]
    if name.startswith("client "):
        return f"{'A' if name in others else 'The'} thread of {name}"
    return f"A thread named {name}" if name in others else f"Thread {name}"


def function_name(event):
    """Return a function's name so that it is not taken for a call of the kernel."""
    name = event["function"]
    return f"{name}() of the program" if name.rpartition(".")[2] in CALLS else f"{name}()"


def of_blocking(event):
    call, row, waits_in = event["call"], row_with("fd", event["fd"], event), event["waits_in"]
    pending = next((one for one in event["calls"] if not one["done"]), None)
    name = pending and pending["name"]
    match call, waits_in:
        case "accept" | "accept4", _ if not event["kernel"]["queue"]:
            return "accept() blocks: the accept queue is empty."
        case "recvfrom", _ if name and row and not any(row["buffers"][:2]):
            return f"{name}() blocks: client {row['client']} has sent nothing more."
        case "sendto", _ if row and name in ("send", "sendall"):
            rest = f" for {row['in_program']:,} of {pending['given']:,} bytes"
            rest = rest if name == "sendall" else ""
            return f"{name}() blocks: there is no room{rest} until client {row['client']} reads."
        case "epoll_wait" | "epoll_pwait", _:
            return "epoll.poll() blocks: its ready list is empty."
        case "poll" | "ppoll", _ if name == "poll":
            return "poll() blocks: no descriptor that it watches is ready."
        case "clock_nanosleep", _ if name == "sleep":
            return f"time.sleep({pending['given']:g}): the thread sleeps."
        case "futex", ["Queue.get", "Condition.wait", *_] | ["SimpleQueue.get"]:
            return f"{waits_in[0]}() blocks: the queue is empty."
        case "futex", ["Queue.put", "Condition.wait", *_]:
            return "Queue.put() blocks: the queue is full."
        case "futex", [function, *_]:
            return f"The thread is blocked in {function}()."
    return f"The thread is blocked in the system call {call}."


def of_call(event):
    function, how = function_name(event), event["how"]
    if how == "resumed":
        return f"{function} goes on where it was suspended."
    text = f"{function} {'starts' if how == 'started' else 'is called'}"
    if how in ("begins", "callback"):
        who = f"{thread_name(event)} begins: it" if how == "begins" else "Another file"
        text = f"{who} calls {function}"
    values = [(name, event["variables"][name]) for name in event["arguments"]]
    shown = [f"{name} = {value}" for name, value in values if len(value) <= LONGEST][:3]
    given = ", ".join(fitting(shown, WORDS - len(f"{text} with".split())))
    return f"{text} with {given}." if given else f"{text}."


def fitting(parts, room):
    """Return the first of these texts, as many as have together at most this many words."""
    return [part for at, part in enumerate(parts) if len(" ".join(parts[: at + 1]).split()) <= room]


def of_line(event, before):
    """Return sentences of what a line of the program has done; [] if it has called nothing."""
    parts = of_calls(event, before)
    if event["log"] and event["alone"]:
        last = event["log"].strip().splitlines()[-1]
        parts.append(f"It logs “{last if len(last) <= LONGEST else last[:LONGEST] + '…'}”.")
    if event["kind"] == "exception" and not any(call["error"] for call in event["calls"]):
        parts.append(f"The line raises {event['value'].removesuffix(': ').removesuffix('.')}.")
    if event["kind"] == "return":
        parts.append(of_return(event))
    return parts or ["A new thread has started."] * event["starts"]


def of_return(event):
    function, value = function_name(event), event["value"] or "None"
    if event["how"] == "raised":
        return f"{function} is left by an exception."
    is_over = event["how"] != "suspended"
    what = "" if value == "None" else f" {value}" if is_over else f": it yields {value}"
    return f"{function} {'returns' if is_over else 'is suspended'}{what}."


def of_statement(event, lines):
    """Return what a statement has done that has called nothing of the kernel."""
    news = " and ".join(fitting(news_of(event), WORDS - 2))
    line, onward = event["next_line"], f"on to line {event['next_line']}"
    node = statements("\n".join(lines)).get(event["line"])
    kind, body = type(node).__name__.removeprefix("Async"), getattr(node, "body", None)
    inside = bool(body) and body[0].lineno <= line <= body[-1].end_lineno
    head = getattr(node, "test", getattr(node, "iter", node))
    in_head = kind in ("If", "While", "For") and head.lineno < line <= head.end_lineno
    if in_head or kind not in STATEMENTS or (news and kind in ("If", "While", "With")):
        return f"Now {news}." if news else f"{onward.capitalize()}, in {event['function']}()."
    if kind == "With" and inside:
        names = [ast.unparse(item.context_expr) for item in node.items]
        held = [event["variables"].get(name, "") for name in names]
        if any(text.startswith("connection with") for text in held):
            return "The connection will be closed when this block is left."
    is_next = kind == "For" and inside and news
    return f"{STATEMENTS[kind][inside]}: {news if is_next else onward}."


def news_of(event):
    """Return ["n is 3", ...] of at most three variables that have changed."""
    found, whole = [], {name.partition(".")[0] for name in event["changed"] if "." in name}
    names = [name for name in event["changed"] if name not in whole]  # or its fields say it
    for name in names[:3]:
        values = event["changed"][name] or "", event["variables"][name]
        then, now = (set(re.findall(r"\bclient \d+", text)) for text in values)
        if max(map(len, values)) <= LONGEST:
            found.append(f"{name} is {values[1]}")
        elif len(then ^ now) != 1 or re.search("…|^[^[({]|closed", "".join(values)):
            found.append(f"{name} has changed")
        else:
            [client] = then ^ now
            what = f"in {name}, too ({len(now)} in all)"
            gone = f"no longer in {name} ({len(now)} left)"
            found.append(f"{client} is {what if then < now else gone}")
    return found


@functools.cache
def statements(text):
    """Return {line: the statement or the handler that begins there} of a program, nodes of ast."""
    nodes = [one for one in ast.walk(ast.parse(text)) if isinstance(one, STATEMENT)]
    return {one.lineno: one for one in reversed(nodes)}


def of_calls(event, before):
    """Return a sentence for each call that has returned or raised."""
    calls = [call for call in event["calls"] if call["done"]]
    if len(calls) > 1:  # a look at what is ready that has found nothing
        calls = [call for call in calls if call["events"] != []]
    return [text for call in calls if (text := of_kernel_call(call, event, before))]


def of_kernel_call(call, event, before):
    """Return what a call to the kernel has brought; "" if that is not known."""
    name, fd, error = call["name"], call["fd"], call["error"]
    if error:
        return of_error(call, event)
    remote = call["remote"] or f"descriptor {fd}"
    match name:
        case "accept":
            row = row_with("fd", call["target"], event)
            taken = f"client {row['client']}" if row else "a connection"
            return f"accept() takes {taken} from the accept queue: descriptor {call['target']}."
        case "recv" | "recv_into":
            result = call["text"] if name == "recv" else call["count"]
            moved = f"{call['count']:,} byte{' moves' if call['count'] == 1 else 's move'}"
            onward = f"{moved} from the receive buffer to the program"
            ended = f"{remote} sends no more (end of file)"
            return f"{name}() returns {result}: {onward if call['count'] else ended}."
        case "send" | "sendall" if call["count"] < call["given"]:
            part, rest = f"{call['count']:,} of {call['given']:,}", call["given"] - call["count"]
            return f"{name}() hands {part} bytes to the kernel: no room for the other {rest:,}."
        case "send" | "sendall":
            return f"{name}() hands all {call['given']:,} bytes to the kernel, for {remote}."
        case "poll":
            name = "epoll.poll" if call["owner"] == "epoll" else name
            names = []
            for one, mask in call["events"]:  # the event mask is named if it is not the usual one
                events = " ".join(event for event, bit in EVENTS.items() if mask & bit)
                more = "" if events == "IN" else f": {events}"
                names.append(named_descriptor(one, before, event) + more)
            none = "nothing: no descriptor that it watches is ready"
            return f"{name}() reports {', '.join(names) or none}."
        case "register" | "modify" | "unregister":
            return of_interest(call, event, before)
        case "close":
            return of_close(fd, event, before)
        case "sleep":
            return f"time.sleep({call['given']:g}) is over."
        case "setblocking" if call["given"] == "False":
            return f"From now on no call on descriptor {fd} blocks: BlockingIOError is raised."
        case "setblocking":
            return f"Calls on descriptor {fd} block from now on."
    return ""


def of_error(call, event):
    name, (kind, _, reason) = call["name"], call["error"].partition(": ")
    if kind == "BlockingIOError":
        return f"{name}() finds {EMPTY.get(name, 'that it would block')}, and raises {kind}."
    reason = re.sub(r"^\[Errno \d+\] ", "", reason)
    if name == "accept":
        more = " A new connection needs a descriptor, and none is left: it stays in the queue."
        if not event["kernel"]["queue"]:  # seen with strace: EMFILE, and the queue is empty
            more = " It takes a descriptor before it looks at the queue, which is empty."
        return f"accept() fails: {reason}.{more * ('[Errno 24]' in call['error'])}"
    if kind == "ConnectionResetError" and call["remote"]:
        reason = f"{call['remote']} has reset the connection"
    return f"{name}() raises {kind}{': ' if reason else ''}{reason}."


def of_interest(call, event, before):
    fd, mask = call["target"], call["given"]
    name = "epoll" if call["owner"] == "epoll" else "poll()"
    if call["name"] == "unregister":
        return f"{name} no longer watches {named_descriptor(fd, before, event)}."
    of, is_listener = named_descriptor(fd, event, before), fd == event["kernel"]["listener"]
    wanted = ["new connections" if is_listener else "bytes to read"] * bool(mask & EVENTS["IN"])
    wanted += ["room to write"] * bool(mask & EVENTS["OUT"])
    if not wanted:
        return f"{name} reports no event of {of} for now."
    how = ", edge-triggered" if mask & EVENTS["ET"] else ""
    how += ", for one report" if mask & EVENTS["ONESHOT"] else ""
    then, now = (
        [one["events"] for one in state["kernel"]["epoll"] or () if one["fd"] == fd]
        for state in (before, event)
    )
    still = "still " if call["name"] == "modify" and then and then == now else ""
    return f"{name} {still}watches {of} for {' and '.join(wanted)}{how}."


def of_close(fd, event, before):
    if fd in event["kernel"]["descriptors"]:
        return ""  # another object still uses it
    text, then = f"close(): descriptor {fd} is free", row_with("fd", fd, before)
    if then is None or then["server_state"].startswith("FIN-WAIT"):  # after shutdown()
        return f"{text}."
    client, now = f"client {then['client']}", row_with("client", then["client"], event)
    if then["buffers"][1]:
        return f"{text}, and unread bytes are dropped, and the kernel sends {client} a reset."
    if then["client_state"] not in ("ESTABLISHED", "CLOSE-WAIT"):
        return f"{text}, and the connection with {client} is closed at both ends."
    what = "FIN" if now["client_state"] else "a reset"
    return f"{text}, and the kernel sends {what} to {client}."


def row_with(key, value, event):
    """Return the connection of a client, or that with a descriptor; None if there is none."""
    return next((row for row in event["kernel"]["connections"] if row[key] == value), None)


def named_descriptor(fd, *events):
    """Return "descriptor 5 (client 2)", "descriptor 3 (the listening socket)", "descriptor 9"."""
    for event in events:
        if row := row_with("fd", fd, event):
            return f"descriptor {fd} (client {row['client']})"
        if fd == event["kernel"]["listener"]:
            return f"descriptor {fd} (the listening socket)"
    for event in events:  # after a reset only the program still knows it
        if named := re.search(rf"(client \d+) \(descriptor {fd}\)", str(event["variables"])):
            return f"descriptor {fd} ({named[1]})"
    return f"descriptor {fd}"
