"""The roster: all clients of a server, those that keys control and external ones."""

import time

from clients.classroom import panels
from clients.classroom.scripted_clients import MOST, ScriptedClient


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
        before, self.scripted, self.names, self.external = self.scripted, {}, {}, {}
        self.address = address
        for old in before.values():
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

    def move(self):
        for client in list(self.scripted.values()):
            client.move()

    def empty(self):
        """Let all scripted clients leave; the next one is client 1 again."""
        for client in self.scripted.values():
            client.leave()
        self.scripted, self.came = {}, 0
        self.choose(None)

    def meet(self, connections):
        """Give each client that connected from elsewhere a label; sort the connections."""
        for row in connections:
            if row.server_state and row.client not in self.names:
                self.external[row.client] = time.monotonic()
                self.names[row.client] = f"g{len(self.external)}"
        place = {name: at for at, name in enumerate(self.names)}
        connections.sort(key=lambda row: place.get(row.client, len(place)))

    def choose(self, label):
        self.chosen, self.offset = label, 0

    def choose_next(self, step, people):
        """Choose the client that is step places below the chosen one, or the first one."""
        if labels := list(people):
            place = labels.index(self.chosen) + step if self.chosen in labels else 0
            self.choose(labels[max(0, min(place, len(labels) - 1))])

    def chosen_client(self):
        """Return the chosen ScriptedClient; None if there is none, or it is an external one."""
        return next((one for one in self.scripted.values() if one.label == self.chosen), None)

    def chosen_name(self):
        """Return the "host:port" of the chosen client, or None."""
        return next((name for name, label in self.names.items() if label == self.chosen), None)

    def people(self, monitor):
        """Return {label: Person} of all clients that are there, in order of arrival."""
        rows = {row.client: row for row in monitor.connections}
        lost = {name for name, row in rows.items() if row.states in (panels.LOST, panels.HALF_OPEN)}
        people = {
            one.label: panels.scripted(one, one.name in lost) for one in self.scripted.values()
        }
        for name, since in self.external.items():
            if name in rows:
                label, seconds = self.names[name], time.monotonic() - since
                people[label] = panels.external(rows[name], label, monitor.said.get(name), seconds)
        return people

    def order(self, people, room):
        """Return the labels in the order in which both panels show them, from the offset on.

        If not all fit: the chosen one first, then the external ones, then those in SYN-SENT.
        """
        if len(people) <= room:
            self.offset = 0
            return list(people)

        def last(label):
            return label in scripted, people[label].state != "connecting"

        scripted = {one.label for one in self.scripted.values()}
        rest = sorted((label for label in people if label != self.chosen), key=last)
        self.offset = max(0, min(self.offset, len(rest) - room + 2))
        return [self.chosen] * (self.chosen in people) + rest[self.offset :]
