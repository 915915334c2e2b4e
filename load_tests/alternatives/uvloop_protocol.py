"""Event loop in C: the asyncio.Protocol of asyncio_protocol.py, run by uvloop (libuv).

Run it: .venv/bin/python load_tests/alternatives/uvloop_protocol.py --port 3267
"""

import sys

import asyncio_protocol
from common import run

try:
    import uvloop
except ModuleNotFoundError:
    sys.exit("there is no uvloop here, and none for Windows: run this in a Linux container")


def start(listener, options):
    return asyncio_protocol.start(listener, options, uvloop.run)


if __name__ == "__main__":
    run(start, __doc__)
