"""The client of all the servers: it says something, and reads the greeting.

python3 clients/client.py                      a prompt; Ctrl-D or Ctrl-C ends it
python3 clients/client.py --message bob        one greeting
printf 'ann\\nbob\\n' | python3 clients/client.py   a greeting for each line
"""

import argparse
import os
import socket
import sys

HOST, PORT = "127.0.0.1", 3267
LONGEST = 1024  # bytes: what the servers take with one recv()
PREFIX = b"Hello, "


class Client:
    """One connection to a greeting server.

    The protocol has no framing: a server greets each chunk that one recv(1024) hands it. So
    a client keeps one message of at most 1,024 bytes in flight, and reads len(message) + 7
    bytes before it sends the next. That makes one chunk one message.

    host, port: where the server listens. timeout: the longest wait in seconds for the
    connection and for each step of a greeting; None waits for ever.

    The constructor connects, and raises ConnectionError if nobody listens there, TimeoutError
    if no answer came in time, ValueError if there is no such host or port. A connection that
    raised an error is closed: the late answer to one question must not pass for the answer
    to the next.
    """

    def __init__(self, host=HOST, port=PORT, timeout=10.0):
        self.server = f"{host}:{port}"
        if not 0 < port < 65536:  # the resolver would cut off the higher bits
            raise ValueError(f"there is no port {port}: take one from 1 to 65535")
        if ":" in host:
            raise ValueError(f"{host} is an IPv6 address: take an IPv4 one, as 127.0.0.1")
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
            raise ConnectionError(
                f"cannot connect to {self.server}: {error}; start a server there first, "
                "for example: python3 01_blocking/server.py"
            ) from error

    def greet(self, message):
        """Send message (1 to 1,024 bytes) and return the whole greeting, len(message) + 7 bytes.

        Raises ValueError for a message of another length, TimeoutError if the server has not
        answered in time, ConnectionError if it closed the connection or answered wrongly.
        """
        if not 1 <= len(message) <= LONGEST:
            raise ValueError(
                f"a message has 1 to {LONGEST} bytes and this one {len(message)}: "
                "say at least one character, cut what is longer into pieces"
            )
        expected = PREFIX + message
        try:
            self.socket.sendall(message)
            greeting = self._receive(len(expected))
        except TimeoutError as error:
            self.close()
            raise TimeoutError(
                f"no greeting from {self.server} within {self.socket.gettimeout()} s: it may be "
                "serving somebody else; connect again when a client has left"
            ) from error
        except OSError as error:
            self.close()
            raise ConnectionError(
                f"lost {self.server}: {error}; look at its log, and connect again if it still runs"
            ) from error
        if not greeting:
            self.close()
            raise ConnectionError(f"{self.server} closed the connection; look at its log")
        if greeting != expected:
            self.close()
            raise ConnectionError(
                f"{self.server} answered {greeting!r} and not {expected!r}: "
                "it is no greeting server, or it closed the connection; look at its log"
            )
        return greeting

    def _receive(self, size):
        """Return the next size bytes, fewer if the server ends the connection before."""
        received = b""
        while len(received) < size:  # TCP may hand a greeting over in pieces
            chunk = self.socket.recv(size - len(received))
            if not chunk:
                break
            received += chunk
        return received

    def close(self):
        """Close the connection; may be called twice."""
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()


def typed():
    """Yield what is typed at the prompt, as bytes, until Ctrl-D."""
    while True:
        try:
            yield os.fsencode(input("say something: "))
        except EOFError:
            print()
            return


def piped():
    """Yield each line of standard input, as bytes, without its end."""
    for line in sys.stdin.buffer:
        yield line.rstrip(b"\r\n")


def converse(client, messages):
    """Greet with each message and print the answers; return 1 if a message was refused."""
    status = 0
    for message in messages:
        try:
            print(client.greet(message).decode(errors="backslashreplace"), flush=True)
        except ValueError as error:  # empty or too long: nothing was sent, so go on
            print(error, file=sys.stderr)
            status = 1
    return status


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default=HOST, help="a name or an IPv4 address")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--timeout", type=float, help="seconds; without it, wait for ever")
    parser.add_argument("--message", type=os.fsencode, help="say this, print the answer, leave")
    args = parser.parse_args()
    if args.timeout is not None and not 0 < args.timeout < 1e6:
        parser.error("--timeout takes a number of seconds above 0")
    if not 0 < args.port < 65536:
        parser.error("--port takes a number from 1 to 65535")
    if args.message is None and sys.stdin is None:
        parser.error("standard input is closed: say it with --message")
    for stream in (sys.stdout, sys.stderr):
        if stream:  # None: it is closed
            stream.reconfigure(errors="backslashreplace")  # for a terminal that has ASCII only
    try:
        with Client(args.host, args.port, args.timeout) as client:
            if args.message is not None:
                return converse(client, [args.message])
            if not sys.stdin.isatty():
                return converse(client, piped())
            print(f"connected to {client.server}; Ctrl-D ends")
            return converse(client, typed())
    except KeyboardInterrupt:
        print()
        return 0
    except (OSError, ValueError) as error:
        return str(error)


if __name__ == "__main__":
    sys.exit(main())
