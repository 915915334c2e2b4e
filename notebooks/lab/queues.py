"""Experiments on the queues of a listening socket: who finds room, and who waits outside."""

import contextlib
import functools
import time

from .emulated_link import SYN, Lab
from .traced_calls import PORT, accept, experiment, listener, observed, together


@experiment
def accept_queue(backlog, arrivals, seconds, settings=None, accept_at=None, delay=0.005):
    """Clients connect to a server that does not accept.

    arrivals: when each of them comes, in seconds. settings: {name: number}, for both machines.
    accept_at: when the server takes one connection.
    Returns observed() and "clients": [{"port", "began", "connected" (None: never), "error"}, ...],
    "queue": the length of the accept queue at the end, "counted": how much the server's counters
    grew, "ends": {"client": {port: state}, "server": {port: state}} at the end, "watched": seconds.
    """
    with Lab(delay) as lab, contextlib.ExitStack() as stack:
        for name, value in (settings or {}).items():
            for machine in lab.machines.values():
                machine.set(name, value)
        listening = stack.enter_context(listener(lab, backlog))
        before, stop = lab.server.counters(), lab.now() + seconds

        def come(at):
            sock = stack.enter_context(lab.client.socket())
            return newcomer(lab, sock, at, stop)

        def take_one():
            if accept_at is not None:
                pause_until(lab, accept_at)
                stack.enter_context(accept(lab, listening))

        *clients, _ = together(*(functools.partial(come, at) for at in arrivals), take_one)
        return observed(
            lab,
            clients=sorted(clients, key=lambda client: client["began"]),
            queue=accept_queue_length(lab),
            counted=grown(before, lab.server.counters()),
            ends=ends(lab),
            watched=seconds,
        )


def pause_until(lab, moment):
    time.sleep(max(0, moment - lab.now()))


def newcomer(lab, sock, at, stop):
    """Connect at a moment, and wait until another one for an error; return what came of it."""
    pause_until(lab, at)
    data = {"began": lab.now(), "connected": None, "error": None}
    try:
        sock.settimeout(max(0.01, stop - lab.now()))
        sock.connect((lab.server.address, PORT))
        data["connected"] = lab.now()
        sock.settimeout(max(0.01, stop - lab.now()))
        sock.recv(1024)
    except TimeoutError:
        pass
    except OSError as error:
        data["error"] = type(error).__name__
    return data | {"port": sock.getsockname()[1]}


def accept_queue_length(lab):
    return next(row["unread"] for row in lab.server.sockets() if row["state"] == "LISTEN")


def grown(before, after):
    """Return the counters that grew, and by how much."""
    return {name: after[name] - before[name] for name in after if after[name] > before[name]}


def ends(lab):
    """Return the state of each connection at each end: {end: {the client's port: state}}."""
    found = {}
    for end, machine in lab.machines.items():
        rows = [row for row in machine.sockets() if row["to"]]
        found[end] = {row["port"] if end == "client" else row["to"]: row["state"] for row in rows}
    return found


@experiment
def syn_queue(backlog, clients, max_syn_backlog=None, cookies=1, seconds=0.3, delay=0.005):
    """Handshakes that cannot finish, since the cable loses the clients' last part of each.

    max_syn_backlog, cookies: for net.ipv4.tcp_max_syn_backlog and tcp_syncookies at the server.
    Then the cable is mended, and each client that believes itself connected says "bob".
    Returns "half_open": connections in SYN-RECEIVED at the server before that, "believing":
    clients in ESTABLISHED before that, "queue": the accept queue afterwards, "counted": what the
    server counted, "limit": the setting that holds.
    """
    with Lab(delay, lambda packet: packet.sender == "client" and not packet.flags & SYN) as lab:
        lab.server.set("net.ipv4.tcp_syncookies", cookies)
        if max_syn_backlog:
            lab.server.set("net.ipv4.tcp_max_syn_backlog", max_syn_backlog)
        with listener(lab, backlog), contextlib.ExitStack() as stack:
            before, crowd = lab.server.counters(), []
            for _ in range(clients):
                sock = stack.enter_context(lab.client.socket())
                sock.setblocking(False)
                sock.connect_ex((lab.server.address, PORT))
                crowd.append(sock)
                time.sleep(3 * delay)
            time.sleep(seconds)
            states = ends(lab)
            lab.loses = None
            for sock in crowd:
                with contextlib.suppress(OSError):
                    sock.send(b"bob")
            time.sleep(0.15)  # less than the 0.2 s after which a client says it again
            return {
                "clients": clients,
                "half_open": list(states["server"].values()).count("SYN-RECEIVED"),
                "believing": list(states["client"].values()).count("ESTABLISHED"),
                "queue": accept_queue_length(lab),
                "counted": grown(before, lab.server.counters()),
                "limit": lab.server.get("net.ipv4.tcp_max_syn_backlog"),
            }
