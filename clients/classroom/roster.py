"""The roster: all clients of a server, those that keys control and external ones."""

import time
from typing import NamedTuple

from clients.classroom.scripted_clients import MOST, ScriptedClient
from clients.classroom.server_monitor import Connection


class ClientRow(NamedTuple):
    """What the screen shows of one client."""

    label: str
    state: str
    seconds: float  # in that state
    talk: str  # what it sent and received
    connection: Connection | None  # None: the kernel has none


class Roster:
    """The clients and their labels, "client 1" or "g1"; chosen is one of these.

    scripted: {number: ScriptedClient}. names: {"host:port": label}, in order of arrival, also of
    clients that have left. external: {"host:port": when it came (time.monotonic)}. offset: by how
    many clients the panels are scrolled.
    """

    def __init__(self):
        self.address, self.came, self.scripted = None, 0, {}
        self.names, self.external = {}, {}
        self.chosen, self.offset = None, 0

    def reconnect(self, address):
        """Connect the same scripted clients to a new server; they do again what they did."""
        self.address, self.names, self.external = address, {}, {}
        for old in list(self.scripted.values()):
            old.leave()
            client = self._connect(old.number)
            if old.times:
                client.send()
            if not old.reading:
                client.toggle_reading()

    def add(self, count):
        """Connect more scripted clients, MOST in all; the last one is chosen."""
        for _ in range(min(count, MOST - len(self.scripted))):
            self.came += 1
            self.choose(self._connect(self.came).label)

    def _connect(self, number):
        client = self.scripted[number] = ScriptedClient(number, self.address)
        self.names[client.name] = client.label
        return client

    def empty(self):
        """Let all scripted clients leave; the next one is client 1 again."""
        for client in self.scripted.values():
            client.leave()
        self.scripted, self.came = {}, 0
        self.choose(None)

    def choose(self, label):
        self.chosen, self.offset = label, 0

    def choose_next(self, step):
        """Choose the client that is step places below the chosen one, or the first one."""
        present = {one.name for one in self.scripted.values()} | self.external.keys()
        labels = [label for name, label in self.names.items() if name in present]
        if labels:
            place = labels.index(self.chosen) + step if self.chosen in labels else 0
            self.choose(labels[max(0, min(place, len(labels) - 1))])

    def chosen_client(self):
        """Return the chosen ScriptedClient; None if there is none, or it is an external one."""
        return next((one for one in self.scripted.values() if one.label == self.chosen), None)

    def chosen_name(self):
        """Return the "host:port" of the chosen client, or None."""
        return next((name for name, label in self.names.items() if label == self.chosen), None)

    def rows(self, connections, said):
        """Return a ClientRow for each client, in order of arrival; external ones get their labels.

        said: {"host:port": what it said}.
        """
        found = {one.client: one for one in connections}
        for name, one in found.items():
            if one.server_state and name not in self.names:
                self.external[name] = time.monotonic()
                self.names[name] = f"g{1 + sum(label[0] == 'g' for label in self.names.values())}"
        self.external = {name: at for name, at in self.external.items() if name in found}
        scripted = {one.name: one for one in self.scripted.values()}
        rows = []
        for name, label in self.names.items():
            here = found.get(name)
            if one := scripted.get(name):
                state = "no server socket" if here and here.is_half_open else one.state
                rows.append(ClientRow(label, state, one.seconds(), one.talk(), here))
            elif since := self.external.get(name):
                state = "queued" if here.queued else "closed" if here.fd is None else "connected"
                talk = f"{name} said {said[name]}" if name in said else f"{name} has said nothing"
                rows.append(ClientRow(label, state, time.monotonic() - since, talk, here))
            elif here:
                rows.append(ClientRow(label, "left", 0.0, "", here))
        return rows

    def visible(self, rows, room):
        """Return the rows that both panels show, from the offset on; room: how many fit.

        If not all fit: the chosen one first, then the external ones, then those in SYN-SENT.
        """
        if len(rows) <= room:
            self.offset = 0
            return rows
        scripted = {one.label for one in self.scripted.values()}
        rest = [row for row in rows if row.label != self.chosen]
        rest.sort(key=lambda row: (row.label in scripted, row.state != "connecting"))
        self.offset = max(0, min(self.offset, len(rest) - room + 2))
        return [row for row in rows if row.label == self.chosen] + rest[self.offset :]
