"""Event loop with a callback for each event: an asyncio.Protocol, asyncio's lower layer.

Run it: python3 load_tests/alternatives/asyncio_protocol.py --port 3267
"""

import asyncio
import functools
import logging

from common import run


def start(listener, options, run=asyncio.run):
    return functools.partial(run, main(listener, options))


async def main(listener, options):
    loop = asyncio.get_running_loop()
    greeter = functools.partial(Greeter, loop, options)
    server = await loop.create_server(greeter, sock=listener, backlog=options.backlog)
    await server.serve_forever()


class Greeter(asyncio.Protocol):
    """One connection."""

    def __init__(self, loop, options):
        self.loop, self.options = loop, options
        self.bytes_received, self.full = 0, False

    def connection_made(self, transport):
        self.transport = transport
        self.remote = transport.get_extra_info("peername") or ("gone", 0)  # reset before accept()
        logging.info("%s:%d connected", *self.remote)

    def data_received(self, data):
        logging.info("%s:%d said %r", *self.remote, data)
        self.bytes_received += len(data)
        if self.options.wait:
            self.transport.pause_reading()  # or the next answer would overtake this one
            self.loop.call_later(self.options.wait, self.answer, data)
        else:
            self.answer(data)

    def answer(self, data):
        for start in range(0, len(data), 1024):  # asyncio and uvloop read up to 256 KiB at once
            self.transport.write(self.options.greet(data[start : start + 1024]))
        if self.options.wait and not self.full:
            self.transport.resume_reading()

    def pause_writing(self):  # a client that does not read: its answers fill the send buffer
        self.full = True
        self.transport.pause_reading()

    def resume_writing(self):
        self.full = False
        self.transport.resume_reading()

    def connection_lost(self, error):
        if error:
            logging.info("%s:%d connection lost: %s", *self.remote, error)
        logging.info("%s:%d left, %d bytes received", *self.remote, self.bytes_received)


if __name__ == "__main__":
    run(start, __doc__)
