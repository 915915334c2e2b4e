"""Event loop with a coroutine for each client: asyncio's streams.

Run it: python3 load_tests/alternatives/asyncio_streams.py --port 3267
"""

import asyncio
import functools
import logging

from common import run


def start(listener, options, answer=None):
    """Return what serves. answer(chunk), which can be awaited, replaces --wait and the greeting."""
    return functools.partial(asyncio.run, main(listener, options, answer))


async def main(listener, options, answer):
    handle = functools.partial(converse, options=options, answer=answer)
    # --backlog again: asyncio calls listen() once more, by default with 100.
    server = await asyncio.start_server(handle, sock=listener, backlog=options.backlog)
    await server.serve_forever()


async def converse(reader, writer, options, answer):
    remote = writer.get_extra_info("peername") or ("gone", 0)  # reset before accept()
    bytes_received = 0
    logging.info("%s:%d connected", *remote)
    try:
        while chunk := await reader.read(1024):
            logging.info("%s:%d said %r", *remote, chunk)
            bytes_received += len(chunk)
            if options.wait and not answer:
                await asyncio.sleep(options.wait)
            writer.write(await answer(chunk) if answer else options.greet(chunk))
            await writer.drain()
    except OSError as error:
        logging.info("%s:%d connection lost: %s", *remote, error)
    finally:
        writer.close()
    logging.info("%s:%d left, %d bytes received", *remote, bytes_received)


if __name__ == "__main__":
    run(start, __doc__)
