"""The roster: all clients of a server, those that keys control and external ones."""

import time

from clients.classroom.panels import HALF_OPEN, LOST, Person
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
        labels = [one.label for one in self.scripted.values()]
        labels += [self.names[name] for name in self.external]
        if labels:
            place = labels.index(self.chosen) + step if self.chosen in labels else 0
            self.choose(labels[max(0, min(place, len(labels) - 1))])

    def chosen_client(self):
        """Return the chosen ScriptedClient; None if there is none, or it is an external one."""
        return next((one for one in self.scripted.values() if one.label == self.chosen), None)

    def chosen_name(self):
        """Return the "host:port" of the chosen client, or None."""
        return next((name for name, label in self.names.items() if label == self.chosen), None)

    def meet(self, connections):
        """Return {label: Connection} in order of arrival; external clients get their labels."""
        rows = {row.client: row for row in connections}
        for name, row in rows.items():
            if row.server_state and name not in self.names:
                self.external[name] = time.monotonic()
                self.names[name] = f"g{len(self.external)}"
        self.external = {name: at for name, at in self.external.items() if name in rows}
        return {label: rows[name] for name, label in self.names.items() if name in rows}

    def people(self, rows, said):
        """Return {label: Person} of all clients. rows: from meet(). said: from the server's log."""
        people = {}
        for one in self.scripted.values():
            states = rows[one.label].states if one.label in rows else None
            state = "no server socket" if states in (LOST, HALF_OPEN) else one.state
            people[one.label] = Person(one.label, state, one.seconds(), one.talk())
        for name, since in self.external.items():
            label, row = self.names[name], rows[self.names[name]]
            state = "queued" if row.queued else "closed" if row.fd is None else "connected"
            talk = f"{name} said {said[name]}" if name in said else f"{name} has said nothing"
            people[label] = Person(label, state, time.monotonic() - since, talk)
        left = rows.keys() - people.keys()
        return people | {label: Person(label, "left", 0.0, "") for label in left}

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
