"""Event loop in C: the asyncio.Protocol of asyncio_protocol.py, run by uvloop (libuv).

Run it: .venv/bin/python load_tests/alternatives/uvloop_protocol.py --port 3267
"""

import sys

from asyncio_protocol import main
from common import run

try:
    import uvloop
except ModuleNotFoundError:
    sys.exit("there is no uvloop here, and none for Windows: run this in a Linux container")


def serve(listener, options):
    uvloop.run(main(listener, options))


if __name__ == "__main__":
    run(serve, __doc__)
