"""The client of all the servers: it sends a message and reads the greeting.

python3 clients/client.py                      a prompt; Ctrl-D or Ctrl-C ends it
python3 clients/client.py --message bob        one greeting
printf 'ann\\nbob\\n' | python3 clients/client.py   a greeting for each line
"""

import argparse
import contextlib
import errno
import os
import socket
import sys

HOST, PORT = "127.0.0.1", 3267
LONGEST = 1024  # bytes: the servers read as many with one recv()
PREFIX = b"Hello, "
START = "start a server there first, for example: python3 01_blocking/server.py"
HINTS = {  # for errors of connect() whose own words are not enough
    errno.ECONNREFUSED: START,
    errno.EADDRNOTAVAIL: "no local port is free (net.ipv4.ip_local_port_range); close connections",
    errno.EMFILE: "it may have no more descriptors (ulimit -n); close connections",
}


class Client(contextlib.AbstractContextManager):
    """One connection to a greeting server.

    The protocol has no framing: a server greets each chunk that one recv(1024) returns. So
    a client has at most one message of at most 1,024 bytes in flight, and reads
    len(message) + 7 bytes before it sends the next. Then each chunk is one message.

    host, port: where the server listens. timeout: seconds for the connection and for each
    step of a greeting; None waits forever.

    The constructor connects. It raises ConnectionError if no server listens there,
    TimeoutError if the connection was not made in time, ValueError if there is no such host
    or port. After an error the connection is closed: a late reply to one message must not be
    taken for the reply to the next.
    """

    def __init__(self, host=HOST, port=PORT, timeout=10.0):
        self.server = f"{host}:{port}"
        if not 0 < port < 65536:  # the resolver would drop the higher bits
            raise ValueError(f"there is no port {port}: take one from 1 to 65535")
        if ":" in host:
            raise ValueError(f"{host} is an IPv6 address: take an IPv4 one, such as 127.0.0.1")
        try:
            self.socket = socket.create_connection((host, port), timeout)
        except TimeoutError as error:
            raise TimeoutError(
                f"no connection to {self.server} within {timeout} s: its accept queue may be "
                "full; wait until a client leaves, or give the server a larger --backlog"
            ) from error
        except socket.gaierror as error:
            raise ValueError(f"there is no host {host}: {error}; check its name") from error
        except OSError as error:
            hint = f"; {HINTS[error.errno]}" if error.errno in HINTS else ""
            raise ConnectionError(f"cannot connect to {self.server}: {error}{hint}") from error
        if self._is_connected_to_itself():
            self.close()
            raise ConnectionError(
                f"cannot connect to {self.server}: no server listens there, and the kernel chose "
                f"the same port for this client, which connected to itself; {START}"
            )

    def _is_connected_to_itself(self):
        """Return True if both ends are this socket (RFC 9293, 3.5: a simultaneous open)."""
        with contextlib.suppress(OSError):  # the server has reset the connection already
            return self.socket.getsockname() == self.socket.getpeername()
        return False

    def greet(self, message):
        """Send message (1 to 1,024 bytes) and return the whole greeting, len(message) + 7 bytes.

        Raises ValueError for a message of another length, TimeoutError if the greeting did not
        come in time, ConnectionError if the server closed the connection or replied wrongly.
        """
        if not 1 <= len(message) <= LONGEST:
            raise ValueError(
                f"a message has 1 to {LONGEST} bytes and this one {len(message)}: "
                "send at least one character, and cut a longer message into pieces"
            )
        expected = PREFIX + message
        try:
            self.socket.sendall(message)
            greeting = self._receive(len(expected))
        except TimeoutError as error:
            self.close()
            raise TimeoutError(
                f"no greeting from {self.server} within {self.socket.gettimeout()} s: it may be "
                "serving another client; connect again when that has left"
            ) from error
        except OSError as error:
            self.close()
            raise ConnectionError(
                f"lost {self.server}: {error}; look at its log, and connect again if it still runs"
            ) from error
        if greeting == expected:
            return greeting
        self.close()
        if not greeting:
            raise ConnectionError(f"{self.server} closed the connection; look at its log")
        raise ConnectionError(
            f"{self.server} replied {greeting!r} and not {expected!r}: "
            "it is not a greeting server, or it closed the connection; look at its log"
        )

    def _receive(self, size):
        """Return the next size bytes, or fewer if the server closes the connection before."""
        received = b""
        while len(received) < size:  # TCP may deliver a greeting in pieces
            if not (chunk := self.socket.recv(size - len(received))):
                break
            received += chunk
        return received

    def close(self):
        """Close the connection; may be called twice."""
        self.socket.close()

    def __exit__(self, *exc_info):
        self.close()


def prompted_messages():
    """Yield each line typed at the prompt, as bytes, until Ctrl-D."""
    while True:
        try:
            yield os.fsencode(input("say something: "))
        except EOFError:
            print()
            return


def greet_all(client, messages):
    """Send each message and print the greeting; return 1 if a message was refused, else 0."""
    status = 0
    for message in messages:
        try:
            print(client.greet(message).decode(errors="backslashreplace"), flush=True)
        except ValueError as error:  # empty or too long: nothing was sent
            print(error, file=sys.stderr)
            status = 1
    return status


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default=HOST, help="a name or an IPv4 address")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--timeout", type=float, help="seconds; without it, wait forever")
    parser.add_argument("--message", type=os.fsencode, help="send this, print the greeting, end")
    args = parser.parse_args()
    if args.timeout is not None and not 0 < args.timeout < 1e6:
        parser.error("--timeout takes a number of seconds above 0")
    if args.message is None and sys.stdin is None:
        parser.error("standard input is closed: give a --message")
    for stream in (sys.stdout, sys.stderr):
        if stream:  # None: it is closed
            stream.reconfigure(errors="backslashreplace")  # for a terminal that has only ASCII
    try:
        with Client(args.host, args.port, args.timeout) as client:
            if args.message is not None:
                return greet_all(client, [args.message])
            if not sys.stdin.isatty():
                return greet_all(client, (line.rstrip(b"\r\n") for line in sys.stdin.buffer))
            print(f"connected to {client.server}; Ctrl-D ends")
            return greet_all(client, prompted_messages())
    except KeyboardInterrupt:
        print()
        return 0
    except (OSError, ValueError) as error:
        return str(error)


if __name__ == "__main__":
    sys.exit(main())
