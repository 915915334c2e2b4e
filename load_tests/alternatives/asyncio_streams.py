"""Event loop with a coroutine for each client: asyncio's streams.

Run it: python3 load_tests/alternatives/asyncio_streams.py --port 3267
"""

import asyncio
import logging

from common import run


def serve(listener, options):
    asyncio.run(main(listener, options))


async def main(listener, options, answer=None):
    """Serve; answer(chunk), a coroutine, takes the place of --wait and the greeting."""

    async def handle(reader, writer):
        await converse(reader, writer, options, answer)

    # --backlog once more: asyncio calls listen() again, with 100 if it is not told.
    server = await asyncio.start_server(handle, sock=listener, backlog=options.backlog)
    await server.serve_forever()


async def converse(reader, writer, options, answer):
    peer = writer.get_extra_info("peername") or ("gone", 0)  # reset before accept()
    heard = 0
    logging.info("%s:%d connected", *peer)
    try:
        while chunk := await reader.read(1024):
            logging.info("%s:%d said %r", *peer, chunk)
            heard += len(chunk)
            if options.wait and not answer:
                await asyncio.sleep(options.wait)
            writer.write(await answer(chunk) if answer else options.greet(chunk))
            await writer.drain()
    except OSError as error:
        logging.info("%s:%d broke off: %s", *peer, error)
    finally:
        writer.close()
    logging.info("%s:%d left, %d bytes heard", *peer, heard)


if __name__ == "__main__":
    run(serve, __doc__)
